//! The bench with real processes over a real RabbitMQ, so small that its figures mean nothing.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sagamq::bench::{Latency, Report, Run};
use serde_json::Value;
use tempfile::TempDir;

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

/// The processes that a bench started and that still run: they have its environment, but for those of a
/// broker, which have its process id in their arguments.
fn left_running(folder: &Path, bench: u32) -> Vec<String> {
    let mark = format!("BENCH_TEST={}", folder.display());
    let node = format!("sagamq-{bench}-");
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let running = processes.filter_map(|path| {
        let read =
            |name| String::from_utf8_lossy(&fs::read(path.join(name)).unwrap_or_default()).into_owned();
        let line = read("cmdline");
        let is_ours = read("environ").split('\0').any(|pair| pair == mark) || line.contains(&node);
        is_ours.then(|| line.replace('\0', " "))
    });
    running.collect()
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
    let figures: Value = serde_json::from_slice(&figures).unwrap();
    assert!(figures["half_load"]["added"]["p999_ms"].is_number(), "{figures}");

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
