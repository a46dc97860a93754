//! Checkpoints: what moves from the journal to the tables, a little with each commit.
//!
//! An instance moves once it has ended, together with others, so that most histories are written to the
//! tables once and as a whole. Where an instance does not end for long, it moves as it is, so that the
//! journal, and with it the memtable and the time of a start, stays bounded.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use super::batch::{Batch, Removal};
use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::index::{Index, Indexer, State};
use super::memtable::Memtable;
use super::table::Tables;
use super::{keys, record};
use crate::saga::id::InstanceId;

/// Instances that move together, in one run, unless a commit has more: so few that none is held up by writing it.
const TOGETHER: usize = 256;
/// Entries of the index that are merged for each instance that may move.
const MERGED: usize = 4;
/// Bytes that move in a commit at most, but for the last instance, beside as many as come where the journal is too
/// long.
const BYTES: usize = 512 * 1024;
/// Changes of one commit for which a checkpoint goes on in it, at most, unless the journal is too long.
const MOST_CHANGES: usize = 1024;

/// When a checkpoint begins, and how fast it goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Instances that have ended, and wait to move together.
    pub(super) ended: usize,
    /// Bytes in the journal, beyond which the oldest instances move, ended or not.
    pub(super) bytes: usize,
    /// Instances that move in a commit, and records of the journal that are removed, beside those for the
    /// changes in it.
    pub(super) pace: usize,
}

impl Limits {
    /// For a disk.
    pub(super) const DISK: Self = Self { ended: TOGETHER, bytes: 32 << 20, pace: 2 };
    /// For a simulation, so that short histories have checkpoints as well.
    pub(super) const SIMULATED: Self = Self { ended: 4, bytes: 16 << 10, pace: 2 };
    /// To move everything.
    pub(super) const NONE: Self = Self { ended: 1, bytes: 0, pace: TOGETHER };

    /// How much moves in the commit of a batch: hardly more instances than end meanwhile, since one has two
    /// changes at least, so that commits cost about the same; after a commit of very many changes, the next ones go
    /// on. Where the journal is too long, more than the batch adds to it, however much that is.
    pub(super) fn pace(&self, batch: &Batch, journal_bytes: usize) -> Pace {
        let (changes, is_too_long) = (batch.changes.len(), journal_bytes > self.bytes);
        if is_too_long {
            Pace { instances: self.pace + 2 * changes, bytes: BYTES + batch.bytes(), is_too_long }
        } else {
            Pace { instances: self.pace + changes.min(MOST_CHANGES) / 2, bytes: BYTES, is_too_long }
        }
    }
}

/// How much moves in a commit at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Instances, and as many of the records of the journal are removed.
    instances: usize,
    /// Bytes of them, but for the last one.
    bytes: usize,
    /// Whether the journal is too long.
    is_too_long: bool,
}

/// The instances that move next, and what finds those that have.
#[derive(Debug)]
pub(super) struct Checkpoints {
    due: VecDeque<InstanceId>,
    indexer: Indexer,
}

/// What moves in one commit.
#[derive(Debug)]
pub(super) struct Moved {
    /// Those that the memtable need not keep.
    pub(super) instances: BTreeSet<InstanceId>,
    /// How many of the oldest records of the journal are removed.
    pub(super) segments: usize,
    /// The index, if it has changed.
    index: Option<Arc<Index>>,
}

impl Checkpoints {
    /// With nothing to move yet.
    pub(super) fn new(indexer: Indexer) -> Self {
        Self { due: VecDeque::new(), indexer }
    }

    /// The state of the index, once all that was added to a commit is durable.
    pub(super) fn index_state(&self) -> State {
        self.indexer.state()
    }

    /// The instances that a checkpoint is to begin with, if it is time for one: where the journal is too long, the
    /// oldest, so that records can be removed from it however many others end meanwhile.
    pub(super) fn choose(&self, memtable: &mut Memtable, limits: Limits, pace: Pace) -> Vec<InstanceId> {
        let together = TOGETHER.max(pace.instances);
        if pace.is_too_long && self.due.len() < pace.instances {
            memtable.oldest(self.due.len() + together)
        } else if self.due.is_empty() && memtable.ended() >= limits.ended {
            memtable.take_ended(together)
        } else {
            Vec::new()
        }
    }

    /// Adds to `writes` what is removed and what moves in a commit, as many instances as `pace` says, and
    /// begins with what was chosen. Once all is durable, the memtable has to [forget](Moved::forget) both.
    ///
    /// # Errors
    /// The disk fails, or the tables are damaged.
    pub(super) fn go_on(
        &mut self,
        writes: &mut Writes,
        disk: &Disk,
        memtable: &Memtable,
        removals: &[Removal],
        chosen: Vec<InstanceId>,
        pace: Pace,
    ) -> Result<Moved, StoreError> {
        let tables = Tables { disk, index: &memtable.index };
        self.indexer.go_on(writes, disk, MERGED * pace.instances)?;
        self.remove(writes, tables, removals)?;
        let mut moved =
            Moved { instances: removals.iter().map(Removal::instance).collect(), segments: 0, index: None };
        // What was to move of them moves no more: under the same id, something else may begin.
        self.due.retain(|due| !moved.instances.contains(due));
        let chosen = chosen.into_iter().filter(|id| !moved.instances.contains(id));
        self.begin(writes, memtable, chosen);
        let (mut bytes, room) = (0, moved.instances.len() + pace.instances);
        while moved.instances.len() < room
            && bytes < pace.bytes
            && let Some(id) = self.due.pop_front()
        {
            let Some(recent) = memtable.get(id).filter(|_| !moved.instances.contains(&id)) else { continue };
            tables.put(writes, id, &recent.head, &recent.entries)?;
            moved.instances.insert(id);
            bytes += recent.entries.lines.len();
        }
        for segment in memtable.superfluous(&moved.instances).take(pace.instances) {
            record::remove_known(writes, &keys::journal(segment.commit), segment.further_chunks);
            moved.segments += 1;
        }
        moved.index = self.indexer.take_changed();
        Ok(moved)
    }

    /// Removes instances from the tables. Where the journal alone has one, nothing else does.
    fn remove(
        &mut self,
        writes: &mut Writes,
        tables: Tables<'_>,
        removals: &[Removal],
    ) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for removal in removals {
            if let Some(place) = tables.index.place(tables.disk, removal.id)? {
                tables.remove(writes, removal, &place)?;
                gone.push((removal.id, None));
            }
        }
        self.indexer.place(writes, gone);
        Ok(())
    }

    /// Has these instances move next; writes where they will be.
    fn begin(&mut self, writes: &mut Writes, memtable: &Memtable, chosen: impl Iterator<Item = InstanceId>) {
        let mut places = Vec::new();
        let mut seen: HashSet<_> = self.due.iter().copied().collect();
        for id in chosen {
            let Some(recent) = memtable.get(id).filter(|_| seen.insert(id)) else { continue };
            if recent.entries.first == 1 {
                places.push((id, Some(recent.head.place())));
            }
            self.due.push_back(id);
        }
        self.indexer.place(writes, places);
    }
}

impl Moved {
    /// Has the memtable forget what moved.
    pub(super) fn forget(self, memtable: &mut Memtable) {
        self.instances.into_iter().for_each(|id| memtable.remove(id));
        memtable.drop_segments(self.segments);
        if let Some(index) = self.index {
            memtable.index = index;
        }
    }
}
