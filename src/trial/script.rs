//! Scripts: what becomes of each attempt of each command, and what comes in besides.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::path::Target;
use crate::checker::evidence::Placing;
use crate::delivery::Queue;
use crate::saga::id::InstanceId;
use crate::saga::message::{Origin, Outgoing, Part, RawMessage};
use crate::saga::time::Timestamp;

/// How long a participant takes where nothing is said.
pub(super) const USUAL: Duration = Duration::from_millis(10);

/// What everybody does but the orchestrator.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// What becomes of the attempts of the commands of each instance; what is said of the last one holds for
    /// all after it.
    pub(super) acts: BTreeMap<InstanceId, Acts>,
    /// What comes in besides.
    pub(super) cues: Vec<Cue>,
}

/// What becomes of the attempts of each command of an instance.
pub(super) type Acts = HashMap<Target, Vec<Act>>;

/// What becomes of one attempt of a command.
#[derive(Clone, Debug, Default)]
pub(super) struct Act {
    /// Whether no queue is bound for it.
    pub(super) unroutable: bool,
    /// When the broker confirms it.
    pub(super) confirmed: When,
    /// What the participant keeps in its ledger.
    pub(super) books: Option<Books>,
    /// What is answered, and when.
    pub(super) answers: Vec<(When, Answer)>,
    /// Whether the power fails around the commit of the first answer.
    pub(super) crash: Option<Crash>,
}

/// What a participant keeps of a command that it has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Books {
    /// It is done.
    Done,
    /// It is refused.
    Refused,
}

/// A message for one of the orchestrator's queues.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) queue: Queue,
    pub(super) message: RawMessage,
    /// Whether it names the command that it answers.
    pub(super) correlated: bool,
}

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// So long after the command is published.
    After(Duration),
    /// At this time, or when the command is published if that is later.
    At(Timestamp),
}

/// Around which side of its commit the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    Before,
    After,
}

/// An event that comes in, apart from answers.
#[derive(Clone, Debug)]
pub(super) struct Cue {
    /// The command that it waits for; none is the start.
    pub(super) on: Option<(InstanceId, Target)>,
    /// How long after that.
    pub(super) after: Duration,
    /// What it is to do, where it starts or cancels an instance.
    pub(super) what: Option<Placing>,
    pub(super) event: RawMessage,
}

impl Script {
    /// What becomes of a command.
    pub(super) fn of(&self, command: &Outgoing) -> Option<&Act> {
        let Origin { instance, part: Part::Attempt { step, phase, attempt } } = command.origin else {
            return None;
        };
        act(self.acts.get(&instance)?, Target { member: 0, step, phase }, attempt)
    }
}

/// What becomes of an attempt, from 1.
pub(super) fn act(acts: &Acts, target: Target, attempt: u32) -> Option<&Act> {
    let acts = acts.get(&target)?;
    let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    acts.get(index).or(acts.last())
}

impl Act {
    /// The participant does its work, and answers soon.
    pub(super) fn done(answer: &Answer) -> Self {
        Self { books: Some(Books::Done), ..Self::answered(answer) }
    }

    /// The participant refuses, and says so soon.
    pub(super) fn refused(answer: &Answer) -> Self {
        Self { books: Some(Books::Refused), ..Self::answered(answer) }
    }

    /// The participant answers soon, and keeps nothing.
    pub(super) fn answered(answer: &Answer) -> Self {
        Self { answers: vec![(When::After(USUAL), answer.clone())], ..Self::default() }
    }

    /// The participant does its work, and does not answer.
    pub(super) fn silent() -> Self {
        Self { books: Some(Books::Done), ..Self::default() }
    }
}

impl When {
    /// The time that is meant for a command that is published at `now`.
    pub(super) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            When::After(duration) => now + duration,
            When::At(at) => at.max(now),
        }
    }
}

impl Default for When {
    fn default() -> Self {
        When::After(Duration::ZERO)
    }
}
