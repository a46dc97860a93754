//! What comes from outside: events, answers, what strangers make up, and what a person asks for.

use std::time::Duration;

use serde_json::Value;

use super::super::participant::Reply;
use super::super::process::ProcessError;
use super::super::setting::Planned;
use super::super::stranger::forged;
use super::World;
use crate::checker::evidence::{Placed, Placing};
use crate::delivery::{Cause, Queue};
use crate::engine::Ordered;
use crate::saga::id::InstanceId;
use crate::saga::instance::{Awaiting, Instance, Status, StepState, StepStatus};
use crate::saga::message::{Outgoing, RawMessage};
use crate::saga::order::{Order, Verb};

impl World<'_> {
    pub(super) fn place(&mut self) {
        let Some(event) = self.setting.events.get(self.begun) else { return };
        let name = format!("event-{}", self.begun);
        self.begun += 1;
        let (exchange, key) = event.to.clone();
        let named = event.correlated_with.as_ref().map(|(saga, key)| InstanceId::new(saga, key));
        let correlation_id = named.and_then(|id| self.correlations.get(&id)).cloned();
        let is_correlated = correlation_id.is_some();
        let message = RawMessage {
            exchange,
            key,
            message_id: (!event.is_unnamed).then(|| name.clone()),
            correlation_id,
            body: event.body.clone(),
            ..RawMessage::default()
        };
        self.note_placed(event, &name, is_correlated);
        if event.is_stray {
            return self.broker.put_aside(Queue::Events, message, Cause::Sent, self.now);
        }
        for (kind, applies) in [
            ("event_without_id", event.is_unnamed),
            ("shared_event", event.what.len() > 1),
            ("correlation_of_another", is_correlated),
        ] {
            if applies {
                self.count(kind);
            }
        }
        for _ in 0..event.repeats {
            let after = self.dice.up_to_ms(60_000);
            self.arrive(after, Queue::Events, message.clone());
            self.count("repeated_event");
        }
        self.enqueue(Queue::Events, message);
    }

    /// Notes what was placed, for each instance that it is for.
    pub(super) fn note_placed(&mut self, event: &Planned, name: &str, is_correlated: bool) {
        let Planned { what, mark, numbers, correlated_with, .. } = event;
        let other = correlated_with.clone().filter(|_| is_correlated);
        let named = other.map(|(saga, business_key)| Placing::Answer { saga, business_key });
        for (what, correlated) in
            named.map(|what| (what, true)).into_iter().chain(what.iter().cloned().map(|what| (what, false)))
        {
            let (mark, numbers) = (mark.clone(), numbers.clone());
            let placed = Placed::new(name, what, self.now);
            self.placed.push(Placed { correlated, mark, numbers, ..placed });
        }
    }

    /// Hands a message to a queue, and keeps it for a later repeat, unless it can never be understood.
    pub(super) fn enqueue(&mut self, queue: Queue, message: RawMessage) {
        let is_garbage = |placed: &Placed| {
            Some(&placed.message_id) == message.message_id.as_ref() && placed.what == Placing::Garbage
        };
        if queue == Queue::Replies || !self.placed.iter().any(is_garbage) {
            self.inputs.push((queue, message.clone()));
        }
        self.broker.enqueue(queue, message);
    }

    /// Has a message arrive in a while.
    pub(super) fn arrive(&mut self, after: Duration, queue: Queue, message: RawMessage) {
        let number = self.arrivals.len() as u64 + self.steps as u64 * 1000;
        self.arrivals.insert((self.now + after, number), (queue, message));
    }

    pub(super) fn look_aside(&mut self) {
        if let Some(message) = self.broker.aside.front().cloned() {
            self.process.look_aside(message, self.now);
            self.count("put_aside");
        }
    }

    pub(super) fn participate(&mut self) {
        let position = if self.calm { 0 } else { self.dice.below(self.broker.commands.len()) };
        let command = self.broker.commands.remove(position);
        if let Some(correlation) = command.correlation_id() {
            self.correlations.insert(command.origin.instance, correlation);
        }
        if !self.calm && self.dice.one_in(self.setting.trouble.forgeries) {
            self.forge(&command);
        }
        let (replies, oddity) = self.participants.handle(&command, self.now, self.calm, &mut self.dice);
        if let Some(kind) = oddity {
            self.count(kind);
        }
        for Reply { after, queue, message, placed } in replies {
            self.placed.extend(placed);
            self.arrive(after, queue, message);
        }
    }

    /// Somebody answers a command who was not asked.
    pub(super) fn forge(&mut self, command: &Outgoing) {
        self.forged += 1;
        let message_id = format!("forged-{}", self.forged);
        self.placed.push(Placed::new(message_id.clone(), Placing::Forged, self.now));
        let (queue, message) = forged(command, message_id, &self.setting.reply_data, &mut self.dice);
        self.count("forged_reply");
        self.enqueue(queue, message);
    }

    /// Has a person go on without what participants refuse to undo, here and there; false where nothing came of it.
    pub(super) fn attend(&mut self) -> Result<bool, ProcessError> {
        if !self.setting.attended {
            return Ok(false);
        }
        let mut stuck = Vec::new();
        for instance in self.process.reader().instances() {
            let instance = instance?;
            if let Some(step) = refused(&instance) {
                stuck.push((instance.id, step));
            }
        }
        // Readers promise no order.
        stuck.sort();
        let mut went_on = false;
        for (id, step) in stuck {
            if self.dice.one_in(2) {
                let (actor, reason) = ("ann".to_owned(), "it is refused for good".to_owned());
                let order = Order { verb: Verb::Skip, step: Some(step), output: Value::Null, actor, reason };
                if self.process.engine.order(id, order, self.now)? == Ordered::Done {
                    self.count("left_undone");
                    went_on = true;
                }
            }
        }
        Ok(went_on)
    }

    /// Delivers a part of what was delivered before once more.
    pub(super) fn repeat_inputs(&mut self) -> Result<(), ProcessError> {
        let count = self.dice.below(self.inputs.len() + 1);
        if count == 0 {
            return Ok(());
        }
        self.replayed_at = Some(self.participants.entries.len());
        self.note(format_args!("again: {count} inputs"));
        for (queue, message) in &self.inputs[..count] {
            self.broker.enqueue(*queue, message.clone());
        }
        *self.faults.entry("repeated_input".to_owned()).or_default() += count as u64;
        Ok(())
    }
}

/// The step that a participant refuses to undo, of an instance that waits for a person because of it.
fn refused(instance: &Instance) -> Option<String> {
    let is_refused = |step: &&StepState| {
        step.status == StepStatus::Compensating && step.compensation.awaiting == Awaiting::Nothing
    };
    let step = instance.steps.iter().find(is_refused).filter(|_| instance.status == Status::Parked)?;
    Some(step.name.clone())
}
