//! Instances that are kept for a second, and the room that they leave.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;

use flate2::read::MultiGzDecoder;
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use serde_json::Value;

use crate::BROKER;
use crate::peer::Peer;
use crate::process::{Site, eventually};

const DEFINITION: &str = "
saga: parcel
version: 1
start: {on: {exchange: parcels.kept, key: parcel.posted}, business_key: =event.data.id}
deadline: {after: 99h, then: compensate}
steps:
  - {step: ship, kind: pivot, command: {exchange: shipping.kept, key: ship, body: {}}, timeout: 1h}
";

#[test]
fn an_instance_that_was_kept_long_enough_is_in_the_archive_and_its_key_starts_anew() {
    let peer = Peer::connect(&BROKER.url());
    peer.tap("shipping.kept", "kept.tap");
    let mut site = Site::with_broker(DEFINITION, &BROKER.url(), "kept");
    site.set("RETENTION__COMPLETED", "1s");
    let mut orchestrator = site.run_until_ready();
    let post = || {
        let body = br#"{"id": "P-1", "weight": 3}"#;
        peer.publish("parcels.kept", "parcel.posted", body, BasicProperties::default());
        let mut commands = Vec::new();
        eventually("the command is out", || {
            commands.extend(peer.drain("kept.tap"));
            !commands.is_empty()
        });
        let properties = &commands[0].properties;
        (properties.message_id().clone().unwrap(), properties.correlation_id().clone().unwrap())
    };
    let statuses = || {
        let page = site.json(&["list", "--json"]);
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };

    let (command, correlation) = post();
    let headers = BTreeMap::from([("x-saga-outcome".into(), AMQPValue::LongString("success".into()))]);
    let properties = BasicProperties::default().with_correlation_id(correlation);
    peer.publish("", "kept.replies", b"{}", properties.with_headers(headers.into()));
    eventually("it is removed", || statuses().is_empty());
    let archived = archived(&site);
    assert_eq!(archived["instance"]["status"], "completed");
    assert_eq!(archived["history"][0]["facts"][0]["input"]["weight"], 3);

    assert_eq!(post().0, command, "the same command id");
    assert_eq!(statuses(), ["running"]);
    site.call(&["compact"]).assert_refused(3, &["is in use by process"]);
    orchestrator.stop();
    let compacted = site.printed(&["compact"]);
    assert!(compacted.contains(" bytes), ") && compacted.contains(" keys kept, 0 left out"), "{compacted}");
    let replayed = site.printed(&["replay"]);
    assert!(replayed.starts_with("1 instances, "), "{replayed}");
}

#[test]
fn where_there_is_no_store_there_is_nothing_to_compact() {
    let site = Site::new(DEFINITION);
    site.call(&["compact", "--store", "nowhere"]).assert_refused(3, &["no store in nowhere"]);
    assert!(!site.path("nowhere").exists());
}

/// The one instance in the archive.
fn archived(site: &Site) -> Value {
    let mut text = String::new();
    for entry in fs::read_dir(site.path("sagamq-data/archive")).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    }
    serde_json::from_str(&text).unwrap()
}
