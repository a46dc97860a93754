//! An echo: it answers each command of its step with success and the command's body.
//!
//! It keeps no ledger, unlike a participant that is worth its name: what it costs would count for both
//! orchestrators alike.

use std::cell::Cell;
use std::convert::Infallible;

use lapin::message::Delivery;

use super::relay::relay;
use super::wire::{Link, Message, header, headers, properties};
use super::{Counts, Word, tell};
use crate::bench::BenchError;
use crate::bench::names::Names;

/// Commands that are out at a time.
const PREFETCH: u16 = 1000;

/// Answers for ever.
pub(super) async fn serve(
    link: &Link,
    names: &Names,
    step: &str,
    counts: &Cell<Counts>,
) -> Result<Infallible, BenchError> {
    let queue = names.step_queue(step);
    let publishing = link.publishing().await?;
    let inflow = link.consume(&queue, PREFETCH).await?;
    tell(&Word::Ready)?;
    Err(relay(&queue, inflow, &publishing, counts, answer).await)
}

fn answer(command: Delivery) -> Result<Message, &'static str> {
    let reply_to = command.properties.reply_to().clone().ok_or("a command without a reply queue")?;
    let id = command.properties.correlation_id().clone().ok_or("a command without a correlation id")?;
    // The step is for the null orchestrator, which would not know it otherwise.
    let step = header(&command, "x-saga-step").ok_or("a command without a step")?;
    let headers = headers([("x-saga-outcome", "success"), ("x-saga-step", step)]);
    let properties = properties(headers).with_correlation_id(id);
    Ok(Message { exchange: "".into(), key: reply_to, properties, body: command.data })
}
