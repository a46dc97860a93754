//! Acks that wait for more: each is work for the broker, which writes it to a queue's log as it does a message, so
//! one stands for all deliveries of some milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::{Queue, Token};

/// How long an ack waits for more deliveries that it can stand for, unless these are half of all that may be out.
const ACK_DELAY: Duration = Duration::from_millis(5);

/// Deliveries of one epoch that are done, and not acked yet.
#[derive(Debug)]
pub(super) struct Acks {
    /// The last of each queue.
    waiting: BTreeMap<Queue, u64>,
    /// The last that was acked of each queue.
    acked: BTreeMap<Queue, u64>,
    /// Since when one waits.
    since: Instant,
}

impl Acks {
    /// Adds a delivery, and all of its queue before it.
    pub(super) fn add(&mut self, Token { queue, tag, .. }: Token) {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        let last = self.waiting.entry(queue).or_default();
        *last = tag.max(*last);
    }

    /// Whether there is anything to ack.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When they are to be acked at the latest.
    pub(super) fn due(&self) -> Instant {
        self.since + ACK_DELAY
    }

    /// Whether they are so many that the broker may soon wait for them: half of the `window` of a queue, which is
    /// how many it delivers before it waits for acks.
    pub(super) fn are_many(&self, window: impl Fn(Queue) -> u16) -> bool {
        let acked = |queue| self.acked.get(queue).copied().unwrap_or(0);
        let many = |queue: &Queue| u64::from(window(*queue) / 2).max(1);
        self.waiting.iter().any(|(queue, tag)| tag.saturating_sub(acked(queue)) >= many(queue))
    }

    /// The last delivery of each queue that is to be acked, with all before it.
    pub(super) fn take(&mut self) -> BTreeMap<Queue, u64> {
        self.acked.extend(&self.waiting);
        std::mem::take(&mut self.waiting)
    }
}

impl Default for Acks {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), acked: BTreeMap::new(), since: Instant::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_ack_stands_for_all_that_is_done_until_it_is_due_or_half_of_what_may_be_out() {
        let token = |queue, tag| Token { queue, epoch: 1, tag };
        let mut acks = Acks::default();
        assert!(!acks.are_waiting());
        for tag in [1, 4, 3] {
            acks.add(token(Queue::Replies, tag));
        }
        acks.add(token(Queue::Events, 1));
        assert!(acks.are_waiting() && !acks.are_many(|_| 10) && acks.due() <= Instant::now() + ACK_DELAY);
        assert_eq!(acks.take(), BTreeMap::from([(Queue::Events, 1), (Queue::Replies, 4)]));
        acks.add(token(Queue::Replies, 8));
        assert!(!acks.are_many(|_| 10), "four since the last ack");
        acks.add(token(Queue::Replies, 9));
        assert!(acks.are_many(|_| 10));
        assert_eq!(acks.take(), BTreeMap::from([(Queue::Replies, 9)]));
        assert!(!acks.are_waiting());
        // With one out at a time, the next comes only after the ack.
        let mut alone = Acks::default();
        alone.add(token(Queue::Events, 1));
        assert!(alone.are_many(|_| 1));
    }
}
