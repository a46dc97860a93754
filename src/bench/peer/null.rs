//! The null orchestrator: what the broker gives at best.
//!
//! It consumes start events and replies, publishes the next command with confirm, and acks. It keeps
//! nothing and parses nothing: the step is a header of the reply, and the body goes on as it came. It
//! could neither retry nor undo a step, nor tell a repeated message. Its queues, connections and messages are
//! sagamq's, to the byte but for the values of ids.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::SystemTime;

use lapin::message::Delivery;
use lapin::types::ShortString;

use super::relay::relay;
use super::wire::{Link, Message, header, headers, properties};
use super::{Counts, Word, tell};
use crate::bench::BenchError;
use crate::bench::names::{COMPLETED_KEY, Names, STEPS, step_key};
use crate::config::BrokerConfig;

/// Orchestrates for ever.
pub(super) async fn orchestrate(
    link: &Link,
    names: &Names,
    broker: &BrokerConfig,
    counts: &Cell<Counts>,
) -> Result<Infallible, BenchError> {
    let topology = names.topology(broker.queue_type);
    let (events, replies) = (topology.events_queue(), topology.replies_queue());
    let next = Next { exchange: names.exchange().into(), replies: replies.as_str().into() };
    let [starting, going_on] = [link.publishing().await?, link.publishing().await?];
    let from_events = link.consume(&events, broker.prefetch).await?;
    let from_replies = link.consume(&replies, broker.prefetch).await?;
    tell(&Word::Ready)?;
    Err(tokio::select! {
        error = relay(&events, from_events, &starting, counts, |event| next.after_start(event)) => error,
        error = relay(&replies, from_replies, &going_on, counts, |reply| next.after_reply(reply)) => error,
    })
}

/// What comes next.
struct Next {
    exchange: ShortString,
    replies: ShortString,
}

impl Next {
    fn after_start(&self, event: Delivery) -> Result<Message, &'static str> {
        let id = event.properties.message_id().clone().ok_or("a start event without a message id")?;
        Ok(self.command(STEPS[0], &id, event.data))
    }

    fn after_reply(&self, reply: Delivery) -> Result<Message, &'static str> {
        let id = reply.properties.correlation_id().clone().ok_or("a reply without a correlation id")?;
        let step = header(&reply, "x-saga-step").ok_or("a reply without a step")?;
        let done = STEPS.iter().position(|known| *known == step).ok_or("a reply of an unknown step")?;
        Ok(match STEPS.get(done + 1) {
            Some(step) => self.command(step, &id, reply.data),
            None => self.end(&id, reply.data),
        })
    }

    /// All ids of a saga are the one that its start event has.
    fn command(&self, step: &str, id: &ShortString, body: Vec<u8>) -> Message {
        let headers = headers([
            ("x-saga-id", id.as_str()),
            ("x-saga-name", "bench"),
            ("x-saga-version", "1"),
            ("x-saga-step", step),
            ("x-saga-phase", "action"),
            ("x-saga-attempt", "1"),
            ("x-saga-command-id", id.as_str()),
        ]);
        let key: ShortString = step_key(step).into();
        let properties = properties(headers)
            .with_message_id(id.clone())
            .with_type(key.clone())
            .with_app_id("sagamq".into())
            .with_timestamp(now())
            .with_correlation_id(id.clone())
            .with_reply_to(self.replies.clone());
        Message { exchange: self.exchange.clone(), key, properties, body }
    }

    fn end(&self, id: &ShortString, body: Vec<u8>) -> Message {
        let headers =
            headers([("x-saga-id", id.as_str()), ("x-saga-name", "bench"), ("x-saga-version", "1")]);
        let properties = properties(headers)
            .with_message_id(id.clone())
            .with_type(COMPLETED_KEY.into())
            .with_app_id("sagamq".into())
            .with_timestamp(now());
        Message { exchange: self.exchange.clone(), key: COMPLETED_KEY.into(), properties, body }
    }
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
