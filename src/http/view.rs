//! What the API answers, version 1. A contract: fields are added, never renamed or removed.
//!
//! Times are RFC 3339, statuses and other words are strings, so that an older reader gets along
//! with a newer orchestrator. Fields that do not apply are left out.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::history::{EntryView, entries};
use crate::saga::fact::{Fact, Failure, HistoryEntry, Tells};
use crate::saga::instance::{Awaiting, Instance, Item, Notice, Progress, Status, StepState, StepStatus};
use crate::saga::plan::{Plan, Step};
use crate::saga::time::Timestamp;
use crate::store::DeadLetter;

/// A page of a list. It may hold less than was asked for, even nothing, and still not be the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageView<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// What to pass as `cursor` to get the next page; null on the last one.
    pub next: Option<String>,
}

/// An instance in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Who it is.
    pub id: String,
    /// Name of the saga.
    pub saga: String,
    /// Version of the definition that it started with.
    pub version: u32,
    /// Names it in its saga.
    pub business_key: String,
    /// `running`, `compensating`, `completed`, `compensated` or `parked`.
    pub status: String,
    /// The steps that are being done or undone, or that it is parked at.
    pub current: Vec<String>,
    /// Searchable values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// When it started.
    pub started_at: Time,
    /// When something last became known about it.
    pub updated_at: Time,
    /// When it was completed or compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// When its time limit is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Why it is parked, else why it is stopping or was compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Reason>,
    /// The instance that called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Whether it is done, and its caller has still to decide what becomes of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Steps that may have taken effect and that its way back leaves as they are, because a person said so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_undone: Vec<String>,
}

/// All about one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// What stands in lists too.
    #[serde(flatten)]
    pub summary: Summary,
    /// What it keeps of the start event.
    pub input: Value,
    /// Its steps, in the order in which they are done.
    pub steps: Vec<StepView>,
    /// Names of the steps that are still to be done, in order; of an instance that goes back, those
    /// that may still have to be undone, the last first. Without the ones in `current`.
    pub to_come: Vec<String>,
    /// Events that tell of its ends.
    pub notices: Vec<NoticeView>,
    /// How many messages were recorded that changed nothing.
    pub ignored: u32,
    /// All that became known about it, the oldest first.
    pub history: Vec<EntryView>,
}

/// A step of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Name of the step.
    pub name: String,
    /// `pending`, `dispatched`, `succeeded`, `failed`, `unknown`, `skipped`, `compensating`,
    /// `compensated` or `not_undone`.
    pub status: String,
    /// How often its command was sent.
    pub attempts: u32,
    /// What it keeps of its reply, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why it failed or was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Reason>,
    /// How its items stand, where it is done for each of a list: how many there are of each status.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, usize>,
    /// How far doing it has got, once begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ProgressView>,
    /// How far undoing it has got, once begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<ProgressView>,
}

/// How far a command has got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgressView {
    /// Attempts so far.
    pub attempts: u32,
    /// What is awaited: `nothing`, `confirm`, `reply`, `event`, `time`, `retry`, `called` (the end of
    /// an instance that was called) or `recalled` (that it has turned back).
    pub awaiting: String,
    /// When the last attempt was decided.
    pub dispatched_at: Time,
    /// When the answer or the event is overdue, the time is over, or the next attempt is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Time>,
    /// Whether an attempt may have reached a participant.
    pub maybe_delivered: bool,
}

/// An event that tells that an instance ended or is parked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoticeView {
    /// The instance's status that it tells.
    pub status: String,
    /// What else it tells: `refused_cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tells: Option<String>,
    /// Since when.
    pub at: Time,
    /// Whether it still has to be published.
    pub pending: bool,
}

/// Why something did not go as wished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Name of the step, where it concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// A word for programs, such as `OUT_OF_STOCK`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// A message that could not be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// When it was refused.
    pub at: Time,
    /// The queue that it was taken from.
    pub queue: String,
    /// The exchange that it was published to; empty for the default exchange.
    pub exchange: String,
    /// Its routing key.
    pub key: String,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Its property `correlation_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The saga that it is for, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The business key of its instance, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_key: Option<String>,
    /// The step that it answers, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why it could not be used.
    pub reason: String,
    /// The beginning of its body.
    pub preview: String,
    /// Size of its body in bytes.
    pub size: usize,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether it works.
    pub ready: bool,
    /// What is in the way.
    pub obstacles: Vec<String>,
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// A word for programs, such as `bad_parameter`.
    pub code: String,
    /// A sentence for people, and all problems as `sagamq check` shows them.
    pub message: String,
    /// What is wrong with definitions, as `sagamq check --json` tells it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Value>,
}

/// A point in time, in JSON an RFC 3339 string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl Summary {
    /// An instance as it stands in a list.
    pub fn new(instance: &Instance) -> Self {
        Self {
            id: instance.id.to_string(),
            saga: instance.saga.clone(),
            version: instance.version,
            business_key: instance.business_key.clone(),
            status: instance.status.to_string(),
            current: current(instance),
            attributes: instance.attributes.clone(),
            started_at: Time(instance.started_at),
            updated_at: Time(instance.updated_at),
            ended_at: instance.ended_at.map(Time),
            deadline: instance.deadline.map(Time),
            error: instance.reason().map(Reason::from),
            caller: instance.caller.map(|caller| caller.instance.to_string()),
            held: instance.is_held(),
            not_undone: instance.not_undone().map(str::to_owned).collect(),
        }
    }
}

impl Details {
    /// All about an instance of a plan. Entries of the history that are newer than the instance are left out,
    /// so that both tell the same. Without the plan, every step that has happened counts as one to be undone.
    pub fn new(instance: &Instance, history: &[HistoryEntry], plan: Option<&Plan>) -> Self {
        let known = history.iter().take_while(|entry| entry.revision <= instance.revision);
        let input = history.iter().flat_map(|entry| &entry.facts).find_map(|recorded| match &recorded.fact {
            Fact::Started(started) => Some(Value::clone(&started.input)),
            _ => None,
        });
        Self {
            summary: Summary::new(instance),
            input: input.unwrap_or(Value::Null),
            steps: instance.steps.iter().map(StepView::from).collect(),
            to_come: to_come(instance, plan),
            notices: instance.notices.iter().map(NoticeView::from).collect(),
            ignored: instance.ignored,
            history: entries(instance, known),
        }
    }
}

fn current(instance: &Instance) -> Vec<String> {
    let under_way =
        |step: &&StepState| matches!(step.status, StepStatus::Dispatched | StepStatus::Compensating);
    let mut names: Vec<_> = instance.steps.iter().filter(under_way).map(|step| step.name.clone()).collect();
    if names.is_empty() && instance.status == Status::Parked {
        names.extend(instance.parked.as_ref().and_then(|failure| failure.step.clone()));
    }
    names
}

/// The steps that are to be done, or on the way back to be undone, in that order.
fn to_come(instance: &Instance, plan: Option<&Plan>) -> Vec<String> {
    let is_undoable = |step: usize| plan.and_then(|plan| plan.steps.get(step)).is_none_or(Step::is_undoable);
    let steps = instance.steps.iter().enumerate();
    let name = |(_, step): (usize, &StepState)| step.name.clone();
    if instance.ended_at.is_some() {
        Vec::new()
    } else if instance.error.is_some() {
        let has_happened =
            |step: &StepState| matches!(step.status, StepStatus::Succeeded | StepStatus::Unknown);
        steps.rev().filter(|(at, step)| has_happened(step) && is_undoable(*at)).map(name).collect()
    } else {
        steps.filter(|(_, step)| step.status == StepStatus::Pending).map(name).collect()
    }
}

impl From<&StepState> for StepView {
    fn from(step: &StepState) -> Self {
        let begun = |progress: &Progress| (!progress.is_idle()).then(|| ProgressView::from(progress));
        Self {
            name: step.name.clone(),
            status: step.status.to_string(),
            attempts: step.action.attempt,
            output: step.output.as_deref().cloned().filter(|output| !output.is_null()),
            error: step.error.as_ref().map(Reason::from),
            items: items(&step.items),
            action: begun(&step.action),
            compensation: begun(&step.compensation),
        }
    }
}

fn items(items: &[Item]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item.status.as_str().to_owned()).or_default() += 1;
    }
    counts
}

impl From<&Progress> for ProgressView {
    fn from(progress: &Progress) -> Self {
        let (awaiting, due) = match progress.awaiting {
            Awaiting::Nothing => ("nothing", None),
            Awaiting::Confirm => ("confirm", None),
            Awaiting::Reply(due) => ("reply", Some(due)),
            Awaiting::Event(due) => ("event", Some(due)),
            Awaiting::Time(until) => ("time", Some(until)),
            Awaiting::Retry(due) => ("retry", Some(due)),
            Awaiting::Turn => ("turn", None),
            Awaiting::Called => ("called", None),
            Awaiting::Recalled => ("recalled", None),
        };
        Self {
            attempts: progress.attempt,
            awaiting: awaiting.to_owned(),
            dispatched_at: Time(progress.dispatched_at),
            due: due.map(Time),
            maybe_delivered: progress.maybe_delivered,
        }
    }
}

impl From<&Notice> for NoticeView {
    fn from(notice: &Notice) -> Self {
        let tells = (notice.tells == Tells::RefusedCancel).then(|| "refused_cancel".to_owned());
        Self { status: notice.status.to_string(), tells, at: Time(notice.at), pending: notice.pending }
    }
}

impl From<&Failure> for Reason {
    fn from(failure: &Failure) -> Self {
        Self { step: failure.step.clone(), code: failure.code.clone(), message: failure.message.clone() }
    }
}

impl From<DeadLetter> for DeadLetterView {
    fn from(letter: DeadLetter) -> Self {
        Self {
            at: Time(letter.at),
            queue: letter.queue,
            exchange: letter.exchange,
            key: letter.key,
            message_id: letter.message_id,
            correlation_id: letter.correlation_id,
            saga: letter.saga,
            business_key: letter.business_key,
            step: letter.step,
            reason: letter.reason,
            preview: letter.preview,
            size: letter.size,
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = Timestamp::parse(&text).map(Self);
        time.ok_or_else(|| de::Error::custom(format!("{text:?} is not an RFC 3339 time")))
    }
}
