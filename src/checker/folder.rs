//! Evidence in a folder: logs as JSON lines, ledgers, a store.
//!
//! | file | holds, a JSON object a line |
//! |---|---|
//! | `placed.jsonl` | [`Placed`] |
//! | `messages.jsonl` | [`Seen`] |
//! | `acks.jsonl` | [`Acked`] |
//! | `dead.jsonl` | [`Dead`] |
//! | `*.ledger` | [`Entry`]: the ledger of the participant that the file is named after |
//! | `replayed.jsonl` | `{"participant": "payment", "entries": 12}`: how many entries a ledger had when earlier inputs were delivered once more |
//! | `faults.jsonl` | `{"kind": "broker_kill", "count": 2}`; a `count` of 1 may be left out |
//! | `recoveries.jsonl` | `{"ms": 1204}` |
//! | `store/` | the orchestrator's store, closed |
//! | `secret` | no JSON, but a text that no other file of the folder may hold |

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Invariant;
use super::case::Looked;
use super::evidence::{Acked, Dead, Entry, Evidence, Observed, Placed, Seen};
use super::report::{self, Report, Violation};
use crate::catalog::{Catalog, CatalogError};
use crate::config::StoreConfig;
use crate::store::{Store, StoreError};

/// Evidence that was read from a folder.
#[derive(Debug)]
pub struct Folder {
    /// What was observed.
    pub evidence: Evidence,
    looked: Looked,
    leaks: Vec<Violation>,
}

/// Why evidence cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}; check the path and its permissions")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not what the file must hold.
    #[error("{path}:{line}: {source}; docs/operations.md tells what the file holds")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// There is no store, without which hardly anything can be decided.
    #[error("there is no store in {0}: put a copy of the orchestrator's whole store folder there")]
    NoStore(PathBuf),
    /// The secret would be found everywhere.
    #[error("{0} is empty: put the secret into it that is to be looked for, or remove it")]
    NoSecret(PathBuf),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A definition in the store cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// Memory for the store's pages, in MiB.
const CACHE_MIB: u64 = 64;

impl Folder {
    /// Reads a folder. What is missing there counts as not looked at; what is there and empty, as looked
    /// at in vain.
    ///
    /// # Errors
    /// Something is there and cannot be read; a line that is not what it must be is named.
    pub fn read(path: &Path) -> Result<Self, FolderError> {
        let ledgers = ledgers(path)?;
        let placed = lines::<Placed>(&path.join("placed.jsonl"))?;
        let messages = lines::<Seen>(&path.join("messages.jsonl"))?;
        let acks = lines::<Acked>(&path.join("acks.jsonl"))?;
        let dead = lines::<Dead>(&path.join("dead.jsonl"))?;
        let secret = secret(&path.join("secret"))?;
        let looked = Looked {
            placed: placed.is_some(),
            messages: messages.is_some(),
            entries: !ledgers.is_empty(),
            acks: acks.is_some(),
            dead: dead.is_some(),
            secret: secret.is_some(),
        };
        let (entries, replayed_at) = in_order(ledgers, lines(&path.join("replayed.jsonl"))?);
        let mut evidence = Evidence {
            placed: placed.unwrap_or_default(),
            messages: messages.unwrap_or_default(),
            acks: acks.unwrap_or_default(),
            dead: dead.unwrap_or_default(),
            entries,
            replayed_at,
            faults: faults(&path.join("faults.jsonl"))?,
            slowest_recovery: slowest_recovery(&path.join("recoveries.jsonl"))?,
            ..Evidence::default()
        };
        read_store(&path.join("store"), &mut evidence)?;
        let leaks = match secret {
            Some(secret) => leaks(path, &secret)?,
            None => Vec::new(),
        };
        Ok(Self { evidence, looked, leaks })
    }

    /// Decides every invariant that the folder has something to say about.
    pub fn check(&self) -> Report {
        report::report(&self.evidence, self.looked, self.leaks.clone())
    }
}

/// The ledgers, by participant.
fn ledgers(folder: &Path) -> Result<BTreeMap<String, Vec<Entry>>, FolderError> {
    let mut ledgers = BTreeMap::new();
    for path in files(folder)? {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let (Some(participant), Some("ledger")) = (stem, path.extension().and_then(|end| end.to_str()))
        else {
            continue;
        };
        let mut entries: Vec<Entry> = lines(&path)?.unwrap_or_default();
        for entry in entries.iter_mut().filter(|entry| entry.participant.is_empty()) {
            entry.participant.clone_from(&participant);
        }
        ledgers.insert(participant, entries);
    }
    Ok(ledgers)
}

/// How many entries a ledger had.
#[derive(Deserialize)]
struct Replayed {
    participant: String,
    entries: usize,
}

/// All entries, those before the replay first, and how many that are.
fn in_order(
    ledgers: BTreeMap<String, Vec<Entry>>,
    replayed: Option<Vec<Replayed>>,
) -> (Vec<Entry>, Option<usize>) {
    let Some(replayed) = replayed else { return (ledgers.into_values().flatten().collect(), None) };
    // A ledger that is not named had none.
    let lengths: HashMap<_, _> = replayed.into_iter().map(|one| (one.participant, one.entries)).collect();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (participant, mut entries) in ledgers {
        let length = lengths.get(&participant).copied().unwrap_or_default().min(entries.len());
        after.extend(entries.split_off(length));
        before.append(&mut entries);
    }
    let at = before.len();
    before.append(&mut after);
    (before, Some(at))
}

#[derive(Deserialize)]
struct Fault {
    kind: String,
    #[serde(default = "once")]
    count: u64,
}

fn once() -> u64 {
    1
}

fn faults(path: &Path) -> Result<BTreeMap<String, u64>, FolderError> {
    let mut faults = BTreeMap::new();
    for Fault { kind, count } in lines(path)?.unwrap_or_default() {
        let sum: &mut u64 = faults.entry(kind).or_default();
        *sum = sum.saturating_add(count);
    }
    Ok(faults)
}

#[derive(Deserialize)]
struct Recovery {
    ms: u64,
}

fn slowest_recovery(path: &Path) -> Result<Option<Duration>, FolderError> {
    let recoveries: Vec<Recovery> = lines(path)?.unwrap_or_default();
    Ok(recoveries.into_iter().map(|recovery| Duration::from_millis(recovery.ms)).max())
}

/// Reads instances, definitions and dead letters.
fn read_store(path: &Path, evidence: &mut Evidence) -> Result<(), FolderError> {
    if !Store::is_in(path) {
        return Err(FolderError::NoStore(path.to_owned()));
    }
    let store = Store::open(&StoreConfig { path: path.to_owned(), cache_mib: CACHE_MIB })?;
    let reader = store.reader();
    let mut catalog = Catalog::default();
    for instance in reader.instances() {
        let instance = instance?;
        let plan = catalog.plan_of(&instance, &reader)?;
        evidence.plans.insert(instance.definition.clone(), plan);
        let history = reader.history(instance.id)?;
        evidence.instances.push(Observed { instance, history });
    }
    let mut cursor = None;
    loop {
        let page = reader.dead_letters(usize::MAX, cursor.as_deref())?;
        evidence.letters.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// The text that nothing may hold.
fn secret(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes.trim_ascii().to_vec(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FolderError::Read { path: path.to_owned(), source }),
    };
    if bytes.is_empty() { Err(FolderError::NoSecret(path.to_owned())) } else { Ok(Some(bytes)) }
}

/// I18: the files below the folder that hold the secret, line by line.
fn leaks(folder: &Path, secret: &[u8]) -> Result<Vec<Violation>, FolderError> {
    let finder = |line: &[u8]| line.windows(secret.len()).any(|part| part == secret);
    let mut leaks = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for path in entries(&current)? {
            if path.is_dir() {
                if path != folder.join("store") {
                    folders.push(path);
                }
                continue;
            }
            if path == folder.join("secret") || !path.is_file() {
                continue;
            }
            let unreadable = |source| FolderError::Read { path: path.clone(), source };
            let file = BufReader::new(File::open(&path).map_err(unreadable)?);
            for (line, bytes) in (1..).zip(file.split(b'\n')) {
                if finder(&bytes.map_err(unreadable)?) {
                    let what = format!("{}:{line} holds the secret", path.display());
                    leaks.push(Violation { invariant: Invariant::I18, instance: None, what });
                    break;
                }
            }
        }
    }
    Ok(leaks)
}

/// The values in a file, one a line; `None` where there is no such file. What a crash left of a last line
/// without an end was not written, so it does not count in a ledger.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Option<Vec<T>>, FolderError> {
    let unreadable = |source| FolderError::Read { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let is_ledger = path.extension().is_some_and(|end| end == "ledger");
    let mut values = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if file.read_until(b'\n', &mut bytes).map_err(unreadable)? == 0 {
            break;
        }
        if bytes.trim_ascii().is_empty() || (is_ledger && !bytes.ends_with(b"\n")) {
            continue;
        }
        let value = serde_json::from_slice(&bytes);
        values.push(value.map_err(|source| FolderError::Line { path: path.to_owned(), line, source })?);
    }
    Ok(Some(values))
}

/// The files right in a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_file()).collect())
}

/// What is in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let unreadable = |source| FolderError::Read { path: folder.to_owned(), source };
    let paths = fs::read_dir(folder).map_err(unreadable)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}
