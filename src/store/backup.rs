//! Backup: a copy of the store as one commit left it, made while commits go on.
//!
//! ```text
//! begin:  between two commits, have all later writes recorded
//! copy:   key by key, as they are now; after each slice, the writes recorded meanwhile, as far as the copy has come
//! end:    between two commits, take what is still recorded, and write it
//! ```
//!
//! What is recorded can be read by then, so that what was dropped of it, as the copy had not come to it, is copied.
//! A key that no commit wrote meanwhile was the same all the time. One that a commit wrote is in the record, and its
//! last value comes last. So the copy is what was on the disk between the two commits at the end, and no commit has
//! waited for it. The number of the last commit, without which no store is opened, is written last; the folder has
//! another name until it is on disk for good.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cancel::Cancel;
use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::folder::{self, Folder};
use super::high_water::HighWater;
use super::keys;
use super::reader::Reader;
use super::recording::{Lost, Recorder};
use super::shared::Shared;

pub use error::BackupError;
pub use place::Place;

mod error;
mod place;

/// Bytes that are copied before it is looked what commits have written meanwhile.
const SLICE: usize = 1 << 20;
/// Bytes that sled takes between two flushes; see [`backlog`](super::backlog).
const STRETCH: usize = 128 << 10;
/// Beyond every key.
const END: &[u8] = &[u8::MAX];
/// Room that is left on the disk of the store.
const RESERVE: u64 = 64 << 20;
/// Megabytes of cache for the copy.
const CACHE_MIB: u64 = 16;

/// What a backup came to.
#[derive(Clone, Debug)]
pub struct BackedUp {
    /// Where it is.
    pub path: PathBuf,
    /// The commit that it is of.
    pub commit: u64,
    /// Instances in it.
    pub instances: u64,
    /// Bytes that its files take.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Copies a store to a place, on the thread that calls. `progress` is told how many bytes of keys and values have been
/// written. Once this returns, the backup survives a power cut.
///
/// Memory is bounded: a slice of the store, and what commits write while one is copied. Commits wait for nothing but,
/// at both ends, for a lock.
///
/// # Errors
/// [`BackupError::Full`] and [`BackupError::Io`] if it cannot be written, [`BackupError::Behind`] if commits are
/// faster, [`BackupError::Busy`] if another backup is under way, [`BackupError::Store`] if the store cannot be read, or
/// `cancel` ends it. Nothing of it is left then.
pub fn back_up(
    reader: &Reader,
    place: Place,
    cancel: &Cancel,
    progress: impl FnMut(u64),
) -> Result<BackedUp, BackupError> {
    let path = place.path().to_owned();
    // sled panics on some of what can go wrong with files.
    panic::catch_unwind(AssertUnwindSafe(|| make(reader, place, cancel, progress))).unwrap_or_else(|_| {
        Err(BackupError::write(&path, sled::Error::ReportableBug("it panicked".to_owned())))
    })
}

fn make(
    reader: &Reader,
    place: Place,
    cancel: &Cancel,
    progress: impl FnMut(u64),
) -> Result<BackedUp, BackupError> {
    let begun = Instant::now();
    let shared = reader.shared();
    let Disk::Folder(from) = &shared.disk else { unreachable!("a folder was opened") };
    let mut high_water = HighWater::open(place.unfinished())?;
    // A part of a backup has no commit, and so is one that has lost its tail.
    high_water.advance(from.mark()).map_err(BackupError::io("write", place.unfinished()))?;
    let mut copy = Copy::open(from, &place)?;
    let (commit, instances) = copy.fill(from, shared, cancel, progress)?;
    copy.close()?;
    let noted = high_water.advance(commit).and_then(|()| high_water.sync());
    noted.map_err(BackupError::io("write", place.unfinished()))?;
    drop(high_water);
    cancel.check()?;
    let (path, bytes) = place.finish()?;
    Ok(BackedUp { path, commit, instances, bytes, took: begun.elapsed() })
}

/// The copy's database.
struct Copy<'a> {
    // Dropped in this order: the database, then what waits until it is closed.
    sled: sled::Db,
    closed: folder::Release,
    place: &'a Place,
    /// Whether it is on the disk of the store, which must not be filled.
    on_same_disk: bool,
    /// Bytes since the last flush.
    unflushed: usize,
    /// Bytes in all.
    written: u64,
    /// Keys in the view by status, of which each instance in the tables has one.
    in_tables: u64,
}

impl<'a> Copy<'a> {
    fn open(from: &Folder, place: &'a Place) -> Result<Self, BackupError> {
        let directory = place.unfinished().join("sled");
        folder::make_private(&directory)?;
        let opened = folder::open_beside(&directory, CACHE_MIB);
        let (closed, sled) = opened.map_err(|source| BackupError::write(place.path(), source))?;
        let device = |path: &Path| path.metadata().ok().map(|metadata| metadata.dev());
        let on_same_disk = device(&directory) == device(from.path());
        Ok(Self { sled, closed, place, on_same_disk, unflushed: 0, written: 0, in_tables: 0 })
    }

    /// Copies everything; returns which commit that is of, and how many instances.
    fn fill(
        &mut self,
        from: &Folder,
        shared: &Shared,
        cancel: &Cancel,
        mut progress: impl FnMut(u64),
    ) -> Result<(u64, u64), BackupError> {
        let recorder = {
            let _committing = shared.committing();
            from.recording().begin().ok_or(BackupError::Busy)?
        };
        let mut next = Vec::new();
        loop {
            cancel.check()?;
            self.look_for_room()?;
            let copied = self.copy_slice(from, &next)?;
            // What commits wrote beyond it is still to be copied.
            let (end, is_done) = copied.map_or((END.to_vec(), true), |end| (end, false));
            self.catch_up(self.taken(&recorder)?, &end)?;
            progress(self.written);
            if is_done {
                break;
            }
            next = end;
        }
        let (rest, meta, commit, in_journal) = {
            let _committing = shared.committing();
            let rest = self.taken(&recorder)?;
            drop(recorder);
            let meta = from.get(keys::META).map_err(|source| StoreError::read(from.path(), source))?;
            (rest, meta, from.mark(), shared.memtable().only_here())
        };
        self.catch_up(rest, END)?;
        self.put(keys::SETTLED, Some(&commit.to_be_bytes()))?;
        self.put(keys::META, meta.as_deref())?;
        self.flush()?;
        Ok((commit, self.in_tables + in_journal))
    }

    /// Copies a slice of the keys from `next` on; returns from where on to go on, none where there are no more.
    fn copy_slice(&mut self, from: &Folder, next: &[u8]) -> Result<Option<Vec<u8>>, BackupError> {
        let unreadable = |source| StoreError::read(from.path(), source);
        let full_at = self.written + SLICE as u64;
        for key in from.keys(next.to_vec()..END.to_vec()) {
            let key = key.map_err(unreadable)?;
            // A commit may have removed it meanwhile.
            if let Some(value) = from.get(&key).map_err(unreadable)?.filter(|_| !is_of_the_end(&key)) {
                self.put(&key, Some(&value))?;
            }
            if self.written >= full_at {
                return Ok(Some([&key[..], &[0]].concat()));
            }
        }
        Ok(None)
    }

    /// Writes what commits wrote to keys before `end`.
    fn catch_up(&mut self, writes: Writes, end: &[u8]) -> Result<(), BackupError> {
        let before = writes.iter().take_while(|(key, _)| key.as_slice() < end);
        for (key, value) in before.filter(|(key, _)| !is_of_the_end(key)) {
            self.put(key, value.as_deref())?;
        }
        Ok(())
    }

    fn taken(&self, recorder: &Recorder<'_>) -> Result<Writes, BackupError> {
        let path = self.place.path().to_owned();
        recorder.take().map_err(|lost| match lost {
            Lost::TooMuch => BackupError::Behind { path },
            Lost::Failed => BackupError::Failed { path },
        })
    }

    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), BackupError> {
        let put = match value {
            Some(value) => self.sled.insert(key, value),
            None => self.sled.remove(key),
        };
        let before = put.map_err(|source| BackupError::write(self.place.path(), source))?;
        if key.first() == Some(&keys::BY_STATUS) {
            self.in_tables -= u64::from(before.is_some());
            self.in_tables += u64::from(value.is_some());
        }
        let bytes = key.len() + value.map_or(0, <[u8]>::len);
        self.written += bytes as u64;
        self.unflushed += bytes;
        if self.unflushed >= STRETCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BackupError> {
        self.unflushed = 0;
        self.sled.flush().map(drop).map_err(|source| BackupError::write(self.place.path(), source))
    }

    /// Sagas need the room more than a copy of them does.
    fn look_for_room(&self) -> Result<(), BackupError> {
        if !self.on_same_disk {
            return Ok(());
        }
        let free = rustix::fs::statvfs(self.place.unfinished());
        if free.is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < RESERVE) {
            return Err(BackupError::Reserve { path: self.place.path().to_owned(), mib: RESERVE >> 20 });
        }
        Ok(())
    }

    /// Closes the database, and has all of it survive a power cut.
    fn close(self) -> Result<(), BackupError> {
        let Self { sled, closed, place, .. } = self;
        drop(sled);
        drop(closed);
        place.sync_files(&place.unfinished().join("sled"))
    }
}

/// Whether a key is written at the end: it says up to which commit everything is there.
fn is_of_the_end(key: &[u8]) -> bool {
    [keys::META, keys::SETTLED].contains(&key)
}

/// Makes a file or folder survive a power cut.
fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(BackupError::io("sync", path))
}
