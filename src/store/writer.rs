//! The store itself: opened once, committed to by one writer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::info;

use super::batch::{Batch, Removal};
use super::checkpoint::{Checkpoints, Limits};
use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::folder::Claim;
use super::identity::Identity;
use super::index::{Indexer, State};
use super::letters::Letters;
use super::memory::Memory;
use super::reader::Reader;
use super::shared::Shared;
use super::{journal, keys, record};
use crate::config::StoreConfig;
use crate::saga::id::InstanceId;
use crate::saga::time::Timestamp;

/// The one writer of a store folder. Dropping it, and all its readers, closes the folder.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// Number of the last commit.
    sequence: u64,
    /// The latest time that anything in it was recorded at.
    latest: Timestamp,
    letters: Letters,
    checkpoints: Checkpoints,
    /// What a new store writes with its first commit.
    first: Writes,
    /// How a commit failed, after which none is taken.
    poisoned: Option<String>,
}

/// The store's own record, written in every commit.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Meta {
    /// Number of the commit that wrote it.
    commit: u64,
    /// The latest time that anything in the store was recorded at.
    latest: Timestamp,
    /// The first and the last commit of which the journal has a record; zeros if it has none.
    journal: (u64, u64),
    /// Which state of the index belongs to it.
    index: State,
}

impl Store {
    /// Opens the store in a folder, which is made (mode 0700) if it is missing, and locks it.
    ///
    /// Every commit that was ever acknowledged is there, or this fails. What a crash left behind is
    /// cleaned up.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open; [`StoreError::LostTail`] or
    /// [`StoreError::HighWater`] if acknowledged commits are or may be missing;
    /// [`StoreError::Newer`] if a later version of sagamq wrote it; [`StoreError::Open`],
    /// [`StoreError::Corrupt`], [`StoreError::Io`] if it cannot be read.
    pub fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        Self::open_in(Claim::of(config)?)
    }

    /// Opens the store in a folder that is locked for it already.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in(claim: Claim) -> Result<Self, StoreError> {
        let store = Self::over(Disk::open(claim)?)?;
        info!(path = %store.disk().path().display(), commit = store.sequence, "store is open");
        Ok(store)
    }

    /// Opens the store on a simulated disk.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn simulated(memory: &Memory) -> Result<Self, StoreError> {
        Self::over(Disk::Memory(memory.clone()))
    }

    /// The latest time that anything in it was recorded at: no clock may go on from before it.
    pub fn latest(&self) -> Timestamp {
        self.latest
    }

    /// Whether there is a store in a folder. To open one that is not there makes it.
    pub fn is_in(folder: &Path) -> bool {
        folder.join("sled").is_dir()
    }

    /// Whether nothing was ever committed to it. Its [`Identity`] is on disk from the first commit on.
    pub fn is_new(&self) -> bool {
        self.sequence == 0
    }

    /// Makes its identity durable, if nothing was committed yet.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn establish(&mut self) -> Result<(), StoreError> {
        if self.is_new() { self.write(Batch::default(), Limits::NONE) } else { Ok(()) }
    }

    /// What it lies on.
    pub(super) fn disk(&self) -> &Disk {
        &self.shared.disk
    }

    /// What it shares with its readers.
    pub(super) fn into_shared(self) -> Arc<Shared> {
        self.shared
    }

    fn over(disk: Disk) -> Result<Self, StoreError> {
        let Meta { commit, latest, journal, index } =
            record::read_json(&disk, keys::META)?.unwrap_or_default();
        let mark = disk.mark();
        if commit < mark {
            return Err(StoreError::LostTail { path: disk.path().to_owned(), mark, found: commit });
        }
        disk.settle(commit)?;
        let letters = Letters::over(&disk)?;
        let mut first = Writes::default();
        let identity = Identity::of(&disk, commit, &mut first)?;
        let shared = Arc::new(Shared::over(disk, identity, journal, index)?);
        let indexer = Indexer::over(&shared.disk, &shared.memtable().index, index)?;
        let checkpoints = Checkpoints::new(indexer);
        Ok(Self { shared, sequence: commit, latest, letters, checkpoints, first, poisoned: None })
    }

    /// A reader of this store. It sees a commit once it is durable.
    pub fn reader(&self) -> Reader {
        Reader::new(self.shared.clone())
    }

    /// Commits the batch in one atomic write, one flush and one fdatasync. Once this returns,
    /// everything in it survives a power cut; until then, all of it may or nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a history does not go on where the batch believes: nothing is
    /// written. [`StoreError::Full`] and [`StoreError::Commit`] if the disk fails: nobody knows
    /// what is on it, so the store is poisoned, and every later commit is
    /// [`StoreError::Poisoned`], until it is opened again. [`StoreError::Read`] and
    /// [`StoreError::Corrupt`] if what is on it cannot be read or makes no sense.
    pub fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        if let Some(reason) = &self.poisoned {
            let path = self.shared.disk.path().to_owned();
            return Err(StoreError::Poisoned { path, reason: reason.clone() });
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.check_revisions(&batch)?;
        let limits = self.shared.limits;
        self.write(batch, limits)
    }

    /// Moves everything from the journal to the tables.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        while !self.shared.memtable().is_empty() {
            self.write(Batch::default(), Limits::NONE)?;
        }
        Ok(())
    }

    /// Writes what a batch holds, and what moves to the tables meanwhile.
    fn write(&mut self, mut batch: Batch, limits: Limits) -> Result<(), StoreError> {
        let (disk, _committing) = (&self.shared.disk, self.shared.committing());
        let sequence = self.sequence + 1;
        let latest = self.latest.max(batch.latest);
        let mut writes = std::mem::take(&mut batch.definitions);
        writes.append(&mut self.first);
        // If this commit fails, so does every later one.
        self.letters.put(&mut writes, &batch.letters);
        let pace = limits.pace(&batch, self.shared.memtable().journal_bytes());
        let chosen = self.checkpoints.choose(&mut self.shared.memtable_mut(), limits, pace);
        let memtable = self.shared.memtable();
        let moved = self.checkpoints.go_on(&mut writes, disk, &memtable, &batch.removals, chosen, pace);
        drop(memtable);
        // What it had begun is half done then.
        let moved = moved.inspect_err(|error| self.poisoned = Some(error.to_string()))?;
        let (_, previous) = self.shared.memtable().span(0);
        let (mut first, mut last) = self.shared.memtable().span(moved.segments);
        let ids: Vec<_> = moved.instances.iter().copied().collect();
        let mut written = None;
        if !batch.changes.is_empty() || !ids.is_empty() {
            let record = journal::encode(&batch, previous, &ids);
            written = Some((record.len(), record::insert(&mut writes, &keys::journal(sequence), &record)));
            last = sequence;
            first = if first == 0 { sequence } else { first };
        }
        let index = self.checkpoints.index_state();
        put_json(&mut writes, keys::META, &Meta { commit: sequence, latest, journal: (first, last), index });
        if let Err(source) = disk.persist(writes, sequence) {
            self.poisoned = Some(source.to_string());
            return Err(StoreError::commit(disk.path(), source));
        }
        // Files without a name are gone with the process: what they hold must not count.
        disk.confirm(false).inspect_err(|error| self.poisoned = Some(error.to_string()))?;
        self.sequence = sequence;
        self.latest = latest;
        let mut memtable = self.shared.memtable_mut();
        moved.forget(&mut memtable);
        if let Some((bytes, further_chunks)) = written {
            memtable.apply(sequence, batch, bytes, further_chunks);
        }
        Ok(())
    }

    /// Checks that every history goes on, or ends, where the batch believes: optimistic locking.
    fn check_revisions(&self, batch: &Batch) -> Result<(), StoreError> {
        let conflict = |instance, revision| {
            let path = self.shared.disk.path().to_owned();
            Err(StoreError::Conflict { path, instance, revision })
        };
        let mut last: HashMap<InstanceId, u64> = HashMap::with_capacity(batch.changes.len());
        for Removal { id, revision, .. } in &batch.removals {
            if self.shared.revision(*id)? != *revision || last.insert(*id, 0).is_some() {
                return conflict(*id, *revision);
            }
        }
        for change in &batch.changes {
            let before = match last.get(&change.id) {
                Some(revision) => *revision,
                None => self.shared.revision(change.id)?,
            };
            if before.checked_add(1) != Some(change.revision) {
                return conflict(change.id, change.revision);
            }
            last.insert(change.id, change.revision);
        }
        Ok(())
    }
}

/// Adds a record as JSON.
fn put_json(writes: &mut Writes, key: &[u8], record: &impl Serialize) {
    record::insert(writes, key, &record::json(record));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::fact::{Fact, HistoryEntry, Recorded, Started};
    use crate::saga::instance::Instance;
    use crate::store::DiskFault;

    fn batch(version: u32) -> Batch {
        let mut batch = Batch::default();
        batch.define("order", version, &format!("hash-{version}"), "source");
        batch
    }

    #[test]
    fn a_commit_is_one_sync_however_much_it_holds() {
        let memory = Memory::default();
        let mut store = Store::simulated(&memory).unwrap();
        store.commit(Batch::default()).unwrap();
        assert_eq!((memory.syncs(), store.sequence), (0, 0));
        let mut large = Batch::default();
        (0..500).for_each(|version| large.define("order", version, &format!("hash-{version}"), "source"));
        store.commit(large).unwrap();
        store.commit(batch(1)).unwrap();
        assert_eq!((memory.syncs(), store.sequence, memory.mark()), (2, 2, 2));
    }

    /// Has so many instances begin in each of so many commits, and adds to a batch what became of those before;
    /// checks that all is there after a restart, and returns the bytes in the journal, and those of a commit.
    fn overloaded(
        commits: usize,
        starts: usize,
        goes_on: impl Fn(&mut Batch, &mut [Instance]),
    ) -> (usize, usize) {
        let started: Started = serde_json::from_value(serde_json::json!({
            "saga": "order", "version": 1, "definition": "hash", "business_key": "A-1", "steps": [],
            "input": "x".repeat(1000),
        }))
        .unwrap();
        let memory = Memory::default();
        let mut store = Store::simulated(&memory).unwrap();
        let (mut instances, mut bytes) = (Vec::new(), 0);
        for commit in 0..commits {
            let mut batch = Batch::default();
            let before = instances.len().saturating_sub(starts);
            goes_on(&mut batch, &mut instances[before..]);
            for number in 0..starts {
                let id = InstanceId::new("order", &format!("{commit}-{number}"));
                let mut instance = Instance::begin(id, &started, Timestamp(1));
                append(&mut batch, &mut instance, Fact::Started(Box::new(started.clone())));
                instances.push(instance);
            }
            bytes = batch.bytes();
            store.commit(batch).unwrap();
        }
        let journal = store.shared.memtable().journal_bytes();
        drop(store);
        let store = Store::simulated(&memory).unwrap();
        assert_eq!(store.shared.memtable().journal_bytes(), journal);
        for instance in instances {
            let found =
                store.reader().instance(instance.id).unwrap().map(|found| (found.status, found.revision));
            assert_eq!(found, Some((instance.status, instance.revision)), "{}", instance.id);
        }
        (journal, bytes)
    }

    fn append(batch: &mut Batch, instance: &mut Instance, fact: Fact) {
        let recorded = Recorded { at: Timestamp(1), fact };
        instance.apply(&recorded);
        instance.revision += 1;
        let entry = HistoryEntry {
            revision: instance.revision,
            causation_id: None,
            user: None,
            facts: vec![recorded],
        };
        batch.save(instance, &entry);
    }

    #[test]
    fn the_journal_stays_bounded_where_large_commits_begin_instances_that_do_not_end() {
        let (journal, commit) = overloaded(40, 600, |_, _| ());
        assert!(journal < 4 * commit, "{journal} bytes after commits of {commit}");
        let (journal, commit) = overloaded(20, 3000, |_, _| ());
        assert!(journal < 4 * commit, "{journal} bytes after commits of {commit}");
    }

    #[test]
    fn the_journal_stays_bounded_where_many_end_in_each_commit_and_some_never_do() {
        let (journal, commit) = overloaded(40, 600, |batch, before| {
            for instance in before.iter_mut().skip(1) {
                append(batch, instance, Fact::Completed);
                assert!(!instance.is_open());
            }
        });
        assert!(journal < 4 * commit, "{journal} bytes after commits of {commit}");
    }

    #[test]
    fn a_failed_sync_poisons_the_store_until_it_is_opened_again() {
        let memory = Memory::default();
        let mut store = Store::simulated(&memory).unwrap();
        memory.fail_next(DiskFault::Write);
        assert!(matches!(store.commit(batch(1)), Err(StoreError::Commit { .. })));
        assert_eq!((store.sequence, memory.mark()), (0, 0));
        let error = store.commit(batch(2)).unwrap_err();
        assert!(matches!(error, StoreError::Poisoned { .. }));
        assert!(error.to_string().ends_with("stop and start again"), "{error}");
        drop(store);
        Store::simulated(&memory).unwrap().commit(batch(3)).unwrap();
    }
}
