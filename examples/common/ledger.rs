//! What a service did, in a file that survives a power cut: one JSON object a line, only ever
//! appended to, each line flushed to the disk before anything else happens.
//!
//! It stands for the database of a real service. What matters is that the command id, the effect
//! and the answer are written in *one* transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a command changes: amounts by account, such as `{"P-1": -2}` units or `{"cents": 5997}`.
/// To undo it is to book the same with the signs changed.
pub(crate) type Effect = BTreeMap<String, i64>;

/// One line: a command that is settled.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The idempotency key.
    pub(crate) command_id: String,
    /// The command that this one undid.
    pub(crate) compensates: Option<String>,
    /// The routing key.
    pub(crate) key: String,
    /// The order that it was for.
    pub(crate) order_id: String,
    /// What changed.
    pub(crate) effect: Effect,
    /// What was answered, and will be to every repeat.
    pub(crate) answer: Answer,
}

/// What a service answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// A reply: done.
    Success {
        /// What the saga may use later.
        data: Value,
    },
    /// A reply: refused for good.
    Failure {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// A reply: another attempt, please. Never kept.
    Retry,
    /// A plain event instead of a reply.
    Event {
        /// Where it is published to.
        exchange: String,
        /// Its routing key.
        key: String,
        /// Its payload.
        data: Value,
    },
    /// None at all.
    Silence,
}

/// A service's memory.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: File,
    entries: HashMap<String, Entry>,
    /// Commands that were undone, even if they never arrived.
    undone: HashSet<String>,
    balance: Effect,
}

/// The file of a service: `LEDGER`, else `<service>.ledger`.
pub(crate) fn path(service: &str) -> PathBuf {
    std::env::var_os("LEDGER").map_or_else(|| format!("{service}.ledger").into(), PathBuf::from)
}

/// The effect that takes `effect` back.
pub(crate) fn negated(effect: Effect) -> Effect {
    effect.into_iter().map(|(account, amount)| (account, -amount)).collect()
}

impl Ledger {
    /// Opens the file, and makes it if it is missing. A last line without an end is what a crash
    /// left of a write; nothing was answered because of it, so it is cut off.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::replay(path)
            .map_err(|error| io::Error::new(error.kind(), format!("ledger {}: {error}", path.display())))
    }

    fn replay(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        let mut ledger =
            Self { file, entries: HashMap::new(), undone: HashSet::new(), balance: Effect::new() };
        for line in text[..whole].lines() {
            ledger.apply(serde_json::from_str(line)?);
        }
        Ok(ledger)
    }

    /// The answer to a command that is settled.
    pub(crate) fn answer(&self, command_id: &str) -> Option<&Answer> {
        self.entries.get(command_id).map(|entry| &entry.answer)
    }

    /// Whether a command was undone, even if it never arrived.
    pub(crate) fn is_undone(&self, command_id: &str) -> bool {
        self.undone.contains(command_id)
    }

    /// The effect of a command that was not undone: nothing for one that was, that was refused or
    /// that never arrived.
    pub(crate) fn standing_effect(&self, command_id: &str) -> Effect {
        let standing = self.entries.get(command_id).filter(|_| !self.is_undone(command_id));
        standing.map(|entry| entry.effect.clone()).unwrap_or_default()
    }

    /// The sum of all effects on an account.
    pub(crate) fn balance(&self, account: &str) -> i64 {
        self.balance.get(account).copied().unwrap_or_default()
    }

    /// Writes a settled command. It survives a power cut once this returns. After an error the file
    /// may end in half a line: open it again before the next.
    pub(crate) fn record(&mut self, entry: Entry) -> io::Result<()> {
        let mut line = serde_json::to_string(&entry)?;
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.apply(entry);
        Ok(())
    }

    fn apply(&mut self, entry: Entry) {
        for (account, amount) in &entry.effect {
            *self.balance.entry(account.clone()).or_default() += amount;
        }
        if let Some(action) = &entry.compensates {
            self.undone.insert(action.clone());
        }
        self.entries.insert(entry.command_id.clone(), entry);
    }
}

impl Answer {
    /// A refusal.
    pub(crate) fn failure(code: &str, message: &str) -> Self {
        Self::Failure { code: code.to_owned(), message: message.to_owned() }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Success { .. } => write!(f, "success"),
            Answer::Failure { code, .. } => write!(f, "refused, {code}"),
            Answer::Retry => write!(f, "asked for another attempt"),
            Answer::Event { key, .. } => write!(f, "published {key}"),
            Answer::Silence => write!(f, "silent"),
        }
    }
}
