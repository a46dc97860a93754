//! The suite is tested itself: each bug that is planted must be found. Those that only a real process or
//! a real broker can show are in `tests/faults/planted.rs`.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/storm.rs"]
mod storm;

use std::process::Command;

use fail::FailScenario;
use sagamq::checker::{Invariant, check};
use sagamq::definitions;
use sagamq::fault::Bug;
use sagamq::simulate::play;
use sagamq::trial::{self, Selection};

/// So many plays must be enough to find a bug.
const SEEDS: u64 = 100;

/// Plays with a bug until the checker finds that one of these does not hold.
fn assert_found(bug: Option<Bug>, expected: &[Invariant]) {
    // Also a lock: what is planted holds for the whole process.
    let scenario = FailScenario::setup();
    if let Some(bug) = bug {
        fail::cfg(bug.name(), "return").unwrap();
    }
    let setting = storm::storm(false);
    let mut found = Vec::new();
    for seed in 0..SEEDS {
        let outcome = play(&setting, seed).unwrap();
        let violations = check(&outcome.evidence).violations;
        found.extend(violations.iter().map(|violation| violation.invariant));
        if found.iter().any(|invariant| expected.contains(invariant)) {
            break;
        }
    }
    scenario.teardown();
    match bug {
        None => assert!(found.is_empty(), "found without a bug: {found:?}"),
        Some(bug) => {
            assert!(expected.iter().any(|invariant| found.contains(invariant)), "{bug:?}: only {found:?}");
        }
    }
}

#[test]
fn without_a_bug_nothing_is_found() {
    assert_found(None, &[]);
}

#[test]
fn random_ids_are_found() {
    assert_found(Some(Bug::RandomIds), &[Invariant::I7]);
}

#[test]
fn a_commit_without_a_sync_is_found() {
    assert_found(Some(Bug::NoSync), &[Invariant::I1, Invariant::I8]);
}

#[test]
fn undoing_out_of_order_is_found() {
    assert_found(Some(Bug::UnorderedCompensation), &[Invariant::I6]);
}

#[test]
fn an_unknown_step_that_is_not_undone_is_found() {
    assert_found(Some(Bug::UnknownNotUndone), &[Invariant::I3, Invariant::I12]);
}

#[test]
fn timers_that_a_restart_loses_are_found() {
    assert_found(Some(Bug::TimersLost), &[Invariant::I2]);
}

#[test]
fn slots_that_a_restart_loses_are_found() {
    assert_found(Some(Bug::SlotsLost), &[Invariant::I2, Invariant::I20]);
}

#[test]
fn a_second_start_that_is_accepted_is_found() {
    assert_found(Some(Bug::SecondStart), &[Invariant::I1]);
}

#[test]
fn an_event_that_counts_each_time_it_comes_is_found() {
    assert_found(Some(Bug::EventsForgotten), &[Invariant::I21]);
}

#[test]
fn numbers_that_are_rounded_are_found() {
    assert_found(Some(Bug::NumbersRounded), &[Invariant::I22]);
}

#[test]
fn what_is_left_and_told_as_undone_is_found() {
    assert_found(Some(Bug::LeftToldUndone), &[Invariant::I23]);
}

#[test]
fn a_healthy_message_that_is_put_aside_is_found() {
    assert_found(Some(Bug::LowDeliveryLimit), &[Invariant::I24]);
}

#[test]
fn a_reply_that_was_made_up_and_counts_is_found() {
    assert_found(Some(Bug::ForgedAdmitted), &[Invariant::I13]);
}

/// A saga is tried by its users: they find such bugs too.
#[test]
fn trials_of_sagas_find_them_as_well() {
    let scenario = FailScenario::setup();
    let sagas = ["sagas/order.yaml".into(), "sagas/signup.yaml".into()];
    let loaded = definitions::load_all(&sagas).unwrap();
    let selection = Selection { paths: true, pairs: Some(0), filter: None, time_lines: false };
    let wrong = || {
        let outcome = trial::run(&loaded, &[], selection, &|_, _, _| {}).unwrap();
        let failures = outcome.definitions.into_iter().flat_map(|tried| tried.explored.failures);
        failures.flat_map(|failure| failure.wrong).collect::<Vec<_>>()
    };
    assert_eq!(wrong(), Vec::<String>::new());
    for (bug, invariant) in [
        (Bug::RandomIds, "I7, "),
        (Bug::NoSync, "I8, "),
        (Bug::UnorderedCompensation, "I6, "),
        (Bug::UnknownNotUndone, "I12, "),
        (Bug::TimersLost, "I2, "),
        (Bug::SecondStart, "I1, "),
    ] {
        fail::cfg(bug.name(), "return").unwrap();
        let found = wrong();
        fail::cfg(bug.name(), "off").unwrap();
        assert!(found.iter().any(|what| what.starts_with(invariant)), "{bug:?}: only {found:?}");
    }
    scenario.teardown();
}

/// And this is what they read then.
#[test]
fn a_path_that_fails_is_told_with_what_does_not_hold_and_with_its_time_line() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagamq"));
    command.env("FAILPOINTS", format!("{}=return", Bug::UnknownNotUndone.name()));
    command.args(["test", "sagas/order.yaml", "--no-pairs", "--filter", "charge_payment: silence"]);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let (_, failed) = text.split_once("\n  FAILED  ").unwrap();
    assert!(failed.starts_with("charge_payment: silence: compensated\n"), "{text}");
    let told = [
        "\n    I12, a late success is compensated or taken in, never swallowed: step charge_payment: ",
        " +0.000s  <- event order.placed on orders: {",
        " +0.010s  -> charge_payment: payment.charge on payments {",
        " +5.010s     charge_payment: no reply in time\n",
        "s     charge_payment: given up, perhaps done: ",
        "s  -> undo reserve_stock: stock.release on inventory {",
        "s     nothing more is to be undone\n",
        "\nNOT PASSED: 2 paths in ",
    ];
    let mut rest = failed;
    for part in told {
        (_, rest) = rest.split_once(part).unwrap_or_else(|| panic!("{part:?} does not follow in {text}"));
    }
    assert!(rest.ends_with(", 1 of them failed\n"), "{text}");
}
