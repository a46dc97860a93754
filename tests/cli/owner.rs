//! One owner for each prefix: another store is refused, and a store that is taken away is noticed.

use std::fs;
use std::time::{Duration, Instant};

use lapin::BasicProperties;

use crate::peer::Peer;
use crate::process::{Site, eventually};
use crate::{BROKER, order, order_saga};

/// Within it, a store that is gone is noticed.
const SECONDS: Duration = Duration::from_secs(8);

#[test]
fn a_second_store_is_refused_with_the_process_that_has_the_prefix_and_takes_nothing() {
    let [first, second] = [0, 1].map(|_| Site::with_broker(&order_saga(".two", "10m"), &BROKER.url(), "two"));
    let mut orchestrator = first.run_until_ready();
    let pid = format!("in use by pid {} on host ", orchestrator.pid());
    // Without a store, and later with one of its own.
    second
        .call(&["run"])
        .assert_refused(3, &["broker.prefix \"two\" belongs to store", &pid, "sagamq adopt"]);
    second.call(&["adopt", "--yes"]).assert_refused(3, &[&pid, "stop that process"]);
    let refused = second.call(&["run"]);
    refused.assert_refused(3, &["broker.prefix \"two\" belongs to store", &pid, "and this is store"]);

    let peer = Peer::connect(&BROKER.url());
    for round in 0..20 {
        second.call(&["run"]).assert_refused(3, &["belongs to store"]);
        let key = format!("A-{round}");
        peer.publish("orders.two", "order.placed", order(&key, "").as_bytes(), BasicProperties::default());
        eventually("the order has a saga", || first.call(&["show", &key]).code == Some(0));
        if round % 2 == 0 {
            orchestrator.stop();
        } else {
            drop(orchestrator);
        }
        orchestrator = first.run_until_ready();
    }
}

#[test]
fn a_restart_after_a_sigkill_has_the_prefix_within_seconds() {
    let site = Site::with_broker(&order_saga(".again", "10m"), &BROKER.url(), "again");
    for _ in 0..3 {
        drop(site.run_until_ready());
        let begun = Instant::now();
        drop(site.run_until_ready());
        assert!(begun.elapsed() < SECONDS);
    }
}

#[test]
fn a_copy_of_a_store_is_refused_while_the_other_one_runs_and_may_go_on_in_its_place() {
    let url = format!("{}?heartbeat=1", BROKER.url());
    let [first, copy] = [0, 1].map(|_| Site::with_broker(&order_saga(".copy", "10m"), &url, "copy"));
    let mut orchestrator = first.run_until_ready();
    first.printed(&["backup", copy.path("sagamq-data").to_str().unwrap()]);
    let holder = format!("broker.prefix \"copy\" is in use by pid {} on host ", orchestrator.pid());
    copy.call(&["run"]).assert_refused(3, &[&holder, "two copies of one store must never both run"]);
    orchestrator.stop();
    copy.run_until_ready().stop();
}

#[test]
fn a_store_that_is_removed_or_exchanged_while_it_is_used_ends_the_orchestrator_and_no_other_is_made() {
    let site = Site::with_broker(&order_saga(".gone", "10m"), &BROKER.url(), "gone");
    for exchanged in [false, true] {
        let mut orchestrator = site.run_until_ready();
        fs::rename(site.path("sagamq-data"), site.path("aside")).unwrap();
        if exchanged {
            fs::create_dir(site.path("sagamq-data")).unwrap();
        }
        assert_eq!(orchestrator.ends_within(SECONDS), Some(3), "{}", orchestrator.err());
        let err = orchestrator.err();
        assert!(err.contains(" ERROR ") && err.contains("was taken away while it was in use"), "{err}");
        site.call(&["run"]).assert_refused(3, &["here is no store yet, so none is made", "sagamq adopt"]);
        let _ = fs::remove_dir_all(site.path("sagamq-data"));
        fs::rename(site.path("aside"), site.path("sagamq-data")).unwrap();
    }
    site.run_until_ready().stop();
}

#[test]
fn a_prefix_is_given_to_another_store_on_a_persons_word_alone() {
    let [old, new] = [0, 1].map(|_| Site::with_broker(&order_saga(".adopt", "10m"), &BROKER.url(), "adopt"));
    old.run_until_ready().stop();
    new.call(&["run"]).assert_refused(3, &["so none is made"]);
    new.call(&["adopt"]).assert_refused(2, &["nothing was done", "adopt --yes"]);
    assert!(!new.path("sagamq-data/sled").exists());
    assert!(new.call(&["adopt", "--yes"]).out.contains(", and no longer to store "));
    new.run_until_ready().stop();
    old.call(&["run"]).assert_refused(3, &["belongs to store", "by no process that could be named"]);
}
