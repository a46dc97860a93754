//! The order saga of `sagas/order.yaml` and what it says and hears, for all that is measured without a disk.

use sagamq::saga::compile;
use sagamq::saga::id::{Phase, StoreId};
use sagamq::saga::instance::Instance;
use sagamq::saga::message::{Message, RawMessage};
use sagamq::saga::plan::Plan;
use sagamq::saga::reply::Outcome;
use sagamq::saga::time::Timestamp;
use sagamq::saga::transition::{self, Decision, Event};
use serde_json::{Map, Value, json};

/// The definition.
pub(crate) const SOURCE: &str = include_str!("../../sagas/order.yaml");

/// When everything happens.
pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

/// The definition's meaning.
pub(crate) fn plan() -> Plan {
    compile::load("order.yaml", SOURCE).expect("the order saga holds")
}

/// A start event as the broker hands it over, about 500 bytes.
pub(crate) fn raw_start() -> RawMessage {
    let items: Vec<_> =
        (0..6).map(|number| json!({"sku": format!("sku-{number:06}"), "quantity": number})).collect();
    let data = json!({
        "order_id": "A-1", "customer_id": "c-7", "customer_email": "c7@example.com", "total_amount": 99.5,
        "items": items, "note": "x".repeat(150),
    });
    RawMessage {
        exchange: "orders".to_owned(),
        key: "order.placed".to_owned(),
        message_id: Some("01890a5d-ac96-774b-bcce-b302099a8057".to_owned()),
        content_type: Some("application/json".to_owned()),
        body: data.to_string().into_bytes(),
        ..RawMessage::default()
    }
}

/// A reply as the broker hands it over.
pub(crate) fn raw_reply() -> RawMessage {
    RawMessage {
        key: "sagamq.replies".to_owned(),
        correlation_id: Some("01890a5d-ac96-774b-bcce-b302099a8057".to_owned()),
        headers: Map::from_iter([("x-saga-outcome".to_owned(), Value::from("success"))]),
        body: json!({"reservation_id": "r-1", "payload": "x".repeat(450)}).to_string().into_bytes(),
        ..RawMessage::default()
    }
}

/// A start event.
pub(crate) fn start() -> Message {
    sagamq::delivery::understand(raw_start()).expect("it is JSON")
}

/// An instance that has sent its first command, and how it came about.
pub(crate) fn started(plan: &Plan) -> (Instance, Decision) {
    let (mut instance, decision) =
        transition::start(plan, "A-1".to_owned(), &start(), StoreId::simulated(), NOW)
            .expect("the event has all that is needed");
    instance.revision = 1;
    (instance, decision)
}

/// The success of the first step.
pub(crate) fn reserved() -> Event {
    Event::Reply {
        event: None,
        step: 0,
        phase: Phase::Action,
        attempt: Some(1),
        outcome: Outcome::Success(Ok(json!({"reservation_id": "r-1"}))),
        message_id: None,
    }
}
