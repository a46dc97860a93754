//! Queues, exchanges and bindings: what the orchestrator needs of the broker.
//!
//! ```text
//!  exchanges of the sagas ───────patterns───> <prefix>.events ──┐
//!  default exchange ──reply_to──────────────> <prefix>.replies ─┤ poison, or delivered too often
//!         <prefix>.dead, <prefix>.aside <── exchange <prefix>.dead
//! ```

use std::collections::{BTreeMap, BTreeSet};

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::ShortString;
use lapin::{Channel, Connection};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tracing::warn;

use super::exchange;
use super::session::{AmqpError, answered, open_channel, refusal};
use super::wire::{short, table};
use crate::config::{BrokerConfig, QueueType, TopologyMode};
use crate::delivery::Queue;
use crate::fault::{self, Bug};
use crate::saga::exchange::{Exchange, ExchangeKind};
use crate::saga::plan::{Plan, Subscription};

/// Deliveries of one message before a quorum queue takes it for one that kills its consumer. Each
/// lost connection counts for every message that it left unacknowledged, but messages that come often come alone: it
/// takes so many crashes in a row, of which none got a message done, to put one aside that is healthy. What ends
/// the connection is gone after as many connections, each of which takes some milliseconds.
pub(super) const DELIVERY_LIMIT: u32 = 150;

/// The limit that is in force.
pub(crate) fn delivery_limit() -> u32 {
    if fault::planted(Bug::LowDeliveryLimit) { 1 } else { DELIVERY_LIMIT }
}

/// Dead letters that may wait until it is looked which of them the broker put aside by itself; the newest.
const ASIDE_MESSAGES: u32 = 10_000;

/// Bytes of their bodies.
const ASIDE_BYTES: u32 = 64 << 20;

/// What has to be there, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// First part of the names of our own queues and exchange.
    pub prefix: String,
    /// Type of our queues.
    pub queue_type: QueueType,
    /// Make, check, or leave alone.
    pub mode: TopologyMode,
    /// Exchanges that definitions name.
    pub exchanges: Vec<Exchange>,
    /// What the event queue is bound to.
    pub subscriptions: Vec<Subscription>,
    /// What it is taken off from where we make the topology: nothing listens to it any more.
    pub unneeded: Vec<Subscription>,
}

impl Topology {
    /// What definitions need.
    pub fn of<'a>(config: &BrokerConfig, plans: impl IntoIterator<Item = &'a Plan>) -> Self {
        let (mut named, mut subscriptions) = (BTreeSet::new(), BTreeSet::new());
        let mut exchanges: BTreeMap<String, Exchange> = BTreeMap::new();
        for plan in plans {
            named.extend(plan.exchanges());
            subscriptions.extend(plan.subscriptions());
            for one in &plan.described {
                let known = exchanges.entry(one.name.clone()).or_insert_with(|| one.clone());
                known.declare &= one.declare;
                // Those in force come first, and agree.
                if known.make.is_none() {
                    known.make.clone_from(&one.make);
                }
            }
        }
        for name in named {
            exchanges.entry(name.clone()).or_insert_with(|| Exchange::topic(name));
        }
        Self {
            prefix: config.prefix.clone(),
            queue_type: config.queue_type,
            mode: config.topology,
            exchanges: exchanges.into_values().collect(),
            subscriptions: subscriptions.into_iter().collect(),
            unneeded: Vec::new(),
        }
    }

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

    /// Name of the queue of dead letters that we take: what the broker put aside by itself is recorded.
    pub fn aside_queue(&self) -> String {
        format!("{}.aside", self.prefix)
    }

    /// Name of one of the queues that deliveries come from.
    pub(super) fn name_of(&self, queue: Queue) -> String {
        match queue {
            Queue::Events => self.events_queue(),
            Queue::Replies => self.replies_queue(),
        }
    }

    /// The same as a RabbitMQ definitions file, for `rabbitmqctl import_definitions`, in the
    /// virtual host `/`.
    pub fn definitions(&self) -> Value {
        let made = self.exchanges.iter().filter(|exchange| exchange.declare);
        let exchanges = [self.dead_exchange()].into_iter().chain(made.cloned()).map(|exchange| {
            json!({
                "name": exchange.name, "vhost": "/", "type": exchange.kind.as_str(),
                "durable": exchange.is_durable(), "auto_delete": false, "internal": false,
                "arguments": exchange.arguments(),
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
                "destination_type": "queue", "routing_key": binding.key, "arguments": binding.arguments,
            })
        });
        json!({
            "exchanges": exchanges.collect::<Value>(),
            "queues": queues.collect::<Value>(),
            "bindings": bindings.collect::<Value>(),
        })
    }

    /// Makes or checks everything, as the mode says. Making what is there already changes nothing.
    /// Bindings cannot be checked without making them. A binding that is not needed and cannot be removed
    /// is no error: what comes by it is counted and acked.
    ///
    /// # Errors
    /// Something is missing or different; the error names it.
    pub(crate) async fn apply(&self, connection: &Connection) -> Result<(), AmqpError> {
        let passive = match self.mode {
            TopologyMode::None => return Ok(()),
            TopologyMode::Verify => true,
            TopologyMode::Declare => false,
        };
        let mut channel = open_channel(connection).await?;
        exchange::declare(&channel, &self.dead_exchange(), passive).await?;
        for exchange in &self.exchanges {
            channel = exchange::see_to(connection, channel, exchange, passive, &self.subscriptions).await?;
        }
        for queue in self.all_queues() {
            queue.declare(&channel, passive).await?;
        }
        if !passive {
            for binding in self.all_bindings() {
                binding.make(&channel).await?;
            }
        }
        answered("close a channel", channel.close(200, "OK".into())).await?;
        if passive { Ok(()) } else { self.take_off(connection).await }
    }

    /// Takes the event queue off what nothing listens to. What is not bound is taken off just as well.
    async fn take_off(&self, connection: &Connection) -> Result<(), AmqpError> {
        for on in &self.unneeded {
            let channel = open_channel(connection).await?;
            match self.binding(on).remove(&channel).await {
                Ok(()) => answered("close a channel", channel.close(200, "OK".into())).await?,
                Err(AmqpError::Topology { object, reason, remedy }) => {
                    warn!(object, reason, remedy, "a binding that is not needed cannot be removed");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn dead_exchange(&self) -> Exchange {
        Exchange { kind: ExchangeKind::Fanout, ..Exchange::topic(self.dead_queue()) }
    }

    fn all_queues(&self) -> Vec<OwnQueue> {
        let (lossless, kept, looked_at) = match self.queue_type {
            QueueType::Quorum => (
                json!({
                    "x-queue-type": "quorum",
                    "x-delivery-limit": delivery_limit(),
                    "x-dead-letter-exchange": self.dead_queue(),
                    // Without both of these, a dead letter may be lost on its way.
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                }),
                json!({"x-queue-type": "quorum"}),
                json!({
                    "x-queue-type": "quorum", "x-delivery-limit": i32::MAX,
                    "x-max-length": ASIDE_MESSAGES, "x-max-length-bytes": ASIDE_BYTES,
                }),
            ),
            QueueType::Classic => (
                json!({"x-queue-type": "classic", "x-dead-letter-exchange": self.dead_queue()}),
                json!({"x-queue-type": "classic"}),
                json!({
                    "x-queue-type": "classic",
                    "x-max-length": ASIDE_MESSAGES, "x-max-length-bytes": ASIDE_BYTES,
                }),
            ),
        };
        let queue = |name, arguments: &Value| OwnQueue {
            name,
            arguments: arguments.as_object().cloned().unwrap_or_default(),
        };
        vec![
            queue(self.dead_queue(), &kept),
            queue(self.aside_queue(), &looked_at),
            queue(self.events_queue(), &lossless),
            queue(self.replies_queue(), &lossless),
        ]
    }

    fn all_bindings(&self) -> Vec<Binding> {
        let dead = [self.dead_queue(), self.aside_queue()];
        let dead = dead.map(|queue| Binding {
            exchange: self.dead_queue(),
            queue,
            key: String::new(),
            arguments: Map::new(),
        });
        dead.into_iter().chain(self.subscriptions.iter().map(|on| self.binding(on))).collect()
    }

    fn binding(&self, on: &Subscription) -> Binding {
        Binding {
            exchange: on.exchange.clone(),
            queue: self.events_queue(),
            key: on.pattern.clone(),
            arguments: on.matching.arguments(),
        }
    }
}

/// Applies the topology as it is now, and again if it has changed meanwhile: what is in force at last is
/// what was applied last.
///
/// # Errors
/// As [`Topology::apply`].
pub(crate) async fn follow(
    connection: &Connection,
    topology: &mut watch::Receiver<Topology>,
) -> Result<(), AmqpError> {
    loop {
        let current = topology.borrow_and_update().clone();
        current.apply(connection).await?;
        // Without a sender, nothing changes any more.
        if !topology.has_changed().unwrap_or(false) {
            return Ok(());
        }
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
    arguments: Map<String, Value>,
}

impl Binding {
    async fn make(self, channel: &Channel) -> Result<(), AmqpError> {
        let object = self.object();
        let ([queue, exchange, key], arguments) = (self.names()?, table(&self.arguments));
        let binding = channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), arguments);
        answered("bind a queue", binding).await.map_err(|error| explain(error, object))
    }

    async fn remove(self, channel: &Channel) -> Result<(), AmqpError> {
        let object = self.object();
        let ([queue, exchange, key], arguments) = (self.names()?, table(&self.arguments));
        let removing = channel.queue_unbind(queue, exchange, key, arguments);
        answered("unbind a queue", removing).await.map_err(|error| explain(error, object))
    }

    /// Queue, exchange and key as AMQP has them.
    fn names(&self) -> Result<[ShortString; 3], AmqpError> {
        let (object, Binding { exchange, queue, key, .. }) = (self.object(), self);
        let exchange = name("exchange name", exchange, &object)?;
        Ok([name("queue name", queue, &object)?, exchange, name("pattern", key, &object)?])
    }

    fn object(&self) -> String {
        let Binding { exchange, queue, key, .. } = self;
        format!("binding of queue {queue:?} to exchange {exchange:?} for {key:?}")
    }
}

pub(super) fn name(what: &str, text: &str, object: &str) -> Result<ShortString, AmqpError> {
    let remedy = "shorten it";
    short(what, text).map_err(|reason| AmqpError::Topology { object: object.to_owned(), reason, remedy })
}

pub(super) fn explain(error: AmqpError, object: String) -> AmqpError {
    let AmqpError::Failed { source, .. } = &error else { return error };
    let Some((code, reason)) = refusal(source) else { return error };
    let remedy = match code {
        AMQPSoftError::NOTFOUND => {
            "make it (`sagamq topology` prints all that is needed), or set broker.topology to declare"
        }
        AMQPSoftError::PRECONDITIONFAILED if reason.contains("x-delivery-limit") => {
            "it was made with another limit, which healthy messages could reach: run with broker.topology set to none \
             until it is empty, stop, delete it with `rabbitmqctl delete_queue`, and set broker.topology to declare"
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
            exchanges: vec![Exchange::topic("orders")],
            subscriptions: vec![Subscription::topic("orders", "order.*")],
            unneeded: Vec::new(),
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
        assert_eq!(names("queues", "name"), ["shop.dead", "shop.aside", "shop.events", "shop.replies"]);
        assert_eq!(names("bindings", "destination"), ["shop.dead", "shop.aside", "shop.events"]);
        assert_eq!(names("bindings", "routing_key"), ["", "", "order.*"]);
        let expected = json!({
            "x-queue-type": "quorum", "x-delivery-limit": 150, "x-dead-letter-exchange": "shop.dead",
            "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
        });
        assert_eq!(definitions["queues"][2]["arguments"], expected);
        assert_eq!(definitions["queues"][0]["arguments"], json!({"x-queue-type": "quorum"}));
    }

    #[test]
    fn classic_queues_have_no_arguments_of_quorum_queues() {
        let definitions = topology(QueueType::Classic).definitions();
        let expected = json!({"x-queue-type": "classic", "x-dead-letter-exchange": "shop.dead"});
        assert_eq!(definitions["queues"][3]["arguments"], expected);
    }
}
