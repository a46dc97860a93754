//! How many messages wait in the queues of dead letters, for the metrics.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::session::{AmqpError, answered, open_channel, refusal};
use super::topology::Topology;
use crate::metric;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(5);

/// Looks again and again, over a channel of its own: to ask for a queue that is not there closes the channel. Such a
/// queue is left alone from then on. Goes on for ever, and may be dropped at any time.
pub(super) async fn watch(connection: &Connection, topology: &Topology) {
    let mut queues = vec![("dead", topology.dead_queue()), ("aside", topology.aside_queue())];
    let mut channel = None;
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut missing = None;
        for (index, (label, name)) in queues.iter().enumerate() {
            match depth(connection, &mut channel, name).await {
                Ok(depth) => metrics::gauge!(metric::QUEUE_MESSAGES, "queue" => *label).set(f64::from(depth)),
                Err(error) => {
                    channel = None;
                    if is_refusal(&error) {
                        warn!(queue = name, %error, "it cannot be told how many messages wait in a queue");
                        missing = Some(index);
                    } else {
                        debug!(queue = name, %error, "a queue was not looked at");
                    }
                    break;
                }
            }
        }
        if let Some(index) = missing {
            queues.remove(index);
        }
    }
}

/// How many messages wait in a queue that is there.
async fn depth(connection: &Connection, channel: &mut Option<Channel>, name: &str) -> Result<u32, AmqpError> {
    let open = match channel.take() {
        Some(open) => open,
        None => open_channel(connection).await?,
    };
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let asking = open.queue_declare(name.into(), options, FieldTable::default());
    let depth = answered("look at a queue", asking).await?.message_count();
    *channel = Some(open);
    Ok(depth)
}

fn is_refusal(error: &AmqpError) -> bool {
    matches!(error, AmqpError::Failed { source, .. } if refusal(source).is_some())
}
