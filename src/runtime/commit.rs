//! Commits, and where they are done.
//!
//! On the loop's own thread, where they are small and the disk is quick: to hand one over to another thread, and to
//! hear of its end, is two more times that a message waits for a core, and on a busy machine that is longer than the
//! commit. But nothing is heard meanwhile, so a disk that has been slow gets its commits from another thread for a
//! while, as large ones do: the loop goes on then, and the next batch gathers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::{Askers, RuntimeError};
use crate::engine::Gathered;
use crate::fault::{self, Bug};
use crate::metric;
use crate::store::{Store, StoreError};

/// From when on a commit is slow.
const SLOW: Duration = Duration::from_millis(10);
/// How long commits are done elsewhere after a slow one, at least.
const AWAY: Duration = Duration::from_secs(1);
/// The same, as a multiple of what that one took: most of the time, the loop can be heard and its timers fire.
const AWAY_TIMES: u32 = 10;

/// A commit that is done, with or without success.
pub(super) struct Committed {
    pub(super) store: Store,
    pub(super) gathered: Gathered,
    pub(super) result: Result<(), StoreError>,
    pub(super) took: Duration,
}

/// A commit under way on another thread, and what waits for it.
pub(super) struct Committing {
    pub(super) task: JoinHandle<Result<Committed, RuntimeError>>,
    /// How many messages it is to release.
    pub(super) outgoing: usize,
    pub(super) askers: Askers,
}

/// Where commits are done.
pub(super) struct Place {
    away_until: Instant,
}

/// Commits what was gathered, here and now.
///
/// # Errors
/// It panicked.
pub(super) fn commit(mut store: Store, mut gathered: Gathered) -> Result<Committed, RuntimeError> {
    let begun = Instant::now();
    let committed = catch_unwind(AssertUnwindSafe(move || {
        let result = store.commit(std::mem::take(&mut gathered.batch));
        Committed { store, gathered, result, took: begun.elapsed() }
    }));
    let committed = committed.map_err(|_| RuntimeError::Panicked)?;
    counter!(metric::COMMITS).increment(1);
    histogram!(metric::COMMIT_SECONDS).record(committed.took.as_secs_f64());
    histogram!(metric::BATCH_INPUTS).record(committed.gathered.inputs as f64);
    Ok(committed)
}

impl Committing {
    pub(super) fn start(store: Store, gathered: Gathered, askers: Askers) -> Self {
        let outgoing = gathered.release.outgoing.len();
        Self { task: spawn_blocking(move || commit(store, gathered)), outgoing, askers }
    }
}

impl Place {
    pub(super) fn new() -> Self {
        Self { away_until: Instant::now() }
    }

    /// Whether this is to be committed on the spot.
    pub(super) fn suits(&self, gathered: &Gathered, now: Instant) -> bool {
        // What goes out too early has to have the time to go out.
        let is_early = [Bug::AckBeforeCommit, Bug::PublishBeforeCommit].into_iter().any(fault::planted);
        gathered.is_small() && now >= self.away_until && !is_early
    }

    /// Notes how long a commit took; true if that was slow.
    pub(super) fn note(&mut self, took: Duration, now: Instant) -> bool {
        let is_slow = took >= SLOW;
        if is_slow {
            self.away_until = now + AWAY.max(took.saturating_mul(AWAY_TIMES));
        }
        is_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_was_slow_gets_its_commits_from_another_thread_for_ten_times_as_long() {
        let (mut place, small) = (Place::new(), Gathered::default());
        let now = Instant::now();
        place.note(Duration::from_millis(9), now);
        assert!(place.suits(&small, now));
        for (took, away) in [(10, 1_000), (500, 5_000)] {
            place.note(Duration::from_millis(took), now);
            assert!(!place.suits(&small, now + Duration::from_millis(away - 1)));
            assert!(place.suits(&small, now + Duration::from_millis(away)));
        }
    }
}
