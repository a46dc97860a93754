//! What the writer and its readers share: the disk, and the memtable over it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::batch::Head;
use super::checkpoint::Limits;
use super::disk::Disk;
use super::error::StoreError;
use super::identity::Identity;
use super::index::{Index, State};
use super::journal;
use super::memtable::{Entries, Memtable, Recent};
use super::table::{self, Stored, Tables};
use super::{keys, record};
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
    pub(super) identity: Identity,
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
    pub(super) fn over(
        disk: Disk,
        identity: Identity,
        journal: (u64, u64),
        index: State,
    ) -> Result<Self, StoreError> {
        let limits = match &disk {
            Disk::Folder(_) => Limits::DISK,
            Disk::Memory(_) => Limits::SIMULATED,
        };
        let index = Index::open(&disk, index)?;
        let memtable = RwLock::new(read_journal(&disk, journal, index)?);
        Ok(Self { disk, limits, identity, memtable, committing: Mutex::new(()) })
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
                    return Ok(recent.entries.last);
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
            (memtable.get(id).map(|recent| recent.entries.clone()), Arc::clone(&memtable.index))
        };
        let entries = entries.map(|entries| parse(&self.disk, id, &entries)).transpose()?;
        Ok((entries.unwrap_or_default(), index))
    }
}

/// Whether entries of the memtable are all that there are.
fn is_whole(recent: &[HistoryEntry]) -> bool {
    recent.first().is_some_and(|entry| entry.revision == 1)
}

/// What the journal holds, from the first commit to the last that are to be there, and the tables do not have.
///
/// The records are taken in as they were when they were committed, then the instances are read one after the
/// other: all of them take several times the room of their entries.
fn read_journal(disk: &Disk, (first, last): (u64, u64), index: Index) -> Result<Memtable, StoreError> {
    let mut memtable = Memtable::new(Arc::new(index));
    for key in disk.keys(keys::under(&[keys::JOURNAL])) {
        let key = key?;
        let further_chunks = disk.get(&key)?.map_or(0, |value| record::further_chunks(&value));
        let payload = record::read(disk, &key)?.ok_or_else(|| disk.corrupt(&key, "it is missing"))?;
        let decoded = keys::number_of(&key).zip(journal::decode(&payload));
        let (commit, changes) = decoded.ok_or_else(|| disk.corrupt(&key, "it is not a journal"))?;
        let follows = match memtable.span(0) {
            (0, _) => commit == first,
            (_, before) => changes.previous == before,
        };
        if !follows {
            return Err(disk.corrupt(&key, "a record before it is missing"));
        }
        changes.moved.into_iter().for_each(|id| memtable.remove(id));
        memtable.begin_segment(commit, payload.len(), further_chunks);
        for (id, revision, entry) in changes.entries {
            if memtable.get(id).is_some_and(|recent| recent.entries.last.checked_add(1) != Some(revision)) {
                return Err(does_not_go_on(disk, commit, id));
            }
            memtable.append(id, revision, entry);
        }
    }
    if memtable.span(0).1 != last {
        return Err(disk.corrupt(&keys::journal(last), "it is missing"));
    }
    for id in memtable.oldest(usize::MAX) {
        let head = memtable.get(id).map(|recent| head(disk, &memtable.index, id, recent)).transpose()?;
        head.into_iter().for_each(|head| memtable.know(id, head));
    }
    Ok(memtable)
}

/// What is to be known of an instance after its last entry. The first one is its start, or goes on from what the
/// tables have.
fn head(disk: &Disk, index: &Index, id: InstanceId, recent: &Recent) -> Result<Head, StoreError> {
    let Entries { first, last, .. } = recent.entries;
    let entries = parse(disk, id, &recent.entries)?;
    let instance = if first == 1 {
        Instance::replay(id, &entries)
    } else {
        let before = Tables { disk, index }.read(id)?.map(|(instance, _)| instance);
        before.filter(|before| before.revision.checked_add(1) == Some(first)).map(|mut instance| {
            instance.go_on(&entries);
            instance
        })
    };
    let is_whole = entries.iter().map(|entry| entry.revision).eq(first..=last);
    let instance = instance.filter(|instance| is_whole && instance.revision == last);
    instance
        .map(|instance| Head::of(&instance, first == 1))
        .ok_or_else(|| does_not_go_on(disk, recent.since, id))
}

fn does_not_go_on(disk: &Disk, commit: u64, id: InstanceId) -> StoreError {
    disk.corrupt(&keys::journal(commit), format!("it does not go on where instance {id} is"))
}

/// Changes an instance by those entries that follow on it.
fn go_on(instance: &mut Instance, entries: &[HistoryEntry]) {
    let known = entries.partition_point(|entry| entry.revision <= instance.revision);
    instance.go_on(&entries[known..]);
}

fn parse(disk: &Disk, id: InstanceId, entries: &Entries) -> Result<Vec<HistoryEntry>, StoreError> {
    let lines = entries.lines.split(|byte| *byte == b'\n');
    lines.map(|line| serde_json::from_slice(line).map_err(|error| disk.contradiction(id, error))).collect()
}
