//! Facts: what is known to have happened to an instance. Its history is their sequence, its state
//! is their fold.
//!
//! What was random or timed when it was decided (a jittered delay, the time of an attempt) is in
//! the fact, so a replay decides nothing anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::called::Caller;
use super::id::{EventKey, InstanceId, Phase, StoreId};
use super::instance::Status;
use super::order::Verb;
use super::plan::DefinitionHash;
use super::time::Timestamp;

/// One entry of an instance's history: what one input changed, appended as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Position in the history, from 1; the instance's revision after this entry.
    pub revision: u64,
    /// Id of the message that caused it, where a message did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The user of the broker who published that message, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What became known, in order.
    pub facts: Vec<Recorded>,
}

/// A fact and when it was recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// When it was recorded.
    pub at: Timestamp,
    /// The fact.
    #[serde(flatten)]
    pub fact: Fact,
}

/// Something that became known about an instance. `step` is an index into the instance's steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The instance began.
    Started(Box<Started>),
    /// The step's condition was false, or a person had the instance go on without it.
    Skipped {
        /// Index of the step.
        step: usize,
        /// What the step keeps all the same, where a person said so.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        output: Value,
    },
    /// A person asked for something; what follows does it.
    Ordered {
        /// What.
        verb: Verb,
        /// Index of the step that it is about, where it is about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<usize>,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// An event counts with what follows, and not once more for this instance, however often it comes.
    Heard {
        /// Which event.
        event: EventKey,
    },
    /// An event is awaited.
    Awaited {
        /// Index of the step.
        step: usize,
        /// When it is awaited no longer.
        due: Timestamp,
    },
    /// The event came before it was awaited; it counts when the step has its turn.
    CameEarly {
        /// Index of the step.
        step: usize,
        /// What it says.
        says: Early,
    },
    /// Time is to pass.
    Delayed {
        /// Index of the step.
        step: usize,
        /// Up to when.
        until: Timestamp,
    },
    /// Another saga was called, in the same commit.
    Called {
        /// Index of the step.
        step: usize,
        /// From 1.
        attempt: u32,
        /// Its instance.
        instance: InstanceId,
    },
    /// The instance that the step called was told to turn back, in the same commit.
    Recalled {
        /// Index of the step.
        step: usize,
        /// Doing, where it was still under way; undoing, where it was done.
        phase: Phase,
    },
    /// The instance that the step called is parked.
    Stalled {
        /// Index of the step.
        step: usize,
        /// Which of its items it is, where it has items.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        item: Option<usize>,
    },
    /// The step has so many items; again, those that had failed.
    Listed {
        /// Index of the step.
        step: usize,
        /// From 1.
        attempt: u32,
        /// How many.
        items: usize,
    },
    /// An item's instance was called, in the same commit.
    ItemCalled {
        /// Index of the step.
        step: usize,
        /// Which item, from 0.
        item: usize,
        /// Its instance.
        instance: InstanceId,
    },
    /// An item is done.
    ItemDone {
        /// Index of the step.
        step: usize,
        /// Which item, from 0.
        item: usize,
        /// What the step keeps of it.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        output: Value,
        /// Why it cannot be said what that is, which fails the step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    },
    /// An item has failed, without effect.
    ItemFailed {
        /// Index of the step.
        step: usize,
        /// Which item, from 0.
        item: usize,
        /// Why.
        error: Failure,
    },
    /// An item's instance was told to turn back, in the same commit.
    ItemRecalled {
        /// Index of the step.
        step: usize,
        /// Which item, from 0.
        item: usize,
    },
    /// An item is undone.
    ItemUndone {
        /// Index of the step.
        step: usize,
        /// Which item, from 0.
        item: usize,
    },
    /// An item's instance has turned back, and a person had it leave something as it was.
    ItemLeft {
        /// Index of the step.
        step: usize,
        /// Which item, from 0.
        item: usize,
    },
    /// Every step is settled, and the caller may still turn back: it decides.
    Held,
    /// The step is limited: its next attempt awaits its turn among those of all instances.
    Queued {
        /// Index of the step.
        step: usize,
    },
    /// An attempt was decided; its command is to be published.
    Dispatched {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// From 1.
        attempt: u32,
    },
    /// The broker confirmed the attempt's command; its timeout runs from here.
    Published {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// From 1.
        attempt: u32,
        /// When the attempt counts as unanswered.
        due: Timestamp,
    },
    /// The broker could not route the attempt's command to any queue.
    Unroutable {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// From 1.
        attempt: u32,
        /// True if an earlier copy of the same command may have been routed.
        maybe_delivered: bool,
        /// What the broker said.
        reason: String,
    },
    /// The attempt was not answered in time, or the event did not come in time.
    TimedOut {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// From 1; 0 where no command is sent.
        attempt: u32,
    },
    /// The participant is still working; the timeout starts anew.
    StillWorking {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// When the attempt counts as unanswered now.
        due: Timestamp,
    },
    /// The participant could not do it for now.
    Transient {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// From 1.
        attempt: u32,
        /// Why.
        error: Failure,
    },
    /// The attempt's command could not be made: an expression in its body failed.
    NotSent {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// Why.
        error: Failure,
    },
    /// Another attempt will be sent.
    RetryScheduled {
        /// Index of the step.
        step: usize,
        /// Doing or undoing.
        phase: Phase,
        /// When.
        #[serde(rename = "retry_at")]
        at: Timestamp,
    },
    /// The step is done.
    Succeeded {
        /// Index of the step.
        step: usize,
        /// What the step keeps of its reply.
        output: Arc<Value>,
    },
    /// A person has changed what the step keeps.
    Corrected {
        /// Index of the step.
        step: usize,
        /// What it keeps now.
        output: Value,
    },
    /// The step was definitely not done.
    Failed {
        /// Index of the step.
        step: usize,
        /// Why.
        error: Failure,
    },
    /// The step was given up; whether it was done is not known.
    GivenUp {
        /// Index of the step.
        step: usize,
        /// Why.
        error: Failure,
    },
    /// The participant refused to undo the step.
    NotUndone {
        /// Index of the step.
        step: usize,
        /// Why.
        error: Failure,
    },
    /// The step is not undone, and a person has the instance go on without that.
    LeftUndone {
        /// Index of the step.
        step: usize,
    },
    /// The step is undone.
    Compensated {
        /// Index of the step.
        step: usize,
    },
    /// No further step is begun: a step failed, the deadline passed, or the instance was
    /// cancelled. Steps in flight are awaited first.
    Stopping {
        /// Why.
        error: Failure,
    },
    /// The pivot succeeded while the instance was stopping: it goes on forward. Where it was cancelled, the
    /// cancellation is refused by this.
    StopOverruled,
    /// Every step in flight has settled; steps are undone from here on.
    CompensationStarted,
    /// The deadline passed.
    DeadlinePassed,
    /// Every step is settled.
    Completed,
    /// Everything that may have taken effect is undone.
    AllCompensated,
    /// The instance waits for a person.
    Parked {
        /// Why.
        error: Failure,
    },
    /// A definite reply settled what the instance was parked for.
    Resumed {
        /// Which way it goes on.
        to: Status,
    },
    /// An event is to be emitted that tells where the instance stands now, or that it was not cancelled.
    NoticeDue {
        /// What it tells, where that is not the instance's status.
        #[serde(default, skip_serializing_if = "Tells::is_status")]
        tells: Tells,
        /// Its body, which could not be made again later: the instance may have gone on by then.
        #[serde(default, skip_serializing_if = "is_null")]
        body: Arc<Value>,
    },
    /// The broker confirmed a notice.
    NoticePublished {
        /// Index of the notice.
        notice: usize,
    },
    /// A notice was not published: nobody is bound to its key, or its body could not be made.
    NoticeDropped {
        /// Index of the notice.
        notice: usize,
        /// What was in the way.
        reason: String,
    },
    /// A message that changes nothing: a duplicate or a late one.
    Ignored {
        /// What kind of message it was.
        what: Ignored,
        /// Its id.
        message_id: Option<String>,
        /// The step that it spoke of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<usize>,
        /// What is wrong with it, where it could not be read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

fn is_null(value: &Arc<Value>) -> bool {
    value.is_null()
}

impl Fact {
    /// That a step is done, and what it keeps of its reply.
    pub fn succeeded(step: usize, output: Value) -> Self {
        Self::Succeeded { step, output: Arc::new(output) }
    }
}

/// All that an instance takes from its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Name of the saga.
    pub saga: String,
    /// Version of the definition.
    pub version: u32,
    /// The definition that the instance keeps.
    pub definition: DefinitionHash,
    /// Names the instance in its saga.
    pub business_key: String,
    /// Names of the steps, in the plan's order.
    pub steps: Vec<String>,
    /// What the saga keeps of the event.
    pub input: Arc<Value>,
    /// Searchable values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// When the time limit is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// The store that it began in.
    #[serde(default, skip_serializing_if = "StoreId::is_nil")]
    pub store: StoreId,
    /// Id of the start event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// The instance that called it, where no event started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
    /// W3C trace context of the start event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// What an event says that came before it was awaited.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Early {
    /// What was awaited, and what the step keeps of it.
    Success(Value),
    /// The opposite.
    Failure(Failure),
}

/// What a notice tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tells {
    /// The instance's status.
    #[default]
    Status,
    /// That a cancellation was refused.
    RefusedCancel,
}

impl Tells {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    fn is_status(&self) -> bool {
        *self == Self::Status
    }
}

/// W3C trace context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Header `traceparent`.
    pub parent: String,
    /// Header `tracestate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Why something did not go as wished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the step, where it concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// A word for programs, such as `OUT_OF_STOCK`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// Code of a failure that says that the instance was cancelled.
pub const CANCELLED: &str = "CANCELLED";

impl Failure {
    /// Whether it says that the instance was cancelled.
    pub fn is_cancellation(&self) -> bool {
        self.step.is_none() && self.code == CANCELLED
    }
}

/// Kinds of messages that change nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ignored {
    /// A start event for a business key that has an instance.
    DuplicateStart,
    /// A reply that repeats what is known.
    DuplicateReply,
    /// A reply to something that is settled otherwise.
    LateReply,
    /// A reply to a step that was not sent.
    UnexpectedReply,
    /// A reply that cannot be read: a wrong one, which is in the dead letters too.
    UnreadableReply,
    /// A `pending` soon after another, or after very many.
    SparePending,
    /// A cancellation when there was no way back, or nothing left to cancel.
    RefusedCancel,
}

impl Ignored {
    /// The name as it stands in the API and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Ignored::DuplicateStart => "duplicate_start",
            Ignored::DuplicateReply => "duplicate_reply",
            Ignored::LateReply => "late_reply",
            Ignored::UnexpectedReply => "unexpected_reply",
            Ignored::UnreadableReply => "unreadable_reply",
            Ignored::SparePending => "spare_pending",
            Ignored::RefusedCancel => "refused_cancel",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_keeps_the_digits_of_numbers() {
        let text = r#"{"id":123456789012345678901,"list":[1e+400,7.0,{"n":0.1}],"price":12.50,"zero":-0}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        let failure = Failure { step: None, code: "X".to_owned(), message: "m".to_owned() };
        for fact in [
            Fact::Skipped { step: 1, output: value.clone() },
            Fact::CameEarly { step: 1, says: Early::Success(value.clone()) },
            Fact::ItemDone { step: 1, item: 2, output: value.clone(), error: Some(failure) },
            Fact::succeeded(1, value.clone()),
            Fact::NoticeDue { tells: Tells::Status, body: Arc::new(value) },
        ] {
            let facts = vec![Recorded { at: Timestamp(-5), fact }];
            let entry = HistoryEntry { revision: 1, causation_id: None, user: None, facts };
            let stored = serde_json::to_string(&entry).unwrap();
            assert!(stored.contains(text), "{stored}");
            assert_eq!(serde_json::from_str::<HistoryEntry>(&stored).unwrap(), entry);
        }
    }
}
