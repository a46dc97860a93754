//! Decoding: what the broker handed over becomes a [`Message`], or is poison for good.
//!
//! Recognised in this order: CloudEvents 1.0 in structured and in binary form, the event envelope,
//! any other JSON. Whoever sends needs no library of ours. What is not read is refused by name.

mod body;
mod cloud_event;
mod time;

use serde_json::{Map, Value};

use super::correlation::Correlation;
use super::message::{APP_ID, Message, Poison, RawMessage, header};
use crate::fault::{self, Bug};
use crate::number;

/// Decodes a message whose body has at most `limit` bytes, also unpacked. An empty body is `null`, so that a
/// reply may consist of headers alone.
///
/// # Errors
/// The message can never be understood, however often it is delivered.
pub fn decode(mut raw: RawMessage, limit: usize) -> Result<Message, Poison> {
    let body = read(&mut raw, limit)?;
    Ok(recognise(raw, body))
}

/// The first half of [`decode`]: unpacks the body in place, and reads it, if the message can be understood.
///
/// # Errors
/// Those of [`decode`].
pub fn read(raw: &mut RawMessage, limit: usize) -> Result<Value, Poison> {
    if let Some(excess) = &raw.excess {
        return Err(Poison::Headers(excess.clone()));
    }
    if raw.body.len() > limit {
        return Err(Poison::TooLarge { size: raw.body.len(), limit });
    }
    body::unpack(raw, limit)?;
    let mut body = body::parse(&raw.body).map_err(|poison| match (poison, &raw.content_type) {
        (Poison::NotJson(reason), Some(content_type)) if !is_json(content_type) => {
            let content_type: String = content_type.chars().take(100).collect();
            Poison::NotJson(format!("{reason}; its content type is {content_type:?}"))
        }
        (poison, _) => poison,
    })?;
    cloud_event::settle(raw, &mut body)?;
    if fault::planted(Bug::NumbersRounded) {
        round(&mut body);
    }
    Ok(body)
}

/// Takes every number for a double: the bug that [`Bug::NumbersRounded`] plants.
fn round(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(rounded) = number.as_f64().and_then(number::of_double) {
                *number = rounded;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Object(fields) => fields.values_mut().for_each(round),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The second half of [`decode`]: makes one form of all, with the body that was read.
pub fn recognise(raw: RawMessage, body: Value) -> Message {
    let is_command = is_command(&raw);
    let origin = first_death(&raw);
    let (content, is_cloud_event) = match body {
        Value::Object(body) if cloud_event::is_structured(&raw, &body) => (cloud_event(body), true),
        body => match cloud_event::binary_attributes(&raw.headers) {
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
        correlation_id: said(raw.correlation_id),
        user: said(raw.user_id),
        is_command,
        is_cloud_event,
        size: raw.body.len(),
    }
}

/// Whether it is a command of an orchestrator: sent by one, with a correlation of ours, and of the type that is its
/// key, or with its key in a header where the definition gave it another type. An answer that echoes a command's
/// properties differs in one of these.
fn is_command(raw: &RawMessage) -> bool {
    raw.headers.contains_key("x-saga-phase")
        && header(&raw.headers, "x-saga-outcome").is_none()
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

/// The media type of a content type, without its parameters.
fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Whether a content type promises JSON.
fn is_json(content_type: &str) -> bool {
    let media_type = media_type(content_type).to_ascii_lowercase();
    let subtype = media_type.split_once('/').map_or(&*media_type, |(_, subtype)| subtype);
    subtype == "json" || subtype.ends_with("+json")
}

/// A CloudEvent of which `attributes` holds everything, in the structured form the data too.
fn cloud_event(mut attributes: Map<String, Value>) -> Content {
    Content {
        id: text(attributes.remove("id")),
        kind: text(attributes.remove("type")),
        source: text(attributes.remove("source")),
        // In the binary form it may be an AMQP timestamp.
        time: time::read(attributes.remove("time")),
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
        time: time::read(body.remove("timestamp")),
        data: body.remove("data").unwrap_or_default(),
        metadata,
    }
}

/// Any other JSON: the body is the data as it stands, and what it does not tell is taken from the
/// AMQP properties.
fn plain(raw: &RawMessage, body: Value) -> Content {
    let field = |name: &str| body.get(name).cloned();
    Content {
        id: text(field("event_id")).or_else(|| said(raw.message_id.clone())),
        kind: text(field("event_type")).or_else(|| said(raw.kind.clone())),
        source: said(raw.app_id.clone()),
        time: time::read(field("timestamp")).or_else(|| raw.timestamp.map(time::of)),
        data: body,
        metadata: Map::new(),
    }
}

/// Ids are strings with most senders and numbers with some.
fn text(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) => said(Some(text)),
        Value::Number(number) => Some(number::canonical(&number).into_owned()),
        _ => None,
    }
}

/// What is blank says nothing: an empty id is none.
pub(crate) fn said(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests;
