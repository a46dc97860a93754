//! Backups: one at a time, on a thread of its own, for as long as it takes. No request waits for it: who asked for one
//! asks how it stands.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::HeaderMap;
use metrics::counter;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::api::{self, ApiState, Pairs};
use super::error::ApiError;
use super::store::StoreWindow;
use super::view::Time;
use crate::metric;
use crate::saga::time::Timestamp;
use crate::store::{self, BackedUp, BackupError, BackupPlace, Cancel, Reader};

/// How often it is looked whether a backup that was cancelled has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupOrder {
    /// The folder that is to be made, an absolute path where the orchestrator runs.
    pub dir: PathBuf,
}

/// How a backup stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupView {
    /// Which one it is, counted from the start of the process.
    pub number: u64,
    /// The folder, with no links in its path.
    pub dir: PathBuf,
    /// `running`, `whole` or `failed`.
    pub state: String,
    /// Id of the store.
    pub store: String,
    /// When it began.
    pub started_at: Time,
    /// Bytes of keys and values that have been written so far.
    pub copied: u64,
    /// Instances in it, once it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u64>,
    /// Bytes that its files take, once it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The commit that it is of, once it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<u64>,
    /// How long it took, in milliseconds, once it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The state of a backup that is under way.
pub const RUNNING: &str = "running";
/// That of one that is on disk for good.
pub const WHOLE: &str = "whole";
/// That of one of which nothing is left.
pub const FAILED: &str = "failed";

/// The backup that is under way, or the last one. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Backups(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    last: Option<BackupView>,
    is_busy: bool,
    cancel: Cancel,
}

/// Begins a backup, and answers how it stands.
pub(super) async fn begin(
    State(state): State<ApiState>,
    headers: HeaderMap,
    order: Result<Json<BackupOrder>, JsonRejection>,
) -> Result<Json<BackupView>, ApiError> {
    api::not_from_a_page(&headers)?;
    let Json(BackupOrder { dir }) = order.map_err(|error| ApiError::bad_order(error.body_text()))?;
    let (reader, backups) = (state.store.reader()?, state.store.backups().clone());
    // It looks at folders, which may hang.
    let begun = tokio::task::spawn_blocking(move || backups.begin(reader, &dir)).await;
    begun.map_err(|error| ApiError::internal(format!("the backup was cut short: {error}")))?.map(Json)
}

/// Tells how the last one stands.
pub(super) async fn last(State(state): State<ApiState>, pairs: Pairs) -> Result<Json<BackupView>, ApiError> {
    api::parameters(pairs)?.finish()?;
    let none = || ApiError::not_found("there was no backup since the orchestrator started");
    state.store.backups().lock().last.clone().map(Json).ok_or_else(none)
}

impl Backups {
    fn begin(&self, reader: Reader, dir: &Path) -> Result<BackupView, ApiError> {
        let cancel = Cancel::default();
        {
            let mut known = self.lock();
            if known.is_busy {
                return Err(BackupError::Busy.into());
            }
            (known.is_busy, known.cancel) = (true, cancel.clone());
        }
        // Not under the lock: a folder may hang, and others ask how the last one stands.
        let begun = BackupPlace::make(dir, reader.path()).map_err(ApiError::from);
        let begun = begun.and_then(|place| self.start(reader, place, cancel));
        begun.inspect_err(|_| self.lock().is_busy = false)
    }

    fn start(&self, reader: Reader, place: BackupPlace, cancel: Cancel) -> Result<BackupView, ApiError> {
        let view = BackupView {
            number: self.lock().last.as_ref().map_or(0, |last| last.number) + 1,
            dir: place.path().to_owned(),
            state: RUNNING.to_owned(),
            store: reader.identity().id.to_string(),
            started_at: Time(Timestamp::from(chrono::Utc::now())),
            copied: 0,
            instances: None,
            bytes: None,
            commit: None,
            took_ms: None,
            error: None,
        };
        info!(dir = %view.dir.display(), "backup begun");
        self.lock().last = Some(view.clone());
        let backups = self.clone();
        let spawned = thread::Builder::new().name("backup".to_owned()).spawn(move || {
            let done =
                store::back_up(&reader, place, &cancel, |copied| backups.change(|view| view.copied = copied));
            // Whoever hears of the end may stop and open the store, or the backup.
            drop(reader);
            backups.end(done);
        });
        spawned.map(|_| view).map_err(|error| {
            self.lock().last = None;
            ApiError::internal(format!("no thread can be started for the backup: {error}"))
        })
    }

    fn end(&self, done: Result<BackedUp, BackupError>) {
        let result = if done.is_ok() { WHOLE } else { FAILED };
        counter!(metric::BACKUPS, "result" => result).increment(1);
        match &done {
            Ok(BackedUp { path, instances, bytes, commit, took }) => {
                info!(dir = %path.display(), instances, bytes, commit, ?took, "backup is whole");
            }
            Err(error) => error!(%error, "there is no backup"),
        }
        let mut known = self.lock();
        known.is_busy = false;
        if let Some(view) = &mut known.last {
            view.state = result.to_owned();
            match done {
                Ok(BackedUp { instances, bytes, commit, took, .. }) => {
                    view.instances = Some(instances);
                    view.bytes = Some(bytes);
                    view.commit = Some(commit);
                    view.took_ms = Some(took.as_millis() as u64);
                }
                Err(error) => view.error = Some(error.to_string()),
            }
        }
    }

    /// Has the one that is under way end soon. Nothing of it is left then.
    pub(super) fn cancel(&self) {
        self.lock().cancel.cancel();
    }

    /// Waits until none is under way, but not for long.
    pub(super) async fn ended_within(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.lock().is_busy && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut BackupView)) {
        self.lock().last.as_mut().map(change);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each change leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreWindow {
    /// Waits until no backup is under way any more, but not for long: after [`StoreWindow::close`], one that is ends
    /// soon.
    pub async fn backup_ends_within(&self, patience: Duration) {
        self.backups().ended_within(patience).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::client::Client;
    use crate::config::StoreConfig;
    use crate::http::fixture::{self, with_server};
    use crate::store::Store;

    /// What the API answers to a body, or to none.
    fn call(url: &str, body: Option<Value>, origin: bool) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let path = format!("{url}/api/v1/backup");
        let mut answer = match body {
            None => agent.get(path).call().unwrap(),
            Some(body) if origin => agent.post(path).header("origin", url).send_json(body).unwrap(),
            Some(body) => agent.post(path).send_json(body).unwrap(),
        };
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    #[tokio::test]
    async fn a_backup_is_begun_by_one_request_and_told_of_by_others() {
        with_server(|url, _| {
            assert_eq!(call(url, None, false).0, 404);
            let folder = tempfile::tempdir().unwrap();
            let monday = json!({"dir": folder.path().join("monday")});
            for (body, origin, status, message) in [
                (monday.clone(), true, 403, "no orders are taken from web pages"),
                (json!({"dir": "monday"}), false, 409, "must be absolute"),
                (json!({"dir": folder.path()}), false, 200, ""),
                (json!({"folder": "/monday"}), false, 400, "unknown field"),
                (json!({}), false, 400, "missing field"),
            ] {
                let (found, answer) = call(url, Some(body.clone()), origin);
                assert_eq!(found, status, "{body}: {answer}");
                assert!(
                    answer["error"]["message"].as_str().unwrap_or_default().contains(message),
                    "{answer}"
                );
            }
            let last = || serde_json::from_value::<BackupView>(call(url, None, false).1).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while last().state == RUNNING {
                assert!(Instant::now() < deadline, "in vain");
            }
            let first = last();
            let instances = fixture::instances().len() as u64;
            assert_eq!((first.state.as_str(), first.number, first.instances), (WHOLE, 1, Some(instances)));
            let store = Store::open(&StoreConfig { path: first.dir, cache_mib: 16 }).unwrap();
            assert_eq!(store.reader().identity().id.to_string(), first.store);
            let refused = Client::new(url, None)
                .unwrap()
                .post("/api/v1/backup", &json!({"dir": folder.path()}))
                .err()
                .unwrap();
            assert_eq!(refused.exit(), crate::cli::Exit::Usage, "{refused}");
        })
        .await;
    }
}
