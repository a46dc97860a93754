//! I11: which fact may stand where.
//!
//! The transition function knows this too, in another form: this table is written from what the facts
//! mean, to find out where the two disagree. What another invariant decides is left to it: starts (I1),
//! what may be undone and in which order (I5, I6), times (I14).

use super::histories::Moment;
use crate::saga::fact::{Fact, Ignored, Tells};
use crate::saga::id::Phase;
use crate::saga::instance::{Awaiting, ItemStatus, Status, StepState, StepStatus};
use crate::saga::plan::{Kind, Step, Work};
use crate::saga::transition::IGNORED_RECORDED;

/// What is wrong with a fact where it stands; `None` where it is legal.
pub(super) fn offence(moment: &Moment<'_>) -> Option<String> {
    let before = moment.before;
    let Some(step) = step_of(moment.fact) else {
        let rule = of_instance(moment)?;
        return Some(format!("{rule}; the instance is {}: {:?}", before.status, moment.fact));
    };
    let Some(state) = before.steps.get(step) else {
        return Some(format!("there is no such step: {:?}", moment.fact));
    };
    let rule = of_step(moment, step, state)?;
    Some(format!(
        "{rule}; step {} is {}, the instance {}: {:?}",
        state.name, state.status, before.status, moment.fact
    ))
}

/// The step that a fact is about.
fn step_of(fact: &Fact) -> Option<usize> {
    match *fact {
        Fact::Skipped { step, .. }
        | Fact::Awaited { step, .. }
        | Fact::CameEarly { step, .. }
        | Fact::Delayed { step, .. }
        | Fact::Called { step, .. }
        | Fact::Stalled { step, .. }
        | Fact::Listed { step, .. }
        | Fact::ItemCalled { step, .. }
        | Fact::ItemDone { step, .. }
        | Fact::ItemFailed { step, .. }
        | Fact::ItemRecalled { step, .. }
        | Fact::ItemUndone { step, .. }
        | Fact::ItemLeft { step, .. }
        | Fact::Recalled { step, .. }
        | Fact::Queued { step }
        | Fact::Dispatched { step, .. }
        | Fact::Published { step, .. }
        | Fact::Unroutable { step, .. }
        | Fact::TimedOut { step, .. }
        | Fact::StillWorking { step, .. }
        | Fact::Transient { step, .. }
        | Fact::NotSent { step, .. }
        | Fact::RetryScheduled { step, .. }
        | Fact::Succeeded { step, .. }
        | Fact::Failed { step, .. }
        | Fact::GivenUp { step, .. }
        | Fact::NotUndone { step, .. }
        | Fact::LeftUndone { step }
        | Fact::Compensated { step } => Some(step),
        _ => None,
    }
}

/// The rule that a fact of a step breaks.
fn of_step(moment: &Moment<'_>, index: usize, state: &StepState) -> Option<&'static str> {
    use StepStatus::{Compensating, Dispatched, Failed, Pending, Unknown};
    let before = moment.before;
    let under_way = matches!(before.status, Status::Running | Status::Compensating);
    let ended = matches!(before.status, Status::Completed | Status::Compensated);
    let never_undone = state.compensation.is_idle();
    let out = |phase| match phase {
        Phase::Action => state.status == Dispatched,
        Phase::Compensation => state.status == Compensating,
    };
    let awaiting = |phase| state.progress(phase).awaiting;
    let attempt_of = |phase| state.progress(phase).attempt;
    let unless = |legal: bool, rule| (!legal).then_some(rule);
    match *moment.fact {
        Fact::Skipped { .. } => unless(
            (state.status == Pending && before.status == Status::Running && has_its_turn(moment, index))
                || matches!(moment.previous, Some(Fact::TimedOut { step, attempt: 0, .. }) if *step == index)
                || (ordered(moment) && matches!(state.status, Dispatched | Failed | Unknown) && never_undone),
            "only a step that has its turn is skipped, or one that a person says, or a wait in vain",
        ),
        Fact::Awaited { .. } | Fact::Delayed { .. } => unless(
            (state.status == Pending && before.status == Status::Running && has_its_turn(moment, index))
                || ordered(moment),
            "only a step that has its turn begins to wait, or one that a person says",
        ),
        Fact::Called { attempt, .. } => unless(
            attempt == attempt_of(Phase::Action).saturating_add(1)
                && ((state.status == Pending
                    && before.status == Status::Running
                    && has_its_turn(moment, index))
                    || (ordered(moment) && state.status == Failed)),
            "a saga is called by a step that has its turn, or on order after it has failed",
        ),
        Fact::Stalled { .. } => unless(
            [Phase::Action, Phase::Compensation]
                .into_iter()
                .any(|phase| matches!(awaiting(phase), Awaiting::Called | Awaiting::Recalled)),
            "only a called instance that is awaited can be parked",
        ),
        Fact::Listed { attempt, .. } => unless(
            attempt == attempt_of(Phase::Action).saturating_add(1)
                && ((state.status == Pending
                    && before.status == Status::Running
                    && has_its_turn(moment, index))
                    || (ordered(moment) && matches!(state.status, Failed | Unknown))),
            "items are listed by a step that has its turn, or on order after it has failed",
        ),
        Fact::ItemCalled { item, .. } => unless(
            before.status == Status::Running
                && !before.is_stopping()
                && state.status == Dispatched
                && item_is(state, item, &[ItemStatus::Pending]),
            "an item is called once, while its step goes forward",
        ),
        Fact::ItemDone { item, .. } => unless(
            !ended && state.status == Dispatched && item_is(state, item, &[ItemStatus::Called]),
            "only an item that is under way is done",
        ),
        Fact::ItemFailed { item, .. } => unless(
            !ended
                && state.status == Dispatched
                && item_is(state, item, &[ItemStatus::Pending, ItemStatus::Called, ItemStatus::Recalled]),
            "only an item that is not done fails",
        ),
        Fact::ItemRecalled { item, .. } => unless(
            match state.status {
                Dispatched => item_is(state, item, &[ItemStatus::Called]),
                _ => state.status == Compensating && item_is(state, item, &[ItemStatus::Done]),
            },
            "an item is recalled while it is under way, or undone when it is done",
        ),
        Fact::ItemUndone { item, .. } => unless(
            !ended && state.status == Compensating && item_is(state, item, &[ItemStatus::Recalled]),
            "only an item that was recalled is undone",
        ),
        Fact::ItemLeft { item, .. } => unless(
            !ended
                && matches!(state.status, Dispatched | Compensating)
                && item_is(state, item, &[ItemStatus::Recalled]),
            "only an item that was recalled can be left as it is",
        ),
        Fact::Recalled { phase: Phase::Action, .. } => unless(
            before.is_stopping() && awaiting(Phase::Action) == Awaiting::Called,
            "what is under way is recalled once, when the instance stops",
        ),
        Fact::Recalled { phase: Phase::Compensation, .. } => unless(
            before.status == Status::Compensating
                && matches!(state.status, StepStatus::Succeeded | Unknown)
                && never_undone,
            "a called saga is undone once, when the instance goes back",
        ),
        Fact::CameEarly { .. } => unless(
            !ended && state.status == Pending && state.early.is_none(),
            "only the first event comes early, before the step has its turn",
        ),
        Fact::Queued { .. } => unless(
            (state.status == Pending && before.status == Status::Running && has_its_turn(moment, index))
                || (under_way
                    && is_limited(moment, index)
                    && ((out(Phase::Action) && matches!(awaiting(Phase::Action), Awaiting::Retry(_)))
                        || (ordered(moment) && !is_out(awaiting(Phase::Action))))),
            "an attempt awaits its turn where it could be sent, if the step were not limited",
        ),
        Fact::Dispatched { phase: Phase::Action, attempt, .. } if is_limited(moment, index) => unless(
            under_way && state.is_queued() && attempt == attempt_of(Phase::Action).saturating_add(1),
            "an attempt of a step that is limited is one more, and awaited its turn",
        ),
        Fact::Dispatched { phase: Phase::Action, attempt: 1, .. } => unless(
            state.status == Pending && before.status == Status::Running && has_its_turn(moment, index),
            "only a step that has its turn is begun, once",
        ),
        Fact::Dispatched { phase: Phase::Compensation, attempt: 1, .. } => unless(
            before.status == Status::Compensating && never_undone,
            "a step is undone once, when the instance goes back",
        ),
        Fact::Dispatched { phase, attempt, .. } => unless(
            under_way
                && attempt == attempt_of(phase).saturating_add(1)
                && ((out(phase) && matches!(awaiting(phase), Awaiting::Retry(_)))
                    || (ordered(moment) && !is_out(awaiting(phase)))),
            "a further attempt is one more, and was scheduled or ordered",
        ),
        Fact::Published { phase, attempt, .. } | Fact::Unroutable { phase, attempt, .. } => unless(
            attempt == attempt_of(phase) && awaiting(phase) == Awaiting::Confirm,
            "the broker speaks of the attempt that is to be published",
        ),
        Fact::TimedOut { phase, attempt, .. } => unless(
            under_way
                && out(phase)
                && attempt == attempt_of(phase)
                && matches!(awaiting(phase), Awaiting::Reply(_) | Awaiting::Event(_)),
            "only what awaits an answer is not answered in time",
        ),
        Fact::Transient { phase, attempt, .. } => unless(
            under_way && out(phase) && attempt == attempt_of(phase) && is_out(awaiting(phase)),
            "only the attempt that is out fails for now",
        ),
        Fact::StillWorking { phase, .. } => unless(
            under_way && out(phase) && is_out(awaiting(phase)),
            "only an attempt that is out is being worked on",
        ),
        Fact::NotSent { phase, .. } => unless(
            (out(phase) && awaiting(phase) == Awaiting::Confirm)
                || (phase == Phase::Action && state.status == Pending && has_its_turn(moment, index)),
            "only a command that was just decided cannot be made",
        ),
        Fact::RetryScheduled { phase, .. } => unless(
            !ended && out(phase) && attempt_of(phase) > 0 && awaiting(phase) == Awaiting::Nothing,
            "an attempt is scheduled when the one before it is over",
        ),
        Fact::Succeeded { .. } => unless(
            !ended
                && (state.status == Dispatched || (matches!(state.status, Unknown | Failed) && never_undone)),
            "only what was begun, and not undone, succeeds",
        ),
        Fact::Failed { .. } => unless(
            !ended
                && (matches!(state.status, Dispatched | Pending)
                    || (state.status == Unknown && never_undone)),
            "only what has not succeeded, and was not undone, fails",
        ),
        Fact::GivenUp { .. } => {
            unless(!ended && state.status == Dispatched, "only what is in flight is given up")
        }
        Fact::NotUndone { .. } => unless(
            under_way && state.status == Compensating,
            "only what is being undone can be refused to be",
        ),
        Fact::LeftUndone { .. } => unless(
            !ended && state.status == Compensating && (ordered(moment) || is_call(moment, index)),
            "only what is being undone is left as it is, by a person or by what was called",
        ),
        Fact::Compensated { .. } => {
            unless(!ended && state.status == Compensating, "only what is being undone is undone")
        }
        _ => None,
    }
}

/// The rule that a fact of the whole instance breaks.
fn of_instance(moment: &Moment<'_>) -> Option<&'static str> {
    let before = moment.before;
    let running = before.status == Status::Running;
    let any = |wanted: fn(StepStatus) -> bool| before.steps.iter().any(|state| wanted(state.status));
    let notice = |index: usize| before.notices.get(index).is_some_and(|notice| notice.pending);
    let (legal, rule) = match moment.fact {
        Fact::Stopping { .. } => (
            matches!(before.status, Status::Running | Status::Parked) && before.error.is_none(),
            "an instance stops once, before it goes back",
        ),
        Fact::StopOverruled => (
            before.is_stopping() && pivot_passed(moment) != Some(false),
            "only a pivot that got through overrules a stop",
        ),
        Fact::CompensationStarted => (
            before.is_stopping()
                && !any(|status| status == StepStatus::Dispatched)
                && pivot_passed(moment) != Some(true),
            "an instance goes back when it stops, nothing is in flight, and no pivot got through",
        ),
        Fact::DeadlinePassed => (
            matches!(before.status, Status::Running | Status::Compensating)
                && before.deadline.is_some()
                && !before.deadline_passed,
            "a deadline passes once, while the instance is under way",
        ),
        Fact::Completed => (
            running
                && !before.is_stopping()
                && before.caller.is_none_or(|caller| !caller.undoable || before.held)
                && !any(|status| !matches!(status, StepStatus::Succeeded | StepStatus::Skipped)),
            "an instance is completed when every step is settled",
        ),
        Fact::Held => (
            running
                && !before.is_stopping()
                && !before.held
                && before.caller.is_some_and(|caller| caller.undoable)
                && !any(|status| !matches!(status, StepStatus::Succeeded | StepStatus::Skipped)),
            "an instance is held once, when every step is settled and its caller may still turn back",
        ),
        Fact::AllCompensated => (
            before.status == Status::Compensating && nothing_is_left_to_undo(moment),
            "an instance is compensated when nothing is left to undo",
        ),
        Fact::Parked { .. } => (
            matches!(before.status, Status::Running | Status::Compensating),
            "only an instance that is under way is parked",
        ),
        Fact::Resumed { to } => (
            before.status == Status::Parked && matches!(to, Status::Running | Status::Compensating),
            "only a parked instance goes on",
        ),
        Fact::NoticeDue { tells, .. } => (
            match tells {
                Tells::Status => matches!(
                    moment.previous,
                    Some(Fact::Completed | Fact::AllCompensated | Fact::Parked { .. })
                ),
                // By a pivot that got through, or where it came in. Histories of earlier versions do not tell the
                // former, so none has to.
                Tells::RefusedCancel => matches!(
                    moment.previous,
                    Some(Fact::StopOverruled | Fact::Ignored { what: Ignored::RefusedCancel, .. })
                ),
            },
            "an end is told when it comes, and a refusal when it is given",
        ),
        Fact::NoticePublished { notice: index } | Fact::NoticeDropped { notice: index, .. } => {
            (notice(*index), "the broker speaks of a notice that is to be published")
        }
        Fact::Ignored { .. } => {
            (before.ignored < IGNORED_RECORDED, "what changes nothing is on record up to a limit")
        }
        _ => (true, ""),
    };
    (!legal).then_some(rule)
}

/// Whether everything that a step requires is settled, and the instance begins further steps.
fn has_its_turn(moment: &Moment<'_>, index: usize) -> bool {
    let Some(step) = moment.plan.and_then(|plan| plan.steps.get(index)) else { return true };
    let settled = |earlier: &usize| {
        let status = moment.before.steps.get(*earlier).map(|state| state.status);
        matches!(status, Some(StepStatus::Succeeded | StepStatus::Skipped))
    };
    !moment.before.is_stopping() && step.requires.iter().all(settled)
}

/// Whether commands that do a step await their turn; false where the definition is not known.
fn is_limited(moment: &Moment<'_>, index: usize) -> bool {
    moment.plan.and_then(|plan| plan.steps.get(index)).is_some_and(|step| step.limit.is_some())
}

/// Whether a pivot is behind the instance; `None` where the definition is not known.
fn pivot_passed(moment: &Moment<'_>) -> Option<bool> {
    let passed = |state: &StepState| matches!(state.status, StepStatus::Succeeded | StepStatus::Skipped);
    let mut steps = moment.plan?.steps.iter().zip(&moment.before.steps);
    Some(steps.any(|(step, state)| step.kind == Kind::Pivot && passed(state)))
}

fn nothing_is_left_to_undo(moment: &Moment<'_>) -> bool {
    let compensations =
        |index: usize| moment.plan.and_then(|plan| plan.steps.get(index)).is_some_and(Step::is_undoable);
    let steps = moment.before.steps.iter().enumerate();
    !steps.map(|(index, state)| (state.status, compensations(index))).any(|(status, undoable)| match status {
        StepStatus::Dispatched | StepStatus::Compensating => true,
        StepStatus::Succeeded | StepStatus::Unknown => undoable,
        _ => false,
    })
}

/// Whether a person asked for what happens here.
fn ordered(moment: &Moment<'_>) -> bool {
    matches!(moment.previous, Some(Fact::Ordered { .. } | Fact::Resumed { .. }))
}

/// Whether a step is done by other instances; true where the definition is not known.
fn is_call(moment: &Moment<'_>, index: usize) -> bool {
    let step = moment.plan.and_then(|plan| plan.steps.get(index));
    step.is_none_or(|step| matches!(step.work, Work::Saga(_) | Work::Each(_)))
}

fn item_is(state: &StepState, item: usize, wanted: &[ItemStatus]) -> bool {
    state.items.get(item).is_some_and(|item| wanted.contains(&item.status))
}

fn is_out(awaiting: Awaiting) -> bool {
    matches!(awaiting, Awaiting::Confirm | Awaiting::Reply(_))
}
