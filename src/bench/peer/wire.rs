//! AMQP, as well as the orchestrator itself speaks it: connections apart for what comes in and what goes
//! out, confirms that are awaited while more is published, one ack for many deliveries.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::amqp::AmqpError;
use crate::amqp::session::{answered, open_channel, open_once};
use crate::bench::BenchError;
use crate::config::BrokerConfig;

/// The two connections of a process.
pub(super) struct Link {
    inbound: Connection,
    outbound: Connection,
}

/// A queue that is consumed.
pub(super) struct Inflow {
    /// Where its deliveries are acked.
    pub(super) channel: Channel,
    /// How many deliveries may be out.
    pub(super) prefetch: u16,
    /// What it delivers.
    pub(super) deliveries: lapin::Consumer,
}

/// Something to publish, persistent and mandatory.
pub(super) struct Message {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

impl Link {
    pub(super) async fn open(broker: &BrokerConfig) -> Result<Self, AmqpError> {
        let inbound = open_once(broker, "bench consumer").await?;
        let outbound = open_once(broker, "bench publisher").await?;
        Ok(Self { inbound, outbound })
    }

    pub(super) async fn consume(&self, queue: &str, prefetch: u16) -> Result<Inflow, AmqpError> {
        let channel = open_channel(&self.inbound).await?;
        answered("set the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(queue.into(), "bench".into(), options, FieldTable::default());
        let deliveries = answered("consume from a queue", consuming).await?;
        Ok(Inflow { channel, prefetch, deliveries })
    }

    /// A channel with confirms.
    pub(super) async fn publishing(&self) -> Result<Channel, AmqpError> {
        let channel = open_channel(&self.outbound).await?;
        answered("ask for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }
}

/// Properties that every message has, as the orchestrator sets them.
pub(super) fn properties(headers: FieldTable) -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_headers(headers)
}

/// A header table of texts.
pub(super) fn headers<'a>(texts: impl IntoIterator<Item = (&'static str, &'a str)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, text) in texts {
        table.insert(name.into(), AMQPValue::LongString(text.into()));
    }
    table
}

/// A delivery's header, if it is a text.
pub(super) fn header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a str> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        _ => None,
    }
}

/// Publishes and awaits the confirm. The first poll puts the message into the channel's queue of frames.
pub(super) async fn publish(channel: &Channel, message: Message) -> Result<(), BenchError> {
    let Message { exchange, key, properties, body } = message;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let failed = |source| AmqpError::Failed { what: "publish", source };
    let published = channel.basic_publish(exchange.clone(), key.clone(), options, &body, properties).await;
    let verdict = match published.map_err(failed)?.await.map_err(failed)? {
        Confirmation::Ack(None) => return Ok(()),
        Confirmation::Ack(Some(_)) => "returned",
        Confirmation::Nack(_) | Confirmation::NotRequested => "did not take",
    };
    Err(BenchError::Undelivered { verdict, exchange: exchange.to_string(), key: key.to_string() })
}

/// Acks all deliveries up to the tag that was told last: one ack for all that are told of within a moment,
/// or for half of what may be out. Ends only by an error.
pub(super) async fn ack(channel: &Channel, prefetch: u16, mut tags: watch::Receiver<u64>) -> BenchError {
    /// Each ack is work for the broker, and a commit of sagamq has one as well.
    const MOMENT: Duration = Duration::from_millis(5);
    let many = u64::from(prefetch / 2).max(1);
    let mut acked = 0;
    // Without a sender there is nothing more to ack.
    while tags.changed().await.is_ok() {
        // What is told of when the moment is over is acked in any case.
        let _ = timeout(MOMENT, tags.wait_for(|tag| *tag >= acked + many)).await;
        acked = *tags.borrow_and_update();
        let options = BasicAckOptions { multiple: true };
        if let Err(error) = answered("ack deliveries", channel.basic_ack(acked, options)).await {
            return error.into();
        }
    }
    std::future::pending().await
}
