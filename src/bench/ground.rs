//! The queues of a run: made before it, removed after it.

use lapin::options::{ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use tokio::runtime::Runtime;

use super::BenchError;
use super::names::{COMPLETED_KEY, Names, STEPS, step_key};
use crate::amqp::owner::store_exchange;
use crate::amqp::session::{answered, close, open_channel, open_once};
use crate::amqp::{AmqpError, probe};
use crate::config::{BrokerConfig, QueueType};

/// Queues and exchanges. Dropping it removes them.
pub(super) struct Ground {
    broker: BrokerConfig,
    names: Names,
    runtime: Runtime,
}

impl Ground {
    /// Makes everything that both orchestrators need; sagamq finds its own queues there already.
    pub(super) fn lay(broker: BrokerConfig, names: Names) -> Result<Self, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // From here on, dropping it removes what was made.
        let ground = Self { broker, names, runtime };
        ground.runtime.block_on(async {
            // The one that tells best why a broker cannot be used.
            probe(&ground.broker, &ground.names.topology(ground.broker.queue_type)).await?;
            let connection = open_once(&ground.broker, "bench").await?;
            let made = ground.make(&connection).await;
            close(&connection).await;
            made
        })?;
        Ok(ground)
    }

    async fn make(&self, connection: &Connection) -> Result<(), AmqpError> {
        let channel = open_channel(connection).await?;
        for (queue, key) in self.bound() {
            let options = QueueDeclareOptions { durable: true, ..Default::default() };
            let mut arguments = FieldTable::default();
            let kind = match self.broker.queue_type {
                QueueType::Quorum => "quorum",
                QueueType::Classic => "classic",
            };
            arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
            let declaring = channel.queue_declare(queue.as_str().into(), options, arguments);
            answered("declare a queue", declaring).await?;
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            let exchange = self.names.exchange();
            let binding = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments);
            answered("bind a queue", binding).await?;
        }
        Ok(())
    }

    async fn remove(&self, connection: &Connection) -> Result<(), AmqpError> {
        let topology = self.names.topology(self.broker.queue_type);
        let own = [
            topology.events_queue(),
            topology.replies_queue(),
            topology.dead_queue(),
            topology.aside_queue(),
        ];
        let channel = open_channel(connection).await?;
        for queue in own.into_iter().chain(self.bound().into_iter().map(|(queue, _)| queue)) {
            remove_queue(&channel, queue).await?;
        }
        for exchange in [self.names.exchange(), topology.dead_queue(), store_exchange(&topology.prefix)] {
            let removing = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
            answered("remove an exchange", removing).await?;
        }
        Ok(())
    }

    /// The queues beside the orchestrator's own, and the keys that lead to them.
    fn bound(&self) -> Vec<(String, String)> {
        let steps = STEPS.map(|step| (self.names.step_queue(step), step_key(step)));
        let ends = (self.names.ends_queue(), COMPLETED_KEY.to_owned());
        steps.into_iter().chain([ends]).collect()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // A broker that is gone has no queues of ours either, or is not to be asked any more.
        let _ = self.runtime.block_on(async {
            let connection = open_once(&self.broker, "bench").await?;
            let removed = self.remove(&connection).await;
            close(&connection).await;
            removed
        });
    }
}

async fn remove_queue(channel: &Channel, queue: String) -> Result<(), AmqpError> {
    let removing = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
    answered("remove a queue", removing).await.map(drop)
}
