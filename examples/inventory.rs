//! The inventory service: reserves stock and releases it. It answers on `reply_to`, with the header
//! `x-saga-outcome`.

mod common;

use std::io;
use std::time::Duration;

use common::ledger::{Answer, Effect, Ledger};
use common::{Command, Decision, Participant, derived_id};
use serde::Deserialize;
use serde_json::json;

/// Longer than the saga waits for `stock.reserve`.
const SLOWNESS: Duration = Duration::from_secs(7);

#[derive(Deserialize)]
struct Reserve {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    product_id: String,
    quantity: u32,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let stock = std::env::var("STOCK").map_or(Ok(1000), |units| units.parse()).map_err(io::Error::other)?;
    let inventory =
        Participant { name: "inventory", exchange: "inventory", keys: &["stock.reserve", "stock.release"] };
    common::serve(inventory, move |ledger, command| decide(stock, ledger, command)).await
}

/// Decides on `stock.reserve`: all items or none. `stock.release` is its undoing.
fn decide(stock: i64, ledger: &Ledger, command: &Command) -> serde_json::Result<Decision> {
    let order: Reserve = command.parse()?;
    let ordered = |product: &str| order.items.iter().any(|item| item.product_id == product);
    if ordered("FLAKY") && command.attempt <= 2 {
        return Ok(Decision::Retry);
    }
    let mut effect = Effect::new();
    for item in &order.items {
        *effect.entry(item.product_id.clone()).or_default() -= i64::from(item.quantity);
    }
    let in_stock = |product: &str| if product == "SOLD-OUT" { 0 } else { stock + ledger.balance(product) };
    let missing = effect.iter().find(|(product, change)| in_stock(product) + **change < 0);
    let (effect, answer) = match missing {
        Some((product, _)) => {
            let message = format!("{} of {product} left", in_stock(product));
            (Effect::new(), Answer::failure("OUT_OF_STOCK", &message))
        }
        None => {
            (effect, Answer::Success { data: json!({"reservation_id": derived_id(command, "reservation")}) })
        }
    };
    let delay = if ordered("SLOW") { SLOWNESS } else { Duration::ZERO };
    Ok(Decision::Settled { effect, answer, delay })
}
