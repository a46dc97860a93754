//! Queues, exchanges and bindings: what the orchestrator needs of the broker.
//!
//! ```text
//!  topic exchanges of the sagas ──patterns──> <prefix>.events ──┐
//!  default exchange ──reply_to──────────────> <prefix>.replies ─┤ poison, or delivered too often
//!                         <prefix>.dead <── exchange <prefix>.dead
//! ```

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};
use serde_json::{Map, Value, json};

use super::session::{AmqpError, answered, open_channel, refusal};
use super::wire::{short, table};
use crate::config::{QueueType, TopologyMode};
use crate::saga::plan::Subscription;

/// Deliveries of one message before a quorum queue takes it for one that kills its consumer. Each
/// lost connection counts for every message that it left unacknowledged.
pub(super) const DELIVERY_LIMIT: u32 = 20;

/// What has to be there, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// First part of the names of our own queues and exchange.
    pub prefix: String,
    /// Type of our queues.
    pub queue_type: QueueType,
    /// Make, check, or leave alone.
    pub mode: TopologyMode,
    /// Durable topic exchanges that definitions name.
    pub exchanges: Vec<String>,
    /// What the event queue is bound to.
    pub subscriptions: Vec<Subscription>,
}

impl Topology {
    /// Name of the queue of events that sagas wait for.
    pub fn events_queue(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// Name of the queue that commands name in `reply_to`.
    pub fn replies_queue(&self) -> String {
        format!("{}.replies", self.prefix)
    }

    /// Name of the queue of dead letters, and of the exchange that leads to it.
    pub fn dead_queue(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The same as a RabbitMQ definitions file, for `rabbitmqctl import_definitions`, in the
    /// virtual host `/`.
    pub fn definitions(&self) -> Value {
        let exchanges = self.all_exchanges().into_iter().map(|exchange| {
            json!({
                "name": exchange.name, "vhost": "/", "type": exchange.kind, "durable": true,
                "auto_delete": false, "internal": false, "arguments": {},
            })
        });
        let queues = self.all_queues().into_iter().map(|queue| {
            json!({
                "name": queue.name, "vhost": "/", "durable": true, "auto_delete": false,
                "arguments": queue.arguments,
            })
        });
        let bindings = self.all_bindings().into_iter().map(|binding| {
            json!({
                "source": binding.exchange, "vhost": "/", "destination": binding.queue,
                "destination_type": "queue", "routing_key": binding.key, "arguments": {},
            })
        });
        json!({
            "exchanges": exchanges.collect::<Value>(),
            "queues": queues.collect::<Value>(),
            "bindings": bindings.collect::<Value>(),
        })
    }

    /// Makes or checks everything, as the mode says. Making what is there already changes nothing.
    /// Bindings cannot be checked without making them.
    ///
    /// # Errors
    /// Something is missing or different; the error names it.
    pub(crate) async fn apply(&self, connection: &Connection) -> Result<(), AmqpError> {
        let passive = match self.mode {
            TopologyMode::None => return Ok(()),
            TopologyMode::Verify => true,
            TopologyMode::Declare => false,
        };
        let channel = open_channel(connection).await?;
        for exchange in self.all_exchanges() {
            exchange.declare(&channel, passive).await?;
        }
        for queue in self.all_queues() {
            queue.declare(&channel, passive).await?;
        }
        if !passive {
            for binding in self.all_bindings() {
                binding.make(&channel).await?;
            }
        }
        answered("close a channel", channel.close(200, "OK".into())).await
    }

    fn all_exchanges(&self) -> Vec<Exchange> {
        let dead = Exchange { name: self.dead_queue(), kind: "fanout" };
        let topics = self.exchanges.iter().map(|name| Exchange { name: name.clone(), kind: "topic" });
        std::iter::once(dead).chain(topics).collect()
    }

    fn all_queues(&self) -> Vec<OwnQueue> {
        let (lossless, kept) = match self.queue_type {
            QueueType::Quorum => (
                json!({
                    "x-queue-type": "quorum",
                    "x-delivery-limit": DELIVERY_LIMIT,
                    "x-dead-letter-exchange": self.dead_queue(),
                    // Without both of these, a dead letter may be lost on its way.
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                }),
                json!({"x-queue-type": "quorum"}),
            ),
            QueueType::Classic => (
                json!({"x-queue-type": "classic", "x-dead-letter-exchange": self.dead_queue()}),
                json!({"x-queue-type": "classic"}),
            ),
        };
        let queue = |name, arguments: &Value| OwnQueue {
            name,
            arguments: arguments.as_object().cloned().unwrap_or_default(),
        };
        vec![
            queue(self.dead_queue(), &kept),
            queue(self.events_queue(), &lossless),
            queue(self.replies_queue(), &lossless),
        ]
    }

    fn all_bindings(&self) -> Vec<Binding> {
        let dead = Binding { exchange: self.dead_queue(), queue: self.dead_queue(), key: String::new() };
        let events = self.subscriptions.iter().map(|on| Binding {
            exchange: on.exchange.clone(),
            queue: self.events_queue(),
            key: on.pattern.clone(),
        });
        std::iter::once(dead).chain(events).collect()
    }
}

struct Exchange {
    name: String,
    kind: &'static str,
}

impl Exchange {
    async fn declare(self, channel: &Channel, passive: bool) -> Result<(), AmqpError> {
        let object = format!("exchange {:?}", self.name);
        let name = name("exchange name", &self.name, &object)?;
        let options = ExchangeDeclareOptions { passive, durable: true, ..Default::default() };
        let declaring = channel.exchange_declare(
            name,
            ExchangeKind::Custom(self.kind.into()),
            options,
            FieldTable::default(),
        );
        answered("declare an exchange", declaring).await.map_err(|error| explain(error, object))
    }
}

struct OwnQueue {
    name: String,
    arguments: Map<String, Value>,
}

impl OwnQueue {
    async fn declare(self, channel: &Channel, passive: bool) -> Result<(), AmqpError> {
        let object = format!("queue {:?}", self.name);
        let name = name("queue name", &self.name, &object)?;
        let options = QueueDeclareOptions { passive, durable: true, ..Default::default() };
        let declaring = channel.queue_declare(name, options, table(&self.arguments));
        answered("declare a queue", declaring).await.map_err(|error| explain(error, object))?;
        Ok(())
    }
}

struct Binding {
    exchange: String,
    queue: String,
    key: String,
}

impl Binding {
    async fn make(self, channel: &Channel) -> Result<(), AmqpError> {
        let Binding { exchange, queue, key } = self;
        let object = format!("binding of queue {queue:?} to exchange {exchange:?} for {key:?}");
        let exchange = name("exchange name", &exchange, &object)?;
        let (queue, key) = (name("queue name", &queue, &object)?, name("pattern", &key, &object)?);
        let options = QueueBindOptions::default();
        let binding = channel.queue_bind(queue, exchange, key, options, FieldTable::default());
        answered("bind a queue", binding).await.map_err(|error| explain(error, object))
    }
}

fn name(what: &str, text: &str, object: &str) -> Result<lapin::types::ShortString, AmqpError> {
    let remedy = "shorten it";
    short(what, text).map_err(|reason| AmqpError::Topology { object: object.to_owned(), reason, remedy })
}

fn explain(error: AmqpError, object: String) -> AmqpError {
    let AmqpError::Failed { source, .. } = &error else { return error };
    let Some((code, reason)) = refusal(source) else { return error };
    let remedy = match code {
        AMQPSoftError::NOTFOUND => {
            "make it (`sagamq topology` prints all that is needed), or set broker.topology to declare"
        }
        AMQPSoftError::PRECONDITIONFAILED => {
            "it exists but is different: drain and delete it, choose another broker.prefix or broker.queue_type, or \
             set broker.topology to verify"
        }
        AMQPSoftError::ACCESSREFUSED => {
            "grant the user of broker.url permissions with `rabbitmqctl set_permissions`, or make it as another user \
             and set broker.topology to verify"
        }
        _ => "look into the broker's log",
    };
    AmqpError::Topology { object, reason, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(queue_type: QueueType) -> Topology {
        Topology {
            prefix: "shop".into(),
            queue_type,
            mode: TopologyMode::Declare,
            exchanges: vec!["orders".into()],
            subscriptions: vec![Subscription { exchange: "orders".into(), pattern: "order.*".into() }],
        }
    }

    #[test]
    fn definitions_name_everything_once() {
        let definitions = topology(QueueType::Quorum).definitions();
        let names = |what: &str, field: &str| -> Vec<String> {
            let all = definitions[what].as_array().unwrap().iter();
            all.map(|one| one[field].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names("exchanges", "name"), ["shop.dead", "orders"]);
        assert_eq!(names("exchanges", "type"), ["fanout", "topic"]);
        assert_eq!(names("queues", "name"), ["shop.dead", "shop.events", "shop.replies"]);
        assert_eq!(names("bindings", "destination"), ["shop.dead", "shop.events"]);
        assert_eq!(names("bindings", "routing_key"), ["", "order.*"]);
        let expected = json!({
            "x-queue-type": "quorum", "x-delivery-limit": 20, "x-dead-letter-exchange": "shop.dead",
            "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
        });
        assert_eq!(definitions["queues"][1]["arguments"], expected);
        assert_eq!(definitions["queues"][0]["arguments"], json!({"x-queue-type": "quorum"}));
    }

    #[test]
    fn classic_queues_have_no_arguments_of_quorum_queues() {
        let definitions = topology(QueueType::Classic).definitions();
        let expected = json!({"x-queue-type": "classic", "x-dead-letter-exchange": "shop.dead"});
        assert_eq!(definitions["queues"][2]["arguments"], expected);
    }
}
