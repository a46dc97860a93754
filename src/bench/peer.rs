//! The processes beside sagamq: the null orchestrator, the participants, the load generator.
//!
//! They are no part of the orchestrator, so they speak AMQP for themselves. Each is this program again, with
//! a hidden subcommand; it tells what happens to it by [`Word`]s, one JSON object a line of its standard
//! output, and it ends when its standard input does. So it ends with the process that started it,
//! however that one ends.

mod load;
mod null;
mod participant;
mod relay;
mod wire;

use std::cell::Cell;
use std::io::{self, BufRead, Write};
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::BenchError;
use super::latency::Latency;
use super::names::Names;
use crate::config::BrokerConfig;
use wire::Link;

/// What the load generator is told once everybody is there.
pub(super) const GO: &str = "go";

/// What a process of the bench is.
#[derive(Clone, Debug)]
pub enum Role {
    /// What sagamq is measured against.
    NullOrchestrator,
    /// Answers the commands of one step.
    Participant {
        /// Name of the step.
        step: String,
    },
    /// Starts sagas and awaits their ends.
    Load {
        /// How many.
        sagas: u64,
        /// How fast.
        pace: Pace,
    },
}

/// How fast sagas are started.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as they end, with so many under way at most.
    InFlight(u64),
    /// So many a second, whether they end or not.
    PerSecond(f64),
}

/// What a process tells the one that started it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// It consumes.
    Ready,
    /// So many sagas have ended, of the load generator.
    Completed(u64),
    /// All have, and it was like this.
    Loaded(Loaded),
    /// What it received and sent until its end, of all others.
    Counts(Counts),
}

/// What the load generator saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Loaded {
    /// From the first start event to the last end event.
    pub(super) secs: f64,
    /// From the start event to the end event of a saga.
    pub(super) latency: Latency,
    /// The events themselves.
    pub(super) counts: Counts,
}

/// Messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// Plays a role until it is played, or until the standard input ends.
///
/// # Errors
/// The broker cannot be used, or messages go astray.
pub fn act(role: &Role, prefix: &str, broker: &BrokerConfig) -> Result<(), BenchError> {
    let names = Names { prefix: prefix.to_owned() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut orders = orders();
        let link = Link::open(&broker.url).await?;
        let counts = Cell::default();
        match role {
            Role::Load { sagas, pace } => {
                let loaded = load::load(&link, &names, *sagas, *pace, &mut orders).await?;
                tell(&Word::Loaded(loaded))?;
            }
            Role::NullOrchestrator => tokio::select! {
                never = null::orchestrate(&link, &names, broker, &counts) => match never? {},
                () = end_of(&mut orders) => tell(&Word::Counts(counts.get()))?,
            },
            Role::Participant { step } => tokio::select! {
                never = participant::serve(&link, &names, step, &counts) => match never? {},
                () = end_of(&mut orders) => tell(&Word::Counts(counts.get()))?,
            },
        }
        Ok(())
    })
}

/// Tells the process that started this one.
fn tell(word: &Word) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(word)?)?;
    out.flush()
}

/// The lines of the standard input, until it ends.
fn orders() -> UnboundedReceiver<String> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn end_of(orders: &mut UnboundedReceiver<String>) {
    while orders.recv().await.is_some() {}
}
