//! A peer of the orchestrator at the broker, past the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use tokio::time::timeout;

/// Time limit of one connection's opening.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
        match timeout(CONNECT_TIMEOUT, Peer::connect(&self.urls[next])).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
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

    /// Makes a durable quorum queue that is bound to durable topic exchanges.
    pub(crate) async fn make_queue(&self, queue: &str, bindings: &[(String, &str)]) -> lapin::Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
        for (exchange, key) in bindings {
            let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
            let none = FieldTable::default;
            let exchange = exchange.as_str();
            self.channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none()).await?;
            let options = QueueBindOptions::default();
            self.channel.queue_bind(queue.into(), exchange.into(), (*key).into(), options, none()).await?;
        }
        Ok(())
    }

    /// Publishes a persistent message, and returns whether the broker took it.
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        properties: BasicProperties,
        body: &[u8],
    ) -> lapin::Result<bool> {
        let options = BasicPublishOptions::default();
        let properties = properties.with_delivery_mode(2);
        let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?;
        Ok(matches!(sent.await?, Confirmation::Ack(_)))
    }

    /// Messages that wait in a queue.
    pub(crate) async fn depth(&self, queue: &str) -> lapin::Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        Ok(declared.message_count())
    }
}

/// The properties of a JSON message.
pub(crate) fn json(message_id: &str) -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into()).with_message_id(message_id.into())
}
