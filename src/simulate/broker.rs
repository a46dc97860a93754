//! A broker that exists in memory only: two queues of the orchestrator, the commands that are under
//! way to participants, and a log of all that passed.

use std::collections::{BTreeMap, VecDeque};

use crate::amqp::topology::delivery_limit;
use crate::checker::evidence::{Acked, Dead, Seen, Settled};
use crate::delivery::{Cause, Delivery, PutAside, Queue, Settlement, Token, preview};
use crate::saga::message::{Outgoing, RawMessage};
use crate::saga::time::Timestamp;

/// Deliveries that may be out without an ack, as `broker.prefetch` bounds them.
const PREFETCH: usize = 12;

/// A message in a queue.
#[derive(Clone, Debug)]
struct Waiting {
    message: RawMessage,
    /// How often it was out without being settled.
    returns: u32,
}

/// The broker.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    waiting: BTreeMap<Queue, VecDeque<Waiting>>,
    unacked: BTreeMap<Token, Waiting>,
    epoch: u64,
    tag: u64,
    /// Commands that no participant has taken yet.
    pub(crate) commands: Vec<Outgoing>,
    pub(crate) log: Vec<Seen>,
    pub(crate) acks: Vec<Acked>,
    pub(crate) dead: Vec<Dead>,
    /// What it put aside by itself, and nobody has recorded.
    pub(crate) aside: VecDeque<PutAside>,
}

impl Broker {
    /// Takes a message in, for one of the orchestrator's queues.
    pub(crate) fn enqueue(&mut self, queue: Queue, message: RawMessage) {
        self.waiting.entry(queue).or_default().push_back(Waiting { message, returns: 0 });
    }

    /// How many messages wait in a queue.
    pub(crate) fn waiting(&self, queue: Queue) -> usize {
        self.waiting.get(&queue).map_or(0, VecDeque::len)
    }

    /// The message that waits the longest.
    pub(crate) fn first(&self, queue: Queue) -> Option<&RawMessage> {
        Some(&self.waiting.get(&queue)?.front()?.message)
    }

    /// How many of them may be delivered now.
    pub(crate) fn deliverable(&self, queue: Queue) -> usize {
        let out = self.unacked.keys().filter(|token| token.queue == queue).count();
        self.waiting(queue).min(PREFETCH.saturating_sub(out))
    }

    /// Delivers the message at `position`; with `twice`, a copy of it stays and comes again.
    pub(crate) fn deliver(&mut self, queue: Queue, position: usize, twice: bool) -> Option<Delivery> {
        let waiting = self.waiting.get_mut(&queue)?;
        let out = if twice { waiting.get(position)?.clone() } else { waiting.remove(position)? };
        let message = out.message.clone();
        self.tag += 1;
        let token = Token { queue, epoch: self.epoch, tag: self.tag };
        self.unacked.insert(token, out);
        Some(Delivery::of(token, message))
    }

    /// Whether a message can never be understood.
    pub(crate) fn is_poison(&self, queue: Queue, position: usize) -> bool {
        let message = self.waiting.get(&queue).and_then(|waiting| waiting.get(position));
        let token = Token { queue, epoch: 0, tag: 0 };
        message.is_some_and(|waiting| Delivery::of(token, waiting.message.clone()).content.is_err())
    }

    /// Forgets or dead-letters what the orchestrator has settled.
    pub(crate) fn settle(&mut self, settlement: &Settlement, at: Timestamp) {
        let epoch = self.epoch;
        for token in settlement.reject.iter().filter(|token| token.epoch == epoch) {
            if let Some(Waiting { message, .. }) = self.unacked.remove(token) {
                self.note(token.queue, message.message_id.clone(), Settled::Rejected, at);
                self.bury(&message, "rejected", at);
            }
        }
        for last in settlement.ack.iter().filter(|token| token.epoch == epoch) {
            let covered = |token: &Token| token.queue == last.queue && token.tag <= last.tag;
            let tokens: Vec<_> = self.unacked.keys().copied().filter(covered).collect();
            for token in tokens {
                let settled = self.unacked.remove(&token);
                let message_id = settled.and_then(|settled| settled.message.message_id);
                self.note(token.queue, message_id, Settled::Acked, at);
            }
        }
    }

    /// The consuming connection is gone: what was not settled waits again, where it was, unless it came back too
    /// often.
    pub(crate) fn lose_consumer(&mut self, at: Timestamp) {
        self.epoch += 1;
        for (Token { queue, .. }, Waiting { message, returns }) in
            std::mem::take(&mut self.unacked).into_iter().rev()
        {
            let returns = returns + 1;
            if returns > delivery_limit() {
                self.put_aside(queue, message, Cause::DeliveryLimit, at);
            } else {
                self.waiting.entry(queue).or_default().push_front(Waiting { message, returns });
            }
        }
    }

    /// Puts a message aside, where it waits for somebody to record it.
    pub(crate) fn put_aside(&mut self, queue: Queue, message: RawMessage, cause: Cause, at: Timestamp) {
        self.bury(&message, cause.as_str(), at);
        self.aside.push_back(PutAside {
            cause,
            times: 1,
            queue: queue.as_str().to_owned(),
            size: message.body.len(),
            preview: preview(&message.body),
            exchange: message.exchange,
            key: message.key,
            message_id: message.message_id,
            correlation_id: message.correlation_id,
        });
    }

    /// Puts a message into the dead-letter queue.
    fn bury(&mut self, message: &RawMessage, reason: &str, at: Timestamp) {
        let message_id = message.message_id.clone().unwrap_or_default();
        self.dead.push(Dead { message_id, reason: Some(reason.to_owned()), at });
    }

    /// Takes a message of the orchestrator to everyone who is bound for it.
    pub(crate) fn route(&mut self, outgoing: &Outgoing, at: Timestamp) {
        self.log.push(Seen {
            message_id: outgoing.message_id.to_string(),
            exchange: outgoing.exchange.to_string(),
            key: outgoing.key.to_string(),
            headers: outgoing.header_texts().collect(),
            body: String::from_utf8_lossy(&outgoing.body).into_owned(),
            at,
        });
        if outgoing.wants_reply {
            self.commands.push(outgoing.clone());
        }
    }

    fn note(&mut self, queue: Queue, message_id: Option<String>, verdict: Settled, at: Timestamp) {
        self.acks.push(Acked { queue: queue.as_str().to_owned(), message_id, verdict, by: None, at });
    }
}
