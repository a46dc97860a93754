//! Callees: the instances that a saga calls, and what everybody does for them.

use std::sync::Arc;

use super::draft::Given;
use super::path::{Target, targets};
use super::sample::Sample;
use super::script::{Act, Acts};
use crate::definitions::{Loaded, in_force};
use crate::saga::called::{MAX_DEPTH, key_of};
use crate::saga::expression::Scope;
use crate::saga::id::{InstanceId, Phase};
use crate::saga::plan::{Kind, OutcomeKind, Plan, Work};

/// How many of them are looked after at most, over all levels.
const MAX_CALLEES: usize = 64;

/// An instance that is called.
pub(super) struct Callee {
    /// The step of the first caller.
    pub(super) step: usize,
    instance: InstanceId,
    plan: Arc<Plan>,
    sample: Sample,
}

/// The definitions that a saga may call, by way of others or not.
pub(super) fn callables(plan: &Plan, loaded: &[Loaded]) -> Vec<Loaded> {
    let in_force = in_force(loaded);
    let mut found: Vec<Loaded> = Vec::new();
    let mut open: Vec<String> = called_by(plan).map(|(_, saga)| saga.to_owned()).collect();
    while let Some(saga) = open.pop() {
        let is_new = saga != plan.saga && found.iter().all(|known| known.plan.saga != saga);
        if let Some(called) = in_force.iter().find(|one| is_new && one.plan.saga == saga) {
            open.extend(called_by(&called.plan).map(|(_, saga)| saga.to_owned()));
            found.push((*called).clone());
        }
    }
    found
}

/// The instances that a saga calls, with those that they call.
pub(super) fn callees(plan: &Plan, sample: &Sample, others: &[Loaded]) -> Vec<Callee> {
    let mut found = Vec::new();
    for (step, _) in called_by(plan) {
        add(&mut found, step, plan, sample, step, others, MAX_DEPTH);
    }
    found
}

/// Adds what a step calls, and what that calls, for a step of the first caller.
fn add(
    found: &mut Vec<Callee>,
    first: usize,
    plan: &Plan,
    sample: &Sample,
    step: usize,
    others: &[Loaded],
    depth: u8,
) {
    let Work::Saga(called) = &plan.steps[step].work else { return };
    let Some(of) = others.iter().find(|other| other.plan.saga == called.saga) else { return };
    if depth == 0 || found.len() >= MAX_CALLEES {
        return;
    }
    let key = key_of(&sample.instance, step, "", 1);
    let input = called.input.evaluate(&Scope::of(&sample.instance)).unwrap_or_default();
    let given = Given { called: Some((key.clone(), input)), ..Given::default() };
    let callee = Callee {
        step: first,
        instance: InstanceId::new(&called.saga, &key),
        plan: Arc::clone(&of.plan),
        sample: Sample::new(&of.plan, &given, others),
    };
    for (step, _) in called_by(&callee.plan) {
        add(found, first, &callee.plan, &callee.sample, step, others, depth - 1);
    }
    found.push(callee);
}

impl Callee {
    /// What everybody does for it: their work, or the first that can turn it back refuses.
    pub(super) fn acts(&self, is_refused: bool) -> (InstanceId, Acts) {
        let targets = targets(&self.plan);
        let refuses = |target: &&Target| {
            let step = &self.plan.steps[target.step];
            target.phase == Phase::Action
                && step.kind != Kind::Retriable
                && step.call(Phase::Action).is_some()
        };
        let refused = targets.iter().find(refuses).filter(|_| is_refused);
        let act = |target: &Target| {
            let act = match Some(target) == refused {
                true => Act::refused(&self.sample.answer(*target, OutcomeKind::Failure)),
                false => self.sample.usual(&self.plan, *target),
            };
            (*target, vec![act])
        };
        (self.instance, targets.iter().map(act).collect())
    }
}

/// The steps of a plan that call a saga, with its name.
fn called_by(plan: &Plan) -> impl Iterator<Item = (usize, &str)> {
    plan.steps.iter().enumerate().filter_map(|(index, step)| match &step.work {
        Work::Saga(called) => Some((index, called.saga.as_str())),
        _ => None,
    })
}
