//! Definitions that come into force while instances are under way.

use super::Engine;
use crate::catalog::{self, Catalog, CatalogError, Change};
use crate::definitions::Loaded;
use crate::store::Batch;

impl Engine {
    /// Whether definitions could be taken into force, as far as the store can tell.
    ///
    /// # Errors
    /// A version was changed, or the store cannot be read.
    pub fn check(&self, loaded: &[Loaded]) -> Result<(), CatalogError> {
        catalog::define(loaded, &self.reader, &mut Batch::default())
    }

    /// Gathers definitions that the store does not know yet. Once that is committed, they can be
    /// [adopted](Self::adopt).
    ///
    /// # Errors
    /// As [`Engine::check`]; nothing is gathered then.
    pub fn define(&mut self, loaded: &[Loaded]) -> Result<(), CatalogError> {
        catalog::define(loaded, &self.reader, &mut self.gathering.batch)?;
        self.gathering.inputs += 1;
        Ok(())
    }

    /// Takes definitions into force that the store has: from now on, new instances start with them.
    pub fn adopt(&mut self, loaded: &[Loaded]) -> Change {
        self.catalog.change(loaded)
    }

    /// The definitions that it knows.
    pub(crate) fn catalog_mut(&mut self) -> &mut Catalog {
        &mut self.catalog
    }
}
