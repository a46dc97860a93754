//! Routing: which instances a message is for, and what it says to them.

use metrics::counter;
use tracing::{debug, warn};

use crate::delivery::Queue;
use crate::engine::{Engine, EngineError, Fate};
use crate::metric;
use crate::saga::command;
use crate::saga::expression::{ExpressionError, Scope};
use crate::saga::id::{InstanceId, MessageId, Phase};
use crate::saga::instance::{Instance, StepStatus};
use crate::saga::message::Message;
use crate::saga::plan::{Plan, ReplyRule};
use crate::saga::reply::{self, Outcome};
use crate::saga::time::Timestamp;
use crate::saga::transition::Event;

/// A step that a reply speaks of.
#[derive(Clone, Copy)]
struct Target {
    step: usize,
    phase: Phase,
    attempt: Option<u32>,
}

impl Engine {
    /// Finds out what a message is for and hands it there.
    pub(crate) fn route(
        &mut self,
        queue: Queue,
        message: &Message,
        now: Timestamp,
    ) -> Result<Fate, EngineError> {
        match queue {
            Queue::Replies => self.route_reply(message, now),
            Queue::Events => self.route_event(message, now),
        }
    }

    /// A message to the reply queue: its correlation id tells what it answers.
    fn route_reply(&mut self, message: &Message, now: Timestamp) -> Result<Fate, EngineError> {
        if let Some((id, target)) = self.correlated(message)? {
            return self.answer(id, Some(target), message, now);
        }
        if message.correlation_id.is_none() {
            return Ok(Fate::Refused("reply without a correlation_id: echo the command's".to_owned()));
        }
        warn!(correlation_id = message.correlation_id, "reply to a command that is not known");
        counter!(metric::IGNORED, "what" => "unknown_reply").increment(1);
        Ok(Fate::Settled)
    }

    /// An event may start instances, cancel some, and answer others, all at once.
    fn route_event(&mut self, message: &Message, now: Timestamp) -> Result<Fate, EngineError> {
        let mut refusals = Vec::new();
        let mut meant = false;
        for plan in self.catalog.starting() {
            if plan.start.on.matches(&message.exchange, &message.key) {
                meant = true;
                collect(&mut refusals, self.start(&plan, message, now)?);
            }
        }
        for (saga, key) in self.catalog.cancelled_by(message) {
            meant = true;
            match key {
                Ok(key) => self.cancel(InstanceId::new(&saga, &key), message, now)?,
                Err(error) => refusals.push(format!("saga {saga}: cancel.business_key: {error}")),
            }
        }
        if let Some((id, target)) = self.correlated(message)? {
            collect(&mut refusals, self.answer(id, Some(target), message, now)?);
            meant = true;
        } else {
            for (saga, key) in self.catalog.answered_by(message) {
                meant = true;
                match key {
                    Ok(key) => {
                        let fate = self.answer(InstanceId::new(&saga, &key), None, message, now)?;
                        collect(&mut refusals, fate);
                    }
                    Err(error) => refusals.push(format!("saga {saga}: the business key of a reply: {error}")),
                }
            }
        }
        if !meant {
            debug!(exchange = message.exchange, key = message.key, "event that no definition asks for");
            counter!(metric::IGNORED, "what" => "unmatched_event").increment(1);
        }
        Ok(if refusals.is_empty() { Fate::Settled } else { Fate::Refused(refusals.join("; ")) })
    }

    fn cancel(&mut self, id: InstanceId, message: &Message, now: Timestamp) -> Result<(), EngineError> {
        let event = Event::Cancel { event_id: message.id.clone() };
        if !self.apply(id, event, message.id.clone(), now)? {
            counter!(metric::IGNORED, "what" => "unknown_cancel").increment(1);
        }
        Ok(())
    }

    /// What a message answers by its correlation id, else by the command id that it carries.
    fn correlated(&self, message: &Message) -> Result<Option<(InstanceId, Target)>, EngineError> {
        if let Some(id) = message.correlation_id.as_deref().and_then(MessageId::parse)
            && let Some(known) = self.reader.correlation(id)?
        {
            let target = Target { step: known.step, phase: known.phase, attempt: Some(known.attempt) };
            return Ok(Some((known.instance, target)));
        }
        let header = message.headers.get("x-saga-command-id").and_then(|value| value.as_str());
        if let Some(id) = header.and_then(MessageId::parse)
            && let Some(known) = self.reader.correlation(id)?
        {
            return Ok(Some((
                known.instance,
                Target { step: known.step, phase: known.phase, attempt: None },
            )));
        }
        Ok(None)
    }

    /// Hands a reply to an instance. Without a target, the instance's own rules tell which step.
    fn answer(
        &mut self,
        id: InstanceId,
        target: Option<Target>,
        message: &Message,
        now: Timestamp,
    ) -> Result<Fate, EngineError> {
        if !self.load(id)? {
            counter!(metric::IGNORED, "what" => "unknown_reply").increment(1);
            return Ok(Fate::Settled);
        }
        let (instance, plan) = self.loaded(id).expect("the instance was loaded above");
        let target = match target {
            Some(target) => target,
            None => match target_by_rules(plan, instance, message) {
                Ok(target) => target,
                Err(reason) => return Ok(Fate::Refused(reason)),
            },
        };
        let Target { step, phase, attempt } = target;
        if step >= plan.steps.len() {
            return Ok(Fate::Refused(format!("the definition of instance {id} has no step number {step}")));
        }
        let outcome: Outcome = match reply::read(plan, step, phase, instance, message) {
            Ok(outcome) => outcome,
            Err(unreadable) => return Ok(Fate::Refused(unreadable.to_string())),
        };
        let event = Event::Reply { step, phase, attempt, outcome, message_id: message.id.clone() };
        self.apply(id, event, message.id.clone(), now)?;
        Ok(Fate::Settled)
    }
}

/// The step whose rules match an event: one in flight first, else one that was in flight, else any.
fn target_by_rules(plan: &Plan, instance: &Instance, message: &Message) -> Result<Target, String> {
    let mut best: Option<(u8, Target)> = None;
    for (step, phase) in phases(plan) {
        let Some(call) = command::call(plan, step, phase) else { continue };
        if reply::matching_rule(call, instance, message)?.is_none() {
            continue;
        }
        let rank = match (phase, instance.steps[step].status) {
            (Phase::Action, StepStatus::Dispatched) | (Phase::Compensation, StepStatus::Compensating) => 2,
            _ => u8::from(!instance.steps[step].progress(phase).is_idle()),
        };
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, Target { step, phase, attempt: None }));
        }
    }
    let none =
        || format!("no rule in the `replies` of saga {} v{} matches this event", plan.saga, plan.version);
    best.map(|(_, target)| target).ok_or_else(none)
}

/// Every step in every phase.
fn phases(plan: &Plan) -> impl Iterator<Item = (usize, Phase)> + '_ {
    (0..plan.steps.len()).flat_map(|step| [(step, Phase::Action), (step, Phase::Compensation)])
}

/// The business key that an event names to the rules of a plan that listen to it; nothing where none
/// does.
pub(crate) fn answered_key(plan: &Plan, message: &Message) -> Option<Result<String, ExpressionError>> {
    let calls = phases(plan).filter_map(|(step, phase)| command::call(plan, step, phase));
    let listens = |rule: &&ReplyRule| rule.on.is_some() && reply::listens(rule, message);
    let rule = calls.flat_map(|call| &call.replies).find(listens)?;
    let expression = rule.business_key.as_ref().unwrap_or(&plan.start.business_key);
    let scope = Scope { event: Some(message), reply: Some(message), ..Scope::default() };
    Some(expression.evaluate_key(&scope))
}

fn collect(refusals: &mut Vec<String>, fate: Fate) {
    if let Fate::Refused(reason) = fate {
        refusals.push(reason);
    }
}
