//! The write-ahead log: what makes a commit durable, with one write and one fdatasync.
//!
//! sled could do that by itself, but each flush of it wakes all threads of a pool, which costs more than the
//! write. So commits are logged here, and go on to sled together, a little later.
//!
//! There are two files, written in turn, each from its beginning once sled has all that it held. A record that
//! a crash has cut short is the last one, and was never acknowledged.
//!
//! | part of a record | bytes |
//! |---|---|
//! | length of all that follows the checksum | 4 |
//! | checksum of that | 4 |
//! | generation: a number that the file's records have in common with no earlier ones | 8 |
//! | commit | 8 |
//! | each write, to the end: length of the key, key, length of the value, value | 4, length, 4, length |
//!
//! A key that is removed has the length [`REMOVED`] in place of a value's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::access;
use super::disk::Writes;
use super::error::StoreError;
use super::folder::forget_cached;

/// The two files.
const NAMES: [&str; 2] = ["log-0", "log-1"];
/// Bytes at the beginning of a record that its checksum does not cover.
const UNCHECKED: usize = 8;
/// Stands for no value.
const REMOVED: u32 = u32::MAX;

/// The open files.
#[derive(Debug)]
pub(super) struct Wal {
    files: [File; 2],
    /// The file that is written.
    turn: usize,
    /// Where its next record goes.
    at: u64,
    generation: u64,
    /// Whether nothing was written since it was opened.
    untouched: bool,
    record: Vec<u8>,
}

/// A commit that the log has.
#[derive(Debug, PartialEq)]
pub(super) struct Logged {
    pub(super) commit: u64,
    pub(super) writes: Writes,
}

impl Wal {
    /// Opens the files in `folder`, which are made if they are missing, and reads what they hold: the records
    /// of each file, as far as they are whole, the oldest commit first.
    ///
    /// # Errors
    /// [`StoreError::Io`] if they cannot be made or read.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<Logged>), StoreError> {
        let mut logged = Vec::new();
        let mut open = |name| {
            let path = folder.join(name);
            forget_cached(&path)?;
            let file = access::options().open(&path).map_err(StoreError::io("open", &path))?;
            let bytes = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
            logged.extend(Records { rest: &bytes, last: None });
            Ok(file)
        };
        let files = [open(NAMES[0])?, open(NAMES[1])?];
        logged.sort_by_key(|record| record.commit);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let generation = since.as_nanos() as u64;
        Ok((Self { files, turn: 0, at: 0, generation, untouched: true, record: Vec::new() }, logged))
    }

    /// Writes a record, which survives a crash of the process, but not yet a power cut.
    ///
    /// The first one empties both files, of which sled must have everything: commits that a damaged store has
    /// lost, and makes anew, must not be followed by later ones of that time.
    pub(super) fn append(&mut self, commit: u64, writes: &Writes) -> io::Result<()> {
        if self.untouched {
            for file in &self.files {
                file.set_len(0)?;
                file.sync_all()?;
            }
            self.untouched = false;
        }
        encode(&mut self.record, self.generation, commit, writes)?;
        self.files[self.turn].write_all_at(&self.record, self.at)?;
        self.at += self.record.len() as u64;
        Ok(())
    }

    /// Makes all records survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.files[self.turn].sync_data()
    }

    /// Goes on with the other file, from its beginning: sled must have all that it holds.
    pub(super) fn turn(&mut self) {
        (self.turn, self.at) = (1 - self.turn, 0);
    }
}

fn encode(record: &mut Vec<u8>, generation: u64, commit: u64, writes: &Writes) -> io::Result<()> {
    record.clear();
    record.extend_from_slice(&[0; UNCHECKED]);
    record.extend_from_slice(&generation.to_be_bytes());
    record.extend_from_slice(&commit.to_be_bytes());
    for (key, value) in writes {
        put(record, key);
        match value {
            Some(value) => put(record, value),
            None => record.extend_from_slice(&REMOVED.to_be_bytes()),
        }
    }
    let checked = &record[UNCHECKED..];
    let length = u32::try_from(checked.len()).map_err(|_| io::Error::other("a commit is over 4 GiB"))?;
    let checksum = crc32fast::hash(checked);
    record[..4].copy_from_slice(&length.to_be_bytes());
    record[4..UNCHECKED].copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// Keys and values are a few KiB at most.
fn put(record: &mut Vec<u8>, bytes: &[u8]) {
    record.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    record.extend_from_slice(bytes);
}

/// The records of one file, up to the first that is not whole or does not go on from the one before it: what
/// lies behind that is of an earlier time.
struct Records<'a> {
    rest: &'a [u8],
    /// Generation and commit of the record before.
    last: Option<(u64, u64)>,
}

impl Iterator for Records<'_> {
    type Item = Logged;

    fn next(&mut self) -> Option<Logged> {
        let (&length, rest) = self.rest.split_first_chunk::<4>()?;
        let (&checksum, rest) = rest.split_first_chunk::<4>()?;
        let (checked, rest) = rest.split_at_checked(u32::from_be_bytes(length) as usize)?;
        if crc32fast::hash(checked) != u32::from_be_bytes(checksum) {
            return None;
        }
        let (&generation, writes) = checked.split_first_chunk::<8>()?;
        let (&commit, writes) = writes.split_first_chunk::<8>()?;
        let (generation, commit) = (u64::from_be_bytes(generation), u64::from_be_bytes(commit));
        if self.last.is_some_and(|last| last != (generation, commit.wrapping_sub(1))) {
            return None;
        }
        (self.rest, self.last) = (rest, Some((generation, commit)));
        Some(Logged { commit, writes: decode(writes)? })
    }
}

fn decode(mut rest: &[u8]) -> Option<Writes> {
    let mut take = |removable: bool| {
        let (&length, after) = rest.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(length);
        if removable && length == REMOVED {
            rest = after;
            return Some((None, rest.is_empty()));
        }
        let (bytes, after) = after.split_at_checked(length as usize)?;
        rest = after;
        Some((Some(bytes.to_vec()), rest.is_empty()))
    };
    let mut writes = Writes::new();
    loop {
        let (Some(key), _) = take(false)? else { return None };
        let (value, ended) = take(true)?;
        writes.insert(key, value);
        if ended {
            return Some(writes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(commit: u64) -> Writes {
        let value = vec![commit as u8; 100 + 7 * commit as usize];
        Writes::from([(b"a".to_vec(), Some(value)), (b"b".to_vec(), None), (b"c".to_vec(), Some(Vec::new()))])
    }

    fn logged(folder: &Path) -> Vec<u64> {
        let (_, logged) = Wal::open(folder).unwrap();
        assert!(logged.iter().all(|record| record.writes == writes(record.commit)));
        logged.iter().map(|record| record.commit).collect()
    }

    #[test]
    fn what_was_logged_is_read_back_from_both_files_in_the_order_of_commits() {
        let folder = tempfile::tempdir().unwrap();
        let (mut wal, nothing) = Wal::open(folder.path()).unwrap();
        assert_eq!(nothing, []);
        (1..=3).for_each(|commit| wal.append(commit, &writes(commit)).unwrap());
        wal.turn();
        (4..=5).for_each(|commit| wal.append(commit, &writes(commit)).unwrap());
        wal.sync().unwrap();
        assert_eq!(logged(folder.path()), [1, 2, 3, 4, 5]);
        wal.turn();
        wal.append(6, &writes(6)).unwrap();
        assert_eq!(logged(folder.path()), [4, 5, 6], "what is left of an earlier turn does not count");
    }

    #[test]
    fn a_record_that_is_cut_short_or_damaged_is_the_end_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut wal, _) = Wal::open(folder.path()).unwrap();
        (1..=2).for_each(|commit| wal.append(commit, &writes(commit)).unwrap());
        let file = folder.path().join(NAMES[0]);
        let whole = std::fs::read(&file).unwrap();
        let second = UNCHECKED + u32::from_be_bytes(*whole.first_chunk().unwrap()) as usize;
        for cut in [second, second + 1, whole.len() - 1] {
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert_eq!(logged(folder.path()), [1], "cut at {cut}");
        }
        for damaged in [second + 3, second + 20, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[damaged] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(logged(folder.path()), [1], "damaged at {damaged}");
        }
    }

    #[test]
    fn the_first_record_leaves_nothing_of_an_earlier_time_in_either_file() {
        let folder = tempfile::tempdir().unwrap();
        let (mut before, _) = Wal::open(folder.path()).unwrap();
        (1..=2).for_each(|commit| before.append(commit, &writes(commit)).unwrap());
        before.turn();
        (3..=4).for_each(|commit| before.append(commit, &writes(commit)).unwrap());
        assert_eq!(logged(folder.path()), [1, 2, 3, 4], "to look at it changes nothing");
        let (mut after, _) = Wal::open(folder.path()).unwrap();
        after.append(2, &writes(2)).unwrap();
        assert_eq!(logged(folder.path()), [2]);
    }
}
