//! The backlog: what is durable in the write-ahead log, and goes on to sled on a thread of its own.
//!
//! ```text
//! commit --> log, synced --> fresh --(enough, or long enough)--> settling --> sled, synced --> gone
//! ```
//!
//! Readers look there first. A crash at any point loses nothing: the log has it all until sled does.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::disk::Writes;
use super::keys;
use crate::fault::{self, Point};

/// Bytes that go on to sled together.
const ENOUGH: usize = 4 << 20;
/// How long a write may wait for more, if more come at all.
const LONG_ENOUGH: Duration = Duration::from_secs(1);
/// Bytes beyond which commits wait for sled.
const TOO_MUCH: usize = 16 << 20;
/// Bytes that sled takes between two syncs: with eight log buffers of 512 KiB in flight, sled 0.34 can lock up for
/// good while it shrinks its file.
const STRETCH: usize = 128 << 10;
/// About how many bytes a removal takes there: sled writes what is left of the node.
const REMOVAL: usize = 2 << 10;

/// The database behind it, and the thread that writes to it.
#[derive(Debug)]
pub(super) struct Backlog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    sled: sled::Db,
    /// sled's own file, opened once more, to be synced by us: sled itself does not, on Linux.
    ///
    /// It stays open as long as the store does, because the system reports a failed write once to
    /// each open file, and sled's own background thread swallows what it is told.
    database: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    fresh: Writes,
    bytes: usize,
    /// The last commit in it.
    commit: u64,
    /// When the first one came.
    since: Instant,
    /// With the last commit in it.
    settling: Option<(Arc<Writes>, u64)>,
    /// Why sled does not take it.
    failed: Option<sled::Error>,
    closing: bool,
}

impl Backlog {
    /// Begins to write to a database, of which `database` is the file.
    pub(super) fn start(sled: sled::Db, database: File) -> io::Result<Self> {
        let state = State {
            fresh: Writes::new(),
            bytes: 0,
            commit: 0,
            since: Instant::now(),
            settling: None,
            failed: None,
            closing: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { sled, database, state, changed });
        let settling = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("settler".to_owned()).spawn(move || settling.settle_all())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The database, which lacks what has not settled.
    pub(super) fn sled(&self) -> &sled::Db {
        &self.shared.sled
    }

    /// Takes in what the log has. Returns whether all that came before is with sled or on its way there, so that
    /// the log may turn: what comes from now on settles after that.
    ///
    /// # Errors
    /// sled did not take something before.
    pub(super) fn add(&self, writes: Writes, commit: u64) -> Result<bool, sled::Error> {
        let mut state = self.shared.lock();
        if state.fresh.is_empty() {
            state.since = Instant::now();
        }
        state.bytes += writes.iter().map(|(key, value)| bytes_of(key, value.as_ref())).sum::<usize>();
        state.fresh.extend(writes);
        state.commit = commit;
        while state.bytes > TOO_MUCH && state.settling.is_some() && state.failed.is_none() {
            state = self.shared.wait(state);
        }
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let is_enough = state.bytes >= ENOUGH || state.since.elapsed() >= LONG_ENOUGH;
        Ok(is_enough && self.shared.begin(&mut state))
    }

    /// Waits until sled has everything. The log may turn then.
    ///
    /// # Errors
    /// sled does not take it.
    pub(super) fn drain(&self) -> Result<(), sled::Error> {
        let mut state = self.shared.lock();
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if state.settling.is_none() && !self.shared.begin(&mut state) {
                return Ok(());
            }
            state = self.shared.wait(state);
        }
    }

    /// Reads one value.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, sled::Error> {
        let state = self.shared.lock();
        let settling = || state.settling.as_ref().and_then(|(writes, _)| writes.get(key));
        if let Some(value) = state.fresh.get(key).or_else(settling) {
            return Ok(value.as_deref().map(sled::IVec::from));
        }
        // What settles meanwhile is there as well.
        drop(state);
        self.shared.sled.get(key)
    }

    /// The keys of a range, in order.
    pub(super) fn keys(&self, range: Range<Vec<u8>>) -> impl DoubleEndedIterator<Item = Key> {
        let mut waiting = BTreeMap::new();
        if range.start < range.end {
            let state = self.shared.lock();
            let settling = state.settling.as_ref().map(|(writes, _)| &**writes);
            for writes in settling.into_iter().chain([&state.fresh]) {
                let found = writes.range(range.clone());
                waiting.extend(found.map(|(key, value)| (sled::IVec::from(key.as_slice()), value.is_some())));
            }
        }
        // What settles meanwhile is in both, and counts once.
        let settled = self.shared.sled.range(range).keys().fuse();
        Merged { waiting: waiting.into_iter().collect(), settled, first: None, last: None }
    }
}

type Key = Result<sled::IVec, sled::Error>;

/// The keys that sled has, and over them those that wait, each with whether it is to stay.
struct Merged<I> {
    waiting: VecDeque<(sled::IVec, bool)>,
    settled: I,
    /// What was taken from either end of `settled`, and is still to come.
    first: Option<Key>,
    last: Option<Key>,
}

/// Where the next key is.
enum Next {
    Waiting,
    Settled,
    Both,
}

impl<I: DoubleEndedIterator<Item = Key>> Iterator for Merged<I> {
    type Item = Key;

    fn next(&mut self) -> Option<Key> {
        loop {
            self.first = self.first.take().or_else(|| self.settled.next()).or_else(|| self.last.take());
            match next(self.waiting.front(), self.first.as_ref(), |key, other| key.cmp(other))? {
                Next::Settled => return self.first.take(),
                Next::Both => self.first = None,
                Next::Waiting => {}
            }
            if let Some((key, true)) = self.waiting.pop_front() {
                return Some(Ok(key));
            }
        }
    }
}

impl<I: DoubleEndedIterator<Item = Key>> DoubleEndedIterator for Merged<I> {
    fn next_back(&mut self) -> Option<Key> {
        loop {
            self.last = self.last.take().or_else(|| self.settled.next_back()).or_else(|| self.first.take());
            match next(self.waiting.back(), self.last.as_ref(), |key, other| other.cmp(key))? {
                Next::Settled => return self.last.take(),
                Next::Both => self.last = None,
                Next::Waiting => {}
            }
            if let Some((key, true)) = self.waiting.pop_back() {
                return Some(Ok(key));
            }
        }
    }
}

fn next(
    waiting: Option<&(sled::IVec, bool)>,
    settled: Option<&Key>,
    order: impl Fn(&sled::IVec, &sled::IVec) -> Ordering,
) -> Option<Next> {
    match (waiting, settled) {
        (None, None) => None,
        (Some(_), None) => Some(Next::Waiting),
        (None, Some(_)) | (_, Some(Err(_))) => Some(Next::Settled),
        (Some((key, _)), Some(Ok(other))) => Some(match order(key, other) {
            Ordering::Less => Next::Waiting,
            Ordering::Equal => Next::Both,
            Ordering::Greater => Next::Settled,
        }),
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has told why it ended, if it did so too early, to whoever committed last.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Has what is fresh settle, if there is some and nothing else settles.
    fn begin(&self, state: &mut State) -> bool {
        let begins = state.settling.is_none() && state.failed.is_none() && !state.fresh.is_empty();
        if begins {
            state.settling = Some((Arc::new(std::mem::take(&mut state.fresh)), state.commit));
            state.bytes = 0;
            self.changed.notify_all();
        }
        begins
    }

    fn settle_all(&self) {
        let mut state = self.lock();
        while state.failed.is_none() {
            if let Some((writes, commit)) = state.settling.clone() {
                drop(state);
                let settled = || settle(&self.sled, &self.database, &writes, commit);
                let settled = panic::catch_unwind(AssertUnwindSafe(settled))
                    .unwrap_or_else(|_| Err(sled::Error::ReportableBug("it panicked".to_owned())));
                state = self.lock();
                match settled {
                    Ok(()) => state.settling = None,
                    Err(error) => state.failed = Some(error),
                }
                self.changed.notify_all();
            } else if !state.closing {
                state = self.wait(state);
            } else if !self.begin(&mut state) {
                // A store that is closed is whole without its log.
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to sled what the log has up to a commit, and makes it durable there. It says so last, so a crash
/// leaves some of it at most, which is written once more then.
///
/// Each stretch is synced before the next begins. A header in sled's log says up to where the log is stable, which
/// sled believes after a flush: what a power cut took from before it, sled would pass over without a word.
///
/// One key after the other, not in batches: nothing has to be atomic here, and a batch of sled keeps all readers of
/// the process waiting, the commits among them.
pub(super) fn settle(
    sled: &sled::Db,
    database: &File,
    writes: &Writes,
    commit: u64,
) -> Result<(), sled::Error> {
    let mut bytes = 0;
    for (key, value) in writes.iter().filter(|(key, _)| key.as_slice() != keys::META) {
        put(sled, key, value.as_deref())?;
        bytes += bytes_of(key, value.as_ref());
        if value.is_none() {
            bytes += REMOVAL;
        }
        if bytes >= STRETCH {
            sled.flush()?;
            database.sync_data()?;
            bytes = 0;
        }
    }
    if let Some(meta) = writes.get(keys::META) {
        put(sled, keys::META, meta.as_deref())?;
    }
    put(sled, keys::SETTLED, Some(&commit.to_be_bytes()))?;
    sled.flush()?;
    fault::pass(Point::Settling);
    Ok(database.sync_data()?)
}

fn put(sled: &sled::Db, key: &[u8], value: Option<&[u8]>) -> Result<(), sled::Error> {
    match value {
        Some(value) => sled.insert(key, value),
        None => sled.remove(key),
    }
    .map(drop)
}

fn bytes_of(key: &[u8], value: Option<&Vec<u8>>) -> usize {
    key.len() + value.map_or(0, Vec::len)
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // sled would print every key and value.
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        backlog: Option<Backlog>,
        folder: tempfile::TempDir,
    }

    impl Scene {
        fn open() -> Self {
            let folder = tempfile::tempdir().unwrap();
            Self { backlog: Some(start(folder.path())), folder }
        }

        fn backlog(&self) -> &Backlog {
            self.backlog.as_ref().unwrap()
        }

        fn add(&self, commit: u64, writes: &[(&str, Option<&str>)]) {
            let bytes = |text: &str| text.as_bytes().to_vec();
            let writes = writes.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect();
            self.backlog().add(writes, commit).unwrap();
        }

        fn get(&self, key: &str) -> Option<String> {
            let value = self.backlog().get(key.as_bytes()).unwrap();
            value.map(|value| String::from_utf8(value.to_vec()).unwrap())
        }

        fn keys(&self) -> (String, String) {
            let range = || b"a".to_vec()..b"m".to_vec();
            let text = |keys: Vec<Key>| keys.into_iter().map(|key| key.unwrap()[0] as char).collect();
            (text(self.backlog().keys(range()).collect()), text(self.backlog().keys(range()).rev().collect()))
        }
    }

    fn start(folder: &std::path::Path) -> Backlog {
        let patience = Instant::now() + Duration::from_secs(10);
        let sled = loop {
            match sled::Config::default().path(folder).open() {
                // What another test runs as a process holds this one's locks until it is a program of its own.
                Err(sled::Error::Io(_)) if Instant::now() < patience => thread::yield_now(),
                opened => break opened.unwrap(),
            }
        };
        Backlog::start(sled, File::open(folder.join("db")).unwrap()).unwrap()
    }

    #[test]
    fn what_waits_lies_over_what_has_settled() {
        let scene = Scene::open();
        scene.add(1, &[("a", Some("1")), ("c", Some("1")), ("e", Some("1")), ("z", Some("1"))]);
        scene.backlog().drain().unwrap();
        scene.add(2, &[("b", Some("2")), ("c", None), ("e", Some("2")), ("f", None), ("g", Some("2"))]);
        assert_eq!(scene.keys(), ("abeg".to_owned(), "geba".to_owned()));
        assert_eq!(
            ["a", "c", "e", "f"].map(|key| scene.get(key)),
            [Some("1".to_owned()), None, Some("2".to_owned()), None]
        );
        let range = b"a".to_vec()..b"m".to_vec();
        let mut keys = scene.backlog().keys(range);
        let ends = [keys.next(), keys.next_back(), keys.next_back(), keys.next()]
            .map(|key| key.unwrap().unwrap()[0]);
        assert_eq!((ends, keys.next().is_none(), keys.next_back().is_none()), (*b"ageb", true, true));
        drop(keys);
        scene.backlog().drain().unwrap();
        assert_eq!(scene.keys(), ("abeg".to_owned(), "geba".to_owned()));
        assert_eq!(scene.get("c"), None);
    }

    #[test]
    fn all_that_waits_is_with_sled_once_it_is_closed_and_sled_says_up_to_where() {
        let mut scene = Scene::open();
        scene.add(1, &[("a", Some("1"))]);
        scene.add(2, &[("a", Some("2")), ("m", Some("2"))]);
        scene.backlog = None;
        let backlog = start(scene.folder.path());
        assert_eq!(backlog.sled().get("a").unwrap().unwrap(), "2");
        assert_eq!(backlog.sled().get(keys::SETTLED).unwrap().unwrap(), 2_u64.to_be_bytes());
    }

    #[test]
    fn commits_wait_for_sled_rather_than_fill_the_memory() {
        let scene = Scene::open();
        let value = "x".repeat(4000);
        for commit in 1..=10_000_u64 {
            scene.add(commit, &[(&format!("k{commit}"), Some(&value))]);
            assert!(scene.backlog().shared.lock().bytes <= TOO_MUCH + 2 * value.len());
        }
        scene.backlog().drain().unwrap();
        assert_eq!(scene.backlog().sled().len(), 10_001);
    }
}
