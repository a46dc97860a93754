//! `sagamq topology`: what the broker must have.

use super::error::{CliError, Exit};
use super::output;
use crate::amqp::Topology;
use crate::catalog::Catalog;
use crate::config::{BrokerConfig, Config};
use crate::definitions;

/// Prints queues, exchanges and bindings as a RabbitMQ definitions file.
///
/// # Errors
/// The definitions cannot be used.
pub fn topology(config: &Config) -> Result<Exit, CliError> {
    let catalog = Catalog::of(definitions::load_folder(&config.definitions)?);
    let definitions = topology_of(&config.broker, &catalog).definitions();
    output::print(&format!("{definitions:#}\n"))?;
    Ok(Exit::Fine)
}

/// What the definitions of a catalog need.
pub(super) fn topology_of(config: &BrokerConfig, catalog: &Catalog) -> Topology {
    Topology {
        prefix: config.prefix.clone(),
        queue_type: config.queue_type,
        mode: config.topology,
        exchanges: catalog.exchanges(),
        subscriptions: catalog.subscriptions(),
    }
}
