//! The tables: histories of instances that are out of the journal, by status and start.
//!
//! A short history is one value. A longer one, or one with large messages, has a snapshot in its place
//! and lies beside it in blocks, so that what is appended and what is listed costs the same however
//! long it grows.

use std::sync::Arc;

use super::batch::{Head, Removal};
use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::index::{Index, Place};
use super::keys::{self, Position};
use super::memtable::Entries;
use super::record;
use super::waiting::Waiting;
use crate::saga::fact::{Fact, HistoryEntry};
use crate::saga::id::InstanceId;
use crate::saga::instance::{Instance, Status};

/// First byte of a value that is a whole history, an entry a line.
const WHOLE: u8 = b'w';
/// First byte of a value that is a snapshot, an [`Instance`] as JSON.
const SNAPSHOT: u8 = b's';
/// Statuses, those first that most instances in the tables have.
const STATUSES: [Status; 5] =
    [Status::Completed, Status::Compensated, Status::Running, Status::Compensating, Status::Parked];

/// The tables, and what finds an instance in them.
#[derive(Clone, Copy)]
pub(super) struct Tables<'a> {
    pub(super) disk: &'a Disk,
    pub(super) index: &'a Index,
}

/// What is there of an instance.
pub(super) enum Stored {
    /// All of its history.
    Whole(Vec<HistoryEntry>),
    /// It lies in blocks, beside a snapshot that has no input.
    Blocks,
}

/// The value of an instance.
struct Found {
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl Tables<'_> {
    /// Finds an instance.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is not where the index says, else as [`record::read`]. Beside a commit,
    /// which may move or remove it meanwhile, that need not mean damage.
    fn find(self, id: InstanceId) -> Result<Option<Found>, StoreError> {
        let Some(place) = self.index.place(self.disk, id)? else { return Ok(None) };
        for status in STATUSES {
            let key = place.key(status, id);
            if let Some(payload) = record::read(self.disk, &key)? {
                return Ok(Some(Found { key, payload }));
            }
        }
        Err(self.disk.contradiction(id, "its history is not there"))
    }

    /// Reads an instance, without its input where there is a snapshot of it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if parts are missing or contradict each other, else as [`record::read`]; beside
    /// a commit, that need not mean damage.
    pub(super) fn read(self, id: InstanceId) -> Result<Option<(Instance, Stored)>, StoreError> {
        let Some(Found { key, payload }) = self.find(id)? else { return Ok(None) };
        let (instance, stored) = parse(self.disk, id, &key, &payload)?;
        let place = Place { saga: instance.saga.as_str().into(), started_at: instance.started_at };
        if place.key(instance.status, id) == key {
            Ok(Some((instance, stored)))
        } else {
            Err(self.disk.corrupt(&key, "its history says something else than its key"))
        }
    }

    /// The revision of an instance; 0 if there is none.
    ///
    /// # Errors
    /// As [`Tables::read`].
    pub(super) fn revision(self, id: InstanceId) -> Result<u64, StoreError> {
        Ok(self.read(id)?.map_or(0, |(instance, _)| instance.revision))
    }

    /// Adds to `writes` that the tables have an instance up to the last of `entries`, which go on where the tables
    /// end.
    ///
    /// # Errors
    /// As [`Tables::read`].
    pub(super) fn put(
        self,
        writes: &mut Writes,
        id: InstanceId,
        head: &Head,
        entries: &Entries,
    ) -> Result<(), StoreError> {
        let disk = self.disk;
        let place = head.place();
        let key = place.key(head.status, id);
        let before = if entries.first == 1 { None } else { self.find(id)? };
        let (is_known, old_key) = (before.is_some(), before.as_ref().map(|before| before.key.clone()));
        let value = value(writes, disk, id, before, entries)?;
        if let Some(old) = old_key.filter(|old| *old != key) {
            record::remove(writes, disk, &old)?;
        }
        record::replace(writes, disk, &key, &value)?;
        if head.open {
            record::insert(writes, &keys::open(id), &Waiting::of(id, head).to_bytes());
        } else if is_known {
            record::remove(writes, disk, &keys::open(id))?;
        }
        let position = Position::of(head.started_at, id);
        for (attribute, of) in head.attributes.iter() {
            let key = keys::at(&keys::by_attribute(&place.saga, attribute, of), position);
            writes.insert(key, Some(Vec::new()));
        }
        Ok(())
    }

    /// Adds to `writes` that the tables have nothing of an instance, of which the index says where it is.
    ///
    /// # Errors
    /// As [`record::read`].
    pub(super) fn remove(
        self,
        writes: &mut Writes,
        removal: &Removal,
        place: &Place,
    ) -> Result<(), StoreError> {
        let (Removal { id, attributes, .. }, disk) = (removal, self.disk);
        let values = STATUSES.map(|status| place.key(status, *id));
        for key in values.into_iter().chain([keys::open(*id)]) {
            record::remove(writes, disk, &key)?;
        }
        for block in disk.keys(keys::under(&keys::history(*id))) {
            record::remove(writes, disk, &block?)?;
        }
        let position = Position::of(place.started_at, *id);
        for (attribute, of) in attributes {
            writes.insert(keys::at(&keys::by_attribute(&place.saga, attribute, of), position), None);
        }
        Ok(())
    }
}

/// Reads the whole history of an instance, of which [`Tables::read`] found `stored`.
///
/// # Errors
/// As [`Tables::read`].
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
/// As [`Tables::read`].
pub(super) fn input(disk: &Disk, id: InstanceId) -> Result<Arc<serde_json::Value>, StoreError> {
    let key = keys::block(id, 1);
    let lines = record::read(disk, &key)?.ok_or_else(|| disk.corrupt(&key, "it is missing"))?;
    let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let entry: HistoryEntry = serde_json::from_slice(first).map_err(|error| disk.corrupt(&key, error))?;
    match entry.facts.into_iter().next().map(|recorded| recorded.fact) {
        Some(Fact::Started(started)) => Ok(started.input),
        _ => Err(disk.corrupt(&key, "it does not begin with a start")),
    }
}

/// The value of an instance after further entries; adds the block of them where there is a snapshot.
fn value(
    writes: &mut Writes,
    disk: &Disk,
    id: InstanceId,
    before: Option<Found>,
    Entries { first, lines, .. }: &Entries,
) -> Result<Vec<u8>, StoreError> {
    if before.is_none() && *first > 1 {
        return Err(disk.contradiction(id, "what its history goes on from is missing"));
    }
    match before {
        None if lines.len() < record::CHUNK => Ok(tagged(WHOLE, &[lines])),
        None => {
            let instance = folded(disk, id, None, &keys::block(id, 1), lines)?;
            record::insert(writes, &keys::block(id, 1), lines);
            Ok(tagged(SNAPSHOT, &[&record::json(&instance)]))
        }
        Some(Found { payload: old, .. })
            if old.first() == Some(&WHOLE) && old.len() + lines.len() < record::CHUNK =>
        {
            Ok(tagged(WHOLE, &[&old[1..], b"\n", lines]))
        }
        Some(Found { payload: old, key }) => {
            let (instance, stored) = parse(disk, id, &key, &old)?;
            if matches!(stored, Stored::Whole(_)) {
                record::insert(writes, &keys::block(id, 1), &old[1..]);
            }
            record::insert(writes, &keys::block(id, *first), lines);
            let instance = folded(disk, id, Some(instance), &key, lines)?;
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
