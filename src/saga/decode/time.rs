//! When an event happened, in the forms in which senders tell it.

use serde_json::Value;

use super::super::time::Timestamp;

/// The year 9999 in seconds: a number from there on is in a smaller unit.
const YEAR_9999: u64 = 253_370_764_800;

/// A time as RFC 3339: a text of that form as it stands, a number of seconds or of a smaller unit as what it
/// means. Anything else is none.
pub(super) fn read(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) => {
            let at = Timestamp::parse(&text)?;
            // The parser also takes what RFC 3339 lets be agreed on, such as a blank between date and time.
            let is_usual = text.as_bytes().get(10) == Some(&b'T') && !text.ends_with('z');
            Some(if is_usual { text } else { at.to_string() })
        }
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => Some(of(whole)),
            (None, Some(decimal)) if (0.0..YEAR_9999 as f64).contains(&decimal) => {
                Some(Timestamp((decimal * 1000.0) as i64).to_string())
            }
            (None, Some(decimal)) if decimal >= 0.0 => Some(of(decimal as u64)),
            _ => None,
        },
        _ => None,
    }
}

/// A number of seconds, or of milliseconds where it cannot be seconds before the year 9999, and so on.
pub(super) fn of(number: u64) -> String {
    let ms = match number {
        0..YEAR_9999 => number * 1000,
        _ if number / 1_000 < YEAR_9999 => number,
        _ if number / 1_000_000 < YEAR_9999 => number / 1_000,
        _ => number / 1_000_000,
    };
    Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)).to_string()
}
