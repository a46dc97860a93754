//! A tour: the orchestrator with the trip saga, its participants, and everything that is seen of them.

use std::collections::BTreeMap;
use std::path::Path;

use lapin::BasicProperties;
use lapin::message::BasicGetMessage;
use serde_json::{Value, json};

use super::agencies::{Agencies, Manner, SERVICES};
use crate::BROKER;
use crate::peer::Peer;
use crate::process::{Running, Site, eventually};

/// Each test has a tour of its own.
pub(super) struct Tour {
    pub(super) agencies: Agencies,
    pub(super) site: Site,
    name: &'static str,
    peer: Peer,
    running: Option<Running>,
    placed: Vec<Value>,
    faults: BTreeMap<&'static str, u64>,
}

impl Tour {
    /// Starts the orchestrator with `sagas/trip.yaml`, over exchanges of its own.
    pub(super) fn begin(name: &'static str) -> Self {
        Self::with(name, include_str!("../../../sagas/trip.yaml"))
    }

    /// The same with attempts that last a second, for those who are silent to the last.
    pub(super) fn impatient(name: &'static str) -> Self {
        let saga = include_str!("../../../sagas/trip.yaml");
        let (hasty, normal) = ("normal: {attempts: 3, initial: 10ms", "normal: {attempts: 4, initial: 500ms");
        assert!(saga.contains(normal) && saga.contains("timeout: 10s"));
        Self::with(name, &saga.replace(normal, hasty).replace("timeout: 10s", "timeout: 1s"))
    }

    fn with(name: &'static str, saga: &str) -> Self {
        let mut saga = saga.to_owned();
        for exchange in SERVICES.iter().chain(&["trips"]) {
            saga = saga.replace(&format!("exchange: {exchange}"), &format!("exchange: {exchange}-{name}"));
        }
        let url = BROKER.url();
        let (agencies, peer) = (Agencies::open(&url, &format!("-{name}")), Peer::connect(&url));
        for exchange in SERVICES.iter().chain(&["trips"]) {
            peer.tap(&format!("{exchange}-{name}"), &format!("{name}.tap"));
        }
        let site = Site::with_broker(&saga, &url, name);
        let running = Some(site.run_until_ready());
        Self { agencies, site, name, peer, running, placed: Vec::new(), faults: BTreeMap::new() }
    }

    /// Asks for a trip with a car, which the services treat as is said, by routing key.
    pub(super) fn request(&mut self, trip: &str, manners: &[(&str, Manner)]) {
        for (key, manner) in manners {
            self.agencies.treat(trip, key, *manner);
            self.fault(if *manner == Manner::Refuse { "refusal" } else { "silence" });
        }
        self.place(trip, json!({"car": true}), "start", "trip.requested");
    }

    /// Asks for a trip without a car.
    pub(super) fn request_without_car(&mut self, trip: &str) {
        self.place(trip, json!({"car": false}), "start", "trip.requested");
    }

    /// Cancels a trip.
    pub(super) fn cancel(&mut self, trip: &str) {
        self.place(trip, json!({}), "cancel", "trip.cancelled");
    }

    /// Counts a fault.
    pub(super) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// All about a trip, once the orchestrator knows it.
    pub(super) fn show(&self, trip: &str) -> Option<Value> {
        let shown = self.site.call(&["show", trip, "--json"]);
        (shown.code == Some(0)).then(|| serde_json::from_str(&shown.out).unwrap())
    }

    /// Waits until a trip has this status.
    pub(super) fn becomes(&self, trip: &str, status: &str) {
        eventually(&format!("{trip} is {status}"), || {
            self.show(trip).is_some_and(|shown| shown["status"] == status)
        });
    }

    /// Waits until a step of a trip has this status.
    pub(super) fn step_becomes(&self, trip: &str, step: &str, status: &str) {
        eventually(&format!("{step} of {trip} is {status}"), || {
            let steps = self.show(trip).map(|mut shown| shown["steps"].take());
            let is_it = |shown: &Value| shown["name"] == step && shown["status"] == status;
            steps.is_some_and(|steps| steps.as_array().is_some_and(|steps| steps.iter().any(is_it)))
        });
    }

    /// Ends the orchestrator by SIGKILL.
    pub(super) fn kill(&mut self) {
        drop(self.running.take().expect("it runs"));
        self.fault("orchestrator_kill");
    }

    /// Starts it again.
    pub(super) fn start_again(&mut self) {
        self.running = Some(self.site.run_until_ready());
    }

    /// Waits until every trip has its status, stops the orchestrator, and checks that all ledgers balance and
    /// that `sagamq verify` has nothing to say against what was observed.
    pub(super) fn end(mut self, trips: &[(&str, &str)]) {
        for (trip, status) in trips {
            self.becomes(trip, status);
            self.balances(trip, status);
        }
        self.running.take().expect("it runs").stop();
        let evidence = self.site.path("evidence");
        self.write_evidence(&evidence);
        let verdict = self.site.call(&["verify", "evidence"]);
        assert_eq!(verdict.code, Some(0), "{}{}", verdict.out, verdict.err);
    }

    /// Checks that exactly that is booked for a trip which its end stands for.
    fn balances(&self, trip: &str, status: &str) {
        let start = self.placed.iter().find(|start| start["business_key"] == trip).expect("it was asked for");
        for service in SERVICES {
            let is_skipped = start["car"] == false && matches!(service, "cars" | "insurances");
            let expected = i64::from(status == "completed" && !is_skipped);
            let (made, taken) = self.agencies.booked(service, trip);
            assert_eq!(made - taken, expected, "{service} made {made} for {trip} and took {taken} back");
        }
    }

    fn place(&mut self, trip: &str, more: Value, what: &str, key: &str) {
        let id = format!("{what}-{trip}-{}", self.placed.len());
        let mut body = json!({
            "trip_id": trip, "traveller_id": "ann", "city": "Rome", "date": "2027-01-02", "nights": 3,
        });
        body["car"] = more["car"].clone();
        let properties = BasicProperties::default().with_message_id(id.as_str().into());
        self.peer.publish(&format!("trips-{}", self.name), key, body.to_string().as_bytes(), properties);
        self.placed.push(json!({
            "message_id": id, "what": what, "saga": "trip", "business_key": trip, "car": body["car"],
        }));
    }

    fn write_evidence(&self, folder: &Path) {
        std::fs::create_dir(folder).unwrap();
        self.agencies.write_ledgers(folder);
        let write = |name: &str, lines: Vec<Value>| {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(folder.join(name), text).unwrap();
        };
        write("placed.jsonl", self.placed.clone());
        write("messages.jsonl", self.peer.drain(&format!("{}.tap", self.name)).iter().map(told).collect());
        let faults = self.faults.iter().map(|(kind, count)| json!({"kind": kind, "count": count}));
        write("faults.jsonl", faults.collect());
        std::fs::rename(self.site.path("sagamq-data"), folder.join("store")).unwrap();
    }
}

/// A message as `sagamq verify` reads it.
fn told(message: &BasicGetMessage) -> Value {
    let headers = message.properties.headers().iter().flat_map(|headers| headers.inner());
    let headers: BTreeMap<_, _> = headers
        .filter_map(|(name, value)| Some((name.to_string(), value.as_long_string()?.to_string())))
        .collect();
    json!({
        "message_id": message.properties.message_id().as_ref().map(ToString::to_string),
        "exchange": message.exchange.as_str(), "key": message.routing_key.as_str(), "headers": headers,
        "body": String::from_utf8_lossy(&message.data),
    })
}
