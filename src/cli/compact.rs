//! `sagamq compact`: gives the room back that the store does not need.

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::error::{CliError, Exit};
use super::output;
use crate::config::StoreConfig;
use crate::store::{self, Compacted, Store};

/// Compacts the store, which no other process may use, and prints how large it was and is.
///
/// # Errors
/// There is no store, it is in use or cannot be read, or there is no room for the copy.
pub fn compact(config: &StoreConfig) -> Result<Exit, CliError> {
    if !Store::is_in(&config.path) {
        return Err(CliError::NoStore { path: config.path.clone() });
    }
    // Hidden where there is no terminal.
    let progress = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {human_pos} keys copied, {elapsed}");
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let compacted = store::compact(config, |keys| progress.set_position(keys));
    progress.finish_and_clear();
    let Compacted { keys, left_out, before, after } = compacted?;
    let sizes = format!(
        "{} before ({before} bytes), {} after ({after} bytes)",
        HumanBytes(before),
        HumanBytes(after)
    );
    output::print(&format!("{keys} keys kept, {left_out} left out that belonged to nothing: {sizes}\n"))?;
    Ok(Exit::Fine)
}
