//! What can be typed to ask something of instances.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::FilterArgs;
use crate::saga::order::Verb;

/// Arguments of every order to instances.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Ids or business keys
    #[arg(value_name = "ID or BUSINESS_KEY", required_unless_present = "all", conflicts_with = "all")]
    pub keys: Vec<String>,
    /// All instances that the filters match; there must be at least one filter
    #[arg(long)]
    pub all: bool,
    /// Why: it is kept in the history
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who asks, which is kept as well [default: the user of the system]
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Which instances.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// Arguments of `retry`.
#[derive(Debug, Args)]
pub struct RetryArgs {
    /// Which step, if not the one that the instance is parked for
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,
    /// Of which instances.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Arguments of `skip`, and of `resolve`.
#[derive(Debug, Args)]
pub struct SettleArgs {
    /// Which step, if not the one that the instance is parked for
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,
    /// What the step is to keep, as JSON
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub output: Option<Value>,
    /// Of which instances.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Arguments of `correct`.
#[derive(Debug, Args)]
pub struct CorrectArgs {
    /// Which step
    #[arg(long, value_name = "NAME")]
    pub step: String,
    /// What the step is to keep, as JSON
    #[arg(long, value_name = "JSON", value_parser = json)]
    pub output: Value,
    /// Of which instances.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Arguments of `resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// What became of the step
    #[arg(long, value_enum)]
    pub to: Resolution,
    /// Which step, and what it keeps.
    #[command(flatten)]
    pub settle: SettleArgs,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Resolution {
    /// It is done.
    Succeeded,
    /// It has had no effect.
    Failed,
}

impl Resolution {
    /// What is asked by it.
    pub fn verb(self) -> Verb {
        match self {
            Resolution::Succeeded => Verb::ResolveSucceeded,
            Resolution::Failed => Verb::ResolveFailed,
        }
    }
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}
