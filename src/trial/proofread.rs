//! Proofreading: what a file of scenarios names, and its definition does not have.

use super::cast::callables;
use super::form::Short;
use super::member::{Named, members};
use super::path::{Target, targets};
use super::scenario::{Event, Expected, Further, Replies, Reply, Scenario, ScenarioFile, Scenarios};
use crate::definitions::Loaded;
use crate::saga::code::Code;
use crate::saga::definition::{Entries, Located, Place};
use crate::saga::id::Phase;
use crate::saga::plan::{Plan, Subscription};
use crate::saga::problem::{Finding, Problem, closest};

/// What is wrong with a file, over these definitions.
pub(super) fn problems(file: &ScenarioFile, loaded: &[Loaded]) -> Vec<Problem> {
    let Some(of) = file.definition(loaded) else { return vec![no_definition(file, loaded)] };
    if of.plan.start.is_none() {
        let saga = &file.scenarios.saga;
        let message = format!("no event starts saga {:?}", saga.value);
        let hint = "give it an `input`, or write scenarios of a saga that calls it".to_owned();
        return vec![problem(file, Code::NoDefinition, saga.at, message, Some(hint))];
    }
    let others = callables(&of.plan, loaded);
    let called = others.iter().map(|other| &*other.plan);
    let heard = [&*of.plan].into_iter().chain(called).flat_map(subscriptions).collect();
    let proof = Proof { file, plan: &of.plan, heard };
    let mut problems = proof.repeated();
    problems.extend(proof.steps());
    problems.extend(proof.starts());
    if file.has_input() && loaded.iter().any(|one| file.is_about(&one.plan) && one.plan.start.is_some()) {
        let saga = &file.scenarios.saga;
        let message = format!("an event starts saga {:?}, so it is given no `input`", saga.value);
        let hint = "say the event in `start`".to_owned();
        problems.push(problem(file, Code::UnknownField, saga.at, message, Some(hint)));
    }
    problems.extend(proof.events());
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

/// The problem with a saga, or a version of it, that is not there.
fn no_definition(file: &ScenarioFile, loaded: &[Loaded]) -> Problem {
    let Scenarios { saga, version, .. } = &file.scenarios;
    let mut versions: Vec<_> = loaded
        .iter()
        .map(|of| &of.plan)
        .filter(|plan| plan.saga == saga.value)
        .map(|plan| plan.version)
        .collect();
    versions.sort_unstable();
    if let (Some(version), false) = (version, versions.is_empty()) {
        let message = format!("there is no version {} of saga {:?}", version.value, saga.value);
        let known: Vec<_> = versions.iter().map(u32::to_string).collect();
        let hint = match &known[..] {
            [one] => format!("there is version {one}; without `version`, the highest is meant"),
            known => {
                format!("there are versions {}; without `version`, the highest is meant", known.join(", "))
            }
        };
        return problem(file, Code::NoDefinition, version.at, message, Some(hint));
    }
    let known = loaded.iter().map(|loaded| loaded.plan.saga.as_str());
    let hint = closest(saga, known).map_or_else(
        || "name the file of its definition too, or the folder of both".to_owned(),
        |known| format!("did you mean `{known}`?"),
    );
    let message = format!("there is no definition of saga {:?}", saga.value);
    problem(file, Code::NoDefinition, saga.at, message, Some(hint))
}

/// All that a saga listens to, also for items.
fn subscriptions(plan: &Plan) -> Vec<&Subscription> {
    let of_steps = members(plan).into_iter().flat_map(|member| &member.plan.steps).flat_map(|step| {
        Phase::BOTH.into_iter().flat_map(|phase| step.rules(phase)).filter_map(|rule| rule.on.as_ref())
    });
    let start = plan.start.iter().map(|start| &start.on);
    start.chain(plan.cancel.iter().map(|cancel| &cancel.on)).chain(of_steps).collect()
}

struct Proof<'a> {
    file: &'a ScenarioFile,
    plan: &'a Plan,
    /// What the saga, and those that it calls, listen to.
    heard: Vec<&'a Subscription>,
}

impl Proof<'_> {
    fn all(&self) -> &[Scenario] {
        &self.file.scenarios.scenarios
    }

    /// Scenarios that have the name of an earlier one.
    fn repeated(&self) -> Vec<Problem> {
        let of = |(index, Scenario { scenario, .. }): (usize, &Scenario)| {
            let earlier = self.all()[..index].iter().map(|earlier| &earlier.scenario);
            let first = earlier.into_iter().find(|earlier| earlier.value == scenario.value)?;
            let message = format!("there is another scenario {:?}", scenario.value);
            let hint = format!("it is on line {}: say what each of them shows", first.at.line);
            Some(self.problem(Code::RepeatedField, scenario.at, message, hint))
        };
        self.all().iter().enumerate().filter_map(of).collect()
    }

    /// Steps that are not there.
    fn steps(&self) -> Vec<Problem> {
        let plan = self.plan;
        let replies = |entries: &Entries<Replies>, phase| {
            let name = |(step, _): &(Located<String>, Replies)| (step.value.clone(), phase, step.at);
            entries.0.iter().map(name).collect::<Vec<_>>()
        };
        let Scenarios { replies: steps, compensations, .. } = &self.file.scenarios;
        let mut kept = Vec::new();
        let mut named = replies(steps, Phase::Action);
        named.extend(replies(compensations, Phase::Compensation));
        for Scenario { replies: steps, compensations, events, commands, outputs, .. } in self.all() {
            named.extend(replies(steps, Phase::Action));
            named.extend(replies(compensations, Phase::Compensation));
            kept.extend(outputs.0.iter().map(|(step, _)| step));
            let expected = events.iter().filter_map(|event| event.during.as_ref());
            let expected = expected.chain(commands.iter().flatten());
            named.extend(expected.map(|Expected { step, phase, at, .. }| (step.clone(), *phase, *at)));
        }
        let of_commands = named.iter().filter_map(|(step, phase, at)| self.misnamed(step, *phase, *at));
        // What items have kept stands in the output of their step.
        let of_items = kept.iter().filter_map(|step| match Named::find(plan, step) {
            Some(Named { target: Target { member: 0, .. }, .. }) => None,
            _ => Some(self.unknown_step(step, step.at, plan.steps.iter().map(|step| step.name.clone()))),
        });
        of_commands.chain(of_items).collect()
    }

    fn misnamed(&self, name: &str, phase: Phase, at: Place) -> Option<Problem> {
        let plan = self.plan;
        let Some(Named { target, .. }) = Named::find(plan, name) else {
            let names = targets(plan).into_iter().map(|target| target.step_name(plan));
            return Some(self.unknown_step(name, at, names));
        };
        if phase == Phase::Action || targets(plan).contains(&Target { phase, ..target }) {
            return None;
        }
        let message = format!("no command undoes step {name:?}");
        Some(problem(self.file, Code::UnknownStep, at, message, None))
    }

    fn unknown_step(&self, name: &str, at: Place, known: impl Iterator<Item = String>) -> Problem {
        let known: Vec<_> = known.collect();
        let hint = closest(name, known.iter().map(String::as_str));
        let hint = hint.map(|known| format!("did you mean `{known}`?"));
        problem(self.file, Code::UnknownStep, at, format!("unknown step {name:?}"), hint)
    }

    /// Start events that do not start the saga.
    fn starts(&self) -> Vec<Problem> {
        let Some(on) = self.plan.start.as_ref().map(|start| &start.on) else { return Vec::new() };
        let starts = self.all().iter().filter_map(|scenario| scenario.start.as_ref());
        let of = |Event { exchange, key, .. }: &Event| {
            let remedy =
                format!("`{}` on `{}` does; it is meant where nothing is said", on.pattern, on.exchange);
            match (exchange, key) {
                (Some(exchange), _) if exchange.value != on.exchange => {
                    let message = format!("no event on exchange {:?} starts the saga", exchange.value);
                    let hint = meant(exchange, [on.exchange.as_str()]).unwrap_or(remedy);
                    Some(self.problem(Code::NoKey, exchange.at, message, hint))
                }
                (_, Some(key)) if !on.matches(&on.exchange, key) => {
                    let message = format!("no event {:?} starts the saga", key.value);
                    let hint = meant(key, [on.pattern.as_str()]).unwrap_or(remedy);
                    Some(self.problem(Code::NoKey, key.at, message, hint))
                }
                _ => None,
            }
        };
        self.file.scenarios.start.iter().chain(starts).filter_map(of).collect()
    }

    /// Events, and replies that are events, that nobody listens to.
    fn events(&self) -> Vec<Problem> {
        let Scenarios { replies, compensations, .. } = &self.file.scenarios;
        let of_scenarios = self.all().iter().flat_map(|of| [&of.replies, &of.compensations]);
        let mut next: Vec<_> = [replies, compensations]
            .into_iter()
            .chain(of_scenarios)
            .flat_map(|entries| &entries.0)
            .flat_map(|(_, Replies(attempts))| attempts)
            .collect();
        let mut addresses = Vec::new();
        while let Some(Reply { event, then, .. }) = next.pop() {
            addresses.extend(event.iter().map(|address| (&address.exchange, &address.key)));
            next.extend(then.iter().map(|Short(then)| &**then));
        }
        let further = self.all().iter().flat_map(|scenario| &scenario.events);
        addresses.extend(further.map(|Further { exchange, key, .. }| (exchange, key)));
        addresses.into_iter().filter_map(|(exchange, key)| self.unheard(exchange, key)).collect()
    }

    fn unheard(&self, exchange: &Located<String>, key: &Located<String>) -> Option<Problem> {
        if self.heard.iter().any(|on| on.matches(exchange, key)) {
            return None;
        }
        let there: Vec<_> = self.heard.iter().filter(|on| on.exchange == exchange.value).collect();
        let (named, what, known): (_, _, Vec<_>) = match there.is_empty() {
            true => (exchange, "any event on exchange", self.heard.iter().map(|on| &*on.exchange).collect()),
            false => (key, "event", there.iter().map(|on| &*on.pattern).collect()),
        };
        let message = format!("the saga does not listen to {what} {:?}", named.value);
        let hint = meant(named, known.iter().copied()).unwrap_or_else(|| {
            let mut known: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
            known.sort();
            known.dedup();
            format!("it listens to {}", known.join(", "))
        });
        Some(self.problem(Code::NoKey, named.at, message, hint))
    }

    fn problem(&self, code: Code, at: Place, message: String, hint: String) -> Problem {
        problem(self.file, code, at, message, Some(hint))
    }
}

fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(name, known).map(|known| format!("did you mean `{known}`?"))
}

fn problem(file: &ScenarioFile, code: Code, at: Place, message: String, hint: Option<String>) -> Problem {
    Problem::at(&file.file, &file.source, Finding { code, at, message, hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::problem::place_of;
    use crate::trial::fixture::{FILE, order};

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let twice = "end: completed\n  - {scenario: all is well, end: parked}\n";
        // Each row: what is replaced, by what, where the problem is, what it says and what it advises.
        let rows = [
            ("end: completed", "ends: completed", "ends", "unknown field \"ends\"", "did you mean `end`?"),
            ("end: completed", "end: done", "done", "unknown value \"done\"", "one of completed, "),
            (
                "end: completed\n",
                twice,
                "all is well, end",
                "another scenario \"all is well\"",
                "is on line 7",
            ),
            (
                "saga: order\n",
                "saga: order\ninput: {order_id: A-1}\n",
                "order\ninput",
                "an event starts saga \"order\", so it is given no `input`",
                "say the event in `start`",
            ),
            ("    end: completed\n", "", "scenario: all is well", "missing field \"end\"", "add `end:`"),
            (
                "saga: order",
                "saga: ordre",
                "ordre",
                "no definition of saga \"ordre\"",
                "did you mean `order`?",
            ),
            ("saga: order", "saga: trip", "trip", "no definition of saga \"trip\"", "name the file of its"),
            ("version: 1", "version: 2", "2\n", "no version 2 of saga \"order\"", "there is version 1"),
            ("[silence,", "[silent,", "silent", "\"silent\": did you mean `silence`?", ""),
            (": unroutable", ": unroutabel", "unroutabel", "\"unroutabel\": did you mean `unroutable`?", ""),
            (": unroutable", ": {outcome: falure}", "falure", "\"falure\"", "did you mean `failure`?"),
            (": unroutable", ": {then: sucess}", "sucess", "\"sucess\": did you mean `success`?", ""),
            (": unroutable", ": lost", "lost", "\"lost\": one of success, failure, retry, ", ""),
            ("[silence, ", "[] # ", "[] #", "at least one", ""),
            ("{step: ship,", "{stop: ship,", "stop", "unknown field \"stop\"", "did you mean `step`?"),
            (
                "{step: ship,",
                "{step: ship, compensate: ship,",
                "{step: ship, c",
                "either that of a `step`",
                "",
            ),
            ("retry_after: 2s", "retry_after: 2", "2},", "not a duration", ""),
            (
                "{ship: {carrier",
                "{shipp: {carrier",
                "shipp",
                "unknown step \"shipp\"",
                "did you mean `ship`?",
            ),
            ("during: ship", "during: shop", "shop", "unknown step \"shop\"", "did you mean `ship`?"),
            ("{compensate: reserve_stock}", "{compensate: ship}", "{compensate: s", "no command undoes", ""),
            (
                "{data: {order_id",
                "{key: order.plased, data: {order_id",
                "order.plased",
                "no event \"order.plased\" starts the saga",
                "did you mean `order.placed`?",
            ),
            (
                "{data: {order_id",
                "{exchange: shop, data: {order_id",
                "shop,",
                "no event on exchange \"shop\" starts the saga",
                "`order.placed` on `orders` does; it is meant where nothing is said",
            ),
            (
                "key: order.cancelled",
                "key: order.canceled",
                "order.canceled",
                "the saga does not listen to event \"order.canceled\"",
                "did you mean `order.cancelled`?",
            ),
            (
                "key: order.cancelled",
                "key: gone",
                "gone",
                "the saga does not listen to event \"gone\"",
                "it listens to `order.cancelled`, `order.placed`",
            ),
            (
                "exchange: orders",
                "exchange: odrers",
                "odrers",
                "the saga does not listen to any event on exchange \"odrers\"",
                "did you mean `orders`?",
            ),
            (
                ": unroutable",
                ": [{then: {event: {exchange: payments, key: payment.procesed}}}]",
                "payment.procesed",
                "the saga does not listen to event",
                "did you mean `payment.processed`?",
            ),
        ];
        for (from, to, place, message, hint) in rows {
            let source = FILE.replacen(from, to, 1);
            assert_ne!(source, FILE, "{from}");
            let problem = match ScenarioFile::parse("order.test.yaml", &source) {
                Err(problem) => *problem,
                Ok(file) => problems(&file, &[order()]).into_iter().next().expect(to),
            };
            assert!(problem.message.contains(message), "{problem}");
            assert!(problem.hint.as_deref().unwrap_or_default().contains(hint), "{problem}");
            assert_eq!((problem.line, problem.column), place_of(place, &source), "{problem}");
        }
    }
}
