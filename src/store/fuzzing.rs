//! What the store reads from its disk, as a function of arbitrary bytes. See [`crate::fuzzing`].

use std::sync::Arc;

use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::identity::Identity;
use super::index::{Index, Indexer, Place};
use super::keys::{self, Position};
use super::memory::Memory;
use super::query::Query;
use super::reader::Reader;
use super::record;
use super::shared::Shared;
use crate::fuzzing::assert_again;
use crate::saga::fact::HistoryEntry;
use crate::saga::id::InstanceId;
use crate::saga::instance::{Instance, Status};
use crate::saga::time::Timestamp;

/// Bytes as they may lie on a damaged disk, as a record that is whole but makes no sense, as a key, and as
/// what a user sends back as a cursor. The first byte says how long the first value is.
///
/// # Panics
/// Something that reads these is broken.
pub fn record(data: &[u8]) {
    let Some((length, bytes)) = data.split_first() else { return };
    damaged(bytes.split_at(bytes.len().min(usize::from(*length))));
    for text in [data, bytes] {
        senseless(text);
        named(text);
        cursor(text);
    }
}

/// A value and, one after the other, its chunks.
fn damaged((head, chunks): (&[u8], &[u8])) {
    let mut writes = Writes::from([(b"key".to_vec(), Some(head.to_vec()))]);
    for (number, chunk) in (1..).zip(chunks.chunks(16)) {
        writes.insert(keys::chunk(b"key", number), Some(chunk.to_vec()));
    }
    match record::read(&disk(&writes), b"key") {
        Ok(payload) => assert!(payload.is_some_and(|payload| payload.len() <= head.len() + chunks.len())),
        Err(error) => assert!(error.to_string().len() < 1000, "{error}"),
    }
}

/// The bytes as the payload of every kind of record there is.
fn senseless(data: &[u8]) {
    let (id, hash) = (InstanceId::new("fuzz", "1"), "hash".to_owned());
    let position = Position::of(Timestamp(0), id);
    let mut writes = Writes::default();
    for key in [
        keys::META.to_vec(),
        keys::block(id, 1),
        keys::block_of_run(keys::PLACES, 0, &[0; 16]),
        keys::manifest(keys::PLACES),
        keys::dead_letter(1),
        keys::definition(&hash),
        keys::version("fuzz", 1),
        keys::at(&keys::by_status("fuzz", Status::Running), position),
        keys::open(id),
    ] {
        record::insert(&mut writes, &key, data);
    }
    let payload = record::read(&disk(&writes), keys::META).expect("it was written a moment ago");
    assert_eq!(payload.as_deref(), Some(data));
    let mut journal = writes.clone();
    record::insert(&mut journal, &keys::journal(1), data);
    let index = indexed(id);
    let manifest = keys::manifest(keys::PLACES);
    let manifests = index.iter().filter(|(key, _)| **key == manifest);
    let manifests = manifests.map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut disks = Vec::new();
    // What makes sense of the index, and what else there is.
    for sensible in [Writes::default(), manifests, index] {
        for (writes, span) in [(&writes, (0, 0)), (&journal, (1, 1))] {
            let mut writes = writes.clone();
            writes.extend(sensible.clone());
            disks.push((writes, span));
        }
    }
    for (writes, span) in disks {
        let Ok(shared) = Shared::over(disk(&writes), Identity::simulated(), span, 1) else { continue };
        let reader = Reader::new(Arc::new(shared));
        let _ = (reader.definition(&hash), reader.definition_hash("fuzz", 1));
        let _ = (reader.instance(id), reader.waiting().count(), reader.history(id));
        let _ = (reader.list(&Query::default()), reader.dead_letters(10, None));
        let _ = (reader.revision(id), reader.instances().count());
        let _ = (reader.versions(), reader.tallies());
    }
    if let Ok(entry) = serde_json::from_slice::<HistoryEntry>(data) {
        let entries = [assert_again(&entry), entry];
        Instance::replay(id, &entries).iter().for_each(look_at);
    }
    if let Ok(instance) = serde_json::from_slice::<Instance>(data) {
        look_at(&assert_again(&instance));
    }
}

/// An index that has an instance.
fn indexed(id: InstanceId) -> Writes {
    let empty = disk(&Writes::default());
    let index = Index::open(&empty, 0).expect("an empty disk can be read");
    let mut indexer = Indexer::over(&empty, &index, 0).expect("an empty disk can be read");
    let mut writes = Writes::default();
    let place = Place { saga: "fuzz".into(), started_at: Timestamp(0) };
    indexer.place(&mut writes, vec![(id, Some(place))]);
    assert_eq!(indexer.state(), 1);
    writes
}

/// Does with an instance what recovery and the API do with one that they have read.
fn look_at(instance: &Instance) {
    let times = [Some(instance.started_at), instance.next_due(), instance.deadline];
    let _ = (times.map(|time| time.map(|time| time.to_string())), instance.is_open(), instance.reason());
    let _ = instance.unconfirmed().count();
}

/// The bytes as a key.
fn named(data: &[u8]) {
    assert!(keys::describe(data).len() <= 100 + data.len() * 16);
    let _ = (keys::saga_of(data), keys::number_of(data), keys::instance_of(data), keys::under(data));
    if let Some(position) = Position::of_key(data) {
        assert_eq!(Position::from_cursor(&position.to_cursor()), Some(position));
    }
}

/// The bytes as a place to go on from.
fn cursor(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shared = Shared::over(disk(&Writes::default()), Identity::simulated(), (0, 0), 0)
        .expect("an empty disk can be read");
    let reader = Reader::new(Arc::new(shared));
    let _ = reader.dead_letters(10, Some(text));
    let page = reader.list(&Query { cursor: Some(text.to_owned()), ..Query::default() });
    match Position::from_cursor(text) {
        Some(position) => assert_eq!(position.to_cursor(), text.to_ascii_lowercase()),
        None => assert!(matches!(page, Err(StoreError::Cursor(_))), "{text:?} was taken for a cursor"),
    }
}

fn disk(writes: &Writes) -> Disk {
    let memory = Memory::default();
    memory.persist(writes, 1).expect("this disk does not fail");
    Disk::Memory(memory)
}
