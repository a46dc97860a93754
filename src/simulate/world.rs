//! What happens next, and what goes wrong.
//!
//! A play has two parts. In the stormy one, events are placed and everything may happen in any order;
//! in the calm one nothing goes wrong any more, and every instance has to end.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::broker::Broker;
use super::chance::Dice;
use super::participant::Participants;
use super::process::{Process, ProcessError};
use super::setting::{Outcome, Setting, Trouble};
use crate::checker::evidence::{Evidence, Observed, Placed, Placing};
use crate::delivery::{Queue, Verdict};
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
    /// Replies under way to the broker.
    replies: BTreeMap<(Timestamp, u64), RawMessage>,
    /// Everything that reached a queue, but what can never be understood.
    inputs: Vec<(Queue, RawMessage)>,
    placed: Vec<Placed>,
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
            participants: Participants::new(setting.reply_data.clone()),
            replies: BTreeMap::new(),
            inputs: Vec::new(),
            placed: Vec::new(),
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
            let placing = self.placed.len() < self.setting.events.len();
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

    /// Delivers a part of what was delivered before once more.
    fn repeat_inputs(&mut self) -> Result<(), ProcessError> {
        let count = self.dice.below(self.inputs.len() + 1);
        if count == 0 {
            return Ok(());
        }
        self.replayed_at = Some(self.participants.entries.len());
        self.note(format_args!("again: {count} inputs"));
        for (queue, message) in &self.inputs[..count] {
            self.broker.enqueue(*queue, message.clone());
        }
        *self.faults.entry("repeated_input".to_owned()).or_default() += count as u64;
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

    fn place(&mut self) {
        let number = self.placed.len();
        let Some(event) = self.setting.events.get(number).cloned() else { return };
        let message_id = format!("event-{number}");
        let (exchange, key) = event.to;
        let message = RawMessage {
            exchange,
            key,
            message_id: Some(message_id.clone()),
            body: event.body,
            ..RawMessage::default()
        };
        if !matches!(event.what, Placing::Garbage) {
            self.inputs.push((Queue::Events, message.clone()));
        }
        self.broker.enqueue(Queue::Events, message);
        self.placed.push(Placed { message_id, what: event.what, at: self.now });
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

    fn participate(&mut self) {
        let position = if self.calm { 0 } else { self.dice.below(self.broker.commands.len()) };
        let command = self.broker.commands.remove(position);
        let (replies, oddity) = self.participants.handle(&command, self.now, self.calm, &mut self.dice);
        if let Some(kind) = oddity {
            self.count(kind);
        }
        for (after, reply) in replies {
            let number = self.replies.len() as u64 + self.steps as u64 * 1000;
            self.replies.insert((self.now + after, number), reply);
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
        while let Some(entry) = self.replies.first_entry()
            && entry.key().0 <= self.now
        {
            let reply = entry.remove();
            self.inputs.push((Queue::Replies, reply.clone()));
            self.broker.enqueue(Queue::Replies, reply);
        }
    }

    fn next_time(&self) -> Option<Timestamp> {
        let replies = self.replies.keys().next().map(|(at, _)| *at);
        replies.into_iter().chain(self.process.engine.next_due()).min()
    }

    fn lose_consumer(&mut self) {
        self.broker.lose_consumer();
        self.listening = false;
        self.process.engine.listen(false, self.now);
        self.count("lost_consumer");
    }

    /// The next commit will fail, unless the process dies before.
    fn fail_disk(&mut self) {
        let fault = [DiskFault::Full, DiskFault::Write, DiskFault::Sync][self.dice.below(3)];
        self.memory.fail_next(fault);
        self.disk_fault = Some(fault);
    }

    /// The power fails, in the middle of the commit if there is one.
    fn cut_power(&mut self) -> Result<(), ProcessError> {
        if self.process.is_committing() {
            self.memory.fail_next(DiskFault::Write);
            // It fails, and nobody is left to hear of it.
            let _ = self.process.end_commit();
        }
        self.die("power_cut", true)
    }

    /// The process ends, without a word, and starts again.
    fn die(&mut self, kind: &str, power: bool) -> Result<(), ProcessError> {
        self.count(kind);
        // A start syncs what is there, and reads it from the disk. What was written when the disk
        // failed, or the power did, may be there or not.
        let unsynced = self.memory.unsynced();
        let certain = !power && !std::mem::take(&mut self.disk_failed);
        let kept = if certain { unsynced } else { self.dice.below(unsynced + 1) };
        self.memory.cut(kept);
        self.disk_fault = None;
        self.crashed_at.get_or_insert(self.now);
        self.broker.lose_consumer();
        self.listening = false;
        let time = self.dice.up_to_ms(3000);
        self.pass(time);
        // With nothing to store, a start is not bothered by a disk that fails the next commit.
        let (process, instances) = Process::start(&self.memory, &self.setting.definitions)?;
        self.note(format_args!("started with {instances} instances"));
        self.process = process;
        if !self.calm && self.dice.one_in(8) {
            self.set_clock();
        }
        Ok(())
    }

    /// Somebody has set the wall clock, which a process reads once, at its start.
    fn set_clock(&mut self) {
        let by = self.dice.up_to_ms(600_000);
        if self.dice.one_in(2) {
            self.count("clock_forward");
            self.pass(by);
        } else {
            self.count("clock_back");
            self.now = (self.now - by).max(self.process.latest());
        }
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
