//! The demo: a broker, the orchestrator and the sample services as real processes, orders of every fate,
//! and a check that each ended as it must.
//!
//! Tests run it too, with a process killed in the middle.

mod ledger;
mod orders;
mod screen;
mod stage;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::throwaway::NodeError;

pub use ledger::Balance;
pub use orders::Fate;
use screen::Screen;
use stage::Stage;

/// How often the orchestrator is asked how far the orders are.
const POLL: Duration = Duration::from_millis(200);
/// How long all orders may take in all: the slowest fate needs half a minute by design.
const PATIENCE: Duration = Duration::from_secs(150);

/// What to play.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many orders to place.
    pub orders: usize,
    /// What to break in the middle.
    pub fault: Fault,
    /// Folder of the definitions.
    pub definitions: PathBuf,
    /// The `sagamq` binary; the sample services are in `examples/` beside it.
    pub binary: PathBuf,
    /// Set from outside to end early.
    pub interrupted: Arc<AtomicBool>,
}

/// What to break while orders are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// SIGKILL the orchestrator, and start it again.
    Orchestrator,
    /// SIGKILL the broker, and start it again. Only with a throw-away broker.
    Broker,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What did not end as it must, in words; empty if all is well.
    pub surprises: Vec<String>,
    /// How many orders were under way when the fault was injected; `None` if none was.
    pub under_way_at_fault: Option<usize>,
}

/// Why the demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No broker.
    #[error(transparent)]
    Broker(#[from] NodeError),
    /// A program is not there.
    #[error("{0} is not built: run `make demo`, or `cargo build --bin sagamq --examples` first")]
    NotBuilt(PathBuf),
    /// A process did not start.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The orchestrator ended by itself.
    #[error("the orchestrator ended by itself ({status}); the last it said was:\n{log}")]
    Ended {
        /// Its exit status.
        status: String,
        /// The log's last lines.
        log: String,
    },
    /// The orchestrator does not get ready.
    #[error("the orchestrator was not ready within {} s; the last it said was:\n{log}", stage::READY_TIMEOUT.as_secs())]
    NotReady {
        /// The log's last lines.
        log: String,
    },
    /// An order could not be placed.
    #[error("the order service could not place an order: {0}")]
    NotPlaced(String),
    /// A fault was asked for that the broker cannot be given.
    #[error("only a throw-away broker can be killed, and SAGAMQ_BROKER__URL names another")]
    ForeignBroker,
    /// Files in the temporary folder.
    #[error("cannot use {path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Output.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Plays the demo. Whatever happens, every process that it started has ended when this returns.
///
/// # Errors
/// Something could not be started. That orders end otherwise than expected is no error but part of the
/// [`Outcome`].
pub fn play(options: &Options) -> Result<Outcome, DemoError> {
    stage::look(options)?;
    let screen = Screen::new();
    let begin = Instant::now();
    screen.say("starting a broker");
    let mut stage = Stage::set(options)?;
    screen.say(&format!(
        "broker is up ({}), starting the orchestrator and the sample services",
        stage.broker_name()
    ));
    stage.start_all()?;
    screen.say(&format!(
        "everything is up after {:.1} s, placing {} orders",
        begin.elapsed().as_secs_f64(),
        options.orders
    ));

    let started = Instant::now();
    let orders = orders::deal(options.orders, stage.run_id());
    if options.fault != Fault::None {
        // So that orders pile up in all stages before payment, instead of racing with the fault.
        stage.hold_payment();
    }
    stage.place(&orders)?;
    let mut under_way_at_fault = None;
    let mut explained = false;
    let mut statuses = stage.statuses().unwrap_or_default();
    while started.elapsed() < PATIENCE {
        check_interrupt(options)?;
        stage.check_alive()?;
        // While something is down the orchestrator does not answer; the last picture stays.
        if let Some(seen) = stage.statuses() {
            statuses = seen;
        }
        screen.draw(started.elapsed(), &orders, &statuses);
        let left: Vec<_> = orders.iter().filter(|order| !order.has_ended(&statuses)).collect();
        if under_way_at_fault.is_none() && options.fault != Fault::None && statuses.len() == orders.len() {
            under_way_at_fault = Some(left.len());
            screen.say(&format!("SIGKILL: {:?}, with {} orders under way", options.fault, left.len()));
            stage.inject(options.fault)?;
            stage.release_payment();
        }
        if !explained && !left.is_empty() && left.iter().all(|order| order.fate == Fate::Silent) {
            explained = true;
            screen.say("to the orders that are left, payment never answers: each attempt has to time out");
        }
        if left.is_empty() && stage.dead_letters() >= orders::POISON {
            break;
        }
        sleep(POLL);
    }
    let took = started.elapsed();
    let mut surprises = orders::surprises(&orders, &statuses);
    let dead = stage.dead_letters();
    // A kill between the commit and the rejection has the reason recorded twice.
    if dead < orders::POISON || (dead > orders::POISON && options.fault == Fault::None) {
        surprises.push(format!("{dead} dead letters instead of {}", orders::POISON));
    }
    stage.stop_all();
    let balance = Balance::read(stage.folder(), &orders)?;
    surprises.extend(balance.surprises());
    screen.finish(&orders, &statuses, &balance, took)?;
    for surprise in &surprises {
        screen.say(&format!("NOT AS EXPECTED: {surprise}"));
    }
    if !surprises.is_empty() {
        screen.say(&format!("logs and ledgers are kept in {}", stage.keep_folder().display()));
    }
    Ok(Outcome { surprises, under_way_at_fault })
}

fn check_interrupt(options: &Options) -> Result<(), DemoError> {
    if options.interrupted.load(Ordering::SeqCst) { Err(DemoError::Interrupted) } else { Ok(()) }
}
