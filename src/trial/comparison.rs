//! Comparing: what came, held against what a scenario expects.

use serde::Serialize;
use serde_json::{Value, json};

use super::cast::Actor;
use super::path::Target;
use super::scenario::{Emitted, Expected, Scenario};
use super::stage::Played;
use crate::number;
use crate::saga::id::Phase;
use crate::saga::instance::Instance;
use crate::saga::message::{Origin, Outgoing, Part};
use crate::saga::plan::Plan;

/// Something that came otherwise than it was expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What.
    pub what: String,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub came: String,
}

/// What came otherwise than it was expected.
pub(super) fn differences(
    plan: &Plan,
    cast: &[Actor],
    scenario: &Scenario,
    played: &Played,
) -> Vec<Difference> {
    let mut found = Differences(Vec::new());
    let end = scenario.end.status();
    let Some(instance) = &played.ended else {
        found.add("end", end.as_str(), "nothing was started");
        return found.0;
    };
    if instance.status != end {
        let reason = instance.reason().map(|reason| format!(", {}: {}", reason.code, reason.message));
        let came = format!("{}{}", instance.status, reason.unwrap_or_default());
        found.add("end", end.as_str(), &came);
    }
    let own = |outgoing: &&Outgoing| outgoing.origin.instance == instance.id;
    let published: Vec<_> = played.published.iter().filter(own).collect();
    let code = instance.reason().map(|reason| reason.code.as_str());
    if let Some(expected) = scenario.error.as_deref().filter(|expected| Some(*expected) != code) {
        found.add("error", expected, code.unwrap_or("none"));
    }
    if let Some(expected) = &scenario.commands {
        found.commands(expected, &sent(plan, cast, &played.published));
    }
    found.outputs(scenario, instance);
    if let Some(expected) = &scenario.emits {
        found.emits(expected, &published);
    }
    found.0
}

struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, what: &str, expected: &str, came: &str) {
        let (what, expected, came) = (what.to_owned(), expected.to_owned(), came.to_owned());
        self.0.push(Difference { what, expected, came });
    }

    fn value(&mut self, what: &str, expected: &Value, came: &Value) {
        if !holds(expected, came) {
            self.add(what, &expected.to_string(), &came.to_string());
        }
    }

    /// Commands in their order; those that were decided at the same moment in any.
    fn commands(&mut self, expected: &[Expected], came: &[Sent<'_>]) {
        let mut left: Vec<_> = came.iter().collect();
        let mut pairs = Vec::new();
        for expected in expected {
            let moment = left.first().map(|sent| sent.first.timestamp);
            let is_it = |sent: &&Sent<'_>| Some(sent.first.timestamp) == moment && sent.is(expected);
            let Some(index) = left.iter().position(is_it) else { break };
            pairs.push((expected, left.remove(index)));
        }
        if pairs.len() < expected.len() || !left.is_empty() {
            let expected = expected.iter().map(|expected| name(&expected.step, expected.phase));
            return self.add("commands", &list(expected), &list(came.iter().map(Sent::name)));
        }
        for (expected, sent) in pairs {
            let name = sent.name();
            if expected.attempts.is_some_and(|attempts| attempts != sent.attempts) {
                let attempts = expected.attempts.unwrap_or_default().to_string();
                self.add(&format!("attempts of {name}"), &attempts, &sent.attempts.to_string());
            }
            self.value(&format!("body of {name}"), &expected.body, &body(sent.first));
        }
    }

    fn outputs(&mut self, scenario: &Scenario, instance: &Instance) {
        for (step, expected) in &scenario.outputs.0 {
            let state = instance.steps.iter().find(|state| state.name == step.value);
            let output = state.and_then(|state| state.output.clone()).unwrap_or_default();
            self.value(&format!("output of {}", step.value), expected, &output);
        }
    }

    fn emits(&mut self, expected: &[Emitted], published: &[&Outgoing]) {
        let notices = published.iter().filter(|outgoing| matches!(outgoing.origin.part, Part::Notice(_)));
        let mut came: Vec<&Outgoing> = Vec::new();
        for notice in notices {
            if came.iter().all(|known| known.message_id != notice.message_id) {
                came.push(notice);
            }
        }
        let is_it = |(expected, came): (&Emitted, &&Outgoing)| {
            *expected.key == *came.key
                && expected.exchange.as_ref().is_none_or(|exchange| **exchange == *came.exchange)
        };
        if expected.len() != came.len() || !expected.iter().zip(&came).all(is_it) {
            let keys: Vec<_> = expected.iter().map(|expected| expected.key.as_str()).collect();
            let came: Vec<_> = came.iter().map(|came| format!("{} on {}", came.key, came.exchange)).collect();
            return self.add("emits", &keys.join(", "), &came.join(", "));
        }
        for (expected, came) in expected.iter().zip(came) {
            self.value(&format!("body of {}", came.key), &expected.body, &body(came));
        }
    }
}

/// A command with all its attempts.
struct Sent<'a> {
    /// The names of its step: as it is, and without items.
    steps: [String; 2],
    phase: Phase,
    first: &'a Outgoing,
    attempts: u32,
}

impl Sent<'_> {
    fn name(&self) -> String {
        name(&self.steps[0], self.phase)
    }

    /// Whether it is a command that is expected, of any item where none is told.
    fn is(&self, expected: &Expected) -> bool {
        self.steps.contains(&expected.step) && self.phase == expected.phase
    }
}

/// The commands that were published for an instance and its items, in the order of their first attempts.
fn sent<'a>(plan: &Plan, cast: &[Actor], published: &'a [Outgoing]) -> Vec<Sent<'a>> {
    let mut all: Vec<Sent<'a>> = Vec::new();
    for outgoing in published {
        let Origin { instance, part: Part::Attempt { step, phase, attempt } } = outgoing.origin else {
            continue;
        };
        let is_it = |actor: &&Actor| actor.instance == instance && actor.place.called_by.is_none();
        let Some(Actor { place, .. }) = cast.iter().find(is_it) else { continue };
        let of_any = Target { member: place.member, step, phase }.step_name(plan);
        let steps = [place.step_name(plan, step), of_any];
        match all.iter_mut().find(|sent| (&sent.steps, sent.phase) == (&steps, phase)) {
            Some(sent) => sent.attempts = sent.attempts.max(attempt),
            None => all.push(Sent { steps, phase, first: outgoing, attempts: attempt }),
        }
    }
    all
}

/// The name of a command, such as `undo charge`.
pub(super) fn name(step: &str, phase: Phase) -> String {
    if phase == Phase::Compensation { format!("undo {step}") } else { step.to_owned() }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn body(outgoing: &Outgoing) -> Value {
    serde_json::from_slice(&outgoing.body).unwrap_or_default()
}

/// Whether a value is what is expected, as far as that is told: of an object, the fields that are named.
/// What is expected to be null is not told.
fn holds(expected: &Value, came: &Value) -> bool {
    match (expected, came) {
        (Value::Null, _) => true,
        (Value::Object(expected), Value::Object(came)) => {
            let none = json!(null);
            let field = |(name, value): (&String, &Value)| is_same(value, came.get(name).unwrap_or(&none));
            expected.iter().all(field)
        }
        _ => is_same(expected, came),
    }
}

fn is_same(expected: &Value, came: &Value) -> bool {
    match (expected, came) {
        (Value::Object(_), Value::Object(_)) => holds(expected, came),
        (Value::Array(expected), Value::Array(came)) => {
            expected.len() == came.len() && expected.iter().zip(came).all(|(one, other)| is_same(one, other))
        }
        (Value::Number(expected), Value::Number(came)) => number::is_same(expected, came),
        _ => expected == came,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_held_against_the_fields_that_are_told() {
        let came = json!({"a": 1, "b": {"c": [1.0, "x"], "d": null}});
        for expected in [json!(null), json!({}), json!({"a": 1.0}), json!({"b": {"c": [1, "x"], "d": null}})]
        {
            assert!(holds(&expected, &came), "{expected}");
        }
        for expected in [json!({"a": "1"}), json!({"a": null}), json!({"b": {"c": [1]}}), json!({"e": 0})] {
            assert!(!holds(&expected, &came), "{expected}");
        }
    }
}
