//! The consumer: deliveries come in, settlements go out.
//!
//! Each of our two queues has a channel of its own and a task that decodes and hands over, so that
//! a full engine holds back the broker by prefetch alone. One further task acknowledges, since the
//! order of acknowledgements matters.
//!
//! A message that lapin cannot parse, such as one with a property that is not UTF-8, ends the connection,
//! and comes again. The broker puts it aside after some deliveries, and counts each of all that were
//! out: so after such an end, deliveries are taken one by one for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::acks::Acks;
use super::session::{AmqpError, Session, answered, close, open_channel};
use super::topology::{self, DELIVERY_LIMIT, Topology};
use super::wire;
use crate::config::BrokerConfig;
use crate::delivery::{Delivery, Queue, Settlement, Token, understand};
use crate::fault::{self, Point};
use crate::health::Health;
use crate::metric;

/// A message that takes more memory than this is handed over alone, so that as many as the channel holds
/// never do.
const HEAVY: usize = 64 * 1024;

/// Our name for the one consumer of each channel.
const CONSUMER_TAG: &str = "sagamq";

/// Time limit of a stop, after which the connection is dropped; all that it left unacknowledged is
/// delivered again.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Handle of the consumer. Dropping it stops the consumer as [`Consumer::close`] does, without
/// waiting for it.
#[derive(Debug)]
pub struct Consumer {
    requests: UnboundedSender<Request>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Request {
    Settle(Settlement),
    Pause,
}

impl Consumer {
    /// Starts to consume both queues. A lost connection is opened again for ever; what was not
    /// settled by then comes again with a token of a later epoch. The deliveries' receiver holds
    /// the consumer back when it is full, and stops it when it is dropped. A topology that changes is
    /// applied at once, while deliveries go on.
    pub fn start(
        config: &BrokerConfig,
        topology: watch::Receiver<Topology>,
        deliveries: mpsc::Sender<Delivery>,
        health: Arc<Health>,
    ) -> Self {
        let (requests, requested) = mpsc::unbounded_channel();
        let session = Session::new("consumer", config);
        let worker = Worker {
            topology,
            prefetch: config.prefetch,
            deliveries,
            health,
            requested,
            epoch: 0,
            paused: false,
            careful: false,
            settled: 0,
        };
        Self { requests, task: tokio::spawn(worker.run(session)) }
    }

    /// Settles deliveries; returns at once. Tokens of earlier epochs are ignored: the broker
    /// delivers those messages again anyway.
    pub fn settle(&self, settlement: Settlement) {
        // Without a worker there is no connection, and what is unsettled comes again.
        let _ = self.requests.send(Request::Settle(settlement));
    }

    /// Stops the inflow for good, and keeps the connection for what is still to be settled.
    /// Deliveries that were handed over already stay where they are.
    pub fn pause(&self) {
        let _ = self.requests.send(Request::Pause);
    }

    /// Stops once every settlement is on the wire. What is unsettled then is delivered again to
    /// whoever consumes next.
    pub async fn close(self) {
        let Self { requests, mut task } = self;
        drop(requests);
        if tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err() {
            warn!("the consumer did not stop in time, its connection is dropped");
            task.abort();
        }
    }
}

struct Worker {
    topology: watch::Receiver<Topology>,
    prefetch: u16,
    deliveries: mpsc::Sender<Delivery>,
    health: Arc<Health>,
    requested: UnboundedReceiver<Request>,
    epoch: u64,
    paused: bool,
    /// Whether deliveries are taken one by one.
    careful: bool,
    /// The highest tag that was settled in this epoch.
    settled: u64,
}

/// Why an epoch is over.
enum Ended {
    /// The connection, or a queue, is gone.
    Lost(String),
    /// Something was delivered that cannot be parsed.
    Garbled(String),
    /// Care is no longer needed.
    Calm,
    /// Nothing more is wanted.
    Stopped,
}

impl Worker {
    async fn run(mut self, mut session: Session) {
        loop {
            let connection = tokio::select! {
                connection = session.open(&mut self.topology) => connection,
                () = stop_requested(&mut self.requested) => return,
            };
            self.epoch += 1;
            self.settled = 0;
            let ended = self.consume(&connection).await;
            self.health.consuming.set(false);
            close(&connection).await;
            self.careful = match ended {
                _ if self.paused => return,
                Ended::Stopped => return,
                Ended::Calm => false,
                Ended::Lost(reason) => {
                    session.failed(&reason);
                    self.careful && self.settled == 0
                }
                Ended::Garbled(reason) => {
                    session.failed(&reason);
                    session.expect_soon();
                    true
                }
            };
        }
    }

    /// One epoch.
    async fn consume(&mut self, connection: &Connection) -> Ended {
        let mut inflow = JoinSet::new();
        let mut channels = BTreeMap::new();
        for queue in Queue::ALL {
            let subscribed = tokio::select! {
                subscribed = self.subscribe(connection, queue) => subscribed,
                // A connection that a first delivery has broken may leave later questions without an answer.
                Some(ended) = inflow.join_next() => return outcome(ended),
            };
            match subscribed {
                Ok((channel, stream)) => {
                    inflow.spawn(hand_over(stream, queue, self.epoch, self.deliveries.clone()));
                    channels.insert(queue, channel);
                }
                Err(error) => return Ended::Lost(error.to_string()),
            }
        }
        self.health.consuming.set(true);
        let mut acks = Acks::of(if self.careful { 1 } else { self.prefetch });
        loop {
            tokio::select! {
                request = self.requested.recv() => match request {
                    Some(Request::Settle(settlement)) => {
                        if let Err(error) = self.settle(&channels, settlement, &mut acks).await {
                            return Ended::Lost(error.to_string());
                        }
                        // All that were out together with what cannot be parsed are through.
                        if self.careful && self.settled > self.prefetch.into() {
                            return Ended::Calm;
                        }
                    }
                    Some(Request::Pause) => {
                        self.paused = true;
                        self.health.consuming.set(false);
                        cancel(&channels).await;
                        inflow.shutdown().await;
                    }
                    None => {
                        if let Err(error) = self.ack(&channels, &mut acks).await {
                            debug!(%error, "the connection was lost before its last deliveries were acked");
                        }
                        return Ended::Stopped;
                    }
                },
                () = sleep_until(acks.due()), if acks.are_waiting() => {
                    if let Err(error) = self.ack(&channels, &mut acks).await {
                        return Ended::Lost(error.to_string());
                    }
                }
                Ok(()) = self.topology.changed() => match topology::follow(connection, &mut self.topology).await {
                    Ok(()) => {}
                    // What was there before is still there. The next connection will say so again.
                    Err(error @ AmqpError::Topology { .. }) => warn!(%error, "the topology cannot be changed"),
                    Err(error) => return Ended::Lost(error.to_string()),
                },
                Some(ended) = inflow.join_next() => return outcome(ended),
            }
        }
    }

    /// Rejects at once, and acks once it is time. The order matters: an ack covers all that is before it and
    /// still open.
    async fn settle(
        &mut self,
        channels: &BTreeMap<Queue, Channel>,
        settlement: Settlement,
        acks: &mut Acks,
    ) -> Result<(), AmqpError> {
        fault::pass(Point::Settle);
        let is_of_this = |token: &Token| token.epoch == self.epoch;
        for token in settlement.reject.into_iter().filter(is_of_this) {
            let Some(channel) = channels.get(&token.queue) else { continue };
            let options = BasicNackOptions { multiple: false, requeue: false };
            answered("reject a delivery", channel.basic_nack(token.tag, options)).await?;
            fault::pass(Point::Rejected);
        }
        settlement.ack.into_iter().filter(is_of_this).for_each(|token| acks.add(token));
        // A busy thread may be late to hear that time is up.
        if acks.are_many() || acks.due() <= Instant::now() { self.ack(channels, acks).await } else { Ok(()) }
    }

    /// Acks what waits, with one frame per queue.
    async fn ack(&mut self, channels: &BTreeMap<Queue, Channel>, acks: &mut Acks) -> Result<(), AmqpError> {
        for (queue, tag) in acks.take() {
            let Some(channel) = channels.get(&queue) else { continue };
            let options = BasicAckOptions { multiple: true };
            answered("ack deliveries", channel.basic_ack(tag, options)).await?;
            self.settled = self.settled.max(tag);
        }
        fault::pass(Point::Settled);
        Ok(())
    }

    async fn subscribe(
        &self,
        connection: &Connection,
        queue: Queue,
    ) -> Result<(Channel, lapin::Consumer), AmqpError> {
        let name = match queue {
            Queue::Events => self.topology.borrow().events_queue(),
            Queue::Replies => self.topology.borrow().replies_queue(),
        };
        let channel = open_channel(connection).await?;
        let prefetch = if self.careful { 1 } else { self.prefetch };
        answered("set the prefetch", channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
        let consuming = channel.basic_consume(
            name.as_str().into(),
            CONSUMER_TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let stream =
            answered("consume from a queue", consuming).await.map_err(|error| explain(error, &name))?;
        Ok((channel, stream))
    }
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

/// How the task ended that hands over what a queue delivers.
fn outcome(ended: Result<Ended, JoinError>) -> Ended {
    ended.unwrap_or_else(|error| Ended::Lost(error.to_string()))
}

/// Hands everything over that one queue delivers.
async fn hand_over(
    mut stream: lapin::Consumer,
    queue: Queue,
    epoch: u64,
    deliveries: mpsc::Sender<Delivery>,
) -> Ended {
    let received = metrics::counter!(metric::DELIVERIES, "queue" => queue.as_str());
    while let Some(next) = stream.next().await {
        let delivery = match next {
            Ok(delivery) => delivery,
            Err(error) if matches!(error.kind(), lapin::ErrorKind::ParsingError(_)) => {
                return Ended::Garbled(format!(
                    "a message cannot be parsed, the broker puts it aside after {DELIVERY_LIMIT} deliveries: {error}"
                ));
            }
            Err(error) => return Ended::Lost(error.to_string()),
        };
        received.increment(1);
        fault::pass(Point::Received);
        let token = Token { queue, epoch, tag: delivery.delivery_tag };
        let delivery = Delivery { token, content: understand(wire::incoming(delivery)) };
        fault::pass(Point::Decoded);
        let heavy = delivery.content.as_ref().is_ok_and(|message| message.weight() > HEAVY);
        // All of the room is there once everything before it was taken.
        let room = if heavy { deliveries.max_capacity() } else { 1 };
        let Ok(mut room) = deliveries.reserve_many(room).await else { return Ended::Stopped };
        if let Some(place) = room.next() {
            place.send(delivery);
        }
    }
    // An end is also how a deleted queue shows.
    Ended::Lost(format!("the broker cancelled the consumer of queue {:?}", queue.as_str()))
}

async fn cancel(channels: &BTreeMap<Queue, Channel>) {
    for channel in channels.values() {
        let cancelling = channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
        if let Err(error) = answered("cancel a consumer", cancelling).await {
            debug!(%error, "the connection was lost before its consumers were cancelled");
        }
    }
}

/// While there is no connection, there is nothing to settle.
async fn stop_requested(requested: &mut UnboundedReceiver<Request>) {
    while let Some(Request::Settle(_)) = requested.recv().await {}
}
