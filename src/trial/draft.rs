//! Drafts: the messages of an instance before they are sent, as far as they are given.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::path::{Target, own_targets};
use crate::delivery::understand;
use crate::saga::expression::Expression;
use crate::saga::id::Phase;
use crate::saga::message::{Message, RawMessage};
use crate::saga::plan::{OutcomeKind, Plan, ReplyRule, Subscription};

/// What is given, and need not be made up.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// The start event, as far as it is given.
    /// Where no event starts it, its data is the input.
    pub(super) start: Message,
    /// Whether nothing is added to the start event, so that it shows what becomes of one that lacks a field.
    pub(super) is_literal: bool,
    /// What successful replies carry, by the name of the step, such as `ship` or `parcels/pick`.
    pub(super) replies: HashMap<String, Value>,
    /// Business key and input, where the instance is called and no event starts it.
    pub(super) called: Option<(String, Value)>,
}

/// A message that is made up.
pub(super) struct Draft {
    pub(super) role: Role,
    pub(super) message: Message,
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Start,
    Cancel,
    Reply(Target, OutcomeKind),
}

/// A place in a draft, such as `data.items` of the first.
pub(super) type Place = (usize, Vec<String>);

/// The messages of an instance, as far as they are given.
pub(super) fn drafts(plan: &Plan, given: &Given) -> Vec<Draft> {
    let on = |on: &Subscription, message: Message| Message {
        exchange: on.exchange.clone(),
        key: some_key(&on.pattern),
        headers: on.matching.headers(),
        ..message
    };
    let empty = || Message { data: Value::Object(Map::new()), ..Message::default() };
    let mut start = given.start.clone();
    if start.data.is_null() {
        start.data = empty().data;
    }
    if let Some(of) = &plan.start {
        start.user = start.user.or(of.from_user.any());
        let Message { exchange, key, headers, .. } = on(&of.on, Message::default());
        for (name, value) in headers {
            start.headers.entry(name).or_insert(value);
        }
        start.exchange = Some(start.exchange).filter(|given| !given.is_empty()).unwrap_or(exchange);
        start.key = Some(start.key).filter(|given| !given.is_empty()).unwrap_or(key);
    }
    let mut drafts = vec![Draft { role: Role::Start, message: start }];
    drafts.extend(plan.cancel.iter().map(|cancel| {
        let message = Message { user: cancel.from_user.any(), ..on(&cancel.on, empty()) };
        Draft { role: Role::Cancel, message }
    }));
    for target in own_targets(plan) {
        for kind in [OutcomeKind::Success, OutcomeKind::Failure, OutcomeKind::Retry] {
            let by_rule = |rule: &ReplyRule| match &rule.on {
                Some(subscription) => on(subscription, empty()),
                None => empty(),
            };
            let rule = rule(plan, target, kind);
            if rule.is_none() && plan.steps[target.step].call(target.phase).is_none() {
                continue;
            }
            let mut message = rule.map_or_else(|| by_header(kind), by_rule);
            message.user = plan.steps[target.step].from_user.any();
            if (target.phase, kind) == (Phase::Action, OutcomeKind::Success)
                && let Some(data) = given.replies.get(&plan.steps[target.step].name)
            {
                message.data = data.clone();
            }
            drafts.push(Draft { role: Role::Reply(target, kind), message });
        }
    }
    drafts
}

/// The first rule of a step or a compensation that reads this outcome.
pub(super) fn rule(plan: &Plan, target: Target, kind: OutcomeKind) -> Option<&ReplyRule> {
    plan.steps[target.step].rules(target.phase).iter().find(|rule| rule.outcome == kind)
}

/// What names the instance in the events that a rule reads.
pub(super) fn key<'a>(plan: &'a Plan, rule: &'a ReplyRule) -> Option<&'a Expression> {
    rule.business_key.as_ref().or(plan.start.as_ref().map(|start| &start.business_key))
}

/// A reply that says its outcome in the header.
pub(super) fn by_header(kind: OutcomeKind) -> Message {
    let headers = match kind {
        OutcomeKind::Success => json!({"x-saga-outcome": "success"}),
        OutcomeKind::Failure => json!({"x-saga-outcome": "failure", "x-saga-error-code": "REFUSED"}),
        OutcomeKind::Retry => json!({"x-saga-outcome": "retry", "x-saga-error-code": "BUSY"}),
        OutcomeKind::Pending => json!({"x-saga-outcome": "pending"}),
    };
    let headers = headers.as_object().cloned().unwrap_or_default();
    Message { data: Value::Object(Map::new()), headers, ..Message::default() }
}

/// A routing key that a pattern matches.
pub(super) fn some_key(pattern: &str) -> String {
    let words =
        pattern.split('.').filter(|word| *word != "#").map(|word| if word == "*" { "any" } else { word });
    words.collect::<Vec<_>>().join(".")
}

/// The message as it comes by the broker. An id that stands in its body is its `message_id` too.
pub(super) fn raw(message: &Message) -> RawMessage {
    let Message { id, kind, source, time, data, metadata, headers, exchange, key, user, .. } = message;
    let with = |body: &Value| RawMessage {
        exchange: exchange.clone(),
        key: key.clone(),
        message_id: id.clone(),
        kind: kind.clone(),
        app_id: source.clone(),
        user_id: user.clone(),
        headers: headers.clone(),
        body: body.to_string().into_bytes(),
        ..RawMessage::default()
    };
    let plain = with(data);
    let read = understand(plain.clone());
    let is_read_so = |read: &Message| read.data == *data && read.time == *time;
    let has_metadata = metadata.as_object().is_some_and(|metadata| !metadata.is_empty());
    match read {
        Ok(read) if !has_metadata && is_read_so(&read) => RawMessage { message_id: read.id, ..plain },
        _ => with(&json!({
            "event_id": id, "event_type": kind, "timestamp": time, "data": data, "metadata": metadata,
        })),
    }
}

/// What stands at a path of a message.
pub(super) fn value_at(message: &Message, path: &[String]) -> Option<Value> {
    let (root, below) = path.split_first()?;
    let mut value = match root.as_str() {
        "data" => &message.data,
        "metadata" => &message.metadata,
        "headers" => return message.headers.get(below.first()?).cloned(),
        // All else is always there.
        _ => return Some(Value::Null),
    };
    for name in below {
        value = value.get(name)?;
    }
    Some(value.clone())
}

/// Puts a value at a path; false where something else is in the way.
pub(super) fn put(message: &mut Message, path: &[String], value: Value) -> bool {
    let Some((root, below)) = path.split_first() else { return false };
    let mut place = match (root.as_str(), below) {
        ("data", _) => &mut message.data,
        ("metadata", _) => &mut message.metadata,
        ("headers", [name]) => {
            message.headers.insert(name.clone(), value);
            return true;
        }
        _ => return false,
    };
    for name in below {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let Some(fields) = place.as_object_mut() else { return false };
        place = fields.entry(name.clone()).or_insert(Value::Null);
    }
    *place = value;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_comes_in_as_it_was_drafted() {
        let data = json!({"order_id": "A-1"});
        let like_an_envelope = json!({"event_id": "e-9", "event_type": "t", "data": {"x": 1}});
        let drafts = [
            Message { data: data.clone(), ..Message::default() },
            Message { data: data.clone(), metadata: json!({"tenant_id": "t-1"}), ..Message::default() },
            Message { data: like_an_envelope, ..Message::default() },
        ];
        for draft in drafts {
            let read = understand(raw(&draft)).unwrap();
            assert_eq!(read.data, draft.data);
            if !draft.metadata.is_null() {
                assert_eq!(read.metadata, draft.metadata);
            }
        }
        let named = Message { data: json!({"event_id": "e-7"}), ..Message::default() };
        assert_eq!(raw(&named).message_id.as_deref(), Some("e-7"));
    }

    #[test]
    fn a_key_that_a_pattern_matches_is_made_of_its_words() {
        for (pattern, key) in
            [("order.placed", "order.placed"), ("order.*", "order.any"), ("#.eu", "eu"), ("#", "")]
        {
            assert_eq!(some_key(pattern), key);
            let on = Subscription::topic("e", pattern);
            assert!(on.matches("e", key));
        }
    }
}
