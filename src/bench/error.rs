//! What keeps a bench from its end.

use std::io;
use std::path::PathBuf;

use crate::amqp::AmqpError;
use crate::catalog::CatalogError;
use crate::definitions::DefinitionsError;
use crate::engine::EngineError;
use crate::store::StoreError;
use crate::throwaway::NodeError;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No broker.
    #[error(transparent)]
    Broker(#[from] NodeError),
    /// The broker cannot be used.
    #[error(transparent)]
    Amqp(#[from] AmqpError),
    /// A store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A store is not one of the bench.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The engine cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The bench's own definition cannot be used, which only a bug can bring about.
    #[error(transparent)]
    Definition(#[from] DefinitionsError),
    /// A process did not start.
    #[error("cannot start the {name} of the bench: {source}")]
    Spawn {
        /// Which one.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A process ended by itself.
    #[error("the {name} of the bench ended by itself ({status}); the last it said was:\n{log}")]
    Ended {
        /// Which one.
        name: &'static str,
        /// Its exit status.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// A process does not do in time what it is there for.
    #[error("the {name} of the bench did not {what} within {secs} s; the last it said was:\n{log}")]
    Late {
        /// Which one.
        name: &'static str,
        /// What was waited for.
        what: &'static str,
        /// How long.
        secs: u64,
        /// The last lines of its log.
        log: String,
    },
    /// Sagas do not end any more.
    #[error(
        "no saga of the bench ended for {secs} s, {completed} of {sagas} had: look whether the broker blocks \
         publishers (memory, disk), or let fewer sagas run at a time by --in-flight"
    )]
    Stalled {
        /// How long.
        secs: u64,
        /// How many had ended.
        completed: u64,
        /// How many were to.
        sagas: u64,
    },
    /// A message had nowhere to go, or the broker did not take it.
    #[error(
        "the broker {verdict} a message of the bench to {exchange:?} with key {key:?}: look into its log"
    )]
    Undelivered {
        /// What it did.
        verdict: &'static str,
        /// Where the message was to go.
        exchange: String,
        /// With which key.
        key: String,
    },
    /// A message that is not of this bench.
    #[error(
        "queue {queue:?} of the bench has a message of somebody else ({reason}): use a broker for it alone"
    )]
    Foreign {
        /// Which queue.
        queue: String,
        /// What was odd.
        reason: &'static str,
    },
    /// A consumer was cancelled.
    #[error("the broker cancelled the consumer of queue {queue:?} of the bench: leave its queues alone")]
    Cancelled {
        /// Which queue.
        queue: String,
    },
    /// The system does not tell what a process used.
    #[error("cannot read from {path} what a process used ({reason}): the bench needs Linux")]
    Usage {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The orchestrator does not tell its metrics.
    #[error("cannot read the metrics of the orchestrator at {url}: {reason}")]
    Metrics {
        /// Where.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The orchestrator does not answer a question.
    #[error("the orchestrator of the bench does not answer at {url}: {reason}")]
    Api {
        /// Where.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A process says what was not asked for, which only a bug can bring about.
    #[error("the {name} of the bench said what nobody asked it")]
    Word {
        /// Which one.
        name: &'static str,
    },
    /// A file cannot be used.
    #[error("cannot use {path}: {source}; --folder, --json and --svg name other places")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something elementary fails.
    #[error("the bench cannot go on: {0}")]
    System(#[from] io::Error),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}
