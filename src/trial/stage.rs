//! The stage: one instance from its start to its end in virtual time, with the real engine over the real
//! store on a simulated disk, and everybody else by a script. Nothing is left to chance.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::ledger::Ledger;
use super::path::Target;
use super::script::{Act, Crash, Cue, Script};
use super::time_line::{Happened, TimeLine};
use crate::checker::evidence::{Evidence, Observed, Placed, Placing};
use crate::definitions::Loaded;
use crate::delivery::{Queue, Report, Verdict};
use crate::saga::id::{InstanceId, Phase};
use crate::saga::instance::Instance;
use crate::saga::message::{Origin, Outgoing, Part, RawMessage};
use crate::saga::plan::Plan;
use crate::saga::time::Timestamp;
use crate::simulate::ProcessError;
use crate::simulate::broker::Broker;
use crate::simulate::process::Process;
use crate::store::{Memory, Store};

mod waiting;

/// When every play begins.
pub(super) const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
/// What may happen at most in a play: an instance that goes on then does not end.
const MAX_STEPS: usize = 20_000;
/// What happens at most for one attempt of a command.
const MAX_STEPS_OF_ATTEMPT: usize = 20;

/// Who starts what.
#[derive(Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) loaded: &'a Loaded,
    /// The definitions that it may call.
    pub(super) others: &'a [Loaded],
    pub(super) business_key: &'a str,
    pub(super) event: &'a RawMessage,
}

/// How a play went.
pub(super) struct Played {
    /// What was observed.
    pub(super) evidence: Evidence,
    /// The instance as it was when nothing was left to do; none where the start was refused.
    pub(super) ended: Option<Instance>,
    /// Which commands were decided, of which instance.
    pub(super) reached: HashSet<(InstanceId, Target)>,
    /// Commands at which events could come in.
    pub(super) cued: HashSet<(InstanceId, Target)>,
    /// What was published and what happened, if it was to be told.
    pub(super) published: Vec<Outgoing>,
    pub(super) time_line: TimeLine,
}

/// Plays one instance.
///
/// # Errors
/// The engine or the store cannot go on: a bug.
pub(super) fn play(opening: Opening<'_>, script: &Script, told: bool) -> Result<Played, ProcessError> {
    let memory = Memory::default();
    let definitions: Vec<_> = opening.others.iter().chain([opening.loaded]).cloned().collect();
    let (process, _) = Process::start(&memory, &definitions)?;
    let id = InstanceId::new(&opening.loaded.plan.saga, opening.business_key);
    let stage = Stage {
        opening,
        script,
        id,
        definitions,
        now: BEGIN,
        memory,
        process,
        broker: Broker::default(),
        arrivals: BTreeMap::new(),
        arrived: 0,
        inputs: Vec::new(),
        placed: Vec::new(),
        ledger: Ledger::default(),
        fatal: HashMap::new(),
        crash: None,
        cued: HashSet::new(),
        reached: HashSet::new(),
        waited: HashSet::new(),
        published: Vec::new(),
        time_line: TimeLine::new(told),
    };
    stage.run()
}

struct Stage<'a> {
    opening: Opening<'a>,
    script: &'a Script,
    id: InstanceId,
    definitions: Vec<Loaded>,
    now: Timestamp,
    memory: Memory,
    process: Process,
    broker: Broker,
    /// What is under way to the orchestrator.
    arrivals: BTreeMap<(Timestamp, usize), Arrival>,
    arrived: usize,
    /// Everything that reached a queue.
    inputs: Vec<(Queue, RawMessage)>,
    placed: Vec<Placed>,
    ledger: Ledger,
    /// Answers at which the power fails.
    fatal: HashMap<String, Crash>,
    /// The power is to fail now.
    crash: Option<Crash>,
    /// Commands that cues have waited for.
    cued: HashSet<(InstanceId, Target)>,
    reached: HashSet<(InstanceId, Target)>,
    /// Steps that were found waiting.
    waited: HashSet<(InstanceId, Target)>,
    published: Vec<Outgoing>,
    time_line: TimeLine,
}

enum Arrival {
    Message(Queue, Box<RawMessage>),
    Report(Report),
}

/// What an answer is for.
#[derive(Clone, Copy)]
enum Asked<'a> {
    Command(&'a Outgoing),
    /// An instance that waits for an event.
    Wait(InstanceId),
}

/// What may happen at most over these definitions: the more attempts they allow, the more.
fn most_steps(definitions: &[Loaded]) -> usize {
    let plans = definitions.iter().flat_map(|loaded| Plan::family(&loaded.plan));
    let attempts = |plan: std::sync::Arc<Plan>| -> usize {
        let calls = plan.steps.iter().flat_map(|step| Phase::BOTH.map(|phase| step.call(phase)));
        let counted = calls.flatten().filter_map(|call| call.retry.attempts);
        counted.map(|attempts| usize::try_from(attempts).unwrap_or(usize::MAX)).fold(0, usize::saturating_add)
    };
    let attempts = plans.map(attempts).fold(0, usize::saturating_add);
    attempts.saturating_mul(MAX_STEPS_OF_ATTEMPT).max(MAX_STEPS)
}

impl Stage<'_> {
    fn run(mut self) -> Result<Played, ProcessError> {
        let Opening { loaded, business_key, event, .. } = self.opening;
        let (saga, business_key) = (loaded.plan.saga.clone(), business_key.to_owned());
        let event = event.clone();
        self.place(Placing::Start { saga, business_key }, &event);
        self.arrive(self.now, Arrival::Message(Queue::Events, event.into()));
        self.cue(None);
        self.settle()?;
        let ended = self.instance()?;
        // One that has ended at once was never seen waiting.
        let plan = &self.opening.loaded.plan;
        let begun = ended.iter().flat_map(|instance| waiting::begun(plan, instance));
        self.reached.extend(begun.map(|target| (self.id, target)));
        let replayed_at = self.ledger.entries.len();
        self.time_line.end();
        for (queue, message) in std::mem::take(&mut self.inputs) {
            self.broker.enqueue(queue, message);
        }
        self.settle()?;
        self.finish(ended, replayed_at)
    }

    /// Does what there is to do, and lets time pass when nothing is left.
    fn settle(&mut self) -> Result<(), ProcessError> {
        for _ in 0..most_steps(&self.definitions) {
            self.process.engine.listen(true, self.now);
            self.process.tick(self.now)?;
            if !self.process.reports.is_empty() {
                self.process.hear(self.now)?;
            } else if let Some(queue) =
                Queue::ALL.into_iter().find(|queue| self.broker.deliverable(*queue) > 0)
            {
                self.deliver(queue)?;
            } else if self.process.begin_commit() {
                self.commit()?;
            } else if let Some(outgoing) = self.process.outbox.pop_front() {
                self.publish(&outgoing)?;
            } else if !self.broker.commands.is_empty() {
                let command = self.broker.commands.remove(0);
                self.participate(&command)?;
            } else if !self.wait() {
                break;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, queue: Queue) -> Result<(), ProcessError> {
        let id = self.broker.first(queue).and_then(|message| message.message_id.as_ref());
        self.crash = id.and_then(|id| self.fatal.remove(id)).or(self.crash);
        let Some(delivery) = self.broker.deliver(queue, 0, false) else { return Ok(()) };
        let correlation = delivery.content.as_ref().ok().and_then(|message| message.correlation_id.as_ref());
        let is_it =
            |command: &&Outgoing| correlation.is_some() && correlation.cloned() == command.correlation_id();
        let answered = || self.published.iter().find(is_it);
        self.time_line.tell(self.now, || Happened::delivery(queue, &delivery, answered()));
        self.process.engine.handle_delivery(delivery, self.now)?;
        if self.crash == Some(Crash::Before) {
            self.die()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), ProcessError> {
        let settlement = self.process.end_commit()?.unwrap_or_default();
        if self.time_line.is_told() {
            let reader = self.process.reader();
            if let Some(instance) = reader.instance(self.id)? {
                self.time_line.tell_history(&instance, &reader.history(self.id)?);
            }
        }
        if self.crash == Some(Crash::After) {
            return self.die();
        }
        self.broker.settle(&settlement, self.now);
        self.begin_waiting()
    }

    /// The power fails: what was not synced is gone, and the process starts again.
    fn die(&mut self) -> Result<(), ProcessError> {
        self.crash = None;
        self.time_line
            .tell(self.now, || Happened::Befell("the power fails, and the orchestrator starts again"));
        self.memory.cut(0);
        self.broker.lose_consumer(self.now);
        self.arrivals.retain(|_, arrival| matches!(arrival, Arrival::Message(..)));
        (self.process, _) = Process::start(&self.memory, &self.definitions)?;
        self.go_on_waiting()
    }

    fn publish(&mut self, outgoing: &Outgoing) -> Result<(), ProcessError> {
        let script = self.script;
        let act = match outgoing.origin {
            Origin { instance, part: Part::Attempt { step, phase, .. } } => {
                let target = (instance, Target { member: 0, step, phase });
                self.reached.insert(target);
                self.cue(Some(target));
                script.of(outgoing)
            }
            _ => None,
        };
        // Where nobody answers, there is no other moment to fail at.
        if !outgoing.repeated && !outgoing.wants_reply && act.is_some_and(|act| act.crash.is_some()) {
            return self.die();
        }
        let unroutable = act.is_some_and(|act| act.unroutable);
        self.time_line.tell(self.now, || Happened::published(outgoing, unroutable));
        if self.time_line.is_told() {
            self.published.push(outgoing.clone());
        }
        if unroutable {
            let reason = "no queue is bound".to_owned();
            let verdict = Verdict::Unroutable { reason, maybe_delivered: outgoing.repeated };
            self.process.reports.push_back(Report { origin: outgoing.origin, verdict });
            return Ok(());
        }
        self.broker.route(outgoing, self.now);
        let report = Report { origin: outgoing.origin, verdict: Verdict::Published };
        match act.map(|act| act.confirmed.from(self.now)) {
            Some(at) if at > self.now => self.arrive(at, Arrival::Report(report)),
            _ => self.process.reports.push_back(report),
        }
        Ok(())
    }

    /// A participant handles a command, as the script says.
    fn participate(&mut self, command: &Outgoing) -> Result<(), ProcessError> {
        let Part::Attempt { phase, .. } = command.origin.part else { return Ok(()) };
        let Some(act) = self.script.of(command) else { return Ok(()) };
        if let Some(books) = act.books {
            self.ledger.book(command, phase, books, self.now);
        }
        self.answer(act, Asked::Command(command))
    }

    /// Sends the answers to a command, or what is awaited without one, on their way.
    fn answer(&mut self, act: &Act, asked: Asked<'_>) -> Result<(), ProcessError> {
        for (number, (when, answer)) in act.answers.iter().enumerate() {
            let mut message = answer.message.clone();
            let id = match asked {
                // Names the command that it answers, so that its ack can be judged.
                Asked::Command(command) => format!("reply-{}-{}", self.arrived, command.message_id),
                Asked::Wait(_) => format!("event-{}", self.arrived),
            };
            let id = message.message_id.get_or_insert(id);
            let is_repeated = matches!(asked, Asked::Command(command) if command.repeated);
            if let Some(crash) = act.crash.filter(|_| number == 0 && !is_repeated) {
                self.fatal.insert(id.clone(), crash);
            }
            match asked {
                Asked::Command(command) if answer.correlated => {
                    message.correlation_id = command.correlation_id();
                }
                Asked::Command(_) => {}
                Asked::Wait(id) => {
                    let names = |instance: &Instance| (instance.saga.clone(), instance.business_key.clone());
                    let named = match self.process.engine.loaded(id) {
                        Some((instance, _)) => Some(names(instance)),
                        None => self.process.reader().instance(id)?.as_ref().map(names),
                    };
                    if let Some((saga, business_key)) = named {
                        self.place(Placing::Answer { saga, business_key }, &message);
                    }
                }
            }
            self.arrive(when.from(self.now), Arrival::Message(answer.queue, message.into()));
        }
        Ok(())
    }

    /// Has those events come in that wait for a command, or for the start.
    fn cue(&mut self, on: Option<(InstanceId, Target)>) {
        if on.is_some_and(|target| !self.cued.insert(target)) {
            return;
        }
        let script = self.script;
        for Cue { after, what, event, .. } in script.cues.iter().filter(|cue| cue.on == on) {
            let mut event = event.clone();
            event.message_id.get_or_insert(format!("event-{}", self.arrived));
            if let Some(what) = what {
                self.place(what.clone(), &event);
            }
            self.arrive(self.now + *after, Arrival::Message(Queue::Events, event.into()));
        }
    }

    fn place(&mut self, what: Placing, event: &RawMessage) {
        let message_id = event.message_id.clone().unwrap_or_default();
        self.placed.push(Placed::new(message_id, what, self.now));
    }

    fn arrive(&mut self, at: Timestamp, arrival: Arrival) {
        self.arrivals.insert((at, self.arrived), arrival);
        self.arrived += 1;
    }

    /// Time passes up to the next moment at which anything is to be done; false if there is none.
    fn wait(&mut self) -> bool {
        let arrival = self.arrivals.keys().next().map(|(at, _)| *at);
        let Some(next) = arrival.into_iter().chain(self.process.engine.next_due()).min() else {
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.arrivals.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Arrival::Report(report) => self.process.reports.push_back(report),
                Arrival::Message(queue, message) => {
                    self.inputs.push((queue, (*message).clone()));
                    self.broker.enqueue(queue, *message);
                }
            }
        }
        true
    }

    fn instance(&self) -> Result<Option<Instance>, ProcessError> {
        Ok(self.process.reader().instance(self.id)?)
    }

    fn finish(mut self, ended: Option<Instance>, replayed_at: usize) -> Result<Played, ProcessError> {
        // As a process that ends in good order; and then the power is cut.
        self.process.engine.store_marks();
        while self.process.begin_commit() {
            self.process.end_commit()?;
        }
        drop(self.process);
        self.memory.cut(0);
        let reader = Store::simulated(&self.memory)?.reader();
        let mut instances = Vec::new();
        for instance in reader.instances() {
            let instance = instance?;
            instances.push(Observed { history: reader.history(instance.id)?, instance });
        }
        let plans = self
            .definitions
            .iter()
            .flat_map(|loaded| Plan::family(&loaded.plan))
            .map(|plan| (plan.hash.clone(), plan));
        let evidence = Evidence {
            plans: plans.collect(),
            placed: self.placed,
            messages: self.broker.log,
            entries: self.ledger.entries,
            acks: self.broker.acks,
            instances,
            letters: reader.dead_letters(500, None)?.items,
            dead: self.broker.dead,
            faults: BTreeMap::new(),
            slowest_recovery: None,
            replayed_at: Some(replayed_at),
        };
        let Self { reached, cued, published, time_line, .. } = self;
        Ok(Played { evidence, ended, reached, cued, published, time_line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_play_has_time_for_all_attempts_that_are_allowed() {
        let allowing = |attempts: u32| {
            let source = format!(
                "saga: s\nversion: 1\nstart: {{on: {{exchange: in, key: k}}, business_key: =event.data.id}}\nsteps:\n\
                 - {{step: a, command: {{exchange: e, key: a}}, retry: {{attempts: {attempts}}}, compensate: none}}\n"
            );
            let plan = std::sync::Arc::new(crate::saga::compile::load("s.yaml", &source).unwrap());
            most_steps(&[Loaded { file: "s.yaml".to_owned(), source, plan }])
        };
        assert_eq!(allowing(3), MAX_STEPS);
        assert_eq!(allowing(2_500), 2_500 * MAX_STEPS_OF_ATTEMPT);
    }
}
