//! A disk in memory, for simulations: it forgets what was not synced, and fails when it is told to.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sled::IVec;

use super::disk::Writes;
use crate::fault::{self, Bug};

/// A simulated disk. Clones are the same disk; it outlives the stores that are opened on it.
///
/// ```text
/// persist:   apply ----------> sync ----------> acknowledged
///            readers see it    a power cut leaves it
/// ```
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    /// What is seen.
    now: BTreeMap<IVec, IVec>,
    /// What a power cut leaves.
    synced: BTreeMap<IVec, IVec>,
    /// Batches that were applied and not synced, the oldest first.
    pending: Vec<Writes>,
    /// The last commit that was acknowledged.
    mark: u64,
    fault: Option<DiskFault>,
    syncs: u64,
}

/// How the next commit goes wrong. All that it says afterwards is an error; what is on the disk differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// There is no room: nothing is written.
    Full,
    /// Writing fails half way: it is seen, but not synced.
    Write,
    /// The sync fails although everything is on the disk.
    Sync,
}

impl Memory {
    /// Has the next commit fail.
    pub fn fail_next(&self, fault: DiskFault) {
        self.lock().fault = Some(fault);
    }

    /// Cuts the power: of the batches that were not synced, only the first `kept` are there afterwards.
    /// Open the store anew; the one that was open must not be used any more.
    pub fn cut(&self, kept: usize) {
        let mut contents = self.lock();
        let pending = std::mem::take(&mut contents.pending);
        for writes in pending.iter().take(kept) {
            apply(&mut contents.synced, writes);
        }
        contents.now = contents.synced.clone();
        contents.fault = None;
    }

    /// How many batches a power cut would take.
    pub fn unsynced(&self) -> usize {
        self.lock().pending.len()
    }

    /// How often it was synced.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<IVec> {
        self.lock().now.get(key).cloned()
    }

    pub(super) fn keys(&self, range: Range<Vec<u8>>) -> Vec<IVec> {
        let range = IVec::from(range.start)..IVec::from(range.end);
        self.lock().now.range(range).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn mark(&self) -> u64 {
        self.lock().mark
    }

    pub(super) fn persist(&self, writes: &Writes, commit: u64) -> io::Result<()> {
        let mut contents = self.lock();
        let fault = contents.fault.take();
        if fault == Some(DiskFault::Full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut contents.now, writes);
        contents.pending.push(writes.clone());
        if fault == Some(DiskFault::Write) {
            return Err(io::Error::other("the disk fails"));
        }
        if fault::planted(Bug::NoSync) {
            return Ok(());
        }
        for writes in std::mem::take(&mut contents.pending) {
            apply(&mut contents.synced, &writes);
        }
        contents.syncs += 1;
        if fault == Some(DiskFault::Sync) {
            return Err(io::Error::other("the disk does not say whether it is done"));
        }
        contents.mark = commit;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Every change under the lock is whole, or the simulation has ended.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(map: &mut BTreeMap<IVec, IVec>, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => map.insert(IVec::from(key.as_slice()), IVec::from(value.as_slice())),
            None => map.remove(key.as_slice()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persist(memory: &Memory, commit: u8) -> io::Result<()> {
        memory.persist(&Writes::from([(vec![b'k'], Some(vec![commit]))]), commit.into())
    }

    fn value(memory: &Memory) -> Option<u8> {
        memory.get(b"k").map(|value| value[0])
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced() {
        let memory = Memory::default();
        persist(&memory, 1).unwrap();
        memory.fail_next(DiskFault::Write);
        persist(&memory, 2).unwrap_err();
        assert_eq!((value(&memory), memory.unsynced()), (Some(2), 1));
        memory.cut(0);
        assert_eq!((value(&memory), memory.mark()), (Some(1), 1));
    }

    #[test]
    fn a_failed_sync_may_have_worked() {
        let memory = Memory::default();
        memory.fail_next(DiskFault::Sync);
        persist(&memory, 1).unwrap_err();
        memory.cut(0);
        assert_eq!((value(&memory), memory.mark()), (Some(1), 0));
    }

    #[test]
    fn a_full_disk_takes_nothing() {
        let memory = Memory::default();
        memory.fail_next(DiskFault::Full);
        assert_eq!(persist(&memory, 1).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!((value(&memory), memory.unsynced()), (None, 0));
    }
}
