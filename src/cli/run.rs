//! `sagamq run`: the orchestrator.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::error::{CliError, Exit};
use super::topology::topology_of;
use crate::amqp::{self, Consumer, Publisher};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::definitions;
use crate::engine::Engine;
use crate::fault::{self, Point};
use crate::health::Health;
use crate::http::{self, ApiState};
use crate::runtime::{Clock, Runtime};
use crate::store::Store;
use crate::telemetry;

/// Signals within this time of the first count as one.
const ONE_SIGNAL: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT, and then to a clean end. A second signal ends the process at once,
/// which loses nothing either.
///
/// What can fail is tried from the cheapest on, and the broker last: definitions, address of the API,
/// store, recovery, broker. Nothing is consumed before all of it works.
///
/// # Errors
/// One of these cannot be used, or the store failed while running.
pub async fn run(config: Config) -> Result<Exit, CliError> {
    let metrics = telemetry::metrics();
    let mut stop = stop_signals()?;
    let loaded = definitions::load_folder(&config.definitions)?;
    let listener = http::bind(config.http.bind).await?;
    let mut store = Store::open(&config.store)?;
    let reader = store.reader();
    let (catalog, batch) = Catalog::adopt(loaded, &reader)?;
    store.commit(&batch)?;
    for plan in catalog.starting() {
        info!(saga = plan.saga, version = plan.version, steps = plan.steps.len(), "definition in force");
    }
    let mut engine = Engine::new(reader.clone(), catalog);
    let recovered = engine.recover()?;
    info!(instances = recovered.instances, unconfirmed = recovered.outgoing.len(), "instances taken up");

    // From here on it can be asked what it waits for.
    let health = Arc::new(Health::default());
    health.storing.set(true);
    let (api_stop, api_stopped) = oneshot::channel::<()>();
    let api =
        tokio::spawn(serve(listener, ApiState { reader, health: Arc::clone(&health), metrics }, async {
            // A dropped sender stops the API just as well.
            let _ = api_stopped.await;
        }));

    let topology = Arc::new(topology_of(&config.broker, engine.catalog()));
    tokio::select! {
        biased;
        _ = &mut stop => {
            info!("stopped before the broker was reached");
            return Ok(Exit::Fine);
        }
        probed = amqp::probe(&config.broker, &topology) => probed?,
    }

    let (reports_in, reports) = mpsc::unbounded_channel();
    // The prefetch of both queues bounds what is received; a little slack keeps the consumer going.
    let (deliveries_in, deliveries) = mpsc::channel(usize::from(config.broker.prefetch) * 2);
    let publisher = Publisher::start(&config.broker, Arc::clone(&topology), reports_in, Arc::clone(&health));
    publisher.publish(recovered.outgoing);
    fault::pass(Point::Recovered);
    let consumer = Consumer::start(&config.broker, topology, deliveries_in, Arc::clone(&health));

    let clock = Clock::start(recovered.latest);
    let runtime = Runtime { engine, store, consumer, publisher, deliveries, reports, health, clock };
    let result = runtime.run(async { drop(stop.await) }).await;
    drop(api_stop);
    if let Err(error) = api.await {
        warn!(%error, "the API ended badly");
    }
    result?;
    Ok(Exit::Fine)
}

async fn serve(listener: TcpListener, state: ApiState, stop: impl Future<Output = ()> + Send + 'static) {
    if let Err(error) = http::serve(listener, state, stop).await {
        warn!(%error, "the API stopped; sagas run on");
    }
}

/// Resolves at the first SIGTERM or SIGINT; the next one ends the process, whatever it is at.
fn stop_signals() -> Result<oneshot::Receiver<()>, CliError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = oneshot::channel();
    // A task of its own, since opening a large store blocks the one that calls.
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        // Where nobody waits any more, the process is about to end anyway.
        let _ = stop.send(());
        // Who signals a process and its group sends two at once, and means one.
        let first = Instant::now();
        while first.elapsed() < ONE_SIGNAL {
            next().await;
        }
        warn!("forced to stop: what was under way goes on at the next start");
        std::process::exit(i32::from(Exit::Environment as u8));
    });
    Ok(stopped)
}
