//! Exchanges: what kinds there are, and which messages a binding of each lets through.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// How an exchange hands messages on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By a pattern over the words of their keys.
    #[default]
    Topic,
    /// By their whole keys.
    Direct,
    /// All of them.
    Fanout,
    /// By their headers.
    Headers,
}

/// An exchange that a definition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it hands messages on, where it is made.
    pub kind: ExchangeKind,
    /// Whether it is made where it is missing; else it is somebody else's.
    pub declare: bool,
    /// How else it is made, where anything is said of that.
    pub make: Option<Make>,
}

/// How an exchange is made, beside its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Make {
    /// Whether it outlives a restart of the broker.
    pub durable: bool,
    /// What else the broker is to know of it.
    pub arguments: BTreeMap<String, TableValue>,
}

/// The argument that names the exchange to which goes what an exchange has no binding for.
const ALTERNATE: &str = "alternate-exchange";

/// Which messages a binding lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matching {
    /// Those with a key that fits the pattern.
    #[default]
    Pattern,
    /// Those with the very key.
    Key,
    /// All.
    Anything,
    /// Those with the headers.
    Headers {
        /// Whether one of the headers is enough.
        any: bool,
        /// The headers, by name.
        headers: BTreeMap<String, TableValue>,
    },
}

/// A value in a table of AMQP: of a header by which an exchange hands messages on, or of an argument.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableValue {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// True or false.
    Flag(bool),
}

impl ExchangeKind {
    /// As AMQP has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Headers => "headers",
        }
    }
}

impl Exchange {
    /// A topic exchange that is made where it is missing: what nothing more is said of.
    pub fn topic(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: ExchangeKind::Topic, declare: true, make: None }
    }

    /// Whether it is to outlive a restart of the broker, where it is made.
    pub fn is_durable(&self) -> bool {
        self.make.as_ref().is_none_or(|make| make.durable)
    }

    /// The arguments with which it is made.
    pub fn arguments(&self) -> Map<String, Value> {
        let arguments = self.make.iter().flat_map(|make| &make.arguments);
        arguments.map(|(name, value)| (name.clone(), value.to_json())).collect()
    }

    /// The exchange to which goes what this one has no binding for, if it is made with one.
    pub fn alternate(&self) -> Option<&str> {
        match self.make.as_ref()?.arguments.get(ALTERNATE)? {
            TableValue::Text(name) => Some(name),
            TableValue::Number(_) | TableValue::Flag(_) => None,
        }
    }
}

impl Default for Make {
    fn default() -> Self {
        Self { durable: true, arguments: BTreeMap::new() }
    }
}

impl Matching {
    /// The kind of exchange that matches so.
    pub fn kind(&self) -> ExchangeKind {
        match self {
            Self::Pattern => ExchangeKind::Topic,
            Self::Key => ExchangeKind::Direct,
            Self::Anything => ExchangeKind::Fanout,
            Self::Headers { .. } => ExchangeKind::Headers,
        }
    }

    /// The headers that a message must have, with their values.
    pub fn headers(&self) -> Map<String, Value> {
        match self {
            Self::Headers { headers, .. } => {
                headers.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
            }
            _ => Map::new(),
        }
    }

    /// The arguments of a binding.
    pub fn arguments(&self) -> Map<String, Value> {
        let mut arguments = self.headers();
        if let Self::Headers { any, .. } = self {
            arguments.insert("x-match".to_owned(), json!(if *any { "any" } else { "all" }));
        }
        arguments
    }

    /// Whether a binding with this pattern lets a message with this key and these headers through.
    pub(super) fn lets_through(&self, pattern: &str, key: &str, headers: &Map<String, Value>) -> bool {
        match self {
            Self::Pattern => pattern_matches(pattern, key),
            Self::Key => pattern == key,
            Self::Anything => true,
            Self::Headers { any, headers: wanted } => {
                let mut wanted = wanted.iter();
                let has = |(name, value): (&String, &TableValue)| {
                    headers.get(name).is_some_and(|header| value.is(header))
                };
                if *any { wanted.any(has) } else { wanted.all(has) }
            }
        }
    }

    /// Whether a binding with this pattern lets everything through that another one of the same exchange does.
    pub(super) fn covers(&self, pattern: &str, other: &Self, narrow: &str) -> bool {
        match self {
            Self::Pattern => pattern_covers(pattern, narrow),
            Self::Key => pattern == narrow,
            Self::Anything => true,
            Self::Headers { any, headers } => self == other || (!any && headers.is_empty()),
        }
    }
}

impl TableValue {
    /// From a value of a definition; nothing where it is of another type.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.clone())),
            Value::Number(number) => number.as_i64().map(Self::Number),
            Value::Bool(flag) => Some(Self::Flag(*flag)),
            _ => None,
        }
    }

    /// In its JSON form.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::Number(number) => json!(number),
            Self::Flag(flag) => json!(flag),
        }
    }

    fn is(&self, header: &Value) -> bool {
        match self {
            Self::Text(text) => header.as_str() == Some(text),
            Self::Number(number) => header.as_i64() == Some(*number),
            Self::Flag(flag) => header.as_bool() == Some(*flag),
        }
    }
}

/// Whether a pattern stands for more than itself.
pub fn is_pattern(text: &str) -> bool {
    text.split('.').any(|word| matches!(word, "*" | "#"))
}

/// Topic matching without backtracking over words: linear for `*`, quadratic at worst for `#`.
fn pattern_matches(pattern: &str, key: &str) -> bool {
    if !pattern.contains(['*', '#']) {
        return pattern == key;
    }
    takes(pattern, &topic_words(key), |_| true)
}

/// Whether a topic pattern takes every key that another one takes. It is not told of some pairs in which `#`
/// stands beside `*`.
fn pattern_covers(wide: &str, narrow: &str) -> bool {
    takes(wide, &topic_words(narrow), |word| word != "#")
}

/// Whether a pattern takes these words, of which `is_one` says which `*` can stand for.
fn takes(pattern: &str, words: &[&str], is_one: impl Fn(&str) -> bool) -> bool {
    // reachable[i]: the pattern so far can have consumed the first i words.
    let mut reachable = vec![false; words.len() + 1];
    reachable[0] = true;
    for part in topic_words(pattern) {
        let mut next = vec![false; words.len() + 1];
        let mut earlier = false;
        for at in 0..=words.len() {
            earlier |= reachable[at];
            next[at] = match part {
                "#" => earlier,
                "*" => at > 0 && reachable[at - 1] && is_one(words[at - 1]),
                word => at > 0 && reachable[at - 1] && words[at - 1] == word,
            };
        }
        reachable = next;
    }
    reachable[words.len()]
}

/// The words of a routing key; the empty key has none.
fn topic_words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_topic_exchanges_do() {
        let matching = [
            ("order.placed", "order.placed"),
            ("order.*", "order.placed"),
            ("#", ""),
            ("#", "a.b.c"),
            ("order.#", "order"),
            ("order.#", "order.placed.eu"),
            ("#.eu", "order.placed.eu"),
            ("*.*", "a.b"),
            ("#.b.#", "a.b.c"),
        ];
        for (pattern, key) in matching {
            assert!(pattern_matches(pattern, key), "{pattern} should match {key}");
        }
        for (pattern, key) in
            [("order.*", "order"), ("order.*", "order.a.b"), ("*", ""), ("a", "b"), ("a.#.b", "a")]
        {
            assert!(!pattern_matches(pattern, key), "{pattern} should not match {key}");
        }
    }

    #[test]
    fn other_exchanges_match_by_the_whole_key_by_headers_or_not_at_all() {
        let none = Map::new();
        assert!(Matching::Key.lets_through("a.b", "a.b", &none));
        assert!(!Matching::Key.lets_through("a.*", "a.b", &none));
        assert!(Matching::Anything.lets_through("", "a.b", &none));
        let wanted = [("kind", json!("report")), ("pages", json!(3)), ("draft", json!(false))];
        let headers: BTreeMap<_, _> =
            wanted.iter().map(|(name, value)| ((*name).to_owned(), TableValue::of(value).unwrap())).collect();
        let with = |any, value: Value| {
            let matching = Matching::Headers { any, headers: headers.clone() };
            matching.lets_through("", "any.key", value.as_object().unwrap())
        };
        let (whole, part) =
            (json!({"kind": "report", "pages": 3, "draft": false, "x": 1}), json!({"kind": "x", "pages": 3}));
        assert_eq!([with(false, whole.clone()), with(true, whole)], [true, true]);
        assert_eq!([with(false, part.clone()), with(true, part)], [false, true]);
        assert!(!with(true, json!({"pages": "3", "draft": true})));
        let everything = Matching::Headers { any: false, headers: BTreeMap::new() };
        assert!(everything.lets_through("", "k", &none));
    }
}
