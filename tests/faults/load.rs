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

/// What each order comes to; a double would lose the zero.
const AMOUNT: &str = "12.50";

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
        is_watched: bool,
    ) -> Self {
        let (stopping, placed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (Arc::clone(&stopping), Arc::clone(&placed));
        let task = runtime.spawn(async move {
            let mut next = 0;
            while !stopped.load(Ordering::SeqCst) {
                let orders: Vec<_> = (next..next + BATCH).collect();
                while !matches!(
                    timeout(CONFIRM_TIMEOUT, place(&brokers, &exchange, &orders, is_watched)).await,
                    Ok(Ok(()))
                ) {
                    sleep(Duration::from_millis(100)).await;
                }
                for number in orders {
                    note(&evidence, number, is_watched);
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

/// Places orders, and returns once the broker has all of them. Every fourth start is repeated as the same event; an
/// order that is watched is noted, by an event that comes twice.
async fn place(brokers: &Brokers, exchange: &str, orders: &[usize], is_watched: bool) -> lapin::Result<()> {
    let peer: Peer = brokers.connect().await?;
    let placing = orders.iter().map(|&number| {
        let (peer, id) = (&peer, start_id(&key(number)));
        async move {
            let start = start(number);
            for _ in 0..=usize::from(number % 4 == 1) {
                peer.publish(exchange, "order.placed", peer::json(&id), start.as_bytes()).await?;
            }
            if is_watched {
                let note = json!({"watch": watch(number), "mark": mark(number)}).to_string();
                for _ in 0..2 {
                    let id = peer::json(&mark(number));
                    peer.publish(exchange, "order.noted", id, note.as_bytes()).await?;
                }
            }
            Ok(())
        }
    });
    join_all(placing).await.into_iter().collect()
}

/// Notes what was placed.
fn note(evidence: &Lines, number: usize, is_watched: bool) {
    let (id, key, at) = (start_id(&key(number)), key(number), now());
    let mut numbers = vec![serial(number), AMOUNT.to_owned()];
    numbers.extend(number.is_multiple_of(2).then(|| key.clone()));
    evidence.add(&json!({
        "message_id": id, "what": "start", "saga": SAGA, "business_key": key, "numbers": numbers, "at": at,
    }));
    if is_watched {
        let watch = watch(number);
        evidence.add(&json!({
            "message_id": id, "what": "start", "saga": "watch", "business_key": watch, "at": at,
        }));
        evidence.add(&json!({
            "message_id": mark(number), "what": "answer", "saga": "watch", "business_key": watch,
            "mark": mark(number), "at": at,
        }));
    }
}

/// What starts an order: numbers as they are written here, which doubles cannot hold.
fn start(number: usize) -> String {
    let key = if number.is_multiple_of(2) { key(number) } else { format!("\"{}\"", key(number)) };
    format!(
        "{{\"order_id\": {key}, \"behaviour\": {}, \"watch\": \"{}\", \"serial\": {}, \"amount\": {AMOUNT}}}",
        behaviour(number),
        watch(number),
        serial(number)
    )
}

/// Every other business key is a number of 21 digits.
fn key(number: usize) -> String {
    if number.is_multiple_of(2) { format!("900719925474{number:09}") } else { format!("load-{number}") }
}

fn watch(number: usize) -> String {
    format!("watch-{number}")
}

fn mark(number: usize) -> String {
    format!("noted-{number}-{number}")
}

fn serial(number: usize) -> String {
    format!("90071992547{number:09}")
}

/// What the participants do with an order: its number decides.
fn behaviour(number: usize) -> Value {
    let (command, behaviour) = match number % 16 {
        1 => ("stock.reserve", Behaviour::Failure),
        3 => ("payment.charge", Behaviour::Failure),
        5 => ("shipping.ship", Behaviour::Failure),
        6 => ("stock.reserve", Behaviour::Retry(2)),
        8 => ("payment.charge", Behaviour::Late(2500)),
        9 => ("payment.charge", Behaviour::Silent),
        11 => ("stock.reserve", Behaviour::Duplicate),
        13 => ("shipping.ship", Behaviour::Late(800)),
        14 => ("payment.charge", Behaviour::Forged),
        _ => return json!({}),
    };
    json!({command: behaviour})
}
