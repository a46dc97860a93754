//! The bytes of a message, from the plan and the instance.

use divan::Bencher;
use sagamq::saga::command;
use sagamq::saga::id::Phase;
use sagamq::saga::message::Part;

use crate::order;

#[divan::bench]
fn render(bencher: Bencher<'_, '_>) {
    let plan = order::plan();
    let (instance, _) = order::started(&plan);
    let part = Part::Attempt { step: 0, phase: Phase::Action, attempt: 1 };
    let render = || command::render(&plan, &instance, part).expect("its body can be rendered");
    assert!(render().is_some(), "the first step has a command");
    bencher.bench_local(render);
}
