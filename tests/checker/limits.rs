//! I20: no more commands of a limited step are out than its limit lets.

use std::sync::Arc;

use sagamq::checker::evidence::{Evidence, Placing};
use sagamq::checker::{Invariant, check};
use sagamq::definitions::Loaded;
use sagamq::saga::compile::load;
use sagamq::simulate::{Planned, Setting, play};
use serde_json::json;

const ORDER: &str = r#"
saga: order
version: 1
start: {on: {exchange: orders, key: order.placed}, business_key: =event.data.order_id}
steps:
  - {step: print, command: {exchange: printers, key: print}, limit: {in_flight: 2}, compensate: none}
"#;

/// What was observed of five orders.
fn orders(seed: u64) -> Evidence {
    let order = |number: usize| {
        let id = format!("A-{number}");
        let body = json!({"order_id": id}).to_string();
        let what = Placing::Start { saga: "order".into(), business_key: id };
        Planned::new("orders", "order.placed", body, what)
    };
    let plan = load("order.yaml", ORDER).unwrap().into();
    let setting = Setting {
        definitions: vec![Loaded { file: "order.yaml".into(), source: ORDER.to_owned(), plan }],
        events: (1..=5).map(order).collect(),
        reply_data: json!({}),
        ..Setting::default()
    };
    play(&setting, seed).unwrap().evidence
}

fn violated(evidence: &Evidence) -> Vec<Invariant> {
    check(evidence).violations.iter().map(|violation| violation.invariant).collect()
}

#[test]
fn as_many_as_the_limit_lets_are_right_and_one_more_is_told() {
    let lower = Arc::new(load("order.yaml", &ORDER.replace("in_flight: 2", "in_flight: 1")).unwrap());
    for seed in 0..50 {
        let mut run = orders(seed);
        assert_eq!(violated(&run), [], "seed {seed}");
        for plan in run.plans.values_mut() {
            *plan = Arc::clone(&lower);
        }
        assert_eq!(violated(&run), [Invariant::I20], "seed {seed}");
    }
}

#[test]
fn an_attempt_that_awaits_its_turn_where_nothing_is_limited_is_told() {
    let unlimited = ORDER.replace("limit: {in_flight: 2}, ", "");
    let without = Arc::new(load("order.yaml", &unlimited).unwrap());
    let mut run = orders(0);
    run.plans.values_mut().for_each(|plan| *plan = Arc::clone(&without));
    let found = violated(&run);
    assert!(!found.is_empty() && found.iter().all(|one| *one == Invariant::I11), "{found:?}");
}
