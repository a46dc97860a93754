//! Decoding: what the broker handed over becomes a [`Message`], or is poison for good.
//!
//! Recognised in this order: CloudEvents 1.0 in structured and in binary form, the event envelope,
//! any other JSON. Whoever sends needs no library of ours.

use serde_json::{Map, Value};

use super::correlation::Correlation;
use super::message::{APP_ID, Message, Poison, RawMessage};
use super::time::Timestamp;
use crate::{json, number};

/// What a CloudEvent must say of itself.
const REQUIRED_ATTRIBUTES: [&str; 4] = ["specversion", "id", "type", "source"];

/// How the attributes of a binary CloudEvent start; the AMQP binding knows the first two, and what
/// came through an HTTP gateway has the others.
const ATTRIBUTE_PREFIXES: [&str; 4] = ["cloudevents:", "cloudevents_", "ce-", "ce_"];

/// Decodes a message whose body has at most `limit` bytes. An empty body is `null`, so that a
/// reply may consist of headers alone.
///
/// # Errors
/// The message can never be understood, however often it is delivered.
pub fn decode(raw: RawMessage, limit: usize) -> Result<Message, Poison> {
    let body = read(&raw, limit)?;
    Ok(recognise(raw, body))
}

/// The first half of [`decode`]: reads the body, if the message can be understood.
///
/// # Errors
/// Those of [`decode`].
pub fn read(raw: &RawMessage, limit: usize) -> Result<Value, Poison> {
    if raw.body.len() > limit {
        return Err(Poison::TooLarge { size: raw.body.len(), limit });
    }
    if let Some(excess) = &raw.excess {
        return Err(Poison::Headers(excess.clone()));
    }
    if let Some(encoding) = &raw.content_encoding
        && !is_plain(encoding)
    {
        return Err(Poison::Encoded(encoding.clone()));
    }
    parse(&raw.body)
}

/// The second half of [`decode`]: makes one form of all, with the body that was read.
pub fn recognise(raw: RawMessage, body: Value) -> Message {
    let is_command = is_command(&raw);
    let origin = first_death(&raw);
    let (content, is_cloud_event) = match body {
        Value::Object(body) if is_structured_cloud_event(&raw, &body) => (cloud_event(body), true),
        body => match binary_attributes(&raw.headers) {
            Some(attributes) => (Content { data: body, ..cloud_event(attributes) }, true),
            None => match body {
                Value::Object(body) if is_envelope(&body) => (envelope(body), false),
                body => (plain(&raw, body), false),
            },
        },
    };
    let (exchange, key) = origin.unwrap_or((raw.exchange, raw.key));
    Message {
        id: content.id,
        kind: content.kind,
        source: content.source,
        time: content.time,
        data: content.data,
        metadata: Value::Object(content.metadata),
        headers: raw.headers,
        exchange,
        key,
        correlation_id: raw.correlation_id,
        is_command,
        is_cloud_event,
        size: raw.body.len(),
    }
}

/// Whether it is a command of an orchestrator: sent by one, with a correlation of ours, and of the type that is its key,
/// or with its key in a header where the definition gave it another type. An answer that echoes a command's properties differs in one of these.
fn is_command(raw: &RawMessage) -> bool {
    raw.headers.contains_key("x-saga-phase")
        && !raw.headers.contains_key("x-saga-outcome")
        && raw.app_id.as_deref() == Some(APP_ID)
        && raw.correlation_id.as_deref().is_some_and(|id| Correlation::parse(id).is_some())
        && (raw.kind.as_ref() == Some(&raw.key)
            || raw.headers.get("x-saga-key").and_then(Value::as_str) == Some(&raw.key))
}

/// The exchange and the routing key that a message had before it was dead-lettered, if it was moved back
/// from there straight into a queue.
fn first_death(raw: &RawMessage) -> Option<(String, String)> {
    if !raw.exchange.is_empty() {
        return None;
    }
    // The broker puts the latest death first.
    let death = raw.headers.get("x-death")?.as_array()?.last()?;
    let exchange = death.get("exchange")?.as_str().filter(|exchange| !exchange.is_empty())?;
    let key = death.get("routing-keys")?.get(0)?.as_str()?;
    Some((exchange.to_owned(), key.to_owned()))
}

/// What the body says; the rest of a message is the broker's.
struct Content {
    id: Option<String>,
    kind: Option<String>,
    source: Option<String>,
    time: Option<String>,
    data: Value,
    metadata: Map<String, Value>,
}

fn is_plain(encoding: &str) -> bool {
    let plain = ["", "none", "identity", "utf-8", "utf8"];
    plain.iter().any(|name| encoding.trim().eq_ignore_ascii_case(name))
}

/// The parser's own limit on depth holds: 128 levels.
fn parse(body: &[u8]) -> Result<Value, Poison> {
    if body.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    json::read(body).map_err(|error| match error.is_data() {
        true => Poison::Unclear(error.to_string()),
        false => Poison::NotJson(error.to_string()),
    })
}

fn is_structured_cloud_event(raw: &RawMessage, body: &Map<String, Value>) -> bool {
    let declared = raw.content_type.as_deref().is_some_and(|content_type| {
        let media_type = content_type.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case("application/cloudevents+json")
    });
    declared || REQUIRED_ATTRIBUTES.iter().all(|name| body.get(*name).is_some_and(Value::is_string))
}

/// The attributes of a binary CloudEvent without their prefix, if all that must be there are.
fn binary_attributes(headers: &Map<String, Value>) -> Option<Map<String, Value>> {
    let attributes: Map<_, _> = headers
        .iter()
        .filter_map(|(name, value)| Some((attribute_name(name)?.to_owned(), value.clone())))
        .collect();
    REQUIRED_ATTRIBUTES.iter().all(|name| attributes.contains_key(*name)).then_some(attributes)
}

fn attribute_name(header: &str) -> Option<&str> {
    ATTRIBUTE_PREFIXES.iter().find_map(|prefix| {
        let (start, name) = header.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(name)
    })
}

/// A CloudEvent of which `attributes` holds everything, in the structured form the data too.
fn cloud_event(mut attributes: Map<String, Value>) -> Content {
    let time = match attributes.remove("time") {
        // In the binary form it may be an AMQP timestamp.
        Some(Value::Number(secs)) => secs.as_u64().map(rfc3339),
        time => text(time),
    };
    Content {
        id: text(attributes.remove("id")),
        kind: text(attributes.remove("type")),
        source: text(attributes.remove("source")),
        time,
        data: attributes.remove("data").unwrap_or_default(),
        metadata: attributes,
    }
}

fn is_envelope(body: &Map<String, Value>) -> bool {
    ["event_id", "event_type", "data"].iter().all(|name| body.contains_key(*name))
}

fn envelope(mut body: Map<String, Value>) -> Content {
    let mut metadata = match body.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    for name in ["aggregate_id", "version"] {
        if let Some(value) = body.remove(name) {
            metadata.insert(name.to_owned(), value);
        }
    }
    Content {
        id: text(body.remove("event_id")),
        kind: text(body.remove("event_type")),
        source: text(metadata.get("source").cloned()),
        time: text(body.remove("timestamp")),
        data: body.remove("data").unwrap_or_default(),
        metadata,
    }
}

/// Any other JSON: the body is the data as it stands, and what it does not tell is taken from the
/// AMQP properties.
fn plain(raw: &RawMessage, body: Value) -> Content {
    let field = |name: &str| text(body.get(name).cloned());
    Content {
        id: field("event_id").or_else(|| raw.message_id.clone()),
        kind: field("event_type").or_else(|| raw.kind.clone()),
        source: raw.app_id.clone(),
        time: field("timestamp").or_else(|| raw.timestamp.map(rfc3339)),
        data: body,
        metadata: Map::new(),
    }
}

/// Ids are strings with most senders and numbers with some.
fn text(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number::canonical(&number).into_owned()),
        _ => None,
    }
}

fn rfc3339(secs: u64) -> String {
    Timestamp(i64::try_from(secs).unwrap_or(i64::MAX).saturating_mul(1000)).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::saga::correlation::{Asked, Sealer};
    use crate::saga::id::{InstanceId, Phase};

    const LIMIT: usize = 1024 * 1024;

    fn with_body(body: Value) -> RawMessage {
        RawMessage { body: body.to_string().into_bytes(), ..RawMessage::default() }
    }

    fn headers(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    fn decoded(raw: RawMessage) -> Message {
        decode(raw, LIMIT).unwrap()
    }

    #[test]
    fn a_message_that_was_moved_back_from_the_dead_is_the_one_that_it_was() {
        let deaths = json!([
            {"exchange": "sagamq.dead", "queue": "sagamq.dead", "routing-keys": ["x"]},
            {"exchange": "orders", "queue": "sagamq.events", "routing-keys": ["order.placed", "bcc"]},
        ]);
        let raw = RawMessage {
            key: "sagamq.events".to_owned(),
            headers: headers(json!({"x-death": deaths})),
            ..with_body(json!({}))
        };
        let message = decoded(raw.clone());
        assert_eq!((message.exchange.as_str(), message.key.as_str()), ("orders", "order.placed"));
        let published = decoded(RawMessage { exchange: "other".to_owned(), key: "k".to_owned(), ..raw });
        assert_eq!((published.exchange.as_str(), published.key.as_str()), ("other", "k"));
        let reply = json!({"x-death": [{"exchange": "", "queue": "sagamq.replies", "routing-keys": ["sagamq.replies"]}]});
        let reply =
            RawMessage { key: "sagamq.replies".to_owned(), headers: headers(reply), ..with_body(json!({})) };
        assert_eq!(decoded(reply).exchange, "");
    }

    #[test]
    fn a_command_is_told_from_an_answer_that_echoes_its_properties() {
        let asked =
            Asked { instance: InstanceId::new("order", "A-1"), step: 0, phase: Phase::Action, attempt: 1 };
        let correlation = Sealer::new([1; 32]).issue(asked, Timestamp(0));
        let command = RawMessage {
            key: "payment.charge".to_owned(),
            kind: Some("payment.charge".to_owned()),
            message_id: Some("m-1".to_owned()),
            correlation_id: Some(correlation.to_string()),
            app_id: Some(APP_ID.to_owned()),
            headers: headers(json!({"x-saga-phase": "action"})),
            ..with_body(json!({}))
        };
        assert!(decoded(command.clone()).is_command);
        let echo = RawMessage { key: "payment.processed".to_owned(), ..command.clone() };
        assert!(!decoded(echo).is_command);
        let outcome = headers(json!({"x-saga-phase": "action", "x-saga-outcome": "success"}));
        assert!(!decoded(RawMessage { headers: outcome, ..command }).is_command);
    }

    /// The parts of a message that depend on its form.
    fn essence(message: &Message) -> Value {
        json!([message.id, message.kind, message.source, message.time, message.data, message.metadata])
    }

    #[test]
    fn every_form_becomes_the_same_kind_of_message() {
        let cloud_event = json!({
            "specversion": "1.0", "id": "1", "type": "OrderPlaced", "source": "/shop",
            "time": "2026-01-02T03:04:05Z", "subject": "A-1", "data": {"order_id": "A-1"},
        });
        let envelope = json!({
            "event_id": "1", "event_type": "OrderPlaced", "aggregate_id": "A-1", "version": 3,
            "timestamp": "2026-01-02T03:04:05Z", "data": {"order_id": "A-1"},
            "metadata": {"user_id": "u", "source": "/shop"},
        });
        let bare = json!({
            "event_id": "1", "event_type": "OrderPlaced", "timestamp": "2026-01-02T03:04:05Z",
            "version": 1, "order_id": "A-1",
        });
        let head = json!(["1", "OrderPlaced", "/shop", "2026-01-02T03:04:05Z"]);
        let expect = |data: Value, metadata: Value| {
            let mut all = head.as_array().cloned().unwrap();
            all.extend([data, metadata]);
            Value::Array(all)
        };

        let structured = decoded(with_body(cloud_event.clone()));
        let attributes = json!({"specversion": "1.0", "subject": "A-1"});
        assert_eq!(essence(&structured), expect(json!({"order_id": "A-1"}), attributes.clone()));

        for prefix in ["cloudEvents:", "cloudEvents_", "ce-", "ce_", "CE-"] {
            let mut given = Map::new();
            for (name, value) in headers(cloud_event.clone()).into_iter().filter(|(name, _)| name != "data") {
                given.insert(format!("{prefix}{name}"), value);
            }
            given.insert("x-other".into(), json!("kept as a header only"));
            let raw = RawMessage { headers: given.clone(), ..with_body(json!({"order_id": "A-1"})) };
            let binary = decoded(raw);
            assert_eq!(essence(&binary), expect(json!({"order_id": "A-1"}), attributes.clone()), "{prefix}");
            assert_eq!(binary.headers, given);
        }

        let metadata = json!({"user_id": "u", "source": "/shop", "aggregate_id": "A-1", "version": 3});
        assert_eq!(essence(&decoded(with_body(envelope))), expect(json!({"order_id": "A-1"}), metadata));

        let raw = RawMessage { app_id: Some("/shop".into()), ..with_body(bare.clone()) };
        assert_eq!(essence(&decoded(raw)), expect(bare, json!({})));
    }

    #[test]
    fn a_bare_body_takes_what_it_lacks_from_the_properties() {
        let raw = RawMessage {
            message_id: Some("m".into()),
            kind: Some("stock.reserved".into()),
            app_id: Some("inventory".into()),
            timestamp: Some(1_767_323_045),
            ..with_body(json!([1, 2]))
        };
        let expected = json!(["m", "stock.reserved", "inventory", "2026-01-02T03:04:05.000Z", [1, 2], {}]);
        assert_eq!(essence(&decoded(raw)), expected);
    }

    #[test]
    fn a_declared_cloud_event_may_be_incomplete_and_a_half_one_is_plain_data() {
        let content_type = Some("application/cloudevents+json; charset=utf-8".to_owned());
        let raw = RawMessage { content_type, ..with_body(json!({"id": 7, "data": 1})) };
        assert_eq!(essence(&decoded(raw)), json!(["7", null, null, null, 1, {}]));

        let half = json!({"specversion": "1.0", "id": "1", "data": 1});
        assert_eq!(decoded(with_body(half.clone())).data, half);
        let raw = RawMessage { headers: headers(json!({"ce-id": "1"})), ..with_body(json!(5)) };
        assert_eq!(decoded(raw).data, json!(5));
    }

    #[test]
    fn a_field_that_is_there_twice_is_poison_that_names_it() {
        let raw = RawMessage { body: br#"{"order_id": 1, "order_id": 2}"#.to_vec(), ..RawMessage::default() };
        let Err(Poison::Unclear(told)) = decode(raw, LIMIT) else { panic!("it was taken") };
        assert!(told.contains("\"order_id\" is there twice"), "{told}");
    }

    #[test]
    fn an_event_is_known_by_the_number_that_is_its_id_whatever_it_is_written_as() {
        for body in [r#"{"event_id": 7}"#, r#"{"event_id": 7.0}"#, r#"{"event_id": 70e-1}"#] {
            let raw = RawMessage { body: body.into(), ..RawMessage::default() };
            assert_eq!(decoded(raw).id.as_deref(), Some("7"));
        }
    }

    #[test]
    fn an_empty_body_is_null_in_every_form() {
        let binary = json!({"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "s"});
        for headers in [Map::new(), headers(binary)] {
            for body in [&b""[..], b" \n"] {
                let raw = RawMessage { headers: headers.clone(), body: body.into(), ..Default::default() };
                assert_eq!(decoded(raw).data, Value::Null);
            }
        }
    }

    #[test]
    fn what_can_never_be_understood_is_poison() {
        let large = RawMessage { body: vec![b'1'; 11], ..Default::default() };
        assert_eq!(decode(large.clone(), 10), Err(Poison::TooLarge { size: 11, limit: 10 }));
        assert!(decode(large, 11).is_ok());

        let encoded = |encoding: &str| {
            let raw = RawMessage { content_encoding: Some(encoding.into()), ..with_body(json!(1)) };
            decode(raw, LIMIT).map(|message| message.data)
        };
        assert_eq!(encoded("gzip"), Err(Poison::Encoded("gzip".into())));
        for plain in ["", "none", "identity", "UTF-8"] {
            assert_eq!(encoded(plain), Ok(json!(1)), "{plain}");
        }

        let deep = [vec![b'['; 500], vec![b']'; 500]].concat();
        for body in [b"{".to_vec(), b"hello".to_vec(), b"\xff\xfe".to_vec(), b"1 2".to_vec(), deep] {
            let raw = RawMessage { body, ..Default::default() };
            assert!(matches!(decode(raw, LIMIT), Err(Poison::NotJson(_))));
        }
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "[\\[\\]{}:,\"0-9a-z \\\\-]{0,80}".prop_map(String::into_bytes),
            ],
            names in prop::collection::vec("(cloudEvents:|ce-|ce_|é)?(id|type|source|specversion|time|\\PC{0,4})", 0..8),
            number in any::<u64>(),
            text in any::<Option<String>>(),
        ) {
            let raw = RawMessage {
                headers: names.into_iter().map(|name| (name, json!(number))).collect(),
                content_type: text.clone(),
                content_encoding: text.filter(|text| text.len() > 5),
                timestamp: Some(number),
                body,
                ..RawMessage::default()
            };
            let _ = decode(raw, 150);
        }
    }
}
