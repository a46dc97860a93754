//! Sorted runs: values by ids that are hashes.
//!
//! A key of its own for each id would be the dearest part of a saga: a random page of the tree, dearer the
//! more there are. So the ids of many instances are written as one sorted run of blocks. Runs of about the
//! same size are merged to a larger one, a little with each commit, and a filter in memory tells which runs
//! cannot have an id. What a newer run says of an id counts.
//!
//! | part of a block | bytes |
//! |---|---|
//! | id from which on the next block is, [`END`] in the last one | 16 |
//! | each entry, sorted: id, length, value | 16, 1, length |
//!
//! A block lies under the id from which on it is, the first one under zeros: so a missing one is found.

use std::sync::Arc;

use fastbloom::BloomFilter;
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::error::StoreError;
use super::{keys, record};

pub(super) mod merge;

/// Bytes of an id.
pub(super) type Id = [u8; 16];
/// An id and its value.
pub(super) type Entry = (Id, Vec<u8>);

/// Before all ids.
const BEGIN: Id = [0; 16];
/// Behind all ids.
const END: Id = [u8::MAX; 16];
/// How often a filter says that a run may have an id which it does not have.
const FALSE_POSITIVES: f64 = 0.003;

/// The runs, as one commit left them.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    /// The newest first.
    runs: Vec<Arc<Run>>,
}

/// A sorted run.
#[derive(Debug)]
struct Run {
    number: u64,
    entries: u64,
    filter: BloomFilter,
}

/// The record of which runs there are.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    /// How often it has changed.
    change: u64,
    /// Number and entries of each run, the newest first.
    runs: Vec<(u64, u64)>,
}

impl Runs {
    /// Reads which runs there are, and what their filters need: all of their blocks. `change` is which state
    /// of them the store has.
    ///
    /// # Errors
    /// The disk fails, or a part is missing or makes no sense.
    pub(super) fn open(disk: &Disk, change: u64) -> Result<Self, StoreError> {
        let key = keys::manifest(keys::PLACES);
        let manifest: Manifest = record::read_json(disk, &key)?.unwrap_or_default();
        if manifest.change != change {
            return Err(disk.corrupt(&key, "it is not the one that belongs to the last commit"));
        }
        let mut runs = Vec::with_capacity(manifest.runs.len());
        for (number, entries) in manifest.runs {
            let mut cursor = Cursor::of(number);
            let mut hashes = Vec::new();
            while let Some((id, _)) = cursor.next(disk)? {
                hashes.push(hash(&id));
            }
            if hashes.len() as u64 != entries {
                return Err(disk.corrupt(&keys::run(keys::PLACES, number), "entries of it are missing"));
            }
            let mut filter = filter(entries);
            for hash in hashes {
                filter.insert_hash(hash);
            }
            runs.push(Arc::new(Run { number, entries, filter }));
        }
        Ok(Self { runs })
    }

    /// The value of an id.
    ///
    /// # Errors
    /// As [`record::read`]. Beside a commit, a run that it replaces may be gone.
    pub(super) fn find(&self, disk: &Disk, id: &Id) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.said(disk, id)?.filter(|value| !value.is_empty()))
    }

    /// Every id that has a value, in no order.
    ///
    /// # Errors
    /// Each item may be one, see [`Runs::find`].
    pub(super) fn ids<'a>(&self, disk: &'a Disk) -> impl Iterator<Item = Result<Id, StoreError>> + use<'a> {
        let Self { runs } = self.clone();
        (0..runs.len()).flat_map(move |at| {
            let mut cursor = Cursor::of(runs[at].number);
            let newer = Self { runs: runs[..at].to_vec() };
            std::iter::from_fn(move || cursor.next(disk).transpose()).filter_map(move |entry| match entry {
                Ok((_, value)) if value.is_empty() => None,
                Ok((id, _)) => match newer.said(disk, &id) {
                    Ok(Some(_)) => None,
                    Ok(None) => Some(Ok(id)),
                    Err(error) => Some(Err(error)),
                },
                Err(error) => Some(Err(error)),
            })
        })
    }

    /// What the newest run that has an id says of it; nothing where it was removed.
    fn said(&self, disk: &Disk, id: &Id) -> Result<Option<Vec<u8>>, StoreError> {
        let hash = hash(id);
        for run in self.runs.iter().filter(|run| run.filter.contains_hash(hash)) {
            if let Some(value) = run.find(disk, id)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

impl Run {
    /// What it says of an id; nothing where the id was removed.
    fn find(&self, disk: &Disk, id: &Id) -> Result<Option<Vec<u8>>, StoreError> {
        let mut up_to =
            keys::run(keys::PLACES, self.number)..keys::block_of_run(keys::PLACES, self.number, id);
        up_to.end.push(0);
        let key = disk.keys(up_to.clone()).next_back().transpose()?;
        let missing = || disk.corrupt(&up_to.end, "a block of its run is missing");
        let key = key.ok_or_else(missing)?;
        let (next, entries) = read_block(disk, &key)?;
        if next <= *id {
            return Err(missing());
        }
        Ok(entries.into_iter().find(|(of, _)| of == id).map(|(_, value)| value))
    }
}

/// Goes through a run.
#[derive(Debug)]
struct Cursor {
    number: u64,
    /// From which id on the next block is.
    next: Id,
    entries: std::vec::IntoIter<Entry>,
}

impl Cursor {
    fn of(number: u64) -> Self {
        Self { number, next: BEGIN, entries: Vec::new().into_iter() }
    }

    fn next(&mut self, disk: &Disk) -> Result<Option<Entry>, StoreError> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Ok(Some(entry));
            }
            if self.next == END {
                return Ok(None);
            }
            let key = keys::block_of_run(keys::PLACES, self.number, &self.next);
            let (next, entries) = read_block(disk, &key)?;
            if next <= self.next {
                return Err(disk.corrupt(&key, "it does not go on"));
            }
            (self.next, self.entries) = (next, entries.into_iter());
        }
    }
}

/// Reads from which id on the next block is, and the entries.
fn read_block(disk: &Disk, key: &[u8]) -> Result<(Id, Vec<Entry>), StoreError> {
    let payload = record::read(disk, key)?.ok_or_else(|| disk.corrupt(key, "it is missing"))?;
    parse(&payload).ok_or_else(|| disk.corrupt(key, "it is not a block of a run"))
}

fn parse(payload: &[u8]) -> Option<(Id, Vec<Entry>)> {
    let (next, mut rest) = payload.split_first_chunk()?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (id, length, value);
        (id, rest) = rest.split_first_chunk()?;
        (length, rest) = rest.split_first()?;
        (value, rest) = rest.split_at_checked(usize::from(*length))?;
        entries.push((*id, value.to_vec()));
    }
    Some((*next, entries))
}

fn filter(entries: u64) -> BloomFilter {
    let entries = usize::try_from(entries).unwrap_or(usize::MAX).max(1);
    BloomFilter::with_false_pos(FALSE_POSITIVES).seed(&0).expected_items(entries)
}

/// An id is a hash already, but for the few bits that make it a UUID.
fn hash(id: &Id) -> u64 {
    let both = u128::from_be_bytes(*id);
    (both >> 64) as u64 ^ (both as u64).rotate_left(32)
}

#[cfg(test)]
mod tests;
