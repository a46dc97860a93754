//! Participants that keep the duties of their side and are otherwise as bad as they may be: late,
//! silent, busy, repeating themselves, and now and then talking nonsense.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::chance::Dice;
use crate::checker::evidence::{Entry, Placed, Placing};
use crate::delivery::Queue;
use crate::saga::message::{Outgoing, RawMessage};
use crate::saga::time::Timestamp;

/// All participants, with one ledger.
#[derive(Debug, Default)]
pub(super) struct Participants {
    /// What every successful reply carries.
    data: Value,
    /// Exchanges at which actions are answered by an event, and its key.
    heralds: BTreeMap<String, String>,
    pub(super) entries: Vec<Entry>,
    answers: HashMap<String, Answer>,
    undone: HashSet<String>,
    replies: u64,
}

/// What a participant answers, and will to every repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Success,
    Failure,
    Retry,
}

impl Answer {
    fn as_str(self) -> &'static str {
        match self {
            Answer::Success => "success",
            Answer::Failure => "failure",
            Answer::Retry => "retry",
        }
    }
}

/// A reply.
#[derive(Clone)]
pub(super) struct Reply {
    /// How long it takes.
    pub(super) after: Duration,
    /// Where it arrives.
    pub(super) queue: Queue,
    pub(super) message: RawMessage,
    /// What there is to note of one that is an event.
    pub(super) placed: Option<Placed>,
}

impl Participants {
    pub(super) fn new(data: Value, heralds: BTreeMap<String, String>) -> Self {
        Self { data, heralds, ..Self::default() }
    }

    /// Handles a command, and tells what was odd about that. In `calm` nothing is.
    pub(super) fn handle(
        &mut self,
        command: &Outgoing,
        now: Timestamp,
        calm: bool,
        dice: &mut Dice,
    ) -> (Vec<Reply>, Option<&'static str>) {
        let answer = self.settle(command, now, calm, dice);
        let soon = dice.up_to_ms(40);
        let key = self.heralds.get(&*command.exchange);
        let told = key.filter(|_| command.headers.get("x-saga-compensates").is_none()).cloned();
        let reply = match &told {
            Some(key) => event(command, key, Some(answer), now, dice),
            None => by_queue(self.reply(command, answer)),
        };
        let (at_once, reply) = (Reply { after: soon, ..reply.clone() }, reply);
        if calm {
            return (vec![at_once], None);
        }
        let late = Reply { after: dice.up_to_ms(30_000), ..reply };
        match dice.below(20) {
            0 | 1 => (vec![late], Some("late_reply")),
            2 => (Vec::new(), Some("silence")),
            3 => (vec![at_once, late], Some("duplicate_reply")),
            4 => {
                let nonsense = match &told {
                    Some(key) => event(command, key, None, now, dice),
                    None => by_queue(self.nonsense(command)),
                };
                (vec![Reply { after: soon, ..nonsense }, late], Some("nonsense_reply"))
            }
            5 if told.is_none() => {
                let pending = by_queue(self.pending(command));
                (vec![Reply { after: soon, ..pending }, late], Some("pending_reply"))
            }
            _ => (vec![at_once], None),
        }
    }

    /// The duties: a repeat is answered the same, what was never done can be undone, and what was
    /// undone is refused.
    fn settle(&mut self, command: &Outgoing, at: Timestamp, calm: bool, dice: &mut Dice) -> Answer {
        let header = |name: &str| command.headers.get(name);
        let command_id = header("x-saga-command-id").unwrap_or_default();
        if let Some(known) = self.answers.get(&command_id) {
            return *known;
        }
        if !calm && dice.one_in(10) {
            return Answer::Retry;
        }
        let compensates = header("x-saga-compensates");
        let booked = |amount: i64| BTreeMap::from([("work".to_owned(), amount)]);
        let (answer, effect) = match &compensates {
            Some(_) if dice.one_in(25) => (Answer::Failure, BTreeMap::new()),
            Some(action) => {
                self.undone.insert(action.clone());
                let done = self.answers.get(action) == Some(&Answer::Success);
                (Answer::Success, if done { booked(-1) } else { BTreeMap::new() })
            }
            None if self.undone.contains(&command_id) || dice.one_in(6) => (Answer::Failure, BTreeMap::new()),
            None => (Answer::Success, booked(1)),
        };
        self.answers.insert(command_id.clone(), answer);
        let participant = command.participant().to_owned();
        let word = Value::from(answer.as_str());
        self.entries.push(Entry { participant, command_id, compensates, effect, answer: word, at });
        answer
    }

    fn reply(&mut self, command: &Outgoing, answer: Answer) -> RawMessage {
        let body = if answer == Answer::Success { self.data.clone() } else { Value::Null };
        self.message(command, json!({"x-saga-outcome": answer.as_str()}), &body)
    }

    fn pending(&mut self, command: &Outgoing) -> RawMessage {
        self.message(command, json!({"x-saga-outcome": "pending"}), &Value::Null)
    }

    /// A reply from which nothing can be taken.
    fn nonsense(&mut self, command: &Outgoing) -> RawMessage {
        self.message(command, json!({"x-saga-outcome": "maybe"}), &Value::Null)
    }

    fn message(&mut self, command: &Outgoing, headers: Value, body: &Value) -> RawMessage {
        self.replies += 1;
        RawMessage {
            key: "replies".to_owned(),
            // Names the command that it answers, so that its ack can be judged.
            message_id: Some(format!("reply-{}-{}", self.replies, command.message_id)),
            correlation_id: command.correlation_id(),
            headers: headers.as_object().cloned().unwrap_or_default(),
            body: body.to_string().into_bytes(),
            ..RawMessage::default()
        }
    }
}

/// A reply that comes by the reply queue.
fn by_queue(message: RawMessage) -> Reply {
    Reply { after: Duration::ZERO, queue: Queue::Replies, message, placed: None }
}

/// An answer as an event for whoever listens; one that says nothing where there is no answer. What is said again is
/// the same event: it has the same id, or each time none, and the same body. Whether it carries the command's
/// correlation is up to chance.
fn event(command: &Outgoing, key: &str, answer: Option<Answer>, now: Timestamp, dice: &mut Dice) -> Reply {
    let header = |name: &str| command.headers.get(name).unwrap_or_default();
    let (command_id, attempt) = (header("x-saga-command-id"), header("x-saga-attempt"));
    let body: Value = serde_json::from_slice(&command.body).unwrap_or_default();
    let said = match answer {
        Some(Answer::Retry) => format!("busy-{attempt}"),
        Some(answer) => answer.as_str().to_owned(),
        None => format!("nothing-{attempt}"),
    };
    let name = format!("handled-{command_id}-{said}");
    let mut says = json!({"number": body["number"], "mark": name});
    if let Some(answer) = answer {
        says["says"] = Value::from(answer.as_str());
    }
    let is_unnamed = name.bytes().map(usize::from).sum::<usize>().is_multiple_of(3);
    let message = RawMessage {
        exchange: command.exchange.to_string(),
        key: key.to_owned(),
        message_id: (!is_unnamed).then(|| name.clone()),
        correlation_id: command.correlation_id().filter(|_| dice.one_in(2)),
        body: says.to_string().into_bytes(),
        ..RawMessage::default()
    };
    let (saga, business_key) = (header("x-saga-name"), body["number"].to_string());
    let placed = Placed::new(name.clone(), Placing::Answer { saga, business_key }, now);
    Reply {
        after: Duration::ZERO,
        queue: Queue::Events,
        message,
        placed: Some(Placed { mark: Some(name), ..placed }),
    }
}
