//! Limits over all instances: who has a turn, when, and what frees a slot.

use proptest::prelude::*;
use sagamq::engine::Ordered;
use sagamq::saga::command;
use sagamq::saga::correlation::{Asked, Sealer};
use sagamq::saga::id::Phase;
use sagamq::saga::message::Part;
use sagamq::saga::order::{Order, Verb};

use super::*;

/// A saga of one step, or of that and another beside it, which parks what it hears nothing of.
fn definition(limit: &str) -> String {
    format!(
        "saga: order
version: 1
start: {{on: {{exchange: orders, key: order.placed}}, business_key: =event.data.order_id}}
cancel: {{on: {{exchange: orders, key: order.cancelled}}, business_key: =event.data.order_id}}
deadline: {{after: 1h}}
steps:
  - parallel: both
    steps:
      - step: print
        command: {{exchange: printers, key: print}}
        timeout: 10s
        retry: {{attempts: 2, initial: 20s, jitter: none}}
        limit: {limit}
        compensate: none
      - step: ask
        when: =has(input.items) && size(input.items) > 0
        command: {{exchange: desk, key: ask}}
        timeout: 1s
        on_timeout: park
        compensate: none
"
    )
}

fn world(limit: &str) -> World {
    let mut world = World::of(&definition(limit));
    world.engine.listen(true, world.now);
    world
}

impl World {
    fn place_asking(&mut self, order: &str) {
        let data = json!({"order_id": order, "items": [1]});
        self.deliver(Queue::Events, Ok(event("orders", "order.placed", data)));
    }

    fn cancel(&mut self, order: &str) {
        self.deliver(Queue::Events, Ok(event("orders", "order.cancelled", json!({"order_id": order}))));
    }

    fn order(&mut self, order: &str, verb: Verb, step: &str) {
        assert_eq!(self.ask(order, verb, step), Ordered::Done);
    }

    fn ask(&mut self, order: &str, verb: Verb, step: &str) -> Ordered {
        let (step, actor, reason) = (Some(step.to_owned()), "ann".to_owned(), "jammed".to_owned());
        let asked = Order { verb, step, output: Value::Null, actor, reason };
        self.engine.order(InstanceId::new("order", order), asked, self.now).unwrap()
    }

    /// What is sent, as key and order.
    fn sends(&mut self) -> Vec<String> {
        let outgoing = self.commit().outgoing;
        outgoing.iter().map(|outgoing| format!("{} {}", outgoing.key, self.order_of(outgoing))).collect()
    }

    fn order_of(&self, outgoing: &Outgoing) -> String {
        self.store.reader().instance(outgoing.origin.instance).unwrap().unwrap().business_key
    }

    /// What the participant of a step is asked for an order, once more.
    fn asked(&self, order: &str, step: usize) -> Outgoing {
        let instance = self.instance(order);
        let attempt = instance.steps[step].action.attempt;
        let part = Part::Attempt { step, phase: Phase::Action, attempt };
        let plan = load("order.yaml", &definition("{in_flight: 1}")).unwrap();
        let key = self.store.reader().identity().key();
        let asked = Asked { instance: instance.id, step, phase: Phase::Action, attempt };
        let correlation = Sealer::new(key).issue(asked, instance.started_at);
        let outgoing = command::render(&plan, &instance, part).unwrap().unwrap();
        Outgoing { correlation: Some(correlation), ..outgoing }
    }

    fn answer(&mut self, order: &str, step: usize, outcome: &str) {
        let asked = self.asked(order, step);
        self.reply(&asked, outcome);
    }

    fn confirm(&mut self, order: &str, step: usize) {
        let asked = self.asked(order, step);
        self.published(&asked);
    }

    /// The broker has no queue for what is to be printed.
    fn come_back(&mut self, order: &str) {
        let verdict = Verdict::Unroutable { reason: "NO_ROUTE".to_owned(), maybe_delivered: false };
        let origin = self.asked(order, PRINT).origin;
        self.engine.handle_report(Report { origin, verdict }, self.now).unwrap();
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.engine.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.engine.tick(self.now).unwrap();
        }
        self.now = until;
    }
}

const PRINT: usize = 0;
const ASK: usize = 1;

#[test]
fn instances_have_their_turn_in_the_order_in_which_they_came_in_the_commit_that_frees_a_slot() {
    let mut world = world("{in_flight: 2}");
    for order in ["A-3", "A-1", "A-4", "A-2"] {
        world.place(order);
        world.now = world.now + Duration::from_millis(1);
    }
    assert_eq!(world.sends(), ["print A-3", "print A-1"]);
    assert_eq!(world.instance("A-4").steps[PRINT].action.awaiting, Awaiting::Turn);
    world.answer("A-1", PRINT, "success");
    assert_eq!(world.sends(), ["print A-4"]);
    world.answer("A-3", PRINT, "success");
    world.answer("A-4", PRINT, "success");
    assert_eq!(world.sends(), ["print A-2"]);
    world.answer("A-2", PRINT, "success");
    world.place("A-5");
    assert_eq!(world.sends(), ["print A-5"]);
}

#[test]
fn every_way_in_which_an_attempt_ends_frees_its_slot_at_once() {
    type End = fn(&mut World);
    let ends: [(&str, End); 8] = [
        ("success", |world| world.answer("A-1", PRINT, "success")),
        ("failure", |world| world.answer("A-1", PRINT, "failure")),
        ("retry", |world| world.answer("A-1", PRINT, "retry")),
        ("timeout", |world| {
            world.confirm("A-1", PRINT);
            world.pass(Duration::from_secs(10));
        }),
        ("unroutable", |world| world.come_back("A-1")),
        ("skip", |world| world.order("A-1", Verb::Skip, "print")),
        ("resolve as succeeded", |world| world.order("A-1", Verb::ResolveSucceeded, "print")),
        ("resolve as failed", |world| world.order("A-1", Verb::ResolveFailed, "print")),
    ];
    for (what, end) in ends {
        let mut world = world("{in_flight: 1}");
        world.place("A-1");
        world.now = world.now + Duration::from_millis(1);
        world.place("A-2");
        assert_eq!(world.sends(), ["print A-1"], "{what}");
        end(&mut world);
        assert_eq!(world.sends(), ["print A-2"], "{what}");
    }
}

#[test]
fn an_attempt_that_is_still_worked_on_or_drained_keeps_its_slot() {
    let mut world = world("{in_flight: 1}");
    world.place("A-1");
    world.place("A-2");
    world.commit();
    world.answer("A-1", PRINT, "pending");
    world.cancel("A-1");
    assert_eq!(world.sends(), [""; 0]);
    world.answer("A-1", PRINT, "success");
    assert_eq!(world.sends(), ["print A-2"]);
}

#[test]
fn a_further_attempt_holds_no_slot_while_it_waits_and_comes_last_when_it_is_due() {
    let mut world = world("{in_flight: 1}");
    world.place("A-1");
    world.pass(Duration::from_millis(1));
    world.place("A-2");
    world.commit();
    world.answer("A-1", PRINT, "retry");
    assert_eq!(world.sends(), ["print A-2"]);
    world.pass(Duration::from_secs(1));
    world.place("A-3");
    world.commit();
    world.answer("A-2", PRINT, "pending");
    for _ in 0..4 {
        world.pass(Duration::from_secs(5));
        world.answer("A-2", PRINT, "pending");
    }
    assert_eq!(world.sends(), [""; 0]);
    assert_eq!(world.instance("A-1").steps[PRINT].action.awaiting, Awaiting::Turn, "its delay is over");
    world.answer("A-2", PRINT, "success");
    assert_eq!(world.sends(), ["print A-3"]);
    world.answer("A-3", PRINT, "success");
    assert_eq!(world.sends(), ["print A-1"]);
    assert_eq!(world.instance("A-1").steps[PRINT].action.attempt, 2);
}

#[test]
fn whoever_stops_or_is_settled_in_the_queue_gives_up_the_turn() {
    let mut world = world("{in_flight: 1}");
    for order in ["A-1", "A-2", "A-3", "A-4"] {
        world.place(order);
        world.now = world.now + Duration::from_millis(1);
    }
    world.commit();
    world.cancel("A-2");
    world.order("A-3", Verb::Skip, "print");
    world.commit();
    assert_eq!(
        (world.instance("A-2").status, world.instance("A-3").status),
        (Status::Compensated, Status::Completed)
    );
    world.answer("A-1", PRINT, "success");
    assert_eq!(world.sends(), ["print A-4"]);
}

#[test]
fn a_restart_finds_what_is_out_and_who_waits_in_the_same_order() {
    let limit = definition("{in_flight: 2}");
    let mut world = world("{in_flight: 2}");
    for order in ["A-5", "A-2", "A-4", "A-1", "A-3"] {
        world.place(order);
        world.now = world.now + Duration::from_millis(1);
    }
    assert_eq!(world.sends(), ["print A-5", "print A-2"]);
    world.confirm("A-5", PRINT);
    world.answer("A-2", PRINT, "success");
    assert_eq!(world.sends(), ["print A-4"]);
    let mut order = Vec::new();
    for last in ["A-5", "A-4", "A-1"] {
        let (restarted, recovered) = world.restart_with(&[&limit]);
        world = restarted;
        assert!(recovered.outgoing.iter().all(|outgoing| &*outgoing.key == "print"));
        world.place("A-9");
        assert_eq!(world.sends(), [""; 0], "nothing goes before {last} is answered");
        world.answer(last, PRINT, "success");
        order.extend(world.sends());
    }
    assert_eq!(order, ["print A-1", "print A-3", "print A-9"]);
}

#[test]
fn a_rate_is_evenly_spread_and_nothing_is_saved_up_while_nobody_waits() {
    let mut world = world("{per_second: 4}");
    world.pass(Duration::from_secs(100));
    for order in 1..=5 {
        world.place(&format!("A-{order}"));
    }
    let begin = world.now;
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push((world.now.since(begin).as_millis(), world.sends().len()));
        let Some(due) = world.engine.next_due().filter(|due| due.since(begin) < Duration::from_secs(5))
        else {
            break;
        };
        world.now = world.now.max(due);
        world.engine.tick(world.now).unwrap();
    }
    assert_eq!(times, [(0, 1), (250, 1), (500, 1), (750, 1), (1000, 1)]);
}

#[test]
fn a_rate_that_could_not_be_kept_is_caught_up_a_tenth_of_a_second_at_most() {
    for (late_ms, expected) in [(5, 1), (25, 3), (60_000, 11)] {
        let mut world = world("{per_second: 100}");
        for order in 1..=100 {
            world.place(&format!("A-{order}"));
        }
        assert_eq!(world.sends().len(), 1);
        world.now = world.now + Duration::from_millis(5 + late_ms);
        world.engine.tick(world.now).unwrap();
        assert_eq!(world.sends().len(), expected, "{late_ms} ms late");
    }
}

#[test]
fn a_restart_does_not_shorten_the_way_to_the_next_turn() {
    let mut world = world("{per_second: 0.1}");
    world.place("A-1");
    world.place("A-2");
    assert_eq!(world.sends().len(), 1);
    let (mut world, _) = world.restart_with(&[&definition("{per_second: 0.1}")]);
    world.engine.listen(true, world.now);
    world.pass(Duration::from_millis(9_999));
    assert_eq!(world.sends(), [""; 0]);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.sends().len(), 1);
}

#[test]
fn turns_by_rate_go_on_while_timers_wait_for_what_came_in_meanwhile() {
    let mut world = world("{per_second: 4}");
    for order in ["A-1", "A-2", "A-3"] {
        world.place(order);
        world.now = world.now + Duration::from_millis(1);
    }
    assert_eq!(world.sends(), ["print A-1"]);
    world.confirm("A-1", PRINT);
    world.engine.store_marks();
    world.commit();
    world.engine.listen(false, world.now);
    world.pass(Duration::from_secs(20));
    assert_eq!(world.sends(), [""; 0], "while nothing can be heard, nobody has a turn");
    let (mut world, _) = world.restart_with(&[&definition("{per_second: 4}")]);
    world.engine.listen(true, world.now);
    world.pass(Duration::ZERO);
    assert_eq!(world.sends(), ["print A-2"]);
    world.pass(Duration::from_millis(250));
    assert_eq!(world.sends(), ["print A-3"]);
    assert!(matches!(world.instance("A-1").steps[PRINT].action.awaiting, Awaiting::Reply(_)));
    world.pass(Duration::from_secs(5));
    world.commit();
    assert!(matches!(world.instance("A-1").steps[PRINT].action.awaiting, Awaiting::Retry(_)), "timed out");
}

#[test]
fn a_rate_of_next_to_nothing_lets_one_go_also_over_a_restart() {
    let limit = definition("{per_second: 1e-30}");
    let mut world = world("{per_second: 1e-30}");
    world.place("A-1");
    world.place("A-2");
    assert_eq!(world.sends(), ["print A-1"]);
    let (mut world, _) = world.restart_with(&[&limit]);
    world.engine.listen(true, world.now);
    world.pass(Duration::from_secs(60));
    assert!(world.sends().is_empty());
}

#[test]
fn both_limits_hold_together() {
    let mut world = world("{in_flight: 1, per_second: 1}");
    world.place("A-1");
    world.now = world.now + Duration::from_millis(1);
    world.place("A-2");
    world.commit();
    world.answer("A-1", PRINT, "success");
    assert_eq!(world.sends(), [""; 0], "the rate does not allow it yet");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.sends(), ["print A-2"]);
}

#[test]
fn a_parked_instance_gives_way_in_the_queue_and_has_its_old_place_when_it_goes_on() {
    let mut world = world("{in_flight: 1}");
    world.place("A-1");
    world.pass(Duration::from_millis(1));
    world.place_asking("A-2");
    world.pass(Duration::from_millis(1));
    world.place("A-3");
    world.pass(Duration::from_millis(1));
    world.place("A-4");
    assert_eq!(world.sends(), ["print A-1", "ask A-2"]);
    world.confirm("A-2", ASK);
    world.pass(Duration::from_secs(1));
    world.commit();
    assert_eq!(world.instance("A-2").status, Status::Parked);
    world.answer("A-1", PRINT, "success");
    assert_eq!(world.sends(), ["print A-3"]);
    world.order("A-2", Verb::ResolveSucceeded, "ask");
    world.answer("A-3", PRINT, "success");
    assert_eq!(world.sends(), ["print A-2"]);
}

#[test]
fn what_is_out_of_a_parked_instance_holds_its_slot_up_to_its_timeout_also_over_a_restart() {
    for restarted in [false, true] {
        let mut world = world("{in_flight: 1}");
        world.place_asking("A-1");
        world.pass(Duration::from_millis(1));
        world.place("A-2");
        world.commit();
        world.confirm("A-1", PRINT);
        world.confirm("A-1", ASK);
        world.pass(Duration::from_secs(2));
        world.commit();
        assert_eq!(world.instance("A-1").status, Status::Parked);
        if restarted {
            world = world.restart_with(&[&definition("{in_flight: 1}")]).0;
            world.engine.listen(true, world.now);
        }
        world.pass(Duration::from_millis(7_999));
        assert_eq!(world.sends(), [""; 0], "it may still be answered");
        world.pass(Duration::from_millis(1));
        assert_eq!(world.sends(), ["print A-2"]);
        world.order("A-1", Verb::ResolveSucceeded, "ask");
        world.engine.tick(world.now).unwrap();
        world.commit();
        assert!(
            matches!(world.instance("A-1").steps[PRINT].action.awaiting, Awaiting::Retry(_)),
            "timed out"
        );
    }
}

#[test]
fn another_version_has_its_own_limit_and_stands_in_the_same_queue() {
    let mut world = world("{in_flight: 1}");
    world.place("A-1");
    world.now = world.now + Duration::from_millis(1);
    world.place("A-2");
    let second = loaded(&[&definition("{in_flight: 3}").replace("\nversion: 1", "\nversion: 2")]);
    world.engine.define(&second).unwrap();
    world.commit();
    world.engine.adopt(&second);
    for order in ["A-3", "A-4", "A-5"] {
        world.now = world.now + Duration::from_millis(1);
        world.place(order);
    }
    assert_eq!(world.sends(), [""; 0], "A-2 came first, and lets one out only");
    world.answer("A-1", PRINT, "success");
    assert_eq!(world.sends(), ["print A-2", "print A-3", "print A-4"]);
}

#[test]
fn a_timeout_is_not_late_because_the_command_of_another_branch_is_unconfirmed() {
    let mut world = world("{in_flight: 1}");
    world.place_asking("A-1");
    world.commit();
    world.pass(Duration::from_secs(55));
    world.confirm("A-1", PRINT);
    world.pass(Duration::from_secs(10));
    world.commit();
    assert!(matches!(world.instance("A-1").steps[PRINT].action.awaiting, Awaiting::Retry(_)));
}

/// Something that happens to one of the orders.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Place { asking: bool },
    Answer { step: usize, outcome: &'static str },
    Confirm { step: usize },
    ComeBack,
    Cancel,
    Order { verb: Verb, step: &'static str },
    Pass { ms: u64 },
    Restart,
}

fn happening() -> impl Strategy<Value = Happening> {
    let outcome = prop_oneof![
        4 => Just("success"), 1 => Just("failure"), 2 => Just("retry"), 1 => Just("pending")
    ];
    prop_oneof![
        8 => any::<bool>().prop_map(|asking| Happening::Place { asking }),
        8 => (0..2usize, outcome).prop_map(|(step, outcome)| Happening::Answer { step, outcome }),
        8 => (0..2usize).prop_map(|step| Happening::Confirm { step }),
        1 => Just(Happening::ComeBack),
        1 => Just(Happening::Cancel),
        2 => (proptest::sample::select(Verb::ALL.to_vec()), proptest::sample::select(vec!["print", "ask"]))
            .prop_map(|(verb, step)| Happening::Order { verb, step }),
        5 => (1..15_000u64).prop_map(|ms| Happening::Pass { ms }),
        1 => Just(Happening::Restart),
    ]
}

fn happen(mut world: World, order: &str, happening: Happening) -> World {
    world.now = world.now + Duration::from_millis(1);
    let known = world.store.reader().instance(InstanceId::new("order", order)).unwrap();
    let awaiting = |step: usize| known.as_ref().map(|instance| instance.steps[step].action.awaiting);
    let was_sent = |step: usize| known.as_ref().is_some_and(|known| known.steps[step].action.attempt > 0);
    match happening {
        Happening::Place { asking: true } => world.place_asking(order),
        Happening::Place { asking: false } => _ = world.place(order),
        Happening::Answer { step, outcome } if was_sent(step) => world.answer(order, step, outcome),
        Happening::Confirm { step } if awaiting(step) == Some(Awaiting::Confirm) => {
            world.confirm(order, step)
        }
        Happening::ComeBack if awaiting(PRINT) == Some(Awaiting::Confirm) => world.come_back(order),
        Happening::Cancel => world.cancel(order),
        Happening::Order { verb, step } => _ = world.ask(order, verb, step),
        Happening::Pass { ms } => world.pass(Duration::from_millis(ms)),
        Happening::Restart => {
            world = world.restart_with(&[&definition("{in_flight: 2}")]).0;
            world.engine.listen(true, world.now);
            // Timers wait for a moment.
            world.pass(Duration::from_secs(6));
        }
        Happening::Answer { .. } | Happening::Confirm { .. } | Happening::ComeBack => {}
    }
    world.pass(Duration::ZERO);
    world.engine.store_marks();
    world.commit();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_of_events_no_more_are_out_than_the_limit_lets_and_nobody_waits_in_vain(
        happenings in proptest::collection::vec((1..8usize, happening()), 0..80),
    ) {
        let mut world = world("{in_flight: 2}");
        for (order, happening) in happenings {
            world = happen(world, &format!("A-{order}"), happening);
            let (mut out, mut waiting) = (0, 0);
            for instance in world.store.reader().instances().map(Result::unwrap) {
                let is_parked = instance.status == Status::Parked;
                match instance.steps[PRINT].action.awaiting {
                    Awaiting::Confirm => out += 1,
                    Awaiting::Reply(due) if due > world.now => out += 1,
                    Awaiting::Turn if !is_parked => waiting += 1,
                    _ => {}
                }
            }
            prop_assert!(out <= 2, "{out} are out");
            prop_assert!(out == 2 || waiting == 0, "{waiting} wait, and {out} are out");
        }
    }
}
