//! What a start has to know of each open instance, without reading them.

use std::sync::Arc;

use super::batch::Head;
use crate::saga::id::InstanceId;
use crate::saga::time::Timestamp;

/// An instance for which something is still to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub id: InstanceId,
    /// Name of its saga.
    pub saga: Arc<str>,
    /// Version of the definition that it keeps.
    pub version: u32,
    /// When it has to be looked at next.
    pub due: Option<Timestamp>,
    /// Whether the broker has yet to confirm a message of it.
    pub unconfirmed: bool,
}

impl Waiting {
    /// What is to be known of an instance.
    pub(super) fn of(id: InstanceId, head: &Head) -> Self {
        let Head { saga, version, due, unconfirmed, .. } = head;
        Self { id, saga: Arc::clone(saga), version: *version, due: *due, unconfirmed: *unconfirmed }
    }

    /// Whether it is unconfirmed, whether and when it is due, version, saga.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let due = self.due.map_or(0, |due| due.0).to_be_bytes();
        let flags = [u8::from(self.unconfirmed), u8::from(self.due.is_some())];
        [&flags[..], &due, &self.version.to_be_bytes(), self.saga.as_bytes()].concat()
    }

    /// Reads [`Waiting::to_bytes`] back.
    pub(super) fn from_bytes(id: InstanceId, bytes: &[u8]) -> Option<Self> {
        let (&[unconfirmed, is_due], rest) = bytes.split_first_chunk()?;
        let (due, rest) = rest.split_first_chunk()?;
        let (version, saga) = rest.split_first_chunk()?;
        Some(Self {
            id,
            saga: std::str::from_utf8(saga).ok()?.into(),
            version: u32::from_be_bytes(*version),
            due: (is_due != 0).then(|| Timestamp(i64::from_be_bytes(*due))),
            unconfirmed: unconfirmed != 0,
        })
    }
}
