//! An instance's history as the API answers it: facts by name, with the names of steps.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::view::{Reason, Time};
use crate::saga::fact::{Early, Fact, HistoryEntry, Ignored, Recorded, Tells};
use crate::saga::id::Phase;
use crate::saga::instance::Instance;

/// What one input changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EntryView {
    /// Position in the history, from 1.
    pub revision: u64,
    /// Id of the message that caused it, where a message did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// The user of the broker who published that message, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Id of the instance.
    pub correlation_id: String,
    /// What became known, in order.
    pub facts: Vec<FactView>,
}

/// Something that became known about an instance. Which fields are there depends on the fact.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FactView {
    /// When it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// What it is, such as `dispatched`.
    pub fact: String,
    /// The step that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `action` or `compensation`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Which attempt, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// When the answer is overdue, or the next attempt is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<Time>,
    /// Whether an earlier copy of an unroutable command may have reached a participant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maybe_delivered: Option<bool>,
    /// What the step keeps of its reply, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why something did not go as wished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Reason>,
    /// What was in the way, or what kind of message changed nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a person asked for, such as `retry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The message that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// How many items a step has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
    /// Which item of a step, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
    /// The instance that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub called: Option<String>,
    /// The status that the instance went back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Which of the instance's notices, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<usize>,
}

/// The entries of an instance's history.
pub(crate) fn entries<'a>(
    instance: &Instance,
    history: impl Iterator<Item = &'a HistoryEntry>,
) -> Vec<EntryView> {
    let view = |entry: &HistoryEntry| EntryView {
        revision: entry.revision,
        causation_id: entry.causation_id.clone(),
        user: entry.user.clone(),
        correlation_id: instance.id.to_string(),
        facts: entry.facts.iter().map(|recorded| fact_view(instance, recorded)).collect(),
    };
    history.map(view).collect()
}

fn fact_view(instance: &Instance, recorded: &Recorded) -> FactView {
    let plain = |fact: &str| FactView { fact: fact.to_owned(), ..FactView::default() };
    let of_step = |fact: &str, step: usize| {
        let name = instance.steps.get(step).map_or_else(|| format!("#{step}"), |state| state.name.clone());
        FactView { step: Some(name), ..plain(fact) }
    };
    let of_phase = |fact: &str, step: usize, phase: Phase| FactView {
        phase: Some(phase.as_str().to_owned()),
        ..of_step(fact, step)
    };
    let of_attempt = |fact: &str, step: usize, phase: Phase, attempt: u32| FactView {
        attempt: Some(attempt),
        ..of_phase(fact, step, phase)
    };
    let of_item = |fact: &str, step: usize, item: usize| FactView { item: Some(item), ..of_step(fact, step) };
    let view = match &recorded.fact {
        Fact::Started(started) => FactView { message_id: started.event_id.clone(), ..plain("started") },
        Fact::Skipped { step, output } => FactView {
            output: Some(output.clone()).filter(|output| !output.is_null()),
            ..of_step("skipped", *step)
        },
        Fact::Ordered { verb, step, actor, reason } => FactView {
            verb: Some(verb.as_str().to_owned()),
            actor: Some(actor.clone()),
            reason: Some(reason.clone()),
            ..step.map_or_else(|| plain("ordered"), |step| of_step("ordered", step))
        },
        Fact::Heard { .. } => plain("heard"),
        Fact::Awaited { step, due } => FactView { due: Some(Time(*due)), ..of_step("awaited", *step) },
        Fact::Called { step, attempt, instance } => FactView {
            attempt: Some(*attempt),
            called: Some(instance.to_string()),
            ..of_step("called", *step)
        },
        Fact::Recalled { step, phase } => of_phase("recalled", *step, *phase),
        Fact::Stalled { step, item } => FactView { item: *item, ..of_step("stalled", *step) },
        Fact::Listed { step, attempt, items } => {
            FactView { attempt: Some(*attempt), items: Some(*items), ..of_step("listed", *step) }
        }
        Fact::ItemCalled { step, item, instance } => {
            FactView { called: Some(instance.to_string()), ..of_item("item_called", *step, *item) }
        }
        Fact::ItemDone { step, item, output, error } => FactView {
            output: Some(output.clone()).filter(|output| !output.is_null()),
            error: error.as_ref().map(Reason::from),
            ..of_item("item_done", *step, *item)
        },
        Fact::ItemFailed { step, item, error } => {
            FactView { error: Some(error.into()), ..of_item("item_failed", *step, *item) }
        }
        Fact::ItemRecalled { step, item } => of_item("item_recalled", *step, *item),
        Fact::ItemUndone { step, item } => of_item("item_undone", *step, *item),
        Fact::ItemLeft { step, item } => of_item("item_left_undone", *step, *item),
        Fact::Held => plain("held"),
        Fact::Delayed { step, until } => FactView { due: Some(Time(*until)), ..of_step("delayed", *step) },
        Fact::CameEarly { step, says: Early::Success(output) } => FactView {
            output: Some(output.clone()).filter(|output| !output.is_null()),
            ..of_step("came_early", *step)
        },
        Fact::CameEarly { step, says: Early::Failure(error) } => {
            FactView { error: Some(error.into()), ..of_step("came_early", *step) }
        }
        Fact::Queued { step } => of_step("queued", *step),
        Fact::Dispatched { step, phase, attempt } => {
            let name = instance.steps.get(*step).map_or("", |state| &state.name);
            let message_id = instance.attempt_id(name, *phase, *attempt).to_string();
            FactView { message_id: Some(message_id), ..of_attempt("dispatched", *step, *phase, *attempt) }
        }
        Fact::Published { step, phase, attempt, due } => {
            FactView { due: Some(Time(*due)), ..of_attempt("published", *step, *phase, *attempt) }
        }
        Fact::Unroutable { step, phase, attempt, maybe_delivered, reason } => FactView {
            maybe_delivered: Some(*maybe_delivered),
            reason: Some(reason.clone()),
            ..of_attempt("unroutable", *step, *phase, *attempt)
        },
        Fact::TimedOut { step, phase, attempt } => of_attempt("timed_out", *step, *phase, *attempt),
        Fact::StillWorking { step, phase, due } => {
            FactView { due: Some(Time(*due)), ..of_phase("still_working", *step, *phase) }
        }
        Fact::Transient { step, phase, attempt, error } => {
            FactView { error: Some(error.into()), ..of_attempt("transient", *step, *phase, *attempt) }
        }
        Fact::NotSent { step, phase, error } => {
            FactView { error: Some(error.into()), ..of_phase("not_sent", *step, *phase) }
        }
        Fact::RetryScheduled { step, phase, at } => {
            FactView { due: Some(Time(*at)), ..of_phase("retry_scheduled", *step, *phase) }
        }
        Fact::Succeeded { step, output } => FactView {
            output: Some(Value::clone(output)).filter(|output| !output.is_null()),
            ..of_step("succeeded", *step)
        },
        Fact::Corrected { step, output } => {
            FactView { output: Some(output.clone()), ..of_step("corrected", *step) }
        }
        Fact::Failed { step, error } => FactView { error: Some(error.into()), ..of_step("failed", *step) },
        Fact::GivenUp { step, error } => FactView { error: Some(error.into()), ..of_step("given_up", *step) },
        Fact::NotUndone { step, error } => {
            FactView { error: Some(error.into()), ..of_step("not_undone", *step) }
        }
        Fact::LeftUndone { step } => of_step("left_undone", *step),
        Fact::Compensated { step } => of_step("compensated", *step),
        Fact::Stopping { error } => FactView { error: Some(error.into()), ..plain("stopping") },
        Fact::StopOverruled => plain("stop_overruled"),
        Fact::CompensationStarted => plain("compensation_started"),
        Fact::DeadlinePassed => plain("deadline_passed"),
        Fact::Completed => plain("completed"),
        Fact::AllCompensated => plain("all_compensated"),
        Fact::Parked { error } => FactView { error: Some(error.into()), ..plain("parked") },
        Fact::Resumed { to } => FactView { to: Some(to.to_string()), ..plain("resumed") },
        Fact::NoticeDue { tells, .. } => FactView {
            reason: (*tells == Tells::RefusedCancel).then(|| Ignored::RefusedCancel.as_str().to_owned()),
            ..plain("notice_due")
        },
        Fact::NoticePublished { notice } => FactView { notice: Some(*notice), ..plain("notice_published") },
        Fact::NoticeDropped { notice, reason } => {
            FactView { notice: Some(*notice), reason: Some(reason.clone()), ..plain("notice_dropped") }
        }
        Fact::Ignored { what, message_id, step, reason } => {
            let base = step.map_or_else(|| plain("ignored"), |step| of_step("ignored", step));
            let reason = match reason {
                Some(reason) => format!("{}: {reason}", what.as_str()),
                None => what.as_str().to_owned(),
            };
            FactView { reason: Some(reason), message_id: message_id.clone(), ..base }
        }
    };
    FactView { at: Some(Time(recorded.at)), ..view }
}
