//! Retention: instances that ended long ago go to an archive, and only then out of the store.
//!
//! ```text
//! sweeper:   list expired --> archive, fsync --> ask the runtime --> next
//! runtime:                                       remove with the next commit
//! ```
//!
//! The sweeper only reads the store. Removing is left to its one writer, so an instance that has changed
//! since it was archived stays, and is archived again, with its longer history, when it is looked at again.
//! A crash between archive and removal has the same effect: an instance may be in the archive twice, never
//! not at all.

use std::time::Duration;

use metrics::counter;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use archive::{Archive, ArchiveError};

use crate::config::Config;
use crate::metric;
use crate::runtime::{Archived, Clock};
use crate::saga::fact::HistoryEntry;
use crate::saga::instance::{Instance, Status};
use crate::store::{Order, Query, Reader, Removal, StoreError};

mod archive;

/// Time between two sweeps at most.
const PAUSE: Duration = Duration::from_secs(60);
/// Instances that are listed at a time.
const PAGE: usize = 256;
/// Bytes of lines, beyond which they go to the archive.
const MEMBER: usize = 1 << 20;
/// Instances that are removed in one commit, which others wait for.
const TOGETHER: usize = 64;
/// Instances that started long ago and ended lately, of which one sweep looks at so many at most.
const LOOKS: usize = 10_000;

/// Starts sweeping, if any instance is to be removed ever. It ends when the receiver is dropped.
pub fn start(config: &Config, reader: Reader, clock: Clock) -> mpsc::Receiver<Archived> {
    let (removals, archived) = mpsc::channel(1);
    let retention = &config.retention;
    let ages = [(Status::Completed, retention.completed), (Status::Compensated, retention.compensated)];
    let kept: Vec<_> =
        ages.into_iter().filter_map(|(status, age)| Some(Kept { status, age: age?, cursor: None })).collect();
    if let Some(pause) = kept.iter().map(|kept| kept.age.min(PAUSE)).min() {
        let archive = Archive::new(config.store.path.join(&retention.archive));
        tokio::spawn(Sweeper { kept, archive, reader, clock, removals }.sweep_for_ever(pause));
    }
    archived
}

/// Looks for instances that have been kept long enough.
struct Sweeper {
    kept: Vec<Kept>,
    archive: Archive,
    reader: Reader,
    clock: Clock,
    removals: mpsc::Sender<Archived>,
}

/// How long instances of a status are kept.
struct Kept {
    status: Status,
    age: Duration,
    /// Where the last sweep stopped looking, if not at the end.
    cursor: Option<String>,
}

/// Why a sweep ends early.
#[derive(Debug, thiserror::Error)]
enum Halt {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the orchestrator stops")]
    Stopping,
}

/// What goes to the archive together.
#[derive(Default)]
struct Member {
    lines: Vec<u8>,
    removals: Vec<Removal>,
}

impl Sweeper {
    async fn sweep_for_ever(mut self, pause: Duration) {
        loop {
            tokio::select! {
                () = self.removals.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let swept = tokio::task::spawn_blocking(move || {
                self.sweep();
                self
            });
            self = match swept.await {
                Ok(sweeper) => sweeper,
                Err(panic) => {
                    error!(%panic, "retention has ended: nothing is removed until the next start");
                    return;
                }
            };
        }
    }

    /// Archives and removes all that has been kept long enough.
    fn sweep(&mut self) {
        let mut removed = 0;
        let mut kept = std::mem::take(&mut self.kept);
        for kept in &mut kept {
            match self.sweep_status(kept, &mut removed) {
                Ok(()) | Err(Halt::Stopping) => {}
                Err(Halt::Archive(error)) => warn!(%error, "nothing is removed that cannot be archived"),
                Err(Halt::Store(error)) => error!(%error, "instances that were kept long enough stay"),
            }
        }
        self.kept = kept;
        if removed > 0 {
            let archive = self.archive.folder().display();
            info!(instances = removed, %archive, "instances were kept long enough: archived and removed");
        }
    }

    fn sweep_status(&mut self, kept: &mut Kept, removed: &mut usize) -> Result<(), Halt> {
        let expired = self.clock.now() - kept.age;
        let mut looks = 0;
        loop {
            let page = self.reader.list(&Query {
                statuses: vec![kept.status],
                started_before: Some(expired),
                order: Order::OldestFirst,
                cursor: kept.cursor.take(),
                limit: PAGE,
                ..Query::default()
            })?;
            let mut member = Member::default();
            for instance in page.items {
                let has_expired = instance.ended_at.is_some_and(|ended_at| ended_at < expired);
                if !has_expired || instance.is_open() {
                    looks += 1;
                    continue;
                }
                let history = self.reader.history(instance.id)?;
                member.add(&instance, &history);
                if member.lines.len() >= MEMBER {
                    *removed += self.remove(std::mem::take(&mut member), kept.status)?;
                }
            }
            *removed += self.remove(member, kept.status)?;
            kept.cursor = page.next;
            if kept.cursor.is_none() || looks >= LOOKS {
                return Ok(());
            }
        }
    }

    /// Archives instances, then has them removed; tells how many were.
    fn remove(&mut self, member: Member, status: Status) -> Result<usize, Halt> {
        if member.removals.is_empty() {
            return Ok(0);
        }
        self.archive.append(&member.lines, self.clock.now())?;
        let mut removed = 0;
        for removals in member.removals.chunks(TOGETHER) {
            let (done, told) = oneshot::channel();
            let archived = Archived { removals: removals.to_vec(), done };
            self.removals.blocking_send(archived).map_err(|_| Halt::Stopping)?;
            let count = told.blocking_recv().map_err(|_| Halt::Stopping)?;
            counter!(metric::ARCHIVED, "status" => status.as_str()).increment(count as u64);
            removed += count;
        }
        Ok(removed)
    }
}

impl Member {
    /// Adds an instance, unless it has changed since its history was read.
    fn add(&mut self, instance: &Instance, history: &[HistoryEntry]) {
        if history.last().is_none_or(|last| last.revision != instance.revision) {
            return;
        }
        let line = json!({"instance": instance, "history": history});
        self.lines.extend_from_slice(line.to_string().as_bytes());
        self.lines.push(b'\n');
        self.removals.push(Removal::of(instance));
    }
}

#[cfg(test)]
mod tests;
