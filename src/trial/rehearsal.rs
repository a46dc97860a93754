//! Rehearsals: a scenario is played, and what came is held against what was expected.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::cast::{Actor, Place, cast};
use super::comparison::{self, Difference, differences};
use super::draft::{self, Given, by_header, raw, some_key};
use super::form::Short;
use super::judgement::wrong;
use super::member::Named;
use super::path::{Target, own_targets};
use super::sample::Sample;
use super::scenario::{
    Address, Event, Expected, Further, Replies, Reply, Scenario, ScenarioFile, Scenarios, Word,
};
use super::script::{Act, Acts, Answer, Books, Cue, Script, USUAL, When};
use super::stage::{self, Opening, Played};
use super::time_line::TimeLine;
use crate::checker::evidence::Placing;
use crate::definitions::Loaded;
use crate::delivery::understand;
use crate::saga::definition::Located;
use crate::saga::expression::{Expression, Scope};
use crate::saga::id::{InstanceId, Phase};
use crate::saga::message::{Message, RawMessage};
use crate::saga::plan::{OutcomeKind, Plan, ReplyRule, Step, Subscription};
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

/// What a file gives for one of its scenarios, or for the paths of its definition.
pub(super) fn given(file: &ScenarioFile, scenario: Option<&Scenario>) -> Given {
    let Scenarios { start, replies, scenarios, .. } = &file.scenarios;
    let first = || scenarios.iter().filter(|_| scenario.is_none()).find_map(|of| of.start.as_ref());
    let own = scenario.and_then(|scenario| scenario.start.as_ref());
    let data = |(step, Replies(attempts)): &(Located<String>, Replies)| {
        let answers =
            |reply: &&Reply| matches!(reply.outcome, None | Some(Word::Success)) && !reply.data.is_null();
        Some((step.value.clone(), attempts.iter().find(answers)?.data.clone()))
    };
    // What a scenario says comes last, and instead of what its file says.
    let replies = replies.0.iter().chain(scenario.into_iter().flat_map(|scenario| &scenario.replies.0));
    let of_scenario = scenario.map(|scenario| &scenario.input).filter(|input| !input.is_null());
    let input = of_scenario.or(Some(&file.scenarios.input).filter(|input| !input.is_null()));
    let called = input.map(|input| Message {
        data: json!({"saga": file.scenarios.saga.value, "input": input}),
        ..Message::default()
    });
    let start = own.or(start.as_ref()).or_else(first).map(message).or(called).unwrap_or_default();
    Given {
        // Paths want an event that goes through, scenarios the one that they tell.
        is_literal: scenario.is_some() && !start.data.is_null(),
        start,
        replies: replies.filter_map(data).collect(),
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
    let given = given(file, Some(scenario));
    let cast = cast(plan, &given, others);
    let script = script(plan, &cast, file, scenario);
    let Sample { business_key, start, gaps, .. } = &cast[0].sample;
    let mut played = stage::play(Opening { loaded, others, business_key, event: start }, &script, true)?;
    // The ledgers of participants that follow a script prove nothing.
    played.evidence.entries.clear();
    played.evidence.replayed_at = None;
    let mut wrong = wrong(&played);
    // Everything came twice.
    wrong.dedup();
    if played.ended.is_none() && !given.is_literal {
        wrong.extend(gaps.clone());
    }
    for event in &scenario.events {
        let Further { exchange, key, .. } = event;
        wrong.extend(untaken(plan, &cast, event, &played).map(|why| {
            let (line, column) = (exchange.at.line, exchange.at.column);
            let name = format!("{} on {}", key.value, exchange.value);
            format!("{}:{line}:{column}: nobody took the event {name}: {why}", file.file)
        }));
    }
    Ok(Rehearsed {
        file: file.file.clone(),
        line: scenario.scenario.at.line,
        scenario: scenario.scenario.value.clone(),
        differences: differences(plan, &cast, scenario, &played),
        wrong,
        time_line: played.time_line,
    })
}

fn message(event: &Event) -> Message {
    let Event { exchange, key, id, kind, data, metadata, headers, user } = event.clone();
    Message {
        id,
        kind,
        data,
        metadata,
        headers,
        user,
        exchange: exchange.map(|exchange| exchange.value).unwrap_or_default(),
        key: key.map(|key| key.value).unwrap_or_default(),
        ..Message::default()
    }
}

/// What everybody does in a scenario: what it says, else what its file says, else all goes well.
fn script(plan: &Plan, cast: &[Actor], file: &ScenarioFile, scenario: &Scenario) -> Script {
    // What is said of one item goes before what is said of all.
    let said = |place: &Place, target: Target| {
        let target = Target { member: place.member, ..target };
        let names = [place.step_name(plan, target.step), target.step_name(plan)];
        let entries = match target.phase {
            Phase::Action => [&scenario.replies, &file.scenarios.replies],
            Phase::Compensation => [&scenario.compensations, &file.scenarios.compensations],
        };
        entries.into_iter().find_map(|entries| names.iter().find_map(|name| entries.find(name)))
    };
    let acts = |actor: &Actor| {
        let Actor { place, plan, sample, .. } = actor;
        let of = |target: Target| match said(place, target) {
            Some(Replies(attempts)) => {
                attempts.iter().map(|reply| act(plan, sample, target, reply)).collect()
            }
            None => vec![sample.usual(plan, target)],
        };
        let fails = |reply: &&Reply| reply.outcome == Some(Word::Failure);
        let acts = match place.called_by {
            None => own_targets(plan).into_iter().map(|target| (target, of(target))).collect(),
            Some(step) => {
                let replies = said(place, Target { member: 0, step, phase: Phase::Action });
                let refusal = replies.and_then(|Replies(attempts)| attempts.iter().find(fails));
                let mut acts = actor.usual(refusal.is_some());
                refusal.into_iter().for_each(|reply| refuse_so(&mut acts, reply));
                acts
            }
        };
        (actor.instance, acts)
    };
    Script {
        acts: cast.iter().map(acts).collect(),
        cues: scenario.events.iter().filter_map(|event| cue(plan, cast, event)).collect(),
    }
}

/// The command by which a called saga is refused is refused with what is said of the step that calls it.
fn refuse_so(acts: &mut Acts, reply: &Reply) {
    if reply.error.is_none() && reply.message.is_none() {
        return;
    }
    let refused = acts.values_mut().flatten().filter(|act| act.books == Some(Books::Refused));
    for (_, answer) in refused.flat_map(|act| &mut act.answers) {
        // A participant may always say so by the header, whatever rules there are.
        let mut message = by_header(OutcomeKind::Failure);
        let said = [("x-saga-error-code", &reply.error), ("x-saga-error-message", &reply.message)];
        for (name, text) in said.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?))) {
            message.headers.insert(name.to_owned(), text.into());
        }
        message.user = answer.message.user_id.take();
        *answer = Answer::of(&message, true);
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
        return awaited(step, sample, target, reply);
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
        (Some(Address { exchange, key }), _) => (exchange.value.clone(), key.value.clone()),
        (None, Some(on)) => (on.exchange.clone(), some_key(&on.pattern)),
        (None, None) => Default::default(),
    };
    let headers = headers.chain(wanted_headers(rules, &exchange)).collect();
    let user = reply.user.clone().or(step.from_user.any());
    let message = Message { data: reply.data.clone(), headers, exchange, key, user, ..Message::default() };
    // An event names its instance by itself, unless it says its outcome as replies do.
    let correlated = message.exchange.is_empty() || outcome.is_some();
    Some(Answer::of(&message, correlated))
}

/// The headers by which the first rule about an exchange has its events handed on.
fn wanted_headers(rules: &[ReplyRule], exchange: &str) -> impl Iterator<Item = (String, Value)> {
    let on = rules.iter().filter_map(|rule| rule.on.as_ref()).find(|on| on.exchange == exchange);
    on.map(|on| on.matching.headers()).unwrap_or_default().into_iter()
}

/// An event that is awaited: the first one that means what is said, made up where nothing is told of it.
fn awaited(step: &Step, sample: &Sample, target: Target, reply: &Reply) -> Option<Answer> {
    let rules = step.rules(target.phase);
    let kind = match reply.outcome {
        _ if rules.is_empty() => return None,
        Some(Word::Failure) => OutcomeKind::Failure,
        None | Some(Word::Success) => OutcomeKind::Success,
        Some(Word::Retry | Word::Pending | Word::Silence | Word::Unroutable) => return None,
    };
    if reply.event.is_none() && reply.data.is_null() && reply.user.is_none() {
        return Some(sample.answer(target, kind));
    }
    let rule = rules.iter().find(|rule| rule.outcome == kind);
    let (exchange, key) = match (&reply.event, rule.and_then(|rule| rule.on.as_ref())) {
        (Some(Address { exchange, key }), _) => (exchange.value.clone(), key.value.clone()),
        (None, Some(on)) => (on.exchange.clone(), some_key(&on.pattern)),
        (None, None) => return None,
    };
    let headers = wanted_headers(rules, &exchange).collect();
    let user = reply.user.clone().or(step.from_user.any());
    let message = Message { exchange, key, headers, user, data: reply.data.clone(), ..Message::default() };
    Some(Answer::of(&message, false))
}

/// An event that comes in; none where it waits for an item that is not there.
fn cue(plan: &Plan, cast: &[Actor], further: &Further) -> Option<Cue> {
    let event = event(plan, further);
    // What it starts or cancels, so that it can be checked.
    let what = understand(event.clone()).ok().and_then(|message| {
        let scope = Scope { event: Some(&message), ..Scope::default() };
        let key = |key: &Expression| key.evaluate_key(&scope).ok();
        let matches = |on: &Subscription| on.hears(&message);
        let saga = || plan.saga.clone();
        if let Some(start) = plan.start.as_ref().filter(|start| matches(&start.on)) {
            let business_key = key(&start.business_key)?;
            return Some(Placing::Start { saga: saga(), business_key });
        }
        let cancel = plan.cancel.as_ref().filter(|cancel| matches(&cancel.on))?;
        Some(Placing::Cancel { saga: saga(), business_key: key(&cancel.business_key)? })
    });
    let on = match &further.during {
        None => None,
        Some(during) => Some(moment(plan, cast, during)?),
    };
    let after = further.after.map_or(USUAL / 2, |period| period.0);
    Some(Cue { on, after, what, event })
}

fn event(plan: &Plan, further: &Further) -> RawMessage {
    let Further { exchange, key, data, headers, user, .. } = further.clone();
    let message = Message { exchange: exchange.value, key: key.value, data, headers, ..Message::default() };
    raw(&Message { user: user.or_else(|| plan.user_for(&message)), ..message })
}

/// The command that is meant, of which instance; none of an item that is not there.
fn moment(plan: &Plan, cast: &[Actor], expected: &Expected) -> Option<(InstanceId, Target)> {
    let Named { target, items } = Named::find(plan, &expected.step)?;
    // Where no item is told, it is the first.
    let is_it = |actor: &&Actor| {
        let Place { member, called_by, items: of, .. } = &actor.place;
        let is_item = if items.is_empty() { of.iter().all(|item| *item == 0) } else { *of == items };
        (*member, *called_by) == (target.member, None) && is_item
    };
    Some((cast.iter().find(is_it)?.instance, Target { member: 0, phase: expected.phase, ..target }))
}

/// Why nobody took an event, and what to do about it; none where somebody did.
fn untaken(plan: &Plan, cast: &[Actor], further: &Further, played: &Played) -> Option<String> {
    let came =
        |during: &&Expected| moment(plan, cast, during).is_some_and(|moment| played.cued.contains(&moment));
    match further.during.as_ref().filter(|during| !came(during)) {
        Some(Expected { step, phase, .. }) => {
            let name = comparison::name(step, *phase);
            Some(format!("{name} never came, and the event waits for it: name a step that comes here"))
        }
        None => misaddressed(cast, further),
    }
}

/// Why an event that comes in names no instance.
fn misaddressed(cast: &[Actor], further: &Further) -> Option<String> {
    let message = understand(event(&cast.first()?.plan, further)).ok()?;
    let scope = Scope { event: Some(&message), reply: Some(&message), ..Scope::default() };
    let mut named = Vec::new();
    for Actor { plan, sample, .. } in cast {
        let matches = |on: &Subscription| on.hears(&message);
        if plan.start.as_ref().is_some_and(|start| matches(&start.on)) {
            return None;
        }
        let of_steps = plan.steps.iter().flat_map(|step| Phase::BOTH.map(|phase| step.rules(phase)));
        let rules = of_steps.flatten().filter(|rule| rule.on.as_ref().is_some_and(matches));
        let cancel =
            plan.cancel.iter().filter(|cancel| matches(&cancel.on)).map(|cancel| Some(&cancel.business_key));
        for key in rules.map(|rule| draft::key(plan, rule)).chain(cancel) {
            // Without a key, or where it cannot be read, the engine has its say.
            let key = key?.evaluate_key(&scope).ok()?;
            if key == sample.business_key {
                return None;
            }
            named.push((key, &sample.business_key));
        }
    }
    let (key, known) = named.first()?;
    Some(format!("it names {key:?}: in its data, name {known:?}, the instance of the scenario"))
}
