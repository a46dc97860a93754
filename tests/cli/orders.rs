//! What people ask of instances that nothing else takes on.

use lapin::BasicProperties;

use crate::BROKER;
use crate::peer::Peer;
use crate::process::{Site, eventually};

/// A parcel whose carrier says nothing: it is parked at once.
const DEFINITION: &str = "
saga: parcel
version: 1
start: {on: {exchange: parcels.ordered, key: parcel.posted}, business_key: =event.data.id}
steps:
  - {step: pack, command: {exchange: parcels.work, key: pack}, output: {label: =reply.data.label}, timeout: 200ms, on_timeout: park, compensate: none}
  - {step: ship, kind: pivot, command: {exchange: parcels.work, key: ship, body: {label: =steps.pack.output.label}}, timeout: 1h}
";

#[test]
fn people_take_parked_instances_on_one_by_one_and_all_at_once() {
    let peer = Peer::connect(&BROKER.url());
    peer.tap("parcels.work", "ordered.tap");
    let site = Site::with_broker(DEFINITION, &BROKER.url(), "ordered");
    let mut orchestrator = site.run_until_ready();
    for id in ["P-1", "P-2", "P-3"] {
        let body = format!(r#"{{"id": "{id}"}}"#);
        peer.publish("parcels.ordered", "parcel.posted", body.as_bytes(), BasicProperties::default());
    }
    let parked = || site.json(&["list", "--status", "parked", "--json"])["items"].as_array().unwrap().len();
    eventually("all are parked", || parked() == 3);
    peer.drain("ordered.tap");

    // Said with a reason, or not at all.
    site.call(&["skip", "P-1"]).assert_refused(2, &["--reason"]);
    site.call(&["skip", "P-9", "--reason", "lost"]).assert_refused(1, &["no saga with id or business key"]);
    site.call(&["skip", "P-1", "--status", "parked", "--reason", "x"]).assert_refused(2, &["give --all"]);
    for filter in [&[][..], &["--saga", ""]] {
        let all = [&["skip", "--all", "--reason", "x"][..], filter].concat();
        site.call(&all).assert_refused(2, &["every instance of every saga", "--saga", "--status parked"]);
    }
    assert_eq!(parked(), 3);
    let refused = |arguments: &[&str], reason: &str| {
        let ended = site.call(arguments);
        assert_eq!(ended.code, Some(1));
        assert!(ended.out.contains(&format!("refused: {reason}")), "{}", ended.out);
    };
    refused(&["skip", "P-1", "--reason", " "], "\"reason\" must not be empty");
    refused(&["skip", "P-1", "--step", "ship", "--reason", "too early"], "step ship is pending");

    let label = ["--output", r#"{"label": "by hand"}"#, "--reason", "packed by hand", "--actor", "ann"];
    let told = site.printed(&[&["resolve", "P-1", "--to", "succeeded"], &label[..]].concat());
    assert_eq!(told, "parcel P-1: resolve_succeeded, it is running\n");
    let again = ["resolve", "P-1", "--to", "succeeded", "--reason", "was that heard?"];
    refused(&again, "it is not parked for a step, so name the one that is meant: --step ship");
    eventually("it is shipped", || {
        peer.drain("ordered.tap").iter().any(|command| command.data == br#"{"label":"by hand"}"#)
    });
    let history = site.json(&["show", "P-1", "--json"])["history"].to_string();
    assert!(history.contains(r#""actor":"ann""#) && history.contains("packed by hand"), "{history}");

    let told =
        site.printed(&["compensate", "--all", "--status", "parked", "--reason", "the carrier is closed"]);
    assert_eq!(
        told.lines().filter(|line| line.ends_with(": compensate, it is compensated")).count(),
        2,
        "{told}"
    );
    assert_eq!(parked(), 0);
    assert_eq!(site.call(&["retry", "--all", "--status", "parked", "--reason", "more"]).code, Some(1));
    refused(&["cancel", "P-2", "--reason", "again"], "it has ended: compensated");
    orchestrator.stop();
    let replayed = site.printed(&["replay"]);
    assert!(replayed.ends_with("every record is the fold of its history\n"), "{replayed}");
}
