//! A peer of the orchestrator at the broker, in blocking calls: it publishes and looks on.

use std::collections::BTreeMap;

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use tokio::runtime::{Builder, Runtime};

/// A connection with a channel.
pub(crate) struct Peer {
    runtime: Runtime,
    channel: Channel,
    connection: Connection,
}

impl Peer {
    pub(crate) fn connect(url: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (connection, channel) = runtime.block_on(async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            (connection, channel)
        });
        Self { runtime, channel, connection }
    }

    /// Makes a durable queue that gets all that is published to an exchange.
    pub(crate) fn tap(&self, exchange: &str, queue: &str) {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default;
        self.runtime.block_on(async {
            let exchange_declared =
                self.channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none());
            exchange_declared.await.unwrap();
            self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), none()).await.unwrap();
            let options = QueueBindOptions::default();
            self.channel
                .queue_bind(queue.into(), exchange.into(), "#".into(), options, none())
                .await
                .unwrap();
        });
    }

    /// Makes an exchange of a type, with another as its alternate where one is named.
    pub(crate) fn exchange(&self, name: &str, kind: &str, alternate: Option<&str>) {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let mut arguments = FieldTable::default();
        if let Some(alternate) = alternate {
            arguments.insert("alternate-exchange".into(), AMQPValue::LongString(alternate.into()));
        }
        let kind = ExchangeKind::Custom(kind.into());
        self.runtime.block_on(self.channel.exchange_declare(name.into(), kind, durable, arguments)).unwrap();
    }

    /// Makes an exchange on a channel of its own, or returns why the broker refuses to.
    pub(crate) fn declares(
        &self,
        name: &str,
        kind: &str,
        durable: bool,
        arguments: &[(&str, AMQPValue)],
    ) -> Result<(), String> {
        let options = ExchangeDeclareOptions { durable, ..Default::default() };
        let arguments: BTreeMap<_, _> =
            arguments.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            let kind = ExchangeKind::Custom(kind.into());
            let declaring = channel.exchange_declare(name.into(), kind, options, arguments.into());
            declaring.await.map_err(|error| error.to_string())
        })
    }

    /// Has what comes to an exchange with this key go on to another.
    pub(crate) fn bind_exchange(&self, source: &str, to: &str, key: &str) {
        let options = ExchangeBindOptions::default();
        let binding =
            self.channel.exchange_bind(to.into(), source.into(), key.into(), options, FieldTable::default());
        self.runtime.block_on(binding).unwrap();
    }

    /// Makes a durable queue that gets what is published to an exchange with this key, if one is named.
    pub(crate) fn queue(&self, queue: &str, bound: Option<(&str, &str)>) {
        self.runtime.block_on(async {
            let none = FieldTable::default;
            self.channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), none()).await.unwrap();
            if let Some((exchange, key)) = bound {
                let options = QueueBindOptions::default();
                let binding =
                    self.channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none());
                binding.await.unwrap();
            }
        });
    }

    /// Publishes a message that a queue must take, and awaits the confirm.
    pub(crate) fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = properties.with_delivery_mode(2);
        let confirmation = self.runtime.block_on(async {
            let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
            sent.await.unwrap().await.unwrap()
        });
        assert!(matches!(confirmation, Confirmation::Ack(None)), "{confirmation:?}");
    }

    /// Answers a command, at the queue that it names.
    pub(crate) fn answer(&self, command: &BasicGetMessage, outcome: &str, body: &[u8]) {
        let outcome = BTreeMap::from([("x-saga-outcome".into(), AMQPValue::LongString(outcome.into()))]);
        let correlation = command.properties.correlation_id().clone().unwrap();
        let reply = BasicProperties::default().with_correlation_id(correlation).with_headers(outcome.into());
        self.publish("", command.properties.reply_to().as_ref().unwrap().as_str(), body, reply);
    }

    /// Takes the first message of a queue, and lets it go by the end of the channel.
    pub(crate) fn take_and_let_go(&self, queue: &str) {
        self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap().unwrap();
            channel.close(200, "OK".into()).await.unwrap();
        });
    }

    /// How many messages wait in a queue.
    pub(crate) fn waiting(&self, queue: &str) -> usize {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let asked = self.channel.queue_declare(queue.into(), passive, FieldTable::default());
        self.runtime.block_on(asked).unwrap().message_count() as usize
    }

    /// Takes all messages that wait in a queue.
    pub(crate) fn drain(&self, queue: &str) -> Vec<BasicGetMessage> {
        let mut messages = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) =
            self.runtime.block_on(self.channel.basic_get(queue.into(), options)).unwrap()
        {
            messages.push(message);
        }
        messages
    }
}
