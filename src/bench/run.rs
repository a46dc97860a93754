//! One run: fresh queues, a fresh store, one orchestrator, its participants, one load.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::disk::DiskWatch;
use super::ground::Ground;
use super::latency::Latency;
use super::names::Names;
use super::peer::{Counts, GO, Loaded, Pace, Word};
use super::process::Process;
use super::usage::Usage;
use super::{BenchError, Options, broker_url, check_interrupt};
use crate::config::{BrokerConfig, Secret};

/// How long a process may take to get ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the load may say nothing.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often all processes are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// The same of a start that is measured.
const START_LOOK: Duration = Duration::from_millis(2);

/// Who orchestrates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orchestrator {
    /// What the broker gives at best.
    Null,
    /// This program.
    Sagamq,
}

/// What came of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Sagas that ended, all completed.
    pub sagas: u64,
    /// From the first start event to the last end event.
    pub secs: f64,
    /// Sagas a second in that time.
    pub sagas_per_s: f64,
    /// From the start event to the end event of a saga.
    pub latency: Latency,
    /// Of that, the time that a saga was with the orchestrator, from each message to it until the one that
    /// followed. Taken at half load only, over a broker whose traffic can be read.
    pub held: Option<Latency>,
    /// How long the disk took meanwhile for small writes, each made durable. Taken at half load only.
    pub disk: Option<Latency>,
    /// Messages that participants and load generator sent and received.
    pub messages_per_saga: f64,
    /// Time on a CPU that the orchestrator's process took for a saga, in microseconds.
    pub cpu_us_per_saga: f64,
    /// Memory that the orchestrator's process had at the end of the load.
    pub resident_kib: u64,
    /// The most that it had.
    pub peak_resident_kib: u64,
    /// Commits of the orchestrator's store. The null orchestrator has none, nor a store.
    pub commits_per_saga: f64,
    /// Each commit is one fdatasync.
    pub fsyncs_per_saga: f64,
    /// The same over time.
    pub fsyncs_per_s: f64,
    /// Bytes that the orchestrator's process had written to storage; none are seen on a file system in memory.
    pub written_bytes_per_saga: f64,
}

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task<'a> {
    pub(super) orchestrator: Orchestrator,
    pub(super) sagas: u64,
    pub(super) pace: Pace,
    /// The store that sagamq is to take up; without one, it has a store of this run alone.
    pub(super) kept: Option<&'a Kept>,
}

/// A store that outlives runs, all of which have queues of the same names.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) prefix: String,
    pub(super) path: PathBuf,
    /// How many sagas it has seen: numbers that are not free any more.
    pub(super) sagas: u64,
}

/// Where and how runs take place.
pub(super) struct Place<'a> {
    pub(super) options: &'a Options,
    pub(super) url: &'a str,
    /// For stores and logs.
    pub(super) folder: &'a Path,
    /// The definition that sagamq runs.
    pub(super) definition: fn(&Names) -> String,
}

/// Everything that runs. It is dropped from top to bottom: processes first, then the queues.
struct Cast {
    load: Process,
    participants: Process,
    orchestrator: Process,
    /// Between orchestrator and broker.
    watch: Option<Process>,
    _ground: Ground,
}

/// sagamq and its queues, and nobody who would use them. It is dropped from top to bottom.
pub(super) struct Alone {
    pub(super) orchestrator: Process,
    _ground: Ground,
}

impl Place<'_> {
    /// Runs sagas through an orchestrator. `number` tells this run from the others; `beside` is called again
    /// and again under load, with the orchestrator and how many sagas have ended. Everything has ended when
    /// this returns.
    pub(super) fn run(
        &self,
        task: Task<'_>,
        number: usize,
        mut beside: impl FnMut(&Process, u64) -> Result<(), BenchError>,
    ) -> Result<Run, BenchError> {
        let folder = self.room(number)?;
        let mut cast = self.assemble(task, number, &folder)?;
        let disk = match task.pace {
            Pace::PerSecond(_) => Some(DiskWatch::start(&folder)?),
            Pace::InFlight(_) => None,
        };
        let before = cast.measure()?;
        cast.load.say(GO);
        let loaded = self.await_load(&mut cast, &mut beside)?;
        let after = cast.measure()?;
        let disk = disk.map(DiskWatch::finish).transpose()?;
        let counts = cast.finish()?;
        let held = cast.held()?;
        if task.kept.is_some() {
            // A store that another run takes up is not to have messages that go out again.
            cast.orchestrator.stop()?;
        }
        drop(cast);
        // Stores of earlier runs would only take room.
        fs::remove_dir_all(&folder).map_err(|source| BenchError::File { path: folder, source })?;
        Ok(Run { held, disk, ..Run::of(task.sagas, &loaded, counts, before, after) })
    }

    /// Starts sagamq over a store and nothing else; tells how long it was until it was ready.
    pub(super) fn start(&self, kept: &Kept, number: usize) -> Result<(Alone, Duration), BenchError> {
        let folder = self.room(number)?;
        let names = Names { prefix: kept.prefix.clone() };
        let ground = self.lay(&names)?;
        let begin = Instant::now();
        let mut orchestrator = self.sagamq(&names, &folder, &kept.path, self.url)?;
        self.await_one(&mut orchestrator, begin + READY_TIMEOUT, START_LOOK)?;
        Ok((Alone { orchestrator, _ground: ground }, begin.elapsed()))
    }

    /// Has a process do something to a store, until it says another word than how far it is.
    pub(super) fn treat(
        &self,
        kept: &Kept,
        name: &'static str,
        role: &[&str],
        mut progress: impl FnMut(u64),
    ) -> Result<Word, BenchError> {
        let mut command = self.command("bench");
        command.args(role).args(["--prefix", &kept.prefix]).env("SAGAMQ_STORE__PATH", &kept.path);
        let mut process = Process::peer(name, command, self.folder)?;
        loop {
            check_interrupt(self.options)?;
            match process.word(LOOK)? {
                Some(Word::Completed(sagas)) => progress(sagas),
                Some(word) => return Ok(word),
                None => {}
            }
        }
    }

    /// A folder for a run's store and logs.
    fn room(&self, number: usize) -> Result<PathBuf, BenchError> {
        let folder = self.folder.join(format!("run-{number}"));
        fs::create_dir(&folder).map_err(|source| BenchError::File { path: folder.clone(), source })?;
        Ok(folder)
    }

    fn lay(&self, names: &Names) -> Result<Ground, BenchError> {
        let broker = BrokerConfig { url: Secret::new(self.url), ..self.options.broker.clone() };
        Ground::lay(broker, names.clone())
    }

    fn assemble(&self, task: Task<'_>, number: usize, folder: &Path) -> Result<Cast, BenchError> {
        let own = || format!("sagamq-bench-{}-{number}", std::process::id());
        let names = Names { prefix: task.kept.map_or_else(own, |kept| kept.prefix.clone()) };
        let ground = self.lay(&names)?;
        let peer = |name: &'static str, role: &[&str]| {
            let mut command = self.command("bench");
            command.args(role).args(["--prefix", &names.prefix]);
            Process::peer(name, command, folder)
        };
        let participants = peer("participants", &["participants"])?;
        let (watch, url) = match (task.pace, broker_url::split(self.url)) {
            (Pace::PerSecond(_), Some(url)) => {
                let mut watch = peer("watch", &["watch", "--broker", url.address()])?;
                let address = self.await_address(&mut watch)?;
                (Some(watch), url.at(address))
            }
            _ => (None, self.url.to_owned()),
        };
        let orchestrator = match task.orchestrator {
            Orchestrator::Null => {
                let mut command = self.command("bench");
                command.args(["null-orchestrator", "--prefix", &names.prefix]).env("SAGAMQ_BROKER__URL", url);
                Process::peer("null orchestrator", command, folder)?
            }
            Orchestrator::Sagamq => {
                let own = folder.join("store");
                self.sagamq(&names, folder, task.kept.map_or(&own, |kept| &kept.path), &url)?
            }
        };
        let (flag, value) = match task.pace {
            Pace::InFlight(most) => ("--in-flight", most.to_string()),
            Pace::PerSecond(rate) => ("--rate", rate.to_string()),
        };
        let (sagas, first) = (task.sagas.to_string(), task.kept.map_or(0, |kept| kept.sagas).to_string());
        let load = peer("load generator", &["load", "--sagas", &sagas, "--first", &first, flag, &value])?;
        let mut cast = Cast { load, participants, orchestrator, watch, _ground: ground };
        self.await_ready(&mut cast)?;
        Ok(cast)
    }

    fn sagamq(&self, names: &Names, folder: &Path, store: &Path, url: &str) -> Result<Process, BenchError> {
        let definitions = folder.join("bench.yaml");
        fs::write(&definitions, (self.definition)(names))
            .map_err(|source| BenchError::File { path: definitions.clone(), source })?;
        // The orchestrator binds it a moment later.
        let api = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = self.command("run");
        command
            .env("SAGAMQ_BROKER__URL", url)
            .env("SAGAMQ_BROKER__PREFIX", &names.prefix)
            .env("SAGAMQ_BROKER__TOPOLOGY", "declare")
            .env("SAGAMQ_STORE__PATH", store)
            .env("SAGAMQ_HTTP__BIND", &api)
            .env("SAGAMQ_DEFINITIONS", definitions);
        Process::guarded("orchestrator", &command, folder, api)
    }

    /// This program with a subcommand, over the same settings and broker.
    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.options.binary);
        if let Some(file) = &self.options.settings {
            command.arg("--config").arg(file);
        }
        command.arg(subcommand);
        command.env("SAGAMQ_BROKER__URL", self.url).env_remove("SAGAMQ_BROKER__URL_FILE");
        command
    }

    fn await_ready(&self, cast: &mut Cast) -> Result<(), BenchError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        for process in [&mut cast.participants, &mut cast.orchestrator, &mut cast.load] {
            self.await_one(process, deadline, LOOK)?;
        }
        Ok(())
    }

    fn await_one(&self, process: &mut Process, deadline: Instant, look: Duration) -> Result<(), BenchError> {
        while !process.is_ready(look)? {
            check_interrupt(self.options)?;
            if Instant::now() > deadline {
                return Err(process.late("get ready", READY_TIMEOUT));
            }
        }
        Ok(())
    }

    fn await_address(&self, watch: &mut Process) -> Result<SocketAddr, BenchError> {
        match watch.word(READY_TIMEOUT)? {
            Some(Word::Listening(address)) => Ok(address),
            _ => Err(watch.late("get ready", READY_TIMEOUT)),
        }
    }

    fn await_load(
        &self,
        cast: &mut Cast,
        beside: &mut impl FnMut(&Process, u64) -> Result<(), BenchError>,
    ) -> Result<Loaded, BenchError> {
        let (mut heard, mut ended) = (Instant::now(), 0);
        loop {
            check_interrupt(self.options)?;
            for process in [&mut cast.participants, &mut cast.orchestrator] {
                process.check_alive()?;
            }
            beside(&cast.orchestrator, ended)?;
            match cast.load.word(LOOK)? {
                Some(Word::Loaded(loaded)) => return Ok(loaded),
                Some(Word::Completed(sagas)) => {
                    heard = Instant::now();
                    ended = sagas;
                }
                _ if heard.elapsed() > SILENCE_TIMEOUT => {
                    return Err(cast.load.late("say how far it is", SILENCE_TIMEOUT));
                }
                _ => {}
            }
        }
    }
}

impl Cast {
    /// What the orchestrator has used, and how often it has committed.
    fn measure(&self) -> Result<(Usage, u64), BenchError> {
        Ok((Usage::of(self.orchestrator.id())?, self.orchestrator.commits()?))
    }

    /// Ends the participants, and returns what they received and sent.
    fn finish(&mut self) -> Result<Counts, BenchError> {
        match self.participants.finish()? {
            Word::Counts(counts) => Ok(counts),
            _ => Err(BenchError::Word { name: "participants" }),
        }
    }

    /// Ends the watch, and returns what it saw.
    fn held(&mut self) -> Result<Option<Latency>, BenchError> {
        let Some(watch) = &mut self.watch else { return Ok(None) };
        match watch.finish()? {
            Word::Held(held) => Ok(Some(held)),
            _ => Err(BenchError::Word { name: "watch" }),
        }
    }
}

impl Run {
    fn of(
        sagas: u64,
        loaded: &Loaded,
        counts: Counts,
        (before, commits_before): (Usage, u64),
        (after, commits_after): (Usage, u64),
    ) -> Self {
        let per_saga = |number: f64| number / sagas as f64;
        let messages = counts.received + counts.sent + loaded.counts.received + loaded.counts.sent;
        let commits = commits_after.saturating_sub(commits_before) as f64;
        Self {
            sagas,
            secs: loaded.secs,
            sagas_per_s: sagas as f64 / loaded.secs,
            latency: loaded.latency.clone(),
            held: None,
            disk: None,
            messages_per_saga: per_saga(messages as f64),
            cpu_us_per_saga: per_saga((after.cpu_secs - before.cpu_secs) * 1e6),
            resident_kib: after.resident_kib,
            peak_resident_kib: after.peak_resident_kib,
            commits_per_saga: per_saga(commits),
            fsyncs_per_saga: per_saga(commits),
            fsyncs_per_s: commits / loaded.secs,
            written_bytes_per_saga: per_saga(after.written_bytes.saturating_sub(before.written_bytes) as f64),
        }
    }
}
