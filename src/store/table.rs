//! The tables: histories of instances that are out of the journal, by status and start.
//!
//! A short history is one value. A longer one, or one with large messages, has a snapshot in its place
//! and lies beside it in blocks, so that what is appended and what is listed costs the same however
//! long it grows.

use super::batch::{Head, Removal};
use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::keys::{self, Position};
use super::record;
use super::waiting::Waiting;
use crate::saga::fact::{Fact, HistoryEntry};
use crate::saga::id::InstanceId;
use crate::saga::instance::{Instance, Status};
use crate::saga::time::Timestamp;

/// First byte of a value that is a whole history, an entry a line.
const WHOLE: u8 = b'w';
/// First byte of a value that is a snapshot, an [`Instance`] as JSON.
const SNAPSHOT: u8 = b's';
/// How often an instance that moves while it is read is looked for again.
const READS: usize = 100;

/// Where an instance is, and up to which revision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    saga: String,
    status: Status,
    started_at: Timestamp,
    open: bool,
    pub(super) revision: u64,
}

/// What is there of an instance.
pub(super) enum Stored {
    /// All of its history.
    Whole(Vec<HistoryEntry>),
    /// It lies in blocks, beside a snapshot that has no input.
    Blocks,
}

impl Place {
    /// The place of an instance.
    ///
    /// # Errors
    /// As [`record::read`].
    pub(super) fn of(disk: &Disk, id: InstanceId) -> Result<Option<Self>, StoreError> {
        let key = keys::instance(id);
        let Some(bytes) = record::read(disk, &key)? else { return Ok(None) };
        Self::from_bytes(&bytes).map(Some).ok_or_else(|| disk.corrupt(&key, "it is not a place"))
    }

    /// Status, whether it is open, start, revision, saga.
    fn to_bytes(&self) -> Vec<u8> {
        let (at, revision) = (self.started_at.0.to_be_bytes(), self.revision.to_be_bytes());
        [&[keys::status_byte(self.status), u8::from(self.open)], &at[..], &revision, self.saga.as_bytes()]
            .concat()
    }

    /// Reads [`Place::to_bytes`] back.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[status, open], rest) = bytes.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (revision, saga) = rest.split_first_chunk()?;
        Some(Self {
            saga: std::str::from_utf8(saga).ok()?.to_owned(),
            status: Status::ALL.into_iter().find(|known| keys::status_byte(*known) == status)?,
            started_at: Timestamp(i64::from_be_bytes(*at)),
            open: open != 0,
            revision: u64::from_be_bytes(*revision),
        })
    }

    fn key(&self, id: InstanceId) -> Vec<u8> {
        keys::at(&keys::by_status(&self.saga, self.status), Position::of(self.started_at, id))
    }

    /// Whether it says of an instance what is so.
    fn fits(&self, instance: &Instance) -> bool {
        let Instance { saga, status, started_at, revision, .. } = instance;
        (&self.saga, self.status, self.started_at, self.revision) == (saga, *status, *started_at, *revision)
            && self.open == instance.is_open()
    }
}

/// Reads an instance, without its input where there is a snapshot of it.
///
/// # Errors
/// [`StoreError::Corrupt`] if parts are missing or contradict each other, else as [`record::read`].
pub(super) fn read(disk: &Disk, id: InstanceId) -> Result<Option<(Instance, Stored)>, StoreError> {
    let mut place = Place::of(disk, id)?;
    for _ in 0..READS {
        let Some(found) = place else { return Ok(None) };
        let key = found.key(id);
        if let Some(payload) = record::read(disk, &key)? {
            let (instance, stored) = parse(disk, id, &key, &payload)?;
            if found.fits(&instance) {
                return Ok(Some((instance, stored)));
            }
        }
        // A commit may have moved it meanwhile.
        place = Place::of(disk, id)?;
        if place.as_ref() == Some(&found) {
            return Err(
                disk.corrupt(&key, "its history is not there, or says something else than the tables")
            );
        }
    }
    Err(disk.corrupt(&keys::instance(id), "it changes faster than it can be read"))
}

/// Reads the whole history of an instance, of which `read` found `stored`.
///
/// # Errors
/// As [`read`].
pub(super) fn history(disk: &Disk, id: InstanceId, stored: Stored) -> Result<Vec<HistoryEntry>, StoreError> {
    let mut entries = match stored {
        Stored::Whole(entries) => return Ok(entries),
        Stored::Blocks => Vec::new(),
    };
    for key in disk.keys(keys::under(&keys::history(id))) {
        let key = key?;
        let lines = record::read(disk, &key)?.ok_or_else(|| disk.corrupt(&key, "it is missing"))?;
        append_lines(disk, &key, &mut entries, &lines)?;
    }
    Ok(entries)
}

/// What an instance with a snapshot keeps of its start event: a part of the first entry.
///
/// # Errors
/// As [`read`].
pub(super) fn input(disk: &Disk, id: InstanceId) -> Result<serde_json::Value, StoreError> {
    let key = keys::block(id, 1);
    let lines = record::read(disk, &key)?.ok_or_else(|| disk.corrupt(&key, "it is missing"))?;
    let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let entry: HistoryEntry = serde_json::from_slice(first).map_err(|error| disk.corrupt(&key, error))?;
    match entry.facts.into_iter().next().map(|recorded| recorded.fact) {
        Some(Fact::Started(started)) => Ok(started.input),
        _ => Err(disk.corrupt(&key, "it does not begin with a start")),
    }
}

/// Adds to `writes` that the tables have an instance up to the last of `entries`, which are JSON and go
/// on where the tables end.
///
/// # Errors
/// As [`read`].
pub(super) fn put(
    writes: &mut Writes,
    disk: &Disk,
    id: InstanceId,
    head: &Head,
    first: u64,
    entries: &[Vec<u8>],
) -> Result<(), StoreError> {
    let Head { saga, status, started_at, open, attributes, .. } = head;
    let (saga, revision) = (saga.clone(), first + entries.len() as u64 - 1);
    let place = Place { saga, status: *status, started_at: *started_at, open: *open, revision };
    let before = if first == 1 { None } else { Place::of(disk, id)? };
    let key = place.key(id);
    let value = value(writes, disk, id, before.as_ref(), first, entries)?;
    if let Some(old) = before.as_ref().map(|before| before.key(id)).filter(|old| *old != key) {
        record::remove(writes, disk, &old)?;
    }
    record::replace(writes, disk, &key, &value)?;
    record::insert(writes, &keys::instance(id), &place.to_bytes());
    if *open {
        record::insert(writes, &keys::open(id), &Waiting::of(id, head).to_bytes());
    } else if before.is_some_and(|before| before.open) {
        writes.insert(keys::open(id), None);
    }
    let position = Position::of(*started_at, id);
    for (attribute, of) in attributes {
        let key = keys::at(&keys::by_attribute(&place.saga, attribute, of), position);
        writes.insert(key, Some(Vec::new()));
    }
    Ok(())
}

/// Adds to `writes` that the tables have nothing of an instance.
///
/// # Errors
/// As [`read`].
pub(super) fn remove(writes: &mut Writes, disk: &Disk, removal: &Removal) -> Result<(), StoreError> {
    let Removal { id, saga, started_at, attributes, messages, .. } = removal;
    // Where the journal alone has it, nothing else does.
    let Some(place) = Place::of(disk, *id)? else { return Ok(()) };
    for key in [place.key(*id), keys::instance(*id)] {
        record::remove(writes, disk, &key)?;
    }
    for block in disk.keys(keys::under(&keys::history(*id))) {
        record::remove(writes, disk, &block?)?;
    }
    if place.open {
        writes.insert(keys::open(*id), None);
    }
    let position = Position::of(*started_at, *id);
    for (attribute, of) in attributes {
        writes.insert(keys::at(&keys::by_attribute(saga, attribute, of), position), None);
    }
    // Those of an instance that had ended before it came here are in a run, and go with it.
    for message in messages {
        record::remove(writes, disk, &keys::correlation(*message))?;
    }
    Ok(())
}

/// The value of an instance after further entries; adds the block of them where there is a snapshot.
fn value(
    writes: &mut Writes,
    disk: &Disk,
    id: InstanceId,
    before: Option<&Place>,
    first: u64,
    entries: &[Vec<u8>],
) -> Result<Vec<u8>, StoreError> {
    let old = match before.map(|before| before.key(id)) {
        Some(key) => {
            let payload = record::read(disk, &key)?;
            Some((payload.ok_or_else(|| disk.corrupt(&key, "it is missing"))?, key))
        }
        None if first > 1 => return Err(disk.corrupt(&keys::instance(id), "it is missing")),
        None => None,
    };
    let lines = entries.join(&b'\n');
    match old {
        None if lines.len() < record::CHUNK => Ok(tagged(WHOLE, &[&lines])),
        None => {
            let instance = folded(disk, id, None, &keys::instance(id), &lines)?;
            record::insert(writes, &keys::block(id, 1), &lines);
            Ok(tagged(SNAPSHOT, &[&record::json(&instance)]))
        }
        Some((old, _)) if old.first() == Some(&WHOLE) && old.len() + lines.len() < record::CHUNK => {
            Ok(tagged(WHOLE, &[&old[1..], b"\n", &lines]))
        }
        Some((old, key)) => {
            let (instance, stored) = parse(disk, id, &key, &old)?;
            if matches!(stored, Stored::Whole(_)) {
                record::insert(writes, &keys::block(id, 1), &old[1..]);
            }
            record::insert(writes, &keys::block(id, first), &lines);
            let instance = folded(disk, id, Some(instance), &key, &lines)?;
            Ok(tagged(SNAPSHOT, &[&record::json(&instance)]))
        }
    }
}

fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[&[tag][..]], parts].concat().concat()
}

/// Reads a value.
fn parse(disk: &Disk, id: InstanceId, key: &[u8], payload: &[u8]) -> Result<(Instance, Stored), StoreError> {
    match payload.split_first() {
        Some((&WHOLE, lines)) => {
            let mut entries = Vec::new();
            append_lines(disk, key, &mut entries, lines)?;
            let instance = Instance::replay(id, &entries);
            let instance = instance.ok_or_else(|| disk.corrupt(key, "it does not begin with a start"))?;
            Ok((instance, Stored::Whole(entries)))
        }
        Some((&SNAPSHOT, json)) => {
            let instance: Instance =
                serde_json::from_slice(json).map_err(|error| disk.corrupt(key, error))?;
            Ok((instance, Stored::Blocks))
        }
        _ => Err(disk.corrupt(key, "it is neither a history nor a snapshot")),
    }
}

/// An instance after further entries.
fn folded(
    disk: &Disk,
    id: InstanceId,
    before: Option<Instance>,
    key: &[u8],
    lines: &[u8],
) -> Result<Instance, StoreError> {
    let mut entries = Vec::new();
    parse_lines(disk, key, &mut entries, lines)?;
    let folded = match before {
        Some(mut instance) => {
            instance.go_on(&entries);
            Some(instance)
        }
        None => Instance::replay(id, &entries),
    };
    folded.ok_or_else(|| disk.corrupt(key, "it does not begin with a start"))
}

/// Reads entries that follow on those before.
fn append_lines(
    disk: &Disk,
    key: &[u8],
    entries: &mut Vec<HistoryEntry>,
    lines: &[u8],
) -> Result<(), StoreError> {
    let before = entries.len();
    parse_lines(disk, key, entries, lines)?;
    let mut revisions = (1..).zip(entries.iter()).skip(before);
    match revisions.find(|(expected, entry)| *expected != entry.revision) {
        Some(_) => Err(disk.corrupt(key, "an entry before it is missing")),
        None => Ok(()),
    }
}

fn parse_lines(
    disk: &Disk,
    key: &[u8],
    entries: &mut Vec<HistoryEntry>,
    lines: &[u8],
) -> Result<(), StoreError> {
    for line in lines.split(|byte| *byte == b'\n') {
        entries.push(serde_json::from_slice(line).map_err(|error| disk.corrupt(key, error))?);
    }
    Ok(())
}

/// The bytes of a place, for tests.
#[cfg(any(test, feature = "faults"))]
pub(super) fn place(saga: &str, status: Status) -> Vec<u8> {
    let (saga, started_at) = (saga.to_owned(), Timestamp(0));
    Place { saga, status, started_at, open: true, revision: 1 }.to_bytes()
}
