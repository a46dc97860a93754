//! Operations: what a participant receives and sends, with the message of each.

use serde_json::{Value, json};

use super::channel::BINDING;
use super::header;
use super::payload::{Kind, Read, made, origin};
use crate::depict::english;
use crate::depict::words::{heard, patience, title};
use crate::saga::exchange::ExchangeKind;
use crate::saga::id::Phase;
use crate::saga::plan::{
    Call, Emission, Extras, OutcomeKind, Plan, ReplyRule, Start, Step, Subscription, Users,
};
use crate::saga::template::Template;

/// One message that a participant receives or sends.
pub(super) struct Operation {
    /// Of the operation and of its message.
    pub(super) id: String,
    pub(super) participant: String,
    pub(super) action: Action,
    pub(super) exchange: String,
    pub(super) kind: ExchangeKind,
    /// A routing key, or a pattern.
    pub(super) key: String,
    pub(super) summary: String,
    pub(super) message: Value,
    /// What answers a command, at the queue in `reply_to`.
    pub(super) replies: Vec<Reply>,
}

/// A reply; those that read the same for all commands share their id.
pub(super) struct Reply {
    pub(super) id: String,
    pub(super) message: Value,
}

/// What the participant does.
#[derive(Clone, Copy)]
pub(super) enum Action {
    Receive,
    Send,
}

impl Action {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Action::Receive => "receive",
            Action::Send => "send",
        }
    }
}

/// All that is exchanged for a saga, in the order in which it is.
pub(super) fn operations(plan: &Plan) -> Vec<Operation> {
    let mut operations: Vec<_> = plan.start.iter().map(|of| start(plan, of)).collect();
    operations.extend(cancel(plan));
    for step in &plan.steps {
        operations.extend(Phase::BOTH.into_iter().flat_map(|phase| of_step(plan, step, phase)));
    }
    operations.extend(plan.bodies().flat_map(|body| self::operations(body)));
    operations.extend(notices(plan));
    operations
}

fn start(plan: &Plan, start: &Start) -> Operation {
    let mut read = Read::default();
    read.expression(&start.business_key, "event", Kind::Key);
    for expression in start.input.expressions() {
        read.expression(expression, "event", Kind::Required);
    }
    for (_, attribute) in &plan.attributes {
        read.expression(attribute, "event", Kind::Optional);
    }
    for expression in plan.later_expressions() {
        for path in expression.references().iter().filter(|path| path[0] == "input") {
            if let Some(from) = origin(&start.input, &path[1..]) {
                read.path(&from, expression, Kind::Optional);
            }
        }
    }
    let summary = format!("Starts an instance of {}.", title(plan));
    let headers = header::of_event(read.headers(), &start.from_user);
    Operation { id: id(plan, "start"), ..event(&start.on, summary, headers, &read) }
}

fn cancel(plan: &Plan) -> Option<Operation> {
    let cancel = plan.cancel.as_ref()?;
    let mut read = Read::default();
    read.expression(&cancel.business_key, "event", Kind::Key);
    let summary = format!("Cancels an instance of {}.", title(plan));
    let headers = header::of_event(read.headers(), &cancel.from_user);
    Some(Operation { id: id(plan, "cancel"), ..event(&cancel.on, summary, headers, &read) })
}

/// What is sent to do or undo a step, and the events that the step listens to.
fn of_step(plan: &Plan, step: &Step, phase: Phase) -> Vec<Operation> {
    let id = id(plan, &format!("{}.{}", step.name, phase.as_str()));
    let mut operations = Vec::new();
    if let Some(call) = step.call(phase) {
        operations.push(command(plan, step, phase, call, &id));
    }
    if let (Phase::Action, Some(emission)) = (phase, step.emission()) {
        let summary = format!("Told by step {} of {}.", step.name, title(plan));
        let headers = header::of_event_of(plan, step, &emission.key);
        operations.push(emitted(plan, &id, emission, summary, headers));
    }
    let mut listened: Vec<&Subscription> = Vec::new();
    for on in step.rules(phase).iter().filter_map(|rule| rule.on.as_ref()) {
        if !listened.contains(&on) {
            listened.push(on);
        }
    }
    let answers = listened.into_iter().zip(1..);
    operations.extend(answers.map(|(on, number)| Operation {
        id: format!("{id}.event_{number}"),
        ..answer(plan, step, phase, on)
    }));
    operations
}

fn command(plan: &Plan, step: &Step, phase: Phase, call: &Call, id: &str) -> Operation {
    let verb = if phase == Phase::Action { "do" } else { "undo" };
    let summary = format!("Asks to {verb} step {} of {}.", step.name, title(plan));
    let kind = kind(&call.key, call.extras.as_deref());
    let headers = header::of_command(plan, step, phase, call);
    let mut message = sent(kind, &summary, headers, made(&call.body), call.extras.as_deref());
    message["description"] = format!("Awaits an answer for {}.", patience(call)).into();
    message["correlationId"] = correlation_id();
    Operation {
        id: id.to_owned(),
        participant: call.participant().to_owned(),
        action: Action::Receive,
        exchange: call.exchange.to_string(),
        kind: plan.kind_of(&call.exchange),
        key: call.key.to_string(),
        summary,
        message,
        replies: replies(id, call, &step.from_user, kept(step, phase)),
    }
}

/// What is kept of an answer. A compensation keeps nothing.
fn kept(step: &Step, phase: Phase) -> Option<&Template> {
    step.output.as_ref().filter(|_| phase == Phase::Action)
}

/// What answers a command, from those users.
fn replies(id: &str, call: &Call, from: &Users, output: Option<&Template>) -> Vec<Reply> {
    let reply = |name: String, summary: &str, headers: Value, payload: Value| {
        let message = json!({
            "name": name,
            "summary": summary,
            "headers": headers,
            "correlationId": correlation_id(),
            "payload": payload,
        });
        Reply { id: name, message }
    };
    let mut read = Read::default();
    for expression in output.into_iter().flat_map(Template::expressions) {
        read.expression(expression, "reply", Kind::Required);
    }
    let headers = |outcome| header::of_reply(outcome, from);
    let success = headers(OutcomeKind::Success);
    let mut replies = vec![reply(format!("{id}.success"), "It is done.", success, read.schema_of("data"))];
    // From everybody, they are the same for all commands.
    let of = if from.0.is_empty() { "reply" } else { id };
    for (name, summary, outcome) in [
        ("failure", "It is refused for good.", OutcomeKind::Failure),
        ("retry", "Not now.", OutcomeKind::Retry),
        ("pending", "It is still being worked on.", OutcomeKind::Pending),
    ] {
        replies.push(reply(format!("{of}.{name}"), summary, headers(outcome), json!({})));
    }
    let rules: Vec<_> = call.replies.iter().filter(|rule| rule.on.is_none()).collect();
    if !rules.is_empty() {
        let read = read_by(&rules, output, "reply");
        let headers = header::of_read_reply(read.headers(), &rules, from);
        let mut read = reply(format!("{id}.reply"), "Its content tells.", headers, read.schema_of("data"));
        let told =
            format!("Without the header `x-saga-outcome`, the first that matches:\n\n{}", listed(&rules));
        read.message["description"] = told.into();
        replies.push(read);
    }
    replies
}

/// An event that answers the command of a step, or that the step waits for.
fn answer(plan: &Plan, step: &Step, phase: Phase, on: &Subscription) -> Operation {
    let rules: Vec<_> = step.rules(phase).iter().filter(|rule| rule.on.as_ref() == Some(on)).collect();
    let call = step.call(phase);
    let root = if call.is_some() { "reply" } else { "event" };
    let mut read = read_by(&rules, kept(step, phase), root);
    for rule in &rules {
        match &rule.business_key {
            Some(key) => read.expression(key, root, Kind::Optional),
            None => {
                let key = plan.start.as_ref().map(|start| &start.business_key);
                key.into_iter().for_each(|key| read.expression(key, "event", Kind::Optional));
            }
        }
    }
    let headers = match call {
        Some(_) => header::of_answer(read.headers(), &rules, &step.from_user),
        None => header::of_awaited(read.headers(), &step.from_user),
    };
    let mut operation = event(on, format!("Answers step {} of {}.", step.name, title(plan)), headers, &read);
    operation.message["description"] = format!("The first that matches:\n\n{}", listed(&rules)).into();
    if let Some(call) = call {
        operation.participant = call.participant().to_owned();
    }
    operation
}

/// What rules read of an answer, and what the step keeps of it.
fn read_by(rules: &[&ReplyRule], output: Option<&Template>, root: &str) -> Read {
    let kept = output.into_iter().flat_map(Template::expressions);
    let mut read = Read::default();
    for expression in rules.iter().filter_map(|rule| rule.when.as_ref()).chain(kept) {
        read.expression(expression, root, Kind::Optional);
    }
    read
}

fn listed(rules: &[&ReplyRule]) -> String {
    rules.iter().map(|rule| english::rule(rule)).collect::<Vec<_>>().join("\n")
}

/// An event that the definition listens to; its operation has no id yet.
fn event(on: &Subscription, summary: String, headers: Value, read: &Read) -> Operation {
    let plain = read.schema_of("data");
    let enveloped = json!({
        "title": "In a CloudEvent, or in an envelope.",
        "type": "object",
        "properties": {"data": plain},
        "required": ["data"],
    });
    let message = json!({
        "name": if on.pattern.is_empty() { heard(on) } else { on.pattern.clone() },
        "summary": summary,
        "headers": headers,
        "payload": {"anyOf": [plain, enveloped]},
    });
    Operation {
        id: String::new(),
        participant: on.exchange.clone(),
        action: Action::Send,
        exchange: on.exchange.clone(),
        kind: on.matching.kind(),
        key: on.pattern.clone(),
        summary,
        message,
        replies: Vec::new(),
    }
}

/// The events that tell what became of an instance.
fn notices(plan: &Plan) -> impl Iterator<Item = Operation> {
    let notices = [
        ("completed", "is completed", &plan.on_completed),
        ("compensated", "is compensated", &plan.on_compensated),
        ("parked", "is parked", &plan.on_parked),
        ("cancel_refused", "is not cancelled, though that was asked", &plan.on_cancel_refused),
    ];
    notices.into_iter().filter_map(move |(name, what, emission)| {
        let emission = emission.as_ref()?;
        let summary = format!("Tells that an instance of {} {what}.", title(plan));
        let headers = match name {
            "compensated" => header::of_compensated(plan, &emission.key),
            _ => header::of_notice(plan, &emission.key),
        };
        Some(emitted(plan, &id(plan, name), emission, summary, headers))
    })
}

/// An event of the orchestrator.
fn emitted(plan: &Plan, id: &str, emission: &Emission, summary: String, headers: Value) -> Operation {
    let extras = emission.extras.as_deref();
    let (kind, headers) = (kind(&emission.key, extras), header::with_extras(headers, extras));
    Operation {
        id: id.to_owned(),
        participant: emission.participant().to_owned(),
        action: Action::Receive,
        exchange: emission.exchange.to_string(),
        kind: plan.kind_of(&emission.exchange),
        key: emission.key.to_string(),
        message: sent(kind, &summary, headers, made(&emission.body), extras),
        summary,
        replies: Vec::new(),
    }
}

/// The AMQP property `type` of a message.
fn kind<'a>(key: &'a str, extras: Option<&'a Extras>) -> &'a str {
    extras.and_then(|extras| extras.kind.as_deref()).unwrap_or(key)
}

/// A message of the orchestrator.
fn sent(kind: &str, summary: &str, headers: Value, payload: Value, extras: Option<&Extras>) -> Value {
    let mut message = json!({
        "name": kind,
        "summary": summary,
        "headers": headers,
        "payload": payload,
        "bindings": {"amqp": {"messageType": kind, "bindingVersion": BINDING}},
    });
    if let Some(content_type) = extras.and_then(|extras| extras.content_type.as_deref()) {
        message["contentType"] = content_type.into();
    }
    message
}

fn correlation_id() -> Value {
    json!({"$ref": "#/components/correlationIds/command"})
}

/// Steps are named apart from what else a saga has by a second word.
fn id(plan: &Plan, name: &str) -> String {
    format!("{}.v{}.{name}", plan.saga, plan.version)
}
