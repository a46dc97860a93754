//! A check of a definition: all that `sagamq check` does to a file once it is read.

use divan::black_box;
use sagamq::saga::compile;
use sagamq::saga::plan::Plan;

use crate::order;

#[divan::bench]
fn check() -> Plan {
    compile::load("order.yaml", black_box(order::SOURCE)).expect("the order saga holds")
}
