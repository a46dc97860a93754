//! The store as the API sees it, and where it hands orders and reloads in: there is neither before the store is opened,
//! nor while its disk is full.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::error::ApiError;
use crate::reload::Reload;
use crate::runtime::Asked;
use crate::store::Reader;

/// Where the API finds the store. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct StoreWindow(Arc<RwLock<Option<Open>>>);

/// A store that is open.
#[derive(Clone, Debug)]
struct Open {
    reader: Reader,
    orders: mpsc::Sender<Asked>,
    reloads: mpsc::Sender<Reload>,
}

impl StoreWindow {
    /// Shows a store, and who takes orders and reloads over it.
    pub fn open(&self, reader: Reader, orders: mpsc::Sender<Asked>, reloads: mpsc::Sender<Reload>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Open { reader, orders, reloads });
    }

    /// Shows none: requests that are under way let go of it soon.
    pub fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Who takes reloads, while the store is open.
    pub fn reloads(&self) -> Option<mpsc::Sender<Reload>> {
        self.opened().ok().map(|open| open.reloads)
    }

    pub(super) fn reader(&self) -> Result<Reader, ApiError> {
        Ok(self.opened()?.reader)
    }

    pub(super) fn orders(&self) -> Result<mpsc::Sender<Asked>, ApiError> {
        Ok(self.opened()?.orders)
    }

    fn opened(&self) -> Result<Open, ApiError> {
        let open = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        open.ok_or_else(|| ApiError::unavailable("the store is not open: /readyz tells what is awaited"))
    }
}
