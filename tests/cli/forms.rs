//! Steps that wait, tell, call and go over lists, over a real broker and through SIGKILLs.

use std::collections::{BTreeMap, BTreeSet};

use lapin::BasicProperties;
use lapin::message::BasicGetMessage;
use lapin::types::AMQPValue;
use serde_json::{Value, json};

use crate::BROKER;
use crate::peer::Peer;
use crate::process::{Running, Site, eventually};

/// Every form of step, over exchanges that begin with `PREFIX`.
const PARTY: &str = "
saga: party
version: 1
start: {on: {exchange: PREFIX.in, key: party.planned}, business_key: =event.data.id}
cancel: {on: {exchange: PREFIX.in, key: party.off}, business_key: =event.data.id}
steps:
  - foreach: guests
    items: =input.guests
    as: guest
    max_in_flight: 2
    steps:
      - step: invite
        command: {exchange: PREFIX.work, key: invite, body: {who: =input.guest}}
        output: {answer: =reply.data.key}
        compensate: {command: {exchange: PREFIX.work, key: uninvite, body: {who: =input.guest}}}
    output: =steps.invite.output.answer
  - emit: ask
    event: {exchange: PREFIX.work, key: asked, body: {answers: =steps.guests.output}}
  - wait: nod
    on: {exchange: PREFIX.in, key: party.approved}
    timeout: 1h
    output: {by: =event.data.by}
  - {delay: rest, for: 50ms}
  - {call: stay, saga: stay, input: {for: =steps.nod.output.by}}
  - step: pay
    kind: pivot
    command: {exchange: PREFIX.work, key: pay, body: {room: =steps.stay.output}}
on_completed: {emit: {exchange: PREFIX.work, key: party.done}}
on_cancel_refused: {emit: {exchange: PREFIX.work, key: party.goes_on}}
";

/// Is only called.
const STAY: &str = "
saga: stay
version: 1
steps:
  - step: book
    command: {exchange: PREFIX.work, key: book, body: =input}
    output: {room: =reply.data.key}
    compensate: {command: {exchange: PREFIX.work, key: unbook}}
output: =steps.book.output.room
";

/// An orchestrator, and a participant that does all that it is asked, but for some.
struct Scene {
    prefix: &'static str,
    site: Site,
    peer: Peer,
    orchestrator: Option<Running>,
    refuses: BTreeSet<&'static str>,
    /// Commands that are not answered yet.
    left: Vec<BasicGetMessage>,
    /// The keys of the commands that were answered, by command id.
    done: BTreeMap<String, String>,
    /// Bodies of events, by key.
    events: BTreeMap<String, Vec<Value>>,
}

impl Scene {
    fn new(prefix: &'static str, refuses: &[&'static str]) -> Self {
        let peer = Peer::connect(&BROKER.url());
        peer.tap(&format!("{prefix}.work"), &format!("{prefix}.tap"));
        let site = Site::with_broker(&PARTY.replace("PREFIX", prefix), &BROKER.url(), prefix);
        site.write("sagas/stay.yaml", STAY.replace("PREFIX", prefix));
        let orchestrator = Some(site.run_until_ready());
        let refuses = refuses.iter().copied().collect();
        let (left, done, events) = Default::default();
        Self { prefix, site, peer, orchestrator, refuses, left, done, events }
    }

    fn tell(&self, key: &str, body: &Value) {
        let exchange = format!("{}.in", self.prefix);
        self.peer.publish(&exchange, key, body.to_string().as_bytes(), BasicProperties::default());
    }

    /// Answers all commands that are out, and takes in the events.
    fn work(&mut self) {
        self.work_up_to("");
    }

    /// Answers all commands that are out, but none for this step, and takes in the events.
    fn work_up_to(&mut self, step: &str) {
        let mut messages = std::mem::take(&mut self.left);
        messages.append(&mut self.peer.drain(&format!("{}.tap", self.prefix)));
        for message in messages {
            let key = message.routing_key.to_string();
            let headers = message.properties.headers().clone().unwrap_or_default();
            let Some(AMQPValue::LongString(id)) = headers.inner().get("x-saga-command-id") else {
                let body = serde_json::from_slice(&message.data).unwrap();
                self.events.entry(key).or_default().push(body);
                continue;
            };
            if key == step {
                self.left.push(message);
                continue;
            }
            let outcome = if self.refuses.contains(key.as_str()) { "failure" } else { "success" };
            let body = json!({"key": key}).to_string();
            self.peer.answer(&message, outcome, body.as_bytes());
            self.done.insert(id.to_string(), key);
        }
    }

    /// Ends the orchestrator by SIGKILL, and starts it again.
    fn kill(&mut self) {
        self.orchestrator = None;
        self.orchestrator = Some(self.site.run_until_ready());
    }

    fn instance(&self, saga: &str) -> Value {
        self.site.json(&["list", "--json", "--saga", saga])["items"][0].clone()
    }

    fn becomes(&mut self, status: &str) {
        eventually(status, || {
            self.work();
            self.instance("party")["status"] == status
        });
        self.work();
    }

    /// Waits until a step of the party is under way; its command is not answered.
    fn comes_to(&mut self, step: &str) {
        eventually(step, || {
            self.work_up_to(step);
            self.instance("party")["current"] == json!([step])
        });
    }

    /// How often a command of this key was done.
    fn count(&self, key: &str) -> usize {
        self.done.values().filter(|done| *done == key).count()
    }
}

#[test]
fn every_form_of_step_comes_to_its_end_through_kills() {
    let mut scene = Scene::new("forms", &[]);
    scene.tell("party.planned", &json!({"id": "P-1", "guests": ["ann", "bob", "eve"]}));
    scene.comes_to("nod");
    scene.kill();
    scene.tell("party.approved", &json!({"id": "P-1", "by": "ann"}));
    scene.comes_to("pay");
    scene.kill();
    scene.becomes("completed");
    let counts = ["invite", "book", "pay", "uninvite", "unbook"].map(|key| scene.count(key));
    assert_eq!(counts, [3, 1, 1, 0, 0]);
    assert_eq!(scene.instance("stay")["status"], "completed");
    assert_eq!(scene.instance("stay")["business_key"], "party/P-1/stay");
    let guests = scene.site.json(&["list", "--json", "--saga", "party.guests", "--status", "completed"]);
    assert_eq!(guests["items"].as_array().unwrap().len(), 3);
    let asked = &scene.events["asked"];
    assert!(
        asked.iter().all(|body| *body == json!({"answers": ["invite", "invite", "invite"]})),
        "{asked:?}"
    );
    scene.tell("party.off", &json!({"id": "P-1"}));
    eventually("it is told that it goes on", || {
        scene.work();
        scene.events.contains_key("party.goes_on")
    });
}

#[test]
fn a_refused_pivot_has_items_and_called_sagas_undone() {
    let mut scene = Scene::new("undone", &["pay"]);
    scene.tell("party.planned", &json!({"id": "P-1", "guests": ["ann", "bob"]}));
    eventually("it runs", || scene.instance("party")["status"] == "running");
    scene.tell("party.approved", &json!({"id": "P-1", "by": "ann"}));
    scene.becomes("compensated");
    let counts = ["invite", "uninvite", "book", "unbook"].map(|key| scene.count(key));
    assert_eq!(counts, [2, 2, 1, 1]);
    assert_eq!(scene.instance("stay")["status"], "compensated");
    assert_eq!(scene.instance("party.guests")["status"], "compensated");
}

#[test]
fn a_called_saga_that_is_refused_has_the_items_before_it_undone() {
    let mut scene = Scene::new("refused-call", &["book"]);
    scene.tell("party.planned", &json!({"id": "P-1", "guests": ["ann"]}));
    scene.comes_to("nod");
    scene.tell("party.approved", &json!({"id": "P-1", "by": "ann"}));
    scene.becomes("compensated");
    assert_eq!(["uninvite", "unbook", "pay"].map(|key| scene.count(key)), [1, 0, 0]);
    assert_eq!(scene.instance("party")["error"]["step"], "stay");
}
