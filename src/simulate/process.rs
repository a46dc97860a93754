//! The orchestrator as a process that can die: the real engine and the real store, with what only lives
//! in memory around them. It does what [`crate::runtime`] and [`crate::amqp`] do, one thing at a time.

use std::collections::VecDeque;

use crate::catalog::{Catalog, CatalogError};
use crate::definitions::Loaded;
use crate::delivery::{PutAside, Report, Settlement, Verdict};
use crate::engine::{Engine, EngineError, Gathered};
use crate::saga::message::Outgoing;
use crate::saga::time::Timestamp;
use crate::store::{Memory, Reader, Store, StoreError};

/// A process.
pub(crate) struct Process {
    pub(crate) engine: Engine,
    store: Store,
    committing: Option<Gathered>,
    /// Messages that the broker has not confirmed.
    pub(crate) outbox: VecDeque<Outgoing>,
    /// What the broker said, which the engine does not know yet.
    pub(crate) reports: VecDeque<Report>,
    /// How far it is with a message that the broker put aside.
    aside: Aside,
}

/// How far a process is with a message that the broker put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aside {
    /// It has none.
    None,
    /// It has gathered that there is one.
    Gathered,
    /// That is being committed.
    Committing,
    /// That is durable, so the broker may forget the message.
    Recorded,
}

/// Why a process cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A definition.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Process {
    /// Starts as `sagamq run` does; also tells how many instances it took up.
    pub(crate) fn start(memory: &Memory, definitions: &[Loaded]) -> Result<(Self, usize), ProcessError> {
        let mut store = Store::simulated(memory)?;
        let reader = store.reader();
        let (catalog, batch) = Catalog::adopt(definitions, &reader)?;
        store.commit(batch)?;
        let mut engine = Engine::new(reader, catalog);
        let recovered = engine.recover()?;
        let outbox = recovered.outgoing.into();
        let reports = VecDeque::new();
        let process = Self { engine, store, committing: None, outbox, reports, aside: Aside::None };
        Ok((process, recovered.instances))
    }

    /// A reader of its store.
    pub(crate) fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// The time that its clock does not go back behind.
    pub(crate) fn latest(&self) -> Timestamp {
        self.store.latest()
    }

    /// Whether a commit is under way.
    pub(crate) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Begins a commit of what has gathered; false if nothing has, or one is under way.
    pub(crate) fn begin_commit(&mut self) -> bool {
        if self.committing.is_none() {
            self.committing = self.engine.take();
            if self.aside == Aside::Gathered {
                self.aside = Aside::Committing;
            }
        }
        self.committing.is_some()
    }

    /// Ends the commit, and releases what waited for it: messages to the outbox, settlements to the
    /// caller.
    pub(crate) fn end_commit(&mut self) -> Result<Option<Settlement>, ProcessError> {
        let Some(mut gathered) = self.committing.take() else { return Ok(None) };
        self.store.commit(std::mem::take(&mut gathered.batch))?;
        self.engine.committed(&gathered);
        if self.aside == Aside::Committing {
            self.aside = Aside::Recorded;
        }
        self.outbox.extend(gathered.release.outgoing);
        Ok(Some(gathered.release.settlement))
    }

    /// Whether it would look at a message that the broker put aside.
    pub(crate) fn may_look_aside(&self) -> bool {
        self.aside == Aside::None
    }

    /// Looks at one.
    pub(crate) fn look_aside(&mut self, message: PutAside, now: Timestamp) {
        self.engine.put_aside(message, now);
        self.aside = Aside::Gathered;
    }

    /// Whether the one that it looked at is recorded, so that the broker may forget it; true once.
    pub(crate) fn takes_aside(&mut self) -> bool {
        let is_recorded = self.aside == Aside::Recorded;
        if is_recorded {
            self.aside = Aside::None;
        }
        is_recorded
    }

    /// Takes the message at `position` out of the outbox, and has the engine told what became of it.
    pub(crate) fn report(&mut self, position: usize, verdict: Verdict) {
        if let Some(outgoing) = self.outbox.remove(position) {
            self.reports.push_back(Report { origin: outgoing.origin, verdict });
        }
    }

    /// Hands the next report to the engine.
    pub(crate) fn hear(&mut self, now: Timestamp) -> Result<(), ProcessError> {
        match self.reports.pop_front() {
            Some(report) => Ok(self.engine.handle_report(report, now)?),
            None => Ok(()),
        }
    }

    /// Lets the engine do what time demands.
    pub(crate) fn tick(&mut self, now: Timestamp) -> Result<(), ProcessError> {
        let due = self.engine.next_due().is_some_and(|due| due <= now);
        if due && !self.engine.is_full() {
            self.engine.tick(now)?;
        }
        self.engine.take_along(now);
        Ok(())
    }
}
