//! Values as they lie on disk: format version, checksum, payload; long ones compressed and in chunks.
//!
//! sled moves a tree node of more than about 128 KiB to a file of its own, which it never syncs.
//! A node holds up to about 20 values, so no value may be longer than a few KiB: a longer payload
//! is cut, and its rest lies under chunk keys far from the keys that are scanned.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::{compression, keys};
use crate::json;

/// The format of a payload as it is.
const PLAIN: u8 = 2;
/// The format of a payload that is compressed: its length, and an LZ4 block. The latest that this version
/// reads.
const COMPRESSED: u8 = 3;
/// Bytes from which on a payload is compressed. sled writes each byte several times over.
const WORTHWHILE: usize = 256;
/// Bytes of payload in one value.
pub(super) const CHUNK: usize = 4 * 1024;
/// Bytes before the payload: format, checksum of all that follows, number of further chunks.
const HEADER: usize = 9;
/// How often a value that changes while it is read is read again.
const READS: usize = 100;

/// Adds `payload` under `key` to `writes`, in as many values as it needs; tells how many chunks there are
/// beside the first.
///
/// Where an earlier value had more of them, its last ones stay behind, unless [`replace`] does it.
pub(super) fn insert(writes: &mut Writes, key: &[u8], payload: &[u8]) -> u32 {
    let compressed = if payload.len() < WORTHWHILE { None } else { compression::compressed(payload) };
    let (format, stored) = match &compressed {
        Some(compressed) => (COMPRESSED, compressed.as_slice()),
        None => (PLAIN, payload),
    };
    let (first, rest) = stored.split_at(stored.len().min(CHUNK));
    let chunks = rest.chunks(CHUNK);
    let count = u32::try_from(chunks.len()).expect("a payload in memory has fewer than 2^32 chunks");
    for (number, chunk) in (1..).zip(chunks) {
        writes.insert(keys::chunk(key, number), Some(chunk.to_vec()));
    }
    let mut value = Vec::with_capacity(HEADER + first.len());
    value.push(format);
    value.extend_from_slice(&checksum(count, stored).to_be_bytes());
    value.extend_from_slice(&count.to_be_bytes());
    value.extend_from_slice(first);
    writes.insert(key.to_vec(), Some(value));
    count
}

/// Does what [`insert`] does, and removes those chunks that only the earlier value had.
///
/// # Errors
/// As [`Disk::get`].
pub(super) fn replace(
    writes: &mut Writes,
    disk: &Disk,
    key: &[u8],
    payload: &[u8],
) -> Result<(), StoreError> {
    let before = disk.get(key)?.map_or(0, |value| further_chunks(&value));
    let count = insert(writes, key, payload);
    for number in count + 1..=before {
        writes.insert(keys::chunk(key, number), None);
    }
    Ok(())
}

/// Removes the value under `key` with all its chunks.
///
/// # Errors
/// As [`Disk::get`].
pub(super) fn remove(writes: &mut Writes, disk: &Disk, key: &[u8]) -> Result<(), StoreError> {
    if let Some(value) = disk.get(key)? {
        remove_known(writes, key, further_chunks(&value));
    }
    Ok(())
}

/// Removes a value that has this many chunks beside the first.
pub(super) fn remove_known(writes: &mut Writes, key: &[u8], further_chunks: u32) {
    for number in 1..=further_chunks {
        writes.insert(keys::chunk(key, number), None);
    }
    writes.insert(key.to_vec(), None);
}

/// How many chunks a value has beside the first, as it says.
pub(super) fn further_chunks(value: &[u8]) -> u32 {
    match value.first_chunk::<HEADER>() {
        Some(&[.., a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        None => 0,
    }
}

/// The payload of a record that is kept as JSON.
pub(super) fn json(record: &impl Serialize) -> Vec<u8> {
    json::text(record)
}

/// Reads the payload under `key`.
///
/// # Errors
/// [`StoreError::Corrupt`] if the payload does not match its checksum, [`StoreError::Newer`] if it
/// has a format that this version does not know.
pub(super) fn read(disk: &Disk, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let mut head = disk.get(key)?;
    for _ in 0..READS {
        let Some(value) = head else { return Ok(None) };
        let read = assemble(disk, key, &value);
        if read.is_ok() {
            return read.map(Some);
        }
        // A commit may have replaced the value while its chunks were read one by one.
        head = disk.get(key)?;
        if head.as_ref() == Some(&value) {
            return read.map(Some);
        }
    }
    Err(disk.corrupt(key, "it changes faster than it can be read"))
}

/// Reads the JSON under `key`.
///
/// # Errors
/// As [`read`]; [`StoreError::Corrupt`] also if the payload is not a `T`.
pub(super) fn read_json<T: DeserializeOwned>(disk: &Disk, key: &[u8]) -> Result<Option<T>, StoreError> {
    let Some(payload) = read(disk, key)? else { return Ok(None) };
    serde_json::from_slice(&payload).map(Some).map_err(|error| disk.corrupt(key, error))
}

/// Puts a payload together from its first value and its chunks, and checks it.
fn assemble(disk: &Disk, key: &[u8], value: &[u8]) -> Result<Vec<u8>, StoreError> {
    let format = match value.first() {
        Some(&format @ (PLAIN | COMPRESSED)) => format,
        Some(&found) if found > COMPRESSED => return Err(disk.newer(key, found, COMPRESSED)),
        Some(1) => return Err(disk.corrupt(key, "it is of a format from before the first release")),
        _ => return Err(disk.corrupt(key, "it has no format version")),
    };
    let Some((header, first)) = value.split_first_chunk::<HEADER>() else {
        return Err(disk.corrupt(key, "it is cut off"));
    };
    let &[_, a, b, c, d, count @ ..] = header;
    let (expected, count) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(count));
    let mut payload = first.to_vec();
    for number in 1..=count {
        let chunk = keys::chunk(key, number);
        let rest = disk.get(&chunk)?.ok_or_else(|| disk.corrupt(&chunk, "it is missing"))?;
        payload.extend_from_slice(&rest);
    }
    if checksum(count, &payload) != expected {
        return Err(disk.corrupt(key, "it does not match its checksum"));
    }
    match format {
        PLAIN => Ok(payload),
        _ => {
            compression::decompressed(&payload).ok_or_else(|| disk.corrupt(key, "it cannot be decompressed"))
        }
    }
}

/// CRC-32 over the number of further chunks and the whole payload.
fn checksum(count: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&count.to_be_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoreConfig;
    use crate::store::folder::Claim;
    use crate::store::memory::Memory;

    fn disk() -> Disk {
        Disk::Memory(Memory::default())
    }

    fn put(disk: &Disk, payload: &[u8]) {
        let mut writes = Writes::default();
        insert(&mut writes, b"key", payload);
        disk.persist(writes.clone(), 1).unwrap();
    }

    fn put_raw(disk: &Disk, key: &[u8], value: &[u8]) {
        disk.persist(Writes::from([(key.to_vec(), Some(value.to_vec()))]), 1).unwrap();
    }

    /// Bytes that cannot be compressed.
    fn noise(length: usize) -> Vec<u8> {
        let mut dice = fastrand::Rng::with_seed(length as u64);
        (0..length).map(|_| dice.u8(..)).collect()
    }

    #[test]
    fn payloads_of_every_length_come_back() {
        let disk = disk();
        for length in [3 * CHUNK + 1, 0, 1, WORTHWHILE, CHUNK, CHUNK + 1, 2 * CHUNK, 1 << 20, 5] {
            for payload in [noise(length), vec![b'x'; length]] {
                put(&disk, &payload);
                assert!(read(&disk, b"key").unwrap() == Some(payload), "length {length}");
            }
        }
    }

    #[test]
    fn what_is_long_is_compressed_where_that_makes_it_shorter() {
        let length = |payload: &[u8]| {
            let disk = disk();
            put(&disk, payload);
            disk.get(b"key").unwrap().unwrap().len() - HEADER
        };
        assert!(length(&[b'x'; CHUNK]) < 100);
        assert_eq!(length(&noise(CHUNK)), CHUNK);
        assert_eq!(length(&[b'x'; WORTHWHILE - 1]), WORTHWHILE - 1);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let disk = disk();
        put(&disk, &noise(CHUNK + 10));
        for (key, at) in
            [(b"key".to_vec(), 1), (b"key".to_vec(), 8), (b"key".to_vec(), 50), (keys::chunk(b"key", 1), 3)]
        {
            let before = disk.get(&key).unwrap().unwrap();
            let mut after = before.to_vec();
            after[at] ^= 1;
            put_raw(&disk, &key, &after);
            assert!(matches!(read(&disk, b"key"), Err(StoreError::Corrupt { .. })), "byte {at} of {key:?}");
            put_raw(&disk, &key, &before);
        }
        assert!(read(&disk, b"key").is_ok());
    }

    #[test]
    fn a_later_format_is_refused() {
        let disk = disk();
        put_raw(&disk, b"key", &[COMPRESSED + 1, 0, 0]);
        assert!(
            matches!(read(&disk, b"key"), Err(StoreError::Newer { found, .. }) if found == COMPRESSED + 1)
        );
    }

    #[test]
    fn a_value_that_changes_while_it_is_read_is_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let disk =
            Disk::open(Claim::of(&StoreConfig { path: folder.path().join("store"), cache_mib: 64 }).unwrap())
                .unwrap();
        let rounds: Vec<_> = (10 * CHUNK..10 * CHUNK + 100).map(noise).collect();
        put(&disk, &rounds[0]);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| rounds.iter().for_each(|round| put(&disk, round)));
            while !writer.is_finished() {
                let payload = read(&disk, b"key").unwrap().unwrap();
                assert!(payload == rounds[payload.len() - 10 * CHUNK]);
            }
        });
    }
}
