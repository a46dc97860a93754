//! The publisher: every message goes out until the broker has confirmed it.
//!
//! Messages wait in the [outbox](super::outbox). A few lanes, each a channel with confirms, take a
//! **wave** at a time, publish all of it, await all its confirms and only then settle each message,
//! because the client library hands a returned message to whichever confirm comes next. A message
//! that is not settled when its lane ends goes back to the outbox, to the place where it was.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::AMQPSoftError;
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use super::outbox::{Entry, Outbox, Wave};
use super::session::{AmqpError, Session, answered, close, delays, open_channel, refusal};
use super::topology::Topology;
use super::wire;
use crate::config::{BrokerConfig, TopologyMode};
use crate::delivery::{Report, Verdict};
use crate::fault::{self, Bug, Point};
use crate::health::Health;
use crate::metric;
use crate::saga::message::Outgoing;

/// Channels that publish side by side.
const LANES: usize = 4;

/// Messages that a lane publishes before it waits for confirms.
const WAVE: usize = 256;

/// The longest delay before messages that the broker did not take go out again.
const MAX_NACK_DELAY: Duration = Duration::from_secs(15);

/// How often the connection is looked at while there is nothing to publish.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Handle of the publisher. Dropping it stops the publisher at once; what it had not reported by
/// then has to be handed to the next one.
#[derive(Debug)]
pub struct Publisher {
    outbox: Arc<Outbox>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Starts to publish. A lost connection is opened again for ever.
    pub fn start(
        config: &BrokerConfig,
        topology: Arc<Topology>,
        reports: UnboundedSender<Report>,
        health: Arc<Health>,
    ) -> Self {
        let outbox = Arc::new(Outbox::default());
        let (stop, stopped) = oneshot::channel();
        let session = Session::new("publisher", config);
        let confirm_timeout = config.confirm_timeout;
        let told = Arc::clone(&health);
        let worker = Worker { outbox: outbox.clone(), topology, reports, health, confirm_timeout };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = worker.run(session) => {}
                _ = stopped => {}
            }
            told.publishing.set(false);
        });
        Self { outbox, stop, task }
    }

    /// Takes messages over; returns at once. They are gone if the process ends, so whoever hands
    /// them over keeps them until they are reported.
    pub fn publish(&self, messages: Vec<Outgoing>) {
        self.outbox.put(messages);
    }

    /// Messages that are not reported yet.
    pub fn outstanding(&self) -> usize {
        self.outbox.outstanding()
    }

    /// Waits until every message is reported, for `patience` at most, and stops. Returns how many
    /// are left.
    pub async fn close(self, patience: Duration) -> usize {
        let _ = tokio::time::timeout(patience, self.outbox.drained()).await;
        let _ = self.stop.send(());
        let _ = self.task.await;
        self.outbox.outstanding()
    }
}

#[derive(Clone)]
struct Worker {
    outbox: Arc<Outbox>,
    topology: Arc<Topology>,
    reports: UnboundedSender<Report>,
    health: Arc<Health>,
    /// From a wave's first message to its last confirm. A connection that the broker has blocked runs
    /// into it too.
    confirm_timeout: Duration,
}

impl Worker {
    async fn run(self, mut session: Session) {
        loop {
            let connection = Arc::new(session.open(&self.topology).await);
            let reason = self.publish_over(&connection).await;
            self.health.publishing.set(false);
            let blocked = connection.status().blocked();
            close(&connection).await;
            let hint =
                if blocked { " (the broker has blocked it: see its memory and disk alarms)" } else { "" };
            session.failed(&format_args!("{reason}{hint}"));
        }
    }

    /// One epoch: until the first lane fails or the connection is gone. Returns why.
    async fn publish_over(&self, connection: &Arc<Connection>) -> String {
        let mut lanes = JoinSet::new();
        for _ in 0..LANES {
            let channel = match open_lane(connection).await {
                Ok(channel) => channel,
                Err(error) => return error.to_string(),
            };
            lanes.spawn(self.clone().lane(connection.clone(), channel));
        }
        self.health.publishing.set(true);
        let reason = tokio::select! {
            Some(ended) = lanes.join_next() => ended.map_or_else(|error| error.to_string(), |error| error.to_string()),
            () = connection_lost(connection) => "the connection was lost".to_owned(),
        };
        // Ending the lanes puts back what they hold.
        lanes.shutdown().await;
        reason
    }

    /// Publishes wave by wave, until the connection fails. Returns why.
    async fn lane(self, connection: Arc<Connection>, mut channel: Channel) -> AmqpError {
        let mut nacked = delays();
        loop {
            let mut wave = self.outbox.take(WAVE).await;
            fault::pass(Point::Publish);
            match self.send(&channel, wave.entries_mut()).await {
                Ok(verdicts) => {
                    fault::pass(Point::Confirmed);
                    self.settle(&mut wave, verdicts);
                }
                Err(Refused::Connection(error)) => return error,
                Err(Refused::Message(_)) => {
                    if let Err(error) = self.send_singly(&connection, &mut channel, &mut wave).await {
                        return error;
                    }
                }
            }
            if wave.is_empty() {
                nacked.reset();
            } else {
                warn!(messages = wave.len(), "the broker did not take messages, publishing them again");
                tokio::time::sleep(nacked.next_backoff().unwrap_or(MAX_NACK_DELAY)).await;
                // A channel that said no may go on to do so: seen with RabbitMQ 3.10.8, for ever, after
                // the leader of a quorum queue died.
                match renewed(&connection, channel).await {
                    Ok(opened) => channel = opened,
                    Err(error) => return error,
                }
            }
        }
    }

    /// Publishes one message at a time after the broker closed the channel over one of them, to
    /// find out which. Those before it go out twice.
    async fn send_singly(
        &self,
        connection: &Connection,
        channel: &mut Channel,
        wave: &mut Wave,
    ) -> Result<(), AmqpError> {
        if self.topology.mode == TopologyMode::Declare {
            self.topology.apply(connection).await?;
        }
        *channel = open_lane(connection).await?;
        let alone = wave.len() == 1;
        let mut verdicts = Vec::new();
        let mut failed = None;
        for entry in wave.entries_mut() {
            // The wave's channel took nothing from the first refused message on: if this one is
            // refused, only an earlier wave can have delivered it.
            let maybe_delivered = entry.message.repeated;
            // Nor can it have delivered its only message.
            entry.message.repeated |= !alone;
            match self.send(channel, std::slice::from_mut(entry)).await {
                Ok(mut one) => verdicts.append(&mut one),
                Err(Refused::Message(reason)) => {
                    verdicts.push(Some(Verdict::Unroutable { reason, maybe_delivered }));
                    failed = open_lane(connection).await.map(|opened| *channel = opened).err();
                }
                Err(Refused::Connection(error)) => failed = Some(error),
            }
            if failed.is_some() {
                break;
            }
        }
        self.settle(wave, verdicts);
        failed.map_or(Ok(()), Err)
    }

    /// Publishes messages and awaits all their confirms. The verdicts are in the messages' order;
    /// none for what is to be published again.
    async fn send(&self, channel: &Channel, entries: &mut [Entry]) -> Result<Vec<Option<Verdict>>, Refused> {
        let reply_to = self.topology.replies_queue();
        let properties: Vec<_> =
            entries.iter().map(|entry| wire::outgoing(&entry.message, &reply_to)).collect();
        for entry in entries.iter_mut() {
            entry.attempted = true;
        }
        let confirming = join_all(entries.iter().zip(&properties).map(|(entry, properties)| async move {
            match properties {
                Ok(properties) => publish(channel, &entry.message, properties.clone()).await.map(Some),
                Err(_) => Ok(None),
            }
        }));
        let after = self.confirm_timeout;
        let confirmed = tokio::time::timeout(after, confirming)
            .await
            .map_err(|_| Refused::Connection(AmqpError::Timeout { what: "published messages", after }))?;
        let confirmations = all_or_refused(confirmed)?;

        let mut returned: HashSet<String> = confirmations.iter().flatten().filter_map(returned_id).collect();
        if fault::planted(Bug::ReturnsUnseen) {
            returned.clear();
        }
        let verdict = |((entry, confirmation), properties): ((&Entry, _), Result<_, String>)| {
            let Outgoing { exchange, key, message_id, repeated, .. } = &entry.message;
            let unroutable = |reason| Some(Verdict::Unroutable { reason, maybe_delivered: *repeated });
            match (properties, confirmation) {
                (Err(reason), _) => unroutable(reason),
                _ if !returned.is_empty() && returned.contains(&message_id.to_string()) => {
                    unroutable(format!("no queue is bound to exchange {exchange:?} for key {key:?}"))
                }
                (_, Some(Confirmation::Ack(_))) => Some(Verdict::Published),
                _ => None,
            }
        };
        Ok(entries.iter().zip(confirmations).zip(properties).map(verdict).collect())
    }

    /// Reports what has a verdict, and leaves the rest in the wave.
    fn settle(&self, wave: &mut Wave, verdicts: Vec<Option<Verdict>>) {
        let mut verdicts = verdicts.into_iter();
        let mut reports = Vec::with_capacity(wave.len());
        wave.settle(|message| {
            let Some(verdict) = verdicts.next().flatten() else { return false };
            let counter = match verdict {
                Verdict::Published => metrics::counter!(metric::PUBLISHED),
                Verdict::Unroutable { .. } => metrics::counter!(metric::RETURNED),
            };
            counter.increment(1);
            reports.push(Report { origin: message.origin, verdict });
            true
        });
        // Only now: whoever has the last report may rely on nothing being outstanding.
        for report in reports {
            // Nobody listens any more only at the very end, when the message counts as unconfirmed.
            let _ = self.reports.send(report);
        }
    }
}

/// Why a wave has no verdicts.
enum Refused {
    /// The broker closed the channel over a message: no such exchange, no permission, too large.
    Message(String),
    /// The connection is of no use.
    Connection(AmqpError),
}

async fn open_lane(connection: &Connection) -> Result<Channel, AmqpError> {
    let channel = open_channel(connection).await?;
    answered("ask for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// Another channel in place of one that works no more.
async fn renewed(connection: &Connection, channel: Channel) -> Result<Channel, AmqpError> {
    answered("close a channel", channel.close(200, "OK".into())).await?;
    open_lane(connection).await
}

/// Publishes and awaits the confirm. The first poll puts the whole message into the channel's
/// queue of frames: futures that are polled by one task keep their order.
async fn publish(
    channel: &Channel,
    message: &Outgoing,
    properties: BasicProperties,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let (exchange, key) = (message.exchange.as_str().into(), message.key.as_str().into());
    let confirm = channel.basic_publish(exchange, key, options, &message.body, properties).await?;
    fault::pass(Point::Published);
    confirm.await
}

/// All confirmations, or the most telling of the errors: the one by which the broker closed the
/// channel, beside which all others only say that it is closed.
fn all_or_refused(
    confirmed: Vec<lapin::Result<Option<Confirmation>>>,
) -> Result<Vec<Option<Confirmation>>, Refused> {
    let refused = confirmed.iter().filter_map(|result| result.as_ref().err()).find_map(refusal);
    if let Some((code, reason)) = refused {
        warn!(%reason, ?code, "the broker refused a message");
        let what = if code == AMQPSoftError::NOTFOUND { "" } else { "the broker refuses the message: " };
        return Err(Refused::Message(format!("{what}{reason}")));
    }
    confirmed
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|source| Refused::Connection(AmqpError::Failed { what: "publish", source }))
}

fn returned_id(confirmation: &Confirmation) -> Option<String> {
    let (Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) = confirmation else {
        return None;
    };
    returned.delivery.properties.message_id().as_ref().map(ToString::to_string)
}

/// Returns when the connection is gone, which lanes without work would not notice.
async fn connection_lost(connection: &Connection) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    while connection.status().connected() {
        ticks.tick().await;
    }
}
