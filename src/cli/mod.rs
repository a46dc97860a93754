//! The command line: [`args`] says what can be typed, and each subcommand has a file of its own.
//!
//! What acts on a running orchestrator goes through its HTTP API, by [`client`]. Every subcommand
//! returns an [`Exit`], or a [`CliError`] that knows its exit code.

pub mod adopt;
pub mod args;
pub mod asyncapi;
pub mod backup;
pub mod bench;
pub mod check;
pub mod client;
pub mod compact;
pub mod dead_letters;
pub mod demo;
mod error;
pub mod explain;
pub mod graph;
mod interrupt;
mod issuers;
pub mod list;
pub mod orders;
pub mod output;
pub mod process;
pub mod ready;
pub mod reload;
pub mod replay;
pub mod run;
pub mod schema;
pub mod show;
pub mod test;
pub mod topology;
pub mod verify;
pub mod versions;

pub use error::{CliError, Exit};
