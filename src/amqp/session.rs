//! Connections: how one is opened, how it is opened again, and what keeps it from being opened.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::sync::watch;
use tracing::{info, warn};

use super::dial::{dial, is_external};
use super::mismatch::TlsError;
use super::owner::OwnerError;
use super::topology::{self, Topology};
use crate::config::{BrokerConfig, Secret, TlsConfig};
use crate::metric;

/// Time limit of one connection's opening, from TCP to the end of the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of one question to the broker.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit of a polite goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Seconds between heartbeats where the URL does not say.
const HEARTBEAT_SECS: u16 = 10;

/// Delay of a connection that is expected soon.
const SOON: Duration = Duration::from_millis(20);

/// A connection that lasted this long was a good one: the next delay is short again.
const LASTING: Duration = Duration::from_secs(10);

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    /// The URL cannot be understood.
    #[error(
        "broker.url is not valid: {reason}; expected amqp://user:password@host:port/vhost or amqps://..."
    )]
    InvalidUrl {
        /// What is wrong with it; never a part that could hold the password.
        reason: String,
    },
    /// Nobody answers.
    #[error("no broker at {url} within {after:?}: {reason}; check that it runs, and broker.url")]
    Unreachable {
        /// The URL without its password.
        url: String,
        /// How long it was tried.
        after: Duration,
        /// What the last try ended with.
        reason: String,
    },
    /// User or password are wrong.
    #[error("broker at {url} refused the user: {reason}; check user and password in broker.url")]
    AccessRefused {
        /// The URL without its password.
        url: String,
        /// In the broker's words.
        reason: String,
    },
    /// The client certificate is that of no user.
    #[error(
        "broker at {url} takes the client certificate in broker.tls.cert for no user: {reason}; make the user with \
         `rabbitmqctl add_user`, by the name that ssl_cert_login_from of the broker takes from the certificate; the \
         broker's log has it"
    )]
    UnknownIdentity {
        /// The URL, which names no user.
        url: String,
        /// In the broker's words.
        reason: String,
    },
    /// The virtual host is not there, or not for this user.
    #[error(
        "broker at {url} refused virtual host {vhost:?}: {reason}; make it with `rabbitmqctl add_vhost`, grant the \
         user permissions, or name another one at the end of broker.url"
    )]
    VirtualHost {
        /// The URL without its password.
        url: String,
        /// As the URL names it.
        vhost: String,
        /// In the broker's words.
        reason: String,
    },
    /// TLS, or its absence, is not what the broker has.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A queue, exchange or binding is missing or different.
    #[error("{object}: {reason}; {remedy}")]
    Topology {
        /// Which one.
        object: String,
        /// In the broker's words.
        reason: String,
        /// What a person can do about it.
        remedy: &'static str,
    },
    /// The broker did not answer in time.
    #[error("no answer to {what} within {after:?}")]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The messages of the prefix are another's.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// Anything else; opening a new connection may help.
    #[error("failed to {what}: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        source: lapin::Error,
    },
}

/// Connects for the first time and applies the topology, so that a person who starts the
/// orchestrator learns at once what is wrong. An unreachable broker is tried again until
/// `startup_timeout`; anything that waiting does not cure is an error at once.
///
/// # Errors
/// The broker cannot be used. The error names the URL without its password, and the remedy.
pub async fn probe(config: &BrokerConfig, topology: &Topology) -> Result<(), AmqpError> {
    reach(config, async |connection| topology.apply(connection).await).await
}

/// Connects for the first time, as [`probe`] does, has something done over the connection, and closes it.
pub(crate) async fn reach<T>(
    config: &BrokerConfig,
    act: impl AsyncFn(&Connection) -> Result<T, AmqpError>,
) -> Result<T, AmqpError> {
    let uri = parse_url(&config.url)?;
    let started = Instant::now();
    let mut backoff = delays();
    loop {
        let acted = async {
            let connection = connect(&uri, &config.tls, "probe").await?;
            let done = act(&connection).await;
            close(&connection).await;
            done
        };
        let error = match acted.await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let delay = backoff.next_backoff().unwrap_or(CONNECT_TIMEOUT);
        match error {
            AmqpError::Failed { .. } | AmqpError::Timeout { .. } => {
                if started.elapsed() + delay > config.startup_timeout {
                    let (url, reason) = (redacted(&uri), error.to_string() + hint(&uri));
                    return Err(AmqpError::Unreachable { url, after: config.startup_timeout, reason });
                }
                info!(url = redacted(&uri), %error, "waiting for the broker");
                tokio::time::sleep(delay).await;
            }
            lasting => return Err(lasting),
        }
    }
}

/// Applies a topology once, over a connection of its own, while others go on.
///
/// # Errors
/// The broker cannot be used, or refuses a part; what it took before stays. Nothing is tried again.
pub async fn apply_once(config: &BrokerConfig, topology: &Topology) -> Result<(), AmqpError> {
    let uri = parse_url(&config.url)?;
    let started = Instant::now();
    let connected = async {
        let connection = connect(&uri, &config.tls, "probe").await?;
        let applied = topology.apply(&connection).await;
        close(&connection).await;
        applied
    };
    connected.await.map_err(|error| match error {
        AmqpError::Failed { .. } | AmqpError::Timeout { .. } => AmqpError::Unreachable {
            url: redacted(&uri),
            after: started.elapsed(),
            reason: error.to_string(),
        },
        lasting => lasting,
    })
}

/// The time between two heartbeats that the URL asks for; none where they are off.
pub(crate) fn heartbeat(config: &BrokerConfig) -> Result<Duration, AmqpError> {
    let uri = parse_url(&config.url)?;
    Ok(Duration::from_secs(uri.query.heartbeat.unwrap_or(HEARTBEAT_SECS).into()))
}

/// Opens the same connection again and again.
pub(crate) struct Session {
    name: &'static str,
    url: Secret,
    tls: TlsConfig,
    backoff: ExponentialBackoff,
    opened_at: Option<Instant>,
    soon: bool,
}

impl Session {
    /// Of the connection that the broker lists as `sagamq <name>`. Nothing is opened yet.
    pub(crate) fn new(name: &'static str, config: &BrokerConfig) -> Self {
        let (url, tls) = (config.url.clone(), config.tls.clone());
        Self { name, url, tls, backoff: delays(), opened_at: None, soon: false }
    }

    /// Opens a connection and applies the topology as it is then, however long that takes. The first try
    /// is made at once, each further one after a growing delay with jitter.
    pub(crate) async fn open(&mut self, topology: &mut watch::Receiver<Topology>) -> Connection {
        if let Some(opened_at) = self.opened_at.take() {
            if opened_at.elapsed() > LASTING {
                self.backoff.reset();
            }
            self.pause().await;
        }
        loop {
            match self.attempt(topology).await {
                Ok(connection) => {
                    info!(connection = self.name, "connected to the broker");
                    self.opened_at = Some(Instant::now());
                    self.soon = false;
                    return connection;
                }
                Err(error) => self.failed(&error),
            }
            self.soon = false;
            self.pause().await;
        }
    }

    /// Tells that the connection was lost, or could not be had.
    pub(crate) fn failed(&self, reason: &dyn Display) {
        warn!(connection = self.name, %reason, "no connection to the broker, trying again");
        metrics::counter!(metric::RECONNECTS, "connection" => self.name).increment(1);
    }

    /// Has the next connection opened soon, with the topology as it is: it is not the broker that is at fault.
    pub(crate) fn expect_soon(&mut self) {
        self.backoff.reset();
        self.soon = true;
    }

    async fn attempt(&self, topology: &mut watch::Receiver<Topology>) -> Result<Connection, AmqpError> {
        let connection = connect(&parse_url(&self.url)?, &self.tls, self.name).await?;
        // What was applied a moment ago still is.
        if self.soon {
            return Ok(connection);
        }
        match topology::follow(&connection, topology).await {
            Ok(()) => Ok(connection),
            Err(error) => {
                close(&connection).await;
                Err(error)
            }
        }
    }

    async fn pause(&mut self) {
        let grown = self.backoff.next_backoff().unwrap_or(CONNECT_TIMEOUT);
        let pause = if self.soon { SOON } else { grown };
        tokio::time::sleep(pause).await;
    }
}

/// Opens one connection, which the broker lists as `sagamq <name>`, once: for what stands beside the
/// orchestrator.
///
/// # Errors
/// The broker cannot be used, or does not answer in time.
pub(crate) async fn open_once(config: &BrokerConfig, name: &'static str) -> Result<Connection, AmqpError> {
    connect(&parse_url(&config.url)?, &config.tls, name).await
}

/// Opens a channel.
pub(crate) async fn open_channel(connection: &Connection) -> Result<Channel, AmqpError> {
    answered("open a channel", connection.create_channel()).await
}

/// Says goodbye, but not for long: a connection that is dead is dropped.
pub(crate) async fn close(connection: &Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "OK".into())).await;
}

/// Awaits the broker's answer for as long as one may take.
pub(crate) async fn answered<T>(
    what: &'static str,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, AmqpError> {
    within(what, ANSWER_TIMEOUT, answer).await
}

/// Awaits `answer` for `after` at most.
pub(crate) async fn within<T>(
    what: &'static str,
    after: Duration,
    answer: impl Future<Output = lapin::Result<T>>,
) -> Result<T, AmqpError> {
    match tokio::time::timeout(after, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(AmqpError::Failed { what, source }),
        Err(_) => Err(AmqpError::Timeout { what, after }),
    }
}

/// Delays between tries that grow from a quarter of a second to fifteen seconds, without an end.
pub(crate) fn delays() -> ExponentialBackoff {
    ExponentialBackoff {
        current_interval: Duration::from_millis(250),
        initial_interval: Duration::from_millis(250),
        multiplier: 2.0,
        randomization_factor: 0.5,
        max_interval: Duration::from_secs(15),
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    }
}

/// What may be missing at a broker that cannot be had: one without the plugin closes the connection without a word.
fn hint(uri: &AMQPUri) -> &'static str {
    if is_external(uri) {
        "; auth_mechanism=external takes the broker's plugin rabbitmq_auth_mechanism_ssl, and EXTERNAL among its \
         auth_mechanisms"
    } else {
        ""
    }
}

/// The code and the broker's words, if the broker refused something on one channel only.
pub(crate) fn refusal(error: &lapin::Error) -> Option<(AMQPSoftError, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(code) => Some((code.clone(), error.get_message().to_string())),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

async fn connect(uri: &AMQPUri, tls: &TlsConfig, name: &'static str) -> Result<Connection, AmqpError> {
    let properties = ConnectionProperties::default().with_connection_name(format!("sagamq {name}").into());
    let after = uri.query.connection_timeout.map_or(CONNECT_TIMEOUT, Duration::from_millis);
    dial(uri, tls, properties, after).await.map_err(|error| explain(error, uri))
}

/// Tells refusals, which waiting does not cure, from everything else.
fn explain(error: AmqpError, uri: &AMQPUri) -> AmqpError {
    let AmqpError::Failed { source, .. } = &error else { return error };
    let ErrorKind::ProtocolError(refused) = source.kind() else { return error };
    let (url, reason) = (redacted(uri), refused.get_message().to_string());
    match refused.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) if is_external(uri) => {
            AmqpError::UnknownIdentity { url, reason }
        }
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => AmqpError::AccessRefused { url, reason },
        AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED | AMQPHardError::INVALIDPATH) => {
            AmqpError::VirtualHost { url, vhost: uri.vhost.clone(), reason }
        }
        _ => error,
    }
}

fn parse_url(url: &Secret) -> Result<AMQPUri, AmqpError> {
    let text = url.expose();
    let invalid = |reason: &str| AmqpError::InvalidUrl { reason: reason.to_owned() };
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(invalid("it has no scheme"));
    };
    if !["amqp", "amqps"].contains(&scheme) {
        return Err(AmqpError::InvalidUrl { reason: format!("scheme {scheme:?} is unknown") });
    }
    let mut uri: AMQPUri = text.parse().map_err(|reason: String| AmqpError::InvalidUrl { reason })?;
    // The parser takes an IPv6 address for no host at all, and would go to localhost.
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if let Some((_, address)) = authority.split_once('[') {
        let (address, _) = address.split_once(']').ok_or_else(|| invalid("its IPv6 address has no end"))?;
        uri.authority.host = address.to_owned();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
    Ok(uri)
}

/// The URL as it may be shown.
pub(super) fn redacted(uri: &AMQPUri) -> String {
    let AMQPUri { scheme, authority, vhost, .. } = uri;
    let host =
        if authority.host.contains(':') { format!("[{}]", authority.host) } else { authority.host.clone() };
    let vhost = if vhost == "/" { "%2f" } else { vhost };
    // The certificate says who the user is, whatever the URL says.
    let user = if is_external(uri) { String::new() } else { format!("{}@", authority.userinfo.username) };
    format!("{scheme}://{user}{host}:{}/{vhost}", authority.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<AMQPUri, AmqpError> {
        parse_url(&Secret::new(url))
    }

    #[test]
    fn urls_are_shown_without_their_password() {
        let shown = |url: &str| redacted(&parsed(url).unwrap());
        assert_eq!(shown("amqp://app:hunter2@mq.example:5673/shop"), "amqp://app@mq.example:5673/shop");
        assert_eq!(shown("amqps://localhost"), "amqps://guest@localhost:5671/%2f");
        assert_eq!(shown("amqp://app:hunter2@[::1]:5673/%2f"), "amqp://app@[::1]:5673/%2f");
        assert_eq!(shown("amqps://mq/%2f?auth_mechanism=external"), "amqps://mq:5671/%2f");
    }

    #[test]
    fn a_wrong_url_is_an_error_that_keeps_the_password() {
        for url in [
            "",
            "hunter2",
            "app:hunter2@localhost",
            "http://app:hunter2@localhost",
            "amqp:app:hunter2@localhost",
            "amqp://app:hunter2@local host",
            "amqp://app:hunter2@localhost:99999",
            "amqp://app:hunter2@[::1",
            "amqp://app:hunter2@localhost/%2f?heartbeat=x",
        ] {
            let error = parsed(url).expect_err(url).to_string();
            assert!(error.starts_with("broker.url is not valid"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn heartbeats_are_on_unless_the_url_says_otherwise() {
        assert_eq!(parsed("amqp://localhost").unwrap().query.heartbeat, Some(10));
        assert_eq!(parsed("amqp://localhost?heartbeat=3").unwrap().query.heartbeat, Some(3));
    }

    #[test]
    fn delays_never_end() {
        let mut delays = delays();
        let longest = Duration::from_secs(23);
        assert!((0..1000).all(|_| delays.next_backoff().is_some_and(|delay| delay < longest)));
    }
}
