//! The outbox: messages that are to be published, in the order in which they were handed over.
//!
//! A hint in memory of what is durable elsewhere. Nothing leaves it but by a settled [`Wave`]: one
//! that is dropped, for whatever reason, puts the rest of its messages back where they were.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::saga::message::Outgoing;

/// Messages by the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    arrivals: Notify,
    outstanding: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    messages: BTreeMap<u64, Outgoing>,
}

/// Messages that were taken out together, to be settled or put back.
#[derive(Debug)]
pub(crate) struct Wave {
    outbox: Arc<Outbox>,
    entries: Vec<Entry>,
}

/// A message that is being published.
#[derive(Debug)]
pub(crate) struct Entry {
    position: u64,
    /// What is to be published.
    pub(crate) message: Outgoing,
    /// Whether a part of it may be on the wire.
    pub(crate) attempted: bool,
}

impl Outbox {
    /// Puts messages at the end.
    pub(crate) fn put(&self, messages: Vec<Outgoing>) {
        if messages.is_empty() {
            return;
        }
        self.outstanding.send_modify(|count| *count += messages.len());
        let mut waiting = self.lock();
        for message in messages {
            let position = waiting.next;
            waiting.next += 1;
            waiting.messages.insert(position, message);
        }
        drop(waiting);
        self.arrivals.notify_one();
    }

    /// Takes up to `limit` messages from the front; waits for the first one only.
    pub(crate) async fn take(self: &Arc<Self>, limit: usize) -> Wave {
        loop {
            let arrival = self.arrivals.notified();
            let (entries, more) = self.take_waiting(limit);
            if !entries.is_empty() {
                if more {
                    // One notification wakes one lane: pass it on.
                    self.arrivals.notify_one();
                }
                return Wave { outbox: self.clone(), entries };
            }
            arrival.await;
        }
    }

    /// Messages that are waiting or being published.
    pub(crate) fn outstanding(&self) -> usize {
        *self.outstanding.borrow()
    }

    /// Returns once nothing is outstanding.
    pub(crate) async fn drained(&self) {
        let _ = self.outstanding.subscribe().wait_for(|count| *count == 0).await;
    }

    fn take_waiting(&self, limit: usize) -> (Vec<Entry>, bool) {
        let mut waiting = self.lock();
        let taken = std::iter::from_fn(|| waiting.messages.pop_first()).take(limit);
        let entries: Vec<_> =
            taken.map(|(position, message)| Entry { position, message, attempted: false }).collect();
        (entries, !waiting.messages.is_empty())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code that holds the lock can leave the map half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wave {
    /// What has to be published.
    pub(crate) fn entries_mut(&mut self) -> &mut [Entry] {
        &mut self.entries
    }

    /// How many messages are not settled.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether all messages are settled.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Settles the messages for which `settled` is true; it is asked for each, in order.
    pub(crate) fn settle(&mut self, mut settled: impl FnMut(&Outgoing) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|entry| !settled(&entry.message));
        let settled = before - self.entries.len();
        self.outbox.outstanding.send_modify(|count| *count -= settled);
    }
}

impl Drop for Wave {
    fn drop(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let mut waiting = self.outbox.lock();
        for mut entry in self.entries.drain(..) {
            entry.message.repeated |= entry.attempted;
            waiting.messages.insert(entry.position, entry.message);
        }
        drop(waiting);
        self.outbox.arrivals.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::id::{InstanceId, MessageId, StoreId};
    use crate::saga::message::{Headers, Origin, Part};
    use crate::saga::time::Timestamp;

    fn messages(range: std::ops::Range<usize>) -> Vec<Outgoing> {
        let instance = InstanceId::new("order", "A-1");
        let message = |n| Outgoing {
            origin: Origin { instance, part: Part::Notice(n) },
            exchange: "orders".into(),
            key: format!("key.{n}").into(),
            message_id: MessageId::notice(StoreId::default(), instance, n),
            wants_reply: false,
            correlation: None,
            timestamp: Timestamp(0),
            headers: Headers::default(),
            body: Vec::new(),
            extras: None,
            repeated: false,
        };
        range.map(message).collect()
    }

    fn keys(wave: &mut Wave) -> Vec<(Arc<str>, bool)> {
        wave.entries_mut().iter().map(|entry| (entry.message.key.clone(), entry.message.repeated)).collect()
    }

    #[tokio::test]
    async fn what_is_not_settled_goes_back_to_its_place_and_counts_as_repeated() {
        let outbox = Arc::new(Outbox::default());
        outbox.put(messages(0..4));
        let mut first = outbox.take(2).await;
        let untouched = outbox.take(1).await;
        for entry in first.entries_mut() {
            entry.attempted = true;
        }
        first.settle(|message| &*message.key == "key.0");
        assert_eq!(outbox.outstanding(), 3);
        drop(untouched);
        drop(first);

        let mut rest = outbox.take(10).await;
        let expected = [("key.1", true), ("key.2", false), ("key.3", false)];
        assert_eq!(keys(&mut rest), expected.map(|(key, repeated)| (key.into(), repeated)));
        rest.settle(|_| true);
        outbox.drained().await;
    }

    #[tokio::test]
    async fn one_arrival_wakes_every_lane_that_it_has_work_for() {
        let outbox = Arc::new(Outbox::default());
        let lanes: Vec<_> = (0..3)
            .map(|_| {
                let outbox = outbox.clone();
                tokio::spawn(async move { outbox.take(1).await.settle(|_| true) })
            })
            .collect();
        tokio::task::yield_now().await;
        outbox.put(messages(0..3));
        for lane in lanes {
            lane.await.unwrap();
        }
        assert_eq!(outbox.outstanding(), 0);
    }
}
