//! Deliveries of a channel in the order of their tags, however its consumers hand them over.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a delivery may be missing that others have overtaken.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// What a channel has delivered and what not yet. Its tags are numbered from 1 without a gap, and an ack covers all
/// before it: so nothing may leave here before all that is before it.
#[derive(Debug)]
pub(super) struct InOrder<T> {
    /// The tag of the next delivery.
    next: u64,
    /// Deliveries that have overtaken others, by tag: each consumer hands over its own.
    ahead: BTreeMap<u64, T>,
    /// Since when the next delivery is missing while later ones are there.
    gap: Option<Instant>,
}

impl<T> InOrder<T> {
    /// Of a channel that has delivered nothing.
    pub(super) fn new() -> Self {
        Self { next: 1, ahead: BTreeMap::new(), gap: None }
    }

    /// Takes a delivery in, and returns those whose turn it is now.
    pub(super) fn take_in(&mut self, tag: u64, delivery: T, now: Instant) -> Vec<T> {
        self.ahead.insert(tag, delivery);
        let mut ready = Vec::new();
        while let Some(delivery) = self.ahead.remove(&self.next) {
            self.next += 1;
            ready.push(delivery);
        }
        self.gap = match self.gap {
            _ if self.ahead.is_empty() => None,
            // The gap is as old as it was, whatever else comes meanwhile.
            Some(since) if ready.is_empty() => Some(since),
            _ => Some(now),
        };
        ready
    }

    /// When the next delivery has been missing for too long, if later ones are there. Its ack would come with that of a
    /// later one, and nobody would ever have seen it.
    pub(super) fn overdue(&self) -> Option<Instant> {
        self.gap.map(|since| since + OVERTAKEN)
    }

    /// The tag of the next delivery.
    pub(super) fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::acks::Acks;
    use crate::delivery::{Queue, Token};

    /// The tags that leave as these come in.
    fn after(order: &mut InOrder<u64>, tags: &[u64], now: Instant) -> Vec<u64> {
        tags.iter().flat_map(|tag| order.take_in(*tag, *tag, now)).collect()
    }

    #[test]
    fn what_several_consumers_hand_over_in_any_order_leaves_in_the_order_of_its_tags() {
        let now = Instant::now();
        // The broker gives deliveries to three consumers in turn, and each hands over its own in order.
        let mut consumers = [1, 2, 3].map(|first| (first..=300).step_by(3));
        let mut dice = fastrand::Rng::with_seed(7);
        let (mut order, mut left) = (InOrder::new(), Vec::new());
        while left.len() < 300 {
            if let Some(tag) = consumers[dice.usize(..3)].next() {
                left.extend(order.take_in(tag, tag, now));
            }
        }
        assert!(left.into_iter().eq(1..=300));
        assert_eq!((order.next(), order.overdue()), (301, None));
    }

    #[test]
    fn a_gap_is_overdue_a_second_after_it_came_to_be_however_much_else_comes_meanwhile() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut order = InOrder::new();
        assert_eq!((after(&mut order, &[1], at(0)), order.overdue()), (vec![1], None));
        assert!(after(&mut order, &[3], at(100)).is_empty());
        for later in 4..20 {
            assert!(after(&mut order, &[later], at(100 + later)).is_empty());
            assert_eq!((order.next(), order.overdue()), (2, Some(at(1_100))));
        }
    }

    #[test]
    fn a_gap_that_fills_is_none_and_the_next_one_has_its_own_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut order = InOrder::new();
        assert!(after(&mut order, &[2, 4], at(0)).is_empty());
        assert_eq!(after(&mut order, &[1], at(500)), [1, 2]);
        assert_eq!((order.next(), order.overdue()), (3, Some(at(1_500))));
        assert_eq!(after(&mut order, &[3], at(600)), [3, 4]);
        assert_eq!(order.overdue(), None);
    }

    #[test]
    fn nothing_is_acked_beyond_a_gap() {
        let now = Instant::now();
        let (mut order, mut acks) = (InOrder::new(), Acks::default());
        let mut acked = |tags: &[u64]| {
            for tag in after(&mut order, tags, now) {
                acks.add(Token { queue: Queue::Events, epoch: 1, tag });
            }
            acks.take().remove(&Queue::Events)
        };
        assert_eq!(acked(&[1, 2, 4, 5, 6]), Some(2));
        assert_eq!(acked(&[8, 7]), None);
        assert_eq!(acked(&[3]), Some(8));
    }
}
