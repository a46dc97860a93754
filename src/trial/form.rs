//! Forms of scenarios that are told apart by their shape: a text may stand for a mapping, and one reply for
//! a list.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::scenario::{Expected, Replies, Reply, Word};
use crate::saga::definition::Located;
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
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedFields {
    #[serde(default)]
    step: Option<String>,
    #[serde(default)]
    compensate: Option<String>,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    body: Value,
}

impl FromText for ExpectedFields {
    const EXPECTED: &'static str = "the name of a step, or a mapping with `step` or `compensate`";

    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        Ok(Self { step: Some(text.to_owned()), ..Self::default() })
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
