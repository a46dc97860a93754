//! What is listened to and what is sent: exchanges, subscriptions, commands and events.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::{Entries, Located, Node, Period};
use crate::saga::exchange::{ExchangeKind, Make, Matching, TableValue};
use crate::saga::plan;

/// What is to be known of an exchange. One that nothing is said of is a durable topic exchange, made where it is missing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// How it hands messages on, by default `topic`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Located<ExchangeType>>,
    /// Whether it is made where it is missing, by default true. False for an exchange of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declare: Option<Located<bool>>,
    /// Whether it outlives a restart of the broker, by default true. It counts where the exchange is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<Located<bool>>,
    /// Arguments with which it is made, such as `alternate-exchange`: texts, whole numbers, true and false.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    #[schemars(with = "BTreeMap<String, Argument>")]
    pub arguments: Entries<Located<Node>>,
}

/// A text, a whole number, true or false.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum Argument {
    Text(String),
    Number(i64),
    Flag(bool),
}

/// How an exchange hands messages on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeType {
    /// By a pattern over the words of their keys.
    Topic,
    /// By their whole keys.
    Direct,
    /// All of them, whatever their keys.
    Fanout,
    /// By their headers.
    Headers,
}

/// An exchange, and which of its messages are meant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Name of the exchange.
    pub exchange: Located<String>,
    /// Pattern of routing keys: `*` stands for one word, `#` for any number of words. Of a direct exchange the key; of a fanout or headers exchange it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Located<String>>,
    /// The headers that are meant, of a headers exchange; without any, all its messages.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub headers: Entries<Located<Node>>,
    /// How many of `headers` a message must have, by default `all`.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<Located<Match>>,
}

impl Subscription {
    /// As the plan has it, by what is to be known of its exchange.
    pub fn compiled(&self, exchanges: &Entries<Exchange>) -> plan::Subscription {
        let key = self.key.as_ref().map(|key| key.value.clone()).unwrap_or_default();
        let (pattern, matching) = match exchanges.find(&self.exchange).map(Exchange::kind).unwrap_or_default()
        {
            ExchangeKind::Topic => (key, Matching::Pattern),
            ExchangeKind::Direct => (key, Matching::Key),
            ExchangeKind::Fanout => (String::new(), Matching::Anything),
            ExchangeKind::Headers => {
                let any = self.matching.as_ref().is_some_and(|how| how.value == Match::Any);
                (String::new(), Matching::Headers { any, headers: table(&self.headers) })
            }
        };
        plan::Subscription { exchange: self.exchange.value.clone(), pattern, matching }
    }
}

/// How many of the headers a message must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Every one.
    All,
    /// One at least.
    Any,
}

/// A message: a command, which a participant consumes and answers, or an event. It goes to an exchange with a key, or straight to a queue.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = json!([{"required": ["exchange", "key"]}, {"required": ["queue"]}])))]
pub struct Command {
    /// Exchange to publish to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Located<String>>,
    /// Routing key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Located<String>>,
    /// Queue to send to, by the default exchange; instead of `exchange` and `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Located<String>>,
    /// Body, by default `=input`. In scope: input, saga, the steps before; in a compensation also its own step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Located<Node>>,
    /// Headers beside those of sagamq. In scope: what the body sees; at the ends of an instance input and saga.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub headers: Entries<Located<Node>>,
    /// Priority in the participant's queue, 0 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Located<u8>>,
    /// How long it may wait in the participant's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Located<Period>>,
    /// AMQP property `content_type`, by default `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Located<String>>,
    /// AMQP property `type`, by default the routing key.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Located<String>>,
}

impl Exchange {
    /// How it hands messages on.
    pub fn kind(&self) -> ExchangeKind {
        match self.kind.as_ref().map(|kind| kind.value) {
            Some(ExchangeType::Topic) | None => ExchangeKind::Topic,
            Some(ExchangeType::Direct) => ExchangeKind::Direct,
            Some(ExchangeType::Fanout) => ExchangeKind::Fanout,
            Some(ExchangeType::Headers) => ExchangeKind::Headers,
        }
    }

    /// How else it is made, where anything is said of that.
    pub fn make(&self) -> Option<Make> {
        if self.durable.is_none() && self.arguments.is_empty() {
            return None;
        }
        let durable = self.durable.as_ref().is_none_or(|durable| durable.value);
        Some(Make { durable, arguments: table(&self.arguments) })
    }
}

/// A table of AMQP, as far as its values are fit for one.
fn table(written: &Entries<Located<Node>>) -> BTreeMap<String, TableValue> {
    let value = |(name, value): &(Located<String>, Located<Node>)| match &value.value {
        Node::Scalar(value) => Some((name.value.clone(), TableValue::of(value)?)),
        Node::List(_) | Node::Map(_) => None,
    };
    written.0.iter().filter_map(value).collect()
}

impl Command {
    /// Exchange and routing key. A queue is the routing key of the default exchange, which has no name.
    pub fn address(&self) -> (&str, &str) {
        let [queue, exchange, key] = [&self.queue, &self.exchange, &self.key]
            .map(|text| text.as_ref().map(|text| text.value.as_str()));
        match queue {
            Some(queue) => ("", queue),
            None => (exchange.unwrap_or_default(), key.unwrap_or_default()),
        }
    }
}

/// Users of the broker: a name, or a list of names.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Users(pub Vec<String>);

impl<'de> Deserialize<'de> for Users {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Users;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a user, or a list of names")
            }

            fn visit_str<E>(self, name: &str) -> Result<Users, E> {
                Ok(Users(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<Users, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(names)).map(Users)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Users {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Users".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    }
}
