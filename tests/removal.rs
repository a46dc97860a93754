//! The engine while instances leave the store: what comes in meanwhile finds them gone, or keeps them.

#![expect(clippy::unwrap_used, reason = "tests")]

use sagamq::catalog::Catalog;
use sagamq::definitions::Loaded;
use sagamq::delivery::{Delivery, Queue, Token};
use sagamq::engine::{Engine, Gathered};
use sagamq::saga::compile;
use sagamq::saga::fact::{Fact, HistoryEntry, Recorded, Started};
use sagamq::saga::id::InstanceId;
use sagamq::saga::instance::{Instance, Status};
use sagamq::saga::message::Message;
use sagamq::saga::time::Timestamp;
use sagamq::store::{Batch, Memory, Removal, Store};
use serde_json::json;

const DEFINITION: &str = "
saga: order
version: 1
start: {on: {exchange: orders, key: order.placed}, business_key: =event.data.order_id}
deadline: {after: 10m, then: compensate}
steps:
  - {step: ship, kind: pivot, command: {exchange: shipping, key: ship, body: {}}, timeout: 5s}
";

/// An engine over a store in which the instance of order A-1 is completed.
struct World {
    engine: Engine,
    store: Store,
    completed: Instance,
    removal: Removal,
}

impl World {
    fn new() -> Self {
        let plan = compile::load("order.yaml", DEFINITION).unwrap();
        let started: Started = serde_json::from_value(json!({
            "saga": "order", "version": 1, "definition": plan.hash, "business_key": "A-1", "steps": ["ship"],
            "input": {"order_id": "A-1"},
        }))
        .unwrap();
        let id = InstanceId::new("order", "A-1");
        let mut completed = Instance::begin(id, &started, Timestamp(1));
        let facts: Vec<_> = [Fact::Started(Box::new(started)), Fact::Completed]
            .map(|fact| Recorded { at: Timestamp(1), fact })
            .into();
        facts.iter().for_each(|recorded| completed.apply(recorded));
        completed.revision = 1;
        let entry = HistoryEntry { revision: 1, causation_id: None, user: None, facts };

        let mut store = Store::simulated(&Memory::default()).unwrap();
        let loaded = [Loaded { file: "order.yaml".into(), source: DEFINITION.to_owned(), plan: plan.into() }];
        let (catalog, mut batch) = Catalog::adopt(&loaded, &store.reader()).unwrap();
        batch.save(&completed, &entry);
        store.commit(batch).unwrap();
        let engine = Engine::new(store.reader(), catalog);
        let removal = Removal::of(&completed);
        Self { engine, store, completed, removal }
    }

    fn remove(&mut self) {
        self.engine.remove(vec![self.removal.clone()]).unwrap();
    }

    fn place(&mut self) {
        let message = Message {
            exchange: "orders".to_owned(),
            key: "order.placed".to_owned(),
            data: json!({"order_id": "A-1"}),
            ..Message::default()
        };
        let token = Token { queue: Queue::Events, epoch: 1, tag: 1 };
        self.engine.handle_delivery(Delivery { token, content: Ok(message) }, Timestamp(2)).unwrap();
    }

    fn commit(&mut self, mut gathered: Gathered) {
        self.store.commit(std::mem::take::<Batch>(&mut gathered.batch)).unwrap();
        self.engine.committed(&gathered);
    }

    fn take_and_commit(&mut self) {
        let gathered = self.engine.take().unwrap();
        self.commit(gathered);
    }

    fn instance(&self) -> Option<Instance> {
        self.store.reader().instance(self.completed.id).unwrap()
    }
}

#[test]
fn a_start_while_its_instance_leaves_begins_anew() {
    // In the same commit, while it is committed, and after that.
    for moment in 0..3 {
        let mut world = World::new();
        world.remove();
        if moment == 0 {
            world.place();
        }
        let gathered = world.engine.take().unwrap();
        if moment == 1 {
            world.place();
        }
        world.commit(gathered);
        if moment == 2 {
            assert_eq!(world.instance(), None);
            world.place();
        }
        if moment > 0 {
            world.take_and_commit();
        }
        let instance = world.instance().unwrap();
        assert_eq!((instance.status, instance.revision), (Status::Running, 1), "moment {moment}");
        assert_eq!(instance.started_at, Timestamp(2));
        world.place();
        world.take_and_commit();
        assert_eq!(world.instance().unwrap().ignored, 1, "a repeated start starts nothing");
    }
}

#[test]
fn an_instance_that_changed_after_it_was_archived_stays() {
    // Not yet stored, and stored.
    for is_stored in [false, true] {
        let mut world = World::new();
        world.place();
        if is_stored {
            world.take_and_commit();
        }
        world.remove();
        world.take_and_commit();
        let instance = world.instance().unwrap();
        assert_eq!((instance.status, instance.ignored, instance.revision), (Status::Completed, 1, 2));
    }
}

#[test]
fn an_instance_that_was_looked_at_in_vain_can_leave() {
    let mut world = World::new();
    // The first hundred repeats go on record, the next ones only bring it into memory.
    (0..101).for_each(|_| world.place());
    world.take_and_commit();
    world.removal = Removal::of(&world.instance().unwrap());
    world.place();
    world.remove();
    world.take_and_commit();
    assert_eq!(world.instance(), None);
}
