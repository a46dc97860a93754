//! The folder of a store: made, locked, cleaned up, opened with sled, and synced.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use tracing::{debug, warn};

use super::disk::Writes;
use super::error::StoreError;
use super::high_water::HighWater;
use crate::config::StoreConfig;
use crate::fault::{self, Bug, Point};

/// How long sled may take to let go of its file when it is closed.
const CLOSING: Duration = Duration::from_secs(5);

/// An open store folder. It stays locked until this is dropped.
pub(super) struct Folder {
    // Fields are dropped in the order in which they stand: sled is closed, then the folder unlocked.
    sled: sled::Db,
    _release: Release,
    /// sled's own file, opened once more, to be synced by us: sled itself does not, on Linux.
    ///
    /// It stays open as long as the store does, because the system reports a failed write once to
    /// each open file, and sled's own background thread swallows what it is told.
    database: File,
    high_water: Mutex<HighWater>,
    _lock: File,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder, and makes it first where it is missing. Once this returns, the folder and
    /// its files survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::Open`] if sled cannot
    /// read it, [`StoreError::HighWater`] if the mark makes no sense, [`StoreError::Io`] if a file
    /// cannot be made.
    pub(super) fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let path = config.path.clone();
        make_private(&path)?;
        let lock = lock(&path)?;
        let directory = path.join("sled");
        make_private(&directory)?;
        set_leftovers_aside(&directory)?;
        let file = directory.join("db");
        forget_cached(&file)?;
        let release = Release(file.clone());
        let sled =
            open_sled(&directory, config.cache_mib).map_err(|source| StoreError::open(&path, source))?;
        for file in [directory.join("conf"), file.clone(), directory, path.clone(), parent(&path)] {
            File::open(&file).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &file))?;
        }
        let database = OpenOptions::new().read(true).write(true).open(&file);
        let database = database.map_err(StoreError::io("open", &file))?;
        let high_water = Mutex::new(HighWater::open(&path)?);
        Ok(Self { sled, _release: release, database, high_water, _lock: lock, path })
    }

    /// Closes the database, and returns what keeps the folder locked.
    pub(super) fn close(self) -> File {
        let Self { sled, _release: release, _lock: lock, .. } = self;
        drop(sled);
        drop(release);
        lock
    }

    /// The database. Everything is in its default tree.
    pub(super) fn sled(&self) -> &sled::Db {
        &self.sled
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The last commit that was acknowledged.
    pub(super) fn mark(&self) -> u64 {
        self.high_water().mark()
    }

    /// Notes that `commit` is durable, in a way that survives a power cut.
    pub(super) fn settle(&self, commit: u64) -> Result<(), StoreError> {
        let mut high_water = self.high_water();
        high_water
            .advance(commit)
            .and_then(|()| high_water.sync())
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(StoreError::io("sync", &self.path))
    }

    /// Makes `writes` durable in one atomic batch, one flush and one fdatasync, then notes that they are.
    pub(super) fn persist(&self, writes: &Writes, commit: u64) -> Result<(), sled::Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        fault::pass(Point::Commit);
        self.sled.apply_batch(batch)?;
        fault::pass(Point::Applied);
        if fault::planted(Bug::NoSync) {
            return Ok(());
        }
        self.sled.flush()?;
        fault::pass(Point::Flushed);
        self.database.sync_data()?;
        fault::pass(Point::Synced);
        Ok(self.high_water().advance(commit)?)
    }

    fn high_water(&self) -> MutexGuard<'_, HighWater> {
        // A mark is a number: whoever held the lock has left the old one or the new one.
        self.high_water.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a database by itself, in a folder that the caller keeps locked. It is closed once the database and
/// then the other value are dropped.
pub(super) fn open_beside(directory: &Path, cache_mib: u64) -> Result<(Release, sled::Db), sled::Error> {
    Ok((Release(directory.join("db")), open_sled(directory, cache_mib)?))
}

/// Makes a folder that nobody else may enter. One that is there keeps the mode that it has.
pub(super) fn make_private(path: &Path) -> Result<(), StoreError> {
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

/// Has the system read the file from the disk again.
///
/// After a write that failed, its memory may hold what the disk does not, as clean as if it did: what a
/// restart then decides on could be gone with the next power cut.
pub(super) fn forget_cached(file: &Path) -> Result<(), StoreError> {
    if !file.exists() {
        return Ok(());
    }
    let file_error = |source| StoreError::io("sync", file)(source);
    let opened = OpenOptions::new().read(true).write(true).open(file).map_err(file_error)?;
    opened.sync_all().map_err(file_error)?;
    // A file system that keeps its files in memory may refuse: it has no disk to read from.
    if let Err(error) = rustix::fs::fadvise(&opened, 0, None, Advice::DontNeed) {
        debug!(%error, "the system does not forget the file");
    }
    Ok(())
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
pub(super) struct Release(PathBuf);

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
