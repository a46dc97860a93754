//! Steps that are answered by no participant: they wait for an event, for a time, or for a saga that they
//! called.

use super::{Asked, Stage};
use crate::saga::id::{InstanceId, Phase};
use crate::saga::instance::{Instance, StepState, StepStatus};
use crate::saga::plan::{Plan, Work};
use crate::simulate::ProcessError;
use crate::trial::path::Target;
use crate::trial::script::{self, Acts};

impl Stage<'_> {
    /// Has that come for which steps have begun to wait.
    pub(super) fn begin_waiting(&mut self) -> Result<(), ProcessError> {
        let script = self.script;
        for (&id, acts) in &script.acts {
            let waiting = self.process.engine.loaded(id).map(|(instance, plan)| begun(plan, instance));
            self.begin(id, acts, waiting.unwrap_or_default())?;
        }
        Ok(())
    }

    /// The same after a restart, of instances that the engine need not have loaded yet.
    pub(super) fn go_on_waiting(&mut self) -> Result<(), ProcessError> {
        let script = self.script;
        for (&id, acts) in &script.acts {
            let Some(instance) = self.process.reader().instance(id)? else { continue };
            let mut plans = self.definitions.iter().flat_map(|loaded| Plan::family(&loaded.plan));
            let waiting = plans.find(|plan| plan.saga == instance.saga).map(|plan| begun(&plan, &instance));
            self.begin(id, acts, waiting.unwrap_or_default())?;
        }
        Ok(())
    }

    fn begin(&mut self, id: InstanceId, acts: &Acts, waiting: Vec<Target>) -> Result<(), ProcessError> {
        for target in waiting {
            if !self.waited.insert((id, target)) {
                continue;
            }
            self.reached.insert((id, target));
            self.cue(Some((id, target)));
            let Some(act) = script::act(acts, target, 1) else { continue };
            self.answer(act, Asked::Wait(id))?;
            if act.answers.is_empty() && act.crash.is_some() {
                return self.die();
            }
        }
        Ok(())
    }
}

/// The steps of an instance that have begun and are answered by no participant.
pub(super) fn begun(plan: &Plan, instance: &Instance) -> Vec<Target> {
    let steps = plan.steps.iter().zip(&instance.steps).enumerate();
    let waits = steps.filter(|(_, (step, _))| {
        matches!(step.work, Work::Wait(_) | Work::Delay(_) | Work::Saga(_) | Work::Each(_))
    });
    let is_begun = |state: &StepState| !matches!(state.status, StepStatus::Pending | StepStatus::Skipped);
    let begun = waits.filter(|(_, (_, state))| is_begun(state));
    begun.map(|(step, _)| Target { member: 0, step, phase: Phase::Action }).collect()
}
