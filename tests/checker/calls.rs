//! I19: what calls and what is called end the same way.

use sagamq::checker::evidence::{Evidence, Placing};
use sagamq::checker::{Invariant, check};
use sagamq::definitions::Loaded;
use sagamq::saga::compile::load;
use sagamq::saga::instance::{Instance, Status};
use sagamq::simulate::{Planned, Setting, play};
use serde_json::json;

const TOUR: &str = r#"
saga: tour
version: 1
start: {on: {exchange: tours, key: tour.requested}, business_key: =event.data.tour_id}
steps:
  - {call: stay, saga: stay}
  - {step: pay, kind: pivot, command: {exchange: payments, key: pay}}
"#;
const STAY: &str = r#"
saga: stay
version: 1
start: {on: {exchange: stays, key: stay.requested}, business_key: =event.data.id}
steps:
  - {step: book, command: {exchange: hotels, key: book}, compensate: {command: {exchange: hotels, key: cancel}}}
"#;

/// What was observed of a tour that ended like this.
fn tour(status: Status) -> Evidence {
    let loaded = |source: &str| {
        let plan = load("f", source).unwrap();
        Loaded { file: plan.saga.clone(), source: source.to_owned(), plan: plan.into() }
    };
    let what = Placing::Start { saga: "tour".into(), business_key: "U-1".into() };
    let body = json!({"tour_id": "U-1"}).to_string();
    let setting = Setting {
        definitions: [TOUR, STAY].map(loaded).to_vec(),
        events: vec![Planned::new("tours", "tour.requested", body, what)],
        reply_data: json!({}),
        ..Setting::default()
    };
    let plays = (0..200).map(|seed| play(&setting, seed).unwrap().evidence);
    let is_wanted = |evidence: &Evidence| {
        let instances = &evidence.instances;
        instances.iter().all(|one| one.instance.status == status)
            && instances.iter().any(|one| one.instance.saga == "stay" && one.history.len() > 2)
    };
    plays.into_iter().find(is_wanted).expect("some seed ends like this")
}

fn violated(evidence: &Evidence) -> Vec<Invariant> {
    check(evidence).violations.iter().map(|violation| violation.invariant).collect()
}

#[test]
fn calls_that_end_alike_are_right() {
    for status in [Status::Completed, Status::Compensated] {
        assert_eq!(violated(&tour(status)), []);
    }
}

#[test]
fn a_called_instance_that_has_not_ended_with_its_caller_is_told() {
    for status in [Status::Completed, Status::Compensated] {
        let mut run = tour(status);
        let called = run.instances.iter_mut().find(|one| one.instance.saga == "stay").unwrap();
        called.history.truncate(2);
        called.instance = Instance::replay(called.instance.id, &called.history).unwrap();
        assert!(violated(&run).contains(&Invariant::I19), "{status}");
    }
}

#[test]
fn a_caller_or_a_called_instance_that_is_not_there_is_told() {
    for saga in ["tour", "stay"] {
        let mut run = tour(Status::Completed);
        run.instances.retain(|one| one.instance.saga != saga);
        assert!(violated(&run).contains(&Invariant::I19), "{saga}");
    }
}
