//! Everything that is asked of the store.

use std::sync::Arc;

use serde_json::Value;

use super::batch::{Correlation, DeadLetter};
use super::disk::Disk;
use super::error::StoreError;
use super::query::{self, Page, Query};
use super::{keys, record};
use crate::saga::fact::{Fact, HistoryEntry};
use crate::saga::id::{InstanceId, MessageId};
use crate::saga::instance::Instance;
use crate::saga::plan::DefinitionHash;

/// Reads a store beside its writer, on any thread. The folder stays open as long as a reader does.
///
/// Each record is read as one commit left it; two reads may see two commits. Every method fails
/// with [`StoreError::Read`] if the disk does, with [`StoreError::Corrupt`] if a record is damaged,
/// and with [`StoreError::Newer`] if a later version of sagamq wrote it.
#[derive(Clone, Debug)]
pub struct Reader {
    disk: Arc<Disk>,
}

impl Reader {
    pub(super) fn new(disk: Arc<Disk>) -> Self {
        Self { disk }
    }

    /// The instance of this id, whole.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn instance(&self, id: InstanceId) -> Result<Option<Instance>, StoreError> {
        let Some(mut instance) = record::read_json::<Instance>(&self.disk, &keys::instance(id))? else {
            return Ok(None);
        };
        instance.input = Arc::new(self.input(id)?);
        Ok(Some(instance))
    }

    /// Every instance, whole, in the order of their ids.
    ///
    /// # Errors
    /// Each item may be one, see [`Reader`].
    pub fn instances(&self) -> impl Iterator<Item = Result<Instance, StoreError>> {
        self.named_by(keys::INSTANCE)
    }

    /// Everything that ever became known of an instance, oldest first; empty if there is none.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn history(&self, id: InstanceId) -> Result<Vec<HistoryEntry>, StoreError> {
        let mut entries = Vec::new();
        for key in self.disk.keys(keys::under(&keys::history(id))) {
            let key = key?;
            let entry: HistoryEntry = self.promised(&key)?;
            if entry.revision != entries.len() as u64 + 1 {
                return Err(self.disk.corrupt(&key, "an entry before it is missing"));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The attempt that a message is.
    ///
    /// # Errors
    /// See [`Reader`].
    pub fn correlation(&self, message: MessageId) -> Result<Option<Correlation>, StoreError> {
        let key = keys::correlation(message);
        let Some(payload) = record::read(&self.disk, &key)? else { return Ok(None) };
        let correlation = Correlation::from_bytes(&payload);
        correlation.map(Some).ok_or_else(|| self.disk.corrupt(&key, "it is not a correlation"))
    }

    /// Every instance for which something is still to be done, whole, in no order: what recovery
    /// starts from.
    ///
    /// # Errors
    /// Each item may be one, see [`Reader`].
    pub fn open_instances(&self) -> impl Iterator<Item = Result<Instance, StoreError>> {
        self.named_by(keys::OPEN)
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

    /// Instances that match a query, newest first, **without their input**, page by page.
    ///
    /// An instance whose status changes while a page is read may be missing from that page, or show
    /// the later status; it is never shown twice.
    ///
    /// # Errors
    /// [`StoreError::Cursor`] if the query's cursor is not one; also see [`Reader`].
    pub fn list(&self, query: &Query) -> Result<Page<Instance>, StoreError> {
        query::list(&self.disk, query)
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
        for key in self.disk.keys(keys::dead_letter(0)..keys::dead_letter(before)).rev() {
            if page.items.len() == limit {
                page.next = Some(last.to_string());
                break;
            }
            let key = key?;
            // The writer may have dropped it since, as one of the oldest.
            page.items.extend(record::read_json::<DeadLetter>(&self.disk, &key)?);
            last = keys::number_of(&key).unwrap_or(last);
        }
        Ok(page)
    }

    /// The instances that keys which begin with `kind` name.
    fn named_by(&self, kind: u8) -> impl Iterator<Item = Result<Instance, StoreError>> {
        self.disk.keys(keys::under(&[kind])).map(|key| {
            let key = key?;
            let id = keys::instance_of(&key).ok_or_else(|| self.disk.corrupt(&key, "it is cut off"))?;
            self.instance(id)?.ok_or_else(|| self.disk.corrupt(&key, "there is no such instance"))
        })
    }

    /// What an instance keeps of its start event: a part of the first entry of its history.
    fn input(&self, id: InstanceId) -> Result<Value, StoreError> {
        let key = keys::entry(id, 1);
        let entry: HistoryEntry = self.promised(&key)?;
        match entry.facts.into_iter().next().map(|recorded| recorded.fact) {
            Some(Fact::Started(started)) => Ok(started.input),
            _ => Err(self.disk.corrupt(&key, "it does not begin with a start")),
        }
    }

    /// Reads a record that something else in the store says is there.
    fn promised<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<T, StoreError> {
        record::read_json(&self.disk, key)?.ok_or_else(|| self.disk.corrupt(key, "it is missing"))
    }

    fn text(&self, key: &[u8]) -> Result<Option<String>, StoreError> {
        let Some(payload) = record::read(&self.disk, key)? else { return Ok(None) };
        String::from_utf8(payload).map(Some).map_err(|error| self.disk.corrupt(key, error))
    }
}
