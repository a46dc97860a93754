//! Reading a definition from YAML, within bounds, and saying what is wrong with it.

mod explain;
mod scalars;

use std::fmt;

use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub(super) use self::explain::QUOTE;
use super::code::Code;
use super::definition::{
    Block, Call, Compensate, Compensation, Definition, Delay, Emit, Foreach, Join, Located, Node, Parallel,
    Policy, Retry, Sequence, Step, Wait,
};
use super::problem::Problem;
use super::yaml::with_digits_of;

/// Largest definition file, in bytes.
pub const MAX_SOURCE: usize = 1 << 20;

/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// Most values, of which a list and a mapping are one each.
const MAX_NODES: usize = 20_000;
/// Most aliases, most anchors that they stand for, and most merges of mappings.
const MAX_ALIASES: usize = 1_000;
const MAX_ANCHORS: usize = 100;
const MAX_MERGES: usize = 100;

/// Fields of blocks; a step has none of them.
const OF_BLOCKS: [&str; 4] = ["parallel", "sequence", "join", "steps"];

/// Steps that are told by their first field, since others are also those of a step with a command.
const TOLD_BY_FIRST: [&str; 5] = ["wait", "delay", "emit", "call", "foreach"];

/// Parses a definition. It is strict: a field that the language does not have is an error.
///
/// # Errors
///
/// The first thing that is not YAML, or not of the language's form.
pub fn parse(file: &str, source: &str) -> Result<Definition, Box<Problem>> {
    read(file, source)
}

/// The same of any form that is read within these bounds.
pub(crate) fn read<T: DeserializeOwned>(file: &str, source: &str) -> Result<T, Box<Problem>> {
    if source.len() > MAX_SOURCE {
        // How many there are, nobody knows: a file is not read on beyond the limit.
        let message = format!("the definition has more than {MAX_SOURCE} bytes");
        return Err(Problem::of_file(Code::TooLarge, file, &message, None).into());
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 60_000,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ANCHORS,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: MAX_SOURCE,
            // A second one has an error of its own.
            max_documents: 2,
            max_merge_keys: MAX_MERGES,
            max_total_scalar_bytes: MAX_SOURCE,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES, max_replay_stack_depth: 16 },
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    // What has not even the form of YAML is told below.
    let (whole, misread) = with_digits_of(source, || {
        serde_saphyr::from_str_with_options::<Located<Node>>(source, options.clone())
    });
    let finding = misread.first().map(scalars::misread);
    if let Some(finding) = finding.or_else(|| scalars::empty_condition(&whole.ok()?, false)) {
        return Err(Problem::at(file, source, finding).into());
    }
    let (definition, _) = with_digits_of(source, || serde_saphyr::from_str_with_options(source, options));
    definition.map_err(|error| explain::explain(file, source, &error).into())
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Block;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            /// Steps and blocks have no field in common, so any of them tells which it is. Other forms of
            /// steps are told by their first field.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Block, A::Error> {
                let first: Option<String> = map.next_key()?;
                let told = first.clone().unwrap_or_default();
                let mut map = Peeked { first, map };
                // The map is only lent: as long as it is there, problems have the place of the last field.
                let fields = MapAccessDeserializer::new(&mut map);
                match told.as_str() {
                    "wait" => Wait::deserialize(fields).map(|wait| Block::Wait(Box::new(wait))),
                    "delay" => Delay::deserialize(fields).map(|delay| Block::Delay(Box::new(delay))),
                    "call" => Call::deserialize(fields).map(|call| Block::Call(Box::new(call))),
                    "foreach" => Foreach::deserialize(fields).map(|each| Block::Foreach(Box::new(each))),
                    "emit" => Emit::deserialize(fields).map(|emit| Block::Emit(Box::new(emit))),
                    name if OF_BLOCKS.contains(&name) => Steps::deserialize(fields)?.block(),
                    _ => Step::deserialize(fields).map(|step| Block::Step(Box::new(step))),
                }
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A mapping of which the first name was read already.
struct Peeked<A> {
    first: Option<String>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for &mut Peeked<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(name) => {
                let name: StringDeserializer<A::Error> = name.into_deserializer();
                seed.deserialize(name).map(Some)
            }
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// A block as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Steps {
    parallel: Option<Located<String>>,
    sequence: Option<Located<String>>,
    join: Option<Join>,
    steps: Located<Vec<Block>>,
}

impl Steps {
    fn block<E: Error>(self) -> Result<Block, E> {
        let Self { parallel, sequence, join, steps } = self;
        match (parallel, sequence) {
            (Some(parallel), None) => Ok(Block::Parallel(Parallel { parallel, join, steps })),
            (None, Some(_)) if join.is_some() => Err(E::custom("a sequence has no `join`: leave it out")),
            (None, Some(sequence)) => Ok(Block::Sequence(Sequence { sequence, steps })),
            (None, None) => Err(E::missing_field("parallel")),
            (Some(_), Some(_)) => Err(E::custom("a block is either `parallel` or a `sequence`")),
        }
    }
}

impl<'de> Deserialize<'de> for Retry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Retry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a retry policy, or a policy")
            }

            fn visit_str<E>(self, name: &str) -> Result<Retry, E> {
                Ok(Retry::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Retry, A::Error> {
                Policy::deserialize(MapAccessDeserializer::new(map)).map(Retry::Inline)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Compensate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Compensate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, or a mapping with a `command`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Compensate, E> {
                match text {
                    "none" => Ok(Compensate::None),
                    _ => Err(E::custom(format!("{text:?} is neither `none` nor a mapping with a `command`"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Compensate, A::Error> {
                let compensation = Compensation::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Compensate::By(Box::new(compensation)))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::problem::place_of;

    const ORDER: &str = include_str!("../../sagas/order.yaml");

    #[test]
    fn bombs_of_aliases_and_of_depth_are_refused() {
        let mut aliases = "a: &a [x, x]\n".to_owned();
        for (name, before) in ["b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"]
            .iter()
            .zip("abcdefghijklm".chars())
        {
            aliases.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(", ")));
        }
        let bombs = [
            ORDER.replace(
                "body: {order_id: =saga.business_key, reason: =saga.error}",
                &format!("body: {}", "[".repeat(10_000)),
            ),
            format!("{ORDER}attributes:\n{}x", "  - ".repeat(2000)),
            aliases.clone(),
        ];
        for bomb in bombs {
            assert!(parse("bomb.yaml", &bomb).is_err());
        }
        let body = |body: &str| ORDER.replace("{order_id: =saga.business_key, reason: =saga.error}", body);
        let list = |items: Vec<String>| body(&format!("[{}]", items.join(", ")));
        let nested =
            aliases.lines().filter_map(|line| line.split_once(": ")).map(|(_, list)| list.to_owned());
        let nested: Vec<_> = nested.collect();
        let own_words = [
            (list(vec!["1".to_owned(); MAX_NODES]), "the definition has more than 20000 nodes"),
            (
                list([vec!["&a 1".to_owned()], vec!["*a".to_owned(); 1001]].concat()),
                "the definition has more than 1000 aliases",
            ),
            (
                list((0..=100).map(|at| format!("&a{at} 1")).collect()),
                "the definition has more than 100 anchors",
            ),
            (
                list([vec!["&a {x: 1}".to_owned()], vec!["{<<: *a}".to_owned(); 101]].concat()),
                "the definition has more than 100 merges (`<<`)",
            ),
            (
                body(&format!("\n{}{}x", " ".repeat(20), "- ".repeat(40))),
                "the definition nests deeper than 32 levels",
            ),
            ("#".repeat(MAX_SOURCE + 1), "the definition has more than 1048576 bytes"),
            (body("&a [*a]"), "an alias stands within what it stands for"),
            (list(nested), "the aliases stand for too much"),
        ];
        for (bomb, message) in own_words {
            assert_eq!(parse("bomb.yaml", &bomb).unwrap_err().message, message);
        }
    }

    #[test]
    fn what_does_not_have_the_form_of_a_definition_is_refused_with_its_place() {
        // Each row: what is replaced in the order saga, by what, where the problem is, what it says
        // and what it advises.
        let rows = [
            ("timeout: 5s", "timeuot: 5s", "timeuot", "unknown field \"timeuot\"", "did you mean `timeout`?"),
            ("kind: pivot", "limits: x", "limits: x", "unknown field \"limits\"", "did you mean `limit`?"),
            ("step: ship", "wiat: x", "wiat: x", "unknown field \"wiat\"", "did you mean `wait`?"),
            ("kind: pivot", "emit: x", "emit: x", "unknown field \"emit\"", "the first field of its entry"),
            (
                "step: ship",
                "delay: x",
                "kind: pivot",
                "unknown field \"kind\"",
                "one of delay, when, for, until",
            ),
            ("step: ship", "paralel: x", "paralel: x", "unknown field", "did you mean `parallel`?"),
            (
                "step: ship",
                "parallel: x",
                "kind: pivot",
                "unknown field \"kind\"",
                "one of parallel, sequence",
            ),
            ("kind: pivot", "parallel: x", "parallel: x", "unknown field", "either a step or a block"),
            ("step: ship", "join: nay", "nay", "unknown value \"nay\"", "there is only `all`"),
            ("kind: pivot", "kind: pivto", "pivto", "unknown value \"pivto\"", "did you mean `pivot`?"),
            (
                "outcome: success",
                "outcome: fine",
                "fine",
                "unknown value \"fine\"",
                "one of success, failure",
            ),
            (
                "version: 1",
                "version: one",
                "one\n",
                "`version` must be a whole number from 1, found `one`",
                "",
            ),
            ("version: 1", "version: 1\nversion: 2", "version: 2", "\"version\" is there twice", ""),
            ("\nversion: 1\n", "\n", "saga: order", "missing field \"version\"", ""),
            ("saga: order\n", "saga:\n", ":\n# A version", "`saga` must be a text, found nothing", ""),
            (
                "saga: order\n",
                "saga: [order]\n",
                "[order]",
                "`saga` must be a single value, found a list",
                "",
            ),
            ("steps:\n", "steps: {}\nstep:\n", "{}\nstep", "`steps` must be a list, found a mapping", ""),
            ("timeout: 5s", "timeout: 5 s", "5 s", "\"5 s\" is not a duration", ""),
            ("attempts: 4", "attempts: few", "few,", "neither a number of attempts", ""),
            ("attempts: 4", "attmepts: 4", "attmepts", "unknown field", "did you mean `attempts`?"),
            ("retry: undo", "retry: {delay: 1s}", "delay: 1s", "unknown field \"delay\"", "one of attempts"),
            ("=input.items}", "*other}", "*other", "unknown anchor", ""),
            ("on_compensated:", "---\nother:", "other:", "one definition", "file of its own"),
        ];
        for (from, to, place, message, hint) in rows {
            let source = ORDER.replacen(from, to, 1);
            let problem = parse("f.yaml", &source).expect_err(to);
            assert!(problem.message.contains(message), "{problem}");
            assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{problem}");
            assert_eq!((problem.line, problem.column), place_of(place, &source), "{problem}");
        }
    }

    #[test]
    fn numbers_of_a_definition_keep_their_digits() {
        for number in
            ["12.50", "7.0", "-0", "123456789012345678901", "0.1234567890123456789", "-9223372036854775809"]
        {
            for (body, expected) in [
                ("{a: N}", r#"{"a":N}"#),
                ("{a: [N, {b: N}]}", r#"{"a":[N,{"b":N}]}"#),
                ("{a: &x N, b: *x}", r#"{"a":N,"b":N}"#),
                ("\n        é: \"ü\"\n        a: N # 1", r#"{"a":N,"é":"ü"}"#),
            ] {
                let (body, expected) = (body.replace('N', number), expected.replace('N', number));
                let source = ORDER.replacen("{order_id: =saga.business_key, reason: =saga.error}", &body, 1);
                let definition = parse("f.yaml", &source).expect(&body);
                let text = serde_json::to_string(&definition).unwrap();
                assert!(text.contains(&expected), "{expected} in {text}");
            }
        }
        let hash = |body: &str| {
            parse("f.yaml", &ORDER.replace("{order_id: =saga.business_key, reason: =saga.error}", body))
                .unwrap()
                .hash()
        };
        assert_ne!(hash("{a: 123456789012345678901}"), hash("{a: 123456789012345678902}"));
    }

    #[test]
    fn scalars_that_do_not_say_what_they_seem_to_say_are_refused_with_their_place() {
        let body = "{order_id: =saga.business_key, reason: =saga.error}";
        let rows = [
            (body, "{zip: 01234}", "01234", "a number with a leading zero", "quote it, \"01234\""),
            (body, "{mode: 0755}", "0755", "a number with a leading zero", "quote it"),
            (body, "{agent: [007]}", "007]", "a number with a leading zero", "quote it"),
            (body, "{x: -08.5}", "-08.5", "a number with a leading zero", "quote it"),
            ("version: 1", "version: 01", "01\n", "a number with a leading zero", "quote it"),
            (body, "{x: .5}", ".5}", "JSON writes in another way", "such as `0.5`"),
            (body, "{prefix: +49}", "+49", "JSON writes in another way", "such as `49`, or quote it"),
            (body, "{part: 1_000}", "1_000", "JSON writes in another way", "such as `1000`, or quote it"),
            (body, "{mask: [0b11]}", "0b11", "JSON writes in another way", "such as `3`, or quote it"),
            (body, "{x: !money 12}", "12}", "the tag `!money` means nothing here", "remove it"),
            (
                "kind: pivot",
                "when:\n    kind: pivot",
                "when:\n",
                "`when` must be a condition, found nothing",
                "leave `when` out",
            ),
        ];
        for (from, to, place, message, hint) in rows {
            let source = ORDER.replacen(from, to, 1);
            let problem = parse("f.yaml", &source).expect_err(to);
            assert!(problem.message.contains(message), "{problem}");
            assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{problem}");
            assert_eq!((problem.line, problem.column), place_of(place, &source), "{problem}");
        }
        // In free values, `when` is a name like any other.
        parse("f.yaml", &ORDER.replacen(body, "{when: , n: 0x1F, z: 0, d: 0.5, t: \"007\", s: !!str 12}", 1))
            .unwrap();
    }

    #[test]
    fn a_block_is_told_from_a_step_by_any_of_its_fields() {
        let head =
            "saga: s\nversion: 1\nstart: {on: {exchange: e, key: k}, business_key: =event.id}\nsteps:\n";
        let step = "{command: {exchange: e, key: k}, step: a}";
        for block in ["{join: all, parallel: p, steps: [STEP]}", "{steps: [STEP], sequence: s}", "STEP"] {
            parse("f.yaml", &format!("{head}- {}", block.replace("STEP", step))).expect(block);
        }
        let refused = [
            ("{steps: [], join: all}", "5:15", "missing field \"parallel\""),
            ("{parallel: p, join: all}", "5:17", "missing field \"steps\""),
            ("{sequence: s, steps: [], join: all}", "5:3", "a sequence has no `join`"),
            ("{parallel: p, steps: [], sequence: s}", "5:3", "either `parallel` or a `sequence`"),
            ("parallel", "5:3", "expected a mapping, found `parallel`"),
            ("{}", "5:3", "missing field \"step\""),
        ];
        for (block, place, message) in refused {
            let problem = parse("f.yaml", &format!("{head}- {block}\n")).expect_err(block);
            assert!(problem.message.contains(message), "{problem}");
            assert_eq!(format!("{}:{}", problem.line, problem.column), place, "{problem}");
        }
    }
}
