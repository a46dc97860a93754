//! The broker's delivery limit: healthy messages do not come near it, and what reaches it is seen.
//!
//! Each crash, lost connection and full disk counts as a delivery for every message that was out. `make torture` has
//! fifty of each; the tests have fewer, and still more than the limit of earlier versions.

use std::collections::BTreeSet;
use std::env;

use lapin::BasicProperties;
use serde_json::Value;

use crate::bad_input::peak_memory_mib;
use crate::disk::SmallDisk;
use crate::peer::Peer;
use crate::process::{Site, eventually};
use crate::skip::skip;
use crate::{BROKER, order, order_saga};

/// Orders that wait.
const ORDERS: usize = 1000;

/// How often each thing happens in a row.
fn times() -> usize {
    env::var("LIMIT_TIMES").map_or(22, |times| times.parse().unwrap())
}

/// A site with orders that wait, and what looks on.
fn backlog(name: &str, suffix: &str, orders: usize, note: &str) -> (Site, Peer) {
    let site = Site::with_broker(&order_saga(suffix, "10m"), &BROKER.url(), name);
    let peer = Peer::connect(&BROKER.url());
    peer.tap(&format!("inventory{suffix}"), &format!("{name}.tap"));
    let mut orchestrator = site.run_until_ready();
    orchestrator.stop();
    for number in 0..orders {
        let text = order(&format!("order-{number:04}"), note);
        peer.publish(&format!("orders{suffix}"), "order.placed", text.as_bytes(), BasicProperties::default());
    }
    (site, peer)
}

/// Every order has its command, and nothing was put aside.
fn assert_all_run(site: &Site, peer: &Peer, name: &str) {
    let mut commands = BTreeSet::new();
    eventually("every order's command is out", || {
        for message in peer.drain(&format!("{name}.tap")) {
            let body: Value = serde_json::from_slice(&message.data).unwrap();
            commands.insert(body["order_id"].as_str().unwrap().to_owned());
        }
        commands.len() == ORDERS
    });
    assert_eq!(peer.drain(&format!("{name}.dead")).len(), 0);
    assert_eq!(site.printed(&["dead-letters"]), "no dead letters\n");
}

#[test]
fn sigkills_in_a_row_put_no_waiting_order_aside() {
    let (site, peer) = backlog("kills", ".kills", ORDERS, "");
    for _ in 0..times() {
        let mut orchestrator = site.start(&["run"]);
        eventually("it consumes", || {
            assert_eq!(orchestrator.code(), None, "{}", orchestrator.err());
            orchestrator.err().contains("connection=\"consumer\"")
        });
        orchestrator.kill();
    }
    let mut orchestrator = site.run_until_ready();
    assert_all_run(&site, &peer, "kills");
    orchestrator.stop();
}

#[test]
fn full_disks_in_a_row_put_no_waiting_order_aside() {
    let (mut site, peer) = backlog("disks", ".disks", ORDERS, "");
    let Some(disk) = SmallDisk::mount(site.path("disk")) else {
        skip("only root may mount the small disk that it fills");
        return;
    };
    site.set("STORE__PATH", disk.path().join("store").to_str().unwrap());
    site.call(&["adopt", "--yes"]);
    let mut orchestrator = site.start(&["run"]);
    let mut told = |what: &str, time: usize| {
        eventually(what, || {
            assert_eq!(orchestrator.code(), None, "it ended: {}", orchestrator.err());
            orchestrator.err().matches(what).count() > time
        });
    };
    let full = "the disk of the store is full: nothing is acked or sent until there is room";
    // Where there is room, something else takes it before anything is stored.
    told("instances taken up", 0);
    disk.fill();
    for time in 0..times() {
        told(full, time);
        disk.make_room();
        told("there is room again: going on", time);
        disk.fill();
    }
    disk.make_room();
    site.wait_until_ready(&mut orchestrator);
    assert_all_run(&site, &peer, "disks");
    orchestrator.stop();
}

#[test]
fn what_the_broker_put_aside_is_listed_with_its_reason_and_counted() {
    let (site, peer) = backlog("aside", ".aside", 3, "");
    // Another consumer takes what comes first and breaks down, over and over.
    while peer.waiting("aside.dead") == 0 {
        peer.take_and_let_go("aside.events");
    }
    let mut orchestrator = site.run_until_ready();
    let mut letters = Vec::new();
    eventually("it is listed", || {
        letters = site.json(&["dead-letters", "--json"])["items"].as_array().unwrap().clone();
        !letters.is_empty()
    });
    let letter = &letters[0];
    assert_eq!(
        letter["reason"],
        "put aside by the broker (delivery_limit): it was delivered too often without an ack"
    );
    assert_eq!((&letter["queue"], &letter["key"]), (&"events".into(), &"order.placed".into()));
    assert!(letter["preview"].as_str().unwrap().contains("order-"), "{letter}");
    assert!(orchestrator.err().contains("the broker put a message aside"), "{}", orchestrator.err());
    let metrics = || {
        let mut page = ureq::get(format!("http://127.0.0.1:{}/metrics", site.port)).call().unwrap();
        page.body_mut().read_to_string().unwrap()
    };
    assert!(metrics().contains("sagamq_put_aside_total{reason=\"delivery_limit\"} 1"), "{}", metrics());
    assert_eq!((letters.len(), peer.waiting("aside.dead")), (1, 1));
    // The whole message waits for a person, and its copy for nobody any more.
    let depth = |queue: &str| {
        let page = metrics();
        let line = page.lines().find(|line| line.contains(&format!("messages{{queue=\"{queue}\"}}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
    };
    eventually("the depths are told", || (depth("dead"), depth("aside")) == (Some(1), Some(0)));
    peer.drain("aside.dead");
    eventually("it is told that the dead letter is gone", || depth("dead") == Some(0));
    orchestrator.stop();
}

#[test]
fn a_missing_queue_of_dead_letters_keeps_nothing_else_from_being_looked_at() {
    let mut site = Site::with_broker(&order_saga(".nodead", "10m"), &BROKER.url(), "nodead");
    site.run_until_ready().stop();
    BROKER.ctl(&["delete_queue", "nodead.dead"]).unwrap();
    site.set("BROKER__TOPOLOGY", "none");
    let mut orchestrator = site.run_until_ready();
    let told = "it cannot be told how many messages wait in a queue";
    eventually("the log tells of the queue", || orchestrator.err().contains(told));
    eventually("the other one is looked at", || {
        let mut page = ureq::get(format!("http://127.0.0.1:{}/metrics", site.port)).call().unwrap();
        let page = page.body_mut().read_to_string().unwrap();
        page.contains("sagamq_queue_messages{queue=\"aside\"} 0") && !page.contains("queue=\"dead\"}")
    });
    let log = orchestrator.err();
    assert!(log.matches(told).count() == 1 && !log.contains("trying again"), "{log}");
    orchestrator.stop();
}

/// The client library holds all that is out, so where bodies are large only a few are out.
#[test]
fn a_backlog_of_the_largest_bodies_takes_less_than_320_mib() {
    let heavy = 300;
    let note = "x".repeat((1 << 20) - 1000);
    let (site, peer) = backlog("heavy", ".heavy", heavy, &note);
    let mut orchestrator = site.run_until_ready();
    eventually("every order's command is out", || peer.waiting("heavy.tap") == heavy);
    let peak = peak_memory_mib(&orchestrator);
    assert!(peak < 320, "{peak} MiB");
    println!("at most {peak} MiB");
    orchestrator.stop();
}
