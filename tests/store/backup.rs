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

/// Instances by business key, the number of dead letters, and the versions of sagas.
type Content = (BTreeMap<String, Instance>, usize, Vec<(String, u32, String)>);

/// Everything that can be asked of a store.
fn content(reader: &Reader) -> Content {
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
    /// Of each commit, the instance that it changed, and its revision; none where it was removed.
    commits: Vec<(String, Option<u64>)>,
}

impl Work {
    fn over(folder: &Folder) -> Self {
        Self { store: folder.open().unwrap(), live: Vec::new(), number: 0, commits: Vec::new() }
    }

    fn go_on(&mut self) {
        self.number += 1;
        let number = self.number;
        let (instance, mut batch) = started("order", &format!("A-{number}"), number, json!(noise(1_500)));
        if number % 50 == 0 {
            batch.dead_letter(DeadLetter::default());
            batch.define("order", number as u32, &format!("hash-{number}"), "source");
        }
        self.commit(&instance, batch);
        self.live.push(instance);
        let at = (number as usize * 7919) % self.live.len();
        let fact = match number % 3 {
            0 => Fact::Completed,
            1 => Fact::succeeded(0, json!(noise(3_000))),
            _ if number % 4 == 0 => return self.remove(at),
            _ => return,
        };
        let batch = moved(&mut self.live[at], fact);
        let instance = self.live[at].clone();
        self.commit(&instance, batch);
    }

    fn commit(&mut self, instance: &Instance, batch: Batch) {
        self.store.commit(batch).unwrap();
        self.commits.push((instance.business_key.clone(), Some(instance.revision)));
    }

    fn remove(&mut self, at: usize) {
        let instance = self.live.swap_remove(at);
        let mut batch = Batch::default();
        batch.remove(Removal::of(&instance));
        self.store.commit(batch).unwrap();
        self.commits.push((instance.business_key, None));
    }

    /// The revisions of all instances after so many commits.
    fn revisions(&self, after: u64) -> BTreeMap<&str, u64> {
        let mut revisions = BTreeMap::new();
        for (key, revision) in &self.commits[..after as usize] {
            match revision {
                Some(revision) => revisions.insert(key.as_str(), *revision),
                None => revisions.remove(key.as_str()),
            };
        }
        revisions
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
    (0..2_000).for_each(|_| work.go_on());
    let reader = work.store.reader();
    for round in 0..3 {
        let before = work.commits.len();
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
        let meanwhile = work.commits.len() - before;
        assert!(meanwhile > 10, "{meanwhile} commits meanwhile");
        assert!(done.commit > before as u64, "it is of a moment at its end");
        let mut copy = open(&path).unwrap();
        let (instances, ..) = content(&copy.reader());
        assert_eq!(done.instances, instances.len() as u64);
        let revisions = instances.iter().map(|(key, one)| (key.as_str(), one.revision));
        assert_eq!(revisions.collect::<BTreeMap<_, _>>(), work.revisions(done.commit));
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
    drop(work);
    let mut work = Work::over(&folder);
    let copy = |names: &[&str]| {
        for name in names {
            fs::copy(folder.path().join(name), to.path().join(name)).unwrap();
        }
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
