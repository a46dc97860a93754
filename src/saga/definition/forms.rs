//! Steps that send no command, and what all forms of steps have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::schema::{ConditionText, ExpressionText, MomentText};
use super::{Block, Command, Entries, Kind, Located, Node, Period, Step, Subscription, Users};

/// A step that waits for an event: an approval, say, or what another system has done. One that comes before the step has its turn counts then.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// Name of the step, in snake_case; the first field of its entry.
    pub wait: Located<String>,
    /// Which events; or `events`, where several mean different things.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Located<Subscription>>,
    /// Finds the instance, by default as the start does. In scope: event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ExpressionText>")]
    pub business_key: Option<Located<Node>>,
    /// Events, and what each means; the first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Awaited>,
    /// If it is false, the step is skipped. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConditionText>")]
    pub when: Option<Located<Node>>,
    /// How long the event is awaited.
    pub timeout: Located<Period>,
    /// What to do when it does not come in time, by default `compensate` before the pivot and `park` after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<Located<AtTimeout>>,
    /// The user of the broker, or a list of users, whose events count, by the property `user_id`; by default anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_user: Option<Located<Users>>,
    /// What the step keeps of the event. In scope: event, input, saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Located<Node>>,
}

/// An event that is waited for, and what it means.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Awaited {
    /// Which events.
    pub on: Located<Subscription>,
    /// Must be true for the rule to match. In scope: event, input, saga.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConditionText>")]
    pub when: Option<Located<Node>>,
    /// Finds the instance, by default as the start does. In scope: event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ExpressionText>")]
    pub business_key: Option<Located<Node>>,
    /// What the event means, by default `success`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Verdict>,
    /// Error code of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Located<String>>,
}

/// What an event means that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is what was awaited.
    Success,
    /// It is the opposite, such as a refusal: the step has failed.
    Failure,
}

/// What to do when an event does not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtTimeout {
    /// Go on without it; the step is skipped.
    Continue,
    /// The step has failed: undo what was done.
    Compensate,
    /// Wait for a person, or for the event.
    Park,
}

/// A step that lets time pass.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// Name of the step, in snake_case; the first field of its entry.
    pub delay: Located<String>,
    /// If it is false, the step is skipped. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConditionText>")]
    pub when: Option<Located<Node>>,
    /// How long, counted from the step's turn; or `until`.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub time: Option<Located<Period>>,
    /// Up to when, as RFC 3339 text; one that is past ends it at once. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<MomentText>")]
    pub until: Option<Located<Node>>,
}

/// A step that emits an event. It is done when the broker has confirmed it; nobody answers it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Emit {
    /// Name of the step, in snake_case; the first field of its entry.
    pub emit: Located<String>,
    /// If it is false, the step is skipped. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConditionText>")]
    pub when: Option<Located<Node>>,
    /// The event.
    pub event: Located<Command>,
}

/// A step that calls another saga and waits for its end. It is undone by the other's own way back.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Name of the step, in snake_case; the first field of its entry.
    pub call: Located<String>,
    /// Name of the saga; the version that is in force then is called.
    pub saga: Located<String>,
    /// Where the step stands relative to the point of no return, by default `compensatable`; then the called saga has no pivot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Located<Kind>>,
    /// If it is false, the step is skipped. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConditionText>")]
    pub when: Option<Located<Node>>,
    /// The input of the called instance, by default `=input`. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Located<Node>>,
}

/// Steps that are done for each item of a list, as an instance of their own for each. It is undone by their own way back.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Foreach {
    /// Name of the step, in snake_case; the first field of its entry.
    pub foreach: Located<String>,
    /// The list. In scope: input, saga, the steps before.
    #[schemars(with = "ExpressionText")]
    pub items: Located<Node>,
    /// What the input of the body calls the item, by default `item`.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub name: Option<Located<String>>,
    /// What else the input of the body holds, by name. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub with: Entries<Located<Node>>,
    /// Where the step stands relative to the point of no return, by default `compensatable`; never `pivot`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Located<Kind>>,
    /// If it is false, the step is skipped. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConditionText>")]
    pub when: Option<Located<Node>>,
    /// Items under way at a time, by default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_in_flight: Option<Located<u32>>,
    /// Longest list, by default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_items: Option<Located<u32>>,
    /// The body: steps and blocks of steps, in the order in which they are done for an item. They see its `input` and each other.
    pub steps: Located<Vec<Block>>,
    /// What is kept of each item. In scope: input, saga, all steps of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Located<Node>>,
}

impl Foreach {
    /// What the input of the body calls the item.
    pub fn item_name(&self) -> &str {
        self.name.as_ref().map_or("item", |name| &name.value)
    }
}

/// A step of whatever form.
#[derive(Clone, Copy, Debug)]
pub enum Form<'a> {
    /// Done by a participant.
    Step(&'a Step),
    /// Waits for an event.
    Wait(&'a Wait),
    /// Lets time pass.
    Delay(&'a Delay),
    /// Emits an event.
    Emit(&'a Emit),
    /// Calls a saga.
    Call(&'a Call),
    /// Does steps for each item of a list.
    Foreach(&'a Foreach),
}

impl<'a> Form<'a> {
    /// Its name.
    pub fn name(self) -> &'a Located<String> {
        match self {
            Self::Step(step) => &step.step,
            Self::Wait(wait) => &wait.wait,
            Self::Delay(delay) => &delay.delay,
            Self::Emit(emit) => &emit.emit,
            Self::Call(call) => &call.call,
            Self::Foreach(each) => &each.foreach,
        }
    }

    /// Its condition.
    pub fn when(self) -> Option<&'a Located<Node>> {
        match self {
            Self::Step(step) => step.when.as_ref(),
            Self::Wait(wait) => wait.when.as_ref(),
            Self::Delay(delay) => delay.when.as_ref(),
            Self::Emit(emit) => emit.when.as_ref(),
            Self::Call(call) => call.when.as_ref(),
            Self::Foreach(each) => each.when.as_ref(),
        }
    }

    /// The kind that it says, or that it is by default; `None` where it may not say so.
    pub fn kind(self) -> Option<(Kind, Option<&'a Located<Kind>>)> {
        let said = match self {
            Self::Step(step) => step.kind.as_ref(),
            Self::Call(call) => call.kind.as_ref(),
            Self::Foreach(each) => each.kind.as_ref(),
            Self::Wait(_) | Self::Delay(_) | Self::Emit(_) => return None,
        };
        Some((said.map_or(Kind::Compensatable, |kind| kind.value), said))
    }
}
