//! The transition function: what an event means for an instance.
//!
//! ```text
//! (plan, instance, event, now)  ->  facts, and the messages that follow from them
//! ```
//!
//! It decides by recording facts; each is applied at once, so a later decision of the same transition
//! sees it. An event that makes no sense where the instance stands is recorded as ignored: there are no
//! illegal events, only ones that change nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::called::{self, End, Told};
use super::command;
use super::expression::{ExpressionError, Scope};
use super::fact::{CANCELLED, Fact, Failure, Ignored, Recorded, Started, Tells};
use super::id::{EventKey, InstanceId, MessageId, Phase, StoreId};
use super::instance::{Awaiting, Instance, Status, StepStatus};
use super::message::{Message, Outgoing, Part, Purpose};
use super::order::{Order, Refusal};
use super::plan::{AtDeadline, Kind, OnTimeout, Plan, Start};
use super::reply::{self, Outcome};
use super::time::Timestamp;

/// Something that happened and concerns one instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The broker confirmed a message.
    Published(Part),
    /// The broker could not route a message to any queue.
    Unroutable {
        /// Which message.
        part: Part,
        /// What the broker said.
        reason: String,
        /// True if an earlier copy of it may have been routed.
        maybe_delivered: bool,
    },
    /// A participant answered.
    Reply {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// Which attempt it answers, where the reply tells.
        attempt: Option<u32>,
        /// What it says.
        outcome: Outcome,
        /// The reply's own id.
        message_id: Option<String>,
        /// Which event it is, where it is no message to the reply queue. An event counts once.
        event: Option<EventKey>,
    },
    /// An event came again that counts already.
    Repeated {
        /// Its id.
        message_id: Option<String>,
    },
    /// Something came for it that cannot be read.
    Misread {
        /// Index of the step that it speaks of, where that is known.
        step: Option<usize>,
        /// Its id.
        message_id: Option<String>,
        /// What is wrong with it.
        reason: String,
    },
    /// Time has passed.
    Tick,
    /// A step that is limited has its turn.
    Turn {
        /// Index of the step.
        step: usize,
    },
    /// Somebody wants the instance to be undone.
    Cancel {
        /// Id of the cancelling event.
        event_id: Option<String>,
        /// Which event it is, which counts once.
        event: Option<EventKey>,
    },
    /// A person asks for something.
    Ordered(Order),
    /// The instance that called it turns back.
    Recall {
        /// That instance. From another one it means nothing: two can call by the same key, and one is too late.
        caller: InstanceId,
    },
    /// The instance that called it has come to its end.
    Release {
        /// That instance.
        caller: InstanceId,
    },
    /// An instance that it called has ended, or is held.
    CalledEnded {
        /// Index of the step that called it.
        step: usize,
        /// Which item of the step it is, where the step has items.
        item: Option<usize>,
        /// How.
        end: End,
    },
    /// A start event for this instance came again.
    StartedAgain {
        /// Id of that event.
        event_id: Option<String>,
    },
}

/// What a transition decided.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// The facts, in order; they are applied to the instance already.
    pub facts: Vec<Recorded>,
    /// Messages to publish once the facts are durable.
    pub outgoing: Vec<Outgoing>,
    /// What other instances are told in the same commit, in order.
    pub told: Vec<Told>,
    /// A message that changed nothing, whether or not that is among the facts.
    pub ignored: Option<Ignored>,
    /// Why an order was refused, which changed nothing.
    pub refused: Option<Refusal>,
}

/// Messages that change nothing are recorded up to this number per instance, and only counted after:
/// a history is bounded whatever is sent.
pub const IGNORED_RECORDED: u32 = 100;

/// How many times an instance takes in that a participant still works. After that, the timeout runs.
pub const MAX_STILL_WORKING: u32 = 10_000;

/// Bytes that a searchable value may have. Each is kept in memory with its instance.
pub const MAX_ATTRIBUTE: usize = 1024;

/// Characters of the reason for which a reply cannot be read that are kept.
const MISREAD_CHARACTERS: usize = 500;

/// Begins an instance in a store, from a start event that names `business_key`.
///
/// # Errors
/// The input cannot be read from the event.
pub fn start(
    plan: &Plan,
    business_key: String,
    event: &Message,
    store: StoreId,
    now: Timestamp,
) -> Result<(Instance, Decision), ExpressionError> {
    let of_event = Scope { event: Some(event), ..Scope::default() };
    let input = start_of(plan)?.input.evaluate(&of_event)?;
    let attributes = attributes(plan, &Scope { input: Some(&input), ..of_event });
    let (event_id, trace) = (event.id.clone(), command::trace_of(&event.headers));
    let started = started(plan, business_key, input, store, now);
    // Should the event come again, it answers nothing of what it has started.
    let heard = reply::any_listens(plan, event).then(|| event.event_key(Purpose::Answer));
    Ok(begin(plan, Started { attributes, event_id, trace, ..started }, heard, now))
}

/// Begins an instance that another one calls.
pub fn start_called(
    plan: &Plan,
    start: called::Start,
    store: StoreId,
    now: Timestamp,
) -> (Instance, Decision) {
    let called::Start { business_key, input, caller, trace, .. } = start;
    let attributes = attributes(plan, &Scope { input: Some(&input), ..Scope::default() });
    let started = started(plan, business_key, input, store, now);
    begin(plan, Started { attributes, caller: Some(caller), trace, ..started }, None, now)
}

/// The searchable values. One that cannot be read, or is over [`MAX_ATTRIBUTE`], is left out and stops nothing.
fn attributes(plan: &Plan, scope: &Scope<'_>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    let attributes = plan.attributes.iter().filter_map(|(name, expression)| {
        let value = expression.evaluate(scope).ok().and_then(text)?;
        (value.len() <= MAX_ATTRIBUTE).then(|| (name.clone(), value))
    });
    attributes.collect()
}

/// What every start takes from the plan.
fn started(plan: &Plan, business_key: String, input: Value, store: StoreId, now: Timestamp) -> Started {
    Started {
        saga: plan.saga.clone(),
        version: plan.version,
        definition: plan.hash.clone(),
        steps: plan.steps.iter().map(|step| step.name.clone()).collect(),
        attributes: BTreeMap::new(),
        deadline: plan.deadline.map(|deadline| now + deadline.after),
        store,
        event_id: None,
        caller: None,
        trace: None,
        business_key,
        input: Arc::new(input),
    }
}

fn begin(plan: &Plan, started: Started, heard: Option<EventKey>, now: Timestamp) -> (Instance, Decision) {
    let mut instance = Instance::begin(InstanceId::new(&plan.saga, &started.business_key), &started, now);
    let mut transition = Transition { plan, instance: &mut instance, now, decision: Decision::default() };
    transition.record(Fact::Started(Box::new(started)));
    if let Some(event) = heard {
        transition.record(Fact::Heard { event });
    }
    transition.advance();
    let decision = transition.decision;
    (instance, decision)
}

fn start_of(plan: &Plan) -> Result<&Start, ExpressionError> {
    let none = || ExpressionError::Unavailable { path: "start".to_owned(), name: "event".to_owned() };
    plan.start.as_ref().ok_or_else(none)
}

/// The business key that a start event names.
///
/// # Errors
/// The expression fails, or yields neither a text nor a number.
pub fn business_key(plan: &Plan, event: &Message) -> Result<String, ExpressionError> {
    let scope = Scope { event: Some(event), ..Scope::default() };
    start_of(plan)?.business_key.evaluate_key(&scope)
}

/// Decides what an event means for an instance, and changes the instance accordingly.
pub fn transition(plan: &Plan, instance: &mut Instance, event: Event, now: Timestamp) -> Decision {
    let mut transition = Transition { plan, instance, now, decision: Decision::default() };
    match event {
        Event::Published(part) => transition.published(part),
        Event::Unroutable { part, reason, maybe_delivered } => {
            transition.unroutable(part, reason, maybe_delivered);
        }
        Event::Reply { step, phase, attempt, outcome, message_id, event } => {
            if step < transition.instance.steps.len() && step < plan.steps.len() {
                transition.reply(Answer { step, phase, attempt, message_id }, event, outcome);
            }
        }
        Event::Repeated { message_id } => transition.ignore(Ignored::DuplicateReply, message_id, None),
        Event::Misread { step, message_id, reason } => transition.misread(step, message_id, reason),
        Event::Tick => transition.tick(),
        Event::Turn { step } => transition.turn(step),
        Event::Cancel { event_id, event } => transition.cancel(event_id, event),
        Event::Ordered(order) => transition.order(order),
        Event::Recall { caller } if transition.is_called_by(caller) => transition.recalled(),
        Event::Release { caller } if transition.is_called_by(caller) => transition.released(),
        Event::Recall { .. } | Event::Release { .. } => {}
        Event::CalledEnded { step, item, end } => transition.called_ended(step, item, end),
        Event::StartedAgain { event_id } => {
            // The same event, delivered again, says nothing new.
            if event_id.is_none() || event_id != transition.instance.event_id {
                transition.ignore(Ignored::DuplicateStart, event_id, None);
            }
        }
    }
    if !transition.decision.facts.is_empty() {
        transition.advance();
    }
    transition.decision
}

/// A transition under way.
pub(super) struct Transition<'a> {
    pub(super) plan: &'a Plan,
    pub(super) instance: &'a mut Instance,
    pub(super) now: Timestamp,
    pub(super) decision: Decision,
}

/// What a reply answers.
pub(super) struct Answer {
    pub(super) step: usize,
    pub(super) phase: Phase,
    pub(super) attempt: Option<u32>,
    pub(super) message_id: Option<String>,
}

impl Transition<'_> {
    /// Records a fact and applies it.
    pub(super) fn record(&mut self, fact: Fact) {
        let recorded = Recorded { at: self.now, fact };
        self.instance.apply(&recorded);
        self.decision.facts.push(recorded);
    }

    fn published(&mut self, part: Part) {
        match part {
            Part::Attempt { step, phase, attempt } => {
                if !self.is_unconfirmed(step, phase, attempt) {
                    return;
                }
                let call = command::call(self.plan, step, phase);
                let due = call.map_or(self.now, |call| command::due(call, self.now));
                self.record(Fact::Published { step, phase, attempt, due });
                if call.is_none() {
                    // Nobody answers an event.
                    self.record(Fact::succeeded(step, Value::Null));
                }
            }
            Part::Notice(notice) => {
                if self.instance.notices.get(notice).is_some_and(|notice| notice.pending) {
                    self.record(Fact::NoticePublished { notice });
                }
            }
        }
    }

    fn unroutable(&mut self, part: Part, reason: String, maybe_delivered: bool) {
        match part {
            Part::Attempt { step, phase, attempt } => {
                if self.is_unconfirmed(step, phase, attempt) {
                    let message = format!("no queue takes this command: {reason}");
                    self.record(Fact::Unroutable { step, phase, attempt, maybe_delivered, reason });
                    if command::call(self.plan, step, phase).is_none() {
                        // That nobody listens to an event is on record, and no failure.
                        return self.record(Fact::succeeded(step, Value::Null));
                    }
                    self.attempt_failed(step, phase, self.failure(step, "UNROUTABLE", message), None);
                }
            }
            Part::Notice(notice) => {
                if self.instance.notices.get(notice).is_some_and(|notice| notice.pending) {
                    self.record(Fact::NoticeDropped { notice, reason });
                }
            }
        }
    }

    /// A definite no: the step had no effect.
    pub(super) fn refuse(&mut self, step: usize, error: Failure) {
        self.record(Fact::Failed { step, error: error.clone() });
        match self.plan.steps[step].kind {
            Kind::Compensatable | Kind::Pivot => self.stop(error),
            Kind::Retriable => self.park(error),
        }
    }

    fn tick(&mut self) {
        for step in 0..self.instance.steps.len() {
            for phase in [Phase::Action, Phase::Compensation] {
                if !self.is_under_way() {
                    return;
                }
                match self.instance.steps[step].progress(phase).awaiting {
                    Awaiting::Reply(due) | Awaiting::Event(due) if due <= self.now => {
                        self.timed_out(step, phase);
                    }
                    Awaiting::Time(until) if until <= self.now => {
                        self.record(Fact::succeeded(step, Value::Null));
                    }
                    Awaiting::Retry(at) if at <= self.now => {
                        let attempt = self.instance.steps[step].progress(phase).attempt.saturating_add(1);
                        self.send(step, phase, attempt);
                    }
                    _ => {}
                }
            }
        }
        let deadline = self.instance.deadline.filter(|_| !self.instance.deadline_passed);
        if self.is_under_way() && deadline.is_some_and(|deadline| deadline <= self.now) {
            self.deadline_passed();
        }
    }

    fn turn(&mut self, step: usize) {
        let Some(state) = self.instance.steps.get(step) else { return };
        if self.is_under_way() && state.is_queued() {
            let attempt = state.action.attempt.saturating_add(1);
            self.dispatch(step, Phase::Action, attempt);
        }
    }

    fn timed_out(&mut self, step: usize, phase: Phase) {
        let attempt = self.instance.steps[step].progress(phase).attempt;
        let message = match attempt {
            0 => "the event did not come in time".to_owned(),
            _ => format!("attempt {attempt} was not answered in time"),
        };
        let message = match &self.instance.steps[step].misread {
            Some(wrong) => format!("{message}, but something came that cannot be read: {wrong}"),
            None => message,
        };
        let error = self.failure(step, "TIMEOUT", message);
        self.record(Fact::TimedOut { step, phase, attempt });
        match (phase, self.plan.steps[step].on_timeout) {
            (Phase::Compensation, _) | (_, OnTimeout::Retry) => self.attempt_failed(step, phase, error, None),
            (Phase::Action, OnTimeout::Continue) => self.record(Fact::Skipped { step, output: Value::Null }),
            (Phase::Action, OnTimeout::Compensate) if attempt == 0 => self.refuse(step, error),
            (Phase::Action, OnTimeout::Compensate) => self.exhausted(step, phase, error),
            (Phase::Action, OnTimeout::Park) => {
                self.record(Fact::GivenUp { step, error: error.clone() });
                self.park(error);
            }
        }
    }

    fn deadline_passed(&mut self) {
        self.record(Fact::DeadlinePassed);
        if self.instance.status != Status::Running || self.pivot_passed() || self.instance.is_held() {
            return;
        }
        let message = "the instance's time limit is over".to_owned();
        let error = Failure { step: None, code: "DEADLINE".to_owned(), message };
        match self.plan.deadline.map(|deadline| deadline.then) {
            Some(AtDeadline::Park) => self.park(error),
            Some(AtDeadline::Compensate) | None => self.stop(error),
        }
    }

    fn cancel(&mut self, event_id: Option<String>, event: Option<EventKey>) {
        if event.is_some_and(|event| self.instance.has_heard(event)) {
            return self.ignore(Ignored::RefusedCancel, event_id, None);
        }
        if let Some(event) = event {
            self.record(Fact::Heard { event });
        }
        let may_turn = self.instance.status == Status::Running && !self.instance.is_stopping();
        if may_turn && !self.pivot_passed() && !self.instance.is_held() {
            let message = "the instance was cancelled by an event".to_owned();
            self.stop(Failure { step: None, code: CANCELLED.to_owned(), message });
        } else {
            // What is cancelled already, and asked once more, is not refused to anybody; nor yet where the pivot
            // may still get through, which then is told for all that asked.
            let is_told = self.instance.ignored < IGNORED_RECORDED && !self.instance.is_cancelled();
            self.ignore(Ignored::RefusedCancel, event_id, None);
            if is_told {
                self.tell(Tells::RefusedCancel);
            }
        }
    }

    /// An attempt is over without a definite answer: the next one, or the end of this step.
    pub(super) fn attempt_failed(
        &mut self,
        step: usize,
        phase: Phase,
        error: Failure,
        after: Option<Duration>,
    ) {
        let Some(call) = command::call(self.plan, step, phase) else { return };
        let attempt = self.instance.steps[step].progress(phase).attempt;
        // While an instance stops, only the pivot is still worth asking for.
        let wanted = phase == Phase::Compensation
            || !self.instance.is_stopping()
            || self.plan.steps[step].kind == Kind::Pivot;
        if wanted && call.retry.allows_after(attempt) && !call.retry.except.contains(&error.code) {
            let name = &self.instance.steps[step].name;
            let next = self.instance.attempt_id(name, phase, attempt.saturating_add(1));
            let delay = after.unwrap_or_else(|| call.retry.delay_after(attempt, spread(next)));
            self.record(Fact::RetryScheduled { step, phase, at: self.now + delay });
        } else {
            self.exhausted(step, phase, error);
        }
    }

    /// No further attempt of a command is made.
    pub(super) fn exhausted(&mut self, step: usize, phase: Phase, error: Failure) {
        let delivered = self.instance.steps[step].progress(phase).maybe_delivered;
        match phase {
            Phase::Compensation => self.park(error),
            Phase::Action if delivered => {
                self.record(Fact::GivenUp { step, error: error.clone() });
                self.stop_or_park(step, error);
            }
            Phase::Action => self.refuse(step, error),
        }
    }

    /// A step has failed with an effect that is not known: back where there is a way back.
    pub(super) fn stop_or_park(&mut self, step: usize, error: Failure) {
        match self.plan.steps[step].kind {
            Kind::Compensatable => self.stop(error),
            Kind::Pivot | Kind::Retriable => self.park(error),
        }
    }

    /// Says that no further step is begun, from now on or from when a parked instance goes on.
    pub(super) fn stop(&mut self, error: Failure) {
        let under_way = matches!(self.instance.status, Status::Running | Status::Parked);
        if under_way && self.instance.error.is_none() {
            self.record(Fact::Stopping { error });
        }
    }

    pub(super) fn park(&mut self, error: Failure) {
        if self.instance.status != Status::Parked {
            self.record(Fact::Parked { error: error.clone() });
            self.notify();
            self.tell_caller(End::Parked(error));
        }
    }

    pub(super) fn ignore(&mut self, what: Ignored, message_id: Option<String>, step: Option<usize>) {
        self.note(what, message_id, step, None);
    }

    /// Notes a wrong reply.
    fn misread(&mut self, step: Option<usize>, message_id: Option<String>, reason: String) {
        let step = step.filter(|step| *step < self.instance.steps.len());
        self.note(Ignored::UnreadableReply, message_id, step, Some(cut(&reason)));
    }

    fn note(
        &mut self,
        what: Ignored,
        message_id: Option<String>,
        step: Option<usize>,
        reason: Option<String>,
    ) {
        self.decision.ignored = Some(what);
        if self.instance.ignored < IGNORED_RECORDED {
            self.record(Fact::Ignored { what, message_id, step, reason });
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.instance.status, Status::Running | Status::Compensating)
    }

    fn is_unconfirmed(&self, step: usize, phase: Phase, attempt: u32) -> bool {
        self.instance.steps.get(step).is_some_and(|state| {
            let progress = state.progress(phase);
            progress.attempt == attempt && progress.awaiting == Awaiting::Confirm
        })
    }

    pub(super) fn pivot_passed(&self) -> bool {
        let steps = self.plan.steps.iter().zip(&self.instance.steps);
        steps.into_iter().any(|(step, state)| {
            // A pivot that was skipped is behind us too: what follows it can only go forward.
            step.kind == Kind::Pivot && matches!(state.status, StepStatus::Succeeded | StepStatus::Skipped)
        })
    }

    /// Whether a pivot was given up that may have succeeded.
    pub(super) fn is_pivot_in_doubt(&self) -> bool {
        let mut steps = self.plan.steps.iter().zip(&self.instance.steps);
        steps.any(|(step, state)| step.kind == Kind::Pivot && state.status == StepStatus::Unknown)
    }

    pub(super) fn failure(&self, step: usize, code: &str, message: String) -> Failure {
        Failure { step: Some(self.instance.steps[step].name.clone()), code: code.to_owned(), message }
    }
}

/// The beginning of a reason: what it quotes may be long.
fn cut(reason: &str) -> String {
    reason.chars().take(MISREAD_CHARACTERS).collect()
}

/// A number in `[0, 1)` that is evenly spread over messages: jitter without a source of randomness.
fn spread(id: MessageId) -> f64 {
    let bytes = id.as_bytes();
    let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    f64::from(number) / (f64::from(u32::MAX) + 1.0)
}
