//! Definitions that change while the orchestrator runs.

use std::collections::BTreeMap;
use std::fs;

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use rustix::process::Signal;
use serde_json::Value;

use crate::peer::Peer;
use crate::process::{Running, Site, eventually};
use crate::{BROKER, support};

/// Two steps over exchanges that begin with `PREFIX`; commands say which version they are of.
const PARCEL: &str = "
saga: parcel
version: 1
start: {on: {exchange: PREFIX.ordered, key: parcel.posted}, business_key: =event.data.id}
steps:
  - {step: pack, command: {exchange: PREFIX.work, key: pack}, timeout: 1h, compensate: none}
  - {step: ship, kind: pivot, command: {exchange: PREFIX.work, key: ship}, timeout: 1h}
";

/// An orchestrator, and who looks on.
struct Scene {
    prefix: &'static str,
    site: Site,
    peer: Peer,
    orchestrator: Running,
}

impl Scene {
    fn new(prefix: &'static str) -> Self {
        Self::over(prefix, &BROKER.url())
    }

    fn over(prefix: &'static str, url: &str) -> Self {
        let peer = Peer::connect(url);
        peer.tap(&format!("{prefix}.work"), &format!("{prefix}.tap"));
        let site = Site::with_broker(&PARCEL.replace("PREFIX", prefix), url, prefix);
        let orchestrator = site.run_until_ready();
        Self { prefix, site, peer, orchestrator }
    }

    fn write(&self, name: &str, text: &str) {
        self.site.write(&format!("sagas/{name}"), text.replace("PREFIX", self.prefix));
    }

    fn place(&self, key: &str, id: &str) {
        let exchange = format!("{}.ordered", self.prefix);
        let body = format!(r#"{{"id": "{id}"}}"#);
        self.peer.publish(&exchange, key, body.as_bytes(), BasicProperties::default());
    }

    /// Answers the next command with success; returns its key and the version that it is of.
    fn answer(&self) -> (String, String) {
        let tap = format!("{}.tap", self.prefix);
        let mut commands = Vec::new();
        eventually("a command is out", || {
            commands.extend(self.peer.drain(&tap));
            !commands.is_empty()
        });
        assert_eq!(commands.len(), 1, "{commands:?}");
        let command = commands.remove(0);
        let properties = command.properties.clone();
        let header = |name: &str| properties.headers().as_ref().unwrap().inner().get(name).cloned();
        let Some(AMQPValue::LongString(version)) = header("x-saga-version") else { panic!("no version") };
        self.peer.answer(&command, "success", b"{}");
        (command.routing_key.to_string(), version.to_string())
    }

    fn hang_up(&self) {
        self.orchestrator.signal(Signal::HUP);
    }

    /// Waits until the log says something so often.
    fn says(&self, what: &str, times: usize) {
        eventually(what, || self.orchestrator.err().matches(what).count() >= times);
    }

    /// The versions: which are in force, and how many instances are running.
    fn versions(&self) -> BTreeMap<String, (bool, u64)> {
        let items = self.site.json(&["versions", "--json"])["items"].as_array().unwrap().clone();
        let version = |item: Value| {
            let name = format!("{} v{}", item["saga"].as_str().unwrap(), item["version"]);
            (name, (item["in_force"] == true, item["running"].as_u64().unwrap()))
        };
        items.into_iter().map(version).collect()
    }

    fn status(&self, id: &str) -> Value {
        let page = self.site.json(&["list", "--json", "--business-key", id]);
        page["items"][0]["status"].clone()
    }

    /// The patterns that the event queue is bound to.
    fn bindings(&self) -> Vec<String> {
        let queue = format!("{}.events", self.prefix);
        let printed =
            BROKER.ctl(&["list_bindings", "source_name", "destination_name", "routing_key"]).unwrap();
        let bound = printed.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let mut patterns: Vec<_> = bound
            .filter(|line| line.len() == 3 && !line[0].is_empty() && line[1] == queue)
            .map(|line| line[2].to_owned())
            .collect();
        patterns.sort();
        patterns
    }
}

fn named(versions: &[(&str, bool, u64)]) -> BTreeMap<String, (bool, u64)> {
    versions.iter().map(|(name, in_force, running)| ((*name).to_owned(), (*in_force, *running))).collect()
}

#[test]
fn a_second_version_comes_into_force_while_instances_of_the_first_finish_as_they_began() {
    let mut scene = Scene::new("raised");
    scene.place("parcel.posted", "P-1");
    assert_eq!(scene.answer(), ("pack".to_owned(), "1".to_owned()));
    assert_eq!(scene.versions(), named(&[("parcel v1", true, 1)]));
    assert_eq!(scene.bindings(), ["parcel.posted"]);

    let second = PARCEL.replace("version: 1", "version: 2").replace("parcel.posted", "parcel.sent");
    scene.write("order.yaml", &second);
    let told = scene.site.printed(&["reload"]);
    assert_eq!(told, "parcel: version 2 is in force, before it 1\n");
    assert_eq!(scene.versions(), named(&[("parcel v1", false, 1), ("parcel v2", true, 0)]));
    let table = scene.site.printed(&["versions"]);
    assert!(table.contains("./sagas/order.yaml") && table.contains("gone"), "{table}");
    assert_eq!(scene.bindings(), ["parcel.posted", "parcel.sent"]);

    // The old pattern is heard for the first version, and starts nothing.
    scene.place("parcel.posted", "P-2");
    assert_eq!(scene.answer(), ("ship".to_owned(), "1".to_owned()));
    eventually("the first is through", || scene.status("P-1") == "completed");
    scene.place("parcel.sent", "P-3");
    assert_eq!(scene.answer(), ("pack".to_owned(), "2".to_owned()));
    assert_eq!(scene.answer(), ("ship".to_owned(), "2".to_owned()));
    eventually("the second is through", || scene.status("P-3") == "completed");
    assert_eq!(scene.status("P-2"), Value::Null);
    eventually("the old pattern is unbound", || scene.bindings() == ["parcel.sent"]);
    let all = scene.site.printed(&["versions", "--all"]);
    assert!(all.contains("gone"), "{all}");
    assert!(!scene.site.printed(&["versions"]).contains("gone"));

    // Back to the first: nothing keeps anyone from that.
    scene.write("order.yaml", PARCEL);
    scene.hang_up();
    scene.says("parcel: version 1 is in force, lower than 2 before: it is the highest in the folder", 1);
    eventually("the bindings follow", || scene.bindings() == ["parcel.posted"]);
    scene.place("parcel.posted", "P-4");
    assert_eq!(scene.answer(), ("pack".to_owned(), "1".to_owned()));
    scene.orchestrator.stop();
    scene.site.call(&["reload"]).assert_refused(3, &["no orchestrator answers at http://127.0.0.1:"]);
    let replayed = scene.site.printed(&["replay"]);
    assert!(replayed.ends_with("every record is the fold of its history\n"), "{replayed}");
}

#[test]
fn a_folder_with_a_mistake_changes_nothing_and_every_mistake_is_told() {
    let mut scene = Scene::new("broken");
    let in_force = named(&[("parcel v1", true, 0)]);
    let refused = |code: i32, parts: &[&str]| {
        let parts = [&["nothing was reloaded, what is in force stays: "], parts].concat();
        scene.site.call(&["reload"]).assert_refused(code, &parts);
        assert_eq!(scene.versions(), in_force);
    };
    let fine = PARCEL.replace("saga: parcel", "saga: letter").replace("parcel.posted", "letter.posted");
    scene.write("letter.yaml", &fine);
    scene.write("second.yaml", &PARCEL.replace("version: 1", "versoin: 2"));
    refused(1, &["error[S0105]", "--> ./sagas/second.yaml:3:1", "3 | versoin: 2", "did you mean `version`?"]);
    scene.write("second.yaml", &fine);
    refused(1, &["error[S0702]: saga letter v1 is already defined in ./sagas/letter.yaml"]);
    fs::remove_file(scene.site.path("sagas/second.yaml")).unwrap();
    scene.write("order.yaml", &PARCEL.replace("1h", "2h"));
    refused(1, &["error[S0703]: saga parcel v1 is not the one that was deployed", "a higher `version`"]);

    // For programs, and in the log.
    let url = format!("http://127.0.0.1:{}/api/v1/definitions/reload", scene.site.port);
    let post = || ureq::post(&url).config().http_status_as_error(false).build();
    let mut answer = post().send_empty().unwrap();
    assert_eq!(answer.status(), 422);
    let error = answer.body_mut().read_json::<Value>().unwrap()["error"].take();
    assert_eq!((&error["code"], &error["problems"][0]["code"]), (&"bad_definitions".into(), &"S0703".into()));
    assert_eq!(error["problems"][0]["file"], "./sagas/order.yaml");
    assert_eq!(post().header("origin", &url).send_empty().unwrap().status(), 403);
    scene.hang_up();
    scene.says("definition refused code=\"S0703\"", 3);

    fs::rename(scene.site.path("sagas"), scene.site.path("elsewhere")).unwrap();
    refused(1, &["error[S0101]: cannot be read"]);
    fs::create_dir(scene.site.path("sagas")).unwrap();
    refused(1, &["error[S0102]: there is no saga definition"]);
    // A folder has no lines.
    scene.says("definition refused code=\"S0102\" file=\"./sagas\" reason=", 1);

    // What the broker refuses is refused too, and what it took by then is taken back.
    let other = fine.replace("PREFIX.work, key: pack", "amq.of-the-broker, key: pack");
    scene.write("letter.yaml", &other);
    refused(3, &["exchange \"amq.of-the-broker\"", "ACCESS_REFUSED"]);
    assert_eq!(scene.bindings(), ["parcel.posted"]);

    scene.write("letter.yaml", &fine);
    scene.write("order.yaml", PARCEL);
    assert_eq!(scene.site.printed(&["reload"]), "letter: version 1 is new\nparcel: version 1 as before\n");
    scene.place("letter.posted", "L-1");
    assert_eq!(scene.answer(), ("pack".to_owned(), "1".to_owned()));
    assert_eq!(scene.bindings(), ["letter.posted", "parcel.posted"]);
    let metrics = ureq::get(format!("http://127.0.0.1:{}/metrics", scene.site.port)).call().unwrap();
    let metrics = metrics.into_body().read_to_string().unwrap();
    for count in [r#"{result="refused"} 7"#, r#"{result="failed"} 1"#, r#"{result="reloaded"} 1"#] {
        assert!(metrics.contains(&format!("sagamq_reloads_total{count}")), "{count}: {metrics}");
    }
    scene.orchestrator.stop();
}

#[test]
fn a_removed_definition_goes_on_for_its_instances_and_starts_no_more() {
    let mut scene = Scene::new("removed");
    let letter = PARCEL.replace("saga: parcel", "saga: letter").replace("parcel.posted", "letter.posted");
    scene.write("letter.yaml", &letter);
    scene.hang_up();
    scene.says("letter: version 1 is new", 1);
    scene.place("letter.posted", "L-1");
    assert_eq!(scene.answer(), ("pack".to_owned(), "1".to_owned()));

    fs::remove_file(scene.site.path("sagas/letter.yaml")).unwrap();
    scene.hang_up();
    scene.says("letter: removed, nothing starts with version 1 any more", 1);
    assert_eq!(scene.versions(), named(&[("letter v1", false, 1), ("parcel v1", true, 0)]));
    scene.place("letter.posted", "L-2");

    // Also over a restart.
    scene.orchestrator.stop();
    scene.orchestrator = scene.site.run_until_ready();
    assert_eq!(scene.versions(), named(&[("letter v1", false, 1), ("parcel v1", true, 0)]));
    assert_eq!(scene.answer(), ("ship".to_owned(), "1".to_owned()));
    eventually("it goes on to its end", || scene.status("L-1") == "completed");
    eventually("nothing listens to it any more", || scene.bindings() == ["parcel.posted"]);
    assert_eq!(scene.status("L-2"), Value::Null, "it started another one");
    scene.orchestrator.stop();

    // A folder that changes while nothing runs comes to the same.
    fs::remove_file(scene.site.path("sagas/order.yaml")).unwrap();
    scene.write("letter.yaml", &letter);
    scene.orchestrator = scene.site.run_until_ready();
    assert_eq!(scene.bindings(), ["letter.posted"]);
}

#[test]
fn a_topology_that_is_only_verified_is_neither_made_nor_unbound_by_a_reload() {
    let mut scene = Scene::new("verified");
    scene.orchestrator.stop();
    scene.site.set("BROKER__TOPOLOGY", "verify");
    scene.orchestrator = scene.site.run_until_ready();
    scene.write("letter.yaml", &PARCEL.replace("saga: parcel", "saga: letter").replace("PREFIX", "missing"));
    let parts = ["exchange \"missing.ordered\"", "set broker.topology to declare"];
    scene.site.call(&["reload"]).assert_refused(3, &parts);
    assert_eq!(scene.versions(), named(&[("parcel v1", true, 0)]));
    fs::remove_file(scene.site.path("sagas/letter.yaml")).unwrap();
    let second = PARCEL.replace("version: 1", "version: 2").replace("parcel.posted", "parcel.sent");
    scene.write("order.yaml", &second);
    scene.site.printed(&["reload"]);
    scene.orchestrator.stop();
    assert_eq!(scene.bindings(), ["parcel.posted"]);
}

#[test]
fn without_its_broker_nothing_is_reloaded_and_the_same_folder_is_afterwards() {
    let mut node = support::broker();
    let scene = Scene::over("lonely", &node.url());
    node.stop();
    scene.write("letter.yaml", &PARCEL.replace("saga: parcel", "saga: letter"));
    scene.site.call(&["reload"]).assert_refused(3, &["nothing was reloaded", "no broker at amqp://guest@"]);
    assert_eq!(scene.versions(), named(&[("parcel v1", true, 0)]));
    node.restart().unwrap();
    eventually("the broker is back", || scene.site.call(&["reload"]).code == Some(0));
    assert_eq!(scene.versions(), named(&[("letter v1", true, 0), ("parcel v1", true, 0)]));
}
