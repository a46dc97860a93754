//! What can be typed.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::asyncapi::{AsyncApiArgs, AsyncApiFormat};
pub use self::definitions::{ReloadArgs, VersionsArgs};
pub use self::orders::{CorrectArgs, OrderArgs, ResolveArgs, RetryArgs, SettleArgs};
use crate::config::{Override, Secret};
use crate::saga::instance::Status;

mod asyncapi;
mod definitions;
mod orders;

/// A saga orchestrator that runs beside RabbitMQ.
#[derive(Debug, Parser)]
#[command(name = "sagamq", version, about, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 fine, 1 a check failed or nothing was found, 2 wrong usage, \
                        3 the environment (broker, store, network).")]
pub struct Cli {
    /// Settings file [default: sagamq.yaml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the orchestrator's HTTP API [default: http://<http.bind>]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// File with the issuers of the certificate at an https:// address, in PEM [env: SAGAMQ_CA] [default: those of
    /// the system]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the orchestrator
    Run(RunArgs),
    /// Check definitions, without a broker
    Check(CheckArgs),
    /// Try definitions on every path and in your own scenarios, in virtual time and without a broker
    Test(TestArgs),
    /// Draw definitions: steps, what undoes them, and the ends
    Graph(GraphArgs),
    /// Tell in plain English what definitions do
    Explain(ExplainArgs),
    /// Write the messages of definitions as an AsyncAPI document, for those who exchange them
    #[command(name = "asyncapi")]
    AsyncApi(AsyncApiArgs),
    /// List instances
    List(ListArgs),
    /// Show one instance: its steps, what is to come, and its history
    Show(ShowArgs),
    /// Send the command of a step once more, now; or take a parked instance on
    Retry(RetryArgs),
    /// Have an instance go on without a step
    Skip(SettleArgs),
    /// Say what became of a step that nobody answers for
    Resolve(ResolveArgs),
    /// Change what a step of a parked instance keeps
    Correct(CorrectArgs),
    /// Undo what an instance has done
    Compensate(OrderArgs),
    /// Cancel an instance, as its cancelling event would, also where it is parked
    Cancel(OrderArgs),
    /// List messages that could not be used
    DeadLetters(DeadLettersArgs),
    /// Take what the definitions folder holds into force, all of it or nothing
    Reload(ReloadArgs),
    /// List versions of sagas, and how many instances each still has
    Versions(VersionsArgs),
    /// Check the evidence of a run: logs, ledgers and the store in a folder
    Verify(VerifyArgs),
    /// Prove that every record in the store is the fold of its history, while nothing uses it
    Replay(StoreArgs),
    /// Copy the store to a new folder, while the orchestrator runs or not
    Backup(BackupArgs),
    /// Give the room back that the store does not need, while nothing uses it
    Compact(StoreArgs),
    /// Give the prefix at the broker to this store, after another one was lost or given up
    Adopt(AdoptArgs),
    /// Print the queues, exchanges and bindings that the definitions need
    Topology,
    /// Print the JSON Schema of the definition language, or of scenarios
    Schema(SchemaArgs),
    /// Tell by the exit code whether the orchestrator is ready, for health checks of containers
    Ready,
    /// Show it all at work, with a throw-away broker and sample services
    Demo(DemoArgs),
    /// Measure it against a null orchestrator, on a throw-away broker
    Bench(BenchArgs),
}

impl Command {
    /// Whether it asks a running orchestrator, at `--url`.
    pub fn asks_orchestrator(&self) -> bool {
        matches!(
            self,
            Command::List(_)
                | Command::Show(_)
                | Command::Retry(_)
                | Command::Skip(_)
                | Command::Resolve(_)
                | Command::Correct(_)
                | Command::Compensate(_)
                | Command::Cancel(_)
                | Command::DeadLetters(_)
                | Command::Reload(_)
                | Command::Versions(_)
                | Command::Backup(_)
                | Command::Ready
        )
    }
}

/// Flags of `run`: settings, over those of the file and the environment.
#[derive(Debug, Default, Args)]
pub struct RunArgs {
    /// Broker, amqp:// or amqps://; other users see flags, so better SAGAMQ_BROKER__URL or its _FILE
    #[arg(long, value_name = "URL")]
    pub broker_url: Option<Secret>,
    /// Folder of the store
    #[arg(long, value_name = "DIR")]
    pub store: Option<String>,
    /// Folder or file of definitions
    #[arg(long, value_name = "PATH")]
    pub definitions: Option<String>,
    /// Address and port of the HTTP API
    #[arg(long, value_name = "IP:PORT")]
    pub bind: Option<String>,
    /// error, warn, info, debug, trace, or a filter such as info,sagamq::engine=debug
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl RunArgs {
    /// The flags that were given, as settings.
    pub fn into_overrides(self) -> Vec<Override> {
        let flags = [
            ("--broker-url", "broker.url", self.broker_url.map(|url| url.expose().to_owned())),
            ("--store", "store.path", self.store),
            ("--definitions", "definitions", self.definitions),
            ("--bind", "http.bind", self.bind),
            ("--log-level", "log.level", self.log_level),
            ("--log-format", "log.format", self.log_format),
        ];
        let given = |(flag, key, value): (&'static str, &'static str, Option<String>)| {
            value.map(|value| Override { flag, key, value })
        };
        flags.into_iter().filter_map(given).collect()
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files or folders of definitions [default: the setting `definitions`]
    pub paths: Vec<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Files or folders of definitions and scenarios [default: the setting `definitions`]
    pub paths: Vec<PathBuf>,
    /// Only the scenarios
    #[arg(long)]
    pub scenarios_only: bool,
    /// Leave out the paths on which two things go wrong
    #[arg(long)]
    pub no_pairs: bool,
    /// At most so many paths on which two things go wrong, for each definition: a sample, the same each time
    /// [default: all where there are at most 500000, else 10000]
    #[arg(long, value_name = "NUMBER", conflicts_with = "no_pairs")]
    pub pairs: Option<usize>,
    /// Only paths and scenarios with this in their name
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Tell what happened, moment by moment, also where all is well
    #[arg(long)]
    pub time_lines: bool,
    /// Print what came of it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// That of scenarios, `*.test.yaml`, instead
    #[arg(long)]
    pub scenarios: bool,
}

/// Arguments of `graph`.
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// Files or folders of definitions [default: the setting `definitions`]
    pub paths: Vec<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    pub format: GraphFormat,
}

/// A language of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Mermaid, for Markdown; of several definitions, a Markdown page
    Mermaid,
    /// Graphviz; of several definitions, one graph after another
    Dot,
    /// A picture for browsers; of several definitions, one beneath another
    Svg,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Files or folders of definitions [default: the setting `definitions`]
    pub paths: Vec<PathBuf>,
}

/// Arguments of `list`.
#[derive(Debug, Default, Args)]
pub struct ListArgs {
    /// Which instances.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Which page.
    #[command(flatten)]
    pub page: PageArgs,
}

/// Which instances are meant.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Only this saga
    #[arg(long, value_name = "NAME")]
    pub saga: Option<String>,
    /// Only these statuses, with commas between them
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(Status::ALL.map(Status::as_str)))]
    pub status: Vec<String>,
    /// Only this business key
    #[arg(long, value_name = "KEY")]
    pub business_key: Option<String>,
    /// Only with this attribute
    #[arg(long, value_name = "NAME:VALUE")]
    pub attribute: Option<String>,
    /// Only started after this time, such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub after: Option<String>,
    /// Only started before this time
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
}

/// Arguments of every list.
#[derive(Debug, Default, Args)]
pub struct PageArgs {
    /// How many at most [default: 50]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Go on where the page before ended
    #[arg(long)]
    pub cursor: Option<String>,
    /// Print the API's answer
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The instance's id or its business key
    #[arg(value_name = "ID or BUSINESS_KEY")]
    pub key: String,
    /// Which saga, where several have that business key
    #[arg(long, value_name = "NAME")]
    pub saga: Option<String>,
    /// Print the API's answer
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dead-letters`.
#[derive(Debug, Default, Args)]
pub struct DeadLettersArgs {
    /// Which page.
    #[command(flatten)]
    pub page: PageArgs,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Folder of the evidence
    pub folder: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of what works on a store by itself.
#[derive(Debug, Default, Args)]
pub struct StoreArgs {
    /// Folder of the store [default: the setting `store.path`]
    #[arg(long, value_name = "DIR")]
    pub store: Option<String>,
}

impl StoreArgs {
    /// The flag, if it was given, as a setting.
    pub fn into_overrides(self) -> Vec<Override> {
        let set = |value| Override { flag: "--store", key: "store.path", value };
        self.store.map(set).into_iter().collect()
    }
}

/// Arguments of `backup`.
#[derive(Debug, Default, Args)]
pub struct BackupArgs {
    /// Folder that is made for it, where the orchestrator runs
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Which store, where no orchestrator is to be asked.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print what came of it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `adopt`.
#[derive(Debug, Default, Args)]
pub struct AdoptArgs {
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Do it; else only tell what it would do
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many orders to place
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub orders: u32,
    /// What to kill by SIGKILL while orders are under way
    #[arg(long, value_enum, default_value_t = DemoFault::None)]
    pub fault: DemoFault,
}

/// What the demo kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoFault {
    /// Nothing.
    None,
    /// The orchestrator.
    Orchestrator,
    /// The broker.
    Broker,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct BenchArgs {
    /// Pairs of runs, one of each orchestrator, of which the medians are told
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub pairs: u32,
    /// Sagas of a run
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub sagas: u64,
    /// Sagas that are under way at a time
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub in_flight: u64,
    /// Sagas of a first pair of runs that does not count, or 0
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub warm_up: u64,
    /// Pairs of runs at half load, for the latency, or 0
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub latency_pairs: u32,
    /// Compare sagamq over a store with N finished instances to sagamq over an empty one, instead of to the
    /// null orchestrator; 1000000 take minutes and gigabytes
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    pub finished: u64,
    /// Measure a start with N instances in flight, and what it takes to have them
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub open: u64,
    /// Folder on the disk to measure with; stores lie in it while it runs
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["finished", "open"])]
    pub svg: Option<PathBuf>,
    /// One of its own processes.
    #[command(subcommand)]
    pub peer: Option<PeerArgs>,
}

/// The processes of a bench, which it starts itself.
#[derive(Debug, Subcommand)]
pub enum PeerArgs {
    /// Publish the next command for each start event and reply, and nothing else
    #[command(hide = true)]
    NullOrchestrator {
        /// First part of the names of the run's queues
        #[arg(long)]
        prefix: String,
    },
    /// Answer the commands of all steps
    #[command(hide = true)]
    Participants {
        /// First part of the names of the run's queues
        #[arg(long)]
        prefix: String,
    },
    /// Start sagas and await their ends
    #[command(hide = true)]
    Load {
        /// First part of the names of the run's queues
        #[arg(long)]
        prefix: String,
        /// How many
        #[arg(long)]
        sagas: u64,
        /// Number of the first one
        #[arg(long)]
        first: u64,
        /// How fast.
        #[command(flatten)]
        pace: PaceArgs,
    },
    /// Stand between an orchestrator and the broker, and take the time
    #[command(hide = true)]
    Watch {
        /// First part of the names of the run's queues
        #[arg(long)]
        prefix: String,
        /// Host and port of the broker
        #[arg(long)]
        broker: String,
    },
    /// Fill the store without a broker
    #[command(hide = true)]
    Fill {
        /// First part of the names of the runs' queues
        #[arg(long)]
        prefix: String,
        /// With how many sagas
        #[arg(long)]
        sagas: u64,
        /// Number of the first one
        #[arg(long)]
        first: u64,
        /// Leave one of the commands of each without an answer
        #[arg(long)]
        unanswered: bool,
    },
    /// Open the store and tell how long it took
    #[command(hide = true)]
    Open {
        /// First part of the names of the runs' queues
        #[arg(long)]
        prefix: String,
    },
}

/// How fast sagas are started.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PaceArgs {
    /// As fast as they end, with so many under way at most
    #[arg(long)]
    pub in_flight: Option<u64>,
    /// So many a second
    #[arg(long)]
    pub rate: Option<f64>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings_and_keep_their_secrets() {
        let line =
            ["sagamq", "run", "--broker-url", "amqp://u:hunter2@h", "--log-format", "json", "--config", "x"];
        let cli = Cli::try_parse_from(line).unwrap();
        assert!(!format!("{cli:?}").contains("hunter2"));
        let Command::Run(run) = cli.command else { panic!("not run") };
        let given: Vec<_> = run.into_overrides().into_iter().map(|flag| (flag.key, flag.value)).collect();
        assert_eq!(given, [("broker.url", "amqp://u:hunter2@h".into()), ("log.format", "json".into())]);
    }

    #[test]
    fn statuses_are_checked_before_anything_is_asked() {
        let cli = Cli::try_parse_from(["sagamq", "list", "--status", "running,parked"]).unwrap();
        let Command::List(list) = cli.command else { panic!("not list") };
        assert_eq!(list.filter.status, ["running", "parked"]);
        assert!(Cli::try_parse_from(["sagamq", "list", "--status", "done"]).is_err());
    }
}
