//! `sagamq verify`: checks the evidence of a run.

use serde_json::json;

use super::args::VerifyArgs;
use super::error::{CliError, Exit};
use super::output;
use crate::checker::Folder;

/// Checks the evidence in a folder and prints the report.
///
/// # Errors
/// Something in the folder cannot be read; the output cannot be written.
pub fn verify(args: &VerifyArgs) -> Result<Exit, CliError> {
    let report = Folder::read(&args.folder)?.check();
    let text = if args.json {
        format!("{:#}\n", json!({"passed": report.passed(), "report": report}))
    } else {
        format!("{report}\n")
    };
    output::print(&text)?;
    Ok(if report.passed() { Exit::Fine } else { Exit::Failed })
}
