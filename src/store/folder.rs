//! The folder of a store: made, locked, cleaned up, opened with sled, and synced.

use std::collections::HashSet;
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
use super::{keys, record};
use crate::config::StoreConfig;
use crate::fault::{self, Bug, Point};

/// Bytes from which on a batch is not left to sled as a whole: a few of its log buffers of 512 KiB. With eight
/// in flight, sled 0.34 can lock up for good while it shrinks its file.
const LARGEST_BATCH: usize = 1 << 20;
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
    /// Before that, most of a large one is written ahead.
    pub(super) fn persist(&self, writes: &Writes, commit: u64) -> Result<(), sled::Error> {
        let bytes: usize = writes.iter().map(|(key, value)| bytes_of(key, value.as_ref())).sum();
        let ahead = if bytes > LARGEST_BATCH { self.write_ahead(writes)? } else { HashSet::new() };
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(_) if ahead.contains(key.as_slice()) => {}
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

    /// Writes what nobody can see before the rest of a commit is there: chunks of values that do not say yet
    /// that they have so many. A crash leaves some that nobody ever sees, until the same values are written
    /// after all. Returns their keys.
    fn write_ahead<'a>(&self, writes: &'a Writes) -> Result<HashSet<&'a [u8]>, sled::Error> {
        let mut written = HashSet::new();
        let (mut batch, mut bytes) = (sled::Batch::default(), 0);
        for (key, value) in writes {
            let (Some(chunk), Some((of, number))) = (value, keys::chunk_of(key)) else { continue };
            let seen = self.sled.get(of)?.map_or(0, |value| record::further_chunks(&value));
            if number <= seen {
                continue;
            }
            batch.insert(key.as_slice(), chunk.as_slice());
            written.insert(key.as_slice());
            bytes += bytes_of(key, Some(chunk));
            if bytes >= LARGEST_BATCH / 2 {
                self.sled.apply_batch(std::mem::take(&mut batch))?;
                self.sled.flush()?;
                bytes = 0;
            }
        }
        self.sled.apply_batch(batch)?;
        self.sled.flush()?;
        Ok(written)
    }

    fn high_water(&self) -> MutexGuard<'_, HighWater> {
        // A mark is a number: whoever held the lock has left the old one or the new one.
        self.high_water.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(key: &[u8], value: Option<&Vec<u8>>) -> usize {
    key.len() + value.map_or(0, Vec::len)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A value with chunks that come to some megabytes.
    fn large(byte: u8, chunks: u32) -> Writes {
        let mut value = vec![byte; 5];
        value.extend_from_slice(&chunks.to_be_bytes());
        let mut writes = Writes::from([(b"j1".to_vec(), Some(value))]);
        writes.extend((1..=chunks).map(|number| (keys::chunk(b"j1", number), Some(vec![byte; 4096]))));
        writes
    }

    fn value(folder: &Folder) -> Option<u8> {
        folder.sled().get(b"j1").unwrap().map(|value| value[0])
    }

    fn chunk(folder: &Folder, number: u32) -> Option<u8> {
        folder.sled().get(keys::chunk(b"j1", number)).unwrap().map(|value| value[0])
    }

    #[test]
    fn a_large_commit_shows_nothing_before_its_end_and_can_be_made_after_a_crash_in_its_middle() {
        let directory = tempfile::tempdir().unwrap();
        let config = StoreConfig { path: directory.path().join("store"), cache_mib: 16 };
        let folder = Folder::open(&config).unwrap();
        assert_eq!(folder.write_ahead(&large(1, 2000)).unwrap().len(), 2000);
        drop(folder);
        let folder = Folder::open(&config).unwrap();
        assert_eq!(value(&folder), None, "only chunks are there, which nobody looks for");
        folder.persist(&large(2, 2000), 1).unwrap();
        drop(folder);
        let folder = Folder::open(&config).unwrap();
        assert_eq!(value(&folder), Some(2));
        assert!((1..=2000).all(|number| chunk(&folder, number) == Some(2)));
    }

    #[test]
    fn chunks_that_a_value_has_are_not_replaced_ahead_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let config = StoreConfig { path: directory.path().join("store"), cache_mib: 16 };
        let folder = Folder::open(&config).unwrap();
        folder.persist(&large(1, 400), 1).unwrap();
        assert_eq!(folder.write_ahead(&large(2, 500)).unwrap().len(), 100);
        assert_eq!([400, 401].map(|number| chunk(&folder, number)), [Some(1), Some(2)]);
        folder.persist(&large(2, 500), 2).unwrap();
        assert_eq!([400, 401].map(|number| chunk(&folder, number)), [Some(2), Some(2)]);
    }
}
