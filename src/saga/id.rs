//! Identities: who an instance is, and what each of its messages is called.
//!
//! All ids are UUIDv5, so they are functions of what they name. Nothing random is stored, a
//! restart derives the same ids again, and a repeated start finds the instance that it started
//! before.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The namespace of every id that sagamq derives. Changing it would orphan every stored instance.
const NAMESPACE: Uuid = Uuid::from_u128(0x5ba4_3f2e_91c7_5d08_b6ea_7c1d_0f94_a263);

/// One run of a saga, named by the saga and the business key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Uuid);

impl InstanceId {
    /// The id of the instance of `saga` for `business_key`. It does not depend on the version, so
    /// a business key is unique per saga whatever version started it.
    pub fn new(saga: &str, business_key: &str) -> Self {
        Self(derive(&[saga.as_bytes(), business_key.as_bytes()]))
    }

    /// The raw bytes, as they stand in store keys.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads an id back from the bytes of a store key.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

/// The store that an instance began in. It is a part of the ids of its messages, so that two deployments never
/// send a participant the same one.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreId(Uuid);

impl StoreId {
    /// One that no other store has.
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }

    /// One for simulations, in which nothing may be random.
    pub const fn simulated() -> Self {
        Self(Uuid::from_u128(1))
    }

    /// Whether it names no store.
    pub fn is_nil(&self) -> bool {
        self.0.is_nil()
    }
}

/// An event as far as it must count once: two that are the same have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventKey(Uuid);

impl EventKey {
    /// The key over parts that tell events apart.
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(derive(parts))
    }
}

/// One message of an instance: a command's attempt, or a notice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(Uuid);

impl MessageId {
    /// The id of attempt `attempt` (from 1) of a step's command in `phase`.
    ///
    /// The id of the first attempt is also the **command id** (`x-saga-command-id`), which stays
    /// the same over attempts and restarts.
    pub fn attempt(store: StoreId, instance: InstanceId, step: &str, phase: Phase, attempt: u32) -> Self {
        Self(derive(&[
            store.0.as_bytes(),
            instance.as_bytes(),
            step.as_bytes(),
            phase.as_str().as_bytes(),
            &attempt.to_be_bytes(),
        ]))
    }

    /// The id of the event that tells how an instance ended or that it is parked. `ordinal` tells
    /// several notices of one instance apart.
    pub fn notice(store: StoreId, instance: InstanceId, ordinal: usize) -> Self {
        Self(derive(&[store.0.as_bytes(), instance.as_bytes(), b"notice", &(ordinal as u64).to_be_bytes()]))
    }

    /// Reads an id back from the bytes of a store key.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Parses a message id, such as an event carries as `x-saga-command-id`.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// The raw bytes, as they stand in store keys.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// Whether a step is being done or undone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The step's own command.
    Action,
    /// The command that undoes the step.
    Compensation,
}

impl Phase {
    /// Both, in their order.
    pub const BOTH: [Self; 2] = [Self::Action, Self::Compensation];

    /// The phase as it stands in the header `x-saga-phase`.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Action => "action",
            Phase::Compensation => "compensation",
        }
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for InstanceId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

/// UUIDv5 over length-prefixed parts, so that no two lists of parts are the same bytes.
fn derive(parts: &[&[u8]]) -> Uuid {
    let mut name = Vec::with_capacity(64);
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId::simulated();

    #[test]
    fn ids_are_the_same_in_every_process() {
        let instance = InstanceId::new("order", "A-1");
        assert_eq!(instance, InstanceId::new("order", "A-1"));
        let first = MessageId::attempt(STORE, instance, "ship", Phase::Action, 1);
        assert_eq!(first, MessageId::attempt(STORE, instance, "ship", Phase::Action, 1));
        assert_eq!(MessageId::parse(&first.to_string()), Some(first));
    }

    #[test]
    fn no_two_names_share_an_id() {
        assert_ne!(InstanceId::new("ab", "c"), InstanceId::new("a", "bc"));
        let instance = InstanceId::new("order", "A-1");
        let ids = [
            MessageId::attempt(STORE, instance, "ship", Phase::Action, 1),
            MessageId::attempt(STORE, instance, "ship", Phase::Action, 2),
            MessageId::attempt(STORE, instance, "ship", Phase::Compensation, 1),
            MessageId::attempt(STORE, instance, "shi", Phase::Action, 1),
            MessageId::notice(STORE, instance, 0),
            MessageId::notice(STORE, instance, 1),
            MessageId::attempt(StoreId::default(), instance, "ship", Phase::Action, 1),
            MessageId::notice(StoreId::default(), instance, 0),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
