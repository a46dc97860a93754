//! The payment service: charges and refunds. To a charge it answers with an event that knows
//! nothing of sagas, as a service does that was there before them; to a refund on `reply_to`.

mod common;

use std::io;
use std::time::Duration;

use common::ledger::{Answer, Effect, Ledger};
use common::{Command, Decision, Participant, derived_id};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Charge {
    order_id: String,
    customer_id: String,
    amount: f64,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let payment =
        Participant { name: "payment", exchange: "payments", keys: &["payment.charge", "payment.refund"] };
    common::serve(payment, decide).await
}

/// Decides on `payment.charge`. `payment.refund` is its undoing.
fn decide(_: &Ledger, command: &Command) -> serde_json::Result<Decision> {
    let charge: Charge = command.parse()?;
    let declined = charge.customer_id.starts_with("declined");
    let effect = if declined {
        Effect::new()
    } else {
        Effect::from([("cents".to_owned(), (charge.amount * 100.0).round() as i64)])
    };
    let answer = if charge.customer_id.starts_with("silent") {
        Answer::Silence
    } else {
        Answer::Event {
            exchange: "payments".to_owned(),
            key: "payment.processed".to_owned(),
            data: json!({
                "event_id": derived_id(command, "event"),
                "event_type": "PaymentProcessed",
                "timestamp": common::now(),
                "version": 1,
                "order_id": charge.order_id,
                "payment_id": derived_id(command, "payment"),
                "amount": charge.amount,
                "payment_method": "CARD",
                "status": if declined { "FAILED" } else { "SUCCESS" },
            }),
        }
    };
    Ok(Decision::Settled { effect, answer, delay: Duration::ZERO })
}
