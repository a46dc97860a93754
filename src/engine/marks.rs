//! Marks: facts that only say that a message is out.
//!
//! Nothing is decided by them but that the message is not sent once more, so they are not worth a commit at once.
//! They ride with the next entry of their instance, or after a while with any commit. The last ones of an instance
//! have no such entry to wait for, and the store moves it to its tables only after them: these ride with the very
//! next commit.

use std::collections::VecDeque;
use std::time::Duration;

use super::{BATCH_BYTES, Engine};
use crate::cache::Cached;
use crate::saga::fact::{Fact, Recorded};
use crate::saga::id::InstanceId;
use crate::saga::message::Cause;
use crate::saga::time::Timestamp;

/// How long a mark waits for another fact of its instance to ride with, before any commit takes it along.
const DELAY: Duration = Duration::from_secs(1);
/// How long a mark waits at most, before there is a commit for its sake.
const PATIENCE: Duration = Duration::from_secs(2);

/// Instances with marks that are not stored yet, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Of those that go on.
    riding: VecDeque<(Timestamp, InstanceId)>,
    /// Of those that are done, or parked: no entry is to come that theirs could ride with.
    last: VecDeque<(Timestamp, InstanceId)>,
}

impl Marks {
    /// Takes in an instance that has marks since now; `last` if none are to come.
    pub(super) fn push(&mut self, id: InstanceId, last: bool, now: Timestamp) {
        let queue = if last { &mut self.last } else { &mut self.riding };
        queue.push_back((now, id));
    }

    /// When a mark can wait no longer.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        [&self.last, &self.riding]
            .into_iter()
            .filter_map(VecDeque::front)
            .map(|(since, _)| *since + PATIENCE)
            .min()
    }

    /// The next instance of which any commit takes the marks along.
    fn pop(&mut self, now: Timestamp) -> Option<InstanceId> {
        let has_waited = self.riding.front().is_some_and(|(since, _)| *since + DELAY <= now);
        let next = self.last.pop_front();
        let next = next.or_else(|| has_waited.then(|| self.riding.pop_front()).flatten());
        next.map(|(_, id)| id)
    }
}

impl Engine {
    /// Gathers marks that have waited for long, and last ones, if there is something to commit anyway.
    pub fn take_along(&mut self, now: Timestamp) {
        if !self.gathering.batch.is_empty() {
            self.gather_marks(now);
        }
    }

    /// Gathers marks that are not stored yet, as far as one batch holds them: for a stop.
    pub fn store_marks(&mut self) {
        self.gather_marks(Timestamp(i64::MAX));
    }

    /// Gathers marks once one of them can wait no longer.
    pub(super) fn store_overdue_marks(&mut self, now: Timestamp) {
        if self.marks.next_due().is_some_and(|due| due <= now) {
            self.gather_marks(now);
        }
    }

    /// Gathers marks that any commit takes along now. How many inputs the batch has does not count: where the load is
    /// high, each has as many as it may. One that is full by its bytes takes none, and a later one does.
    fn gather_marks(&mut self, now: Timestamp) {
        while self.gathering.batch.bytes() < BATCH_BYTES
            && let Some(id) = self.marks.pop(now)
        {
            let Some(cached) = self.cache.get_mut(id) else { continue };
            let facts = std::mem::take(&mut cached.marks);
            if !facts.is_empty() {
                self.append(id, facts, Cause::default());
            }
        }
    }
}

/// Takes the marks of an instance, with the facts that follow them. Most often there are none.
pub(super) fn before(cached: &mut Cached, mut facts: Vec<Recorded>) -> Vec<Recorded> {
    if cached.marks.is_empty() {
        return facts;
    }
    let mut marks = std::mem::take(&mut cached.marks);
    marks.append(&mut facts);
    marks
}

/// Whether a fact is a mark.
pub(super) fn is_mark(recorded: &Recorded) -> bool {
    matches!(recorded.fact, Fact::Published { .. } | Fact::NoticePublished { .. })
}
