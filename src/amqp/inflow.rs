//! What one queue delivers: taken in as it comes, decoded, and handed over as there is room.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::in_order::InOrder;
use super::pace::Pace;
use super::session::{AmqpError, answered, open_channel};
use super::topology::DELIVERY_LIMIT;
use super::wire;
use crate::delivery::{Delivery, Queue, Token};
use crate::fault::{self, Point};
use crate::metric;

/// A message that takes more memory than this is handed over alone, so that as many as the channel holds
/// never do.
const HEAVY: usize = 64 * 1024;

/// Our name for the consumers of each channel, which are counted.
const CONSUMER_TAG: &str = "sagamq";

/// How often a quorum queue has delivered a message before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// Why nothing more comes.
pub(super) enum Ended {
    /// The connection, or a queue, is gone.
    Lost(String),
    /// Something was delivered that cannot be parsed.
    Garbled(String),
    /// Fewer deliveries may be out than are.
    Narrower,
    /// Nothing more is wanted.
    Stopped,
}

/// The consumers of one queue in one epoch.
pub(super) struct Inflow {
    pub(super) channel: Channel,
    queue: Queue,
    epoch: u64,
    deliveries: mpsc::Sender<Delivery>,
    name: String,
    pace: Pace,
    /// How many may be out now, over all consumers.
    window: u16,
    consumers: SelectAll<lapin::Consumer>,
    /// What has come before its turn.
    order: InOrder<lapin::message::Delivery>,
    /// What has come and is not decoded yet.
    waiting: VecDeque<lapin::message::Delivery>,
}

impl Inflow {
    /// Begins to consume the queue `name`, on a channel of its own.
    pub(super) async fn open(
        connection: &Connection,
        (queue, name): (Queue, String),
        epoch: u64,
        pace: Pace,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Result<Self, AmqpError> {
        pace.begin();
        let channel = open_channel(connection).await?;
        let (window, consumers) = (0, SelectAll::new());
        let (order, waiting) = (InOrder::new(), VecDeque::new());
        let mut inflow =
            Self { queue, epoch, channel, deliveries, name, pace, window, consumers, order, waiting };
        inflow.widen(inflow.pace.window()).await?;
        Ok(inflow)
    }

    /// Hands everything over that the queue delivers.
    pub(super) async fn run(mut self) -> Ended {
        let received = metrics::counter!(metric::DELIVERIES, "queue" => self.queue.as_str());
        let deliveries = self.deliveries.clone();
        let mut next: Option<Delivery> = None;
        loop {
            if next.is_none() {
                next = self.waiting.pop_front().map(|delivery| self.decode(delivery));
            }
            let heavy =
                |delivery: &Delivery| delivery.content.as_ref().is_ok_and(|message| message.weight() > HEAVY);
            // All of the room is there once everything before it was taken.
            let room = if next.as_ref().is_some_and(heavy) { deliveries.max_capacity() } else { 1 };
            let overdue = self.order.overdue();
            tokio::select! {
                biased;
                room = deliveries.reserve_many(room), if next.is_some() => {
                    let Ok(mut room) = room else { return Ended::Stopped };
                    if let (Some(place), Some(delivery)) = (room.next(), next.take()) {
                        place.send(delivery);
                    }
                }
                delivered = self.consumers.next() => match delivered {
                    Some(Ok(delivery)) => {
                        received.increment(1);
                        for delivery in self.order.take_in(delivery.delivery_tag, delivery, Instant::now()) {
                            self.take_in(delivery);
                        }
                        let window = self.pace.window();
                        if window < self.window {
                            return Ended::Narrower;
                        }
                        if window > self.window && let Err(error) = self.widen(window).await {
                            return error.into();
                        }
                    }
                    Some(Err(error)) => return Ended::of(&error),
                    // This is also how a deleted queue shows.
                    None => return Ended::Lost(format!(
                        "the broker cancelled the consumer of queue {:?}", self.queue.as_str()
                    )),
                },
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                    return Ended::Lost(format!("delivery {} did not come, and later ones did", self.order.next()));
                }
            }
        }
    }

    /// Takes a delivery in while it is told how large it is, and how often it came.
    fn take_in(&mut self, delivery: lapin::message::Delivery) {
        fault::pass(Point::Received);
        let before = wire::header(&delivery.properties, DELIVERY_COUNT).and_then(|count| count.as_u64());
        self.pace.note(delivery.data.len(), before.unwrap_or(0));
        self.waiting.push_back(delivery);
    }

    fn decode(&self, delivery: lapin::message::Delivery) -> Delivery {
        let token = Token { queue: self.queue, epoch: self.epoch, tag: delivery.delivery_tag };
        let delivery = Delivery::of(token, wire::incoming(delivery));
        fault::pass(Point::Decoded);
        delivery
    }

    /// Has more out at a time, by one more consumer on the same channel. A consumer is never cancelled: a delivery that
    /// is on its way then is dropped by the client library, and stays out.
    async fn widen(&mut self, window: u16) -> Result<(), AmqpError> {
        let number = self.consumers.len() + 1;
        self.consumers.push(consume(&self.channel, &self.name, window - self.window, number).await?);
        self.window = window;
        debug!(queue = self.queue.as_str(), window, "deliveries that may be out at a time");
        Ok(())
    }
}

impl Ended {
    /// What an error of the connection or the channel means.
    pub(super) fn of(error: &lapin::Error) -> Self {
        match error.kind() {
            lapin::ErrorKind::ParsingError(_) => Self::Garbled(format!(
                "a message cannot be parsed, the broker puts it aside after {DELIVERY_LIMIT} deliveries: {error}"
            )),
            _ => Self::Lost(error.to_string()),
        }
    }
}

impl From<AmqpError> for Ended {
    fn from(error: AmqpError) -> Self {
        match &error {
            AmqpError::Failed { source, .. } => Self::of(source),
            _ => Self::Lost(error.to_string()),
        }
    }
}

async fn consume(
    channel: &Channel,
    name: &str,
    prefetch: u16,
    number: usize,
) -> Result<lapin::Consumer, AmqpError> {
    answered("set the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let consuming = channel.basic_consume(
        name.into(),
        consumer_tag(number).as_str().into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    answered("consume from a queue", consuming).await.map_err(|error| explain(error, name))
}

fn consumer_tag(number: usize) -> String {
    if number == 1 { CONSUMER_TAG.to_owned() } else { format!("{CONSUMER_TAG}-{number}") }
}

/// A queue that is there and does not answer has most likely no leader: seen where the broker was killed
/// a moment after the queue was made (cf. rabbitmq/rabbitmq-server#15725). No new connection cures that.
fn explain(error: AmqpError, queue: &str) -> AmqpError {
    if !matches!(error, AmqpError::Timeout { .. }) {
        return error;
    }
    let remedy = "if this goes on, `rabbitmq-queues quorum_status` tells whether it has a leader";
    AmqpError::Topology { object: format!("queue {queue:?}"), reason: error.to_string(), remedy }
}
