//! What the writer and its readers share: the disk, and the memtable over it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::batch::Head;
use super::checkpoint::Limits;
use super::disk::Disk;
use super::error::StoreError;
use super::journal::{self, Changes};
use super::memtable::Memtable;
use super::table::Stored;
use super::{keys, record, runs, table};
use crate::saga::fact::HistoryEntry;
use crate::saga::id::InstanceId;
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
}

impl Shared {
    /// Reads the journal of a disk, which has records from one commit to another.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub(super) fn over(disk: Disk, journal: (u64, u64)) -> Result<Self, StoreError> {
        let limits = match &disk {
            Disk::Folder(_) => Limits::DISK,
            Disk::Memory(_) => Limits::SIMULATED,
        };
        let memtable = RwLock::new(read_journal(&disk, journal)?);
        Ok(Self { disk, limits, memtable })
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
    /// As [`table::read`].
    pub(super) fn instance(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        let Some((mut instance, stored)) = self.found(id)? else { return Ok(None) };
        if let Stored::Blocks = stored {
            match self.unless_removed(id, table::input(&self.disk, id).map(Some))? {
                Some(input) => instance.input = input.into(),
                None => return Ok(None),
            }
        }
        Ok(Some(instance))
    }

    /// The revision of an instance, with the memtable as it is now; 0 if there is none.
    ///
    /// # Errors
    /// As [`record::read`].
    pub(super) fn revision(&self, memtable: &Memtable, id: InstanceId) -> Result<u64, StoreError> {
        match memtable.get(id) {
            Some(recent) => Ok(recent.revision()),
            None => Ok(table::Place::of(&self.disk, id)?.map_or(0, |place| place.revision)),
        }
    }

    /// Reads an instance, without its input.
    ///
    /// # Errors
    /// As [`table::read`].
    pub(super) fn without_input(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        let found = self.found(id)?;
        Ok(found.map(|(instance, _)| Instance { input: Arc::default(), ..instance }))
    }

    /// Reads an instance, without its input where it lies in blocks.
    fn found(&self, id: InstanceId) -> Result<Option<(Instance, Stored)>, StoreError> {
        let recent = self.recent(id)?;
        if recent.first().is_some_and(|entry| entry.revision == 1) {
            let instance = Instance::replay(id, &recent);
            return Ok(instance.map(|instance| (instance, Stored::Whole(recent))));
        }
        let Some((mut instance, stored)) = table::read(&self.disk, id)? else { return Ok(None) };
        go_on(&mut instance, &recent);
        Ok(Some((instance, stored)))
    }

    /// Reads a whole history.
    ///
    /// # Errors
    /// As [`table::read`].
    pub(super) fn history(&self, id: InstanceId) -> Result<Vec<HistoryEntry>, StoreError> {
        let recent = self.recent(id)?;
        if recent.first().is_some_and(|entry| entry.revision == 1) {
            return Ok(recent);
        }
        let Some((_, stored)) = table::read(&self.disk, id)? else { return Ok(Vec::new()) };
        let mut entries = self.unless_removed(id, table::history(&self.disk, id, stored))?;
        let known = recent.partition_point(|entry| entry.revision <= entries.len() as u64);
        entries.extend(recent.into_iter().skip(known));
        Ok(entries)
    }

    /// What was read of an instance; nothing where it was removed while it was read.
    fn unless_removed<T: Default>(
        &self,
        id: InstanceId,
        read: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match read {
            Err(StoreError::Corrupt { .. }) if self.revision(&self.memtable(), id)? == 0 => Ok(T::default()),
            read => read,
        }
    }

    /// The entries of an instance that are in the memtable.
    fn recent(&self, id: InstanceId) -> Result<Vec<HistoryEntry>, StoreError> {
        let Some(entries) = self.memtable().get(id).map(|recent| recent.entries.clone()) else {
            return Ok(Vec::new());
        };
        entries.iter().map(|entry| parse(&self.disk, id, entry)).collect()
    }
}

/// What the journal holds and the tables do not have.
fn read_journal(disk: &Disk, span: (u64, u64)) -> Result<Memtable, StoreError> {
    let mut memtable = Memtable::new(runs::numbers(disk)?);
    let records = read_records(disk, span)?;
    let moves = records.iter().flat_map(|record| record.changes.moved.iter().map(|id| (*id, record.commit)));
    let moved: HashMap<InstanceId, u64> = moves.collect();
    // Each instance of the journal, as far as it is read.
    let mut instances: HashMap<InstanceId, Instance> = HashMap::new();
    for Record { commit, bytes, further_chunks, changes } in records {
        memtable.begin_segment(commit, bytes, further_chunks);
        for (id, revision, entry) in changes.entries {
            if moved.get(&id).is_some_and(|at| *at > commit) {
                continue;
            }
            let parsed = [parse(disk, id, &entry)?];
            let known = match instances.remove(&id) {
                None if revision > 1 => table::read(disk, id)?.map(|(instance, _)| instance),
                known => known,
            };
            let instance = match known {
                Some(mut instance) => {
                    let follows = instance.revision + 1 == revision;
                    instance.go_on(&parsed);
                    Some(instance).filter(|_| follows)
                }
                None => Instance::replay(id, &parsed),
            };
            let missing =
                || disk.corrupt(&keys::journal(commit), format!("it does not go on where instance {id} is"));
            let instance = instance.filter(|instance| instance.revision == revision).ok_or_else(missing)?;
            memtable.append(id, revision, entry, Head::of(&instance, revision == 1));
            instances.insert(id, instance);
        }
        memtable.correlate(changes.correlations);
    }
    Ok(memtable)
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
    serde_json::from_slice(entry).map_err(|error| disk.corrupt(&keys::instance(id), error))
}
