//! The cast: the instance that is played, those that it calls, and what everybody does for each.

use std::sync::Arc;

use serde_json::Value;

use super::draft::Given;
use super::member::{Member, body_of, members};
use super::path::{Target, own_targets};
use super::sample::Sample;
use super::script::{Act, Acts};
use crate::definitions::{Loaded, in_force};
use crate::saga::called::{MAX_DEPTH, key_of};
use crate::saga::each::{self, fields_of, input_of, items_of};
use crate::saga::expression::Scope;
use crate::saga::id::{InstanceId, Phase};
use crate::saga::plan::{Each, Kind, OnTimeout, OutcomeKind, Plan, Work};

/// How many instances are looked after at most, over all levels.
const MAX_ACTORS: usize = 512;

/// An instance.
pub(super) struct Actor {
    pub(super) place: Place,
    pub(super) instance: InstanceId,
    pub(super) plan: Arc<Plan>,
    pub(super) sample: Sample,
}

/// Where an instance stands in the definition that is played.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The member of the definition that it is an instance of.
    pub(super) member: usize,
    /// The step of that member by which it is called, where it is of another saga.
    pub(super) called_by: Option<usize>,
    /// Which items it is for, from 0.
    pub(super) items: Vec<usize>,
    /// Whether an item that is not the last of its list is among them.
    pub(super) is_aside: bool,
}

/// The definitions that a saga may call, by way of others or not.
pub(super) fn callables(plan: &Plan, loaded: &[Loaded]) -> Vec<Loaded> {
    let in_force = in_force(loaded);
    let mut found: Vec<Loaded> = Vec::new();
    let mut open = called_by(plan);
    while let Some(saga) = open.pop() {
        let is_new = saga != plan.saga && found.iter().all(|known| known.plan.saga != saga);
        if let Some(called) = in_force.iter().find(|one| is_new && one.plan.saga == saga) {
            open.extend(called_by(&called.plan));
            found.push((*called).clone());
        }
    }
    found
}

/// The sagas that a plan calls, also for items.
fn called_by(plan: &Plan) -> Vec<String> {
    let steps = members(plan).into_iter().flat_map(|member| &member.plan.steps);
    let called = steps.filter_map(|step| match &step.work {
        Work::Saga(called) => Some(called.saga.clone()),
        _ => None,
    });
    called.collect()
}

/// The instance of a plan that is played, and those that it calls; it is the first.
pub(super) fn cast(plan: &Arc<Plan>, given: &Given, others: &[Loaded]) -> Vec<Actor> {
    let mut casting = Casting { plan, others, actors: Vec::new() };
    casting.add(Place::default(), plan, given, MAX_DEPTH);
    casting.actors
}

struct Casting<'a> {
    /// The definition that is played.
    plan: &'a Plan,
    others: &'a [Loaded],
    actors: Vec<Actor>,
}

impl Casting<'_> {
    /// Adds an instance, and what it calls; returns what a step that calls it keeps of it.
    fn add(&mut self, place: Place, plan: &Arc<Plan>, given: &Given, depth: u8) -> Value {
        let mut sample = Sample::new(plan, given, self.others);
        let index = self.actors.len();
        let instance = sample.instance.id;
        self.actors.push(Actor {
            place: place.clone(),
            instance,
            plan: Arc::clone(plan),
            sample: sample.clone(),
        });
        for (step, of) in plan.steps.iter().enumerate().filter(|_| depth > 0) {
            match &of.work {
                Work::Saga(called) => {
                    let Some(of) = self.others.iter().find(|other| other.plan.saga == called.saga) else {
                        continue;
                    };
                    let key = key_of(&sample.instance, step, "", 1);
                    let input = called.input.evaluate(&Scope::of(&sample.instance)).unwrap_or_default();
                    let place = Place { called_by: place.called_by.or(Some(step)), ..place.clone() };
                    let given = Given { called: Some((key, input)), ..Given::default() };
                    self.add_if_free(place, &of.plan, &given, depth);
                }
                Work::Each(each) => {
                    let outputs = self.add_items(&place, &sample, step, each, given, depth);
                    sample.instance.steps[step].output = Some(Arc::new(Value::Array(outputs)));
                }
                _ => {}
            }
        }
        let output =
            plan.output.as_ref().and_then(|output| output.evaluate(&Scope::of(&sample.instance)).ok());
        self.actors[index].sample = sample;
        output.unwrap_or_default()
    }

    fn add_if_free(&mut self, place: Place, plan: &Arc<Plan>, given: &Given, depth: u8) -> Value {
        match self.actors.len() < MAX_ACTORS {
            true => self.add(place, plan, given, depth - 1),
            false => Value::Null,
        }
    }

    /// Adds the instances of a step's items.
    fn add_items(
        &mut self,
        place: &Place,
        sample: &Sample,
        step: usize,
        each: &Each,
        given: &Given,
        depth: u8,
    ) -> Vec<Value> {
        let items = items_of(each, &sample.instance).unwrap_or_default();
        let fields = fields_of(each, &sample.instance).unwrap_or_default();
        let body = body_of(&members(self.plan), place.member, step).filter(|_| place.called_by.is_none());
        let last = items.len().saturating_sub(1);
        let mut outputs = Vec::new();
        for (item, value) in items.into_iter().enumerate() {
            let place = match body {
                Some(member) => Place {
                    member,
                    called_by: None,
                    items: [&place.items[..], &[item]].concat(),
                    is_aside: place.is_aside || item != last,
                },
                None => place.clone(),
            };
            let key = each::key_of(&sample.instance, step, item, 1);
            let input = input_of(each, fields.clone(), item, value);
            let name = &sample.instance.steps[step].name;
            let given = Given { called: Some((key, input)), ..given.within(name, item) };
            outputs.push(self.add_if_free(place, &each.body, &given, depth));
        }
        outputs
    }
}

impl Place {
    /// The name of a step of its member in the definition that is played, such as `parcels/1/pick`.
    pub(super) fn step_name(&self, plan: &Plan, step: usize) -> String {
        let Member { plan, path, .. } = &members(plan)[self.member];
        let path: String =
            path.iter().zip(&self.items).map(|(name, item)| format!("{name}/{item}/")).collect();
        path + &plan.steps[step].name
    }
}

impl Actor {
    /// Whether it is what faults befall: the instance itself, or the last item.
    pub(super) fn is_looked_at(&self) -> bool {
        self.place.called_by.is_none() && !self.place.is_aside
    }

    /// What could not be made up for it, each with the step of the definition that it is an item of.
    pub(super) fn gaps(&self, plan: &Plan) -> Vec<String> {
        let path = members(plan)[self.place.member].path.join("/");
        let of = |gap: &String| if path.is_empty() { gap.clone() } else { format!("{path}: {gap}") };
        self.sample.gaps.iter().map(of).collect()
    }

    /// What everybody does for it when nothing goes wrong, or the first that can turn it back refuses.
    pub(super) fn usual(&self, is_refused: bool) -> Acts {
        let targets = own_targets(&self.plan);
        let steps = || {
            let is_before_pivot = |target: &&Target| {
                target.phase == Phase::Action && self.plan.steps[target.step].kind != Kind::Retriable
            };
            targets.iter().filter(is_before_pivot)
        };
        let can_be_in_vain = |target: &&Target| {
            let step = &self.plan.steps[target.step];
            matches!(&step.work, Work::Wait(wait)
                if wait.has(OutcomeKind::Failure) || step.on_timeout == OnTimeout::Compensate)
        };
        // Where nobody is asked, it is somebody who is waited for.
        let is_asked = |target: &&Target| self.plan.steps[target.step].call(Phase::Action).is_some();
        let refused = steps().find(is_asked).or_else(|| steps().find(can_be_in_vain)).filter(|_| is_refused);
        let act = |target: &Target| {
            let answer = || self.sample.answer(*target, OutcomeKind::Failure);
            let act = match &self.plan.steps[target.step].work {
                _ if Some(target) != refused => self.sample.usual(&self.plan, *target),
                Work::Wait(wait) if wait.has(OutcomeKind::Failure) => Act::answered(&answer()),
                // Nobody comes.
                Work::Wait(_) => Act::default(),
                _ => Act::refused(&answer()),
            };
            (*target, vec![act])
        };
        targets.iter().map(act).collect()
    }
}

impl Given {
    /// What is given for an item of a step: what is said of that one goes before what is said of all.
    fn within(&self, step: &str, item: usize) -> Self {
        let below = |prefix: String| {
            self.replies
                .iter()
                .filter_map(move |(name, data)| Some((name.strip_prefix(&prefix)?.to_owned(), data.clone())))
        };
        let replies = below(format!("{step}/")).chain(below(format!("{step}/{item}/"))).collect();
        Self { replies, ..Self::default() }
    }
}
