//! The folder of a store: made, locked, cleaned up, opened with sled, and synced.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use tracing::{debug, warn};

use super::access;
use super::backlog::{self, Backlog};
use super::disk::Writes;
use super::error::StoreError;
use super::high_water::HighWater;
use super::keys;
use super::place::Place;
use super::recording::Recording;
use super::wal::{Logged, Wal};
use crate::config::StoreConfig;
use crate::fault::{self, Bug, Point};

/// How long sled may take to let go of its file when it is closed.
const CLOSING: Duration = Duration::from_secs(5);

/// An open store folder. It stays locked until this is dropped.
pub(super) struct Folder {
    // Fields are dropped in the order in which they stand: sled is closed, then the folder unlocked.
    backlog: Backlog,
    _release: Release,
    wal: Mutex<Wal>,
    high_water: Mutex<HighWater>,
    recording: Recording,
    place: Place,
    lock: File,
    path: PathBuf,
}

/// A folder that is locked for a store. Whether there is one in it is another matter.
pub struct Claim {
    config: StoreConfig,
    lock: File,
}

impl Claim {
    /// Locks a folder, which is made (mode 0700) if it is missing.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::Io`] if it cannot be made.
    pub fn of(config: &StoreConfig) -> Result<Self, StoreError> {
        make_private(&config.path)?;
        access::check(&config.path)?;
        Ok(Self { lock: lock(&config.path)?, config: config.clone() })
    }

    /// Whether there is a store. To open one that is not there makes it.
    pub fn has_store(&self) -> bool {
        self.config.path.join("sled").is_dir()
    }
}

impl Folder {
    /// Opens the store in a folder that is locked, and makes it first where it is missing. Once this returns, the
    /// folder and its files survive a power cut.
    ///
    /// # Errors
    /// [`StoreError::Open`] if sled cannot read it, [`StoreError::HighWater`] if the mark makes no sense,
    /// [`StoreError::Io`] if a file cannot be made.
    pub(super) fn open(Claim { config, lock }: Claim) -> Result<Self, StoreError> {
        let path = config.path;
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
        let (wal, logged) = Wal::open(&path)?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", &path))?;
        catch_up(&sled, &database, logged).map_err(|source| StoreError::commit(&path, source))?;
        let backlog = Backlog::start(sled, database).map_err(StoreError::io("start a thread for", &path))?;
        let (wal, high_water) = (Mutex::new(wal), Mutex::new(HighWater::open(&path)?));
        let place = Place::of(&path)?;
        let recording = Recording::default();
        Ok(Self { backlog, _release: release, wal, high_water, recording, place, lock, path })
    }

    /// Closes the database, and returns what keeps the folder locked.
    pub(super) fn close(self) -> File {
        let Self { backlog, _release: release, lock, .. } = self;
        drop(backlog);
        drop(release);
        lock
    }

    /// The database, as far as it has what was committed: all of it after [`drain`](Self::drain), until the next
    /// commit. Everything is in its default tree.
    pub(super) fn sled(&self) -> &sled::Db {
        self.backlog.sled()
    }

    /// Reads one value.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, sled::Error> {
        self.backlog.get(key)
    }

    /// The keys of a range, in order.
    pub(super) fn keys(
        &self,
        range: Range<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<sled::IVec, sled::Error>> {
        self.backlog.keys(range)
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

    /// What records writes while somebody copies the database.
    pub(super) fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Makes `writes` durable with one write and one fdatasync of the log, then notes that they are. sled has
    /// them a little later.
    pub(super) fn persist(&self, writes: Writes, commit: u64) -> Result<(), sled::Error> {
        let recorded = self.recording.is_on().then(|| writes.clone());
        self.log(writes, commit).inspect_err(|_| self.recording.fail())?;
        // Only now that all can be read: whoever takes it may count on that for what is still to be copied.
        if let Some(recorded) = recorded {
            self.recording.note(recorded);
        }
        Ok(())
    }

    fn log(&self, writes: Writes, commit: u64) -> Result<(), sled::Error> {
        let mut wal = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        fault::pass(Point::Commit);
        fault::pass(Point::Append);
        wal.append(commit, &writes)?;
        fault::pass(Point::Logged);
        let synced = !fault::planted(Bug::NoSync);
        if synced {
            wal.sync()?;
            fault::pass(Point::Synced);
        }
        if self.backlog.add(writes, commit)? {
            wal.turn();
        }
        if synced {
            self.high_water().advance(commit)?;
        }
        Ok(())
    }

    /// Looks whether the files are still in their place: at the one that costs the least, and seldom at all.
    pub(super) fn confirm(&self) -> Result<(), StoreError> {
        self.place.confirm(&self.lock)
    }

    /// Looks whether all files are still in their place.
    pub(super) fn look(&self) -> Result<(), StoreError> {
        self.place.look()
    }

    /// Waits until sled has everything.
    ///
    /// # Errors
    /// [`StoreError::Commit`] or [`StoreError::Full`] if sled does not take it.
    pub(super) fn drain(&self) -> Result<(), StoreError> {
        self.backlog.drain().map_err(|source| StoreError::commit(&self.path, source))
    }

    fn high_water(&self) -> MutexGuard<'_, HighWater> {
        // A mark is a number: whoever held the lock has left the old one or the new one.
        self.high_water.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings to sled what only the log has: what comes after the commit up to which sled has everything, as far as
/// none is missing in between.
fn catch_up(sled: &sled::Db, database: &File, logged: Vec<Logged>) -> Result<(), sled::Error> {
    let settled = sled.get(keys::SETTLED)?.and_then(|bytes| Some(u64::from_be_bytes(*bytes.first_chunk()?)));
    let mut last = settled;
    let mut missing = Writes::new();
    for Logged { commit, writes } in logged {
        if settled.is_some_and(|settled| commit <= settled) {
            continue;
        }
        if last.is_some_and(|last| commit != last + 1) {
            // Whether what is missing was acknowledged is told by the high-water mark.
            warn!(commit, "the log goes on behind a gap, which is not taken up");
            break;
        }
        missing.extend(writes);
        last = Some(commit);
    }
    match last {
        Some(last) if !missing.is_empty() => backlog::settle(sled, database, &missing, last),
        _ => Ok(()),
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
    let mut file = access::options().open(&path).map_err(StoreError::io("open", &path))?;
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

    fn open(path: &Path) -> Folder {
        Folder::open(Claim::of(&StoreConfig { path: path.to_owned(), cache_mib: 16 }).unwrap()).unwrap()
    }

    fn commit(folder: &Folder, number: u8) {
        let writes = Writes::from([
            (b"latest".to_vec(), Some(vec![number])),
            (vec![b'x', number], Some(vec![number])),
            (vec![b'x', number - 1], None),
        ]);
        folder.persist(writes, number.into()).unwrap();
    }

    /// The folder as a SIGKILL would leave it at this moment.
    fn killed(folder: &Folder, to: &Path) {
        fs::create_dir_all(to.join("sled")).unwrap();
        for name in ["high-water", "log-0", "log-1", "sled/db", "sled/conf"] {
            fs::copy(folder.path().join(name), to.join(name)).unwrap();
        }
    }

    fn latest(folder: &Folder) -> Option<u8> {
        let all: Vec<_> = folder.keys(b"x".to_vec()..b"y".to_vec()).map(|key| key.unwrap()[1]).collect();
        let latest = folder.get(b"latest").unwrap().map(|value| value[0]);
        assert_eq!(all, Vec::from_iter(latest), "each commit is there as a whole");
        latest
    }

    #[test]
    fn what_only_the_log_has_is_brought_to_sled_at_the_next_start_and_at_every_further_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(&root.path().join("store"));
        (1..=3).for_each(|number| commit(&folder, number));
        assert_eq!(folder.sled().get("latest").unwrap(), None);
        killed(&folder, &root.path().join("once"));
        let once = open(&root.path().join("once"));
        assert_eq!((latest(&once), once.sled().get("latest").unwrap().unwrap()[0]), (Some(3), 3));
        (4..=5).for_each(|number| commit(&once, number));
        killed(&once, &root.path().join("twice"));
        assert_eq!(latest(&open(&root.path().join("twice"))), Some(5));
    }

    #[test]
    fn what_has_settled_is_not_taken_from_the_log_again() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(&root.path().join("store"));
        commit(&folder, 1);
        folder.drain().unwrap();
        commit(&folder, 2);
        let log = fs::read(folder.path().join("log-0")).unwrap();
        folder.drain().unwrap();
        killed(&folder, &root.path().join("killed"));
        // As if the log were of an earlier time.
        fs::write(root.path().join("killed/log-0"), &log[..log.len() / 2]).unwrap();
        assert_eq!(latest(&open(&root.path().join("killed"))), Some(2));
    }

    #[test]
    fn a_log_that_is_damaged_before_its_end_is_behind_the_mark() {
        let root = tempfile::tempdir().unwrap();
        let folder = open(&root.path().join("store"));
        (1..=3).for_each(|number| commit(&folder, number));
        let damaged = root.path().join("damaged");
        killed(&folder, &damaged);
        let mut log = fs::read(damaged.join("log-0")).unwrap();
        let middle = log.len() / 2;
        log[middle] ^= 1;
        fs::write(damaged.join("log-0"), log).unwrap();
        let folder = open(&damaged);
        assert_eq!((latest(&folder), folder.mark()), (Some(1), 3), "the store refuses it");
    }
}
