//! The values that definitions are written in, each with its place in the file.
//!
//! Serde's `flatten` and `untagged` lose places, so forms that are told apart by their shape have
//! visitors of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Number, Value};

use super::duration;
use crate::number;

/// Where something is written. Columns and widths are in characters, lines and columns from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// How many characters.
    pub width: usize,
}

/// A value and where it is written.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its place; of an alias, the place of what it stands for.
    pub at: Place,
}

/// A mapping with free names, in the order in which it is written.
#[derive(Clone, Debug)]
pub struct Entries<T>(pub Vec<(Located<String>, T)>);

/// A free value: any JSON, with expressions among its texts.
#[derive(Clone, Debug)]
pub enum Node {
    /// Null, a boolean, a number or a text.
    Scalar(Value),
    /// A list.
    List(Vec<Located<Node>>),
    /// An object.
    Map(Entries<Located<Node>>),
}

/// A length of time, written as a whole number and a unit: `500ms`, `30s`, `15m`, `2h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

/// How many attempts: a number, or `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// At most so many, the first included.
    AtMost(u32),
    /// No limit.
    Unlimited,
}

impl Period {
    /// Parses it; nothing is longer than 3650 days.
    pub fn parse(text: &str) -> Option<Self> {
        let longest = Duration::from_secs(3650 * 24 * 60 * 60);
        duration::parse(text).filter(|length| *length <= longest).map(Self)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::format(self.0))
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Entries<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, in the order in which they are written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The entry of that name.
    pub fn find(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(other, _)| other.value == name).map(|(_, entry)| entry)
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Self {
            line: number(location.line()),
            column: number(location.column()),
            width: number(location.span().len()),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { value: spanned.value, at: spanned.defined.into() })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                entries(map)
            }
        }
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

/// A number that is not written as JSON would write it.
#[derive(Clone, Debug)]
pub(super) struct Misread {
    /// As it is written.
    pub(super) written: String,
    /// What YAML makes of it.
    pub(super) number: Number,
    /// Where.
    pub(super) at: Place,
}

/// What is being read: the reader hands over doubles, and the digits are here.
#[derive(Default)]
struct Source {
    text: String,
    misread: Vec<Misread>,
}

thread_local! {
    static SOURCE: RefCell<Source> = RefCell::default();
}

/// Reads what is written in `source`, so that numbers keep their digits. Those that cannot are told too.
pub(super) fn with_digits_of<T>(source: &str, read: impl FnOnce() -> T) -> (T, Vec<Misread>) {
    SOURCE.replace(Source { text: source.to_owned(), misread: Vec::new() });
    let outcome = read();
    (outcome, SOURCE.take().misread)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shape = serde_saphyr::Spanned::<Shape>::deserialize(deserializer)?;
        Ok(match shape.value {
            Shape::Node(node) => node,
            Shape::Number(number) => Node::Scalar(Value::Number(with_digits(number, shape.defined))),
        })
    }
}

/// The number that is written at a place.
fn with_digits(rounded: Number, location: serde_saphyr::Location) -> Number {
    SOURCE.with_borrow_mut(|source| {
        let bytes = |value: Option<u64>| value.and_then(|value| usize::try_from(value).ok());
        let span = location.span();
        let written = bytes(span.byte_offset()).zip(bytes(span.byte_len()));
        let written = written.and_then(|(start, length)| source.text.get(start..start.checked_add(length)?));
        let written = written.unwrap_or_default().trim();
        number::of_text(written).unwrap_or_else(|| {
            // These say what they are.
            if written.starts_with("0x") || written.starts_with("0o") {
                return rounded;
            }
            let misread =
                Misread { written: written.to_owned(), number: rounded.clone(), at: location.into() };
            source.misread.push(misread);
            rounded
        })
    })
}

impl From<Node> for Value {
    fn from(node: Node) -> Self {
        match node {
            Node::Scalar(value) => value,
            Node::List(items) => items.into_iter().map(|item| Value::from(item.value)).collect(),
            Node::Map(Entries(entries)) => {
                entries.into_iter().map(|(name, value)| (name.value, Value::from(value.value))).collect()
            }
        }
    }
}

/// Reads a value of which the numbers keep their digits.
pub(crate) fn exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Node::deserialize(deserializer).map(Value::from)
}

/// A node as the reader sees it.
enum Shape {
    /// What it is.
    Node(Node),
    /// A number, of which the reader does not tell how it is written.
    Number(Number),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Shape, E> {
                Ok(scalar(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
                Ok(scalar(Value::from(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Shape, E> {
                Ok(Shape::Number(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Shape, E> {
                Ok(Shape::Number(value.into()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Shape, E> {
                let number = Number::from_f64(value);
                number.map(Shape::Number).ok_or_else(|| E::custom("a number must be finite"))
            }

            fn visit_str<E>(self, text: &str) -> Result<Shape, E> {
                Ok(scalar(Value::from(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Shape::Node(Node::List(list)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shape, A::Error> {
                Ok(Shape::Node(Node::Map(entries(map)?)))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

fn scalar(value: Value) -> Shape {
    Shape::Node(Node::Scalar(value))
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let remedy = "write a whole number and ms, s, m, h or d, such as 30s, at most 3650d";
            D::Error::custom(format!("{text:?} is not a duration: {remedy}"))
        })
    }
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match (text.as_str(), text.parse()) {
            ("unlimited", _) => Ok(Self::Unlimited),
            (_, Ok(count)) => Ok(Self::AtMost(count)),
            _ => Err(D::Error::custom(format!(
                "{text:?} is neither a number of attempts, 1 to 10000, nor `unlimited`"
            ))),
        }
    }
}

/// Reads a mapping with free names.
fn entries<'de, T: Deserialize<'de>, A: MapAccess<'de>>(mut map: A) -> Result<Entries<T>, A::Error> {
    let mut entries = Vec::new();
    while let Some(entry) = map.next_entry()? {
        entries.push(entry);
    }
    Ok(Entries(entries))
}

// Written as canonical JSON: without places, names in alphabetical order, durations in milliseconds.

impl<T: Serialize> Serialize for Located<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sorted: BTreeMap<_, _> = self.0.iter().map(|(name, entry)| (name.as_str(), entry)).collect();
        sorted.serialize(serializer)
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Scalar(value) => value.serialize(serializer),
            Node::List(items) => items.serialize(serializer),
            Node::Map(entries) => entries.serialize(serializer),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Serialize for Attempts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Attempts::AtMost(count) => serializer.serialize_u32(*count),
            Attempts::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for text in ["500ms", "30s", "15m", "2h", "7d", "0s"] {
            assert_eq!(Period::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Period::parse("120s").unwrap().to_string(), "2m");
        for text in ["", "30", "s", "-1s", "1.5s", "1h30m", "30 s", "3651d", "99999999999999999999d", "1é"] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
    }
}
