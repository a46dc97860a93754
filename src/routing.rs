//! Routing: which instances a message is for, and what it says to them.

use metrics::counter;
use tracing::{debug, info, warn};

use crate::delivery::Queue;
use crate::engine::{About, Engine, EngineError, Fate, Started};
use crate::metric;
use crate::saga::correlation::{Asked, Correlation};
use crate::saga::id::{InstanceId, MessageId, Phase};
use crate::saga::message::{Cause, Message, Purpose};
use crate::saga::reply::{self, Via};
use crate::saga::time::Timestamp;
use crate::saga::transition::Event;

/// A step that a message speaks of.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    step: usize,
    phase: Phase,
    attempt: Option<u32>,
}

/// What a correlation id names.
pub(crate) enum Named {
    /// This step of this instance.
    Step(InstanceId, Target),
    /// An instance that is not kept any more.
    Gone,
    /// Nothing, for this reason.
    Nothing(&'static str),
}

/// What an event came to as an answer.
#[derive(Default)]
struct Answers {
    /// Whether any definition listens to it.
    listened: bool,
    /// Why instances that it may be for cannot be answered by it, and the first of them that is known.
    obstacles: Vec<String>,
    about: Option<About>,
}

impl Answers {
    fn add(&mut self, fate: Fate) {
        if let Fate::Refused(reason, about) = fate {
            self.obstacles.push(reason);
            self.about = self.about.take().or(about);
        }
    }
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

    /// A message to the reply queue: its correlation tells what it answers.
    fn route_reply(&mut self, message: &Message, now: Timestamp) -> Result<Fate, EngineError> {
        match self.correlated(message.correlation_id.as_deref())? {
            Named::Step(id, target) => self.answer(id, target, Via::ReplyQueue, message, now),
            Named::Gone => {
                if let Some(left_out) = self.warnings.pass("unknown reply", now) {
                    warn!(
                        correlation_id = message.correlation_id,
                        left_out, "reply to an instance that is not kept any more"
                    );
                }
                ignore("unknown_reply");
                Ok(Fate::Settled)
            }
            Named::Nothing(reason) => Ok(Fate::Refused(reason.to_owned(), None)),
        }
    }

    /// An event may start instances, cancel some and answer others, all at once, but answers none that it has
    /// started, however often it comes.
    ///
    /// It is refused if it was to start or to cancel something and cannot. It is refused as well if it cannot be
    /// read as the answer that an instance waits for: that is on this instance's history then. But a start event is
    /// one instance or one dead letter: where it has started or cancelled something, what else it is unreadable for
    /// only counts.
    fn route_event(&mut self, message: &Message, now: Timestamp) -> Result<Fate, EngineError> {
        let message = &*match self.arrived(message) {
            Ok(message) => message,
            Err(fate) => return Ok(fate),
        };
        let (mut refusals, mut begun) = (Vec::new(), Vec::new());
        let (mut meant, mut taken, mut about) = (false, false, None);
        for plan in self.catalog.starting() {
            if plan.starts_on(message) {
                meant = true;
                match self.start(&plan, message, now)? {
                    Started::With(id) => begun.push(id),
                    Started::Before => taken = true,
                    Started::Refused(reason) => refusals.push(reason),
                }
            }
        }
        taken |= !begun.is_empty();
        for (saga, key) in self.catalog.cancelled_by(message) {
            meant = true;
            match key {
                Ok(key) => match self.cancel(InstanceId::new(&saga, &key), message, now)? {
                    Some(Fate::Settled) => taken = true,
                    Some(Fate::Refused(reason, whom)) => {
                        refusals.push(reason);
                        about = about.or(whom);
                    }
                    None => {}
                },
                Err(error) => refusals.push(format!("saga {saga}: cancel.business_key: {error}")),
            }
        }
        // A command that we hear because we listen to its exchange answers nothing.
        if !message.is_command {
            let answers = self.answer_all(message, begun, now)?;
            meant |= answers.listened;
            about = about.or(answers.about);
            if taken {
                for reason in answers.obstacles {
                    warn!(
                        exchange = message.exchange,
                        key = message.key,
                        reason,
                        "event that a saga cannot read"
                    );
                    ignore("unreadable_event");
                }
            } else {
                refusals.extend(answers.obstacles);
            }
        }
        if !meant && message.exchange.is_empty() {
            let reason = "event that came by no exchange: publish it to the one that it belongs to";
            return Ok(Fate::Refused(reason.to_owned(), None));
        }
        if !meant {
            debug!(exchange = message.exchange, key = message.key, "event that no definition asks for");
            ignore("unmatched_event");
        }
        Ok(if refusals.is_empty() { Fate::Settled } else { Fate::Refused(refusals.join("; "), about) })
    }

    /// Hands a cancellation to an instance; `None` if there is none.
    fn cancel(
        &mut self,
        id: InstanceId,
        message: &Message,
        now: Timestamp,
    ) -> Result<Option<Fate>, EngineError> {
        if !self.load(id)? {
            info!(instance = %id, "cancellation of an instance that is not there");
            ignore("unknown_cancel");
            return Ok(None);
        }
        let (_, plan) = self.loaded(id).expect("the instance was loaded above");
        if let Some(reason) = plan.cancel.as_ref().and_then(|cancel| cancel.from_user.refusal(message)) {
            return self
                .misread(id, None, format!("cancellation: {reason}"), Cause::of(message), now)
                .map(Some);
        }
        let event = Some(message.event_key(Purpose::Cancel));
        let event = Event::Cancel { event_id: message.id.clone(), event };
        self.apply(id, event, Cause::of(message), now)?;
        Ok(Some(Fate::Settled))
    }

    /// Hands an event to every instance that it may answer: none of those that it has `begun`.
    ///
    /// A correlation decides alone, where it names an instance that listens. Without one, business keys do.
    fn answer_all(
        &mut self,
        message: &Message,
        begun: Vec<InstanceId>,
        now: Timestamp,
    ) -> Result<Answers, EngineError> {
        let mut answers = Answers { listened: !begun.is_empty(), ..Answers::default() };
        let named = match self.correlated(message.correlation_id.as_deref())? {
            Named::Step(id, target) => Some((id, target)),
            Named::Gone | Named::Nothing(_) => self.carried(message)?,
        };
        if let Some((id, target)) = named.filter(|(id, _)| !begun.contains(id))
            && let Some(fate) = self.answer_named(id, target, message, now)?
        {
            answers.listened = true;
            answers.add(fate);
            return Ok(answers);
        }
        let mut seen = begun;
        for (saga, key) in self.catalog.answered_by(message) {
            answers.listened = true;
            let id = match key {
                Ok(key) => InstanceId::new(&saga, &key),
                Err(error) => {
                    let has_begun =
                        |id: &InstanceId| self.loaded(*id).is_some_and(|(one, _)| one.saga == saga);
                    if !seen.iter().any(has_begun) {
                        answers.obstacles.push(format!("saga {saga}: the business key of a reply: {error}"));
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
            // Another version of its saga may listen to this event, and its own does not.
            if let Some(fate) = self.answer_by_rules(id, message, now)? {
                answers.add(fate);
            }
        }
        Ok(answers)
    }

    /// Hands an event to the step that it names, else to one of the same instance that awaits it; `None` if none
    /// does, and it has counted for none before.
    fn answer_named(
        &mut self,
        id: InstanceId,
        target: Target,
        message: &Message,
        now: Timestamp,
    ) -> Result<Option<Fate>, EngineError> {
        let (_, plan) = self.loaded(id).expect("what is named was loaded");
        let rules = plan.steps.get(target.step).map_or(&[][..], |step| step.rules(target.phase));
        if rules.iter().any(|rule| reply::listens(rule, message)) {
            return self.answer(id, target, Via::Event, message, now).map(Some);
        }
        let (instance, plan) = self.loaded(id).expect("what is named was loaded");
        let has_heard = instance.has_heard(message.event_key(Purpose::Answer));
        let awaits = has_heard || reply::awaits(plan, instance, message);
        if awaits { self.answer_by_rules(id, message, now) } else { Ok(None) }
    }

    /// Hands an event to the step of an instance that it answers by the rules; `None` if none listens to it.
    fn answer_by_rules(
        &mut self,
        id: InstanceId,
        message: &Message,
        now: Timestamp,
    ) -> Result<Option<Fate>, EngineError> {
        let (instance, plan) = self.loaded(id).expect("the instance was loaded before");
        if !reply::any_listens(plan, message) {
            return Ok(None);
        }
        // What it counted for has changed which step listens to it now.
        if instance.has_heard(message.event_key(Purpose::Answer)) {
            self.apply(id, Event::Repeated { message_id: message.id.clone() }, Cause::of(message), now)?;
            return Ok(Some(Fate::Settled));
        }
        match reply::answered_step(plan, instance, message) {
            Ok(Some((step, phase))) => {
                let target = Target { step, phase, attempt: None };
                self.answer(id, target, Via::Event, message, now).map(Some)
            }
            Ok(None) => Ok(None),
            Err(reason) => self.misread(id, None, reason, Cause::of(message), now).map(Some),
        }
    }

    /// What a correlation id names. An instance that it names is loaded.
    pub(crate) fn correlated(&mut self, id: Option<&str>) -> Result<Named, EngineError> {
        let Some(id) = id else {
            return Ok(Named::Nothing("reply without a correlation_id: repeat the command's"));
        };
        let Some(correlation) = Correlation::parse(id) else {
            let reason = "the correlation_id is none that sagamq gives: repeat the command's, as it is";
            return Ok(Named::Nothing(reason));
        };
        let Asked { instance, step, phase, attempt } = correlation.asked();
        if !self.load(instance)? {
            return Ok(Named::Gone);
        }
        let (loaded, plan) = self.loaded(instance).expect("the instance was loaded above");
        if !self.sealer.admits(&correlation, loaded.started_at) || step >= plan.steps.len() {
            let reason = "the correlation_id was not given by this orchestrator: was it changed on its way, or is \
                          the command one of another store?";
            return Ok(Named::Nothing(reason));
        }
        Ok(Named::Step(instance, Target { step, phase, attempt: Some(attempt) }))
    }

    /// The step that an event names by the headers of a command that its sender has carried on.
    fn carried(&mut self, message: &Message) -> Result<Option<(InstanceId, Target)>, EngineError> {
        let text = |name: &str| message.headers.get(name).and_then(|value| value.as_str());
        let id = text("x-saga-id").and_then(|id| id.parse::<InstanceId>().ok());
        let command = text("x-saga-command-id").and_then(MessageId::parse);
        let (Some(id), Some(command)) = (id, command) else { return Ok(None) };
        if !self.load(id)? {
            return Ok(None);
        }
        let (instance, _) = self.loaded(id).expect("the instance was loaded above");
        let commands = instance.steps.iter().enumerate().flat_map(|(step, state)| {
            Phase::BOTH.map(|phase| (instance.attempt_id(&state.name, phase, 1), step, phase))
        });
        let named = commands.into_iter().find(|(id, _, _)| *id == command);
        Ok(named.map(|(_, step, phase)| (id, Target { step, phase, attempt: None })))
    }

    /// Hands a reply to a step of an instance that is loaded.
    fn answer(
        &mut self,
        id: InstanceId,
        Target { step, phase, attempt }: Target,
        via: Via,
        message: &Message,
        now: Timestamp,
    ) -> Result<Fate, EngineError> {
        let (instance, plan) = self.loaded(id).expect("the instance was loaded before");
        let outcome = match reply::read(plan, step, phase, instance, message, via) {
            Ok(outcome) => outcome,
            Err(unreadable) => {
                return self.misread(id, Some(step), unreadable.to_string(), Cause::of(message), now);
            }
        };
        let event = (via == Via::Event).then(|| message.event_key(Purpose::Answer));
        let event = Event::Reply { step, phase, attempt, outcome, message_id: message.id.clone(), event };
        self.apply(id, event, Cause::of(message), now)?;
        Ok(Fate::Settled)
    }

    /// Notes on the history of an instance that something came for it which cannot be read, and refuses it.
    pub(crate) fn misread(
        &mut self,
        id: InstanceId,
        step: Option<usize>,
        reason: String,
        cause: Cause,
        now: Timestamp,
    ) -> Result<Fate, EngineError> {
        let event = Event::Misread { step, message_id: cause.message_id.clone(), reason: reason.clone() };
        self.apply(id, event, cause, now)?;
        let about = self.loaded(id).map(|(instance, _)| About {
            saga: instance.saga.clone(),
            business_key: instance.business_key.clone(),
            step: step.and_then(|step| Some(instance.steps.get(step)?.name.clone())),
        });
        Ok(Fate::Refused(reason, about))
    }

    /// Notes that a reply cannot even be decoded, on the history of the instance that its correlation names.
    pub(crate) fn undecoded(
        &mut self,
        correlation_id: Option<&str>,
        reason: &str,
        message_id: Option<String>,
        now: Timestamp,
    ) -> Result<Option<About>, EngineError> {
        let Named::Step(id, Target { step, .. }) = self.correlated(correlation_id)? else { return Ok(None) };
        let cause = Cause { message_id, user: None };
        match self.misread(id, Some(step), reason.to_owned(), cause, now)? {
            Fate::Refused(_, about) => Ok(about),
            Fate::Settled => Ok(None),
        }
    }
}

/// Counts a message that concerns no instance.
fn ignore(what: &'static str) {
    counter!(metric::IGNORED, "what" => what).increment(1);
}
