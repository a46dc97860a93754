//! What a store lies on: a folder with sled in it, or a disk that a simulation keeps in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::error::StoreError;
use super::folder::{Claim, Folder};
use super::keys;
use super::memory::Memory;
use crate::saga::id::InstanceId;

/// Changes that are made together: what each key holds afterwards, nothing where it is removed.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Keys of a range, in order from both ends.
pub(super) type Keys<'a> = Box<dyn DoubleEndedIterator<Item = Result<sled::IVec, StoreError>> + 'a>;

/// Where keys and values are, shared by the store and its readers.
pub(super) enum Disk {
    /// A folder, locked until the last owner is gone.
    Folder(Box<Folder>),
    /// A simulated disk.
    Memory(Memory),
}

impl Disk {
    /// Opens a folder.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub(super) fn open(claim: Claim) -> Result<Self, StoreError> {
        Folder::open(claim).map(Box::new).map(Self::Folder)
    }

    /// Where it is, for people.
    pub(super) fn path(&self) -> &Path {
        match self {
            Disk::Folder(folder) => folder.path(),
            Disk::Memory(_) => Path::new("(in memory)"),
        }
    }

    /// Reads one raw value.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        match self {
            Disk::Folder(folder) => folder.get(key).map_err(|source| self.unreadable(source)),
            Disk::Memory(memory) => Ok(memory.get(key)),
        }
    }

    /// The keys of a range.
    pub(super) fn keys(&self, range: Range<Vec<u8>>) -> Keys<'_> {
        match self {
            Disk::Folder(folder) => {
                Box::new(folder.keys(range).map(|key| key.map_err(|source| self.unreadable(source))))
            }
            Disk::Memory(memory) => Box::new(memory.keys(range).into_iter().map(Ok)),
        }
    }

    /// Makes `writes` durable, as a whole or not at all, under the number of their commit.
    pub(super) fn persist(&self, writes: Writes, commit: u64) -> Result<(), sled::Error> {
        match self {
            Disk::Folder(folder) => folder.persist(writes, commit),
            Disk::Memory(memory) => Ok(memory.persist(&writes, commit)?),
        }
    }

    /// Whether what was committed is still in its place. `all` looks at everything, at some cost.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if it is not.
    pub(super) fn confirm(&self, all: bool) -> Result<(), StoreError> {
        match self {
            Disk::Folder(folder) if all => folder.look(),
            Disk::Folder(folder) => folder.confirm(),
            Disk::Memory(_) => Ok(()),
        }
    }

    /// The last commit that was acknowledged, as far as is noted outside of the database.
    pub(super) fn mark(&self) -> u64 {
        match self {
            Disk::Folder(folder) => folder.mark(),
            Disk::Memory(memory) => memory.mark(),
        }
    }

    /// Notes at the start that everything up to `commit` is there.
    pub(super) fn settle(&self, commit: u64) -> Result<(), StoreError> {
        match self {
            Disk::Folder(folder) => folder.settle(commit),
            Disk::Memory(_) => Ok(()),
        }
    }

    /// The error of a record that makes no sense.
    pub(super) fn corrupt(&self, key: &[u8], reason: impl ToString) -> StoreError {
        let (path, key) = (self.path().to_owned(), keys::describe(key));
        StoreError::Corrupt { path, key, reason: reason.to_string() }
    }

    /// The error of an instance whose records do not fit together.
    pub(super) fn contradiction(&self, id: InstanceId, reason: impl ToString) -> StoreError {
        let (path, key) = (self.path().to_owned(), format!("instance {id}"));
        StoreError::Corrupt { path, key, reason: reason.to_string() }
    }

    /// The error of a record that is of a later format.
    pub(super) fn newer(&self, key: &[u8], found: u8, supported: u8) -> StoreError {
        StoreError::Newer { path: self.path().to_owned(), key: keys::describe(key), found, supported }
    }

    /// The error of a read that sled refused.
    fn unreadable(&self, source: sled::Error) -> StoreError {
        StoreError::read(self.path(), source)
    }
}

/// The place only: sled would print every key and value.
impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("path", &self.path()).finish_non_exhaustive()
    }
}
