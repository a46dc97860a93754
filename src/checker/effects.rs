//! What was done, by the ledgers of the participants: I3, I4, I10, I12.

use std::collections::{BTreeMap, HashSet};

use super::Invariant::{I3, I4, I10, I12};
use super::case::{Case, Cases};
use super::evidence::Entry;
use super::report::Findings;
use super::undone;
use crate::saga::fact::Fact;
use crate::saga::id::Phase;
use crate::saga::instance::{Status, StepStatus};
use crate::saga::plan::Kind;

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    for case in &cases.all {
        no_decision_goes_both_ways(case, found);
    }
    if !cases.looked.entries {
        return;
    }
    commands_are_booked_once(cases, found);
    nothing_is_booked_again(cases, found);
    for case in &cases.all {
        effects_are_what_the_end_says(case, found);
        never_shipped_and_refunded(case, found);
        no_late_success_is_swallowed(case, found);
    }
}

/// I3.
fn commands_are_booked_once(cases: &Cases<'_>, found: &mut Findings) {
    for case in &cases.all {
        for (step, booked) in case.booked.iter().enumerate() {
            for phase in [Phase::Action, Phase::Compensation] {
                let entries = booked.of(phase).len();
                if entries > 1 {
                    found.double_effects += 1;
                    let what =
                        format!("step {}: its {phase} is in the ledgers {entries} times", case.name(step));
                    found.add(I3, Some(case.id()), what);
                }
            }
        }
    }
    let mut known = HashSet::new();
    for entry in cases.unknown_entries.iter().filter(|entry| known.insert(&entry.command_id)) {
        found.double_effects += 1;
        let what = format!("{} booked command {}, which no step has", entry.participant, entry.command_id);
        found.add(I3, None, what);
    }
}

/// I3. An effect that stands in a compensated instance is I12 where its answer was late.
fn effects_are_what_the_end_says(case: &Case<'_>, found: &mut Findings) {
    let instance = case.instance();
    for (step, (state, booked)) in instance.steps.iter().zip(&case.booked).enumerate() {
        let net = net(booked.of(Phase::Action), booked.of(Phase::Compensation));
        let undone = net_of(booked.of(Phase::Compensation));
        let wrong = match instance.status {
            Status::Completed if state.status == StepStatus::Skipped => {
                (!net.is_empty()).then(|| format!("it was skipped, and its net effect is {net:?}"))
            }
            Status::Completed if !case.is_done_by_participant(step) => None,
            Status::Completed if booked.of(Phase::Action).is_empty() => {
                Some("the instance is completed, and no ledger knows of it".to_owned())
            }
            Status::Completed if booked.of(Phase::Action).iter().any(|entry| entry.is_refusal()) => {
                Some("the instance is completed, and its participant refused it".to_owned())
            }
            Status::Completed => (!undone.is_empty())
                .then(|| format!("the instance is completed, and its compensation booked {undone:?}")),
            Status::Compensated if case.has_no_compensation(step) || was_late(case, step) => None,
            // It stands, and the instance says so; or the instance says otherwise, which is I23.
            Status::Compensated
                if state.status == StepStatus::NotUndone || undone::is_refused(case, step) =>
            {
                None
            }
            Status::Compensated => (!net.is_empty())
                .then(|| format!("the instance is compensated, and its net effect is {net:?}")),
            Status::Running | Status::Compensating | Status::Parked => None,
        };
        if let Some(wrong) = wrong {
            found.add(I3, Some(case.id()), format!("step {}: {wrong}", state.name));
        }
    }
}

/// I4, by the history.
fn no_decision_goes_both_ways(case: &Case<'_>, found: &mut Findings) {
    let has = |wanted: fn(&Fact) -> bool| case.facts().any(wanted);
    if has(|fact| *fact == Fact::Completed) && has(|fact| *fact == Fact::AllCompensated) {
        found.add(I4, Some(case.id()), "its history says completed, and compensated too".to_owned());
    }
}

/// I4, by the ledgers.
fn never_shipped_and_refunded(case: &Case<'_>, found: &mut Findings) {
    let Some(plan) = case.plan else { return };
    let steps = || plan.steps.iter().zip(&case.booked);
    let stands = |step: usize| {
        let booked = &case.booked[step];
        !net(booked.of(Phase::Action), booked.of(Phase::Compensation)).is_empty()
    };
    let shipped = (0..steps().count()).find(|step| plan.steps[*step].kind == Kind::Pivot && stands(*step));
    let refunded =
        steps().find(|(_, booked)| booked.of(Phase::Compensation).iter().any(|entry| entry.is_booked()));
    if let (Some(shipped), Some((refunded, _))) = (shipped, refunded) {
        let what = format!("the pivot {} was done, and {} was undone", case.name(shipped), refunded.name);
        found.add(I4, Some(case.id()), what);
    }
}

/// I10.
fn nothing_is_booked_again(cases: &Cases<'_>, found: &mut Findings) {
    let Some(from) = cases.evidence.replayed_at else { return };
    for entry in cases.evidence.entries.iter().skip(from).filter(|entry| entry.is_booked()) {
        let what = format!(
            "{} booked {:?} for command {} when earlier inputs were delivered again",
            entry.participant, entry.effect, entry.command_id
        );
        found.add(I10, None, what);
    }
}

/// I12: whatever stands in the ledgers is accounted for. Where I3 says what must stand, only what came
/// late is looked at.
fn no_late_success_is_swallowed(case: &Case<'_>, found: &mut Findings) {
    let instance = case.instance();
    for (step, (state, booked)) in instance.steps.iter().zip(&case.booked).enumerate() {
        let net = net(booked.of(Phase::Action), booked.of(Phase::Compensation));
        let is_accounted_for = match instance.status {
            Status::Completed => {
                matches!(state.status, StepStatus::Succeeded | StepStatus::Skipped)
            }
            Status::Compensated => {
                state.status == StepStatus::NotUndone
                    || !was_late(case, step)
                    || undone::is_refused(case, step)
            }
            // What is given up, in flight or being undone may have happened, and says so.
            Status::Parked => !matches!(
                state.status,
                StepStatus::Pending | StepStatus::Failed | StepStatus::Skipped | StepStatus::Compensated
            ),
            Status::Running | Status::Compensating => true,
        };
        if !net.is_empty() && !is_accounted_for && !case.has_no_compensation(step) {
            let what = format!(
                "step {}: {net:?} stands in the ledgers, the step is {} and the instance {}",
                state.name, state.status, instance.status
            );
            found.add(I12, Some(case.id()), what);
        }
    }
}

/// Whether an attempt of a step was not answered in time, or the step was given up.
fn was_late(case: &Case<'_>, wanted: usize) -> bool {
    case.facts().any(|fact| match fact {
        Fact::TimedOut { step, phase: Phase::Action, .. } | Fact::GivenUp { step, .. } => *step == wanted,
        _ => false,
    })
}

/// What actions and compensations come to, by account; what is zero is left out.
fn net<'a>(actions: &[&'a Entry], compensations: &[&'a Entry]) -> BTreeMap<&'a str, i128> {
    let mut sum: BTreeMap<&str, i128> = BTreeMap::new();
    for (account, amount) in actions.iter().chain(compensations).flat_map(|entry| &entry.effect) {
        *sum.entry(account).or_default() += i128::from(*amount);
    }
    sum.retain(|_, amount| *amount != 0);
    sum
}

fn net_of<'a>(entries: &[&'a Entry]) -> BTreeMap<&'a str, i128> {
    net(entries, &[])
}
