//! A life cycle: started, used and misused, stopped, and started again.

use std::collections::BTreeMap;
use std::process::Command;

use lapin::BasicProperties;
use lapin::message::BasicGetMessage;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::process::{Site, eventually};
use crate::{BROKER, order_saga};

const PREFIX: &str = "life";
const KEY: &str = "A-1";

#[test]
fn poison_is_dead_lettered_once_and_a_restart_takes_the_instance_up_unchanged() {
    let url = BROKER.url();
    let peer = Peer::connect(&url);
    peer.tap("inventory", "life.tap");
    let site = Site::with_broker(&order_saga("", "10m"), &url, PREFIX);
    let mut orchestrator = site.run_until_ready();
    assert_eq!(site.printed(&["ready"]), "ready\n");
    assert_eq!(site.printed(&["list"]), "no sagas\n");
    assert_eq!(site.printed(&["dead-letters"]), "no dead letters\n");
    site.call(&["show", KEY]).assert_refused(1, &["there is no saga with id or business key \"A-1\""]);
    site.call(&["list", "--after", "yesterday"]).assert_refused(2, &["\"after\"", "2026-01-31T12:00:00Z"]);

    place_order(&url);
    eventually("the command is confirmed", || {
        let sagas = site.json(&["list", "--json"]);
        let begun = sagas["items"].as_array().is_some_and(|items| items.len() == 1);
        begun && facts(&show(&site)).contains(&"published".to_owned())
    });
    let before = show(&site);
    assert_eq!(
        (&before["status"], &before["current"], &before["to_come"]),
        (&json!("running"), &json!(["reserve_stock"]), &json!(["charge_payment", "ship"]))
    );
    let listed = site.json(&["list", "--json", "--status", "running"])["items"][0].clone();
    assert_eq!((&listed["id"], &listed["current"]), (&before["id"], &before["current"]));
    let text = site.printed(&["show", KEY]);
    for line in ["order A-1: running\n", "▶ reserve_stock ", "charge_payment, ship\n", "to come\n"] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }

    let mut commands = peer.drain("life.tap");
    assert_eq!(commands.len(), 1);
    let correlation_id = commands[0].properties.correlation_id().clone().unwrap();
    let reasons = publish_poison(&peer, correlation_id.as_str());
    eventually("every poison message is told of", || letters(&site).len() == reasons.len());
    assert_reasons(&letters(&site), &reasons);
    let mut dead = Vec::new();
    eventually("every poison message is in the dead-letter queue", || {
        dead.extend(peer.drain("life.dead"));
        dead.len() >= reasons.len()
    });
    let mut dead_ids: Vec<_> = dead.iter().map(message_id).collect();
    dead_ids.sort();
    assert_eq!(dead_ids, reasons.keys().cloned().collect::<Vec<_>>());
    let mut after = show(&site);
    let told = after["history"].as_array_mut().unwrap().pop().unwrap();
    assert!(told["facts"][0]["reason"].as_str().unwrap().contains("maybe"), "{told}");
    for field in ["updated_at", "ignored"] {
        after[field] = before[field].clone();
    }
    assert_eq!(after, before, "poison changed more than the history");

    orchestrator.stop();
    let mut orchestrator = site.run_until_ready();
    let after = show(&site);
    for field in ["id", "status", "current", "to_come", "started_at", "input"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_reasons(&letters(&site), &reasons);
    assert_eq!(peer.drain("life.dead").len(), 0);
    // Another event about the same order.
    let again = crate::order(KEY, "");
    peer.publish("orders", "order.placed", again.as_bytes(), BasicProperties::default());
    eventually("the repeated order is ignored", || show(&site)["ignored"] == 2);
    orchestrator.stop();
    commands.extend(peer.drain("life.tap"));
    let all: Vec<_> = commands.iter().map(|command| (&command.properties, &command.data)).collect();
    assert!(all.iter().all(|command| *command == all[0]), "a repeat differs: {all:#?}");

    // Killed before it has noted that the command is out, it sends the same again.
    let orchestrator = site.run_until_ready();
    let body = crate::order("A-2", "");
    peer.publish("orders", "order.placed", body.as_bytes(), BasicProperties::default());
    let mut commands = Vec::new();
    eventually("the command is out", || {
        commands.extend(peer.drain("life.tap"));
        !commands.is_empty()
    });
    drop(orchestrator);
    let mut orchestrator = site.run_until_ready();
    eventually("the command is confirmed", || {
        facts(&site.json(&["show", "A-2", "--json"])).contains(&"published".to_owned())
    });
    orchestrator.stop();
    commands.extend(peer.drain("life.tap"));
    let all: Vec<_> = commands.iter().map(|command| (&command.properties, &command.data)).collect();
    assert!(all.iter().all(|command| *command == all[0]), "a repeat differs: {all:#?}");
}

/// By the sample service, as a user does.
fn place_order(url: &str) {
    let program = std::env::current_exe().unwrap().parent().unwrap().join("../examples/order");
    assert!(program.exists(), "{} is missing: run `cargo build --examples`", program.display());
    let placed = Command::new(program).args(["--order-id", KEY]).env("AMQP_URL", url).output().unwrap();
    assert!(placed.status.success(), "{placed:?}");
}

/// Publishes a message of every kind that can never be used; returns what must be said of each id, and its size.
fn publish_poison(peer: &Peer, correlation_id: &str) -> BTreeMap<String, (&'static str, usize)> {
    let plain = BasicProperties::default;
    let maybe = BasicProperties::default().with_correlation_id(correlation_id.into()).with_headers(
        [("x-saga-outcome".into(), lapin::types::AMQPValue::LongString("maybe".into()))]
            .into_iter()
            .collect::<BTreeMap<_, _>>()
            .into(),
    );
    let fine = crate::order("B-1", "");
    let large = crate::order("B-2", &"x".repeat(2 << 20));
    let deep = "[".repeat(1000) + &"]".repeat(1000);
    let poison = [
        ("orders", "this is no order", plain(), "not JSON"),
        ("orders", &large, plain(), "limit"),
        ("orders", &fine, plain().with_content_encoding("gzip".into()), "gzip"),
        ("orders", &deep, plain(), "recursion limit"),
        ("orders", "{\"event_id\": null}", plain(), "business_key"),
        ("", "{}", plain(), "correlation_id"),
        ("", "{}", maybe, "maybe"),
    ];
    let mut reasons = BTreeMap::new();
    for (number, (exchange, body, properties, reason)) in poison.into_iter().enumerate() {
        let id = format!("poison-{number}");
        let key = if exchange.is_empty() { "life.replies" } else { "order.placed" };
        peer.publish(exchange, key, body.as_bytes(), properties.with_message_id(id.as_str().into()));
        reasons.insert(id, (reason, body.len()));
    }
    reasons
}

fn assert_reasons(letters: &[Value], reasons: &BTreeMap<String, (&str, usize)>) {
    assert_eq!(letters.len(), reasons.len(), "{letters:#?}");
    for (id, (reason, size)) in reasons {
        let of_this = |letter: &&Value| letter["message_id"] == id.as_str();
        let letter = letters.iter().find(of_this).unwrap_or_else(|| panic!("{id} is missing"));
        let told = letter["reason"].as_str().unwrap();
        assert!(told.contains(reason), "{id}: {told}");
        assert_eq!(letter["size"], *size, "{id}");
    }
}

fn letters(site: &Site) -> Vec<Value> {
    site.json(&["dead-letters", "--json"])["items"].as_array().unwrap().clone()
}

fn show(site: &Site) -> Value {
    site.json(&["show", KEY, "--json"])
}

fn facts(details: &Value) -> Vec<String> {
    let entries = details["history"].as_array().unwrap().iter();
    let facts = entries.flat_map(|entry| entry["facts"].as_array().unwrap());
    facts.map(|fact| fact["fact"].as_str().unwrap().to_owned()).collect()
}

fn message_id(message: &BasicGetMessage) -> String {
    message.properties.message_id().as_ref().unwrap().to_string()
}
