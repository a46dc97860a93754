//! The torture: faults of all kinds, mixed, for as long as is asked for.
//!
//! `TORTURE_MINUTES=20` has a cluster of three nodes, with nodes killed and cut off beside everything
//! else. Without it, this is what every commit has to bear: one node, 50 kills, 10 power cuts.

use std::env;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sagamq::fault::Point;
use sagamq::throwaway::{Cluster, test_root};

use crate::proxy::{Fault, How, Way};
use crate::rig::Rig;
use crate::{CONSUMER, PUBLISHER, power};

/// Kills and power cuts where no time is given.
const KILLS: usize = 50;
const CUTS: usize = 10;
/// Orders that are placed once more when all have ended.
const REPEATED: usize = 200;
/// The password that nothing may tell.
const CANARY: &str = "hunter2-canary";
/// How long everything that is under way at the end may take.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn mixed_faults_lose_nothing_and_do_nothing_twice() {
    let minutes = env::var("TORTURE_MINUTES").ok().map(|text| text.parse::<f64>().unwrap());
    let seed = env::var("TORTURE_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("TORTURE_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut cluster =
        Cluster::start_in(test_root().as_deref(), if minutes.is_some() { 3 } else { 1 }).unwrap();
    let urls = cluster.urls();
    let Some(mut rig) = power::rig("torture", &urls) else { return };
    rig.set_patience(PATIENCE);
    rig.watch();
    let first = &cluster.nodes()[0];
    first.ctl(&["add_user", "app", CANARY]).unwrap();
    first.ctl(&["set_permissions", "app", ".*", ".*", ".*"]).unwrap();
    rig.keep_secret("app", CANARY);
    // A node that is down for a while is no reason to give up a start.
    rig.site.set("SAGAMQ_BROKER__STARTUP_TIMEOUT", "10m");
    rig.restart();
    for node in cluster.nodes() {
        node.settle().unwrap();
    }
    let load = rig.load(Duration::from_millis(200));
    let (begun, stop) = (Instant::now(), AtomicBool::new(false));
    let broken = Mutex::new(Vec::new());
    let (mut kills, mut cuts) = (0, 0);
    let bar = progress(minutes);
    thread::scope(|scope| {
        let _stopping = Stopping(&stop);
        let broker_dice = dice.fork();
        if minutes.is_some() {
            scope.spawn(|| break_broker(&mut cluster, broker_dice, &stop, &broken));
        }
        loop {
            let done = match minutes {
                Some(minutes) => begun.elapsed().as_secs_f64() >= minutes * 60.0,
                None => kills >= KILLS && cuts >= CUTS,
            };
            if done {
                break;
            }
            rig.proxy.retarget(&urls[dice.usize(..urls.len())]);
            if (kills + cuts) % 6 == 5 {
                run_for(&mut rig, &mut dice, &urls);
                power::cut(&mut rig);
                cuts += 1;
            } else {
                kill(&mut rig, &mut dice, &urls);
                kills += 1;
                if kills % 10 == 5 {
                    refuse_second_owner(&mut rig, minutes.is_none());
                }
            }
            let faults: Vec<_> = broken.lock().unwrap().clone();
            tell(
                &bar,
                begun,
                &format!(
                    "{kills} kills, {cuts} power cuts, {} broker faults, {} orders",
                    faults.len(),
                    load.placed()
                ),
            );
        }
        bar.finish_and_clear();
    });
    for kind in broken.into_inner().unwrap() {
        rig.faulted(kind);
    }
    drop(load);
    rig.boot("");
    rig.recover_over(&urls);
    rig.calm_down(true);
    rig.place_again(REPEATED);
    let evidence = rig.finish();
    let forged = evidence.lines("placed.jsonl").iter().filter(|line| line["what"] == "forged").count();
    assert!(forged > 0, "nobody has made an answer up");
    assert_eq!(evidence.report.forged, 0);
    println!("after {:.1} minutes:\n{}", begun.elapsed().as_secs_f64() / 60.0, evidence.report);
}

/// Has the broker left alone when it is dropped, also by a failure.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Kills the orchestrator: at one of its points, also while it starts, or from outside while its
/// connections break.
fn kill(rig: &mut Rig, dice: &mut fastrand::Rng, urls: &[String]) {
    if dice.bool() {
        let point = Point::ALL[dice.usize(..Point::ALL.len())];
        rig.boot(&format!("{}={}*off->return", point.name(), dice.usize(..200)));
        let deadline = Instant::now() + Duration::from_millis(dice.u64(300..2500));
        while Instant::now() < deadline {
            if matches!(point, Point::Reload | Point::Reloaded) && rig.site.is_ready() {
                rig.orchestrator().hang_up();
            }
            if rig.orchestrator().is_killed() {
                rig.faulted(&format!("kill_at_{}", point.name()));
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    } else {
        run_for(rig, dice, urls);
    }
    rig.kill();
}

/// Has another store try to take the prefix while its owner is dead. Where the broker is well, it is refused at once.
fn refuse_second_owner(rig: &mut Rig, is_well: bool) {
    let intruder = rig.intrude("");
    if is_well {
        assert_eq!(intruder.ends(), Some(3), "{}", intruder.log());
    }
    intruder.end();
}

/// Lets the orchestrator run for a moment, not without trouble.
fn run_for(rig: &mut Rig, dice: &mut fastrand::Rng, urls: &[String]) {
    rig.boot("");
    if dice.bool() {
        rig.recover_over(urls);
    }
    thread::sleep(Duration::from_millis(dice.u64(50..800)));
    let (name, after) = ([CONSUMER, PUBLISHER][dice.usize(..2)], dice.u32(..40));
    let way = [Way::ToBroker, Way::ToClient][dice.usize(..2)];
    let fault = match dice.usize(..6) {
        0 => Some((name, Fault::Break { way, after, how: How::Reset })),
        1 => Some((name, Fault::Break { way, after, how: How::MidFrame })),
        2 => Some((PUBLISHER, Fault::SwallowConfirms(3))),
        3 => Some((CONSUMER, Fault::SwallowAcks(3))),
        4 => Some((name, Fault::Stall)),
        _ => None,
    };
    if let Some((name, fault)) = fault {
        rig.proxy.inject(name, fault);
    }
    thread::sleep(Duration::from_millis(dice.u64(50..1200)));
}

/// Kills nodes and cuts them off, one at a time, until it is told to stop; then all are well again.
fn break_broker(
    cluster: &mut Cluster,
    mut dice: fastrand::Rng,
    stop: &AtomicBool,
    broken: &Mutex<Vec<&'static str>>,
) {
    let size = cluster.nodes().len();
    let mut rounds = 0..;
    while !stop.load(Ordering::SeqCst) {
        let round: usize = rounds.next().unwrap_or_default();
        let index = dice.usize(..size);
        if round % 3 == 2 {
            cluster.partition(index).unwrap();
            broken.lock().unwrap().push("partition");
            thread::sleep(Duration::from_millis(dice.u64(1000..6000)));
            cluster.heal().unwrap();
        } else {
            cluster.nodes_mut()[index].kill();
            broken.lock().unwrap().push("broker_kill");
            thread::sleep(Duration::from_millis(dice.u64(..3000)));
            cluster.nodes_mut()[index].restart().unwrap();
        }
        thread::sleep(Duration::from_millis(dice.u64(2000..12_000)));
    }
}

fn progress(minutes: Option<f64>) -> ProgressBar {
    let Some(minutes) = minutes.filter(|_| std::io::stderr().is_terminal()) else {
        return ProgressBar::hidden();
    };
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {msg}").unwrap();
    ProgressBar::new((minutes * 60.0) as u64).with_style(style)
}

/// A bar on a terminal, a line every now and then elsewhere.
fn tell(bar: &ProgressBar, begun: Instant, message: &str) {
    bar.set_position(begun.elapsed().as_secs());
    bar.set_message(message.to_owned());
    if bar.is_hidden() {
        println!("{:6.1} s  {message}", begun.elapsed().as_secs_f64());
    }
}
