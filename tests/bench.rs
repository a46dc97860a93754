//! The bench with real processes over a real RabbitMQ, so small that its figures mean nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "support/skip.rs"]
mod skip;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sagamq::bench::{Asked, Latency, Questioned, Report, Run, ScaleReport};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

/// Commits a saga, one saga at a time: one for each of its four deliveries, and some that only keep that its
/// end was published.
const MAX_COMMITS_ALONE: f64 = 5.5;
/// Bytes written a saga, one at a time: each commit writes whole pages.
const MAX_WRITTEN_ALONE: f64 = 70_000.0;
/// Commits a saga with [`TOGETHER`] under way: far less than one for each delivery.
const MAX_COMMITS_TOGETHER: f64 = 2.0;
/// Bytes written a saga with [`TOGETHER`] under way.
const MAX_WRITTEN_TOGETHER: f64 = 20_000.0;
/// Sagas under way at a time where they share commits.
const TOGETHER: &str = "50";
/// Syncs of the system that are not a commit's: at the start, and of the high-water mark once a second.
const MAX_OTHER_SYNCS: f64 = 60.0;

/// How long a small bench may take in all, and until everything that it started is gone.
const PATIENCE: Duration = Duration::from_secs(120);

/// A bench in a folder that is on a disk.
fn bench(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagamq"));
    command.arg("bench").args(arguments).arg("--folder").arg(folder);
    command.env_remove("SAGAMQ_BROKER__URL").env("BENCH_TEST", folder).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The processes that a bench started and that still run, with their command lines: they have its
/// environment, but for those of a broker, which have its process id in their arguments.
fn processes(folder: &Path, bench: u32) -> Vec<(u32, String)> {
    let mark = format!("BENCH_TEST={}", folder.display());
    let node = format!("sagamq-{bench}-");
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let running = processes.filter_map(|path| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let read =
            |name| String::from_utf8_lossy(&fs::read(path.join(name)).unwrap_or_default()).into_owned();
        let line = read("cmdline");
        let is_ours = read("environ").split('\0').any(|pair| pair == mark) || line.contains(&node);
        is_ours.then(|| (pid, line.replace('\0', " ")))
    });
    running.collect()
}

fn left_running(folder: &Path, bench: u32) -> Vec<String> {
    processes(folder, bench).into_iter().map(|(_, line)| line).collect()
}

fn assert_nothing_is_left(folder: &Path, bench: u32) {
    let deadline = Instant::now() + PATIENCE;
    while !left_running(folder, bench).is_empty() {
        assert!(Instant::now() < deadline, "{:#?}", left_running(folder, bench));
        sleep(Duration::from_millis(20));
    }
}

/// What it says to the user and to those who look for errors.
fn said(bench: &mut Child) -> String {
    let mut text = String::new();
    bench.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    bench.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_small_bench_tells_every_figure_counts_eight_messages_a_saga_and_leaves_nothing() {
    let broker = support::broker();
    let folder = folder();
    let (json, svg) = (folder.path().join("figures.json"), folder.path().join("figures.svg"));
    let mut command = bench(
        folder.path(),
        &["--pairs", "1", "--sagas", "200", "--in-flight", "50", "--warm-up", "20", "--latency-pairs", "1"],
    );
    command.arg("--json").arg(&json).arg("--svg").arg(&svg).env("SAGAMQ_BROKER__URL", broker.url());
    let mut bench = command.spawn().unwrap();
    assert!(!left_running(folder.path(), bench.id()).is_empty(), "the bench itself is not seen");
    let text = said(&mut bench);
    assert_eq!(bench.wait().unwrap().code(), Some(0), "{text}");
    for words in ["sagas a second", "fsyncs a saga", "ratio of sagas/s", "p99.9", "sagamq adds"] {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }

    let figures = fs::read(&json).unwrap();
    // Reading it proves that all fields are there.
    let report: Report = serde_json::from_slice(&figures).unwrap();
    let half_load = report.half_load.unwrap();
    for pair in report.throughput.pairs.iter().chain(&half_load.pairs) {
        for run in [&pair.null, &pair.sagamq] {
            let Run { sagas, messages_per_saga, latency: Latency { curve_ms, .. }, .. } = run;
            assert_eq!((*sagas, *messages_per_saga, curve_ms.len()), (200, 8.0, 101));
            assert!(run.resident_kib > 0 && run.sagas_per_s > 0.0 && curve_ms[0] > 0.0, "{run:?}");
        }
        assert_eq!((pair.null.commits_per_saga, pair.null.fsyncs_per_saga), (0.0, 0.0));
        // Each commit takes in at least one delivery, but for a few that keep what was confirmed.
        let commits = pair.sagamq.commits_per_saga;
        assert!(commits > 0.0 && commits <= 5.0, "{commits} commits a saga");
        assert!(pair.sagamq.written_bytes_per_saga > 0.0, "the store is not on a disk");
    }
    assert_eq!((report.throughput.pairs.len(), half_load.pairs.len()), (1, 1));
    let held = half_load.held.unwrap();
    assert!(held.null.p50_ms > 0.0 && held.sagamq.p50_ms > 0.0, "{held:?}");
    assert!(held.sagamq.max_ms < half_load.whole.sagamq.max_ms, "{held:?}");
    assert!(half_load.disk.null.p50_ms > 0.0 && half_load.disk.sagamq.p50_ms > 0.0, "{:?}", half_load.disk);
    let figures: Value = serde_json::from_slice(&figures).unwrap();
    assert!(figures["half_load"]["whole"]["added"]["p999_ms"].is_number(), "{figures}");

    let picture = fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"), "{picture}");
    assert_eq!(picture.matches("sagas/s</title>").count(), 2);
    assert_eq!(picture.matches("<polyline ").count(), 2);

    assert_nothing_is_left(folder.path(), bench.id());
    assert_eq!(broker.ctl(&["list_queues", "name", "--silent"]).unwrap(), "");
    let exchanges = broker.ctl(&["list_exchanges", "name", "--silent"]).unwrap();
    assert!(!exchanges.contains("bench"), "{exchanges}");
    let mut files: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["figures.json", "figures.svg"]);
}

/// Runs a small bench with these arguments over a broker of its own; returns its figures, and what it said.
fn figures<T: DeserializeOwned>(
    folder: &Path,
    arguments: &[&str],
    meanwhile: impl FnOnce(u32),
) -> (T, String) {
    let json = folder.join("figures.json");
    let mut bench = bench(folder, arguments).arg("--json").arg(&json).spawn().unwrap();
    meanwhile(bench.id());
    let text = said(&mut bench);
    assert_eq!(bench.wait().unwrap().code(), Some(0), "{text}");
    (serde_json::from_slice(&fs::read(&json).unwrap()).unwrap(), text)
}

/// The smoke benchmark: counts must not grow. What depends on time is told and never fails.
#[test]
fn commits_messages_and_bytes_a_saga_stay_within_their_bounds() {
    let bounds =
        [("1", MAX_COMMITS_ALONE, MAX_WRITTEN_ALONE), (TOGETHER, MAX_COMMITS_TOGETHER, MAX_WRITTEN_TOGETHER)];
    for (in_flight, max_commits, max_written) in bounds {
        let folder = folder();
        let small = ["--pairs", "1", "--sagas", "300", "--warm-up", "20", "--latency-pairs", "0"];
        let arguments = [&small[..], &["--in-flight", in_flight]].concat();
        let (report, text) = figures::<Report>(folder.path(), &arguments, |_| ());
        println!("{in_flight} under way at a time:\n{text}");
        let run = &report.throughput.pairs[0].sagamq;
        assert_eq!(run.messages_per_saga, 8.0, "{in_flight} under way");
        assert!(run.commits_per_saga <= max_commits, "{} commits a saga", run.commits_per_saga);
        let written = run.written_bytes_per_saga;
        assert!(written > 0.0 && written <= max_written, "{written} bytes written a saga");
    }
}

#[test]
fn a_commit_is_one_sync_of_the_system() {
    let strace = Path::new("/usr/bin/strace");
    if !strace.exists() {
        return skip::skip("strace, which counts syncs, is not installed (scripts/setup test installs it)");
    }
    let folder = folder();
    let trace = folder.path().join("trace");
    let small =
        ["--pairs", "1", "--sagas", "300", "--warm-up", "0", "--latency-pairs", "0", "--in-flight", "8"];
    let mut tracer = None;
    let (report, _) = figures::<Report>(folder.path(), &small, |bench| {
        let pid = orchestrator(folder.path(), bench);
        let mut command = Command::new(strace);
        command.args(["-f", "-q", "-e", "trace=fsync,fdatasync,msync,sync_file_range", "-o"]).arg(&trace);
        tracer = Some(command.args(["-p", &pid.to_string()]).spawn().unwrap());
    });
    tracer.unwrap().wait().unwrap();
    let trace = fs::read_to_string(&trace).unwrap();
    let syncs = trace.lines().filter(|line| line.contains("sync(")).count() as f64;
    let run = &report.throughput.pairs[0].sagamq;
    let commits = run.commits_per_saga * run.sagas as f64;
    assert!(syncs >= commits && syncs <= commits + MAX_OTHER_SYNCS, "{syncs} syncs, {commits} commits");
}

/// Waits for the bench's `sagamq run`, and returns its process id.
fn orchestrator(folder: &Path, bench: u32) -> u32 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The shell that becomes it has its command line as arguments, and leaves a process behind.
        let runs = |(_, line): &(u32, String)| {
            line.trim_end().ends_with("sagamq run") && !line.starts_with("/bin/sh")
        };
        if let Some((pid, _)) = processes(folder, bench).into_iter().find(runs) {
            return pid;
        }
        assert!(Instant::now() < deadline, "no orchestrator among {:#?}", processes(folder, bench));
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_store_that_has_grown_is_compared_taken_up_and_asked() {
    let folder = folder();
    let (report, text) = figures::<ScaleReport>(
        folder.path(),
        &["--finished", "300", "--open", "60", "--pairs", "2", "--sagas", "40", "--warm-up", "0"],
        |_| (),
    );
    for words in ["300 finished instances", "60 instances in flight", "bytes on disk", "show: any one"] {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    let finished = report.finished.unwrap();
    assert!(finished.bytes_per_instance > 100.0, "{}", finished.bytes_per_instance);
    let runs = finished.pairs.iter().flat_map(|pair| [&pair.empty, &pair.filled]);
    assert!(runs.clone().all(|run| (run.sagas, run.messages_per_saga) == (40, 8.0)), "{:#?}", finished.pairs);
    let in_flight = report.in_flight.unwrap();
    assert_eq!(in_flight.instances, 60);
    // Nothing was sent for the instances that wait for an answer.
    assert_eq!(in_flight.busy.messages_per_saga, 8.0);
    assert!(in_flight.ready_ms.min > in_flight.open_ms.min, "{in_flight:?}");
    let Questioned { asked, rounds, rounds_at_half_load, beside } = report.questioned;
    assert!(rounds > 0 && rounds_at_half_load > 0, "{rounds} and {rounds_at_half_load}");
    let answered = |asked: &Asked| asked.idle.p50_ms > 0.0 && asked.half_load.p50_ms > 0.0;
    assert!(asked.len() == 6 && asked.iter().all(answered), "{asked:?}");
    // At half load over a broker whose traffic can be read, which tells what the questions cost the sagas.
    assert!(beside.sagas == 40 && beside.held.is_some() && beside.disk.is_some(), "{beside:?}");
}

#[test]
fn an_interrupted_bench_leaves_nothing_running() {
    let folder = folder();
    let mut bench =
        bench(folder.path(), &["--pairs", "1000", "--sagas", "100", "--warm-up", "0"]).spawn().unwrap();
    let mut lines = BufReader::new(bench.stdout.take().unwrap()).lines().map(Result::unwrap);
    let seen: Vec<_> = lines.by_ref().take_while(|line| !line.contains("pair 1 of 1000:")).collect();
    assert!(left_running(folder.path(), bench.id()).len() > 2, "{seen:#?}");
    kill_process(Pid::from_child(&bench), Signal::INT).unwrap();
    drop(lines.last());
    let mut errors = String::new();
    bench.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((bench.wait().unwrap().code(), errors.as_str()), (Some(3), "error: interrupted\n"));
    assert_nothing_is_left(folder.path(), bench.id());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
