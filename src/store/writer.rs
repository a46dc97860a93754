//! The store itself: opened once, committed to by one writer.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::info;

use super::batch::{Batch, DeadLetter};
use super::disk::Disk;
use super::error::StoreError;
use super::high_water::HighWater;
use super::reader::Reader;
use super::{keys, record};
use crate::config::StoreConfig;

/// How many dead letters are kept: the newest.
pub const MAX_DEAD_LETTERS: u64 = 10_000;

/// The one writer of a store folder. Dropping it, and all its readers, closes the folder.
#[derive(Debug)]
pub struct Store {
    disk: Arc<Disk>,
    /// sled's file, to be synced by us: sled itself does not, on Linux.
    database: File,
    high_water: HighWater,
    /// Number of the last commit.
    sequence: u64,
    /// Numbers of the dead letters that are kept.
    letters: Range<u64>,
    /// How a commit failed, after which none is taken.
    poisoned: Option<String>,
    #[cfg(test)]
    syncs: u64,
}

/// The store's own record, written in every commit.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Meta {
    /// Number of the commit that wrote it.
    commit: u64,
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
        let disk = Disk::open(config)?;
        let database = disk.database_file()?;
        let mut high_water = HighWater::open(disk.path())?;
        let Meta { commit } = record::read_json(&disk, keys::META)?.unwrap_or_default();
        if commit < high_water.mark() {
            let (path, mark) = (disk.path().to_owned(), high_water.mark());
            return Err(StoreError::LostTail { path, mark, found: commit });
        }
        high_water
            .advance(commit)
            .and_then(|()| high_water.sync())
            .and_then(|()| File::open(disk.path())?.sync_all())
            .map_err(StoreError::io("sync", disk.path()))?;
        let letters = kept_letters(&disk)?;
        info!(path = %disk.path().display(), commit, "store is open");
        Ok(Self {
            disk: Arc::new(disk),
            database,
            high_water,
            sequence: commit,
            letters,
            poisoned: None,
            #[cfg(test)]
            syncs: 0,
        })
    }

    /// A reader of this store. It sees a commit once it is applied, a moment before it is durable.
    pub fn reader(&self) -> Reader {
        Reader::new(self.disk.clone())
    }

    /// Commits the batch in one atomic write, one flush and one fdatasync. Once this returns,
    /// everything in it survives a power cut; until then, all of it may or nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a history does not go on where the batch believes: nothing is
    /// written. [`StoreError::Full`] and [`StoreError::Commit`] if the disk fails: nobody knows
    /// what is on it, so the store is poisoned, and every later commit is
    /// [`StoreError::Poisoned`], until it is opened again.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if let Some(reason) = &self.poisoned {
            return Err(StoreError::Poisoned { path: self.disk.path().to_owned(), reason: reason.clone() });
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.check_revisions(batch)?;
        let mut writes = batch.writes.clone();
        let sequence = self.sequence + 1;
        put_json(&mut writes, keys::META, &Meta { commit: sequence });
        let letters = put_letters(&mut writes, self.letters.clone(), &batch.letters);
        if let Err(source) = self.persist(writes, sequence) {
            self.poisoned = Some(source.to_string());
            return Err(StoreError::commit(self.disk.path(), source));
        }
        self.sequence = sequence;
        self.letters = letters;
        Ok(())
    }

    /// Checks that every history goes on where the batch believes: optimistic locking.
    fn check_revisions(&self, batch: &Batch) -> Result<(), StoreError> {
        for (&instance, append) in &batch.appends {
            let has = |revision| self.disk.has(&keys::entry(instance, revision));
            let follows = match append.first {
                0 => false,
                1 => true,
                first => has(first - 1)?,
            };
            let conflict = if !follows || has(append.first)? { Some(append.first) } else { append.astray };
            if let Some(revision) = conflict {
                return Err(StoreError::Conflict { path: self.disk.path().to_owned(), instance, revision });
            }
        }
        Ok(())
    }

    /// Makes `writes` durable, then notes that they are.
    fn persist(&mut self, writes: sled::Batch, sequence: u64) -> Result<(), sled::Error> {
        self.disk.sled().apply_batch(writes)?;
        self.disk.sled().flush()?;
        self.database.sync_data()?;
        #[cfg(test)]
        {
            self.syncs += 1;
        }
        Ok(self.high_water.advance(sequence)?)
    }
}

/// Finds the numbers of the dead letters in the store.
fn kept_letters(disk: &Disk) -> Result<Range<u64>, StoreError> {
    let mut letters = disk.sled().scan_prefix([keys::DEAD_LETTER]).keys();
    let number = |key: Option<Result<sled::IVec, sled::Error>>| match key {
        None => Ok(None),
        Some(key) => key.map(|key| keys::number_of(&key)).map_err(|source| disk.unreadable(source)),
    };
    let first = number(letters.next())?;
    let last = number(letters.next_back())?.or(first);
    Ok(first.unwrap_or(0)..last.map_or(0, |last| last + 1))
}

/// Adds `letters` behind those that are `kept`, and drops the oldest; tells which are kept then.
fn put_letters(writes: &mut sled::Batch, mut kept: Range<u64>, letters: &[DeadLetter]) -> Range<u64> {
    for letter in letters {
        put_json(writes, &keys::dead_letter(kept.end), letter);
        kept.end += 1;
        if kept.end - kept.start > MAX_DEAD_LETTERS {
            writes.remove(keys::dead_letter(kept.start));
            kept.start += 1;
        }
    }
    kept
}

/// Adds a record as JSON.
fn put_json(writes: &mut sled::Batch, key: &[u8], record: &impl Serialize) {
    record::insert(writes, key, &record::json(record));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &tempfile::TempDir) -> Store {
        Store::open(&StoreConfig { path: folder.path().join("store"), cache_mib: 64 }).unwrap()
    }

    fn batch(version: u32) -> Batch {
        let mut batch = Batch::default();
        batch.define("order", version, &format!("hash-{version}"), "source");
        batch
    }

    #[test]
    fn a_commit_is_one_fdatasync_however_much_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder);
        store.commit(&Batch::default()).unwrap();
        assert_eq!((store.syncs, store.sequence), (0, 0));
        let mut large = Batch::default();
        (0..500).for_each(|version| large.define("order", version, &format!("hash-{version}"), "source"));
        store.commit(&large).unwrap();
        store.commit(&batch(1)).unwrap();
        assert_eq!((store.syncs, store.sequence, store.high_water.mark()), (2, 2, 2));
    }

    #[test]
    fn a_failed_sync_poisons_the_store_until_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(&folder);
        // A device that refuses to be synced.
        store.database = File::open("/dev/null").unwrap();
        assert!(matches!(store.commit(&batch(1)), Err(StoreError::Commit { .. })));
        assert_eq!((store.sequence, store.high_water.mark()), (0, 0));
        let error = store.commit(&batch(2)).unwrap_err();
        assert!(matches!(error, StoreError::Poisoned { .. }));
        assert!(error.to_string().ends_with("stop and start again"), "{error}");
        drop(store);
        open(&folder).commit(&batch(3)).unwrap();
    }
}
