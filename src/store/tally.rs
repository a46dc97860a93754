//! How many instances each version still has.

use std::collections::{BTreeMap, HashSet};

use super::batch::Head;
use super::cancel::Cancel;
use super::error::StoreError;
use super::keys::{self, Position};
use super::shared::Shared;
use super::waiting::Waiting;
use super::{query, record};
use crate::saga::id::InstanceId;
use crate::saga::instance::Status;

/// Instances of a version that have not ended, by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Going forward.
    pub running: usize,
    /// Going back.
    pub compensating: usize,
    /// Waiting for a person.
    pub parked: usize,
}

/// Tallies by saga and version.
pub(super) type Tallies = BTreeMap<(String, u32), Tally>;

impl Tally {
    fn count(&mut self, status: Status) {
        match status {
            Status::Running => self.running += 1,
            Status::Compensating => self.compensating += 1,
            Status::Parked => self.parked += 1,
            Status::Completed | Status::Compensated => {}
        }
    }
}

/// Counts all instances that have not ended, each once.
pub(super) fn tallies(shared: &Shared, cancel: &Cancel) -> Result<Tallies, StoreError> {
    let mut tallies = Tallies::new();
    let mut counted = HashSet::new();
    // The memtable first: what moves to the tables meanwhile is found twice, not never.
    for (id, recent) in shared.memtable().iter() {
        counted.insert(id);
        let Head { saga, version, status, .. } = &recent.head;
        if !matches!(status, Status::Completed | Status::Compensated) {
            tallies.entry((saga.to_string(), *version)).or_default().count(*status);
        }
    }
    for saga in query::sagas(shared)? {
        for status in [Status::Running, Status::Compensating, Status::Parked] {
            for key in shared.disk.keys(keys::under(&keys::by_status(&saga, status))) {
                cancel.check()?;
                let Some(id) = Position::of_key(&key?).map(Position::instance) else { continue };
                if counted.insert(id)
                    && let Some((version, status)) = version(shared, id, status)?
                {
                    tallies.entry((saga.clone(), version)).or_default().count(status);
                }
            }
        }
    }
    Ok(tallies)
}

/// The version of an instance that the tables have under a status, by the marker of open ones, or by reading
/// it whole: a parked one has no marker, nor one that has just ended.
fn version(shared: &Shared, id: InstanceId, status: Status) -> Result<Option<(u32, Status)>, StoreError> {
    let marker = record::read(&shared.disk, &keys::open(id))?;
    if let Some(waiting) = marker.and_then(|bytes| Waiting::from_bytes(id, &bytes)) {
        return Ok(Some((waiting.version, status)));
    }
    let instance = shared.without_input(id)?;
    Ok(instance.map(|instance| (instance.version, instance.status)))
}
