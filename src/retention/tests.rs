use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::saga::fact::{Fact, Failure, Recorded, Started};
use crate::saga::id::InstanceId;
use crate::saga::time::Timestamp;
use crate::store::{Batch, Memory, Store};

const DAY: Duration = Duration::from_secs(86_400);

/// An instance with a history of one entry, that began and ended so many days ago.
fn instance(business_key: &str, began: u32, fact: Option<Fact>, ended: u32) -> (Instance, HistoryEntry) {
    let started: Started = serde_json::from_value(json!({
        "saga": "order", "version": 1, "definition": "hash", "business_key": business_key, "steps": ["ship"],
        "input": {"order": business_key},
    }))
    .unwrap();
    let [began, ended] = [began, ended].map(|days| Timestamp::from(chrono::Utc::now()) - DAY * days);
    let mut instance = Instance::begin(InstanceId::new("order", business_key), &started, began);
    let start = Recorded { at: began, fact: Fact::Started(Box::new(started)) };
    let facts: Vec<_> = [start].into_iter().chain(fact.map(|fact| Recorded { at: ended, fact })).collect();
    facts.iter().for_each(|recorded| instance.apply(recorded));
    instance.revision = 1;
    (instance, HistoryEntry { revision: 1, causation_id: None, user: None, facts })
}

fn store(memory: &Memory, instances: &[(Instance, HistoryEntry)]) -> Store {
    let mut store = Store::simulated(memory).unwrap();
    for (instance, entry) in instances {
        let mut batch = Batch::default();
        batch.save(instance, entry);
        store.commit(batch).unwrap();
    }
    store
}

/// A sweeper that keeps those that were completed for a week, and those that were compensated for ever.
fn sweeper(archive: &Path, reader: Reader) -> (Sweeper, mpsc::Receiver<Archived>) {
    let (removals, archived) = mpsc::channel(1);
    let kept = vec![Kept { status: Status::Completed, age: DAY * 7, cursor: None }];
    let clock = Clock::start(Timestamp(0));
    (Sweeper { kept, archive: Archive::new(archive.to_owned()), reader, clock, removals }, archived)
}

/// Sweeps once, while the store removes what it is told to.
fn sweep(store: &mut Store, archive: &Path) {
    let (mut sweeper, mut archived) = sweeper(archive, store.reader());
    thread::scope(|scope| {
        scope.spawn(move || sweeper.sweep());
        while let Some(Archived { removals, done }) = archived.blocking_recv() {
            let mut batch = Batch::default();
            let count = removals.len();
            removals.into_iter().for_each(|removal| batch.remove(removal));
            store.commit(batch).unwrap();
            done.send(count).unwrap();
        }
    });
}

fn keys(store: &Store) -> BTreeSet<String> {
    store.reader().instances().map(|instance| instance.unwrap().business_key).collect()
}

/// How often each business key is in the archive.
fn archived(folder: &Path) -> BTreeMap<String, usize> {
    let mut keys = BTreeMap::new();
    for line in lines(folder) {
        *keys.entry(line["instance"]["business_key"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    keys
}

fn lines(folder: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let mut text = String::new();
        MultiGzDecoder::new(File::open(entry.unwrap().path()).unwrap()).read_to_string(&mut text).unwrap();
        lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    lines
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn what_was_kept_long_enough_is_archived_whole_and_removed_and_nothing_else() {
    let error = Failure { step: None, code: "TIMEOUT".to_owned(), message: String::new() };
    let instances = [
        instance("old", 10, Some(Fact::Completed), 8),
        instance("ended lately", 10, Some(Fact::Completed), 6),
        instance("young", 1, Some(Fact::Completed), 1),
        instance("kept for ever", 10, Some(Fact::AllCompensated), 8),
        instance("parked", 10, Some(Fact::Parked { error }), 8),
        instance("running", 10, None, 10),
    ];
    let (folder, mut store) = (folder(), store(&Memory::default(), &instances));
    sweep(&mut store, folder.path());
    let kept = ["ended lately", "young", "kept for ever", "parked", "running"];
    assert_eq!(keys(&store), kept.map(str::to_owned).into());
    let [line] = lines(folder.path()).try_into().unwrap();
    let history: Vec<HistoryEntry> = serde_json::from_value(line["history"].clone()).unwrap();
    let (old, entry) = &instances[0];
    assert_eq!(history, std::slice::from_ref(entry));
    assert_eq!(Instance::replay(old.id, &history).as_ref(), Some(old));
    assert_eq!(line["instance"], serde_json::to_value(old).unwrap());
}

#[test]
fn however_many_there_are_each_is_archived_once() {
    let instances: Vec<_> = (0..600)
        .map(|number| instance(&number.to_string(), 8 + number % 5, Some(Fact::Completed), 8))
        .collect();
    let (folder, mut store) = (folder(), store(&Memory::default(), &instances));
    sweep(&mut store, folder.path());
    assert_eq!(keys(&store), BTreeSet::new());
    sweep(&mut store, folder.path());
    let archived = archived(folder.path());
    assert_eq!((archived.len(), archived.values().max()), (600, Some(&1)));
}

#[test]
fn nothing_is_removed_while_it_cannot_be_archived() {
    let instances = [instance("old", 10, Some(Fact::Completed), 8)];
    let (folder, mut store) = (folder(), store(&Memory::default(), &instances));
    let archive = folder.path().join("archive");
    fs::write(&archive, "in the way").unwrap();
    sweep(&mut store, &archive);
    assert_eq!(keys(&store), ["old".to_owned()].into());
    fs::remove_file(&archive).unwrap();
    sweep(&mut store, &archive);
    assert_eq!((keys(&store), archived(&archive)["old"]), (BTreeSet::new(), 1));
}

#[test]
fn what_was_archived_and_not_removed_is_archived_again() {
    let instances = [instance("old", 10, Some(Fact::Completed), 8)];
    let (folder, mut store) = (folder(), store(&Memory::default(), &instances));
    let (mut sweeper, receiver) = sweeper(folder.path(), store.reader());
    drop(receiver);
    sweeper.sweep();
    assert_eq!((keys(&store).len(), archived(folder.path())["old"]), (1, 1));
    sweep(&mut store, folder.path());
    assert_eq!((keys(&store).len(), archived(folder.path())["old"]), (0, 2));
}
