//! Stops: asked for at any moment, they end in time, and lose nothing.

use std::time::Duration;

use lapin::BasicProperties;

use crate::peer::Peer;
use sagamq::throwaway::Node;

use crate::process::{PROMPT, Site, eventually};
use crate::{CANARY, order, order_saga, support};

/// A stop waits this long for confirms that are out, and a little longer.
const WITH_UNCONFIRMED: Duration = Duration::from_secs(18);

#[test]
fn sigterm_ends_a_start_that_waits_for_the_broker() {
    let mut site = Site::new(&order_saga("", "5s"));
    site.set("BROKER__STARTUP_TIMEOUT", "10m");
    let mut orchestrator = site.start(&["run"]);
    eventually("it waits", || orchestrator.err().contains("waiting for the broker"));
    // Meanwhile it can be asked.
    let asked = site.call(&["ready"]);
    let obstacles = "not consuming from the broker, not connected to the broker for publishing, \
                     the store is not accepting commits";
    assert_eq!((asked.code, asked.out), (Some(1), format!("not ready: {obstacles}\n")));
    // A store is made only once the broker has said that it knows of none.
    assert_eq!(site.call(&["list"]).code, Some(3));
    assert!(!site.path("sagamq-data/sled").exists());
    orchestrator.terminate();
    assert_eq!(orchestrator.ends_within(PROMPT), Some(0), "{}", orchestrator.err());
    assert!(orchestrator.err().contains("stopped before the broker was reached"), "{}", orchestrator.err());
    // The store was let go of.
    site.set("BROKER__STARTUP_TIMEOUT", "1ms");
    site.call(&["run"]).assert_refused(3, &["no broker at amqp://app@127.0.0.1:"]);
}

/// One broker for all of it, since it is cut off and killed over and over; and all of it at level
/// trace, so that the password has every chance to be told.
#[test]
fn stops_while_the_broker_is_away_end_in_time_lose_nothing_and_tell_no_password() {
    let mut node = support::broker();
    node.ctl(&["add_user", "app", CANARY]).unwrap();
    node.ctl(&["set_permissions", "app", ".*", ".*", ".*"]).unwrap();
    let url = node.url();
    let own_url = url.replace("guest:guest@", &format!("app:{CANARY}@"));
    assert_ne!(own_url, url);
    let mut site = Site::with_broker(&order_saga("", "700ms"), &own_url, "stop");
    site.set("LOG__LEVEL", "trace");
    Peer::connect(&url).tap("inventory", "stop.tap");
    let mut orchestrator = site.run_until_ready();

    node.close_connections().unwrap();
    eventually("both connections are lost", || {
        orchestrator.err().matches("no connection to the broker, trying again").count() >= 2
    });
    site.wait_until_ready(&mut orchestrator);
    let peer = Peer::connect(&url);
    peer.publish("orders", "order.placed", order("A-1", "").as_bytes(), BasicProperties::default());
    eventually("the first command is out", || !peer.drain("stop.tap").is_empty());
    drop(peer);

    // A broker that is short of memory takes nothing but delivers on: a retry that is decided then is not
    // confirmed, and a stop has something to wait for.
    alarm(&node, "0");
    wait_for_retry(&site);
    orchestrator.terminate();
    assert_eq!(orchestrator.ends_within(WITH_UNCONFIRMED), Some(0), "{}", tail(&orchestrator.err()));
    let log = orchestrator.err();
    assert!(log.contains("stopping without the broker's confirm"), "{}", tail(&log));
    assert!(log.contains(": stopped\n"), "{}", tail(&log));
    assert!(!log.contains(CANARY), "the password was told");

    // The next start sends what was not confirmed. A second SIGTERM, not just after the first, ends it at
    // once, whatever it waits for.
    alarm(&node, "0.6");
    let mut orchestrator = site.run_until_ready();
    let peer = Peer::connect(&url);
    eventually("what was unconfirmed is out", || !peer.drain("stop.tap").is_empty());
    drop(peer);
    alarm(&node, "0");
    wait_for_retry(&site);
    eventually("a second signal ends it", || {
        orchestrator.terminate();
        orchestrator.code().is_some()
    });
    assert_eq!(orchestrator.code(), Some(3), "{}", tail(&orchestrator.err()));
    let log = orchestrator.err();
    assert!(log.contains("stopping: no new deliveries are taken"), "{}", tail(&log));
    assert!(log.contains("forced to stop"), "{}", tail(&log));
    assert!(!log.contains(CANARY) && !orchestrator.out().contains(CANARY), "the password was told");

    // A stop while there is no broker at all has nothing to wait for.
    alarm(&node, "0.6");
    let mut orchestrator = site.run_until_ready();
    node.kill();
    eventually("the broker is missed", || orchestrator.err().contains("trying again"));
    orchestrator.terminate();
    assert_eq!(orchestrator.ends_within(WITH_UNCONFIRMED), Some(0), "{}", tail(&orchestrator.err()));
}

/// Sets how much memory the broker may have: with none, it blocks whoever publishes.
fn alarm(node: &Node, watermark: &str) {
    node.ctl(&["set_vm_memory_high_watermark", watermark]).unwrap();
}

/// Waits for an attempt that is decided from now on.
fn wait_for_retry(site: &Site) {
    let attempts = || site.json(&["show", "A-1", "--json"])["steps"][0]["attempts"].as_u64().unwrap();
    let confirmed = attempts();
    eventually("a retry is decided", || attempts() > confirmed);
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
