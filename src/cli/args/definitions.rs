//! What can be typed about the definitions of a running orchestrator.

use clap::Args;

/// Arguments of `reload`.
#[derive(Debug, Default, Args)]
pub struct ReloadArgs {
    /// Print the API's answer
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `versions`.
#[derive(Debug, Default, Args)]
pub struct VersionsArgs {
    /// Also those that have neither a file nor an instance that is under way or parked
    #[arg(long)]
    pub all: bool,
    /// Print the API's answer
    #[arg(long)]
    pub json: bool,
}
