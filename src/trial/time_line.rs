//! The time line of a play: what came in, what was decided and what went out, in this order.

use serde::Serialize;

use super::stage::BEGIN;
use crate::delivery::{Delivery, Queue};
use crate::http::history::{self, FactView};
use crate::saga::fact::HistoryEntry;
use crate::saga::id::Phase;
use crate::saga::instance::Instance;
use crate::saga::message::{Outgoing, Part};
use crate::saga::time::Timestamp;

/// Characters of a body that are told.
const BODY: usize = 160;

/// What happened, moment by moment.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct TimeLine {
    /// The moments, in order.
    pub moments: Vec<Moment>,
    /// Whether anything is told; and up to which revision the history was.
    #[serde(skip)]
    told: Option<u64>,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Moment {
    /// Virtual milliseconds since the start.
    pub at_ms: i64,
    /// What it was.
    #[serde(flatten)]
    pub what: Happened,
}

/// What can happen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// A message came in.
    Received(String),
    /// A message went out.
    Sent(String),
    /// Something was decided.
    Fact(Box<FactView>),
    /// Something else befell the orchestrator.
    Befell(&'static str),
}

impl TimeLine {
    /// An empty one, which takes nothing in unless it is to be told.
    pub(super) fn new(told: bool) -> Self {
        Self { moments: Vec::new(), told: told.then_some(0) }
    }

    /// Whether anything is told.
    pub(super) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    /// What follows is not told any more.
    pub(super) fn end(&mut self) {
        self.told = None;
    }

    pub(super) fn tell(&mut self, at: Timestamp, what: impl FnOnce() -> Happened) {
        if self.is_told() {
            self.moments.push(Moment { at_ms: at.0 - BEGIN.0, what: what() });
        }
    }

    /// Tells those facts of a history that are new.
    pub(super) fn tell_history(&mut self, instance: &Instance, history: &[HistoryEntry]) {
        let Some(known) = self.told else { return };
        let new = history.iter().filter(|entry| entry.revision > known);
        let facts = history::entries(instance, new).into_iter().flat_map(|entry| entry.facts);
        // That a message is out is stored when something else is, and seen where it is sent. An event is seen itself.
        let is_mark =
            |fact: &FactView| ["published", "notice_published", "heard"].contains(&fact.fact.as_str());
        for fact in facts.filter(|fact| !is_mark(fact)) {
            let at = fact.at.map_or(BEGIN, |at| at.0);
            // Ids and absolute times tell nothing here.
            let fact = FactView { at: None, due: None, message_id: None, ..fact };
            self.tell(at, || Happened::Fact(Box::new(fact)));
        }
        self.told = history.last().map(|entry| entry.revision);
    }
}

impl Happened {
    /// A message that was delivered, and the command that it names.
    pub(super) fn delivery(queue: Queue, delivery: &Delivery, answered: Option<&Outgoing>) -> Self {
        let text = match &delivery.content {
            Err(rejected) => format!("what cannot be understood: {}", rejected.poison),
            Ok(message) => {
                let header = |name: &str| message.headers.get(name).and_then(|value| value.as_str());
                let mut text = match queue {
                    Queue::Events => format!("event {} on {}", message.key, message.exchange),
                    Queue::Replies => "reply".to_owned(),
                };
                if let Some(command) = answered {
                    text = format!("{text} to {}", name(command));
                }
                let said = ["x-saga-outcome", "x-saga-error-code"].into_iter().filter_map(header);
                let data = Some(shortened(&message.data.to_string())).filter(|_| !message.data.is_null());
                let words = said.map(str::to_owned).chain(data);
                std::iter::once(text + ":").chain(words).collect::<Vec<_>>().join(" ")
            }
        };
        Self::Received(text)
    }

    /// A message that was published.
    pub(super) fn published(outgoing: &Outgoing, unroutable: bool) -> Self {
        let whose = match outgoing.origin.part {
            Part::Attempt { attempt: 1, .. } => name(outgoing) + ": ",
            Part::Attempt { attempt, .. } => format!("{}, attempt {attempt}: ", name(outgoing)),
            Part::Notice(_) => String::new(),
        };
        let body = shortened(&String::from_utf8_lossy(&outgoing.body));
        let back = if unroutable { ", which came back: no queue is bound" } else { "" };
        let place = match &*outgoing.exchange {
            "" => format!("to queue {}", outgoing.key),
            exchange => format!("{} on {exchange}", outgoing.key),
        };
        Self::Sent(format!("{whose}{place} {body}{back}"))
    }
}

/// The name of a command, such as `undo charge`.
fn name(command: &Outgoing) -> String {
    let header = |name: &str| command.headers.get(name).unwrap_or_default();
    let undo = if header("x-saga-phase") == Phase::Compensation.as_str() { "undo " } else { "" };
    format!("{undo}{}", header("x-saga-step"))
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(BODY).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}
