//! Sagas without a broker: the real engine over the real store, and participants that answer at once. It
//! fills a store as fast as the disk takes it.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::BenchError;
use super::names::{Names, START_KEY, STEPS};
use super::starts::Starts;
use crate::catalog::Catalog;
use crate::config::StoreConfig;
use crate::definitions::{DefinitionsError, Loaded};
use crate::delivery::{Delivery, Queue, Report, Token, Verdict};
use crate::engine::{Engine, Gathered};
use crate::runtime::Clock;
use crate::saga::compile;
use crate::saga::message::{Origin, Outgoing, Part, RawMessage};
use crate::store::Store;

/// Sagas that are under way at a time, as many as the bench has by default.
const UNDER_WAY: u64 = 1000;

/// How far sagas get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To their end.
    Completed,
    /// To a command that is never answered: of a third of them the first one, of a third the second, of a
    /// third the last.
    Unanswered,
}

/// How a start over a store went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// Until the store was open.
    pub open_ms: f64,
    /// From then on, until all open instances were taken up.
    pub take_up_ms: f64,
    /// How many there were.
    pub instances: u64,
    /// Messages that are to go out again.
    pub unconfirmed: u64,
}

/// An orchestrator and its surroundings in one thread.
pub struct Offline {
    engine: Engine,
    store: Store,
    clock: Clock,
    starts: Starts,
    deliveries: VecDeque<Delivery>,
    reports: VecDeque<Report>,
    under_way: u64,
    tag: u64,
}

impl Offline {
    /// Over the store in a folder, with the bench's definition for a run with this prefix.
    ///
    /// # Errors
    /// The store cannot be used, or is not one of such a run.
    pub fn open(store: &StoreConfig, prefix: &str) -> Result<Self, BenchError> {
        Self::timed(store, prefix).map(|(offline, _)| offline)
    }

    /// The same, and how long it took.
    pub(super) fn timed(store: &StoreConfig, prefix: &str) -> Result<(Self, Opening), BenchError> {
        let names = Names { prefix: prefix.to_owned() };
        let definition = definition(&names)?;
        let begin = Instant::now();
        let mut store = Store::open(store)?;
        let opened = Instant::now();
        let (catalog, batch) = Catalog::adopt(&[definition], &store.reader())?;
        store.commit(batch)?;
        let mut engine = Engine::new(store.reader(), catalog);
        let recovered = engine.recover()?;
        let opening = Opening {
            open_ms: (opened - begin).as_secs_f64() * 1000.0,
            take_up_ms: opened.elapsed().as_secs_f64() * 1000.0,
            instances: recovered.instances as u64,
            unconfirmed: recovered.outgoing.len() as u64,
        };
        let clock = Clock::start(store.latest());
        let (deliveries, reports) = (VecDeque::new(), VecDeque::new());
        let starts = Starts::of(&names);
        let offline = Self { engine, store, clock, starts, deliveries, reports, under_way: 0, tag: 0 };
        Ok((offline, opening))
    }

    /// Runs the sagas with these numbers; `progress` is told how many have come so far, and may end it.
    ///
    /// # Errors
    /// The store failed, or `progress` did.
    pub fn run(
        &mut self,
        mut numbers: Range<u64>,
        until: Until,
        mut progress: impl FnMut(u64) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let first = numbers.start;
        loop {
            self.gather(&mut numbers)?;
            let Some(gathered) = self.engine.take() else { break };
            for outgoing in self.commit(gathered)? {
                self.answer(&outgoing, until);
            }
            progress(numbers.start - first - self.under_way)?;
        }
        // All is published: nothing is to go out again when the store is next opened.
        self.engine.store_marks();
        while let Some(gathered) = self.engine.take() {
            self.commit(gathered)?;
            self.engine.store_marks();
        }
        Ok(())
    }

    /// Decides on the starts of the sagas with these numbers, for one commit.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn started(&mut self, numbers: Range<u64>) -> Result<Gathered, BenchError> {
        for number in numbers {
            let start = self.start(number);
            self.engine.handle_delivery(start, self.clock.now())?;
        }
        Ok(self.engine.take().unwrap_or_default())
    }

    /// Commits what was decided, and returns what is to be sent then.
    ///
    /// # Errors
    /// The store failed.
    pub fn commit(&mut self, mut gathered: Gathered) -> Result<Vec<Outgoing>, BenchError> {
        self.store.commit(std::mem::take(&mut gathered.batch))?;
        self.engine.committed(&gathered);
        Ok(gathered.release.outgoing)
    }

    /// Decides on as much as one commit takes: what was answered first, then new sagas.
    fn gather(&mut self, numbers: &mut Range<u64>) -> Result<(), BenchError> {
        let now = self.clock.now();
        self.engine.tick(now)?;
        while !self.engine.is_full() {
            if let Some(report) = self.reports.pop_front() {
                self.engine.handle_report(report, now)?;
            } else if let Some(delivery) = self.deliveries.pop_front() {
                self.engine.handle_delivery(delivery, now)?;
            } else if self.under_way < UNDER_WAY
                && let Some(number) = numbers.next()
            {
                self.under_way += 1;
                let start = self.start(number);
                self.engine.handle_delivery(start, now)?;
            } else {
                break;
            }
        }
        self.engine.take_along(now);
        Ok(())
    }

    /// Does what broker and participants would: says that a message is out, and answers a command.
    fn answer(&mut self, outgoing: &Outgoing, until: Until) {
        self.reports.push_back(Report { origin: outgoing.origin, verdict: Verdict::Published });
        if !outgoing.wants_reply || until == Until::Unanswered && is_last(outgoing.origin) {
            self.under_way -= 1;
            return;
        }
        let step = outgoing.headers.get("x-saga-step").unwrap_or_default();
        let texts = [("x-saga-outcome", "success"), ("x-saga-step", step.as_str())];
        let headers = texts.map(|(name, text)| (name.to_owned(), Value::from(text)));
        let reply = RawMessage {
            correlation_id: outgoing.correlation_id(),
            content_type: Some("application/json".to_owned()),
            headers: Map::from_iter(headers),
            body: outgoing.body.clone(),
            ..RawMessage::default()
        };
        let delivery = self.delivery(Queue::Replies, reply);
        self.deliveries.push_back(delivery);
    }

    fn start(&mut self, number: u64) -> Delivery {
        let start = RawMessage {
            exchange: self.starts.exchange().to_owned(),
            key: START_KEY.to_owned(),
            message_id: Some(Starts::id(number)),
            kind: Some(START_KEY.to_owned()),
            content_type: Some("application/json".to_owned()),
            body: self.starts.body(number).into_bytes(),
            ..RawMessage::default()
        };
        self.delivery(Queue::Events, start)
    }

    fn delivery(&mut self, queue: Queue, raw: RawMessage) -> Delivery {
        self.tag += 1;
        Delivery::of(Token { queue, epoch: 1, tag: self.tag }, raw)
    }
}

/// Whether a command is the one that its instance gets no answer to.
fn is_last(origin: Origin) -> bool {
    let last = usize::from(origin.instance.as_bytes()[0]) % STEPS.len();
    matches!(origin.part, Part::Attempt { step, .. } if step == last)
}

fn definition(names: &Names) -> Result<Loaded, BenchError> {
    let source = names.definition_with_attribute();
    let file = "bench.yaml".to_owned();
    let plan = compile::load(&file, &source).map_err(DefinitionsError)?;
    Ok(Loaded { file, source, plan: plan.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::names::ATTRIBUTE;
    use crate::saga::instance::Status;
    use crate::store::Query;

    #[test]
    fn one_in_a_hundred_sagas_has_the_attribute_and_is_found_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { path: folder.path().join("store"), cache_mib: 1 };
        let mut offline = Offline::open(&config, "bench").unwrap();
        offline.run(0..250, Until::Completed, |_| Ok(())).unwrap();
        let (name, value) = ATTRIBUTE;
        let attribute = Some((name.to_owned(), value.to_owned()));
        let found = offline.store.reader().list(&Query { attribute, ..Query::default() }).unwrap();
        let mut keys: Vec<_> = found.items.iter().map(|instance| instance.business_key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, [0, 100, 200].map(Starts::business_key));
        assert!(found.items.iter().all(|instance| instance.status == Status::Completed));
    }
}
