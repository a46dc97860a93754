//! Compaction: what is in the store afterwards, and what is not.

use std::collections::BTreeMap;
use std::fs;

use sagamq::config::StoreConfig;
use sagamq::saga::fact::Fact;
use sagamq::store::{self, Batch, Compacted, Removal, Store, StoreError};
use serde_json::json;

use crate::{Folder, moved, noise, started};

fn compact(folder: &Folder) -> Result<Compacted, StoreError> {
    store::compact(&StoreConfig { path: folder.path(), cache_mib: 64 }, |_| {})
}

/// A store from which most of what was in it has been removed, a part of the rest being in the journal.
fn worn(folder: &Folder) -> Store {
    let mut store = folder.open().unwrap();
    let mut instances = Vec::new();
    for number in 0..400 {
        let (instance, batch) = started("order", &format!("A-{number}"), number, json!(noise(5_000)));
        store.commit(batch).unwrap();
        instances.push(instance);
    }
    store.checkpoint().unwrap();
    for mut instance in instances {
        if instance.started_at.0 % 20 == 0 {
            store.commit(moved(&mut instance, Fact::DeadlinePassed)).unwrap();
        } else {
            let mut batch = Batch::default();
            batch.remove(Removal::of(&instance));
            store.commit(batch).unwrap();
        }
    }
    store
}

fn content(folder: &Folder) -> BTreeMap<Vec<u8>, Vec<u8>> {
    folder.with_sled(|sled| {
        sled.iter().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    })
}

#[test]
fn a_compacted_store_has_what_it_had_and_takes_less_room() {
    let folder = Folder::new();
    drop(worn(&folder));
    let before = content(&folder);
    let compacted = compact(&folder).unwrap();
    assert!(content(&folder) == before, "something was changed");
    assert_eq!((compacted.keys, compacted.left_out), (before.len() as u64, 0));
    assert!(compacted.after < compacted.before / 2, "{compacted:?}");
    assert!(!folder.path().join("sled.compact").exists());

    let mut store = folder.open().unwrap();
    let mut instance = store.reader().instances().next().unwrap().unwrap();
    store.commit(moved(&mut instance, Fact::CompensationStarted)).unwrap();
    drop(store);
    let reader = folder.open().unwrap().reader();
    assert_eq!(reader.instances().count(), 20);
    assert_eq!(reader.instance(instance.id).unwrap(), Some(instance));
}

#[test]
fn chunks_that_belong_to_nothing_are_left_out() {
    let folder = Folder::new();
    drop(worn(&folder));
    let before = content(&folder);
    let chunk = before.keys().rfind(|key| key[0] == b'k').unwrap();
    let (owner, number) = chunk.split_at(chunk.len() - 4);
    let next = u32::from_be_bytes(number.try_into().unwrap()) + 1;
    folder.with_sled(|sled| {
        for orphan in [[owner, &next.to_be_bytes()[..]].concat(), b"kh-nobody\0\0\0\x01".to_vec()] {
            sled.insert(orphan, "nothing").unwrap();
        }
    });
    assert_eq!(compact(&folder).unwrap().left_out, 2);
    assert!(content(&folder) == before, "something else was left out");
}

#[test]
fn what_an_earlier_try_has_left_is_removed() {
    let folder = Folder::new();
    drop(worn(&folder));
    let copy = folder.path().join("sled.compact");
    // Cut off while it was written, and after the exchange.
    fs::create_dir(&copy).unwrap();
    fs::write(copy.join("db"), "half").unwrap();
    compact(&folder).unwrap();
    assert!(!copy.exists());
    drop(sled::open(&copy).unwrap());
    assert_eq!(folder.open().unwrap().reader().instances().count(), 20);
    compact(&folder).unwrap();
    assert!(!copy.exists());
}

#[test]
fn a_store_in_use_is_not_compacted() {
    let folder = Folder::new();
    let store = worn(&folder);
    assert!(matches!(compact(&folder), Err(StoreError::InUse { .. })));
    assert_eq!(store.reader().instances().count(), 20);
}
