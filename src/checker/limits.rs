//! I20: how many commands of a limited step are out at a time, over all instances.
//!
//! An attempt is out from its decision until its step awaits no answer to it any more; that of a parked
//! instance until its timeout.

use std::collections::BTreeMap;

use super::Invariant::I20;
use super::case::{Case, Cases};
use super::report::Findings;
use crate::saga::fact::{Fact, Recorded};
use crate::saga::id::InstanceId;
use crate::saga::instance::{Awaiting, Instance, Status, StepStatus};
use crate::saga::time::Timestamp;

/// After everything.
const NEVER: Timestamp = Timestamp(i64::MAX);

/// A command that is out.
struct Out {
    instance: InstanceId,
    from: Timestamp,
    until: Timestamp,
    /// The limit of its definition, where it was sent under one. What a parked instance takes up again was
    /// sent before.
    limit: Option<u32>,
}

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    let mut all: BTreeMap<(&str, &str), Vec<Out>> = BTreeMap::new();
    for case in &cases.all {
        let Some(plan) = case.plan else { continue };
        for (step, planned) in plan.steps.iter().enumerate() {
            if let Some(limit) = planned.limit {
                let out = all.entry((&plan.saga, &planned.name)).or_default();
                out.extend(of_step(case, step, limit.in_flight.unwrap_or(u32::MAX)));
            }
        }
    }
    for ((saga, step), out) in all {
        if let Some((first, number, limit)) = exceeded(out) {
            let what =
                format!("{number} commands of step {step} of {saga} are out, and its limit is {limit}");
            found.add(I20, Some(first), what);
        }
    }
}

/// When commands of a step of an instance were out.
fn of_step(case: &Case<'_>, step: usize, limit: u32) -> Vec<Out> {
    let mut all: Vec<Out> = Vec::new();
    let facts: Vec<_> = case.observed.history.iter().flat_map(|entry| &entry.facts).collect();
    let Some(Recorded { at, fact: Fact::Started(started) }) = facts.first() else { return all };
    let mut instance = Instance::begin(case.id(), started, *at);
    for recorded in facts {
        instance.apply(recorded);
        let at = recorded.at;
        let until = out_until(&instance, step);
        let sent = matches!(recorded.fact, Fact::Dispatched { step: sent, .. } if sent == step);
        match (all.last_mut().filter(|last| last.until >= at), until) {
            (Some(last), Some(until)) if !sent => last.until = until,
            (last, until) => {
                if let Some(last) = last {
                    last.until = at;
                }
                if let Some(until) = until {
                    all.push(Out { instance: instance.id, from: at, until, limit: sent.then_some(limit) });
                }
            }
        }
    }
    all
}

/// Until when the command that does a step counts as out, if it is.
fn out_until(instance: &Instance, step: usize) -> Option<Timestamp> {
    let state = instance.steps.get(step).filter(|state| state.status == StepStatus::Dispatched)?;
    match state.action.awaiting {
        Awaiting::Confirm => Some(NEVER),
        Awaiting::Reply(due) if instance.status == Status::Parked => Some(due),
        Awaiting::Reply(_) => Some(NEVER),
        _ => None,
    }
}

/// The first moment at which more were out than the limit lets: who was sent then, and the numbers.
fn exceeded(mut all: Vec<Out>) -> Option<(InstanceId, usize, u32)> {
    all.sort_by_key(|out| out.from);
    let mut open: Vec<Timestamp> = Vec::new();
    for of_moment in all.chunk_by(|one, other| one.from == other.from) {
        // Those that end at this moment may have made room.
        open.retain(|until| *until > of_moment[0].from);
        open.extend(of_moment.iter().map(|out| out.until).filter(|until| *until > of_moment[0].from));
        let sent = of_moment.iter().filter_map(|out| Some((out.instance, out.limit?)));
        if let Some((instance, limit)) = sent.max_by_key(|(_, limit)| *limit)
            && open.len() > limit as usize
        {
            return Some((instance, open.len(), limit));
        }
    }
    None
}
