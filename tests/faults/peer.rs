//! A peer of the orchestrator at the broker, past the proxy.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind, Queue,
};
use tokio::time::timeout;

/// Time limit of one answer: a broker that is starting or stopping may never give it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses of a broker, one a node. Each connection goes to the next one.
#[derive(Clone)]
pub(crate) struct Brokers {
    urls: Arc<[String]>,
    next: Arc<AtomicUsize>,
}

impl Brokers {
    pub(crate) fn new(urls: &[String]) -> Self {
        Self { urls: urls.into(), next: Arc::default() }
    }

    /// The first address.
    pub(crate) fn first(&self) -> &str {
        &self.urls[0]
    }

    /// Opens a connection to the next node.
    pub(crate) async fn connect(&self) -> lapin::Result<Peer> {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.urls.len();
        answered(Peer::connect(&self.urls[next])).await
    }
}

/// A connection with one channel, which confirms.
pub(crate) struct Peer {
    pub(crate) channel: Channel,
    _connection: Connection,
}

impl Peer {
    async fn connect(url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        channel.basic_qos(64, BasicQosOptions::default()).await?;
        Ok(Self { channel, _connection: connection })
    }

    /// Takes the messages of a queue, each of which is to be acked.
    pub(crate) async fn consume(&self, queue: &str) -> lapin::Result<Consumer> {
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        answered(self.channel.basic_consume(queue.into(), "".into(), options, arguments)).await
    }

    /// Makes a durable quorum queue that is bound to durable topic exchanges.
    pub(crate) async fn make_queue(&self, queue: &str, bindings: &[(String, &str)]) -> lapin::Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions::durable();
        answered(self.channel.queue_declare(queue.into(), options, arguments)).await?;
        for (exchange, key) in bindings {
            let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let none = FieldTable::default;
            let exchange = exchange.as_str();
            let kind = ExchangeKind::Topic;
            answered(self.channel.exchange_declare(exchange.into(), kind, durable, none())).await?;
            let options = QueueBindOptions::default();
            let (queue, key) = (queue.into(), (*key).into());
            answered(self.channel.queue_bind(queue, exchange.into(), key, options, none())).await?;
        }
        Ok(())
    }

    /// Publishes a persistent message, and returns once the broker has it. If it does not take it, this
    /// peer is of no use any more: a channel that says no may go on to do so for ever (seen with 3.10.8
    /// after the leader of a quorum queue died).
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> lapin::Result<()> {
        let options = BasicPublishOptions::default();
        let properties = properties.with_delivery_mode(2);
        let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?;
        let refused = match answered(sent).await {
            Ok(Confirmation::Ack(_)) => return Ok(()),
            Ok(_) => io::Error::other("the broker does not take the message").into(),
            Err(error) => error,
        };
        let _ = answered(self.channel.close(200, "OK".into())).await;
        Err(refused)
    }

    /// Messages that wait in a queue.
    pub(crate) async fn depth(&self, queue: &str) -> lapin::Result<u32> {
        Ok(self.look_at(queue).await?.message_count())
    }

    /// Consumers that a queue has.
    pub(crate) async fn consumers(&self, queue: &str) -> lapin::Result<u32> {
        Ok(self.look_at(queue).await?.consumer_count())
    }

    async fn look_at(&self, queue: &str) -> lapin::Result<Queue> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        answered(self.channel.queue_declare(queue.into(), options, FieldTable::default())).await
    }
}

/// Awaits what the broker answers, for as long as that may take.
pub(crate) async fn answered<T>(answer: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the broker does not answer").into();
    timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(late()))
}

/// The properties of a JSON message.
pub(crate) fn json(message_id: &str) -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into()).with_message_id(message_id.into())
}
