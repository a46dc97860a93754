//! I21: what an event answers. And of I13: what somebody made up answers nothing.
//!
//! Whether an event counted is read from what it left on a history: the entry that it caused, or its mark in what a
//! step keeps. That the orchestrator noted it as heard is not asked.

use std::collections::{BTreeMap, BTreeSet};

use super::Invariant::{I13, I21};
use super::case::{Case, Cases};
use super::evidence::{Placed, Placing};
use super::report::Findings;
use crate::saga::fact::{Early, Fact, HistoryEntry, Recorded};
use crate::saga::id::InstanceId;

/// All that was noted of one event.
#[derive(Default)]
struct Event<'a> {
    /// Whom it names.
    named: BTreeSet<InstanceId>,
    /// Whose command's correlation it carries.
    correlated: Option<InstanceId>,
    mark: Option<&'a str>,
    is_forged: bool,
}

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    let mut events: BTreeMap<&str, Event<'_>> = BTreeMap::new();
    for Placed { message_id, what, correlated, mark, .. } in &cases.evidence.placed {
        let event = events.entry(message_id).or_default();
        event.is_forged |= *what == Placing::Forged;
        event.mark = event.mark.or(mark.as_deref());
        if let Some((saga, business_key)) = what.instance() {
            let id = InstanceId::new(saga, business_key);
            event.named.insert(id);
            event.correlated = event.correlated.or(correlated.then_some(id));
        }
    }
    let mut answered: BTreeMap<&str, BTreeSet<InstanceId>> = BTreeMap::new();
    for case in &cases.all {
        for (id, answers) in answers(case, &events) {
            let event = &events[id];
            if event.is_forged {
                found.forged += answers.len();
                let what = format!("{id} was made up, and it answered {}", answers.join(" and "));
                found.add(I13, Some(case.id()), what);
            } else if !event.named.contains(&case.id()) {
                let what =
                    format!("event {id} names other instances, and it answered {}", answers.join(" and "));
                found.add(I21, Some(case.id()), what);
            } else if case.began_with(id, event.mark) {
                let what = format!("event {id} started it, and answered {} as well", answers.join(" and "));
                found.add(I21, Some(case.id()), what);
            } else if answers.len() > 1 {
                let what = format!("event {id} counted {} times: {}", answers.len(), answers.join(" and "));
                found.add(I21, Some(case.id()), what);
            }
            answered.entry(id).or_default().insert(case.id());
        }
    }
    for (id, by) in answered {
        let Some(first) = events[id].correlated.filter(|first| by.contains(first)) else { continue };
        if let Some(other) = by.iter().find(|other| **other != first) {
            let what = format!(
                "event {id} carries the correlation of {first}, which it answered, and it answered this too"
            );
            found.add(I21, Some(*other), what);
        }
    }
}

/// What each event has answered of an instance: once for each time.
fn answers<'a>(case: &Case<'_>, events: &BTreeMap<&'a str, Event<'a>>) -> BTreeMap<&'a str, Vec<String>> {
    let mut answers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in &case.observed.history {
        let cause = entry.causation_id.as_deref();
        if let Some((id, _)) = cause.and_then(|cause| events.get_key_value(cause)) {
            let counted = counted(entry)
                .into_iter()
                .map(|step| format!("step {} at revision {}", case.name(step), entry.revision));
            answers.entry(id).or_default().extend(counted);
        }
    }
    // An event without an id causes nothing by name.
    let marked: Vec<_> = events.iter().filter_map(|(id, event)| Some((*id, event.mark?))).collect();
    if !marked.is_empty() {
        for (step, kept) in kept(case) {
            let holds = |mark: &str| kept.iter().any(|text| text.contains(mark));
            for (id, _) in marked.iter().filter(|(_, mark)| holds(&format!("\"{mark}\""))) {
                let known = answers.entry(id).or_default();
                let name = format!("step {} ", case.name(step));
                if !known.iter().any(|answer| answer.starts_with(&name)) {
                    known.push(format!("{name}by what it keeps"));
                }
            }
        }
    }
    answers.retain(|_, answers| !answers.is_empty());
    answers
}

/// The steps that what caused an entry has answered: the first facts of it say so, before what follows from them.
fn counted(entry: &HistoryEntry) -> Vec<usize> {
    let facts = entry.facts.iter().map(|Recorded { fact, .. }| fact);
    // What says of a message or of a person's order that it is out, or done, rides along.
    let own = facts.skip_while(|fact| {
        matches!(
            fact,
            Fact::Published { .. }
                | Fact::NoticePublished { .. }
                | Fact::Resumed { .. }
                | Fact::Ordered { .. }
        )
    });
    let answered = own.map_while(|fact| match *fact {
        Fact::CameEarly { step, .. }
        | Fact::Succeeded { step, .. }
        | Fact::Failed { step, .. }
        | Fact::GivenUp { step, .. }
        | Fact::Transient { step, .. }
        | Fact::StillWorking { step, .. }
        | Fact::Compensated { step }
        | Fact::NotUndone { step, .. } => Some(step),
        _ => None,
    });
    // That a step is given up is said beside the last thing that was in its way.
    let mut steps: Vec<_> = answered.collect();
    steps.dedup();
    steps
}

/// What each step keeps, or kept for later, as JSON.
fn kept(case: &Case<'_>) -> BTreeMap<usize, Vec<String>> {
    let mut kept: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for fact in case.facts() {
        let (step, text) = match fact {
            Fact::Succeeded { step, output } if !output.is_null() => (*step, output.to_string()),
            Fact::CameEarly { step, says: Early::Success(output) } => (*step, output.to_string()),
            _ => continue,
        };
        kept.entry(step).or_default().push(text);
    }
    kept
}
