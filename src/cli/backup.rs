//! `sagamq backup`: copies the store to a new folder.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;

use super::args::BackupArgs;
use super::client::Client;
use super::error::{CliError, Exit};
use super::output::{self, plain};
use crate::config::StoreConfig;
use crate::http::backup::{BackupOrder, BackupView, FAILED, RUNNING};
use crate::store::{self, BackedUp, BackupPlace, Cancel, Store, StoreError};

/// How often a running orchestrator is asked how the backup stands.
const ASK: Duration = Duration::from_millis(100);
/// The route of the API.
const ROUTE: &str = "/api/v1/backup";

/// Who makes the backup.
#[derive(Clone, Debug)]
pub enum Whom {
    /// The orchestrator whose API is there.
    Orchestrator(Client),
    /// This process, of a store that no other one uses.
    Store(StoreConfig),
    /// The orchestrator, or this process where none answers.
    Either(Client, StoreConfig),
}

/// What is told of a backup.
struct Told {
    store: String,
    dir: PathBuf,
    instances: u64,
    bytes: u64,
    commit: u64,
    took_ms: u64,
}

/// Makes a backup, and tells what is in it and how to check it.
///
/// # Errors
/// The folder cannot be used, neither an orchestrator nor a store can be, or there is no room. No folder is left.
pub fn backup(args: &BackupArgs, whom: Whom) -> Result<Exit, CliError> {
    // The orchestrator has a working folder of its own.
    let dir = std::path::absolute(&args.dir)?;
    let told = match whom {
        Whom::Orchestrator(client) => ask(&client, &dir),
        Whom::Store(config) => copy(&config, &dir),
        Whom::Either(client, config) => match ask(&client, &dir) {
            Err(silent @ CliError::Unreachable { .. }) if Store::is_in(&config.path) => {
                match copy(&config, &dir) {
                    // There is one, and it is elsewhere.
                    Err(CliError::Store(StoreError::InUse { .. })) => Err(silent),
                    copied => copied,
                }
            }
            asked => asked,
        },
    }?;
    output::print(&if args.json { told.json() } else { told.text() })?;
    Ok(Exit::Fine)
}

/// Has a running orchestrator make it, and waits for the end.
fn ask(client: &Client, dir: &Path) -> Result<Told, CliError> {
    let mut view: BackupView = client.read(&client.post(ROUTE, &BackupOrder { dir: dir.to_owned() })?)?;
    let number = view.number;
    let progress = bar();
    let unheard = || CliError::BackupUnheard { url: client.address().to_owned(), dir: dir.to_owned() };
    while view.state == RUNNING {
        progress.set_position(view.copied);
        thread::sleep(ASK);
        view = match client.fetch(ROUTE, &[]) {
            Err(CliError::Unreachable { .. } | CliError::NotFound(_)) => return Err(unheard()),
            answer => client.read(&answer?)?,
        };
        if view.number != number {
            return Err(unheard());
        }
    }
    progress.finish_and_clear();
    let BackupView { state, store, dir, instances, bytes, commit, took_ms, error, .. } = view;
    match (state.as_str(), instances, bytes, commit, took_ms) {
        (FAILED, ..) => Err(CliError::NoBackup(error.unwrap_or(state))),
        (_, Some(instances), Some(bytes), Some(commit), Some(took_ms)) => {
            Ok(Told { store, dir, instances, bytes, commit, took_ms })
        }
        _ => Err(unheard()),
    }
}

/// Copies a store that no other process uses.
fn copy(config: &StoreConfig, dir: &Path) -> Result<Told, CliError> {
    if !Store::is_in(&config.path) {
        return Err(CliError::NoStore { path: config.path.clone() });
    }
    let reader = Store::open(config)?.reader();
    let place = BackupPlace::make(dir, &config.path)?;
    let progress = bar();
    let done = store::back_up(&reader, place, &Cancel::default(), |copied| progress.set_position(copied));
    progress.finish_and_clear();
    let BackedUp { path: dir, instances, bytes, commit, took } = done?;
    let store = reader.identity().id.to_string();
    Ok(Told { store, dir, instances, bytes, commit, took_ms: took.as_millis() as u64 })
}

/// Hidden where there is no terminal.
fn bar() -> ProgressBar {
    let progress = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {bytes} copied, {elapsed}");
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    progress
}

impl Told {
    fn json(&self) -> String {
        let Self { store, dir, instances, bytes, commit, took_ms } = self;
        let told = json!({
            "store": store, "dir": dir, "instances": instances, "bytes": bytes, "commit": commit, "took_ms": took_ms,
        });
        format!("{told}\n")
    }

    fn text(&self) -> String {
        let Self { store, dir, instances, bytes, commit, took_ms } = self;
        let (dir, size) = (plain(&dir.display().to_string()), HumanBytes(*bytes));
        let seconds = Duration::from_millis(*took_ms).as_secs_f64();
        format!(
            "backup of store {store} up to commit {commit}: {instances} instances, {size} ({bytes} bytes) \
             in {dir}, made in {seconds:.1} s\ncheck it: sagamq replay --store {}\n",
            quoted(&dir)
        )
    }
}

/// A path as a shell reads it.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+:@%,".contains(c);
    if path.chars().all(is_plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_checks_a_backup_can_be_pasted() {
        for (path, shown) in
            [("/backups/monday", "/backups/monday"), ("/b/it's $HOME", r"'/b/it'\''s $HOME'")]
        {
            assert_eq!(quoted(path), shown);
        }
    }
}
