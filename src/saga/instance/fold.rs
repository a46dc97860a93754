//! The fold: what each fact adds to an instance.

use std::sync::Arc;

use serde_json::Value;

use super::super::fact::{Fact, Failure, HistoryEntry, Recorded};
use super::super::id::{InstanceId, Phase};
use super::super::time::Timestamp;
use super::{Awaiting, Instance, Item, ItemStatus, MAX_HEARD, Notice, Status, StepStatus};

impl Instance {
    /// The fold of a whole history; `None` where it does not begin with a start.
    pub fn replay(id: InstanceId, history: &[HistoryEntry]) -> Option<Self> {
        let first = history.first()?.facts.first()?;
        let Fact::Started(started) = &first.fact else { return None };
        let mut instance = Self::begin(id, started, first.at);
        instance.go_on(history);
        Some(instance)
    }

    /// Changes the instance as entries say that follow on those before.
    pub fn go_on(&mut self, entries: &[HistoryEntry]) {
        for entry in entries {
            entry.facts.iter().for_each(|recorded| self.apply(recorded));
            self.revision = entry.revision;
        }
    }

    /// Changes the instance as the fact says. Facts that name a step or a notice which is not there
    /// change nothing.
    pub fn apply(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        self.updated_at = self.updated_at.max(at);
        match &recorded.fact {
            Fact::Started(_) | Fact::Ordered { .. } => {}
            Fact::Heard { event } => {
                if self.heard.len() >= MAX_HEARD {
                    self.heard.pop_front();
                }
                self.heard.push_back(*event);
            }
            Fact::Skipped { step, output } => {
                self.settle_with(*step, StepStatus::Skipped, &Arc::new(output.clone()))
            }
            Fact::Awaited { step, due } => self.begin_to_wait(*step, at, Awaiting::Event(*due)),
            Fact::Delayed { step, until } => self.begin_to_wait(*step, at, Awaiting::Time(*until)),
            Fact::CameEarly { step, says } => {
                if let Some(state) = self.steps.get_mut(*step) {
                    state.early = Some(says.clone());
                }
            }
            Fact::Called { step, attempt, .. } => {
                self.begin_to_wait(*step, at, Awaiting::Called);
                if let Some(state) = self.steps.get_mut(*step) {
                    state.action.attempt = *attempt;
                    state.action.maybe_delivered = true;
                }
            }
            Fact::Recalled { step, phase } => {
                if let Some(state) = self.steps.get_mut(*step) {
                    if *phase == Phase::Compensation {
                        state.status = StepStatus::Compensating;
                        state.compensation.attempt = 1;
                        state.compensation.dispatched_at = at;
                    }
                    state.progress_mut(*phase).awaiting = Awaiting::Recalled;
                    state.stalled = false;
                }
            }
            Fact::Stalled { step, item } => {
                let Some(state) = self.steps.get_mut(*step) else { return };
                match item.map(|item| state.items.get_mut(item)) {
                    None => state.stalled = true,
                    Some(Some(item)) => item.stalled = true,
                    Some(None) => {}
                }
            }
            Fact::Listed { step, attempt, items } => {
                self.begin_to_wait(*step, at, Awaiting::Called);
                let Some(state) = self.steps.get_mut(*step) else { return };
                state.action.attempt = *attempt;
                state.action.maybe_delivered = true;
                state.error = None;
                let (status, output) = (ItemStatus::Pending, Value::Null);
                let fresh = Item { status, output, attempt: 0, error: None, stalled: false };
                state.items.resize(*items, fresh);
                let is_over =
                    |item: &&mut Item| matches!(item.status, ItemStatus::Failed | ItemStatus::NotUndone);
                for item in state.items.iter_mut().filter(is_over) {
                    item.status = ItemStatus::Pending;
                }
            }
            Fact::ItemCalled { step, item, .. } => {
                if let Some(item) = self.item_mut(*step, *item, ItemStatus::Called) {
                    item.attempt = item.attempt.saturating_add(1);
                }
            }
            Fact::ItemDone { step, item, output, error } => {
                if let Some(item) = self.item_mut(*step, *item, ItemStatus::Done) {
                    item.output = output.clone();
                    item.error = error.clone();
                }
                self.keep_error(*step, error.as_ref());
            }
            Fact::ItemFailed { step, item, error } => {
                self.item_mut(*step, *item, ItemStatus::Failed);
                self.keep_error(*step, Some(error));
            }
            Fact::ItemRecalled { step, item } => {
                self.item_mut(*step, *item, ItemStatus::Recalled);
            }
            Fact::ItemUndone { step, item } => {
                self.item_mut(*step, *item, ItemStatus::Undone);
            }
            Fact::ItemLeft { step, item } => {
                self.item_mut(*step, *item, ItemStatus::NotUndone);
            }
            Fact::Held => self.held = true,
            Fact::Queued { step } => self.begin_to_wait(*step, at, Awaiting::Turn),
            Fact::Dispatched { step, phase, attempt } => {
                if let Some(state) = self.steps.get_mut(*step) {
                    state.status = match phase {
                        Phase::Action => StepStatus::Dispatched,
                        Phase::Compensation => StepStatus::Compensating,
                    };
                    let progress = state.progress_mut(*phase);
                    progress.attempt = *attempt;
                    progress.dispatched_at = at;
                    progress.awaiting = Awaiting::Confirm;
                }
            }
            Fact::Published { step, phase, due, .. } => {
                self.await_next(*step, *phase, Awaiting::Reply(*due), true);
            }
            Fact::StillWorking { step, phase, due } => {
                self.still_working = self.still_working.saturating_add(1);
                self.await_next(*step, *phase, Awaiting::Reply(*due), true);
            }
            Fact::TimedOut { step, phase, .. } | Fact::Transient { step, phase, .. } => {
                self.await_next(*step, *phase, Awaiting::Nothing, true);
            }
            Fact::Unroutable { step, phase, maybe_delivered, .. } => {
                self.await_next(*step, *phase, Awaiting::Nothing, *maybe_delivered);
            }
            Fact::NotSent { step, phase, .. } => self.await_next(*step, *phase, Awaiting::Nothing, false),
            Fact::RetryScheduled { step, phase, at } => {
                self.await_next(*step, *phase, Awaiting::Retry(*at), false);
            }
            Fact::Succeeded { step, output } => self.settle_with(*step, StepStatus::Succeeded, output),
            Fact::Corrected { step, output } => {
                if let Some(state) = self.steps.get_mut(*step) {
                    state.output = Some(Arc::new(output.clone()));
                }
            }
            Fact::Failed { step, error } => self.settle(*step, StepStatus::Failed, Some(error)),
            Fact::GivenUp { step, error } => self.settle(*step, StepStatus::Unknown, Some(error)),
            Fact::NotUndone { step, .. } => {
                self.await_next(*step, Phase::Compensation, Awaiting::Nothing, true);
            }
            Fact::Compensated { step } => self.settle_undoing(*step, StepStatus::Compensated),
            Fact::LeftUndone { step } => self.settle_undoing(*step, StepStatus::NotUndone),
            Fact::Stopping { error } => self.error = Some(error.clone()),
            Fact::StopOverruled => self.error = None,
            Fact::CompensationStarted => self.status = Status::Compensating,
            Fact::DeadlinePassed => self.deadline_passed = true,
            Fact::Completed => self.end(Status::Completed, at),
            Fact::AllCompensated => self.end(Status::Compensated, at),
            Fact::Parked { error } => {
                self.status = Status::Parked;
                self.parked = Some(error.clone());
            }
            Fact::Resumed { to } => {
                self.status = *to;
                self.parked = None;
            }
            Fact::NoticeDue { tells, body } => {
                let (tells, status) = (*tells, self.status);
                let body = (!body.is_null()).then(|| Arc::clone(body));
                self.notices.push(Notice { tells, status, at, body, pending: true });
            }
            Fact::NoticePublished { notice } | Fact::NoticeDropped { notice, .. } => {
                if let Some(notice) = self.notices.get_mut(*notice) {
                    notice.pending = false;
                    notice.body = None;
                }
            }
            Fact::Ignored { step, reason, .. } => {
                self.ignored = self.ignored.saturating_add(1);
                if let Some(state) = step.and_then(|step| self.steps.get_mut(step))
                    && reason.is_some()
                {
                    state.misread = reason.clone();
                }
            }
        }
    }

    fn settle(&mut self, step: usize, status: StepStatus, error: Option<&Failure>) {
        if let Some(state) = self.steps.get_mut(step) {
            state.status = status;
            state.error = error.cloned();
            state.misread = None;
            state.early = None;
            state.stalled = false;
            state.action.awaiting = Awaiting::Nothing;
        }
    }

    fn settle_undoing(&mut self, step: usize, status: StepStatus) {
        if let Some(state) = self.steps.get_mut(step) {
            state.status = status;
            state.misread = None;
            state.stalled = false;
            state.compensation.awaiting = Awaiting::Nothing;
        }
    }

    fn settle_with(&mut self, step: usize, status: StepStatus, output: &Arc<Value>) {
        self.settle(step, status, None);
        if let Some(state) = self.steps.get_mut(step) {
            state.output = (!output.is_null()).then(|| Arc::clone(output));
        }
    }

    /// An item that changes to a status.
    fn item_mut(&mut self, step: usize, item: usize, status: ItemStatus) -> Option<&mut Item> {
        let item = self.steps.get_mut(step)?.items.get_mut(item)?;
        item.status = status;
        item.stalled = false;
        Some(item)
    }

    /// Keeps the first error of a step's items.
    fn keep_error(&mut self, step: usize, error: Option<&Failure>) {
        if let Some(state) = self.steps.get_mut(step) {
            state.error = state.error.take().or_else(|| error.cloned());
        }
    }

    fn begin_to_wait(&mut self, step: usize, at: Timestamp, awaiting: Awaiting) {
        if let Some(state) = self.steps.get_mut(step) {
            state.status = StepStatus::Dispatched;
            state.action.dispatched_at = at;
            state.action.awaiting = awaiting;
        }
    }

    fn await_next(&mut self, step: usize, phase: Phase, awaiting: Awaiting, delivered: bool) {
        if let Some(state) = self.steps.get_mut(step) {
            let progress = state.progress_mut(phase);
            progress.awaiting = awaiting;
            progress.maybe_delivered |= delivered;
        }
    }

    fn end(&mut self, status: Status, at: Timestamp) {
        self.status = status;
        self.ended_at = Some(at);
    }
}
