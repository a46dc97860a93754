//! The real engine in a simulated world, in virtual time: thousands of histories full of faults.
//!
//! `SIMULATION_SEED=n cargo test --test simulation -- --nocapture` plays one seed and tells all of it;
//! `SIMULATION_SEEDS=n` plays so many.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/storm.rs"]
mod storm;

use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::thread;

use sagamq::checker::{Report, check};
use sagamq::simulate::play;

/// Plays of one run.
const SEEDS: u64 = 2_000;
/// Seeds that once failed. A change of the simulated world gives them other histories.
///
/// 45: after a write that failed, a restart decided on what the disk did not have. 1474: the simulation
/// itself ended too soon.
const FAILED_ONCE: [u64; 2] = [45, 1474];
/// Every kind of fault that a run must have injected.
const FAULTS: [&str; 27] = [
    "clock_back",
    "clock_forward",
    "correlation_of_another",
    "crash",
    "duplicate_delivery",
    "duplicate_reply",
    "event_without_id",
    "failed_sync",
    "failed_write",
    "forged_reply",
    "full_disk",
    "late_reply",
    "left_undone",
    "lost_confirm",
    "lost_consumer",
    "lost_publisher",
    "nacked_publish",
    "nonsense_reply",
    "pending_reply",
    "power_cut",
    "put_aside",
    "reordered_delivery",
    "repeated_event",
    "repeated_input",
    "shared_event",
    "silence",
    "unroutable",
];

/// Plays seeds, and stops at the first that fails.
fn play_all(seeds: impl Iterator<Item = u64>) -> BTreeMap<String, u64> {
    let mut faults = BTreeMap::new();
    let verbose = env::var_os("SIMULATION_SEED").is_some();
    let setting = storm::storm(verbose);
    for seed in seeds {
        let outcome = play(&setting, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        outcome.lines.iter().for_each(|line| println!("{line}"));
        let report: Report = check(&outcome.evidence);
        // The few plays that fate spared have nothing to show.
        let spared = outcome.evidence.faults.is_empty();
        assert!(spared || report.passed(), "SIMULATION_SEED={seed} fails:\n{report}");
        for (kind, count) in outcome.evidence.faults {
            *faults.entry(kind).or_default() += count;
        }
    }
    faults
}

#[test]
fn thousands_of_histories_full_of_faults_lose_nothing_and_do_nothing_twice() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds: Range<u64> = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    let workers: Vec<_> = (0..threads)
        .map(|worker| {
            let seeds = seeds.clone().filter(move |seed| seed % threads == worker);
            thread::spawn(move || play_all(seeds))
        })
        .collect();
    let mut faults = BTreeMap::new();
    for worker in workers {
        for (kind, count) in worker.join().unwrap() {
            *faults.entry(kind).or_insert(0) += count;
        }
    }
    println!("{} seeds, faults: {faults:?}", seeds.end - seeds.start);
    if seeds.end - seeds.start > 100 {
        for kind in FAULTS {
            assert!(faults.contains_key(kind), "no {kind} was injected");
        }
    }
}

#[test]
fn seeds_that_once_failed_pass() {
    play_all(FAILED_ONCE.into_iter());
}

#[test]
fn the_same_seed_is_the_same_history() {
    let setting = storm::storm(false);
    let traces: Vec<_> = (0..20).map(|seed| play(&setting, seed).unwrap().trace).collect();
    let again: Vec<_> = (0..20).map(|seed| play(&setting, seed).unwrap().trace).collect();
    assert_eq!(traces, again);
    assert!(traces.windows(2).all(|pair| pair[0] != pair[1]), "seeds do not matter");
}

#[test]
fn the_storm_reaches_every_form_of_step() {
    use sagamq::saga::fact::Fact;
    let setting = storm::storm(false);
    let mut seen = BTreeMap::new();
    for seed in 0..60 {
        let evidence = play(&setting, seed).unwrap().evidence;
        for one in &evidence.instances {
            for recorded in one.history.iter().flat_map(|entry| &entry.facts) {
                let name = match &recorded.fact {
                    Fact::Awaited { .. } => "awaited",
                    Fact::CameEarly { .. } => "came_early",
                    Fact::Delayed { .. } => "delayed",
                    Fact::Called { .. } => "called",
                    Fact::Recalled { .. } => "recalled",
                    Fact::Held => "held",
                    Fact::Stalled { item: None, .. } => "stalled",
                    Fact::Stalled { item: Some(_), .. } => "item_stalled",
                    Fact::ItemCalled { .. } => "item_called",
                    Fact::ItemDone { .. } => "item_done",
                    Fact::ItemFailed { .. } => "item_failed",
                    Fact::ItemRecalled { .. } => "item_recalled",
                    Fact::ItemUndone { .. } => "item_undone",
                    _ => continue,
                };
                *seen.entry(name).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(seen.len(), 13, "{seen:?}");
}
