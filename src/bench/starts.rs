//! The start events, which are all of one size.

use uuid::Uuid;

use super::names::{BODY_BYTES, Names};

/// Bytes of a business key.
const KEY_BYTES: usize = 10;

/// The start events of a run.
pub(super) struct Starts {
    exchange: String,
    payload: String,
}

impl Starts {
    pub(super) fn of(names: &Names) -> Self {
        let mut starts = Self { exchange: names.exchange(), payload: String::new() };
        starts.payload = "x".repeat(BODY_BYTES - starts.body(0).len());
        starts
    }

    /// Where they are published.
    pub(super) fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The message id of the start of this saga.
    pub(super) fn id(number: u64) -> String {
        Uuid::from_u128(number.into()).to_string()
    }

    /// Its business key.
    pub(super) fn business_key(number: u64) -> String {
        format!("{number:0KEY_BYTES$}")
    }

    /// The saga that the body of any of its messages names.
    pub(super) fn number_of(body: &[u8]) -> Option<u64> {
        let key = body.strip_prefix(br#"{"order_id":""#)?.get(..KEY_BYTES)?;
        std::str::from_utf8(key).ok()?.parse().ok()
    }

    /// Its body.
    pub(super) fn body(&self, number: u64) -> String {
        format!(r#"{{"order_id":"{}","payload":"{}"}}"#, Self::business_key(number), self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_events_are_of_one_size_and_tell_their_number() {
        let starts = Starts::of(&Names { prefix: "bench-1".to_owned() });
        for number in [0, 9_999_999_999] {
            let body = starts.body(number);
            assert_eq!(body.len(), BODY_BYTES);
            let order: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(order["order_id"].as_str().unwrap().parse(), Ok(number));
            assert_eq!(Starts::number_of(body.as_bytes()), Some(number));
        }
    }
}
