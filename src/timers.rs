//! When each instance has to be looked at next.
//!
//! An instance has at most one time. A timer that fires too early or for nothing is harmless: the
//! transition function decides from the instance what is due.

use std::collections::{BTreeSet, HashMap};

use crate::saga::id::InstanceId;
use crate::saga::time::Timestamp;

/// An ordered set of due times. It lives in memory and is built anew at start from the records.
#[derive(Debug, Default)]
pub struct Timers {
    order: BTreeSet<(Timestamp, InstanceId)>,
    times: HashMap<InstanceId, Timestamp>,
}

impl Timers {
    /// Sets, moves or removes the time of an instance.
    pub fn arm(&mut self, id: InstanceId, due: Option<Timestamp>) {
        let known = match due {
            Some(due) => self.times.insert(id, due),
            None => self.times.remove(&id),
        };
        if known == due {
            return;
        }
        if let Some(known) = known {
            self.order.remove(&(known, id));
        }
        if let Some(due) = due {
            self.order.insert((due, id));
        }
    }

    /// The earliest time.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes out an instance that is due at `now`, the earliest first.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<InstanceId> {
        let (due, id) = *self.order.first()?;
        if due > now {
            return None;
        }
        self.arm(id, None);
        Some(id)
    }

    /// How many instances have a time.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether no instance has a time.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(key: &str) -> InstanceId {
        InstanceId::new("order", key)
    }

    #[test]
    fn an_instance_fires_once_at_its_last_set_time() {
        let mut timers = Timers::default();
        timers.arm(id("a"), Some(Timestamp(10)));
        timers.arm(id("a"), Some(Timestamp(30)));
        timers.arm(id("b"), Some(Timestamp(20)));
        assert_eq!(timers.next_due(), Some(Timestamp(20)));
        assert_eq!(timers.pop_due(Timestamp(19)), None);
        assert_eq!(timers.pop_due(Timestamp(30)), Some(id("b")));
        assert_eq!(timers.pop_due(Timestamp(30)), Some(id("a")));
        assert!(timers.is_empty());
    }

    #[test]
    fn a_removed_time_does_not_fire() {
        let mut timers = Timers::default();
        timers.arm(id("a"), Some(Timestamp(10)));
        timers.arm(id("a"), None);
        assert_eq!(timers.pop_due(Timestamp(100)), None);
        assert_eq!(timers.next_due(), None);
    }
}
