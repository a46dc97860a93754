//! The wall clock: set forward and back while sagas run.

use std::fs;
use std::path::Path;

use super::keys;
use crate::BROKER;
use crate::rig::Rig;

/// The library that lies about the wall clock; the monotonic clock stays right.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A rig whose orchestrator believes the clock that it is told; nothing where that cannot be had.
fn rig(name: &str, timeout: &str) -> Option<Rig> {
    if !Path::new(LIBRARY).exists() {
        eprintln!(
            "skipped: faketime, which sets the clock, is not installed (scripts/setup test installs it)"
        );
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
    ] {
        rig.site.set(name, value);
    }
    rig.restart();
    Some(rig)
}

fn set(rig: &Rig, offset: &str, fault: &str) {
    fs::write(rig.path().join("clock"), offset).unwrap();
    rig.faulted(fault);
}

#[test]
fn a_clock_that_jumps_forward_fires_nothing_early() {
    let Some(mut rig) = rig("forward", "10m") else { return };
    rig.set_working(false);
    rig.place_all(&keys("A", 10), &[]);
    rig.becomes("A-9", "running");
    set(&rig, "+2h", "clock_forward");
    // What comes after the jump is decided with whatever clock there is now.
    rig.place("B", &[]);
    rig.becomes("B", "running");
    assert!(!rig.details("A-9")["history"].to_string().contains("timed_out"), "a timeout fired early");
    // A restart reads the clock anew: those are two hours later now, and due.
    rig.kill();
    rig.restart();
    rig.finish().assert_all(11, "completed");
}

#[test]
fn a_restart_with_a_clock_that_was_set_back_does_nothing_twice_and_waits_on() {
    let Some(mut rig) = rig("back", "1500ms") else { return };
    rig.place_all(&keys("A", 10), &[]);
    rig.kill();
    set(&rig, "-2h", "clock_back");
    rig.restart();
    rig.place_all(&keys("B", 10), &[]);
    rig.finish().assert_all(20, "completed");
}

#[test]
fn a_restart_with_a_clock_that_was_set_forward_fires_each_due_timer_once() {
    let Some(mut rig) = rig("ahead", "10m") else { return };
    rig.set_working(false);
    rig.place_all(&keys("A", 10), &[]);
    rig.becomes("A-9", "running");
    rig.kill();
    set(&rig, "+2h", "clock_forward");
    rig.restart();
    rig.finish().assert_all(10, "completed");
}
