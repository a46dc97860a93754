//! `sagamq adopt`: gives the prefix at the broker to another store, on a person's word.

use std::sync::Arc;

use super::args::AdoptArgs;
use super::error::{CliError, Exit};
use super::output;
use crate::amqp::{Owner, owner};
use crate::config::Config;
use crate::health::Health;
use crate::store::Store;

/// Gives the prefix to the store in `store.path`, which is made if it is missing. Without `--yes`, tells what
/// that would do.
///
/// # Errors
/// It was not confirmed, the store or the broker cannot be used, or a process has the prefix.
pub fn adopt(args: &AdoptArgs, config: &Config) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (path, prefix) = (config.store.path.display(), &config.broker.prefix);
    if !args.yes {
        let owner = runtime.block_on(owner::owner_of(&config.broker))?;
        let belongs = owner.map_or("to no store".to_owned(), |owner| format!("to store {owner}"));
        let which = if Store::is_in(&config.store.path) { "the store in" } else { "a new store, made in" };
        return Err(CliError::Unconfirmed(format!(
            "nothing was done: broker.prefix {prefix:?} at {} belongs {belongs}, and `sagamq adopt --yes` would give it to \
             {which} {path}; instances of another store do not go on then, and replies to their commands are unknown",
            config.broker.shown_url()
        )));
    }
    let mut store = Store::open(&config.store)?;
    store.establish()?;
    let reader = store.reader();
    let owner = Owner::new(&config.broker, &reader, Arc::new(Health::default()))?;
    let before = runtime.block_on(owner.adopt(&config.broker))?;
    let before = before.map(|before| format!(", and no longer to store {before}")).unwrap_or_default();
    output::print(&format!(
        "broker.prefix {prefix:?} belongs to store {} in {path}{before}\n",
        reader.identity().id
    ))?;
    Ok(Exit::Fine)
}
