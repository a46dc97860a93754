//! What one commit holds: the changes of any number of instances, and what came with them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::{Deserialize, Serialize};

use super::disk::Writes;
use super::keys::{self, Position};
use super::record;
use crate::saga::fact::HistoryEntry;
use crate::saga::id::{InstanceId, MessageId, Phase};
use crate::saga::instance::{Instance, Status};
use crate::saga::message::{Origin, Part};
use crate::saga::plan::DefinitionHash;
use crate::saga::time::Timestamp;

/// Changes that are committed together. Nothing in it survives anything before
/// [`Store::commit`](super::Store::commit) has returned.
#[derive(Debug, Default)]
pub struct Batch {
    pub(super) writes: Writes,
    pub(super) appends: HashMap<InstanceId, Append>,
    pub(super) letters: Vec<DeadLetter>,
    /// The latest time that anything in it was recorded at.
    pub(super) latest: Timestamp,
    bytes: usize,
}

/// The revisions of one instance that a batch appends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    /// The first one: what the store must not have yet.
    pub(super) first: u64,
    /// The last one.
    pub(super) last: u64,
    /// The first one that does not follow on the one before it.
    pub(super) astray: Option<u64>,
}

/// What the store holds of an instance before a change, as far as its views depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Where it stood.
    pub status: Status,
    /// Whether anything was still to be done for it.
    pub open: bool,
}

impl Before {
    /// What is to be known of an instance that is about to change.
    pub fn of(instance: &Instance) -> Self {
        Self { status: instance.status, open: instance.is_open() }
    }
}

/// The attempt that a message id belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// Whose command it is.
    pub instance: InstanceId,
    /// Index of the step.
    pub step: usize,
    /// Doing or undoing.
    pub phase: Phase,
    /// From 1.
    pub attempt: u32,
}

/// A message that was given up: what is kept of it beside the copy in the dead-letter queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Why, in words.
    pub reason: String,
    /// The beginning of the body, at most 512 characters; what is not UTF-8 is replaced.
    pub preview: String,
    /// Bytes in the body.
    pub size: usize,
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

    /// Adds a change of an instance: `entry` is appended to its history, its record becomes
    /// `instance`, and the views follow.
    ///
    /// `before` is what the store, or an earlier change in this batch, holds of it; `None` for an
    /// instance that starts. `entry.revision` must be the next one: the commit fails otherwise.
    pub fn save(&mut self, before: Option<Before>, instance: &Instance, entry: &HistoryEntry) {
        let id = instance.id;
        self.latest = self.latest.max(instance.updated_at);
        self.expect_next(id, entry.revision);
        self.put(&keys::entry(id, entry.revision), &record::json(entry));
        self.put(&keys::instance(id), &record::json(instance));
        let position = Position::of(instance.started_at, id);
        if before.map(|before| before.status) != Some(instance.status) {
            if let Some(before) = before {
                self.unmark(&keys::at(&keys::by_status(&instance.saga, before.status), position));
            }
            self.mark(&keys::at(&keys::by_status(&instance.saga, instance.status), position));
        }
        match (before.is_some_and(|before| before.open), instance.is_open()) {
            (false, true) => self.mark(&keys::open(id)),
            (true, false) => self.unmark(&keys::open(id)),
            (true, true) | (false, false) => {}
        }
        if before.is_none() {
            for (attribute, value) in &instance.attributes {
                self.mark(&keys::at(&keys::by_attribute(&instance.saga, attribute, value), position));
            }
        }
    }

    /// Adds what a reply to `message` is matched by.
    pub fn correlate(&mut self, message: MessageId, correlation: Correlation) {
        self.put(&keys::correlation(message), &correlation.to_bytes());
    }

    /// Adds a dead letter. Of all that were ever added, the newest
    /// [`MAX_DEAD_LETTERS`](super::MAX_DEAD_LETTERS) are kept.
    pub fn dead_letter(&mut self, letter: DeadLetter) {
        self.latest = self.latest.max(letter.at);
        self.bytes += letter.reason.len() + letter.preview.len() + 256;
        self.letters.push(letter);
    }

    /// Adds a version of a saga and its source. What is there under the same version or hash is
    /// replaced.
    pub fn define(&mut self, saga: &str, version: u32, hash: &DefinitionHash, source: &str) {
        self.put(&keys::definition(hash), source.as_bytes());
        self.put(&keys::version(saga, version), hash.as_bytes());
    }

    fn expect_next(&mut self, id: InstanceId, revision: u64) {
        match self.appends.entry(id) {
            Entry::Vacant(place) => {
                place.insert(Append { first: revision, last: revision, astray: None });
            }
            Entry::Occupied(mut place) => {
                let append = place.get_mut();
                if append.last.checked_add(1) != Some(revision) {
                    append.astray.get_or_insert(revision);
                }
                append.last = revision;
            }
        }
    }

    fn put(&mut self, key: &[u8], payload: &[u8]) {
        self.bytes += record::insert(&mut self.writes, key, payload);
    }

    fn mark(&mut self, key: &[u8]) {
        self.bytes += key.len();
        self.writes.insert(key.to_vec(), Some(Vec::new()));
    }

    fn unmark(&mut self, key: &[u8]) {
        self.bytes += key.len();
        self.writes.insert(key.to_vec(), None);
    }
}

impl Correlation {
    const LENGTH: usize = 25;

    /// What replies to a message are matched by; `None` for one that has no replies.
    pub fn of(origin: Origin) -> Option<Self> {
        match origin.part {
            Part::Attempt { step, phase, attempt } => {
                Some(Self { instance: origin.instance, step, phase, attempt })
            }
            Part::Notice(_) => None,
        }
    }

    /// The correlation as it is stored: instance, step, phase, attempt.
    pub(super) fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..16].copy_from_slice(self.instance.as_bytes());
        // No saga has 2^32 steps; if it had, its replies would be unexpected ones.
        bytes[16..20].copy_from_slice(&u32::try_from(self.step).unwrap_or(u32::MAX).to_be_bytes());
        bytes[20] = match self.phase {
            Phase::Action => b'a',
            Phase::Compensation => b'c',
        };
        bytes[21..].copy_from_slice(&self.attempt.to_be_bytes());
        bytes
    }

    /// Reads [`Correlation::to_bytes`] back.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (instance, rest) = bytes.split_first_chunk::<16>()?;
        let (step, rest) = rest.split_first_chunk::<4>()?;
        let (phase, rest) = rest.split_first()?;
        Some(Self {
            instance: InstanceId::from_bytes(*instance),
            step: usize::try_from(u32::from_be_bytes(*step)).ok()?,
            phase: match phase {
                b'a' => Phase::Action,
                b'c' => Phase::Compensation,
                _ => return None,
            },
            attempt: u32::from_be_bytes(rest.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_come_back_from_their_bytes() {
        for phase in [Phase::Action, Phase::Compensation] {
            let instance = InstanceId::new("order", "A-1");
            let correlation = Correlation { instance, step: 513, phase, attempt: u32::MAX };
            let bytes = correlation.to_bytes();
            assert_eq!(Correlation::from_bytes(&bytes), Some(correlation));
            assert_eq!(Correlation::from_bytes(&bytes[1..]), None);
        }
    }
}
