//! Binding and serving: a bounded number of connections, each with its time limits.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use axum::Router;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::api::{ApiState, router};
use super::connection::{self, Phase};

/// How long requests may go on after a stop.
const GRACE: Duration = Duration::from_secs(2);

/// How long an address that is in use is waited for, and how often it is looked at.
const TAKEN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// How long no connection is accepted after one could not be.
const PAUSE: Duration = Duration::from_millis(200);

/// What clients may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time. Each is a file descriptor, and broker and store need some as well.
    pub(super) connections: usize,
    /// From the opening of a connection to the end of its first header.
    pub(super) opening: Duration,
    /// For the body of a request to come in.
    pub(super) body: Duration,
    /// For an answer to be made.
    pub(super) answer: Duration,
    /// From an answer until it is read and the next request is there.
    pub(super) idle: Duration,
}

/// No client of ours waits for more than 30 seconds.
pub(super) const LIMITS: Limits = Limits {
    connections: 128,
    opening: Duration::from_secs(10),
    body: Duration::from_secs(10),
    answer: Duration::from_secs(28),
    idle: Duration::from_secs(30),
};

/// The admin API's address cannot be used.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address} for the admin API: {source} (choose another address by http.bind or --bind)"
)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Takes the admin API's address, before anything else is begun. Whoever has it may be about to end, such as
/// the process that this one replaces: that is waited for, but not for long.
///
/// # Errors
/// The address is in use, or not of this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let deadline = Instant::now() + TAKEN;
    loop {
        match TcpListener::bind(address).await {
            Err(source) if source.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
            }
            bound => return bound.map_err(|source| BindError { address, source }),
        }
    }
}

/// Serves the admin API until `shutdown` resolves. Requests that are under way then get two more seconds;
/// after that, whatever clients do, every connection is closed and every read of the store cancelled.
pub async fn serve(listener: TcpListener, state: ApiState, shutdown: impl Future<Output = ()>) {
    serve_within(LIMITS, listener, state, shutdown).await;
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    state: ApiState,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopping) = watch::channel(false);
    let (tasks, open) = (JoinSet::new(), HashMap::new());
    let mut clients = Clients { limits, router: router(state, limits), stopping, tasks, open };
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = clients.tasks.join_next_with_id() => {
                clients.open.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => clients.take(stream),
                Err(error) => {
                    warn!(%error, "the API cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all_ended = async { while clients.tasks.join_next().await.is_some() {} };
    // Those that are left are ended as they are dropped.
    let _ = timeout(GRACE, all_ended).await;
}

/// The open connections.
struct Clients {
    limits: Limits,
    router: Router,
    stopping: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, watch::Receiver<Phase>)>,
}

impl Clients {
    /// Serves a connection. Where there are too many, the one that has been idle for longest gives way: who only
    /// holds connections keeps nobody out.
    fn take(&mut self, stream: TcpStream) {
        if self.open.len() >= self.limits.connections && !self.close_idle() {
            debug!("too many requests at a time: a connection is refused");
            let refusal =
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.try_write(refusal);
            return;
        }
        let (phase, told) = watch::channel(Phase::opening(self.limits));
        let serving =
            connection::serve(stream, self.router.clone(), self.limits, phase, self.stopping.clone());
        let handle = self.tasks.spawn(serving);
        self.open.insert(handle.id(), (handle, told));
    }

    /// Closes the connection that has been idle for longest; false if all are busy.
    fn close_idle(&mut self) -> bool {
        let idle = self.open.iter().filter_map(|(id, (_, phase))| Some((phase.borrow().idle_since()?, *id)));
        let Some((_, id)) = idle.min() else { return false };
        if let Some((handle, _)) = self.open.remove(&id) {
            handle.abort();
        }
        true
    }
}
