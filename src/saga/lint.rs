//! What a definition must hold beyond its form. Every refusal names its place and, where there is
//! one, the remedy.
//!
//! Which names an expression may use is checked by [`names`](super::names), where it is compiled.

mod forms;
mod messages;
mod rules;
mod time;

use std::collections::BTreeMap;

use super::code::Code;
use super::definition::{
    self, Block, Command, Compensate, Definition, Ending, Form, Kind, Located, OnTimeout, Outcome, Parallel,
    Period, Place, Retry, Rule, Sequence, Step,
};
use super::graph::Node;
use super::plan::Subscription;
use super::problem::{Finding, Findings, MAX_NAME, closest};

/// Longest name of an exchange and longest routing key, in bytes: the limit of AMQP.
const MAX_SHORT_STRING: usize = 255;
/// Most attributes of a saga: each is kept in memory with each instance.
const MAX_ATTRIBUTES: usize = 32;
/// Most words of own keys times words of patterns: to compare two takes as long as one is times the other.
const MAX_COMPARED: usize = 10_000_000;

/// Most pairs of steps of which one directly requires the other: every end of a parallel block is
/// required by every beginning of the next.
const MAX_JOINTS: usize = 100_000;

/// Everything that is wrong, in no particular order. `nodes` are the definition's steps.
pub(super) fn lint(definition: &Definition, nodes: &[Node<'_>]) -> Findings {
    let mut lint = Lint { definition, nodes, findings: Findings::default() };
    lint.saga();
    if definition.steps.is_empty() {
        lint.refuse(Code::NoSteps, definition.steps.at, "a saga needs at least one step", None);
    }
    lint.steps();
    lint.findings
}

/// The same of the body of a step that is done for each item of a list.
fn lint_body(definition: &Definition, nodes: &[Node<'_>]) -> Findings {
    let mut lint = Lint { definition, nodes, findings: Findings::default() };
    lint.steps();
    lint.findings
}

struct Lint<'a> {
    definition: &'a Definition,
    nodes: &'a [Node<'a>],
    findings: Findings,
}

impl<'a> Lint<'a> {
    fn steps(&mut self) {
        let definition = self.definition;
        self.blocks(&definition.steps, &mut BTreeMap::new());
        self.nodes.iter().for_each(|node| self.form(node));
        self.joints();
        self.order_of_kinds();
        self.own_messages();
    }

    fn saga(&mut self) {
        let definition = self.definition;
        self.name("saga", &definition.saga);
        if definition.version.value == 0 {
            self.refuse(Code::VersionZero, definition.version.at, "versions count from 1", None);
        }
        for (name, _) in &definition.attributes.0 {
            self.name("attribute", name);
        }
        if let Some((name, _)) = definition.attributes.0.get(MAX_ATTRIBUTES) {
            let message = format!("more than {MAX_ATTRIBUTES} attributes");
            self.refuse(
                Code::TooLarge,
                name.at,
                message,
                Some("keep those by which instances are looked for"),
            );
        }
        for (name, policy) in &definition.retry.0 {
            self.name("retry policy", name);
            self.policy(policy);
        }
        self.exchanges();
        if let Some(deadline) = &definition.deadline {
            self.not_zero(&deadline.after);
        }
        if let Some(start) = &definition.start {
            self.subscription(&start.on);
            self.users(start.from_user.as_ref());
        }
        if let Some(cancel) = &definition.cancel {
            self.subscription(&cancel.on);
            self.users(cancel.from_user.as_ref());
        }
        for ending in self.endings() {
            self.command(&ending.emit);
        }
    }

    /// Blocks within blocks. `seen` says what each name stands for.
    fn blocks(&mut self, blocks: &'a [Block], seen: &mut BTreeMap<&'a str, &'static str>) {
        for block in blocks {
            match block {
                Block::Step(step) => self.unique("step", &step.step, seen),
                Block::Wait(wait) => self.unique("step", &wait.wait, seen),
                Block::Delay(delay) => self.unique("step", &delay.delay, seen),
                Block::Emit(emit) => self.unique("step", &emit.emit, seen),
                Block::Call(call) => self.unique("step", &call.call, seen),
                Block::Foreach(each) => self.unique("step", &each.foreach, seen),
                Block::Parallel(Parallel { parallel: name, steps, .. })
                | Block::Sequence(Sequence { sequence: name, steps }) => {
                    self.unique("block", name, seen);
                    if steps.is_empty() {
                        let message = format!("block {:?} has no steps", name.value);
                        let hint = "give it steps, or leave it out";
                        self.refuse(Code::EmptyBlock, steps.at, message, Some(hint));
                    }
                    self.blocks(steps, seen);
                }
            }
        }
    }

    /// The name of a step or a block, which stands for one thing only.
    fn unique(
        &mut self,
        what: &'static str,
        name: &'a Located<String>,
        seen: &mut BTreeMap<&'a str, &'static str>,
    ) {
        self.name(what, name);
        if let Some(other) = seen.insert(name, what) {
            let message = format!("there is another {other} {:?}", name.value);
            let hint = format!("the name of a {what} is unique in its saga");
            self.refuse(Code::RepeatedStep, name.at, message, Some(&hint));
        }
    }

    fn joints(&mut self) {
        let joints: usize = self.nodes.iter().map(|node| node.requires.len()).sum();
        if joints > MAX_JOINTS {
            let message = "there are too many branches that wait for too many branches";
            let hint = "put a step between the parallel blocks";
            self.refuse(Code::TooLarge, self.definition.steps.at, message, Some(hint));
        }
    }

    fn form(&mut self, node: &Node<'a>) {
        match node.form {
            Form::Step(step) => self.step(step),
            Form::Wait(wait) => self.wait(wait, self.is_after_pivot(node)),
            Form::Delay(delay) => self.delay(delay, self.is_after_pivot(node)),
            Form::Emit(emit) => self.command(&emit.event),
            Form::Call(call) => self.called(call),
            Form::Foreach(each) => self.each(each),
        }
    }

    fn step(&mut self, step: &'a Step) {
        self.call(&step.command, &step.replies, step.timeout.as_ref(), step.retry.as_ref());
        if kind_of(step) != Kind::Retriable {
            self.budget(step);
        }
        if let Some(limit) = &step.limit {
            self.limit(limit);
        }
        self.users(step.from_user.as_ref());
        if let Some(compensate) = &step.compensate
            && let Compensate::By(by) = &compensate.value
        {
            self.call(&by.command, &by.replies, by.timeout.as_ref(), by.retry.as_ref());
        }
    }

    fn call(
        &mut self,
        command: &Located<Command>,
        replies: &[Rule],
        timeout: Option<&Located<Period>>,
        retry: Option<&'a Located<Retry>>,
    ) {
        self.command(command);
        self.each_reply_can_match(replies, command.at);
        if let Some(timeout) = timeout {
            self.not_zero(timeout);
        }
        for rule in replies {
            if let Some(on) = &rule.on {
                self.subscription(on);
                self.finds_instance(on, rule.business_key.is_some());
            }
            if let (Outcome::Success, Some(error)) = (rule.outcome, &rule.error) {
                self.refuse(Code::ErrorOfSuccess, error.at, "a success has no error code", None);
            }
        }
        match retry.map(|retry| (retry.at, &retry.value)) {
            Some((_, Retry::Inline(policy))) => self.policy(policy),
            Some((at, Retry::Named(name))) if self.definition.retry.find(name).is_none() => {
                let hint = match closest(name, self.definition.retry.names()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "the policies are listed under `retry:` at the top level".to_owned(),
                };
                self.refuse(Code::UnknownPolicy, at, format!("unknown retry policy {name:?}"), Some(&hint));
            }
            _ => {}
        }
    }

    /// An event finds its instance by a key of its own, else by that of the start.
    fn finds_instance(&mut self, on: &Located<definition::Subscription>, has_key: bool) {
        if !has_key && self.definition.start.is_none() {
            let message = "no business key says which instance this event is for";
            let hint = "add a `business_key`: nothing starts this by an event, whose key could serve";
            self.refuse(Code::NoKey, on.at, message, Some(hint));
        }
    }

    /// Where steps stand relative to the pivot, and what follows from it.
    fn order_of_kinds(&mut self) {
        for node in self.nodes {
            let Some((kind, said)) = node.form.kind() else { continue };
            let at = said.map_or(node.form.name().at, |kind| kind.at);
            let name = &node.form.name().value;
            let after_pivot = self.is_after_pivot(node);
            match (kind, after_pivot) {
                (Kind::Pivot, true) => self.refuse(
                    Code::SecondPivot,
                    at,
                    format!("step {name:?} is a second pivot"),
                    Some("after the first pivot there is no way back; say `kind: retriable`"),
                ),
                (Kind::Pivot, false) if node.is_in_branch() => self.refuse(
                    Code::PivotInParallel,
                    at,
                    format!("step {name:?} is a pivot in a parallel block"),
                    Some("other branches could fail after it and not be undone; put it after the block"),
                ),
                (Kind::Compensatable, true) => self.refuse(
                    Code::NoWayBack,
                    at,
                    format!("step {name:?} comes after the pivot and cannot be undone"),
                    Some("say `kind: retriable`, or move the step before the pivot"),
                ),
                (Kind::Retriable, false) => self.refuse(
                    Code::NoPivotBefore,
                    at,
                    format!("step {name:?} is retriable but comes before any pivot"),
                    Some("only steps after a pivot are retriable"),
                ),
                _ => {}
            }
            if let Form::Step(step) = node.form {
                self.way_back(step, after_pivot);
            }
        }
    }

    /// Whether a step is beyond the point of no return.
    fn is_after_pivot(&self, node: &Node<'_>) -> bool {
        is_after_pivot(self.nodes, node)
    }

    fn way_back(&mut self, step: &Step, after_pivot: bool) {
        let name = &step.step.value;
        if kind_of(step) == Kind::Compensatable {
            if step.compensate.is_none() && !after_pivot {
                let hint =
                    "say `compensate:` with a command, or `compensate: none` where nothing has to be undone";
                self.refuse(
                    Code::NoCompensation,
                    step.step.at,
                    format!("step {name:?} does not say how it is undone"),
                    Some(hint),
                );
            }
            return;
        }
        // That it is no retriable step at all is told by itself.
        if kind_of(step) == Kind::Retriable && !after_pivot {
            return;
        }
        if let Some(compensate) = &step.compensate {
            let message = format!("step {name:?} is the pivot or comes after it, it is never undone");
            self.refuse(Code::NeverUndone, compensate.at, message, Some("leave out `compensate`"));
        }
        if let Some(on_timeout) = &step.on_timeout
            && on_timeout.value == OnTimeout::Compensate
        {
            let message =
                format!("step {name:?} may have taken effect, so there is no way back from its timeout");
            self.refuse(
                Code::NoWayBackFromTimeout,
                on_timeout.at,
                message,
                Some("say `on_timeout: retry` or `on_timeout: park`"),
            );
        }
    }

    /// A saga must not take what it publishes itself for a start, a cancellation or an answer.
    fn own_messages(&mut self) {
        let definition = self.definition;
        let mut own: Vec<&Command> = Vec::new();
        let mut listens: Vec<_> = definition.start.iter().map(|start| ("starts on", &start.on)).collect();
        listens.extend(definition.cancel.as_ref().map(|cancel| ("is cancelled by", &cancel.on)));
        for Node { form, .. } in self.nodes {
            let step = match *form {
                Form::Step(step) => step,
                Form::Emit(emit) => {
                    own.push(&emit.event);
                    continue;
                }
                Form::Wait(wait) => {
                    let on = wait.on.iter().chain(wait.events.iter().map(|event| &event.on));
                    listens.extend(on.map(|on| ("waits for", on)));
                    continue;
                }
                Form::Delay(_) | Form::Call(_) | Form::Foreach(_) => continue,
            };
            own.push(&step.command);
            let mut rules: Vec<&Rule> = step.replies.iter().collect();
            if let Some(Compensate::By(by)) = step.compensate.as_ref().map(|compensate| &compensate.value) {
                own.push(&by.command);
                rules.extend(&by.replies);
            }
            listens.extend(
                rules.into_iter().filter_map(|rule| Some(("takes for an answer", rule.on.as_ref()?))),
            );
        }
        own.extend(self.endings().map(|ending| &*ending.emit));
        let words = |key: &str| 1 + key.matches('.').count();
        let of_own: usize = own.iter().map(|own| words(own.address().1)).sum();
        let of_patterns: usize =
            listens.iter().map(|(_, on)| on.key.as_ref().map_or(1, |key| words(key))).sum();
        if of_own.saturating_mul(of_patterns) > MAX_COMPARED {
            let message = "there are too many patterns and keys to hold each against each";
            let hint = "shorten them, or move steps into sagas of their own";
            return self.refuse(Code::TooLarge, definition.steps.at, message, Some(hint));
        }
        for (how, on) in listens {
            if let Some(own) = own.iter().find(|own| self.hears(on, own)) {
                let (exchange, key) = own.address();
                let message =
                    format!("the saga {how} what it publishes itself: {key:?} on exchange {exchange:?}");
                self.refuse(
                    Code::OwnMessage,
                    on.at,
                    message,
                    Some("narrow the pattern, or publish with another key"),
                );
            }
        }
    }

    fn endings(&self) -> impl Iterator<Item = &'a Ending> + use<'a> {
        let definition = self.definition;
        let endings = [
            &definition.on_completed,
            &definition.on_compensated,
            &definition.on_parked,
            &definition.on_cancel_refused,
        ];
        endings.into_iter().flatten()
    }

    fn short_string(&mut self, what: &str, text: &Located<String>) {
        if text.is_empty() {
            self.refuse(Code::InvalidAddress, text.at, format!("the {what} is empty"), None);
        } else if text.len() > MAX_SHORT_STRING {
            self.refuse(
                Code::InvalidAddress,
                text.at,
                format!("the {what} is over {MAX_SHORT_STRING} bytes"),
                None,
            );
        } else if text.starts_with('=') {
            let hint = "topology is known before any message comes; put what varies into the body";
            self.refuse(
                Code::ComputedAddress,
                text.at,
                format!("the {what} cannot be an expression"),
                Some(hint),
            );
        } else {
            self.visible(what, text);
        }
    }

    fn name(&mut self, what: &str, name: &Located<String>) {
        let snake = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !snake {
            let hint = "a to z, 0 to 9 and _, beginning with a letter";
            self.refuse(
                Code::InvalidName,
                name.at,
                format!("name of {what} {:?} is not snake_case", name.value),
                Some(hint),
            );
        } else if name.len() > MAX_NAME {
            self.refuse(
                Code::InvalidName,
                name.at,
                format!("name of {what} is over {MAX_NAME} characters"),
                None,
            );
        }
    }

    fn refuse(&mut self, code: Code, at: Place, message: impl Into<String>, hint: Option<&str>) {
        self.findings.push(Finding { code, at, message: message.into(), hint: hint.map(str::to_owned) });
    }
}

/// Whether a step of a graph is beyond the point of no return.
pub(super) fn is_after_pivot(nodes: &[Node<'_>], node: &Node<'_>) -> bool {
    let is_pivot = |of: &Node<'_>| matches!(of.form.kind(), Some((Kind::Pivot, _)));
    nodes.iter().enumerate().any(|(index, of)| is_pivot(of) && node.is_after(index))
}

fn kind_of(step: &Step) -> Kind {
    step.kind.as_ref().map_or(Kind::Compensatable, |kind| kind.value)
}

#[cfg(test)]
mod tests;
