//! The store as the API sees it: there is none before it is opened, nor while its disk is full.

use std::sync::{Arc, PoisonError, RwLock};

use super::error::ApiError;
use crate::store::Reader;

/// Where the API finds the store. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct StoreWindow(Arc<RwLock<Option<Reader>>>);

impl StoreWindow {
    /// Shows a store.
    pub fn open(&self, reader: Reader) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
    }

    /// Shows none: requests that are under way let go of it soon.
    pub fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn reader(&self) -> Result<Reader, ApiError> {
        let reader = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        reader.ok_or_else(|| ApiError::unavailable("the store is not open: /readyz tells what is awaited"))
    }
}
