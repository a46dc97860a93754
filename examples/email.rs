//! The e-mail service: tells customers how their orders go. It only listens; sagas know nothing of
//! it.

mod common;

use std::io;

use common::Event;
use common::ledger::{self, Answer, Effect, Entry, Ledger};

#[tokio::main]
async fn main() -> io::Result<()> {
    let bindings =
        [("orders", "order.completed"), ("orders", "order.rejected"), ("shipping", "order.shipped")];
    let mut ledger = Ledger::open(&ledger::path("email"))?;
    common::listen("email", &bindings, |event| send(&mut ledger, event)).await
}

/// Sends the e-mail about an event, once however often the event comes.
fn send(ledger: &mut Ledger, event: Event) -> io::Result<()> {
    if ledger.answer(&event.id).is_some() {
        return Ok(());
    }
    let text = |name: &str| event.data[name].as_str().unwrap_or("unknown").to_owned();
    let order_id = text("order_id");
    match event.key.as_str() {
        "order.completed" => println!("email: order {order_id}: thank you, all is done"),
        "order.rejected" => println!("email: order {order_id}: we are sorry: {}", text("reason")),
        _ => println!("email: order {order_id}: on its way, parcel {}", text("tracking_number")),
    }
    ledger.record(Entry {
        command_id: event.id,
        compensates: None,
        key: event.key,
        order_id,
        effect: Effect::from([("emails".to_owned(), 1)]),
        answer: Answer::Silence,
    })
}
