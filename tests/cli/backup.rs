//! Backups: of a store in use and of one that is not, started from, and refused.

use std::fs;
use std::path::Path;

use lapin::BasicProperties;

use crate::disk::SmallDisk;
use crate::peer::Peer;
use crate::process::{Site, eventually};
use crate::skip::skip;
use crate::{BROKER, order, order_saga};

const DEFINITION: &str = "
saga: parcel
version: 1
start: {on: {exchange: parcels.saved, key: parcel.posted}, business_key: =event.data.id}
steps:
  - {step: ship, kind: pivot, command: {exchange: shipping.saved, key: ship, body: {}}, timeout: 1h}
";

#[test]
fn an_orchestrator_that_is_started_on_a_backup_finishes_what_was_under_way() {
    let peer = Peer::connect(&BROKER.url());
    peer.tap("shipping.saved", "saved.tap");
    let mut site = Site::with_broker(DEFINITION, &BROKER.url(), "saved");
    let mut orchestrator = site.run_until_ready();
    let mut commands = Vec::new();
    for number in 0..20 {
        let body = format!(r#"{{"id": "P-{number}"}}"#);
        peer.publish("parcels.saved", "parcel.posted", body.as_bytes(), BasicProperties::default());
    }
    eventually("the commands are out", || {
        commands.extend(peer.drain("saved.tap"));
        commands.len() == 20
    });

    // While it runs, to a folder beside the working folder of the command.
    let told = site.printed(&["backup", "monday"]);
    let monday = fs::canonicalize(site.path("monday")).unwrap();
    let check = format!("check it: sagamq replay --store {}\n", monday.display());
    assert!(told.contains(": 20 instances, ") && told.ends_with(&check), "{told}");
    let replayed = site.printed(&["replay", "--store", monday.to_str().unwrap()]);
    assert!(
        replayed.starts_with("20 instances, ") && replayed.contains("every record is the fold"),
        "{replayed}"
    );
    let again = site.call(&["backup", "monday"]);
    again.assert_refused(2, &["cannot back up to ", "monday: it is there, and not empty: name a new folder"]);
    let json = site.json(&["backup", "tuesday", "--json"]);
    assert_eq!(
        (&json["instances"], &json["dir"]),
        (&20.into(), &site.path("tuesday").to_str().unwrap().into())
    );

    // It has the id of the store, and so would be a second one.
    let mut second = Site::with_broker(DEFINITION, &BROKER.url(), "saved");
    second.set("STORE__PATH", monday.to_str().unwrap());
    let in_use = format!("in use by pid {} on host ", orchestrator.pid());
    second.call(&["run"]).assert_refused(3, &["broker.prefix \"saved\"", &in_use]);

    // Of what came after it, nothing is there; what was under way goes on, and answers count.
    peer.publish("parcels.saved", "parcel.posted", br#"{"id": "late"}"#, BasicProperties::default());
    eventually("it has a saga", || site.call(&["show", "late"]).code == Some(0));
    orchestrator.stop();
    site.set("STORE__PATH", monday.to_str().unwrap());
    let mut orchestrator = site.run_until_ready();
    commands.iter().for_each(|command| peer.answer(command, "success", b"{}"));
    eventually("all are completed", || {
        let page = site.json(&["list", "--json", "--status", "completed"]);
        page["items"].as_array().unwrap().len() == 20
    });
    site.call(&["show", "late"]).assert_refused(1, &["there is no saga"]);
    peer.publish("parcels.saved", "parcel.posted", br#"{"id": "late"}"#, BasicProperties::default());
    eventually("its event starts it again", || site.call(&["show", "late"]).code == Some(0));

    // The metrics tell of it, and the API of the last one.
    site.printed(&["backup", "wednesday"]);
    let url = format!("http://127.0.0.1:{}", site.port);
    let metrics = ureq::get(format!("{url}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(metrics.contains(r#"sagamq_backups_total{result="whole"} 1"#), "{metrics}");
    let last = ureq::get(format!("{url}/api/v1/backup")).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(last.contains(r#""state":"whole""#) && last.contains("wednesday"), "{last}");
    orchestrator.stop();
}

#[test]
fn where_no_orchestrator_runs_the_command_copies_the_store_itself() {
    let site = Site::with_broker(&order_saga(".alone", "10m"), &BROKER.url(), "alone");
    site.run_until_ready().stop();
    let told = site.printed(&["backup", "one"]);
    assert!(told.contains(": 0 instances, "), "{told}");
    site.printed(&["backup", "two", "--store", "sagamq-data"]);
    for store in ["one", "two"] {
        assert!(site.printed(&["replay", "--store", store]).starts_with("0 instances, "));
    }
    site.call(&["backup", "three", "--store", "nowhere"]).assert_refused(3, &["no store in nowhere"]);
    let url = format!("http://127.0.0.1:{}", site.port);
    site.call(&["backup", "three", "--url", &url]).assert_refused(3, &["no orchestrator answers"]);
    let both = site.call(&["backup", "three", "--url", &url, "--store", "sagamq-data"]);
    both.assert_refused(2, &["--url", "--store", "give one of them"]);
    site.call(&["backup", "missing/three"]).assert_refused(2, &["missing is not there: make it first"]);
    site.call(&["backup", "sagamq-data/three"]).assert_refused(2, &["in the store itself"]);
    assert!(!site.path("three").exists() && !site.path("missing").exists());
    let empty = Site::new(DEFINITION);
    empty.call(&["backup", "three"]).assert_refused(3, &["no orchestrator answers"]);
    assert!(!empty.path("sagamq-data").exists());
}

#[test]
fn a_backup_that_cannot_be_written_is_refused_and_leaves_nothing_while_sagas_go_on() {
    let mut site = Site::with_broker(&order_saga(".cramped", "10m"), &BROKER.url(), "cramped");
    let Some(disk) = SmallDisk::mount(site.path("disk")) else {
        skip("only root may mount the small disk that it fills");
        return;
    };
    let orchestrator = site.run_until_ready();
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.cramped", "cramped.tap");
    let (folder, entries) = (disk.path().join("monday"), |of: &Path| fs::read_dir(of).unwrap().count());
    disk.fill();
    let refused = site.call(&["backup", folder.to_str().unwrap()]);
    refused.assert_refused(
        3,
        &["the disk of backup ", "monday", " is full, and nothing of it was kept: make room"],
    );
    assert_eq!(entries(disk.path()), 1, "the filler alone");
    let nobody = ["backup", "/proc/monday"];
    site.call(&nobody).assert_refused(3, &["cannot make folder /proc/monday.unfinished for the backup: "]);
    let body = order("A-1", "");
    peer.publish("orders.cramped", "order.placed", body.as_bytes(), BasicProperties::default());
    eventually("the order has a saga", || site.call(&["show", "A-1"]).code == Some(0));
    assert!(orchestrator.err().contains("there is no backup"), "{}", orchestrator.err());
    drop(orchestrator);

    // On the disk of the store, the last room is the store's.
    disk.make_room();
    let store = disk.path().join("store");
    site.set("STORE__PATH", store.to_str().unwrap());
    site.call(&["adopt", "--yes"]);
    let mut orchestrator = site.run_until_ready();
    let refused = site.call(&["backup", folder.to_str().unwrap()]);
    refused.assert_refused(3, &["would leave less than 64 MiB of the disk that the store is on"]);
    assert_eq!(entries(disk.path()), 1, "the store alone");
    orchestrator.stop();
}
