//! Checkpoints: what moves from the journal to the tables, a little with each commit.
//!
//! An instance moves once it has ended, together with others, so that most histories are written to the
//! tables once and as a whole. Where an instance does not end for long, it moves as it is, so that the
//! journal, and with it the memtable and the time of a start, stays bounded.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::memtable::{Memtable, Recent};
use super::{keys, record, runs, table};
use crate::saga::id::InstanceId;

/// Instances that move together, in one run.
const TOGETHER: usize = 1024;
/// Bytes that move in a commit at most, but for the last instance.
const BYTES: usize = 512 * 1024;

/// When a checkpoint begins, and how fast it goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Instances that have ended, and wait to move together.
    pub(super) ended: usize,
    /// Bytes in the journal, beyond which the oldest instances move, ended or not.
    pub(super) bytes: usize,
    /// Instances that move in a commit, and records of the journal that are removed, beside two for each
    /// change in it.
    pub(super) pace: usize,
}

impl Limits {
    /// For a disk.
    pub(super) const DISK: Self = Self { ended: TOGETHER, bytes: 32 << 20, pace: 8 };
    /// For a simulation, so that short histories have checkpoints as well.
    pub(super) const SIMULATED: Self = Self { ended: 4, bytes: 16 << 10, pace: 2 };
    /// To move everything.
    pub(super) const NONE: Self = Self { ended: 1, bytes: 0, pace: TOGETHER };
}

/// The instances that move next.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    due: VecDeque<Due>,
}

#[derive(Debug)]
struct Due {
    id: InstanceId,
    /// Whether its messages are in a run.
    in_run: bool,
}

/// What moves in one commit.
#[derive(Debug)]
pub(super) struct Moved {
    /// Those that the memtable need not keep.
    pub(super) instances: BTreeSet<InstanceId>,
    /// How many of the oldest records of the journal are removed.
    pub(super) segments: usize,
    runs: Range<u64>,
}

impl Checkpoints {
    /// The instances that a checkpoint is to begin with, if it is time for one.
    pub(super) fn choose(&self, memtable: &mut Memtable, limits: Limits) -> Vec<InstanceId> {
        if !self.due.is_empty() {
            Vec::new()
        } else if memtable.ended() >= limits.ended {
            memtable.take_ended(TOGETHER)
        } else if memtable.journal_bytes() > limits.bytes {
            memtable.oldest(TOGETHER)
        } else {
            Vec::new()
        }
    }

    /// Adds to `writes` what moves in a commit, as many instances as `pace` says, and begins with what was
    /// chosen. Those that are `leaving`, because the commit removes them, move nowhere. Once all is durable,
    /// the memtable has to [forget](Moved::forget) both.
    ///
    /// # Errors
    /// The disk fails, or the tables are damaged.
    pub(super) fn go_on(
        &mut self,
        writes: &mut Writes,
        disk: &Disk,
        memtable: &Memtable,
        chosen: Vec<InstanceId>,
        leaving: BTreeSet<InstanceId>,
        pace: usize,
    ) -> Result<Moved, StoreError> {
        let chosen = chosen.into_iter().filter(|id| !leaving.contains(id));
        let runs = self.begin(writes, disk, memtable, chosen)?;
        let mut moved = Moved { runs, instances: leaving, segments: 0 };
        let (mut bytes, room) = (0, moved.instances.len() + pace);
        while moved.instances.len() < room
            && bytes < BYTES
            && let Some(Due { id, in_run }) = self.due.pop_front()
        {
            let Some(recent) = memtable.get(id).filter(|_| !moved.instances.contains(&id)) else { continue };
            move_instance(writes, disk, memtable, id, recent, in_run)?;
            moved.instances.insert(id);
            bytes += recent.bytes();
        }
        for segment in memtable.superfluous(&moved.instances).take(pace) {
            record::remove_known(writes, &keys::journal(segment.commit), segment.further_chunks);
            moved.segments += 1;
        }
        Ok(moved)
    }

    /// Has these instances move next; writes the run of those that have ended.
    fn begin(
        &mut self,
        writes: &mut Writes,
        disk: &Disk,
        memtable: &Memtable,
        chosen: impl Iterator<Item = InstanceId>,
    ) -> Result<Range<u64>, StoreError> {
        let mut ended = Vec::new();
        for id in chosen {
            let Some(recent) = memtable.get(id) else { continue };
            let in_run = recent.head.has_ended();
            if in_run {
                ended.extend(memtable.correlations_of(recent));
            }
            self.due.push_back(Due { id, in_run });
        }
        runs::put(writes, disk, memtable.runs.clone(), ended)
    }
}

impl Moved {
    /// Has the memtable forget what moved.
    pub(super) fn forget(self, memtable: &mut Memtable) {
        self.instances.into_iter().for_each(|id| memtable.remove(id));
        memtable.drop_segments(self.segments);
        memtable.runs = self.runs;
    }
}

fn move_instance(
    writes: &mut Writes,
    disk: &Disk,
    memtable: &Memtable,
    id: InstanceId,
    recent: &Recent,
    in_run: bool,
) -> Result<(), StoreError> {
    table::put(writes, disk, id, &recent.head, recent.first, &recent.entries)?;
    if !in_run {
        for (message, correlation) in memtable.correlations_of(recent) {
            record::insert(writes, &keys::correlation(message), &correlation.to_bytes());
        }
    }
    Ok(())
}
