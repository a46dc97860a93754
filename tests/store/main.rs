//! The store on disk: what is there after it is opened again, and what it refuses.

#![expect(clippy::unwrap_used, reason = "tests")]

mod backup;
mod compact;
mod damage;
mod removal;
mod views;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sagamq::config::StoreConfig;
use sagamq::saga::fact::{Fact, HistoryEntry, Recorded, Started};
use sagamq::saga::id::{InstanceId, Phase, StoreId};
use sagamq::saga::instance::Instance;
use sagamq::saga::time::Timestamp;
use sagamq::store::{Batch, Store, StoreError};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(&StoreConfig { path: self.path(), cache_mib: 64 })
    }

    /// Does something with sled itself, while the store is closed. It is closed again afterwards: sled lets
    /// go of its file on threads of its own.
    fn with_sled<T>(&self, act: impl FnOnce(&sled::Db) -> T) -> T {
        let done = act(&self.sled());
        let file = fs::File::open(self.path().join("sled/db")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while file.try_lock().is_err() {
            assert!(Instant::now() < deadline, "sled does not let go of its file");
            std::thread::yield_now();
        }
        done
    }

    /// Opens sled itself, while the store is closed.
    fn sled(&self) -> sled::Db {
        sled::open(self.path().join("sled")).unwrap()
    }
}

/// A text that cannot be compressed much.
fn noise(length: usize) -> String {
    let mut dice = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| char::from(dice.u8(b'!'..=b'~'))).filter(|c| !matches!(c, '"' | '\\')).collect()
}

/// An instance of saga `saga` that has just started, and the first entry of its history.
fn start(saga: &str, business_key: &str, at: i64, input: Value) -> (Instance, HistoryEntry) {
    let started = Started {
        saga: saga.to_owned(),
        version: 1,
        definition: "hash".to_owned(),
        business_key: business_key.to_owned(),
        steps: vec!["ship".to_owned()],
        input: input.into(),
        attributes: BTreeMap::from([(
            "parity".to_owned(),
            if at % 2 == 0 { "even" } else { "odd" }.to_owned(),
        )]),
        deadline: None,
        store: StoreId::default(),
        event_id: None,
        caller: None,
        trace: None,
    };
    let mut instance = Instance::begin(InstanceId::new(saga, business_key), &started, Timestamp(at));
    let entry = change(&mut instance, Fact::Started(Box::new(started)));
    (instance, entry)
}

/// Applies a fact, and makes the history entry of it.
fn change(instance: &mut Instance, fact: Fact) -> HistoryEntry {
    let recorded = Recorded { at: instance.started_at, fact };
    instance.apply(&recorded);
    instance.revision += 1;
    HistoryEntry { revision: instance.revision, causation_id: None, user: None, facts: vec![recorded] }
}

/// Moves a stored instance on, in a batch of its own.
fn moved(instance: &mut Instance, fact: Fact) -> Batch {
    let entry = change(instance, fact);
    let mut batch = Batch::default();
    batch.save(instance, &entry);
    batch
}

fn started(saga: &str, business_key: &str, at: i64, input: Value) -> (Instance, Batch) {
    let (instance, entry) = start(saga, business_key, at, input);
    let mut batch = Batch::default();
    batch.save(&instance, &entry);
    (instance, batch)
}

#[test]
fn everything_is_there_after_it_is_opened_again() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let (mut instance, mut batch) = started("order", "A-1", 1, json!({"price": 12.34, "text": "Zürich"}));
    batch.define("order", 1, &"hash".to_owned(), "saga: order");
    store.commit(batch).unwrap();
    store
        .commit(moved(&mut instance, Fact::Dispatched { step: 0, phase: Phase::Action, attempt: 1 }))
        .unwrap();
    let due = Timestamp(99);
    let retry = Fact::RetryScheduled { step: 0, phase: Phase::Action, at: due };
    store.commit(moved(&mut instance, retry)).unwrap();
    drop(store);

    let reader = folder.open().unwrap().reader();
    assert_eq!(reader.instance(instance.id).unwrap().as_ref(), Some(&instance));
    let history = reader.history(instance.id).unwrap();
    assert_eq!(Instance::replay(instance.id, &history).as_ref(), Some(&instance));
    assert_eq!(reader.definition_hash("order", 1).unwrap().as_deref(), Some("hash"));
    assert_eq!(reader.definition(&"hash".to_owned()).unwrap().as_deref(), Some("saga: order"));
    let waiting: Vec<_> = reader.waiting().map(Result::unwrap).collect();
    assert_eq!(waiting.iter().map(|one| (one.id, one.due)).collect::<Vec<_>>(), [(instance.id, Some(due))]);

    let nobody = InstanceId::new("order", "A-2");
    assert_eq!(reader.instance(nobody).unwrap(), None);
    assert_eq!(reader.history(nobody).unwrap(), []);
    assert_eq!(reader.definition_hash("order", 2).unwrap(), None);
    assert_eq!(reader.definition(&"other".to_owned()).unwrap(), None);
}

#[test]
fn a_second_opener_is_refused_and_told_who_has_it() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let error = folder.open().unwrap_err();
    assert!(matches!(&error, StoreError::InUse { pid, .. } if *pid == std::process::id().to_string()));
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    // A reader keeps the folder open.
    let reader = store.reader();
    drop(store);
    assert!(matches!(folder.open(), Err(StoreError::InUse { .. })));
    drop(reader);
    folder.open().unwrap();
}

#[test]
fn nobody_else_may_read_the_folder() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    for path in [folder.path(), folder.path().join("sled")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
}

#[test]
fn an_append_that_does_not_go_on_is_refused_and_writes_nothing() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let (instance, twice) = started("order", "A-1", 1, json!(1));
    store.commit(twice.clone()).unwrap();
    let mut gap = instance.clone();
    gap.revision += 1;
    let gap = moved(&mut gap, Fact::DeadlinePassed);
    let mut repeat = moved(&mut instance.clone(), Fact::DeadlinePassed);
    let entry = HistoryEntry { revision: 2, causation_id: None, user: None, facts: Vec::new() };
    repeat.save(&instance, &entry);
    for (batch, revision) in [(twice, 1), (gap, 3), (repeat, 2)] {
        let error = store.commit(batch).unwrap_err();
        assert!(
            matches!(error, StoreError::Conflict { revision: found, .. } if found == revision),
            "{error}"
        );
        assert_eq!(store.reader().instance(instance.id).unwrap().as_ref(), Some(&instance));
    }
    // It is not the disk's fault, so the store goes on; several changes may share a batch.
    let mut instance = instance;
    let mut batch = moved(&mut instance, Fact::DeadlinePassed);
    let entry = change(&mut instance, Fact::CompensationStarted);
    batch.save(&instance, &entry);
    store.commit(batch).unwrap();
    assert_eq!(store.reader().history(instance.id).unwrap().len(), 3);
}

#[test]
fn large_values_never_leave_the_log() {
    let folder = Folder::new();
    let mut store = folder.open().unwrap();
    let input = json!({"body": noise(1 << 20)});
    let (first, batch) = started("order", "A-0", 0, input.clone());
    store.commit(batch).unwrap();
    // Many values of the greatest length that a single key holds are the worst for sled's nodes.
    let mut instances = Vec::new();
    for number in 1..100 {
        let (instance, batch) = started("order", &format!("A-{number}"), number, json!(noise(3_800)));
        store.commit(batch).unwrap();
        instances.push(instance);
    }
    for length in [3_800, 20_000, 3_600] {
        for instance in &mut instances {
            let output = json!(noise(length));
            store.commit(moved(instance, Fact::succeeded(0, output))).unwrap();
        }
        store.checkpoint().unwrap();
    }
    drop(store);
    let reader = folder.open().unwrap().reader();
    assert_eq!(*reader.instance(first.id).unwrap().unwrap().input, input);
    for instance in &instances {
        assert_eq!(reader.instance(instance.id).unwrap().as_ref(), Some(instance));
    }
    let blobs = fs::read_dir(folder.path().join("sled/blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0);
}
