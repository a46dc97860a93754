//! Messages: what comes in, made uniform, and what goes out.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::correlation::Correlation;
use super::id::{EventKey, InstanceId, MessageId, Phase};
use super::time::Timestamp;

/// AMQP property `app_id` of everything that is sent.
pub const APP_ID: &str = "sagamq";

/// Values that the JSON of a body may have, fields and items included: each takes memory and time, however short
/// it is written.
pub const MAX_VALUES: usize = 50_000;

/// A message as the broker handed it over, before anything is believed of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawMessage {
    /// Exchange that it was published to; empty for the default exchange.
    pub exchange: String,
    /// Routing key.
    pub key: String,
    /// AMQP property `message_id`.
    pub message_id: Option<String>,
    /// AMQP property `correlation_id`.
    pub correlation_id: Option<String>,
    /// AMQP property `type`.
    pub kind: Option<String>,
    /// AMQP property `app_id`.
    pub app_id: Option<String>,
    /// AMQP property `user_id`: the user who published it. The broker takes no other for it.
    pub user_id: Option<String>,
    /// AMQP property `content_type`.
    pub content_type: Option<String>,
    /// AMQP property `content_encoding`.
    pub content_encoding: Option<String>,
    /// AMQP property `timestamp`, in seconds.
    pub timestamp: Option<u64>,
    /// Headers, in their JSON form.
    pub headers: Map<String, Value>,
    /// What is wrong with the headers, where they were too many or too deep to be kept.
    pub excess: Option<String>,
    /// The body, unparsed.
    pub body: Vec<u8>,
}

/// An event or a reply in the one form that expressions see.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Id given by the sender, if any.
    pub id: Option<String>,
    /// Type of the event.
    pub kind: Option<String>,
    /// Where it says that it comes from.
    pub source: Option<String>,
    /// When it says that it happened, RFC 3339.
    pub time: Option<String>,
    /// The payload.
    pub data: Value,
    /// What the envelope said beside the payload.
    pub metadata: Value,
    /// AMQP headers, in their JSON form.
    pub headers: Map<String, Value>,
    /// Exchange that it was published to; empty for the default exchange.
    pub exchange: String,
    /// Routing key.
    pub key: String,
    /// AMQP property `correlation_id`.
    pub correlation_id: Option<String>,
    /// The user of the broker who published it, where the message says so.
    pub user: Option<String>,
    /// Whether it is itself a command of an orchestrator, and so the answer to none.
    pub is_command: bool,
    /// Whether it is a CloudEvent, whose id counts together with its source.
    pub is_cloud_event: bool,
    /// Bytes in the body, unpacked.
    pub size: usize,
}

impl Message {
    /// A header by its name, which some senders write with capitals.
    pub fn header(&self, name: &str) -> Option<&Value> {
        header(&self.headers, name)
    }

    /// What tells it from other events: the id that its sender gave it, of a CloudEvent with its source; without an
    /// id, where it was published to and what it says. So an event that its sender repeats, or the broker delivers
    /// again, is the same one. A cancellation is told from an answer, since one event may be both.
    pub fn event_key(&self, purpose: Purpose) -> EventKey {
        let purpose: &[u8] = match purpose {
            Purpose::Answer => b"answer",
            Purpose::Cancel => b"cancel",
        };
        match (&self.id, &self.source) {
            (Some(id), Some(source)) if self.is_cloud_event => {
                EventKey::of(&[purpose, id.as_bytes(), source.as_bytes()])
            }
            (Some(id), _) => EventKey::of(&[purpose, id.as_bytes()]),
            (None, _) => {
                let (data, metadata) = (self.data.to_string(), self.metadata.to_string());
                let says: [&[u8]; 3] = [self.exchange.as_bytes(), self.key.as_bytes(), data.as_bytes()];
                EventKey::of(&[purpose, says[0], says[1], says[2], metadata.as_bytes()])
            }
        }
    }

    /// About how many bytes it takes in memory, which may be a hundred times those of its body.
    pub fn weight(&self) -> usize {
        let texts = [&self.id, &self.kind, &self.source, &self.time, &self.correlation_id, &self.user];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let headers = self.headers.iter().map(|(name, value)| name.len() + weight(value));
        texts + weight(&self.data) + weight(&self.metadata) + headers.sum::<usize>()
    }
}

/// What an input of an instance comes from: a message, or only time and people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// Id of the message.
    pub message_id: Option<String>,
    /// The user of the broker who published it, where it says so.
    pub user: Option<String>,
}

impl Cause {
    /// A message.
    pub fn of(message: &Message) -> Self {
        Self { message_id: message.id.clone(), user: message.user.clone() }
    }
}

/// What an event is to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It answers a step.
    Answer,
    /// It cancels the instance.
    Cancel,
}

/// A header by its name, as it is written or else in any case.
pub fn header<'a>(headers: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let in_any_case =
        || headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    headers.get(name).or_else(in_any_case)
}

/// About how many bytes a JSON value takes in memory.
pub fn weight(value: &Value) -> usize {
    /// What the first field of an object takes room for: a node of a B-tree.
    const NODE: usize = 640;
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(fields) if fields.is_empty() => 0,
            Value::Object(fields) => {
                let fields =
                    fields.iter().map(|(name, value)| size_of::<String>() + name.len() + weight(value));
                fields.sum::<usize>().max(NODE)
            }
            Value::Number(number) => number.as_str().len(),
            Value::Null | Value::Bool(_) => 0,
        }
}

/// A message that is ready to be published. Two renderings of one message are byte for byte the
/// same.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Which message of which instance it is.
    pub origin: Origin,
    /// Exchange to publish to.
    pub exchange: Arc<str>,
    /// Routing key, also the property `type`.
    pub key: Arc<str>,
    /// Property `message_id`.
    pub message_id: MessageId,
    /// Whether an answer is expected: sets `reply_to`.
    pub wants_reply: bool,
    /// Property `correlation_id` of a command, by which its answer is known. The engine sets it.
    pub correlation: Option<Correlation>,
    /// Property `timestamp`: when the attempt was decided.
    pub timestamp: Timestamp,
    /// Headers, all of them strings on the wire.
    pub headers: Headers,
    /// JSON.
    pub body: Vec<u8>,
    /// What else it carries, where its definition says so.
    pub extras: Option<Box<Extras>>,
    /// True if a copy may have been published before, by an earlier connection or an earlier
    /// process: a return then does not prove that nobody got it.
    pub repeated: bool,
}

/// What an outgoing message carries beside its body and what every message carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extras {
    /// Headers, by name. Null is no header.
    pub headers: Vec<(Arc<str>, Value)>,
    /// Priority in a queue.
    pub priority: Option<u8>,
    /// How long it may wait in a queue.
    pub expires: Option<Duration>,
    /// Property `content_type`.
    pub content_type: Option<Arc<str>>,
    /// Property `type`.
    pub kind: Option<Arc<str>>,
}

impl Outgoing {
    /// The property `correlation_id`, as text.
    pub fn correlation_id(&self) -> Option<String> {
        self.correlation.map(|correlation| correlation.to_string())
    }

    /// Whoever gets it, by the name of the exchange, or of the queue where it is sent straight to one.
    pub fn participant(&self) -> &str {
        participant(&self.exchange, &self.key)
    }

    /// All headers, as texts.
    pub fn header_texts(&self) -> impl Iterator<Item = (String, String)> {
        let extra =
            self.extras.iter().flat_map(|extras| &extras.headers).filter(|(_, value)| !value.is_null());
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        self.headers.texts().chain(extra.map(move |(name, value)| (name.to_string(), text(value))))
    }
}

/// Whoever gets what goes to an exchange, or by the default exchange to the queue that the key names.
pub(super) fn participant<'a>(exchange: &'a str, key: &'a str) -> &'a str {
    if exchange.is_empty() { key } else { exchange }
}

/// The headers of an outgoing message. They become text where it is published, and not before: a message waits
/// for a commit first, and a text for each header is a block of memory for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(Vec<(&'static str, Header)>);

/// The value of a header.
#[derive(Clone, Debug, PartialEq)]
pub enum Header {
    /// An instance.
    Instance(InstanceId),
    /// A message.
    Message(MessageId),
    /// Doing or undoing.
    Phase(Phase),
    /// A number.
    Number(u32),
    /// A time.
    Time(Timestamp),
    /// Any other text.
    Text(String),
}

impl Headers {
    /// None yet, with room for so many.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Adds one that is not there yet.
    pub fn put(&mut self, name: &'static str, value: Header) {
        debug_assert!(self.iter().all(|(known, _)| known != name), "{name} is there already");
        self.0.push((name, value));
    }

    /// The text of one.
    pub fn get(&self, name: &str) -> Option<String> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string())
    }

    /// All, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Header)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// All as texts.
    pub fn texts(&self) -> impl Iterator<Item = (String, String)> {
        self.iter().map(|(name, value)| (name.to_owned(), value.to_string()))
    }
}

impl Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => id.fmt(f),
            Self::Message(id) => id.fmt(f),
            Self::Phase(phase) => phase.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Time(at) => at.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// Names one outgoing message of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The instance that sends it.
    pub instance: InstanceId,
    /// Which of its messages.
    pub part: Part,
}

/// The part of an instance that a message belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// One attempt of a step's command.
    Attempt {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// From 1.
        attempt: u32,
    },
    /// The event that tells an end: index into the instance's notices.
    Notice(usize),
}

/// Why a message can never be understood, however often it is delivered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Poison {
    /// The body is larger than the limit.
    #[error("body of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes in the body.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The headers are too large, or nest too deep.
    #[error("headers {0}")]
    Headers(String),
    /// `content_encoding` names a compression that is not read, or several.
    #[error("content encoding {0:?} is not supported: send plain JSON, or gzip or deflate alone")]
    Encoded(String),
    /// The body is not what `content_encoding` says.
    #[error("body is not {encoding}, as its content encoding says: {reason}")]
    Packed {
        /// What it should be.
        encoding: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The body is small, and what is packed in it is not.
    #[error("body of {size} bytes unpacks to more than the limit of {limit}")]
    Bomb {
        /// Bytes in the body.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The body is text of another charset.
    #[error("body is {0}, send UTF-8")]
    Charset(&'static str),
    /// The body is not JSON.
    #[error("body is not JSON: {0}")]
    NotJson(String),
    /// The body is JSON that can be understood in more than one way.
    #[error("body can be understood in more than one way: {0}")]
    Unclear(String),
    /// The body is JSON in too many pieces.
    #[error("body holds more than {MAX_VALUES} JSON values")]
    TooManyValues,
    /// Several CloudEvents in one message.
    #[error("a batch of CloudEvents, and batches are not read: send each event as a message of its own")]
    Batch,
    /// A CloudEvent says that it has data in a form that it does not have.
    #[error("the data of a CloudEvent cannot be read: {0}")]
    EventData(String),
}
