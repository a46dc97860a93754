//! What a `case.yaml` may say. In it and in the definitions, `PREFIX` stands for the name of the case.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The steps of a case, in order. At the end, no command may be left that was not expected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Step {
    /// Makes an exchange, which is bound to another one if that is named.
    Exchange(Exchange),
    /// Starts the orchestrator and waits until it is ready; one that runs is killed first.
    Run,
    /// Runs a command to its end, in a folder that has the definitions in `sagas`.
    Call(Call),
    /// Publishes an event.
    Publish(Message),
    /// Takes a command, which may be answered.
    Expect(Expect),
    /// From now on, acks of the orchestrator get lost.
    LoseAcks,
    /// Ends the orchestrator's connections, and lets acks through again.
    Cut,
    /// Waits until an instance is seen so.
    Show(Show),
    /// Waits until a saga has instances of these keys, and no others.
    Instances(Instances),
    /// Waits until there are so many dead letters, the oldest first, each with this in its reason.
    DeadLetters(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    pub(crate) name: String,
    #[serde(rename = "type", default = "topic")]
    pub(crate) kind: String,
    /// Where all that comes goes on to.
    pub(crate) to: Option<String>,
    /// The key for which it goes on.
    #[serde(default = "all")]
    pub(crate) key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    pub(crate) arguments: Vec<String>,
    #[serde(default)]
    pub(crate) code: i32,
    /// What stands in what it prints.
    #[serde(default)]
    pub(crate) says: Vec<String>,
    /// What does not stand there.
    #[serde(default)]
    pub(crate) says_not: Vec<String>,
}

/// A message. Of its body, one form is given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    #[serde(default)]
    pub(crate) exchange: String,
    #[serde(default)]
    pub(crate) key: String,
    pub(crate) body: Option<Value>,
    pub(crate) text: Option<String>,
    pub(crate) base64: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) timestamp: Option<u64>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Value>,
    /// The header `x-saga-outcome`.
    pub(crate) outcome: Option<String>,
    /// The name of the command of which it has the `correlation_id`.
    pub(crate) correlation_of: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    /// The exchange that it comes to.
    pub(crate) on: String,
    pub(crate) key: String,
    /// Its body, to the byte.
    pub(crate) text: Option<String>,
    /// A name by which later steps know it.
    #[serde(rename = "as")]
    pub(crate) name: Option<String>,
    /// What its participant answers, if anything.
    pub(crate) reply: Option<Message>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Show {
    pub(crate) saga: Option<String>,
    /// Its business key.
    pub(crate) key: String,
    /// What `sagamq show --json` has of it: of a mapping the fields that are named, of a list each entry in order.
    #[serde(default)]
    pub(crate) has: Map<String, Value>,
    /// How often facts are on its history: by name, or by the reason of what changed nothing.
    #[serde(default)]
    pub(crate) history: BTreeMap<String, usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Instances {
    pub(crate) saga: String,
    /// In the order of the alphabet.
    pub(crate) keys: Vec<String>,
}

fn topic() -> String {
    "topic".to_owned()
}

fn all() -> String {
    "#".to_owned()
}
