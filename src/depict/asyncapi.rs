//! The messages of sagas as an AsyncAPI 3.0 document, as those see them who exchange them with the
//! orchestrator.
//!
//! A **participant** is known by its exchange: commands are sent there, and events of the saga's world are
//! published there. What it receives are commands and the events that tell how an instance ended; what it
//! sends are answers, and the events that start, cancel or answer. A definition does not say who publishes
//! an event or reads an ending: that is the team behind the exchange.

mod channel;
mod header;
mod operation;
mod payload;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use self::channel::Channels;
use self::operation::{Operation, Reply};
use super::words::title;
use crate::saga::plan::Plan;

/// Version of the specification that the document follows.
const ASYNCAPI: &str = "3.0.0";
/// Id of the channel by which replies come; others have a `.` in theirs.
const REPLIES: &str = "replies";

/// The document of all messages; those of one participant only, where it is named.
pub fn document(plans: &[&Plan], participant: Option<&str>) -> Value {
    let all = plans.iter().flat_map(|plan| operation::operations(plan));
    let operations: Vec<_> =
        all.filter(|operation| participant.is_none_or(|name| name == operation.participant)).collect();
    let exchanges = plans.iter().flat_map(|plan| &plan.described);
    let transient = exchanges.filter(|exchange| !exchange.is_durable()).map(|exchange| &*exchange.name);
    let channels = Channels::of(&operations, transient.collect());
    let titles = plans.iter().map(|plan| title(plan)).collect::<Vec<_>>().join(", ");
    let of = participant.map(|name| format!(", as {name} exchanges them")).unwrap_or_default();
    let replies = operations.iter().flat_map(|operation| &operation.replies);
    let messages = operations.iter().map(|operation| (operation.id.clone(), operation.message.clone()));
    let messages = messages.chain(replies.map(|reply| (reply.id.clone(), reply.message.clone())));
    let described =
        operations.iter().map(|operation| (operation.id.clone(), described(operation, &channels)));
    json!({
        "asyncapi": ASYNCAPI,
        "info": {
            "title": format!("Messages of the sagas {titles}{of}"),
            "version": titles,
            "description": "Made by `sagamq asyncapi`. Commands arrive at least once: the header \
                            `x-saga-command-id` is the idempotency key. Answers and events may also be \
                            CloudEvents, or stand in an envelope with `event_id`, `event_type` and `data`.",
        },
        "defaultContentType": "application/json",
        "channels": channels.described(&operations),
        "operations": described.collect::<Map<_, _>>(),
        "components": {
            "messages": messages.collect::<Map<_, _>>(),
            "correlationIds": {"command": {
                "description": "The property `correlation_id` of a command; its answer has the same.",
                "location": "$message.header#/correlation_id",
            }},
        },
    })
}

/// Whoever the sagas exchange messages with, by exchange.
pub fn participants(plans: &[&Plan]) -> BTreeSet<String> {
    let all = plans.iter().flat_map(|plan| operation::operations(plan));
    all.map(|operation| operation.participant).collect()
}

fn described(operation: &Operation, channels: &Channels<'_>) -> Value {
    let channel = channels.id(operation);
    let in_channel = |channel: &str, id: &str| json!({"$ref": format!("#/channels/{channel}/messages/{id}")});
    let mut described = json!({
        "action": operation.action.as_str(),
        "channel": {"$ref": format!("#/channels/{channel}")},
        "summary": operation.summary,
        "tags": [{"name": operation.participant}],
        "messages": [in_channel(channel, &operation.id)],
    });
    if !operation.replies.is_empty() {
        let answers = operation.replies.iter().map(|Reply { id, .. }| in_channel(REPLIES, id));
        described["reply"] = json!({
            "address": {
                "description": "The queue that the property `reply_to` of the command names.",
                "location": "$message.header#/reply_to",
            },
            "channel": {"$ref": format!("#/channels/{REPLIES}")},
            "messages": answers.collect::<Vec<_>>(),
        });
    }
    described
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::http::fixture::assert_golden;
    use crate::json;
    use crate::saga::compile;

    #[test]
    fn what_inventory_exchanges_is_described_as_in_the_golden_file() {
        let document = document(&[&fixture::order()], Some("inventory"));
        assert_golden("order-inventory.asyncapi.yaml", &json::yaml(&document));
    }

    #[test]
    fn the_start_event_has_the_fields_that_the_saga_takes_over_and_reads_later() {
        let source = "saga: s\nversion: 1\n\
            start: {on: {exchange: in, key: a}, business_key: =event.data.id,\
             input: {who: =event.data.user, coupon: '=has(event.data.coupon) ? event.data.coupon : 0'}}\n\
            steps: [{step: a, command: {exchange: b, key: c, body: =input.who.name}, compensate: none}]";
        let plan = compile::load("s.yaml", source).unwrap();
        let payload =
            &document(&[&plan], None)["components"]["messages"]["s.v1.start"]["payload"]["anyOf"][0];
        assert_eq!(payload["required"], json!(["id", "user"]));
        let [coupon, id, user] = ["coupon", "id", "user"].map(|name| &payload["properties"][name]);
        let told = "Read by `=has(event.data.coupon) ? event.data.coupon : 0`.";
        assert_eq!(*coupon, json!({"description": told}));
        assert_eq!(id["type"], json!(["string", "number"]));
        assert_eq!(user["properties"]["name"]["description"], "Read by `=input.who.name`.");
    }

    #[test]
    fn headers_are_those_that_are_sent_and_those_that_are_read() {
        let source = "saga: s\nversion: 1\n\
            start: {on: {exchange: in, key: a}, business_key: =event.data.id, from_user: shop}\n\
            steps:\n\
            - step: a\n  from_user: [clerk, chief]\n  compensate: none\n  \
              command: {exchange: b, key: c, type: t}\n  \
              replies:\n  \
              - {when: '=reply.headers[\"x-region\"] == \"eu\"', outcome: retry}\n  \
              - {on: {exchange: b, key: done}, outcome: success}\n  \
              - {on: {exchange: b, key: failed}, outcome: failure}\n\
            - {wait: w, on: {exchange: b, key: w}, timeout: 1h}\n\
            on_completed: {emit: {exchange: b, key: d}}\n\
            on_compensated: {emit: {exchange: b, key: e}}\n";
        let plan = compile::load("s.yaml", source).unwrap();
        let messages = &document(&[&plan], None)["components"]["messages"];
        let headers = |message: &str| messages[message]["headers"].clone();
        let names = |message: &str| {
            let properties = headers(message)["properties"].as_object().unwrap().clone();
            properties.keys().filter(|name| name.starts_with("x-")).cloned().collect::<Vec<_>>()
        };
        assert_eq!(headers("s.v1.a.action")["properties"]["x-saga-key"]["const"], "c");
        assert_eq!(headers("s.v1.a.action")["properties"]["type"]["const"], "t");
        let named = ["x-saga-command-id", "x-saga-id"];
        let why = ["x-saga-error-code", "x-saga-error-message"];
        assert_eq!(
            names("s.v1.a.action.reply"),
            ["x-region", why[0], why[1], "x-saga-retry-after"],
            "read by its rule"
        );
        assert_eq!(names("s.v1.a.action.success"), ["x-saga-outcome"]);
        assert_eq!(names("s.v1.a.action.failure"), [why[0], why[1], "x-saga-outcome"]);
        assert_eq!(names("s.v1.a.action.event_1"), named, "an event does not say its outcome by a header");
        assert_eq!(names("s.v1.a.action.event_2"), [named[0], why[0], why[1], named[1]]);
        assert_eq!(names("s.v1.w.action.event_1"), named);
        let common = ["x-saga-id", "x-saga-name", "x-saga-version"];
        assert_eq!(names("s.v1.completed"), common);
        assert_eq!(names("s.v1.compensated"), [common[0], common[1], "x-saga-not-undone", common[2]]);
        for message in ["reply", "success", "failure", "retry", "pending", "event_1", "event_2"] {
            let headers = headers(&format!("s.v1.a.action.{message}"));
            assert_eq!(headers["properties"]["user_id"]["enum"], json!(["clerk", "chief"]), "{message}");
            assert!(headers["required"].as_array().unwrap().contains(&json!("user_id")), "{message}");
        }
        assert_eq!(headers("s.v1.start")["properties"]["user_id"]["enum"], json!(["shop"]));
        assert_eq!(headers("s.v1.w.action.event_1")["properties"]["user_id"], Value::Null);
    }

    #[test]
    fn an_exchange_that_is_made_not_to_last_is_described_so() {
        let source = "saga: s\nversion: 1\nexchanges: {b: {durable: false}}\n\
            start: {on: {exchange: in, key: a}, business_key: =event.data.id}\n\
            steps: [{step: a, command: {exchange: b, key: c}, compensate: none}]";
        let plan = compile::load("s.yaml", source).unwrap();
        let durable = |channel: &str| {
            let channels = &document(&[&plan], None)["channels"];
            channels[channel]["bindings"]["amqp"]["exchange"]["durable"].clone()
        };
        assert_eq!([durable("b.c"), durable("in.a")], [json!(false), json!(true)]);
    }

    #[test]
    fn versions_of_a_saga_share_channels_and_nothing_else() {
        let first = fixture::order();
        let second = include_str!("../../sagas/order.yaml").replace("version: 1", "version: 2");
        let second = compile::load("sagas/order.yaml", &second).unwrap();
        let count = |document: &Value, part: &str| document[part].as_object().unwrap().len();
        let (one, both) = (document(&[&first], None), document(&[&first, &second], None));
        assert_eq!(count(&both, "channels"), count(&one, "channels"));
        assert_eq!(count(&both, "operations"), 2 * count(&one, "operations"));
        let commands = both["channels"]["inventory.stock.reserve"]["messages"].as_object().unwrap();
        assert_eq!(
            commands.keys().collect::<Vec<_>>(),
            ["order.v1.reserve_stock.action", "order.v2.reserve_stock.action"]
        );
    }
}
