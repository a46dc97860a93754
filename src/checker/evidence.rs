//! What was observed of a run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::saga::fact::HistoryEntry;
use crate::saga::instance::Instance;
use crate::saga::plan::{DefinitionHash, Plan};
use crate::saga::time::Timestamp;
use crate::store::DeadLetter;

/// Everything that was observed of a run, by others than the orchestrator wherever possible.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Definitions of all instances.
    pub plans: HashMap<DefinitionHash, Arc<Plan>>,
    /// Events that the broker accepted (confirmed) from the outside.
    pub placed: Vec<Placed>,
    /// What a tap bound to all exchanges saw of the orchestrator, in its order. What has no header
    /// `x-saga-id`, or is an answer, is not the orchestrator's and does not count.
    pub messages: Vec<Seen>,
    /// Ledgers of the participants, each in its order.
    pub entries: Vec<Entry>,
    /// What the orchestrator settled, in the order on the wire; empty where nobody looked.
    pub acks: Vec<Acked>,
    /// The instances in the store.
    pub instances: Vec<Observed>,
    /// The dead letters in the store.
    pub letters: Vec<DeadLetter>,
    /// Messages in the dead-letter queue.
    pub dead: Vec<Dead>,
    /// What was injected, by kind.
    pub faults: BTreeMap<String, u64>,
    /// The longest time from the end of a fault to work as usual.
    pub slowest_recovery: Option<Duration>,
    /// Index into `entries` at which earlier inputs were delivered once more: nothing may be booked
    /// from there on.
    pub replayed_at: Option<usize>,
}

/// An event that was placed from the outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// Its AMQP `message_id`. An event that has an id of its own in its body must have the same there,
    /// because that is what the orchestrator calls it.
    pub message_id: String,
    /// What it is for. An event for several instances has a line for each.
    #[serde(flatten)]
    pub what: Placing,
    /// Whether it carries the `correlation_id` of a command of this instance. Then it answers no other one, once it
    /// has answered this.
    #[serde(default)]
    pub correlated: bool,
    /// A text that no other event holds and that each step keeps in its output which is answered by it. By that an
    /// event is known that has no id: its line has a `message_id` that was made up.
    #[serde(default)]
    pub mark: Option<String>,
    /// Numbers that it says, as they are written there. What an instance keeps of them, and sends on, it must not have
    /// changed; and of what starts it, it must keep all.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// When it was confirmed.
    #[serde(default)]
    pub at: Timestamp,
}

impl Placed {
    /// An event of which nothing but this is known.
    pub fn new(message_id: impl Into<String>, what: Placing, at: Timestamp) -> Self {
        let (message_id, mark, numbers) = (message_id.into(), None, Vec::new());
        Self { message_id, what, correlated: false, mark, numbers, at }
    }
}

/// What an event is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Placing {
    /// It starts an instance.
    Start {
        /// Name of the saga.
        saga: String,
        /// Names the instance in its saga.
        business_key: String,
    },
    /// It cancels an instance.
    Cancel {
        /// Name of the saga.
        saga: String,
        /// Names the instance in its saga.
        business_key: String,
    },
    /// It answers a step of an instance, perhaps before that step has its turn.
    Answer {
        /// Name of the saga.
        saga: String,
        /// Names the instance in its saga.
        business_key: String,
    },
    /// It can never be understood, whoever reads it.
    Garbage,
    /// An answer that somebody made up: with a `correlation_id` that was changed, or is of another store, or with
    /// nothing but an `x-saga-outcome` to show.
    Forged,
}

impl Placing {
    /// The instance that it is for: its saga and its business key.
    pub fn instance(&self) -> Option<(&str, &str)> {
        match self {
            Self::Start { saga, business_key }
            | Self::Cancel { saga, business_key }
            | Self::Answer { saga, business_key } => Some((saga, business_key)),
            Self::Garbage | Self::Forged => None,
        }
    }
}

/// A message that a tap saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Property `message_id`.
    pub message_id: String,
    /// Exchange that it was published to.
    pub exchange: String,
    /// Routing key.
    pub key: String,
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: String,
    /// When it was seen.
    #[serde(default)]
    pub at: Timestamp,
}

/// One line of a participant's ledger. Further fields do not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Who keeps the ledger.
    #[serde(default)]
    pub participant: String,
    /// The command that is settled: the header `x-saga-command-id`.
    pub command_id: String,
    /// The command that this one undid.
    #[serde(default)]
    pub compensates: Option<String>,
    /// Amounts by account; empty where nothing was booked, as with a refusal or an undo of nothing.
    #[serde(default)]
    pub effect: BTreeMap<String, i64>,
    /// What was answered: `"success"`, `"failure"` or another word, or an object whose only field is that
    /// word.
    #[serde(default)]
    pub answer: Value,
    /// When it was written.
    #[serde(default)]
    pub at: Timestamp,
}

impl Entry {
    /// Whether the command was refused.
    pub fn is_refusal(&self) -> bool {
        self.answer == "failure" || self.answer.get("failure").is_some()
    }

    /// Whether it changes anything.
    pub fn is_booked(&self) -> bool {
        self.effect.values().any(|amount| *amount != 0)
    }
}

/// A delivery that the orchestrator settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acked {
    /// The queue that it came from.
    pub queue: String,
    /// Property `message_id` of the delivery. The id of a reply is judged where it names the command
    /// that it answers: where it holds that command's `message_id` and something else, such as
    /// `reply-<message_id>`.
    #[serde(default)]
    pub message_id: Option<String>,
    /// How it was settled.
    pub verdict: Settled,
    /// The store of the orchestrator that settled it, or any name of it, where several may have.
    #[serde(default)]
    pub by: Option<String>,
    /// When it was settled.
    #[serde(default)]
    pub at: Timestamp,
}

/// How a delivery was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// Done.
    Acked,
    /// Given up, for the dead-letter queue.
    Rejected,
}

/// An instance in the store.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its record.
    pub instance: Instance,
    /// Its history.
    pub history: Vec<HistoryEntry>,
}

/// A message in the dead-letter queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dead {
    /// Property `message_id`.
    pub message_id: String,
    /// Why the broker put it there: the `reason` of its last death in `x-death`. It is `rejected` where the
    /// orchestrator refused it.
    #[serde(default)]
    pub reason: Option<String>,
    /// When it was seen there.
    #[serde(default)]
    pub at: Timestamp,
}
