//! Settings: `sagamq.yaml`, then the environment, then flags.
//!
//! [`Config::load`] puts them together; every setting, its key and how it is read stand in one
//! table in `settings`.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use load::{CA_VARIABLE, ConfigError, DEFAULT_FILE, Override};

mod broker_url;
mod load;
mod settings;

/// All settings of an orchestrator.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The broker and how to use it.
    pub broker: BrokerConfig,
    /// Where state is kept.
    pub store: StoreConfig,
    /// How long it is kept.
    pub retention: RetentionConfig,
    /// Folder or file of saga definitions. `./sagas` unless set.
    pub definitions: PathBuf,
    /// The admin API.
    pub http: HttpConfig,
    /// Logging.
    pub log: LogConfig,
}

/// Section `broker`.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// `amqp://` or `amqps://` URL, with user, password and virtual host. The local broker as guest
    /// unless set.
    pub url: Secret,
    /// First part of the names of all queues and exchanges of this orchestrator. `sagamq` unless
    /// set.
    pub prefix: String,
    /// What to do about queues, exchanges and bindings. `declare` unless set.
    pub topology: TopologyMode,
    /// Type of the queues. `quorum` unless set.
    pub queue_type: QueueType,
    /// Unacknowledged deliveries per queue: the only inflow. At least 1; 500 unless set.
    pub prefetch: u16,
    /// Messages that may await the broker's confirm before no more deliveries are taken.
    pub outbox: usize,
    /// How long published messages may await the broker's confirm before the connection counts as lost
    /// and they go out again. At least 1 s; 30 s unless set.
    pub confirm_timeout: Duration,
    /// How long `run` tries to reach the broker for the first time before it gives up; 30 s unless
    /// set. Once it was reached, a lost connection is retried for ever.
    pub startup_timeout: Duration,
    /// TLS with `amqps://`.
    pub tls: TlsConfig,
}

/// Section `broker.tls`. The files are in PEM, and are read at each connect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TlsConfig {
    /// Certificates of the issuers that the broker's certificate may come from, and of no others. Those
    /// of the system unless set.
    pub ca: Option<PathBuf>,
    /// The client certificate, and after it those of its issuers that the broker does not know. None
    /// unless set.
    pub cert: Option<PathBuf>,
    /// The private key of the client certificate.
    pub key: Option<PathBuf>,
    /// The name or IP address that the broker's certificate is checked against. The host of the URL
    /// unless set.
    pub server_name: Option<String>,
}

/// What to do about queues, exchanges and bindings when connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologyMode {
    /// Make what is missing.
    Declare,
    /// Check that it is there, and fail if not.
    Verify,
    /// Neither.
    None,
}

/// Type of the orchestrator's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated, written to disk before a confirm.
    Quorum,
    /// Durable, not written to disk before a confirm.
    Classic,
}

/// Section `store`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// Folder of the store; made if it is missing. `./sagamq-data` unless set.
    pub path: PathBuf,
    /// Size of the page cache in MiB. At least 1; 64 unless set.
    pub cache_mib: u64,
}

/// Section `retention`: how long instances stay in the store after their end.
#[derive(Clone, Debug, PartialEq)]
pub struct RetentionConfig {
    /// Those that were completed. At least 1 s; for ever unless set.
    pub completed: Option<Duration>,
    /// Those that were compensated. At least 1 s; for ever unless set.
    pub compensated: Option<Duration>,
    /// Folder of the files that they go to, relative to the folder of the store; made if it is missing.
    /// `archive` unless set.
    pub archive: PathBuf,
}

/// Section `http`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Address and port of the admin API; `127.0.0.1:7654` unless set. It has no authentication:
    /// keep it on loopback or behind a proxy.
    pub bind: SocketAddr,
    /// Names beside `localhost` and the addresses it listens at, by which clients may call it. None unless set.
    pub hosts: Vec<String>,
}

/// Section `log`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,sagamq::engine=debug`.
    /// `info` unless set.
    pub level: String,
    /// Text for people or JSON for machines. `text` unless set.
    pub format: LogFormat,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A value that must not be shown: `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl BrokerConfig {
    /// The broker's URL for messages and logs: without password and without query.
    pub fn shown_url(&self) -> String {
        broker_url::without_secrets(self.url.expose())
    }
}

impl Secret {
    /// Wraps a value that must not be shown.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it. It must not get into a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            broker: BrokerConfig::default(),
            store: StoreConfig::default(),
            retention: RetentionConfig::default(),
            definitions: PathBuf::from("./sagas"),
            http: HttpConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            url: Secret::new("amqp://guest:guest@127.0.0.1:5672/%2f"),
            prefix: "sagamq".to_owned(),
            topology: TopologyMode::Declare,
            queue_type: QueueType::Quorum,
            prefetch: 500,
            outbox: 10_000,
            confirm_timeout: Duration::from_secs(30),
            startup_timeout: Duration::from_secs(30),
            tls: TlsConfig::default(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("./sagamq-data"), cache_mib: 64 }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { completed: None, compensated: None, archive: PathBuf::from("archive") }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 7654)), hosts: Vec::new() }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}
