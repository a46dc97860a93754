//! The tap: everything that is published to the exchanges of the saga, written down as it comes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::AMQPValue;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::evidence::{Lines, now};
use crate::peer::Brokers;

/// Id of the message after which a drain ends.
pub(crate) const LAST: &str = "last";

/// Pause before the broker is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes all messages of a queue into a file until the one comes whose id is [`LAST`]. A message of which
/// the broker does not hear that it was taken comes, and is written, twice.
pub(crate) async fn drain(brokers: Brokers, queue: String, path: PathBuf) {
    let lines = Lines::open(&path);
    while !matches!(session(&brokers, &queue, &lines).await, Ok(true)) {
        sleep(PAUSE).await;
    }
}

/// True once the last message has come.
async fn session(brokers: &Brokers, queue: &str, lines: &Lines) -> lapin::Result<bool> {
    let peer = brokers.connect().await?;
    let mut deliveries = peer.consume(queue).await?;
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        let message = told(&delivery);
        if message["message_id"] == LAST {
            delivery.ack(BasicAckOptions::default()).await?;
            return Ok(true);
        }
        lines.add(&message);
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(false)
}

fn told(delivery: &Delivery) -> Value {
    let headers = delivery.properties.headers().as_ref().map(|table| table.inner());
    let headers: BTreeMap<_, _> = headers
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| match value {
            AMQPValue::LongString(text) => Some((name.to_string(), text.to_string())),
            _ => None,
        })
        .collect();
    let death = delivery.properties.headers().as_ref().and_then(|table| table.inner().get("x-death"));
    let death = death.and_then(AMQPValue::as_array).and_then(|deaths| deaths.as_slice().first());
    let reason = match death {
        Some(AMQPValue::FieldTable(death)) => death.inner().get("reason").and_then(AMQPValue::as_long_string),
        _ => None,
    };
    json!({
        "reason": reason.map(ToString::to_string),
        "message_id": delivery.properties.message_id().as_ref().map(ToString::to_string),
        "exchange": delivery.exchange.as_str(), "key": delivery.routing_key.as_str(), "headers": headers,
        "body": String::from_utf8_lossy(&delivery.data), "at": now(),
    })
}
