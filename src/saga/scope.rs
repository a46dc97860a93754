//! What an expression may see, and how a path is looked up in it.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::fact::Failure;
use super::instance::{Instance, StepState};
use super::message::Message;

/// The names that expressions may begin with.
pub const ROOTS: [&str; 5] = ["event", "input", "steps", "saga", "reply"];
/// The fields of `event` and `reply`.
pub const MESSAGE_FIELDS: [&str; 10] =
    ["id", "type", "source", "time", "data", "metadata", "headers", "exchange", "key", "user"];
/// The fields of a step under `steps`.
pub const STEP_FIELDS: [&str; 3] = ["output", "status", "error"];
/// The fields of an `error` of a step or of the saga.
pub const FAILURE_FIELDS: [&str; 3] = ["step", "code", "message"];
/// The fields of `saga`, those first that never change.
pub const SAGA_FIELDS: [&str; 8] =
    ["id", "name", "version", "business_key", "started_at", "status", "error", "not_undone"];

/// How many of [`SAGA_FIELDS`] never change, and so may stand in every command.
pub const LASTING_SAGA_FIELDS: usize = 5;

/// What an expression may see; what is `None` is not available where it is evaluated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// `event`: the event that starts or cancels an instance.
    pub event: Option<&'a Message>,
    /// `input`; where it is `None`, the instance's own.
    pub input: Option<&'a Value>,
    /// `saga` and `steps`.
    pub instance: Option<&'a Instance>,
    /// `reply`: the reply, or the event that counts as one.
    pub reply: Option<&'a Message>,
    /// Whether `saga.error` is also why the instance is parked: so in the body of a notice.
    pub in_notice: bool,
}

/// What is found at a path.
#[derive(Debug, PartialEq)]
pub(super) enum Found<'a> {
    /// A value.
    Value(Cow<'a, Value>),
    /// The path goes on behind a null, where everything is null.
    BehindNull,
    /// There is no such field.
    Missing {
        /// Index of the segment that is not there.
        at: usize,
        /// What stands before it, if that cannot have fields at all.
        parent: Option<&'static str>,
    },
    /// The first name means nothing where the expression is evaluated.
    Unavailable,
}

impl<'a> Scope<'a> {
    /// What expressions about an instance see.
    pub fn of(instance: &'a Instance) -> Self {
        Self { instance: Some(instance), ..Self::default() }
    }

    /// What the body of a notice sees.
    pub fn of_notice(instance: &'a Instance) -> Self {
        Self { in_notice: true, ..Self::of(instance) }
    }

    /// Looks a path up without copying what is already JSON.
    pub(super) fn find(&self, path: &[String]) -> Found<'a> {
        let input = self.input.or_else(|| self.instance.map(|instance| &*instance.input));
        let found = match path.first().map(String::as_str) {
            Some("event") => self.event.map(|event| message(event, path)),
            Some("reply") => self.reply.map(|reply| message(reply, path)),
            Some("input") => input.map(|input| descend(input, path, 1)),
            Some("saga") => self.instance.map(|instance| self.saga(instance, path)),
            Some("steps") => self.instance.map(|instance| steps(instance, path)),
            _ => None,
        };
        found.unwrap_or(Found::Unavailable)
    }

    fn saga(&self, instance: &Instance, path: &[String]) -> Found<'a> {
        let error = if self.in_notice { instance.reason() } else { instance.error.as_ref() };
        let field = |name: &str| {
            Some(match name {
                "id" => Value::from(instance.id.to_string()),
                "name" => Value::from(instance.saga.as_str()),
                "version" => Value::from(instance.version),
                "business_key" => Value::from(instance.business_key.as_str()),
                "started_at" => Value::from(instance.started_at.to_string()),
                "status" => Value::from(instance.status.as_str()),
                "error" => failure(error),
                "not_undone" => instance.not_undone().collect(),
                _ => return None,
            })
        };
        made(&SAGA_FIELDS, field, path, 1)
    }
}

fn steps<'a>(instance: &'a Instance, path: &[String]) -> Found<'a> {
    let Some(name) = path.get(1) else {
        let all = instance.steps.iter().map(|step| (step.name.clone(), whole_step(step)));
        return Found::Value(Cow::Owned(Value::Object(all.collect())));
    };
    let Some(step) = instance.steps.iter().find(|step| step.name == *name) else {
        return Found::Missing { at: 1, parent: None };
    };
    match (path.get(2).map(String::as_str), &step.output) {
        (Some("output"), Some(output)) => descend(output, path, 3),
        _ => made(&STEP_FIELDS, |name| step_field(step, name), path, 2),
    }
}

fn whole_step(step: &StepState) -> Value {
    object(&STEP_FIELDS, |name| step_field(step, name))
}

fn step_field(step: &StepState, name: &str) -> Option<Value> {
    Some(match name {
        "output" => step.output.as_deref().cloned().unwrap_or(Value::Null),
        "status" => Value::from(step.status.as_str()),
        "error" => failure(step.error.as_ref()),
        _ => return None,
    })
}

fn message<'a>(message: &'a Message, path: &[String]) -> Found<'a> {
    match (path.get(1).map(String::as_str), path.get(2)) {
        (Some("data"), _) => descend(&message.data, path, 2),
        (Some("metadata"), _) => descend(&message.metadata, path, 2),
        (Some("headers"), Some(name)) => match message.headers.get(name) {
            Some(value) => descend(value, path, 3),
            None => Found::Missing { at: 2, parent: None },
        },
        _ => made(&MESSAGE_FIELDS, |name| message_field(message, name), path, 1),
    }
}

fn message_field(message: &Message, name: &str) -> Option<Value> {
    let optional = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
    Some(match name {
        "id" => optional(&message.id),
        "type" => optional(&message.kind),
        "source" => optional(&message.source),
        "time" => optional(&message.time),
        "data" => message.data.clone(),
        "metadata" => message.metadata.clone(),
        "headers" => Value::Object(message.headers.clone()),
        "exchange" => Value::from(message.exchange.as_str()),
        "key" => Value::from(message.key.as_str()),
        "user" => optional(&message.user),
        _ => return None,
    })
}

/// Follows `path` from its segment `from` down into `value`.
fn descend<'a>(mut value: &'a Value, path: &[String], from: usize) -> Found<'a> {
    for (at, segment) in path.iter().enumerate().skip(from) {
        value = match value {
            Value::Object(fields) => match fields.get(segment) {
                Some(field) => field,
                None => return Found::Missing { at, parent: None },
            },
            Value::Null => return Found::BehindNull,
            other => return Found::Missing { at, parent: Some(type_name(other)) },
        };
    }
    Found::Value(Cow::Borrowed(value))
}

/// Follows `path` from its segment `from` into an object that is not JSON yet: only the field that
/// is named is made.
fn made<'a>(
    fields: &[&str],
    field: impl Fn(&str) -> Option<Value>,
    path: &[String],
    from: usize,
) -> Found<'a> {
    let Some(name) = path.get(from) else {
        return Found::Value(Cow::Owned(object(fields, field)));
    };
    let Some(value) = field(name) else {
        return Found::Missing { at: from, parent: None };
    };
    match descend(&value, path, from + 1) {
        Found::Value(value) => Found::Value(Cow::Owned(value.into_owned())),
        Found::BehindNull => Found::BehindNull,
        Found::Missing { at, parent } => Found::Missing { at, parent },
        Found::Unavailable => Found::Unavailable,
    }
}

fn object(fields: &[&str], field: impl Fn(&str) -> Option<Value>) -> Value {
    let made = fields.iter().map(|name| ((*name).to_owned(), field(name).unwrap_or(Value::Null)));
    Value::Object(made.collect::<Map<_, _>>())
}

fn failure(failure: Option<&Failure>) -> Value {
    failure.map_or(
        Value::Null,
        |failure| json!({"step": failure.step, "code": failure.code, "message": failure.message}),
    )
}

/// What people call the type of a JSON value, with its article.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::expression::Expression;
    use crate::saga::fact::Started;
    use crate::saga::id::InstanceId;
    use crate::saga::instance::{Status, StepStatus};
    use crate::saga::time::Timestamp;

    fn instance() -> Instance {
        let started = Started {
            store: Default::default(),
            saga: "order".to_owned(),
            version: 2,
            definition: String::new(),
            business_key: "A-1".to_owned(),
            steps: vec!["reserve".to_owned(), "ship".to_owned()],
            input: json!({"total": 5}).into(),
            attributes: Default::default(),
            deadline: None,
            event_id: None,
            caller: None,
            trace: None,
        };
        let mut instance = Instance::begin(InstanceId::new("order", "A-1"), &started, Timestamp(0));
        instance.status = Status::Compensating;
        instance.error = Some(Failure { step: None, code: "LATE".to_owned(), message: "m".to_owned() });
        instance.steps[0].output = Some(json!({"id": 7}).into());
        instance.steps[1].status = StepStatus::Unknown;
        instance
    }

    #[test]
    fn an_instance_is_seen_as_the_language_says() {
        let instance = instance();
        for (path, value) in [
            ("input.total", json!(5)),
            ("saga.version", json!(2)),
            ("saga.started_at", json!("1970-01-01T00:00:00.000Z")),
            ("saga.status", json!("compensating")),
            ("saga.error", json!({"step": null, "code": "LATE", "message": "m"})),
            ("steps.reserve.output.id", json!(7)),
            ("steps.ship.output.id", json!(null)),
            ("steps.ship", json!({"output": null, "status": "unknown", "error": null})),
            ("steps.ship.error.code", json!(null)),
        ] {
            let expression = Expression::compile(path).unwrap();
            assert_eq!(expression.evaluate(&Scope::of(&instance)), Ok(value), "{path}");
        }
        let parked = Failure { step: None, code: "SILENT".to_owned(), message: "m".to_owned() };
        let instance = Instance { status: Status::Parked, parked: Some(parked), ..instance };
        let why = Expression::compile("saga.status + ': ' + saga.error.code").unwrap();
        assert_eq!(why.evaluate(&Scope::of_notice(&instance)), Ok(json!("parked: SILENT")));
        assert_eq!(why.evaluate(&Scope::of(&instance)), Ok(json!("parked: LATE")));
    }
}
