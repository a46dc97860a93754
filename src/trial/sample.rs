//! Samples: events and replies of the shape that the expressions of a definition ask for.
//!
//! A definition says nothing of what its events look like, but its expressions name what they need.
//! Everything that they name and nobody has given gets a value with which they work: a text, else what
//! they compare with, a number, true, false, a list, an object.

use std::sync::Arc;

use serde_json::{Value, json};

use super::draft::{Draft, Given, Place, Role, by_header, drafts, key, put, raw, rule, value_at};
use super::path::Target;
use super::question::{Asks, MadeUp, Question, questions};
use super::script::{Act, Answer};
use super::stage::BEGIN;
use crate::definitions::Loaded;
use crate::delivery::Queue;
use crate::saga::each::{fields_of, input_of, items_of};
use crate::saga::expression::{Expression, ExpressionError, Scope};
use crate::saga::fact::Started;
use crate::saga::id::{InstanceId, Phase, StoreId};
use crate::saga::instance::{Instance, StepStatus};
use crate::saga::message::{Message, RawMessage};
use crate::saga::plan::{OutcomeKind, Plan, Step, Work};
use crate::saga::reply::{self, Outcome, Via};
use crate::saga::time::Timestamp;

/// Values of several places that are tried together at most, for one expression.
const MAX_TRIES: usize = 400;
/// The same for all expressions.
const MAX_TRIES_IN_ALL: usize = 5_000;

/// Events and replies of one instance.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) business_key: String,
    pub(super) start: RawMessage,
    /// The event that cancels it, where one could be made up.
    pub(super) cancel: Option<RawMessage>,
    answers: Vec<(Target, OutcomeKind, Answer)>,
    /// What could not be made up, and why.
    pub(super) gaps: Vec<String>,
    /// An instance that has come through with all that.
    pub(super) instance: Instance,
}

impl Sample {
    /// Makes up what is not given. `others` are the sagas that it may call.
    pub(super) fn new(plan: &Plan, given: &Given, others: &[Loaded]) -> Self {
        let (drafts, called) = (drafts(plan, given), given.called.as_ref());
        let items = items(plan, others);
        let is_literal = given.is_literal;
        let free = Vec::new();
        let mut workshop = Workshop { plan, others, called, items, drafts, is_literal, free, tries: 0 };
        let mut gaps = workshop.fill();
        workshop.fall_back(&mut gaps);
        workshop.finish(gaps.into_iter().map(|(_, gap)| gap).collect())
    }

    /// What becomes of a step or a compensation when nothing goes wrong.
    pub(super) fn usual(&self, plan: &Plan, target: Target) -> Act {
        let step = &plan.steps[target.step];
        match (step.call(target.phase), &step.work) {
            (Some(_), _) => Act::done(&self.answer(target, OutcomeKind::Success)),
            // Where no event means success, silence does.
            (None, Work::Wait(wait)) if wait.has(OutcomeKind::Success) => {
                Act::answered(&self.answer(target, OutcomeKind::Success))
            }
            _ => Act::default(),
        }
    }

    /// What a participant answers in this sense.
    pub(super) fn answer(&self, target: Target, kind: OutcomeKind) -> Answer {
        let known = self.answers.iter().find(|(of, is, _)| (*of, *is) == (target, kind));
        let by_header = || Answer::of(&by_header(kind), true);
        known.map_or_else(by_header, |(_, _, answer)| answer.clone())
    }
}

/// An item for each step that has items, with what its own steps ask of their input, and keep.
fn items(plan: &Plan, others: &[Loaded]) -> Vec<MadeUp> {
    let of = |(step, of): (usize, &Step)| {
        let Work::Each(each) = &of.work else { return None };
        let Sample { instance, .. } = Sample::new(&each.body, &Given::default(), others);
        let item = instance.input.get(&each.name).cloned().unwrap_or_else(|| each.name.clone().into());
        let output = each.body.output.as_ref();
        let output =
            output.and_then(|output| output.evaluate(&Scope::of(&instance)).ok()).unwrap_or_default();
        Some(MadeUp { step, item, output })
    };
    plan.steps.iter().enumerate().filter_map(of).collect()
}

struct Workshop<'a> {
    plan: &'a Plan,
    others: &'a [Loaded],
    called: Option<&'a (String, Value)>,
    items: Vec<MadeUp>,
    drafts: Vec<Draft>,
    /// Whether the first draft stays as it is given.
    is_literal: bool,
    /// Places whose values were not given.
    free: Vec<Place>,
    /// How much was tried so far.
    tries: usize,
}

impl<'a> Workshop<'a> {
    /// Fills every place that is named and empty, as well as it can; returns what does not work then.
    fn fill(&mut self) -> Vec<(Asks<'a>, String)> {
        let plan = self.plan;
        let questions = questions(plan, &self.drafts, self.others, &self.items, self.called.is_some());
        self.open(&questions);
        let mut unmet = self.unmet(&questions);
        'search: loop {
            for (index, _) in &unmet {
                if let Some(better) = self.improve(&questions, &questions[*index], unmet.len()) {
                    unmet = better;
                    continue 'search;
                }
            }
            break;
        }
        let name = |(index, why): (usize, String)| {
            let Question { what, asks, .. } = &questions[index];
            (*asks, format!("{what}: {why}"))
        };
        unmet.into_iter().map(name).collect()
    }

    /// Puts a text into every empty place that has no further place below it.
    fn open(&mut self, questions: &[Question<'_>]) {
        let mut places: Vec<_> = questions.iter().flat_map(|question| question.places.clone()).collect();
        places.sort();
        places.dedup();
        let is_above = |(of, above): &Place, (draft, path): &Place| {
            of == draft && path.len() > above.len() && path.starts_with(above)
        };
        let is_open = |(draft, _): &Place| *draft > 0 || !self.is_literal;
        let leaves: Vec<_> = places
            .iter()
            .filter(|place| is_open(place) && !places.iter().any(|other| is_above(place, other)))
            .collect();
        for (draft, path) in leaves {
            let value = path.last().map_or(Value::Null, |name| Value::from(name.as_str()));
            let message = &mut self.drafts[*draft].message;
            if value_at(message, path).is_none() && put(message, path, value) {
                self.free.push((*draft, path.clone()));
            }
        }
    }

    /// Changes the values that a question asks about until fewer questions are unmet.
    fn improve(
        &mut self,
        questions: &[Question<'_>],
        question: &Question<'_>,
        unmet: usize,
    ) -> Option<Vec<(usize, String)>> {
        let free = |place: &&Place| self.free.contains(place);
        let places: Vec<Place> = question.places.iter().filter(free).cloned().collect();
        let value = |(draft, path): &Place| value_at(&self.drafts[*draft].message, path).unwrap_or_default();
        let before: Vec<Value> = places.iter().map(value).collect();
        let choices: Vec<_> = places.iter().map(|place| self.choices(questions, place)).collect();
        let left = MAX_TRIES_IN_ALL - self.tries;
        for values in combinations(&before, &choices).take(MAX_TRIES.min(left)) {
            self.tries += 1;
            self.put_all(&places, values);
            let now = self.unmet(questions);
            if now.len() < unmet {
                return Some(now);
            }
        }
        self.put_all(&places, before);
        None
    }

    fn put_all(&mut self, places: &[Place], values: Vec<Value>) {
        for ((draft, path), value) in places.iter().zip(values) {
            put(&mut self.drafts[*draft].message, path, value);
        }
    }

    /// What is tried for a place: what the start event has there or is named by, a text, what expressions
    /// about it compare with, and one of each type.
    fn choices(&self, questions: &[Question<'_>], place: &Place) -> Vec<Value> {
        let (draft, path) = place;
        let key = self.instance().business_key;
        let of_start = [value_at(&self.drafts[0].message, path), Some(key.as_str().into())];
        // The key of an instance that is called is made of that of its caller.
        let own = key.split_once('/').and_then(|(_, rest)| rest.rsplit_once('/')).map(|(own, _)| own);
        let parts = own.into_iter().chain(key.split('/').filter(|_| own.is_some())).map(Value::from);
        let of_start = of_start.into_iter().flatten().chain(parts);
        let mut choices: Vec<_> = of_start.filter(|_| *draft > 0).collect();
        choices.extend(path.last().map(|name| Value::from(name.as_str())));
        let about = questions.iter().filter(|question| question.places.contains(place));
        choices.extend(about.flat_map(|question| question.constants.clone()));
        choices.extend(kinds());
        let mut kept: Vec<Value> = Vec::new();
        choices.into_iter().for_each(|choice| {
            if !kept.contains(&choice) {
                kept.push(choice);
            }
        });
        kept
    }

    /// The questions that are not answered as they should be, and why not.
    fn unmet(&self, questions: &[Question<'_>]) -> Vec<(usize, String)> {
        let instance = self.instance();
        let answered = questions.iter().map(|question| self.ask(question, &instance));
        let failed = |(index, answer): (usize, Result<(), String>)| answer.err().map(|why| (index, why));
        answered.enumerate().filter_map(failed).collect()
    }

    fn ask(&self, question: &Question<'_>, instance: &Instance) -> Result<(), String> {
        let text = |error: ExpressionError| error.to_string();
        let of_draft = |draft: usize| {
            let message = Some(&self.drafts[draft].message);
            Scope { event: message, reply: message, ..Scope::of(instance) }
        };
        match question.asks {
            Asks::Key(key, draft) => {
                let key = key.evaluate_key(&of_draft(draft)).map_err(text)?;
                let same = draft == 0 || key == instance.business_key;
                same.then_some(()).ok_or_else(|| "it names another instance".to_owned())
            }
            Asks::Condition(condition) => {
                condition.evaluate_bool(&Scope::of(instance)).map(|_| ()).map_err(text)
            }
            Asks::Time(until) => match until.evaluate(&Scope::of(instance)).map_err(text)? {
                Value::String(time) if Timestamp::parse(&time).is_some() => Ok(()),
                _ => Err("it is no RFC 3339 time".to_owned()),
            },
            Asks::Input(input) => input.evaluate(&of_draft(0)).map(|_| ()).map_err(text),
            Asks::Body(body) => body.evaluate(&Scope::of(instance)).map(|_| ()).map_err(text),
            Asks::Notice(body) => body.evaluate(&Scope::of_notice(instance)).map(|_| ()).map_err(text),
            Asks::Called(called, expression) => {
                let input = called.input.evaluate(&Scope::of(instance)).map_err(text)?;
                let scope = Scope { input: Some(&input), ..Scope::default() };
                expression.evaluate(&scope).map(|_| ()).map_err(text)
            }
            Asks::Items(each) => match items_of(each, instance)?.is_empty() {
                true => Err("it is empty, so nothing is played for items".to_owned()),
                false => Ok(()),
            },
            Asks::Item(each, expression) => {
                // That there is one is a question of its own.
                let Some(item) = items_of(each, instance)?.into_iter().next() else { return Ok(()) };
                let input = input_of(each, fields_of(each, instance)?, 0, item);
                let scope = Scope { input: Some(&input), ..Scope::default() };
                expression.evaluate(&scope).map(|_| ()).map_err(text)
            }
            Asks::Reply(draft) => {
                let Role::Reply(Target { step, phase, .. }, kind) = self.drafts[draft].role else {
                    return Ok(());
                };
                let message = &self.drafts[draft].message;
                match reply::read(self.plan, step, phase, instance, message, Via::exchange(&message.exchange))
                    .map_err(|error| error.to_string())?
                {
                    Outcome::Success(Err(failure)) => Err(failure.message),
                    outcome if is(&outcome, kind) => Ok(()),
                    _ => Err("no message was found that its rules read so".to_owned()),
                }
            }
        }
    }

    /// An instance that has all outputs.
    fn instance(&self) -> Instance {
        let plan = self.plan;
        let event = &self.drafts[0].message;
        let of_event = Scope { event: Some(event), ..Scope::default() };
        let made_up = || match &plan.start {
            Some(start) => {
                let key = start.business_key.evaluate_key(&of_event).unwrap_or_default();
                (key, start.input.evaluate(&of_event).unwrap_or_default())
            }
            None => (plan.saga.clone(), event.data.clone()),
        };
        let (business_key, input) = self.called.cloned().unwrap_or_else(made_up);
        let started = Started {
            saga: plan.saga.clone(),
            version: plan.version,
            definition: plan.hash.clone(),
            business_key,
            steps: plan.steps.iter().map(|step| step.name.clone()).collect(),
            input: Arc::new(input),
            attributes: Default::default(),
            deadline: None,
            store: StoreId::simulated(),
            event_id: event.id.clone(),
            caller: None,
            trace: None,
        };
        let id = InstanceId::new(&plan.saga, &started.business_key);
        let mut instance = Instance::begin(id, &started, BEGIN);
        for (step, of) in plan.steps.iter().enumerate() {
            let role = Role::Reply(Target { member: 0, step, phase: Phase::Action }, OutcomeKind::Success);
            let draft = self.drafts.iter().find(|draft| draft.role == role);
            let items = self.items.iter().find(|item| item.step == step);
            let output = match (&of.work, draft, items) {
                (Work::Each(each), _, Some(MadeUp { output, .. })) => {
                    let items = items_of(each, &instance).unwrap_or_default();
                    Some(Value::from(vec![output.clone(); items.len()]))
                }
                (_, Some(Draft { message, .. }), _) => {
                    let scope = Scope { reply: Some(message), ..Scope::of(&instance) };
                    of.output.as_ref().and_then(|output| output.evaluate(&scope).ok())
                }
                _ => continue,
            };
            instance.steps[step].output = output.map(Arc::new);
            instance.steps[step].status = StepStatus::Succeeded;
        }
        instance
    }

    /// What no rule can be made to read is answered with the outcome in the header.
    fn fall_back(&mut self, gaps: &mut Vec<(Asks<'_>, String)>) {
        let plan = self.plan;
        let is_command = |target: &Target| plan.steps[target.step].call(target.phase).is_some();
        for (asks, _) in gaps.iter() {
            if let Asks::Reply(draft) = asks
                && let Draft { role: Role::Reply(target, kind), message } = &mut self.drafts[*draft]
                && is_command(target)
            {
                let Message { headers, .. } = by_header(*kind);
                *message = Message { headers, exchange: String::new(), ..std::mem::take(message) };
            }
        }
        // An event that does not name the instance can name the command.
        let drafts = &self.drafts;
        gaps.retain(|(asks, _)| {
            let Asks::Key(_, draft) = asks else { return true };
            !matches!(&drafts[*draft].role, Role::Reply(target, _) if is_command(target))
        });
    }

    fn finish(self, gaps: Vec<String>) -> Sample {
        let instance = self.instance();
        let business_key = instance.business_key.clone();
        let names_it = |message: &Message, key: &Expression| {
            let scope = Scope { event: Some(message), reply: Some(message), ..Scope::default() };
            key.evaluate_key(&scope).is_ok_and(|key| key == business_key)
        };
        let mut sample = Sample {
            business_key: business_key.clone(),
            start: raw(&self.drafts[0].message),
            cancel: None,
            answers: Vec::new(),
            gaps,
            instance,
        };
        sample.start.message_id.get_or_insert("event-start".to_owned());
        for Draft { role, message } in &self.drafts {
            match role {
                Role::Start => {}
                Role::Cancel => {
                    let cancel =
                        self.plan.cancel.as_ref().filter(|cancel| names_it(message, &cancel.business_key));
                    sample.cancel = cancel.map(|_| raw(message));
                }
                Role::Reply(target, kind) => {
                    let rule = rule(self.plan, *target, *kind);
                    let key = rule.and_then(|rule| key(self.plan, rule));
                    let named = key.is_some_and(|key| names_it(message, key));
                    let correlated = message.exchange.is_empty() || !named;
                    sample.answers.push((*target, *kind, Answer::of(message, correlated)));
                }
            }
        }
        sample
    }
}

impl Answer {
    /// A message to the queue that it comes by.
    pub(super) fn of(message: &Message, correlated: bool) -> Self {
        let queue = if message.exchange.is_empty() { Queue::Replies } else { Queue::Events };
        Self { queue, message: raw(message), correlated }
    }
}

/// What is tried for several places together: another value for one of them, the same kind of value for all
/// of them, and then everything.
fn combinations<'a>(before: &'a [Value], choices: &'a [Vec<Value>]) -> impl Iterator<Item = Vec<Value>> + 'a {
    let with = move |place: usize, choice: &Value| {
        let mut values = before.to_vec();
        values[place] = choice.clone();
        values
    };
    let of_one = choices
        .iter()
        .enumerate()
        .flat_map(move |(place, choices)| choices.iter().map(move |choice| with(place, choice)));
    let alike = kinds().into_iter().map(|kind| vec![kind; before.len()]);
    let number = choices.iter().map(Vec::len).fold(1, usize::saturating_mul);
    let all = (0..number).map(|number| {
        let mut rest = number;
        let pick = |choices: &Vec<Value>| {
            let picked = choices[rest % choices.len()].clone();
            rest /= choices.len();
            picked
        };
        choices.iter().map(pick).collect()
    });
    of_one.chain(alike).chain(all)
}

/// A value of each type but text.
fn kinds() -> [Value; 5] {
    [json!(1), json!(true), json!(false), json!([]), json!({})]
}

fn is(outcome: &Outcome, kind: OutcomeKind) -> bool {
    match outcome {
        Outcome::Success(_) => kind == OutcomeKind::Success,
        Outcome::Failure(_) => kind == OutcomeKind::Failure,
        Outcome::Retry(..) => kind == OutcomeKind::Retry,
        Outcome::Pending => kind == OutcomeKind::Pending,
    }
}

#[cfg(test)]
mod tests;
