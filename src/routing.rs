//! Routing: which instances a message is for, and what it says to them.

use metrics::counter;
use tracing::{debug, info, warn};

use crate::delivery::Queue;
use crate::engine::{Applied, Engine, EngineError, Fate, Started};
use crate::metric;
use crate::saga::id::{InstanceId, MessageId, Phase};
use crate::saga::message::Message;
use crate::saga::reply;
use crate::saga::time::Timestamp;
use crate::saga::transition::Event;

/// A step that a reply speaks of.
#[derive(Clone, Copy)]
struct Target {
    step: usize,
    phase: Phase,
    attempt: Option<u32>,
}

/// What an event came to as an answer.
struct Answers {
    /// Whether any definition listens to it.
    listened: bool,
    /// Whether any instance took it.
    answered: bool,
    /// What kept it from others.
    obstacles: Vec<String>,
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
            return self.answer(id, target, message, now);
        }
        if message.correlation_id.is_none() {
            return Ok(Fate::Refused("reply without a correlation_id: echo the command's".to_owned()));
        }
        warn!(correlation_id = message.correlation_id, "reply to a command that is not known");
        ignore("unknown_reply");
        Ok(Fate::Settled)
    }

    /// An event may start instances, cancel some and answer others, all at once, but answers none that it has
    /// started, however often it comes. It is refused if it was to start or to cancel something and cannot, or if
    /// it answers nobody and somebody listens, but for those that it has started.
    fn route_event(&mut self, message: &Message, now: Timestamp) -> Result<Fate, EngineError> {
        let (mut refusals, mut begun) = (Vec::new(), Vec::new());
        let mut meant = false;
        for plan in self.catalog.starting() {
            if plan.starts_on(&message.exchange, &message.key) {
                meant = true;
                match self.start(&plan, message, now)? {
                    Started::With(id) => begun.push(id),
                    Started::Before => {}
                    Started::Refused(reason) => refusals.push(reason),
                }
            }
        }
        for (saga, key) in self.catalog.cancelled_by(message) {
            meant = true;
            match key {
                Ok(key) => self.cancel(InstanceId::new(&saga, &key), message, now)?,
                Err(error) => refusals.push(format!("saga {saga}: cancel.business_key: {error}")),
            }
        }
        // A command that we hear because we listen to its exchange answers nothing.
        if !message.is_command {
            let Answers { listened, answered, obstacles } = self.answer_all(message, begun, now)?;
            meant |= listened;
            if !answered {
                refusals.extend(obstacles);
            }
        }
        if !meant && message.exchange.is_empty() {
            return Ok(Fate::Refused(
                "event that came by no exchange: publish it to the one that it belongs to".to_owned(),
            ));
        }
        if !meant {
            debug!(exchange = message.exchange, key = message.key, "event that no definition asks for");
            ignore("unmatched_event");
        }
        Ok(if refusals.is_empty() { Fate::Settled } else { Fate::Refused(refusals.join("; ")) })
    }

    fn cancel(&mut self, id: InstanceId, message: &Message, now: Timestamp) -> Result<(), EngineError> {
        let event = Event::Cancel { event_id: message.id.clone() };
        if self.apply(id, event, message.id.clone(), now)? == Applied::Unknown {
            info!(instance = %id, "cancellation of an instance that is not there");
            ignore("unknown_cancel");
        }
        Ok(())
    }

    /// Hands an event to every instance that it may answer: none of those that it has `begun`.
    fn answer_all(
        &mut self,
        message: &Message,
        begun: Vec<InstanceId>,
        now: Timestamp,
    ) -> Result<Answers, EngineError> {
        let mut answered = false;
        let mut obstacles = Vec::new();
        let mut seen = begun;
        // Events often carry a correlation id on: it counts where the step that it names listens.
        if let Some((id, target)) = self.correlated(message)?
            && self.listens(id, target, message)?
        {
            seen.push(id);
            match self.answer(id, target, message, now)? {
                Fate::Settled => answered = true,
                Fate::Refused(reason) => obstacles.push(reason),
            }
        }
        for (saga, key) in self.catalog.answered_by(message) {
            let id = match key {
                Ok(key) => InstanceId::new(&saga, &key),
                Err(error) => {
                    let has_begun =
                        |id: &InstanceId| self.loaded(*id).is_some_and(|(one, _)| one.saga == saga);
                    if !seen.iter().any(has_begun) {
                        obstacles.push(format!("saga {saga}: the business key of a reply: {error}"));
                    }
                    continue;
                }
            };
            if seen.contains(&id) {
                continue;
            }
            seen.push(id);
            if !self.load(id)? {
                ignore("unknown_reply");
                continue;
            }
            let (instance, plan) = self.loaded(id).expect("the instance was loaded above");
            match reply::answered_step(plan, instance, message) {
                Ok(Some((step, phase))) => {
                    match self.answer(id, Target { step, phase, attempt: None }, message, now)? {
                        Fate::Settled => answered = true,
                        Fate::Refused(reason) => obstacles.push(reason),
                    }
                }
                // Another version of its saga listens to this event, its own does not.
                Ok(None) => {}
                Err(reason) => obstacles.push(reason),
            }
        }
        Ok(Answers { listened: !seen.is_empty() || !obstacles.is_empty(), answered, obstacles })
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
            let target = Target { step: known.step, phase: known.phase, attempt: None };
            return Ok(Some((known.instance, target)));
        }
        Ok(None)
    }

    /// Whether the step that an event names by correlation takes its answers from such events.
    fn listens(&mut self, id: InstanceId, target: Target, message: &Message) -> Result<bool, EngineError> {
        if message.headers.contains_key("x-saga-outcome") {
            return Ok(true);
        }
        self.load(id)?;
        let step = self.loaded(id).and_then(|(_, plan)| plan.steps.get(target.step));
        let rules = step.map_or(&[][..], |step| step.rules(target.phase));
        Ok(rules.iter().any(|rule| reply::listens(rule, message)))
    }

    /// Hands a reply to a step of an instance.
    fn answer(
        &mut self,
        id: InstanceId,
        target: Target,
        message: &Message,
        now: Timestamp,
    ) -> Result<Fate, EngineError> {
        if !self.load(id)? {
            ignore("unknown_reply");
            return Ok(Fate::Settled);
        }
        let (instance, plan) = self.loaded(id).expect("the instance was loaded above");
        let Target { step, phase, attempt } = target;
        if step >= plan.steps.len() {
            return Ok(Fate::Refused(format!("the definition of instance {id} has no step number {step}")));
        }
        let outcome = match reply::read(plan, step, phase, instance, message) {
            Ok(outcome) => outcome,
            Err(unreadable) => return Ok(Fate::Refused(unreadable.to_string())),
        };
        let event = Event::Reply { step, phase, attempt, outcome, message_id: message.id.clone() };
        self.apply(id, event, message.id.clone(), now)?;
        Ok(Fate::Settled)
    }
}

/// Counts a message that concerns no instance.
fn ignore(what: &'static str) {
    counter!(metric::IGNORED, "what" => what).increment(1);
}
