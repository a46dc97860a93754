//! Whether the files of an open store are still where they were.
//!
//! A folder that is removed, moved away or exchanged, or whose volume is gone, leaves a process with files that
//! have no name any more: they take commits as before, and are gone with the process. So each commit looks
//! whether its lock file still has a name, which costs next to nothing, and once a second at most, as the
//! orchestrator does while it has nothing to commit, whether all of them are the ones that were opened.

use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::StoreError;

/// What must stay, in the folder.
const FILES: [&str; 7] = ["", "lock", "high-water", "log-0", "log-1", "sled", "sled/db"];
/// Time between two looks at all of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the files of a store were when it was opened.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    files: Vec<(PathBuf, Inode)>,
    looked_at: Mutex<Instant>,
}

/// Device and number of a file: what it is, whatever its name.
type Inode = (u64, u64);

impl Place {
    /// Notes the files of a folder, which is open.
    ///
    /// # Errors
    /// [`StoreError::Io`] if one cannot be looked at.
    pub(super) fn of(folder: &Path) -> Result<Self, StoreError> {
        let note = |name: &str| {
            let path = if name.is_empty() { folder.to_owned() } else { folder.join(name) };
            let found = fs::metadata(&path).map_err(StoreError::io("look at", &path))?;
            Ok((path, inode(&found)))
        };
        let files = FILES.into_iter().map(note).collect::<Result<_, _>>()?;
        Ok(Self { path: folder.to_owned(), files, looked_at: Mutex::new(Instant::now()) })
    }

    /// Looks at all files.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if one is not there, or is another one.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        self.files.iter().try_for_each(|(file, opened)| match fs::metadata(file) {
            Ok(found) if inode(&found) == *opened => Ok(()),
            Ok(_) => Err(self.gone(file, "is another one now")),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(self.gone(file, "is gone"))
            }
            Err(error) if error.kind() == ErrorKind::StaleNetworkFileHandle => {
                Err(self.gone(file, "is gone from the network"))
            }
            // What cannot be looked at may still be written: a commit tells.
            Err(_) => Ok(()),
        })
    }

    /// Looks whether the lock file has a name, and at all files if that was long ago.
    ///
    /// # Errors
    /// As [`Place::look`].
    pub(super) fn confirm(&self, lock: &File) -> Result<(), StoreError> {
        if lock.metadata().is_ok_and(|lock| lock.nlink() == 0) {
            return Err(self.gone(&self.path.join("lock"), "is gone"));
        }
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        if looked_at.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        *looked_at = Instant::now();
        self.look()
    }

    fn gone(&self, file: &Path, how: &'static str) -> StoreError {
        StoreError::Gone { path: self.path.clone(), file: file.to_owned(), how }
    }
}

fn inode(of: &Metadata) -> Inode {
    (of.dev(), of.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreConfig;
    use crate::store::{Batch, DeadLetter, Store};

    fn commit(store: &mut Store) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.dead_letter(DeadLetter::default());
        store.commit(batch)
    }

    fn open(root: &Path) -> (PathBuf, Store) {
        let path = root.join("store");
        let mut store = Store::open(&StoreConfig { path: path.clone(), cache_mib: 16 }).unwrap();
        commit(&mut store).unwrap();
        store.reader().confirm_place().unwrap();
        (path, store)
    }

    #[test]
    fn a_store_that_is_removed_acknowledges_no_further_commit() {
        let root = tempfile::tempdir().unwrap();
        let (path, mut store) = open(root.path());
        fs::remove_dir_all(&path).unwrap();
        let error = commit(&mut store).unwrap_err();
        assert!(matches!(error, StoreError::Gone { .. }), "{error}");
        assert!(matches!(commit(&mut store), Err(StoreError::Poisoned { .. })));
    }

    #[test]
    fn each_file_that_is_removed_or_exchanged_is_noticed_by_its_name() {
        for name in FILES {
            for exchanged in [false, true] {
                let root = tempfile::tempdir().unwrap();
                let (path, store) = open(root.path());
                let file = if name.is_empty() { path.clone() } else { path.join(name) };
                let (beside, is_folder) = (root.path().join("beside"), file.is_dir());
                fs::rename(&file, &beside).unwrap();
                if exchanged && is_folder {
                    fs::create_dir(&file).unwrap();
                } else if exchanged {
                    fs::copy(&beside, &file).unwrap();
                }
                let error = store.reader().confirm_place().unwrap_err();
                let StoreError::Gone { file: told, how, .. } = &error else { panic!("{error}") };
                assert_eq!((told, *how), (&file, if exchanged { "is another one now" } else { "is gone" }));
            }
        }
    }
}
