//! The decision that follows from an event, messages included.

use divan::Bencher;
use sagamq::saga::id::{Phase, StoreId};
use sagamq::saga::message::Part;
use sagamq::saga::transition::{self, Event};

use crate::order::{self, NOW};

#[divan::bench]
fn start(bencher: Bencher<'_, '_>) {
    let (plan, event) = (order::plan(), order::start());
    bencher.bench_local(|| {
        let key = transition::business_key(&plan, &event).expect("the event has it");
        transition::start(&plan, key, &event, StoreId::simulated(), NOW)
            .expect("the event has all that is needed")
    });
}

#[divan::bench]
fn published(bencher: Bencher<'_, '_>) {
    measure(bencher, || Event::Published(Part::Attempt { step: 0, phase: Phase::Action, attempt: 1 }));
}

#[divan::bench]
fn reply(bencher: Bencher<'_, '_>) {
    measure(bencher, order::reserved);
}

/// Each time from an instance that has just started.
fn measure(bencher: Bencher<'_, '_>, event: fn() -> Event) {
    let plan = order::plan();
    let (instance, _) = order::started(&plan);
    let decided = transition::transition(&plan, &mut instance.clone(), event(), NOW);
    assert!(!decided.facts.is_empty(), "the event changes the instance");
    bencher.with_inputs(|| (instance.clone(), event())).bench_local_values(|(mut instance, event)| {
        let decision = transition::transition(&plan, &mut instance, event, NOW);
        (instance, decision)
    });
}
