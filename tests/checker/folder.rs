//! Evidence on disk, and the subcommands that read it.

use std::fs;
use std::path::Path;
use std::process::Command;

use sagamq::checker::{Evidence, Folder, Invariant};
use sagamq::config::StoreConfig;
use sagamq::saga::fact::Fact;
use sagamq::store::{Batch, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::play::{DEFINITION, line, right};

/// Writes a run as the files that a folder of evidence has.
fn written(run: &Evidence) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("placed.jsonl", run.placed.iter().map(line).collect());
    write("messages.jsonl", run.messages.iter().map(line).collect());
    write("acks.jsonl", run.acks.iter().map(line).collect());
    write("dead.jsonl", run.dead.iter().map(line).collect());
    write("faults.jsonl", "{\"kind\": \"cut\", \"count\": 2}\n{\"kind\": \"cut\"}\n".to_owned());
    write("recoveries.jsonl", "{\"ms\": 20}\n{\"ms\": 1204}\n".to_owned());
    write("secret", "hunter2-canary\n".to_owned());
    let mut replayed = String::new();
    for participant in ["reserve", "charge", "ship", "invoice"] {
        let entries: Vec<_> = run.entries.iter().filter(|entry| entry.participant == participant).collect();
        write(&format!("{participant}.ledger"), entries.iter().map(line).collect());
        replayed.push_str(&line(&json!({"participant": participant, "entries": entries.len()})));
    }
    write("replayed.jsonl", replayed);
    let mut store = open(&folder.path().join("store"));
    let mut batch = Batch::default();
    for plan in run.plans.values() {
        batch.define(&plan.saga, plan.version, &plan.hash, DEFINITION);
    }
    run.letters.iter().for_each(|letter| batch.dead_letter(letter.clone()));
    for one in &run.instances {
        one.history.iter().for_each(|entry| batch.save(&one.instance, entry));
    }
    store.commit(batch).unwrap();
    folder
}

fn open(path: &Path) -> Store {
    Store::open(&StoreConfig { path: path.to_owned(), cache_mib: 16 }).unwrap()
}

/// What the binary ends with and prints.
fn sagamq(arguments: &[&str], folder: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagamq"));
    let output = command.args(arguments).current_dir(folder).env_clear().output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), out, err)
}

#[test]
fn a_folder_tells_what_its_evidence_tells() {
    let folder = written(&right());
    let report = Folder::read(folder.path()).unwrap().check();
    assert!(report.passed(), "{report}");
    assert_eq!(report.unseen, [""; 0]);
    assert_eq!((report.instances, report.injected()), (7, 3));
    assert_eq!(report.slowest_recovery.unwrap().as_millis(), 1204);
}

#[test]
fn what_is_booked_after_a_replay_is_told_of_any_ledger() {
    let folder = written(&right());
    let path = folder.path().join("charge.ledger");
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str(&text.lines().next().unwrap().replace("\"participant\"", "\"service\""));
    text.push_str("\n{\"half a line");
    fs::write(&path, text).unwrap();
    let report = Folder::read(folder.path()).unwrap().check();
    let told: Vec<_> = report.violations.iter().map(|one| (one.invariant, &one.what[..13])).collect();
    assert_eq!(told, [(Invariant::I10, "charge booked")], "{report}");
}

#[test]
fn a_file_that_is_missing_is_not_looked_at_and_an_empty_one_is() {
    let folder = written(&right());
    fs::write(folder.path().join("messages.jsonl"), "").unwrap();
    let report = Folder::read(folder.path()).unwrap().check();
    assert!(report.violations.iter().all(|one| one.invariant == Invariant::I9), "{report}");
    assert!(!report.violations.is_empty() && report.unseen.is_empty());

    for name in ["messages.jsonl", "dead.jsonl"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let report = Folder::read(folder.path()).unwrap().check();
    assert!(report.passed(), "{report}");
    let unseen: Vec<_> = report.unseen.iter().map(|reason| reason.split(' ').next_back().unwrap()).collect();
    assert_eq!(unseen, ["log", "it", "dead"], "{:?}", report.unseen);
}

#[test]
fn a_secret_in_any_file_is_told_with_its_place() {
    let folder = written(&right());
    fs::create_dir(folder.path().join("logs")).unwrap();
    fs::write(folder.path().join("logs/run.log"), "fine\namqp://app:hunter2-canary@mq\n").unwrap();
    let report = Folder::read(folder.path()).unwrap().check();
    let told: Vec<_> = report.violations.iter().map(|one| one.invariant).collect();
    assert_eq!(told, [Invariant::I18]);
    assert!(report.violations[0].what.ends_with("logs/run.log:2 holds the secret"), "{report}");
}

#[test]
fn a_malformed_line_is_refused_with_file_and_line() {
    let files = [
        ("placed.jsonl", r#"{"message_id": "m", "what": "stop"}"#, "unknown variant `stop`"),
        ("messages.jsonl", r#"{"message_id": "m"}"#, "missing field `exchange`"),
        ("acks.jsonl", r#"{"queue": "q", "verdict": "maybe"}"#, "unknown variant `maybe`"),
        ("dead.jsonl", "[]", "dead.jsonl:2"),
        ("faults.jsonl", r#"{"kind": 1}"#, "invalid type: integer `1`"),
        ("recoveries.jsonl", r#"{"ms": -1}"#, "invalid value: integer `-1`"),
        ("replayed.jsonl", "{", "EOF while parsing"),
        ("charge.ledger", "\u{1}", "expected value"),
    ];
    for (name, wrong, reason) in files {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ship.ledger"), "").unwrap();
        fs::write(folder.path().join(name), format!("\n{wrong}\n")).unwrap();
        let error = Folder::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}:2: ")) && error.contains(reason), "{error}");
    }
}

#[test]
fn verify_ends_with_a_code_that_tells_how_it_went() {
    let mut run = right();
    let folder = written(&run);
    let (code, out, err) = sagamq(&["verify", "."], folder.path());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with("instances 7: completed 2, compensated 4, parked 1\nfaults 3: cut 3\n"), "{out}");
    assert!(out.ends_with("\npassed\n"), "{out}");

    run.entries.retain(|entry| entry.participant != "ship");
    let folder = written(&run);
    let (code, out, err) = sagamq(&["verify", ".", "--json"], folder.path());
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, err.as_str(), &report["passed"]), (Some(1), "", &json!(false)));
    assert_eq!(report["report"]["violations"][0]["invariant"], "I3");

    assert_eq!(sagamq(&["verify"], folder.path()).0, Some(2));
    let empty = tempfile::tempdir().unwrap();
    for (path, reason) in
        [("nowhere", "cannot read nowhere: No such file"), (".", "there is no store in ./store")]
    {
        let (code, out, err) = sagamq(&["verify", path], empty.path());
        assert_eq!((code, out.as_str()), (Some(3), ""));
        assert!(err.starts_with("error: ") && err.contains(reason), "{err}");
    }
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "reading makes nothing");
}

#[test]
fn replay_proves_records_by_their_histories() {
    let run = right();
    let folder = written(&run);
    let entries: usize = run.instances.iter().map(|one| one.history.len()).sum();
    let (code, out, err) = sagamq(&["replay", "--store", "store"], folder.path());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("7 instances, {entries} entries: every record is the fold of its history\n"));
}

#[test]
fn replay_names_a_snapshot_that_is_not_the_fold_of_its_history() {
    let mut run = right();
    let Fact::Started(started) = &mut run.instances[0].history[0].facts[0].fact else { panic!("no start") };
    // Too much for a history that needs no snapshot.
    started.input = json!("x".repeat(5000)).into();
    let id = run.instances[0].instance.id;
    let folder = written(&run);
    open(&folder.path().join("store")).checkpoint().unwrap();
    let sled = sled::open(folder.path().join("store/sled")).unwrap();
    let decompressed = |value: &[u8]| lz4_flex::block::decompress_size_prepended(&value[9..]).unwrap();
    let mut values =
        sled.scan_prefix(b"s").map(Result::unwrap).map(|(key, value)| (key, decompressed(&value)));
    let (key, snapshot) = values.find(|(_, value)| value.starts_with(b"s")).unwrap();
    let payload = String::from_utf8(snapshot).unwrap().replace("\"version\":1", "\"version\":9");
    let count = [0; 4];
    let checksum = crc32fast::hash(&[&count, payload.as_bytes()].concat());
    sled.insert(key, [&[2], &checksum.to_be_bytes()[..], &count, payload.as_bytes()].concat()).unwrap();
    drop((values, sled));
    let (code, out, err) = sagamq(&["replay", "--store", "store"], folder.path());
    let difference = format!("instance {id}: the record says completed at revision");
    assert_eq!((code, out.lines().count()), (Some(1), 2), "{out}{err}");
    assert!(out.lines().nth(1).unwrap().starts_with(&difference), "{out}");
}

#[test]
fn replay_refuses_a_store_that_is_not_there_or_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = sagamq(&["replay"], folder.path());
    assert_eq!(code, Some(3));
    assert_eq!(err, "error: there is no store in ./sagamq-data: name its folder by --store or store.path\n");
    assert!(!folder.path().join("sagamq-data").exists(), "the store was made");

    let _store = open(&folder.path().join("store"));
    let (code, _, err) = sagamq(&["replay", "--store", "store"], folder.path());
    assert_eq!(code, Some(3));
    assert!(
        err.contains(&format!("is in use by process {}: stop that process", std::process::id())),
        "{err}"
    );
}
