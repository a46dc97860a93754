//! The journal: what passed a proxy, in order.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hasher;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use super::fault::Way;
use super::frame::{BODY, Frame, HEADER};
use super::method::{Method, Properties};

/// Something that passed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// Milliseconds since the epoch.
    pub(crate) at: u64,
    /// Number of the connection, in the order in which they were accepted.
    pub(crate) connection: u64,
    /// Its name.
    pub(crate) name: String,
    /// Channel, 0 for the connection itself.
    pub(crate) channel: u16,
    /// What it was.
    pub(crate) what: What,
}

/// What can pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// The client said its name.
    Opened,
    /// The connection is gone.
    Gone,
    /// The broker closes the connection.
    ConnectionClosed { code: u16, text: String },
    /// The broker takes no messages for now.
    Blocked,
    /// The broker takes messages again.
    Unblocked,
    /// The broker closes the channel.
    ChannelClosed { code: u16, text: String },
    /// The broker ends a subscription.
    Cancelled { queue: String },
    /// The broker delivers a message.
    Delivered {
        queue: String,
        tag: u64,
        exchange: String,
        key: String,
        message_id: String,
        redelivered: bool,
    },
    /// The client settles a delivery.
    Settled { queue: String, message_id: String, verdict: Verdict },
    /// The client publishes a message; `digest` stands for its properties and its body.
    Published { exchange: String, key: String, message_id: String, digest: u64 },
    /// The broker gives a message back.
    Returned { message_id: String, text: String },
    /// The broker confirms a message, or says that it did not take it.
    Confirmed { message_id: String, taken: bool },
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Done with.
    Acked,
    /// Dead-lettered.
    Rejected,
    /// To be delivered again.
    Requeued,
}

/// All records.
#[derive(Default)]
pub(super) struct Journal {
    records: Mutex<Vec<Record>>,
}

impl Journal {
    pub(super) fn snapshot(&self) -> Vec<Record> {
        self.records.lock().unwrap().clone()
    }
}

/// What one connection's frames mean, one after the other.
pub(super) struct Observer {
    connection: u64,
    name: String,
    channels: HashMap<u16, Channel>,
}

#[derive(Default)]
struct Channel {
    /// Queues for which a subscription was asked for.
    asked: VecDeque<String>,
    /// Queues by the name of their consumer.
    consumers: HashMap<String, String>,
    /// Deliveries that are not settled.
    unsettled: BTreeMap<u64, (String, String)>,
    confirms: bool,
    published: u64,
    unconfirmed: BTreeMap<u64, String>,
    /// The content that is under way in each direction.
    contents: [Option<Content>; 2],
}

/// A method that carries a message, and as much of the message as was seen.
struct Content {
    method: Method,
    message_id: String,
    missing: u64,
    digest: DefaultHasher,
}

impl Observer {
    pub(super) fn new(connection: u64) -> Self {
        Self { connection, name: String::new(), channels: HashMap::new() }
    }

    /// Takes a frame in that goes on.
    pub(super) fn see(&mut self, way: Way, frame: &Frame, method: Option<Method>, journal: &Journal) {
        if let Some(Method::StartOk { name }) = &method {
            name.clone_into(&mut self.name);
        }
        let number = frame.channel();
        if let Some(Method::ChannelOpen) = &method {
            self.channels.insert(number, Channel::default());
        }
        let channel = self.channels.entry(number).or_default();
        let mut seen = Vec::new();
        match (frame.kind(), method) {
            (_, Some(method)) => channel.method(way, method, &mut seen),
            (HEADER | BODY, _) => channel.content(way, frame, &mut seen),
            _ => {}
        }
        self.write(number, seen, journal);
    }

    /// The connection is gone.
    pub(super) fn closed(&self, journal: &Journal) {
        self.write(0, vec![What::Gone], journal);
    }

    fn write(&self, channel: u16, seen: Vec<What>, journal: &Journal) {
        if seen.is_empty() {
            return;
        }
        let mut records = journal.records.lock().unwrap();
        // Read under the lock, so that times are in the order of the records.
        let at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_millis() as u64;
        let (connection, name) = (self.connection, &self.name);
        records.extend(seen.into_iter().map(|what| Record {
            at,
            connection,
            name: name.clone(),
            channel,
            what,
        }));
    }
}

impl Channel {
    fn method(&mut self, way: Way, method: Method, seen: &mut Vec<What>) {
        match (way, method) {
            (_, Method::StartOk { .. }) => seen.push(What::Opened),
            (Way::ToClient, Method::ConnectionClose { code, text }) => {
                seen.push(What::ConnectionClosed { code, text });
            }
            (_, Method::Blocked) => seen.push(What::Blocked),
            (_, Method::Unblocked) => seen.push(What::Unblocked),
            (Way::ToClient, Method::ChannelClose { code, text }) => {
                seen.push(What::ChannelClosed { code, text });
            }
            (_, Method::Consume { queue }) => self.asked.push_back(queue),
            (_, Method::ConsumeOk { consumer }) => {
                let queue = self.asked.pop_front().unwrap_or_default();
                self.consumers.insert(consumer, queue);
            }
            (Way::ToClient, Method::Cancel { consumer }) => {
                seen.push(What::Cancelled { queue: self.consumers.remove(&consumer).unwrap_or_default() });
            }
            (_, Method::SelectOk) => self.confirms = true,
            (_, method @ (Method::Publish { .. } | Method::Return { .. } | Method::Deliver { .. })) => {
                let digest = DefaultHasher::new();
                let content = Content { method, message_id: String::new(), missing: 0, digest };
                self.contents[way as usize] = Some(content);
            }
            (Way::ToBroker, Method::Ack { tag, multiple }) => {
                self.settle(tag, multiple, Verdict::Acked, seen);
            }
            (Way::ToBroker, Method::Nack { tag, multiple, requeue }) => {
                let verdict = if requeue { Verdict::Requeued } else { Verdict::Rejected };
                self.settle(tag, multiple, verdict, seen);
            }
            (_, Method::Reject { tag, requeue }) => {
                let verdict = if requeue { Verdict::Requeued } else { Verdict::Rejected };
                self.settle(tag, false, verdict, seen);
            }
            (Way::ToClient, Method::Ack { tag, multiple }) => self.confirm(tag, multiple, true, seen),
            (Way::ToClient, Method::Nack { tag, multiple, .. }) => self.confirm(tag, multiple, false, seen),
            _ => {}
        }
    }

    fn content(&mut self, way: Way, frame: &Frame, seen: &mut Vec<What>) {
        let Some(content) = &mut self.contents[way as usize] else { return };
        content.digest.write(frame.payload());
        if frame.kind() == BODY {
            content.missing = content.missing.saturating_sub(frame.payload().len() as u64);
        } else if let Some(properties) = Properties::read(frame.payload()) {
            content.missing = properties.body_bytes;
            content.message_id = properties.message_id;
        }
        if content.missing == 0
            && let Some(content) = self.contents[way as usize].take()
        {
            self.message(content, seen);
        }
    }

    /// A whole message.
    fn message(&mut self, content: Content, seen: &mut Vec<What>) {
        let Content { method, message_id, digest, .. } = content;
        match method {
            Method::Publish { exchange, key } => {
                if self.confirms {
                    self.published += 1;
                    self.unconfirmed.insert(self.published, message_id.clone());
                }
                seen.push(What::Published { exchange, key, message_id, digest: digest.finish() });
            }
            Method::Return { text, .. } => seen.push(What::Returned { message_id, text }),
            Method::Deliver { consumer, tag, redelivered, exchange, key } => {
                let queue = self.consumers.get(&consumer).cloned().unwrap_or_default();
                self.unsettled.insert(tag, (queue.clone(), message_id.clone()));
                seen.push(What::Delivered { queue, tag, exchange, key, message_id, redelivered });
            }
            _ => {}
        }
    }

    fn settle(&mut self, tag: u64, multiple: bool, verdict: Verdict, seen: &mut Vec<What>) {
        let settled = covered(&mut self.unsettled, tag, multiple);
        seen.extend(settled.into_iter().map(|(queue, message_id)| What::Settled {
            queue,
            message_id,
            verdict,
        }));
    }

    fn confirm(&mut self, tag: u64, multiple: bool, taken: bool, seen: &mut Vec<What>) {
        let confirmed = covered(&mut self.unconfirmed, tag, multiple);
        seen.extend(confirmed.into_iter().map(|message_id| What::Confirmed { message_id, taken }));
    }
}

/// Takes out what a tag covers: itself, or with `multiple` all up to it; tag 0 then means all.
fn covered<T>(open: &mut BTreeMap<u64, T>, tag: u64, multiple: bool) -> Vec<T> {
    match (multiple, tag) {
        (false, _) => open.remove(&tag).into_iter().collect(),
        (true, 0) => std::mem::take(open).into_values().collect(),
        (true, _) => {
            let later = open.split_off(&(tag + 1));
            std::mem::replace(open, later).into_values().collect()
        }
    }
}
