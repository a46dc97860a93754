//! Values as they lie on disk: format version, checksum, payload; long ones in chunks.
//!
//! sled moves a tree node of more than about 128 KiB to a file of its own, which it never syncs.
//! A node holds up to about 20 values, so no value may be longer than a few KiB: a longer payload
//! is cut, and its rest lies under chunk keys far from the keys that are scanned.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::keys;

/// The format that this version writes, and the latest that it reads.
const FORMAT: u8 = 1;
/// Bytes of payload in one value.
const CHUNK: usize = 4 * 1024;
/// Bytes before the payload: format, checksum of all that follows, number of further chunks.
const HEADER: usize = 9;
/// How often a value that changes while it is read is read again.
const READS: usize = 100;

/// Adds `payload` under `key` to `writes`, in as many values as it needs; tells how many bytes that
/// makes.
///
/// Where an earlier value was longer, its last chunks stay behind; they are never read.
pub(super) fn insert(writes: &mut Writes, key: &[u8], payload: &[u8]) -> usize {
    let (first, rest) = payload.split_at(payload.len().min(CHUNK));
    let chunks = rest.chunks(CHUNK);
    let count = u32::try_from(chunks.len()).expect("a payload in memory has fewer than 2^32 chunks");
    for (number, chunk) in (1..).zip(chunks) {
        writes.insert(keys::chunk(key, number), Some(chunk.to_vec()));
    }
    let mut value = Vec::with_capacity(HEADER + first.len());
    value.push(FORMAT);
    value.extend_from_slice(&checksum(count, payload).to_be_bytes());
    value.extend_from_slice(&count.to_be_bytes());
    value.extend_from_slice(first);
    writes.insert(key.to_vec(), Some(value));
    key.len() + HEADER + payload.len()
}

/// The payload of a record that is kept as JSON.
pub(super) fn json(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys only, so all of them are JSON")
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
    match value.first() {
        Some(&FORMAT) => {}
        Some(&found) if found > FORMAT => return Err(disk.newer(key, found, FORMAT)),
        _ => return Err(disk.corrupt(key, "it has no format version")),
    }
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
    if checksum(count, &payload) == expected {
        Ok(payload)
    } else {
        Err(disk.corrupt(key, "it does not match its checksum"))
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
    use crate::store::memory::Memory;

    fn disk() -> Disk {
        Disk::Memory(Memory::default())
    }

    fn put(disk: &Disk, payload: &[u8]) {
        let mut writes = Writes::default();
        insert(&mut writes, b"key", payload);
        disk.persist(&writes, 1).unwrap();
    }

    fn put_raw(disk: &Disk, key: &[u8], value: &[u8]) {
        disk.persist(&Writes::from([(key.to_vec(), Some(value.to_vec()))]), 1).unwrap();
    }

    #[test]
    fn payloads_of_every_length_come_back() {
        let disk = disk();
        for length in [3 * CHUNK + 1, 0, 1, CHUNK, CHUNK + 1, 2 * CHUNK, 1 << 20, 5] {
            let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            put(&disk, &payload);
            assert!(read(&disk, b"key").unwrap() == Some(payload), "length {length}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let disk = disk();
        put(&disk, &[b'x'; CHUNK + 10]);
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
        put_raw(&disk, b"key", &[FORMAT + 1, 0, 0]);
        assert!(matches!(read(&disk, b"key"), Err(StoreError::Newer { found, .. }) if found == FORMAT + 1));
    }

    #[test]
    fn a_value_that_changes_while_it_is_read_is_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(&StoreConfig { path: folder.path().join("store"), cache_mib: 64 }).unwrap();
        put(&disk, &[0; 10 * CHUNK]);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (1..=100).for_each(|round| put(&disk, &[round; 10 * CHUNK])));
            while !writer.is_finished() {
                let payload = read(&disk, b"key").unwrap().unwrap();
                assert!(payload.iter().all(|byte| *byte == payload[0]));
            }
        });
    }
}
