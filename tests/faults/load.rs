//! The load: orders of every fate, placed one batch after the other, each until the broker has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::PATIENCE;
use crate::evidence::{Lines, now};
use crate::participant::Behaviour;
use crate::peer::{self, Brokers, Peer};
use crate::rig::{SAGA, start_id};

/// Orders that are placed at once.
const BATCH: usize = 8;
/// How long the broker may take to confirm a batch before another connection is tried.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// Orders that keep coming. Dropping it ends them, once all are with the broker.
pub(crate) struct Load {
    stopping: Arc<AtomicBool>,
    placed: Arc<AtomicUsize>,
    task: Option<JoinHandle<()>>,
    runtime: Handle,
}

impl Load {
    pub(crate) fn start(
        runtime: &Runtime,
        brokers: Brokers,
        exchange: String,
        evidence: Arc<Lines>,
        pause: Duration,
    ) -> Self {
        let (stopping, placed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stopping), Arc::clone(&placed));
        let task = runtime.spawn(async move {
            let mut next = 0;
            while !stopped.load(Ordering::SeqCst) {
                let orders: Vec<_> = (next..next + BATCH).map(|number| format!("load-{number}")).collect();
                while !matches!(
                    timeout(CONFIRM_TIMEOUT, place(&brokers, &exchange, &orders)).await,
                    Ok(Ok(()))
                ) {
                    sleep(Duration::from_millis(100)).await;
                }
                for key in &orders {
                    evidence.add(&json!({
                        "message_id": start_id(key), "what": "start", "saga": SAGA, "business_key": key,
                        "at": now(),
                    }));
                }
                next += BATCH;
                count.store(next, Ordering::SeqCst);
                sleep(pause).await;
            }
        });
        Self { stopping, placed, task: Some(task), runtime: runtime.handle().clone() }
    }

    /// How many orders the broker has so far.
    pub(crate) fn placed(&self) -> usize {
        self.placed.load(Ordering::SeqCst)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(task) = self.task.take() {
            let ended = self.runtime.block_on(async { timeout(PATIENCE, task).await });
            assert!(ended.is_ok() || std::thread::panicking(), "the broker does not take the last orders");
        }
    }
}

/// Places orders, and returns once the broker has all of them.
async fn place(brokers: &Brokers, exchange: &str, keys: &[String]) -> lapin::Result<()> {
    let peer: Peer = brokers.connect().await?;
    let placing = keys.iter().map(|key| {
        let body = json!({"order_id": key, "behaviour": behaviour(key)}).to_string();
        let (peer, id) = (&peer, start_id(key));
        async move { peer.publish(exchange, "order.placed", peer::json(&id), body.as_bytes()).await }
    });
    join_all(placing).await.into_iter().collect()
}

/// What the participants do with an order: its number decides.
fn behaviour(key: &str) -> Value {
    let number: usize = key.rsplit('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (command, behaviour) = match number % 16 {
        1 => ("stock.reserve", Behaviour::Failure),
        3 => ("payment.charge", Behaviour::Failure),
        5 => ("shipping.ship", Behaviour::Failure),
        6 => ("stock.reserve", Behaviour::Retry(2)),
        8 => ("payment.charge", Behaviour::Late(2500)),
        9 => ("payment.charge", Behaviour::Silent),
        11 => ("stock.reserve", Behaviour::Duplicate),
        13 => ("shipping.ship", Behaviour::Late(800)),
        _ => return json!({}),
    };
    json!({command: behaviour})
}
