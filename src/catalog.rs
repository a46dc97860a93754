//! The catalog: which definitions are in force, and which are kept for the instances that started with
//! them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::definitions::Loaded;
use crate::saga::compile;
use crate::saga::expression::{ExpressionError, Scope};
use crate::saga::instance::Instance;
use crate::saga::message::Message;
use crate::saga::plan::{DefinitionHash, Plan, Subscription};
use crate::saga::reply;
use crate::store::{Batch, Reader, StoreError};

/// All definitions that are known to a running orchestrator.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The highest version of each saga in the folder.
    starting: Vec<Arc<Plan>>,
    plans: HashMap<DefinitionHash, Arc<Plan>>,
}

/// Why definitions cannot be taken into force.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file was changed under a version that the store knows with another content.
    #[error(
        "{file}: saga {saga} v{version} is not the one that was deployed: a version never changes, \
         give the changed definition a higher `version`"
    )]
    Changed {
        /// The file.
        file: String,
        /// Name of the saga.
        saga: String,
        /// Version of the definition.
        version: u32,
    },
    /// An instance's definition is neither in the folder nor in the store.
    #[error(
        "the definition of instance {instance} (saga {saga} v{version}) is missing from the store: \
         put its file back into the definitions folder"
    )]
    Missing {
        /// The instance.
        instance: String,
        /// Name of the saga.
        saga: String,
        /// Version of the definition.
        version: u32,
    },
    /// A definition in the store is not understood any more.
    #[error("the stored definition of saga {saga} v{version} cannot be used: {reason}")]
    Unusable {
        /// Name of the saga.
        saga: String,
        /// Version of the definition.
        version: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Catalog {
    /// Takes the definitions of a folder into force. The batch holds those that the store does not know
    /// yet; commit it before anything starts.
    ///
    /// # Errors
    /// A version was changed, or the store cannot be read.
    pub fn adopt(loaded: Vec<Loaded>, reader: &Reader) -> Result<(Self, Batch), CatalogError> {
        let mut batch = Batch::default();
        for Loaded { file, source, plan } in &loaded {
            match reader.definition_hash(&plan.saga, plan.version)? {
                Some(known) if known != plan.hash => {
                    let (file, saga) = (file.clone(), plan.saga.clone());
                    return Err(CatalogError::Changed { file, saga, version: plan.version });
                }
                Some(_) => {}
                None => batch.define(&plan.saga, plan.version, &plan.hash, source),
            }
        }
        Ok((Self::of(loaded), batch))
    }

    /// A catalog of these definitions alone.
    pub fn of(loaded: Vec<Loaded>) -> Self {
        let mut catalog = Self::default();
        for Loaded { plan, .. } in loaded {
            catalog.plans.insert(plan.hash.clone(), Arc::clone(&plan));
            match catalog.starting.iter_mut().find(|known| known.saga == plan.saga) {
                Some(known) if known.version < plan.version => *known = plan,
                Some(_) => {}
                None => catalog.starting.push(plan),
            }
        }
        catalog
    }

    /// The plan that an instance started with. One that is not in the folder any more is read from the
    /// store.
    ///
    /// # Errors
    /// The store does not have it, or it cannot be used.
    pub fn plan_of(&mut self, instance: &Instance, reader: &Reader) -> Result<Arc<Plan>, CatalogError> {
        if let Some(plan) = self.plans.get(&instance.definition) {
            return Ok(Arc::clone(plan));
        }
        let (saga, version) = (instance.saga.clone(), instance.version);
        let source = reader.definition(&instance.definition)?.ok_or_else(|| CatalogError::Missing {
            instance: instance.id.to_string(),
            saga: saga.clone(),
            version,
        })?;
        let plan = compile::reload("store", &source).map_err(|problems| {
            let reason = problems.first().map(ToString::to_string).unwrap_or_default();
            CatalogError::Unusable { saga, version, reason }
        })?;
        let plan = Arc::new(plan);
        self.plans.insert(instance.definition.clone(), Arc::clone(&plan));
        Ok(plan)
    }

    /// The plan that a new instance of a saga starts with.
    pub fn in_force(&self, saga: &str) -> Option<Arc<Plan>> {
        self.starting.iter().find(|plan| plan.saga == saga).cloned()
    }

    /// The plans that new instances start with.
    pub fn starting(&self) -> Vec<Arc<Plan>> {
        self.starting.clone()
    }

    /// The instances that an event cancels, as saga and business key.
    pub fn cancelled_by(&self, message: &Message) -> Vec<(String, Result<String, ExpressionError>)> {
        let scope = Scope { event: Some(message), ..Scope::default() };
        self.distinct(|plan| {
            let cancel =
                plan.cancel.iter().filter(|cancel| cancel.on.matches(&message.exchange, &message.key));
            cancel.map(|cancel| cancel.business_key.evaluate_key(&scope)).collect()
        })
    }

    /// The instances that an event may answer, as saga and business key.
    pub fn answered_by(&self, message: &Message) -> Vec<(String, Result<String, ExpressionError>)> {
        self.distinct(|plan| reply::business_keys(plan, message))
    }

    /// Every pattern that any known definition listens to.
    pub fn subscriptions(&self) -> Vec<Subscription> {
        let mut all: Vec<_> = self.plans.values().flat_map(|plan| plan.subscriptions()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Every exchange that any known definition names.
    pub fn exchanges(&self) -> Vec<String> {
        let mut all: Vec<_> = self.plans.values().flat_map(|plan| plan.exchanges()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// What `keys` finds over all plans, each saga and business key once. A failed expression counts
    /// only where no version of the saga has found a key.
    fn distinct(
        &self,
        keys: impl Fn(&Plan) -> Vec<Result<String, ExpressionError>>,
    ) -> Vec<(String, Result<String, ExpressionError>)> {
        let mut found: Vec<(String, Result<String, ExpressionError>)> = Vec::new();
        for plan in self.plans.values() {
            for key in keys(plan) {
                let same = |(saga, known): &(String, Result<String, ExpressionError>)| {
                    *saga == plan.saga && (key.is_err() || known.as_ref().ok() == key.as_ref().ok())
                };
                if !found.iter().any(same) {
                    found.retain(|(saga, known)| *saga != plan.saga || known.is_ok());
                    found.push((plan.saga.clone(), key));
                }
            }
        }
        found
    }
}
