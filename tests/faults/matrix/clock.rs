//! The wall clock: set forward and back while sagas run.

use std::fs;
use std::path::Path;

use sagamq::saga::time::Timestamp;

use super::keys;
use crate::evidence::now;
use crate::rig::Rig;
use crate::skip::skip;
use crate::{BROKER, eventually};

/// The library that lies about the wall clock; the monotonic clock stays right.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A rig whose orchestrator believes the clock that it is told; nothing where that cannot be had.
fn rig(name: &str, timeout: &str) -> Option<Rig> {
    if !Path::new(LIBRARY).exists() {
        skip("faketime, which sets the clock, is not installed (scripts/setup test installs it)");
        return None;
    }
    let mut rig = Rig::build(name, &[BROKER.url()]);
    let file = rig.path().join("sagas/saga.yaml");
    let saga = fs::read_to_string(&file).unwrap();
    fs::write(&file, saga.replace("timeout: 1500ms", &format!("timeout: {timeout}"))).unwrap();
    let clock = rig.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    for (name, value) in [
        ("LD_PRELOAD", LIBRARY),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        // So that each saga has a line, which tells the time.
        ("SAGAMQ_LOG__LEVEL", "debug"),
    ] {
        rig.site.set(name, value);
    }
    rig.restart();
    Some(rig)
}

/// Sets the clock by so many hours, as seen from now.
fn set(rig: &Rig, hours: i64) {
    fs::write(rig.path().join("clock"), format!("{hours:+}h")).unwrap();
}

/// Waits until the orchestrator's log tells a time that is so many hours off: the fault took place.
fn is_off(rig: &Rig, hours: i64) {
    eventually(&format!("its clock is {hours} hours off"), || {
        let log = rig.site.log();
        let time =
            log.lines().last().and_then(|line| line.split_whitespace().next()).and_then(Timestamp::parse);
        time.is_some_and(|time| (time.0 - now() as i64 - hours * 3_600_000).abs() < 600_000)
    });
    rig.faulted(if hours < 0 { "clock_back" } else { "clock_forward" });
}

/// How often attempts of an order timed out.
fn timeouts(rig: &Rig, key: &str) -> usize {
    rig.details(key)["history"].to_string().matches("timed_out").count()
}

#[test]
fn a_clock_that_jumps_forward_fires_nothing_early() {
    let Some(rig) = rig("forward", "10m") else { return };
    rig.set_working(false);
    rig.place_all(&keys("A", 10), &[]);
    rig.becomes("A-9", "running");
    set(&rig, 2);
    // What comes after the jump is decided with whatever clock there is now.
    rig.place("B", &[]);
    rig.becomes("B", "running");
    is_off(&rig, 2);
    assert_eq!(timeouts(&rig, "A-9"), 0, "a timeout fired early");
    rig.finish().assert_all(11, "completed");
}

#[test]
fn a_restart_with_a_clock_that_was_set_back_does_nothing_twice_and_waits_on() {
    let Some(mut rig) = rig("back", "1500ms") else { return };
    rig.place_all(&keys("A", 10), &[]);
    rig.kill();
    set(&rig, -2);
    rig.restart();
    rig.place_all(&keys("B", 10), &[]);
    is_off(&rig, -2);
    rig.finish().assert_all(20, "completed");
}

#[test]
fn a_restart_with_a_clock_that_was_set_forward_fires_each_due_timer_once() {
    let Some(mut rig) = rig("ahead", "10m") else { return };
    rig.set_working(false);
    rig.place_all(&keys("A", 10), &[]);
    rig.becomes("A-9", "running");
    eventually("the broker's confirms are on record", || {
        rig.details("A-9").to_string().contains("published")
    });
    rig.kill();
    set(&rig, 2);
    rig.restart();
    is_off(&rig, 2);
    let all = keys("A", 10);
    eventually("what is due fires", || all.iter().all(|key| timeouts(&rig, key) > 0));
    assert!(all.iter().all(|key| timeouts(&rig, key) == 1), "a timer fired twice");
    rig.finish().assert_all(10, "completed");
}
