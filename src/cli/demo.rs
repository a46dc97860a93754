//! `sagamq demo`: everything at work, on a throw-away broker.

use super::args::{DemoArgs, DemoFault};
use super::error::{CliError, Exit};
use super::interrupt;
use crate::config::Config;
use crate::demo::{self, Fault, Options};

/// Plays the demo; see [`demo::play`].
///
/// # Errors
/// It could not be played to its end.
pub fn demo(args: &DemoArgs, config: &Config) -> Result<Exit, CliError> {
    let interrupted = interrupt::watch()?;
    let fault = match args.fault {
        DemoFault::None => Fault::None,
        DemoFault::Orchestrator => Fault::Orchestrator,
        DemoFault::Broker => Fault::Broker,
    };
    let options = Options {
        orders: args.orders as usize,
        fault,
        definitions: config.definitions.clone(),
        binary: std::env::current_exe()?,
        interrupted,
    };
    let outcome = demo::play(&options)?;
    Ok(if outcome.surprises.is_empty() { Exit::Fine } else { Exit::Failed })
}
