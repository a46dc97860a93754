//! The engine: one owner of all state, synchronous.
//!
//! Each input is decided at once and gathered: what is to be stored in a batch, what may happen only
//! after that in a release. The runtime commits the batch, then carries out the release.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use tracing::{debug, warn};

use crate::audit;
use crate::cache::Cache;
use crate::catalog::{Catalog, CatalogError};
use crate::delivery::{Release, Report, Verdict};
use crate::fault::{self, Bug, Point};
use crate::metric;
use crate::saga::called::Told;
use crate::saga::correlation::{Asked, Sealer};
use crate::saga::fact::{HistoryEntry, Recorded};
use crate::saga::id::InstanceId;
use crate::saga::instance::Instance;
use crate::saga::message::{Cause, Message, Origin, Outgoing, Part};
use crate::saga::order::{Order, Refusal};
use crate::saga::plan::Plan;
use crate::saga::time::Timestamp;
use crate::saga::transition::{self, Decision, Event};
use crate::store::{Batch, Reader, Removal, StoreError};
use crate::timers::Timers;

mod arrival;
mod calls;
mod definitions;
mod deliveries;
mod limits;
mod marks;
mod pace;
mod recovery;

pub(crate) use deliveries::{About, Fate};
pub use recovery::Recovered;

use limits::Limits;
use marks::Marks;
use pace::Pace;

/// Inputs gathered at most for one commit.
const BATCH_INPUTS: usize = 1024;
/// Bytes from which on nothing more is gathered for a commit, so that none takes long.
const BATCH_BYTES: usize = 2 << 20;
/// Inputs of a small batch, at most.
const SMALL_INPUTS: usize = 32;
/// Bytes of a small batch, at most.
const SMALL_BYTES: usize = 64 << 10;
/// How long replies may take to come in, once listening has begun, before timers fire again.
const CATCH_UP: Duration = Duration::from_secs(5);
/// When to look again at a command that the broker has not confirmed.
const CONFIRM_CHECK: Duration = Duration::from_secs(60);

/// Decides what inputs mean. See the module's documentation.
pub struct Engine {
    pub(crate) reader: Reader,
    pub(crate) catalog: Catalog,
    /// Makes and knows the correlations of commands.
    pub(crate) sealer: Sealer,
    cache: Cache,
    timers: Timers,
    limits: Limits,
    marks: Marks,
    pub(crate) warnings: Pace,
    /// Instances whose removal is not committed yet: for all that comes in, they are gone.
    leaving: HashSet<InstanceId>,
    /// What instances have told each other in the decision under way.
    told: VecDeque<Told>,
    open: usize,
    gathering: Gathered,
    taken: u64,
    /// Whether both queues are consumed.
    listening: bool,
    /// Whether answers may wait in the queues that came while nobody listened.
    missed: bool,
    /// Until when timers wait for what came in meanwhile.
    held_until: Timestamp,
}

/// What a group of inputs came to.
#[derive(Debug, Default)]
pub struct Gathered {
    /// To be stored first.
    pub batch: Batch,
    /// To be done after that.
    pub release: Release,
    /// How many inputs it covers.
    pub inputs: usize,
    touched: Vec<InstanceId>,
    /// Definitions of instances that begin.
    started: Vec<Arc<Plan>>,
    /// Definitions of instances that need them no longer.
    let_go: Vec<Arc<Plan>>,
    /// Instances that are removed.
    pub removed: Vec<InstanceId>,
}

impl Gathered {
    /// Whether it is little to commit. What the store moves to its tables meanwhile grows with it.
    pub fn is_small(&self) -> bool {
        self.inputs <= SMALL_INPUTS && self.batch.bytes() <= SMALL_BYTES && self.removed.is_empty()
    }
}

/// Why the engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An instance's definition cannot be had.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl EngineError {
    /// Whether the disk of the store is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Store(error) | Self::Catalog(CatalogError::Store(error)) if error.is_full())
    }
}

/// What an event came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// There is no such instance.
    Unknown,
    /// It changed nothing.
    Nothing,
    /// It is on the instance's history.
    Recorded,
}

/// What becomes of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// There is no such instance.
    Unknown,
    /// It makes no sense where the instance stands, for this reason.
    Refused(Refusal),
    /// It is done, once the batch is durable.
    Done,
}

/// What a start event came to.
pub(crate) enum Started {
    /// This instance began with it, now or when it came before.
    With(InstanceId),
    /// The business key has an instance, which began with another event.
    Before,
    /// It names none, for this reason.
    Refused(String),
}

impl Engine {
    /// An engine over a store and the definitions in force.
    pub fn new(reader: Reader, catalog: Catalog) -> Self {
        Self {
            sealer: Sealer::new(reader.identity().key()),
            reader,
            catalog,
            cache: Cache::default(),
            timers: Timers::default(),
            limits: Limits::default(),
            marks: Marks::default(),
            warnings: Pace::default(),
            leaving: HashSet::new(),
            told: VecDeque::new(),
            open: 0,
            gathering: Gathered::default(),
            taken: 0,
            listening: false,
            missed: false,
            held_until: Timestamp(0),
        }
    }

    /// The definitions that it knows.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Takes in what the broker said to a published message.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn handle_report(&mut self, report: Report, now: Timestamp) -> Result<(), EngineError> {
        self.gathering.inputs += 1;
        let part = report.origin.part;
        let event = match report.verdict {
            Verdict::Published => Event::Published(part),
            Verdict::Unroutable { reason, maybe_delivered } => {
                warn!(instance = %report.origin.instance, ?part, reason, "message is unroutable");
                Event::Unroutable { part, reason, maybe_delivered }
            }
        };
        self.apply(report.origin.instance, event, Cause::default(), now)?;
        Ok(())
    }

    /// Does what a person asks of an instance, as far as that makes sense where it stands.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn order(&mut self, id: InstanceId, order: Order, now: Timestamp) -> Result<Ordered, EngineError> {
        self.gathering.inputs += 1;
        if !self.load(id)? {
            return Ok(Ordered::Unknown);
        }
        let cached = self.cache.get_mut(id).expect("the instance was loaded above");
        let event = Event::Ordered(order);
        let mut decision = transition::transition(&cached.plan, &mut cached.instance, event, now);
        let refused = decision.refused.take();
        self.keep(id, decision, Cause::default(), now);
        self.pass_on(now)?;
        Ok(refused.map_or(Ordered::Done, Ordered::Refused))
    }

    /// Gathers the removal of instances that have ended, but for those that have changed since it was
    /// decided: they are to be looked at again. From now on, those that leave are gone for all that comes in.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn remove(&mut self, removals: Vec<Removal>) -> Result<(), EngineError> {
        self.gathering.inputs += 1;
        for removal in removals {
            let (id, revision) = (removal.instance(), removal.revision());
            // What is in memory may be ahead of the store, and what is not is as the store has it.
            if self.cache.let_go_at(id, revision) && self.reader.revision(id)? == revision {
                self.gathering.batch.remove(removal);
                self.gathering.removed.push(id);
                self.leaving.insert(id);
            }
        }
        Ok(())
    }

    /// Says whether both queues are consumed.
    ///
    /// While nothing can be heard, nobody is silent: timers fire only while listening, and a moment
    /// after it began, so that answers which came in meanwhile are taken first. Turns of limited steps
    /// wait for the listening alone.
    pub fn listen(&mut self, listening: bool, now: Timestamp) {
        if listening == self.listening {
            return;
        }
        self.listening = listening;
        if !listening {
            self.missed = true;
        } else if self.missed && self.open > 0 {
            self.held_until = now + CATCH_UP;
        }
    }

    /// Says that nothing could be heard for some time, up to now. Timers wait as long again: answers that came in
    /// meanwhile are taken first.
    pub fn unheard(&mut self, time: Duration, now: Timestamp) {
        self.held_until = self.held_until.max(now + time);
    }

    /// Does what time demands, as far as one batch holds it: due timers, turns of limited steps, and marks
    /// that have waited long enough.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn tick(&mut self, now: Timestamp) -> Result<(), EngineError> {
        self.store_overdue_marks(now);
        if !self.listening {
            return Ok(());
        }
        while now >= self.held_until
            && !self.is_full()
            && let Some(id) = self.timers.pop_due(now)
        {
            fault::pass(Point::Timer);
            self.gathering.inputs += 1;
            if self.apply(id, Event::Tick, Cause::default(), now)? == Applied::Nothing
                && let Some((instance, _)) = self.loaded(id)
                && let Some(due) = instance.next_due().filter(|due| *due <= now)
            {
                // Only a command that the broker has not confirmed is due and stays so.
                warn!(instance = %id, since = %due, "broker has not confirmed a command for a minute or more");
                let later = instance.dues().filter(|due| *due > now);
                // Ever more seldom: a broker that is away for days is not told of every minute.
                let check = now + CONFIRM_CHECK.max(now.since(due));
                let next = later.chain([check]).min();
                self.timers.arm(id, next);
            }
        }
        self.pass_on(now)
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn next_due(&self) -> Option<Timestamp> {
        let timers = self.timers.next_due().map(|due| due.max(self.held_until));
        // A turn says of nobody that it is silent, so it is not held.
        let dues = timers.into_iter().chain(self.limits.next_due()).filter(|_| self.listening);
        dues.chain(self.marks.next_due()).min()
    }

    /// Whether a batch has gathered that should be committed before more is handled.
    pub fn is_full(&self) -> bool {
        self.gathering.inputs >= BATCH_INPUTS || self.gathering.batch.bytes() >= BATCH_BYTES
    }

    /// How many messages wait for the next commit.
    pub fn outgoing(&self) -> usize {
        self.gathering.release.outgoing.len()
    }

    /// Takes what was gathered, if anything was. The batch must be committed before the release is
    /// carried out, and [`committed`](Self::committed) called then, in the order of the takes.
    pub fn take(&mut self) -> Option<Gathered> {
        if self.gathering.inputs == 0 && self.gathering.batch.is_empty() {
            return None;
        }
        self.taken += 1;
        gauge!(metric::OPEN).set(self.open as f64);
        gauge!(metric::TIMERS).set(self.timers.len() as f64);
        self.limits.tell();
        Some(std::mem::take(&mut self.gathering))
    }

    /// Says that a taken batch is durable; forgets instances that need not be kept in memory. Nothing
    /// may be taken between a take and its commit.
    pub fn committed(&mut self, gathered: &Gathered) {
        self.cache.let_go(&gathered.touched, self.taken);
        for plan in &gathered.started {
            counter!(metric::STARTS, "saga" => plan.saga.clone()).increment(1);
        }
        gathered.let_go.iter().for_each(|plan| self.catalog.let_go(plan));
        self.leaving.retain(|id| !gathered.removed.contains(id));
    }

    /// Begins an instance, unless the business key has one.
    pub(crate) fn start(
        &mut self,
        plan: &Arc<Plan>,
        message: &Message,
        now: Timestamp,
    ) -> Result<Started, EngineError> {
        let refusal = plan.start.as_ref().and_then(|start| start.from_user.refusal(message));
        if let Some(reason) = refusal {
            return Ok(Started::Refused(format!("saga {}: start event: {reason}", plan.saga)));
        }
        let key = match transition::business_key(plan, message) {
            Ok(key) if fault::planted(Bug::SecondStart) => format!("{key}{}", fault::ticket()),
            Ok(key) => key,
            Err(error) => return Ok(Started::Refused(format!("saga {}: business_key: {error}", plan.saga))),
        };
        let id = InstanceId::new(&plan.saga, &key);
        if self.load(id)? {
            let event = Event::StartedAgain { event_id: message.id.clone() };
            self.apply(id, event, Cause::of(message), now)?;
            let began = self.loaded(id).and_then(|(instance, _)| instance.event_id.as_ref());
            let is_the_same = began.is_some() && began == message.id.as_ref();
            return Ok(if is_the_same { Started::With(id) } else { Started::Before });
        }
        let (instance, decision) =
            match transition::start(plan, key.clone(), message, self.reader.identity().id, now) {
                Ok(started) => started,
                Err(error) => return Ok(Started::Refused(format!("saga {}: input: {error}", plan.saga))),
            };
        debug!(saga = plan.saga, version = plan.version, instance = %id, business_key = key, "instance started");
        self.gathering.started.push(Arc::clone(plan));
        self.cache.put(instance, Arc::clone(plan));
        self.keep(id, decision, Cause::of(message), now);
        self.pass_on(now)?;
        Ok(Started::With(id))
    }

    /// Hands an event to an instance, and to others what follows for them.
    pub(crate) fn apply(
        &mut self,
        id: InstanceId,
        event: Event,
        cause: Cause,
        now: Timestamp,
    ) -> Result<Applied, EngineError> {
        let applied = self.apply_alone(id, event, cause, now)?;
        self.pass_on(now)?;
        Ok(applied)
    }

    fn apply_alone(
        &mut self,
        id: InstanceId,
        event: Event,
        cause: Cause,
        now: Timestamp,
    ) -> Result<Applied, EngineError> {
        if !self.load(id)? {
            return Ok(Applied::Unknown);
        }
        let cached = self.cache.get_mut(id).expect("the instance was loaded above");
        let decision = transition::transition(&cached.plan, &mut cached.instance, event, now);
        let applied = if decision.facts.is_empty() { Applied::Nothing } else { Applied::Recorded };
        self.keep(id, decision, cause, now);
        Ok(applied)
    }

    /// Brings an instance into memory; false if there is none.
    pub(crate) fn load(&mut self, id: InstanceId) -> Result<bool, EngineError> {
        if self.cache.has(id) {
            return Ok(true);
        }
        if self.leaving.contains(&id) {
            return Ok(false);
        }
        let Some(instance) = self.reader.instance(id)? else { return Ok(false) };
        let plan = self.catalog.plan_of(&instance, &self.reader)?;
        self.cache.put(instance, plan);
        Ok(true)
    }

    /// An instance that was loaded, with its plan.
    pub(crate) fn loaded(&self, id: InstanceId) -> Option<(&Instance, &Arc<Plan>)> {
        self.cache.get(id).map(|cached| (&cached.instance, &cached.plan))
    }

    /// Gathers what a decision has to store and to release.
    fn keep(&mut self, id: InstanceId, mut decision: Decision, cause: Cause, now: Timestamp) {
        let cached = self.cache.get_mut(id).expect("only loaded instances are decided on");
        self.told.extend(std::mem::take(&mut decision.told));
        self.timers.arm(id, cached.instance.next_due());
        audit::tell(&cached.instance, &decision);
        if decision.facts.is_empty() {
            return;
        }
        self.limits.follow(&cached.plan, &cached.instance);
        if decision.facts.iter().all(marks::is_mark) {
            let is_last = !cached.instance.is_open();
            if cached.marks.is_empty() || is_last {
                self.marks.push(id, is_last, now);
            }
            cached.marks = marks::before(cached, decision.facts);
            return;
        }
        let began = cached.instance.started_at;
        let outgoing = decision.outgoing.into_iter().map(|outgoing| sealed(&self.sealer, outgoing, began));
        self.gathering.release.outgoing.extend(outgoing);
        let facts = marks::before(cached, decision.facts);
        self.append(id, facts, cause);
    }

    /// Gathers one entry of history with the record that follows from it.
    fn append(&mut self, id: InstanceId, facts: Vec<Recorded>, cause: Cause) {
        let cached = self.cache.get_mut(id).expect("only loaded instances are appended to");
        cached.instance.revision += 1;
        let (revision, Cause { message_id, user }) = (cached.instance.revision, cause);
        let entry = HistoryEntry { revision, causation_id: message_id, user, facts };
        self.gathering.batch.save(&cached.instance, &entry);
        let open = cached.instance.is_open();
        match (cached.open, open) {
            (false, true) => self.open += 1,
            (true, false) => self.open = self.open.saturating_sub(1),
            _ => {}
        }
        cached.open = open;
        let holds = cached.instance.needs_definition();
        match (cached.holds, holds) {
            (false, true) => self.catalog.hold(&cached.plan),
            (true, false) => self.gathering.let_go.push(Arc::clone(&cached.plan)),
            _ => {}
        }
        cached.holds = holds;
        cached.changed_in = self.taken + 1;
        self.gathering.touched.push(id);
    }
}

/// A message of an instance that began at this time, with the correlation by which its answer is known.
fn sealed(sealer: &Sealer, outgoing: Outgoing, began: Timestamp) -> Outgoing {
    let Origin { instance, part } = outgoing.origin;
    match part {
        Part::Attempt { step, phase, attempt } if outgoing.wants_reply => {
            let correlation = sealer.issue(Asked { instance, step, phase, attempt }, began);
            Outgoing { correlation: Some(correlation), ..outgoing }
        }
        _ => outgoing,
    }
}
