//! Participants that keep the duties of their side and are otherwise as bad as they may be: late,
//! silent, busy, repeating themselves, and now and then talking nonsense.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::chance::Dice;
use crate::checker::evidence::Entry;
use crate::saga::message::{Outgoing, RawMessage};
use crate::saga::time::Timestamp;

/// All participants, with one ledger.
#[derive(Debug, Default)]
pub(super) struct Participants {
    /// What every successful reply carries.
    data: Value,
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

/// A reply, and how long it takes.
pub(super) type Reply = (Duration, RawMessage);

impl Participants {
    pub(super) fn new(data: Value) -> Self {
        Self { data, ..Self::default() }
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
        let reply = self.reply(command, answer);
        if calm {
            return (vec![(soon, reply)], None);
        }
        let later = dice.up_to_ms(30_000);
        match dice.below(20) {
            0 | 1 => (vec![(later, reply)], Some("late_reply")),
            2 => (Vec::new(), Some("silence")),
            3 => (vec![(soon, reply.clone()), (later, reply)], Some("duplicate_reply")),
            4 => (vec![(soon, self.nonsense(command)), (later, reply)], Some("nonsense_reply")),
            5 => (vec![(soon, self.pending(command)), (later, reply)], Some("pending_reply")),
            _ => (vec![(soon, reply)], None),
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
