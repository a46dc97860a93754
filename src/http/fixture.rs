//! Sagas of every fate, for tests of what people and programs read of them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::server::{LIMITS, Limits, serve_within};
use super::{ApiState, StoreWindow, bind};
use crate::config::StoreConfig;
use crate::definitions::Folder;
use crate::engine::Ordered;
use crate::health::Health;
use crate::runtime::Asked;
use crate::saga::fact::{Fact, Failure, HistoryEntry, Ignored, Recorded, Started, Tells};
use crate::saga::id::{InstanceId, Phase, StoreId};
use crate::saga::instance::Instance;
use crate::saga::order::Verb;
use crate::saga::time::Timestamp;
use crate::store::{Batch, DeadLetter, Store};

const RESERVE: usize = 0;
const CHARGE: usize = 1;
const SHIP: usize = 2;

/// `ms` after the moment at which the sagas of this fixture start.
pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp(1_767_225_600_000 + ms)
}

/// An instance of every fate, each with its history.
pub(crate) fn instances() -> Vec<(Instance, Vec<HistoryEntry>)> {
    vec![
        saga(
            "completed",
            vec![
                step_done(RESERVE, 1, json!({"reservation_id": "R-1"})),
                step_done(CHARGE, 1, json!({"payment_id": "P-1"})),
                step_done(SHIP, 1, json!(null)),
                vec![Fact::Completed, Fact::NoticeDue { tells: Tells::Status, body: Default::default() }],
                vec![Fact::NoticePublished { notice: 0 }],
                vec![ignored(Ignored::DuplicateReply, SHIP)],
            ],
        ),
        saga(
            "compensated",
            vec![
                step_done(RESERVE, 1, json!({"reservation_id": "R-2"})),
                sent(CHARGE, Phase::Action, 1),
                vec![
                    Fact::Failed { step: CHARGE, error: declined() },
                    Fact::Stopping { error: declined() },
                    Fact::CompensationStarted,
                ],
                sent(RESERVE, Phase::Compensation, 1),
                vec![
                    Fact::Compensated { step: RESERVE },
                    Fact::AllCompensated,
                    Fact::NoticeDue { tells: Tells::Status, body: Default::default() },
                ],
            ],
        ),
        saga(
            "retrying",
            vec![
                step_done(RESERVE, 1, json!(null)),
                sent(CHARGE, Phase::Action, 1),
                vec![
                    unanswered(CHARGE),
                    Fact::RetryScheduled { step: CHARGE, phase: Phase::Action, at: at(64_000) },
                ],
                sent(CHARGE, Phase::Action, 2),
            ],
        ),
        saga(
            "going-back",
            vec![
                step_done(RESERVE, 1, json!(null)),
                step_done(CHARGE, 1, json!(null)),
                sent(SHIP, Phase::Action, 1),
                vec![
                    unanswered(SHIP),
                    Fact::GivenUp { step: SHIP, error: silent() },
                    Fact::Stopping { error: silent() },
                    Fact::CompensationStarted,
                ],
                sent(SHIP, Phase::Compensation, 1),
            ],
        ),
        saga(
            "parked",
            vec![
                vec![Fact::Skipped { step: RESERVE, output: serde_json::Value::Null }],
                step_done(CHARGE, 1, json!(null)),
                sent(SHIP, Phase::Action, 1),
                vec![
                    unanswered(SHIP),
                    Fact::Parked { error: silent() },
                    Fact::NoticeDue { tells: Tells::Status, body: Default::default() },
                ],
            ],
        ),
    ]
}

/// A store with the instances and a dead letter, in `folder`.
pub(crate) fn store(folder: &Path) -> Store {
    let config = StoreConfig { path: folder.to_owned(), cache_mib: 16 };
    let mut store = Store::open(&config).unwrap();
    for (instance, history) in instances() {
        for revision in 1..=history.len() {
            let mut batch = Batch::default();
            let after = Instance::replay(instance.id, &history[..revision]).unwrap();
            batch.save(&after, &history[revision - 1]);
            store.commit(batch).unwrap();
        }
    }
    let mut batch = Batch::default();
    batch.dead_letter(DeadLetter {
        at: at(0),
        queue: "sagamq.events".to_owned(),
        exchange: "orders".to_owned(),
        key: "order.placed".to_owned(),
        message_id: None,
        reason: "body is not JSON".to_owned(),
        preview: "{oops".to_owned(),
        size: 5,
        ..DeadLetter::default()
    });
    store.commit(batch).unwrap();
    store
}

/// Runs `ask` against a server on a free port, which then stops.
pub(crate) async fn with_server(ask: impl FnOnce(&str, &Health) + Send + 'static) {
    served_within(LIMITS, ask).await;
}

/// The same with other limits; tells how long the stop took.
pub(super) async fn served_within(
    limits: Limits,
    ask: impl FnOnce(&str, &Health) + Send + 'static,
) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let window = StoreWindow::default();
    let (orders, mut taken) = mpsc::channel::<Asked>(1);
    // Whoever has retried is refused, whoever skips is done, and others are never answered.
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        while let Some(asked) = taken.recv().await {
            let told = match asked.order.verb {
                Verb::Retry => Ordered::Refused("not now".to_owned()),
                Verb::Skip => Ordered::Done,
                Verb::Compensate => {
                    unanswered.push(asked);
                    continue;
                }
                _ => continue,
            };
            asked.done.send(told).unwrap();
        }
    });
    let (reloads, _) = mpsc::channel(1);
    window.open(store(folder.path()).reader(), orders, reloads);
    let health = Arc::new(Health::default());
    let metrics = crate::telemetry::metrics();
    let folder = Folder::open("sagas".as_ref()).unwrap();
    let hosts = ["saga.example".to_owned()].into();
    let state = ApiState { store: window, folder, health: Arc::clone(&health), metrics, hosts };
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve_within(limits, listener, state, async { drop(stopped.await) }));
    tokio::task::spawn_blocking(move || ask(&url, &health)).await.unwrap();
    let begun = Instant::now();
    drop(stop);
    server.await.unwrap();
    begun.elapsed()
}

/// Compares a text with `tests/golden/<name>`; with `UPDATE_GOLDEN=1` it writes the file instead.
pub(crate) fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "{} differs (UPDATE_GOLDEN=1 writes it):\n{text}", path.display());
}

fn saga(business_key: &str, entries: Vec<Vec<Fact>>) -> (Instance, Vec<HistoryEntry>) {
    let started = Started {
        store: StoreId::simulated(),
        saga: "order".to_owned(),
        version: 1,
        definition: "d".repeat(64),
        business_key: business_key.to_owned(),
        steps: ["reserve_stock", "charge_payment", "ship"].map(str::to_owned).to_vec(),
        input: json!({"order_id": business_key}).into(),
        attributes: [("customer".to_owned(), "C-1".to_owned())].into(),
        deadline: Some(at(1_800_000)),
        event_id: Some("event-1".to_owned()),
        caller: None,
        trace: None,
    };
    let all = [vec![Fact::Started(Box::new(started))]].into_iter().chain(entries);
    let history: Vec<_> = all
        .enumerate()
        .map(|(index, facts)| HistoryEntry {
            revision: index as u64 + 1,
            causation_id: (index > 0).then(|| format!("message-{index}")),
            user: None,
            facts: facts.into_iter().map(|fact| Recorded { at: at(index as i64 * 1_250), fact }).collect(),
        })
        .collect();
    (Instance::replay(InstanceId::new("order", business_key), &history).unwrap(), history)
}

fn sent(step: usize, phase: Phase, attempt: u32) -> Vec<Fact> {
    vec![Fact::Dispatched { step, phase, attempt }, Fact::Published { step, phase, attempt, due: at(30_000) }]
}

fn step_done(step: usize, attempt: u32, output: serde_json::Value) -> Vec<Fact> {
    let mut facts = sent(step, Phase::Action, attempt);
    facts.push(Fact::succeeded(step, output));
    facts
}

fn unanswered(step: usize) -> Fact {
    Fact::TimedOut { step, phase: Phase::Action, attempt: 1 }
}

fn ignored(what: Ignored, step: usize) -> Fact {
    Fact::Ignored { what, message_id: Some("message-9".to_owned()), step: Some(step), reason: None }
}

fn declined() -> Failure {
    failure("charge_payment", "PAYMENT_DECLINED", "card was declined")
}

fn silent() -> Failure {
    failure("ship", "TIMEOUT", "no reply to 1 attempt")
}

fn failure(step: &str, code: &str, message: &str) -> Failure {
    Failure { step: Some(step.to_owned()), code: code.to_owned(), message: message.to_owned() }
}
