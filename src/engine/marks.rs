//! Marks: facts that only say that a message is out.
//!
//! Nothing is decided by them but that the message is not sent once more, so they are not worth a commit at once.
//! They ride with the next entry of their instance, or after a while with any commit.

use std::time::Duration;

use super::Engine;
use crate::cache::Cached;
use crate::saga::fact::{Fact, Recorded};
use crate::saga::time::Timestamp;

/// How long a mark waits for another fact of its instance to ride with, before any commit takes it along.
const DELAY: Duration = Duration::from_secs(1);
/// How long it waits at most, before there is a commit for its sake.
const PATIENCE: Duration = Duration::from_secs(2);

impl Engine {
    /// Gathers marks that have waited for long, if there is something to commit anyway.
    pub fn take_along(&mut self, now: Timestamp) {
        if !self.gathering.batch.is_empty() {
            self.store_marks_of(now - DELAY);
        }
    }

    /// Gathers marks that are not stored yet, as far as one batch holds them: for a stop.
    pub fn store_marks(&mut self) {
        self.store_marks_of(Timestamp(i64::MAX));
    }

    /// Gathers those that have waited for long, once one of them can wait no longer.
    pub(super) fn store_overdue_marks(&mut self, now: Timestamp) {
        if self.marks_due().is_some_and(|due| due <= now) {
            self.store_marks_of(now - DELAY);
        }
    }

    /// When a mark can wait no longer.
    pub(super) fn marks_due(&self) -> Option<Timestamp> {
        self.marked.front().map(|(since, _)| *since + PATIENCE)
    }

    /// Gathers marks that have waited since then or longer, as far as one batch holds them.
    fn store_marks_of(&mut self, latest: Timestamp) {
        while !self.is_full()
            && let Some((_, id)) = self.marked.front().copied().filter(|(since, _)| *since <= latest)
        {
            self.marked.pop_front();
            let Some(cached) = self.cache.get_mut(id) else { continue };
            let facts = std::mem::take(&mut cached.marks);
            if !facts.is_empty() {
                self.append(id, facts, None);
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
