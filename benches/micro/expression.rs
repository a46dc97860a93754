//! Values that begin with `=`.

use divan::{Bencher, black_box};
use sagamq::saga::expression::{Expression, Scope};
use serde_json::Value;

use crate::order;

/// What definitions are full of, from the simplest on.
const SOURCES: [&str; 3] = [
    "event.data.order_id",
    r#"event.data.total_amount > 50.0 && event.data.customer_id != """#,
    "event.data.items.filter(item, item.quantity > 2).map(item, item.sku)",
];

#[divan::bench(args = SOURCES)]
fn compile(source: &str) -> Expression {
    compiled(black_box(source))
}

#[divan::bench(args = SOURCES)]
fn evaluate(bencher: Bencher<'_, '_>, source: &str) {
    let (expression, event) = (compiled(source), order::start());
    let scope = Scope { event: Some(&event), ..Scope::default() };
    let evaluate = || -> Value { expression.evaluate(black_box(&scope)).expect("the event has the fields") };
    bencher.bench_local(evaluate);
}

fn compiled(source: &str) -> Expression {
    Expression::compile(source).expect("it is an expression")
}
