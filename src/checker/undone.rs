//! I23: what was not undone is nowhere told as undone.
//!
//! What was left as it is, is read from the history: a person's order, and what the instances say that it called. What
//! really stands, the ledgers know.

use std::collections::BTreeSet;

use super::Invariant::I23;
use super::case::{Case, Cases, Told};
use super::report::Findings;
use crate::saga::called::called_by;
use crate::saga::each::item_instances;
use crate::saga::fact::{Fact, HistoryEntry, Recorded};
use crate::saga::id::Phase;
use crate::saga::instance::{Instance, Status, StepStatus};
use crate::saga::order::Verb;

/// The header of an ending event that names what was not undone.
const HEADER: &str = "x-saga-not-undone";

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    for case in &cases.all {
        what_is_left_is_not_undone(case, found);
        what_stands_is_not_undone(cases, case, found);
        what_it_called_left_nothing(cases, case, found);
        its_end_tells_what_is_left(case, found);
    }
}

/// Whether a step counts as undone although its participant has refused that, and nothing but the ledgers of its
/// action says otherwise. A person may know better.
pub(super) fn is_refused(case: &Case<'_>, step: usize) -> bool {
    let undoing = case.booked[step].of(Phase::Compensation);
    !undoing.is_empty() && undoing.iter().all(|entry| entry.is_refusal()) && !is_resolved(case, step)
}

/// By the history: an order to leave it as it is undoes nothing.
fn what_is_left_is_not_undone(case: &Case<'_>, found: &mut Findings) {
    for HistoryEntry { facts, revision, .. } in &case.observed.history {
        let mut left = None;
        for Recorded { fact, .. } in facts {
            match fact {
                Fact::Ordered { verb: Verb::Skip, step, .. } => left = *step,
                Fact::Compensated { step } if left == Some(*step) => {
                    let name = case.name(*step);
                    let what = format!(
                        "revision {revision}: a person has step {name} left, and it is told as undone"
                    );
                    found.add(I23, Some(case.id()), what);
                }
                _ => {}
            }
        }
    }
}

/// By the ledgers: what a participant has refused to undo stands.
fn what_stands_is_not_undone(cases: &Cases<'_>, case: &Case<'_>, found: &mut Findings) {
    if !cases.looked.entries {
        return;
    }
    for (step, state) in case.instance().steps.iter().enumerate() {
        let is_done = case.booked[step].of(Phase::Action).iter().any(|entry| entry.is_booked());
        if state.status == StepStatus::Compensated && is_done && is_refused(case, step) {
            let what =
                format!("step {}: its participant refused to undo it, and it is told as undone", state.name);
            found.add(I23, Some(case.id()), what);
        }
    }
}

/// By the instances that it called: what one of them left is not undone here either.
fn what_it_called_left_nothing(cases: &Cases<'_>, case: &Case<'_>, found: &mut Findings) {
    let (Some(plan), instance) = (case.plan, case.instance()) else { return };
    for (step, state) in instance.steps.iter().enumerate() {
        if state.status != StepStatus::Compensated || is_resolved(case, step) {
            continue;
        }
        let items = item_instances(plan, instance, step).map(|(id, _)| id);
        for called in items.chain(called_by(plan, instance, step)).filter_map(|id| cases.by_id(id)) {
            if called.instance().held && !left(called).is_empty() {
                let what = format!(
                    "step {}: it is told as undone, and instance {} that it called was left with {}",
                    state.name,
                    called.id(),
                    left(called).into_iter().collect::<Vec<_>>().join(",")
                );
                found.add(I23, Some(case.id()), what);
            }
        }
    }
}

/// By the tap: the event that tells of the end names what is left, and nothing else.
fn its_end_tells_what_is_left(case: &Case<'_>, found: &mut Findings) {
    let left = left(case);
    for sent in &case.messages {
        let Told::Notice(Some(notice)) = sent.told else { continue };
        let told_status = case.instance().notices.get(notice).map(|notice| notice.status);
        if told_status != Some(Status::Compensated) {
            continue;
        }
        let told = sent.seen.headers.get(HEADER).map_or("", String::as_str);
        let told: BTreeSet<_> = told.split(',').filter(|name| !name.is_empty()).collect();
        if told != left {
            let what = format!(
                "message {} says that {told:?} is not undone, and that is {left:?}",
                sent.seen.message_id
            );
            found.add(I23, Some(case.id()), what);
        }
    }
}

/// The steps of a compensated instance that were left as they are.
fn left<'a>(case: &Case<'a>) -> BTreeSet<&'a str> {
    let instance: &Instance = case.instance();
    let is_left = |(step, status): (usize, StepStatus)| match status {
        StepStatus::NotUndone => true,
        // A person, or a wait in vain, had it go on without the step, and then it turned back.
        StepStatus::Skipped => instance.status == Status::Compensated && was_sent(case, step),
        _ => false,
    };
    let steps = instance.steps.iter().enumerate();
    steps
        .filter(|(step, state)| is_left((*step, state.status)))
        .map(|(_, state)| state.name.as_str())
        .collect()
}

/// Whether anybody may have done a step.
fn was_sent(case: &Case<'_>, wanted: usize) -> bool {
    case.instance().steps[wanted].action.maybe_delivered
}

/// Whether a person has said what became of a step.
fn is_resolved(case: &Case<'_>, wanted: usize) -> bool {
    case.facts().any(|fact| match fact {
        Fact::Ordered { verb: Verb::ResolveSucceeded | Verb::ResolveFailed, step, .. } => {
            *step == Some(wanted)
        }
        _ => false,
    })
}
