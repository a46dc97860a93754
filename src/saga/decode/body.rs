//! Bodies: from bytes, packed or not, to JSON within bounds.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use serde_json::Value;

use super::super::message::{MAX_VALUES, Poison, RawMessage};
use crate::json;

/// A byte order mark, with which some writers of UTF-8 begin.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How gzip begins, and JSON never does.
const GZIP: &[u8] = b"\x1f\x8b";

/// What people say in `content_encoding` of a body that is not packed.
const PLAIN: [&str; 10] =
    ["", "none", "identity", "utf-8", "utf8", "us-ascii", "ascii", "binary", "8bit", "7bit"];

/// A way to pack a body.
#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    /// With the frame of zlib, as it should be, or without, as some send it.
    Deflate,
}

impl Packing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }
}

/// Replaces a packed body by what it holds, which may have `limit` bytes too.
///
/// # Errors
/// It is packed in a way that is not read, or not in the way that it says, or is larger than that.
pub(super) fn unpack(raw: &mut RawMessage, limit: usize) -> Result<(), Poison> {
    let Some(packing) = packing(raw)?.filter(|_| !raw.body.is_empty()) else { return Ok(()) };
    let unpacked = match packing {
        Packing::Gzip => gunzip(&raw.body, limit),
        Packing::Deflate => inflate(&raw.body, true, limit).or_else(|_| inflate(&raw.body, false, limit)),
    };
    let unpacked =
        unpacked.map_err(|error| Poison::Packed { encoding: packing.as_str(), reason: error.to_string() })?;
    if unpacked.len() > limit {
        return Err(Poison::Bomb { size: raw.body.len(), limit });
    }
    raw.body = unpacked;
    Ok(())
}

/// How a body is packed. Some add the charset to it, as in `gzip, UTF-8`; Celery has a header of its own, and
/// means zlib by gzip.
fn packing(raw: &RawMessage) -> Result<Option<Packing>, Poison> {
    let refused = |encoding: &str| Err(Poison::Encoded(encoding.chars().take(100).collect()));
    let encoding = raw.content_encoding.as_deref().unwrap_or_default();
    let is_plain = |part: &str| PLAIN.iter().any(|name| part.eq_ignore_ascii_case(name));
    let mut parts = encoding.split([',', ':']).map(str::trim).filter(|part| !is_plain(part));
    let packing = match parts.next() {
        None => None,
        Some(_) if parts.next().is_some() => return refused(encoding),
        Some(part) if ["gzip", "x-gzip"].iter().any(|name| part.eq_ignore_ascii_case(name)) => {
            Some(Packing::Gzip)
        }
        Some(part) if ["deflate", "zlib"].iter().any(|name| part.eq_ignore_ascii_case(name)) => {
            Some(Packing::Deflate)
        }
        Some(_) => return refused(encoding),
    };
    match raw.headers.get("compression").and_then(Value::as_str) {
        Some("application/x-gzip") if packing.is_none() => Ok(Some(Packing::Deflate)),
        Some(other) if other.starts_with("application/") => refused(other),
        _ => Ok(packing),
    }
}

/// As far as one byte over the limit.
fn gunzip(body: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    // What is packed part by part has several members; anything else behind one is refused.
    MultiGzDecoder::new(body).take((limit as u64).saturating_add(1)).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

/// As far as one byte over the limit, and a little further.
fn inflate(body: &[u8], framed: bool, limit: usize) -> io::Result<Vec<u8>> {
    let mut stream = Decompress::new(framed);
    let mut unpacked = Vec::with_capacity(body.len().saturating_mul(4).min(limit).max(64));
    loop {
        let read = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
        let before = (stream.total_in(), unpacked.len());
        let rest = body.get(read..).unwrap_or_default();
        let status = stream.decompress_vec(rest, &mut unpacked, FlushDecompress::None)?;
        if status == Status::StreamEnd || unpacked.len() > limit {
            return Ok(unpacked);
        }
        if unpacked.len() == unpacked.capacity() {
            unpacked.reserve(unpacked.len().min(limit - unpacked.len() + 1));
        } else if (stream.total_in(), unpacked.len()) == before {
            return Err(io::Error::other("it ends too early"));
        }
    }
}

/// Reads JSON; nothing is null. The parser's own limit on depth holds: 128 levels.
///
/// # Errors
/// It is none, or holds too much.
pub(super) fn parse(body: &[u8]) -> Result<Value, Poison> {
    let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    if text.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    // A value takes two bytes at least, so what is not large need not be counted.
    if text.len() > 2 * MAX_VALUES && values(text) > MAX_VALUES {
        return Err(Poison::TooManyValues);
    }
    json::read(text).map_err(|error| why_not(text, &error))
}

/// How many values a JSON text has, those within others included: each beginning and each comma stands for one,
/// but for the beginning of what is empty.
fn values(text: &[u8]) -> usize {
    let (mut values, mut quoted, mut escaped) = (1, false, false);
    let mut begun = false;
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => {
                quoted = !quoted;
                begun = false;
            }
            _ if quoted => {}
            b'{' | b'[' => {
                values += 1;
                begun = true;
            }
            b'}' | b']' => {
                values -= usize::from(begun);
                begun = false;
            }
            b',' => values += 1,
            byte if byte.is_ascii_whitespace() => {}
            _ => begun = false,
        }
    }
    values
}

/// Why a text is not read.
fn why_not(text: &[u8], error: &serde_json::Error) -> Poison {
    match text {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Poison::Charset("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => Poison::Charset("UTF-16"),
        _ if text.starts_with(GZIP) => {
            Poison::NotJson("it is gzip, and has no content_encoding that says so".to_owned())
        }
        _ if error.is_data() => Poison::Unclear(error.to_string()),
        _ if str::from_utf8(text).is_err() => Poison::NotJson(format!("it is not UTF-8: {error}")),
        _ => Poison::NotJson(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(count).sum(),
            Value::Object(fields) => fields.values().map(count).sum(),
            _ => 0,
        }
    }

    #[test]
    fn values_are_counted_as_a_parser_would() {
        for text in [
            r#"1"#,
            r#" "a, [b], {\"c\": 1}, \\" "#,
            r#"[]"#,
            r#"[ ]"#,
            r#"[{ }]"#,
            r#"[[],[[]],{},""]"#,
            r#"{"a":[1,-2.5e3,true],"b,":{"c":null,"d":{}},"e":"\\\"["}"#,
        ] {
            assert_eq!(values(text.as_bytes()), count(&serde_json::from_str(text).unwrap()), "{text}");
        }
    }
}
