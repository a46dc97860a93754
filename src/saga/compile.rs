//! From a definition to a plan: defaults filled in, expressions compiled, the graph made.

mod doubt;
mod messages;
mod steps;

use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use self::messages::users;
use super::code::Code;
use super::definition::{
    self, Attempts, Awaited, Compensate, Definition, Foreach, Form, Located, Node, Place, Retry, Rule, Step,
    Verdict, Wait,
};
use super::expression::{Expression, ExpressionError, Template};
use super::graph::{self, graph};
use super::lint;
use super::names::{self, Item, KnownOutput, KnownStep, Names};
use super::plan::{self, DefinitionHash, Plan};
use super::problem::{Finding, Findings, Problem, line_of};
use super::reader::QUOTE;
use super::retry::{Jitter, RetryPolicy};
use super::scope::{LASTING_SAGA_FIELDS, SAGA_FIELDS};

/// How long an attempt may stay unanswered where the definition does not say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a list of items may be, and how many of them are under way at a time, where the definition does not
/// say.
const DEFAULT_ITEMS: u32 = 100;
const DEFAULT_IN_FLIGHT: u32 = 10;

/// Reads a definition, checks it, and compiles it.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the file; where it does not have the form of
/// a definition, only the first thing.
pub fn load(file: &str, source: &str) -> Result<Plan, Vec<Problem>> {
    let definition = definition::parse(file, source).map_err(|problem| vec![*problem])?;
    let nodes = graph(&definition.steps);
    let findings = lint::lint(&definition, &nodes);
    compiled(file, source, &definition, &nodes, Some(findings)).map(|(plan, _)| plan)
}

/// What may be meant otherwise in a definition that holds.
pub fn warnings(file: &str, source: &str) -> Vec<Problem> {
    let Ok(definition) = definition::parse(file, source) else { return Vec::new() };
    let compiled = compiled(file, source, &definition, &graph(&definition.steps), None);
    let doubts = compiled.map(|(_, doubts)| doubts.sorted()).unwrap_or_default();
    doubts.into_iter().map(|finding| Problem::at(file, source, finding)).collect()
}

/// Compiles a definition that was accepted before, possibly by an earlier release with fewer
/// refusals: a running instance keeps what it started with.
///
/// # Errors
///
/// Those of [`load`], without what is only a refusal of style or prudence.
pub fn reload(file: &str, source: &str) -> Result<Plan, Vec<Problem>> {
    let definition = definition::parse(file, source).map_err(|problem| vec![*problem])?;
    compiled(file, source, &definition, &graph(&definition.steps), None).map(|(plan, _)| plan)
}

/// The plan, and what may be meant otherwise. `found` is what was found so far; `None` where only what cannot be
/// compiled is refused.
fn compiled(
    file: &str,
    source: &str,
    definition: &Definition,
    nodes: &[graph::Node<'_>],
    found: Option<Findings>,
) -> Result<(Plan, Findings), Vec<Problem>> {
    let is_strict = found.is_some();
    let findings = found.unwrap_or_default();
    let start_input = definition.start.as_ref().and_then(|start| match &start.input.as_ref()?.value {
        Node::Map(fields) => Some(fields.names().collect::<Vec<_>>()),
        Node::Scalar(_) | Node::List(_) => None,
    });
    let mut compiler = Compiler {
        source,
        definition,
        nodes,
        item: None,
        start_input: start_input.as_deref(),
        hash: definition.hash(),
        is_strict,
        findings,
        doubts: Findings::default(),
    };
    let plan = compiler.plan();
    compiler.unused_exchanges(&plan);
    let findings = compiler.findings.sorted();
    if findings.is_empty() {
        return Ok((plan, compiler.doubts));
    }
    Err(findings.into_iter().map(|finding| Problem::at(file, source, finding)).collect())
}

/// The policy that a step or a compensation asks for. One that is not known counts as none.
pub(super) fn retry_policy(definition: &Definition, retry: Option<&Located<Retry>>) -> RetryPolicy {
    let once = RetryPolicy::once();
    let policy = match retry.map(|retry| &retry.value) {
        Some(Retry::Inline(policy)) => policy,
        Some(Retry::Named(name)) => match definition.retry.find(name) {
            Some(policy) => policy,
            None => return once,
        },
        None => return once,
    };
    let initial = policy.initial.as_ref().map_or(once.initial, |initial| initial.value.0);
    RetryPolicy {
        attempts: match policy.attempts.value {
            Attempts::AtMost(count) => Some(count),
            Attempts::Unlimited => None,
        },
        initial,
        // A wrong factor is refused elsewhere; until then it must not shrink delays below zero.
        factor: policy.factor.as_ref().map_or(once.factor, |factor| factor.value.max(1.0)),
        max: policy.max.as_ref().map_or(once.max.max(initial), |max| max.value.0),
        jitter: match policy.jitter {
            Some(definition::Jitter::None) => Jitter::None,
            Some(definition::Jitter::Full) | None => Jitter::Full,
        },
        except: policy.except.clone(),
    }
}

/// Compiles on after a problem, so that all problems are found; what did not compile is null.
struct Compiler<'a> {
    source: &'a str,
    definition: &'a Definition,
    nodes: &'a [graph::Node<'a>],
    /// What is known of the item, if this is done for each item of a list.
    item: Option<&'a Item<'a>>,
    /// The fields of the input, where the start lists them.
    start_input: Option<&'a [&'a str]>,
    hash: DefinitionHash,
    /// Whether what could be compiled is refused, too.
    is_strict: bool,
    findings: Findings,
    /// What may be meant otherwise.
    doubts: Findings,
}

impl Compiler<'_> {
    fn plan(&mut self) -> Plan {
        let definition = self.definition;
        let nodes = self.nodes;
        let steps: Vec<_> = nodes.iter().map(|node| steps::known(node.form)).collect();
        let all = 0..steps.len();
        let at_start = Names { event: true, place: "the start", ..Names::default() };
        let at_attributes =
            Names { input: true, place: "attributes", start_input: self.start_input, ..at_start };
        let at_end = Names {
            input: true,
            steps: Some(slice::from_ref(&all)),
            all_steps: &steps,
            saga: &SAGA_FIELDS,
            item: self.item,
            start_input: self.start_input,
            place: "the end",
            ..Names::default()
        };
        let at_output = Names { saga: &SAGA_FIELDS[..LASTING_SAGA_FIELDS], place: "`output`", ..at_end };
        Plan {
            saga: definition.saga.value.clone(),
            version: definition.version.value,
            hash: self.hash.clone(),
            described: self.described(),
            start: definition.start.as_ref().map(|start| plan::Start {
                on: self.subscription(&start.on),
                business_key: self.key(&start.business_key, &at_start),
                input: self.template_or(start.input.as_ref(), "event.data", &at_start),
                from_user: users(start.from_user.as_ref()),
            }),
            attributes: definition
                .attributes
                .0
                .iter()
                .map(|(name, value)| (name.value.clone(), self.expression(value, &at_attributes)))
                .collect(),
            deadline: definition.deadline.as_ref().map(|deadline| plan::Deadline {
                after: deadline.after.value.0,
                then: match deadline.then {
                    Some(definition::AtDeadline::Park) => plan::AtDeadline::Park,
                    Some(definition::AtDeadline::Compensate) | None => plan::AtDeadline::Compensate,
                },
            }),
            cancel: definition.cancel.as_ref().map(|cancel| plan::Cancel {
                on: self.subscription(&cancel.on),
                business_key: self.key(&cancel.business_key, &at_start.at("a cancellation")),
                from_user: users(cancel.from_user.as_ref()),
            }),
            steps: nodes.iter().map(|node| self.step(node, &steps)).collect(),
            output: definition.output.as_ref().map(|output| self.template(output, &at_output)),
            on_completed: self.ending(definition.on_completed.as_ref(), &at_end),
            on_compensated: self.ending(definition.on_compensated.as_ref(), &at_end),
            on_parked: self.ending(definition.on_parked.as_ref(), &at_end),
            on_cancel_refused: self.ending(definition.on_cancel_refused.as_ref(), &at_end),
        }
    }

    fn ending(&mut self, ending: Option<&definition::Ending>, names: &Names<'_>) -> Option<plan::Emission> {
        let event = &ending?.emit;
        let names = names.at("an event at the end");
        // The body is kept as it was at the end. Headers are made again with each copy, while the instance goes on.
        let lasting = Names {
            steps: Some(&[]),
            saga: &SAGA_FIELDS[..LASTING_SAGA_FIELDS],
            place: "a header of an event at the end",
            ..names
        };
        let extras = self.extras(event, &lasting);
        Some(plan::Emission { extras, ..self.emission(event, &names) })
    }

    /// An event without its headers.
    fn emission(&mut self, event: &definition::Command, names: &Names<'_>) -> plan::Emission {
        let (exchange, key) = event.address();
        plan::Emission {
            exchange: exchange.into(),
            key: key.into(),
            body: self.template_or(event.body.as_ref(), "input", names),
            extras: None,
        }
    }

    /// A business key, which differs from message to message.
    fn key(&mut self, node: &Located<Node>, names: &Names<'_>) -> Expression {
        let expression = self.expression(node, names);
        if expression.constant().is_some_and(|value| !value.is_null()) {
            let hint = "write a path of the event, such as `=event.data.order_id`";
            self.refuse(
                Code::ConstantKey,
                node.at,
                "this key is the same for every event".to_owned(),
                Some(hint.to_owned()),
            );
        }
        expression
    }

    /// A condition, which is true or false.
    fn condition(&mut self, node: &Located<Node>, names: &Names<'_>) -> Expression {
        let expression = self.expression(node, names);
        if expression.constant().is_some_and(|value| !value.is_boolean() && !value.is_null()) {
            let hint = "write an expression, such as `=input.total_amount > 0`";
            self.refuse(
                Code::NotACondition,
                node.at,
                "a condition must be true or false".to_owned(),
                Some(hint.to_owned()),
            );
        }
        expression
    }

    fn expression(&mut self, node: &Located<Node>, names: &Names<'_>) -> Expression {
        match &node.value {
            Node::Scalar(Value::String(text)) => self.text(text, node.at, names),
            Node::Scalar(value) => Expression::literal(value.clone()),
            Node::List(_) | Node::Map(_) => {
                let hint = "a single value, such as `=input.customer_id`";
                self.refuse(
                    Code::NotAnExpression,
                    node.at,
                    "expected an expression".to_owned(),
                    Some(hint.to_owned()),
                );
                Expression::literal(Value::Null)
            }
        }
    }

    fn template_or(&mut self, node: Option<&Located<Node>>, default: &str, names: &Names<'_>) -> Template {
        match node {
            Some(node) => self.template(node, names),
            None => Expression::compile(default).expect("defaults are plain paths").into(),
        }
    }

    fn template(&mut self, node: &Located<Node>, names: &Names<'_>) -> Template {
        match &node.value {
            Node::Scalar(_) => self.expression(node, names).into(),
            Node::List(items) => {
                Template::list(items.iter().map(|item| self.template(item, names)).collect())
            }
            Node::Map(entries) => {
                let field = |(name, value): &(Located<String>, Located<Node>)| {
                    (name.value.clone(), self.template(value, names))
                };
                Template::map(entries.0.iter().map(field).collect())
            }
        }
    }

    fn text(&mut self, text: &str, at: Place, names: &Names<'_>) -> Expression {
        if self.findings.are_enough() {
            return Expression::literal(Value::Null);
        }
        if let Some(hint) = doubt::hint(text) {
            let message = "this text stands for itself, and looks like an expression".to_owned();
            self.doubts.push(Finding { code: Code::LooksLikeExpression, at, message, hint: Some(hint) });
        }
        match Expression::from_text(text) {
            Ok(expression) => {
                for path in expression.references() {
                    if let Err((code, message, hint)) = names.check(path) {
                        self.refuse(code, at, message, hint);
                    }
                }
                for (path, word) in expression.compared() {
                    if let Err((code, message, hint)) = names::check_word(path, word) {
                        self.refuse(code, at, message, hint);
                    }
                }
                expression
            }
            Err(error) => {
                let hint = match self.is_cut(&error, at, text) {
                    true => Some(QUOTE.to_owned()),
                    false => error.hint_in(text),
                };
                let (code, at, message) = (error.code(), within(at, text, &error), error.to_string());
                self.findings.push(Finding { code, at, message, hint });
                Expression::literal(Value::Null)
            }
        }
    }

    /// Whether YAML took a comma for the end of an expression that does not parse.
    fn is_cut(&self, error: &ExpressionError, at: Place, text: &str) -> bool {
        matches!(error, ExpressionError::Syntax { .. })
            && at.width == text.chars().count()
            && line_of(self.source, at.line).chars().nth((at.column + at.width).saturating_sub(1))
                == Some(',')
    }

    fn refuse(&mut self, code: Code, at: Place, message: String, hint: Option<String>) {
        if self.is_strict {
            self.findings.push(Finding { code, at, message, hint });
        }
    }
}

/// Where in a text the error is, if the text is written in one line as it is, with quotes or
/// without; else the whole text.
fn within(at: Place, text: &str, error: &ExpressionError) -> Place {
    let ExpressionError::Syntax { column, .. } = error else { return at };
    let quotes = match at.width.checked_sub(text.chars().count()) {
        Some(0) => 0,
        Some(2) => 1,
        _ => return at,
    };
    match text.get(..*column) {
        Some(before) if !text.contains('\n') => {
            Place { column: at.column + quotes + before.chars().count(), width: 1, ..at }
        }
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::saga::id::Phase;

    const ORDER: &str = include_str!("../../sagas/order.yaml");

    #[test]
    fn the_order_saga_is_compiled_to_a_chain_with_its_defaults() {
        let plan = load("sagas/order.yaml", ORDER).unwrap();
        let requires: Vec<_> = plan.steps.iter().map(|step| step.requires.clone()).collect();
        assert_eq!(requires, [vec![], vec![0], vec![1]]);
        let kinds: Vec<_> = plan.steps.iter().map(|step| step.kind).collect();
        assert_eq!(kinds, [plan::Kind::Compensatable, plan::Kind::Compensatable, plan::Kind::Pivot]);
        let undo = &plan.steps[0].compensation.as_ref().unwrap().retry;
        assert_eq!(
            (undo.attempts, undo.max, undo.jitter),
            (Some(30), Duration::from_secs(900), Jitter::Full)
        );
        assert_eq!(plan.exchanges(), ["inventory", "orders", "payments", "shipping"]);
        assert_eq!(plan.subscriptions().len(), 4);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let source = "\
saga: tiny
version: 1
start: {on: {exchange: a, key: b}, business_key: =event.id}
steps: [{step: s, command: {exchange: c, key: d}, compensate: none}]
on_completed: {emit: {exchange: c, key: e}}
";
        let plan = load("tiny.yaml", source).unwrap();
        let step = &plan.steps[0];
        let action = step.call(Phase::Action).unwrap();
        assert_eq!((action.timeout, step.on_timeout), (DEFAULT_TIMEOUT, plan::OnTimeout::Retry));
        assert_eq!(action.retry, RetryPolicy::once());
        assert_eq!(plan.start.as_ref().unwrap().input.references(), [["event", "data"]]);
        assert_eq!(action.body.references(), [["input"]]);
        assert_eq!(plan.on_completed.unwrap().body.references(), [["input"]]);
    }

    #[test]
    fn what_a_step_keeps_of_its_reply_is_known_where_its_output_is_a_mapping_or_missing() {
        let refused = |output: &str, path: &str| {
            let source = format!(
                "\
saga: tiny
version: 1
start: {{on: {{exchange: a, key: b}}, business_key: =event.id}}
steps:
  - step: s
    command: {{exchange: c, key: d}}
{output}    compensate: {{command: {{exchange: c, key: u, body: =steps.s.{path}}}}}
"
            );
            let problems = load("tiny.yaml", &source).err().unwrap_or_default();
            problems.into_iter().map(|problem| (problem.code, problem.hint.unwrap_or_default())).next()
        };
        let (mapping, whole) = ("    output: {id: =reply.data.id}\n", "    output: =reply.data\n");
        for (output, path) in
            [(mapping, "output.id.x"), (whole, "output.any.x"), ("", "output"), ("", "status")]
        {
            assert_eq!(refused(output, path), None, "{path}");
        }
        for (output, path, hint) in [
            (mapping, "output.ib", "did you mean `id`?"),
            (mapping, "output.amount", "there are id"),
            ("    output: {}\n", "output.id", "there are none"),
            ("", "output.id", "say in its `output` what it keeps, such as `output: =reply.data`"),
        ] {
            assert_eq!(refused(output, path), Some((Code::UnknownPathField, hint.to_owned())), "{path}");
        }
    }

    #[test]
    fn an_expression_that_yaml_ends_at_a_comma_is_told_to_have_quotes() {
        let hint = |from: &str, to: &str| {
            let source = ORDER.replacen(from, to, 1);
            load("order.yaml", &source).unwrap_err()[0].hint.clone().unwrap_or_default()
        };
        assert_eq!(hint("{order_id: =saga.business_key", "{order_id: =string(input.a, b)"), QUOTE);
        assert!(hint("{order_id: =saga.business_key", "{order_id: '=string(input.a'").contains("CEL"));
    }

    #[test]
    fn what_was_accepted_before_is_compiled_though_it_would_be_refused_now() {
        let source = ORDER.replacen("=steps.reserve_stock.output.reservation_id", "=steps.nobody.output", 1);
        assert_ne!(source, ORDER);
        assert_eq!(load("order.yaml", &source).unwrap_err()[0].code, Code::UnknownStep);
        assert_eq!(reload("order.yaml", &source).unwrap().steps.len(), 3);
        let source = source.replacen("=steps.nobody.output", "=steps.", 1);
        assert_eq!(reload("order.yaml", &source).unwrap_err()[0].code, Code::Syntax);
    }

    #[test]
    fn every_problem_is_reported_in_the_order_of_the_file() {
        let source = ORDER
            .replace("saga: order\n", "saga: Order\n")
            .replace("retry: normal", "retry: normaal")
            .replace("=input.total_amount", "=inptu.total_amount");
        let problems = load("order.yaml", &source).unwrap_err();
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert!(problems.is_sorted_by_key(|problem| problem.line));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = load("any.yaml", &String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn no_change_of_a_definition_makes_it_panic(
            changes in proptest::collection::vec((0..ORDER.len(), 0..12_usize, ".{0,6}|[-0=:{}\\[\\]&*\n #]{1,3}"), 1..4),
        ) {
            let mut source = ORDER.to_owned();
            for (at, length, text) in changes {
                let boundary = |at: usize| (0..=at.min(source.len())).rev().find(|at| source.is_char_boundary(*at));
                let (from, to) = (boundary(at).unwrap_or(0), boundary(at + length).unwrap_or(0));
                source.replace_range(from..to, &text);
            }
            if let Err(problems) = load("order.yaml", &source) {
                let text: Vec<_> = problems.iter().map(ToString::to_string).collect();
                prop_assert!(!text.is_empty());
            }
        }
    }
}
