//! Arguments of `asyncapi`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Arguments of `asyncapi`.
#[derive(Debug, Args)]
pub struct AsyncApiArgs {
    /// Files or folders of definitions [default: the setting `definitions`]
    pub paths: Vec<PathBuf>,
    /// Only what is exchanged with the participant at this exchange
    #[arg(long, value_name = "EXCHANGE")]
    pub participant: Option<String>,
    /// What to write
    #[arg(long, value_enum, default_value_t = AsyncApiFormat::Json)]
    pub format: AsyncApiFormat,
}

/// A way to write an AsyncAPI document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AsyncApiFormat {
    /// JSON
    Json,
    /// YAML
    Yaml,
}
