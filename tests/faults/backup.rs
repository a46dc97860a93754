//! Backups and snapshots under load: whole every time, and all goes on from one.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::rig::Rig;
use crate::{BROKER, eventually, power};

/// Backups, or snapshots, in one test.
const ROUNDS: usize = 6;

/// Checks a store by `sagamq replay`; returns how many instances it has.
fn replayed(store: &Path) -> usize {
    let mut replay = Command::new(env!("CARGO_BIN_EXE_sagamq"));
    let output = replay.args(["replay", "--store"]).arg(store).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("every record is the fold of its history"), "{said}");
    said.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn backups_under_load_are_whole_and_all_that_was_under_way_ends_from_one() {
    let mut rig = Rig::start("backup", BROKER.url().as_str());
    let load = rig.load(Duration::from_millis(2));
    let mut known = 0;
    for round in 0..ROUNDS {
        let before = load.placed();
        eventually("orders come in", || load.placed() > before + 100);
        let folder = rig.path().join(format!("backup-{round}"));
        let told = rig.site.printed(&["backup", folder.to_str().unwrap()]);
        let instances = replayed(&folder);
        assert!(instances > known, "{instances} instances in round {round}");
        assert!(told.contains(&format!(": {instances} instances, ")), "{told}");
        known = instances;
        fs::remove_dir_all(folder).unwrap();
    }
    // One more, of what a SIGKILL has left in the middle of it: nothing comes after it.
    drop(load);
    rig.kill();
    let folder = rig.path().join("backup-last");
    rig.site.printed(&["backup", folder.to_str().unwrap(), "--store", "store"]);
    fs::rename(rig.path().join("store"), rig.path().join("lost")).unwrap();
    fs::rename(folder, rig.path().join("store")).unwrap();
    rig.restart();
    println!("{}", rig.finish().report);
}

#[test]
fn snapshots_of_a_frozen_volume_open_whole_every_time() {
    let Some(mut rig) = power::rig("snapshot", &[BROKER.url()]) else { return };
    rig.restart();
    let load = rig.load(Duration::from_millis(2));
    let mut known = 0;
    for _ in 0..ROUNDS {
        let before = load.placed();
        eventually("orders come in", || load.placed() > before + 100);
        let snapshot = rig.disk().frozen();
        rig.faulted("frozen_volume");
        let instances = replayed(&snapshot.path().join("store"));
        assert!(instances > known, "{instances} after {known}");
        known = instances;
    }
    drop(load);
    println!("{}", rig.finish().report);
}
