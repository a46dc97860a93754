//! Orders: what a person asks of an instance, and what that means where the instance stands.
//!
//! An order is recorded with who gave it and why, and then does what a reply or a timer could have done. One
//! that makes no sense where the instance stands is refused, and changes nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::called::called_by;
use super::fact::{CANCELLED, Fact, Failure};
use super::id::Phase;
use super::instance::{Awaiting, ItemStatus, Status, StepState, StepStatus};
use super::plan::{Kind, Work};
use super::transition::Transition;
use crate::fault::{self, Bug};

/// What a person asks of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What is to be done.
    pub verb: Verb,
    /// Name of the step; `None` for the one that the instance is parked for.
    #[serde(default)]
    pub step: Option<String>,
    /// What the step is to keep, where it is skipped or counts as succeeded.
    #[serde(default)]
    pub output: Value,
    /// Who asks.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// What a person can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Send the step's command once more, now; or go on, where it is no step that the instance is parked for.
    Retry,
    /// Go on without the step, which is not undone either; or without undoing it, which is told as not undone.
    Skip,
    /// The step has succeeded, whatever is known of it.
    ResolveSucceeded,
    /// The step has had no effect.
    ResolveFailed,
    /// Undo what was done.
    Compensate,
    /// Undo what was done, as a cancelling event would; also where the instance is parked, which refuses the event.
    Cancel,
    /// Change what a step keeps, while the instance is parked.
    Correct,
}

/// Why an output is refused.
const NO_OUTPUT: &str = "nothing keeps an output here: leave it out";

/// Why nothing can be asked of an instance that is done, and held for its caller.
const HELD: &str = "it is done, and what becomes of it is up to the instance that called it";

/// An object with these fields, as an example of what to type.
fn shape(fields: &[&str]) -> String {
    let fields: Vec<_> = fields.iter().map(|field| format!("{field:?}: ...")).collect();
    format!("'{{{}}}'", fields.join(", "))
}

/// Why an order is refused, in words.
pub type Refusal = String;

impl Verb {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Retry,
        Self::Skip,
        Self::ResolveSucceeded,
        Self::ResolveFailed,
        Self::Compensate,
        Self::Cancel,
        Self::Correct,
    ];

    /// The name as it stands in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Retry => "retry",
            Verb::Skip => "skip",
            Verb::ResolveSucceeded => "resolve_succeeded",
            Verb::ResolveFailed => "resolve_failed",
            Verb::Compensate => "compensate",
            Verb::Cancel => "cancel",
            Verb::Correct => "correct",
        }
    }
}

/// The step that an order is about, and which of its commands.
struct Target {
    step: usize,
    phase: Phase,
    status: StepStatus,
    awaiting: Awaiting,
}

impl Transition<'_> {
    /// Does what a person asks for, or refuses it.
    pub(super) fn order(&mut self, order: Order) {
        let keeps_output = matches!(order.verb, Verb::Skip | Verb::ResolveSucceeded | Verb::Correct);
        let done = match self.instance.status {
            Status::Completed | Status::Compensated => Err(format!("it has ended: {}", self.instance.status)),
            _ if self.instance.is_held() => Err(HELD.to_owned()),
            _ if !keeps_output && !order.output.is_null() => Err(NO_OUTPUT.to_owned()),
            _ => match order.verb {
                Verb::Retry => self.retry(&order),
                Verb::Skip => self.settle_as(&order, |step, output| Fact::Skipped { step, output }),
                Verb::ResolveSucceeded => self.settle_as(&order, Fact::succeeded),
                Verb::ResolveFailed => self.resolve_failed(&order),
                Verb::Compensate | Verb::Cancel => self.turn_back(&order),
                Verb::Correct => self.correct(&order),
            },
        };
        self.decision.refused = done.err();
    }

    fn retry(&mut self, order: &Order) -> Result<(), Refusal> {
        let is_parked_for_all = self.instance.parked.as_ref().is_some_and(|parked| parked.step.is_none());
        if is_parked_for_all && order.step.is_none() {
            self.record_order(order, None);
            self.record(Fact::Resumed { to: Status::Running });
            return Ok(());
        }
        let target = self.target(order)?;
        if matches!(target.awaiting, Awaiting::Event(_) | Awaiting::Time(_)) {
            return Err("nothing was sent that could be sent again: skip it, or resolve it".to_owned());
        }
        if target.awaiting == Awaiting::Turn {
            let name = &self.instance.steps[target.step].name;
            return Err(format!("it awaits its turn: step {name} is limited over all instances"));
        }
        let may_be_done = target.status == StepStatus::Unknown;
        if may_be_done && matches!(self.plan.steps[target.step].work, Work::Saga(_)) {
            return Err("the saga that it called has completed: resolve the step".to_owned());
        }
        let items = &self.instance.steps[target.step].items;
        if may_be_done && !items.is_empty() && items.iter().all(|item| item.status == ItemStatus::Done) {
            return Err("every item of it is done: resolve the step".to_owned());
        }
        let waits = matches!(target.awaiting, Awaiting::Retry(_));
        let is_out = matches!(target.awaiting, Awaiting::Confirm | Awaiting::Reply(_));
        if is_out && self.is_under_way() {
            return Err(
                "its command is out and may still be answered: it is sent again after its timeout".to_owned()
            );
        }
        if is_out {
            return Err(
                "its command is out and may still be answered: its timeout runs on when the instance goes on"
                    .to_owned(),
            );
        }
        if !waits && !self.is_open_to_orders(&target) {
            return Err(self.closed(&target));
        }
        self.record_order(order, Some(target.step));
        self.resume_from(target.step, target.phase);
        let attempt = self.instance.steps[target.step].progress(target.phase).attempt.saturating_add(1);
        match target.phase {
            Phase::Action => self.work(target.step, attempt),
            Phase::Compensation => self.dispatch(target.step, target.phase, attempt),
        }
        Ok(())
    }

    /// Has a step count as settled by a fact; or as undone, where it is being undone.
    fn settle_as(&mut self, order: &Order, fact: fn(usize, Value) -> Fact) -> Result<(), Refusal> {
        let target = self.settled_by(order)?;
        if target.phase == Phase::Compensation && !order.output.is_null() {
            return Err(NO_OUTPUT.to_owned());
        }
        let is_pivot = self.plan.steps[target.step].kind == Kind::Pivot;
        if order.verb == Verb::Skip && is_pivot && self.instance.error.is_some() {
            return Err("the instance turns back, and to skip its pivot would take it on: resolve the step"
                .to_owned());
        }
        if target.phase == Phase::Action {
            self.check_output(order, target.step)?;
        }
        self.record_order(order, Some(target.step));
        self.resume_from(target.step, target.phase);
        self.record(match target.phase {
            Phase::Action => fact(target.step, order.output.clone()),
            Phase::Compensation if order.verb == Verb::Skip && !fault::planted(Bug::LeftToldUndone) => {
                Fact::LeftUndone { step: target.step }
            }
            Phase::Compensation => Fact::Compensated { step: target.step },
        });
        Ok(())
    }

    /// Changes what a settled step keeps. Only while the instance is parked, and nothing is on its way that was made
    /// from it: a command that is published again must be the same.
    fn correct(&mut self, order: &Order) -> Result<(), Refusal> {
        if self.instance.status != Status::Parked {
            return Err(format!(
                "it is {}: only what a parked instance keeps can be changed",
                self.instance.status
            ));
        }
        if order.step.is_none() {
            return Err("name the step whose output is to be changed: --step NAME".to_owned());
        }
        if order.output.is_null() {
            return Err("say what the step is to keep: --output JSON".to_owned());
        }
        if self.instance.unconfirmed().next().is_some() {
            return Err("the broker has yet to confirm a message of it: try again in a moment".to_owned());
        }
        let Target { step, status, .. } = self.named(order)?;
        if !matches!(status, StepStatus::Succeeded | StepStatus::Skipped) {
            let name = &self.instance.steps[step].name;
            return Err(format!("step {name} is {status} and keeps nothing yet: resolve it instead"));
        }
        self.check_output(order, step)?;
        self.record_order(order, Some(step));
        self.record(Fact::Corrected { step, output: order.output.clone() });
        Ok(())
    }

    /// Whether the output that a person gives has the fields that later steps count on.
    fn check_output(&self, order: &Order, step: usize) -> Result<(), Refusal> {
        let name = &self.instance.steps[step].name;
        let Some(declared) = &self.plan.steps[step].output else { return Ok(()) };
        if order.output.is_null() {
            let asks = order.verb != Verb::Skip;
            let shape = declared.fields().map_or_else(|| "JSON".to_owned(), |fields| shape(&fields));
            return if asks {
                Err(format!("step {name} keeps an output, which later steps count on: --output {shape}"))
            } else {
                Ok(())
            };
        }
        let Some(fields) = declared.fields() else { return Ok(()) };
        let Value::Object(given) = &order.output else {
            return Err(format!("the output of step {name} is an object: --output {}", shape(&fields)));
        };
        let missing: Vec<_> = fields.iter().filter(|field| !given.contains_key(**field)).copied().collect();
        if !missing.is_empty() {
            return Err(format!("the output of step {name} lacks {}", missing.join(", ")));
        }
        let unknown = given.keys().find(|field| !fields.contains(&field.as_str()));
        unknown.map_or(Ok(()), |field| {
            Err(format!("the output of step {name} has no field {field:?}, only {}", fields.join(", ")))
        })
    }

    fn resolve_failed(&mut self, order: &Order) -> Result<(), Refusal> {
        let target = self.settled_by(order)?;
        if target.phase == Phase::Compensation {
            return Err(
                "a step that cannot be undone stays parked: skip it, or resolve it as succeeded".to_owned()
            );
        }
        if self.plan.steps[target.step].kind == Kind::Retriable {
            return Err("there is no way back from a step after the pivot: retry it, skip it, or resolve it as succeeded".to_owned());
        }
        self.record_order(order, Some(target.step));
        self.resume_from(target.step, target.phase);
        let error = self.failure(target.step, "RESOLVED", order.reason.clone());
        self.refuse(target.step, error);
        Ok(())
    }

    fn turn_back(&mut self, order: &Order) -> Result<(), Refusal> {
        if order.step.is_some() {
            return Err("this is asked of an instance, not of a step".to_owned());
        }
        if self.pivot_passed() {
            return Err("its pivot has succeeded: there is no way back".to_owned());
        }
        let is_going_back = self.instance.status == Status::Compensating
            || self.instance.is_stopping()
            || self.instance.steps.iter().any(|state| !state.compensation.is_idle());
        if is_going_back {
            return Err("it is on its way back already".to_owned());
        }
        if self.is_pivot_in_doubt() {
            return Err("whether its pivot has succeeded is not known: resolve that step first".to_owned());
        }
        self.record_order(order, None);
        let code = if order.verb == Verb::Cancel { CANCELLED } else { "OPERATOR" };
        self.stop(Failure { step: None, code: code.to_owned(), message: order.reason.clone() });
        if self.instance.status == Status::Parked {
            self.record(Fact::Resumed { to: Status::Running });
        }
        Ok(())
    }

    /// The step that an order settles, if it can be settled where it stands.
    fn settled_by(&self, order: &Order) -> Result<Target, Refusal> {
        let target = self.target(order)?;
        let is_under_way = matches!(target.status, StepStatus::Dispatched | StepStatus::Compensating);
        // A person who has seen to a pivot that contradicted itself says that it has had no effect.
        let is_seen_to = order.verb == Verb::ResolveFailed && self.is_parked_for(target.step);
        if is_under_way || is_seen_to || self.is_open_to_orders(&target) {
            Ok(target)
        } else {
            Err(self.closed(&target))
        }
    }

    /// Whether a step that nothing is out for may be taken up again: it is what the instance is parked for.
    fn is_open_to_orders(&self, target: &Target) -> bool {
        let state = &self.instance.steps[target.step];
        let untouched = target.phase == Phase::Compensation || state.compensation.is_idle();
        let undoing = self.instance.steps.iter().any(|state| !state.compensation.is_idle());
        // A pivot that may have got through after steps were undone is beyond any order.
        let contradicts = self.plan.steps[target.step].kind == Kind::Pivot && undoing;
        self.is_parked_for(target.step) && untouched && !contradicts
    }

    fn is_parked_for(&self, step: usize) -> bool {
        let parked_for = self.instance.parked.as_ref().and_then(|parked| parked.step.as_ref());
        parked_for == Some(&self.instance.steps[step].name)
    }

    fn closed(&self, target: &Target) -> Refusal {
        format!(
            "step {} is {}, and not what the instance waits for",
            self.instance.steps[target.step].name, target.status
        )
    }

    fn target(&self, order: &Order) -> Result<Target, Refusal> {
        let target = self.named(order)?;
        match self.awaits_called(target.step, target.phase) {
            false => Ok(target),
            true => {
                let called = called_by(self.plan, self.instance, target.step);
                Err(match called {
                    Some(called) => format!("the step is what instance {called} does: ask that of it"),
                    None => "the step is what the instances of its items do: ask that of them".to_owned(),
                })
            }
        }
    }

    fn named(&self, order: &Order) -> Result<Target, Refusal> {
        let steps = &self.instance.steps;
        let parked_for = self.instance.parked.as_ref().and_then(|parked| parked.step.clone());
        let name = order.step.clone().or(parked_for).ok_or_else(|| self.unnamed())?;
        let step = steps.iter().position(|state| state.name == name).ok_or_else(|| {
            let names: Vec<_> = steps.iter().map(|state| state.name.as_str()).collect();
            format!("there is no step {name:?}, only {}", names.join(", "))
        })?;
        let state = &steps[step];
        let phase =
            if state.status == StepStatus::Compensating { Phase::Compensation } else { Phase::Action };
        Ok(Target { step, phase, status: state.status, awaiting: state.progress(phase).awaiting })
    }

    /// Why a step has to be named. One that happens to be the only one under way may be another by the time that
    /// the order is given once more because its answer got lost.
    fn unnamed(&self) -> Refusal {
        let is_under_way =
            |state: &&StepState| matches!(state.status, StepStatus::Dispatched | StepStatus::Compensating);
        let under_way = self.instance.steps.iter().filter(is_under_way);
        let steps: Vec<_> = under_way.map(|state| format!("--step {}", state.name)).collect();
        match steps.is_empty() {
            true => "no step of it is under way".to_owned(),
            false => {
                format!("it is not parked for a step, so name the one that is meant: {}", steps.join(" or "))
            }
        }
    }

    fn record_order(&mut self, order: &Order, step: Option<usize>) {
        let (verb, actor, reason) = (order.verb, order.actor.clone(), order.reason.clone());
        self.record(Fact::Ordered { verb, step, actor, reason });
    }
}
