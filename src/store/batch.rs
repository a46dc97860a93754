//! What one commit holds: the changes of any number of instances, and what came with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::disk::Writes;
use super::index::Place;
use super::{keys, record};
use crate::saga::fact::HistoryEntry;
use crate::saga::id::InstanceId;
use crate::saga::instance::{Instance, Status};
use crate::saga::plan::DefinitionHash;
use crate::saga::time::Timestamp;

/// Changes that are committed together. Nothing in it survives anything before
/// [`Store::commit`](super::Store::commit) has returned.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Made before the changes: a removed instance may begin anew.
    pub(super) removals: Vec<Removal>,
    pub(super) changes: Vec<Change>,
    pub(super) definitions: Writes,
    pub(super) letters: Vec<DeadLetter>,
    /// The latest time that anything in it was recorded at.
    pub(super) latest: Timestamp,
    bytes: usize,
}

/// An entry that is appended to an instance's history.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) id: InstanceId,
    pub(super) revision: u64,
    /// The entry as JSON.
    pub(super) entry: Vec<u8>,
    /// The instance after it.
    pub(super) head: Head,
}

/// An instance that is to be removed, and what it has left beside its history.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    pub(super) id: InstanceId,
    /// The revision that it must have.
    pub(super) revision: u64,
    pub(super) saga: String,
    pub(super) started_at: Timestamp,
    pub(super) attributes: BTreeMap<String, String>,
}

/// What is to be known of an instance without reading its history.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) saga: Arc<str>,
    pub(super) version: u32,
    pub(super) status: Status,
    pub(super) started_at: Timestamp,
    /// Whether anything is still to be done for it.
    pub(super) open: bool,
    /// When it has to be looked at next.
    pub(super) due: Option<Timestamp>,
    /// Whether the broker has yet to confirm a message of it.
    pub(super) unconfirmed: bool,
    /// Searchable values by name, where the tables do not have them yet.
    pub(super) attributes: Box<[(String, String)]>,
}

impl Head {
    /// The head of an instance, which the tables do not have yet if it is `new`.
    pub(super) fn of(instance: &Instance, new: bool) -> Self {
        let attributes = if new { Vec::from_iter(instance.attributes.clone()) } else { Vec::new() };
        Self {
            saga: instance.saga.as_str().into(),
            version: instance.version,
            status: instance.status,
            started_at: instance.started_at,
            open: instance.is_open(),
            due: instance.next_due(),
            unconfirmed: instance.unconfirmed().next().is_some(),
            attributes: attributes.into(),
        }
    }

    /// What is known before anything is read or decided.
    pub(super) fn unknown() -> Self {
        Self {
            saga: Arc::default(),
            version: 0,
            status: Status::Running,
            started_at: Timestamp::default(),
            open: true,
            due: None,
            unconfirmed: false,
            attributes: Box::default(),
        }
    }

    /// Where the tables are to have it.
    pub(super) fn place(&self) -> Place {
        Place { saga: Arc::clone(&self.saga), started_at: self.started_at }
    }

    /// Whether nothing but repeated messages can come for it any more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.status, Status::Completed | Status::Compensated) && !self.open
    }
}

/// A message that was given up: what is kept of it beside the copy in the dead-letter queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When it was given up.
    pub at: Timestamp,
    /// The queue that it was consumed from.
    pub queue: String,
    /// Exchange that it was published to; empty for the default exchange.
    pub exchange: String,
    /// Routing key.
    pub key: String,
    /// AMQP property `message_id`.
    pub message_id: Option<String>,
    /// AMQP property `correlation_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The saga that it is for, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The business key of its instance, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_key: Option<String>,
    /// The step that it answers, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// The beginning of the body, at most 512 characters; what is not UTF-8 is replaced.
    pub preview: String,
    /// Bytes in the body.
    pub size: usize,
}

impl DeadLetter {
    /// What others like it have in common: the queue, and the beginning of the reason without what is quoted in it
    /// and without words that have digits.
    pub fn kind(&self) -> String {
        let unquoted = self.reason.split('"').step_by(2).flat_map(str::split_whitespace);
        let words = unquoted.filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
        let mut kind = self.queue.clone();
        for word in words.take(8) {
            kind.push(' ');
            kind.extend(word.chars().take(24));
        }
        kind
    }
}

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// About how many bytes a commit writes: what bounds a batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a change of an instance: `entry` is appended to its history, which makes it `instance`.
    ///
    /// `entry.revision` must be the next one: the commit fails otherwise.
    pub fn save(&mut self, instance: &Instance, entry: &HistoryEntry) {
        self.latest = self.latest.max(instance.updated_at);
        let change = Change {
            id: instance.id,
            revision: entry.revision,
            entry: record::json(entry),
            head: Head::of(instance, entry.revision == 1),
        };
        self.bytes += Change::OVERHEAD + change.entry.len();
        self.changes.push(change);
    }

    /// Has an instance removed, with all that is known of it, before anything else of the batch is done. Its
    /// business key may begin anew.
    ///
    /// It must have the revision that it had when the removal was made: the commit fails otherwise.
    pub fn remove(&mut self, removal: Removal) {
        self.bytes += removal.bytes();
        self.removals.push(removal);
    }

    /// Adds a dead letter. Of all that were ever added,
    /// [`MAX_DEAD_LETTERS`](super::MAX_DEAD_LETTERS) are kept.
    pub fn dead_letter(&mut self, letter: DeadLetter) {
        self.latest = self.latest.max(letter.at);
        self.bytes += letter.reason.len() + letter.preview.len() + 256;
        self.letters.push(letter);
    }

    /// Adds a version of a saga and its source. What is there under the same version or hash is
    /// replaced.
    pub fn define(&mut self, saga: &str, version: u32, hash: &DefinitionHash, source: &str) {
        let writes = &mut self.definitions;
        self.bytes += source.len() + hash.len();
        record::insert(writes, &keys::definition(hash), source.as_bytes());
        record::insert(writes, &keys::version(saga, version), hash.as_bytes());
    }
}

impl Removal {
    /// The removal of an instance as it is.
    pub fn of(instance: &Instance) -> Self {
        Self {
            id: instance.id,
            revision: instance.revision,
            saga: instance.saga.clone(),
            started_at: instance.started_at,
            attributes: instance.attributes.clone(),
        }
    }

    /// The instance.
    pub fn instance(&self) -> InstanceId {
        self.id
    }

    /// The revision that it must have.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// About how many bytes of keys it takes.
    fn bytes(&self) -> usize {
        512 + 64 * self.attributes.len()
    }
}

impl Change {
    /// About how many bytes it takes beside the entry.
    const OVERHEAD: usize = 64;
}
