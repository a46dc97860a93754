//! Going on: which steps begin, which are undone, and when an instance has ended.
//!
//! ```text
//!            all settled
//! running ------------------------------------------> completed, or held for the caller
//!    | a step failed, deadline, cancelled
//!    v
//! stopping: steps in flight settle --- pivot succeeded ---> running
//!    | none in flight
//!    v
//! compensating: backwards over the graph -----------> compensated
//! ```

use std::sync::Arc;

use serde_json::Value;

use super::command;
use super::expression::Scope;
use super::fact::{Early, Fact, Tells};
use super::id::Phase;
use super::instance::{Awaiting, Status, StepState, StepStatus};
use super::message::Part;
use super::plan::{Delay, Kind, Work};
use super::scope::type_name;
use super::time::Timestamp;
use super::transition::Transition;
use crate::fault::{self, Bug};

impl Transition<'_> {
    /// Does everything that is due without a further event.
    pub(super) fn advance(&mut self) {
        loop {
            let before = self.decision.facts.len();
            self.park_if_stalled();
            if self.is_under_way() {
                self.advance_items();
            }
            match self.instance.status {
                Status::Running if self.instance.is_stopping() => self.drain(),
                Status::Running => self.go_forward(),
                Status::Compensating => self.go_back(),
                Status::Completed | Status::Compensated | Status::Parked => {}
            }
            if self.decision.facts.len() == before {
                return;
            }
        }
    }

    /// Begins every step whose prerequisites are settled.
    fn go_forward(&mut self) {
        // While it was parked for one step, another may have come to its end.
        let is_given_up =
            |state: &&StepState| matches!(state.status, StepStatus::Failed | StepStatus::Unknown);
        if let Some(error) =
            self.instance.steps.iter().find(is_given_up).and_then(|state| state.error.clone())
        {
            return self.park(error);
        }
        for step in 0..self.plan.steps.len() {
            if self.instance.status != Status::Running || self.instance.is_stopping() {
                return;
            }
            let ready = self.instance.steps[step].status == StepStatus::Pending
                && self.plan.steps[step].requires.iter().all(|&earlier| self.is_settled(earlier));
            if ready {
                self.begin(step);
            }
        }
        if (0..self.plan.steps.len()).all(|step| self.is_settled(step)) {
            self.settled();
        }
    }

    fn begin(&mut self, step: usize) {
        let condition = self.plan.steps[step].when.as_ref();
        match condition.map(|condition| condition.evaluate_bool(&Scope::of(self.instance))) {
            None | Some(Ok(true)) => self.work(step, 1),
            Some(Ok(false)) => self.record(Fact::Skipped { step, output: Value::Null }),
            Some(Err(error)) => {
                let message = format!("the step's `when` cannot be evaluated: {error}");
                let error = self.failure(step, "BAD_EXPRESSION", message);
                self.record(Fact::NotSent { step, phase: Phase::Action, error: error.clone() });
                self.exhausted(step, Phase::Action, error);
            }
        }
    }

    /// Does what the step does. `attempt` counts where something is sent.
    pub(super) fn work(&mut self, step: usize, attempt: u32) {
        match &self.plan.steps[step].work {
            Work::Command(_) | Work::Emit(_) => self.send(step, Phase::Action, attempt),
            Work::Saga(called) => self.call_saga(step, called, attempt),
            Work::Each(each) => self.list_items(step, each, attempt),
            Work::Wait(wait) => {
                self.record(Fact::Awaited { step, due: self.now + wait.timeout });
                match self.instance.steps[step].early.clone() {
                    Some(Early::Success(output)) => self.record(Fact::succeeded(step, output)),
                    Some(Early::Failure(error)) => self.refuse(step, error),
                    None => {}
                }
            }
            Work::Delay(delay) => match self.end_of(delay) {
                Ok(until) => {
                    self.record(Fact::Delayed { step, until });
                    if until <= self.now {
                        self.record(Fact::succeeded(step, Value::Null));
                    }
                }
                Err(message) => {
                    let error = self.failure(step, "BAD_EXPRESSION", message);
                    self.refuse(step, error);
                }
            },
        }
    }

    /// When a delay that begins now is over.
    fn end_of(&self, delay: &Delay) -> Result<Timestamp, String> {
        let expression = match delay {
            Delay::For(time) => return Ok(self.now + *time),
            Delay::Until(expression) => expression,
        };
        match expression.evaluate(&Scope::of(self.instance)) {
            Ok(Value::String(text)) => Timestamp::parse(&text)
                .ok_or_else(|| format!("the step's `until` is {text:?}, which is no RFC 3339 time")),
            Ok(other) => Err(format!("the step's `until` is {}, and not a time as text", type_name(&other))),
            Err(error) => Err(format!("the step's `until` cannot be evaluated: {error}")),
        }
    }

    /// Decides an attempt, or has it await its turn where the step is limited.
    pub(super) fn send(&mut self, step: usize, phase: Phase, attempt: u32) {
        match (phase, self.plan.steps[step].limit) {
            (Phase::Action, Some(_)) => self.record(Fact::Queued { step }),
            _ => self.dispatch(step, phase, attempt),
        }
    }

    /// Decides an attempt and renders its message.
    pub(super) fn dispatch(&mut self, step: usize, phase: Phase, attempt: u32) {
        self.record(Fact::Dispatched { step, phase, attempt });
        match command::render(self.plan, self.instance, Part::Attempt { step, phase, attempt }) {
            Ok(outgoing) => self.decision.outgoing.extend(outgoing),
            Err(error) => {
                let message = format!("the command cannot be made: {error}");
                let error = self.failure(step, "BAD_EXPRESSION", message);
                self.record(Fact::NotSent { step, phase, error: error.clone() });
                self.exhausted(step, phase, error);
            }
        }
    }

    /// Waits for the steps in flight, then turns back, or goes on if the pivot got through.
    fn drain(&mut self) {
        for step in 0..self.plan.steps.len() {
            let state = &self.instance.steps[step];
            if state.status != StepStatus::Dispatched {
                continue;
            }
            match state.action.awaiting {
                Awaiting::Turn if !state.action.maybe_delivered => {
                    let message = "not sent any more because the instance stops".to_owned();
                    let error = self.failure(step, "STOPPED", message);
                    self.record(Fact::Failed { step, error });
                    continue;
                }
                Awaiting::Retry(_) | Awaiting::Turn => {}
                Awaiting::Event(_) | Awaiting::Time(_) => {
                    let message = "not awaited any longer because the instance stops".to_owned();
                    let error = self.failure(step, "STOPPED", message);
                    self.record(Fact::Failed { step, error });
                    continue;
                }
                Awaiting::Called if matches!(self.plan.steps[step].work, Work::Each(_)) => continue,
                Awaiting::Called => {
                    self.recall(step, Phase::Action);
                    continue;
                }
                Awaiting::Nothing | Awaiting::Confirm | Awaiting::Reply(_) | Awaiting::Recalled => continue,
            }
            // Nothing is out for this step. The pivot alone is asked on: whether it happened decides
            // the direction.
            if self.plan.steps[step].kind != Kind::Pivot || !state.action.maybe_delivered {
                let message = "given up between two attempts because the instance stops".to_owned();
                let error = self.failure(step, "STOPPED", message);
                self.exhausted(step, Phase::Action, error);
            }
        }
        let in_flight = self.instance.steps.iter().any(|state| state.status == StepStatus::Dispatched);
        if self.instance.is_stopping() && !in_flight {
            match self.pivot_passed() {
                true => self.overrule_stop(),
                false => self.record(Fact::CompensationStarted),
            }
        }
    }

    /// Goes on forward, because the pivot got through meanwhile. A cancellation that counted until now is refused
    /// by that, and nobody else would tell whoever asked for it.
    fn overrule_stop(&mut self) {
        let was_cancelled = self.instance.is_cancelled();
        self.record(Fact::StopOverruled);
        if was_cancelled {
            self.tell(Tells::RefusedCancel);
        }
    }

    /// Undoes every step that may have taken effect and that nothing later stands on.
    fn go_back(&mut self) {
        let steps = self.plan.steps.len();
        // While it was parked for one compensation, another may have used up its attempts.
        if let Some(step) = (0..steps).find(|step| self.is_stuck(*step)) {
            let message = "it is not undone, and no attempt to undo it is left".to_owned();
            return self.park(self.failure(step, "NOT_UNDONE", message));
        }
        // open[i]: step i, or a step that requires it, is still to be undone or being undone.
        let mut open = vec![false; steps];
        for step in (0..steps).rev() {
            let to_undo = self.is_to_undo(step);
            if to_undo && !open[step] {
                self.undo(step);
            }
            let status = self.instance.steps[step].status;
            open[step] |= to_undo || matches!(status, StepStatus::Compensating | StepStatus::Dispatched);
            if open[step] && !fault::planted(Bug::UnorderedCompensation) {
                for &earlier in &self.plan.steps[step].requires {
                    open[earlier] = true;
                }
            }
            if self.instance.status != Status::Compensating {
                return;
            }
        }
        if !open.contains(&true) {
            self.record(Fact::AllCompensated);
            self.notify();
            self.tell_compensated();
        }
    }

    /// Begins to undo a step.
    fn undo(&mut self, step: usize) {
        match self.plan.steps[step].work {
            Work::Saga(_) => self.recall(step, Phase::Compensation),
            Work::Each(_) => self.record(Fact::Recalled { step, phase: Phase::Compensation }),
            _ => self.dispatch(step, Phase::Compensation, 1),
        }
    }

    /// Has an event emitted that tells where the instance stands, if the plan names one.
    pub(super) fn notify(&mut self) {
        self.tell(Tells::Status);
    }

    /// Has an event emitted, if the plan names one.
    pub(super) fn tell(&mut self, tells: Tells) {
        let Some(emission) = command::emission(self.plan, tells, self.instance.status) else { return };
        let notice = self.instance.notices.len();
        let (body, failed) = match emission.body.evaluate(&Scope::of_notice(self.instance)) {
            Ok(body) => (body, Ok(())),
            Err(error) => (Value::Null, Err(error)),
        };
        self.record(Fact::NoticeDue { tells, body: Arc::new(body) });
        match failed.and_then(|()| command::render(self.plan, self.instance, Part::Notice(notice))) {
            Ok(outgoing) => self.decision.outgoing.extend(outgoing),
            Err(error) => self.record(Fact::NoticeDropped { notice, reason: error.to_string() }),
        }
    }

    fn is_settled(&self, step: usize) -> bool {
        matches!(self.instance.steps[step].status, StepStatus::Succeeded | StepStatus::Skipped)
    }

    fn is_stuck(&self, step: usize) -> bool {
        let state = &self.instance.steps[step];
        state.status == StepStatus::Compensating && state.compensation.awaiting == Awaiting::Nothing
    }

    fn is_to_undo(&self, step: usize) -> bool {
        let may_have_happened = match self.instance.steps[step].status {
            StepStatus::Succeeded => true,
            StepStatus::Unknown => !fault::planted(Bug::UnknownNotUndone),
            _ => false,
        };
        may_have_happened && self.plan.steps[step].is_undoable()
    }
}
