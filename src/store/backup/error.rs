//! Why there is no backup, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::error::StoreError;

/// Why there is no backup. Nothing of it is left, but for what [`BackupError::Io`] may say.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There cannot be a backup at this place.
    #[error("cannot back up to {path}: {problem}")]
    Place {
        /// The folder that was named.
        path: PathBuf,
        /// Why not, and what to do.
        problem: String,
    },
    /// Another backup of the store is under way.
    #[error("another backup of this store is under way: wait until it has ended, then try again")]
    Busy,
    /// A file or folder cannot be made or written.
    #[error(
        "cannot {action} {path} for the backup: {source}; name a folder in one that the user of the orchestrator may \
         write to, on a disk that works"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no room.
    #[error(
        "the disk of backup {path} is full, and nothing of it was kept: make room, or name a folder on another disk"
    )]
    Full {
        /// The folder that was named.
        path: PathBuf,
    },
    /// There would be no room for the store.
    #[error(
        "backup {path} would leave less than {mib} MiB of the disk that the store is on, and nothing of it was kept: \
         make room, or name a folder on another disk"
    )]
    Reserve {
        /// The folder that was named.
        path: PathBuf,
        /// Megabytes that are left to the store.
        mib: u64,
    },
    /// sled cannot write the copy.
    #[error(
        "backup {path} cannot be written: {source}; nothing of it was kept: check its disk, then try again"
    )]
    Write {
        /// The folder that was named.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// Commits are faster.
    #[error(
        "the store changes faster than backup {path} can be written, and nothing of it was kept: try again when there \
         is less to do, or name a folder on a faster disk"
    )]
    Behind {
        /// The folder that was named.
        path: PathBuf,
    },
    /// The store failed meanwhile.
    #[error("a commit failed while backup {path} was written, and nothing of it was kept: see the log")]
    Failed {
        /// The folder that was named.
        path: PathBuf,
    },
    /// The store cannot be read, or whoever wanted the backup does not want it any more.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    /// The error of a write that failed with `source`; a full disk has its own words.
    pub(super) fn write(path: &Path, source: sled::Error) -> Self {
        let path = path.to_owned();
        match source {
            sled::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => Self::Full { path },
            source => Self::Write { path, source },
        }
    }

    /// Makes a [`BackupError::Io`], for `map_err`; a full disk has its own words.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => Self::Full { path },
            _ => Self::Io { action, path, source },
        }
    }
}
