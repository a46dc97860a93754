//! The command line as its users have it: real processes, a real broker, and everything that can be
//! wrong with what they are given.

#![expect(clippy::unwrap_used, reason = "tests")]

mod backup;
mod bad_input;
mod celery;
mod certificates;
mod delivery_limit;
mod disk;
mod exchanges;
mod forms;
mod https;
mod life;
mod limits;
mod orders;
mod owner;
mod peer;
#[path = "../support/port.rs"]
mod port;
mod process;
mod raw;
mod refusals;
mod reload;
mod retention;
mod secrets;
#[path = "../support/skip.rs"]
mod skip;
mod stop;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod topology;
mod trip;

use std::sync::LazyLock;

use sagamq::throwaway::Node;

/// The password that no output may show.
const CANARY: &str = "hunter2-canary";

/// One broker for the tests that do not end it. Each has a prefix and exchanges of its own there.
static BROKER: LazyLock<Node> = LazyLock::new(support::broker);

/// The order saga over exchanges whose names end in `suffix`, with this time limit for every step, and
/// many attempts.
fn order_saga(suffix: &str, timeout: &str) -> String {
    let mut text = include_str!("../../sagas/order.yaml").to_owned();
    for exchange in ["orders", "inventory", "payments", "shipping"] {
        text = text.replace(&format!("exchange: {exchange}"), &format!("exchange: {exchange}{suffix}"));
    }
    text = text.replace("attempts: 4", "attempts: 20");
    text.replace("timeout: 5s", &format!("timeout: {timeout}")).replace("after: 10m", "after: 99h")
}

/// An order as its event tells it.
fn order(order_id: &str, note: &str) -> String {
    let items = serde_json::json!([{"product_id": "BOOK", "quantity": 1, "price": 19.99}]);
    serde_json::json!({
        "event_id": format!("event-{order_id}"), "order_id": order_id, "customer_id": "alice",
        "customer_email": "alice@example.com", "items": items, "total_amount": 19.99, "note": note,
    })
    .to_string()
}
