//! Headers, and the AMQP properties that matter, as schemas.
//!
//! AsyncAPI has no place of its own for properties: they stand among the headers, and say so.

use serde_json::{Map, Value, json};

use super::payload::object;
use crate::saga::id::Phase;
use crate::saga::plan::{Call, Extras, OutcomeKind, Plan, ReplyRule, Step, Users};
use crate::saga::template::Template;

/// The headers of one kind of message.
#[derive(Default)]
struct Headers {
    properties: Map<String, Value>,
    required: Vec<&'static str>,
}

/// Of a command.
pub(super) fn of_command(plan: &Plan, step: &Step, phase: Phase, call: &Call) -> Value {
    let extras = call.extras.as_deref();
    let mut headers = Headers::of_step(plan, step, phase, &call.key);
    headers.must(
        "x-saga-command-id",
        uuid(),
        "The idempotency key: the same over all attempts, redeliveries and restarts.",
    );
    if phase == Phase::Compensation {
        let what = "The command that this one undoes, by its `x-saga-command-id`. It may never have arrived.";
        headers.must("x-saga-compensates", uuid(), what);
    }
    if plan.deadline.is_some() {
        headers.must("x-saga-deadline", time(), "When the time limit of the instance passes.");
    }
    if extras.is_some_and(|extras| extras.kind.is_some()) {
        headers.must(
            "x-saga-key",
            constant(&call.key),
            "The routing key, as the property `type` is another.",
        );
    }
    headers.must("correlation_id", text(), "AMQP property: opaque. The answer repeats it as it is.");
    headers.must("reply_to", text(), "AMQP property: the queue that the answer goes to.");
    with_extras(headers.schema(), extras)
}

/// The same with what the definition says of a message's headers and properties.
pub(super) fn with_extras(mut headers: Value, extras: Option<&Extras>) -> Value {
    let Some(extras) = extras else { return headers };
    let mut may = |name: &str, schema: Value, what: &str| {
        headers["properties"][name] = schema;
        headers["properties"][name]["description"] = what.into();
    };
    for (name, value) in &extras.headers {
        match value {
            Template::Literal(Value::Null) => {}
            Template::Literal(value) => may(name, json!({"const": value}), "Always the same."),
            Template::Expression(of) => {
                may(name, json!({}), &format!("`={of}`. Not there where that is null."))
            }
            Template::Map(_) | Template::List(_) => may(name, json!({}), "Made for each message."),
        }
    }
    if let Some(kind) = &extras.kind {
        may("type", constant(kind), "AMQP property.");
    }
    if let Some(priority) = extras.priority {
        may("priority", json!({"type": "integer", "const": priority}), "AMQP property.");
    }
    if let Some(expires) = extras.expires {
        let millis = expires.as_millis().to_string();
        may("expiration", constant(&millis), "AMQP property: milliseconds that it may wait in a queue.");
    }
    headers
}

/// Of an event that a step emits with the routing key `key`.
pub(super) fn of_event_of(plan: &Plan, step: &Step, key: &str) -> Value {
    Headers::of_step(plan, step, Phase::Action, key).schema()
}

/// Of an event that tells what became of an instance, with the routing key `key`.
pub(super) fn of_notice(plan: &Plan, key: &str) -> Value {
    Headers::of_the_orchestrator(plan, key).schema()
}

/// Of the event that tells that an instance is compensated.
pub(super) fn of_compensated(plan: &Plan, key: &str) -> Value {
    let mut headers = Headers::of_the_orchestrator(plan, key);
    let what = "The steps that may have taken effect and were not undone, because a person said so, with commas \
                between them. Not there where there are none.";
    headers.may("x-saga-not-undone", text(), what);
    headers.schema()
}

/// Of a reply whose header says its outcome.
pub(super) fn of_reply(outcome: OutcomeKind, from: &Users) -> Value {
    let mut headers = Headers::default();
    let (word, meaning) = match outcome {
        OutcomeKind::Success => ("success", "Done."),
        OutcomeKind::Failure => ("failure", "Refused for good, and nothing was done."),
        OutcomeKind::Retry => ("retry", "Not now: the next attempt follows."),
        OutcomeKind::Pending => ("pending", "Still working: the timeout starts anew."),
    };
    headers.must("x-saga-outcome", constant(word), meaning);
    headers.tells_why(&[outcome]);
    headers.answers(from);
    headers.schema()
}

/// Of a reply whose outcome these rules tell; expressions read those in `read`.
pub(super) fn of_read_reply(read: Map<String, Value>, rules: &[&ReplyRule], from: &Users) -> Value {
    let mut headers = Headers { properties: read, required: Vec::new() };
    headers.tells_why(&outcomes(rules));
    headers.answers(from);
    headers.schema()
}

/// Of an event that starts or cancels; expressions read those in `read`.
pub(super) fn of_event(read: Map<String, Value>, from: &Users) -> Value {
    let mut headers = Headers { properties: read, required: Vec::new() };
    headers.may("message_id", text(), "AMQP property: id of the event, where its body has none.");
    headers.trace("Trace context; every message of the instance carries it on.");
    headers.is_from(from);
    headers.schema()
}

/// Of an event that is waited for; expressions read those in `read`.
pub(super) fn of_awaited(read: Map<String, Value>, from: &Users) -> Value {
    let mut headers = Headers { properties: read, required: Vec::new() };
    headers.may("message_id", text(), "AMQP property: id of the event, where its body has none.");
    headers.names_a_command("a command of the instance that it is for, in place of a business key");
    headers.is_from(from);
    headers.schema()
}

/// Of an event that answers a command by these rules; expressions read those in `read`.
pub(super) fn of_answer(read: Map<String, Value>, rules: &[&ReplyRule], from: &Users) -> Value {
    let mut headers = Headers { properties: read, required: Vec::new() };
    headers.may("message_id", text(), "AMQP property: id of the event, where its body has none.");
    headers.tells_why(&outcomes(rules));
    headers.names_a_command("the command that is answered");
    headers.is_from(from);
    headers.schema()
}

fn outcomes(rules: &[&ReplyRule]) -> Vec<OutcomeKind> {
    rules.iter().map(|rule| rule.outcome).collect()
}

impl Headers {
    /// What every message of the orchestrator has.
    fn of_the_orchestrator(plan: &Plan, key: &str) -> Self {
        let mut headers = Self::default();
        headers.must("x-saga-id", uuid(), "The instance.");
        headers.must("x-saga-name", constant(&plan.saga), "Name of the saga.");
        headers.must("x-saga-version", constant(&plan.version.to_string()), "Version of the definition.");
        headers.trace("Trace context of the start event, if it had one.");
        headers.must("message_id", uuid(), "AMQP property. A copy of the same message has the same id.");
        headers.must("type", constant(key), "AMQP property: the routing key.");
        headers.must("app_id", constant("sagamq"), "AMQP property: the sender.");
        headers.must(
            "timestamp",
            json!({"type": "integer"}),
            "AMQP property: when it was decided, in seconds since 1970.",
        );
        headers
    }

    /// What every message of a step has.
    fn of_step(plan: &Plan, step: &Step, phase: Phase, key: &str) -> Self {
        let mut headers = Self::of_the_orchestrator(plan, key);
        headers.must("x-saga-step", constant(&step.name), "Name of the step.");
        headers.must("x-saga-phase", constant(phase.as_str()), "Whether the step is done or undone.");
        let number = json!({"type": "string", "pattern": "^[1-9][0-9]*$"});
        headers.must("x-saga-attempt", number, "Which sending it is, from 1.");
        headers
    }

    /// What an answer says of a failure, where one of these may be its outcome.
    fn tells_why(&mut self, outcomes: &[OutcomeKind]) {
        if outcomes.iter().any(|outcome| matches!(outcome, OutcomeKind::Failure | OutcomeKind::Retry)) {
            let code = json!({"type": ["string", "number"]});
            self.may("x-saga-error-code", code, "Why, for programs, such as `OUT_OF_STOCK`.");
            self.may("x-saga-error-message", text(), "Why, for people; up to 1000 characters are kept.");
        }
        if outcomes.contains(&OutcomeKind::Retry) {
            self.may(
                "x-saga-retry-after",
                json!({"type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+$"}),
                "Milliseconds until the next attempt, at most 24 hours, in place of the policy's delay.",
            );
        }
    }

    /// What brings a reply to its command.
    fn answers(&mut self, from: &Users) {
        let what = "AMQP property: that of the command that is answered, as it is.";
        self.must("correlation_id", text(), what);
        self.is_from(from);
    }

    fn names_a_command(&mut self, which: &str) {
        self.may("correlation_id", text(), &format!("AMQP property: that of {which}."));
        let what = format!("That of {which}; with `x-saga-command-id` it stands for `correlation_id`.");
        self.may("x-saga-id", text(), &what);
        self.may("x-saga-command-id", text(), &format!("That of {which}."));
    }

    /// Whose messages count, if not everybody's.
    fn is_from(&mut self, Users(names): &Users) {
        if !names.is_empty() {
            let what =
                "AMQP property: the user of the broker that the sender is. Those of others do not count.";
            self.must("user_id", json!({"type": "string", "enum": names}), what);
        }
    }

    fn trace(&mut self, what: &str) {
        self.may("traceparent", text(), what);
        self.may("tracestate", text(), what);
    }

    fn must(&mut self, name: &'static str, schema: Value, description: &str) {
        self.required.push(name);
        self.may(name, schema, description);
    }

    fn may(&mut self, name: &str, mut schema: Value, description: &str) {
        schema["description"] = description.into();
        self.properties.insert(name.to_owned(), schema);
    }

    fn schema(self) -> Value {
        object(self.properties, self.required)
    }
}

fn text() -> Value {
    json!({"type": "string"})
}

fn uuid() -> Value {
    json!({"type": "string", "format": "uuid"})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

fn constant(value: &str) -> Value {
    json!({"type": "string", "const": value})
}
