//! Doors for fuzzing: what reads bytes from outside, each as one function of arbitrary bytes. It panics
//! where something is broken, and returns where all is well, whether the bytes meant anything or not.
//!
//! The targets in `fuzz/` and the tests below call the same functions. They are in the crate for tests
//! and with the feature `faults` only.
//!
//! A message is written as people write mail, so that a corpus can be read: lines of `name: value`, an
//! empty line, the body. A name is that of a property or of a header; a header's value may be JSON.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::saga::compile;
use crate::saga::expression::MAX_KEY;
use crate::saga::fact::HistoryEntry;
use crate::saga::id::{Phase, StoreId};
use crate::saga::instance::Instance;
use crate::saga::message::{Message, Outgoing, RawMessage};
use crate::saga::plan::Plan;
use crate::saga::reply::{self, Outcome, Via};
use crate::saga::time::Timestamp;
use crate::saga::transition::{self, Event};

pub use crate::saga::fuzzing::{definition, expression};
pub use crate::store::fuzzing::record;

/// Bytes that a body may have here: few, so that it is often more.
const LIMIT: usize = 2048;

/// What a text that is made of a message may have beside so many times the message's own bytes.
const SLACK: usize = 4096;
/// How much longer a text may get, in which everything is escaped and repeated a few times.
const GROWTH: usize = 64;

/// Time of every event.
const NOW: Timestamp = Timestamp(1_767_323_045_678);

/// A definition whose expressions look at all of a message.
const DEFINITION: &str = r#"
saga: fuzz
version: 1
start:
  on: {exchange: e, key: start}
  business_key: '=has(event.data.id) ? event.data.id : event.id'
  input:
    whole: =event.data
    metadata: =event.metadata
    headers: =event.headers
    place: [=event.exchange, =event.key, =event.time, =event.source, =event.type]
attributes:
  subject: '=string(event.metadata.subject)'
  first: =input.whole.items[0]
deadline: {after: 1h, then: compensate}
retry:
  few: {attempts: 3, initial: 10ms, max: 1s}
steps:
  - step: first
    command: {exchange: e, key: do, body: {all: =input.whole, key: =saga.business_key}}
    replies:
      - on: {exchange: e, key: done}
        business_key: =reply.data.id
        when: '=reply.data.items.exists(i, i.n > 1.5) && reply.data.name.startsWith("a")'
        outcome: success
      - on: {exchange: e, key: done}
        when: '=size(reply.data) > 1 || "x" in reply.headers'
        outcome: retry
        error: AGAIN
      - on: {exchange: e, key: done}
        outcome: failure
    output: {whole: =reply.data, sum: '=reply.data.a + reply.data.b', list: '=reply.data.items.map(i, string(i))'}
    retry: few
    compensate:
      command: {exchange: e, key: undo, body: {out: =steps.first.output}}
      retry: few
  - step: second
    kind: pivot
    when: '=has(input.whole.second) || size(steps.first.output) > 0'
    command: {exchange: e, key: go, body: {out: =steps.first.output.whole, text: '=string(input.whole.id) + "!"'}}
    output: =reply.metadata
on_completed:
  emit: {exchange: e, key: end, body: {key: =saga.business_key, out: =steps.second.output}}
on_compensated:
  emit: {exchange: e, key: end, body: {error: =saga.error}}
"#;

static PLAN: LazyLock<Plan> =
    LazyLock::new(|| compile::load("fuzz", DEFINITION).expect("it is a definition"));

/// A message in any state, decoded.
///
/// # Panics
/// The decoder is broken.
pub fn decode(data: &[u8]) {
    let raw = message(data);
    let size = raw.body.len();
    match crate::saga::decode::decode(raw, LIMIT) {
        Ok(message) => {
            assert!(size.max(message.size) <= LIMIT, "a body of {size} bytes was taken");
            assert_again(&message.data);
            assert_bounded("message", format!("{message:?}").len(), data);
        }
        Err(poison) => assert_bounded("reason", poison.to_string().len(), data),
    }
}

/// A body in every envelope that there is, decoded, and then taken for a start and for answers.
///
/// # Panics
/// The decoder, the rules of a definition or the transition function are broken.
pub fn envelope(data: &[u8]) {
    let raw = message(data);
    let body = serde_json::from_slice(&raw.body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&raw.body).into_owned()));
    let mut binary = raw.headers.clone();
    for (name, value) in [("specversion", "1.0"), ("id", "1"), ("type", "t"), ("source", "s")] {
        binary.entry(format!("ce-{name}")).or_insert_with(|| value.into());
    }
    let cloud_event = json!({"specversion": "1.0", "id": "1", "type": "t", "source": "s", "data": body});
    let own = json!({"event_id": 1, "event_type": "t", "data": body, "metadata": raw.headers});
    let with = |headers: &Map<String, Value>, body: &Value| {
        let body = body.to_string().into_bytes();
        let raw = RawMessage { headers: headers.clone(), body, content_encoding: None, ..raw.clone() };
        crate::saga::decode::decode(raw, usize::MAX)
    };
    if let Ok(message) = with(&raw.headers, &cloud_event) {
        assert_eq!(message.data, body, "an envelope is taken off once, and nothing else is");
    }
    for message in [
        with(&raw.headers, &cloud_event),
        with(&binary, &body),
        with(&raw.headers, &own),
        with(&raw.headers, &body),
    ]
    .into_iter()
    .flatten()
    {
        live(&message, data);
    }
}

/// Takes a message for a start, and then for the answer to whatever is in flight.
fn live(message: &Message, data: &[u8]) {
    for key in reply::business_keys(&PLAN, message).into_iter().flatten() {
        assert!((1..=MAX_KEY).contains(&key.len()), "a business key of {} bytes", key.len());
    }
    let key = match transition::business_key(&PLAN, message) {
        Ok(key) => key,
        Err(error) => return assert_bounded("reason", error.to_string().len(), data),
    };
    assert!((1..=MAX_KEY).contains(&key.len()), "a business key of {} bytes", key.len());
    let (mut instance, decision) = match transition::start(&PLAN, key, message, StoreId::simulated(), NOW) {
        Ok(started) => started,
        Err(error) => return assert_bounded("reason", error.to_string().len(), data),
    };
    let mut history = Vec::new();
    keep(&mut instance, decision, &mut history, data);
    for step in 0..PLAN.steps.len() {
        for phase in [Phase::Action, Phase::Compensation] {
            let _ = reply::answered_step(&PLAN, &instance, message);
            let outcome =
                match reply::read(&PLAN, step, phase, &instance, message, Via::exchange(&message.exchange)) {
                    Ok(outcome) => outcome,
                    Err(unreadable) => {
                        assert_bounded("reason", unreadable.to_string().len(), data);
                        Outcome::Success(Ok(message.data.clone()))
                    }
                };
            let event = Event::Reply {
                step,
                phase,
                attempt: None,
                outcome,
                message_id: message.id.clone(),
                event: None,
            };
            let decision = transition::transition(&PLAN, &mut instance, event, NOW);
            keep(&mut instance, decision, &mut history, data);
        }
    }
}

/// Does with a decision what the engine and the store do, and checks that it can be taken up again.
fn keep(
    instance: &mut Instance,
    decision: transition::Decision,
    history: &mut Vec<HistoryEntry>,
    data: &[u8],
) {
    for Outgoing { body, headers, .. } in &decision.outgoing {
        assert_bounded("command", body.len() + format!("{headers:?}").len(), data);
        assert!(!headers.texts().any(|(_, value)| value.contains(|c: char| c.is_control())), "{headers:?}");
        serde_json::from_slice::<Value>(body).expect("a participant can read the body");
    }
    if decision.facts.is_empty() {
        return;
    }
    instance.revision += 1;
    let entry =
        HistoryEntry { revision: instance.revision, causation_id: None, user: None, facts: decision.facts };
    history.push(assert_again(&entry));
    assert_eq!(Instance::replay(instance.id, history).as_ref(), Some(&*instance), "the fold of its history");
    // The input is stored with the history alone.
    assert_again(&Instance { input: Arc::default(), ..instance.clone() });
}

/// Checks that what is stored can be read again, and is the same.
pub(crate) fn assert_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> T {
    let text = serde_json::to_vec(value).expect("it is JSON");
    let again: T = serde_json::from_slice(&text).expect("what is stored can be read again");
    assert_eq!(&again, value, "what is stored is read again as it was");
    again
}

fn assert_bounded(what: &str, length: usize, data: &[u8]) {
    let limit = data.len() * GROWTH + SLACK;
    assert!(length <= limit, "a {what} of {length} bytes came from {} bytes", data.len());
}

/// Reads a message as the corpus has it.
fn message(data: &[u8]) -> RawMessage {
    let mut raw = RawMessage::default();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        set(&mut raw, name, value.to_owned());
    }
    raw.body = rest.to_vec();
    raw
}

fn set(raw: &mut RawMessage, name: &str, value: String) {
    match name {
        "exchange" => raw.exchange = value,
        "key" => raw.key = value,
        "message_id" => raw.message_id = Some(value),
        "correlation_id" => raw.correlation_id = Some(value),
        "type" => raw.kind = Some(value),
        "app_id" => raw.app_id = Some(value),
        "content_type" => raw.content_type = Some(value),
        "content_encoding" => raw.content_encoding = Some(value),
        "timestamp" => raw.timestamp = value.parse().ok(),
        _ => {
            let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
            raw.headers.insert(name.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::saga::expression::Expression;

    /// The seeds of a target, with their names.
    fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
        let mut seeds: Vec<_> = files
            .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
            .collect();
        seeds.sort();
        seeds
    }

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        corpus(target).into_iter().map(|(_, seed)| seed).collect()
    }

    /// A seed with a few places overwritten, cut out, or doubled, as a fuzzer does; or anything at all.
    fn near(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
        let place = (any::<prop::sample::Index>(), 0..12usize);
        let edits =
            prop::collection::vec((place, prop::collection::vec(any::<u8>(), 0..6), any::<bool>()), 0..6);
        let edited = (prop::sample::select(seeds(target)), edits).prop_map(|(mut seed, edits)| {
            for ((at, length), bytes, doubled) in edits {
                let start = at.index(seed.len() + 1);
                let end = seed.len().min(start + length);
                let old = if doubled { seed[start..end].repeat(2) } else { Vec::new() };
                seed.splice(start..end, old.into_iter().chain(bytes));
            }
            seed
        });
        prop_oneof![9 => edited, 1 => prop::collection::vec(any::<u8>(), 0..200)]
    }

    #[test]
    fn seeds_of_the_decoder_are_poison_where_their_names_say_so() {
        for (name, seed) in corpus("decode") {
            decode(&seed);
            let decoded = crate::saga::decode::decode(message(&seed), LIMIT);
            assert_eq!(decoded.is_err(), name.starts_with("poison-"), "{name}: {decoded:?}");
        }
    }

    #[test]
    fn seeds_of_the_envelope_start_an_instance_where_they_have_a_key() {
        for (name, seed) in corpus("envelope") {
            envelope(&seed);
            let message = crate::saga::decode::decode(message(&seed), usize::MAX).unwrap();
            let key = transition::business_key(&PLAN, &message);
            let refused = ["key-too-long", "key-that-is-none"].contains(&name.as_str());
            assert_eq!(key.is_err(), refused, "{name}: {key:?}");
            let started =
                key.and_then(|key| transition::start(&PLAN, key, &message, StoreId::simulated(), NOW));
            assert_eq!(started.is_err(), refused || name == "deeper-than-is-kept", "{name}: {started:?}");
        }
    }

    #[test]
    fn seeds_of_the_store_are_the_records_that_their_names_say() {
        for (name, seed) in corpus("record") {
            record(&seed);
            let is_entry = serde_json::from_slice::<HistoryEntry>(&seed[1..]);
            assert_eq!(is_entry.is_ok(), name.starts_with("entry-"), "{name}: {is_entry:?}");
            let is_instance = serde_json::from_slice::<Instance>(&seed[1..]);
            assert_eq!(is_instance.is_ok(), name == "instance", "{name}: {is_instance:?}");
        }
    }

    /// The error code that a seed's name begins with.
    fn code_in(name: &str) -> Option<String> {
        let code = name.split('-').next().filter(|first| first.len() == 5 && first.starts_with("s0"));
        code.map(str::to_uppercase)
    }

    #[test]
    fn seeds_of_definitions_are_refused_where_their_names_say_so() {
        for (name, seed) in corpus("definition") {
            definition(&seed);
            let loaded = compile::load("seed", &String::from_utf8_lossy(&seed));
            let code = loaded.err().map(|problems| problems[0].code.to_string());
            assert_eq!(code, code_in(&name), "{name}");
        }
    }

    #[test]
    fn seeds_of_expressions_are_refused_where_their_names_say_so() {
        for (name, seed) in corpus("expression") {
            expression(&seed);
            let compiled = Expression::compile(&String::from_utf8_lossy(&seed));
            assert_eq!(compiled.err().map(|error| error.code().to_string()), code_in(&name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_definition_breaks_the_checker(data in near("definition")) {
            definition(&data);
        }

        #[test]
        fn no_text_breaks_the_interpreter(data in near("expression")) {
            expression(&data);
        }

        #[test]
        fn no_message_breaks_the_decoder(data in near("decode")) {
            decode(&data);
        }

        #[test]
        fn no_body_in_an_envelope_breaks_a_saga(data in near("envelope")) {
            envelope(&data);
        }

        #[test]
        fn no_bytes_on_disk_break_the_store(data in near("record")) {
            record(&data);
        }
    }
}
