//! A disk that fills up: the orchestrator stops, says why, and goes on where it was.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use lapin::BasicProperties;

use crate::peer::Peer;
use crate::process::{PATIENCE, Site, eventually};
use crate::{BROKER, order, order_saga};

#[test]
fn a_full_disk_ends_the_orchestrator_and_no_order_is_lost() {
    let mut site = Site::with_broker(&order_saga(".disk", "10m"), &BROKER.url(), "disk");
    let Some(disk) = SmallDisk::mount(site.path("disk")) else {
        eprintln!("skipped: only root may mount the small disk that this test fills");
        return;
    };
    let store = disk.0.join("store");
    site.set("STORE__PATH", store.to_str().unwrap());
    let full = format!("the disk of store {} is full: make room, then start again", store.display());
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.disk", "disk.tap");
    let mut orchestrator = site.run_until_ready();

    let note = "x".repeat(20_000);
    let mut placed = BTreeSet::new();
    let mut place = || {
        let key = format!("order-{:04}", placed.len());
        let properties = BasicProperties::default();
        peer.publish("orders.disk", "order.placed", order(&key, &note).as_bytes(), properties);
        placed.insert(key);
    };
    (0..20).for_each(|_| place());
    disk.fill();
    for _ in 0..450 {
        place();
        if orchestrator.code().is_some() {
            break;
        }
    }
    assert_eq!(orchestrator.ends_within(PATIENCE), Some(3), "{}", orchestrator.err());
    let log = orchestrator.err();
    let last = log.lines().last().unwrap_or_default();
    assert_eq!(last, format!("error: stopped, and nothing that was acked or sent is lost: {full}"), "{log}");
    assert!(!log.contains("panicked"), "{log}");

    // Nothing changes until there is room.
    let mut again = site.start(&["run"]);
    if let Some(code) = again.ends_within(PATIENCE) {
        assert!(
            code == 3 && again.err().contains(&full) && !again.err().contains("panicked"),
            "{}",
            again.err()
        );
    }
    drop(again);

    disk.make_room();
    let mut orchestrator = site.run_until_ready();
    let mut known = BTreeSet::new();
    eventually("every order has a saga", || {
        let page = site.json(&["list", "--json", "--limit", "500"]);
        let items = page["items"].as_array().unwrap().iter();
        known = items.map(|item| item["business_key"].as_str().unwrap().to_owned()).collect();
        known.len() >= placed.len()
    });
    assert_eq!(known, placed);
    eventually("every order's command is out", || {
        let page = site.json(&["list", "--json", "--limit", "500", "--status", "running"]);
        page["items"].as_array().unwrap().len() == placed.len()
    });
    orchestrator.stop();
    assert_eq!(peer.drain("disk.dead").len(), 0);
}

/// A file system in memory that has little room. Unmounted with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this is not allowed.
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=12m", "sagamq-test"]).arg(&path);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(path))
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let block = [0; 4096];
        while file.write_all(&block).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        Path::new(&self.0).join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
