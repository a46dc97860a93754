//! The command line's entry: arguments, settings, and the exit code.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sagamq::cli::args::{Cli, Command, ResolveArgs};
use sagamq::cli::client::Client;
use sagamq::cli::{
    CliError, Exit, adopt, asyncapi, backup, bench, check, client, compact, dead_letters, demo, explain,
    graph, list, orders, output, process, ready, reload, replay, run, schema, show, test, topology, verify,
    versions,
};
use sagamq::config::Config;
use sagamq::fault;
use sagamq::saga::order::Verb;
use sagamq::telemetry;

/// Small things live for a moment and often die on another thread, which it is far better at than glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    fault::from_environment();
    let exit = dispatch(Cli::parse()).unwrap_or_else(|error| {
        // A reader that has gone away must not end in a panic, and the exit code still tells.
        let _ = writeln!(std::io::stderr(), "error: {}", output::plain_lines(&error.to_string()));
        error.exit()
    });
    exit.into()
}

fn dispatch(cli: Cli) -> Result<Exit, CliError> {
    let Cli { config: file, url, ca, command } = cli;
    if (url.is_some() || ca.is_some()) && !command.asks_orchestrator() {
        return Err(CliError::UnusedAddress);
    }
    let load = |flags| Config::load(file.as_deref(), std::env::vars_os(), flags);
    let near = |config: &Config| Client::new(&client::default_url(config.http.bind), ca.as_deref());
    let named = |url: &str| Client::new(url, client::issuers_of(url, ca.clone()).as_deref());
    let api = || match &url {
        Some(url) => named(url),
        None => near(&load(Vec::new())?),
    };
    let definitions = |paths: Vec<PathBuf>| {
        Ok::<_, CliError>(if paths.is_empty() { vec![load(Vec::new())?.definitions] } else { paths })
    };
    match command {
        Command::Run(args) => {
            // First of all: settings may come from a pipe, which can be read only once.
            process::check_limits()?;
            process::with_deep_stacks();
            let config = load(args.into_overrides())?;
            telemetry::init(&config.log)?;
            run::run(config)
        }
        Command::Check(mut args) => {
            args.paths = definitions(args.paths)?;
            check::check(&args)
        }
        Command::Test(mut args) => {
            args.paths = definitions(args.paths)?;
            test::test(&args)
        }
        Command::Graph(args) => graph::graph(&definitions(args.paths)?, args.format),
        Command::Explain(args) => explain::explain(&definitions(args.paths)?),
        Command::AsyncApi(mut args) => {
            args.paths = definitions(args.paths)?;
            asyncapi::asyncapi(&args)
        }
        Command::List(args) => list::list(&args, &api()?),
        Command::Show(args) => show::show(&args, &api()?),
        Command::Retry(args) => orders::give(Verb::Retry, args.step, None, &args.order, &api()?),
        Command::Skip(args) => orders::give(Verb::Skip, args.step, args.output, &args.order, &api()?),
        Command::Resolve(ResolveArgs { to, settle }) => {
            orders::give(to.verb(), settle.step, settle.output, &settle.order, &api()?)
        }
        Command::Correct(args) => {
            orders::give(Verb::Correct, Some(args.step), Some(args.output), &args.order, &api()?)
        }
        Command::Compensate(args) => orders::give(Verb::Compensate, None, None, &args, &api()?),
        Command::Cancel(args) => orders::give(Verb::Cancel, None, None, &args, &api()?),
        Command::DeadLetters(args) => dead_letters::dead_letters(&args, &api()?),
        Command::Reload(args) => reload::reload(&args, &api()?),
        Command::Versions(args) => versions::versions(&args, &api()?),
        Command::Verify(args) => verify::verify(&args),
        Command::Replay(args) => replay::replay(&load(args.into_overrides())?.store),
        Command::Backup(mut args) => {
            let overrides = std::mem::take(&mut args.store).into_overrides();
            let whom = match (url, overrides.is_empty()) {
                (Some(_), false) => return Err(CliError::StoreAndAddress),
                (Some(url), true) => backup::Whom::Orchestrator(named(&url)?),
                (None, false) => backup::Whom::Store(load(overrides)?.store),
                (None, true) => {
                    let config = load(overrides)?;
                    backup::Whom::Either(near(&config)?, config.store)
                }
            };
            backup::backup(&args, whom)
        }
        Command::Compact(args) => compact::compact(&load(args.into_overrides())?.store),
        Command::Adopt(mut args) => {
            let overrides = std::mem::take(&mut args.store).into_overrides();
            adopt::adopt(&args, &load(overrides)?)
        }
        Command::Topology => topology::topology(&load(Vec::new())?),
        Command::Schema(args) => schema::schema(&args),
        Command::Ready => ready::ready(&api()?),
        Command::Demo(args) => demo::demo(&args, &load(Vec::new())?),
        Command::Bench(args) => bench::bench(args, load(Vec::new())?, file.as_deref()),
    }
}
