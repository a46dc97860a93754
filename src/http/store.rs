//! The store as the API sees it, and where it hands orders and reloads in: there is neither before the store is opened,
//! nor while its disk is full.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;

use super::backup::Backups;
use super::error::ApiError;
use crate::reload::Reload;
use crate::runtime::Asked;
use crate::store::{Cancel, Reader, StoreError};

/// Reads of the store at a time; others wait for theirs. More would be no quicker, and take the disk from sagas.
const READS: usize = 4;

/// Where the API finds the store. Clones are the same place.
#[derive(Clone, Debug)]
pub struct StoreWindow {
    open: Arc<RwLock<Option<Open>>>,
    reads: Arc<Semaphore>,
    backups: Backups,
}

/// A store that is open.
#[derive(Clone, Debug)]
struct Open {
    reader: Reader,
    orders: mpsc::Sender<Asked>,
    reloads: mpsc::Sender<Reload>,
}

/// Cancels a read when it is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Default for StoreWindow {
    fn default() -> Self {
        Self { open: Arc::default(), reads: Arc::new(Semaphore::new(READS)), backups: Backups::default() }
    }
}

impl StoreWindow {
    /// Shows a store, and who takes orders and reloads over it.
    pub fn open(&self, reader: Reader, orders: mpsc::Sender<Asked>, reloads: mpsc::Sender<Reload>) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(Open { reader, orders, reloads });
    }

    /// Shows none: requests that are under way let go of it soon, and so does a backup, which is given up.
    pub fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.backups.cancel();
    }

    /// Who takes reloads, while the store is open.
    pub fn reloads(&self) -> Option<mpsc::Sender<Reload>> {
        self.opened().ok().map(|open| open.reloads)
    }

    /// Reads the store on a thread that may block, as one of a few. A read that nobody waits for any more, since
    /// its client has gone away or the API stops, is cancelled.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let closed = |_| ApiError::unavailable("the API stops");
        let turn = Arc::clone(&self.reads).acquire_owned().await.map_err(closed)?;
        let cancel = CancelOnDrop(Cancel::default());
        let reader = self.opened()?.reader.until(cancel.0.clone());
        let reading = spawn_blocking(move || {
            let _turn = turn;
            read(&reader)
        });
        match reading.await {
            Ok(outcome) => Ok(outcome?),
            Err(error) => Err(ApiError::internal(format!("reading the store was cut short: {error}"))),
        }
    }

    /// A reader for what takes long, and is cancelled by other means.
    pub(super) fn reader(&self) -> Result<Reader, ApiError> {
        Ok(self.opened()?.reader)
    }

    /// The backups that are made of it.
    pub(super) fn backups(&self) -> &Backups {
        &self.backups
    }

    pub(super) fn orders(&self) -> Result<mpsc::Sender<Asked>, ApiError> {
        Ok(self.opened()?.orders)
    }

    fn opened(&self) -> Result<Open, ApiError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner).clone();
        open.ok_or_else(|| ApiError::unavailable("the store is not open: /readyz tells what is awaited"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::http::fixture;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn window(folder: &std::path::Path) -> StoreWindow {
        let window = StoreWindow::default();
        window.open(fixture::store(folder).reader(), mpsc::channel(1).0, mpsc::channel(1).0);
        window
    }

    async fn until(holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "in vain");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_few_reads_are_made_at_a_time_and_end_when_nobody_waits_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let window = window(folder.path());
        let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut abandoned = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let (window, begun, ended) = (window.clone(), Arc::clone(&begun), Arc::clone(&ended));
            abandoned.spawn(async move {
                let read = window.read(move |reader| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    // A list without an end.
                    let cancelled = loop {
                        if let Err(error) = reader.list(&Default::default()) {
                            break error;
                        }
                    };
                    ended.fetch_add(1, Ordering::SeqCst);
                    Err::<(), _>(cancelled)
                });
                read.await
            });
        }
        until(|| begun.load(Ordering::SeqCst) == READS).await;
        abandoned.shutdown().await;
        until(|| ended.load(Ordering::SeqCst) == READS).await;
        assert_eq!(begun.load(Ordering::SeqCst), READS, "who has given up gets no turn");
        assert_eq!(window.read(|reader| reader.list(&Default::default())).await.unwrap().items.len(), 5);
    }
}
