//! The bench: sagamq against a null orchestrator, in turn, over the same broker, participants and messages.
//!
//! ```text
//! load generator --start--> [orchestrator] --3 commands--> three echo participants
//!       ^                     |      ^                            |
//!       +--------- end -------+      +--------- 3 replies --------+
//! ```
//!
//! All are processes of their own, so that what the orchestrator costs is told apart from the rest. A
//! saga takes eight messages. The null orchestrator does with them what no orchestrator can do without,
//! and nothing else: so the ratio of the two is what sagamq's durability and its decisions cost. Each run has
//! fresh queues and a fresh store.

mod broker_url;
mod disk;
mod error;
mod ground;
mod latency;
mod names;
mod offline;
mod peer;
mod picture;
mod process;
mod questions;
mod report;
mod run;
mod scale;
mod scale_report;
mod screen;
mod starts;
mod table;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::BrokerConfig;
use crate::throwaway::{self, Broker};

pub use error::BenchError;
pub use latency::{Latency, Percentiles};
pub use offline::{Offline, Opening, Until};
pub use peer::{Pace, Role, act};
pub use picture::picture;
pub use report::{HalfLoad, Pair, Report, Setting, Sides, Spread, Summary, Throughput};
pub use run::{Orchestrator, Run};
pub use scale::{Scale, measure_scale};
pub use scale_report::{Asked, Finished, InFlight, Questioned, ScaleReport, StorePair};
pub use table::{scale_table, table};

use names::Names;
use run::{Place, Task};
use screen::Screen;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pairs of runs that count for throughput; at least 1.
    pub pairs: u32,
    /// Sagas of a run; at least 1.
    pub sagas: u64,
    /// Sagas that are under way at a time.
    pub in_flight: u64,
    /// Sagas of the pair of runs that does not count; 0 for none.
    pub warm_up: u64,
    /// Pairs of runs at half load; 0 for none.
    pub latency_pairs: u32,
    /// In which folder the stores lie while it runs.
    pub folder: PathBuf,
    /// The settings file, where it is not the usual one.
    pub settings: Option<PathBuf>,
    /// The settings that both orchestrators share; the URL counts only where it is the environment's.
    pub broker: BrokerConfig,
    /// This program.
    pub binary: PathBuf,
    /// Set from outside to end early.
    pub interrupted: Arc<AtomicBool>,
}

/// Measures, and tells how far it is. Whatever happens, every process that it started has ended and
/// every queue that it made is removed when this returns.
///
/// # Errors
/// Something could not be started, or sagas do not end.
pub fn measure(options: &Options) -> Result<Report, BenchError> {
    let screen = Screen::new();
    let report = Bench::new(options, &screen).and_then(|mut bench| bench.measure());
    screen.clear();
    report
}

struct Bench<'a> {
    options: &'a Options,
    screen: &'a Screen,
    broker: Broker,
    url: String,
    folder: tempfile::TempDir,
    runs: usize,
    /// The definition that sagamq runs.
    definition: fn(&Names) -> String,
    /// Who is to be first in the next pair.
    turn: bool,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options, screen: &'a Screen) -> Result<Self, BenchError> {
        let path = options.folder.clone();
        let folder = tempfile::Builder::new().prefix("sagamq-bench-").tempdir_in(&path);
        let folder = folder.map_err(|source| BenchError::File { path: path.clone(), source })?;
        if is_in_memory(&path) {
            screen.say(&format!(
                "{} is in memory, where a sync costs nothing: name a folder on a disk by --folder",
                path.display()
            ));
        }
        screen.say("getting a broker ready");
        let broker = throwaway::find().start()?;
        let (url, definition) = (broker.url(), Names::definition);
        Ok(Self { options, screen, url, broker, folder, runs: 0, definition, turn: false })
    }

    fn measure(&mut self) -> Result<Report, BenchError> {
        let Options { pairs, sagas, in_flight, warm_up, latency_pairs, .. } = *self.options;
        let most = Pace::InFlight(in_flight);
        if warm_up > 0 {
            self.pair("warm-up", warm_up, most)?;
        }
        let pair = |number| format!("pair {number} of {pairs}");
        let runs: Result<_, _> = (1..=pairs).map(|number| self.pair(&pair(number), sagas, most)).collect();
        let throughput = Throughput::of(runs?);
        let half_load = if latency_pairs > 0 {
            let rate = throughput.null.sagas_per_s.median.min(throughput.sagamq.sagas_per_s.median) / 2.0;
            let pair = |number| format!("half load, pair {number} of {latency_pairs}");
            let pace = Pace::PerSecond(rate);
            let runs: Result<_, _> =
                (1..=latency_pairs).map(|number| self.pair(&pair(number), sagas, pace)).collect();
            Some(HalfLoad::of(rate, runs?))
        } else {
            None
        };
        let setting = Setting::of(self.options, &self.broker, is_in_memory(&self.options.folder));
        Ok(Report { setting, throughput, half_load })
    }

    /// Runs both orchestrators, one after the other. Who is first changes from pair to pair: the second one
    /// finds a broker that still cleans up behind the first.
    fn pair(&mut self, what: &str, sagas: u64, pace: Pace) -> Result<Pair, BenchError> {
        let null_first = self.takes_turns();
        let mut run = |orchestrator| self.run(what, Task { orchestrator, sagas, pace, kept: None });
        let (null, sagamq) = if null_first {
            let null = run(Orchestrator::Null)?;
            (null, run(Orchestrator::Sagamq)?)
        } else {
            let sagamq = run(Orchestrator::Sagamq)?;
            (run(Orchestrator::Null)?, sagamq)
        };
        let pair = Pair { null, sagamq };
        self.screen.say(&match pace {
            Pace::InFlight(_) => format!(
                "{what}: {:.0} and {:.0} sagas/s, ratio {:.3}",
                pair.null.sagas_per_s,
                pair.sagamq.sagas_per_s,
                pair.ratio()
            ),
            Pace::PerSecond(rate) => {
                let [null, sagamq] = [&pair.null, &pair.sagamq].map(|run| run.latency.percentiles.p99_ms);
                format!("{what}, {rate:.0} sagas/s: p99 {null:.1} and {sagamq:.1} ms")
            }
        });
        Ok(pair)
    }

    fn run(&mut self, what: &str, task: Task<'_>) -> Result<Run, BenchError> {
        self.screen.begin(&format!("{what}: {}", task.orchestrator.name()), task.sagas);
        let number = self.next_run();
        self.place().run(task, number, |_, ended| {
            self.screen.advance(ended);
            Ok(())
        })
    }

    /// True and false in turn.
    fn takes_turns(&mut self) -> bool {
        self.turn = !self.turn;
        self.turn
    }

    fn next_run(&mut self) -> usize {
        self.runs += 1;
        self.runs
    }

    fn place(&self) -> Place<'_> {
        let Self { options, url, folder, definition, .. } = self;
        Place { options, url, folder: folder.path(), definition: *definition }
    }
}

impl Orchestrator {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Orchestrator::Null => "null orchestrator",
            Orchestrator::Sagamq => "sagamq",
        }
    }
}

fn check_interrupt(options: &Options) -> Result<(), BenchError> {
    if options.interrupted.load(Ordering::SeqCst) { Err(BenchError::Interrupted) } else { Ok(()) }
}

/// Whether a folder is lost with the power, so that a sync costs nothing there.
#[cfg(target_os = "linux")]
fn is_in_memory(folder: &Path) -> bool {
    /// `TMPFS_MAGIC` of statfs(2).
    const TMPFS: i64 = 0x0102_1994;
    rustix::fs::statfs(folder).is_ok_and(|file_system| file_system.f_type == TMPFS)
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(_: &Path) -> bool {
    false
}
