//! The shipping service: sends parcels, which cannot be undone. It answers with the event
//! `order.shipped`, or refuses on `reply_to`.

mod common;

use std::io;
use std::time::Duration;

use common::ledger::{Answer, Effect, Ledger};
use common::{Command, Decision, Participant, derived_id};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Shipment {
    order_id: String,
    customer_id: String,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let shipping = Participant { name: "shipping", exchange: "shipping", keys: &["shipment.create"] };
    common::serve(shipping, decide).await
}

/// Decides on `shipment.create`.
fn decide(_: &Ledger, command: &Command) -> serde_json::Result<Decision> {
    let shipment: Shipment = command.parse()?;
    let (effect, answer) = if shipment.customer_id.starts_with("nowhere") {
        (Effect::new(), Answer::failure("UNDELIVERABLE", "the address does not exist"))
    } else {
        let event = Answer::Event {
            exchange: "shipping".to_owned(),
            key: "order.shipped".to_owned(),
            data: json!({
                "event_id": derived_id(command, "event"),
                "event_type": "OrderShipped",
                "timestamp": common::now(),
                "version": 1,
                "order_id": shipment.order_id,
                "tracking_number": derived_id(command, "parcel"),
                "carrier": "Parcel & Sons",
            }),
        };
        (Effect::from([("parcels".to_owned(), 1)]), event)
    };
    Ok(Decision::Settled { effect, answer, delay: Duration::ZERO })
}
