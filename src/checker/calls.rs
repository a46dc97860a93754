//! I19: what calls and what is called end the same way.

use super::Invariant::I19;
use super::case::{Case, Cases};
use super::report::Findings;
use crate::saga::called::called_by;
use crate::saga::each::item_instances;
use crate::saga::fact::Fact;
use crate::saga::instance::{ItemStatus, Status, StepStatus};
use crate::saga::plan::{Kind, Plan};

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    for case in &cases.all {
        its_calls_end_as_it_does(cases, case, found);
        its_caller_knows_of_it(cases, case, found);
    }
}

fn its_calls_end_as_it_does(cases: &Cases<'_>, case: &Case<'_>, found: &mut Findings) {
    let (Some(plan), instance) = (case.plan, case.instance()) else { return };
    for (step, state) in instance.steps.iter().enumerate() {
        // What a person said of a step may be otherwise.
        if case.facts().any(|fact| matches!(fact, Fact::Ordered { step: Some(of), .. } if *of == step)) {
            continue;
        }
        its_items_end_as_it_does(cases, case, plan, step, found);
        let Some(called) = called_by(plan, instance, step) else { continue };
        let Some(called) = cases.by_id(called).map(Case::instance) else {
            // One that could not begin is not there.
            if state.status != StepStatus::Failed {
                let what = format!("step {}: the instance that it called is not there", state.name);
                found.add(I19, Some(case.id()), what);
            }
            continue;
        };
        let expected = match (instance.status, state.status) {
            (_, StepStatus::Failed | StepStatus::Compensated) => Status::Compensated,
            (Status::Completed, StepStatus::Succeeded) => Status::Completed,
            (_, StepStatus::Succeeded) if plan.steps[step].kind != Kind::Compensatable => Status::Completed,
            _ => continue,
        };
        if called.status != expected {
            let what = format!(
                "it is {}, its step {} {}, and the instance {} that this called is {}",
                instance.status, state.name, state.status, called.id, called.status
            );
            found.add(I19, Some(case.id()), what);
        }
    }
}

fn its_items_end_as_it_does(
    cases: &Cases<'_>,
    case: &Case<'_>,
    plan: &Plan,
    step: usize,
    found: &mut Findings,
) {
    let instance = case.instance();
    for (id, item) in item_instances(plan, instance, step) {
        let is = cases.by_id(id).map(|called| called.instance().status);
        let expected = match (instance.status, item) {
            (_, ItemStatus::Failed | ItemStatus::Undone | ItemStatus::NotUndone) => Status::Compensated,
            (Status::Completed, ItemStatus::Done) => Status::Completed,
            _ => continue,
        };
        // One that could not begin is not there.
        let may_be_missing = item == ItemStatus::Failed;
        if is != Some(expected) && !(is.is_none() && may_be_missing) {
            let name = &instance.steps[step].name;
            let item = item.as_str();
            let what = format!("step {name}: an item is {item}, and its instance {id} is {is:?}");
            found.add(I19, Some(case.id()), what);
        }
    }
}

fn its_caller_knows_of_it(cases: &Cases<'_>, case: &Case<'_>, found: &mut Findings) {
    let Some(caller) = case.instance().caller else { return };
    let calling = cases.by_id(caller.instance);
    if calling.is_none() {
        found.add(I19, Some(case.id()), format!("its caller {} is not there", caller.instance));
    }
    let has_ended = calling.map(Case::instance).is_some_and(|calling| calling.ended_at.is_some());
    if has_ended && case.instance().ended_at.is_none() && case.instance().status != Status::Parked {
        let what = format!("its caller {} has ended, and it has not", caller.instance);
        found.add(I19, Some(case.id()), what);
    }
}
