//! Backups: what is in them, whatever is committed meanwhile, and what is left of those that fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use sagamq::config::StoreConfig;
use sagamq::saga::fact::Fact;
use sagamq::saga::instance::Instance;
use sagamq::store::{
    self, BackedUp, BackupError, BackupPlace, Batch, Cancel, DeadLetter, Reader, Removal, Store, StoreError,
};
use serde_json::json;

use crate::{Folder, moved, noise, started};

fn back_up(reader: &Reader, to: &Path, progress: impl FnMut(u64)) -> Result<BackedUp, BackupError> {
    store::back_up(reader, BackupPlace::make(to, reader.path())?, &Cancel::default(), progress)
}

fn open(path: &Path) -> Result<Store, StoreError> {
    Store::open(&StoreConfig { path: path.to_owned(), cache_mib: 64 })
}

/// Everything that can be asked of a store.
fn content(reader: &Reader) -> (BTreeMap<String, Instance>, usize, Vec<(String, u32, String)>) {
    let mut instances = BTreeMap::new();
    for instance in reader.instances() {
        let instance = instance.unwrap();
        let history = reader.history(instance.id).unwrap();
        assert_eq!(Instance::replay(instance.id, &history).as_ref(), Some(&instance));
        instances.insert(instance.business_key.clone(), instance);
    }
    (instances, reader.dead_letters(500, None).unwrap().items.len(), reader.versions().unwrap())
}

/// Commits things of every kind: starts, ends, removals, long histories, dead letters, definitions.
struct Work {
    store: Store,
    live: Vec<Instance>,
    number: i64,
}

impl Work {
    fn over(folder: &Folder) -> Self {
        Self { store: folder.open().unwrap(), live: Vec::new(), number: 0 }
    }

    fn go_on(&mut self) {
        self.number += 1;
        let number = self.number;
        let (instance, mut batch) = started("order", &format!("A-{number}"), number, json!(noise(1_500)));
        if number % 50 == 0 {
            batch.dead_letter(DeadLetter::default());
            batch.define("order", number as u32, &format!("hash-{number}"), "source");
        }
        self.store.commit(batch).unwrap();
        self.live.push(instance);
        let at = (number as usize * 7919) % self.live.len();
        match number % 3 {
            0 => self.store.commit(moved(&mut self.live[at], Fact::Completed)).unwrap(),
            1 => {
                let large = Fact::succeeded(0, json!(noise(3_000)));
                self.store.commit(moved(&mut self.live[at], large)).unwrap();
            }
            _ if number % 4 == 0 => {
                let mut batch = Batch::default();
                batch.remove(Removal::of(&self.live.swap_remove(at)));
                self.store.commit(batch).unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn a_backup_has_what_the_store_had_and_its_identity() {
    let (folder, to) = (Folder::new(), tempfile::tempdir().unwrap());
    let mut work = Work::over(&folder);
    (0..1_500).for_each(|_| work.go_on());
    let reader = work.store.reader();
    let path = to.path().join("monday");
    let done = back_up(&reader, &path, |_| {}).unwrap();
    assert_eq!(done.path, path.canonicalize().unwrap());
    let copy = open(&path).unwrap();
    assert_eq!(copy.reader().identity(), reader.identity());
    assert_eq!(copy.reader().identity().key(), reader.identity().key());
    assert_eq!(copy.latest(), work.store.latest());
    let (expected, found) = (content(&reader), content(&copy.reader()));
    assert_eq!(found, expected);
    assert_eq!(done.instances, expected.0.len() as u64);
    let names: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["monday"], "nothing else is left");
}

#[test]
fn a_backup_under_commits_is_of_one_moment_and_goes_on_from_there() {
    let (folder, to) = (Folder::new(), tempfile::tempdir().unwrap());
    let mut work = Work::over(&folder);
    (0..3_000).for_each(|_| work.go_on());
    let reader = work.store.reader();
    for round in 0..5 {
        let before = work.number;
        let (path, ended) = (to.path().join(round.to_string()), AtomicBool::new(false));
        let done = std::thread::scope(|scope| {
            let backup = scope.spawn(|| {
                let done = back_up(&reader, &path, |_| {});
                ended.store(true, Ordering::SeqCst);
                done.unwrap()
            });
            while !ended.load(Ordering::SeqCst) {
                work.go_on();
            }
            backup.join().unwrap()
        });
        assert!(work.number > before + 10, "{} commits meanwhile", work.number - before);
        let mut copy = open(&path).unwrap();
        let (instances, ..) = content(&copy.reader());
        assert_eq!(done.instances, instances.len() as u64);
        // Nothing of one commit is there without all of those before it: numbers follow on each other.
        let last = instances.values().map(|one| one.started_at.0).max().unwrap();
        assert!(last >= before && last <= work.number, "{before} <= {last} <= {}", work.number);
        let (_, batch) = started("order", "after", 1, json!(1));
        copy.commit(batch).unwrap();
    }
}

#[test]
fn a_part_of_a_backup_is_never_taken_for_a_whole_one() {
    let (folder, to) = (Folder::new(), tempfile::tempdir().unwrap());
    let mut work = Work::over(&folder);
    (0..1_500).for_each(|_| work.go_on());
    let reader = work.store.reader();
    let (path, cut) = (to.path().join("monday"), to.path().join("cut"));
    let mut parts = 0;
    back_up(&reader, &path, |_| {
        assert!(!path.exists(), "it has its name only once it is whole");
        let unfinished = to.path().join("monday.unfinished");
        fs::create_dir_all(cut.join("sled")).unwrap();
        for name in ["high-water", "sled/db", "sled/conf"] {
            fs::copy(unfinished.join(name), cut.join(name)).unwrap();
        }
        // The system may not have written what sled has only just begun.
        let refused = open(&cut).expect_err("a part was opened");
        assert!(matches!(refused, StoreError::LostTail { found: 0, .. }), "{refused}");
        fs::remove_dir_all(&cut).unwrap();
        parts += 1;
    })
    .unwrap();
    assert!(parts > 2, "{parts}");
    open(&path).unwrap();
}

#[test]
fn a_cancelled_backup_leaves_nothing_and_the_next_one_is_whole() {
    let (folder, to) = (Folder::new(), tempfile::tempdir().unwrap());
    let mut work = Work::over(&folder);
    (0..1_500).for_each(|_| work.go_on());
    let reader = work.store.reader();
    let (path, cancel) = (to.path().join("monday"), Cancel::default());
    let place = BackupPlace::make(&path, reader.path()).unwrap();
    let ended = store::back_up(&reader, place, &cancel, |_| {
        let other = back_up(&reader, &to.path().join("other"), |_| {});
        assert!(matches!(other, Err(BackupError::Busy)), "{other:?}");
        cancel.cancel();
    });
    assert!(matches!(ended, Err(BackupError::Store(StoreError::Cancelled))), "{ended:?}");
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    work.go_on();
    back_up(&reader, &path, |_| {}).unwrap();
    assert_eq!(content(&open(&path).unwrap().reader()), content(&reader));
}

#[test]
fn files_that_are_copied_one_by_one_while_commits_go_on_are_refused() {
    let (folder, to) = (Folder::new(), tempfile::tempdir().unwrap());
    let mut work = Work::over(&folder);
    (0..100).for_each(|_| work.go_on());
    // Closed once, so that sled has something, and not the log alone.
    let Work { store, live, number } = work;
    drop(store);
    let mut work = Work { store: folder.open().unwrap(), live, number };
    let copy = |names: &[&str]| {
        names.iter().for_each(|name| drop(fs::copy(folder.path().join(name), to.path().join(name)).unwrap()));
    };
    fs::create_dir(to.path().join("sled")).unwrap();
    copy(&["sled/conf", "sled/db"]);
    // Enough for the log to have begun anew, twice at least.
    for number in 0..100 {
        let mut batch = Batch::default();
        batch.define("large", number, &format!("large-{number}"), &noise(200_000));
        work.store.commit(batch).unwrap();
    }
    copy(&["log-0", "log-1", "high-water"]);
    let refused = open(to.path()).unwrap_err().to_string();
    assert!(refused.contains("has lost its tail"), "{refused}");
}
