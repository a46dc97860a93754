//! The publisher: every message goes out until the broker has confirmed it.
//!
//! Messages wait in the [outbox](super::outbox). Some lanes, each a channel with confirms, take a
//! **wave** at a time, publish all of it, await all its confirms and only then settle each message,
//! because the client library hands a returned message to whichever confirm comes next. A message
//! that is not settled when its lane ends goes back to the outbox, to the place where it was.

use std::collections::HashSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use backoff::backoff::Backoff;
use futures_util::future::maybe_done;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::AMQPSoftError;
use lapin::{Channel, Confirmation, Connection};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use super::outbox::{Entry, Outbox, Wave};
use super::session::{AmqpError, Session, answered, close, delays, open_channel, refusal};
use super::topology::{self, Topology};
use super::wire::{self, Envelope};
use crate::config::{BrokerConfig, TopologyMode};
use crate::delivery::{Report, Verdict};
use crate::fault::{self, Bug, Point};
use crate::health::Health;
use crate::metric;
use crate::saga::id::MessageId;
use crate::saga::message::Outgoing;

/// Channels that publish side by side. A lane awaits the confirms of its wave, for some milliseconds, while
/// commits follow each other by the millisecond: with so many, one is free for the next.
const LANES: usize = 16;

/// Messages that a lane publishes before it waits for confirms.
const WAVE: usize = 256;

/// The longest delay before messages that the broker did not take go out again.
const MAX_NACK_DELAY: Duration = Duration::from_secs(15);

/// How often it is looked whether the prefix is ours again, while it is not.
const OWNED_LOOK: Duration = Duration::from_millis(20);

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
    /// Starts to publish. A lost connection is opened again for ever, and the topology applied as it is then.
    pub fn start(
        config: &BrokerConfig,
        topology: watch::Receiver<Topology>,
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
    topology: watch::Receiver<Topology>,
    reports: UnboundedSender<Report>,
    health: Arc<Health>,
    /// From a wave's first message to its last confirm. A connection that the broker has blocked runs
    /// into it too.
    confirm_timeout: Duration,
}

impl Worker {
    async fn run(mut self, mut session: Session) {
        loop {
            let connection = Arc::new(session.open(&mut self.topology).await);
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
            while self.health.disowned.is_set() {
                tokio::time::sleep(OWNED_LOOK).await;
            }
            fault::pass(Point::Publish);
            match self.send(&channel, wave.entries_mut()).await {
                Ok(reports) => {
                    fault::pass(Point::Confirmed);
                    self.settle(&mut wave, reports);
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
        let mut topology = self.topology.clone();
        let makes = topology.borrow().mode == TopologyMode::Declare;
        if makes {
            topology::follow(connection, &mut topology).await?;
        }
        *channel = open_lane(connection).await?;
        let alone = wave.len() == 1;
        let mut reports = Vec::new();
        let mut failed = None;
        for entry in wave.entries_mut() {
            // The wave's channel took nothing from the first refused message on: if this one is
            // refused, only an earlier wave can have delivered it.
            let maybe_delivered = entry.message.repeated;
            // Nor can it have delivered its only message.
            entry.message.repeated |= !alone;
            match self.send(channel, std::slice::from_mut(entry)).await {
                Ok(mut one) => reports.append(&mut one),
                Err(Refused::Message(reason)) => {
                    let verdict = Verdict::Unroutable { reason, maybe_delivered };
                    reports.push(Some(Report { origin: entry.message.origin, verdict }));
                    failed = open_lane(connection).await.map(|opened| *channel = opened).err();
                }
                Err(Refused::Connection(error)) => failed = Some(error),
            }
            if failed.is_some() {
                break;
            }
        }
        self.settle(wave, reports);
        failed.map_or(Ok(()), Err)
    }

    /// Publishes messages and awaits all their confirms. The reports are in the messages' order;
    /// none for what is to be published again.
    async fn send(&self, channel: &Channel, entries: &mut [Entry]) -> Result<Vec<Option<Report>>, Refused> {
        let reply_to = self.topology.borrow().replies_queue();
        for entry in entries.iter_mut() {
            entry.attempted = true;
        }
        let confirming = all_in_order(entries.iter().map(|entry| async {
            match wire::outgoing(&entry.message, &reply_to) {
                Ok(envelope) => publish(channel, &entry.message.body, envelope).await.map(Ok),
                Err(reason) => Ok(Err(reason)),
            }
        }));
        let after = self.confirm_timeout;
        let confirmed = tokio::time::timeout(after, confirming)
            .await
            .map_err(|_| Refused::Connection(AmqpError::Timeout { what: "published messages", after }))?;
        let answers = all_or_refused(confirmed)?;

        let mut returned: HashSet<MessageId> =
            answers.iter().flatten().filter_map(|answer| answer.returned).collect();
        if fault::planted(Bug::ReturnsUnseen) {
            returned.clear();
        }
        let report = |(entry, answer): (&Entry, _)| {
            let Outgoing { origin, exchange, key, message_id, repeated, .. } = &entry.message;
            let unroutable = |reason| Verdict::Unroutable { reason, maybe_delivered: *repeated };
            let verdict = match answer {
                Err(reason) => unroutable(reason),
                Ok(_) if returned.contains(message_id) => {
                    unroutable(format!("no queue is bound to exchange {exchange:?} for key {key:?}"))
                }
                Ok(Answer { taken: true, .. }) => Verdict::Published,
                Ok(Answer { taken: false, .. }) => return None,
            };
            Some(Report { origin: *origin, verdict })
        };
        Ok(entries.iter().zip(answers).map(report).collect())
    }

    /// Reports what there is a report of, and leaves the rest in the wave.
    fn settle(&self, wave: &mut Wave, reports: Vec<Option<Report>>) {
        let mut known = reports.iter();
        wave.settle(|_| known.next().is_some_and(Option::is_some));
        let (published, returned) =
            (metrics::counter!(metric::PUBLISHED), metrics::counter!(metric::RETURNED));
        // Only now: whoever has the last report may rely on nothing being outstanding.
        for report in reports.into_iter().flatten() {
            let counter = if report.verdict == Verdict::Published { &published } else { &returned };
            counter.increment(1);
            // Nobody listens any more only at the very end, when the message counts as unconfirmed.
            let _ = self.reports.send(report);
        }
    }
}

/// The broker's word on a message.
struct Answer {
    /// Whether the broker is answerable for it from now on, or has returned it.
    taken: bool,
    /// A message of the same wave that came back, not always this one.
    returned: Option<MessageId>,
}

impl From<Confirmation> for Answer {
    fn from(confirmation: Confirmation) -> Self {
        let taken = confirmation.is_ack();
        let returned = confirmation.take_message().and_then(|returned| {
            MessageId::parse(returned.delivery.properties.message_id().as_ref()?.as_str())
        });
        Self { taken, returned }
    }
}

/// The broker's word on a message, or why it cannot be sent.
type Sent = Result<Answer, String>;

/// Why there are no reports of a wave.
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

/// Begins all, and awaits them in order. Most have ended by the time when it is their turn: so they are
/// polled about twice each, and not whenever anything happens to one of them.
async fn all_in_order<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut begun: Vec<_> = futures.map(|future| Box::pin(maybe_done(future))).collect();
    let begin = |context: &mut Context<'_>| {
        for future in &mut begun {
            // What has ended keeps what came of it.
            let _ = future.as_mut().poll(context);
        }
        Poll::Ready(())
    };
    poll_fn(begin).await;
    let mut outcomes = Vec::with_capacity(begun.len());
    for mut future in begun {
        future.as_mut().await;
        outcomes.extend(future.as_mut().take_output());
    }
    outcomes
}

/// Publishes and awaits the confirm. The first poll puts the whole message into the channel's
/// queue of frames: futures that are polled by one task keep their order.
async fn publish(
    channel: &Channel,
    body: &[u8],
    Envelope { exchange, key, properties }: Envelope,
) -> lapin::Result<Answer> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let confirm = channel.basic_publish(exchange, key, options, body, properties).await?;
    fault::pass(Point::Published);
    confirm.await.map(Answer::from)
}

/// All confirmations, or the most telling of the errors: the one by which the broker closed the
/// channel, beside which all others only say that it is closed.
fn all_or_refused(confirmed: Vec<lapin::Result<Sent>>) -> Result<Vec<Sent>, Refused> {
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

/// Returns when the connection is gone, which lanes without work would not notice.
async fn connection_lost(connection: &Connection) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    while connection.status().connected() {
        ticks.tick().await;
    }
}
