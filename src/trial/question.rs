//! Questions: every expression of a definition, with the places of messages that its value hangs on.

use std::collections::HashSet;

use serde_json::Value;

use super::draft::{Draft, Place, Role, key, rule};
use super::path::{Target, own_targets};
use crate::definitions::Loaded;
use crate::saga::expression::{Expression, Template};
use crate::saga::id::Phase;
use crate::saga::plan::{Delay, Each, OutcomeKind, Plan, Step, SubSaga, Work};

/// A time a minute after every play begins: before most deadlines.
const SOME_TIME: &str = "2026-01-01T00:01:00Z";

/// Something that made-up messages must make work.
pub(super) struct Question<'a> {
    /// What it is, for people.
    pub(super) what: String,
    pub(super) asks: Asks<'a>,
    /// Where its value comes from.
    pub(super) places: Vec<Place>,
    /// What it compares with.
    pub(super) constants: Vec<Value>,
}

/// An item of a step, as its own steps need it, and what is kept of it.
pub(super) struct MadeUp {
    pub(super) step: usize,
    pub(super) item: Value,
    pub(super) output: Value,
}

/// What is evaluated.
#[derive(Clone, Copy)]
pub(super) enum Asks<'a> {
    /// The business key that a draft names: of all but the first, the one of the first.
    Key(&'a Expression, usize),
    /// Either true or false.
    Condition(&'a Expression),
    /// A time.
    Time(&'a Expression),
    /// Something that a called saga makes of the input that it is given.
    Called(&'a SubSaga, &'a Expression),
    /// A list with at least one item.
    Items(&'a Each),
    /// Something that an item's instance makes of the input that it is given.
    Item(&'a Each, &'a Expression),
    /// What is kept of the start event.
    Input(&'a Template),
    /// The body of a command.
    Body(&'a Template),
    /// The body of an event that tells an end.
    Notice(&'a Template),
    /// A reply, which must be read as what it is meant to be.
    Reply(usize),
}

/// All questions of a plan, and of what the sagas need that it calls. Of an instance that is called itself,
/// input and business key are no question.
pub(super) fn questions<'a>(
    plan: &'a Plan,
    drafts: &[Draft],
    others: &'a [Loaded],
    items: &[MadeUp],
    is_called: bool,
) -> Vec<Question<'a>> {
    let mut all = Collection { plan, drafts, is_called, questions: Vec::new() };
    if let (Some(start), false) = (&plan.start, is_called) {
        all.add("business_key of the start", Asks::Key(&start.business_key, 0), Some(0));
        all.add("input of the start", Asks::Input(&start.input), Some(0));
    }
    for (index, step) in plan.steps.iter().enumerate() {
        if let Some(when) = &step.when {
            all.add(&format!("`when` of step {}", step.name), Asks::Condition(when), None);
        }
        for phase in Phase::BOTH {
            let name = Target { member: 0, step: index, phase }.name(plan);
            match (step.call(phase), phase, &step.work) {
                (Some(call), ..) => {
                    all.add(&format!("body of the command {name}"), Asks::Body(&call.body), None)
                }
                (None, Phase::Action, Work::Emit(event)) => {
                    all.add(&format!("body of the event {name}"), Asks::Body(&event.body), None);
                }
                (None, Phase::Action, Work::Delay(Delay::Until(until))) => {
                    all.add(&format!("`until` of {name}"), Asks::Time(until), None);
                }
                (None, Phase::Action, Work::Saga(called)) => {
                    all.add(&format!("input of {name}"), Asks::Body(&called.input), None);
                    all.add_called(&name, called, others);
                }
                (None, Phase::Action, Work::Each(each)) => all.add_items(index, &name, each, items),
                _ => {}
            }
        }
    }
    for target in own_targets(plan) {
        all.add_replies(target);
    }
    for (what, emission) in [
        ("on_completed", &plan.on_completed),
        ("on_compensated", &plan.on_compensated),
        ("on_parked", &plan.on_parked),
        ("on_cancel_refused", &plan.on_cancel_refused),
    ] {
        if let Some(emission) = emission {
            all.add(&format!("body of {what}"), Asks::Notice(&emission.body), None);
        }
    }
    if let (Some(cancel), Some(draft), false) =
        (&plan.cancel, drafts.iter().position(|draft| draft.role == Role::Cancel), is_called)
    {
        all.add("business_key of the cancellation", Asks::Key(&cancel.business_key, draft), Some(draft));
    }
    all.questions
}

struct Collection<'a, 'd> {
    plan: &'a Plan,
    drafts: &'d [Draft],
    is_called: bool,
    questions: Vec<Question<'a>>,
}

impl<'a> Collection<'a, '_> {
    /// Adds a question whose `event` or `reply` is this draft.
    fn add(&mut self, what: &str, asks: Asks<'a>, draft: Option<usize>) {
        let expressions = match asks {
            Asks::Key(expression, _) | Asks::Condition(expression) | Asks::Time(expression) => {
                vec![expression]
            }
            Asks::Input(template) | Asks::Body(template) | Asks::Notice(template) => expressions(template),
            Asks::Items(each) => vec![&each.items],
            Asks::Reply(_) | Asks::Called(..) | Asks::Item(..) => Vec::new(),
        };
        self.add_with(what, asks, draft, &expressions);
    }

    /// What a called saga makes of its input alone.
    fn add_called(&mut self, name: &str, called: &'a SubSaga, others: &'a [Loaded]) {
        let Some(of) = others.iter().find(|other| other.plan.saga == called.saga) else { return };
        for expression in of_input(&of.plan) {
            let what = format!("{expression} of saga {}, which {name} calls", called.saga);
            self.add_with(&what, Asks::Called(called, expression), None, &[expression]);
        }
    }

    /// The items of a step, and what their instances make of their input alone.
    fn add_items(&mut self, step: usize, name: &str, each: &'a Each, items: &[MadeUp]) {
        self.add(&format!("`items` of {name}"), Asks::Items(each), None);
        let made_up = items.iter().filter(|item| item.step == step);
        // Two, so that it shows what becomes of one when the other one fails.
        let lists = made_up.map(|MadeUp { item, .. }| Value::from(vec![item.clone(), item.clone()]));
        if let Some(question) = self.questions.last_mut() {
            question.constants.extend(lists);
        }
        for expression in of_input(&each.body) {
            let what = format!("{expression} for each item of {name}");
            self.add_with(&what, Asks::Item(each, expression), None, &[expression]);
        }
    }

    fn add_with(&mut self, what: &str, asks: Asks<'a>, draft: Option<usize>, expressions: &[&Expression]) {
        let Self { plan, drafts, is_called, .. } = *self;
        let mut trail = Trail { plan, drafts, is_called, followed: HashSet::new(), found: Vec::new() };
        let references = expressions.iter().flat_map(|expression| expression.references());
        references.for_each(|path| match asks {
            Asks::Called(called, _) => trail.go_through(&called.input, &path[1..], 0),
            Asks::Item(each, _) => {
                let with = path.get(1).and_then(|name| each.with.iter().find(|(field, _)| field == name));
                with.into_iter().for_each(|(_, field)| trail.go_through(field, &path[2..], 0));
            }
            _ => trail.follow(path, draft),
        });
        let mut places = trail.found;
        places.sort();
        places.dedup();
        let mut constants: Vec<_> =
            expressions.iter().flat_map(|expression| constants(&expression.to_string())).collect();
        if let Asks::Time(_) = asks {
            constants.push(Value::from(SOME_TIME));
        }
        self.questions.push(Question { what: what.to_owned(), asks, places, constants });
    }

    /// How the replies to a command are read.
    fn add_replies(&mut self, target: Target) {
        let plan = self.plan;
        for (draft, Draft { role, .. }) in self.drafts.iter().enumerate() {
            let Role::Reply(of, kind) = *role else { continue };
            if of != target {
                continue;
            }
            let what = format!("{} of {}", outcome(kind), target.name(plan));
            let rules = plan.steps[target.step].rules(target.phase);
            let by_rule = rule(plan, target, kind);
            let mut read: Vec<_> = match by_rule {
                Some(_) => rules.iter().filter_map(|rule| rule.when.as_ref()).collect(),
                None => Vec::new(),
            };
            let output = plan.steps[target.step].output.as_ref();
            if (target.phase, kind) == (Phase::Action, OutcomeKind::Success) {
                read.extend(output.map(expressions).unwrap_or_default());
            }
            self.add_with(&what, Asks::Reply(draft), Some(draft), &read);
            if let Some(key) = by_rule.filter(|rule| rule.on.is_some()).and_then(|rule| key(plan, rule)) {
                self.add(&format!("business_key of {what}"), Asks::Key(key, draft), Some(draft));
            }
        }
    }
}

/// Follows paths to the places of drafts that they lead to.
struct Trail<'a> {
    plan: &'a Plan,
    drafts: &'a [Draft],
    is_called: bool,
    /// Paths that were followed, each with the draft that is its `event` or `reply`.
    followed: HashSet<(Vec<String>, Option<usize>)>,
    found: Vec<Place>,
}

impl Trail<'_> {
    /// Follows a path: straight, by way of the input, or by way of a step's output.
    fn follow(&mut self, path: &[String], draft: Option<usize>) {
        let Some((root, below)) = path.split_first() else { return };
        if !self.followed.insert((path.to_vec(), draft)) {
            return;
        }
        let (plan, drafts) = (self.plan, self.drafts);
        match (root.as_str(), below) {
            ("event" | "reply", _) => self.found.extend(draft.map(|draft| (draft, below.to_vec()))),
            ("input", _) if !self.is_called => match &plan.start {
                Some(start) => self.go_through(&start.input, below, 0),
                None => self.found.push((0, [&["data".to_owned()], below].concat())),
            },
            ("steps", [name, output, below @ ..]) if output == "output" => {
                let is_reply = |draft: &Draft| match draft.role {
                    Role::Reply(Target { step, phase: Phase::Action, .. }, OutcomeKind::Success) => {
                        plan.steps[step].name == *name
                    }
                    _ => false,
                };
                let output = plan.steps.iter().find(|step| step.name == *name);
                let output = output.and_then(|step| step.output.as_ref());
                if let (Some(output), Some(draft)) = (output, drafts.iter().position(is_reply)) {
                    self.go_through(output, below, draft);
                }
            }
            _ => {}
        }
    }

    /// Follows a path into the value of a template.
    fn go_through(&mut self, template: &Template, path: &[String], draft: usize) {
        match (template, path.split_first()) {
            (Template::Expression(expression), _) => {
                let is_path = expression.path().is_some();
                for reference in expression.references() {
                    let further = path.iter().filter(|_| is_path);
                    let path: Vec<_> = reference.iter().chain(further).cloned().collect();
                    self.follow(&path, Some(draft));
                }
            }
            (Template::Map(fields), Some((name, below))) => {
                if let Some((_, field)) = fields.iter().find(|(field, _)| field == name) {
                    self.go_through(field, below, draft);
                }
            }
            (Template::Map(fields), None) => {
                fields.iter().for_each(|(_, field)| self.go_through(field, &[], draft));
            }
            (Template::List(items), _) => {
                items.iter().for_each(|item| self.go_through(item, &[], draft));
            }
            (Template::Literal(_), _) => {}
        }
    }
}

/// Those that are made of the input alone.
fn of_input(plan: &Plan) -> impl Iterator<Item = &Expression> {
    every_expression(plan).into_iter().filter(|expression| {
        let references = expression.references();
        !references.is_empty() && references.iter().all(|path| path[0] == "input")
    })
}

/// Conditions and bodies of a plan, without what is read from events and replies.
fn every_expression(plan: &Plan) -> Vec<&Expression> {
    let of_step = |step| {
        let Step { when, work, compensation, .. }: &Step = step;
        let work = match work {
            Work::Command(call) => expressions(&call.body),
            Work::Emit(event) => expressions(&event.body),
            Work::Delay(Delay::Until(until)) => vec![until],
            Work::Saga(called) => expressions(&called.input),
            Work::Each(each) => {
                let with = each.with.iter().flat_map(|(_, field)| expressions(field));
                [&each.items].into_iter().chain(with).collect()
            }
            Work::Delay(Delay::For(_)) | Work::Wait(_) => Vec::new(),
        };
        let undo = compensation.as_ref().map(|call| expressions(&call.body)).unwrap_or_default();
        when.iter().chain(work).chain(undo).collect::<Vec<_>>()
    };
    plan.steps.iter().flat_map(of_step).collect()
}

/// The expressions in a template.
fn expressions(template: &Template) -> Vec<&Expression> {
    match template {
        Template::Literal(_) => Vec::new(),
        Template::Expression(expression) => vec![expression],
        Template::Map(fields) => fields.iter().flat_map(|(_, field)| expressions(field)).collect(),
        Template::List(items) => items.iter().flat_map(expressions).collect(),
    }
}

/// The texts and numbers that stand in an expression; of a number also the next one and the one before.
fn constants(source: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '\'' || c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let first = from.chars().next().unwrap_or(' ');
        if first.is_ascii_digit() {
            let end = from.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(from.len());
            let is_name = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
            found.extend(Some(&from[..end]).filter(|_| !is_name).into_iter().flat_map(around));
            rest = &from[end..];
        } else {
            let Some((text, after)) = from[1..].split_once(first) else { break };
            found.push(Value::from(text));
            rest = after;
        }
    }
    found
}

/// A number, the next one and the one before; of a decimal, decimals.
fn around(number: &str) -> Vec<Value> {
    if let Ok(number) = number.parse::<i64>() {
        return [number, number.saturating_add(1), number.saturating_sub(1)].map(Value::from).to_vec();
    }
    let decimal = number.parse::<f64>();
    decimal
        .map_or_else(|_| Vec::new(), |number| [number, number + 1.0, number - 1.0].map(Value::from).to_vec())
}

fn outcome(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Success => "successful reply",
        OutcomeKind::Failure => "refusing reply",
        OutcomeKind::Retry => "reply that asks for another attempt",
        OutcomeKind::Pending => "pending reply",
    }
}
