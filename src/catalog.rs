//! The catalog: which definitions are in force, and which are kept for the instances that started with
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use change::{Change, ChangeKind, SagaChange};

use crate::definitions::{self, DefinitionsError, Loaded};
use crate::saga::arrival::{Arrival, arrival};
use crate::saga::code::Code;
use crate::saga::compile;
use crate::saga::expression::{ExpressionError, Scope};
use crate::saga::instance::Instance;
use crate::saga::message::Message;
use crate::saga::plan::{DefinitionHash, Plan, Subscription};
use crate::saga::problem::Problem;
use crate::saga::reply;
use crate::store::{Batch, Reader, StoreError};

mod change;

/// All definitions that are known to a running orchestrator.
///
/// A definition is **needed** while it is in force, or while an instance that started with it is open or
/// parked. Others are known as long as nothing is lost by it; the store has all.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The highest version of each saga in the folder.
    starting: Vec<Arc<Plan>>,
    /// In one order in every process: what an event means for several sagas is decided, and sent, in that order.
    known: BTreeMap<DefinitionHash, Known>,
    /// What the definitions that are known listen to now.
    heard: BTreeSet<Subscription>,
    /// Patterns that the event queue may be bound to, whether or not a definition that is needed has them.
    bound: BTreeSet<Subscription>,
    /// Those of definitions that are about to come into force: the broker has them, or is being asked.
    expected: BTreeSet<Subscription>,
    /// Those of `bound` that nobody listens to and by which an event came all the same.
    left_over: BTreeSet<Subscription>,
    /// Whether other definitions are needed than when it was last asked for.
    shifted: bool,
}

/// A definition that is known.
#[derive(Debug)]
struct Known {
    plan: Arc<Plan>,
    /// How many instances that started with it are open or parked.
    instances: usize,
}

/// Why definitions cannot be taken into force.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Files were changed under versions that the store knows with another content.
    #[error(transparent)]
    Changed(#[from] DefinitionsError),
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
    pub fn adopt(loaded: &[Loaded], reader: &Reader) -> Result<(Self, Batch), CatalogError> {
        let (mut catalog, mut batch) = (Self::default(), Batch::default());
        define(loaded, reader, &mut batch)?;
        catalog.change(loaded);
        Ok((catalog, batch))
    }

    /// Takes other definitions into force; the store must have them. What was in force goes on for its
    /// instances, and is forgotten where there are none.
    pub fn change(&mut self, loaded: &[Loaded]) -> Change {
        for Loaded { plan, .. } in loaded {
            self.know(plan);
        }
        let before = std::mem::take(&mut self.starting);
        let in_force = definitions::in_force(loaded).into_iter();
        self.starting = in_force.map(|loaded| Arc::clone(&self.known[&loaded.plan.hash].plan)).collect();
        let needed: Vec<_> = self.needed().map(|plan| plan.hash.clone()).collect();
        self.known.retain(|hash, _| needed.contains(hash));
        self.listen();
        self.expected.clear();
        self.left_over.clear();
        self.shift();
        Change::between(&before, &self.starting)
    }

    /// The plan that an instance started with. One that is not known is read from the store.
    ///
    /// # Errors
    /// The store does not have it, or it cannot be used.
    pub fn plan_of(&mut self, instance: &Instance, reader: &Reader) -> Result<Arc<Plan>, CatalogError> {
        if let Some(known) = self.known.get(&instance.definition) {
            return Ok(Arc::clone(&known.plan));
        }
        let whole = stored(instance, reader)?;
        self.know(&whole);
        of_family(&whole, instance)
    }

    /// The plan that a new instance of a saga starts with.
    pub fn in_force(&self, saga: &str) -> Option<Arc<Plan>> {
        self.starting.iter().find(|plan| plan.saga == saga).cloned()
    }

    /// Counts an instance that began, or is open again: its definition is needed.
    ///
    /// An item's instance does not count: the one that called it does.
    pub(crate) fn hold(&mut self, plan: &Arc<Plan>) {
        if plan.is_body() {
            return;
        }
        if !self.known.contains_key(&plan.hash) {
            self.know(plan);
        }
        let Some(known) = self.known.get_mut(&plan.hash) else { return };
        known.instances += 1;
        if known.instances == 1 && !self.starts(&plan.hash) {
            self.shift();
        }
    }

    /// Counts an instance as ended, once that is durable. After the last one, a definition that is not in
    /// force is forgotten. An item's instance does not count.
    pub(crate) fn let_go(&mut self, plan: &Plan) {
        if plan.is_body() {
            return;
        }
        let Some(known) = self.known.get_mut(&plan.hash) else { return };
        known.instances = known.instances.saturating_sub(1);
        if known.instances == 0 && !self.starts(&plan.hash) {
            self.known.retain(|hash, _| base(hash) != plan.hash);
            self.listen();
            self.shift();
        }
    }

    /// Has the event queue stay bound to what these definitions listen to, until they come into force, or
    /// others are expected in their place.
    pub(crate) fn expect(&mut self, loaded: &[Loaded]) {
        let in_force = definitions::in_force(loaded).into_iter();
        self.expected = in_force.flat_map(|loaded| loaded.plan.subscriptions()).collect();
        self.bound.extend(self.expected.iter().cloned());
        self.shifted = true;
    }

    /// Takes the patterns of all definitions that the store has and that are not known for some that the event
    /// queue may be bound to: they were in force once.
    ///
    /// Compiles each of them. Those of an earlier release that cannot be are left out.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn suspect_stored(&mut self, reader: &Reader) -> Result<(), StoreError> {
        for (_, _, hash) in reader.versions()? {
            if self.known.contains_key(&hash) {
                continue;
            }
            let source = reader.definition(&hash)?.unwrap_or_default();
            if let Ok(plan) = compile::reload("store", &source) {
                self.bound.extend(plan.subscriptions());
            }
        }
        Ok(())
    }

    /// Whether other definitions are needed than when this was last asked.
    pub(crate) fn take_shifted(&mut self) -> bool {
        std::mem::take(&mut self.shifted)
    }

    /// The plans that new instances start with.
    pub fn starting(&self) -> Vec<Arc<Plan>> {
        self.starting.clone()
    }

    /// The plans that are needed: those in force, and then those of open and parked instances.
    pub fn needed(&self) -> impl Iterator<Item = &Plan> {
        let is_in_force = |known: &&Known| self.starts(base(&known.plan.hash));
        let is_kept = move |known: &&Known| {
            let base = base(&known.plan.hash);
            !self.starts(base) && self.known.get(base).is_some_and(|known| known.instances > 0)
        };
        let (in_force, kept) = (self.known.values().filter(is_in_force), self.known.values().filter(is_kept));
        in_force.chain(kept).map(|known| &*known.plan)
    }

    /// Patterns that the event queue may be bound to, and that no definition has that is needed or expected.
    pub fn unneeded(&self) -> Vec<Subscription> {
        let needed: BTreeSet<_> = self.needed().flat_map(Plan::subscriptions).collect();
        let unneeded = self.bound.difference(&needed);
        unneeded.filter(|on| !self.expected.contains(on)).cloned().collect()
    }

    /// The instances that an event cancels, as saga and business key.
    pub fn cancelled_by(&self, message: &Message) -> Vec<(String, Result<String, ExpressionError>)> {
        let scope = Scope { event: Some(message), ..Scope::default() };
        self.distinct(|plan| {
            let cancel = plan.cancel.iter().filter(|cancel| cancel.on.hears(message));
            cancel.map(|cancel| cancel.business_key.evaluate_key(&scope)).collect()
        })
    }

    /// The instances that an event may answer, as saga and business key.
    pub fn answered_by(&self, message: &Message) -> Vec<(String, Result<String, ExpressionError>)> {
        self.distinct(|plan| reply::business_keys(plan, message))
    }

    /// By which binding an event came, of those that definitions have that are known.
    pub(crate) fn arrival(&self, message: &Message) -> Arrival<'_> {
        arrival(&self.heard, message)
    }

    /// Whether an event came by a binding that is there for nothing: of a definition that was in force, or is about
    /// to be. `Some(true)` for the first that comes by it.
    pub(crate) fn take_left_over(&mut self, message: &Message) -> Option<bool> {
        let on = self.bound.iter().find(|on| on.lets_through(message))?;
        Some(self.left_over.insert(on.clone()))
    }

    fn know(&mut self, plan: &Arc<Plan>) {
        for plan in Plan::family(plan) {
            self.known.entry(plan.hash.clone()).or_insert(Known { plan, instances: 0 });
        }
        self.listen();
    }

    /// Notes what the definitions that are known listen to; the starts are those of the ones in force.
    fn listen(&mut self) {
        let starts = self.starting.iter().filter_map(|plan| Some(&plan.start.as_ref()?.on));
        let all = self.known.values().flat_map(|known| known.plan.listens()).chain(starts);
        self.heard = all.cloned().collect();
    }

    fn starts(&self, hash: &str) -> bool {
        self.starting.iter().any(|plan| plan.hash == *hash)
    }

    /// Notes that other definitions are needed. What is needed now may be bound from here on.
    fn shift(&mut self) {
        let needed: Vec<_> = self.needed().flat_map(Plan::subscriptions).collect();
        self.bound.extend(needed);
        self.shifted = true;
    }

    /// What `keys` finds over all plans, each saga and business key once. A failed expression counts
    /// only where no version of the saga has found a key.
    fn distinct(
        &self,
        keys: impl Fn(&Plan) -> Vec<Result<String, ExpressionError>>,
    ) -> Vec<(String, Result<String, ExpressionError>)> {
        let mut found: Vec<(String, Result<String, ExpressionError>)> = Vec::new();
        for Known { plan, .. } in self.known.values() {
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

/// Adds those of the definitions to a batch that the store does not know yet; all or nothing.
///
/// # Errors
/// Versions that the store knows with another content, or the store cannot be read.
pub fn define(loaded: &[Loaded], reader: &Reader, batch: &mut Batch) -> Result<(), CatalogError> {
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for one in loaded {
        match reader.definition_hash(&one.plan.saga, one.plan.version)? {
            None => new.push(one),
            Some(known) if known == one.plan.hash => {}
            Some(_) => changed.push(was_changed(one)),
        }
    }
    if !changed.is_empty() {
        return Err(DefinitionsError(changed).into());
    }
    for Loaded { source, plan, .. } in new {
        batch.define(&plan.saga, plan.version, &plan.hash, source);
    }
    Ok(())
}

/// The plan that an instance started with, as the store has it.
///
/// # Errors
/// The store does not have it, or it cannot be used.
pub fn stored_plan(instance: &Instance, reader: &Reader) -> Result<Arc<Plan>, CatalogError> {
    of_family(&stored(instance, reader)?, instance)
}

/// The whole definition that an instance started with, or with a body of it.
fn stored(instance: &Instance, reader: &Reader) -> Result<Arc<Plan>, CatalogError> {
    let source =
        reader.definition(&base(&instance.definition).to_owned())?.ok_or_else(|| missing(instance))?;
    let plan = compile::reload("store", &source).map_err(|problems| {
        let reason = problems.first().map(ToString::to_string).unwrap_or_default();
        CatalogError::Unusable { saga: instance.saga.clone(), version: instance.version, reason }
    })?;
    Ok(Arc::new(plan))
}

fn of_family(whole: &Arc<Plan>, instance: &Instance) -> Result<Arc<Plan>, CatalogError> {
    let own = Plan::family(whole).into_iter().find(|plan| plan.hash == instance.definition);
    own.ok_or_else(|| missing(instance))
}

fn missing(instance: &Instance) -> CatalogError {
    let (saga, version) = (instance.saga.clone(), instance.version);
    CatalogError::Missing { instance: instance.id.to_string(), saga, version }
}

fn was_changed(Loaded { file, plan, .. }: &Loaded) -> Problem {
    let message = format!("saga {} v{} is not the one that was deployed", plan.saga, plan.version);
    let hint = "a version never changes: give the changed definition a higher `version`, or undo the change";
    Problem::of_file(Code::ChangedVersion, file, &message, Some(hint.to_owned()))
}

/// The hash of the definition of which a plan is the whole, or a body.
fn base(hash: &str) -> &str {
    hash.split('.').next().unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(saga: &str, version: u32, key: &str) -> Loaded {
        let source = format!(
            "saga: {saga}\nversion: {version}\n\
             start: {{on: {{exchange: orders, key: {key}}}, business_key: =event.data.id}}\n\
             steps: [{{step: do, command: {{exchange: work, key: do}}, compensate: none}}]\n"
        );
        let plan = Arc::new(compile::load("x.yaml", &source).unwrap());
        Loaded { file: format!("{saga}-{version}.yaml"), source, plan }
    }

    fn listened(catalog: &Catalog) -> Vec<String> {
        let mut patterns: Vec<_> =
            catalog.needed().flat_map(Plan::subscriptions).map(|on| on.pattern).collect();
        patterns.sort();
        patterns
    }

    fn unneeded(catalog: &Catalog) -> Vec<String> {
        catalog.unneeded().into_iter().map(|on| on.pattern).collect()
    }

    #[test]
    fn a_change_says_what_becomes_of_each_saga() {
        let mut catalog = Catalog::default();
        catalog.change(&[
            loaded("gone", 3, "a"),
            loaded("lower", 2, "b"),
            loaded("raised", 1, "c"),
            loaded("same", 1, "d"),
        ]);
        let change = catalog.change(&[
            loaded("lower", 1, "b"),
            loaded("new", 1, "e"),
            loaded("raised", 1, "c"),
            loaded("raised", 2, "c"),
            loaded("same", 1, "d"),
        ]);
        let told: Vec<_> = change.sagas.iter().map(ToString::to_string).collect();
        let expected = [
            "gone: removed, nothing starts with version 3 any more",
            "lower: version 1 is in force, lower than 2 before: it is the highest in the folder",
            "new: version 1 is new",
            "raised: version 2 is in force, before it 1",
            "same: version 1 as before",
        ];
        assert_eq!(told, expected);
        assert_eq!(change.to_string(), expected[..4].join("; "));
        let again = catalog.change(&[loaded("same", 1, "d")]);
        assert_eq!(again.sagas.last().map(|saga| saga.change), Some(ChangeKind::Unchanged));
        assert_eq!(catalog.change(&[loaded("same", 1, "d")]).to_string(), "nothing");
    }

    #[test]
    fn the_instance_of_an_item_neither_needs_a_definition_nor_changes_what_is_needed() {
        let source = "saga: order\nversion: 1\n\
                      start: {on: {exchange: orders, key: placed}, business_key: =event.data.id}\n\
                      steps: [{foreach: all, items: =input, steps: [{delay: rest, for: 1m}]}]\n";
        let plan = Arc::new(compile::load("x.yaml", source).unwrap());
        let mut catalog = Catalog::default();
        catalog.change(&[Loaded { file: "x.yaml".into(), source: source.into(), plan: Arc::clone(&plan) }]);
        catalog.hold(&plan);
        catalog.take_shifted();
        let body = &Plan::family(&plan)[1];
        catalog.hold(body);
        catalog.let_go(body);
        assert!(!catalog.take_shifted(), "each item that ends would have the topology compared");
        assert_eq!(catalog.known[&plan.hash].instances, 1);
    }

    #[test]
    fn a_definition_is_needed_until_it_is_not_in_force_and_its_last_instance_lets_go() {
        let mut catalog = Catalog::default();
        let (first, second) = (loaded("order", 1, "placed"), loaded("order", 2, "sent"));
        catalog.change(std::slice::from_ref(&first));
        catalog.hold(&first.plan);
        catalog.hold(&first.plan);
        assert!(catalog.take_shifted());
        catalog.change(std::slice::from_ref(&second));
        assert_eq!((listened(&catalog), unneeded(&catalog).len()), (vec!["placed".into(), "sent".into()], 0));
        assert!(catalog.take_shifted());
        catalog.let_go(&first.plan);
        assert!(!catalog.take_shifted(), "one is left");
        catalog.let_go(&first.plan);
        assert!(catalog.take_shifted());
        assert_eq!((listened(&catalog), unneeded(&catalog)), (vec!["sent".into()], vec!["placed".into()]));
        assert_eq!(catalog.known.len(), 1);

        // A late answer may open one again.
        catalog.hold(&first.plan);
        assert!(catalog.take_shifted());
        assert_eq!((listened(&catalog).len(), unneeded(&catalog).len()), (2, 0));

        // What is to come into force is bound already, and must stay so.
        catalog.expect(&[first.clone(), loaded("order", 3, "refused")]);
        catalog.let_go(&first.plan);
        assert_eq!(unneeded(&catalog), ["placed"], "only the third is to come into force");
        catalog.expect(&[loaded("order", 3, "placed")]);
        assert_eq!(unneeded(&catalog), ["refused"]);
        catalog.expect(&[]);
        assert!(catalog.take_shifted());
        assert_eq!(unneeded(&catalog), ["placed", "refused"]);
        catalog.change(&[first]);
        assert_eq!(
            (listened(&catalog), unneeded(&catalog)),
            (vec!["placed".into()], vec!["refused".into(), "sent".into()])
        );
    }
}
