//! Opening a connection: TCP, TLS if the URL asks for it, then AMQP over it.
//!
//! The client library would do the first two by itself, but checks against the system's roots only, knows
//! no other name than the host, and takes `amqps://` for plain TCP where it was built without roots.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rustls::ClientConfig;

use super::mismatch::{Attempt, TlsError};
use super::session::{AmqpError, redacted, within};
use super::tls;
use crate::config::TlsConfig;

/// Opens a connection, within `after`.
pub(super) async fn dial(
    uri: &AMQPUri,
    config: &TlsConfig,
    properties: ConnectionProperties,
    after: Duration,
) -> Result<Connection, AmqpError> {
    if is_external(uri) && (uri.scheme == AMQPScheme::AMQP || config.cert.is_none()) {
        return Err(TlsError::NoIdentity.into());
    }
    let client = match (&uri.scheme, tls::first_set(config)) {
        (AMQPScheme::AMQP, Some(setting)) => return Err(TlsError::Unused { setting }.into()),
        (AMQPScheme::AMQP, None) => None,
        (AMQPScheme::AMQPS, _) => {
            let name = config.server_name.clone().unwrap_or_else(|| uri.authority.host.clone());
            Some((tls::client(config).await?, name))
        }
    };
    let mut attempt = Attempt { url: redacted(uri), config, client, addresses: Vec::new() };
    match within("connect", after, open(uri, &mut attempt, properties)).await {
        Err(AmqpError::Failed { what, source }) => Err(match attempt.explain(&source).await {
            Some(problem) => problem.into(),
            None => AmqpError::Failed { what, source },
        }),
        opened => opened,
    }
}

/// Whether the client certificate is the user.
pub(super) fn is_external(uri: &AMQPUri) -> bool {
    uri.query.auth_mechanism == Some(SASLMechanism::External)
}

async fn open(
    uri: &AMQPUri,
    attempt: &mut Attempt<'_>,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let place = (uri.authority.host.as_str(), uri.authority.port);
    attempt.addresses = tokio::net::lookup_host(place).await?.collect();
    let runtime = lapin::runtime::default_runtime()?;
    let stream = AsyncTcpStream::connect(&runtime, attempt.addresses.clone()).await?;
    let stream = match &attempt.client {
        None => stream,
        Some((client, name)) => {
            let connector = RustlsConnector::from(Arc::<ClientConfig>::clone(client));
            stream.into_rustls(&connector, name).await?
        }
    };
    // Once: whatever comes after a connection that was lost is the session's.
    let stream = Mutex::new(Some(stream));
    let hand_over = async move |_, _| {
        let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted).into())
    };
    Connection::connector(uri.clone(), runtime, hand_over, properties).await
}
