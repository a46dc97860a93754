//! Where a backup goes: a folder that has another name until all of it is on disk for good.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::{BackupError, sync};

/// What the name of a backup ends in while it is written.
const UNFINISHED: &str = ".unfinished";
/// All that a backup consists of.
const PARTS: [&str; 2] = ["high-water", "sled"];

/// A place for a backup. What is there is removed with the value, unless it was finished.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    unfinished: PathBuf,
    is_finished: bool,
}

impl Place {
    /// Makes the folder `<path>.unfinished`, which nobody else may enter. What a backup that was cut off has left
    /// there is removed.
    ///
    /// # Errors
    /// [`BackupError::Place`] if there is something at `path` but an empty folder, if the folder that it is to be in
    /// is not there, or is in the store; [`BackupError::Io`] if the folder cannot be made.
    pub fn make(path: &Path, store: &Path) -> Result<Self, BackupError> {
        let refused =
            |problem: &str| BackupError::Place { path: path.to_owned(), problem: problem.to_owned() };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refused("it has no name of its own, name a new folder"));
        };
        if !path.is_absolute() {
            return Err(refused("its path must be absolute, such as /backups/monday"));
        }
        if !parent.is_dir() {
            return Err(refused(&format!(
                "the folder {} is not there: make it first, or mount its volume",
                parent.display()
            )));
        }
        let parent = parent.canonicalize().map_err(BackupError::io("read", parent))?;
        if store.canonicalize().is_ok_and(|store| parent.starts_with(store)) {
            return Err(refused("it would be in the store itself, name a folder elsewhere"));
        }
        let path = parent.join(name);
        if let Some(problem) = occupied(&path, &parent) {
            return Err(refused(problem));
        }
        let mut name = name.to_owned();
        name.push(UNFINISHED);
        let unfinished = parent.join(name);
        remove_leftover(&unfinished)?;
        let made = DirBuilder::new().mode(0o700).create(&unfinished);
        made.map_err(BackupError::io("make folder", &unfinished))?;
        Ok(Self { path, unfinished, is_finished: false })
    }

    /// Where the backup is to be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is written.
    pub(super) fn unfinished(&self) -> &Path {
        &self.unfinished
    }

    /// Makes the files of a folder survive a power cut, and the folder itself.
    pub(super) fn sync_files(&self, folder: &Path) -> Result<(), BackupError> {
        for entry in fs::read_dir(folder).map_err(BackupError::io("read folder", folder))? {
            sync(&entry.map_err(BackupError::io("read folder", folder))?.path())?;
        }
        sync(folder)
    }

    /// Gives the folder its name, for good; returns how many bytes its files take.
    pub(super) fn finish(mut self) -> Result<(PathBuf, u64), BackupError> {
        self.sync_files(&self.unfinished)?;
        let bytes = bytes_in(&self.unfinished)? + bytes_in(&self.unfinished.join("sled"))?;
        // Nothing but an empty folder gives way.
        fs::rename(&self.unfinished, &self.path).map_err(BackupError::io("rename to", &self.path))?;
        self.is_finished = true;
        sync(self.path.parent().expect("it was made in a folder"))?;
        Ok((self.path.clone(), bytes))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_finished
            && let Err(error) = fs::remove_dir_all(&self.unfinished)
        {
            warn!(folder = %self.unfinished.display(), %error, "a backup that was not finished cannot be removed");
        }
    }
}

/// Why there is no room for a folder of this name.
fn occupied(path: &Path, parent: &Path) -> Option<&'static str> {
    let found = fs::symlink_metadata(path).ok()?;
    if found.is_symlink() {
        return Some("it is a symbolic link, which is not followed: name a new folder");
    }
    if !found.is_dir() {
        return Some("there is a file of this name: name a new folder");
    }
    if parent.metadata().is_ok_and(|parent| parent.dev() != found.dev()) {
        return Some("a volume is mounted there, so it cannot be made in one step: name a new folder in it");
    }
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => None,
        _ => Some("it is there, and not empty: name a new folder"),
    }
}

/// Removes what is left of a backup that was cut off, and nothing else.
fn remove_leftover(folder: &Path) -> Result<(), BackupError> {
    let refused = |problem| Err(BackupError::Place { path: folder.to_owned(), problem });
    if fs::symlink_metadata(folder).is_err() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(BackupError::io("read folder", folder))?;
    for entry in entries {
        let name = entry.map_err(BackupError::io("read folder", folder))?.file_name();
        if !PARTS.iter().any(|part| name == **part) {
            return refused(
                "it is in the way, and no backup has left it: move it, or name another folder".to_owned(),
            );
        }
    }
    let database = File::open(folder.join("sled/db"));
    if database.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock))) {
        return refused("another process writes a backup there".to_owned());
    }
    fs::remove_dir_all(folder).map_err(BackupError::io("remove", folder))
}

/// Bytes that the files in a folder take.
fn bytes_in(folder: &Path) -> Result<u64, BackupError> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(BackupError::io("read folder", folder))? {
        let metadata = entry.and_then(|entry| entry.metadata()).map_err(BackupError::io("read", folder))?;
        bytes += metadata.blocks() * 512;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refused(path: &Path, store: &Path) -> String {
        Place::make(path, store).unwrap_err().to_string()
    }

    #[test]
    fn only_a_new_or_an_empty_folder_outside_of_the_store_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let store = at("store");
        fs::create_dir_all(store.join("archive")).unwrap();
        fs::write(at("file"), "").unwrap();
        symlink(at("elsewhere"), at("link")).unwrap();
        for (path, problem) in [
            (PathBuf::from("/"), "no name of its own"),
            (PathBuf::from("monday"), "must be absolute"),
            (at("missing/monday"), "missing is not there: make it first, or mount its volume"),
            (at("store/monday"), "in the store itself"),
            (at("store/archive/../monday"), "in the store itself"),
            (store.clone(), "not empty"),
            (at("file"), "a file of this name"),
            (at("link"), "a symbolic link"),
        ] {
            let error = refused(&path, &store);
            assert!(error.starts_with("cannot back up to ") && error.contains(problem), "{error}");
        }
        fs::create_dir(at("empty")).unwrap();
        for name in ["new", "empty"] {
            let place = Place::make(&at(name), &store).unwrap();
            let mode = place.unfinished().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
            drop(place);
            assert!(!at(&format!("{name}{UNFINISHED}")).exists(), "nothing is left of it");
        }
    }

    #[test]
    fn what_a_cut_backup_has_left_is_removed_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let (path, left) = (root.path().join("monday"), root.path().join("monday.unfinished"));
        fs::create_dir_all(left.join("sled")).unwrap();
        fs::write(left.join("sled/db"), "half").unwrap();
        let place = Place::make(&path, &root.path().join("store")).unwrap();
        assert!(!left.join("sled").exists());
        drop(place);
        fs::create_dir(&left).unwrap();
        fs::write(left.join("letters"), "precious").unwrap();
        assert!(refused(&path, &root.path().join("store")).contains("no backup has left it"));
        assert!(left.join("letters").exists());
    }

    #[test]
    fn a_folder_that_another_process_writes_to_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let left = root.path().join("monday.unfinished");
        fs::create_dir_all(left.join("sled")).unwrap();
        let database = File::create(left.join("sled/db")).unwrap();
        database.lock().unwrap();
        assert!(refused(&root.path().join("monday"), &root.path().join("store")).contains("another process"));
        assert!(left.join("sled/db").exists());
    }
}
