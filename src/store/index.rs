//! The index: where an instance is, found by its id, in sorted runs.

use std::sync::Arc;

use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::keys::{self, Position};
use super::sorted::Runs;
use super::sorted::merge::Writer;
use crate::saga::id::InstanceId;
use crate::saga::instance::Status;
use crate::saga::time::Timestamp;

/// All of it, as one commit left it.
#[derive(Debug)]
pub(super) struct Index {
    places: Runs,
}

/// Which state of the index belongs to a commit: how often it has changed.
pub(super) type State = u64;

/// What writes the index.
#[derive(Debug)]
pub(super) struct Indexer {
    places: Writer,
    /// The state that readers have.
    shown: State,
}

/// Where the tables have an instance: all that never changes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) saga: Arc<str>,
    pub(super) started_at: Timestamp,
}

impl Index {
    /// Reads the index of a disk, which must be in a state.
    ///
    /// # Errors
    /// The disk fails, or a part of it is missing or makes no sense.
    pub(super) fn open(disk: &Disk, state: State) -> Result<Self, StoreError> {
        Ok(Self { places: Runs::open(disk, state)? })
    }

    /// Where the tables have an instance. They may not have it yet, while the memtable has all of it.
    ///
    /// # Errors
    /// As [`Runs::find`].
    pub(super) fn place(&self, disk: &Disk, id: InstanceId) -> Result<Option<Place>, StoreError> {
        let Some(bytes) = self.places.find(disk, id.as_bytes())? else { return Ok(None) };
        Place::from_bytes(&bytes).map(Some).ok_or_else(|| disk.contradiction(id, "its place makes no sense"))
    }

    /// All instances that have a place, in no order.
    ///
    /// # Errors
    /// Each item may be one, see [`Runs::find`].
    pub(super) fn instances<'a>(
        &self,
        disk: &'a Disk,
    ) -> impl Iterator<Item = Result<InstanceId, StoreError>> + use<'a> {
        self.places.ids(disk).map(|id| id.map(InstanceId::from_bytes))
    }
}

impl Indexer {
    /// Goes on where a store has this index, in this state.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn over(disk: &Disk, index: &Index, shown: State) -> Result<Self, StoreError> {
        Ok(Self { places: Writer::over(disk, index.places.clone(), shown)?, shown })
    }

    /// Adds where instances are; `None` for those that are removed.
    pub(super) fn place(&mut self, writes: &mut Writes, places: Vec<(InstanceId, Option<Place>)>) {
        let value = |place: Option<Place>| place.map_or_else(Vec::new, |place| place.to_bytes());
        let entries = places.into_iter().map(|(id, place)| (*id.as_bytes(), value(place)));
        self.places.put(writes, entries.collect());
    }

    /// Goes on merging runs, about as many entries as are asked for: before anything else is added in a commit.
    ///
    /// # Errors
    /// As [`Runs::find`].
    pub(super) fn go_on(
        &mut self,
        writes: &mut Writes,
        disk: &Disk,
        entries: usize,
    ) -> Result<(), StoreError> {
        self.places.go_on(writes, disk, entries)
    }

    /// The state of the index, once all that was added to a commit is durable.
    pub(super) fn state(&self) -> State {
        self.places.change()
    }

    /// The index as it is then, if it has changed since it was last taken.
    pub(super) fn take_changed(&mut self) -> Option<Arc<Index>> {
        let state = self.state();
        let has_changed = std::mem::replace(&mut self.shown, state) != state;
        has_changed.then(|| Arc::new(Index { places: self.places.runs().clone() }))
    }
}

impl Place {
    /// Start, saga.
    fn to_bytes(&self) -> Vec<u8> {
        [&self.started_at.0.to_be_bytes()[..], self.saga.as_bytes()].concat()
    }

    /// Reads [`Place::to_bytes`] back.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at, saga) = bytes.split_first_chunk()?;
        let saga = std::str::from_utf8(saga).ok()?.into();
        Some(Self { saga, started_at: Timestamp(i64::from_be_bytes(*at)) })
    }

    /// The key of an instance in the view by status.
    pub(super) fn key(&self, status: Status, id: InstanceId) -> Vec<u8> {
        keys::at(&keys::by_status(&self.saga, status), Position::of(self.started_at, id))
    }
}
