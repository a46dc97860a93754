//! The JSON text of our own values, and the values of other people's JSON text.

mod strict;

use std::cell::RefCell;

use serde::{Serialize, Serializer};
use serde_json::Value;

pub(crate) use self::strict::{RESERVED, read};

/// Bytes of the buffer that a thread keeps, at most.
const KEPT: usize = 64 * 1024;

thread_local! {
    /// Text grows in here, and is copied out once its length is known: so each takes one allocation.
    static GROWING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// JSON text, without spaces.
pub(crate) fn text(value: &impl Serialize) -> Vec<u8> {
    GROWING.with_borrow_mut(|growing| {
        growing.clear();
        serde_json::to_writer(&mut *growing, value)
            .expect("our values have string keys only, so all are JSON");
        let text = growing.as_slice().to_vec();
        if growing.capacity() > KEPT {
            *growing = Vec::new();
        }
        text
    })
}

/// A JSON document as YAML.
pub(crate) fn yaml(document: &Value) -> String {
    serde_saphyr::to_string(&Plain(document)).expect("every JSON document can be written as YAML")
}

/// A value whose numbers are numbers to every format. Those of the JSON library are texts that it alone knows to be
/// numbers.
struct Plain<'a>(&'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Plain)),
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(name, value)| (name, Plain(value))))
            }
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(whole), _, _) => serializer.serialize_u64(whole),
                (_, Some(whole), _) => serializer.serialize_i64(whole),
                (_, _, Some(double)) => serializer.serialize_f64(double),
                _ => serializer.serialize_str(number.as_str()),
            },
            other => other.serialize(serializer),
        }
    }
}
