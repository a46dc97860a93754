//! A file of scenarios, for tests of how such files are read and proofread.

use std::sync::Arc;

use crate::definitions::Loaded;
use crate::saga::compile;

/// A file of scenarios in which every form occurs.
pub(super) const FILE: &str = "\
saga: order
version: 1
start: {data: {order_id: A-1}}
replies:
  reserve_stock: [silence, {outcome: retry, retry_after: 2s}, {data: {reservation_id: R-1}}]
scenarios:
  - scenario: all is well
    compensations: {charge_payment: unroutable}
    events: [{exchange: orders, key: order.cancelled, during: ship, after: 1s}]
    commands: [reserve_stock, {step: ship, attempts: 2, body: {order_id: A-1}}, {compensate: reserve_stock}]
    outputs: {ship: {carrier: dhl}}
    end: completed
";

/// The definition that it is about.
pub(super) fn order() -> Loaded {
    let source = include_str!("../../sagas/order.yaml").to_owned();
    let plan = Arc::new(compile::load("order.yaml", &source).unwrap());
    Loaded { file: "order.yaml".to_owned(), source, plan }
}
