//! The ledger of all participants, who keep their duties: they do their work once, and undo what was done.

use super::script::Books;
use crate::checker::evidence::Entry;
use crate::saga::id::Phase;
use crate::saga::message::Outgoing;
use crate::saga::time::Timestamp;

/// The ledger.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) entries: Vec<Entry>,
}

impl Ledger {
    /// Keeps what a participant does with a command, unless it has done so before.
    pub(super) fn book(&mut self, command: &Outgoing, phase: Phase, books: Books, at: Timestamp) {
        let header = |name: &str| command.headers.get(name);
        let command_id = header("x-saga-command-id").unwrap_or_default();
        if self.entries.iter().any(|entry| entry.command_id == command_id) {
            return;
        }
        let compensates = header("x-saga-compensates");
        let is_done = |entry: &Entry| Some(&entry.command_id) == compensates.as_ref() && entry.is_booked();
        let amount = match (books, phase) {
            (Books::Refused, _) => None,
            (Books::Done, Phase::Action) => Some(1),
            // What was never done needs no undoing.
            (Books::Done, Phase::Compensation) => self.entries.iter().any(is_done).then_some(-1),
        };
        self.entries.push(Entry {
            participant: command.participant().to_owned(),
            command_id,
            compensates,
            effect: amount.map(|amount| ("work".to_owned(), amount)).into_iter().collect(),
            answer: if books == Books::Done { "success".into() } else { "failure".into() },
            at,
        });
    }
}
