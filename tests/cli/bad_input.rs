//! Whatever a sender makes up: it is refused with one dead letter, or it is an order like any other. The
//! orchestrator lives on, and tells of it in lines that hold.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::process::{PATIENCE, Running, Site, eventually};
use crate::raw::{RawPeer, RawProperties, header, nested_arrays, text};
use crate::{BROKER, order, order_saga};

/// Bytes that a body may have.
const LIMIT: usize = 1 << 20;

/// Messages of each kind in a burst of what is refused, and how much more memory it may take, in MiB.
const BURST: usize = 200;
const REFUSED_MIB: u64 = 64;
/// Values that a body may hold.
const MOST_VALUES: usize = 50_000;
/// Orders in a burst, each with as many values as may be, and how much more memory they may take, in MiB.
const ORDERS: usize = 100;
const ORDERS_MIB: u64 = 800;

/// One of everything that control characters and worse can do to a text.
const ODD: &str = "a\r\n2026-01-01T00:00:00Z ERROR forged: \"b\"\t\0\u{1b}[2J\u{7f}\u{85}\u{2028}é\u{1f600}";

/// A message, and what is said of it.
struct Bad {
    id: &'static str,
    reason: &'static str,
    properties: RawProperties,
    body: Vec<u8>,
}

fn bad(id: &'static str, reason: &'static str, body: impl Into<Vec<u8>>) -> Bad {
    let properties = RawProperties { message_id: Some(id.into()), ..RawProperties::default() };
    Bad { id, reason, properties, body: body.into() }
}

fn with_headers(headers: Vec<u8>, bad: Bad) -> Bad {
    Bad { properties: RawProperties { headers: Some(headers), ..bad.properties }, ..bad }
}

/// One of every kind, in orders that would else be placed.
fn bad_orders() -> Vec<Bad> {
    let order_of = |id: Value| json!({"order_id": id, "items": []}).to_string();
    let many: Vec<u8> =
        (0..6_000).flat_map(|number| header(format!("h{number}").as_bytes(), b"t\x01")).collect();
    let odd = header(ODD.as_bytes(), &text(ODD.as_bytes()));
    let no_key = || order_of(Value::Null);
    vec![
        bad("large", "body of 1048577 bytes is over the limit", format!("\"{}\"", "x".repeat(LIMIT - 1))),
        bad("deep", "recursion limit", "[".repeat(128) + &"]".repeat(128)),
        bad("latin-1", "not JSON", b"{\"order_id\": \"\xe9\"}".to_vec()),
        bad("nul", "not JSON", order_of(json!("A-1")) + "\0"),
        bad("empty", "no field \"order_id\"|null", ""),
        bad("object", "is an object", order_of(json!({"id": 1}))),
        bad("array", "is a list", order_of(json!(["A-1"]))),
        bad("boolean", "is a boolean", order_of(json!(true))),
        bad("no-text", "an empty string", order_of(json!(""))),
        bad("long", "over 1024 bytes long", order_of(json!("x".repeat(1025)))),
        with_headers(
            header(b"bomb", &nested_arrays(26_000)),
            bad("bomb", "headers nest deeper than 8", order("bomb", "")),
        ),
        with_headers(
            header(b"big", &text(&[b'x'; 70_000])),
            bad("big", "headers hold more than 65536", order("big", "")),
        ),
        with_headers(many, bad("many", "is null", no_key())),
        with_headers(odd, bad("odd", "is null", no_key())),
        Bad {
            properties: RawProperties {
                content_encoding: Some(ODD.into()),
                message_id: Some("encoded".into()),
                ..Default::default()
            },
            ..bad("encoded", "content encoding \"a\\r\\n2026", order_of(json!("A-1")))
        },
    ]
}

#[test]
fn each_bad_order_is_one_dead_letter_and_the_next_good_one_runs() {
    let site = Site::with_broker(&order_saga(".bad", "10m"), &BROKER.url(), "bad");
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.bad", "bad.tap");
    let mut orchestrator = site.run_until_ready();
    let mut raw = RawPeer::connect(&BROKER.url());
    let orders = bad_orders();
    for Bad { properties, body, .. } in &orders {
        raw.publish("orders.bad", "order.placed", properties, body);
    }
    eventually("all are told of", || letters(&site).len() >= orders.len());
    let told = letters(&site);
    assert_eq!(told.len(), orders.len(), "{told:#?}");
    for Bad { id, reason, body, .. } in &orders {
        let letter = told.iter().find(|letter| letter["message_id"] == *id).unwrap_or_else(|| panic!("{id}"));
        let given = letter["reason"].as_str().unwrap();
        assert!(reason.split('|').any(|reason| given.contains(reason)), "{id}: {given}");
        assert_eq!(letter["size"], body.len(), "{id}");
    }
    eventually("all are in the queue of the dead", || peer.waiting("bad.dead") >= orders.len());
    assert_eq!(peer.waiting("bad.dead"), orders.len());

    // What is no worse than unusual is an order.
    let largest = order("largest", &"x".repeat(LIMIT - order("largest", "").len()));
    let odd = serde_json::to_string(ODD).unwrap();
    let number = order("number", "").replace("\"number\"", "1e999");
    for (properties, body) in [
        (&RawProperties::default(), largest.clone()),
        (&RawProperties::default(), order("odd", "").replace("\"odd\"", &odd)),
        (&RawProperties::default(), number),
    ] {
        raw.publish("orders.bad", "order.placed", properties, body.as_bytes());
    }
    assert_eq!(largest.len(), LIMIT);
    let mut commands = Vec::new();
    eventually("every good order's command is out", || {
        commands.extend(peer.drain("bad.tap"));
        commands.len() >= 3
    });
    assert_eq!(letters(&site).len(), orders.len());
    assert_eq!(site.printed(&["ready"]), "ready\n");
    orchestrator.stop();
    assert_lines_hold(&orchestrator);
}

#[test]
fn control_characters_break_neither_logs_nor_tables_nor_what_is_published() {
    for format in ["text", "json"] {
        let name = format!("odd-{format}");
        let mut site = Site::with_broker(&order_saga(&format!(".{name}"), "10m"), &BROKER.url(), &name);
        site.set("LOG__FORMAT", format);
        site.set("LOG__LEVEL", "trace");
        let peer = Peer::connect(&BROKER.url());
        let (tap, exchange) = (format!("{name}.tap"), format!("orders.{name}"));
        peer.tap(&format!("inventory.{name}"), &tap);
        let mut orchestrator = site.run_until_ready();
        let mut raw = RawPeer::connect(&BROKER.url());
        let trace = [
            header(b"traceparent", &text(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
            header(b"tracestate", &text(b"a=1\r\nx-evil: 1")),
        ];
        let id = &ODD.as_bytes()[..ODD.len().min(255)];
        let properties = |headers: Vec<u8>, correlation_id: &[u8]| RawProperties {
            headers: Some(headers),
            correlation_id: Some(correlation_id.to_owned()),
            message_id: Some(id.to_owned()),
            ..RawProperties::default()
        };
        let body = order("key", "").replace("\"key\"", &json!(ODD).to_string());
        raw.publish(&exchange, "order.placed", &properties(trace.concat(), id), body.as_bytes());
        let mut commands = Vec::new();
        eventually("the command is out", || {
            commands.extend(peer.drain(&tap));
            !commands.is_empty()
        });
        let published = commands[0].properties.headers().clone().unwrap();
        assert!(published.contains_key("traceparent"), "{published:?}");
        assert!(!published.contains_key("tracestate"), "{published:?}");

        let replies = format!("{name}.replies");
        let command_id = commands[0].properties.correlation_id().clone().unwrap();
        let refusal = [
            header(b"x-saga-outcome", &text(b"failure")),
            header(b"x-saga-error-code", &text(ODD.as_bytes())),
            header(b"x-saga-error-message", &text(ODD.as_bytes())),
        ];
        let odd_outcome = header(b"x-saga-outcome", &text(ODD.as_bytes()));
        raw.publish("", &replies, &properties(Vec::new(), id), b"{}");
        raw.publish("", &replies, &properties(odd_outcome, command_id.as_str().as_bytes()), b"{}");
        raw.publish(&exchange, "order.placed", &properties(Vec::new(), id), b"\r\n[\0\x1b]");
        raw.publish("", &replies, &properties(refusal.concat(), command_id.as_str().as_bytes()), b"{}");
        eventually("the order is turned back", || {
            site.json(&["list", "--json"])["items"][0]["status"] == "compensated"
        });
        eventually("the bad ones are told of", || letters(&site).len() == 3);
        let shown = site.json(&["list", "--json"])["items"][0]["id"].as_str().unwrap().to_owned();
        for (arguments, lines) in
            [(&["dead-letters"][..], Some(4)), (&["list"], Some(2)), (&["show", &shown], None)]
        {
            let table = site.printed(arguments);
            assert!(!table.contains(|c: char| c.is_control() && c != '\n'), "{table:?}");
            assert!(!table.lines().any(|line| line.starts_with("2026-01-01")), "{table}");
            assert!(lines.is_none_or(|lines| table.lines().count() == lines), "{table}");
        }
        orchestrator.terminate();
        assert_eq!(orchestrator.ends_within(PATIENCE), Some(0));
        let log = orchestrator.err();
        if format == "text" {
            assert_lines_hold(&orchestrator);
            assert!(log.contains("instance turns back"), "{log}");
        } else {
            let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert!(lines.iter().any(|line| line["message"] == "instance turns back"), "{log}");
        }
    }
}

/// lapin ends the connection where it cannot parse a message. RabbitMQ counts that for every message that was
/// out, and gives up each after 150 times.
#[test]
fn a_message_that_cannot_be_parsed_is_put_aside_alone() {
    let site = Site::with_broker(&order_saga(".latin", "10m"), &BROKER.url(), "latin");
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.latin", "latin.tap");
    let mut orchestrator = site.run_until_ready();
    let mut raw = RawPeer::connect(&BROKER.url());
    orchestrator.signal(Signal::STOP);
    let latin = RawProperties { message_id: Some(b"\xe9".to_vec()), ..RawProperties::default() };
    raw.publish("orders.latin", "order.placed", &latin, order("latin", "").as_bytes());
    for number in 0..20 {
        let body = order(&format!("A-{number}"), "");
        raw.publish("orders.latin", "order.placed", &RawProperties::default(), body.as_bytes());
    }
    orchestrator.signal(Signal::CONT);
    eventually("all others run", || peer.waiting("latin.tap") == 20);
    eventually("it is put aside", || peer.waiting("latin.dead") == 1);
    eventually("it is listed", || letters(&site).len() == 1);
    let reason = letters(&site)[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("put aside by the broker (delivery_limit): it cannot be parsed"), "{reason}");
    eventually("its copy is taken", || peer.waiting("latin.aside") == 0);
    site.wait_until_ready(&mut orchestrator);
    assert_eq!(letters(&site).len(), 1);
    orchestrator.stop();
    assert_eq!((peer.waiting("latin.dead"), peer.waiting("latin.events")), (1, 0));
    assert!(orchestrator.err().contains("a message cannot be parsed"), "{}", orchestrator.err());
}

/// What is refused is not kept for long, and of orders that parse to many times their size only a few are
/// in memory at a time.
#[test]
fn bursts_of_the_largest_and_deepest_messages_take_bounded_memory() {
    let site = Site::with_broker(&order_saga(".burst", "10m"), &BROKER.url(), "burst");
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.burst", "burst.tap");
    let mut orchestrator = site.run_until_ready();
    let idle = peak_memory_mib(&orchestrator);
    let mut raw = RawPeer::connect(&BROKER.url());
    let mut burst = |bodies: &mut dyn Iterator<Item = String>| {
        // They wait until all are there.
        orchestrator.signal(Signal::STOP);
        for body in bodies {
            raw.publish("orders.burst", "order.placed", &RawProperties::default(), body.as_bytes());
        }
        orchestrator.signal(Signal::CONT);
    };
    let large = "x".repeat(LIMIT + 1);
    let deep = "{\"a\":".repeat(LIMIT / 5);
    let many = format!("[0{}]", ",0".repeat(LIMIT / 2 - 2));
    burst(&mut (0..BURST).flat_map(|_| [large.clone(), deep.clone(), many.clone()]));
    eventually("all are refused", || peer.waiting("burst.dead") == 3 * BURST);
    let after = peak_memory_mib(&orchestrator);
    assert!(after < idle + REFUSED_MIB, "{idle} MiB before, {after} MiB after what was refused");

    let zeros = ",0.000000000000000".repeat(MOST_VALUES - 10);
    burst(
        &mut (0..ORDERS)
            .map(|id| format!("{{\"order_id\": {id}, \"customer_id\": 1, \"items\": [0{zeros}]}}")),
    );
    eventually("all good ones run", || peer.waiting("burst.tap") == ORDERS);
    let after = peak_memory_mib(&orchestrator);
    assert!(after < idle + ORDERS_MIB, "{idle} MiB before, {after} MiB after large orders");
    orchestrator.stop();
}

/// The most that a process ever had in memory.
pub(crate) fn peak_memory_mib(orchestrator: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", orchestrator.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn letters(site: &Site) -> Vec<Value> {
    site.json(&["dead-letters", "--json", "--limit", "500"])["items"].as_array().unwrap().clone()
}

/// Every line of the log begins as lines do, and holds nothing that moves a cursor.
fn assert_lines_hold(orchestrator: &Running) {
    let log = orchestrator.err();
    for line in log.lines() {
        let level = line.split_whitespace().nth(1).unwrap_or("");
        assert!(["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level), "{line:?} in {log}");
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
    assert!(!log.contains("panicked"), "{log}");
}
