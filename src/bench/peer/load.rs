//! The load generator: start events go out, end events come in, and the time between them is kept.

use std::ops::Range;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use serde::Deserialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::relay::delivered;
use super::wire::{Inflow, Link, Message, ack, headers, properties, publish};
use super::{Counts, GO, Loaded, Pace, TELL, Word, tell};
use crate::bench::BenchError;
use crate::bench::latency::Latency;
use crate::bench::names::{Names, START_KEY};
use crate::bench::starts::Starts;

/// End events that are out at a time.
const PREFETCH: u16 = 1000;
/// How long no saga may end before the load is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The part of an end event that counts; the rest is the payload of its start.
#[derive(Deserialize)]
struct Order {
    order_id: String,
}

/// What is known of all sagas.
struct Sagas {
    /// Number of the first one.
    first: u64,
    /// When each was to start; `None` before, and after its end.
    started: Vec<Option<Instant>>,
    micros: Vec<u64>,
    counts: Counts,
}

/// Starts the sagas with these numbers once it is told to, and returns when all have ended.
pub(super) async fn load(
    link: &Link,
    names: &Names,
    numbers: Range<u64>,
    pace: Pace,
    orders: &mut UnboundedReceiver<String>,
) -> Result<Loaded, BenchError> {
    let queue = names.ends_queue();
    let publishing = link.publishing().await?;
    let Inflow { channel, prefetch, mut deliveries } = link.consume(&queue, PREFETCH).await?;
    let starts = Starts::of(names);
    tell(&Word::Ready)?;
    match orders.recv().await {
        Some(word) if word == GO => {}
        _ => return Err(BenchError::Interrupted),
    }

    let number = numbers.end - numbers.start;
    let mut sagas =
        Sagas { first: numbers.start, started: Vec::new(), micros: Vec::new(), counts: Counts::default() };
    let mut unconfirmed = FuturesUnordered::new();
    let (received, tags) = watch::channel(0);
    let acking = ack(&channel, prefetch, tags);
    tokio::pin!(acking);
    let begin = Instant::now();
    let mut latest = begin;
    let mut ticks = interval(TELL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while sagas.ended() < number {
        let mut due = sagas.next_due(number, begin, pace);
        while let Some(at) = due
            && at <= Instant::now()
        {
            unconfirmed.push(publish(&publishing, event(&starts, numbers.start + sagas.counts.sent)));
            sagas.start(at);
            due = sagas.next_due(number, begin, pace);
        }
        tokio::select! {
            biased;
            Some(done) = unconfirmed.next(), if !unconfirmed.is_empty() => done?,
            next = deliveries.next() => {
                let delivery = delivered(&queue, next)?;
                received.send_replace(delivery.delivery_tag);
                let odd = |reason| BenchError::Foreign { queue: queue.clone(), reason };
                sagas.end(&delivery).map_err(odd)?;
                latest = Instant::now();
            }
            error = &mut acking => return Err(error),
            () = sleep_until(due.unwrap_or(begin)), if due.is_some() => {}
            _ = ticks.tick() => {
                tell(&Word::Completed(sagas.ended()))?;
                if latest.elapsed() > PATIENCE {
                    let (secs, completed) = (PATIENCE.as_secs(), sagas.ended());
                    return Err(BenchError::Stalled { secs, completed, sagas: number });
                }
            }
            order = orders.recv() => if order.is_none() { return Err(BenchError::Interrupted) },
        }
    }
    let secs = (latest - begin).as_secs_f64();
    Ok(Loaded { secs, latency: Latency::of(sagas.micros), counts: sagas.counts })
}

impl Sagas {
    fn ended(&self) -> u64 {
        self.micros.len() as u64
    }

    /// When the next one is to start; `None` if there is none, or if that depends on the end of another.
    ///
    /// An open load counts from the time when a start was due, not from when it went out: a load
    /// generator that is held up must not hide what it is held up by.
    fn next_due(&self, number: u64, begin: Instant, pace: Pace) -> Option<Instant> {
        match pace {
            _ if self.counts.sent == number => None,
            Pace::InFlight(most) => (self.counts.sent - self.ended() < most).then(Instant::now),
            Pace::PerSecond(rate) => {
                let after = Duration::try_from_secs_f64(self.counts.sent as f64 / rate).ok();
                after.and_then(|after| begin.checked_add(after))
            }
        }
    }

    fn start(&mut self, at: Instant) {
        self.started.push(Some(at));
        self.counts.sent += 1;
    }

    /// Counts every end event, and ends a saga once.
    fn end(&mut self, delivery: &Delivery) -> Result<(), &'static str> {
        self.counts.received += 1;
        let order: Order = serde_json::from_slice(&delivery.data).map_err(|_| "not an end event")?;
        let number: u64 = order.order_id.parse().map_err(|_| "an end event of another saga")?;
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let started =
            index.and_then(|index| self.started.get_mut(index)).ok_or("an end event of another run")?;
        if let Some(started) = started.take() {
            self.micros.push(started.elapsed().as_micros() as u64);
        }
        Ok(())
    }
}

fn event(starts: &Starts, number: u64) -> Message {
    let properties =
        properties(headers([])).with_message_id(Starts::id(number).into()).with_type(START_KEY.into());
    let (exchange, body) = (starts.exchange().into(), starts.body(number).into_bytes());
    Message { exchange, key: START_KEY.into(), properties, body }
}
