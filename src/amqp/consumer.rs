//! The consumer: deliveries come in, settlements go out.
//!
//! Each of our two queues has a channel of its own and a task that decodes and hands over, so that
//! a full engine holds back the broker by prefetch alone. One further task acknowledges, since the
//! order of acknowledgements matters.
//!
//! A message that lapin cannot parse, such as one with a property that is not UTF-8, ends the connection,
//! and comes again. The broker puts it aside after many deliveries, and counts each of all that were
//! out: so after such an end, deliveries are taken one by one for a while ([`super::pace`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Channel, Connection};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::acks::Acks;
use super::inflow::{Ended, Inflow};
use super::owner::{Owner, OwnerError};
use super::pace::Pace;
use super::session::{AmqpError, Session, answered, close};
use super::topology::{self, Topology};
use crate::config::BrokerConfig;
use crate::delivery::{Delivery, Queue, Settlement, Token};
use crate::fault::{self, Point};
use crate::health::Health;

/// Time limit of a stop, after which the connection is dropped; all that it left unacknowledged is
/// delivered again.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it is waited for what another queue has seen of a connection that failed.
const KNOWS_BETTER: Duration = Duration::from_millis(100);

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
    ///
    /// Where there is an owner, it claims the prefix on each connection before anything is taken. It is
    /// told if the prefix has become another's, and nothing is consumed any more then.
    pub fn start(
        config: &BrokerConfig,
        topology: watch::Receiver<Topology>,
        deliveries: mpsc::Sender<Delivery>,
        health: Arc<Health>,
        owner: Option<Arc<Owner>>,
    ) -> Self {
        let (requests, requested) = mpsc::unbounded_channel();
        let session = Session::new("consumer", config);
        let worker = Worker {
            topology,
            paces: Queue::ALL.map(|queue| (queue, Pace::new(config.prefetch))).into(),
            deliveries,
            health,
            owner,
            requested,
            epoch: 0,
            paused: false,
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
    /// How many deliveries of each queue may be out.
    paces: BTreeMap<Queue, Pace>,
    deliveries: mpsc::Sender<Delivery>,
    health: Arc<Health>,
    owner: Option<Arc<Owner>>,
    requested: UnboundedReceiver<Request>,
    epoch: u64,
    paused: bool,
}

impl Worker {
    async fn run(mut self, mut session: Session) {
        loop {
            let connection = tokio::select! {
                connection = session.open(&mut self.topology) => connection,
                () = stop_requested(&mut self.requested) => return,
            };
            self.epoch += 1;
            let ended = match self.claim(&connection).await {
                Ok(()) => self.consume(&connection).await,
                Err(ended) => ended,
            };
            self.health.consuming.set(false);
            close(&connection).await;
            match ended {
                _ if self.paused => return,
                Ended::Stopped => return,
                Ended::Lost(reason) => session.failed(&reason),
                Ended::Narrower => {
                    info!("bodies have become large: consuming anew, with fewer deliveries out at a time");
                    session.expect_soon();
                }
                Ended::Garbled(reason) => {
                    session.failed(&reason);
                    session.expect_soon();
                    self.paces.values().for_each(Pace::distrust);
                }
            }
            // Not at a stop, which still publishes what was decided: nobody else can have the store open.
            if let Some(owner) = &self.owner {
                owner.lose();
            }
        }
    }

    /// Claims the prefix for this connection.
    async fn claim(&mut self, connection: &Connection) -> Result<(), Ended> {
        let Some(owner) = &self.owner else { return Ok(()) };
        let claimed = tokio::select! {
            claimed = owner.claim(connection, None) => claimed,
            () = stop_requested(&mut self.requested) => return Err(Ended::Stopped),
        };
        claimed.map_err(|error| match error {
            AmqpError::Owner(error @ OwnerError::Foreign { .. }) => {
                owner.refuse(error);
                Ended::Stopped
            }
            error => Ended::Lost(error.to_string()),
        })
    }

    /// One epoch.
    async fn consume(&mut self, connection: &Connection) -> Ended {
        let mut inflow = JoinSet::new();
        let mut channels = BTreeMap::new();
        for (queue, pace) in &self.paces {
            let name = self.topology.borrow().name_of(*queue);
            let (pace, deliveries) = (pace.clone(), self.deliveries.clone());
            let opened = tokio::select! {
                opened = Inflow::open(connection, (*queue, name), self.epoch, pace, deliveries) => opened,
                // A connection that a first delivery has broken may leave later questions without an answer.
                Some(ended) = inflow.join_next() => return outcome(ended),
            };
            match opened {
                Ok(opened) => {
                    channels.insert(*queue, opened.channel.clone());
                    inflow.spawn(opened.run());
                }
                Err(error) => return why(error.into(), inflow).await,
            }
        }
        self.health.consuming.set(true);
        let mut acks = Acks::default();
        loop {
            tokio::select! {
                request = self.requested.recv() => match request {
                    Some(Request::Settle(settlement)) => {
                        if let Err(error) = self.settle(&channels, settlement, &mut acks).await {
                            return Ended::Lost(error.to_string());
                        }
                    }
                    Some(Request::Pause) => {
                        self.paused = true;
                        self.health.consuming.set(false);
                        // A consumer that nobody listens to is cancelled.
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
        &self,
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
        let window = |queue| self.paces.get(&queue).map_or(1, Pace::window);
        if acks.are_many(window) || acks.due() <= Instant::now() {
            self.ack(channels, acks).await
        } else {
            Ok(())
        }
    }

    /// Acks what waits, with one frame per queue.
    async fn ack(&self, channels: &BTreeMap<Queue, Channel>, acks: &mut Acks) -> Result<(), AmqpError> {
        for (queue, tag) in acks.take() {
            let Some(channel) = channels.get(&queue) else { continue };
            let options = BasicAckOptions { multiple: true };
            answered("ack deliveries", channel.basic_ack(tag, options)).await?;
        }
        fault::pass(Point::Settled);
        Ok(())
    }
}

/// Why a connection ended over which a queue could not be consumed from. Where another queue's first message has
/// broken it, the task of that one knows better.
async fn why(ended: Ended, mut inflow: JoinSet<Ended>) -> Ended {
    match ended {
        Ended::Lost(reason) => match tokio::time::timeout(KNOWS_BETTER, inflow.join_next()).await {
            Ok(Some(Ok(Ended::Garbled(reason)))) => Ended::Garbled(reason),
            _ => Ended::Lost(reason),
        },
        ended => ended,
    }
}

/// How the task ended that hands over what a queue delivers.
fn outcome(ended: Result<Ended, JoinError>) -> Ended {
    ended.unwrap_or_else(|error| Ended::Lost(error.to_string()))
}

/// While there is no connection, there is nothing to settle.
async fn stop_requested(requested: &mut UnboundedReceiver<Request>) {
    while let Some(Request::Settle(_)) = requested.recv().await {}
}
