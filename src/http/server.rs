//! Binding and serving.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::api::{ApiState, router};

/// How long requests may go on after a stop.
const GRACE: Duration = Duration::from_secs(2);

/// How long an address that is in use is waited for, and how often it is looked at.
const TAKEN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(50);

/// The admin API's address cannot be used.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address} for the admin API: {source} (choose another address by http.bind or --bind)"
)]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Takes the admin API's address, before anything else is begun. Whoever has it may be about to end, such as
/// the process that this one replaces: that is waited for, but not for long.
///
/// # Errors
/// The address is in use, or not of this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let deadline = Instant::now() + TAKEN;
    loop {
        match TcpListener::bind(address).await {
            Err(source) if source.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(LOOK).await;
            }
            bound => return bound.map_err(|source| BindError { address, source }),
        }
    }
}

/// Serves the admin API until `shutdown` resolves; requests that are under way then get two more
/// seconds.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    state: ApiState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let stopping = Arc::new(Notify::new());
    let told = Arc::clone(&stopping);
    let graceful = axum::serve(listener, router(state)).with_graceful_shutdown(async move {
        shutdown.await;
        told.notify_one();
    });
    let out_of_patience = async {
        stopping.notified().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        outcome = graceful => outcome,
        () = out_of_patience => Ok(()),
    }
}
