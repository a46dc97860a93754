//! Bugs that only a real process and a real broker show, planted: the checker must find each.
//! `power` has one more, `tests/planted.rs` all others.

use sagamq::checker::{Invariant, Report};
use sagamq::fault::{Bug, Point};
use std::time::Duration;

use crate::rig::Rig;
use crate::{BROKER, eventually};

fn assert_found(report: &Report, expected: &[Invariant]) {
    let found: Vec<_> = report.violations.iter().map(|violation| violation.invariant).collect();
    assert!(expected.iter().any(|invariant| found.contains(invariant)), "{report}");
}

/// Deaths in one test: a single one may come when nothing is at stake.
const DEATHS: usize = 4;

/// Orders, and deaths in the middle of commits whose deliveries may be acked already. Tests that run at the
/// same time need names of their own.
fn dies_in_a_commit(name: &str, bugs: &str) -> Report {
    let mut rig = Rig::start(name, &BROKER.url());
    rig.end();
    // Nobody answers: every commit is one of starts, which nobody would send a second time.
    rig.set_working(false);
    let load = rig.load(Duration::from_millis(100));
    // Each commit takes a while, in which an ack has the time to reach the broker.
    let (commit, append) = (Point::Commit.name(), Point::Append.name());
    for _ in 0..DEATHS {
        // The first commit of a start holds what came in while nobody was there.
        let before = load.placed();
        eventually("orders wait", || load.placed() > before);
        rig.boot(&format!("{bugs}{commit}=sleep(50);{append}=return"));
        eventually("it dies in a commit", || rig.orchestrator().is_killed());
        rig.faulted("kill_in_a_commit");
    }
    drop(load);
    rig.restart();
    rig.finish_anyhow()
}

#[test]
fn an_ack_before_its_commit_is_found_by_a_sigkill() {
    let report = dies_in_a_commit("no-bug", "");
    assert!(report.passed(), "{report}");
    let report = dies_in_a_commit("early-ack", &format!("{}=return;", Bug::AckBeforeCommit.name()));
    assert_found(&report, &[Invariant::I1, Invariant::I8]);
}

#[test]
fn a_publish_before_its_commit_is_found_by_a_sigkill() {
    // What is decided once more has another deadline, and so other bytes under the same id.
    let report = dies_in_a_commit("early-publish", &format!("{}=return;", Bug::PublishBeforeCommit.name()));
    assert_found(&report, &[Invariant::I7]);
}

#[test]
fn a_second_owner_that_is_not_refused_is_found() {
    let mut rig = Rig::start("one-owner", &BROKER.url());
    let load = rig.load(Duration::from_millis(100));
    let intruder = rig.intrude("");
    assert_eq!(intruder.ends(), Some(3), "{}", intruder.log());
    drop(load);
    let evidence = rig.finish();
    assert!(evidence.report.passed(), "{}", evidence.report);

    let unclaimed = format!("{}=return", Bug::PrefixUnclaimed.name());
    let mut rig = Rig::build("two-owners", &[BROKER.url()]);
    rig.boot(&unclaimed);
    rig.is_ready();
    // Without a claim, nobody knows that there is a store; it makes one of its own.
    rig.intrude(&unclaimed).is_ready();
    let load = rig.load(Duration::from_millis(100));
    eventually("orders came in", || load.placed() > 60);
    drop(load);
    rig.calm_down(false);
    rig.end_intruder();
    assert_found(&rig.finish_anyhow(), &[Invariant::I25]);
}

#[test]
fn a_returned_message_that_counts_as_published_is_found() {
    let mut rig = Rig::build("unseen-return", &[BROKER.url()]);
    rig.boot(&format!("{}=return", Bug::ReturnsUnseen.name()));
    rig.is_ready();
    rig.bind("stock", false);
    rig.place("A-1", &[]);
    rig.becomes("A-1", "compensating");
    rig.bind("stock", true);
    rig.becomes("A-1", "compensated");
    rig.faulted("unroutable");
    assert_found(&rig.finish_anyhow(), &[Invariant::I9]);
}
