//! What passes between the broker's side and the engine: plain values.

use serde_json::{Map, Value};

use crate::saga::decode;
use crate::saga::message::{Message, Origin, Outgoing, Poison, RawMessage};
use crate::saga::plan::OutcomeKind;
use crate::saga::reply;

/// Bytes that a body may have.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Bytes of a rejected body that are kept for people to look at.
const PREVIEW_BYTES: usize = 512;

/// One of our queues.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Queue {
    /// Events that sagas wait for.
    Events,
    /// Answers to commands.
    Replies,
}

/// Names a delivery, as long as the connection lasts that it came by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Token {
    /// Where it came from.
    pub queue: Queue,
    /// The connection: counts from 1.
    pub epoch: u64,
    /// The broker's number, ascending within queue and epoch.
    pub tag: u64,
}

/// Something to handle and then to settle.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// By which it is settled.
    pub token: Token,
    /// What it says, if it can be understood.
    pub content: Result<Message, Box<Rejected>>,
}

/// What is known of a message that cannot be understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// Why.
    pub poison: Poison,
    /// Exchange that it was published to.
    pub exchange: String,
    /// Routing key.
    pub key: String,
    /// AMQP property `message_id`.
    pub message_id: Option<String>,
    /// AMQP property `correlation_id`.
    pub correlation_id: Option<String>,
    /// AMQP property `type`.
    pub kind: Option<String>,
    /// Headers, in their JSON form, as far as they are kept.
    pub headers: Map<String, Value>,
    /// Bytes in the body, unpacked where that went well.
    pub size: usize,
    /// The beginning of the body.
    pub preview: String,
}

impl Delivery {
    /// Takes over what a queue delivered.
    ///
    /// What a reply says by its header `x-saga-outcome` needs no body, unless it is a success: so a body that
    /// cannot be read is taken for none there.
    pub fn of(token: Token, raw: RawMessage) -> Self {
        let bodiless = token.queue == Queue::Replies
            && reply::said_by(&raw.headers).is_some_and(|outcome| outcome != OutcomeKind::Success);
        Self {
            token,
            content: understand_or(raw, |poison| bodiless && !matches!(poison, Poison::Headers(_))),
        }
    }
}

/// Decodes a message, or keeps what people have to know of one that can never be understood.
///
/// # Errors
/// It never can.
pub fn understand(raw: RawMessage) -> Result<Message, Box<Rejected>> {
    understand_or(raw, |_| false)
}

/// The same, but takes the body for none where what is wrong with it does not matter.
fn understand_or(
    mut raw: RawMessage,
    is_no_matter: impl Fn(&Poison) -> bool,
) -> Result<Message, Box<Rejected>> {
    match decode::read(&mut raw, MAX_BODY_BYTES) {
        Ok(body) => Ok(decode::recognise(raw, body)),
        Err(poison) if is_no_matter(&poison) => Ok(decode::recognise(raw, Value::Null)),
        Err(poison) => {
            let RawMessage { exchange, key, message_id, correlation_id, kind, headers, body, .. } = raw;
            let (size, preview) = (body.len(), preview(&body));
            let (message_id, correlation_id) = (decode::said(message_id), decode::said(correlation_id));
            let kind = decode::said(kind);
            Err(Box::new(Rejected {
                poison,
                exchange,
                key,
                message_id,
                correlation_id,
                kind,
                headers,
                size,
                preview,
            }))
        }
    }
}

/// The beginning of a body, for people to look at.
pub(crate) fn preview(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(PREVIEW_BYTES)]).into_owned()
}

/// A message that the broker put aside by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutAside {
    /// Why.
    pub cause: Cause,
    /// How often it was put aside from this queue for this cause.
    pub times: u64,
    /// The queue that it was in; empty where that is not known.
    pub queue: String,
    /// Exchange that it was published to.
    pub exchange: String,
    /// Routing key.
    pub key: String,
    /// AMQP property `message_id`.
    pub message_id: Option<String>,
    /// AMQP property `correlation_id`.
    pub correlation_id: Option<String>,
    /// Bytes in the body.
    pub size: usize,
    /// The beginning of the body.
    pub preview: String,
}

/// Why the broker put a message aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was delivered too often, and not acked.
    DeliveryLimit,
    /// The same, and it cannot be parsed.
    Garbled,
    /// Its time to live was over.
    Expired,
    /// Its queue was full.
    MaxLen,
    /// Another consumer refused it.
    Rejected,
    /// It was sent to the dead-letter exchange.
    Sent,
    /// A cause that is not known here.
    Other,
}

impl PutAside {
    /// What is known of a message that cannot be parsed: nothing else.
    pub fn garbled() -> Self {
        Self {
            cause: Cause::Garbled,
            times: 1,
            queue: String::new(),
            exchange: String::new(),
            key: String::new(),
            message_id: None,
            correlation_id: None,
            size: 0,
            preview: String::new(),
        }
    }

    /// Why it was put aside, in words.
    pub fn reason(&self) -> String {
        let why = match self.cause {
            Cause::DeliveryLimit => "it was delivered too often without an ack",
            Cause::Garbled => {
                "it cannot be parsed, as a property, a header name or its routing key is not UTF-8"
            }
            Cause::Expired => "its time to live was over",
            Cause::MaxLen => "its queue was full",
            Cause::Rejected => "another consumer of its queue refused it",
            Cause::Sent => "it was published to the dead-letter exchange",
            Cause::Other => "the x-death header of the copy in the dead-letter queue says more",
        };
        let times = if self.times > 1 { format!(" for the {}. time", self.times) } else { String::new() };
        format!("put aside by the broker{times} ({}): {why}", self.cause.as_str())
    }
}

impl Cause {
    /// From the `reason` in an `x-death` header.
    pub(crate) fn of(reason: &str) -> Self {
        match reason {
            "delivery_limit" => Self::DeliveryLimit,
            "expired" => Self::Expired,
            "maxlen" => Self::MaxLen,
            "rejected" => Self::Rejected,
            _ => Self::Other,
        }
    }

    /// As the broker has it, where it has a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeliveryLimit | Self::Garbled => "delivery_limit",
            Self::Expired => "expired",
            Self::MaxLen => "maxlen",
            Self::Rejected => "rejected",
            Self::Sent => "sent",
            Self::Other => "other",
        }
    }
}

/// What became of a message that was to be published. Each gets one report, unless the process ends
/// before.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Which message.
    pub origin: Origin,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The broker has it, in every queue that it was routed to, as safe as the queue's type makes
    /// it.
    Published,
    /// Nobody gets it: no queue is bound, the exchange is missing, or the broker refuses it.
    Unroutable {
        /// Why, in words.
        reason: String,
        /// True if an earlier copy may have been delivered all the same.
        maybe_delivered: bool,
    },
}

/// What may happen once a batch is durable, and not before.
#[derive(Debug, Default, PartialEq)]
pub struct Release {
    /// Deliveries that the broker may forget.
    pub settlement: Settlement,
    /// Messages to publish.
    pub outgoing: Vec<Outgoing>,
}

/// Deliveries that the broker may forget, because all that follows from them is durable.
///
/// Deliveries of a queue are settled in the order in which they came, each once: an ack tells the
/// broker that everything before it is settled too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settlement {
    /// To be dead-lettered.
    pub reject: Vec<Token>,
    /// Done: of each queue and epoch the last one, which stands for all before it.
    pub ack: Vec<Token>,
}

impl Settlement {
    /// Counts a delivery as done.
    pub fn ack(&mut self, token: Token) {
        match self.ack.iter_mut().find(|known| known.queue == token.queue && known.epoch == token.epoch) {
            Some(known) => known.tag = known.tag.max(token.tag),
            None => self.ack.push(token),
        }
    }
}

impl Queue {
    /// Both.
    pub const ALL: [Queue; 2] = [Queue::Events, Queue::Replies];

    /// The last part of its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Queue::Events => "events",
            Queue::Replies => "replies",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn delivered(queue: Queue, outcome: &str, body: &[u8]) -> Result<Message, Box<Rejected>> {
        let raw = RawMessage {
            message_id: Some("m".to_owned()),
            correlation_id: Some("c".to_owned()),
            kind: Some(" ".to_owned()),
            headers: json!({"x-saga-outcome": outcome}).as_object().cloned().unwrap(),
            body: body.to_vec(),
            ..RawMessage::default()
        };
        Delivery::of(Token { queue, epoch: 1, tag: 1 }, raw).content
    }

    #[test]
    fn a_reply_that_says_no_success_counts_whatever_its_body_is() {
        let large = vec![b' '; MAX_BODY_BYTES + 1];
        for outcome in ["failure", " Retry ", "PENDING"] {
            for body in [&b"<fault/>"[..], b"out of stock", b"\xff", &large] {
                let reply = delivered(Queue::Replies, outcome, body).unwrap();
                assert_eq!((reply.correlation_id.as_deref(), reply.data), (Some("c"), Value::Null));
            }
            assert_eq!(delivered(Queue::Replies, outcome, b"{\"a\":1}").unwrap().data, json!({"a": 1}));
            assert!(
                delivered(Queue::Events, outcome, b"<fault/>").is_err(),
                "an event says what its body says"
            );
        }
    }

    #[test]
    fn an_unreadable_reply_keeps_what_tells_whose_it_is() {
        for outcome in ["success", "maybe"] {
            let rejected = delivered(Queue::Replies, outcome, b"<done/>").unwrap_err();
            assert_eq!(rejected.poison, Poison::NotJson("expected value at line 1 column 1".to_owned()));
            assert_eq!(
                (rejected.message_id.as_deref(), rejected.correlation_id.as_deref()),
                (Some("m"), Some("c"))
            );
            assert_eq!((rejected.kind, &rejected.headers["x-saga-outcome"]), (None, &json!(outcome)));
        }
    }
}
