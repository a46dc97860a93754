//! Every setting: its key, and how its text is read.
//!
//! A value that cannot be used is refused in words that follow the key, and that say what it must
//! be; the words of a secret do not repeat it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::{Config, LogFormat, QueueType, Secret, TopologyMode, broker_url};
use crate::saga::duration;

/// Reads a setting's text into the settings; the error says what it must be.
pub(super) type Set = fn(&mut Config, &str) -> Result<(), String>;

/// Every setting.
pub(super) const SETTINGS: [(&str, Set); 22] = [
    ("broker.url", |config, text| {
        broker_url::check(text)?;
        config.broker.url = Secret::new(text);
        Ok(())
    }),
    ("broker.prefix", |config, text| put(&mut config.broker.prefix, prefix(text))),
    ("broker.topology", |config, text| {
        let words = [
            ("declare", TopologyMode::Declare),
            ("verify", TopologyMode::Verify),
            ("none", TopologyMode::None),
        ];
        put(&mut config.broker.topology, one_of(text, &words))
    }),
    ("broker.queue_type", |config, text| {
        let words = [("quorum", QueueType::Quorum), ("classic", QueueType::Classic)];
        put(&mut config.broker.queue_type, one_of(text, &words))
    }),
    ("broker.prefetch", |config, text| {
        let number = text.parse().ok().filter(|number| *number >= 1);
        put(
            &mut config.broker.prefetch,
            number.ok_or_else(|| expected("a whole number from 1 to 65535", text)),
        )
    }),
    ("broker.outbox", |config, text| {
        let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
        put(
            &mut config.broker.outbox,
            number.ok_or_else(|| expected("a whole number from 1 to 1000000", text)),
        )
    }),
    ("broker.confirm_timeout", |config, text| {
        let parsed = duration::parse(text).filter(|timeout| *timeout >= Duration::from_secs(1));
        put(
            &mut config.broker.confirm_timeout,
            parsed.ok_or_else(|| expected("a duration of at least 1s, such as 30s", text)),
        )
    }),
    ("broker.startup_timeout", |config, text| {
        let parsed = duration::parse(text);
        put(
            &mut config.broker.startup_timeout,
            parsed.ok_or_else(|| expected("a duration such as 30s or 2m", text)),
        )
    }),
    // An empty text leaves a setting of this section out, as an empty variable does.
    ("broker.tls.ca", |config, text| put(&mut config.broker.tls.ca, Ok(file(text)))),
    ("broker.tls.cert", |config, text| put(&mut config.broker.tls.cert, Ok(file(text)))),
    ("broker.tls.key", |config, text| put(&mut config.broker.tls.key, Ok(file(text)))),
    ("broker.tls.server_name", |config, text| put(&mut config.broker.tls.server_name, server_name(text))),
    ("store.path", |config, text| put(&mut config.store.path, path(text))),
    ("store.cache_mib", |config, text| {
        let number = text.parse().ok().filter(|mib| (1..=1 << 20).contains(mib));
        put(
            &mut config.store.cache_mib,
            number.ok_or_else(|| expected("a whole number of MiB, at least 1", text)),
        )
    }),
    ("retention.completed", |config, text| put(&mut config.retention.completed, age(text))),
    ("retention.compensated", |config, text| put(&mut config.retention.compensated, age(text))),
    ("retention.archive", |config, text| put(&mut config.retention.archive, path(text))),
    ("definitions", |config, text| put(&mut config.definitions, path(text))),
    ("http.bind", |config, text| {
        let form = "an IP address and a port, such as 127.0.0.1:7654";
        put(&mut config.http.bind, text.parse().map_err(|_| expected(form, text)))
    }),
    ("http.hosts", |config, text| put(&mut config.http.hosts, hosts(text))),
    // The filter is read where it is used: see telemetry.
    ("log.level", |config, text| put(&mut config.log.level, Ok(text.to_owned()))),
    ("log.format", |config, text| {
        let words = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        put(&mut config.log.format, one_of(text, &words))
    }),
];

/// Settings that may also be given as the name of a file that holds them, by `<key>_file`.
pub(super) const SECRETS: [&str; 1] = ["broker.url"];

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

fn expected(what: &str, text: &str) -> String {
    format!("must be {what}, not {text:?}")
}

fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let all = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| expected(&format!("one of {}", all()), text))
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err(expected("a path", text)) } else { Ok(PathBuf::from(text)) }
}

fn file(text: &str) -> Option<PathBuf> {
    Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)
}

fn server_name(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = ServerName::try_from(text).map(|_| Some(text.to_owned()));
    parsed.map_err(|_| expected("a DNS name or an IP address, without port", text))
}

/// Names or addresses of hosts, with commas between them, and without ports.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    let is_host = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
        name.parse::<IpAddr>().is_ok() || (!name.is_empty() && name.chars().all(allowed))
    };
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    if names.iter().all(|name| is_host(name)) {
        return Ok(names);
    }
    Err(expected(
        "names of hosts, without ports and with commas between them, such as sagamq,saga.example.com",
        text,
    ))
}

/// How long something is kept.
fn age(text: &str) -> Result<Option<Duration>, String> {
    if text == "forever" {
        return Ok(None);
    }
    let parsed = duration::parse(text).filter(|age| *age >= Duration::from_secs(1));
    parsed.map(Some).ok_or_else(|| expected("a duration of at least 1s, such as 7d, or forever", text))
}

/// Names of queues are at most 255 bytes; the longest that is made of the prefix adds eight.
fn prefix(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    if text.is_empty() || text.len() > 200 || !text.chars().all(allowed) || text.starts_with("amq.") {
        let form = "1 to 200 letters, digits, \".\", \"_\" or \"-\", and not begin with \"amq.\"";
        return Err(format!("must be {form}, unlike {text:?}"));
    }
    Ok(text.to_owned())
}
