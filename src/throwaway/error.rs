//! What goes wrong with throw-away brokers.

use std::io;
use std::path::PathBuf;

use super::START_TIMEOUT;
use super::ports::PORTS;

/// Why there is no throw-away broker.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// RabbitMQ is not installed.
    #[error(
        "{0} was found neither in PATH nor in the usual folders: install RabbitMQ (scripts/setup does), or set SAGAMQ_BROKER__URL to a running broker"
    )]
    NotFound(&'static str),
    /// The root of another system cannot be used.
    #[error("cannot run RabbitMQ from {}: {reason}; scripts/brokers sets up such a root, and to enter it takes root and the right to mount", root.display())]
    Root {
        /// The root.
        root: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// No ports are left.
    #[error("too few free ports between {} and {} on 127.0.0.1", PORTS.start, PORTS.end)]
    NoPorts,
    /// The temporary folder could not be made or written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program did not start.
    #[error("cannot run {program}: {source}", program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name server did not start.
    #[error("epmd does not listen on port {port} of 127.0.0.1: see what else does, and try again")]
    Epmd {
        /// The port.
        port: u16,
    },
    /// The node ended while it was starting.
    #[error("rabbitmq-server ended while it was starting, the last it said was:\n{log}")]
    Ended {
        /// The log's last lines.
        log: String,
    },
    /// The node runs but does not answer.
    #[error("rabbitmq-server did not answer within {} s, the last it said was:\n{log}", START_TIMEOUT.as_secs())]
    NotReady {
        /// The log's last lines.
        log: String,
    },
    /// A cluster has no such node, or it does not run.
    #[error("the cluster's node {index} does not run, or is not one of its {size}: start it first")]
    NoSuchNode {
        /// The node that was asked for, from 0.
        index: usize,
        /// How many there are.
        size: usize,
    },
    /// A command failed.
    #[error("{command} failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it printed.
        output: String,
    },
}
