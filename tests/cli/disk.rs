//! A disk that fills up: the orchestrator stops, says why, and goes on where it was.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use lapin::BasicProperties;
use sagamq::config::StoreConfig;
use sagamq::store::{Batch, Store};

use crate::peer::Peer;
use crate::process::{PATIENCE, Site, eventually};
use crate::skip::skip;
use crate::{BROKER, order, order_saga};

#[test]
fn a_full_disk_holds_everything_back_until_there_is_room_and_no_order_is_lost() {
    let mut site = Site::with_broker(&order_saga(".disk", "10m"), &BROKER.url(), "disk");
    let Some(disk) = SmallDisk::mount(site.path("disk")) else {
        skip("only root may mount the small disk that it fills");
        return;
    };
    let store = disk.0.join("store");
    site.set("STORE__PATH", store.to_str().unwrap());
    let full = "the disk of the store is full: nothing is acked or sent until there is room";
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.disk", "disk.tap");
    let mut orchestrator = site.run_until_ready();
    // What is in force stays in force, whatever becomes of the folder.
    site.write("sagas/order.yaml", order_saga(".disk", "10m").replace("version: 1", "version: 2"));
    assert_eq!(site.printed(&["reload"]), "order: version 2 is in force, before it 1\n");
    site.write("sagas/order.yaml", "no definition");

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
    eventually("it says that the disk is full", || {
        place();
        orchestrator.err().contains(full)
    });
    eventually("it is not ready, and says why", || {
        let ended = site.call(&["ready"]);
        ended.code == Some(1) && ended.out.contains("the disk of the store is full")
    });

    disk.make_room();
    site.wait_until_ready(&mut orchestrator);
    let mut known = BTreeSet::new();
    eventually("every order has a saga", || {
        let page = site.json(&["list", "--json", "--limit", "500"]);
        let items = page["items"].as_array().unwrap().iter();
        known = items.map(|item| item["business_key"].as_str().unwrap().to_owned()).collect();
        known.len() >= placed.len()
    });
    assert_eq!(known, placed);
    let versions = site.json(&["versions", "--json"]);
    assert_eq!(
        (&versions["items"][0]["version"], &versions["items"][0]["in_force"]),
        (&2.into(), &true.into())
    );
    eventually("every order's command is out", || {
        let page = site.json(&["list", "--json", "--limit", "500", "--status", "running"]);
        page["items"].as_array().unwrap().len() == placed.len()
    });
    orchestrator.stop();
    assert!(!orchestrator.err().contains("panicked"), "{}", orchestrator.err());
    assert_eq!(peer.drain("disk.dead").len(), 0);
}

#[test]
fn a_stop_while_the_disk_is_full_is_obeyed_and_a_start_then_says_why_it_cannot() {
    let mut site = Site::with_broker(&order_saga(".fuller", "10m"), &BROKER.url(), "fuller");
    let Some(disk) = SmallDisk::mount(site.path("disk")) else {
        skip("only root may mount the small disk that it fills");
        return;
    };
    site.set("STORE__PATH", disk.0.join("store").to_str().unwrap());
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.fuller", "fuller.tap");
    let mut orchestrator = site.run_until_ready();
    disk.fill();
    let mut number = 0;
    eventually("the disk is full", || {
        number += 1;
        let text = order(&format!("order-{number}"), &"x".repeat(20_000));
        peer.publish("orders.fuller", "order.placed", text.as_bytes(), BasicProperties::default());
        orchestrator.err().contains("is full: nothing is acked or sent")
    });
    orchestrator.terminate();
    assert_eq!(orchestrator.ends_within(PATIENCE), Some(0), "{}", orchestrator.err());

    let mut again = site.start(&["run"]);
    eventually("it says so, and ends or waits", || again.err().contains("is full: make room"));
    if let Some(code) = again.code() {
        assert_eq!(code, 3);
    }
    assert!(!again.err().contains("panicked"), "{}", again.err());
}

#[test]
fn an_fdatasync_that_fails_ends_the_orchestrator_and_no_order_is_lost() {
    let strace = Path::new("/usr/bin/strace");
    if !strace.exists() {
        skip("strace, which makes fdatasync fail, is not installed (scripts/setup test installs it)");
        return;
    }
    let site = Site::with_broker(&order_saga(".eio", "10m"), &BROKER.url(), "eio");
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.eio", "eio.tap");
    // The first commit and the high-water mark are synced as well.
    let inject = "inject=fdatasync:error=EIO:when=12+";
    let mut orchestrator =
        site.start_below(strace, &["-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject]);
    site.wait_until_ready(&mut orchestrator);
    let mut placed = BTreeSet::new();
    eventually("the disk fails", || {
        let key = format!("order-{:04}", placed.len());
        let text = order(&key, "");
        peer.publish("orders.eio", "order.placed", text.as_bytes(), BasicProperties::default());
        placed.insert(key);
        orchestrator.code().is_some()
    });
    assert_eq!(orchestrator.ends_within(PATIENCE), Some(3));
    let log = orchestrator.err();
    let last = log.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("error: stopped, and nothing that was acked or sent is lost: commit to store "),
        "{log}"
    );
    assert!(
        last.contains("Input/output error") && last.ends_with("check the disk, then start again"),
        "{log}"
    );

    let mut orchestrator = site.run_until_ready();
    eventually("every order has a saga", || {
        let page = site.json(&["list", "--json", "--limit", "500"]);
        page["items"].as_array().unwrap().len() == placed.len()
    });
    orchestrator.stop();
    assert_eq!(peer.drain("eio.dead").len(), 0);
}

#[test]
fn a_store_whose_disk_has_no_room_for_a_copy_stays_as_it_is() {
    let site = Site::new("");
    let Some(disk) = SmallDisk::mount(site.path("disk")) else {
        skip("only root may mount the small disk that it fills");
        return;
    };
    let config = StoreConfig { path: disk.0.join("store"), cache_mib: 16 };
    let text = |version| {
        let mut dice = fastrand::Rng::with_seed(version);
        (0..100_000).map(|_| dice.alphanumeric()).collect::<String>()
    };
    let mut store = Store::open(&config).unwrap();
    for version in 0..40 {
        let mut batch = Batch::default();
        batch.define("order", version, &version.to_string(), &text(version.into()));
        store.commit(batch).unwrap();
    }
    drop(store);
    disk.fill();
    let filler = File::options().write(true).open(disk.filler()).unwrap();
    filler.set_len(filler.metadata().unwrap().len() - (1 << 20)).unwrap();

    let path = config.path.to_str().unwrap();
    site.call(&["compact", "--store", path]).assert_refused(3, &["the disk of store ", "is full: make room"]);
    assert!(!config.path.join("sled.compact").exists());
    let reader = Store::open(&config).unwrap().reader();
    for version in 0..40_u32 {
        assert_eq!(reader.definition(&version.to_string()).unwrap(), Some(text(version.into())));
    }
}

/// A file system in memory that has little room. Unmounted with the value.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this is not allowed.
    pub(crate) fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=32m", "sagamq-test"]).arg(&path);
        mount.output().is_ok_and(|output| output.status.success()).then_some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves no room at all.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        let block = [0; 4096];
        while file.write_all(&block).is_ok() {}
    }

    pub(crate) fn make_room(&self) {
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
