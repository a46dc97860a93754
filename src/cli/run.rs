//! `sagamq run`: the orchestrator.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::error::{CliError, Exit};
use crate::amqp::{self, AmqpError, Consumer, Owner, Publisher, Topology};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::definitions::Folder;
use crate::engine::Engine;
use crate::fault::{self, Point};
use crate::health::Health;
use crate::http::{self, ApiState, StoreWindow};
use crate::reload::{self, Followers, Reload};
use crate::retention;
use crate::runtime::{Asked, Clock, Runtime};
use crate::store::{Claim, Identity, Reader, Store, StoreError};
use crate::telemetry;

/// Threads that read for the API: instances, and definitions that are reloaded.
const API_THREADS: usize = 8;
/// Orders of people that may wait to be taken.
const ORDERS: usize = 64;
/// Reloads that may wait to be taken: whoever reads the folder later comes later.
const RELOADS: usize = 1;
/// Signals within this time of the first count as one.
const ONE_SIGNAL: Duration = Duration::from_secs(1);
/// Bytes that must be free before a store whose disk was full is opened again: a few of its log buffers.
const ROOM: u64 = 4 << 20;
/// How often it is looked whether there is room again.
const ROOM_LOOK: Duration = Duration::from_millis(250);
/// How long a disk that was full again before anything was stored is left alone at most: each time counts as a
/// delivery for what was out.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked whether the store is still in its place, while nothing may be committed.
const PLACE_LOOK: Duration = Duration::from_secs(1);
/// How long a backup may take to remove what it has written, once it is given up.
const GIVING_UP: Duration = Duration::from_secs(2);
/// How long readers of a closed store may take to let go of it.
const LETTING_GO: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT, and then to a clean end. A second signal ends the process at once,
/// which loses nothing either. SIGHUP reloads the definitions.
///
/// What can fail is tried from the cheapest on, and the broker last: definitions, address of the API,
/// store, recovery, broker. Only where there is no store yet, the broker is asked before: one that knows of
/// a store for the prefix is not given another. Nothing is consumed before all of it works. When the disk
/// of the store is full, everything ends as after a crash, and begins anew once there is room.
///
/// # Errors
/// One of these cannot be used, or the store failed while running.
pub fn run(config: Config) -> Result<Exit, CliError> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(API_THREADS).build()?;
    let result = runtime.block_on(beside_api(config));
    // Reads that are still under way were cancelled, but may hang in a call to the system.
    runtime.shutdown_background();
    result
}

/// Runs the orchestrator on a thread of its own. This one hears signals and answers the API meanwhile.
async fn beside_api(config: Config) -> Result<Exit, CliError> {
    let metrics = telemetry::metrics();
    let stop = stop_signals()?;
    let hangup = signal(SignalKind::hangup())?;
    let folder = Folder::open(&config.definitions)?;
    let listener = http::bind(config.http.bind).await?;

    // From here on it can be asked what it waits for.
    let health = Arc::new(Health::default());
    let window = StoreWindow::default();
    let (api_stop, api_stopped) = oneshot::channel::<()>();
    let (store, hosts) = (window.clone(), config.http.hosts.clone().into());
    let state = ApiState { store, folder: folder.clone(), health: Arc::clone(&health), metrics, hosts };
    // A dropped sender stops the API just as well.
    let api = tokio::spawn(http::serve(listener, state, async { drop(api_stopped.await) }));

    let backups = window.clone();
    tokio::spawn(reload_at(hangup, folder.clone(), window.clone()));
    tokio::spawn(amqp::tls::watch(config.broker.tls.clone()));
    let orchestrator = Orchestrator { config, folder, health, window, stop };
    let (ended, end) = oneshot::channel();
    let thread = thread::Builder::new().name("orchestrator".to_owned()).spawn(move || {
        let result = orchestrator.run();
        // Whoever would hear it is gone only with the process.
        let _ = ended.send(());
        result
    })?;
    let _ = end.await;
    let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    drop(api_stop);
    if let Err(error) = api.await {
        warn!(%error, "the API ended badly");
    }
    // Nothing of one that was given up is to stay behind.
    backups.close();
    backups.backup_ends_within(GIVING_UP).await;
    result?;
    Ok(Exit::Fine)
}

/// What outlives a full disk.
struct Orchestrator {
    config: Config,
    folder: Folder,
    health: Arc<Health>,
    window: StoreWindow,
    stop: watch::Receiver<bool>,
}

impl Orchestrator {
    /// Lives until it is stopped, on this thread alone but for large commits and the client library's two
    /// sockets: to hand a message over to another thread costs more than what is to be done with it.
    fn run(self) -> Result<(), CliError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.live_on())
    }

    /// Lives once more after each full disk.
    async fn live_on(self) -> Result<(), CliError> {
        let Some(store) = self.open().await? else {
            info!("stopped before the broker was reached");
            return Ok(());
        };
        let identity = store.reader().identity().clone();
        let mut ready = self.take_up(store)?;
        self.introduce(&ready).await?;
        let mut pause = ROOM_LOOK;
        loop {
            if *self.stop.borrow() {
                info!("stopped before the broker was reached");
                return Ok(());
            }
            // Nothing is taken that could not be stored.
            if has_room(&self.config.store.path) {
                let lived = self.live(ready).await;
                self.window.close();
                match lived {
                    Err(error) if error.is_full_disk() => {}
                    ended => return ended,
                }
            } else {
                drop(ready);
                self.window.close();
            }
            let store = self.config.store.path.display();
            error!(%store, "the disk of the store is full: nothing is acked or sent until there is room");
            self.health.full.set(true);
            pause = if self.health.moved.set(false) { ROOM_LOOK } else { LONGEST_PAUSE.min(pause * 2) };
            ready = loop {
                if !self.room_comes(pause).await {
                    info!("stopped while the disk was full");
                    return Ok(());
                }
                match self.reopen(&identity).await.and_then(|store| self.take_up(store)) {
                    Err(error) if error.is_full_disk() => warn!(%error, "there is not room enough yet"),
                    opened => break opened?,
                }
            };
            self.health.full.set(false);
            info!("there is room again: going on");
        }
    }

    /// Opens the store; none if it is stopped before. One that is new is used only where the broker knows of no
    /// store for the prefix: what is set may be wrong, or a volume not mounted.
    async fn open(&self) -> Result<Option<Store>, CliError> {
        let config = &self.config.store;
        // What is wrong with the folder is told before the broker is asked.
        let claim = Claim::of(config)?;
        if !claim.has_store() {
            return Ok(if self.may_make_a_store().await? { Some(Store::open_in(claim)?) } else { None });
        }
        let store = Store::open_in(claim)?;
        // What was made and never used, such as by a start that was refused here, is as good as not there.
        Ok(if !store.is_new() || self.may_make_a_store().await? { Some(store) } else { None })
    }

    /// Asks the broker whether the prefix has no store yet; false if it is stopped before.
    async fn may_make_a_store(&self) -> Result<bool, CliError> {
        tokio::select! {
            biased;
            () = stopped(self.stop.clone()) => Ok(false),
            asked = amqp::owner::refuse_new_store(&self.config.broker) => Ok(asked.map(|()| true)?),
        }
    }

    /// Brings the definitions into force, and every open instance into memory.
    fn take_up(&self, mut store: Store) -> Result<Ready, CliError> {
        let reader = store.reader();
        let (catalog, batch) = Catalog::adopt(&self.folder.adopted(), &reader)?;
        store.commit(batch)?;
        // The broker learns of it, so it must be the same for ever.
        store.establish()?;
        for plan in catalog.starting() {
            info!(saga = plan.saga, version = plan.version, steps = plan.steps.len(), "definition in force");
        }
        let mut engine = Engine::new(reader.clone(), catalog);
        let recovered = engine.recover()?;
        info!(instances = recovered.instances, unconfirmed = recovered.outgoing.len(), "instances taken up");
        let (orders_in, orders) = mpsc::channel(ORDERS);
        let (reloads_in, reloads) = mpsc::channel(RELOADS);
        self.window.open(reader, orders_in, reloads_in);
        self.health.storing.set(true);
        let owner = Arc::new(Owner::new(&self.config.broker, &store.reader(), Arc::clone(&self.health))?);
        let topology = watch::channel(Topology::of(&self.config.broker, [])).0;
        let (broker, folder) = (self.config.broker.clone(), self.folder.clone());
        let followers = Followers { broker, topology, folder };
        followers.follow(&mut engine);
        Ok(Ready { store, owner, engine, recovered, orders, reloads, followers })
    }

    /// Learns at once, and not while running, what is wrong with the broker, and whether the prefix is another's.
    async fn introduce(&self, ready: &Ready) -> Result<(), CliError> {
        let topology = ready.followers.topology.borrow().clone();
        tokio::select! {
            biased;
            () = stopped(self.stop.clone()) => Ok(()),
            introduced = ready.owner.introduce(&self.config.broker, &topology) => Ok(introduced?),
        }
    }

    /// Consumes and publishes until it is stopped, the store fails or is taken away, or the prefix is another's.
    async fn live(&self, ready: Ready) -> Result<(), CliError> {
        let Ready { store, owner, engine, recovered, orders, reloads, followers } = ready;
        let (broker, health) = (&self.config.broker, &self.health);
        let topology = || followers.topology.subscribe();
        let (reports_in, reports) = mpsc::unbounded_channel();
        // The prefetch of both queues bounds what is received; a little slack keeps the consumer going.
        let (deliveries_in, deliveries) = mpsc::channel(usize::from(broker.prefetch) * 2);
        // Until the consumer has it.
        owner.lose();
        let publisher = Publisher::start(broker, topology(), reports_in, Arc::clone(health));
        publisher.publish(recovered.outgoing);
        fault::pass(Point::Recovered);
        let consumer =
            Consumer::start(broker, topology(), deliveries_in, Arc::clone(health), Some(Arc::clone(&owner)));
        let aside = amqp::aside::start(broker, topology());
        let clock = Clock::start(store.latest());
        let archived = retention::start(&self.config, store.reader(), clock);
        let reader = store.reader();
        let (store, health) = (Some(store), Arc::clone(health));
        let outbox = broker.outbox;
        let runtime = Runtime {
            engine,
            store,
            consumer,
            publisher,
            deliveries,
            reports,
            aside,
            archived,
            orders,
            reloads,
            followers,
            health,
            clock,
            outbox,
        };
        // What ends it this way is not waited for: nothing of it may be acked or sent any more.
        tokio::select! {
            biased;
            error = owner.refused() => {
                error!(%error, "the prefix was given to another store while this one was running");
                Err(AmqpError::from(error).into())
            }
            error = taken_away(&reader) => {
                self.health.storing.set(false);
                error!(%error, "the store was taken away while it was in use: nothing is acked or sent any more");
                Err(error.into())
            }
            ended = runtime.run(stopped(self.stop.clone())) => Ok(ended?),
        }
    }

    /// Waits for room on the disk of the store, and for `pause` at least; false if it is stopped before.
    async fn room_comes(&self, mut pause: Duration) -> bool {
        loop {
            tokio::select! {
                () = stopped(self.stop.clone()) => return false,
                () = tokio::time::sleep(pause) => {}
            }
            if has_room(&self.config.store.path) {
                return true;
            }
            pause = ROOM_LOOK;
        }
    }

    /// Opens the same store again, as soon as nobody reads the closed one any more.
    async fn reopen(&self, identity: &Identity) -> Result<Store, CliError> {
        let path = &self.config.store.path;
        let gone = |how| StoreError::Gone { path: path.clone(), file: path.clone(), how };
        let deadline = Instant::now() + LETTING_GO;
        loop {
            if !Store::is_in(path) {
                return Err(gone("is gone").into());
            }
            match Store::open(&self.config.store) {
                Err(StoreError::InUse { .. }) if Instant::now() < deadline => tokio::task::yield_now().await,
                Ok(store) if store.reader().identity() != identity => {
                    return Err(gone("is another store now").into());
                }
                opened => return Ok(opened?),
            }
        }
    }
}

/// A store that is open, and what was found in it.
struct Ready {
    store: Store,
    owner: Arc<Owner>,
    engine: Engine,
    recovered: crate::engine::Recovered,
    orders: mpsc::Receiver<Asked>,
    reloads: mpsc::Receiver<Reload>,
    followers: Followers,
}

/// Whether there is room on the disk; also where that cannot be found out.
fn has_room(path: &Path) -> bool {
    rustix::fs::statvfs(path).map_or(true, |disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= ROOM)
}

/// Resolves once the files of the store are not in their place any more.
async fn taken_away(reader: &Reader) -> StoreError {
    loop {
        tokio::time::sleep(PLACE_LOOK).await;
        if let Err(error) = reader.confirm_place() {
            return error;
        }
    }
}

/// Resolves once a stop is wanted.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender lives as long as the process.
    let _ = stop.wait_for(|wanted| *wanted).await;
}

/// Reloads the definitions at each SIGHUP.
async fn reload_at(mut hangup: Signal, folder: Folder, window: StoreWindow) {
    while hangup.recv().await.is_some() {
        // What comes of it is in the log.
        let _ = reload::reload(&folder, window.reloads()).await;
    }
}

/// Becomes true at the first SIGTERM or SIGINT; the next one ends the process, whatever it is at.
fn stop_signals() -> Result<watch::Receiver<bool>, CliError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    // A task of its own, since opening a large store blocks the one that calls.
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        stop.send_replace(true);
        // Who signals a process and its group sends two at once, and means one.
        let first = Instant::now();
        while first.elapsed() < ONE_SIGNAL {
            next().await;
        }
        warn!("forced to stop: what was under way goes on at the next start");
        std::process::exit(i32::from(Exit::Environment as u8));
    });
    Ok(stopped)
}
