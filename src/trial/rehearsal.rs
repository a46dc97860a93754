//! Rehearsals: a scenario is played, and what came is held against what was expected.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::callee::{Callee, callees};
use super::comparison::{Difference, differences};
use super::draft::{Given, raw, some_key};
use super::explore::wrong;
use super::form::Short;
use super::path::{Target, targets};
use super::sample::Sample;
use super::scenario::{Address, Event, Further, Replies, Reply, Scenario, ScenarioFile, Scenarios, Word};
use super::script::{Act, Answer, Cue, Script, USUAL, When};
use super::stage::{self, Opening};
use super::time_line::TimeLine;
use crate::checker::evidence::Placing;
use crate::definitions::Loaded;
use crate::delivery::understand;
use crate::saga::expression::{Expression, Scope};
use crate::saga::id::Phase;
use crate::saga::message::Message;
use crate::saga::plan::{OutcomeKind, Plan, ReplyRule, Subscription};
use crate::simulate::ProcessError;

/// A scenario that was played.
#[derive(Clone, Debug, Serialize)]
pub struct Rehearsed {
    /// The file that it stands in.
    pub file: String,
    /// The line.
    pub line: usize,
    /// What it shows.
    pub scenario: String,
    /// What was expected and did not come.
    pub differences: Vec<Difference>,
    /// What did not hold, whatever was expected.
    pub wrong: Vec<String>,
    /// What happened.
    pub time_line: TimeLine,
}

impl Rehearsed {
    /// Whether everything came as expected.
    pub fn passed(&self) -> bool {
        self.differences.is_empty() && self.wrong.is_empty()
    }
}

/// What a file gives for the paths of its definition.
pub(super) fn given(plan: &Plan, file: &ScenarioFile) -> Given {
    let Scenarios { start, replies, scenarios, .. } = &file.scenarios;
    let start = start.as_ref().or_else(|| scenarios.iter().find_map(|scenario| scenario.start.as_ref()));
    let data = |target: Target| {
        let Replies(attempts) = replies.find(&plan.steps[target.step].name)?;
        let answers =
            |reply: &&Reply| matches!(reply.outcome, None | Some(Word::Success)) && !reply.data.is_null();
        Some((target, attempts.iter().find(answers)?.data.clone()))
    };
    let actions = targets(plan).into_iter().filter(|target| target.phase == Phase::Action);
    Given {
        start: start.map(message).unwrap_or_default(),
        replies: actions.filter_map(data).collect(),
        called: None,
    }
}

/// Plays a scenario of a file.
///
/// # Errors
/// The engine or the store cannot go on: a bug.
pub(super) fn rehearse(
    loaded: &Loaded,
    others: &[Loaded],
    file: &ScenarioFile,
    scenario: &Scenario,
) -> Result<Rehearsed, ProcessError> {
    let plan = &loaded.plan;
    let start = scenario.start.as_ref().or(file.scenarios.start.as_ref()).map(message).unwrap_or_default();
    let sample = Sample::new(plan, &Given { start, ..Given::default() }, others);
    let callees = callees(plan, &sample, others);
    let script = script(plan, &sample, &callees, file, scenario);
    let Sample { business_key, start, .. } = &sample;
    let mut played = stage::play(Opening { loaded, others, business_key, event: start }, &script, true)?;
    // The ledgers of participants that follow a script prove nothing.
    played.evidence.entries.clear();
    played.evidence.replayed_at = None;
    let mut wrong = wrong(&played);
    if played.ended.is_none() {
        wrong.extend(sample.gaps);
    }
    Ok(Rehearsed {
        file: file.file.clone(),
        line: scenario.scenario.at.line,
        scenario: scenario.scenario.value.clone(),
        differences: differences(plan, scenario, &played),
        wrong,
        time_line: played.time_line,
    })
}

fn message(event: &Event) -> Message {
    let Event { exchange, key, id, kind, data, metadata, headers } = event.clone();
    Message {
        id,
        kind,
        data,
        metadata,
        headers,
        exchange: exchange.unwrap_or_default(),
        key: key.unwrap_or_default(),
        ..Message::default()
    }
}

/// What everybody does in a scenario: what it says, else what its file says, else all goes well.
fn script(
    plan: &Plan,
    sample: &Sample,
    callees: &[Callee],
    file: &ScenarioFile,
    scenario: &Scenario,
) -> Script {
    let said = |target: Target| {
        let name = &plan.steps[target.step].name;
        let entries = match target.phase {
            Phase::Action => [&scenario.replies, &file.scenarios.replies],
            Phase::Compensation => [&scenario.compensations, &file.scenarios.compensations],
        };
        entries.into_iter().find_map(|entries| entries.find(name))
    };
    let acts = |target: Target| {
        let of = |replies: &Replies| replies.0.iter().map(|reply| act(plan, sample, target, reply)).collect();
        (target, said(target).map_or_else(|| vec![sample.usual(plan, target)], of))
    };
    let called = callees.iter().map(|callee| {
        let replies = said(Target { step: callee.step, phase: Phase::Action });
        let fails = |reply: &Reply| reply.outcome == Some(Word::Failure);
        callee.acts(replies.is_some_and(|Replies(attempts)| attempts.iter().any(fails)))
    });
    Script {
        acts: targets(plan).into_iter().map(acts).collect(),
        called: called.collect(),
        cues: scenario.events.iter().map(|event| cue(plan, event)).collect(),
    }
}

fn act(plan: &Plan, sample: &Sample, target: Target, reply: &Reply) -> Act {
    if reply.outcome == Some(Word::Unroutable) {
        return Act { unroutable: true, ..Act::default() };
    }
    let mut answers = Vec::new();
    let mut next = Some(reply);
    let mut after = Duration::ZERO;
    while let Some(reply) = next {
        after += reply.after.map_or(USUAL, |period| period.0);
        answers.extend(answer(plan, sample, target, reply).map(|answer| (When::After(after), answer)));
        next = reply.then.as_ref().map(|Short(then)| &**then);
    }
    Act { answers, ..Act::default() }
}

/// A reply as it comes; nothing where there is silence.
fn answer(plan: &Plan, sample: &Sample, target: Target, reply: &Reply) -> Option<Answer> {
    let step = &plan.steps[target.step];
    let rules = step.rules(target.phase);
    if step.call(target.phase).is_none() {
        return awaited(rules, sample, target, reply);
    }
    let outcome = match reply.outcome {
        Some(Word::Silence | Word::Unroutable) => return None,
        None if rules.is_empty() => Some("success"),
        None => None,
        Some(Word::Success) => Some("success"),
        Some(Word::Failure) => Some("failure"),
        Some(Word::Retry) => Some("retry"),
        Some(Word::Pending) => Some("pending"),
    };
    let retry_after = reply.retry_after.map(|period| u64::try_from(period.0.as_millis()).unwrap_or(u64::MAX));
    let headers = [
        ("x-saga-outcome", outcome.map(Value::from)),
        ("x-saga-error-code", reply.error.as_deref().map(Value::from)),
        ("x-saga-error-message", reply.message.as_deref().map(Value::from)),
        ("x-saga-retry-after", retry_after.map(Value::from)),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let listened = rules.iter().find_map(|rule| rule.on.as_ref()).filter(|_| outcome.is_none());
    let (exchange, key) = match (&reply.event, listened) {
        (Some(Address { exchange, key }), _) => (exchange.clone(), key.clone()),
        (None, Some(on)) => (on.exchange.clone(), some_key(&on.pattern)),
        (None, None) => Default::default(),
    };
    let message =
        Message { data: reply.data.clone(), headers: headers.collect(), exchange, key, ..Message::default() };
    // An event names its instance by itself, unless it says its outcome as replies do.
    let correlated = message.exchange.is_empty() || outcome.is_some();
    Some(Answer::of(&message, correlated))
}

/// An event that is awaited: the first one that means what is said, made up where nothing is told of it.
fn awaited(rules: &[ReplyRule], sample: &Sample, target: Target, reply: &Reply) -> Option<Answer> {
    let kind = match reply.outcome {
        _ if rules.is_empty() => return None,
        Some(Word::Failure) => OutcomeKind::Failure,
        None | Some(Word::Success) => OutcomeKind::Success,
        Some(Word::Retry | Word::Pending | Word::Silence | Word::Unroutable) => return None,
    };
    if reply.event.is_none() && reply.data.is_null() {
        return Some(sample.answer(target, kind));
    }
    let rule = rules.iter().find(|rule| rule.outcome == kind);
    let (exchange, key) = match (&reply.event, rule.and_then(|rule| rule.on.as_ref())) {
        (Some(Address { exchange, key }), _) => (exchange.clone(), key.clone()),
        (None, Some(on)) => (on.exchange.clone(), some_key(&on.pattern)),
        (None, None) => return None,
    };
    Some(Answer::of(&Message { exchange, key, data: reply.data.clone(), ..Message::default() }, false))
}

fn cue(plan: &Plan, further: &Further) -> Cue {
    let Further { exchange, key, data, headers, during, after } = further.clone();
    let event = raw(&Message { exchange, key, data, headers, ..Message::default() });
    // What it starts or cancels, so that it can be checked.
    let what = understand(event.clone()).ok().and_then(|message| {
        let scope = Scope { event: Some(&message), ..Scope::default() };
        let key = |key: &Expression| key.evaluate_key(&scope).ok();
        let matches = |on: &Subscription| on.matches(&message.exchange, &message.key);
        let saga = || plan.saga.clone();
        if let Some(start) = plan.start.as_ref().filter(|start| matches(&start.on)) {
            let business_key = key(&start.business_key)?;
            return Some(Placing::Start { saga: saga(), business_key });
        }
        let cancel = plan.cancel.as_ref().filter(|cancel| matches(&cancel.on))?;
        Some(Placing::Cancel { saga: saga(), business_key: key(&cancel.business_key)? })
    });
    let on = during.and_then(|during| during.target(plan));
    let after = after.map_or(USUAL / 2, |period| period.0);
    Cue { on, after, what, event }
}
