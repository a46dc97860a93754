//! What is printed for other programs: the topology, the schema, and pages for pipes.

use std::process::Stdio;

use lapin::BasicProperties;

use crate::peer::Peer;
use crate::process::{Site, eventually};
use crate::{BROKER, order, order_saga};

#[test]
fn the_sagas_of_the_repository_pass_the_check_and_the_schema_is_the_committed_one() {
    let root = env!("CARGO_MANIFEST_DIR");
    let site = Site::new("");
    let checked = site.printed(&["check", &format!("{root}/sagas")]);
    assert!(checked.contains("order v1, 3 steps: reserve_stock -> charge_payment -> ship (pivot)\n"));
    assert!(checked.contains("trip v1, 6 steps: [book_hotel | book_flight | book_car -> insure_car] -> "));
    assert_eq!(site.printed(&["schema"]), include_str!("../../sagas/saga.schema.json"));
}

#[test]
fn the_printed_topology_can_be_imported_and_is_then_enough_for_verify() {
    let mut site = Site::with_broker(&order_saga(".verify", "10m"), &BROKER.url(), "verify");
    site.set("BROKER__TOPOLOGY", "verify");
    let remedy = "make it (`sagamq topology` prints all that is needed), or set broker.topology to declare";
    site.call(&["run"]).assert_refused(3, &["exchange \"verify.dead\"", "NOT_FOUND", remedy]);

    site.write("topology.json", site.printed(&["topology"]));
    BROKER.ctl(&["import_definitions", site.path("topology.json").to_str().unwrap()]).unwrap();
    let mut orchestrator = site.run_until_ready();

    // A pipe whose reader has gone away, as after `| head -1`, is no error.
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.verify", "verify.tap");
    peer.publish("orders.verify", "order.placed", order("A-1", "").as_bytes(), BasicProperties::default());
    eventually("the order has a saga", || site.call(&["show", "A-1"]).code == Some(0));
    for arguments in [&["list"][..], &["list", "--json"], &["show", "A-1"], &["dead-letters"], &["schema"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = site.command(arguments).stdout(Stdio::from(writer)).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{arguments:?}");
    }
    orchestrator.stop();
}

#[test]
fn an_error_that_nobody_reads_keeps_its_exit_code() {
    let site = Site::new("");
    let cases = [
        (&["list"][..], 3),
        (&["show", "A-1"], 3),
        (&["lst"], 2),
        (&["run"], 1),
        (&["run", "--config", "absent"], 2),
    ];
    for (arguments, code) in cases {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = site.command(arguments).stdout(Stdio::null()).stderr(Stdio::from(writer)).status();
        assert_eq!(status.unwrap().code(), Some(code), "{arguments:?}");
    }
}
