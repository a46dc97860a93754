//! Scenarios: a team's own cases, as they are written in `*.test.yaml`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::form::Short;
use crate::definitions::Loaded;
use crate::saga::compile;
use crate::saga::definition::{Entries, Located, Period, Place, exact, read};
use crate::saga::id::Phase;
use crate::saga::instance::Status;
use crate::saga::plan::Plan;
use crate::saga::problem::Problem;

/// How a saga that only calls start is started here.
const STARTED: &str = "start: {on: {exchange: (call), key: called}, business_key: =event.data.saga, \
    input: =event.data.input}\n";

/// A file of scenarios.
#[derive(Clone, Debug)]
pub struct ScenarioFile {
    /// The file, as it is shown to people.
    pub file: String,
    /// Its text.
    pub source: String,
    pub(super) scenarios: Scenarios,
}

/// Scenarios of a saga.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenarios {
    /// The saga that it is about.
    pub(super) saga: Located<String>,
    /// Its version; the highest where it is left out.
    pub(super) version: Option<Located<u32>>,
    /// The start event, unless a scenario has its own.
    #[serde(default)]
    pub(super) start: Option<Event>,
    /// The input of a saga that only calls start, unless a scenario has its own.
    #[serde(default, deserialize_with = "exact")]
    pub(super) input: Value,
    /// What is answered to steps, unless a scenario says otherwise.
    #[serde(default)]
    pub(super) replies: Entries<Replies>,
    /// What is answered to compensations, by step.
    #[serde(default)]
    pub(super) compensations: Entries<Replies>,
    /// The scenarios.
    pub(super) scenarios: Vec<Scenario>,
}

/// One case.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What it shows, in words.
    pub(super) scenario: Located<String>,
    /// The start event, instead of that of the file.
    #[serde(default)]
    pub(super) start: Option<Event>,
    /// The input of a saga that only calls start, instead of that of the file.
    #[serde(default, deserialize_with = "exact")]
    pub(super) input: Value,
    /// What is answered to steps, instead of what the file says, step by step.
    #[serde(default)]
    pub(super) replies: Entries<Replies>,
    /// The same for compensations.
    #[serde(default)]
    pub(super) compensations: Entries<Replies>,
    /// Further events that come in.
    #[serde(default)]
    pub(super) events: Vec<Further>,
    /// The commands that are sent, in this order; those of one moment in any.
    #[serde(default)]
    pub(super) commands: Option<Vec<Expected>>,
    /// How it ends.
    pub(super) end: End,
    /// The error code at the end.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// What steps have kept, as far as it is told.
    #[serde(default)]
    pub(super) outputs: Entries<Value>,
    /// The events that tell of ends, in this order.
    #[serde(default)]
    pub(super) emits: Option<Vec<Emitted>>,
}

/// How an instance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    /// Every step is done.
    Completed,
    /// All that may have taken effect is undone.
    Compensated,
    /// It waits for a person.
    Parked,
}

/// An event that comes in.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    /// Where it is published, by default where the definition listens.
    #[serde(default)]
    pub(super) exchange: Option<Located<String>>,
    /// Its routing key, by default one that the definition listens to.
    #[serde(default)]
    pub(super) key: Option<Located<String>>,
    /// Its id; made up where it is left out.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// Its type.
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    /// The payload, to which nothing is added; made up where it is left out.
    #[serde(default, deserialize_with = "exact")]
    pub(super) data: Value,
    /// What expressions see as event.metadata.
    #[serde(default, deserialize_with = "exact")]
    pub(super) metadata: Value,
    /// Headers of the message.
    #[serde(default)]
    pub(super) headers: Map<String, Value>,
    /// The user who publishes it; left out, one whose messages count.
    #[serde(default)]
    pub(super) user: Option<String>,
}

/// An event that comes in after the start.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Further {
    /// Where it is published.
    pub(super) exchange: Located<String>,
    /// Its routing key.
    pub(super) key: Located<String>,
    /// The payload.
    #[serde(default, deserialize_with = "exact")]
    pub(super) data: Value,
    /// Headers of the message.
    #[serde(default)]
    pub(super) headers: Map<String, Value>,
    /// The user who publishes it; left out, one whose messages count.
    #[serde(default)]
    pub(super) user: Option<String>,
    /// The command that is out then; left out, the time counts from the start.
    #[serde(default)]
    pub(super) during: Option<Expected>,
    /// How long after that, by default 5ms.
    #[serde(default)]
    pub(super) after: Option<Period>,
}

/// What is answered to the attempts of a command; the last holds for all further ones.
#[derive(Clone, Debug)]
pub(super) struct Replies(pub(super) Vec<Reply>);

/// What is answered to an attempt.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    /// What it means; left out, the rules of the step read it, or it is a success where there are none.
    #[serde(default)]
    pub(super) outcome: Option<Word>,
    /// Error code.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// Error message.
    #[serde(default)]
    pub(super) message: Option<String>,
    /// The body.
    #[serde(default, deserialize_with = "exact")]
    pub(super) data: Value,
    /// How long the participant takes, by default 10ms.
    #[serde(default)]
    pub(super) after: Option<Period>,
    /// How long it asks to wait before the next attempt.
    #[serde(default)]
    pub(super) retry_after: Option<Period>,
    /// The event that it is; left out, the one that the step's rules listen to.
    #[serde(default)]
    pub(super) event: Option<Address>,
    /// The user who answers; left out, one whose answers count.
    #[serde(default)]
    pub(super) user: Option<String>,
    /// What is answered after that to the same attempt.
    #[serde(default)]
    pub(super) then: Option<Short<Box<Reply>>>,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// It is done.
    Success,
    /// It is refused.
    Failure,
    /// Another attempt is asked for.
    Retry,
    /// The answer comes later.
    Pending,
    /// Nothing is answered.
    Silence,
    /// No queue is bound for the command.
    Unroutable,
}

impl Word {
    /// All of them, as they are written.
    pub(super) const NAMES: [&str; 6] = ["success", "failure", "retry", "pending", "silence", "unroutable"];
}

/// Where an event is published.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Address {
    /// The exchange.
    pub(super) exchange: Located<String>,
    /// The routing key.
    pub(super) key: Located<String>,
}

/// A command, by its step, with what is to be seen of it: `charge`, `{step: charge}` or
/// `{compensate: charge}`.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) step: String,
    pub(super) phase: Phase,
    pub(super) at: Place,
    /// How often it is sent, where that is told.
    pub(super) attempts: Option<u32>,
    /// Its body, as far as it is told.
    pub(super) body: Value,
}

/// An event that is to be emitted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Emitted {
    /// Where it is published, where that matters.
    #[serde(default)]
    pub(super) exchange: Option<String>,
    /// Its routing key.
    pub(super) key: String,
    /// Its body, as far as it matters.
    #[serde(default, deserialize_with = "exact")]
    pub(super) body: Value,
}

/// The JSON Schema of a file of scenarios; `sagas/scenarios.schema.json` is a copy of it.
pub fn schema() -> Value {
    schemars::schema_for!(Scenarios).to_value()
}

impl ScenarioFile {
    /// Reads a file. It is strict, as with definitions.
    ///
    /// # Errors
    /// The first thing that is not of this form.
    pub fn parse(file: &str, source: &str) -> Result<Self, Box<Problem>> {
        let scenarios = read(file, source)?;
        Ok(Self { file: file.to_owned(), source: source.to_owned(), scenarios })
    }

    /// Whether it is about a definition.
    pub(super) fn is_about(&self, plan: &Plan) -> bool {
        let Scenarios { saga, version, .. } = &self.scenarios;
        saga.value == plan.saga && version.as_ref().is_none_or(|version| version.value == plan.version)
    }

    /// Whether it gives an input, as to a saga that only calls start.
    pub(super) fn has_input(&self) -> bool {
        let Scenarios { input, scenarios, .. } = &self.scenarios;
        !input.is_null() || scenarios.iter().any(|scenario| !scenario.input.is_null())
    }

    /// The definition that it is about: of the version that it says, else of the highest. One that only calls start
    /// is started by an event of ours, where there is an input for it.
    pub(super) fn definition(&self, loaded: &[Loaded]) -> Option<Loaded> {
        let about = loaded.iter().filter(|loaded| self.is_about(&loaded.plan));
        let of = about.max_by_key(|loaded| loaded.plan.version)?;
        if of.plan.start.is_some() || !self.has_input() {
            return Some(of.clone());
        }
        let source = format!("{}\n{STARTED}", of.source);
        let plan = compile::load(&of.file, &source).ok();
        Some(plan.map_or_else(|| of.clone(), |plan| Loaded { source, plan: Arc::new(plan), ..of.clone() }))
    }
}

impl End {
    /// The status that it is.
    pub(super) fn status(self) -> Status {
        match self {
            End::Completed => Status::Completed,
            End::Compensated => Status::Compensated,
            End::Parked => Status::Parked,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trial::fixture::{FILE, order};
    use crate::trial::proofread::problems;

    #[test]
    fn every_form_is_read() {
        let file = ScenarioFile::parse("order.test.yaml", FILE).unwrap();
        assert_eq!(problems(&file, &[order()]), []);
        let Scenarios { replies, scenarios, .. } = &file.scenarios;
        let Replies(attempts) = replies.find("reserve_stock").unwrap();
        let outcomes: Vec<_> = attempts.iter().map(|reply| reply.outcome).collect();
        assert_eq!(outcomes, [Some(Word::Silence), Some(Word::Retry), None]);
        let commands = scenarios[0].commands.as_ref().unwrap();
        let phases: Vec<_> = commands.iter().map(|command| command.phase).collect();
        assert_eq!(phases, [Phase::Action, Phase::Action, Phase::Compensation]);
        assert_eq!((commands[1].attempts, scenarios[0].end), (Some(2), End::Completed));
    }

    proptest! {
        #[test]
        fn no_change_of_a_file_makes_it_panic(at in 0..FILE.len(), length in 0..12_usize, text in ".{0,6}|[-0=:{}&*\n #]{1,3}") {
            let boundary = |at: usize| (0..=at.min(FILE.len())).rev().find(|at| FILE.is_char_boundary(*at));
            let mut source = FILE.to_owned();
            source.replace_range(boundary(at).unwrap_or(0)..boundary(at + length).unwrap_or(0), &text);
            if let Ok(file) = ScenarioFile::parse("order.test.yaml", &source) {
                problems(&file, &[order()]);
            }
        }
    }
}
