//! An instance: the fold of its facts, and what follows from it.

mod fold;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::called::Caller;
use super::fact::{Early, Failure, Started, Tells, Trace};
use super::id::{EventKey, InstanceId, MessageId, Phase, StoreId};
use super::message::Part;
use super::plan::DefinitionHash;
use super::time::Timestamp;
use crate::fault::{self, Bug};

/// One run of a saga. It changes only by [`Instance::apply`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Who it is.
    pub id: InstanceId,
    /// Name of the saga.
    pub saga: String,
    /// Version of the definition that it started with, and keeps.
    pub version: u32,
    /// That definition's content.
    pub definition: DefinitionHash,
    /// Names it in its saga.
    pub business_key: String,
    /// What it keeps of the start event. Stored once, with the first entry of the history.
    #[serde(skip)]
    pub input: Arc<Value>,
    /// Searchable values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Where it stands as a whole.
    pub status: Status,
    /// When it started.
    pub started_at: Timestamp,
    /// When the last fact was recorded.
    pub updated_at: Timestamp,
    /// When it was completed or compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When its time limit is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Whether the deadline has been dealt with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deadline_passed: bool,
    /// The store that it began in.
    #[serde(default, skip_serializing_if = "StoreId::is_nil")]
    pub store: StoreId,
    /// Id of the start event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Events that count already: the last [`MAX_HEARD`], the oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub heard: VecDeque<EventKey>,
    /// The instance that called it, where no event started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// Whether every step is settled and the caller has still to decide; stays true on the way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Trace context of the start event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// Why it is stopping or was compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Why it is parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Failure>,
    /// Its steps, in the plan's order.
    pub steps: Vec<StepState>,
    /// Events that tell of its ends, in the order in which they were due.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
    /// How many messages were recorded that changed nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ignored: u32,
    /// How many times a participant said that it still works.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub still_working: u32,
    /// Entries in its history: the version that the next append expects.
    pub revision: u64,
}

/// Where an instance stands as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Going forward.
    Running,
    /// Going back.
    Compensating,
    /// Every step is settled.
    Completed,
    /// Everything is undone.
    Compensated,
    /// Waiting for a person.
    Parked,
}

/// A step of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Name of the step.
    pub name: String,
    /// Where it stands.
    pub status: StepStatus,
    /// What it keeps of its reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
    /// Why it failed or was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What was wrong with the last reply that could not be read, until a right one comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misread: Option<String>,
    /// What an event said that came before the step had its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<Early>,
    /// Whether the instance that it called is parked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    /// Its items, where it is done for each of a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// How far doing it has got.
    #[serde(default, skip_serializing_if = "Progress::is_idle")]
    pub action: Progress,
    /// How far undoing it has got.
    #[serde(default, skip_serializing_if = "Progress::is_idle")]
    pub compensation: Progress,
}

/// An item of a step that is done for each of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Where it stands.
    pub status: ItemStatus,
    /// What the step keeps of it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// How often it was called.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// Why what the step keeps of it could not be made, although it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Whether its instance is parked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
}

/// Where an item stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// Not begun.
    Pending,
    /// Its instance is under way.
    Called,
    /// Done.
    Done,
    /// Not done, and without effect.
    Failed,
    /// Its instance was told to turn back.
    Recalled,
    /// Undone.
    Undone,
    /// It turned back, and something of it was left as it was.
    NotUndone,
}

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Not begun.
    Pending,
    /// Under way: its command is out, or waits to be sent; or an event or a time is awaited.
    Dispatched,
    /// Done.
    Succeeded,
    /// Definitely not done.
    Failed,
    /// Given up; whether it was done is not known.
    Unknown,
    /// Its condition was false.
    Skipped,
    /// Being undone.
    Compensating,
    /// Undone.
    Compensated,
    /// Not undone, and it will not be: a person had the instance go on without that.
    NotUndone,
}

/// How far a command has got over its attempts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Attempts so far.
    pub attempt: u32,
    /// When the last attempt was decided, or began to await its turn.
    pub dispatched_at: Timestamp,
    /// What is awaited.
    pub awaiting: Awaiting,
    /// Whether an attempt may have reached a participant.
    #[serde(default)]
    pub maybe_delivered: bool,
}

/// What a command's next change depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Awaiting {
    /// Nothing: not begun, or settled.
    #[default]
    Nothing,
    /// The broker's confirm: the command is to be published, again after a restart.
    Confirm,
    /// The answer, until this time.
    Reply(Timestamp),
    /// An event, until this time.
    Event(Timestamp),
    /// This time.
    Time(Timestamp),
    /// This time, to send the next attempt.
    Retry(Timestamp),
    /// Its turn to send the next attempt, where the step is limited.
    Turn,
    /// The end of an instance that was called.
    Called,
    /// That an instance which was called has turned back.
    Recalled,
}

/// An event that tells that an instance ended or is parked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// What it tells.
    #[serde(default)]
    pub tells: Tells,
    /// The instance's status then.
    pub status: Status,
    /// Since when.
    pub at: Timestamp,
    /// What is to be published, as long as it is to be published; nothing stands for `null`, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Arc<Value>>,
    /// Whether it still has to be published.
    pub pending: bool,
}

/// How many events an instance remembers that have counted. One that comes again after so many others counts once
/// more.
pub const MAX_HEARD: usize = 1000;
/// How long a command may stay unconfirmed before that is looked at.
const CONFIRM_CHECK: Duration = Duration::from_secs(60);

impl Instance {
    /// The instance as it is right after its start, at revision 0: nothing is recorded yet.
    pub fn begin(id: InstanceId, started: &Started, at: Timestamp) -> Self {
        let steps = started.steps.iter().map(|name| StepState::new(name.clone())).collect();
        Self {
            id,
            saga: started.saga.clone(),
            version: started.version,
            definition: started.definition.clone(),
            business_key: started.business_key.clone(),
            input: Arc::clone(&started.input),
            attributes: started.attributes.clone(),
            status: Status::Running,
            started_at: at,
            updated_at: at,
            ended_at: None,
            deadline: started.deadline,
            deadline_passed: false,
            store: started.store,
            event_id: started.event_id.clone(),
            heard: VecDeque::new(),
            caller: started.caller,
            held: false,
            trace: started.trace.clone(),
            error: None,
            parked: None,
            steps,
            notices: Vec::new(),
            ignored: 0,
            still_working: 0,
            revision: 0,
        }
    }

    /// The id of one attempt of a step's command; that of the first is the command id.
    pub fn attempt_id(&self, step: &str, phase: Phase, attempt: u32) -> MessageId {
        MessageId::attempt(self.store, self.id, step, phase, attempt)
    }

    /// The id of one of its notices.
    pub fn notice_id(&self, ordinal: usize) -> MessageId {
        MessageId::notice(self.store, self.id, ordinal)
    }

    /// Whether an event has counted already.
    pub fn has_heard(&self, event: EventKey) -> bool {
        self.heard.contains(&event) && !fault::planted(Bug::EventsForgotten)
    }

    /// Steps that may have taken effect and that the way back leaves as they are, because a person said so.
    pub fn not_undone(&self) -> impl Iterator<Item = &str> {
        let goes_back =
            matches!(self.status, Status::Compensating | Status::Compensated) || self.error.is_some();
        let is_left = move |state: &&StepState| match state.status {
            StepStatus::NotUndone => true,
            StepStatus::Skipped => goes_back && state.action.maybe_delivered,
            _ => false,
        };
        self.steps.iter().filter(is_left).map(|state| state.name.as_str())
    }

    /// Why it is parked, else why it is stopping or was compensated.
    pub fn reason(&self) -> Option<&Failure> {
        self.parked.as_ref().or(self.error.as_ref())
    }

    /// Whether something of it is still to be done: it is under way, or a notice is not published.
    pub fn is_open(&self) -> bool {
        matches!(self.status, Status::Running | Status::Compensating)
            || self.notices.iter().any(|notice| notice.pending)
            || self.unconfirmed().next().is_some()
    }

    /// Whether its definition has to be listened to: it is open, or parked, and a late answer may take it on.
    pub fn needs_definition(&self) -> bool {
        self.is_open() || self.status == Status::Parked
    }

    /// Whether no further step is begun because of a failure, the deadline or a cancellation.
    pub fn is_stopping(&self) -> bool {
        self.status == Status::Running && self.error.is_some()
    }

    /// Whether it is stopping, turning back or undone because it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.error.as_ref().is_some_and(Failure::is_cancellation)
    }

    /// Whether every step is settled and the caller has still to decide.
    pub fn is_held(&self) -> bool {
        self.held && self.status == Status::Running && self.error.is_none()
    }

    /// The messages that the broker has not confirmed yet.
    pub fn unconfirmed(&self) -> impl Iterator<Item = Part> + '_ {
        let attempts = self.steps.iter().enumerate().flat_map(|(step, state)| {
            [Phase::Action, Phase::Compensation].into_iter().filter_map(move |phase| {
                let progress = state.progress(phase);
                (progress.awaiting == Awaiting::Confirm).then_some(Part::Attempt {
                    step,
                    phase,
                    attempt: progress.attempt,
                })
            })
        });
        let notices = self.notices.iter().enumerate().filter(|(_, notice)| notice.pending);
        attempts.chain(notices.map(|(index, _)| Part::Notice(index)))
    }

    /// The next time at which it has to be looked at; there is always one while it is running or
    /// compensating, unless it waits for nothing but its turn, an instance that it called, or that called it.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.dues().min()
    }

    /// Every time at which it has to be looked at.
    pub fn dues(&self) -> impl Iterator<Item = Timestamp> + '_ {
        let is_under_way = matches!(self.status, Status::Running | Status::Compensating);
        let phases = self.steps.iter().flat_map(|state| [&state.action, &state.compensation]);
        let awaited = phases.filter_map(|progress| match progress.awaiting {
            Awaiting::Nothing | Awaiting::Turn | Awaiting::Called | Awaiting::Recalled => None,
            Awaiting::Confirm => Some(progress.dispatched_at + CONFIRM_CHECK),
            Awaiting::Reply(due) | Awaiting::Event(due) | Awaiting::Time(due) | Awaiting::Retry(due) => {
                Some(due)
            }
        });
        let deadline = self.deadline.filter(|_| !self.deadline_passed);
        awaited.chain(deadline).filter(move |_| is_under_way)
    }
}

impl StepState {
    /// A step that has not begun.
    pub fn new(name: String) -> Self {
        Self {
            name,
            status: StepStatus::Pending,
            output: None,
            error: None,
            misread: None,
            early: None,
            stalled: false,
            items: Vec::new(),
            action: Progress::default(),
            compensation: Progress::default(),
        }
    }

    /// Whether its next attempt awaits its turn.
    pub fn is_queued(&self) -> bool {
        self.action.awaiting == Awaiting::Turn
    }

    /// How far doing or undoing it has got.
    pub fn progress(&self, phase: Phase) -> &Progress {
        match phase {
            Phase::Action => &self.action,
            Phase::Compensation => &self.compensation,
        }
    }

    fn progress_mut(&mut self, phase: Phase) -> &mut Progress {
        match phase {
            Phase::Action => &mut self.action,
            Phase::Compensation => &mut self.compensation,
        }
    }
}

impl Progress {
    /// Whether nothing was ever sent.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

impl Status {
    /// All of them, in the order in which people look for them.
    pub const ALL: [Self; 5] =
        [Self::Running, Self::Compensating, Self::Parked, Self::Completed, Self::Compensated];

    /// The name as it stands in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Compensating => "compensating",
            Status::Completed => "completed",
            Status::Compensated => "compensated",
            Status::Parked => "parked",
        }
    }
}

impl StepStatus {
    /// All of them, in the order in which a step may come to them.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Dispatched,
        Self::Succeeded,
        Self::Failed,
        Self::Unknown,
        Self::Skipped,
        Self::Compensating,
        Self::Compensated,
        Self::NotUndone,
    ];

    /// The name as it stands in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            StepStatus::Pending => "pending",
            StepStatus::Dispatched => "dispatched",
            StepStatus::Succeeded => "succeeded",
            StepStatus::Failed => "failed",
            StepStatus::Unknown => "unknown",
            StepStatus::Skipped => "skipped",
            StepStatus::Compensating => "compensating",
            StepStatus::Compensated => "compensated",
            StepStatus::NotUndone => "not_undone",
        }
    }
}

impl ItemStatus {
    /// The name as it stands in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ItemStatus::Pending => "pending",
            ItemStatus::Called => "called",
            ItemStatus::Done => "done",
            ItemStatus::Failed => "failed",
            ItemStatus::Recalled => "recalled",
            ItemStatus::Undone => "undone",
            ItemStatus::NotUndone => "not_undone",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for StepStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
