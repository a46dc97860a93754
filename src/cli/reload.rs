//! `sagamq reload`: what the folder of definitions holds comes into force.

use super::args::ReloadArgs;
use super::client::Client;
use super::error::{CliError, Exit};
use super::output::{self, plain};
use crate::catalog::Change;

/// Has a running orchestrator read its folder anew, and tells a line of each saga.
///
/// # Errors
/// No orchestrator answers, or the definitions cannot come into force: then nothing has changed.
pub fn reload(args: &ReloadArgs, client: &Client) -> Result<Exit, CliError> {
    let answer = client.post_nothing("/api/v1/definitions/reload").map_err(|error| match error {
        CliError::Refused(problems) => CliError::NotReloaded(problems),
        error => error,
    })?;
    let told = if args.json {
        answer.text + "\n"
    } else {
        let change: Change = client.read(&answer)?;
        change.sagas.iter().map(|saga| plain(&saga.to_string()) + "\n").collect()
    };
    output::print(&told)?;
    Ok(Exit::Fine)
}
