//! Limits over all instances, as a participant at a real broker sees them.

use std::collections::VecDeque;

use lapin::BasicProperties;

use crate::BROKER;
use crate::peer::Peer;
use crate::process::{Site, eventually};

const DEFINITION: &str = "
saga: parcel
version: 1
start: {on: {exchange: parcels.in, key: parcel.posted}, business_key: =event.data.id}
steps:
  - step: label
    command: {exchange: parcels.out, key: label, body: =saga.business_key}
    timeout: 1h
    limit: {in_flight: 3}
    compensate: none
";

const PARCELS: usize = 30;

#[test]
fn a_participant_never_has_more_commands_unanswered_than_the_limit_lets_also_over_kills() {
    let peer = Peer::connect(&BROKER.url());
    peer.tap("parcels.out", "limited.tap");
    let site = Site::with_broker(DEFINITION, &BROKER.url(), "limited");
    let mut orchestrator = site.run_until_ready();
    let ids: Vec<_> = (0..PARCELS).map(|number| format!("P-{number:02}")).collect();
    for id in &ids {
        let body = format!(r#"{{"id": "{id}"}}"#);
        peer.publish("parcels.in", "parcel.posted", body.as_bytes(), BasicProperties::default());
    }
    let told = |what: &str| {
        let page = ureq::get(format!("http://127.0.0.1:{}/metrics", site.port)).call().unwrap();
        page.into_body().read_to_string().unwrap().lines().any(|line| line == what)
    };
    let labels = r#"{saga="parcel",step="label"}"#;
    eventually("all but three wait", || told(&format!("sagamq_queued{labels} {}", PARCELS - 3)));
    assert!(told(&format!("sagamq_in_flight{labels} 3")));
    let shown = site.printed(&["show", ids.last().unwrap()]);
    assert!(shown.contains("▶ label  running, awaits its turn\n"), "{shown}");

    // Commands that are not answered, and for which parcels there were any.
    let (mut unanswered, mut asked) = (VecDeque::new(), Vec::new());
    for answered in 0..PARCELS {
        eventually("a command is there", || {
            for command in peer.drain("limited.tap") {
                let parcel: String = serde_json::from_slice(&command.data).unwrap();
                // A kill may have a command sent twice.
                if !asked.contains(&parcel) {
                    asked.push(parcel);
                    unanswered.push_back(command);
                }
            }
            assert!(unanswered.len() <= 3, "{} are unanswered", unanswered.len());
            !unanswered.is_empty()
        });
        if answered % 10 == 5 {
            drop(orchestrator);
            orchestrator = site.run_until_ready();
        }
        peer.answer(&unanswered.pop_front().unwrap(), "success", b"{}");
    }
    assert_eq!(asked.len(), PARCELS);
    // What the history says, and not the order of commands: those of different instances may overtake each other.
    let queued_and_dispatched = |parcel: &String| {
        let history = site.json(&["show", parcel, "--json"])["history"].take();
        ["queued", "dispatched"].map(|kind| {
            let facts =
                history.as_array().unwrap().iter().flat_map(|entry| entry["facts"].as_array().unwrap());
            facts.clone().find(|fact| fact["fact"] == kind).unwrap()["at"].to_string()
        })
    };
    let mut times: Vec<_> = ids.iter().map(queued_and_dispatched).collect();
    times.sort();
    assert!(times.is_sorted_by_key(|[_, dispatched]| dispatched), "who came first went first: {times:?}");
    eventually("all are done", || {
        let page = site.json(&["list", "--status", "completed", "--json"]);
        page["items"].as_array().unwrap().len() == PARCELS
    });
    orchestrator.stop();
    let replayed = site.printed(&["replay"]);
    assert!(replayed.ends_with("every record is the fold of its history\n"), "{replayed}");
}
