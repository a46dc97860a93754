//! Faults, injected between the real binary and a real broker.
//!
//! `cargo test --features faults --test faults`

#![expect(clippy::unwrap_used, reason = "tests")]

mod backup;
mod crash;
mod evidence;
mod load;
mod matrix;
mod orchestrator;
mod participant;
mod peer;
mod planted;
#[path = "../support/port.rs"]
mod port;
mod power;
mod proxy;
#[path = "proxy/tests.rs"]
mod proxy_tests;
mod rig;
#[path = "../support/skip.rs"]
mod skip;
#[path = "../support/mod.rs"]
mod support;
mod tap;
mod torture;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sagamq::throwaway::Node;

/// No wait in these tests is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Name of the connection that consumes.
const CONSUMER: &str = "sagamq consumer";
/// Name of the connection that publishes.
const PUBLISHER: &str = "sagamq publisher";

/// One broker for the tests that do not end it. Each has a prefix and exchanges of its own there.
static BROKER: LazyLock<Node> = LazyLock::new(support::broker);

/// Waits for a condition.
fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, holds);
}

/// Waits for a condition that may take its time.
fn eventually_within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
