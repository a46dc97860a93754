//! `sagamq demo`: everything at work, on a throw-away broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::args::{DemoArgs, DemoFault};
use super::error::{CliError, Exit};
use crate::config::Config;
use crate::demo::{self, Fault, Options};

/// Plays the demo; see [`demo::play`].
///
/// # Errors
/// It could not be played to its end.
pub fn demo(args: &DemoArgs, config: &Config) -> Result<Exit, CliError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    watch_signals(Arc::clone(&interrupted))?;
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

/// Sets the flag at the first SIGINT or SIGTERM.
fn watch_signals(flag: Arc<AtomicBool>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            flag.store(true, Ordering::SeqCst);
        });
    });
    Ok(())
}
