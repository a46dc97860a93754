//! `sagamq replay`: proves that every record is the fold of its history.

use indicatif::{ProgressBar, ProgressStyle};

use super::error::{CliError, Exit};
use super::output;
use crate::config::StoreConfig;
use crate::saga::fact::HistoryEntry;
use crate::saga::instance::Instance;
use crate::store::{Reader, Store, StoreError};

/// Replays every history of the store, which no other process may use, and prints what differs.
///
/// # Errors
/// There is no store, it is in use, or it cannot be read.
pub fn replay(config: &StoreConfig) -> Result<Exit, CliError> {
    if !Store::is_in(&config.path) {
        return Err(CliError::NoStore { path: config.path.clone() });
    }
    let store = Store::open(config)?;
    let Replayed { instances, entries, differences } = replay_all(&store.reader())?;
    let mut text = format!("{instances} instances, {entries} entries: ");
    if differences.is_empty() {
        text.push_str("every record is the fold of its history\n");
    } else {
        text.push_str(&format!("{} records are not the fold of their history\n", differences.len()));
        differences.iter().for_each(|difference| text.push_str(&format!("{difference}\n")));
    }
    output::print(&text)?;
    Ok(if differences.is_empty() { Exit::Fine } else { Exit::Failed })
}

/// What a replay came to.
struct Replayed {
    instances: u64,
    entries: u64,
    differences: Vec<String>,
}

fn replay_all(reader: &Reader) -> Result<Replayed, StoreError> {
    let mut replayed = Replayed { instances: 0, entries: 0, differences: Vec::new() };
    // Hidden where there is no terminal.
    let progress = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {human_pos} instances replayed, {elapsed}");
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    for instance in reader.instances() {
        let instance = instance?;
        let history = reader.history(instance.id)?;
        replayed.instances += 1;
        replayed.entries += history.len() as u64;
        replayed.differences.extend(difference(&instance, &history));
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(replayed)
}

/// How a record differs from the fold of its history.
fn difference(record: &Instance, history: &[HistoryEntry]) -> Option<String> {
    let Instance { id, status, revision, .. } = record;
    match Instance::replay(*id, history) {
        Some(fold) if fold == *record => None,
        Some(fold) => Some(format!(
            "instance {id}: the record says {status} at revision {revision}, the history {} at revision {}",
            fold.status, fold.revision
        )),
        None => {
            Some(format!("instance {id}: the record says {status}, and the history begins with no start"))
        }
    }
}
