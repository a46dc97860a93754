//! `sagamq retry`, `skip`, `resolve`, `compensate` and `cancel`: what people ask of instances.

use serde_json::Value;

use super::args::{OrderArgs, Resolution};
use super::client::Client;
use super::error::{CliError, Exit};
use super::list;
use super::output::{self, plain};
use super::show;
use crate::http::view::{PageView, Summary};
use crate::saga::order::{Order, Verb};

/// Instances that are asked for at a time.
const PAGE: &str = "500";

/// What is asked of each instance that is meant.
pub enum Asked<'a> {
    /// Send the command of the step once more.
    Retry {
        /// Name of the step.
        step: Option<&'a str>,
    },
    /// Go on without the step.
    Skip {
        /// Name of the step.
        step: Option<&'a str>,
        /// What it keeps, as JSON.
        output: Option<&'a Value>,
    },
    /// Say what became of the step.
    Resolve {
        /// Name of the step.
        step: Option<&'a str>,
        /// What became of it.
        to: Resolution,
        /// What it keeps, as JSON.
        output: Option<&'a Value>,
    },
    /// Undo what was done.
    Compensate,
    /// Undo what was done, as a cancelling event would.
    Cancel,
}

/// Gives an order to each instance that is meant, and tells a line of each.
///
/// # Errors
/// No orchestrator answers; an instance is not there, or not named clearly.
pub fn order(asked: &Asked<'_>, args: &OrderArgs, url: &str) -> Result<Exit, CliError> {
    let client = Client::new(url);
    let meant = meant(&client, args)?;
    if meant.is_empty() {
        output::print("no sagas\n")?;
        return Ok(Exit::Failed);
    }
    let order = asked.order(args);
    let mut exit = Exit::Fine;
    for item in &meant {
        let told = match client.post(&format!("/api/v1/sagas/{}/orders", item.id), &order) {
            Ok(answer) => {
                format!("{}, it is {}", order.verb.as_str(), client.read::<Summary>(&answer)?.status)
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

/// The instances that are named, or that the filters match.
fn meant(client: &Client, args: &OrderArgs) -> Result<Vec<Summary>, CliError> {
    if !args.all {
        let named = args.keys.iter().map(|key| show::details(client, key, args.filter.saga.as_deref()));
        return named.map(|details| Ok(details?.summary)).collect();
    }
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let mut parameters = list::filters(&args.filter);
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

impl Asked<'_> {
    fn order(&self, args: &OrderArgs) -> Order {
        let (verb, step, output) = match *self {
            Asked::Retry { step } => (Verb::Retry, step, None),
            Asked::Skip { step, output } => (Verb::Skip, step, output),
            Asked::Resolve { step, to: Resolution::Succeeded, output } => {
                (Verb::ResolveSucceeded, step, output)
            }
            Asked::Resolve { step, to: Resolution::Failed, .. } => (Verb::ResolveFailed, step, None),
            Asked::Compensate => (Verb::Compensate, None, None),
            Asked::Cancel => (Verb::Cancel, None, None),
        };
        Order {
            verb,
            step: step.map(str::to_owned),
            output: output.cloned().unwrap_or_default(),
            actor: args.actor.clone().unwrap_or_else(user),
            reason: args.reason.clone(),
        }
    }
}

/// Who runs this, as the system knows them.
fn user() -> String {
    let names = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    names.into_iter().find(|name| !name.trim().is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
