//! `sagamq topology`: what the broker must have.

use super::error::{CliError, Exit};
use super::output;
use crate::amqp::Topology;
use crate::config::Config;
use crate::definitions;

/// Prints queues, exchanges and bindings as a RabbitMQ definitions file: those of all versions in the
/// folder, since an instance of any may be under way.
///
/// # Errors
/// The definitions cannot be used.
pub fn topology(config: &Config) -> Result<Exit, CliError> {
    let loaded = definitions::load_folder(&config.definitions)?;
    let topology = Topology::of(&config.broker, loaded.iter().map(|loaded| &*loaded.plan));
    output::print(&format!("{:#}\n", topology.definitions()))?;
    Ok(Exit::Fine)
}
