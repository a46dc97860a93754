//! Sagas that call sagas, from both sides: a little world in which what one instance tells another arrives at once.

use std::collections::BTreeMap;

use sagamq::saga::called::{Caller, Start, Told, called_by};
use sagamq::saga::id::{InstanceId, StoreId};
use sagamq::saga::transition::start_called;

use super::parallel::with_steps;
use super::*;

const CALL: usize = 0;
const PAY: usize = 1;

fn paid(kind: &str) -> Vec<String> {
    let call = format!("{{call: stay, saga: stay, kind: {kind}, input: {{city: =input.items}}}}");
    let pay = "{step: pay, command: {exchange: e, key: pay}, compensate: none}".to_owned();
    let later = "{step: pay, kind: retriable, command: {exchange: e, key: pay}}".to_owned();
    if kind == "compensatable" { vec![call, pay] } else { vec![call, later] }
}

fn stay(pivot: bool) -> Plan {
    let kind = if pivot { "kind: pivot" } else { "compensate: {command: {exchange: e, key: cancel}}" };
    let source = format!(
        "saga: stay\nversion: 3\nstart: {{on: {{exchange: s, key: k}}, business_key: =event.data.id}}\n\
         deadline: {{after: 10m}}\nsteps:\n  - {{step: book, command: {{exchange: e, key: book}}, output: =reply.data, {kind}}}\n\
         output: {{room: =steps.book.output.room}}\non_completed: {{emit: {{exchange: e, key: stay_done}}}}\n"
    );
    load("stay.yaml", &source).unwrap()
}

/// A caller and all that it has called.
struct World {
    caller: Run,
    called: BTreeMap<InstanceId, Run>,
    plan: fn() -> Plan,
}

impl World {
    fn new(kind: &str, plan: fn() -> Plan) -> Self {
        let caller = Run::of(with_steps(&paid(kind)));
        let mut world = Self { caller, called: BTreeMap::new(), plan };
        let told = std::mem::take(&mut world.caller.told);
        world.pass_on(told);
        world
    }

    fn pass_on(&mut self, mut told: Vec<Told>) {
        while !told.is_empty() {
            let now = self.caller.now;
            for one in std::mem::take(&mut told) {
                match one {
                    Told::Start(start) => {
                        let run = Run::called((self.plan)(), *start, now);
                        self.called.insert(run.instance.id, run);
                    }
                    Told::Event(id, event) => {
                        let run = match self.called.get_mut(&id) {
                            Some(run) => run,
                            None => &mut self.caller,
                        };
                        run.now = now;
                        run.event(event);
                        told.append(&mut run.told);
                    }
                }
            }
            told.append(&mut self.caller.told);
        }
    }

    /// The instance that was called last.
    fn id(&self) -> InstanceId {
        called_by(&self.caller.plan, &self.caller.instance, CALL).unwrap()
    }

    fn last(&mut self) -> &mut Run {
        let id = self.id();
        self.called.get_mut(&id).unwrap()
    }

    /// Does something to the instance that was called, and passes on what follows.
    fn there(&mut self, what: impl FnOnce(&mut Run)) -> &mut Self {
        what(self.last());
        let told = std::mem::take(&mut self.last().told);
        self.pass_on(told);
        self
    }

    fn here(&mut self, what: impl FnOnce(&mut Run)) -> &mut Self {
        what(&mut self.caller);
        let told = std::mem::take(&mut self.caller.told);
        self.pass_on(told);
        self
    }

    fn booked(kind: &str, plan: fn() -> Plan) -> Self {
        let mut world = Self::new(kind, plan);
        world.there(|run| {
            run.reply(0, Phase::Action, Outcome::Success(Ok(json!({"room": 7}))));
        });
        world
    }

    fn statuses(&mut self) -> (Status, Status) {
        (self.caller.instance.status, self.last().instance.status)
    }
}

impl Run {
    pub(super) fn called(plan: Plan, begun: Start, now: Timestamp) -> Self {
        let (instance, decision) = start_called(&plan, begun, StoreId::default(), now);
        let (history, sent, told) = (Vec::new(), Vec::new(), Vec::new());
        let mut run = Self { plan, instance, now, history, sent, told };
        run.keep(decision);
        run
    }
}

#[test]
fn a_called_saga_begins_with_its_input_and_answers_with_its_output() {
    let mut world = World::new("compensatable", || stay(false));
    assert_eq!(world.last().instance.business_key, "order/A-1/stay");
    assert_eq!(*world.last().instance.input, json!({"city": [1, 2]}));
    assert_eq!(world.caller.step(CALL), StepStatus::Dispatched);
    assert!(world.caller.keys().is_empty(), "no message is sent for a call");
    world.there(|run| {
        run.reply(0, Phase::Action, Outcome::Success(Ok(json!({"room": 7}))));
    });
    assert_eq!(world.caller.instance.steps[CALL].output.as_deref(), Some(&json!({"room": 7})));
    assert_eq!(world.caller.keys(), ["pay"]);
}

#[test]
fn a_called_saga_that_may_have_to_be_undone_is_held_until_its_caller_completes() {
    let mut world = World::booked("compensatable", || stay(false));
    assert!(world.last().instance.held);
    assert_eq!(world.statuses(), (Status::Running, Status::Running));
    world.last().event(Event::Cancel { event_id: None, event: None });
    let refused = world.last().order(Verb::Compensate, None, Value::Null).unwrap_err();
    assert!(refused.contains("up to the instance that called it"), "{refused}");
    world.last().now = world.caller.now + Duration::from_secs(3600);
    world.last().event(Event::Tick);
    assert_eq!(world.statuses(), (Status::Running, Status::Running), "its deadline is over");
    world.here(|run| {
        run.succeed(PAY);
    });
    assert_eq!(world.statuses(), (Status::Completed, Status::Completed));
    assert_eq!(world.last().keys(), ["book", "stay_done"]);
}

#[test]
fn only_the_instance_that_called_it_has_it_turn_back_or_complete() {
    let mut world = World::booked("compensatable", || stay(false));
    let (caller, other) = (world.caller.instance.id, InstanceId::new("order", "A-2"));
    for event in [Event::Recall { caller: other }, Event::Release { caller: other }] {
        world.last().event(event);
        assert_eq!(world.statuses(), (Status::Running, Status::Running));
    }
    world.last().event(Event::Recall { caller });
    assert_eq!(world.last().instance.status, Status::Compensating);
}

#[test]
fn a_caller_that_turns_back_has_what_it_called_turn_back_and_waits_for_that() {
    let mut world = World::booked("compensatable", || stay(false));
    world.here(|run| {
        run.refuse(PAY);
    });
    assert_eq!(world.statuses(), (Status::Compensating, Status::Compensating));
    assert_eq!(world.last().instance.error.as_ref().unwrap().code, "RECALLED");
    world.there(|run| {
        run.undo(0);
    });
    assert_eq!(world.statuses(), (Status::Compensated, Status::Compensated));
    assert_eq!(world.caller.step(CALL), StepStatus::Compensated);
}

#[test]
fn a_called_saga_that_is_under_way_is_recalled_and_awaited_when_its_caller_stops() {
    let mut world = World::new("compensatable", || stay(false));
    world.here(|run| {
        run.event(Event::Cancel { event_id: None, event: None });
    });
    assert_eq!(world.caller.instance.status, Status::Running, "what is in flight is awaited");
    world.there(|run| {
        run.reply(0, Phase::Action, Outcome::Success(Ok(json!({"room": 7}))));
        run.undo(0);
    });
    assert_eq!(world.statuses(), (Status::Compensated, Status::Compensated));
    assert_eq!(world.caller.step(CALL), StepStatus::Failed);
}

#[test]
fn a_called_saga_that_is_compensated_fails_the_step_with_its_error() {
    for (kind, pivot, status) in
        [("compensatable", false, Status::Compensated), ("pivot", true, Status::Compensated)]
    {
        let plan: fn() -> Plan = if pivot { || stay(true) } else { || stay(false) };
        let mut world = World::new(kind, plan);
        world.there(|run| {
            run.refuse(0);
        });
        assert_eq!(world.statuses(), (status, Status::Compensated), "{kind}");
        let error = world.caller.instance.error.as_ref().unwrap();
        assert_eq!((error.code.as_str(), error.step.as_deref()), ("NO", Some("stay")));
    }
}

#[test]
fn a_called_saga_that_is_never_undone_completes_at_once() {
    let mut world = World::booked("pivot", || stay(true));
    assert_eq!(world.statuses(), (Status::Running, Status::Completed));
    assert_eq!(world.caller.keys(), ["pay"]);
}

#[test]
fn a_caller_is_parked_with_what_it_called_and_goes_on_with_its_end() {
    let mut world = World::booked("compensatable", || stay(false));
    world.here(|run| {
        run.refuse(PAY);
    });
    world.there(|run| {
        run.reply(0, Phase::Compensation, Outcome::Failure(failure("LOCKED")));
    });
    assert_eq!(world.statuses(), (Status::Parked, Status::Parked));
    assert_eq!(world.caller.instance.parked.as_ref().unwrap().code, "CALLED_PARKED");
    let id = world.id().to_string();
    let refused = world.caller.order(Verb::Skip, None, Value::Null).unwrap_err();
    assert!(refused.contains(&id), "{refused}");
    world.there(|run| run.order(Verb::Skip, None, Value::Null).unwrap());
    assert_eq!(world.statuses(), (Status::Compensated, Status::Compensated));
}

#[test]
fn a_parked_caller_can_be_cancelled_and_takes_what_it_called_along() {
    let mut world = World::new("pivot", || stay(true));
    world.there(|run| {
        run.exhaust(0, Phase::Action);
    });
    assert_eq!(world.statuses(), (Status::Parked, Status::Parked));
    let mut world = World::new("compensatable", || stay(false));
    world.there(|run| {
        let parked = failure("ELSEWHERE");
        run.instance.status = Status::Parked;
        run.instance.parked = Some(parked.clone());
        run.told.push(Told::Event(
            run.instance.caller.unwrap().instance,
            Event::CalledEnded { step: CALL, item: None, end: sagamq::saga::called::End::Parked(parked) },
        ));
    });
    assert_eq!(world.caller.instance.status, Status::Parked);
    world.here(|run| run.order(Verb::Cancel, None, Value::Null).unwrap());
    world.there(|run| {
        run.refuse(0);
    });
    assert_eq!(world.statuses(), (Status::Compensated, Status::Compensated));
}

#[test]
fn a_called_saga_whose_pivot_is_in_doubt_does_not_turn_back_and_its_caller_is_parked_with_it_again() {
    let end = |verb: Verb| {
        let mut world = World::new("pivot", || stay(true));
        world.there(|run| {
            run.exhaust(0, Phase::Action);
        });
        world.here(|run| run.order(Verb::Cancel, None, Value::Null).unwrap());
        assert_eq!(world.statuses(), (Status::Parked, Status::Parked), "the pivot may have succeeded");
        assert_eq!(world.caller.instance.parked.as_ref().unwrap().code, "CALLED_PARKED");
        let output = if verb == Verb::ResolveSucceeded { json!({"room": 7}) } else { Value::Null };
        world.there(|run| run.order(verb, None, output).unwrap());
        world.statuses()
    };
    assert_eq!(end(Verb::ResolveFailed), (Status::Compensated, Status::Compensated));
    assert_eq!(end(Verb::ResolveSucceeded), (Status::Running, Status::Completed));
}

#[test]
fn a_caller_that_turns_back_is_parked_again_with_what_it_called_and_cannot_be_undone() {
    let mut world = World::new("compensatable", || {
        let second = "  - {step: pay, command: {exchange: e, key: pay}, compensate: none}\n";
        let source = "saga: stay\nversion: 3\nstart: {on: {exchange: s, key: k}, business_key: =event.data.id}\nsteps:\n";
        let first = "  - {step: book, command: {exchange: e, key: book}, compensate: {command: {exchange: e, key: cancel}}}\n";
        load("stay.yaml", &format!("{source}{first}{second}")).unwrap()
    });
    world.there(|run| {
        run.succeed(0).refuse(1).reply(0, Phase::Compensation, Outcome::Failure(failure("LOCKED")));
    });
    assert_eq!(world.statuses(), (Status::Parked, Status::Parked));
    world.here(|run| run.order(Verb::Cancel, None, Value::Null).unwrap());
    assert_eq!(world.statuses(), (Status::Parked, Status::Parked));
    world.there(|run| run.order(Verb::Skip, None, Value::Null).unwrap());
    assert_eq!(world.statuses(), (Status::Compensated, Status::Compensated));
}

#[test]
fn what_cannot_be_undone_or_nests_too_deep_is_not_begun() {
    let caller =
        Caller { instance: InstanceId::new("a", "b"), step: 0, item: None, undoable: true, depth: 1 };
    let (saga, business_key) = ("stay".to_owned(), "k".to_owned());
    let begin = |caller| Start {
        saga: saga.clone(),
        business_key: business_key.clone(),
        input: Value::Null,
        caller,
        trace: None,
    };
    assert_eq!(begin(caller).obstacle(&stay(false)), None);
    assert_eq!(begin(caller).obstacle(&stay(true)).unwrap().code, "NOT_UNDOABLE");
    assert_eq!(begin(Caller { undoable: false, ..caller }).obstacle(&stay(true)), None);
    assert_eq!(begin(Caller { depth: 9, ..caller }).obstacle(&stay(false)).unwrap().code, "TOO_DEEP");
}

#[test]
fn a_step_after_the_pivot_calls_again_on_order() {
    let mut world = World::new("compensatable", || stay(false));
    let steps = [
        "{step: pay, kind: pivot, command: {exchange: e, key: pay}}",
        "{call: stay, saga: stay, kind: retriable}",
    ];
    world.caller = Run::of(with_steps(&steps.map(str::to_owned)));
    world.here(|run| {
        run.succeed(0);
    });
    let first = called_by(&world.caller.plan, &world.caller.instance, 1).unwrap();
    world.called.get_mut(&first).unwrap().refuse(0);
    let told = std::mem::take(&mut world.called.get_mut(&first).unwrap().told);
    world.pass_on(told);
    assert_eq!(world.caller.instance.status, Status::Parked);
    world.here(|run| run.order(Verb::Retry, None, Value::Null).unwrap());
    let again = called_by(&world.caller.plan, &world.caller.instance, 1).unwrap();
    assert_eq!(world.called[&again].instance.business_key, "order/A-1/stay#2");
    world.called.get_mut(&again).unwrap().reply(0, Phase::Action, Outcome::Success(Ok(json!({"room": 1}))));
    let told = std::mem::take(&mut world.called.get_mut(&again).unwrap().told);
    world.pass_on(told);
    assert_eq!(world.caller.instance.status, Status::Completed);
}
