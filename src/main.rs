//! The command line's entry: arguments, settings, and the exit code.

use std::process::ExitCode;

use clap::Parser;
use sagamq::cli::args::{Cli, Command};
use sagamq::cli::{
    CliError, Exit, check, client, dead_letters, demo, list, ready, run, schema, show, topology,
};
use sagamq::config::Config;
use sagamq::telemetry;

fn main() -> ExitCode {
    let exit = dispatch(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        error.exit()
    });
    exit.into()
}

fn dispatch(cli: Cli) -> Result<Exit, CliError> {
    let Cli { config: file, url, command } = cli;
    let load = |flags| Config::load(file.as_deref(), std::env::vars_os(), flags);
    let api = || {
        Ok::<_, CliError>(match url.clone() {
            Some(url) => url,
            None => client::default_url(load(Vec::new())?.http.bind),
        })
    };
    match command {
        Command::Run(args) => {
            let config = load(args.into_overrides())?;
            telemetry::init(&config.log)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run::run(config))
        }
        Command::Check(args) if !args.paths.is_empty() => check::check(&args.paths),
        Command::Check(_) => check::check(&[load(Vec::new())?.definitions]),
        Command::List(args) => list::list(&args, &api()?),
        Command::Show(args) => show::show(&args, &api()?),
        Command::DeadLetters(args) => dead_letters::dead_letters(&args, &api()?),
        Command::Topology => topology::topology(&load(Vec::new())?),
        Command::Schema => schema::schema(),
        Command::Ready => ready::ready(&api()?),
        Command::Demo(args) => demo::demo(&args, &load(Vec::new())?),
    }
}
