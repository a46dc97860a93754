//! The relay: for each delivery a message, and an ack once that one is confirmed.

use std::cell::Cell;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use lapin::Channel;
use lapin::message::Delivery;
use tokio::sync::watch;

use super::Counts;
use super::wire::{Inflow, Message, ack, publish};
use crate::amqp::AmqpError;
use crate::bench::BenchError;

/// Answers what a queue delivers, for ever. As many confirms are awaited at a time as deliveries are out;
/// deliveries are acked in order.
pub(super) async fn relay(
    queue: &str,
    inflow: Inflow,
    publishing: &Channel,
    counts: &Cell<Counts>,
    answer: impl Fn(Delivery) -> Result<Message, &'static str>,
) -> BenchError {
    let Inflow { channel, prefetch, mut deliveries } = inflow;
    let (confirmed, tags) = watch::channel(0);
    let relaying = async {
        let mut unconfirmed = FuturesOrdered::new();
        loop {
            tokio::select! {
                Some(done) = unconfirmed.next(), if !unconfirmed.is_empty() => {
                    match done {
                        Ok(tag) => confirmed.send_replace(tag),
                        Err(error) => return error,
                    };
                }
                delivery = deliveries.next() => {
                    let delivery = match delivered(queue, delivery) {
                        Ok(delivery) => delivery,
                        Err(error) => return error,
                    };
                    let tag = delivery.delivery_tag;
                    let message = match answer(delivery) {
                        Ok(message) => message,
                        Err(reason) => return BenchError::Foreign { queue: queue.to_owned(), reason },
                    };
                    let Counts { received, sent } = counts.get();
                    counts.set(Counts { received: received + 1, sent: sent + 1 });
                    unconfirmed.push_back(async move { publish(publishing, message).await.map(|()| tag) });
                }
            }
        }
    };
    tokio::select! {
        error = relaying => error,
        error = ack(&channel, prefetch, tags) => error,
    }
}

/// What a consumer's stream gave.
pub(super) fn delivered(queue: &str, next: Option<lapin::Result<Delivery>>) -> Result<Delivery, BenchError> {
    match next {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(source)) => Err(AmqpError::Failed { what: "consume from a queue", source }.into()),
        None => Err(BenchError::Cancelled { queue: queue.to_owned() }),
    }
}
