//! What `sagamq asyncapi` prints, judged by AsyncAPI's own parser.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sagamq::checker::evidence::{Placing, Seen};
use sagamq::definitions;
use sagamq::depict::asyncapi;
use sagamq::simulate::{Planned, Setting, Trouble, play};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// What every document is told, as it follows version 3.0.0 of the specification.
const NEWER_VERSION: &str = "asyncapi-latest-version";

/// What the parser makes of a document.
#[derive(Debug, Deserialize)]
struct Verdict {
    operations: Vec<String>,
    said: Vec<Said>,
}

#[derive(Debug, Deserialize)]
struct Said {
    code: String,
    message: String,
    path: String,
    severity: String,
}

impl Verdict {
    /// What is said against the document, each with its place.
    fn against(&self) -> Vec<String> {
        let against = self.said.iter().filter(|said| said.code != NEWER_VERSION);
        against.map(|said| format!("{}: {}: {}", said.severity, said.path, said.message)).collect()
    }

    /// Checks that nothing is said against a document, and that it was read.
    fn assert_valid(&self, document: &str) {
        assert_eq!(self.against(), [""; 0], "{document}");
        assert!(!self.operations.is_empty(), "{document} has no operations");
    }
}

/// Asks the parser about texts.
fn judged(texts: &[String]) -> Vec<Verdict> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/asyncapi");
    let remedy = "the parser of AsyncAPI is missing or does not run: `scripts/setup test` sees to it";
    assert!(here.join("node_modules/@asyncapi/parser").is_dir(), "{remedy}");
    let folder = TempDir::new().unwrap();
    let write = |(index, text): (usize, &String)| -> PathBuf {
        let path = folder.path().join(index.to_string());
        fs::write(&path, text).unwrap();
        path
    };
    let files: Vec<_> = texts.iter().enumerate().map(write).collect();
    let told = Command::new("node").arg(here.join("validate.js")).args(files).output().expect(remedy);
    assert!(told.status.success(), "{remedy}: {}", String::from_utf8_lossy(&told.stderr));
    let verdicts: Vec<_> = told.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(verdicts.len(), texts.len());
    verdicts.into_iter().map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// What the command prints.
fn printed(arguments: &[&str]) -> String {
    let told = Command::new(env!("CARGO_BIN_EXE_sagamq")).arg("asyncapi").args(arguments).output().unwrap();
    assert!(told.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

#[test]
fn nothing_is_said_against_the_documents_of_all_sagas() {
    let loaded = definitions::load_all(&["sagas".into()]).unwrap();
    let plans: Vec<_> = loaded.iter().map(|loaded| &*loaded.plan).collect();
    let participants = asyncapi::participants(&plans);
    assert!(participants.len() >= 10, "{participants:?}");
    let mut calls = vec![vec!["sagas"], vec!["sagas", "--format", "yaml"]];
    calls.extend(loaded.iter().map(|loaded| vec![loaded.file.as_str()]));
    calls.extend(participants.iter().map(|name| vec!["sagas", "--participant", name]));
    let texts: Vec<_> = calls.iter().map(|call| printed(call)).collect();
    for (call, verdict) in calls.iter().zip(judged(&texts)) {
        verdict.assert_valid(&format!("{call:?}"));
    }
}

#[test]
fn nothing_is_said_against_odd_names_and_all_forms_of_replies() {
    let odd = "tests/asyncapi/odd.yaml";
    let calls = [vec![odd], vec![odd, "--format", "yaml"], vec![odd, "--participant", "in/tray"]];
    for (call, verdict) in calls.iter().zip(judged(&calls.each_ref().map(|call| printed(call)))) {
        verdict.assert_valid(&format!("{call:?}"));
    }
}

/// What the simulated participants answer: all that the sagas keep of any reply.
fn reply_data() -> Value {
    json!({
        "reservation_id": "R-1", "payment_id": "P-1", "tracking_number": "N-1", "carrier": "C",
        "booking_id": "B-1", "price": 120.5, "account_id": "A-1",
    })
}

/// An event of the outside world, for a business key.
type Event = (&'static str, &'static str, &'static str, fn(&str) -> Value);

/// The events that start instances, one a saga.
const STARTS: [Event; 3] = [
    ("order", "orders", "order.placed", |id| {
        json!({
            "order_id": id, "customer_id": "C-1", "customer_email": "c@example.com", "items": [{"sku": "A"}],
            "total_amount": 19.99,
        })
    }),
    ("trip", "trips", "trip.requested", |id| {
        json!({
            "trip_id": id, "traveller_id": "C-1", "city": "Rome", "date": "2027-01-02", "nights": 3, "car": true,
        })
    }),
    (
        "signup",
        "signups",
        "signup.requested",
        |id| json!({"signup_id": id, "email": "c@example.com", "price": 12}),
    ),
];

/// Orders, trips and sign-ups in the simulator, where the participants are as bad as they may be.
fn setting() -> Setting {
    let files = STARTS.map(|(saga, ..)| PathBuf::from(format!("sagas/{saga}.yaml")));
    let placed = |exchange: &str, key: &str, body: Value, what: Placing| {
        Planned::new(exchange, key, body.to_string(), what)
    };
    let mut events = Vec::new();
    for business_key in (1..=6).map(|number| format!("K-{number}")) {
        for (saga, exchange, key, body) in STARTS {
            let what = Placing::Start { saga: saga.to_owned(), business_key: business_key.clone() };
            events.push(placed(exchange, key, body(&business_key), what));
        }
        let (saga, body) = ("signup".to_owned(), json!({"signup_id": business_key, "by": "ann"}));
        let approval = Placing::Answer { saga: saga.clone(), business_key: business_key.clone() };
        events.push(placed("signups", "signup.approved", body.clone(), approval));
        let withdrawal = Placing::Cancel { saga, business_key };
        events.push(placed("signups", "signup.withdrawn", body, withdrawal));
    }
    Setting {
        definitions: definitions::load_all(&files).unwrap(),
        events,
        reply_data: reply_data(),
        trouble: Trouble { delivery_faults: 8, ..Trouble::default() },
        ..Setting::default()
    }
}

#[test]
fn what_is_sent_is_what_the_document_says() {
    let setting = setting();
    let plans: Vec<_> = setting.definitions.iter().map(|loaded| &*loaded.plan).collect();
    let mut document = asyncapi::document(&plans, None);
    let messages = document["components"]["messages"].as_object_mut().unwrap();
    let notices = notices(messages);
    let mut unseen: BTreeSet<_> =
        messages.iter().filter(|(_, message)| is_sent(message)).map(|(id, _)| id.clone()).collect();
    assert_eq!(unseen.len(), 30);
    let headers: BTreeMap<_, _> =
        messages.iter().map(|(id, message)| (id.clone(), headers_of(message))).collect();
    let mut give = |id: &str, example: Value| {
        let examples = &mut messages[id]["examples"];
        match examples.as_array_mut() {
            Some(examples) if examples.len() < 3 => examples.push(example),
            Some(_) => {}
            None => *examples = json!([example]),
        }
    };
    let mut seeds = 0..200;
    while let (false, Some(seed)) = (unseen.is_empty(), seeds.next()) {
        for seen in play(&setting, seed).unwrap().evidence.messages {
            let id = id_of(&seen, &notices);
            let foreign: Vec<_> = seen.headers.keys().filter(|name| !headers[&id].contains(*name)).collect();
            assert!(foreign.is_empty(), "{id} is sent with {foreign:?}");
            unseen.remove(&id);
            give(&id, sent(&seen));
        }
    }
    assert!(unseen.is_empty(), "never sent: {unseen:?}");
    for (saga, _, _, body) in STARTS {
        let envelope = json!({"event_id": "E-1", "event_type": "Placed", "data": body("K-1")});
        give(&format!("{saga}.v1.start"), json!({"payload": body("K-1")}));
        give(&format!("{saga}.v1.start"), json!({"payload": envelope}));
    }
    for step in ["order.v1.reserve_stock", "order.v1.ship", "trip.v1.book_car", "signup.v1.open_account"] {
        let headers = json!({"x-saga-outcome": "success", "correlation_id": "one"});
        give(&format!("{step}.action.success"), json!({"headers": headers, "payload": reply_data()}));
    }
    judged(&[document.to_string()])[0].assert_valid("the document with examples");
}

/// The names of the headers that a message is described with.
fn headers_of(message: &Value) -> BTreeSet<String> {
    message["headers"]["properties"].as_object().unwrap().keys().cloned().collect()
}

/// Whether the orchestrator sends it.
fn is_sent(message: &Value) -> bool {
    message["headers"]["properties"]["app_id"].is_object()
}

/// The ids of the events that tell what became of an instance, by routing key.
fn notices(messages: &Map<String, Value>) -> BTreeMap<String, String> {
    let is_notice =
        |message: &Value| is_sent(message) && message["headers"]["properties"]["x-saga-step"].is_null();
    let notices = messages.iter().filter(|(_, message)| is_notice(message));
    notices.map(|(id, message)| (message["name"].as_str().unwrap().to_owned(), id.clone())).collect()
}

/// The id that the document has for a message of the orchestrator.
fn id_of(seen: &Seen, notices: &BTreeMap<String, String>) -> String {
    let header = |name: &str| seen.headers.get(name).cloned().unwrap();
    match seen.headers.get("x-saga-step") {
        Some(step) => {
            format!(
                "{}.v{}.{step}.{}",
                header("x-saga-name"),
                header("x-saga-version"),
                header("x-saga-phase")
            )
        }
        None => notices[&seen.key].clone(),
    }
}

/// The message with the properties that the simulated broker does not tell.
fn sent(seen: &Seen) -> Value {
    let mut headers = json!(seen.headers);
    for (property, value) in [
        ("message_id", json!(seen.message_id)),
        ("type", json!(seen.key)),
        ("app_id", json!("sagamq")),
        ("timestamp", json!(1)),
    ] {
        headers[property] = value;
    }
    if seen.headers.contains_key("x-saga-command-id") {
        headers["correlation_id"] = json!(seen.message_id);
        headers["reply_to"] = json!("sagamq.replies");
    }
    json!({"headers": headers, "payload": serde_json::from_str::<Value>(&seen.body).unwrap()})
}

#[test]
fn the_parser_finds_a_broken_reference_a_wrong_form_and_a_message_that_is_not_as_described() {
    let loaded = definitions::load_all(&["sagas/order.yaml".into()]).unwrap();
    let document = || asyncapi::document(&[&loaded[0].plan], None);
    let mut broken = document();
    broken["operations"]["order.v1.start"]["channel"]["$ref"] = json!("#/channels/nowhere");
    let mut formless = document();
    formless["operations"]["order.v1.start"]["action"] = json!("shout");
    let mut untrue = document();
    let message = &mut untrue["components"]["messages"]["order.v1.reserve_stock.action"];
    message["examples"] = json!([{"payload": {"order_id": "O-1"}}]);
    let verdicts = judged(&[broken, formless, untrue].map(|document| document.to_string()));
    let places =
        ["order.v1.start/channel/$ref", "order.v1.start/action", "order.v1.reserve_stock.action payload"];
    for (verdict, place) in verdicts.iter().zip(places) {
        let found = |said: &String| said.starts_with("error: ") && said.contains(place);
        assert!(verdict.against().iter().any(found), "{place}: {verdict:#?}");
    }
}
