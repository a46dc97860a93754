//! Echoes: each answers the commands of its step with success and the command's body.
//!
//! They keep no ledger, unlike participants that are worth their name: what they cost would count for both
//! orchestrators alike. For the same reason all are one process: each further one has to be woken for each
//! message, on a machine that the orchestrator needs as well.

use std::cell::Cell;
use std::convert::Infallible;

use futures_util::future::select_all;
use lapin::message::Delivery;

use super::relay::relay;
use super::wire::{Link, Message, header, headers, properties};
use super::{Counts, Word, tell};
use crate::bench::BenchError;
use crate::bench::names::{Names, STEPS};

/// Commands of a step that are out at a time.
const PREFETCH: u16 = 1000;

/// Answers for ever.
pub(super) async fn serve(
    link: &Link,
    names: &Names,
    counts: &Cell<Counts>,
) -> Result<Infallible, BenchError> {
    let publishing = link.publishing().await?;
    let mut relays = Vec::new();
    for queue in STEPS.map(|step| names.step_queue(step)) {
        let inflow = link.consume(&queue, PREFETCH).await?;
        let publishing = &publishing;
        relays.push(Box::pin(async move { relay(&queue, inflow, publishing, counts, answer).await }));
    }
    tell(&Word::Ready)?;
    Err(select_all(relays).await.0)
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
