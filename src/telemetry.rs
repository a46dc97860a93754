//! What the process says about itself: log lines and metrics.
//!
//! Neither carries a payload or a secret, whatever the level that was asked for, and no metric has
//! an id in its labels.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat};
use crate::metric;

/// Why there are no logs.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The level is not a filter.
    #[error(
        "log.level: {part:?} is neither off, error, warn, info, debug, trace nor a part and its level \
         such as sagamq::engine=debug"
    )]
    Level {
        /// What of the filter cannot be read.
        part: String,
    },
    /// Something else in the process writes logs already.
    #[error("cannot start logging")]
    Installed(#[from] TryInitError),
}

/// Sends log lines to the standard error stream, in the form and from the level that is set.
///
/// # Errors
/// A level that is not a filter; logging that was started before.
pub fn init(log: &LogConfig) -> Result<(), TelemetryError> {
    let levels = parse_level(&log.level)?;
    let within_cap = filter_fn(is_within_cap).with_max_level_hint(loudest(&levels));
    let filter = levels.and(within_cap);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        )
        // A closed stderr must not end in a panic.
        .log_internal_errors(false);
    let layer = match log.format {
        LogFormat::Text => lines.compact().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}

/// Reads a filter: a level, or parts and their levels, with commas between them.
fn parse_level(text: &str) -> Result<Targets, TelemetryError> {
    let refused = |part: &str| TelemetryError::Level { part: part.to_owned() };
    for part in text.split(',') {
        // Without an `=` a wrong level would pass as the name of a part.
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if level.trim().is_empty() || level.trim().parse::<LevelFilter>().is_err() {
            return Err(refused(part));
        }
    }
    let trimmed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    trimmed.parse().map_err(|_| refused(text))
}

/// The level beyond which nothing is heard of anything. Libraries that trace at every turn go by it: without
/// it, each time would cost a question to the filter.
fn loudest(levels: &Targets) -> LevelFilter {
    let levels = levels.iter().map(|(_, level)| level).chain(levels.default_level());
    levels.max().unwrap_or(LevelFilter::OFF)
}

/// What a library may say at most, whatever the filter. lapin prints passwords at TRACE, whole returned
/// messages at WARN, and as an error every lost connection, of which we tell ourselves, as we do of what rustls
/// warns of; sled tells of its insides at INFO.
const CAPS: [(&str, LevelFilter); 3] =
    [("lapin", LevelFilter::OFF), ("rustls", LevelFilter::OFF), ("sled", LevelFilter::WARN)];

fn is_within_cap(metadata: &Metadata<'_>) -> bool {
    is_permitted(metadata.target(), *metadata.level())
}

fn is_permitted(target: &str, level: Level) -> bool {
    let inside = |module: &str| {
        target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    CAPS.iter().find(|(module, _)| inside(module)).is_none_or(|(_, cap)| level <= *cap)
}

const COMMIT_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 1.0, 4.0];
const BATCH_BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// How often what was measured is put into its buckets, so that it takes no more memory when nobody
/// asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

/// What `/metrics` prints. The first call starts the measuring for the whole process.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(start_measuring).clone()
}

fn start_measuring() -> PrometheusHandle {
    let with_buckets = |builder: PrometheusBuilder, name: &str, buckets: &[f64]| {
        let matcher = Matcher::Full(name.to_owned());
        builder.set_buckets_for_metric(matcher, buckets).expect("the list of buckets is not empty")
    };
    let builder = with_buckets(PrometheusBuilder::new(), metric::COMMIT_SECONDS, &COMMIT_BUCKETS);
    let recorder = with_buckets(builder, metric::BATCH_INPUTS, &BATCH_BUCKETS).build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("metrics are measured by something else in this process, /metrics stays empty");
    }
    metric::describe();
    let upkeep = handle.clone();
    let upkeep_loop = move || loop {
        thread::sleep(UPKEEP);
        upkeep.run_upkeep();
    };
    if let Err(error) = thread::Builder::new().name("metrics".to_owned()).spawn(upkeep_loop) {
        tracing::warn!(%error, "no thread for the upkeep of metrics");
    }
    handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_is_named() {
        for text in ["info", "off", "info,sagamq::engine=debug", "warn, lapin=error"] {
            assert!(parse_level(text).is_ok(), "{text}");
        }
        for (text, part) in
            [("inof", "inof"), ("info,sagamq", "sagamq"), ("info,sagamq=loud", "sagamq=loud"), ("", "")]
        {
            let error = parse_level(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("log.level: {part:?} ")), "{error}");
        }
    }

    #[test]
    fn nothing_is_asked_for_that_no_part_of_the_filter_lets_through() {
        for (text, level) in [
            ("info", LevelFilter::INFO),
            ("warn,sagamq::engine=debug", LevelFilter::DEBUG),
            ("off", LevelFilter::OFF),
        ] {
            assert_eq!(loudest(&parse_level(text).unwrap()), level, "{text}");
        }
    }

    #[test]
    fn what_prints_secrets_is_capped_at_any_level() {
        assert!(!is_permitted("lapin::channel", Level::TRACE));
        assert!(!is_permitted("lapin::returned_messages", Level::ERROR));
        assert!(!is_permitted("rustls::common_state", Level::ERROR));
        assert!(!is_permitted("sled::pagecache", Level::INFO));
        assert!(is_permitted("lapine", Level::TRACE));
        assert!(is_permitted("sagamq::engine", Level::TRACE));
    }

    #[test]
    fn metrics_are_printed_with_their_meaning() {
        let handle = metrics();
        metrics::histogram!(metric::COMMIT_SECONDS).record(0.003);
        let page = handle.render();
        assert!(page.contains("# HELP sagamq_commits_total Batches committed"), "{page}");
        assert!(page.contains("sagamq_returned_total 0"), "{page}");
        assert!(page.contains("sagamq_commit_seconds_bucket{le=\"0.004\"} 1"), "{page}");
    }
}
