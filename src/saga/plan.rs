//! A plan: a definition, checked and compiled to a graph of steps.
//!
//! Steps stand in topological order, each with the steps that it requires. A written sequence is a
//! chain, and compensation walks the same graph backwards.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;

use super::exchange::{Exchange, ExchangeKind, Matching};
use super::expression::{Expression, Template};
use super::id::Phase;
use super::message::{Message, participant};
use super::retry::RetryPolicy;

/// A compiled definition. Immutable; instances share it.
#[derive(Debug)]
pub struct Plan {
    /// Name of the saga.
    pub saga: String,
    /// Version of the definition.
    pub version: u32,
    /// Hash of the definition's content.
    pub hash: DefinitionHash,
    /// The exchanges that the definition says something of.
    pub described: Vec<Exchange>,
    /// What starts an instance; `None` where only other sagas call it.
    pub start: Option<Start>,
    /// Searchable values, by name.
    pub attributes: Vec<(String, Expression)>,
    /// Time limit of a whole instance.
    pub deadline: Option<Deadline>,
    /// What cancels an instance.
    pub cancel: Option<Cancel>,
    /// The graph.
    pub steps: Vec<Step>,
    /// What a saga that calls this one gets.
    pub output: Option<Template>,
    /// Event to emit when an instance is completed.
    pub on_completed: Option<Emission>,
    /// Event to emit when an instance is compensated.
    pub on_compensated: Option<Emission>,
    /// Event to emit when an instance is parked.
    pub on_parked: Option<Emission>,
    /// Event to emit when a cancellation is refused.
    pub on_cancel_refused: Option<Emission>,
}

/// SHA-256 of a definition's canonical form, in hexadecimal. Comments and layout do not count.
pub type DefinitionHash = String;

/// What starts an instance.
#[derive(Debug)]
pub struct Start {
    /// Which events.
    pub on: Subscription,
    /// Names the instance.
    pub business_key: Expression,
    /// What the instance keeps of the event.
    pub input: Template,
    /// Whose events count.
    pub from_user: Users,
}

/// What cancels an instance.
#[derive(Debug)]
pub struct Cancel {
    /// Which events.
    pub on: Subscription,
    /// Names the instance.
    pub business_key: Expression,
    /// Whose events count.
    pub from_user: Users,
}

/// Users of the broker, of whom alone messages count; if there are none, everybody's do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users(pub Vec<String>);

/// An exchange, and which of its messages are meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subscription {
    /// Name of the exchange.
    pub exchange: String,
    /// `*` stands for one word, `#` for any number of words. A key where the exchange is direct, and empty where
    /// it does not go by keys.
    pub pattern: String,
    /// What the binding lets through.
    pub matching: Matching,
}

/// Time limit of a whole instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deadline {
    /// Counted from the start.
    pub after: Duration,
    /// What happens when it has passed before the pivot.
    pub then: AtDeadline,
}

/// What happens at a deadline before the pivot. After the pivot it only alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtDeadline {
    /// Undo what was done.
    Compensate,
    /// Wait for a person.
    Park,
}

/// A node of the graph.
#[derive(Debug)]
pub struct Step {
    /// Name, unique in the saga.
    pub name: String,
    /// Before, at or after the point of no return.
    pub kind: Kind,
    /// Indices of the steps that must be settled before this one; all are smaller than its own.
    pub requires: Vec<usize>,
    /// If it is there and false, the step is skipped.
    pub when: Option<Expression>,
    /// What is done.
    pub work: Work,
    /// What to do when an attempt is not answered in time, or no event comes in time.
    pub on_timeout: OnTimeout,
    /// What the step keeps of its reply, or of the event that it waited for.
    pub output: Option<Template>,
    /// What undoes the step; `None` where nothing has to be undone.
    pub compensation: Option<Call>,
    /// How many commands that do it may be out, over all instances.
    pub limit: Option<Limit>,
    /// Whose answers and events count.
    pub from_user: Users,
}

/// How many commands that do a step may be out, over all instances of a saga. Undoing is not limited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// So many may be unanswered.
    pub in_flight: Option<u32>,
    /// So many are sent a second.
    pub per_second: Option<f64>,
}

/// What is done at a node of the graph.
#[derive(Debug)]
pub enum Work {
    /// A participant is asked, and answers.
    Command(Call),
    /// An event is awaited.
    Wait(Wait),
    /// Time passes.
    Delay(Delay),
    /// An event is emitted. Nobody answers it.
    Emit(Emission),
    /// Another saga is called, and its end awaited. What undoes it is its own way back.
    Saga(SubSaga),
    /// Steps are done for each item of a list, as an instance of their own for each.
    Each(Each),
}

/// Steps that are done for each item of a list.
#[derive(Debug)]
pub struct Each {
    /// The list.
    pub items: Expression,
    /// Longest list.
    pub max_items: usize,
    /// What the input of an item's instance calls the item.
    pub name: String,
    /// What else its input holds, by name.
    pub with: Vec<(String, Template)>,
    /// Items under way at a time.
    pub max_in_flight: usize,
    /// The steps. Its saga is called `<saga>.<step>`.
    pub body: Arc<Plan>,
}

/// A saga that is called.
#[derive(Debug)]
pub struct SubSaga {
    /// Its name; the version that is in force then is called.
    pub saga: String,
    /// Its input.
    pub input: Template,
}

/// An event that is awaited. It may have come before the step has its turn.
#[derive(Debug)]
pub struct Wait {
    /// Which events, and what each means; the first match wins.
    pub events: Vec<ReplyRule>,
    /// How long it is awaited, counted from the step's turn.
    pub timeout: Duration,
}

impl Wait {
    /// Whether an event may mean this.
    pub fn has(&self, outcome: OutcomeKind) -> bool {
        self.events.iter().any(|event| event.outcome == outcome)
    }
}

/// How long time passes.
#[derive(Debug)]
pub enum Delay {
    /// So long, counted from the step's turn.
    For(Duration),
    /// Up to a time that the instance knows, as RFC 3339 text.
    Until(Expression),
}

/// Where a step stands relative to the point of no return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Can be undone.
    Compensatable,
    /// Once it has succeeded there is no way back.
    Pivot,
    /// After the pivot: forward only.
    Retriable,
}

/// A command and how its answer is awaited.
#[derive(Debug)]
pub struct Call {
    /// Exchange to publish to.
    pub exchange: Arc<str>,
    /// Routing key.
    pub key: Arc<str>,
    /// Body.
    pub body: Template,
    /// What it carries beside its body, where the definition says so.
    pub extras: Option<Box<Extras>>,
    /// Rules that read an outcome from a message without an `x-saga-outcome` header; the first
    /// match wins.
    pub replies: Vec<ReplyRule>,
    /// How long one attempt may stay unanswered, counted from its publication.
    pub timeout: Duration,
    /// How often and when to send again.
    pub retry: RetryPolicy,
}

/// Reads an outcome from a message without an outcome header.
#[derive(Debug)]
pub struct ReplyRule {
    /// Which events; `None` for a reply to the reply queue.
    pub on: Option<Subscription>,
    /// Must be true for the rule to match.
    pub when: Option<Expression>,
    /// Finds the instance; `None` means the start's own expression.
    pub business_key: Option<Expression>,
    /// What the message means.
    pub outcome: OutcomeKind,
    /// Error code of an outcome that is not a success.
    pub error: Option<String>,
}

/// What a reply says, without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// It is done.
    Success,
    /// It is refused for good.
    Failure,
    /// It failed for now.
    Retry,
    /// It is still being worked on.
    Pending,
}

/// What to do when an attempt of an action is not answered in time, or an event does not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// Send the next attempt.
    Retry,
    /// Go on without the event.
    Continue,
    /// Give the step up, and compensate it too.
    Compensate,
    /// Wait for a person.
    Park,
}

/// An event that sagamq emits of its own.
#[derive(Debug)]
pub struct Emission {
    /// Exchange to publish to.
    pub exchange: Arc<str>,
    /// Routing key.
    pub key: Arc<str>,
    /// Body.
    pub body: Template,
    /// What it carries beside its body, where the definition says so.
    pub extras: Option<Box<Extras>>,
}

/// What a message carries beside its body and what every message carries.
#[derive(Debug)]
pub struct Extras {
    /// Headers, by name.
    pub headers: Vec<(Arc<str>, Template)>,
    /// Priority in a queue.
    pub priority: Option<u8>,
    /// How long it may wait in a queue.
    pub expires: Option<Duration>,
    /// Property `content_type`.
    pub content_type: Option<Arc<str>>,
    /// Property `type`.
    pub kind: Option<Arc<str>>,
}

impl Users {
    /// Why a message does not count, if it does not. The broker vouches for the user that a message names.
    pub fn refusal(&self, message: &Message) -> Option<String> {
        if self.0.is_empty() || message.user.as_ref().is_some_and(|user| self.0.contains(user)) {
            return None;
        }
        let wanted = self.0.iter().map(|user| format!("{user:?}")).collect::<Vec<_>>().join(" or ");
        Some(match &message.user {
            Some(user) => format!("it comes from user {user:?}, and counts only from {wanted}"),
            None => {
                format!("it has no user_id, and counts only from {wanted}: have the sender set that property")
            }
        })
    }

    /// One of them.
    pub fn any(&self) -> Option<String> {
        self.0.first().cloned()
    }
}

impl Plan {
    /// A user from whom a message counts, where it matters who sends it.
    pub fn user_for(&self, message: &Message) -> Option<String> {
        let start = self.start.iter().map(|start| (&start.on, &start.from_user));
        let cancel = self.cancel.iter().map(|cancel| (&cancel.on, &cancel.from_user));
        let steps = self.listeners().flat_map(|(step, _, rules)| {
            rules.iter().filter_map(move |rule| Some((rule.on.as_ref()?, &self.steps[step].from_user)))
        });
        let mut listening = start.chain(cancel).chain(steps).filter(|(on, _)| on.hears(message));
        listening.find_map(|(_, users)| users.any())
    }

    /// Whether an event starts an instance.
    pub fn starts_on(&self, event: &Message) -> bool {
        self.start.as_ref().is_some_and(|start| start.on.hears(event))
    }

    /// Every pattern that the event queue must be bound to, without repeats.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        let start = self.start.iter().map(|start| start.on.clone());
        let mut all: Vec<_> = start
            .chain(self.listens().cloned())
            .chain(self.bodies().flat_map(|body| body.subscriptions()))
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// What concerns instances that there are: cancellations, answers, and events that are waited for.
    pub fn listens(&self) -> impl Iterator<Item = &Subscription> {
        let rules = self.listeners().flat_map(|(_, _, rules)| rules);
        let cancel = self.cancel.iter().map(|cancel| &cancel.on);
        cancel.chain(rules.filter_map(|rule| rule.on.as_ref()))
    }

    /// Every exchange that the saga publishes to or listens on, without repeats.
    pub fn exchanges(&self) -> Vec<String> {
        let calls = self.steps.iter().flat_map(|step| Phase::BOTH.map(|phase| step.call(phase)));
        let mut all: Vec<_> = calls
            .flatten()
            .map(|call| call.exchange.to_string())
            .chain(self.emissions().map(|emission| emission.exchange.to_string()))
            .chain(self.subscriptions().into_iter().map(|on| on.exchange))
            .chain(self.bodies().flat_map(|body| body.exchanges()))
            .filter(|exchange| !exchange.is_empty())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// How an exchange hands messages on, as far as the definition says.
    pub fn kind_of(&self, exchange: &str) -> ExchangeKind {
        self.described.iter().find(|of| of.name == exchange).map(|of| of.kind).unwrap_or_default()
    }

    /// Every event that is emitted, by steps and at the ends.
    pub fn emissions(&self) -> impl Iterator<Item = &Emission> {
        let notices = [&self.on_completed, &self.on_compensated, &self.on_parked, &self.on_cancel_refused];
        self.steps.iter().filter_map(Step::emission).chain(notices.into_iter().flatten())
    }

    /// The plans of the steps that are done for each item of a list.
    pub fn bodies(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.steps.iter().filter_map(|step| match &step.work {
            Work::Each(each) => Some(&each.body),
            _ => None,
        })
    }

    /// Whether it is what is done for an item of a list. Its hash is that of the definition that it stands in, a
    /// dot, and the name of the step.
    pub fn is_body(&self) -> bool {
        self.hash.contains('.')
    }

    /// The plan, and those of all bodies in it, however deep.
    pub fn family(plan: &Arc<Plan>) -> Vec<Arc<Plan>> {
        let within = plan.bodies().flat_map(Plan::family);
        [Arc::clone(plan)].into_iter().chain(within).collect()
    }

    /// All that is evaluated once there is an instance of it, without what stands in bodies.
    pub fn later_expressions(&self) -> impl Iterator<Item = &Expression> {
        let attributes = self.attributes.iter().map(|(_, from)| from);
        let conditions = self.steps.iter().filter_map(|step| step.when.as_ref());
        let rules = self.listeners().flat_map(|(_, _, rules)| rules).filter_map(|rule| rule.when.as_ref());
        let of_work = self.steps.iter().filter_map(|step| match &step.work {
            Work::Delay(Delay::Until(until)) => Some(until),
            Work::Each(each) => Some(&each.items),
            _ => None,
        });
        let inputs = self.steps.iter().flat_map(|step| match &step.work {
            Work::Saga(called) => vec![&called.input],
            Work::Each(each) => each.with.iter().map(|(_, template)| template).collect(),
            _ => Vec::new(),
        });
        let calls = self.steps.iter().flat_map(|step| Phase::BOTH.map(|phase| step.call(phase))).flatten();
        let bodies = calls.map(|call| (&call.body, &call.extras));
        let bodies = bodies.chain(self.emissions().map(|emission| (&emission.body, &emission.extras)));
        let bodies = bodies.flat_map(|(body, extras)| {
            let headers = extras.iter().flat_map(|extras| &extras.headers).map(|(_, value)| value);
            [body].into_iter().chain(headers)
        });
        let templates = bodies
            .chain(inputs)
            .chain(&self.output)
            .chain(self.steps.iter().filter_map(|step| step.output.as_ref()));
        let in_templates = templates.flat_map(Template::expressions);
        attributes.chain(conditions).chain(rules).chain(of_work).chain(in_templates)
    }

    /// Whether there is a point of no return.
    pub fn has_pivot(&self) -> bool {
        self.steps.iter().any(|step| step.kind == Kind::Pivot)
    }

    /// Whether commands of a step await their turn.
    pub fn is_limited(&self) -> bool {
        self.steps.iter().any(|step| step.limit.is_some())
    }

    /// Every doing and undoing of a step, with the rules by which it takes messages for answers.
    pub fn listeners(&self) -> impl Iterator<Item = (usize, Phase, &[ReplyRule])> {
        let steps = self.steps.iter().enumerate();
        steps.flat_map(|(index, step)| Phase::BOTH.map(|phase| (index, phase, step.rules(phase))))
    }
}

impl Call {
    /// Whoever gets it, by the name of the exchange, or of the queue where it is sent straight to one.
    pub fn participant(&self) -> &str {
        participant(&self.exchange, &self.key)
    }
}

impl Emission {
    /// Whoever gets it, as with [`Call::participant`].
    pub fn participant(&self) -> &str {
        participant(&self.exchange, &self.key)
    }
}

impl Step {
    /// Whether something undoes it.
    pub fn is_undoable(&self) -> bool {
        self.compensation.is_some()
            || (matches!(self.work, Work::Saga(_) | Work::Each(_)) && self.kind == Kind::Compensatable)
    }

    /// The command that does or undoes it, if a command does.
    pub fn call(&self, phase: Phase) -> Option<&Call> {
        match (phase, &self.work) {
            (Phase::Action, Work::Command(call)) => Some(call),
            (Phase::Action, _) => None,
            (Phase::Compensation, _) => self.compensation.as_ref(),
        }
    }

    /// The event that it emits, if it is one that does.
    pub fn emission(&self) -> Option<&Emission> {
        match &self.work {
            Work::Emit(emission) => Some(emission),
            _ => None,
        }
    }

    /// The rules by which it takes messages for answers.
    pub fn rules(&self, phase: Phase) -> &[ReplyRule] {
        match (phase, &self.work) {
            (Phase::Action, Work::Wait(wait)) => &wait.events,
            _ => self.call(phase).map_or(&[], |call| &call.replies),
        }
    }
}

impl Subscription {
    /// Of a topic exchange.
    pub fn topic(exchange: impl Into<String>, pattern: impl Into<String>) -> Self {
        Self { exchange: exchange.into(), pattern: pattern.into(), matching: Matching::Pattern }
    }

    /// Whether a message is meant.
    pub fn hears(&self, message: &Message) -> bool {
        self.exchange == message.exchange && self.lets_through(message)
    }

    /// Whether a message may be meant that was published to `exchange` with `key`: of the headers nothing is known.
    pub fn matches(&self, exchange: &str, key: &str) -> bool {
        let by_key = match &self.matching {
            Matching::Headers { .. } => true,
            matching => matching.lets_through(&self.pattern, key, &Map::new()),
        };
        self.exchange == exchange && by_key
    }

    /// Whether its binding lets a message through that is at its exchange, wherever it was published.
    pub fn lets_through(&self, message: &Message) -> bool {
        self.matching.lets_through(&self.pattern, &message.key, &message.headers)
    }

    /// Whether it means every message that another one means. That is not told of a few pairs of patterns in which
    /// `#` stands beside `*`.
    pub fn covers(&self, other: &Self) -> bool {
        self.exchange == other.exchange
            && self.matching.covers(&self.pattern, &other.matching, &other.pattern)
    }
}
