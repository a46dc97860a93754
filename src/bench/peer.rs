//! The processes beside sagamq: the null orchestrator, the participants, the load generator.
//!
//! They are no part of the orchestrator, so they speak AMQP for themselves. Each is this program again, with
//! a hidden subcommand; it tells what happens to it by [`Word`]s, one JSON object a line of its standard
//! output, and it ends when its standard input does. So it ends with the process that started it,
//! however that one ends.

mod load;
mod null;
mod participants;
mod relay;
mod watch;
mod wire;

use std::cell::Cell;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::BenchError;
use super::latency::Latency;
use super::names::Names;
use super::offline::{Offline, Opening, Until};
use crate::config::{BrokerConfig, Config, StoreConfig};
use wire::Link;

/// What the load generator is told once everybody is there.
pub(super) const GO: &str = "go";
/// How often is told how far it is.
const TELL: Duration = Duration::from_millis(200);

/// What a process of the bench is.
#[derive(Clone, Debug)]
pub enum Role {
    /// What sagamq is measured against.
    NullOrchestrator,
    /// Answers the commands of all steps.
    Participants,
    /// Starts sagas and awaits their ends.
    Load {
        /// How many.
        sagas: u64,
        /// Number of the first one.
        first: u64,
        /// How fast.
        pace: Pace,
    },
    /// Stands between an orchestrator and the broker.
    Watch {
        /// Where the broker listens.
        broker: String,
    },
    /// Fills the store without a broker.
    Fill {
        /// With how many sagas.
        sagas: u64,
        /// Number of the first one.
        first: u64,
        /// How far they get.
        until: Until,
    },
    /// Opens the store as sagamq does, and tells how long it took.
    Open,
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
    /// So many sagas have ended, of the load generator; or are in the store.
    Completed(u64),
    /// The watch can be connected to here.
    Listening(SocketAddr),
    /// How long sagas were with the orchestrator, as the watch saw it.
    Held(Latency),
    /// The store is filled.
    Filled,
    /// The store was opened.
    Opened(Opening),
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
/// The broker or the store cannot be used, or messages go astray.
pub fn act(role: &Role, prefix: &str, config: &Config) -> Result<(), BenchError> {
    match role {
        Role::Fill { sagas, first, until } => {
            fill(*first..first.saturating_add(*sagas), *until, prefix, &config.store)
        }
        Role::Open => {
            let (_, opening) = Offline::timed(&config.store, prefix)?;
            Ok(tell(&Word::Opened(opening))?)
        }
        Role::Watch { broker } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let held = runtime.block_on(watch::watch(broker, &mut orders()))?;
            Ok(tell(&Word::Held(held))?)
        }
        Role::NullOrchestrator | Role::Participants | Role::Load { .. } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(speak(role, &Names { prefix: prefix.to_owned() }, &config.broker))
        }
    }
}

/// Plays a role over the broker.
async fn speak(role: &Role, names: &Names, broker: &BrokerConfig) -> Result<(), BenchError> {
    let mut orders = orders();
    let link = Link::open(broker).await?;
    let counts = Cell::default();
    match role {
        Role::NullOrchestrator => tokio::select! {
            never = null::orchestrate(&link, names, broker, &counts) => match never? {},
            () = end_of(&mut orders) => tell(&Word::Counts(counts.get()))?,
        },
        Role::Participants => tokio::select! {
            never = participants::serve(&link, names, &counts) => match never? {},
            () = end_of(&mut orders) => tell(&Word::Counts(counts.get()))?,
        },
        Role::Load { sagas, first, pace } => {
            let loaded =
                load::load(&link, names, *first..first.saturating_add(*sagas), *pace, &mut orders).await?;
            tell(&Word::Loaded(loaded))?;
        }
        Role::Watch { .. } | Role::Fill { .. } | Role::Open => {}
    }
    Ok(())
}

fn fill(numbers: Range<u64>, until: Until, prefix: &str, store: &StoreConfig) -> Result<(), BenchError> {
    let mut orders = orders();
    let mut offline = Offline::open(store, prefix)?;
    let mut told = Instant::now();
    offline.run(numbers, until, |done| {
        if matches!(orders.try_recv(), Err(TryRecvError::Disconnected)) {
            return Err(BenchError::Interrupted);
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            tell(&Word::Completed(done))?;
        }
        Ok(())
    })?;
    drop(offline);
    Ok(tell(&Word::Filled)?)
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
