//! What sagas that call each other hand over: what one reads of its input is given by those that call it, and what
//! they read of its output is kept by it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Loaded, calls, in_force};
use crate::saga::code::Code;
use crate::saga::definition::Place;
use crate::saga::expression::path_text;
use crate::saga::plan::{Plan, Step, SubSaga, Work};
use crate::saga::problem::{Finding, Problem, closest};

/// Fields that are read and never there, as far as the definitions in force list them.
pub(super) fn problems(loaded: &[Loaded]) -> Vec<Problem> {
    let in_force = in_force(loaded);
    let plans: BTreeMap<&str, &Plan> =
        in_force.iter().map(|one| (one.plan.saga.as_str(), &*one.plan)).collect();
    let mut problems = Vec::new();
    for one in &in_force {
        for plan in Plan::family(&one.plan) {
            for step in &plan.steps {
                let Work::Saga(called) = &step.work else { continue };
                let Some(of) = plans.get(called.saga.as_str()) else { continue };
                let found = unkept(one, &plan, step, of).into_iter().chain(unread(one, step, called, of));
                problems.extend(found);
            }
        }
    }
    problems
}

/// What a caller reads of an output that does not have it.
fn unkept(one: &Loaded, plan: &Plan, step: &Step, of: &Plan) -> Vec<Problem> {
    let kept = match &of.output {
        Some(output) => output.fields(),
        None => Some(Vec::new()),
    };
    let Some(kept) = kept else { return Vec::new() };
    let read: BTreeSet<_> = plan.later_expressions().flat_map(|expression| expression.references()).collect();
    let told = |path: &Vec<String>| {
        let [root, name, output, field, ..] = path.as_slice() else { return None };
        let is_output = root == "steps" && *name == step.name && output == "output";
        if !is_output || kept.contains(&field.as_str()) {
            return None;
        }
        let path = path_text(path);
        let message = format!("`{path}`: saga {:?} keeps no field {field:?}", of.saga);
        let hint = match closest(field, kept.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "say in the `output` of the called saga what it keeps".to_owned(),
        };
        Some(problem(one, written(&one.source, &path), message, hint))
    };
    read.into_iter().filter_map(told).collect()
}

/// What a called saga reads of its input, and a call does not give.
fn unread(one: &Loaded, step: &Step, called: &SubSaga, of: &Plan) -> Vec<Problem> {
    let Some(given) = called.input.fields() else { return Vec::new() };
    let expressions: Vec<_> = of.later_expressions().collect();
    let field_of = |path: &[String]| match path {
        [root, field, ..] if root == "input" => Some(field.clone()),
        _ => None,
    };
    // What is asked for may be missing.
    let asked: BTreeSet<_> =
        expressions.iter().flat_map(|expression| expression.asked()).filter_map(field_of).collect();
    let references = expressions.iter().flat_map(|expression| expression.references());
    let read: BTreeSet<_> = references.filter_map(|path| field_of(path)).collect();
    let missing = read.difference(&asked).filter(|field| !given.contains(&field.as_str()));
    let told = |field: &String| {
        let message = format!("saga {:?} reads `input.{field}`, which this call does not give", of.saga);
        let hint = match closest(field, given.iter().copied()) {
            Some(known) => format!("it gives `{known}`"),
            None => format!("add `{field}` to the `input` of the call"),
        };
        problem(one, calls::place(&one.file, &one.source, &step.name, &called.saga), message, hint)
    };
    missing.map(told).collect()
}

fn problem(one: &Loaded, at: Option<Place>, message: String, hint: String) -> Problem {
    let code = Code::UnknownPathField;
    match at {
        Some(at) => Problem::at(&one.file, &one.source, Finding { code, at, message, hint: Some(hint) }),
        None => Problem::of_file(code, &one.file, &message, Some(hint)),
    }
}

/// Where a path is written.
fn written(source: &str, path: &str) -> Option<Place> {
    let source = source.replace("\r\n", "\n");
    let mut lines = source.split(['\n', '\r']).zip(1..);
    lines.find_map(|(text, line)| {
        let column = text[..text.find(path)?].chars().count() + 1;
        Some(Place { line, column, width: path.chars().count() })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::saga::compile;

    const CALLER: &str = "\
saga: festival
version: 1
start: {on: {exchange: in, key: go}, business_key: =event.data.id}
steps:
  - {call: hire, saga: band, input: {style: =input.style}}
  - step: print
    command: {exchange: out, key: print, body: {name: =steps.hire.output.name}}
    compensate: none
";

    const CALLED: &str = "\
saga: band
version: 1
steps:
  - step: ask
    when: '=!has(input.fee) || input.fee > 1'
    command: {exchange: out, key: ask, body: {style: =input.style}}
    output: {name: =reply.data.name}
    compensate: none
output: {name: =steps.ask.output.name}
";

    fn told(caller: &str, called: &str) -> Vec<(u32, String, String)> {
        let loaded = [("festival.yaml", caller), ("band.yaml", called)].map(|(file, source)| Loaded {
            file: file.to_owned(),
            source: source.to_owned(),
            plan: Arc::new(compile::load(file, source).unwrap()),
        });
        let found = problems(&loaded).into_iter();
        found.map(|found| (found.line, found.message, found.hint.unwrap_or_default())).collect()
    }

    #[test]
    fn what_is_read_of_an_input_or_an_output_is_given_or_kept() {
        assert_eq!(told(CALLER, CALLED), []);
        let rows = [
            (
                CALLER.replace("output.name", "output.nmae"),
                CALLED.to_owned(),
                (
                    7,
                    "`steps.hire.output.nmae`: saga \"band\" keeps no field \"nmae\"",
                    "did you mean `name`?",
                ),
            ),
            (
                CALLER.to_owned(),
                CALLED.replace("\noutput: {name: =steps.ask.output.name}", ""),
                (
                    7,
                    "`steps.hire.output.name`: saga \"band\" keeps no field \"name\"",
                    "say in the `output` of the called saga what it keeps",
                ),
            ),
            (
                CALLER.replace("{style: =", "{stile: ="),
                CALLED.to_owned(),
                (5, "saga \"band\" reads `input.style`, which this call does not give", "it gives `stile`"),
            ),
        ];
        for (caller, called, (line, message, hint)) in rows {
            assert_eq!(told(&caller, &called), [(line, message.to_owned(), hint.to_owned())]);
        }
        // What is not listed may be there.
        assert_eq!(told(&CALLER.replace("input: {style: =input.style}", "input: =input"), CALLED), []);
        assert_eq!(
            told(CALLER, &CALLED.replace("\noutput: {name: =steps.ask.output.name}", "\noutput: =input")),
            []
        );
    }
}
