//! What is stored of an instance: into a batch, and out of a store in memory.

use divan::Bencher;
use sagamq::saga::fact::HistoryEntry;
use sagamq::saga::instance::Instance;
use sagamq::store::{Batch, Memory, Store};

use crate::order;

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let (instance, entry) = started();
    bencher.bench_local(|| batch(&instance, &entry));
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    let (instance, entry) = started();
    let mut store = Store::simulated(&Memory::default()).expect("an empty disk opens");
    store.commit(batch(&instance, &entry)).expect("the disk has no faults");
    let reader = store.reader();
    bencher.bench_local(|| reader.instance(instance.id).expect("it can be read").expect("it is there"));
}

fn started() -> (Instance, HistoryEntry) {
    let (instance, decision) = order::started(&order::plan());
    (instance, HistoryEntry { revision: 1, causation_id: None, user: None, facts: decision.facts })
}

fn batch(instance: &Instance, entry: &HistoryEntry) -> Batch {
    let mut batch = Batch::default();
    batch.save(instance, entry);
    batch
}
