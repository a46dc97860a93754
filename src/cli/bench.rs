//! `sagamq bench`: sagamq against a null orchestrator.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::args::{BenchArgs, PeerArgs};
use super::error::{CliError, Exit};
use super::{interrupt, output};
use crate::bench::{self, BenchError, Options, Pace, Role, Scale, Until};
use crate::config::Config;

/// Measures, and tells the figures; or plays the part of one of the bench's processes. `settings` is the
/// file that was named, if one was.
///
/// # Errors
/// There are no figures, or a file for them cannot be written.
pub fn bench(args: BenchArgs, config: Config, settings: Option<&Path>) -> Result<Exit, CliError> {
    if let Some(peer) = args.peer {
        let (prefix, role) = role(peer);
        bench::act(&role, &prefix, &config)?;
        return Ok(Exit::Fine);
    }
    let options = Options {
        pairs: args.pairs,
        sagas: args.sagas,
        in_flight: args.in_flight,
        warm_up: args.warm_up,
        latency_pairs: args.latency_pairs,
        folder: args.folder,
        settings: settings.map(Path::to_owned),
        broker: config.broker,
        binary: std::env::current_exe()?,
        interrupted: interrupt::watch()?,
    };
    let scale = Scale { finished: args.finished, open: args.open };
    // Now, because minutes later would be late for an error.
    let [mut json, mut svg] = [Sheet::open(args.json.as_deref())?, Sheet::open(args.svg.as_deref())?];
    if scale.is_asked_for() {
        let report = bench::measure_scale(&options, scale)?;
        output::print(&bench::scale_table(&report))?;
        json.write_json(&report)?;
        return Ok(Exit::Fine);
    }
    let report = bench::measure(&options)?;
    output::print(&bench::table(&report))?;
    json.write_json(&report)?;
    svg.write(|| Ok(bench::picture(&report)))?;
    Ok(Exit::Fine)
}

fn role(peer: PeerArgs) -> (String, Role) {
    match peer {
        PeerArgs::NullOrchestrator { prefix } => (prefix, Role::NullOrchestrator),
        PeerArgs::Participants { prefix } => (prefix, Role::Participants),
        PeerArgs::Watch { prefix, broker } => (prefix, Role::Watch { broker }),
        PeerArgs::Fill { prefix, sagas, first, unanswered } => {
            let until = if unanswered { Until::Unanswered } else { Until::Completed };
            (prefix, Role::Fill { sagas, first, until })
        }
        PeerArgs::Open { prefix } => (prefix, Role::Open),
        PeerArgs::Load { prefix, sagas, first, pace } => {
            let pace = match (pace.rate, pace.in_flight) {
                (Some(rate), _) => Pace::PerSecond(rate),
                (None, in_flight) => Pace::InFlight(in_flight.unwrap_or(u64::MAX)),
            };
            (prefix, Role::Load { sagas, first, pace })
        }
    }
}

/// A file for figures, or none.
struct Sheet<'a>(Option<(&'a Path, File)>);

impl<'a> Sheet<'a> {
    fn open(path: Option<&'a Path>) -> Result<Self, BenchError> {
        let Some(path) = path else { return Ok(Self(None)) };
        match File::create(path) {
            Ok(file) => Ok(Self(Some((path, file)))),
            Err(source) => Err(BenchError::File { path: path.to_owned(), source }),
        }
    }

    fn write_json(&mut self, report: &impl Serialize) -> Result<(), BenchError> {
        self.write(|| serde_json::to_string_pretty(report).map(|text| text + "\n").map_err(Into::into))
    }

    fn write(&mut self, text: impl FnOnce() -> std::io::Result<String>) -> Result<(), BenchError> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        let written = text().and_then(|text| file.write_all(text.as_bytes()));
        written.map_err(|source| BenchError::File { path: path.to_owned(), source })
    }
}
