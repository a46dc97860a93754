//! What is played, and how it went.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::checker::evidence::{Evidence, Placing};
use crate::definitions::Loaded;

/// What is played.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// The definitions in force.
    pub definitions: Vec<Loaded>,
    /// Events to place, in this order.
    pub events: Vec<Planned>,
    /// What every successful reply carries.
    pub reply_data: Value,
    /// Exchanges whose participants answer by an event on the same exchange, with this key.
    pub heralds: BTreeMap<String, String>,
    /// Whether a person has sagas go on without what participants refuse to undo, now and then.
    pub attended: bool,
    /// How bad it gets.
    pub trouble: Trouble,
    /// Whether every step is kept as a line of text, and not only in the trace's hash.
    pub verbose: bool,
}

/// An event to be placed.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where it is published to, and its routing key.
    pub to: (String, String),
    /// Its body.
    pub body: Vec<u8>,
    /// What it is meant to do, to each of those that it is for.
    pub what: Vec<Placing>,
    /// Whether it has no id.
    pub is_unnamed: bool,
    /// Whether somebody publishes it to the dead-letter exchange.
    pub is_stray: bool,
    /// How often its sender repeats it, as the same event.
    pub repeats: usize,
    /// The instance of whose commands one gives it its correlation, if it has sent one by then. It counts for this
    /// one first.
    pub correlated_with: Option<(String, String)>,
    /// A text in it that no other event has.
    pub mark: Option<String>,
    /// Numbers in it, as they are written there.
    pub numbers: Vec<String>,
}

impl Planned {
    /// An event that is sent once, to do this.
    pub fn new(exchange: &str, key: &str, body: impl Into<Vec<u8>>, what: Placing) -> Self {
        Self {
            to: (exchange.to_owned(), key.to_owned()),
            body: body.into(),
            what: vec![what],
            is_unnamed: false,
            is_stray: false,
            repeats: 0,
            correlated_with: None,
            mark: None,
            numbers: Vec::new(),
        }
    }
}

/// How bad it gets: each once in so many opportunities, never where it is 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// The process dies between two steps, or in the middle of a commit.
    pub crashes: u32,
    /// The machine loses power.
    pub power_cuts: u32,
    /// A commit fails.
    pub disk_faults: u32,
    /// A connection breaks.
    pub lost_connections: u32,
    /// A confirm is lost, a publish is nacked, or a message is unroutable.
    pub publish_faults: u32,
    /// A message is delivered twice, or out of order.
    pub delivery_faults: u32,
    /// Somebody answers a command who was not asked.
    pub forgeries: u32,
}

/// How a play went.
#[derive(Debug)]
pub struct Outcome {
    /// What was observed.
    pub evidence: Evidence,
    /// A hash of everything that happened, in order.
    pub trace: u64,
    /// How many steps that were.
    pub steps: usize,
    /// What happened, if that was to be kept.
    pub lines: Vec<String>,
}
