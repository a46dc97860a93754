//! Answers: what a reply means for a step, wherever the step stands.

use std::time::Duration;

use super::command;
use super::fact::{Early, Fact, Failure, Ignored};
use super::id::{EventKey, Phase};
use super::instance::{Awaiting, Status, StepStatus};
use super::plan::{Kind, Work};
use super::reply::Outcome;
use super::transition::{Answer, MAX_STILL_WORKING, Transition};

/// A `pending` counts once this share of the timeout has passed since the last one, or since the command went out.
const PENDING_SHARE: u32 = 10;

impl Transition<'_> {
    /// Takes in a reply. An event counts once: what it was good for is on the history with it, and should it come
    /// again, it answers nothing, whatever listens to it then.
    pub(super) fn reply(&mut self, answer: Answer, event: Option<EventKey>, outcome: Outcome) {
        if event.is_some_and(|event| self.instance.has_heard(event)) {
            return self.ignore_reply(Ignored::DuplicateReply, answer);
        }
        let before = self.decision.facts.len();
        match answer.phase {
            Phase::Action => self.action_reply(answer, outcome),
            Phase::Compensation => self.compensation_reply(answer, outcome),
        }
        let counts = self.decision.ignored.is_none() && self.decision.facts.len() > before;
        if let Some(event) = event.filter(|_| counts) {
            self.record(Fact::Heard { event });
        }
    }

    fn action_reply(&mut self, answer: Answer, outcome: Outcome) {
        let step = answer.step;
        if !matches!(self.plan.steps[step].work, Work::Command(_) | Work::Wait(_)) {
            return self.ignore_reply(Ignored::UnexpectedReply, answer);
        }
        let state = &self.instance.steps[step];
        if state.is_queued() && state.action.attempt == 0 {
            return self.ignore_reply(Ignored::UnexpectedReply, answer);
        }
        match (state.status, outcome) {
            (StepStatus::Dispatched, Outcome::Success(output)) => self.succeed(step, output),
            (StepStatus::Dispatched, Outcome::Failure(error)) => self.refuse(step, error),
            (StepStatus::Dispatched, Outcome::Retry(error, after)) if self.is_current(&answer) => {
                self.transient(step, Phase::Action, error, after);
            }
            (StepStatus::Dispatched, Outcome::Pending) if self.is_current(&answer) => {
                self.still_working(answer);
            }
            // A pivot that refused and now says success, with steps undone meanwhile, is for a person.
            (StepStatus::Failed, Outcome::Success(_)) if self.is_contradiction(step) => {
                let message = "the pivot was refused, and succeeded after steps were undone".to_owned();
                if self.instance.status == Status::Parked {
                    self.ignore_reply(Ignored::LateReply, answer);
                } else {
                    self.park(self.failure(step, "CONTRADICTION", message));
                }
            }
            // What was given up turns out, while that can still be taken into account.
            (StepStatus::Unknown | StepStatus::Failed, Outcome::Success(Ok(output)))
                if self.is_unsettled(step) =>
            {
                self.resume_from(step, Phase::Action);
                self.record(Fact::succeeded(step, output));
            }
            (StepStatus::Unknown, Outcome::Failure(error)) if self.is_unsettled(step) => {
                self.resume_from(step, Phase::Action);
                self.refuse(step, error);
            }
            (StepStatus::Pending, Outcome::Success(Ok(output))) if self.may_come_early(step) => {
                self.record(Fact::CameEarly { step, says: Early::Success(output) });
            }
            (StepStatus::Pending, Outcome::Failure(error) | Outcome::Success(Err(error)))
                if self.may_come_early(step) =>
            {
                self.record(Fact::CameEarly { step, says: Early::Failure(error) });
            }
            (StepStatus::Pending, _) if self.instance.steps[step].early.is_some() => {
                self.ignore_reply(Ignored::DuplicateReply, answer);
            }
            (StepStatus::Pending | StepStatus::Skipped, _) => {
                self.ignore_reply(Ignored::UnexpectedReply, answer)
            }
            (StepStatus::Succeeded, Outcome::Success(_)) | (StepStatus::Failed, Outcome::Failure(_)) => {
                self.ignore_reply(Ignored::DuplicateReply, answer);
            }
            _ => self.ignore_reply(Ignored::LateReply, answer),
        }
    }

    fn compensation_reply(&mut self, answer: Answer, outcome: Outcome) {
        let step = answer.step;
        match (self.instance.steps[step].status, outcome) {
            (StepStatus::Compensating, Outcome::Success(_)) => {
                self.resume_from(step, Phase::Compensation);
                self.record(Fact::Compensated { step });
            }
            (StepStatus::Compensating, Outcome::Failure(error)) if self.is_under_way() => {
                self.record(Fact::NotUndone { step, error: error.clone() });
                self.exhausted(step, Phase::Compensation, error);
            }
            (StepStatus::Compensating, Outcome::Retry(error, after)) if self.is_current(&answer) => {
                self.transient(step, Phase::Compensation, error, after);
            }
            (StepStatus::Compensating, Outcome::Pending) if self.is_current(&answer) => {
                self.still_working(answer);
            }
            (StepStatus::Compensated, Outcome::Success(_)) => {
                self.ignore_reply(Ignored::DuplicateReply, answer);
            }
            (StepStatus::Compensating | StepStatus::Compensated | StepStatus::NotUndone, _) => {
                self.ignore_reply(Ignored::LateReply, answer);
            }
            _ => self.ignore_reply(Ignored::UnexpectedReply, answer),
        }
    }

    pub(super) fn succeed(&mut self, step: usize, output: Result<serde_json::Value, Failure>) {
        match output {
            Ok(output) => self.record(Fact::succeeded(step, output)),
            Err(error) => {
                self.record(Fact::GivenUp { step, error: error.clone() });
                self.stop_or_park(step, error);
            }
        }
    }

    fn transient(&mut self, step: usize, phase: Phase, error: Failure, after: Option<Duration>) {
        let attempt = self.instance.steps[step].progress(phase).attempt;
        self.record(Fact::Transient { step, phase, attempt, error: error.clone() });
        self.attempt_failed(step, phase, error, after);
    }

    /// Starts the timeout anew, unless it has just begun: a history grows by ten entries in each timeout at most,
    /// however often a participant speaks.
    fn still_working(&mut self, answer: Answer) {
        let Answer { step, phase, .. } = answer;
        let Some(call) = command::call(self.plan, step, phase) else { return };
        let due = command::due(call, self.now);
        let has_just_begun = match self.instance.steps[step].progress(phase).awaiting {
            Awaiting::Reply(before) => due.since(before) < call.timeout / PENDING_SHARE,
            _ => false,
        };
        if has_just_begun || self.instance.still_working >= MAX_STILL_WORKING {
            self.ignore_reply(Ignored::SparePending, answer);
        } else {
            self.record(Fact::StillWorking { step, phase, due });
        }
    }

    /// Takes an instance on that is parked for exactly this.
    pub(super) fn resume_from(&mut self, step: usize, phase: Phase) {
        let name = &self.instance.steps[step].name;
        if self.instance.parked.as_ref().is_some_and(|parked| parked.step.as_ref() == Some(name)) {
            let to = if phase == Phase::Action { Status::Running } else { Status::Compensating };
            self.record(Fact::Resumed { to });
        }
    }

    fn ignore_reply(&mut self, what: Ignored, answer: Answer) {
        self.ignore(what, answer.message_id, Some(answer.step));
    }

    /// Whether a reply speaks of the attempt that is out now, and another may follow it.
    fn is_current(&self, answer: &Answer) -> bool {
        let progress = self.instance.steps[answer.step].progress(answer.phase);
        let out = matches!(progress.awaiting, Awaiting::Confirm | Awaiting::Reply(_));
        self.is_under_way() && out && answer.attempt.is_none_or(|attempt| attempt == progress.attempt)
    }

    /// Whether what is learned of a step that was given up can still be taken into account.
    fn is_unsettled(&self, step: usize) -> bool {
        // That an event came is of no interest any more when the instance turns back.
        let is_of_interest = !self.is_wait(step) || self.instance.error.is_none();
        !matches!(self.instance.status, Status::Completed | Status::Compensated)
            && self.instance.steps[step].compensation.is_idle()
            && is_of_interest
    }

    /// Whether a step that has not begun waits for an event, and none has come yet.
    fn may_come_early(&self, step: usize) -> bool {
        let may_begin = !matches!(self.instance.status, Status::Completed | Status::Compensated)
            && self.instance.error.is_none();
        may_begin && self.is_wait(step) && self.instance.steps[step].early.is_none()
    }

    fn is_wait(&self, step: usize) -> bool {
        matches!(self.plan.steps[step].work, Work::Wait(_))
    }

    fn is_contradiction(&self, step: usize) -> bool {
        let undoing = self.instance.steps.iter().any(|state| !state.compensation.is_idle());
        self.plan.steps[step].kind == Kind::Pivot && undoing && self.is_unsettled(step)
    }
}
