//! `sagamq retry`, `skip`, `resolve`, `correct`, `compensate` and `cancel`: what people ask of instances.

use std::fs;

use serde_json::Value;

use super::args::{FilterArgs, OrderArgs};
use super::client::Client;
use super::error::{CliError, Exit};
use super::list;
use super::output::{self, plain};
use super::show;
use crate::http::view::{PageView, Summary};
use crate::saga::order::{Order, Verb};

/// Instances that are asked for at a time.
const PAGE: &str = "500";

/// Where the system lists its users.
const USERS: &str = "/etc/passwd";

/// Gives an order to each instance that is meant, and tells a line of each.
///
/// # Errors
/// No orchestrator answers; an instance is not there, or not named clearly.
pub fn give(
    verb: Verb,
    step: Option<String>,
    output: Option<Value>,
    args: &OrderArgs,
    client: &Client,
) -> Result<Exit, CliError> {
    let meant = meant(client, args)?;
    if meant.is_empty() {
        output::print("no sagas\n")?;
        return Ok(Exit::Failed);
    }
    let (actor, reason) = (args.actor.clone().unwrap_or_else(user), args.reason.clone());
    let order = Order { verb, step, output: output.unwrap_or_default(), actor, reason };
    let mut exit = Exit::Fine;
    for item in &meant {
        let told = match client.post(&format!("/api/v1/sagas/{}/orders", item.id), &order) {
            Ok(answer) => {
                format!("{}, it is {}", verb.as_str(), client.read::<Summary>(&answer)?.status)
            }
            Err(CliError::Refused(reason)) => {
                exit = Exit::Failed;
                format!("refused: {}", plain(&reason))
            }
            Err(error) => return Err(error),
        };
        output::print(&format!("{} {}: {told}\n", plain(&item.saga), plain(&item.business_key)))?;
    }
    Ok(exit)
}

/// The instances that are named, or that the filters match. All of them without a filter would be every instance
/// there is, which nobody means.
fn meant(client: &Client, args: &OrderArgs) -> Result<Vec<Summary>, CliError> {
    if !args.all {
        if !list::filters(&FilterArgs { saga: None, ..args.filter.clone() }).is_empty() {
            return Err(CliError::FilterWithoutAll);
        }
        let named = args.keys.iter().map(|key| show::details(client, key, args.filter.saga.as_deref()));
        return named.map(|details| Ok(details?.summary)).collect();
    }
    let filters = list::filters(&args.filter);
    // One without a value, such as a variable of a script that was not set, filters nothing.
    if filters.iter().all(|(_, value)| value.is_empty()) {
        return Err(CliError::AllWithoutFilter);
    }
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let mut parameters = filters.clone();
        parameters.push(("limit", PAGE.to_owned()));
        parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
        let pairs: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let page: PageView<Summary> = client.read(&client.fetch("/api/v1/sagas", &pairs)?)?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

/// Who runs this, as the system knows them. Cron, systemd and containers set no variables, and a container
/// may have a user without a name.
fn user() -> String {
    let said = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    said.into_iter().find(|name| !name.trim().is_empty()).unwrap_or_else(|| {
        let uid = rustix::process::getuid().as_raw();
        let users = fs::read(USERS).unwrap_or_default();
        name_of(uid, &String::from_utf8_lossy(&users)).unwrap_or_else(|| format!("uid {uid}"))
    })
}

/// The name of a user, where the system's list of users has it.
fn name_of(uid: u32, users: &str) -> Option<String> {
    let is_meant = |line: &&str| line.split(':').nth(2).and_then(|id| id.parse().ok()) == Some(uid);
    let (name, _) = users.lines().find(is_meant)?.split_once(':')?;
    (!name.trim().is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_the_list_of_the_system() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\n# nobody\n:x:7::\nann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n";
        assert_eq!(name_of(0, users).as_deref(), Some("root"));
        assert_eq!(name_of(1000, users).as_deref(), Some("ann"));
        assert_eq!([name_of(7, users), name_of(1001, users), name_of(0, "")], [None, None, None]);
    }
}
