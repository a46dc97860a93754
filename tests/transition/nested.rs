//! Instances that call each other, in any order of inputs: nobody waits in vain, and all end the same way.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use sagamq::saga::called::called_by;
use sagamq::saga::id::InstanceId;
use sagamq::saga::instance::{Awaiting, StepState};

use super::*;

/// Histories that are played.
const HISTORIES: u64 = 400;
/// Rounds within which everything ends once all participants and people do what they can.
const ROUNDS: usize = 400;

const TOP: &str = "
deadline: {after: 2h, then: DEADLINE}
steps:
  - {step: a, command: {exchange: e, key: a}, timeout: 10s, retry: RETRY, output: =reply.data, compensate: {command: {exchange: e, key: undo, body: {a: =steps.a, why: =saga.error}}, retry: RETRY}}
  - parallel: branches
    steps:
      - {call: first, saga: mid}
      - sequence: branch
        steps:
          - {call: second, saga: leaf, when: =input.n > 1}
          - {emit: tell, event: {exchange: e, key: told, body: =steps.second}}
          - {step: b, command: {exchange: e, key: b, body: =steps.second}, retry: RETRY, compensate: {command: {exchange: e, key: undo, body: [=steps.second, =steps.b]}}}
      - {wait: nod, on: {exchange: e, key: nod}, timeout: 1m, on_timeout: AT_TIMEOUT, output: =event.data}
  - {PIVOT}
  - {call: mail, saga: mail, kind: retriable}
  - {wait: thanks, on: {exchange: e, key: thanks}, timeout: 1m}
on_completed: {emit: {exchange: e, key: done}}
on_compensated: {emit: {exchange: e, key: undone}}
on_parked: {emit: {exchange: e, key: parked}}
on_cancel_refused: {emit: {exchange: e, key: too_late}}
";
const MID: &str = "
deadline: {after: 1h}
steps:
  - {step: a, command: {exchange: e, key: a}, retry: RETRY, compensate: {command: {exchange: e, key: undo, body: [=steps.a, =saga.error]}, retry: RETRY}}
  - {call: deep, saga: leaf}
  - {delay: rest, for: 5s}
output: =steps.deep.output
";
const LEAF: &str = "
steps: [{step: a, command: {exchange: e, key: a}, on_timeout: park, compensate: {command: {exchange: e, key: undo}}}]
output: {is: =steps.a.status}
";
const MAIL: &str = "
deadline: {after: 1h, then: park}
steps:
  - {step: a, command: {exchange: e, key: a}, compensate: {command: {exchange: e, key: undo}}}
  - {step: send, kind: pivot, command: {exchange: e, key: send}, retry: RETRY}
  - {step: file, kind: retriable, command: {exchange: e, key: file}}
on_completed: {emit: {exchange: e, key: mailed}}
";
const PAY: &str =
    "step: pay, kind: pivot, command: {exchange: e, key: pay, body: =steps.first.output}, retry: RETRY";

/// The definitions of one history.
fn definitions(dice: &mut Rng) -> BTreeMap<&'static str, String> {
    let pivot = if dice.bool() { PAY } else { "call: pay, saga: mail, kind: pivot" };
    let deadline = if dice.bool() { "compensate" } else { "park" };
    let at_timeout = dice.choice(["continue", "compensate", "park"]).unwrap();
    let source = |saga, body: &str| {
        let head = format!(
            "saga: {saga}\nversion: 1\nstart: {{on: {{exchange: s, key: {saga}}}, business_key: =event.data.id}}"
        );
        let body =
            body.replace("PIVOT", pivot).replace("DEADLINE", deadline).replace("AT_TIMEOUT", at_timeout);
        (saga, head + &body.replace("RETRY", "{attempts: 2, initial: 1s}"))
    };
    BTreeMap::from([source("top", TOP), source("mid", MID), source("leaf", LEAF), source("mail", MAIL)])
}

/// An instance, and all that were called on its behalf.
struct Family {
    definitions: BTreeMap<&'static str, String>,
    members: BTreeMap<InstanceId, Run>,
    now: Timestamp,
    dice: Rng,
    seed: u64,
}

impl Family {
    fn new(seed: u64) -> Self {
        let mut dice = Rng::with_seed(seed);
        let definitions = definitions(&mut dice);
        let top = load("top", &definitions["top"]).unwrap();
        let run = Run::placed(top, json!({"id": "1", "n": dice.u8(0..4)}));
        let now = run.now;
        let mut family =
            Self { definitions, members: BTreeMap::from([(run.instance.id, run)]), now, dice, seed };
        family.pass_on();
        family
    }

    fn ids(&self) -> Vec<InstanceId> {
        self.members.keys().copied().collect()
    }

    /// Does something to a member, and passes on what follows.
    fn with<T>(&mut self, id: InstanceId, what: impl FnOnce(&mut Run) -> T) -> T {
        let run = self.members.get_mut(&id).unwrap();
        run.now = self.now;
        let made = what(run);
        self.now = run.now;
        self.pass_on();
        self.members.values().for_each(|run| self.check(run));
        made
    }

    fn pass_on(&mut self) {
        let mut told = VecDeque::new();
        loop {
            self.members.values_mut().for_each(|run| told.extend(run.told.drain(..)));
            match told.pop_front() {
                None => return,
                Some(Told::Start(start)) => {
                    let plan = load("called", &self.definitions[start.saga.as_str()]).unwrap();
                    assert_eq!(start.obstacle(&plan), None);
                    let run = Run::called(plan, *start, self.now);
                    assert!(self.members.insert(run.instance.id, run).is_none());
                }
                Some(Told::Event(id, event)) => {
                    let run = self.members.get_mut(&id).unwrap();
                    run.now = self.now;
                    run.event(event);
                }
            }
        }
    }

    fn check(&self, run: &Run) {
        let (seed, instance) = (self.seed, &run.instance);
        let at = format!("seed {seed}, {}", instance.business_key);
        assert_eq!(Instance::replay(instance.id, &run.history).as_ref(), Some(instance), "{at}");
        for part in instance.unconfirmed() {
            let again = command::render(&run.plan, instance, part).unwrap().unwrap();
            assert!(run.sent.contains(&again), "{at}: {part:?} is rendered otherwise");
        }
        for (step, state) in instance.steps.iter().enumerate().filter(|(_, state)| waits(state)) {
            let called = &self.members[&called_by(&run.plan, instance, step).unwrap()].instance;
            let moves = matches!(called.status, Status::Running | Status::Compensating) && !called.is_held();
            assert!(moves || instance.status == Status::Parked, "{at}: {} waits in vain", state.name);
        }
        if let Some(caller) = instance.caller.filter(|_| instance.ended_at.is_none()) {
            assert!(self.members[&caller.instance].instance.ended_at.is_none(), "{at}: is left behind");
        }
    }

    /// Something that may happen at any time, to a step that is not settled as a rule.
    fn step(&mut self) {
        let ids = self.ids();
        let id = *self.dice.choice(&ids).unwrap();
        let (order, phase, kind) = (self.dice.bool(), self.dice.u8(0..8), self.dice.u8(0..16));
        let verb = *self.dice.choice(&Verb::ALL).unwrap();
        let steps = self.members[&id].instance.steps.clone();
        let is_open = |step: &usize| {
            use StepStatus::{Compensating, Dispatched, Unknown};
            matches!(steps[*step].status, Dispatched | Compensating | Unknown)
        };
        let any = self.dice.usize(0..steps.len());
        let open: Vec<_> = (0..steps.len()).filter(is_open).collect();
        let step = self.dice.choice(&open).copied().filter(|_| phase > 0).unwrap_or(any);
        let undoing = steps[step].status == StepStatus::Compensating && !waits(&steps[step]);
        let phase = if undoing { Phase::Compensation } else { Phase::Action };
        self.with(id, |run| match kind {
            0..=4 => _ = run.reply(step, phase, Outcome::Success(Ok(json!({"v": 1})))),
            5 | 6 => _ = run.reply(step, phase, Outcome::Failure(failure("NO"))),
            7 => _ = run.reply(step, phase, Outcome::Retry(failure("LATER"), None)),
            8 => _ = run.reply(step, phase, Outcome::Success(Err(failure("BAD_OUTPUT")))),
            9 => _ = run.publish(),
            10 | 11 => _ = run.wait(),
            12 => _ = run.event(Event::Cancel { event_id: None, event: None }),
            13 => {
                let part = run.instance.unconfirmed().next();
                let returned =
                    |part| Event::Unroutable { part, reason: "none".into(), maybe_delivered: order };
                _ = part.map(|part| run.event(returned(part)));
            }
            _ => _ = run.order(verb, order.then_some(steps[step].name.as_str()), Value::Null),
        });
    }

    /// Has participants answer and people decide, until all have ended.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            if self.members.values().all(|run| run.instance.ended_at.is_some()) {
                return;
            }
            for id in self.ids() {
                self.with(id, |run| {
                    run.wait();
                });
                for step in 0..self.members[&id].instance.steps.len() {
                    for phase in Phase::BOTH {
                        let awaiting = self.members[&id].instance.steps[step].progress(phase).awaiting;
                        if matches!(awaiting, Awaiting::Reply(_) | Awaiting::Event(_)) {
                            let done = Outcome::Success(Ok(json!({"v": 1})));
                            self.with(id, |run| {
                                run.reply(step, phase, done);
                            });
                        }
                    }
                }
                if self.members[&id].instance.status == Status::Parked {
                    let verb = *self.dice.choice(&Verb::ALL).unwrap();
                    // What is refused is asked for otherwise in the next round.
                    let _ = self.with(id, |run| run.order(verb, None, Value::Null));
                }
            }
        }
        let open = self.members.values().filter(|run| run.instance.ended_at.is_none());
        panic!("seed {}: does not end: {:#?}", self.seed, open.map(|run| &run.instance).collect::<Vec<_>>());
    }

    /// What a step has called and kept has completed, and what it has undone is compensated.
    fn check_ends(&self) {
        for Run { plan, instance, .. } in self.members.values() {
            for (step, state) in instance.steps.iter().enumerate() {
                let called = called_by(plan, instance, step).and_then(|id| self.members.get(&id));
                let Some(called) = called.filter(|_| plan.steps[step].kind == Kind::Compensatable) else {
                    continue;
                };
                let expected = match state.status {
                    StepStatus::Succeeded => Status::Completed,
                    _ => Status::Compensated,
                };
                assert_eq!(
                    called.instance.status, expected,
                    "seed {}, {}",
                    self.seed, called.instance.business_key
                );
            }
        }
    }
}

/// Whether it waits for an instance that it called.
fn waits(state: &StepState) -> bool {
    [&state.action, &state.compensation]
        .iter()
        .any(|progress| matches!(progress.awaiting, Awaiting::Called | Awaiting::Recalled))
}

#[test]
fn in_any_order_of_inputs_nobody_waits_in_vain_for_one_that_it_called_and_all_end_together() {
    for seed in 0..HISTORIES {
        let mut family = Family::new(seed);
        for _ in 0..family.dice.usize(0..60) {
            family.step();
        }
        family.settle();
        family.check_ends();
    }
}
