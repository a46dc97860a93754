//! Plays a case: over a real broker, by a real process.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::message::BasicGetMessage;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::Value;

use crate::BROKER;
use crate::faults::proxy::{Fault, How, Proxy, Way};
use crate::format::{Call, Case, Exchange, Expect, Instances, Message, Show, Step};
use crate::peer::Peer;
use crate::process::{Running, Site, eventually};

/// The orchestrator's connections.
const CONNECTIONS: [&str; 2] = ["sagamq consumer", "sagamq publisher"];

struct Scene {
    site: Site,
    broker: Option<Broker>,
}

/// What there is of a case only if it needs a broker.
struct Broker {
    peer: Peer,
    proxy: Option<Proxy>,
    orchestrator: Option<Running>,
    /// Exchanges at which commands are expected. Each has a queue of its name.
    taps: Vec<String>,
    /// Commands that have come and were not expected yet.
    waiting: Vec<(String, BasicGetMessage)>,
    /// Commands that have a name.
    known: BTreeMap<String, BasicGetMessage>,
}

/// Plays the case in this folder.
pub(crate) fn play(folder: &Path) {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let (mut scene, steps) = set_up(folder, name);
    for (index, step) in steps.iter().enumerate() {
        // The output of a test that fails ends with the step that it came to.
        println!("step {}: {step:?}", index + 1);
        match step {
            Step::Call(call) => scene.call(call),
            Step::Exchange(exchange) => scene.broker().make(exchange),
            Step::Run => scene.run(),
            Step::Publish(message) => scene.broker().publish(message),
            Step::Expect(expected) => scene.broker().expect(expected),
            Step::LoseAcks => scene.broker().lose_acks(),
            Step::Cut => scene.broker().cut(),
            Step::Show(show) => scene.show(show),
            Step::Instances(instances) => scene.instances(instances),
            Step::DeadLetters(reasons) => scene.dead_letters(reasons),
        }
    }
    if let Some(broker) = &mut scene.broker {
        broker.end();
    }
}

fn set_up(folder: &Path, name: &str) -> (Scene, Vec<Step>) {
    let read = |path: &Path| fs::read_to_string(path).unwrap().replace("PREFIX", name);
    // As in definitions, only `true` and `false` are booleans.
    let options = serde_saphyr::options! { strict_booleans: true };
    let case: Value = serde_saphyr::from_str_with_options(&read(&folder.join("case.yaml")), options).unwrap();
    let Case { steps } = serde_json::from_value(case).unwrap();
    let needs_broker = steps.iter().any(|step| !matches!(step, Step::Call(_)));
    let broker = needs_broker.then(|| Broker::new(&steps));
    let site = match &broker {
        Some(broker) => Site::with_broker("", &broker.url(), name),
        None => Site::new(""),
    };
    fs::remove_file(site.path("sagas/order.yaml")).unwrap();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let file = entry.file_name().into_string().unwrap();
        if file != "case.yaml" {
            site.write(&format!("sagas/{file}"), read(&entry.path()));
        }
    }
    (Scene { site, broker }, steps)
}

impl Scene {
    fn broker(&mut self) -> &mut Broker {
        self.broker.as_mut().unwrap()
    }

    fn call(&self, call: &Call) {
        let arguments: Vec<_> = call.arguments.iter().map(String::as_str).collect();
        let ended = self.site.call(&arguments);
        let said = ended.out + &ended.err;
        println!("{said}");
        assert_eq!(ended.code, Some(call.code));
        for part in &call.says {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        for part in &call.says_not {
            assert!(!said.contains(part), "{part:?} is in {said}");
        }
    }

    fn run(&mut self) {
        self.broker().orchestrator = None;
        let running = self.site.run_until_ready();
        self.broker().orchestrator = Some(running);
    }

    fn show(&self, show: &Show) {
        let mut arguments = vec!["show", &show.key, "--json"];
        arguments.extend(show.saga.iter().flat_map(|saga| ["--saga", saga]));
        let expected = Value::Object(show.has.clone());
        self.sees(&arguments, |seen| {
            has(seen, &expected) && show.history.iter().all(|(fact, count)| counted(seen, fact) == *count)
        });
    }

    fn instances(&self, expected: &Instances) {
        self.sees(&["list", "--json", "--saga", &expected.saga], |seen| {
            let mut keys = texts(&seen["items"], "business_key");
            keys.sort_unstable();
            keys == expected.keys
        });
    }

    fn dead_letters(&self, expected: &[String]) {
        self.sees(&["dead-letters", "--json"], |seen| {
            let reasons = texts(&seen["items"], "reason");
            let mut pairs = reasons.iter().rev().zip(expected);
            reasons.len() == expected.len() && pairs.all(|(reason, part)| reason.contains(part))
        });
    }

    /// Waits until a command prints a document that is so.
    fn sees(&self, arguments: &[&str], is_so: impl Fn(&Value) -> bool) {
        let mut last = String::new();
        eventually(&arguments.join(" "), || {
            let out = self.site.call(arguments).out;
            if out != last {
                println!("{out}");
                last = out;
            }
            serde_json::from_str(&last).is_ok_and(|seen| is_so(&seen))
        });
    }
}

impl Broker {
    fn new(steps: &[Step]) -> Self {
        let is_cut = steps.iter().any(|step| matches!(step, Step::LoseAcks | Step::Cut));
        let proxy = is_cut.then(|| Proxy::start(&BROKER.url()));
        let peer = Peer::connect(&BROKER.url());
        let mut taps: Vec<_> = steps.iter().filter_map(tap).collect();
        taps.sort();
        taps.dedup();
        for exchange in &taps {
            peer.tap(exchange, exchange);
        }
        Self { peer, proxy, orchestrator: None, taps, waiting: Vec::new(), known: BTreeMap::new() }
    }

    fn url(&self) -> String {
        self.proxy.as_ref().map_or_else(|| BROKER.url(), Proxy::url)
    }

    fn make(&self, exchange: &Exchange) {
        self.peer.exchange(&exchange.name, &exchange.kind, None);
        if let Some(to) = &exchange.to {
            self.peer.bind_exchange(&exchange.name, to, &exchange.key);
        }
    }

    fn publish(&self, message: &Message) {
        let properties = match &message.correlation_of {
            Some(name) => correlated(properties(message), &self.known[name]),
            None => properties(message),
        };
        self.peer.publish(&message.exchange, &message.key, &body(message), properties);
    }

    fn expect(&mut self, expected: &Expect) {
        let is_meant = |on: &str, command: &BasicGetMessage| {
            let has_text = expected.text.as_ref().is_none_or(|text| text.as_bytes() == command.data);
            on == expected.on && command.routing_key.as_str() == expected.key && has_text
        };
        let mut place = None;
        eventually(&format!("{expected:?}"), || {
            self.drain();
            place = self.waiting.iter().position(|(on, command)| is_meant(on, command));
            place.is_some()
        });
        let (_, command) = self.waiting.remove(place.unwrap());
        if let Some(reply) = &expected.reply {
            let properties = correlated(properties(reply), &command);
            let queue = command.properties.reply_to().as_ref().unwrap();
            self.peer.publish("", queue.as_str(), &body(reply), properties);
        }
        if let Some(name) = &expected.name {
            self.known.insert(name.clone(), command);
        }
    }

    fn drain(&mut self) {
        for exchange in &self.taps {
            for command in self.peer.drain(exchange) {
                println!("{}: {}", command.routing_key, String::from_utf8_lossy(&command.data));
                self.waiting.push((exchange.clone(), command));
            }
        }
    }

    fn lose_acks(&self) {
        let acks = Fault::SwallowAcks(u32::MAX);
        assert_eq!(self.proxy.as_ref().unwrap().inject("sagamq consumer", acks), 1);
    }

    fn cut(&self) {
        let proxy = self.proxy.as_ref().unwrap();
        for name in CONNECTIONS {
            assert_eq!(proxy.inject(name, Fault::Break { way: Way::ToClient, after: 0, how: How::Reset }), 1);
        }
        eventually("the connections break", || proxy.count(How::Reset.kind()) >= 2);
    }

    /// Everything that came was expected.
    fn end(&mut self) {
        self.drain();
        let left: Vec<_> = self.waiting.iter().map(|(_, command)| command.routing_key.as_str()).collect();
        assert!(left.is_empty(), "these were not expected: {left:?}");
        self.orchestrator.as_mut().unwrap().stop();
    }
}

fn tap(step: &Step) -> Option<String> {
    match step {
        Step::Expect(expected) => Some(expected.on.clone()),
        _ => None,
    }
}

fn body(message: &Message) -> Vec<u8> {
    let text = message.text.clone().map(String::into_bytes);
    let bytes = message.base64.as_ref().map(|text| STANDARD.decode(text).unwrap());
    let json = message.body.as_ref().map(|body| body.to_string().into_bytes());
    text.or(bytes).or(json).unwrap_or_default()
}

fn properties(message: &Message) -> BasicProperties {
    let mut properties = BasicProperties::default();
    let short = |text: &String| ShortString::from(text.as_str());
    if let Some(id) = &message.message_id {
        properties = properties.with_message_id(short(id));
    }
    if let Some(kind) = &message.content_type {
        properties = properties.with_content_type(short(kind));
    }
    if let Some(encoding) = &message.content_encoding {
        properties = properties.with_content_encoding(short(encoding));
    }
    if let Some(timestamp) = message.timestamp {
        properties = properties.with_timestamp(timestamp);
    }
    let mut headers = FieldTable::default();
    for (name, value) in &message.headers {
        headers.insert(name.as_str().into(), amqp(value));
    }
    if let Some(outcome) = &message.outcome {
        headers.insert("x-saga-outcome".into(), AMQPValue::LongString(outcome.as_str().into()));
    }
    properties.with_headers(headers)
}

fn correlated(properties: BasicProperties, command: &BasicGetMessage) -> BasicProperties {
    properties.with_correlation_id(command.properties.correlation_id().clone().unwrap())
}

fn amqp(value: &Value) -> AMQPValue {
    match value {
        Value::Null => AMQPValue::Void,
        Value::Bool(is) => AMQPValue::Boolean(*is),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| AMQPValue::Double(number.as_f64().unwrap()), AMQPValue::LongLongInt),
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Array(items) => AMQPValue::FieldArray(items.iter().map(amqp).collect::<Vec<_>>().into()),
        Value::Object(fields) => {
            let mut table = FieldTable::default();
            for (name, value) in fields {
                table.insert(name.as_str().into(), amqp(value));
            }
            AMQPValue::FieldTable(table)
        }
    }
}

/// Whether a document has what is expected of it.
fn has(seen: &Value, expected: &Value) -> bool {
    match (seen, expected) {
        (Value::Object(seen), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| has(seen.get(name).unwrap_or(&Value::Null), value))
        }
        (Value::Array(seen), Value::Array(expected)) => {
            seen.len() == expected.len()
                && seen.iter().zip(expected).all(|(seen, expected)| has(seen, expected))
        }
        _ => seen == expected,
    }
}

/// What each of a list's entries has in this field.
fn texts<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let entries = list.as_array().into_iter().flatten();
    entries.map(|entry| entry[field].as_str().unwrap_or_default()).collect()
}

/// How often a fact is on the history.
fn counted(seen: &Value, fact: &str) -> usize {
    let entries = seen["history"].as_array().into_iter().flatten();
    let facts = entries.flat_map(|entry| entry["facts"].as_array().into_iter().flatten());
    let is_meant = |known: &Value| {
        let reason = known["reason"].as_str().unwrap_or_default();
        known["fact"] == fact || known["fact"] == "ignored" && reason.split(':').next() == Some(fact)
    };
    facts.filter(|known| is_meant(known)).count()
}
