//! Runs: what late replies to instances that have ended are matched by.
//!
//! Ids of messages are hashes, and a key of its own for each would be the dearest part of a saga, dearer
//! the more there are. So those of many instances that end together are written as one sorted run of
//! blocks, and a late reply, which is rare, is looked for in one run after the other. Of the newest
//! [`KEPT`] runs, that is: a reply that comes later than that is one to nobody.

use std::ops::Range;

use super::batch::Correlation;
use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::{keys, record};
use crate::saga::id::MessageId;

/// Runs that are kept: the newest.
pub(super) const KEPT: u64 = 256;
/// Bytes of one correlation: the message, and what it is.
const ENTRY: usize = 16 + Correlation::LENGTH;
/// Correlations in a block.
const BLOCK: usize = record::CHUNK / ENTRY;

/// The numbers of the runs that there are.
///
/// # Errors
/// The disk fails.
pub(super) fn numbers(disk: &Disk) -> Result<Range<u64>, StoreError> {
    let mut keys = disk.keys(keys::under(&[keys::RUN]));
    let number = |key: Option<Result<sled::IVec, StoreError>>| {
        Ok::<_, StoreError>(key.transpose()?.and_then(|key| keys::run_number(&key)))
    };
    let first = number(keys.next())?;
    let last = number(keys.next_back())?.or(first);
    Ok(first.unwrap_or(0)..last.map_or(0, |last| last + 1))
}

/// Adds a run behind those that are there, and drops the oldest if they are too many; tells which there
/// are then.
///
/// # Errors
/// The disk fails.
pub(super) fn put(
    writes: &mut Writes,
    disk: &Disk,
    mut runs: Range<u64>,
    mut correlations: Vec<(MessageId, Correlation)>,
) -> Result<Range<u64>, StoreError> {
    if correlations.is_empty() {
        return Ok(runs);
    }
    correlations.sort_unstable_by_key(|(message, _)| *message);
    for block in correlations.chunks(BLOCK) {
        let entries = block.iter().flat_map(|(message, correlation)| {
            message.as_bytes().iter().copied().chain(correlation.to_bytes())
        });
        record::insert(writes, &keys::run_block(runs.end, block[0].0), &entries.collect::<Vec<u8>>());
    }
    runs.end += 1;
    if runs.end - runs.start > KEPT {
        for key in disk.keys(keys::under(&keys::run(runs.start))) {
            writes.insert(key?.to_vec(), None);
        }
        runs.start += 1;
    }
    Ok(runs)
}

/// Looks for a message in all runs, the newest first.
///
/// # Errors
/// As [`record::read`].
pub(super) fn find(
    disk: &Disk,
    runs: Range<u64>,
    message: MessageId,
) -> Result<Option<Correlation>, StoreError> {
    for run in runs.rev() {
        // A block is named by its first message.
        let mut up_to = keys::run(run)..keys::run_block(run, message);
        up_to.end.push(0);
        let Some(key) = disk.keys(up_to).next_back().transpose()? else { continue };
        // The writer may have dropped the run since.
        let Some(block) = record::read(disk, &key)? else { continue };
        let (entries, []) = block.as_chunks::<ENTRY>() else {
            return Err(disk.corrupt(&key, "it is cut off"));
        };
        if let Ok(at) = entries.binary_search_by(|entry| entry[..16].cmp(message.as_bytes())) {
            let found = Correlation::from_bytes(&entries[at][16..]);
            return found.map(Some).ok_or_else(|| disk.corrupt(&key, "it holds no correlations"));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::id::{InstanceId, Phase};
    use crate::store::memory::Memory;

    #[test]
    fn messages_are_found_in_the_newest_runs() {
        let disk = Disk::Memory(Memory::default());
        let instance = |number: u64| InstanceId::new("order", &number.to_string());
        let message = |number, step| MessageId::notice(instance(number), step);
        let mut runs = 0..0;
        let last = KEPT + 2;
        for number in 0..=last {
            let of =
                |step| Correlation { instance: instance(number), step, phase: Phase::Action, attempt: 1 };
            let correlations = (0..250).map(|step| (message(number, step), of(step))).collect();
            let mut writes = Writes::default();
            runs = put(&mut writes, &disk, runs, correlations).unwrap();
            disk.persist(&writes, number + 1).unwrap();
        }
        assert_eq!((numbers(&disk).unwrap(), runs.clone()), (3..last + 1, 3..last + 1));
        for (number, is_kept) in [(2, false), (3, true), (last, true)] {
            for step in 0..250 {
                let found = find(&disk, runs.clone(), message(number, step)).unwrap();
                let expected = is_kept.then(|| (instance(number), step));
                assert_eq!(found.map(|found| (found.instance, found.step)), expected);
            }
        }
        assert_eq!(find(&disk, runs, message(last, 250)).unwrap(), None);
    }
}
