//! The whole over a real RabbitMQ, with real processes: orders of every fate, and kills in the middle.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::sync::Arc;

use sagamq::demo::{DemoError, Fault, Options, Outcome, play};

fn play_with(orders: usize, fault: Fault) -> Outcome {
    let options = Options {
        orders,
        fault,
        definitions: "sagas".into(),
        binary: env!("CARGO_BIN_EXE_sagamq").into(),
        interrupted: Arc::default(),
    };
    play(&options).unwrap()
}

#[test]
fn a_program_that_is_not_built_is_missed_before_anything_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("examples")).unwrap();
    let services =
        ["inventory", "payment", "shipping", "email", "analytics"].map(|name| format!("examples/{name}"));
    for name in services.iter().map(String::as_str).chain(["sagamq"]) {
        fs::write(at(name), "").unwrap();
    }
    let options = Options {
        orders: 1,
        fault: Fault::None,
        definitions: "sagas".into(),
        binary: at("sagamq"),
        interrupted: Arc::default(),
    };
    let error = play(&options).unwrap_err();
    assert!(matches!(&error, DemoError::NotBuilt(missing) if *missing == at("examples/order")), "{error}");
}

#[test]
fn orders_of_every_fate_end_as_they_must_with_balanced_ledgers() {
    let outcome = play_with(40, Fault::None);
    assert!(outcome.surprises.is_empty(), "{:#?}", outcome.surprises);
    assert_eq!(outcome.under_way_at_fault, None);
}

#[test]
fn a_sigkill_of_the_orchestrator_with_200_orders_under_way_loses_none() {
    let outcome = play_with(240, Fault::Orchestrator);
    assert!(outcome.surprises.is_empty(), "{:#?}", outcome.surprises);
    assert!(outcome.under_way_at_fault >= Some(200), "{:?} under way", outcome.under_way_at_fault);
}

#[test]
fn a_sigkill_of_the_broker_with_200_orders_under_way_loses_none() {
    let outcome = play_with(240, Fault::Broker);
    assert!(outcome.surprises.is_empty(), "{:#?}", outcome.surprises);
    assert!(outcome.under_way_at_fault >= Some(200), "{:?} under way", outcome.under_way_at_fault);
}
