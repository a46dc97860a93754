//! Keys: what lies where in the one tree.
//!
//! | key | value |
//! |---|---|
//! | `m` | number of the last commit |
//! | `j` commit | the journal: what that commit changed |
//! | `d` hash | source of a definition |
//! | `v` saga `0` version | hash of that version |
//! | `i` run, instance | where the tables have instances, sorted, from that instance on |
//! | `s` saga `0` status, start, instance | its whole history, or a snapshot: the view by status |
//! | `h` instance, revision | beside a snapshot: entries of its history, from that one on |
//! | `o` instance | when something is still to be done for it: when, and of which saga it is |
//! | `n` `i` | which runs of these there are |
//! | `a` saga `0` attribute `0` value `0` start, instance | nothing: view by attribute |
//! | `x` number | a dead letter |
//! | `y` | which store it is: [`Identity`](super::Identity) |
//! | `w` | the last commit of which sled has everything, beside the log |
//! | `k` key, number | a further chunk of the value under that key |
//!
//! Numbers are big-endian, so that keys sort as what they mean. Names of sagas and attributes hold
//! no zero byte; values of attributes are bounded by [`attribute_value`].

use std::ops::Range;

use sha2::{Digest, Sha256};

use crate::saga::id::InstanceId;
use crate::saga::instance::Status;
use crate::saga::time::Timestamp;

/// Key of the store's own record.
pub(super) const META: &[u8] = b"m";
/// Which store it is.
pub(super) const IDENTITY: &[u8] = b"y";
/// The last commit of which sled has everything.
pub(super) const SETTLED: &[u8] = b"w";
/// First byte of the journal.
pub(super) const JOURNAL: u8 = b'j';
/// First byte of the runs that say where instances are.
pub(super) const PLACES: u8 = b'i';
/// First byte of the versions of sagas.
pub(super) const VERSION: u8 = b'v';
/// First byte of every key in the view by status.
pub(super) const BY_STATUS: u8 = b's';
/// First byte of the markers of open instances.
pub(super) const OPEN: u8 = b'o';
/// First byte of dead letters.
pub(super) const DEAD_LETTER: u8 = b'x';

/// Bytes of an attribute's value that a key holds at most.
const MAX_VALUE: usize = 128;

/// Source of the definition with this hash.
pub(super) fn definition(hash: &str) -> Vec<u8> {
    key(b'd', &[hash.as_bytes()])
}

/// Hash of a saga's version.
pub(super) fn version(saga: &str, version: u32) -> Vec<u8> {
    key(VERSION, &[saga.as_bytes(), b"\0", &version.to_be_bytes()])
}

/// What a commit changed.
pub(super) fn journal(commit: u64) -> Vec<u8> {
    key(JOURNAL, &[&commit.to_be_bytes()])
}

/// First bytes of every block of an instance's history.
pub(super) fn history(id: InstanceId) -> Vec<u8> {
    key(b'h', &[id.as_bytes()])
}

/// A block of an instance's history.
pub(super) fn block(id: InstanceId, revision: u64) -> Vec<u8> {
    key(b'h', &[id.as_bytes(), &revision.to_be_bytes()])
}

/// Marker of an open instance.
pub(super) fn open(id: InstanceId) -> Vec<u8> {
    key(OPEN, &[id.as_bytes()])
}

/// Which runs of a kind there are.
pub(super) fn manifest(kind: u8) -> Vec<u8> {
    key(b'n', &[&[kind]])
}

/// First bytes of every block of a run.
pub(super) fn run(kind: u8, number: u64) -> Vec<u8> {
    key(kind, &[&number.to_be_bytes()])
}

/// A block of a run.
pub(super) fn block_of_run(kind: u8, number: u64, first: &[u8; 16]) -> Vec<u8> {
    key(kind, &[&number.to_be_bytes(), first])
}

/// First bytes of a saga's instances of one status.
pub(super) fn by_status(saga: &str, status: Status) -> Vec<u8> {
    key(BY_STATUS, &[saga.as_bytes(), b"\0", &[status_byte(status)]])
}

/// First bytes of a saga's instances with an attribute of one value.
pub(super) fn by_attribute(saga: &str, attribute: &str, value: &str) -> Vec<u8> {
    key(b'a', &[saga.as_bytes(), b"\0", attribute.as_bytes(), b"\0", &attribute_value(value), b"\0"])
}

/// A dead letter.
pub(super) fn dead_letter(number: u64) -> Vec<u8> {
    key(DEAD_LETTER, &[&number.to_be_bytes()])
}

/// A further chunk of a value, from 1.
pub(super) fn chunk(of: &[u8], number: u32) -> Vec<u8> {
    key(b'k', &[of, &number.to_be_bytes()])
}

/// The key whose value a chunk belongs to, and the chunk's number; `None` for other keys.
pub(super) fn chunk_of(key: &[u8]) -> Option<(&[u8], u32)> {
    let (of, number) = key.strip_prefix(b"k")?.split_last_chunk()?;
    Some((of, u32::from_be_bytes(*number)))
}

/// Where an instance stands in a view: by start, then by id. The last 24 bytes of a view's keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Position([u8; 24]);

impl Position {
    /// The position of an instance.
    pub(super) fn of(started_at: Timestamp, id: InstanceId) -> Self {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&sortable(started_at));
        bytes[8..].copy_from_slice(id.as_bytes());
        Self(bytes)
    }

    /// Before every instance that started at or after `at`.
    pub(super) fn from_start(at: Timestamp) -> Self {
        Self::of(at, InstanceId::from_bytes([0; 16]))
    }

    /// The position right after it.
    pub(super) fn next(mut self) -> Self {
        for byte in self.0.iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        self
    }

    /// Reads a position back from a view's key; `None` if the key is too short.
    pub(super) fn of_key(key: &[u8]) -> Option<Self> {
        key.last_chunk().copied().map(Self)
    }

    /// The instance at this position.
    pub(super) fn instance(self) -> InstanceId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[8..]);
        InstanceId::from_bytes(id)
    }

    /// The position as text: 48 hexadecimal digits.
    pub(super) fn to_cursor(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads [`Position::to_cursor`] back.
    pub(super) fn from_cursor(text: &str) -> Option<Self> {
        let digits: Vec<u8> =
            text.chars().map(|c| c.to_digit(16)).map(|d| d.map(|d| d as u8)).collect::<Option<_>>()?;
        let digits: [u8; 48] = digits.try_into().ok()?;
        Some(Self(std::array::from_fn(|at| digits[2 * at] << 4 | digits[2 * at + 1])))
    }
}

/// The key of a view that begins with `prefix`.
pub(super) fn at(prefix: &[u8], position: Position) -> Vec<u8> {
    [prefix, &position.0].concat()
}

/// Every key of a view that begins with `prefix`, or the part of it between two positions.
pub(super) fn between(prefix: &[u8], from: Option<Position>, to: Option<Position>) -> Range<Vec<u8>> {
    let start = at(prefix, from.unwrap_or(Position([0; 24])));
    // One byte longer than any key, so that no key is at the end.
    let end = to.map_or_else(|| [prefix, &[0xff; 25]].concat(), |to| at(prefix, to));
    start..end
}

/// Every key that begins with `prefix`, which is not all 0xff.
pub(super) fn under(prefix: &[u8]) -> Range<Vec<u8>> {
    let mut end = prefix.to_vec();
    while end.pop_if(|byte| *byte == u8::MAX).is_some() {}
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    prefix.to_vec()..end
}

/// The version in a key of a saga's version.
pub(super) fn version_of(key: &[u8]) -> Option<u32> {
    key.last_chunk().copied().map(u32::from_be_bytes)
}

/// The saga in a key of a version, or of the view by status.
pub(super) fn saga_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(1..)?.split(|byte| *byte == 0).next()?).ok()
}

/// The number after the first byte of a key.
pub(super) fn number_of(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

/// The run that a block belongs to.
pub(super) fn run_number(key: &[u8]) -> Option<u64> {
    key.get(1..)?.first_chunk().copied().map(u64::from_be_bytes)
}

/// The instance after the first byte of a key.
pub(super) fn instance_of(key: &[u8]) -> Option<InstanceId> {
    key.get(1..)?.first_chunk().copied().map(InstanceId::from_bytes)
}

/// A key in words, for errors.
pub(super) fn describe(key: &[u8]) -> String {
    let id = instance_of(key);
    match (key.first(), id) {
        (Some(&PLACES), _) => format!("run {} of instances", run_number(key).unwrap_or(0)),
        (Some(b'n'), _) => "the list of runs of instances".to_owned(),
        (Some(&BY_STATUS), _) => match Position::of_key(key) {
            Some(position) => format!("instance {}", position.instance()),
            None => "a view of instances".to_owned(),
        },
        (Some(&JOURNAL), _) => format!("journal of commit {}", number_of(key).unwrap_or(0)),
        (Some(b'o'), Some(id)) => format!("marker of open instance {id}"),
        (Some(b'h'), Some(id)) => {
            let revision = key.last_chunk().copied().map_or(0, u64::from_be_bytes);
            format!("history of instance {id}, revision {revision}")
        }
        (Some(b'k'), _) => {
            format!("a further chunk of {}", describe(&key[1..key.len().saturating_sub(4).max(1)]))
        }
        _ => format!("key {:?}", key.escape_ascii().to_string()),
    }
}

/// Joins the first byte and the parts of a key.
fn key(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(kind);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// What stands for a status in keys. Never changes: it is on disk.
pub(super) fn status_byte(status: Status) -> u8 {
    match status {
        Status::Running => b'r',
        Status::Compensating => b'b',
        Status::Completed => b'c',
        Status::Compensated => b'u',
        Status::Parked => b'p',
    }
}

/// An attribute's value as it stands in keys: as it is, or, where it is long or holds a zero byte,
/// its beginning and a hash.
fn attribute_value(value: &str) -> Vec<u8> {
    if value.len() <= MAX_VALUE && !value.contains('\0') {
        return value.as_bytes().to_vec();
    }
    let beginning = value.bytes().filter(|byte| *byte != 0).take(MAX_VALUE - 33);
    let hash = Sha256::digest(value.as_bytes());
    let hash = hash[..16].iter().flat_map(|byte| format!("{byte:02x}").into_bytes());
    beginning.chain([b'#']).chain(hash).collect()
}

/// A point in time that sorts as bytes, before 1970 too.
fn sortable(at: Timestamp) -> [u8; 8] {
    (at.0 ^ i64::MIN).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_sort_by_start_and_come_back_from_cursors() {
        let id = InstanceId::new("order", "A-1");
        let positions = [-1, 0, 1, i64::MAX].map(|at| Position::of(Timestamp(at), id));
        assert!(positions.is_sorted());
        for position in positions {
            assert_eq!(position.instance(), id);
            assert_eq!(Position::from_cursor(&position.to_cursor()), Some(position));
            assert!(position < position.next());
        }
    }

    #[test]
    fn a_range_under_a_prefix_ends_before_the_next_prefix() {
        assert_eq!(under(b"ab"), b"ab".to_vec()..b"ac".to_vec());
        assert_eq!(under(b"a\xff\xff"), b"a\xff\xff".to_vec()..b"b".to_vec());
    }

    #[test]
    fn foreign_cursors_are_refused() {
        for text in ["", "12", "x".repeat(48).as_str(), "+1".repeat(24).as_str(), "ä".repeat(24).as_str()] {
            assert_eq!(Position::from_cursor(text), None, "{text}");
        }
    }

    #[test]
    fn keys_tell_what_they_were_made_of() {
        let at = Position::of(Timestamp(5), InstanceId::new("order", "A-1"));
        for status in Status::ALL {
            let key = super::at(&by_status("order", status), at);
            assert_eq!((saga_of(&key), Position::of_key(&key)), (Some("order"), Some(at)));
        }
    }

    #[test]
    fn attribute_values_in_keys_are_bounded_and_distinct() {
        let long = "x".repeat(MAX_VALUE + 1);
        let values = ["", "x", "x\0", "x\0y", &long, &format!("{long}y"), "Zürich"];
        let keys: std::collections::HashSet<_> = values.iter().map(|value| attribute_value(value)).collect();
        assert_eq!(keys.len(), values.len());
        assert!(keys.iter().all(|key| key.len() <= MAX_VALUE && !key.contains(&0)));
    }
}
