//! What happens next, and what goes wrong.
//!
//! A play has two parts. In the stormy one, events are placed and everything may happen in any order;
//! in the calm one nothing goes wrong any more, and every instance has to end.
//!
//! | file | what |
//! |---|---|
//! | `outside` | events, answers, what strangers make up, what a person asks for |
//! | `trouble` | deaths, disks, connections, clocks |

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

mod outside;
mod trouble;

use super::broker::Broker;
use super::chance::Dice;
use super::participant::Participants;
use super::process::{Process, ProcessError};
use super::setting::{Outcome, Setting, Trouble};
use crate::checker::evidence::{Evidence, Observed, Placed};
use crate::delivery::{Queue, Verdict};
use crate::saga::id::InstanceId;
use crate::saga::message::RawMessage;
use crate::saga::plan::Plan;
use crate::saga::time::Timestamp;
use crate::store::{DiskFault, Memory, Store, StoreError};

/// When every play begins.
const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
/// Steps of the stormy part after the last event was placed.
const AFTERMATH: usize = 120;
/// Steps of the calm part after which something hangs.
const MAX_CALM: usize = 200_000;
/// Virtual time of the calm part after which something hangs.
const PATIENCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Plays one seed to its end.
///
/// # Errors
/// The orchestrator could not start again, or stopped for something else than the faults of its disk:
/// a bug.
pub fn play(setting: &Setting, seed: u64) -> Result<Outcome, ProcessError> {
    let mut world = World::begin(setting, seed)?;
    world.storm()?;
    world.calm()?;
    while world.attend()? {
        world.calm()?;
    }
    world.repeat_inputs()?;
    world.calm()?;
    world.finish()
}

struct World<'a> {
    setting: &'a Setting,
    dice: Dice,
    now: Timestamp,
    memory: Memory,
    process: Process,
    broker: Broker,
    participants: Participants,
    /// Replies and events under way to the broker.
    arrivals: BTreeMap<(Timestamp, u64), (Queue, RawMessage)>,
    /// The correlation of a command of each instance that has sent one.
    correlations: HashMap<InstanceId, String>,
    /// Everything that reached a queue, but what can never be understood.
    inputs: Vec<(Queue, RawMessage)>,
    placed: Vec<Placed>,
    /// How many of the planned events were placed.
    begun: usize,
    /// How many answers were made up.
    forged: u64,
    faults: BTreeMap<String, u64>,
    listening: bool,
    /// How the next commit is to fail.
    disk_fault: Option<DiskFault>,
    /// Whether a commit of this process has failed.
    disk_failed: bool,
    crashed_at: Option<Timestamp>,
    slowest_recovery: Duration,
    replayed_at: Option<usize>,
    calm: bool,
    steps: usize,
    hasher: DefaultHasher,
    lines: Vec<String>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Place,
    Deliver(Queue),
    Hear,
    LookAside,
    BeginCommit,
    EndCommit,
    Publish,
    Participate,
    Wait,
    Listen,
    LoseConsumer,
    Crash,
    CutPower,
    FailDisk,
}

impl<'a> World<'a> {
    fn begin(setting: &'a Setting, seed: u64) -> Result<Self, ProcessError> {
        let memory = Memory::default();
        let (process, _) = Process::start(&memory, &setting.definitions)?;
        Ok(Self {
            setting,
            dice: Dice::new(seed),
            now: BEGIN,
            memory,
            process,
            broker: Broker::default(),
            participants: Participants::new(setting.reply_data.clone(), setting.heralds.clone()),
            arrivals: BTreeMap::new(),
            correlations: HashMap::new(),
            inputs: Vec::new(),
            placed: Vec::new(),
            begun: 0,
            forged: 0,
            faults: BTreeMap::new(),
            listening: false,
            disk_fault: None,
            disk_failed: false,
            crashed_at: None,
            slowest_recovery: Duration::ZERO,
            replayed_at: None,
            calm: false,
            steps: 0,
            hasher: DefaultHasher::new(),
            lines: Vec::new(),
        })
    }

    fn storm(&mut self) -> Result<(), ProcessError> {
        let mut left = AFTERMATH;
        while left > 0 {
            let placing = self.begun < self.setting.events.len();
            let choices = self.choices(placing);
            let Some(step) = self.dice.weighted(&choices) else { return Ok(()) };
            self.take(step)?;
            left -= usize::from(!placing);
        }
        Ok(())
    }

    /// Everything that can be done is done, and time passes when nothing is left.
    fn calm(&mut self) -> Result<(), ProcessError> {
        self.calm = true;
        let (begun, first) = (self.now, self.steps);
        let order = [
            Step::Listen,
            Step::Hear,
            Step::LookAside,
            Step::Deliver(Queue::Replies),
            Step::Deliver(Queue::Events),
            Step::EndCommit,
            Step::Publish,
            Step::Participate,
        ];
        while self.steps - first < MAX_CALM && self.now.since(begun) < PATIENCE {
            if let Some(step) = order.into_iter().find(|step| self.is_possible(*step)) {
                self.take(step)?;
            } else if !self.process.begin_commit() {
                if self.next_time().is_none() {
                    return Ok(());
                }
                self.take(Step::Wait)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Outcome, ProcessError> {
        // As a process that ends in good order.
        self.process.engine.store_marks();
        while self.process.begin_commit() {
            self.process.end_commit()?;
        }
        let reader = Store::simulated(&self.memory)?.reader();
        let mut instances = Vec::new();
        for instance in reader.instances() {
            let instance = instance?;
            instances.push(Observed { history: reader.history(instance.id)?, instance });
        }
        let plans = self.setting.definitions.iter().flat_map(|loaded| Plan::family(&loaded.plan));
        let plans = plans.map(|plan| (plan.hash.clone(), plan));
        let evidence = Evidence {
            plans: plans.collect(),
            placed: self.placed,
            messages: self.broker.log,
            entries: self.participants.entries,
            acks: self.broker.acks,
            instances,
            letters: reader.dead_letters(500, None)?.items,
            dead: self.broker.dead,
            faults: self.faults,
            slowest_recovery: Some(self.slowest_recovery),
            replayed_at: self.replayed_at,
        };
        Ok(Outcome { evidence, trace: self.hasher.finish(), steps: self.steps, lines: self.lines })
    }

    /// What may happen now, each with its weight.
    fn choices(&self, placing: bool) -> Vec<(Step, u32)> {
        let Trouble { crashes, power_cuts, disk_faults, lost_connections, .. } = self.setting.trouble;
        let usual = [
            (Step::Place, if placing { 300 } else { 0 }),
            (Step::Deliver(Queue::Events), 800),
            (Step::Deliver(Queue::Replies), 800),
            (Step::Hear, 800),
            (Step::LookAside, 800),
            (Step::BeginCommit, 800),
            (Step::EndCommit, 800),
            (Step::Publish, 800),
            (Step::Participate, 800),
            (Step::Listen, 400),
            (Step::Wait, 400),
        ];
        // Some seven thousand is the sum of the usual weights.
        let rare = |one_in: u32| 7000_u32.checked_div(one_in).unwrap_or(0);
        let unusual = [
            (Step::Crash, rare(crashes)),
            (Step::CutPower, rare(power_cuts)),
            (Step::FailDisk, rare(disk_faults)),
            (Step::LoseConsumer, rare(lost_connections)),
        ];
        usual.into_iter().filter(|(step, _)| self.is_possible(*step)).chain(unusual).collect()
    }

    fn is_possible(&self, step: Step) -> bool {
        let process = &self.process;
        match step {
            Step::Deliver(queue) => {
                self.listening && !process.engine.is_full() && self.broker.deliverable(queue) > 0
            }
            Step::Hear => !process.reports.is_empty() && !process.engine.is_full(),
            Step::LookAside => self.listening && !self.broker.aside.is_empty() && process.may_look_aside(),
            Step::EndCommit => process.is_committing(),
            Step::Publish => !process.outbox.is_empty(),
            Step::Participate => !self.broker.commands.is_empty(),
            Step::Listen => !self.listening,
            _ => true,
        }
    }

    fn take(&mut self, step: Step) -> Result<(), ProcessError> {
        self.steps += 1;
        self.note(format_args!("{step:?}"));
        self.process.engine.listen(self.listening, self.now);
        self.process.tick(self.now)?;
        match step {
            Step::Place => self.place(),
            Step::Deliver(queue) => self.deliver(queue)?,
            Step::Hear => self.process.hear(self.now)?,
            Step::LookAside => self.look_aside(),
            Step::BeginCommit => {
                self.process.begin_commit();
            }
            Step::EndCommit => self.end_commit()?,
            Step::Publish => self.publish(),
            Step::Participate => self.participate(),
            Step::Wait => self.wait(),
            Step::Listen => {
                self.listening = true;
                self.process.engine.listen(true, self.now);
            }
            Step::LoseConsumer => self.lose_consumer(),
            Step::Crash => self.die("crash", false)?,
            Step::CutPower => self.cut_power()?,
            Step::FailDisk => self.fail_disk(),
        }
        if !self.calm {
            let time = self.dice.up_to_ms(20);
            self.pass(time);
        }
        self.recovered();
        Ok(())
    }

    fn deliver(&mut self, queue: Queue) -> Result<(), ProcessError> {
        let odd = !self.calm && self.dice.one_in(self.setting.trouble.delivery_faults);
        let position = if odd { self.dice.below(self.broker.deliverable(queue)) } else { 0 };
        let twice = odd && position == 0 && !self.broker.is_poison(queue, position);
        if odd {
            self.count(if twice { "duplicate_delivery" } else { "reordered_delivery" });
        }
        if let Some(delivery) = self.broker.deliver(queue, position, twice) {
            self.process.engine.handle_delivery(delivery, self.now)?;
        }
        Ok(())
    }

    fn end_commit(&mut self) -> Result<(), ProcessError> {
        match self.process.end_commit() {
            Ok(settlement) => {
                // The release is two things, and the process may die between them.
                if !self.calm && self.dice.one_in(self.setting.trouble.crashes) {
                    return self.die("crash", false);
                }
                self.broker.settle(&settlement.unwrap_or_default(), self.now);
                if self.process.takes_aside() {
                    self.broker.aside.pop_front();
                }
                Ok(())
            }
            Err(ProcessError::Store(error @ (StoreError::Full { .. } | StoreError::Commit { .. }))) => {
                self.note(format_args!("{error}"));
                self.disk_failed = true;
                let kind = match self.disk_fault.take() {
                    Some(DiskFault::Full) => "full_disk",
                    Some(DiskFault::Write) => "failed_write",
                    Some(DiskFault::Sync) | None => "failed_sync",
                };
                self.count(kind);
                self.die("stop", false)
            }
            Err(error) => Err(error),
        }
    }

    fn publish(&mut self) {
        let position = if self.calm { 0 } else { self.dice.below(self.process.outbox.len()) };
        let odd = !self.calm && self.dice.one_in(self.setting.trouble.publish_faults);
        let what = if odd { self.dice.below(4) } else { usize::MAX };
        let outgoing = &mut self.process.outbox[position];
        let maybe_delivered = outgoing.repeated;
        match what {
            // Routed, and nobody hears of it.
            0 => {
                outgoing.repeated = true;
                self.broker.route(&outgoing.clone(), self.now);
                self.count("lost_confirm");
            }
            1 => {
                outgoing.repeated = true;
                self.count("nacked_publish");
            }
            2 => {
                let reason = "no queue is bound".to_owned();
                self.process.report(position, Verdict::Unroutable { reason, maybe_delivered });
                self.count("unroutable");
            }
            // The publishing connection breaks: nobody knows of anything that was out.
            3 => {
                self.broker.route(&outgoing.clone(), self.now);
                self.process.outbox.iter_mut().for_each(|outgoing| outgoing.repeated = true);
                self.count("lost_publisher");
            }
            _ => {
                self.broker.route(&outgoing.clone(), self.now);
                self.process.report(position, Verdict::Published);
            }
        }
    }

    /// Time passes up to the next moment at which anything is to be done, or a part of it.
    fn wait(&mut self) {
        let until = self.next_time().map_or(Duration::ZERO, |next| next.since(self.now));
        let stormy = self.dice.up_to_ms(2 * u64::try_from(until.as_millis()).unwrap_or(0).min(60_000) + 1);
        self.pass(if self.calm { until } else { stormy });
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        while let Some(entry) = self.arrivals.first_entry()
            && entry.key().0 <= self.now
        {
            let (queue, message) = entry.remove();
            self.enqueue(queue, message);
        }
    }

    fn next_time(&self) -> Option<Timestamp> {
        let arrivals = self.arrivals.keys().next().map(|(at, _)| *at);
        arrivals.into_iter().chain(self.process.engine.next_due()).min()
    }

    /// Notes how long it took from the first of several deaths until all is consumed again.
    fn recovered(&mut self) {
        if self.listening
            && let Some(crashed_at) = self.crashed_at.take()
        {
            self.slowest_recovery = self.slowest_recovery.max(self.now.since(crashed_at));
        }
    }

    fn count(&mut self, kind: &str) {
        self.note(format_args!("fault: {kind}"));
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = write!(line, "{} {what}", self.now);
        line.hash(&mut self.hasher);
        if self.setting.verbose {
            self.lines.push(line);
        }
    }
}
