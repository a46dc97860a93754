//! `sagamq explain`: definitions in plain English.

use std::path::PathBuf;

use super::error::{CliError, Exit};
use super::output;
use crate::definitions;
use crate::depict::english;

/// Prints what every definition under the paths does.
///
/// # Errors
/// One of the definitions has a problem, or there is none.
pub fn explain(paths: &[PathBuf]) -> Result<Exit, CliError> {
    let loaded = definitions::load_alone(paths)?;
    let explained: Vec<_> = loaded.iter().map(|loaded| english::explanation(&loaded.plan)).collect();
    output::print(&explained.join("\n"))?;
    Ok(Exit::Fine)
}
