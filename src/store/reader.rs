//! Everything that is asked of the store.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::batch::DeadLetter;
use super::cancel::Cancel;
use super::error::StoreError;
use super::identity::{Identity, Sharing};
use super::query::{self, Page, Query};
use super::shared::Shared;
use super::tally::{self, Tallies};
use super::waiting::Waiting;
use super::{keys, record};
use crate::saga::fact::HistoryEntry;
use crate::saga::id::InstanceId;
use crate::saga::instance::Instance;
use crate::saga::plan::DefinitionHash;

/// Reads a store beside its writer, on any thread. The folder stays open as long as a reader does.
///
/// Each record is read as one commit left it; two reads may see two commits. Every method fails
/// with [`StoreError::Read`] if the disk does, with [`StoreError::Corrupt`] if a record is damaged,
/// and with [`StoreError::Newer`] if a later version of sagamq wrote it.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    cancel: Cancel,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, cancel: Cancel::default() }
    }

    /// The same reader, whose lists and tallies end early, with [`StoreError::Cancelled`], once `cancel` says so.
    pub fn until(&self, cancel: Cancel) -> Self {
        Self { shared: Arc::clone(&self.shared), cancel }
    }

    /// What it shares with the writer.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        self.shared.disk.path()
    }

    /// Which store it is.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// How many processes may use it at a time.
    pub fn sharing(&self) -> Sharing {
        Sharing::Exclusive
    }

    /// Looks whether the files of the store are still in their place.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if they are not: nothing that is committed from then on outlives the process.
    pub fn confirm_place(&self) -> Result<(), StoreError> {
        self.shared.disk.confirm(true)
    }

    /// The instance of this id, whole.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn instance(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        self.shared.instance(id)
    }

    /// How many entries the history of this id has; 0 if there is none.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn revision(&self, id: InstanceId) -> Result<u64, StoreError> {
        self.shared.revision(id)
    }

    /// Every instance, whole, in no order, while nothing is committed: a commit may move what is still to be
    /// read.
    ///
    /// # Errors
    /// Each item may be one, see [`Reader`].
    pub fn instances(&self) -> impl Iterator<Item = Result<Instance, StoreError>> {
        let (mut recent, index): (Vec<_>, _) = {
            let memtable = self.shared.memtable();
            (memtable.iter().map(|(id, _)| id).collect(), Arc::clone(&memtable.index))
        };
        recent.sort_unstable();
        let known: HashSet<_> = recent.iter().copied().collect();
        let others = index.instances(&self.shared.disk);
        let others = others.filter(move |id| !id.as_ref().is_ok_and(|id| known.contains(id)));
        recent.into_iter().map(Ok).chain(others).map(|id| {
            let id = id?;
            let missing = || self.shared.disk.contradiction(id, "there is no such instance");
            self.instance(id)?.ok_or_else(missing)
        })
    }

    /// Everything that ever became known of an instance, oldest first; empty if there is none.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn history(&self, id: InstanceId) -> Result<Vec<HistoryEntry>, StoreError> {
        self.shared.history(id)
    }

    /// Every instance for which something is still to be done, in no order: what recovery starts from.
    ///
    /// # Errors
    /// Each item may be one, see [`Reader`].
    pub fn waiting(&self) -> impl Iterator<Item = Result<Waiting, StoreError>> {
        let disk = &self.shared.disk;
        let mut recent = HashSet::new();
        let mut waiting = Vec::new();
        for (id, of) in self.shared.memtable().iter() {
            recent.insert(id);
            waiting.extend(of.head.open.then(|| Waiting::of(id, &of.head)));
        }
        waiting.sort_unstable_by_key(|one| one.id);
        let others = disk.keys(keys::under(&[keys::OPEN])).filter_map(move |key| {
            let waiting = key.and_then(|key| {
                let id = keys::instance_of(&key).ok_or_else(|| disk.corrupt(&key, "it is cut off"))?;
                if recent.contains(&id) {
                    return Ok(None);
                }
                let bytes = record::read(disk, &key)?.ok_or_else(|| disk.corrupt(&key, "it is missing"))?;
                let waiting = Waiting::from_bytes(id, &bytes);
                waiting.map(Some).ok_or_else(|| disk.corrupt(&key, "it makes no sense"))
            });
            waiting.transpose()
        });
        waiting.into_iter().map(Ok).chain(others)
    }

    /// The source of the definition with this hash.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn definition(&self, hash: &DefinitionHash) -> Result<Option<String>, StoreError> {
        self.text(&keys::definition(hash))
    }

    /// The hash of a version of a saga.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn definition_hash(&self, saga: &str, version: u32) -> Result<Option<DefinitionHash>, StoreError> {
        self.text(&keys::version(saga, version))
    }

    /// Every version of every saga that was ever in force, with its hash, by saga and version.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn versions(&self) -> Result<Vec<(String, u32, DefinitionHash)>, StoreError> {
        let disk = &self.shared.disk;
        let version = |key: Result<sled::IVec, StoreError>| {
            let key = key?;
            let (saga, version, hash) = (keys::saga_of(&key), keys::version_of(&key), self.text(&key)?);
            let damaged = || disk.corrupt(&key, "it is no version");
            Ok((
                saga.ok_or_else(damaged)?.to_owned(),
                version.ok_or_else(damaged)?,
                hash.ok_or_else(damaged)?,
            ))
        };
        disk.keys(keys::under(&[keys::VERSION])).map(version).collect()
    }

    /// How many instances of each saga and version are running, compensating and parked; none of versions
    /// that have no such instance.
    ///
    /// Takes time with the instances that have not ended, and none with those that have: a look at each that
    /// the journal still holds, in memory; of each that has moved to the tables, a key and a small value, and
    /// of a parked one all of it but its input. What changes meanwhile is counted as before or after it.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn tallies(&self) -> Result<Tallies, StoreError> {
        tally::tallies(&self.shared, &self.cancel)
    }

    /// Instances that match a query, newest first, **without their input**, page by page.
    ///
    /// An instance whose status changes while a page is read may be missing from that page, or show
    /// the later status; it is never shown twice.
    ///
    /// # Errors
    /// [`StoreError::Cursor`] if the query's cursor is not one; also see [`Reader`].
    pub fn list(&self, query: &Query) -> Result<Page<Instance>, StoreError> {
        query::list(&self.shared, query, &self.cancel)
    }

    /// Dead letters, newest first, page by page.
    ///
    /// # Errors
    /// [`StoreError::Cursor`] if `cursor` is not one; also see [`Reader`].
    pub fn dead_letters(&self, limit: usize, cursor: Option<&str>) -> Result<Page<DeadLetter>, StoreError> {
        let before = match cursor {
            Some(text) => text.parse().map_err(|_| StoreError::Cursor(text.to_owned()))?,
            None => u64::MAX,
        };
        let limit = limit.clamp(1, query::MAX_LIMIT);
        let mut page = Page { items: Vec::new(), next: None };
        let mut last = before;
        for key in self.shared.disk.keys(keys::dead_letter(0)..keys::dead_letter(before)).rev() {
            self.cancel.check()?;
            if page.items.len() == limit {
                page.next = Some(last.to_string());
                break;
            }
            let key = key?;
            // The writer may have dropped it since, as one of the oldest.
            page.items.extend(record::read_json::<DeadLetter>(&self.shared.disk, &key)?);
            last = keys::number_of(&key).unwrap_or(last);
        }
        Ok(page)
    }

    fn text(&self, key: &[u8]) -> Result<Option<String>, StoreError> {
        let Some(payload) = record::read(&self.shared.disk, key)? else { return Ok(None) };
        String::from_utf8(payload).map(Some).map_err(|error| self.shared.disk.corrupt(key, error))
    }
}
