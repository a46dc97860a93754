//! Forms of scenarios that are told apart by their shape: a text may stand for a mapping, and one reply for
//! a list.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::scenario::{Expected, Replies, Reply, Word};
use crate::saga::definition::{Located, exact};
use crate::saga::id::Phase;
use crate::saga::problem::closest;

/// A mapping, or a text that stands for one.
#[derive(Clone, Debug)]
pub(super) struct Short<T>(pub(super) T);

/// What a text stands for.
trait FromText: Sized {
    /// What can stand there, for people.
    const EXPECTED: &'static str;

    fn from_text<E: Error>(text: &str) -> Result<Self, E>;
}

impl<'de, T: FromText + Deserialize<'de>> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: FromText + Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Short<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Short<T>, E> {
                T::from_text(text).map(Short)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Short<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Short)
            }
        }
        deserializer.deserialize_any(Reader(PhantomData))
    }
}

impl FromText for Box<Reply> {
    const EXPECTED: &'static str = "a word such as `silence`, or a mapping";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        let read = Word::deserialize(IntoDeserializer::<de::value::Error>::into_deserializer(text));
        // An error of serde's own kinds would have the place of the field before it.
        let outcome = read.map_err(|_| {
            let hint = match closest(text, Word::NAMES) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("one of {}, or a mapping", Word::NAMES.join(", ")),
            };
            E::custom(format!("unknown value {text:?}: {hint}"))
        })?;
        Ok(Box::new(Reply { outcome: Some(outcome), ..Reply::default() }))
    }
}

impl JsonSchema for Short<Box<Reply>> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "WordOrReply".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [generator.subschema_for::<Word>(), generator.subschema_for::<Reply>()]})
    }
}

impl JsonSchema for Replies {
    fn schema_name() -> Cow<'static, str> {
        "Replies".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Short<Box<Reply>>>();
        json_schema!({
            "description": "What is answered to the attempts of a command: a word, a mapping, or a list with one \
                            for each attempt. The last one holds for all further attempts.",
            "anyOf": [one, {"type": "array", "items": one, "minItems": 1}]
        })
    }
}

impl<'de> Deserialize<'de> for Replies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Replies;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word such as `silence`, a mapping, or a list of them, one for each attempt")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Replies, E> {
                Ok(Replies(vec![*Box::<Reply>::from_text(text)?]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Replies, A::Error> {
                Ok(Replies(vec![Reply::deserialize(MapAccessDeserializer::new(map))?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Replies, A::Error> {
                let items = Vec::<Short<Box<Reply>>>::deserialize(SeqAccessDeserializer::new(items))?;
                match items.is_empty() {
                    false => Ok(Replies(items.into_iter().map(|Short(reply)| *reply).collect())),
                    true => {
                        Err(A::Error::custom("a list of replies has one for each attempt, and at least one"))
                    }
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A command as it is written.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExpectedFields {
    /// The step that it does.
    #[serde(default)]
    step: Option<String>,
    /// The step that it undoes.
    #[serde(default)]
    compensate: Option<String>,
    /// How often it is sent.
    #[serde(default)]
    attempts: Option<u32>,
    /// Its body, as far as it is told.
    #[serde(default, deserialize_with = "exact")]
    body: Value,
}

impl FromText for ExpectedFields {
    const EXPECTED: &'static str = "the name of a step, or a mapping with `step` or `compensate`";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        Ok(Self { step: Some(text.to_owned()), ..Self::default() })
    }
}

impl JsonSchema for Expected {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = ExpectedFields::json_schema(generator);
        let mut fields = fields.to_value();
        fields["description"] = "A command, with what is to be seen of it.".into();
        fields["oneOf"] = json!([{"required": ["step"]}, {"required": ["compensate"]}]);
        json_schema!({
            "description": "A command: the name of a step, or a mapping with `step` or `compensate`.",
            "anyOf": [{"type": "string"}, fields]
        })
    }
}

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Located { value: Short(fields), at } =
            Located::<Short<ExpectedFields>>::deserialize(deserializer)?;
        let ExpectedFields { step, compensate, attempts, body } = fields;
        let (step, phase) = match (step, compensate) {
            (Some(step), None) => (step, Phase::Action),
            (None, Some(step)) => (step, Phase::Compensation),
            (None, None) => return Err(D::Error::missing_field("step")),
            (Some(_), Some(_)) => {
                return Err(D::Error::custom(
                    "a command is either that of a `step` or one to `compensate` it",
                ));
            }
        };
        Ok(Self { step, phase, at, attempts, body })
    }
}
