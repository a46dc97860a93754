//! Messages as they stand on the wire: AMQP properties and header tables, to and from our types.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Value, json};

use crate::number;
use crate::saga::message::{APP_ID, Extras, Outgoing, RawMessage};

/// Tables and arrays within headers may nest to this depth.
const MAX_DEPTH: usize = 8;

/// Bytes that names and values of one message's headers may have.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Takes a delivered message over.
pub(crate) fn incoming(delivery: lapin::message::Delivery) -> RawMessage {
    let properties = &delivery.properties;
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
    let (headers, excess) = properties.headers().as_ref().map(headers).unwrap_or_default();
    RawMessage {
        exchange: delivery.exchange.into(),
        key: delivery.routing_key.into(),
        message_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        kind: text(properties.kind()),
        app_id: text(properties.app_id()),
        user_id: text(properties.user_id()),
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        timestamp: *properties.timestamp(),
        headers,
        excess,
        body: delivery.data,
    }
}

/// One header in its JSON form.
pub(crate) fn header(properties: &BasicProperties, name: &str) -> Option<Value> {
    let value = properties.headers().as_ref()?.inner().get(name)?;
    Some(json_value(value, MAX_DEPTH, &mut Room { bytes: MAX_HEADER_BYTES, excess: None }))
}

/// An outgoing message beside its body.
pub(crate) struct Envelope {
    /// Exchange to publish to.
    pub(crate) exchange: ShortString,
    /// Routing key.
    pub(crate) key: ShortString,
    /// Properties.
    pub(crate) properties: BasicProperties,
}

/// The envelope of an outgoing message: persistent, and a function of the message alone.
///
/// # Errors
/// The reason why AMQP cannot carry it. Sending it would end the connection, again and again.
pub(crate) fn outgoing(message: &Outgoing, reply_to: &str) -> Result<Envelope, String> {
    let mut headers = FieldTable::default();
    let mut header_bytes = 0;
    for (name, value) in message.headers.iter() {
        let value = value.to_string();
        header_bytes += name.len() + value.len();
        headers.insert(short("header name", name)?, AMQPValue::LongString(value.into()));
    }
    let extras = message.extras.as_deref();
    for (name, value) in
        extras.iter().flat_map(|extras| &extras.headers).filter(|(_, value)| !value.is_null())
    {
        header_bytes += name.len() + value.to_string().len();
        let what = || format!("header {name:?}");
        headers
            .insert(short("header name", name)?, amqp_value(value, MAX_DEPTH).map_err(|why| what() + why)?);
    }
    if header_bytes > MAX_HEADER_BYTES {
        return Err(format!("headers of {header_bytes} bytes are over the limit of {MAX_HEADER_BYTES}"));
    }
    let exchange = short("exchange name", &message.exchange)?;
    let key = short("routing key", &message.key)?;
    let message_id = short("message id", &message.message_id.to_string())?;
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_message_id(message_id)
        .with_type(key.clone())
        .with_app_id(APP_ID.into())
        .with_timestamp(message.timestamp.as_secs())
        .with_headers(headers);
    let properties = match extras {
        Some(extras) => with_extras(properties, extras)?,
        None => properties,
    };
    let properties = match message.correlation_id() {
        Some(id) => properties.with_correlation_id(id.into()).with_reply_to(short("reply queue", reply_to)?),
        None => properties,
    };
    Ok(Envelope { exchange, key, properties })
}

/// Properties that the definition says something of, in place of the usual ones.
fn with_extras(mut properties: BasicProperties, extras: &Extras) -> Result<BasicProperties, String> {
    if let Some(content_type) = &extras.content_type {
        properties = properties.with_content_type(short("content type", content_type)?);
    }
    if let Some(kind) = &extras.kind {
        properties = properties.with_type(short("type", kind)?);
    }
    if let Some(priority) = extras.priority {
        properties = properties.with_priority(priority);
    }
    if let Some(expires) = extras.expires {
        properties = properties.with_expiration(short("expiration", &expires.as_millis().to_string())?);
    }
    Ok(properties)
}

/// A value of a header, with the type that it has in JSON.
///
/// # Errors
/// AMQP cannot carry it as it is.
fn amqp_value(value: &Value, depth: usize) -> Result<AMQPValue, &'static str> {
    let within = || depth.checked_sub(1).ok_or(" nests too deep");
    Ok(match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(flag) => AMQPValue::Boolean(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => AMQPValue::LongLongInt(whole),
            (None, Some(real)) if !number.is_u64() => AMQPValue::Double(real),
            _ => return Err(" holds a number of more than 64 bits: send it as a text"),
        },
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(items) => {
            let depth = within()?;
            let items: Result<Vec<_>, _> = items.iter().map(|item| amqp_value(item, depth)).collect();
            AMQPValue::FieldArray(items?.into())
        }
        Value::Object(fields) => {
            let (depth, mut table) = (within()?, FieldTable::default());
            for (name, value) in fields {
                let name =
                    ShortString::try_new(name.as_str()).map_err(|_| " has a name of more than 255 bytes")?;
                table.insert(name, amqp_value(value, depth)?);
            }
            AMQPValue::FieldTable(table)
        }
    })
}

/// A string that AMQP limits to 255 bytes.
pub(crate) fn short(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text).map_err(|_| format!("{what} is longer than 255 bytes: {text:?}"))
}

/// Arguments of a declaration.
pub(crate) fn table(arguments: &Map<String, Value>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Value::Number(number) => AMQPValue::LongLongInt(number.as_i64().unwrap_or(i64::MAX)),
            Value::String(text) => AMQPValue::LongString(text.as_str().into()),
            Value::Bool(flag) => AMQPValue::Boolean(*flag),
            other => AMQPValue::LongString(other.to_string().into()),
        };
        table.insert(name.as_str().into(), value);
    }
    table
}

/// Headers in their JSON form, as far as they are kept, and what is wrong if that is not all of them.
fn headers(table: &FieldTable) -> (Map<String, Value>, Option<String>) {
    let mut room = Room { bytes: MAX_HEADER_BYTES, excess: None };
    let headers = members(table, MAX_DEPTH, &mut room);
    (headers, room.excess)
}

/// What may still be kept of a message's headers.
struct Room {
    bytes: usize,
    excess: Option<String>,
}

impl Room {
    /// Takes `bytes`; false, and nothing taken, if they are more than there is.
    fn take(&mut self, bytes: usize) -> bool {
        let rest = self.bytes.checked_sub(bytes);
        if rest.is_none() {
            self.excess.get_or_insert_with(|| format!("hold more than {MAX_HEADER_BYTES} bytes"));
        }
        self.bytes = rest.unwrap_or(self.bytes);
        rest.is_some()
    }
}

fn members(table: &FieldTable, depth: usize, room: &mut Room) -> Map<String, Value> {
    let kept = table.into_iter().map_while(|(name, value)| {
        room.take(name.as_str().len()).then(|| (name.as_str().to_owned(), json_value(value, depth, room)))
    });
    kept.collect()
}

fn json_value(value: &AMQPValue, depth: usize, room: &mut Room) -> Value {
    if !room.take(1) {
        return Value::Null;
    }
    match value {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!(value),
        AMQPValue::ShortShortUInt(value) => json!(value),
        AMQPValue::ShortInt(value) => json!(value),
        AMQPValue::ShortUInt(value) => json!(value),
        AMQPValue::LongInt(value) => json!(value),
        AMQPValue::LongUInt(value) => json!(value),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::DecimalValue(value) => {
            let digits = number::of_text(&format!("{}e-{}", value.value, value.scale));
            let plain = digits.and_then(|digits| number::of_text(&number::canonical(&digits)));
            plain.map_or(Value::Null, Value::Number)
        }
        AMQPValue::Timestamp(secs) => json!(secs),
        AMQPValue::ShortString(text) => string(text.as_str().as_bytes(), room),
        AMQPValue::LongString(text) => string(text.as_bytes(), room),
        AMQPValue::ByteArray(bytes) => string(bytes.as_slice(), room),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) if depth == 0 => {
            room.excess.get_or_insert_with(|| format!("nest deeper than {MAX_DEPTH} levels"));
            Value::Null
        }
        AMQPValue::FieldArray(array) => {
            array.as_slice().iter().map(|value| json_value(value, depth - 1, room)).collect()
        }
        AMQPValue::FieldTable(table) => Value::Object(members(table, depth - 1, room)),
        AMQPValue::Void => Value::Null,
    }
}

fn string(bytes: &[u8], room: &mut Room) -> Value {
    if room.take(bytes.len()) { String::from_utf8_lossy(bytes).into() } else { Value::Null }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lapin::types::{DecimalValue, FieldArray};

    use super::*;
    use crate::saga::correlation::{Asked, Sealer};
    use crate::saga::id::{InstanceId, MessageId, Phase, StoreId};
    use crate::saga::message::{Header, Headers, Origin, Part};
    use crate::saga::time::Timestamp;

    fn table_of(values: Vec<(&str, AMQPValue)>) -> FieldTable {
        let entries: BTreeMap<_, _> = values.into_iter().map(|(name, value)| (name.into(), value)).collect();
        entries.into()
    }

    fn every_header(instance: InstanceId) -> Headers {
        let mut headers = Headers::default();
        headers.put("x-saga-id", Header::Instance(instance));
        headers.put("x-saga-command-id", Header::Message(MessageId::notice(StoreId::default(), instance, 0)));
        headers.put("x-saga-phase", Header::Phase(Phase::Compensation));
        headers.put("x-saga-attempt", Header::Number(7));
        headers.put("x-saga-deadline", Header::Time(Timestamp(0)));
        headers.put("x-saga-name", Header::Text("order".to_owned()));
        headers
    }

    fn message() -> Outgoing {
        let instance = InstanceId::new("order", "A-1");
        Outgoing {
            origin: Origin { instance, part: Part::Notice(0) },
            exchange: "orders".into(),
            key: "order.ship".into(),
            message_id: MessageId::attempt(StoreId::default(), instance, "ship", Phase::Action, 1),
            wants_reply: true,
            correlation: Some(
                Sealer::new([1; 32])
                    .issue(Asked { instance, step: 0, phase: Phase::Action, attempt: 1 }, Timestamp(0)),
            ),
            timestamp: Timestamp(1_767_323_045_678),
            headers: every_header(instance),
            body: b"{}".to_vec(),
            extras: None,
            repeated: false,
        }
    }

    #[test]
    fn headers_of_every_type_have_a_json_form() {
        let nested = table_of(vec![("reason", AMQPValue::LongString("expired".into()))]);
        let table = table_of(vec![
            ("array", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(nested)]))),
            ("bytes", AMQPValue::ByteArray(b"ab\xff".to_vec().into())),
            ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1250 })),
            ("flag", AMQPValue::Boolean(true)),
            ("nan", AMQPValue::Double(f64::NAN)),
            ("number", AMQPValue::LongLongInt(-5)),
            ("time", AMQPValue::Timestamp(7)),
            ("void", AMQPValue::Void),
        ]);
        let expected = json!({
            "array": [{"reason": "expired"}], "bytes": "ab\u{fffd}", "decimal": 12.5, "flag": true,
            "nan": null, "number": -5, "time": 7, "void": null,
        });
        assert_eq!((Value::Object(headers(&table).0), headers(&table).1), (expected, None));
    }

    #[test]
    fn headers_that_are_too_deep_or_too_large_are_told() {
        let nested = |levels| {
            (0..levels).fold(AMQPValue::Boolean(true), |inner, _| {
                AMQPValue::FieldArray(FieldArray::from(vec![inner]))
            })
        };
        assert_eq!(headers(&table_of(vec![("a", nested(MAX_DEPTH))])).1, None);
        let (kept, excess) = headers(&table_of(vec![("a", nested(1000))]));
        assert_eq!(kept["a"].to_string(), "[[[[[[[[null]]]]]]]]");
        assert_eq!(excess.unwrap(), "nest deeper than 8 levels");
        let long = AMQPValue::LongString(vec![b'x'; MAX_HEADER_BYTES].into());
        assert_eq!(headers(&table_of(vec![("b", long)])).1.unwrap(), "hold more than 65536 bytes");
    }

    #[test]
    fn commands_ask_for_an_answer_and_notices_do_not() {
        let properties = |message| outgoing(&message, "sagamq.replies").map(|sent| sent.properties);
        let command = properties(message()).unwrap();
        let short = |text: String| Some(ShortString::from(text));
        assert_eq!(command.message_id(), &short(message().message_id.to_string()));
        assert_eq!(command.correlation_id(), &message().correlation_id().and_then(short));
        assert_eq!(command.reply_to(), &Some("sagamq.replies".into()));
        assert_eq!(command.kind(), &Some("order.ship".into()));
        assert_eq!((command.delivery_mode(), command.timestamp()), (&Some(2), &Some(1_767_323_045)));
        let notice = properties(Outgoing { wants_reply: false, correlation: None, ..message() }).unwrap();
        assert_eq!((notice.correlation_id(), notice.reply_to()), (&None, &None));
    }

    #[test]
    fn every_header_is_a_text_on_the_wire() {
        let Outgoing { headers: typed, origin, .. } = message();
        let sent = outgoing(&message(), "r").unwrap().properties;
        let (texts, excess) = headers(sent.headers().as_ref().unwrap());
        let expected = json!({
            "x-saga-id": origin.instance.to_string(),
            "x-saga-command-id": MessageId::notice(StoreId::default(), origin.instance, 0).to_string(),
            "x-saga-phase": "compensation",
            "x-saga-attempt": "7",
            "x-saga-deadline": "1970-01-01T00:00:00.000Z",
            "x-saga-name": "order",
        });
        assert_eq!((Value::Object(texts), excess), (expected, None));
        assert!(typed.iter().all(|(name, value)| typed.get(name) == Some(value.to_string())));
    }

    #[test]
    fn what_the_definition_says_stands_in_place_of_the_usual() {
        let headers_of = |extras| {
            let sent = outgoing(&Outgoing { extras: Some(Box::new(extras)), ..message() }, "r").unwrap();
            let (mut texts, _) = headers(sent.properties.headers().as_ref().unwrap());
            texts.retain(|name, _| !name.starts_with("x-saga-"));
            (Value::Object(texts), sent.properties)
        };
        let header = |name: &str, value| (name.into(), value);
        let extras = Extras {
            headers: vec![
                header("tenant", json!("t-1")),
                header("retries", json!(0)),
                header("nested", json!({"limits": [null, 1.5, true]})),
                header("left_out", Value::Null),
            ],
            priority: Some(5),
            expires: Some(std::time::Duration::from_secs(60)),
            content_type: Some("application/vnd.shop+json".into()),
            kind: Some("reserve".into()),
        };
        let (extra, properties) = headers_of(extras);
        let nested = json!({"limits": [null, 1.5, true]});
        assert_eq!(extra, json!({"tenant": "t-1", "retries": 0, "nested": nested}));
        assert_eq!((properties.priority(), properties.kind()), (&Some(5), &Some("reserve".into())));
        assert_eq!(properties.expiration(), &Some("60000".into()));
        assert_eq!(properties.content_type(), &Some("application/vnd.shop+json".into()));
        assert_eq!(properties.reply_to(), &Some("r".into()));
        let (_, usual) = headers_of(Extras::default());
        assert_eq!((usual.kind(), usual.priority()), (&Some("order.ship".into()), &None));
        assert_eq!(usual.content_type(), &Some("application/json".into()));
    }

    #[test]
    fn what_amqp_cannot_carry_is_an_error_and_not_a_broken_connection() {
        let refused = |message| outgoing(&message, "r").map(|sent| sent.key).unwrap_err();
        let long_key = Outgoing { key: "k".repeat(256).into(), ..message() };
        assert!(refused(long_key).starts_with("routing key is longer"));
        let long_exchange = Outgoing { exchange: "é".repeat(128).into(), ..message() };
        assert!(refused(long_exchange).starts_with("exchange name is longer"));
        let mut headers = Headers::default();
        headers.put("traceparent", Header::Text("x".repeat(MAX_HEADER_BYTES)));
        assert!(refused(Outgoing { headers, ..message() }).starts_with("headers of"));
        let extra = |value| {
            let extras = Extras { headers: vec![("tenant".into(), value)], ..Extras::default() };
            refused(Outgoing { extras: Some(Box::new(extras)), ..message() })
        };
        assert!(extra(json!(u64::MAX)).starts_with("header \"tenant\" holds a number"));
        let deep = (0..20).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(extra(deep), "header \"tenant\" nests too deep");
        assert!(extra(json!("x".repeat(MAX_HEADER_BYTES))).starts_with("headers of"));
    }
}
