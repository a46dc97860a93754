//! Scenarios: a team's own cases, as they are written in `*.test.yaml`.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::form::Short;
use super::member::Named;
use super::path::{Target, targets};
use crate::saga::code::Code;
use crate::saga::definition::{Entries, Located, Period, Place, read};
use crate::saga::id::Phase;
use crate::saga::instance::Status;
use crate::saga::plan::Plan;
use crate::saga::problem::{Finding, Problem, closest};

/// A file of scenarios.
#[derive(Clone, Debug)]
pub struct ScenarioFile {
    /// The file, as it is shown to people.
    pub file: String,
    /// Its text.
    pub source: String,
    pub(super) scenarios: Scenarios,
}

/// What stands in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenarios {
    /// The saga that it is about.
    pub(super) saga: Located<String>,
    /// Its version; the highest where it is left out.
    pub(super) version: Option<Located<u32>>,
    /// The start event, unless a scenario has its own.
    #[serde(default)]
    pub(super) start: Option<Event>,
    /// What is answered to steps, unless a scenario says otherwise.
    #[serde(default)]
    pub(super) replies: Entries<Replies>,
    /// What is answered to compensations, by step.
    #[serde(default)]
    pub(super) compensations: Entries<Replies>,
    pub(super) scenarios: Vec<Scenario>,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What it shows, in words.
    pub(super) scenario: Located<String>,
    #[serde(default)]
    pub(super) start: Option<Event>,
    #[serde(default)]
    pub(super) replies: Entries<Replies>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Completed,
    Compensated,
    Parked,
}

/// An event that comes in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    #[serde(default)]
    pub(super) exchange: Option<String>,
    #[serde(default)]
    pub(super) key: Option<String>,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) data: Value,
    #[serde(default)]
    pub(super) metadata: Value,
    #[serde(default)]
    pub(super) headers: Map<String, Value>,
}

/// An event that comes in after the start.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Further {
    pub(super) exchange: String,
    pub(super) key: String,
    #[serde(default)]
    pub(super) data: Value,
    #[serde(default)]
    pub(super) headers: Map<String, Value>,
    /// The command that is out then; left out, the time counts from the start.
    #[serde(default)]
    pub(super) during: Option<Expected>,
    /// How long after that.
    #[serde(default)]
    pub(super) after: Option<Period>,
}

/// What is answered to the attempts of a command; the last holds for all further ones.
#[derive(Clone, Debug)]
pub(super) struct Replies(pub(super) Vec<Reply>);

/// What is answered to an attempt.
#[derive(Clone, Debug, Default, Deserialize)]
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
    #[serde(default)]
    pub(super) data: Value,
    /// How long the participant takes.
    #[serde(default)]
    pub(super) after: Option<Period>,
    /// How long it asks to wait before the next attempt.
    #[serde(default)]
    pub(super) retry_after: Option<Period>,
    /// The event that it is; left out, the one that the step's rules listen to.
    #[serde(default)]
    pub(super) event: Option<Address>,
    /// What is answered after that to the same attempt.
    #[serde(default)]
    pub(super) then: Option<Short<Box<Reply>>>,
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    Success,
    Failure,
    Retry,
    Pending,
    /// Nothing is answered.
    Silence,
    /// No queue is bound for the command.
    Unroutable,
}

/// Where an event is published.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Address {
    pub(super) exchange: String,
    pub(super) key: String,
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Emitted {
    #[serde(default)]
    pub(super) exchange: Option<String>,
    pub(super) key: String,
    #[serde(default)]
    pub(super) body: Value,
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

    /// What is wrong with it, over the definition that it is about: names that are not there.
    pub(super) fn problems(&self, plan: &Plan) -> Vec<Problem> {
        let replies = |entries: &Entries<Replies>, phase| {
            let name = |(step, _): &(Located<String>, Replies)| (step.value.clone(), phase, step.at);
            entries.0.iter().map(name).collect::<Vec<_>>()
        };
        let Scenarios { replies: steps, compensations, scenarios, .. } = &self.scenarios;
        let mut kept = Vec::new();
        let mut named = replies(steps, Phase::Action);
        named.extend(replies(compensations, Phase::Compensation));
        for Scenario { replies: steps, compensations, events, commands, outputs, .. } in scenarios {
            named.extend(replies(steps, Phase::Action));
            named.extend(replies(compensations, Phase::Compensation));
            kept.extend(outputs.0.iter().map(|(step, _)| step));
            let expected = events.iter().filter_map(|event| event.during.as_ref());
            let expected = expected.chain(commands.iter().flatten());
            named.extend(expected.map(|expected| (expected.step.clone(), expected.phase, expected.at)));
        }
        let of_commands = named.iter().filter_map(|(step, phase, at)| self.misnamed(plan, step, *phase, *at));
        // What items have kept stands in the output of their step.
        let of_items = kept.iter().filter_map(|step| match Named::find(plan, step) {
            Some(Named { target: Target { member: 0, .. }, .. }) => None,
            _ => Some(self.unknown_step(step, step.at, plan.steps.iter().map(|step| step.name.clone()))),
        });
        of_commands.chain(of_items).collect()
    }

    fn misnamed(&self, plan: &Plan, name: &str, phase: Phase, at: Place) -> Option<Problem> {
        let Some(Named { target, .. }) = Named::find(plan, name) else {
            let names = targets(plan).into_iter().map(|target| target.step_name(plan));
            return Some(self.unknown_step(name, at, names));
        };
        if phase == Phase::Action || targets(plan).contains(&Target { phase, ..target }) {
            return None;
        }
        Some(self.problem(Code::UnknownStep, at, format!("no command undoes step {name:?}"), None))
    }

    fn unknown_step(&self, name: &str, at: Place, known: impl Iterator<Item = String>) -> Problem {
        let known: Vec<_> = known.collect();
        let hint = closest(name, known.iter().map(String::as_str));
        let hint = hint.map(|known| format!("did you mean `{known}`?"));
        self.problem(Code::UnknownStep, at, format!("unknown step {name:?}"), hint)
    }

    /// A problem with the saga that it names.
    pub(super) fn unknown_saga<'a>(&self, known: impl IntoIterator<Item = &'a str>) -> Problem {
        let Scenarios { saga, version, .. } = &self.scenarios;
        let version_text = version.as_ref().map(|version| format!(" v{}", version.value)).unwrap_or_default();
        let hint = closest(saga, known).filter(|known| *known != saga.value);
        let hint = hint.map_or_else(
            || "name the file of its definition too, or the folder of both".to_owned(),
            |known| format!("did you mean `{known}`?"),
        );
        let message = format!("there is no definition of saga {:?}{version_text}", saga.value);
        self.problem(Code::NoDefinition, saga.at, message, Some(hint))
    }

    /// The problem that no event starts the saga.
    pub(super) fn unstarted_saga(&self) -> Problem {
        let saga = &self.scenarios.saga;
        let message = format!("no event starts saga {:?}", saga.value);
        let hint = "write scenarios of a saga that calls it".to_owned();
        self.problem(Code::NoDefinition, saga.at, message, Some(hint))
    }

    fn problem(&self, code: Code, at: Place, message: String, hint: Option<String>) -> Problem {
        Problem::at(&self.file, &self.source, Finding { code, at, message, hint })
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
    use crate::saga::compile;

    const FILE: &str = "\
saga: order
start: {data: {order_id: A-1}}
replies:
  reserve_stock: [silence, {outcome: retry, retry_after: 2s}, {data: {reservation_id: R-1}}]
scenarios:
  - scenario: all is well
    compensations: {charge_payment: unroutable}
    events: [{exchange: orders, key: order.cancelled, during: ship, after: 1s}]
    commands: [reserve_stock, {step: ship, attempts: 2, body: {order_id: A-1}}, {compensate: reserve_stock}]
    outputs: {ship: {carrier: dhl}}
    end: completed
";

    fn order() -> Plan {
        compile::load("order.yaml", include_str!("../../sagas/order.yaml")).unwrap()
    }

    #[test]
    fn every_form_is_read() {
        let file = ScenarioFile::parse("order.test.yaml", FILE).unwrap();
        assert!(file.problems(&order()).is_empty());
        let Scenarios { replies, scenarios, .. } = &file.scenarios;
        let Replies(attempts) = replies.find("reserve_stock").unwrap();
        let outcomes: Vec<_> = attempts.iter().map(|reply| reply.outcome).collect();
        assert_eq!(outcomes, [Some(Word::Silence), Some(Word::Retry), None]);
        let commands = scenarios[0].commands.as_ref().unwrap();
        let phases: Vec<_> = commands.iter().map(|command| command.phase).collect();
        assert_eq!(phases, [Phase::Action, Phase::Action, Phase::Compensation]);
        assert_eq!((commands[1].attempts, scenarios[0].end), (Some(2), End::Completed));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        // Each row: what is replaced, by what, where the problem is, what it says and what it advises.
        let rows = [
            ("end: completed", "ends: completed", 11, "unknown field \"ends\"", "did you mean `end`?"),
            ("end: completed", "end: done", 11, "unknown value \"done\"", "one of completed, "),
            ("[silence,", "[silent,", 4, "unknown value \"silent\"", "did you mean `silence`?"),
            ("{step: ship,", "{stop: ship,", 9, "unknown field \"stop\"", "did you mean `step`?"),
            ("{step: ship,", "{step: ship, compensate: ship,", 9, "either that of a `step`", ""),
            ("[silence, ", "[] # ", 4, "at least one", ""),
            ("    end: completed\n", "", 10, "missing field \"end\"", "add `end:`"),
            ("retry_after: 2s", "retry_after: 2", 4, "not a duration", ""),
            ("{ship: {carrier", "{shipp: {carrier", 10, "unknown step \"shipp\"", "did you mean `ship`?"),
            ("during: ship", "during: shop", 8, "unknown step \"shop\"", "did you mean `ship`?"),
            ("{compensate: reserve_stock}", "{compensate: ship}", 9, "no command undoes step \"ship\"", ""),
        ];
        for (from, to, line, message, hint) in rows {
            let source = FILE.replacen(from, to, 1);
            let problem = match ScenarioFile::parse("order.test.yaml", &source) {
                Err(problem) => *problem,
                Ok(file) => file.problems(&order()).into_iter().next().expect(to),
            };
            assert!(problem.message.contains(message), "{problem}");
            assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{problem}");
            assert_eq!(problem.line, line, "{problem}");
        }
    }

    proptest! {
        #[test]
        fn no_change_of_a_file_makes_it_panic(at in 0..FILE.len(), length in 0..12_usize, text in ".{0,6}|[-0=:{}&*\n #]{1,3}") {
            let boundary = |at: usize| (0..=at.min(FILE.len())).rev().find(|at| FILE.is_char_boundary(*at));
            let mut source = FILE.to_owned();
            source.replace_range(boundary(at).unwrap_or(0)..boundary(at + length).unwrap_or(0), &text);
            if let Ok(file) = ScenarioFile::parse("order.test.yaml", &source) {
                file.problems(&order());
            }
        }
    }
}
