//! What was decided, fact by fact: I5, I6, I14, I15, I16, I17, and by way of `legal` I11.
//!
//! The history is folded once; each fact is looked at with the instance as it was before it.

use super::Invariant::{I5, I6, I11, I14, I15, I16, I17};
use super::case::{Case, Told};
use super::evidence::Seen;
use super::legal;
use super::report::Findings;
use crate::saga::command;
use crate::saga::fact::{Fact, HistoryEntry, Recorded};
use crate::saga::id::Phase;
use crate::saga::instance::{Awaiting, Instance, StepStatus};
use crate::saga::message::Part;
use crate::saga::plan::{Kind, Plan};
use crate::saga::time::Timestamp;

pub(super) fn check(case: &Case<'_>, found: &mut Findings) {
    let mut add = |invariant, what| found.add(invariant, Some(case.id()), what);
    let of_the_whole = [
        (I15, revisions_count_up(case)),
        (I16, the_definition_is_its_own(case)),
        (I17, the_record_is_the_fold(case)),
    ];
    for (invariant, what) in of_the_whole {
        if let Some(what) = what {
            add(invariant, what);
        }
    }
    let history = &case.observed.history;
    let first = history.first().and_then(|entry| entry.facts.first());
    let Some(Recorded { at, fact: Fact::Started(started) }) = first else { return };
    let mut before = Instance::begin(case.id(), started, *at);
    for HistoryEntry { revision, facts, .. } in history {
        for (index, recorded) in facts.iter().enumerate() {
            let moment = Moment {
                plan: case.plan,
                before: &before,
                previous: index.checked_sub(1).map(|index| &facts[index].fact),
                fact: &recorded.fact,
                at: recorded.at,
            };
            let of_the_fact = [
                (I5, it_may_have_happened(&moment)),
                (I6, it_goes_backwards(&moment)),
                (I11, legal::offence(&moment)),
                (I14, it_is_not_early(&moment)),
                (I15, time_goes_on(&moment)),
            ];
            before.apply(recorded);
            let sent = (I15, it_was_sent_as_decided(case, &before, &recorded.fact));
            for (invariant, what) in of_the_fact.into_iter().chain([sent]) {
                if let Some(what) = what {
                    add(invariant, format!("revision {revision}: {what}"));
                }
            }
        }
        before.revision = *revision;
    }
}

/// A fact, and the instance that it came upon.
pub(super) struct Moment<'a> {
    pub(super) plan: Option<&'a Plan>,
    pub(super) before: &'a Instance,
    /// The fact before it in the same entry.
    pub(super) previous: Option<&'a Fact>,
    pub(super) fact: &'a Fact,
    pub(super) at: Timestamp,
}

impl Moment<'_> {
    /// The name of a step.
    pub(super) fn name(&self, step: usize) -> &str {
        self.before.steps.get(step).map_or("?", |state| &state.name)
    }
}

/// I15.
fn revisions_count_up(case: &Case<'_>) -> Option<String> {
    let revisions = case.observed.history.iter().map(|entry| entry.revision);
    let (expected, is) = (1..).zip(revisions).find(|(expected, is)| expected != is)?;
    Some(format!("its history has revision {is} where {expected} must be"))
}

/// I16.
fn the_definition_is_its_own(case: &Case<'_>) -> Option<String> {
    let (plan, instance) = (case.plan?, case.instance());
    if plan.saga == instance.saga && plan.version == instance.version {
        return None;
    }
    Some(format!(
        "it is of {} v{}, and its definition is of {} v{}",
        instance.saga, instance.version, plan.saga, plan.version
    ))
}

/// I17.
fn the_record_is_the_fold(case: &Case<'_>) -> Option<String> {
    let record = case.instance();
    match Instance::replay(record.id, &case.observed.history) {
        Some(fold) if fold == *record => None,
        Some(fold) => Some(format!(
            "its record says {} at revision {}, its history {} at revision {}",
            record.status, record.revision, fold.status, fold.revision
        )),
        None => Some("its history does not begin with a start".to_owned()),
    }
}

/// I5.
fn it_may_have_happened(moment: &Moment<'_>) -> Option<String> {
    let (Fact::Dispatched { step, phase: Phase::Compensation, .. }
    | Fact::Recalled { step, phase: Phase::Compensation }) = moment.fact
    else {
        return None;
    };
    let state = moment.before.steps.get(*step)?;
    if state.action.attempt > 0 && state.status != StepStatus::Failed {
        return None;
    }
    Some(format!("step {} is undone, and it is {}", state.name, state.status))
}

/// I6.
fn it_goes_backwards(moment: &Moment<'_>) -> Option<String> {
    let (Fact::Dispatched { step, phase: Phase::Compensation, attempt: 1 }
    | Fact::Recalled { step, phase: Phase::Compensation }) = moment.fact
    else {
        return None;
    };
    let plan = moment.plan?;
    let name = moment.name(*step);
    let steps = || plan.steps.iter().zip(&moment.before.steps);
    if let Some((pivot, _)) =
        steps().find(|(plan, state)| plan.kind == Kind::Pivot && state.status == StepStatus::Succeeded)
    {
        return Some(format!("step {name} is undone, and the pivot {} has succeeded", pivot.name));
    }
    // above[i]: step i requires the step that is undone, by way of others or not.
    let mut above = vec![false; plan.steps.len()];
    for (index, (plan, state)) in steps().enumerate() {
        above[index] = plan.requires.iter().any(|earlier| earlier == step || above[*earlier]);
        let stands = match state.status {
            StepStatus::Pending
            | StepStatus::Failed
            | StepStatus::Skipped
            | StepStatus::Compensated
            | StepStatus::NotUndone => false,
            StepStatus::Dispatched | StepStatus::Compensating => true,
            StepStatus::Succeeded | StepStatus::Unknown => plan.is_undoable(),
        };
        if above[index] && stands {
            return Some(format!("step {name} is undone before {}, which requires it", state.name));
        }
    }
    None
}

/// I14.
fn it_is_not_early(moment: &Moment<'_>) -> Option<String> {
    let awaiting =
        |step: usize, phase| moment.before.steps.get(step).map(|state| state.progress(phase).awaiting);
    let (what, due) = match *moment.fact {
        Fact::TimedOut { step, phase, .. } => match awaiting(step, phase) {
            Some(Awaiting::Reply(due) | Awaiting::Event(due)) => {
                (format!("the timeout of step {}", moment.name(step)), due)
            }
            _ => return None,
        },
        Fact::Dispatched { step, phase, .. } => match awaiting(step, phase) {
            Some(Awaiting::Retry(due)) => (format!("the retry of step {}", moment.name(step)), due),
            _ => return None,
        },
        Fact::Queued { step } => match (awaiting(step, Phase::Action), moment.previous) {
            (_, Some(Fact::Ordered { .. } | Fact::Resumed { .. })) => return None,
            (Some(Awaiting::Retry(due)), _) => (format!("the retry of step {}", moment.name(step)), due),
            _ => return None,
        },
        Fact::Succeeded { step, .. } => match (awaiting(step, Phase::Action), moment.previous) {
            (_, Some(Fact::Ordered { .. } | Fact::Resumed { .. })) => return None,
            (Some(Awaiting::Time(until)), _) => (format!("the delay {}", moment.name(step)), until),
            _ => return None,
        },
        Fact::DeadlinePassed => ("the deadline".to_owned(), moment.before.deadline?),
        _ => return None,
    };
    (moment.at < due).then(|| format!("{what} was due at {due}, and came at {}", moment.at))
}

/// I15.
fn time_goes_on(moment: &Moment<'_>) -> Option<String> {
    let latest = moment.before.updated_at;
    (moment.at < latest).then(|| format!("a fact is of {}, and one before it of {latest}", moment.at))
}

/// I15: a command is what its definition makes of the instance as it was when the command was decided.
fn it_was_sent_as_decided(case: &Case<'_>, after: &Instance, fact: &Fact) -> Option<String> {
    let Fact::Dispatched { step, phase, attempt } = *fact else { return None };
    after.steps.get(step)?;
    let part = Part::Attempt { step, phase, attempt };
    let expected = command::render(case.plan?, after, part).ok()??;
    let is_expected = |seen: &&Seen| {
        *seen.exchange == *expected.exchange
            && *seen.key == *expected.key
            && seen.body.as_bytes() == expected.body
    };
    let other = case.copies(Told::Attempt { step, phase, attempt }).find(|seen| !is_expected(seen))?;
    let expected = String::from_utf8_lossy(&expected.body);
    Some(format!("message {} says {}, and must say {expected}", other.message_id, other.body))
}
