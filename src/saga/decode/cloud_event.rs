//! CloudEvents 1.0: how they are recognised, and their data where it is not plain JSON.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::super::message::{Poison, RawMessage};
use super::{body, is_json, media_type};

/// What a CloudEvent must say of itself.
const REQUIRED_ATTRIBUTES: [&str; 4] = ["specversion", "id", "type", "source"];

/// How the attributes of a binary CloudEvent start; the AMQP binding knows the first two, and what
/// came through an HTTP gateway has the others.
const ATTRIBUTE_PREFIXES: [&str; 4] = ["cloudevents:", "cloudevents_", "ce-", "ce_"];

/// Base64 with padding or without it.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
/// The same in the alphabet for URLs.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Makes the data of a structured CloudEvent what it stands for.
///
/// # Errors
/// It has none that can be read, or there are several events.
pub(super) fn settle(raw: &RawMessage, body: &mut Value) -> Result<(), Poison> {
    match body {
        Value::Object(event) if is_structured(raw, event) => match encoded(event)? {
            Some(encoded) => {
                let data = decoded(event, encoded)?;
                event.insert("data".to_owned(), data);
                Ok(())
            }
            None => Ok(()),
        },
        Value::Array(items) if is_batch(raw, items) => Err(Poison::Batch),
        _ => Ok(()),
    }
}

/// Whether a body is a CloudEvent, because its content type says so, or because it has all that one must have.
pub(super) fn is_structured(raw: &RawMessage, body: &Map<String, Value>) -> bool {
    declares(raw, "application/cloudevents+json") || has_all(body)
}

/// The attributes of a binary CloudEvent without their prefix, if all that must be there are.
pub(super) fn binary_attributes(headers: &Map<String, Value>) -> Option<Map<String, Value>> {
    let attributes: Map<_, _> = headers
        .iter()
        .filter_map(|(name, value)| Some((attribute_name(name)?.to_ascii_lowercase(), value.clone())))
        .collect();
    REQUIRED_ATTRIBUTES.iter().all(|name| attributes.contains_key(*name)).then_some(attributes)
}

fn declares(raw: &RawMessage, wanted: &str) -> bool {
    let declared = raw.content_type.as_deref();
    declared.is_some_and(|content_type| media_type(content_type).eq_ignore_ascii_case(wanted))
}

/// Ids are numbers with some senders, and so is the version.
fn has_all(body: &Map<String, Value>) -> bool {
    let is_said = |name: &str| body.get(name).is_some_and(|value| value.is_string() || value.is_number());
    REQUIRED_ATTRIBUTES.iter().all(|name| is_said(name))
}

fn is_batch(raw: &RawMessage, items: &[Value]) -> bool {
    let is_event = |item: &Value| item.as_object().is_some_and(has_all);
    declares(raw, "application/cloudevents-batch+json")
        || declares(raw, "application/cloudevents+json")
        || (!items.is_empty() && items.iter().all(is_event) && binary_attributes(&raw.headers).is_none())
}

fn attribute_name(header: &str) -> Option<&str> {
    ATTRIBUTE_PREFIXES.iter().find_map(|prefix| {
        let (start, name) = header.split_at_checked(prefix.len())?;
        start.eq_ignore_ascii_case(prefix).then_some(name)
    })
}

/// Takes the data of an event that is base64, as versions 1.0 and 0.3 say so.
fn encoded(event: &mut Map<String, Value>) -> Result<Option<String>, Poison> {
    let refused = |reason: &str| Err(Poison::EventData(reason.to_owned()));
    let of_old = event.get("datacontentencoding").and_then(Value::as_str);
    let name = match of_old.is_some_and(|encoding| encoding.eq_ignore_ascii_case("base64")) {
        true if !event.contains_key("data_base64") => "data",
        _ => "data_base64",
    };
    match event.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(_)) if event.get("data").is_some_and(|data| !data.is_null()) => {
            refused("it has both data and data_base64")
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => refused(&format!("{name} is not a text")),
    }
}

/// JSON where the event says so or says nothing, text where it is text, and the base64 itself for all other
/// content.
fn decoded(event: &Map<String, Value>, encoded: String) -> Result<Value, Poison> {
    let unreadable = |reason: String| Poison::EventData(format!("data_base64 {reason}"));
    let content_type = event.get("datacontenttype").and_then(Value::as_str).unwrap_or("application/json");
    let kind = media_type(content_type).to_ascii_lowercase();
    let is_text = kind.starts_with("text/") || kind == "application/xml" || kind.ends_with("+xml");
    let compact: String = encoded.split_ascii_whitespace().collect();
    let alphabet = if compact.contains(['-', '_']) { BASE64_URL } else { BASE64 };
    let bytes = alphabet.decode(&compact).map_err(|error| unreadable(format!("is not base64: {error}")))?;
    if is_json(content_type) {
        return body::parse(&bytes).map_err(|poison| match poison {
            Poison::NotJson(reason) => unreadable(format!("is not JSON: {reason}")),
            Poison::Charset(charset) => unreadable(format!("is {charset}, send UTF-8")),
            poison => poison,
        });
    }
    if is_text {
        let text = String::from_utf8(bytes);
        return text.map(Value::String).map_err(|_| unreadable("is text that is not UTF-8".to_owned()));
    }
    Ok(Value::String(encoded))
}
