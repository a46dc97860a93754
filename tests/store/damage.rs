//! What a crash, a bad disk or a careless restore leaves behind: mended, or refused in words.

use std::fs;
use std::path::Path;

use sagamq::saga::fact::Fact;
use sagamq::saga::id::Phase;
use sagamq::store::{Query, StoreError};
use serde_json::json;

use crate::{Folder, moved, noise, started};

#[test]
fn a_lost_tail_is_refused_until_the_mark_is_removed() {
    let folder = Folder::new();
    let (sled, old) = (folder.path().join("sled"), folder.0.path().join("old"));
    let mut store = folder.open().unwrap();
    let (mut instance, batch) = started("order", "A-1", 1, json!(1));
    store.commit(batch).unwrap();
    drop(store);
    copy(&sled, &old);
    let mut store = folder.open().unwrap();
    for attempt in 1..=2 {
        let fact = Fact::Dispatched { step: 0, phase: Phase::Action, attempt };
        store.commit(moved(&mut instance, fact)).unwrap();
    }
    drop(store);
    fs::remove_dir_all(&sled).unwrap();
    copy(&old, &sled);
    for log in ["log-0", "log-1"] {
        fs::write(folder.path().join(log), []).unwrap();
    }

    for _ in 0..2 {
        let error = folder.open().unwrap_err();
        assert!(matches!(error, StoreError::LostTail { mark: 3, found: 1, .. }), "{error}");
        assert!(error.to_string().contains("without those 2 commits"), "{error}");
    }
    fs::remove_file(folder.path().join("high-water")).unwrap();
    let reader = folder.open().unwrap().reader();
    assert_eq!(reader.instance(instance.id).unwrap().unwrap().revision, 1);
}

#[test]
fn a_lost_write_in_the_middle_of_the_log_is_never_silent() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let mut ids = Vec::new();
    for number in 0..200 {
        let (instance, batch) = started("order", &format!("A-{number}"), number, json!(noise(4000)));
        store.commit(batch).unwrap();
        ids.push(instance.id);
    }
    drop(store);
    let mut refused = 0;
    for hole in 0..20 {
        let broken = Folder::new();
        copy(&folder.path(), &broken.path());
        let db = broken.path().join("sled/db");
        let mut log = fs::read(&db).unwrap();
        let at = log.len() / 20 * hole;
        log[at..at + 4096].fill(0);
        fs::write(&db, log).unwrap();
        match broken.open() {
            // The hole is where nothing is needed any more.
            Ok(store) => {
                let reader = store.reader();
                assert!(ids.iter().all(|id| reader.instance(*id).unwrap().is_some()), "hole at {at}");
            }
            Err(
                StoreError::LostTail { mark: 200, .. } | StoreError::Open { .. } | StoreError::Corrupt { .. },
            ) => refused += 1,
            Err(error) => panic!("hole at {at}: {error}"),
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_snapshot_that_a_crash_left_half_written_is_set_aside() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let (instance, batch) = started("order", "A-1", 1, json!(1));
    store.commit(batch).unwrap();
    drop(store);
    let leftover = "snap.FFFFFFFFFFFFFFFF.generating";
    fs::write(folder.path().join("sled").join(leftover), "half").unwrap();
    // This is what it would do to sled.
    assert!(sled::open(folder.path().join("sled")).is_err());

    for _ in 0..2 {
        let reader = folder.open().unwrap().reader();
        assert_eq!(reader.instance(instance.id).unwrap().as_ref(), Some(&instance));
    }
    assert!(folder.path().join("sled").join(format!("leftover.{leftover}")).exists());
}

#[test]
fn a_folder_that_sled_cannot_read_is_refused() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    fs::write(folder.path().join("sled/snap.FFFFFFFFFFFFFFFF"), "not a snapshot").unwrap();
    let error = folder.open().unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    assert!(error.to_string().contains("restore a backup"), "{error}");
}

#[test]
fn a_damaged_record_is_found_and_named() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let (instance, batch) = started("order", "A-1", 1, json!(1));
    store.commit(batch).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    folder.with_sled(|sled| {
        let key = sled.scan_prefix(b"sorder").keys().next().unwrap().unwrap();
        let mut value = sled.get(&key).unwrap().unwrap().to_vec();
        value[30] ^= 1;
        sled.insert(&key, value).unwrap();
    });

    let reader = folder.open().unwrap().reader();
    let errors = [
        reader.instance(instance.id).unwrap_err(),
        reader.list(&Query::default()).unwrap_err(),
        reader.instances().next().unwrap().unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Corrupt { .. }));
        assert!(error.to_string().contains(&format!("instance {}", instance.id)), "{error}");
    }
}

#[test]
fn a_missing_block_of_a_history_is_found() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let (mut instance, batch) = started("order", "A-1", 1, json!(noise(5000)));
    store.commit(batch).unwrap();
    store.checkpoint().unwrap();
    store.commit(moved(&mut instance, Fact::DeadlinePassed)).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let block = [b"h", instance.id.as_bytes().as_slice(), &1_u64.to_be_bytes()].concat();
    folder.with_sled(|sled| sled.remove(block).unwrap().unwrap());
    let reader = folder.open().unwrap().reader();
    assert!(matches!(reader.history(instance.id), Err(StoreError::Corrupt { .. })));
    assert!(matches!(reader.instance(instance.id), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_missing_record_of_the_journal_is_found() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    for number in 0..3 {
        store.commit(started("order", &format!("A-{number}"), number, json!(1)).1).unwrap();
    }
    drop(store);
    for commit in 1..=3_u64 {
        let broken = Folder::new();
        copy(&folder.path(), &broken.path());
        let record = [b"j", commit.to_be_bytes().as_slice()].concat();
        broken.with_sled(|sled| sled.remove(record).unwrap().unwrap());
        let error = broken.open().unwrap_err();
        assert!(error.to_string().contains("is damaged at journal of commit"), "{error}");
    }
}

#[test]
fn a_missing_part_of_the_index_is_found() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    for number in 0..300 {
        store.commit(started("order", &format!("A-{number}"), number, json!(1)).1).unwrap();
    }
    store.checkpoint().unwrap();
    drop(store);
    let keys = folder.with_sled(|sled| {
        let index = sled.scan_prefix(b"i").chain(sled.scan_prefix(b"ni"));
        index.map(|entry| entry.unwrap().0).collect::<Vec<_>>()
    });
    assert!(keys.len() > 3);
    for key in keys {
        let broken = Folder::new();
        copy(&folder.path(), &broken.path());
        broken.with_sled(|sled| sled.remove(&key).unwrap().unwrap());
        let error = broken.open().unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("of instances"), "{error}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(drop).unwrap()
        }
    }
}
