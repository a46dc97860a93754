//! How a subcommand ends.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use thiserror::Error;

use super::process::LimitError;
use crate::amqp::AmqpError;
use crate::bench::BenchError;
use crate::catalog::CatalogError;
use crate::checker::FolderError;
use crate::config::ConfigError;
use crate::definitions::DefinitionsError;
use crate::demo::DemoError;
use crate::engine::EngineError;
use crate::http::BindError;
use crate::runtime::RuntimeError;
use crate::simulate::ProcessError;
use crate::store::{BackupError, StoreError};
use crate::telemetry::TelemetryError;

/// How a subcommand ends, as scripts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// A check failed, or what was looked for is not there.
    Failed = 1,
    /// What was typed or set cannot be used.
    Usage = 2,
    /// The broker, the store or the network failed.
    Environment = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a subcommand could not do what was asked.
#[derive(Debug, Error)]
pub enum CliError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing listens at the API's address.
    #[error(
        "no orchestrator answers at {url}: is `sagamq run` running? if it runs elsewhere, name it by --url or \
         http.bind ({reason})"
    )]
    Unreachable {
        /// Address of the API.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// What answers is no orchestrator.
    #[error("what answers at {url} is not an orchestrator of this version: {reason}")]
    Foreign {
        /// Address of the API.
        url: String,
        /// What was odd.
        reason: String,
    },
    /// The address of the API cannot be one.
    #[error(
        "{url} cannot be the address of the API ({reason}), it must be like http://127.0.0.1:7654 or \
         https://sagas.example.com"
    )]
    Address {
        /// What was given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Issuers are named where nothing is encrypted.
    #[error(
        "--ca names a file of issuers, but {url} begins with http://, so nothing would be encrypted; name an address \
         that begins with https:// by --url, or leave --ca out"
    )]
    UnusedIssuers {
        /// Address of the API.
        url: String,
    },
    /// The file of issuers is of no use.
    #[error("cannot use the file of --ca or SAGAMQ_CA, {}: {problem}", path.display())]
    Issuers {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// This machine trusts nobody.
    #[error(
        "this system has no certificates of issuers to trust ({reason}); install them (package ca-certificates), or name \
         a file by --ca or SAGAMQ_CA"
    )]
    NoIssuers {
        /// In the system's words.
        reason: String,
    },
    /// The certificate of what answers is not believed.
    #[error(
        "{url} is not believed to be the one that is meant: {reason}; --ca or SAGAMQ_CA names the file of the issuer of \
         its certificate, where that is none of the system's"
    )]
    Untrusted {
        /// Address of the API.
        url: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// TLS to a port without.
    #[error("{url} does not speak TLS: name its port with TLS, or begin the address with http://")]
    WithoutTls {
        /// Address of the API.
        url: String,
    },
    /// An address of the API where none is asked.
    #[error(
        "--url names a running orchestrator, and --ca whom to believe that it is the one, for list, show, orders, dead-letters, versions, reload, backup and ready; `run` is told its broker by \
         --broker-url or SAGAMQ_BROKER__URL"
    )]
    UnusedAddress,
    /// Two stores are named.
    #[error(
        "--url asks a running orchestrator for a backup of its store, --store names one that nobody uses: give one of them"
    )]
    StoreAndAddress,
    /// Filters beside names.
    #[error(
        "filters choose among all instances: name instances, or give --all with filters (--saga goes with both)"
    )]
    FilterWithoutAll,
    /// All instances of all sagas.
    #[error(
        "--all without a filter would be every instance of every saga: choose by --saga, --status, \
         --business-key, --attribute, --after or --before, such as --status parked"
    )]
    AllWithoutFilter,
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// Several are meant.
    #[error("sagas {} all have business key {key:?}: choose one by --saga", sagas.join(", "))]
    Ambiguous {
        /// The business key.
        key: String,
        /// Names of the sagas.
        sagas: Vec<String>,
    },
    /// The orchestrator refuses the request.
    #[error("{0}")]
    Refused(String),
    /// What changes something for good was not confirmed.
    #[error("{0}")]
    Unconfirmed(String),
    /// Definitions do not come into force.
    #[error("{0}")]
    NotReloaded(String),
    /// The orchestrator failed at the request.
    #[error("the orchestrator at {url} failed: {message}")]
    Failed {
        /// Address of the API.
        url: String,
        /// What it said.
        message: String,
    },
    /// Definitions cannot be used.
    #[error(transparent)]
    Definitions(#[from] DefinitionsError),
    /// Definitions cannot be taken into force.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Logging cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The API's address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The orchestrator could not make a backup, as it says.
    #[error("{0}")]
    NoBackup(String),
    /// The orchestrator that made a backup is gone.
    #[error(
        "the orchestrator at {url} ended, or another one answers there, before backup {dir} was whole: look whether the \
         folder is there, which it is only once the backup is whole"
    )]
    BackupUnheard {
        /// Address of the API.
        url: String,
        /// The folder that was named.
        dir: PathBuf,
    },
    /// There is no store where one is expected.
    #[error("there is no store in {path}: name its folder by --store or store.path")]
    NoStore {
        /// The folder.
        path: PathBuf,
    },
    /// Evidence cannot be read.
    #[error(transparent)]
    Evidence(#[from] FolderError),
    /// Instances cannot be taken up.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The broker cannot be used.
    #[error(transparent)]
    Amqp(#[from] AmqpError),
    /// The orchestrator had to stop.
    #[error("stopped, and nothing that was acked or sent is lost: {0}")]
    Runtime(#[from] RuntimeError),
    /// A saga could not be played.
    #[error("the orchestrator failed in a trial, which is a bug: {0}")]
    Trial(#[from] ProcessError),
    /// The demo could not be played.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// Nothing could be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The system gives the process too little.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The output cannot be written, or the system refuses something elementary.
    #[error("cannot go on: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// Whether the disk of the store is full, which may change by itself.
    pub fn is_full_disk(&self) -> bool {
        match self {
            CliError::Store(error) | CliError::Catalog(CatalogError::Store(error)) => error.is_full(),
            CliError::Engine(error) => error.is_full(),
            CliError::Runtime(error) => error.is_full(),
            _ => false,
        }
    }

    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            CliError::NotFound(_)
            | CliError::Ambiguous { .. }
            | CliError::NotReloaded(_)
            | CliError::Definitions(_)
            | CliError::Trial(_)
            | CliError::Catalog(CatalogError::Changed(_)) => Exit::Failed,
            CliError::Config(_)
            | CliError::Telemetry(_)
            | CliError::Address { .. }
            | CliError::UnusedIssuers { .. }
            | CliError::Issuers { .. }
            | CliError::WithoutTls { .. }
            | CliError::UnusedAddress
            | CliError::StoreAndAddress
            | CliError::Backup(BackupError::Place { .. })
            | CliError::FilterWithoutAll
            | CliError::AllWithoutFilter
            | CliError::Unconfirmed(_)
            | CliError::Refused(_) => Exit::Usage,
            CliError::Unreachable { .. }
            | CliError::Foreign { .. }
            | CliError::NoIssuers { .. }
            | CliError::Untrusted { .. }
            | CliError::Failed { .. }
            | CliError::Catalog(_)
            | CliError::Bind(_)
            | CliError::Store(_)
            | CliError::Backup(_)
            | CliError::NoBackup(_)
            | CliError::BackupUnheard { .. }
            | CliError::NoStore { .. }
            | CliError::Evidence(_)
            | CliError::Engine(_)
            | CliError::Amqp(_)
            | CliError::Runtime(_)
            | CliError::Demo(_)
            | CliError::Bench(_)
            | CliError::Limit(_)
            | CliError::Output(_) => Exit::Environment,
        }
    }
}
