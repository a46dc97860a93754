//! sagamq over a store that has grown: throughput against an empty store, start, memory, questions.
//!
//! The store is filled once, without a broker, and then used for all runs; each adds its own sagas.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use super::names::Names;
use super::offline::Opening;
use super::peer::Word;
use super::questions::{self, Questions};
use super::report::{Setting, Spread};
use super::run::{Kept, Orchestrator, Task};
use super::scale_report::{Asked, Finished, InFlight, Questioned, ScaleReport, StorePair};
use super::screen::Screen;
use super::usage::Usage;
use super::{Bench, BenchError, Options, Pace, Run, check_interrupt, is_in_memory};

/// Starts over instances in flight.
const STARTS: u64 = 5;

/// How far a store has grown.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Finished instances.
    pub finished: u64,
    /// Instances in flight.
    pub open: u64,
}

impl Scale {
    /// Whether there is anything to measure.
    pub fn is_asked_for(self) -> bool {
        self.finished > 0 || self.open > 0
    }
}

/// Measures, and tells how far it is. Whatever happens, every process that it started has ended and
/// every queue that it made is removed when this returns.
///
/// # Errors
/// Something could not be started, or sagas do not end.
pub fn measure_scale(options: &Options, scale: Scale) -> Result<ScaleReport, BenchError> {
    let screen = Screen::new();
    let report = Bench::new(options, &screen).and_then(|mut bench| {
        bench.definition = Names::definition_with_attribute;
        bench.measure_scale(scale)
    });
    screen.clear();
    report
}

impl Bench<'_> {
    fn measure_scale(&mut self, scale: Scale) -> Result<ScaleReport, BenchError> {
        let setting = Setting::of(self.options, &self.broker, is_in_memory(&self.options.folder));
        let prefix = format!("sagamq-bench-{}-0", std::process::id());
        let mut kept = Kept { path: self.folder.path().join("kept"), prefix, sagas: 0 };
        let finished = match scale.finished {
            0 => None,
            number => Some(self.finished(&mut kept, number)?),
        };
        let in_flight = match scale.open {
            0 => None,
            number => Some(self.in_flight(&mut kept, number)?),
        };
        let full = finished.iter().map(|finished: &Finished| finished.filled.sagas_per_s.median);
        let full = full.chain(in_flight.iter().map(|in_flight: &InFlight| in_flight.busy.sagas_per_s));
        let questioned = self.question(&kept, full.fold(f64::INFINITY, f64::min) / 2.0)?;
        Ok(ScaleReport { setting, finished, in_flight, questioned })
    }

    /// Fills the store, and compares it with an empty one.
    fn finished(&mut self, kept: &mut Kept, number: u64) -> Result<Finished, BenchError> {
        let begin = Instant::now();
        self.fill(kept, number, "finished")?;
        let fill_secs = begin.elapsed().as_secs_f64();
        let bytes = bytes_in(&kept.path)?;
        let Options { pairs, sagas, warm_up, .. } = *self.options;
        if warm_up > 0 {
            self.store_pair("warm-up", kept, warm_up)?;
        }
        let pairs: Result<_, _> = (1..=pairs)
            .map(|pair| self.store_pair(&format!("pair {pair} of {pairs}"), kept, sagas))
            .collect();
        Ok(Finished::of(number, fill_secs, bytes, pairs?))
    }

    /// Runs over an empty store and over this one, in turn this one first and last.
    fn store_pair(&mut self, what: &str, kept: &mut Kept, sagas: u64) -> Result<StorePair, BenchError> {
        let empty_first = self.takes_turns();
        let (empty, filled) = if empty_first {
            let empty = self.run_over(what, None, sagas)?;
            (empty, self.run_over(what, Some(kept), sagas)?)
        } else {
            let filled = self.run_over(what, Some(kept), sagas)?;
            (self.run_over(what, None, sagas)?, filled)
        };
        let pair = StorePair { empty, filled };
        self.screen.say(&format!(
            "{what}: {:.0} sagas/s over an empty store, {:.0} over the other, ratio {:.3}",
            pair.empty.sagas_per_s,
            pair.filled.sagas_per_s,
            pair.ratio()
        ));
        Ok(pair)
    }

    fn run_over(&mut self, what: &str, kept: Option<&mut Kept>, sagas: u64) -> Result<Run, BenchError> {
        let pace = Pace::InFlight(self.options.in_flight);
        let task = Task { orchestrator: Orchestrator::Sagamq, sagas, pace, kept: kept.as_deref() };
        let run = self.run(what, task)?;
        if let Some(kept) = kept {
            kept.sagas += sagas;
        }
        Ok(run)
    }

    /// Leaves instances in flight, and starts over them.
    fn in_flight(&mut self, kept: &mut Kept, number: u64) -> Result<InFlight, BenchError> {
        self.fill(kept, number, "in flight")?;
        let mut openings = Vec::new();
        let mut ready_ms = Vec::new();
        let mut resident_kib = Vec::new();
        self.screen.begin("starts over instances in flight", STARTS);
        for start in 1..=STARTS {
            openings.push(self.opened(kept)?);
            let run = self.next_run();
            let (mut alone, ready) = self.place().start(kept, run)?;
            ready_ms.push(ready.as_secs_f64() * 1000.0);
            resident_kib.push(Usage::of(alone.orchestrator.id())?.resident_kib as f64);
            alone.orchestrator.stop()?;
            self.screen.advance(start);
        }
        let instances = openings.first().map_or(0, |opening| opening.instances);
        let busy = self.run_over("a run beside instances in flight", Some(kept), self.options.sagas)?;
        let spread = |of: fn(&Opening) -> f64| Spread::of(openings.iter().map(of));
        Ok(InFlight {
            instances,
            open_ms: spread(|opening| opening.open_ms),
            take_up_ms: spread(|opening| opening.take_up_ms),
            ready_ms: Spread::of(ready_ms.into_iter()),
            resident_kib: Spread::of(resident_kib.into_iter()),
            busy,
        })
    }

    /// Asks sagamq over this store while it has nothing else to do, and beside a load of so many sagas a
    /// second.
    fn question(&mut self, kept: &Kept, sagas_per_s: f64) -> Result<Questioned, BenchError> {
        let mut idle = Questions::over(kept.sagas);
        let run = self.next_run();
        let (mut alone, _) = self.place().start(kept, run)?;
        self.screen.begin("questions", questions::ROUNDS);
        while idle.rounds() < questions::ROUNDS {
            check_interrupt(self.options)?;
            idle.ask(&alone.orchestrator)?;
            self.screen.advance(idle.rounds());
        }
        alone.orchestrator.stop()?;
        drop(alone);

        let sagas = self.options.sagas;
        self.screen.begin("questions at half load", sagas);
        let mut loaded = Questions::over(kept.sagas);
        let (run, pace) = (self.next_run(), Pace::PerSecond(sagas_per_s));
        let task = Task { orchestrator: Orchestrator::Sagamq, sagas, pace, kept: Some(kept) };
        let beside = self.place().run(task, run, |orchestrator, ended| {
            self.screen.advance(ended);
            loaded.ask(orchestrator)
        })?;
        let rounds_at_half_load = loaded.rounds();
        let asked = Questions::words().zip(idle.answered().zip(loaded.answered()));
        let asked = asked.map(|(what, (idle, half_load))| Asked { what: what.to_owned(), idle, half_load });
        Ok(Questioned { asked: asked.collect(), rounds: questions::ROUNDS, rounds_at_half_load, beside })
    }

    /// Adds instances to the store without a broker.
    fn fill(&mut self, kept: &mut Kept, number: u64, how: &str) -> Result<(), BenchError> {
        let what = format!("filling a store with {number} instances {how}");
        self.screen.say(&what);
        self.screen.begin(&what, number);
        let (sagas, first) = (number.to_string(), kept.sagas.to_string());
        let mut role = vec!["fill", "--sagas", &sagas, "--first", &first];
        if how == "in flight" {
            role.push("--unanswered");
        }
        match self.place().treat(kept, "filler", &role, |done| self.screen.advance(done))? {
            Word::Filled => kept.sagas += number,
            _ => return Err(BenchError::Word { name: "filler" }),
        }
        Ok(())
    }

    /// How a start over the store goes, without a broker.
    fn opened(&self, kept: &Kept) -> Result<Opening, BenchError> {
        match self.place().treat(kept, "opener", &["open"], |_| ())? {
            Word::Opened(opening) => Ok(opening),
            _ => Err(BenchError::Word { name: "opener" }),
        }
    }
}

/// Bytes that the files of a folder take on the disk.
fn bytes_in(folder: &Path) -> Result<u64, BenchError> {
    /// What the system counts in.
    const BLOCK: u64 = 512;
    let failed = |source| BenchError::File { path: folder.to_owned(), source };
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.blocks() * BLOCK };
    }
    Ok(bytes)
}
