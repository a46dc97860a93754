//! What one queue delivers: taken in as it comes, decoded, and handed over as there is room.

use std::collections::VecDeque;
use std::pin::pin;

use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tracing::debug;

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
    /// Nothing more is wanted.
    Stopped,
}

/// The consumer of one queue in one epoch.
pub(super) struct Inflow {
    pub(super) channel: Channel,
    queue: Queue,
    epoch: u64,
    deliveries: mpsc::Sender<Delivery>,
    name: String,
    pace: Pace,
    /// How many may be out now.
    window: u16,
    /// How many consumers there were.
    consumers: u32,
    stream: lapin::Consumer,
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
        let (window, consumers) = (pace.window(), 1);
        let stream = consume(&channel, &name, window, consumers).await?;
        let waiting = VecDeque::new();
        Ok(Self { queue, epoch, channel, deliveries, name, pace, window, consumers, stream, waiting })
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
            tokio::select! {
                biased;
                room = deliveries.reserve_many(room), if next.is_some() => {
                    let Ok(mut room) = room else { return Ended::Stopped };
                    if let (Some(place), Some(delivery)) = (room.next(), next.take()) {
                        place.send(delivery);
                    }
                }
                delivered = self.stream.next() => match delivered {
                    Some(Ok(delivery)) => {
                        received.increment(1);
                        self.take_in(delivery);
                        if self.pace.window() != self.window && let Err(ended) = self.change_window().await {
                            return ended;
                        }
                    }
                    Some(Err(error)) => return Ended::of(&error),
                    // This is also how a deleted queue shows.
                    None => return Ended::Lost(format!(
                        "the broker cancelled the consumer of queue {:?}", self.queue.as_str()
                    )),
                },
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

    /// Has as many out at a time as the pace says now, by another consumer on the same channel: what is out stays
    /// out, and is not counted as delivered once more.
    async fn change_window(&mut self) -> Result<(), Ended> {
        let (channel, tag) = (self.channel.clone(), consumer_tag(self.consumers));
        let cancelling = channel.basic_cancel(tag.as_str().into(), BasicCancelOptions::default());
        let mut cancelling = pin!(answered("cancel a consumer", cancelling));
        let mut cancelled = false;
        // What comes before the broker has heard of it counts as well.
        loop {
            tokio::select! {
                answer = &mut cancelling, if !cancelled => {
                    answer.map_err(Ended::from)?;
                    cancelled = true;
                }
                delivered = self.stream.next() => match delivered {
                    Some(Ok(delivery)) => self.take_in(delivery),
                    Some(Err(error)) => return Err(Ended::of(&error)),
                    None => break,
                },
            }
        }
        if !cancelled {
            cancelling.await.map_err(Ended::from)?;
        }
        self.window = self.pace.window();
        self.consumers += 1;
        debug!(queue = self.queue.as_str(), window = self.window, "deliveries that may be out at a time");
        let consuming = consume(&self.channel, &self.name, self.window, self.consumers);
        self.stream = consuming.await.map_err(Ended::from)?;
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
    window: u16,
    number: u32,
) -> Result<lapin::Consumer, AmqpError> {
    answered("set the prefetch", channel.basic_qos(window, BasicQosOptions::default())).await?;
    let consuming = channel.basic_consume(
        name.into(),
        consumer_tag(number).as_str().into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    answered("consume from a queue", consuming).await.map_err(|error| explain(error, name))
}

/// A new one for each: the broker numbers what a consumer has out, and goes on where the tag was used before.
fn consumer_tag(number: u32) -> String {
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
