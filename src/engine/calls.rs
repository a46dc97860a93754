//! Calls: what instances tell each other is decided in the same batch, and so durable with what caused it.

use std::sync::Arc;

use tracing::{debug, error};

use super::{Applied, Engine, EngineError};
use crate::saga::called::{Caller, End, Start, Told};
use crate::saga::fact::Failure;
use crate::saga::id::InstanceId;
use crate::saga::message::Cause;
use crate::saga::plan::{Plan, Work};
use crate::saga::time::Timestamp;
use crate::saga::transition::{self, Event};

/// Bytes that one event may add to its commit before calls that follow from it are refused. Lists within lists
/// would else fill the memory: all that begins by one event goes into one commit.
const MOST_AT_ONCE: usize = 32 << 20;

impl Engine {
    /// Passes on what instances have told each other, and turns that became free, until nobody has anything
    /// to tell and nobody has a turn. Turns that the batch does not hold are left for the next.
    pub(super) fn pass_on(&mut self, now: Timestamp) -> Result<(), EngineError> {
        self.pass_on_told(now)?;
        while !self.is_full()
            && let Some((id, step)) = self.limits.next_turn(now)
        {
            self.apply_alone(id, Event::Turn { step }, Cause::default(), now)?;
            self.pass_on_told(now)?;
        }
        Ok(())
    }

    fn pass_on_told(&mut self, now: Timestamp) -> Result<(), EngineError> {
        let bound = self.gathering.batch.bytes() + MOST_AT_ONCE;
        while let Some(told) = self.told.pop_front() {
            match told {
                Told::Start(start) if self.gathering.batch.bytes() > bound => {
                    let message = "calls and lists within each other would begin too many instances at once: \
                                   lower max_in_flight";
                    self.refuse_call(start.caller, failure("TOO_WIDE", message.to_owned()), now)?;
                }
                Told::Start(start) => self.begin_called(*start, now)?,
                Told::Event(id, event) => {
                    if self.apply_alone(id, event, Cause::default(), now)? == Applied::Unknown {
                        error!(instance = %id, "an instance that is called, or calls, is not in the store");
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_called(&mut self, start: Start, now: Timestamp) -> Result<(), EngineError> {
        let caller = start.caller;
        match self.plan_to_call(&start)? {
            Ok(plan) => {
                let (instance, decision) =
                    transition::start_called(&plan, start, self.reader.identity().id, now);
                let id = instance.id;
                debug!(saga = plan.saga, version = plan.version, instance = %id, caller = %caller.instance,
                    "instance started by a call");
                self.gathering.started.push(Arc::clone(&plan));
                self.cache.put(instance, plan);
                self.keep(id, decision, Cause::default(), now);
            }
            Err(error) => self.refuse_call(caller, error, now)?,
        }
        Ok(())
    }

    fn refuse_call(&mut self, caller: Caller, error: Failure, now: Timestamp) -> Result<(), EngineError> {
        let Caller { instance, step, item, .. } = caller;
        self.apply_alone(
            instance,
            Event::CalledEnded { step, item, end: End::Failed(error) },
            Cause::default(),
            now,
        )?;
        Ok(())
    }

    /// The plan that a called instance begins with, or why it cannot begin.
    fn plan_to_call(&mut self, start: &Start) -> Result<Result<Arc<Plan>, Failure>, EngineError> {
        let body = self.loaded(start.caller.instance).and_then(|(_, plan)| {
            match &plan.steps.get(start.caller.step)?.work {
                Work::Each(each) => Some(Arc::clone(&each.body)),
                _ => None,
            }
        });
        let Some(plan) = body.or_else(|| self.catalog.in_force(&start.saga)) else {
            let message = format!("no definition of saga {} is in force", start.saga);
            return Ok(Err(failure("UNKNOWN_SAGA", message)));
        };
        if self.load(InstanceId::new(&start.saga, &start.business_key))? {
            let message = format!("saga {} has an instance {:?} already", start.saga, start.business_key);
            return Ok(Err(failure("KEY_TAKEN", message)));
        }
        Ok(start.obstacle(&plan).map_or(Ok(plan), Err))
    }
}

fn failure(code: &str, message: String) -> Failure {
    Failure { step: None, code: code.to_owned(), message }
}
