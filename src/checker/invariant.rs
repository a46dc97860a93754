//! What must hold.

use std::fmt;

use serde::{Serialize, Serializer};

/// One of the invariants that a run is checked against.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Invariant {
    /// Every start is one instance, or one dead letter.
    I1,
    /// Every instance ends.
    I2,
    /// Each step has one net effect, or none.
    I3,
    /// No decision both ways.
    I4,
    /// Only what may have happened is undone.
    I5,
    /// Undoing goes backwards.
    I6,
    /// Ids and copies of messages.
    I7,
    /// Acks come after the effect.
    I8,
    /// What is published was decided, and the other way round.
    I9,
    /// Inputs that come again change nothing.
    I10,
    /// Every fact is legal where it stands.
    I11,
    /// Late successes are not swallowed.
    I12,
    /// Garbage changes nothing.
    I13,
    /// Timers never fire early.
    I14,
    /// One writer.
    I15,
    /// One definition an instance.
    I16,
    /// Records are the fold of their history.
    I17,
    /// No secret is told.
    I18,
    /// Who calls and who is called end the same way.
    I19,
    /// No limit is exceeded.
    I20,
    /// An event answers one thing of an instance, once.
    I21,
    /// No value changes on its way.
    I22,
    /// What was not undone is not told as undone.
    I23,
    /// No healthy message is put aside.
    I24,
    /// One prefix, one owner.
    I25,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
        Self::I13,
        Self::I14,
        Self::I15,
        Self::I16,
        Self::I17,
        Self::I18,
        Self::I19,
        Self::I20,
        Self::I21,
        Self::I22,
        Self::I23,
        Self::I24,
        Self::I25,
    ];

    /// The invariant in a line.
    pub fn text(self) -> &'static str {
        match self {
            Self::I1 => {
                "every start event that the broker accepted is exactly one instance, or a dead letter"
            }
            Self::I2 => "every instance ends: completed, compensated or parked",
            Self::I3 => "completed: each step has exactly one net effect in the ledgers; compensated: none",
            Self::I4 => "never shipped and refunded, never a decision both ways",
            Self::I5 => "a compensation is sent only if its action may have taken effect",
            Self::I6 => "compensations go in reverse dependency order, and none after the pivot succeeded",
            Self::I7 => "ids are functions of what they name, and all copies of a message are the same",
            Self::I8 => "a delivery is settled only when its effect is durable",
            Self::I9 => "what is decided is published in the end, and what is published was decided",
            Self::I10 => "inputs that are delivered again change nothing in the ledgers",
            Self::I11 => "every fact is one that is legal where it stands",
            Self::I12 => "a late success is compensated or taken in, never swallowed",
            Self::I13 => "garbage changes no instance and is dead-lettered once",
            Self::I14 => "timers never fire early",
            Self::I15 => "an instance has one writer, and its messages follow from its history",
            Self::I16 => "an instance keeps the definition that it started with",
            Self::I17 => "a record is the fold of its history",
            Self::I18 => "no secret is in any log, error, metric or page",
            Self::I19 => "an instance that was called ends as the one that called it",
            Self::I20 => "no more commands of a limited step are out than its limit lets",
            Self::I21 => {
                "an event answers at most one thing of an instance, once, and of none that it does not name"
            }
            Self::I22 => "numbers arrive as they were said, digit by digit",
            Self::I23 => "what was not undone is nowhere told as undone",
            Self::I24 => {
                "the broker puts no healthy message aside, and what it puts aside is listed with its reason"
            }
            Self::I25 => "the messages of a prefix are taken for one store at a time",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Serialize for Invariant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
