//! Recovery: what a start takes up from the store.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::gauge;

use super::{Engine, EngineError};
use crate::fault::{self, Bug, Point};
use crate::metric;
use crate::saga::command;
use crate::saga::id::InstanceId;
use crate::saga::instance::Status;
use crate::saga::message::Outgoing;
use crate::saga::plan::Plan;
use crate::store::{Query, Waiting};

/// What there was to take up at start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Open instances.
    pub instances: usize,
    /// Messages that the broker has not confirmed, as they were.
    pub outgoing: Vec<Outgoing>,
}

impl Engine {
    /// Takes up every open instance: arms its timer and hands out the messages that the broker has not
    /// confirmed. Call it once, before the first input.
    ///
    /// # Errors
    /// A record cannot be read, or the definition of an open instance is neither in the folder nor in
    /// the store.
    pub fn recover(&mut self) -> Result<Recovered, EngineError> {
        let mut recovered = Recovered::default();
        let mut plans = HashMap::new();
        let reader = self.reader.clone();
        for waiting in reader.waiting() {
            let Waiting { id, saga, version, due, unconfirmed } = waiting?;
            // Most only wait for their time; but each version's definition must be listened to, and what is
            // limited has its place in a queue.
            let version = (saga, version);
            if (unconfirmed || plans.get(&version).is_none_or(|plan: &Arc<Plan>| plan.is_limited()))
                && let Some(plan) = self.take_up(id, &mut recovered)?
            {
                plans.insert(version.clone(), plan);
            }
            if let Some(plan) = plans.get(&version) {
                self.catalog.hold(plan);
            }
            if !fault::planted(Bug::TimersLost) {
                self.timers.arm(id, due);
            }
            fault::pass(Point::Recovering);
            self.open += 1;
        }
        // A late answer may take a parked instance on: its definition must be listened to.
        let mut parked = Query { statuses: vec![Status::Parked], limit: 1000, ..Query::default() };
        loop {
            let page = self.reader.list(&parked)?;
            for instance in page.items.iter().filter(|instance| !instance.is_open()) {
                let plan = self.catalog.plan_of(instance, &self.reader)?;
                self.limits.recover(&plan, instance);
                self.catalog.hold(&plan);
            }
            parked.cursor = page.next;
            if parked.cursor.is_none() {
                break;
            }
        }
        self.catalog.suspect_stored(&self.reader)?;
        recovered.instances = self.open;
        self.missed = self.open > 0;
        gauge!(metric::OPEN).set(self.open as f64);
        Ok(recovered)
    }

    /// Hands out an instance's messages that the broker has not confirmed, and puts it into the queues that
    /// it stood in. Returns its definition.
    fn take_up(
        &mut self,
        id: InstanceId,
        recovered: &mut Recovered,
    ) -> Result<Option<Arc<Plan>>, EngineError> {
        let Some(instance) = self.reader.instance(id)? else { return Ok(None) };
        let plan = self.catalog.plan_of(&instance, &self.reader)?;
        if !fault::planted(Bug::SlotsLost) {
            self.limits.recover(&plan, &instance);
        }
        for part in instance.unconfirmed() {
            // It could be rendered when it was decided, so it can be now.
            if let Ok(Some(outgoing)) = command::render(&plan, &instance, part) {
                let outgoing = super::sealed(&self.sealer, outgoing, instance.started_at);
                recovered.outgoing.push(Outgoing { repeated: true, ..outgoing });
            }
        }
        Ok(Some(plan))
    }
}
