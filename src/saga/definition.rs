//! The definition language: a mirror of the YAML, with the place of every name and expression.
//!
//! What is left out stays `None` here; defaults are filled in when it is compiled. Doc comments of
//! this file are also the descriptions of the JSON Schema.

mod forms;
mod messages;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::forms::{AtTimeout, Awaited, Call, Delay, Emit, Foreach, Form, Verdict, Wait};
pub use self::messages::{Command, Exchange, ExchangeType, Match, Subscription, Users};
use super::plan::DefinitionHash;
pub(crate) use super::reader::read;
pub use super::reader::{MAX_SOURCE, parse};
use super::schema::{ConditionText, ExpressionText};
pub(crate) use super::yaml::exact;
pub use super::yaml::{Attempts, Entries, Located, Node, Period, Place};

/// A saga: what starts it, its steps, and how each step is undone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "sagamq saga definition")]
pub struct Definition {
    /// Name of the saga, in snake_case.
    pub saga: Located<String>,
    /// Version of this definition. A version is immutable: whoever changes the saga raises it.
    #[schemars(range(min = 1))]
    pub version: Located<u32>,
    /// What is to be known of exchanges, by name: those of others, and those that are no topic exchanges.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub exchanges: Entries<Exchange>,
    /// What starts an instance; left out where only other sagas call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// Searchable values of an instance, by name. In scope: event, input.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub attributes: Entries<Located<Node>>,
    /// Time limit of a whole instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Deadline>,
    /// What cancels an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancel>,
    /// Retry policies, by name.
    #[serde(default, skip_serializing_if = "Entries::is_empty")]
    pub retry: Entries<Policy>,
    /// The steps and blocks of steps, in the order in which they are done.
    pub steps: Located<Vec<Block>>,
    /// What a saga that calls this one keeps of it. In scope: input, saga, all steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Located<Node>>,
    /// Event to emit when an instance is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_completed: Option<Ending>,
    /// Event to emit when an instance is compensated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_compensated: Option<Ending>,
    /// Event to emit when an instance is parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_parked: Option<Ending>,
    /// Event to emit when a cancellation is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_cancel_refused: Option<Ending>,
}

/// What starts an instance.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Which events.
    pub on: Located<Subscription>,
    /// Names the instance in its saga: a repeat of the same key starts nothing. In scope: event.
    #[schemars(with = "ExpressionText")]
    pub business_key: Located<Node>,
    /// What the instance keeps of the event, by default `=event.data`. In scope: event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Located<Node>>,
    /// The user of the broker, or a list of users, whose events count, by the property `user_id`; by default anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_user: Option<Located<Users>>,
}

/// What cancels an instance.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancel {
    /// Which events.
    pub on: Located<Subscription>,
    /// Finds the instance. In scope: event.
    #[schemars(with = "ExpressionText")]
    pub business_key: Located<Node>,
    /// The user of the broker, or a list of users, whose events count, by the property `user_id`; by default anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_user: Option<Located<Users>>,
}

/// Time limit of a whole instance.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// Counted from the start.
    pub after: Located<Period>,
    /// What happens when it passes before the pivot, by default `compensate`. After the pivot it only alerts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<AtDeadline>,
}

/// What happens at a deadline before the pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AtDeadline {
    /// Undo what was done.
    Compensate,
    /// Wait for a person.
    Park,
}

/// How often and when a command is sent again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Attempts in all, the first included, or `unlimited`.
    pub attempts: Located<Attempts>,
    /// Delay before the second attempt, by default 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Located<Period>>,
    /// Each delay is this many times the one before, by default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub factor: Option<Located<f64>>,
    /// No delay is longer; by default 60s, or `initial` where that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Located<Period>>,
    /// How delays are spread, by default `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// Error codes that are refusals: no further attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// How delays are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Exactly the computed delay.
    None,
    /// Anything between zero and the computed delay.
    Full,
}

/// A step, or steps that belong together.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Block {
    /// One unit of work, done by a participant.
    Step(Box<Step>),
    /// An event that is awaited.
    Wait(Box<Wait>),
    /// Time that passes.
    Delay(Box<Delay>),
    /// An event that is emitted.
    Emit(Box<Emit>),
    /// Another saga that is called.
    Call(Box<Call>),
    /// Steps for each item of a list.
    Foreach(Box<Foreach>),
    /// Steps at the same time.
    Parallel(Parallel),
    /// Steps in order.
    Sequence(Sequence),
}

/// Branches that run at the same time. What follows the block waits for all of them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parallel {
    /// Name of the block, in snake_case; no step has it.
    pub parallel: Located<String>,
    /// What is awaited before the saga goes on, by default `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// The branches: each entry is one.
    pub steps: Located<Vec<Block>>,
}

/// What is awaited before the saga goes on after a parallel block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// Every branch.
    All,
}

/// Steps in order, for a branch of more than one step.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// Name of the block, in snake_case; no step has it.
    pub sequence: Located<String>,
    /// The steps and blocks of steps, in the order in which they are done.
    pub steps: Located<Vec<Block>>,
}

/// One unit of work, done by a participant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name of the step, in snake_case.
    pub step: Located<String>,
    /// Where the step stands relative to the point of no return, by default `compensatable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Located<Kind>>,
    /// If it is false, the step is skipped. In scope: input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConditionText>")]
    pub when: Option<Located<Node>>,
    /// What does the step.
    pub command: Located<Command>,
    /// Rules that read an outcome from a message without the header `x-saga-outcome`; the first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<Rule>,
    /// How long one attempt may stay unanswered, by default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Located<Period>>,
    /// What to do when an attempt is not answered in time, by default `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<Located<OnTimeout>>,
    /// How often and when to send again: the name of a policy, or a policy. By default once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Located<Retry>>,
    /// How many commands of the step may be out, over all instances of the saga; by default any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Located<Limit>>,
    /// The user of the broker, or a list of users, whose answers count, by the property `user_id`; by default anybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_user: Option<Located<Users>>,
    /// What the step keeps of its reply. In scope: reply, input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Located<Node>>,
    /// What undoes the step, or `none` where nothing has to be undone. Said for every step before the pivot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Located<Compensate>>,
}

/// How many commands of a step may be out, over all instances of the saga: one of the two, or both. What undoes the step is not limited.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// So many may be unanswered; the others await their turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub in_flight: Option<Located<u32>>,
    /// So many are sent a second, evenly spread: `0.5` is one every 2 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub per_second: Option<Located<f64>>,
}

/// Where a step stands relative to the point of no return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Can be undone.
    Compensatable,
    /// Once it has succeeded there is no way back.
    Pivot,
    /// After the pivot: forward only.
    Retriable,
}

/// What to do when an attempt is not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// Send the next attempt.
    Retry,
    /// Give the step up, and compensate it too.
    Compensate,
    /// Wait for a person.
    Park,
}

/// Reads an outcome from a message without an outcome header.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which events; left out for a reply to the reply queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Located<Subscription>>,
    /// Must be true for the rule to match. In scope: reply, input, saga, the steps before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ConditionText>")]
    pub when: Option<Located<Node>>,
    /// Finds the instance of an event, by default as the start does. In scope: reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ExpressionText>")]
    pub business_key: Option<Located<Node>>,
    /// What the message means.
    pub outcome: Outcome,
    /// Error code of an outcome that is not a success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Located<String>>,
}

/// What a reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done.
    Success,
    /// It is refused for good.
    Failure,
    /// It failed for now.
    Retry,
    /// It is still being worked on.
    Pending,
}

/// How often and when to send again.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Retry {
    /// The name of a policy.
    Named(String),
    /// A policy.
    Inline(Policy),
}

/// What undoes a step.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Compensate {
    /// Nothing has to be undone.
    None,
    /// A command undoes it.
    By(Box<Compensation>),
}

/// A command that undoes a step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compensation {
    /// What undoes the step.
    pub command: Located<Command>,
    /// Rules that read an outcome from a message without the header `x-saga-outcome`; the first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<Rule>,
    /// How long one attempt may stay unanswered, by default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Located<Period>>,
    /// How often and when to send again: the name of a policy, or a policy. By default once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Located<Retry>>,
}

/// What happens when an instance reaches an end.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// The event to emit. In scope of its body: input, saga, all steps.
    pub emit: Located<Command>,
}

impl Definition {
    /// Every call of another saga.
    pub fn calls(&self) -> Vec<&Call> {
        fn of<'a>(blocks: &'a [Block], calls: &mut Vec<&'a Call>) {
            for block in blocks {
                match block {
                    Block::Call(call) => calls.push(call),
                    Block::Foreach(each) => of(&each.steps, calls),
                    Block::Parallel(Parallel { steps, .. }) | Block::Sequence(Sequence { steps, .. }) => {
                        of(steps, calls);
                    }
                    Block::Step(_) | Block::Wait(_) | Block::Delay(_) | Block::Emit(_) => {}
                }
            }
        }
        let mut calls = Vec::new();
        of(&self.steps, &mut calls);
        calls
    }

    /// The body of a step that is done for each item of a list, as a definition of its own.
    pub(super) fn body(&self, each: &Foreach) -> Self {
        let saga =
            Located { value: format!("{}.{}", self.saga.value, each.foreach.value), at: each.foreach.at };
        Self {
            saga,
            version: self.version.clone(),
            exchanges: self.exchanges.clone(),
            start: None,
            attributes: Entries::default(),
            deadline: self.deadline.clone(),
            cancel: None,
            retry: self.retry.clone(),
            steps: each.steps.clone(),
            output: each.output.clone(),
            on_completed: None,
            on_compensated: None,
            on_parked: None,
            on_cancel_refused: None,
        }
    }

    /// The hash of its content: comments, layout and the order of names do not count, and neither
    /// will optional fields that the language gets later.
    pub fn hash(&self) -> DefinitionHash {
        let canonical = serde_json::to_value(self).expect("a definition has only names that are strings");
        Sha256::digest(canonical.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(source: &str) -> String {
        parse("order.yaml", source).unwrap().hash()
    }

    #[test]
    fn comments_layout_and_order_of_names_do_not_change_the_hash() {
        let written = "\
saga: tiny
version: 1
start: {on: {exchange: a, key: b}, business_key: =event.id}
retry: {one: {attempts: 1, max: 120s}, two: {attempts: 2}}
steps: [{step: s, command: {exchange: c, key: d, body: {x: 1, y: =input}}, compensate: none}]
";
        let otherwise = "\
# The same saga.
version: 1
saga: \"tiny\"
start:
  business_key: '=event.id'
  on:
    key: b
    exchange: a
steps:
  - step: s
    command: {exchange: c, key: d, body: {y: =input, x: 1}}
    compensate: none
retry: {two: {attempts: 2}, one: {attempts: 1, max: 2m}}
";
        assert_eq!(hash(written), hash(otherwise));
        assert_ne!(hash(written), hash(&written.replace("x: 1", "x: 2")));
        // Stores keep definitions by this hash: it must not change with the code.
        assert_eq!(hash(written), "86f5f976034d86898844603f08b34c42fa0acd9da987745934f06a8f562dd63f");
    }
}
