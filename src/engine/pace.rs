//! The pace of warnings: one line a second of each kind, which tells how many it stands for.

use std::collections::HashMap;

use crate::saga::time::Timestamp;

/// Milliseconds between two lines of a kind.
const APART: u64 = 1000;
/// How many kinds are told apart; all further ones are one.
const MAX_KINDS: usize = 64;

/// When which kind was told of last, and how many were left out since.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    kinds: HashMap<String, (Timestamp, u64)>,
}

impl Pace {
    /// Whether it is time for a line of this kind, and if so, how many of it were left out before it.
    pub(crate) fn pass(&mut self, kind: &str, now: Timestamp) -> Option<u64> {
        let is_known = self.kinds.len() < MAX_KINDS || self.kinds.contains_key(kind);
        let kind = if is_known { kind } else { "" };
        match self.kinds.get_mut(kind) {
            Some((last, left_out)) if last.0.abs_diff(now.0) < APART => {
                *left_out += 1;
                None
            }
            Some((last, left_out)) => {
                *last = now;
                Some(std::mem::take(left_out))
            }
            None => {
                self.kinds.insert(kind.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_line_a_second_which_tells_how_many_were_left_out() {
        let mut pace = Pace::default();
        let told: Vec<_> = (0..2500).filter_map(|ms| pace.pass("a", Timestamp(ms))).collect();
        assert_eq!(told, [0, 999, 999]);
        assert_eq!(pace.pass("b", Timestamp(2500)), Some(0));
        // A clock that goes back keeps nobody silent.
        assert_eq!(pace.pass("b", Timestamp(0)), Some(0));
        let kinds = (0..1000).filter(|kind| pace.pass(&format!("kind {kind}"), Timestamp(0)).is_some());
        assert!(kinds.count() <= MAX_KINDS && pace.kinds.len() <= MAX_KINDS + 1);
    }
}
