//! Reloading: what a folder of definitions holds comes into force while sagas are under way, all of it or
//! nothing.
//!
//! ```text
//! read, compile --> compare with the store --> broker: make or check --> commit --> in force --> unbind
//!  (any thread)           (the loop)             (beside the loop)                            (the consumer)
//! ```
//!
//! Until the commit is durable, nothing has changed but at the broker, where the event queue is taken off
//! again what it was bound to for nothing. A start takes the same folder into force, so a crash on the way
//! needs no recovery of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinError};
use tokio::time::timeout;
use tracing::{error, info};

use crate::amqp::{self, AmqpError, Topology};
use crate::catalog::{CatalogError, Change};
use crate::config::BrokerConfig;
use crate::definitions::{self, DefinitionsError, Folder, Loaded};
use crate::engine::Engine;
use crate::fault::{self, Point};
use crate::metric;

/// How long a reload may take; no client of the API waits for longer.
const PATIENCE: Duration = Duration::from_secs(25);

/// Definitions that are to come into force.
#[derive(Debug)]
pub struct Reload {
    loaded: Arc<[Loaded]>,
    /// Is told what came of it, once that is durable.
    done: oneshot::Sender<Result<Change, ReloadError>>,
}

/// Why other definitions did not come into force. Those before stay.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// They cannot be used.
    #[error("nothing was reloaded, what is in force stays: {0}")]
    Definitions(DefinitionsError),
    /// The broker cannot be asked for what they need, or refuses it.
    #[error("nothing was reloaded, what is in force stays: {0}")]
    Broker(#[from] AmqpError),
    /// The store cannot be read.
    #[error("nothing was reloaded, what is in force stays: {0}")]
    Store(CatalogError),
    /// Reading them was cut short by a bug.
    #[error("nothing was reloaded, what is in force stays: {0}")]
    Read(#[from] JoinError),
    /// There is nobody to take them into force, or who it was is gone.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl From<CatalogError> for ReloadError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Changed(problems) => Self::Definitions(problems),
            error => Self::Store(error),
        }
    }
}

/// Reads a folder anew and has it taken into force; `reloads` leads to the orchestrator, where there is one.
/// What comes of it is also logged and counted.
///
/// # Errors
/// See [`ReloadError`]; nothing has changed then, unless nobody could tell.
pub async fn reload(folder: &Folder, reloads: Option<mpsc::Sender<Reload>>) -> Result<Change, ReloadError> {
    let outcome = timeout(PATIENCE, ask(folder.clone(), reloads)).await.unwrap_or_else(|_| {
        let message =
            "no answer came in time: /readyz tells what is awaited, `sagamq versions` what is in force";
        Err(ReloadError::Unavailable(message))
    });
    tell(&outcome);
    outcome
}

async fn ask(folder: Folder, reloads: Option<mpsc::Sender<Reload>>) -> Result<Change, ReloadError> {
    let closed = ReloadError::Unavailable("the store is not open: /readyz tells what is awaited");
    let Some(reloads) = reloads else { return Err(closed) };
    // The place first: whoever reads later comes later.
    let Ok(place) = reloads.reserve().await else { return Err(closed) };
    let loaded = task::spawn_blocking(move || folder.read()).await?.map_err(ReloadError::Definitions)?;
    let (done, told) = oneshot::channel();
    place.send(Reload { loaded: loaded.into(), done });
    let stopped = "the orchestrator stopped before it could say what came of the reload";
    told.await.unwrap_or(Err(ReloadError::Unavailable(stopped)))
}

/// Tells people and collectors what came of a reload.
fn tell(outcome: &Result<Change, ReloadError>) {
    let result = match outcome {
        Ok(_) => "reloaded",
        Err(ReloadError::Definitions(_)) => "refused",
        Err(_) => "failed",
    };
    counter!(metric::RELOADS, "result" => result).increment(1);
    match outcome {
        Ok(changed) => info!(%changed, "definitions reloaded"),
        Err(ReloadError::Definitions(DefinitionsError(problems))) => {
            for problem in problems {
                let (code, file) = (problem.code.as_str(), &problem.file);
                // What is wrong with a file as a whole has no place in it.
                let in_file = problem.line > 0;
                let (line, column) = (in_file.then_some(problem.line), in_file.then_some(problem.column));
                let (reason, hint) = (&problem.message, &problem.hint);
                error!(code, file, line, column, reason, hint, "definition refused");
            }
            error!(problems = problems.len(), "nothing was reloaded, what is in force stays");
        }
        Err(error) => error!(reason = %error, "definitions are not reloaded"),
    }
}

/// What follows the definitions in force.
#[derive(Debug)]
pub struct Followers {
    /// The broker that has to serve them.
    pub broker: BrokerConfig,
    /// What the connections to it apply.
    pub topology: watch::Sender<Topology>,
    /// Where they come from, and what all begins anew with after a full disk.
    pub folder: Folder,
}

/// A reload that awaits the broker.
pub(crate) struct Preparing {
    reload: Reload,
    broker: Pin<Box<dyn Future<Output = Result<(), AmqpError>> + Send>>,
}

impl Followers {
    /// Begins a reload: the broker is asked for what the definitions need. Nothing, where they are
    /// refused already.
    pub(crate) fn prepare(&self, reload: Reload, engine: &mut Engine) -> Option<Preparing> {
        if let Err(error) = engine.check(&reload.loaded) {
            reload.answer(Err(error.into()));
            return None;
        }
        // From here on, nothing is unbound that the broker is asked for.
        engine.catalog_mut().expect(&reload.loaded);
        self.follow(engine);
        let broker = self.broker.clone();
        let in_force = definitions::in_force(&reload.loaded).into_iter();
        let topology = Topology::of(&broker, in_force.map(|loaded| &*loaded.plan));
        let asked = async move { amqp::apply_once(&broker, &topology).await };
        Some(Preparing { reload, broker: Box::pin(asked) })
    }

    /// Has the definitions committed, unless the broker refused: then what it took is taken back.
    pub(crate) fn gather(
        &self,
        preparing: Preparing,
        asked: Result<(), AmqpError>,
        engine: &mut Engine,
    ) -> Option<Reload> {
        let reload = preparing.reload;
        let gathered = match asked {
            Err(error) => Err(error.into()),
            Ok(()) if reload.done.is_closed() => {
                Err(ReloadError::Unavailable("nobody waits for it any more"))
            }
            Ok(()) => {
                fault::pass(Point::Reload);
                engine.define(&reload.loaded).map_err(ReloadError::from)
            }
        };
        match gathered {
            Ok(()) => Some(reload),
            Err(error) => {
                engine.catalog_mut().expect(&[]);
                self.follow(engine);
                reload.answer(Err(error));
                None
            }
        }
    }

    /// Takes definitions into force that are durable.
    pub(crate) fn take_into_force(&self, reload: Reload, engine: &mut Engine) {
        fault::pass(Point::Reloaded);
        let change = engine.adopt(&reload.loaded);
        self.folder.set_adopted(Arc::clone(&reload.loaded));
        self.follow(engine);
        reload.answer(Ok(change));
    }

    /// Has the connections apply what the definitions need that are needed now.
    pub(crate) fn follow(&self, engine: &mut Engine) {
        if !engine.catalog_mut().take_shifted() {
            return;
        }
        let catalog = engine.catalog();
        let needed = Topology::of(&self.broker, catalog.needed());
        let next = Topology { unneeded: catalog.unneeded(), ..needed };
        self.topology.send_if_modified(|topology| {
            let differs = *topology != next;
            *topology = next;
            differs
        });
    }
}

impl Preparing {
    /// Awaits the broker's answer.
    pub(crate) async fn asked(&mut self) -> Result<(), AmqpError> {
        (&mut self.broker).await
    }
}

impl Reload {
    /// Tells whoever asked; they may have gone meanwhile.
    fn answer(self, outcome: Result<Change, ReloadError>) {
        let _ = self.done.send(outcome);
    }
}
