//! The folder of a store: made, locked, cleaned up, and opened with sled.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::error::StoreError;
use super::keys;
use crate::config::StoreConfig;

/// How long sled may take to let go of its file when it is closed.
const CLOSING: Duration = Duration::from_secs(5);

/// An open store folder, shared by the store and its readers. The folder stays locked until the
/// last of them is gone.
pub(super) struct Disk {
    // Fields are dropped in the order in which they stand: sled is closed, then the folder unlocked.
    sled: sled::Db,
    _release: Release,
    _lock: File,
    path: PathBuf,
}

impl Disk {
    /// Opens the folder, and makes it first where it is missing. Once this returns, the folder and
    /// its files survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::Open`] if sled cannot
    /// read it, [`StoreError::Io`] if a file cannot be made.
    pub(super) fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let path = config.path.clone();
        make_private(&path)?;
        let lock = lock(&path)?;
        let directory = path.join("sled");
        make_private(&directory)?;
        set_leftovers_aside(&directory)?;
        let release = Release(directory.join("db"));
        let sled =
            open_sled(&directory, config.cache_mib).map_err(|source| StoreError::open(&path, source))?;
        for file in [directory.join("conf"), directory.join("db"), directory, path.clone(), parent(&path)] {
            File::open(&file).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &file))?;
        }
        Ok(Self { sled, _release: release, _lock: lock, path })
    }

    /// The database. Everything is in its default tree.
    pub(super) fn sled(&self) -> &sled::Db {
        &self.sled
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// sled's own file, opened once more, to be synced by us.
    ///
    /// It stays open as long as the store does, because the system reports a failed write once to
    /// each open file, and sled's own background thread swallows what it is told.
    pub(super) fn database_file(&self) -> Result<File, StoreError> {
        let file = self.path.join("sled/db");
        OpenOptions::new().read(true).write(true).open(&file).map_err(StoreError::io("open", &file))
    }

    /// Reads one raw value.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.sled.get(key).map_err(|source| self.unreadable(source))
    }

    /// Whether there is a value.
    pub(super) fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        self.sled.contains_key(key).map_err(|source| self.unreadable(source))
    }

    /// The error of a read that sled refused.
    pub(super) fn unreadable(&self, source: sled::Error) -> StoreError {
        StoreError::Read { path: self.path.clone(), source }
    }

    /// The error of a record that makes no sense.
    pub(super) fn corrupt(&self, key: &[u8], reason: impl ToString) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), key: keys::describe(key), reason: reason.to_string() }
    }

    /// The error of a record that is of a later format.
    pub(super) fn newer(&self, key: &[u8], found: u8, supported: u8) -> StoreError {
        StoreError::Newer { path: self.path.clone(), key: keys::describe(key), found, supported }
    }
}

/// The folder only: sled would print every key and value.
impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Makes a folder that nobody else may enter. One that is there keeps the mode that it has.
fn make_private(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(parent(path))
        .and_then(|()| DirBuilder::new().mode(0o700).create(path))
        .map_err(StoreError::io("make folder", path))
}

/// The folder that a folder is in.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// How long a lock is waited for: a process that its last owner was just starting holds it for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Locks the folder against other processes, for as long as the file is open, and leaves the pid in
/// it. The system lets go of the lock however the process ends.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = match file.read_to_string(&mut text) {
                Ok(1..) => text.trim().to_owned(),
                _ => "(unknown)".to_owned(),
            };
            return Err(StoreError::InUse { path: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", &path)(source)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(StoreError::io("write", &path))?;
    Ok(file)
}

/// Opens sled. It panics on some kinds of damage, which is an error like any other here.
fn open_sled(directory: &Path, cache_mib: u64) -> Result<sled::Db, sled::Error> {
    let config = sled::Config::default()
        .path(directory)
        .cache_capacity(cache_mib.saturating_mul(1024 * 1024))
        // Beside our own flushes: it also drives sled's clean-up of old segments.
        .flush_every_ms(Some(500));
    panic::catch_unwind(AssertUnwindSafe(|| config.open()))
        .unwrap_or_else(|_| Err(sled::Error::ReportableBug("its log makes no sense".to_owned())))
}

/// Waits, when dropped, until sled is done with this file, its own. sled is dropped before, but lets
/// go a moment later, on threads of its own: a folder that is closed has to be closed.
struct Release(PathBuf);

impl Drop for Release {
    fn drop(&mut self) {
        let Ok(file) = File::open(&self.0) else { return };
        let begun = Instant::now();
        while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && begun.elapsed() < CLOSING {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Renames snapshots that a crash left half written: sled would take the newest `snap.*` for a whole
/// one, and refuse to start (spacejam/sled#1527). Nothing is lost, sled makes them anew from its log.
fn set_leftovers_aside(directory: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(directory).map_err(StoreError::io("read folder", directory))?;
    for entry in entries {
        let entry = entry.map_err(StoreError::io("read folder", directory))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            // The new name must not begin with "snap." either.
            let aside = directory.join(format!("leftover.{name}"));
            fs::rename(entry.path(), &aside).map_err(StoreError::io("move aside", &entry.path()))?;
            warn!(file = %aside.display(), "moved a half-written snapshot aside");
        }
    }
    Ok(())
}
