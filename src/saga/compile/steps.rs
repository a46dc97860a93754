//! The steps of a plan, in all their forms.

use std::mem;

use super::messages::users;
use super::*;
use crate::saga::each::INDEX;
use crate::saga::scope::type_name;

impl Compiler<'_> {
    pub(super) fn step(&mut self, node: &graph::Node<'_>, steps: &[KnownStep<'_>]) -> plan::Step {
        let before = Names {
            input: true,
            steps: Some(&node.before),
            all_steps: steps,
            saga: &SAGA_FIELDS[..LASTING_SAGA_FIELDS],
            item: self.item,
            start_input: self.start_input,
            place: "a step",
            ..Names::default()
        };
        // An event may come before its turn, when the steps before it are not done.
        let of_event = Names { event: true, steps: Some(&[]), ..before };
        let by_place = match lint::is_after_pivot(self.nodes, node) {
            true => plan::Kind::Retriable,
            false => plan::Kind::Compensatable,
        };
        let mut output = None;
        let mut compensation = None;
        let mut limit = None;
        let mut from_user = plan::Users::default();
        let mut kind = by_place;
        let mut on_timeout = plan::OnTimeout::Retry;
        let work = match node.form {
            Form::Step(step) => {
                kind = kind_of(node.form);
                on_timeout = on_timeout_of(step);
                output =
                    step.output.as_ref().map(|output| self.template(output, &before.and_reply("`output`")));
                compensation = self.compensation(step, &before, &node.before_and_itself());
                limit = step.limit.as_ref().map(limit_of);
                from_user = users(step.from_user.as_ref());
                plan::Work::Command(self.call(&CallParts::of_step(step), &before))
            }
            Form::Wait(wait) => {
                from_user = users(wait.from_user.as_ref());
                on_timeout = at_timeout_of(wait, by_place);
                output = wait.output.as_ref().map(|output| self.template(output, &of_event.at("`output`")));
                plan::Work::Wait(self.wait(wait, &of_event))
            }
            Form::Delay(delay) => plan::Work::Delay(match (&delay.time, &delay.until) {
                (Some(time), _) => plan::Delay::For(time.value.0),
                (None, Some(until)) => plan::Delay::Until(self.expression(until, &before.at("`until`"))),
                // Refused elsewhere.
                (None, None) => plan::Delay::For(Duration::ZERO),
            }),
            Form::Foreach(each) => {
                kind = kind_of(node.form);
                plan::Work::Each(self.each(each, &before))
            }
            Form::Call(call) => {
                kind = kind_of(node.form);
                let names = before.at("the input of a called saga");
                let input = self.template_or(call.input.as_ref(), "input", &names);
                plan::Work::Saga(plan::SubSaga { saga: call.saga.value.clone(), input })
            }
            Form::Emit(emit) => {
                let extras = self.extras(&emit.event, &before.at("a header of an event"));
                let emission = self.emission(&emit.event, &before.at("the body of an event"));
                plan::Work::Emit(plan::Emission { extras, ..emission })
            }
        };
        plan::Step {
            name: node.form.name().value.clone(),
            kind,
            requires: node.requires.clone(),
            when: node.form.when().map(|when| self.condition(when, &before.at("`when`"))),
            work,
            on_timeout,
            output,
            compensation,
            limit,
            from_user,
        }
    }

    fn compensation(
        &mut self,
        step: &Step,
        before: &Names<'_>,
        its_own_too: &[Range<usize>],
    ) -> Option<plan::Call> {
        let Compensate::By(by) = &step.compensate.as_ref()?.value else { return None };
        let names = Names {
            steps: Some(its_own_too),
            saga: &["id", "name", "version", "business_key", "started_at", "error"],
            place: "a compensation",
            ..*before
        };
        let parts = CallParts {
            command: &by.command,
            replies: &by.replies,
            timeout: by.timeout.as_ref(),
            retry: by.retry.as_ref(),
        };
        Some(self.call(&parts, &names))
    }

    fn each(&mut self, each: &Foreach, names: &Names<'_>) -> plan::Each {
        let count = |bound: &Option<Located<u32>>, default: u32| {
            bound.as_ref().map_or(default, |bound| bound.value).max(1) as usize
        };
        let definition = self.definition.body(each);
        let nodes = graph(&definition.steps);
        let hash = format!("{}.{}", self.hash, each.foreach.value);
        let findings = std::mem::take(&mut self.findings);
        let before = names.steps.into_iter().flatten().cloned().flatten();
        let outside = before.map(|step| names.all_steps[step].name);
        let item = Item {
            input: [each.item_name(), INDEX].into_iter().chain(each.with.names()).collect(),
            outside: names.item.into_iter().flat_map(|item| &item.outside).copied().chain(outside).collect(),
        };
        let mut compiler = Compiler {
            source: self.source,
            definition: &definition,
            nodes: &nodes,
            item: Some(&item),
            start_input: None,
            hash,
            is_strict: self.is_strict,
            findings,
            doubts: mem::take(&mut self.doubts),
        };
        // The time limit of an item is that of the whole.
        let body = Plan { deadline: None, ..compiler.plan() };
        (self.findings, self.doubts) = (compiler.findings, compiler.doubts);
        let with = each.with.0.iter();
        plan::Each {
            items: self.items(&each.items, &names.at("`items`")),
            max_items: count(&each.max_items, DEFAULT_ITEMS),
            name: each.item_name().to_owned(),
            with: with
                .map(|(name, value)| (name.value.clone(), self.template(value, &names.at("`with`"))))
                .collect(),
            max_in_flight: count(&each.max_in_flight, DEFAULT_IN_FLIGHT),
            body: Arc::new(body),
        }
    }

    /// A list.
    fn items(&mut self, node: &Located<Node>, names: &Names<'_>) -> Expression {
        let found = self.findings.0.len();
        let items = self.expression(node, names);
        let is_refused = self.findings.0.len() > found;
        if let Some(value) = items.constant().filter(|value| !value.is_array() && !is_refused) {
            let message = format!("`items` is {}, and never a list", type_name(value));
            let hint = "write an expression that gives one, such as `=input.lines`".to_owned();
            self.refuse(Code::NotAList, node.at, message, Some(hint));
        }
        items
    }

    fn wait(&mut self, wait: &Wait, names: &Names<'_>) -> plan::Wait {
        let only = wait.on.as_ref().map(|on| Awaited {
            on: on.clone(),
            when: None,
            business_key: wait.business_key.clone(),
            outcome: None,
            error: None,
        });
        let events = only.iter().chain(&wait.events).map(|event| self.awaited(event, names));
        plan::Wait { events: events.collect(), timeout: wait.timeout.value.0 }
    }

    fn awaited(&mut self, event: &Awaited, names: &Names<'_>) -> plan::ReplyRule {
        let of_event = Names { event: true, place: "the business key of an event", ..Names::default() };
        plan::ReplyRule {
            on: Some(self.subscription(&event.on)),
            when: event.when.as_ref().map(|when| self.condition(when, &names.at("`events`"))),
            business_key: event.business_key.as_ref().map(|key| self.key(key, &of_event)),
            outcome: match event.outcome {
                Some(Verdict::Failure) => plan::OutcomeKind::Failure,
                Some(Verdict::Success) | None => plan::OutcomeKind::Success,
            },
            error: self.error_code(event.error.as_ref()),
        }
    }

    fn call(&mut self, parts: &CallParts<'_>, names: &Names<'_>) -> plan::Call {
        let (exchange, key) = parts.command.address();
        plan::Call {
            exchange: exchange.into(),
            key: key.into(),
            extras: self.extras(parts.command, &names.at("a header of a command")),
            body: self.template_or(parts.command.body.as_ref(), "input", &names.at("the body of a command")),
            replies: parts.replies.iter().map(|rule| self.rule(rule, names)).collect(),
            timeout: parts.timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.value.0),
            retry: retry_policy(self.definition, parts.retry),
        }
    }

    fn rule(&mut self, rule: &Rule, names: &Names<'_>) -> plan::ReplyRule {
        let of_reply = Names { reply: true, place: "the business key of a reply", ..Names::default() };
        plan::ReplyRule {
            on: rule.on.as_ref().map(|on| self.subscription(on)),
            when: rule.when.as_ref().map(|when| self.condition(when, &names.and_reply("`replies`"))),
            business_key: rule.business_key.as_ref().map(|key| self.key(key, &of_reply)),
            outcome: match rule.outcome {
                definition::Outcome::Success => plan::OutcomeKind::Success,
                definition::Outcome::Failure => plan::OutcomeKind::Failure,
                definition::Outcome::Retry => plan::OutcomeKind::Retry,
                definition::Outcome::Pending => plan::OutcomeKind::Pending,
            },
            error: self.error_code(rule.error.as_ref()),
        }
    }
}

/// The common part of a step and a compensation.
struct CallParts<'a> {
    command: &'a definition::Command,
    replies: &'a [Rule],
    timeout: Option<&'a Located<definition::Period>>,
    retry: Option<&'a Located<Retry>>,
}

impl<'a> CallParts<'a> {
    fn of_step(step: &'a Step) -> Self {
        Self {
            command: &step.command,
            replies: &step.replies,
            timeout: step.timeout.as_ref(),
            retry: step.retry.as_ref(),
        }
    }
}

fn kind_of(form: Form<'_>) -> plan::Kind {
    match form.kind() {
        Some((definition::Kind::Compensatable, _)) | None => plan::Kind::Compensatable,
        Some((definition::Kind::Pivot, _)) => plan::Kind::Pivot,
        Some((definition::Kind::Retriable, _)) => plan::Kind::Retriable,
    }
}

fn limit_of(limit: &Located<definition::Limit>) -> plan::Limit {
    plan::Limit {
        in_flight: limit.in_flight.as_ref().map(|count| count.value),
        per_second: limit.per_second.as_ref().map(|rate| rate.value),
    }
}

fn on_timeout_of(step: &Step) -> plan::OnTimeout {
    match step.on_timeout.as_ref().map(|on_timeout| on_timeout.value) {
        Some(definition::OnTimeout::Retry) | None => plan::OnTimeout::Retry,
        Some(definition::OnTimeout::Compensate) => plan::OnTimeout::Compensate,
        Some(definition::OnTimeout::Park) => plan::OnTimeout::Park,
    }
}

fn at_timeout_of(wait: &Wait, kind: plan::Kind) -> plan::OnTimeout {
    match wait.on_timeout.as_ref().map(|on_timeout| on_timeout.value) {
        Some(definition::AtTimeout::Continue) => plan::OnTimeout::Continue,
        Some(definition::AtTimeout::Compensate) => plan::OnTimeout::Compensate,
        Some(definition::AtTimeout::Park) => plan::OnTimeout::Park,
        None if kind == plan::Kind::Compensatable => plan::OnTimeout::Compensate,
        None => plan::OnTimeout::Park,
    }
}

/// What a definition says of a step, for expressions that refer to it.
pub(super) fn known(form: Form<'_>) -> KnownStep<'_> {
    let output = match form {
        Form::Step(step) => kept(step.output.as_ref()),
        Form::Wait(wait) => kept(wait.output.as_ref()),
        Form::Delay(_) | Form::Emit(_) => KnownOutput::Nothing,
        Form::Foreach(_) => KnownOutput::List,
        Form::Call(_) => KnownOutput::Any,
    };
    KnownStep { name: form.name().value.as_str(), output }
}

fn kept(output: Option<&Located<Node>>) -> KnownOutput<'_> {
    let fields = match output.map(|output| &output.value) {
        None | Some(Node::Scalar(Value::Null)) => return KnownOutput::Nothing,
        Some(Node::Map(fields)) => fields,
        Some(_) => return KnownOutput::Any,
    };
    KnownOutput::Fields(fields.0.iter().map(|(name, _)| name.value.as_str()).collect())
}
