//! What can go wrong with the store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::saga::id::InstanceId;

/// Why the store cannot be opened, written or read. Every message names the folder and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("store {path} is in use by process {pid}: stop that process, or set another store.path")]
    InUse {
        /// Folder of the store.
        path: PathBuf,
        /// The process, as it wrote itself into the lock file.
        pid: String,
    },
    /// A file or folder of the store cannot be made, read or written.
    #[error("cannot {action} {path}: {source}; check store.path, its permissions and its disk")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could change the store.
    #[error("store folder or file {path} {problem}")]
    Unsafe {
        /// Which folder or file.
        path: PathBuf,
        /// Why, and what to do.
        problem: String,
    },
    /// sled refused to open its directory.
    #[error(
        "store {path} cannot be opened: {source}; if it is damaged, restore a backup of the whole folder"
    )]
    Open {
        /// Folder of the store.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// Commits that were acknowledged are gone, as after a lost write or the restore of a part.
    #[error(
        "store {path} has lost its tail: commit {mark} was acknowledged, but the last one on disk is {found}; \
         restore a backup of the whole folder, or, to go on with what is left and without those {} commits, \
         remove {path}/high-water", mark - found
    )]
    LostTail {
        /// Folder of the store.
        path: PathBuf,
        /// Number of the last commit that was acknowledged.
        mark: u64,
        /// Number of the last commit that is there.
        found: u64,
    },
    /// The file that tells the last acknowledged commit makes no sense.
    #[error(
        "{path} is damaged, so nobody can tell whether the store beside it is whole; restore a backup of the \
         whole folder, or, if the store is known to be whole, remove this file"
    )]
    HighWater {
        /// The file.
        path: PathBuf,
    },
    /// A record does not match its checksum, or is missing where another one promises it.
    #[error("store {path} is damaged at {key}: {reason}; restore a backup of the whole folder")]
    Corrupt {
        /// Folder of the store.
        path: PathBuf,
        /// Which record.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store was written by a later version of sagamq.
    #[error(
        "store {path} has format {found} at {key}, this sagamq reads up to {supported}: use a later sagamq"
    )]
    Newer {
        /// Folder of the store.
        path: PathBuf,
        /// Which record.
        key: String,
        /// Its format.
        found: u8,
        /// The latest format that this version reads.
        supported: u8,
    },
    /// The store was written by a version of sagamq whose stores are not read any more.
    #[error(
        "store {path} was written by an earlier version of sagamq, whose format this one does not read: let that \
         version finish its instances, then start with a new store.path"
    )]
    Older {
        /// Folder of the store.
        path: PathBuf,
    },
    /// A copy of the store is not the same.
    #[error(
        "the compacted copy of store {path} is not the same as the store, which is as it was: check the disk, \
         then try again"
    )]
    Copy {
        /// Folder of the store.
        path: PathBuf,
    },
    /// The history is not where the writer believed it to be: there were two writers. Nothing was
    /// written.
    #[error(
        "instance {instance} cannot be appended at revision {revision}: the store {path} has gone another way; \
         restart, and make sure that only one orchestrator uses it"
    )]
    Conflict {
        /// Folder of the store.
        path: PathBuf,
        /// Whose history.
        instance: InstanceId,
        /// The revision that was to be appended.
        revision: u64,
    },
    /// There is no room for a commit, or to open the store. Whether the commit is on disk is not known;
    /// the store takes no further one.
    #[error("the disk of store {path} is full: make room, then start again")]
    Full {
        /// Folder of the store.
        path: PathBuf,
    },
    /// A commit failed. Whether it is on disk is not known; the store takes no further one.
    #[error("commit to store {path} failed: {source}; check the disk, then start again")]
    Commit {
        /// Folder of the store.
        path: PathBuf,
        /// What sled or the system said.
        source: sled::Error,
    },
    /// A file of the open store is not where it was. Nothing that was committed since is on disk for good.
    #[error(
        "store {path} was taken away while it was in use: {file} {how}; put the folder back or mount its volume, or          restore a backup, then start again"
    )]
    Gone {
        /// Folder of the store.
        path: PathBuf,
        /// Which file.
        file: PathBuf,
        /// What has become of it.
        how: &'static str,
    },
    /// An earlier commit failed.
    #[error("store {path} takes no commits since one failed ({reason}): stop and start again")]
    Poisoned {
        /// Folder of the store.
        path: PathBuf,
        /// How the earlier commit failed.
        reason: String,
    },
    /// Something cannot be read.
    #[error("cannot read from store {path}: {source}; check the disk, then start again")]
    Read {
        /// Folder of the store.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// A cursor that no page has handed out.
    #[error("cursor {0:?} is not one that a page ended with: leave it out to begin anew")]
    Cursor(String),
    /// Whoever asked does not wait any more.
    #[error("reading was cancelled, since nobody waits for it any more")]
    Cancelled,
}

impl StoreError {
    /// Whether there is no room, which may change while everything else stays as it is.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// The error of a read that failed with `source`. sled remembers the failure of an earlier write.
    pub(super) fn read(path: &Path, source: sled::Error) -> Self {
        match Self::commit(path, source) {
            Self::Commit { path, source } => Self::Read { path, source },
            full => full,
        }
    }

    /// The error of a commit that failed with `source`; a full disk has its own words.
    pub(super) fn commit(path: &Path, source: sled::Error) -> Self {
        let path = path.to_owned();
        match source {
            sled::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => Self::Full { path },
            source => Self::Commit { path, source },
        }
    }

    /// The error of an opening that failed with `source`; a full disk has its own words.
    pub(super) fn open(path: &Path, source: sled::Error) -> Self {
        match Self::commit(path, source) {
            Self::Commit { path, source } => Self::Open { path, source },
            full => full,
        }
    }

    /// Makes an [`StoreError::Io`], for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = sled::Error::Io(io::Error::from(io::ErrorKind::StorageFull));
        let text = StoreError::commit(Path::new("/data"), full).to_string();
        assert_eq!(text, "the disk of store /data is full: make room, then start again");
        let broken = sled::Error::Io(io::Error::other("EIO"));
        assert!(matches!(StoreError::commit(Path::new("/data"), broken), StoreError::Commit { .. }));
    }
}
