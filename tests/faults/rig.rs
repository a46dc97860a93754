//! The rig of one test: the real orchestrator behind a proxy, participants and a tap past it, and a folder
//! in which the evidence gathers.
//!
//! ```text
//!  rig ──orders──> broker <──> participants ──> *.ledger
//!                  │    ^
//!                  v    └──proxy──> orchestrator ──> store/
//!                 tap ──> messages.jsonl
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::options::QueueBindOptions;
use lapin::types::FieldTable;
use sagamq::checker::{self, Report};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::evidence::{Folder, Lines, lines, now};
use crate::load::Load;
use crate::orchestrator::{Running, Site};
use crate::participant::{Behaviour, Service};
use crate::peer::{self, Brokers, Peer};
use crate::power::Disk;
use crate::proxy::{Proxy, Record, Verdict, What};
use crate::{PATIENCE, eventually, eventually_within, tap};

/// Name of the saga.
pub(crate) const SAGA: &str = "parcel";
/// The services, each with an exchange and a ledger.
const SERVICES: [&str; 3] = ["stock", "payment", "shipping"];

/// Everything that one test needs.
pub(crate) struct Rig {
    /// First part of all names at the broker.
    pub(crate) prefix: String,
    /// Between the orchestrator and the broker.
    pub(crate) proxy: Proxy,
    /// Where the orchestrator lives.
    pub(crate) site: Site,
    // Before the folder, which may be removed after it has ended.
    running: Option<Running>,
    // Also before the folder, which it is mounted in.
    disk: Option<Disk>,
    intruder: Option<Intruder>,
    folder: Folder,
    brokers: Brokers,
    patience: Duration,
    working: watch::Sender<bool>,
    placed: Arc<Lines>,
    tap: JoinHandle<()>,
    faults: Mutex<BTreeMap<String, u64>>,
    runtime: Runtime,
}

/// A second orchestrator with the same prefix, and a store of its own.
pub(crate) struct Intruder {
    proxy: Proxy,
    site: Site,
    // Ends before the folder of the rig, which it lives in.
    running: Option<Running>,
}

impl Intruder {
    fn new(folder: &Path, broker_url: &str, prefix: &str) -> Self {
        let folder = folder.join("intruder");
        std::fs::create_dir(&folder).unwrap();
        let proxy = Proxy::start(broker_url);
        let mut site = Site::new(&folder, &proxy.url(), prefix);
        site.set("SAGAMQ_DEFINITIONS", "../sagas");
        Self { proxy, site, running: None }
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn ends(&mut self) -> Option<i32> {
        let running = self.running.as_mut().expect("it was started");
        let mut code = None;
        eventually("the second orchestrator ends", || {
            code = running.exit_code();
            code.is_some()
        });
        code
    }

    /// Waits until it is ready.
    pub(crate) fn is_ready(&self) {
        eventually("the second orchestrator is ready", || self.site.is_ready());
    }

    /// What it has said.
    pub(crate) fn log(&self) -> String {
        self.site.log()
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        self.running.take().expect("it was started").kill();
    }
}

/// What a test leaves: a folder of evidence, and how every instance ended.
pub(crate) struct Evidence {
    folder: Folder,
    statuses: BTreeMap<String, String>,
    /// What the checker says.
    pub(crate) report: Report,
    /// What passed the proxy.
    pub(crate) journal: Vec<Record>,
}

impl Rig {
    /// Builds the rig, with names that begin with `name`, and waits until the orchestrator is ready.
    pub(crate) fn start(name: &str, broker_url: &str) -> Self {
        let mut rig = Self::build(name, &[broker_url.to_owned()]);
        rig.restart();
        rig
    }

    /// Builds the rig over a broker of one or more nodes, without its orchestrator.
    pub(crate) fn build(name: &str, broker_urls: &[String]) -> Self {
        let brokers = Brokers::new(broker_urls);
        let prefix = format!("{name}-{}", std::process::id());
        let folder = Folder::new(&prefix);
        std::fs::create_dir(folder.path().join("sagas")).unwrap();
        let saga = include_str!("saga.yaml").replace("PREFIX", &prefix);
        std::fs::write(folder.path().join("sagas/saga.yaml"), saga).unwrap();
        let proxy = Proxy::start(brokers.first());
        let site = Site::new(folder.path(), &proxy.url(), &prefix);
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let placed = Arc::new(Lines::open(&folder.path().join("placed.jsonl")));
        let (working, _) = watch::channel(true);
        let queue = format!("{prefix}.tap");
        let path = folder.path().join("messages.jsonl");
        let bindings = ["orders"].iter().chain(&SERVICES).map(|name| (format!("{prefix}.{name}"), "#"));
        let bindings: Vec<_> = bindings.collect();
        runtime.block_on(async {
            brokers.connect().await.unwrap().make_queue(&queue, &bindings).await.unwrap();
        });
        let tap = runtime.spawn(tap::drain(brokers.clone(), queue, path));
        for name in SERVICES {
            let (prefix, brokers, working) = (prefix.clone(), brokers.clone(), working.subscribe());
            let service = Service { name, prefix, brokers, working, placed: Arc::clone(&placed) };
            let folder = folder.path().to_owned();
            runtime.spawn(async move { service.serve(&folder).await });
        }
        Self {
            prefix,
            proxy,
            site,
            folder,
            brokers,
            disk: None,
            intruder: None,
            patience: PATIENCE,
            running: None,
            working,
            placed,
            tap,
            faults: Mutex::default(),
            runtime,
        }
    }

    /// Has a second saga share the events of every order of the load.
    pub(crate) fn watch(&self) {
        let saga = include_str!("watch.yaml").replace("PREFIX", &self.prefix);
        std::fs::write(self.folder.path().join("sagas/watch.yaml"), saga).unwrap();
    }

    /// Has a second orchestrator, with another store, try to run on the same prefix. It has its way only with a bug.
    pub(crate) fn intrude(&mut self, failpoints: &str) -> &mut Intruder {
        if self.intruder.is_none() {
            let intruder = Intruder::new(self.folder.path(), self.brokers.first(), &self.prefix);
            self.intruder = Some(intruder);
        }
        self.faulted("second_owner");
        let intruder = self.intruder.as_mut().expect("it was made");
        intruder.running = Some(intruder.site.start(failpoints));
        intruder
    }

    /// Ends the second orchestrator.
    pub(crate) fn end_intruder(&mut self) {
        self.intruder.as_mut().expect("there is one").end();
    }

    /// Has the orchestrator keep its store on a disk of its own.
    pub(crate) fn keep_store_on(&mut self, disk: Disk) {
        self.site.set("SAGAMQ_STORE__PATH", disk.path().join("store").to_str().unwrap());
        self.disk = Some(disk);
    }

    /// That disk.
    pub(crate) fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the store is on a disk of its own")
    }

    /// How long everything may take at the end.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Starts the orchestrator. `failpoints` say where it dies by itself, or which bugs it has.
    pub(crate) fn boot(&mut self, failpoints: &str) {
        self.running = Some(self.site.start(failpoints));
    }

    /// The process, while there is one.
    pub(crate) fn orchestrator(&mut self) -> &mut Running {
        self.running.as_mut().expect("it runs")
    }

    /// Starts the orchestrator, also after it was killed, waits until it is ready, and writes down how long
    /// that took.
    pub(crate) fn restart(&mut self) {
        self.boot("");
        self.recover();
    }

    /// Waits until the orchestrator that was started is ready, and writes down how long that took.
    fn recover(&mut self) {
        let since = Instant::now();
        self.is_ready();
        self.recovered_since(since);
    }

    /// The same over a broker of several nodes, which are led to in turn as a balancer of load would.
    pub(crate) fn recover_over(&mut self, urls: &[String]) {
        let since = Instant::now();
        let mut next = urls.iter().cycle();
        eventually_within(self.patience, "the orchestrator is ready", || {
            next.next().inspect(|url| self.proxy.retarget(url));
            self.site.is_ready()
        });
        self.recovered_since(since);
    }

    fn recovered_since(&self, since: Instant) {
        let recoveries = Lines::open(&self.folder.path().join("recoveries.jsonl"));
        recoveries.add(&json!({"ms": since.elapsed().as_millis() as u64}));
    }

    /// Writes down how far the ledgers are: from here on, only what was delivered before is delivered again.
    pub(crate) fn replays_from_here(&self) {
        let replayed = Lines::open(&self.folder.path().join("replayed.jsonl"));
        for name in SERVICES {
            let entries = lines(&self.folder.path().join(format!("{name}.ledger"))).len();
            replayed.add(&json!({"participant": name, "entries": entries}));
        }
    }

    /// Waits until the orchestrator is ready; false if it ends before.
    pub(crate) fn starts(&mut self) -> bool {
        let (site, running) = (&self.site, self.running.as_mut().expect("it was started"));
        let mut ended = false;
        eventually("the orchestrator is ready or ends", || {
            ended = running.exit_code().is_some();
            ended || site.is_ready()
        });
        !ended
    }

    /// Waits until the orchestrator is ready.
    pub(crate) fn is_ready(&mut self) {
        let (site, running) = (&self.site, self.running.as_mut().expect("it was started"));
        eventually("the orchestrator is ready", || {
            assert_eq!(running.exit_code(), None, "it ended: {}", site.log());
            site.is_ready()
        });
    }

    /// Ends the orchestrator by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.end();
        self.faulted("orchestrator_kill");
    }

    /// Ends the orchestrator by SIGKILL as a part of another fault.
    pub(crate) fn end(&mut self) {
        self.running.take().expect("it runs").kill();
    }

    /// Where the evidence gathers.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Binds the queues of a service, and of the tap, to the service's exchange, or takes them off.
    pub(crate) fn bind(&self, service: &str, bound: bool) {
        let exchange = format!("{}.{service}", self.prefix);
        let queues = [format!("{exchange}.commands"), format!("{}.tap", self.prefix)];
        self.blocking(async |peer| {
            for queue in &queues {
                let (queue, exchange, none) = (queue.as_str(), exchange.as_str(), FieldTable::default());
                if bound {
                    let options = QueueBindOptions::default();
                    peer.channel.queue_bind(queue.into(), exchange.into(), "#".into(), options, none).await?;
                } else {
                    peer.channel.queue_unbind(queue.into(), exchange.into(), "#".into(), none).await?;
                }
            }
            Ok(Some(()))
        });
    }

    /// Has all participants stop or go on taking commands.
    pub(crate) fn set_working(&self, working: bool) {
        self.working.send_replace(working);
    }

    /// Counts a fault that is not the proxy's.
    pub(crate) fn faulted(&self, kind: &str) {
        *self.faults.lock().unwrap().entry(kind.to_owned()).or_default() += 1;
    }

    /// Places orders of every fate all the time, until the load is dropped.
    pub(crate) fn load(&self, pause: Duration) -> Load {
        let (exchange, placed) = (format!("{}.orders", self.prefix), Arc::clone(&self.placed));
        let is_watched = self.folder.path().join("sagas/watch.yaml").exists();
        Load::start(&self.runtime, self.brokers.clone(), exchange, placed, pause, is_watched)
    }

    /// Places an order, and returns once the broker has it. `behaviours` are by routing key of the command.
    pub(crate) fn place(&self, key: &str, behaviours: &[(&str, Behaviour)]) {
        self.place_all(&[key.to_owned()], behaviours);
    }

    /// Places orders side by side, again and again until the broker has all of them.
    pub(crate) fn place_all(&self, keys: &[String], behaviours: &[(&str, Behaviour)]) {
        let behaviour: BTreeMap<_, _> = behaviours.iter().copied().collect();
        let mut open: Vec<_> = keys.iter().collect();
        self.blocking(async |peer| {
            let placing = open.iter().map(|key| {
                let (exchange, id) = (format!("{}.orders", self.prefix), start_id(key));
                let body = json!({"order_id": key, "behaviour": behaviour}).to_string();
                async move { peer.publish(&exchange, "order.placed", peer::json(&id), body.as_bytes()).await }
            });
            let mut taken = join_all(placing).await.into_iter();
            let mut result = Ok(Some(()));
            open.retain(|key| match taken.next() {
                Some(Err(error)) => {
                    result = Err(error);
                    true
                }
                _ => {
                    self.placed.add(&json!({
                        "message_id": start_id(key), "what": "start", "saga": SAGA, "business_key": key,
                        "at": now(),
                    }));
                    false
                }
            });
            result
        });
    }

    /// Publishes what nobody can use to one of the orchestrator's queues.
    pub(crate) fn place_garbage(&self, queue: &str, message_id: &str, body: &[u8]) {
        let queue = format!("{}.{queue}", self.prefix);
        self.blocking(async |peer| peer.publish("", &queue, peer::json(message_id), body).await.map(Some));
        self.placed.add(&json!({"message_id": message_id, "what": "garbage", "at": now()}));
    }

    /// Does something at the broker, past the proxy, until it yields a value; a broker that fails is tried
    /// again.
    pub(crate) fn blocking<T>(&self, mut what: impl AsyncFnMut(&Peer) -> lapin::Result<Option<T>>) -> T {
        let trying = async {
            loop {
                if let Ok(peer) = self.brokers.connect().await {
                    while let Ok(done) = peer::answered(what(&peer)).await {
                        match done {
                            Some(value) => return value,
                            None => sleep(Duration::from_millis(20)).await,
                        }
                    }
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        self.runtime.block_on(async { timeout(PATIENCE, trying).await }).expect("the broker does it in time")
    }

    /// The statuses of all instances by business key, as far as the orchestrator answers.
    pub(crate) fn statuses(&self) -> BTreeMap<String, String> {
        let mut statuses = BTreeMap::new();
        let mut path = "sagas?limit=500".to_owned();
        while let Some(page) = self.site.get(&path) {
            for item in page["items"].as_array().into_iter().flatten() {
                statuses.insert(text(&item["business_key"]), text(&item["status"]));
            }
            let Some(next) = page["next"].as_str() else { break };
            path = format!("sagas?limit=500&cursor={next}");
        }
        statuses
    }

    /// Waits until an order has this status.
    pub(crate) fn becomes(&self, key: &str, status: &str) {
        let mut last = None;
        eventually(&format!("order {key} is {status}"), || {
            let found = self.statuses().remove(key);
            if found != last {
                println!("order {key} is {found:?}");
                last = found;
            }
            last.as_deref() == Some(status)
        });
    }

    /// All about one order, as the API tells it.
    pub(crate) fn details(&self, key: &str) -> Value {
        let page = self.site.get(&format!("sagas?business_key={key}")).expect("the orchestrator answers");
        let id = text(&page["items"][0]["id"]);
        self.site.get(&format!("sagas/{id}")).expect("the orchestrator answers")
    }

    /// The most memory that the orchestrator had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.running.as_ref().expect("it runs").peak_memory()
    }

    /// What was published to the exchanges of the saga so far.
    pub(crate) fn messages(&self) -> Vec<Value> {
        lines(&self.folder.path().join("messages.jsonl"))
    }

    /// Takes every fault away, waits until every order has ended, stops everything in good order, and judges
    /// what came of it.
    pub(crate) fn finish(self) -> Evidence {
        let evidence = self.close(true);
        assert!(evidence.report.passed(), "{}", evidence.report);
        evidence
    }

    /// The same where orders may be lost: returns what the checker says.
    pub(crate) fn finish_anyhow(self) -> Report {
        self.close(false).report
    }

    /// Takes every fault away, and waits until every instance has ended, of all orders if these may be
    /// counted on, and nothing waits for the orchestrator at the broker.
    pub(crate) fn calm_down(&mut self, all_orders: bool) -> BTreeMap<String, String> {
        self.proxy.heal();
        self.set_working(true);
        self.is_ready();
        let placed = self.placed();
        let orders: Vec<_> = placed.iter().filter_map(|line| line["business_key"].as_str()).collect();
        let mut statuses = BTreeMap::new();
        eventually_within(self.patience, "every order has ended", || {
            statuses = self.statuses();
            let has_ended =
                |status: &String| matches!(status.as_str(), "completed" | "compensated" | "parked");
            let is_there = |key: &&str| statuses.contains_key(*key);
            statuses.values().all(has_ended) && self.is_idle() && (!all_orders || orders.iter().all(is_there))
        });
        statuses
    }

    /// Publishes up to `count` start events once more that were there already. Nothing may come of it.
    pub(crate) fn place_again(&self, count: usize) {
        self.replays_from_here();
        let exchange = format!("{}.orders", self.prefix);
        for message in self.messages().iter().filter(|message| message["key"] == "order.placed").take(count) {
            let (id, body) = (text(&message["message_id"]), text(&message["body"]));
            self.blocking(async |peer| {
                peer.publish(&exchange, "order.placed", peer::json(&id), body.as_bytes()).await.map(Some)
            });
        }
    }

    /// Has the orchestrator use a user of its own, with a password that nothing may tell.
    pub(crate) fn keep_secret(&mut self, user: &str, password: &str) {
        std::fs::write(self.folder.path().join("secret"), password).unwrap();
        let url = self.proxy.url().replace("guest:guest", &format!("{user}:{password}"));
        self.site.set("SAGAMQ_BROKER__URL", &url);
    }

    fn placed(&self) -> Vec<Value> {
        lines(&self.folder.path().join("placed.jsonl"))
    }

    fn close(mut self, all_orders: bool) -> Evidence {
        let statuses = self.calm_down(all_orders);
        let placed = self.placed();
        let code = self.running.take().expect("it runs").stop();
        assert_eq!(code, Some(0), "it did not stop: {}", self.site.log());
        if let Some(disk) = self.disk.take() {
            copy(&disk.path().join("store"), &self.folder.path().join("store"));
        }
        self.drain_tap();
        self.drain_dead(&placed);
        self.write_acks();
        self.write_faults();
        let report = checker::Folder::read(self.folder.path()).unwrap().check();
        Evidence { folder: self.folder, statuses, report, journal: self.proxy.journal() }
    }

    /// Whether nothing waits for the orchestrator at the broker.
    fn is_idle(&self) -> bool {
        ["events", "replies"].iter().all(|queue| {
            let queue = format!("{}.{queue}", self.prefix);
            self.blocking(async |peer| Ok(Some(peer.depth(&queue).await? == 0)))
        })
    }

    /// Has the tap take all that is there.
    fn drain_tap(&mut self) {
        let queue = format!("{}.tap", self.prefix);
        self.publish_last(&queue);
        let ended = self.runtime.block_on(async { timeout(self.patience, &mut self.tap).await });
        ended.expect("the tap ends").unwrap();
    }

    /// Takes the dead letters, once all that was placed as garbage is among them.
    fn drain_dead(&self, placed: &[Value]) {
        let queue = format!("{}.dead", self.prefix);
        let path = self.folder.path().join("dead.jsonl");
        let garbage: Vec<_> =
            placed.iter().filter(|line| line["what"] == "garbage").map(|line| &line["message_id"]).collect();
        self.blocking(async |peer| Ok((peer.depth(&queue).await? as usize >= garbage.len()).then_some(())));
        self.publish_last(&queue);
        self.runtime.block_on(tap::drain(self.brokers.clone(), queue, path.clone()));
        let dead = lines(&path);
        for id in garbage {
            assert!(dead.iter().any(|letter| letter["message_id"] == *id), "{id} is no dead letter");
        }
    }

    fn publish_last(&self, queue: &str) {
        let last = peer::json(tap::LAST);
        self.blocking(async |peer| peer.publish("", queue, last.clone(), b"").await.map(Some));
    }

    fn write_acks(&self) {
        let acks = Lines::open(&self.folder.path().join("acks.jsonl"));
        let own = self.proxy.journal().into_iter().map(|record| ("store 1", record));
        let others = self.intruder.iter().flat_map(|intruder| intruder.proxy.journal());
        let mut all: Vec<_> = own.chain(others.map(|record| ("store 2", record))).collect();
        all.sort_by_key(|(_, record)| record.at);
        for (by, record) in all {
            let What::Settled { queue, message_id, verdict } = record.what else { continue };
            let verdict = match verdict {
                Verdict::Acked => "acked",
                Verdict::Rejected => "rejected",
                Verdict::Requeued => continue,
            };
            acks.add(&json!({"queue": queue, "message_id": message_id, "verdict": verdict, "by": by, "at": record.at}));
        }
    }

    fn write_faults(&self) {
        let counts = self.proxy.counts().into_iter().map(|(kind, count)| (kind.to_owned(), count));
        let faults: Vec<_> = counts.chain(self.faults.lock().unwrap().clone()).collect();
        let file = Lines::open(&self.folder.path().join("faults.jsonl"));
        for (kind, count) in faults {
            file.add(&json!({"kind": kind, "count": count}));
        }
    }
}

impl Evidence {
    /// The lines of one of its files.
    pub(crate) fn lines(&self, name: &str) -> Vec<Value> {
        lines(&self.folder.path().join(name))
    }

    /// Checks that these orders, and no others, are there and have this status.
    pub(crate) fn assert_all(&self, count: usize, status: &str) {
        let others: Vec<_> = self.statuses.iter().filter(|(_, found)| *found != status).collect();
        assert!(others.is_empty(), "not {status}: {others:?}");
        assert_eq!(self.statuses.len(), count, "{:?}", self.statuses);
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// Id of the event that starts the instance of an order.
pub(crate) fn start_id(key: &str) -> String {
    format!("start-{key}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
