//! What the broker put aside by itself: delivered too often, expired, or too much for a queue.
//!
//! ```text
//!  <prefix>.events, <prefix>.replies ──> exchange <prefix>.dead ──┬──> <prefix>.dead: for people
//!                                                                 └──> <prefix>.aside ──> this, a record in the store
//! ```
//!
//! What we refuse ourselves is recorded with the refusal, so it is acked here and forgotten. Anything else is recorded
//! first and acked then: after a crash it may be recorded twice, never not at all. A connection of its own keeps the
//! inflow apart from what cannot be parsed here either. Over it, it is also looked how many dead letters there are.

use std::pin::pin;

use lapin::Connection;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use futures_util::StreamExt;

use super::depth;
use super::inflow::Ended;
use super::session::{AmqpError, Session, answered, close, open_channel};
use super::topology::{self, Topology};
use super::wire;
use crate::config::BrokerConfig;
use crate::delivery::{Cause, PutAside, Queue, preview};

/// Something to record.
#[derive(Debug)]
pub struct Found {
    /// What the broker put aside.
    pub message: PutAside,
    /// Is told once that is durable.
    pub done: oneshot::Sender<()>,
}

/// Starts to look. It ends when the receiver is dropped.
pub fn start(config: &BrokerConfig, topology: watch::Receiver<Topology>) -> mpsc::Receiver<Found> {
    let (found, receiver) = mpsc::channel(1);
    let session = Session::new("aside", config);
    tokio::spawn(Watch { topology, found, garbled: false }.run(session));
    receiver
}

struct Watch {
    topology: watch::Receiver<Topology>,
    found: mpsc::Sender<Found>,
    /// Whether the next message cannot be parsed.
    garbled: bool,
}

impl Watch {
    async fn run(mut self, mut session: Session) {
        loop {
            let connection = tokio::select! {
                connection = session.open(&mut self.topology) => connection,
                () = self.found.closed() => return,
            };
            let looked = if self.garbled {
                self.garbled = false;
                self.drop_garbled(&connection).await
            } else {
                self.look(&connection).await
            };
            close(&connection).await;
            match looked.unwrap_or_else(Ended::from) {
                Ended::Stopped => return,
                Ended::Lost(reason) => session.failed(&reason),
                // Only one is out at a time.
                Ended::Narrower => {}
                Ended::Garbled(_) => {
                    self.garbled = true;
                    session.expect_soon();
                }
            }
        }
    }

    /// Records what comes. One is out at a time, so that it is known which one cannot be parsed.
    async fn look(&mut self, connection: &Connection) -> Result<Ended, AmqpError> {
        let shape = self.topology.borrow().clone();
        let channel = open_channel(connection).await?;
        answered("set the prefetch", channel.basic_qos(1, BasicQosOptions::default())).await?;
        let (queue, options) = (shape.aside_queue(), BasicConsumeOptions::default());
        let consuming =
            channel.basic_consume(queue.as_str().into(), "sagamq".into(), options, FieldTable::default());
        let mut stream = answered("consume from a queue", consuming)
            .await
            .map_err(|error| topology::explain(error, format!("queue {queue:?}")))?;
        let mut depths = pin!(depth::watch(connection, &shape));
        loop {
            let delivered = tokio::select! {
                delivered = stream.next() => delivered,
                () = self.found.closed() => return Ok(Ended::Stopped),
                () = &mut depths => continue,
            };
            let delivery = match delivered {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Ok(Ended::of(&error)),
                None => {
                    return Ok(Ended::Lost(format!("the broker cancelled the consumer of queue {queue:?}")));
                }
            };
            let tag = delivery.delivery_tag;
            if let Some(message) = put_aside(delivery, &shape)
                && !self.record(message).await
            {
                return Ok(Ended::Stopped);
            }
            answered("ack a delivery", channel.basic_ack(tag, BasicAckOptions::default())).await?;
        }
    }

    /// Records that the message at the head of the queue cannot be parsed, and has the broker forget this copy of it,
    /// without looking at it.
    async fn drop_garbled(&mut self, connection: &Connection) -> Result<Ended, AmqpError> {
        if !self.record(PutAside::garbled()).await {
            return Ok(Ended::Stopped);
        }
        let queue = self.topology.borrow().aside_queue();
        let channel = open_channel(connection).await?;
        let taking = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true });
        // The broker has forgotten it by the time that the connection breaks over it.
        Ok(match answered("take a message", taking).await.map_err(Ended::from) {
            Err(Ended::Lost(reason)) => Ended::Lost(reason),
            _ => Ended::Lost("a message that was put aside could not be parsed".to_owned()),
        })
    }

    /// Returns once it is durable; false if nobody records any more.
    async fn record(&self, message: PutAside) -> bool {
        let (done, recorded) = oneshot::channel();
        self.found.send(Found { message, done }).await.is_ok() && recorded.await.is_ok()
    }
}

/// What there is to record of a dead letter; none if it is one of our own refusals.
fn put_aside(delivery: lapin::message::Delivery, topology: &Topology) -> Option<PutAside> {
    let deaths = wire::header(&delivery.properties, "x-death");
    let last = deaths.as_ref().and_then(|deaths| deaths.get(0));
    let text = |name: &str| last?.get(name)?.as_str().map(str::to_owned);
    let queue = text("queue").unwrap_or_default();
    let own = Queue::ALL.into_iter().find(|own| topology.name_of(*own) == queue);
    let cause = match (text("reason").as_deref(), own) {
        (Some("rejected"), Some(_)) => return None,
        (Some(reason), _) => Cause::of(reason),
        (None, _) => Cause::Sent,
    };
    let own_text = |text: &Option<ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
    let key = || last?.get("routing-keys")?.get(0)?.as_str().map(str::to_owned);
    Some(PutAside {
        cause,
        times: last.and_then(|last| last.get("count")).and_then(Value::as_u64).unwrap_or(1),
        queue: own.map_or(queue, |own| own.as_str().to_owned()),
        exchange: text("exchange").unwrap_or_else(|| delivery.exchange.as_str().to_owned()),
        key: key().unwrap_or_else(|| delivery.routing_key.as_str().to_owned()),
        message_id: own_text(delivery.properties.message_id()),
        correlation_id: own_text(delivery.properties.correlation_id()),
        size: delivery.data.len(),
        preview: preview(&delivery.data),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lapin::BasicProperties;
    use lapin::types::{AMQPValue, FieldArray};

    use super::*;
    use crate::config::BrokerConfig;

    fn dead(reason: &str, queue: &str) -> lapin::message::Delivery {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let keys = FieldArray::from(vec![text("order.placed")]);
        let death: FieldTable = BTreeMap::from([
            ("reason".into(), text(reason)),
            ("queue".into(), text(queue)),
            ("exchange".into(), text("orders")),
            ("count".into(), AMQPValue::LongLongInt(2)),
            ("routing-keys".into(), AMQPValue::FieldArray(keys)),
        ])
        .into();
        let deaths = FieldArray::from(vec![AMQPValue::FieldTable(death)]);
        let headers: FieldTable = BTreeMap::from([("x-death".into(), AMQPValue::FieldArray(deaths))]).into();
        let properties = BasicProperties::default().with_message_id("m-1".into()).with_headers(headers);
        let mut delivery = lapin::message::Delivery::mock(
            1,
            "shop.dead".into(),
            "order.placed".into(),
            false,
            b"{}".to_vec(),
        );
        delivery.properties = properties;
        delivery
    }

    #[test]
    fn what_others_put_aside_is_recorded_with_where_it_came_from_and_why() {
        let topology = Topology::of(&BrokerConfig { prefix: "shop".into(), ..Default::default() }, []);
        let seen = put_aside(dead("delivery_limit", "shop.events"), &topology).unwrap();
        let expected = PutAside {
            cause: Cause::DeliveryLimit,
            times: 2,
            queue: "events".into(),
            exchange: "orders".into(),
            key: "order.placed".into(),
            message_id: Some("m-1".into()),
            correlation_id: None,
            size: 2,
            preview: "{}".into(),
        };
        assert_eq!(seen, expected);
        assert_eq!(put_aside(dead("rejected", "shop.replies"), &topology), None, "our own refusal");
        let seen = put_aside(dead("rejected", "theirs"), &topology).unwrap();
        assert_eq!((seen.cause, seen.queue.as_str()), (Cause::Rejected, "theirs"));
    }
}
