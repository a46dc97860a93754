//! Power cuts: the store lies in a file system of its own, in an image. When the power fails, only what was
//! written to the image is left.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sagamq::fault::Bug;

use crate::rig::Rig;
use crate::skip::skip;
use crate::{BROKER, eventually};

/// Bytes of the image, as far as they are used.
const SIZE: u64 = 1 << 30;
/// Power cuts in one test.
const CUTS: usize = 10;

/// A disk that can lose its power. Unmounted with the value.
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes a disk in a folder; why not, where this is not allowed.
    pub(crate) fn mount(folder: &Path) -> Result<Self, String> {
        let (image, mount) = (folder.join("disk.img"), folder.join("disk"));
        File::create(&image).and_then(|file| file.set_len(SIZE)).map_err(|error| error.to_string())?;
        fs::create_dir(&mount).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let disk = Self { image, mount };
        disk.attach()?;
        Ok(disk)
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// The image as it is at this moment, whatever the system still has in memory.
    fn snapshot(&self) -> PathBuf {
        let copy = self.image.with_extension("cut");
        run(Command::new("cp").args(["--sparse=always"]).arg(&self.image).arg(&copy)).unwrap();
        copy
    }

    /// A snapshot as a storage system makes it of a frozen volume, mounted.
    pub(crate) fn frozen(&self) -> Self {
        let freeze = |how| run(Command::new("fsfreeze").arg(how).arg(&self.mount));
        let mount = self.mount.with_extension("snapshot");
        fs::create_dir_all(&mount).unwrap();
        freeze("--freeze").unwrap();
        let copied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.snapshot()));
        // Whatever came of it: what is frozen can be neither written nor unmounted.
        freeze("--unfreeze").unwrap();
        // A name of its own: the snapshot before may still be in use by the system.
        let image = self.image.with_extension("frozen");
        fs::rename(copied.unwrap(), &image).unwrap();
        let snapshot = Self { image, mount };
        snapshot.attach().unwrap();
        snapshot
    }

    /// Goes on with an image in place of the present one. Nothing may use the disk.
    fn replace(&self, image: &Path) {
        run(Command::new("umount").arg(&self.mount)).unwrap();
        fs::rename(image, &self.image).unwrap();
        self.attach().unwrap();
    }

    fn attach(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mount).output();
    }
}

/// Has the power fail: the orchestrator stops in its tracks, and what was on its disk by then is all that
/// there is.
pub(crate) fn cut(rig: &mut Rig) {
    rig.orchestrator().freeze();
    let image = rig.disk().snapshot();
    rig.end();
    rig.disk().replace(&image);
    rig.faulted("power_cut");
}

/// A rig whose store is on a disk that can lose its power; nothing where this is not allowed.
pub(crate) fn rig(name: &str, brokers: &[String]) -> Option<Rig> {
    let mut rig = Rig::build(name, brokers);
    match Disk::mount(rig.path()) {
        Ok(disk) => {
            rig.keep_store_on(disk);
            Some(rig)
        }
        Err(reason) => {
            skip(&format!("a disk that loses power cannot be mounted: {reason}"));
            None
        }
    }
}

#[test]
fn what_was_acked_or_published_survives_every_power_cut() {
    let Some(mut rig) = rig("power", &[BROKER.url()]) else { return };
    rig.restart();
    let load = rig.load(Duration::from_millis(100));
    for round in 1..=CUTS {
        let before = load.placed();
        eventually("orders come in", || load.placed() > before + 8 * (round % 4 + 1));
        cut(&mut rig);
        rig.restart();
    }
    drop(load);
    println!("{}", rig.finish().report);
}

/// Planted: a commit that is not synced. What the file system has by chance may be nearly all, or a part from
/// which no store can be opened: so the power fails until something is missing.
#[test]
fn a_commit_without_a_sync_is_found_by_a_power_cut() {
    let Some(mut rig) = rig("unsynced", &[BROKER.url()]) else { return };
    // What is not acked comes again, and is not missing: with few out, nearly all are acked.
    rig.site.set("SAGAMQ_BROKER__PREFETCH", "10");
    let load = rig.load(Duration::from_millis(5));
    assert_eq!(missing_after_a_cut(&mut rig, ""), None);
    let bug = format!("{}=return", Bug::NoSync.name());
    let missing = (0..CUTS).find_map(|_| missing_after_a_cut(&mut rig, &bug));
    drop(load);
    println!("{}", missing.expect("nothing is ever missing"));
}

/// Runs an orchestrator under load until the power fails, and says what is missing when it has been started
/// again, of what its API had told before.
fn missing_after_a_cut(rig: &mut Rig, failpoints: &str) -> Option<String> {
    let refused = |rig: &mut Rig, failpoints: &str| {
        rig.boot(failpoints);
        (!rig.starts()).then(|| {
            let log = rig.site.log();
            let reason = log.lines().last().unwrap_or_default();
            assert!(reason.contains("store"), "{log}");
            reason.to_owned()
        })
    };
    if let Some(reason) = refused(rig, failpoints) {
        return Some(reason);
    }
    let before = rig.statuses().len();
    let mut told = BTreeMap::new();
    eventually("instances come in", || {
        told = rig.statuses();
        told.len() > before + 100
    });
    cut(rig);
    if let Some(reason) = refused(rig, "") {
        return Some(reason);
    }
    let left = rig.statuses();
    rig.end();
    let missing = told.keys().filter(|key| !left.contains_key(*key)).count();
    (missing > 0).then(|| format!("{missing} of {} instances", told.len()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
