//! What the writer and its readers share: the disk, and the memtable over it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::batch::{Correlation, Head};
use super::checkpoint::Limits;
use super::disk::Disk;
use super::error::StoreError;
use super::index::{Index, State};
use super::journal::{self, Changes};
use super::memtable::Memtable;
use super::table::{self, Stored, Tables};
use super::{keys, record};
use crate::saga::fact::HistoryEntry;
use crate::saga::id::{InstanceId, MessageId};
use crate::saga::instance::Instance;

/// The disk, and the memtable over it.
///
/// Who reads asks the memtable first and then the disk: what moves from the one to the other meanwhile
/// is found twice then, never not at all.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) limits: Limits,
    memtable: RwLock<Memtable>,
    /// Held while a commit changes the disk and then the memtable.
    committing: Mutex<()>,
}

impl Shared {
    /// Reads the index of a disk, which is in a state, and the journal, which has records from one commit to
    /// another.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub(super) fn over(disk: Disk, journal: (u64, u64), index: State) -> Result<Self, StoreError> {
        let limits = match &disk {
            Disk::Folder(_) => Limits::DISK,
            Disk::Memory(_) => Limits::SIMULATED,
        };
        let index = Index::open(&disk, index)?;
        let memtable = RwLock::new(read_journal(&disk, journal, index)?);
        Ok(Self { disk, limits, memtable, committing: Mutex::new(()) })
    }

    /// Keeps readers that have to be sure from reading until it is dropped.
    pub(super) fn committing(&self) -> MutexGuard<'_, ()> {
        self.committing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads; where what is read makes no sense, once more, without a commit that changes it meanwhile.
    fn steadily<T>(&self, read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match read() {
            Err(StoreError::Corrupt { .. }) => {
                let _committing = self.committing();
                read()
            }
            read => read,
        }
    }

    pub(super) fn memtable(&self) -> RwLockReadGuard<'_, Memtable> {
        // Only a bug can panic under the lock, and it ends the process.
        self.memtable.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn memtable_mut(&self) -> RwLockWriteGuard<'_, Memtable> {
        self.memtable.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an instance, whole.
    ///
    /// # Errors
    /// As [`Tables::read`], but for what a commit can bring about.
    pub(super) fn instance(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        self.steadily(|| {
            let Some((mut instance, stored)) = self.found(id)? else { return Ok(None) };
            if let Stored::Blocks = stored {
                instance.input = table::input(&self.disk, id)?;
            }
            Ok(Some(instance))
        })
    }

    /// Reads an instance, without its input.
    ///
    /// # Errors
    /// As [`Shared::instance`].
    pub(super) fn without_input(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        let found = self.steadily(|| self.found(id))?;
        Ok(found.map(|(instance, _)| Instance { input: Arc::default(), ..instance }))
    }

    /// The revision of an instance; 0 if there is none.
    ///
    /// # Errors
    /// As [`Shared::instance`].
    pub(super) fn revision(&self, id: InstanceId) -> Result<u64, StoreError> {
        self.steadily(|| {
            let index = {
                let memtable = self.memtable();
                if let Some(recent) = memtable.get(id) {
                    return Ok(recent.revision());
                }
                Arc::clone(&memtable.index)
            };
            self.tables(&index).revision(id)
        })
    }

    /// Reads a whole history.
    ///
    /// # Errors
    /// As [`Shared::instance`].
    pub(super) fn history(&self, id: InstanceId) -> Result<Vec<HistoryEntry>, StoreError> {
        self.steadily(|| {
            let (recent, index) = self.recent(id)?;
            if is_whole(&recent) {
                return Ok(recent);
            }
            let Some((_, stored)) = self.tables(&index).read(id)? else { return Ok(Vec::new()) };
            let mut entries = table::history(&self.disk, id, stored)?;
            let known = recent.partition_point(|entry| entry.revision <= entries.len() as u64);
            entries.extend(recent.into_iter().skip(known));
            Ok(entries)
        })
    }

    /// The attempt that a message is.
    ///
    /// # Errors
    /// As [`Shared::instance`].
    pub(super) fn correlation(&self, message: MessageId) -> Result<Option<Correlation>, StoreError> {
        self.steadily(|| {
            let (known, index) = {
                let memtable = self.memtable();
                (memtable.correlation(message), Arc::clone(&memtable.index))
            };
            if known.is_some() {
                return Ok(known);
            }
            let key = keys::correlation(message);
            let Some(payload) = record::read(&self.disk, &key)? else {
                return index.attempt(&self.disk, message);
            };
            let correlation = Correlation::from_bytes(&payload);
            correlation.map(Some).ok_or_else(|| self.disk.corrupt(&key, "it is not a correlation"))
        })
    }

    /// Reads an instance, without its input where it lies in blocks.
    fn found(&self, id: InstanceId) -> Result<Option<(Instance, Stored)>, StoreError> {
        let (recent, index) = self.recent(id)?;
        if is_whole(&recent) {
            let instance = Instance::replay(id, &recent);
            return Ok(instance.map(|instance| (instance, Stored::Whole(recent))));
        }
        let Some((mut instance, stored)) = self.tables(&index).read(id)? else { return Ok(None) };
        go_on(&mut instance, &recent);
        Ok(Some((instance, stored)))
    }

    fn tables<'a>(&'a self, index: &'a Index) -> Tables<'a> {
        Tables { disk: &self.disk, index }
    }

    /// The entries of an instance that are in the memtable, and what finds the others.
    fn recent(&self, id: InstanceId) -> Result<(Vec<HistoryEntry>, Arc<Index>), StoreError> {
        let (entries, index) = {
            let memtable = self.memtable();
            let entries = memtable.get(id).map(|recent| recent.entries.clone());
            (entries.unwrap_or_default(), Arc::clone(&memtable.index))
        };
        let entries: Result<_, _> = entries.iter().map(|entry| parse(&self.disk, id, entry)).collect();
        Ok((entries?, index))
    }
}

/// Whether entries of the memtable are all that there are.
fn is_whole(recent: &[HistoryEntry]) -> bool {
    recent.first().is_some_and(|entry| entry.revision == 1)
}

/// What the journal holds and the tables do not have.
fn read_journal(disk: &Disk, span: (u64, u64), index: Index) -> Result<Memtable, StoreError> {
    let mut memtable = Memtable::new(Arc::new(index));
    let records = read_records(disk, span)?;
    let moves = records.iter().flat_map(|record| record.changes.moved.iter().map(|id| (*id, record.commit)));
    let moved: HashMap<InstanceId, u64> = moves.collect();
    let stays = |id, commit| moved.get(&id).is_none_or(|at| *at <= commit);
    let heads = heads(disk, &memtable.index, &records, stays)?;
    for Record { commit, bytes, further_chunks, changes } in records {
        memtable.begin_segment(commit, bytes, further_chunks);
        for (id, revision, entry) in changes.entries {
            if let Some(head) = heads.get(&id).filter(|_| stays(id, commit)) {
                memtable.append(id, revision, entry, head.clone());
            }
        }
        memtable.correlate(changes.correlations);
    }
    Ok(memtable)
}

/// An entry of the journal, with its commit and revision.
type Entry<'a> = (u64, u64, &'a [u8]);

/// What is to be known of each instance of which an entry stays. They are read one after the other: all of them
/// take several times the room of their entries.
fn heads(
    disk: &Disk,
    index: &Index,
    records: &[Record],
    stays: impl Fn(InstanceId, u64) -> bool,
) -> Result<HashMap<InstanceId, Head>, StoreError> {
    let mut entries: HashMap<InstanceId, Vec<Entry>> = HashMap::new();
    for Record { commit, changes, .. } in records {
        for (id, revision, entry) in changes.entries.iter().filter(|(id, ..)| stays(*id, *commit)) {
            entries.entry(*id).or_default().push((*commit, *revision, entry));
        }
    }
    let mut heads = HashMap::with_capacity(entries.len());
    for (id, entries) in entries {
        heads.extend(head(disk, index, id, &entries)?.map(|head| (id, head)));
    }
    Ok(heads)
}

/// What is to be known of an instance after the last of these entries, the first of which is its start or goes
/// on from what the tables have.
fn head(disk: &Disk, index: &Index, id: InstanceId, entries: &[Entry]) -> Result<Option<Head>, StoreError> {
    let is_new = entries.first().is_some_and(|(_, revision, _)| *revision == 1);
    let mut instance =
        if is_new { None } else { Tables { disk, index }.read(id)?.map(|(instance, _)| instance) };
    for (commit, revision, entry) in entries {
        let parsed = [parse(disk, id, entry)?];
        let after = match instance {
            Some(mut instance) => {
                let follows = instance.revision + 1 == *revision;
                instance.go_on(&parsed);
                Some(instance).filter(|_| follows)
            }
            None => Instance::replay(id, &parsed),
        };
        let missing =
            || disk.corrupt(&keys::journal(*commit), format!("it does not go on where instance {id} is"));
        instance = Some(after.filter(|after| after.revision == *revision).ok_or_else(missing)?);
    }
    Ok(instance.map(|instance| Head::of(&instance, is_new)))
}

/// A record of the journal.
struct Record {
    commit: u64,
    bytes: usize,
    further_chunks: u32,
    changes: Changes,
}

/// All records, from the first commit to the last that are to be there.
fn read_records(disk: &Disk, (first, last): (u64, u64)) -> Result<Vec<Record>, StoreError> {
    let mut records: Vec<Record> = Vec::new();
    for key in disk.keys(keys::under(&[keys::JOURNAL])) {
        let key = key?;
        let further_chunks = disk.get(&key)?.map_or(0, |value| record::further_chunks(&value));
        let payload = record::read(disk, &key)?.ok_or_else(|| disk.corrupt(&key, "it is missing"))?;
        let decoded = keys::number_of(&key).zip(journal::decode(&payload));
        let (commit, changes) = decoded.ok_or_else(|| disk.corrupt(&key, "it is not a journal"))?;
        let follows = match records.last() {
            Some(before) => changes.previous == before.commit,
            None => commit == first,
        };
        if !follows {
            return Err(disk.corrupt(&key, "a record before it is missing"));
        }
        records.push(Record { commit, bytes: payload.len(), further_chunks, changes });
    }
    if records.last().map_or(0, |record| record.commit) == last {
        Ok(records)
    } else {
        Err(disk.corrupt(&keys::journal(last), "it is missing"))
    }
}

/// Changes an instance by those entries that follow on it.
fn go_on(instance: &mut Instance, entries: &[HistoryEntry]) {
    let known = entries.partition_point(|entry| entry.revision <= instance.revision);
    instance.go_on(&entries[known..]);
}

fn parse(disk: &Disk, id: InstanceId, entry: &[u8]) -> Result<HistoryEntry, StoreError> {
    serde_json::from_slice(entry).map_err(|error| disk.contradiction(id, error))
}
