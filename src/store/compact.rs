//! Compaction: a copy of the database that has nothing but what is in it, in its place.
//!
//! sled keeps the room that it once took, and some of what was removed. So everything that is there is
//! copied into a fresh database beside it, which is read back and compared before the two folders change
//! places in one step. Whenever that ends early, the folder `sled` is whole; what `sled.compact` holds then
//! is removed by the next try.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::disk::Disk;
use super::error::StoreError;
use super::folder::{self, Folder};
use super::writer::Store;
use super::{keys, record};
use crate::config::StoreConfig;

/// Bytes that are copied in one batch.
const BATCH: usize = 512 * 1024;

/// What a compaction came to.
#[derive(Clone, Copy, Debug)]
pub struct Compacted {
    /// Keys that were copied.
    pub keys: u64,
    /// Keys that belonged to nothing, and were left out.
    pub left_out: u64,
    /// Bytes on the disk before.
    pub before: u64,
    /// Bytes on the disk after.
    pub after: u64,
}

/// Compacts the store in a folder, which no other process may use. `progress` is told how many keys have
/// been copied. It takes as much room as what is in the store, until it is done.
///
/// A crash at any point leaves the store as it was, or compacted.
///
/// # Errors
/// As [`Store::open`]; [`StoreError::Full`] if there is no room for the copy; [`StoreError::Copy`] if the
/// copy is not the same; [`StoreError::Io`] if the folders cannot be exchanged. The store is as it was.
pub fn compact(config: &StoreConfig, progress: impl FnMut(u64)) -> Result<Compacted, StoreError> {
    let store = Store::open(config)?;
    let (database, copied) = (config.path.join("sled"), config.path.join("sled.compact"));
    remove(&copied)?;
    let made = make_copy(config, &store, &copied, progress);
    let (tally, left_out) = made.inspect_err(|_| drop(remove(&copied)))?;
    let before = bytes_in(&database)?;
    let _lock = close(store);
    renameat_with(CWD, &copied, CWD, &database, RenameFlags::EXCHANGE)
        .map_err(|errno| StoreError::io("exchange the folder sled with", &copied)(errno.into()))
        .inspect_err(|_| drop(remove(&copied)))?;
    sync(&config.path)?;
    remove(&copied)?;
    Ok(Compacted { keys: tally.keys, left_out, before, after: bytes_in(&database)? })
}

/// Makes a copy that is known to be the same and survives a power cut; tells how many keys were left out.
fn make_copy(
    config: &StoreConfig,
    store: &Store,
    to: &Path,
    progress: impl FnMut(u64),
) -> Result<(Tally, u64), StoreError> {
    folder::make_private(to)?;
    let Disk::Folder(from) = store.disk() else { unreachable!("a folder was opened") };
    from.drain()?;
    let copied = copy(from, to, config.cache_mib, progress)?;
    verify(&config.path, to, config.cache_mib, &copied.0)?;
    for entry in fs::read_dir(to).map_err(StoreError::io("read folder", to))? {
        let path = entry.map_err(StoreError::io("read folder", to))?.path();
        sync(&path)?;
    }
    sync(to)?;
    sync(&config.path)?;
    Ok(copied)
}

/// What was read or written, in the order of the keys.
#[derive(Default)]
struct Tally {
    keys: u64,
    checksum: crc32fast::Hasher,
}

impl Tally {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.keys += 1;
        for part in [key, value] {
            self.checksum.update(&(part.len() as u64).to_be_bytes());
            self.checksum.update(part);
        }
    }
}

/// Copies everything but chunks that belong to nothing, and closes the copy.
fn copy(
    from: &Folder,
    to: &Path,
    cache_mib: u64,
    mut progress: impl FnMut(u64),
) -> Result<(Tally, u64), StoreError> {
    let unwritable = |source| StoreError::commit(from.path(), source);
    let (_closed, copy) = folder::open_beside(to, cache_mib).map_err(unwritable)?;
    let (mut tally, mut left_out) = (Tally::default(), 0);
    let mut owner = Owner::default();
    let (mut batch, mut bytes) = (sled::Batch::default(), 0);
    for entry in from.sled().iter() {
        let (key, value) = entry.map_err(|source| StoreError::read(from.path(), source))?;
        if !owner.has(from, &key)? {
            left_out += 1;
            continue;
        }
        tally.add(&key, &value);
        bytes += key.len() + value.len();
        batch.insert(key, value);
        if bytes >= BATCH {
            write(&copy, &mut batch).map_err(unwritable)?;
            bytes = 0;
            progress(tally.keys);
        }
    }
    write(&copy, &mut batch).map_err(unwritable)?;
    progress(tally.keys);
    Ok((tally, left_out))
}

fn write(copy: &sled::Db, batch: &mut sled::Batch) -> Result<(), sled::Error> {
    copy.apply_batch(std::mem::take(batch))?;
    copy.flush().map(drop)
}

/// Reads the copy back from the disk.
fn verify(store: &Path, copied: &Path, cache_mib: u64, expected: &Tally) -> Result<(), StoreError> {
    folder::forget_cached(&copied.join("db"))?;
    let unreadable = |source| StoreError::read(copied, source);
    let (_closed, copy) = folder::open_beside(copied, cache_mib).map_err(unreadable)?;
    let mut found = Tally::default();
    for entry in copy.iter() {
        let (key, value) = entry.map_err(unreadable)?;
        found.add(&key, &value);
    }
    let sum = |tally: &Tally| (tally.keys, tally.checksum.clone().finalize());
    if sum(&found) == sum(expected) { Ok(()) } else { Err(StoreError::Copy { path: store.to_owned() }) }
}

/// The value that chunks belong to, and how many it has: they follow on each other.
#[derive(Default)]
struct Owner {
    key: Vec<u8>,
    chunks: u32,
}

impl Owner {
    /// Whether a key is no chunk, or one that belongs to a value.
    fn has(&mut self, from: &Folder, key: &[u8]) -> Result<bool, StoreError> {
        let Some((of, number)) = keys::chunk_of(key) else { return Ok(true) };
        if self.key != of {
            let value = from.sled().get(of).map_err(|source| StoreError::read(from.path(), source))?;
            *self =
                Self { key: of.to_vec(), chunks: value.map_or(0, |value| record::further_chunks(&value)) };
        }
        Ok(number <= self.chunks)
    }
}

/// Closes a store that nobody reads, and keeps its folder locked.
fn close(store: Store) -> Option<File> {
    match Arc::into_inner(store.into_shared())?.disk {
        Disk::Folder(folder) => Some(folder.close()),
        Disk::Memory(_) => None,
    }
}

fn remove(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", folder)(error)),
        _ => Ok(()),
    }
}

/// Makes a file or folder survive a power cut.
fn sync(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", path))
}

/// Bytes that the files in a folder take.
fn bytes_in(folder: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(StoreError::io("read folder", folder))? {
        let metadata = entry.and_then(|entry| entry.metadata()).map_err(StoreError::io("read", folder))?;
        bytes += metadata.blocks() * 512;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_not_the_same_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { path: folder.path().join("store"), cache_mib: 16 };
        let mut store = Store::open(&config).unwrap();
        let mut batch = crate::store::Batch::default();
        batch.define("order", 1, &"hash".to_owned(), &"source ".repeat(10_000));
        store.commit(batch).unwrap();
        let Disk::Folder(from) = store.disk() else { panic!("no folder") };
        let to = folder.path().join("copy");
        let (tally, left_out) = copy(from, &to, 16, |_| {}).unwrap();
        assert_eq!((tally.keys, left_out), (from.sled().len() as u64, 0));
        verify(&config.path, &to, 16, &tally).unwrap();
        let tamper = |change: &dyn Fn(&sled::Db)| {
            let (_closed, copy) = folder::open_beside(&to, 16).unwrap();
            change(&copy);
            copy.flush().unwrap();
        };
        for (key, value) in [(b"m".as_slice(), b"x".as_slice()), (b"z", b"")] {
            let before = from.sled().get(key).unwrap();
            tamper(&|copy| drop(copy.insert(key, value).unwrap()));
            assert!(matches!(verify(&config.path, &to, 16, &tally), Err(StoreError::Copy { .. })));
            tamper(&|copy| match &before {
                Some(before) => drop(copy.insert(key, before).unwrap()),
                None => drop(copy.remove(key).unwrap()),
            });
            verify(&config.path, &to, 16, &tally).unwrap();
        }
    }
}
