//! Definitions that change while sagas are under way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use sagamq::fault::Point;

use super::keys;
use crate::rig::Rig;
use crate::{BROKER, eventually};

/// Orders at a time.
const ORDERS: usize = 5;

#[test]
fn a_sigkill_before_or_after_the_commit_of_a_reload_leaves_nothing_half_in_force() {
    let mut rig = Rig::build("reload", &[BROKER.url()]);
    let definition = |version: &str, hours: &str| {
        let text = include_str!("../saga.yaml").replace("PREFIX", &rig.prefix);
        text.replace("version: 1", version).replace("after: 10h", hours)
    };
    let file = rig.path().join("sagas/saga.yaml");
    let [second, other_second, third] =
        [("version: 2", "after: 10h"), ("version: 2", "after: 11h"), ("version: 3", "after: 10h")]
            .map(|(version, hours)| definition(version, hours));

    // Before the commit, nothing of it is there: the same version may even be another one.
    dies_at(&mut rig, Point::Reload, "first", || fs::write(&file, &second).unwrap());
    fs::write(&file, other_second).unwrap();
    rig.restart();
    assert_eq!(in_force(&rig), 2);
    rig.set_working(true);
    rig.becomes("first-0", "completed");
    rig.end();

    // After it, all of it is: it is in force, and cannot be another one.
    dies_at(&mut rig, Point::Reloaded, "second", || fs::write(&file, &third).unwrap());
    fs::write(&file, third.replace("after: 10h", "after: 11h")).unwrap();
    rig.boot("");
    eventually("it is refused", || rig.orchestrator().exit_code() == Some(1));
    assert!(rig.site.log().contains("error[S0703]: saga parcel v3 is not the one that was deployed"));
    fs::write(&file, third).unwrap();
    rig.restart();
    assert_eq!(in_force(&rig), 3);
    rig.place_all(&keys("third", ORDERS), &[]);

    let evidence = rig.finish();
    evidence.assert_all(3 * ORDERS, "completed");
    // Every instance went on as it began.
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in evidence.lines("messages.jsonl") {
        let text = |name: &str| message["headers"][name].as_str().map(str::to_owned);
        if let (Some(id), Some(version)) = (text("x-saga-id"), text("x-saga-version")) {
            versions.entry(id).or_default().insert(version);
        }
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for of_one in versions.into_values() {
        assert_eq!(of_one.len(), 1, "an instance changed its version: {of_one:?}");
        of_one.into_iter().for_each(|version| *counts.entry(version).or_default() += 1);
    }
    assert_eq!(counts, ["1", "2", "3"].map(|version| (version.to_owned(), ORDERS)).into());
}

/// Starts it, has orders under way, and has it reload until it dies at a point of that.
fn dies_at(rig: &mut Rig, point: Point, orders: &str, change: impl FnOnce()) {
    rig.set_working(false);
    rig.boot(&format!("{}=return", point.name()));
    rig.is_ready();
    rig.place_all(&keys(orders, ORDERS), &[]);
    eventually("all of them are under way", || {
        let statuses = rig.statuses();
        statuses.iter().filter(|(key, _)| key.starts_with(orders)).count() == ORDERS
    });
    change();
    rig.orchestrator().hang_up();
    eventually(&format!("it dies at {point:?}"), || rig.orchestrator().is_killed());
    rig.faulted(&format!("kill_at_{}", point.name()));
}

/// The version that starts new instances.
fn in_force(rig: &Rig) -> u64 {
    let versions = rig.site.get("definitions").expect("the orchestrator answers");
    let items = versions["items"].as_array().unwrap();
    let in_force: Vec<_> = items.iter().filter(|item| item["in_force"] == true).collect();
    assert_eq!(in_force.len(), 1, "{versions}");
    in_force[0]["version"].as_u64().unwrap()
}
