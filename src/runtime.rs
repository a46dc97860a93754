//! The runtime: the one loop that moves everything.
//!
//! ```text
//! deliveries --+
//! reports -----+--> engine gathers --> commit (one at a time) --> release: reject, ack, publish
//! time --------+         ^                    |
//!                        +---- meanwhile -----+
//! ```
//!
//! A small commit is done on the spot, as long as the disk is quick ([`commit`]). While one is under way on another
//! thread, the next gathers.

mod commit;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::amqp::aside::Found;
use crate::amqp::{Consumer, Publisher};
use crate::delivery::{Delivery, Report};
use crate::engine::{Engine, EngineError, Gathered, Ordered};
use crate::fault::{self, Bug, Point};
use crate::health::Health;
use crate::metric;
use crate::reload::{Followers, Preparing, Reload};
use crate::saga::id::InstanceId;
use crate::saga::order::Order;
use crate::saga::time::Timestamp;
use crate::store::{Removal, Store, StoreError};
use commit::{Committed, Committing, Place};

/// How often the loop looks whether the queues are consumed, if nothing else wakes it.
const LOOK: Duration = Duration::from_millis(250);
/// How long a stop waits for confirms that are out.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// All that the loop moves between.
pub struct Runtime {
    /// Decides.
    pub engine: Engine,
    /// Keeps; it is away while it commits.
    pub store: Option<Store>,
    /// Settles deliveries.
    pub consumer: Consumer,
    /// Sends messages.
    pub publisher: Publisher,
    /// What the consumer receives.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// What the publisher has to tell.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// What the broker put aside by itself.
    pub aside: mpsc::Receiver<Found>,
    /// What has been kept long enough.
    pub archived: mpsc::Receiver<Archived>,
    /// What people ask of instances.
    pub orders: mpsc::Receiver<Asked>,
    /// Definitions that are to come into force.
    pub reloads: mpsc::Receiver<Reload>,
    /// What follows them.
    pub followers: Followers,
    /// What the API tells.
    pub health: Arc<Health>,
    /// The time.
    pub clock: Clock,
    /// Messages that may await the broker's confirm before no more deliveries are taken.
    pub outbox: usize,
}

/// Instances that are in the archive, to be removed.
#[derive(Debug)]
pub struct Archived {
    /// Which.
    pub removals: Vec<Removal>,
    /// Is told how many were removed, once that is durable. The others have changed since.
    pub done: oneshot::Sender<usize>,
}

/// An order, and who gave it.
#[derive(Debug)]
pub struct Asked {
    /// The instance that it is for.
    pub id: InstanceId,
    /// What is asked.
    pub order: Order,
    /// Is told what came of it, once that is durable.
    pub done: oneshot::Sender<Ordered>,
}

/// Why the loop ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A commit failed. Nothing that belongs to it was acked or published.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part that this one lives on has ended, which only a bug can bring about.
    #[error("the {0} ended by itself")]
    Ended(&'static str),
    /// A commit was cut short by a bug.
    #[error("a commit panicked: standard error has its words")]
    Panicked,
}

impl RuntimeError {
    /// Whether the disk of the store is full, after which all can begin anew once there is room.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Store(error) => error.is_full(),
            Self::Engine(error) => error.is_full(),
            _ => false,
        }
    }
}

/// Wall-clock time that a jump of the wall clock does not move: it is read once, and goes on with the
/// monotonic clock. So no timer fires early because somebody set the clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that shows the wall-clock time, but nothing before `floor`: the latest time that the
    /// store knows, so that a clock which was set back does not make the past repeat itself.
    pub fn start(floor: Timestamp) -> Self {
        Self { wall: Timestamp::from(chrono::Utc::now()).max(floor), started: Instant::now() }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.wall + self.started.elapsed()
    }

    fn instant_of(&self, at: Timestamp) -> Instant {
        self.started + at.since(self.wall)
    }
}

/// Who waits for what is gathered to be durable.
#[derive(Debug, Default)]
struct Askers {
    /// Is told how many instances were removed.
    removal: Option<oneshot::Sender<usize>>,
    /// Are told that what they found put aside is recorded.
    found: Vec<oneshot::Sender<()>>,
    /// Are told what came of their orders.
    orders: Vec<(oneshot::Sender<Ordered>, Ordered)>,
    /// Is told what has changed, once it is in force.
    reload: Option<Reload>,
}

/// All that does what had to wait for a commit.
struct Hands<'a> {
    consumer: &'a Consumer,
    publisher: &'a Publisher,
    followers: &'a Followers,
    health: &'a Health,
}

impl Runtime {
    /// Runs until `stop` resolves, and then to a clean end: what was received is decided, committed and
    /// acked, and what was sent is confirmed, as far as the broker answers in time.
    ///
    /// # Errors
    /// The store failed. Everything that was acked or published is safe; the rest comes again. The
    /// connections to the broker are closed by then.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), RuntimeError> {
        let turned = self.turn(stop).await;
        let Self { engine, store, consumer, publisher, reports, clock, .. } = self;
        consumer.close().await;
        let finished = match turned {
            Ok(()) => finish(engine, store, &publisher, reports, clock).await,
            Err(error) => Err(error),
        };
        publisher.close(Duration::ZERO).await;
        finished
    }

    /// Turns the loop until `stop` resolves and nothing is left to decide.
    async fn turn(&mut self, stop: impl Future<Output = ()>) -> Result<(), RuntimeError> {
        let Self { engine, store: idle, consumer, publisher, deliveries, reports, archived, orders, .. } =
            self;
        let aside = &mut self.aside;
        let (reloads, followers) = (&mut self.reloads, &self.followers);
        let (health, clock, outbox) = (&self.health, self.clock, self.outbox);
        let (consumer, publisher) = (&*consumer, &*publisher);
        let hands = Hands { consumer, publisher, followers, health };
        let mut place = Place::new();
        let mut committing: Option<Committing> = None;
        let mut askers = Askers::default();
        let mut preparing: Option<Preparing> = None;
        let mut stopping = false;
        // Whether more may be decided that the broker would have to confirm.
        let has_room = |engine: &Engine, committing: &Option<Committing>| {
            let committed = committing.as_ref().map_or(0, |committing| committing.outgoing);
            !engine.is_full() && engine.outgoing() + committed + publisher.outstanding() < outbox
        };
        tokio::pin!(stop);
        loop {
            let now = clock.now();
            engine.listen(health.consuming.is_set(), now);
            if has_room(engine, &committing) && engine.next_due().is_some_and(|due| due <= now) {
                engine.tick(now)?;
            }
            if let Some(store) = idle.take() {
                engine.take_along(now);
                match engine.take() {
                    None if stopping => {
                        *idle = Some(store);
                        return Ok(());
                    }
                    None => *idle = Some(store),
                    Some(gathered) if gathered.batch.is_empty() => {
                        // Only acks of what changed nothing; everything before is durable already.
                        hands.release(engine, gathered, std::mem::take(&mut askers));
                        *idle = Some(store);
                        continue;
                    }
                    Some(gathered) => {
                        if fault::planted(Bug::AckBeforeCommit) {
                            consumer.settle(gathered.release.settlement.clone());
                        }
                        if fault::planted(Bug::PublishBeforeCommit) {
                            publisher.publish(gathered.release.outgoing.clone());
                        }
                        let askers = std::mem::take(&mut askers);
                        if place.suits(&gathered, Instant::now()) {
                            let done = commit::commit(store, gathered)?;
                            if place.note(done.took, Instant::now()) {
                                engine.unheard(done.took, clock.now());
                            }
                            *idle = Some(hands.finish(engine, done, askers)?);
                            // What was released goes out before the next commit keeps it waiting.
                            tokio::task::yield_now().await;
                            if stopping {
                                continue;
                            }
                        } else {
                            committing = Some(Committing::start(store, gathered, askers));
                        }
                    }
                }
            }
            let (open, has_room_now) = (!engine.is_full(), has_room(engine, &committing));
            let inflow = has_room_now && !stopping;
            let reloading = preparing.is_some()
                || askers.reload.is_some()
                || committing.as_ref().is_some_and(|committing| committing.askers.reload.is_some());
            let next_look = Instant::now() + LOOK;
            // A full batch or outbox is waited for; what is due meanwhile is due after it.
            let due = engine.next_due().filter(|_| has_room_now);
            let wake = due.map_or(next_look, |due| clock.instant_of(due).min(next_look));
            tokio::select! {
                biased;
                done = async { (&mut committing.as_mut().expect("the guard saw a commit").task).await }, if committing.is_some() => {
                    let askers = committing.take().map(|done| done.askers).unwrap_or_default();
                    let done = done.map_err(|_| RuntimeError::Panicked)??;
                    place.note(done.took, Instant::now());
                    *idle = Some(hands.finish(engine, done, askers)?);
                }
                () = &mut stop, if !stopping => {
                    info!("stopping: no new deliveries are taken");
                    stopping = true;
                    fault::pass(Point::Stopping);
                    health.stopping.set(true);
                    consumer.pause();
                    // What was received already is decided, as far as a batch holds it; the rest stays
                    // with the broker.
                    while !engine.is_full() && let Ok(delivery) = deliveries.try_recv() {
                        engine.handle_delivery(delivery, clock.now())?;
                    }
                }
                // Rarely, and before what may always come: a store must not grow for ever under load.
                Some(Archived { removals, done }) = archived.recv(), if open && !stopping && askers.removal.is_none() => {
                    engine.remove(removals)?;
                    askers.removal = Some(done);
                }
                Some(Found { message, done }) = aside.recv(), if open && !stopping => {
                    engine.put_aside(message, clock.now());
                    askers.found.push(done);
                }
                Some(Asked { id, order, done }) = orders.recv(), if open && !stopping => {
                    // Who does not wait any more was told that it is not done.
                    if !done.is_closed() {
                        let ordered = engine.order(id, order, clock.now())?;
                        askers.orders.push((done, ordered));
                    }
                }
                // One at a time: each is compared with what the one before has stored.
                Some(reload) = reloads.recv(), if !reloading && !stopping => {
                    preparing = followers.prepare(reload, engine);
                }
                asked = async { preparing.as_mut().expect("the guard saw one").asked().await }, if open && preparing.is_some() => {
                    askers.reload = preparing.take().and_then(|done| followers.gather(done, asked, engine));
                }
                report = reports.recv(), if open => {
                    engine.handle_report(report.ok_or(RuntimeError::Ended("publisher"))?, clock.now())?;
                    while !engine.is_full() && let Ok(report) = reports.try_recv() {
                        engine.handle_report(report, clock.now())?;
                    }
                }
                delivery = deliveries.recv(), if inflow => {
                    engine.handle_delivery(delivery.ok_or(RuntimeError::Ended("consumer"))?, clock.now())?;
                    fault::pass(Point::Decided);
                    while has_room(engine, &committing) && let Ok(delivery) = deliveries.try_recv() {
                        engine.handle_delivery(delivery, clock.now())?;
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }
}

impl Hands<'_> {
    /// Takes the store back from a commit, and does what had to wait for it.
    fn finish(&self, engine: &mut Engine, done: Committed, askers: Askers) -> Result<Store, RuntimeError> {
        let Committed { store, gathered, result, .. } = done;
        result.inspect_err(|_| _ = self.health.storing.set(false))?;
        self.release(engine, gathered, askers);
        Ok(store)
    }

    /// Does what had to wait for the commit.
    fn release(&self, engine: &mut Engine, gathered: Gathered, askers: Askers) {
        fault::pass(Point::Committed);
        engine.committed(&gathered);
        let Gathered { release, removed, .. } = gathered;
        self.publisher.publish(release.outgoing);
        gauge!(metric::OUTBOX).set(self.publisher.outstanding() as f64);
        if !release.settlement.ack.is_empty() {
            self.health.moved.set(true);
        }
        self.consumer.settle(release.settlement);
        // Whoever asked may have gone meanwhile.
        if let Some(asker) = askers.removal {
            let _ = asker.send(removed.len());
        }
        for finder in askers.found {
            let _ = finder.send(());
        }
        for (asker, ordered) in askers.orders {
            let _ = asker.send(ordered);
        }
        if let Some(reload) = askers.reload {
            self.followers.take_into_force(reload, engine);
        }
        // The last instance of a definition may have ended.
        self.followers.follow(engine);
    }
}

/// Waits for the confirms that are out, and stores what they say.
async fn finish(
    mut engine: Engine,
    mut store: Option<Store>,
    publisher: &Publisher,
    mut reports: mpsc::UnboundedReceiver<Report>,
    clock: Clock,
) -> Result<(), RuntimeError> {
    let patience = tokio::time::sleep(STOP_PATIENCE);
    tokio::pin!(patience);
    let mut waiting = true;
    // What these facts would send, such as a retry of something unroutable, goes out at the next start.
    while let Some(mut committing) = store.take() {
        while waiting && publisher.outstanding() > 0 && !engine.is_full() {
            tokio::select! {
                Some(report) = reports.recv() => engine.handle_report(report, clock.now())?,
                () = &mut patience => {
                    waiting = false;
                    warn!(messages = publisher.outstanding(), "stopping without the broker's confirm: these go out again at the next start");
                }
            }
        }
        while !engine.is_full()
            && let Ok(report) = reports.try_recv()
        {
            engine.handle_report(report, clock.now())?;
        }
        engine.store_marks();
        let Some(gathered) = engine.take() else { break };
        let written =
            tokio::task::spawn_blocking(move || committing.commit(gathered.batch).map(|()| committing));
        store = Some(written.await.map_err(|_| RuntimeError::Panicked)??);
    }
    info!("stopped");
    Ok(())
}
