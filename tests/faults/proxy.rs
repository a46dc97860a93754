//! A proxy between AMQP clients and a broker, which understands enough of AMQP 0-9-1 to do harm at a
//! chosen point, and to write down what passed.
//!
//! ```text
//!             ┌───────────────── Proxy ─────────────────┐
//!  client ──> │ relay: frames ──> faults ──> journal ──> │ ──> broker
//!         <── │                                          │ <──
//!             └──────────────────────────────────────────┘
//! ```
//!
//! A connection is told by the name that the client gives it (`sagamq consumer`, `sagamq publisher`,
//! `sagamq probe`); that name is known before the client can do anything.

mod fault;
mod frame;
mod journal;
mod method;
mod relay;

pub(crate) use fault::{Fault, How, Way};
pub(crate) use journal::{Record, Verdict, What};

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use relay::Link;

/// A proxy on a port of its own. Dropping it ends it, and every connection through it.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    pub(crate) port: u16,
    user: String,
    /// Everything here runs on it; taken when the proxy is dropped.
    runtime: Option<Runtime>,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Door {
    /// It is led to the broker.
    Open,
    /// It is reset.
    Refusing,
    /// It is accepted, and nothing is ever said: a handshake that stalls.
    Silent,
}

/// What the proxy's tasks share.
struct Shared {
    upstream: Mutex<SocketAddr>,
    door: Mutex<Door>,
    /// Faults for the next connection of a name.
    armed: Mutex<Vec<(String, Fault)>>,
    links: Mutex<Vec<Arc<Link>>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    journal: journal::Journal,
    connections: AtomicU64,
}

impl Proxy {
    /// Starts a proxy before the broker at `url`, and returns once it takes connections.
    pub(crate) fn start(url: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (user, upstream) = parts(url);
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            door: Mutex::new(Door::Open),
            armed: Mutex::default(),
            links: Mutex::default(),
            counts: Mutex::default(),
            journal: journal::Journal::default(),
            connections: AtomicU64::new(0),
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Self { shared, port, user, runtime: Some(runtime) }
    }

    /// The URL to connect to, with the broker's user, and heartbeats every second.
    pub(crate) fn url(&self) -> String {
        format!("amqp://{}@127.0.0.1:{}/%2f?heartbeat=1", self.user, self.port)
    }

    /// Leads further connections to the broker at `url`.
    pub(crate) fn retarget(&self, url: &str) {
        *self.shared.upstream.lock().unwrap() = parts(url).1;
    }

    /// Says what becomes of further connections.
    pub(crate) fn set_door(&self, door: Door) {
        *self.shared.door.lock().unwrap() = door;
    }

    /// Puts a fault on every present connection of this name, and returns how many there are.
    pub(crate) fn inject(&self, name: &str, fault: Fault) -> usize {
        let links = self.links(name);
        for link in &links {
            link.inject(fault);
        }
        links.len()
    }

    /// Puts a fault on the next connection of this name, from its name on.
    pub(crate) fn arm(&self, name: &str, fault: Fault) {
        self.shared.armed.lock().unwrap().push((name.to_owned(), fault));
    }

    /// Takes away what is armed or injected, closes what is stalled, and opens the door.
    pub(crate) fn heal(&self) {
        self.set_door(Door::Open);
        self.shared.armed.lock().unwrap().clear();
        for link in self.shared.links.lock().unwrap().iter() {
            link.heal();
        }
    }

    /// How many connections of this name are present.
    pub(crate) fn connections(&self, name: &str) -> usize {
        self.links(name).len()
    }

    /// How often each kind of fault took place.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.shared.counts.lock().unwrap().clone()
    }

    /// How often this kind of fault took place.
    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.counts().get(kind).copied().unwrap_or_default()
    }

    /// What passed so far, in order.
    pub(crate) fn journal(&self) -> Vec<Record> {
        self.shared.journal.snapshot()
    }

    fn links(&self, name: &str) -> Vec<Arc<Link>> {
        let links = self.shared.links.lock().unwrap();
        links.iter().filter(|link| link.is_named(name)).cloned().collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn count(&self, kind: &'static str) {
        *self.counts.lock().unwrap().entry(kind).or_default() += 1;
    }

    /// Takes the faults that wait for a connection of this name.
    fn armed_for(&self, name: &str) -> Vec<Fault> {
        let mut armed = self.armed.lock().unwrap();
        armed.extract_if(.., |(wanted, _)| wanted == name).map(|(_, fault)| fault).collect()
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut silent = Vec::new();
    // An error concerns the one connection, such as one that was gone again already.
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let door = *shared.door.lock().unwrap();
        match door {
            Door::Open => {
                silent.clear();
                let number = shared.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(lead(client, number, Arc::clone(&shared)));
            }
            Door::Refusing => {
                shared.count("refused");
                // Best effort: without it the connection ends by FIN instead of RST.
                let _ = client.set_zero_linger();
            }
            Door::Silent => {
                shared.count("stalled_handshake");
                silent.push(client);
            }
        }
    }
}

/// Leads one connection to the broker, until one side or a fault ends it.
async fn lead(client: TcpStream, number: u64, shared: Arc<Shared>) {
    let upstream = *shared.upstream.lock().unwrap();
    // A broker that is away is seen by the client as a connection that ends at once.
    let Ok(broker) = TcpStream::connect(upstream).await else { return };
    let link = Arc::new(Link::new(number));
    shared.links.lock().unwrap().push(Arc::clone(&link));
    relay::relay(client, broker, &link, &shared).await;
    shared.links.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &link));
}

/// User with password, and address, of a URL such as those of throw-away brokers.
fn parts(url: &str) -> (String, SocketAddr) {
    let (user, rest) = url.strip_prefix("amqp://").and_then(|rest| rest.split_once('@')).expect("a full URL");
    let address = rest.split(['/', '?']).next().unwrap_or_default();
    (user.to_owned(), address.parse().expect("an address and a port"))
}
