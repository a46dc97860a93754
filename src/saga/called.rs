//! Sagas that call sagas: the same calls, told from both sides.
//!
//! ```text
//!  caller                                 called
//!  ------                                 ------
//!  step is dispatched     -- start -->    runs
//!  step succeeds          <-- done --     every step is settled; if its caller may still turn back, it is held
//!  step fails             <-- failed --   compensated
//!  turns back             -- recall -->   turns back, held or not; not while its own pivot is in doubt
//!  step is compensated    <-- undone --   compensated
//!  parks                  <-- parked --   parked; goes on by itself, and its caller with its end
//!  ends                   -- release -->  completed
//! ```
//!
//! Both sides are decided in the same commit, so nothing that one tells the other can be lost.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::each::item_instances;
use super::expression::{Scope, take_room};
use super::fact::{Fact, Failure, Trace};
use super::id::{InstanceId, Phase};
use super::instance::{Awaiting, Instance, Item, ItemStatus, Status, StepStatus};
use super::plan::{Kind, Plan, SubSaga, Work};
use super::transition::{Event, Transition};

/// Calls within calls.
pub const MAX_DEPTH: u8 = 8;
/// Largest input of a called instance, in bytes of JSON. All that begin with one input go into one commit.
pub const MAX_INPUT: usize = 64 << 10;
/// Longest business key that is made of the caller's, in bytes; beyond it the caller's id stands for it.
const LONGEST_KEY: usize = 512;

/// Who called an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The calling instance.
    pub instance: InstanceId,
    /// Index of its step.
    pub step: usize,
    /// Which item of the step it is called for, where the step has items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
    /// Whether the caller may turn back after this is done.
    pub undoable: bool,
    /// How many calls are above this one, itself included.
    pub depth: u8,
}

/// What one instance tells another in the same commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Begin.
    Start(Box<Start>),
    /// Something happened that concerns it.
    Event(InstanceId, Event),
}

/// An instance to begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Name of the saga.
    pub saga: String,
    /// Names the instance.
    pub business_key: String,
    /// Its input.
    pub input: Value,
    /// Who calls it.
    pub caller: Caller,
    /// W3C trace context of the caller.
    pub trace: Option<Trace>,
}

/// What became of an instance that was called.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Every step of it is settled, with what the calling step keeps, or why that cannot be made.
    Done(Result<Value, Failure>),
    /// It is compensated, or could not begin.
    Failed(Failure),
    /// It was done, and is undone; all of it, unless a person had it leave something as it is.
    Undone {
        /// Whether something is not undone.
        leaves: bool,
    },
    /// It is parked. That is no end, but a person has to look at it.
    Parked(Failure),
}

impl Start {
    /// Why the instance cannot begin as this plan says, if it cannot.
    pub fn obstacle(&self, plan: &Plan) -> Option<Failure> {
        let (code, message) = if self.caller.depth > MAX_DEPTH {
            ("TOO_DEEP", format!("sagas call each other over more than {MAX_DEPTH} levels"))
        } else if self.caller.undoable && plan.has_pivot() {
            let message = format!(
                "saga {} v{} has a pivot and cannot be undone: call it from a pivot, or after one",
                plan.saga, plan.version
            );
            ("NOT_UNDOABLE", message)
        } else {
            return None;
        };
        Some(Failure { step: None, code: code.to_owned(), message })
    }
}

/// The business key of the instance that an attempt of a step calls.
pub(crate) fn key_of(instance: &Instance, step: usize, item: &str, attempt: u32) -> String {
    let name = &instance.steps[step].name;
    let again = if attempt > 1 { format!("#{attempt}") } else { String::new() };
    match instance.business_key.len() {
        0..LONGEST_KEY => format!("{}/{}/{name}{item}{again}", instance.saga, instance.business_key),
        _ => format!("{}/{name}{item}{again}", instance.id),
    }
}

/// The instance that a step has called last.
pub fn called_by(plan: &Plan, instance: &Instance, step: usize) -> Option<InstanceId> {
    let Work::Saga(SubSaga { saga, .. }) = &plan.steps.get(step)?.work else { return None };
    let attempt = instance.steps.get(step)?.action.attempt;
    (attempt > 0).then(|| InstanceId::new(saga, &key_of(instance, step, "", attempt)))
}

/// The side of the caller.
impl Transition<'_> {
    /// Calls a saga.
    pub(super) fn call_saga(&mut self, step: usize, called: &SubSaga, attempt: u32) {
        let input = match called.input.evaluate(&Scope::of(self.instance)) {
            Ok(input) => input,
            Err(error) => {
                let message = format!("the input of the called saga cannot be made: {error}");
                let error = self.failure(step, "BAD_EXPRESSION", message);
                return self.refuse(step, error);
            }
        };
        if let Err(error) = self.fits(step, &input) {
            return self.refuse(step, error);
        }
        let business_key = key_of(self.instance, step, "", attempt);
        let id = InstanceId::new(&called.saga, &business_key);
        let caller = self.caller_of(step);
        self.record(Fact::Called { step, attempt, instance: id });
        let (saga, trace) = (called.saga.clone(), self.instance.trace.clone());
        let start = Start { saga, business_key, input, caller, trace };
        self.decision.told.push(Told::Start(Box::new(start)));
    }

    /// Whether an input is small enough for many of them to go into one commit.
    pub(super) fn fits(&self, step: usize, input: &Value) -> Result<(), Failure> {
        let too_large = |_| {
            let message = format!("the input of a called instance is over {MAX_INPUT} bytes of JSON");
            self.failure(step, "TOO_LARGE", message)
        };
        take_room(input, &mut { MAX_INPUT }).map_err(too_large)
    }

    /// This instance, as who calls by a step.
    pub(super) fn caller_of(&self, step: usize) -> Caller {
        let depth = self.instance.caller.map_or(0, |caller| caller.depth).saturating_add(1);
        let undoable = self.is_held_when_done(step);
        Caller { instance: self.instance.id, step, item: None, undoable, depth }
    }

    /// Has the instance that a step called turn back.
    pub(super) fn recall(&mut self, step: usize, phase: Phase) {
        let Some(called) = called_by(self.plan, self.instance, step) else { return };
        self.record(Fact::Recalled { step, phase });
        self.tell_to_turn_back(called);
    }

    pub(super) fn tell_to_turn_back(&mut self, called: InstanceId) {
        let caller = self.instance.id;
        self.decision.told.push(Told::Event(called, Event::Recall { caller }));
    }

    /// Takes in what became of the instance that a step called.
    pub(super) fn called_ended(&mut self, step: usize, item: Option<usize>, end: End) {
        let Some(state) = self.instance.steps.get(step) else { return };
        if let Some(item) = item {
            return self.item_ended(step, item, end);
        }
        let name = state.name.clone();
        let of_step = |failure: Failure| Failure { step: Some(name.clone()), ..failure };
        match (state.status, end) {
            // It was told to turn back when it had just been done: what is awaited is that it is undone.
            (StepStatus::Dispatched, End::Done(_))
                if state.action.awaiting == Awaiting::Recalled && self.is_held_when_done(step) => {}
            (StepStatus::Dispatched, End::Undone { leaves }) => {
                self.resume_from(step, Phase::Action);
                self.refuse(step, self.turned_back(step, leaves));
            }
            (StepStatus::Dispatched, End::Done(output)) => {
                self.resume_from(step, Phase::Action);
                self.succeed(step, output.map_err(of_step));
            }
            (StepStatus::Dispatched, End::Failed(error)) => {
                self.resume_from(step, Phase::Action);
                self.refuse(step, of_step(error));
            }
            (StepStatus::Compensating, End::Undone { leaves }) => {
                self.resume_from(step, Phase::Compensation);
                self.record(if leaves { Fact::LeftUndone { step } } else { Fact::Compensated { step } });
            }
            (StepStatus::Dispatched | StepStatus::Compensating, End::Parked(_)) if !state.stalled => {
                self.record(Fact::Stalled { step, item: None });
            }
            _ => {}
        }
    }

    /// Why a step has failed whose instance was done when it was told to turn back.
    pub(super) fn turned_back(&self, step: usize, leaves: bool) -> Failure {
        let became = match leaves {
            false => "and is undone",
            true => "and something of it is not undone: look at its instance",
        };
        self.failure(step, "RECALLED", format!("it was done when it was told to turn back, {became}"))
    }

    /// Whether what a step calls is held until the end of this instance.
    fn is_held_when_done(&self, step: usize) -> bool {
        self.plan.steps[step].kind == Kind::Compensatable
    }

    /// Parks the instance if one that it called is parked, and it is not about to recall it.
    pub(super) fn park_if_stalled(&mut self) {
        let is_stopping = self.instance.is_stopping();
        let waits = |step: &usize| {
            let state = &self.instance.steps[*step];
            let recalls = is_stopping || (state.error.is_some() && self.plan.steps[*step].is_undoable());
            let item_waits = |item: &Item| item.stalled && (item.status == ItemStatus::Recalled || !recalls);
            if state.items.iter().any(item_waits) {
                return true;
            }
            state.stalled
                && Phase::BOTH.into_iter().any(|phase| match state.progress(phase).awaiting {
                    Awaiting::Recalled => true,
                    Awaiting::Called => !is_stopping,
                    _ => false,
                })
        };
        if self.is_under_way()
            && let Some(step) = (0..self.instance.steps.len()).find(waits)
        {
            let message = match called_by(self.plan, self.instance, step) {
                Some(called) => {
                    format!("instance {called}, which this step called, is parked: look at that one")
                }
                None => "the instance of an item is parked: look at that one".to_owned(),
            };
            self.park(self.failure(step, "CALLED_PARKED", message));
        }
    }

    /// Has every instance complete that is held for this one.
    pub(super) fn release_called(&mut self) {
        for step in 0..self.plan.steps.len() {
            let is_held =
                self.instance.steps[step].status == StepStatus::Succeeded && self.is_held_when_done(step);
            if is_held {
                let called = called_by(self.plan, self.instance, step).into_iter();
                let items = item_instances(self.plan, self.instance, step).map(|(called, _)| called);
                let caller = self.instance.id;
                let release = |called| Told::Event(called, Event::Release { caller });
                let told: Vec<_> = called.chain(items).map(release).collect();
                self.decision.told.extend(told);
            }
        }
    }
}

/// The side of the called.
impl Transition<'_> {
    pub(super) fn is_called_by(&self, id: InstanceId) -> bool {
        self.instance.caller.is_some_and(|caller| caller.instance == id)
    }

    /// Every step is settled: this is the end, or the caller has still to decide.
    pub(super) fn settled(&mut self) {
        let Some(caller) = self.instance.caller else { return self.complete() };
        if self.instance.held {
            return;
        }
        let output = match &self.plan.output {
            None => Ok(Value::Null),
            Some(output) => output.evaluate(&Scope::of(self.instance)).map_err(|error| Failure {
                step: None,
                code: "BAD_OUTPUT".to_owned(),
                message: format!("the `output` of saga {} cannot be made: {error}", self.plan.saga),
            }),
        };
        if caller.undoable {
            self.record(Fact::Held);
        } else {
            self.complete();
        }
        self.tell_caller(End::Done(output));
    }

    pub(super) fn complete(&mut self) {
        self.record(Fact::Completed);
        self.notify();
        self.release_called();
    }

    /// Tells the caller, if there is one, that this is compensated.
    pub(super) fn tell_compensated(&mut self) {
        let not_undone = self.instance.not_undone().collect::<Vec<_>>().join(", ");
        let leaves = !not_undone.is_empty();
        let mut error = self.instance.error.clone().unwrap_or_else(|| Failure {
            step: None,
            code: "COMPENSATED".to_owned(),
            message: "the called saga was compensated".to_owned(),
        });
        if leaves {
            error.message = format!("{}; not undone: {not_undone}", error.message);
        }
        self.tell_caller(if self.instance.held { End::Undone { leaves } } else { End::Failed(error) });
    }

    pub(super) fn tell_caller(&mut self, end: End) {
        if let Some(Caller { instance, step, item, .. }) = self.instance.caller {
            self.decision.told.push(Told::Event(instance, Event::CalledEnded { step, item, end }));
        }
    }

    /// The caller turns back: so does this, unless it does so already, or its own pivot is behind it or in
    /// doubt. One that is parked and stays so has its caller wait for a person as well.
    pub(super) fn recalled(&mut self) {
        let may_turn = matches!(self.instance.status, Status::Running | Status::Parked)
            && self.instance.error.is_none()
            && !self.pivot_passed()
            && !self.is_pivot_in_doubt();
        if !may_turn {
            // It cannot, and waits for a person: so must its caller.
            if let Some(error) = self.instance.parked.clone() {
                self.tell_caller(End::Parked(error));
            }
            return;
        }
        let message = "the saga that called it turns back".to_owned();
        self.stop(Failure { step: None, code: "RECALLED".to_owned(), message });
        if self.instance.status == Status::Parked {
            self.record(Fact::Resumed { to: Status::Running });
        }
    }

    /// The caller has come to its end: there is no way back.
    pub(super) fn released(&mut self) {
        if self.instance.is_held() {
            self.complete();
        }
    }

    /// Whether a step waits for an instance that it called.
    pub(super) fn awaits_called(&self, step: usize, phase: Phase) -> bool {
        let awaiting = self.instance.steps[step].progress(phase).awaiting;
        matches!(awaiting, Awaiting::Called | Awaiting::Recalled)
    }
}
