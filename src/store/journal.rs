//! The journal: what each commit changed, in the order of the commits.
//!
//! A commit writes one record, so that it costs as little as its bytes, whatever it changes. What a
//! record holds goes on to the tables later, a little with each commit; a record is removed once the
//! tables have all of it.
//!
//! | part of a record | bytes |
//! |---|---|
//! | commit of the record before it | 8 |
//! | number of instances that moved to the tables or were removed, before the entries | 4 |
//! | each of them | 16 |
//! | number of entries | 4 |
//! | each entry: instance, revision, length, JSON | 16, 8, 4, length |

use super::batch::Batch;
use crate::saga::id::InstanceId;

/// What one commit changed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes<'a> {
    /// The commit of the record before it: so that a missing one is found.
    pub(super) previous: u64,
    /// Instances that the tables have up to the records before it, or that were removed.
    pub(super) moved: Vec<InstanceId>,
    /// Entries of histories, each with its instance and its revision.
    pub(super) entries: Vec<(InstanceId, u64, &'a [u8])>,
}

/// The record of a batch, in whose commit instances move to the tables or are removed.
pub(super) fn encode(batch: &Batch, previous: u64, moved: &[InstanceId]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.bytes() + 16 * moved.len());
    bytes.extend_from_slice(&previous.to_be_bytes());
    put_length(&mut bytes, moved.len());
    moved.iter().for_each(|id| bytes.extend_from_slice(id.as_bytes()));
    put_length(&mut bytes, batch.changes.len());
    for change in &batch.changes {
        bytes.extend_from_slice(change.id.as_bytes());
        bytes.extend_from_slice(&change.revision.to_be_bytes());
        put_length(&mut bytes, change.entry.len());
        bytes.extend_from_slice(&change.entry);
    }
    bytes
}

/// Reads a record back; `None` where it is none.
pub(super) fn decode(bytes: &[u8]) -> Option<Changes<'_>> {
    let mut rest = bytes;
    let mut changes = Changes { previous: u64::from_be_bytes(*take(&mut rest)?), ..Changes::default() };
    for _ in 0..length(&mut rest)? {
        changes.moved.push(InstanceId::from_bytes(*take(&mut rest)?));
    }
    for _ in 0..length(&mut rest)? {
        let id = InstanceId::from_bytes(*take(&mut rest)?);
        let revision = u64::from_be_bytes(*take(&mut rest)?);
        let length = length(&mut rest)?;
        let entry;
        (entry, rest) = rest.split_at_checked(length)?;
        changes.entries.push((id, revision, entry));
    }
    rest.is_empty().then_some(changes)
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("a batch in memory is smaller than 4 GiB");
    bytes.extend_from_slice(&length.to_be_bytes());
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(*take(rest)?)).ok()
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let taken;
    (taken, *rest) = rest.split_first_chunk()?;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::fact::{HistoryEntry, Started};
    use crate::saga::instance::Instance;
    use crate::saga::time::Timestamp;

    #[test]
    fn a_record_comes_back_from_its_bytes_and_not_from_a_part_of_them() {
        let mut batch = Batch::default();
        let started: Started = serde_json::from_value(serde_json::json!({
            "saga": "order", "version": 1, "definition": "hash", "business_key": "A-1", "steps": [], "input": 1,
        }))
        .unwrap();
        let instance = Instance::begin(InstanceId::new("order", "A-1"), &started, Timestamp(1));
        for revision in [1, 2] {
            let entry = HistoryEntry { revision, causation_id: None, user: None, facts: Vec::new() };
            batch.save(&instance, &entry);
        }
        let bytes = encode(&batch, 7, &[instance.id]);
        let changes = decode(&bytes).unwrap();
        let entries: Vec<_> =
            batch.changes.iter().map(|change| (change.id, change.revision, &*change.entry)).collect();
        assert_eq!(changes, Changes { previous: 7, moved: vec![instance.id], entries });
        assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut]).is_none()));
    }
}
