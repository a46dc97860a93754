//! Calls over all definitions of a folder: each saga that is called is there, can be undone where it may have
//! to be, none calls itself by way of others, and they do not nest too deep. What is done for each item of a
//! list is called too, and may call others.

use std::collections::{BTreeMap, BTreeSet};

use super::{Loaded, in_force};
use crate::saga::called::MAX_DEPTH;
use crate::saga::code::Code;
use crate::saga::definition::{self, Place};
use crate::saga::plan::{Kind, Plan, Work};
use crate::saga::problem::{Finding, Problem, closest};

/// What is wrong with the calls of these definitions. What is called is the highest version of a saga.
/// `broken` are the texts of files that do not hold: what one of them may define is not told to be missing.
pub(super) fn problems(loaded: &[Loaded], broken: &[String]) -> Vec<Problem> {
    let plans: Vec<_> = in_force(loaded).into_iter().flat_map(|loaded| Plan::family(&loaded.plan)).collect();
    let in_force: BTreeMap<&str, &Plan> = plans.iter().map(|plan| (plan.saga.as_str(), &**plan)).collect();
    loaded.iter().flat_map(|one| of_definition(one, &in_force, broken)).collect()
}

fn of_definition(loaded: &Loaded, in_force: &BTreeMap<&str, &Plan>, broken: &[String]) -> Vec<Problem> {
    let Loaded { file, source, plan } = loaded;
    let mut problems = Vec::new();
    for plan in Plan::family(plan) {
        for step in &plan.steps {
            let Work::Saga(called) = &step.work else { continue };
            let found = obstacle(&plan, &called.saga, step.kind, in_force);
            let Some((code, message, hint)) = found else { continue };
            if code == Code::UnknownSaga && broken.iter().any(|text| may_define(text, &called.saga)) {
                continue;
            }
            problems.push(match place(file, source, &step.name, &called.saga) {
                Some(at) => Problem::at(file, source, Finding { code, at, message, hint: Some(hint) }),
                None => Problem::of_file(code, file, &message, Some(hint)),
            });
        }
    }
    problems
}

/// What is in the way of a call, and the remedy.
fn obstacle(
    plan: &Plan,
    called: &str,
    kind: Kind,
    in_force: &BTreeMap<&str, &Plan>,
) -> Option<(Code, String, String)> {
    let Some(of) = in_force.get(called) else {
        let hint = match closest(called, in_force.keys().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "put its definition into the same folder, and check the folder as a whole".to_owned(),
        };
        return Some((Code::UnknownSaga, format!("there is no saga {called:?} to be called"), hint));
    };
    if reaches(called, &plan.saga, in_force) {
        let message = format!("saga {:?} calls {called:?}, which calls {:?} again", plan.saga, plan.saga);
        return Some((Code::EndlessCalls, message, "have one of them do without the other".to_owned()));
    }
    if nests_too_deep(called, in_force) {
        let message =
            format!("saga {called:?} calls on and on: these are more than {MAX_DEPTH} calls within calls");
        let hint = "have one of them do itself what it calls another for";
        return Some((Code::TooManyLevels, message, hint.to_owned()));
    }
    if kind == Kind::Compensatable && of.has_pivot() {
        let message = format!("saga {called:?} has a pivot, so this call could not be undone");
        let hint = "say `kind: pivot`, or call it after the pivot with `kind: retriable`";
        return Some((Code::CalledPivot, message, hint.to_owned()));
    }
    None
}

/// Whether a saga calls another, by way of others or not.
fn reaches<'a>(from: &'a str, to: &str, in_force: &BTreeMap<&'a str, &'a Plan>) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(saga) = open.pop() {
        if saga == to {
            return true;
        }
        if !seen.insert(saga) {
            continue;
        }
        open.extend(called_by(saga, in_force));
    }
    false
}

/// Whether a called saga leads to more calls within calls than an instance makes.
fn nests_too_deep<'a>(called: &'a str, in_force: &BTreeMap<&'a str, &'a Plan>) -> bool {
    let mut level = BTreeSet::from([called]);
    for _ in 0..MAX_DEPTH {
        level = level.into_iter().flat_map(|saga| called_by(saga, in_force)).collect();
    }
    !level.is_empty()
}

/// The sagas that a saga calls, with what it does for each item of a list.
fn called_by<'a>(saga: &str, in_force: &BTreeMap<&'a str, &'a Plan>) -> impl Iterator<Item = &'a str> {
    let steps = in_force.get(saga).map_or(&[][..], |plan| &plan.steps);
    steps.iter().filter_map(|step| match &step.work {
        Work::Saga(called) => Some(called.saga.as_str()),
        Work::Each(each) => Some(each.body.saga.as_str()),
        _ => None,
    })
}

/// Whether a text that does not hold may be the definition of a saga: it says so, or says no name at all.
fn may_define(text: &str, saga: &str) -> bool {
    let named = text.split(['\n', '\r']).find_map(|line| line.trim_start().strip_prefix("saga:"));
    let name = named.map(|name| name.split('#').next().unwrap_or_default());
    name.is_none_or(|name| name.trim().trim_matches(['"', '\'']) == saga)
}

/// Where the saga is named that a step calls.
pub(super) fn place(file: &str, source: &str, step: &str, saga: &str) -> Option<Place> {
    let definition = definition::parse(file, source).ok()?;
    let mut calls = definition.calls().into_iter();
    calls.find(|call| call.call.value == step && call.saga.value == saga).map(|call| call.saga.at)
}
