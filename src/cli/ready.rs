//! `sagamq ready`: whether the orchestrator works, by the exit code.

use super::client::Client;
use super::error::{CliError, Exit};
use super::output;
use crate::http::view::Readiness;

/// Asks `/readyz`, and prints what is in the way.
///
/// # Errors
/// No orchestrator answers.
pub fn ready(client: &Client) -> Result<Exit, CliError> {
    let (exit, text) = ask(client)?;
    output::print(&text)?;
    Ok(exit)
}

pub(crate) fn ask(client: &Client) -> Result<(Exit, String), CliError> {
    let readiness: Readiness = client.read(&client.get("/readyz", &[])?)?;
    if readiness.ready {
        return Ok((Exit::Fine, "ready\n".to_owned()));
    }
    Ok((Exit::Failed, format!("not ready: {}\n", readiness.obstacles.join(", "))))
}
