//! What is played, and how it went.

use serde_json::Value;

use crate::checker::evidence::{Evidence, Placing};
use crate::definitions::Loaded;

/// What is played.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The definitions in force.
    pub definitions: Vec<Loaded>,
    /// Events to place, in this order.
    pub events: Vec<Planned>,
    /// What every successful reply carries.
    pub reply_data: Value,
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
    /// What it is meant to do.
    pub what: Placing,
}

/// How bad it gets: each once in so many opportunities, never where it is 0.
#[derive(Clone, Copy, Debug)]
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
