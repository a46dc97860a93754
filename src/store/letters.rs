//! Dead letters that are kept: a bounded number, of which no kind can drive out another.

use std::collections::{BTreeMap, VecDeque};

use metrics::counter;

use super::batch::DeadLetter;
use super::disk::{Disk, Writes};
use super::error::StoreError;
use super::{keys, record};
use crate::metric;

/// How many dead letters are kept. Beyond it, the oldest go of that kind of which there are most.
pub const MAX_DEAD_LETTERS: u64 = 10_000;

/// How many kinds are told apart; all further ones are one.
const MAX_KINDS: usize = 64;

/// The numbers of the dead letters that are kept.
#[derive(Debug, Default)]
pub(super) struct Letters {
    next: u64,
    kept: u64,
    kinds: BTreeMap<String, VecDeque<u64>>,
}

impl Letters {
    /// Those in the store.
    pub(super) fn over(disk: &Disk) -> Result<Self, StoreError> {
        let mut letters = Self::default();
        for key in disk.keys(keys::under(&[keys::DEAD_LETTER])) {
            let key = key?;
            let Some(number) = keys::number_of(&key) else { continue };
            // One that cannot be read is told of to who asks for it.
            let letter = record::read_json::<DeadLetter>(disk, &key).ok().flatten();
            letters.note(number, letter.map(|letter| letter.kind()).unwrap_or_default());
        }
        Ok(letters)
    }

    /// Adds letters behind those that are kept, and drops what is then too many.
    pub(super) fn put(&mut self, writes: &mut Writes, letters: &[DeadLetter]) {
        for letter in letters {
            let key = keys::dead_letter(self.next);
            record::insert(writes, &key, &record::json(letter));
            self.note(self.next, letter.kind());
            if self.kept > MAX_DEAD_LETTERS
                && let Some(most) = self.kinds.values_mut().max_by_key(|numbers| numbers.len())
                && let Some(oldest) = most.pop_front()
            {
                writes.insert(keys::dead_letter(oldest), None);
                self.kept -= 1;
                counter!(metric::DEAD_LETTERS_DROPPED).increment(1);
            }
        }
    }

    fn note(&mut self, number: u64, kind: String) {
        let is_known = self.kinds.len() < MAX_KINDS || self.kinds.contains_key(&kind);
        self.kinds.entry(if is_known { kind } else { String::new() }).or_default().push_back(number);
        self.next = number + 1;
        self.kept += 1;
    }
}
