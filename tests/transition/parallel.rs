//! Branches: forward at the same time, back at the same time, and one that waits for the others.

use sagamq::saga::reply::answered_step;

use super::*;

const RESERVE: usize = 0;
const HOTEL: usize = 1;
const FLIGHT: usize = 2;
const CAR: usize = 3;
const INSURE: usize = 4;
const SEAT: usize = 5;
const PAY: usize = 6;
const MAIL: usize = 7;
const INVOICE: usize = 8;

/// reserve -> [hotel | flight | car -> [insure | seat]] -> pay (pivot) -> [mail | invoice]
fn trip() -> Plan {
    let undone = |name: &str| {
        format!(
            "{{step: {name}, command: {{exchange: e, key: {name}}}, timeout: 10s, retry: normal, compensate: {{command: {{exchange: e, key: undo_{name}}}, timeout: 10s, retry: undo}}}}"
        )
    };
    let forward = |name: &str, kind: &str| {
        format!("{{step: {name}, kind: {kind}, command: {{exchange: e, key: {name}}}, timeout: 10s}}")
    };
    let [reserve, hotel, flight, car, insure, seat] =
        ["reserve", "hotel", "flight", "car", "insure", "seat"].map(undone);
    let flight = flight.replace("step: flight", "step: flight, when: =input.customer != 'no-flight'");
    let (pay, mail, invoice) =
        (forward("pay", "pivot"), forward("mail", "retriable"), forward("invoice", "retriable"));
    let extras = format!("{{parallel: extras, steps: [{insure}, {seat}]}}");
    let by_car = format!("{{sequence: by_car, steps: [{car}, {extras}]}}");
    let bookings = format!("{{parallel: bookings, join: all, steps: [{hotel}, {flight}, {by_car}]}}");
    let after = format!("{{steps: [{mail}, {invoice}], parallel: after}}");
    with_steps(&[reserve, bookings, pay, after])
}

/// The order saga with other steps.
pub(super) fn with_steps(steps: &[String]) -> Plan {
    let (head, rest) = DEFINITION.split_once("\nsteps:\n").unwrap();
    let (_, tail) = rest.split_once("\non_completed:").unwrap();
    let steps: String = steps.iter().map(|step| format!("  - {step}\n")).collect();
    load("order.yaml", &format!("{head}\nsteps:\n{steps}on_completed:{tail}")).unwrap_or_else(|problems| {
        panic!("{}\n{steps}", problems[0]);
    })
}

/// A run in which everything up to `bookings` is done.
fn booking() -> Run {
    let mut run = Run::of(trip());
    run.succeed(RESERVE);
    run
}

/// A run in which only the payment is still to be done before the second block.
fn booked() -> Run {
    let mut run = booking();
    for step in [CAR, SEAT, HOTEL, INSURE, FLIGHT] {
        run.succeed(step);
    }
    run
}

/// What was sent by the last entry of the history, in alphabetical order.
fn last_sent(run: &Run) -> Vec<&str> {
    let facts = run.history.last().map_or(&[][..], |entry| &entry.facts);
    let sent = facts.iter().filter(|recorded| matches!(recorded.fact, Fact::Dispatched { .. })).count();
    let mut keys = run.keys().split_off(run.sent.len() - sent);
    keys.sort_unstable();
    keys
}

#[test]
fn branches_go_out_in_one_entry_and_nested_ones_when_it_is_their_turn() {
    let mut run = booking();
    assert_eq!(last_sent(&run), ["car", "flight", "hotel"]);
    run.succeed(CAR);
    assert_eq!(last_sent(&run), ["insure", "seat"]);
}

#[test]
fn what_follows_a_block_waits_for_the_last_step_of_every_branch() {
    let mut run = booking();
    for step in [HOTEL, FLIGHT, CAR, SEAT] {
        run.succeed(step);
    }
    assert_eq!(run.step(PAY), StepStatus::Pending);
    run.succeed(INSURE);
    assert_eq!(last_sent(&run), ["pay"]);
    run.succeed(PAY);
    assert_eq!(last_sent(&run), ["invoice", "mail"]);
    run.succeed(MAIL).succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn a_failure_drains_the_other_branches_and_then_undoes_all_that_may_have_happened() {
    let mut run = booking();
    run.refuse(HOTEL).succeed(CAR);
    assert_eq!((run.step(SEAT), run.sent.len()), (StepStatus::Pending, 4), "nothing begins any more");
    run.succeed(FLIGHT);
    assert_eq!(last_sent(&run), ["undo_car", "undo_flight"]);
    run.undo(CAR);
    assert_eq!(last_sent(&run), [""; 0], "the reservation waits for both");
    run.undo(FLIGHT);
    assert_eq!(last_sent(&run), ["undo_reserve"]);
    run.undo(RESERVE);
    assert_eq!((run.instance.status, run.step(HOTEL)), (Status::Compensated, StepStatus::Failed));
}

#[test]
fn independent_compensations_go_out_together_and_dependent_ones_in_reverse() {
    let mut run = booked();
    run.refuse(PAY);
    assert_eq!(last_sent(&run), ["undo_flight", "undo_hotel", "undo_insure", "undo_seat"]);
    run.undo(HOTEL).undo(FLIGHT).undo(SEAT);
    assert_eq!(run.step(CAR), StepStatus::Succeeded);
    run.undo(INSURE);
    assert_eq!(last_sent(&run), ["undo_car"]);
    run.undo(CAR);
    assert_eq!(last_sent(&run), ["undo_reserve"]);
    run.undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn a_silent_branch_is_asked_again_by_itself_and_undone_with_the_others() {
    let mut run = booking();
    run.publish().succeed(FLIGHT).succeed(CAR).succeed(SEAT).succeed(INSURE);
    run.wait().wait();
    assert_eq!(last_sent(&run), ["hotel"]);
    run.exhaust(HOTEL, Phase::Action);
    assert_eq!(last_sent(&run), ["undo_flight", "undo_hotel", "undo_insure", "undo_seat"]);
}

#[test]
fn a_branch_between_two_attempts_is_given_up_when_another_fails() {
    let mut run = booking();
    run.publish().succeed(CAR).succeed(SEAT).succeed(INSURE);
    run.reply(HOTEL, Phase::Action, Outcome::Retry(failure("BUSY"), None)).refuse(FLIGHT);
    let error = run.instance.steps[HOTEL].error.as_ref().unwrap();
    assert_eq!(error.code, "STOPPED");
    assert_eq!(last_sent(&run), ["undo_hotel", "undo_insure", "undo_seat"]);
}

#[test]
fn a_cancellation_waits_for_every_branch() {
    let mut run = booking();
    run.event(Event::Cancel { event_id: None, event: None });
    run.succeed(HOTEL).succeed(CAR);
    assert_eq!(run.sent.len(), 4);
    run.refuse(FLIGHT);
    assert_eq!(last_sent(&run), ["undo_car", "undo_hotel"]);
    run.undo(CAR).undo(HOTEL).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
    assert_eq!(run.instance.error.as_ref().unwrap().code, "CANCELLED");
}

#[test]
fn a_branch_whose_condition_is_false_is_neither_awaited_nor_undone() {
    let plan = trip();
    let data = json!({"order_id": "A-1", "customer": "no-flight", "items": [], "invoice": true});
    let mut run = Run::placed(plan, data);
    run.succeed(RESERVE);
    assert_eq!(last_sent(&run), ["car", "hotel"]);
    run.succeed(HOTEL).succeed(CAR).succeed(SEAT).succeed(INSURE).refuse(PAY);
    assert_eq!((run.step(FLIGHT), last_sent(&run).len()), (StepStatus::Skipped, 3));
}

/// A refusal that tells which step it is of, as those that are read from messages do.
fn refusal(step: &str) -> Outcome {
    Outcome::Failure(Failure { step: Some(step.to_owned()), ..failure("NO") })
}

/// For which step the instance is parked, and why.
fn parked(run: &Run) -> (&str, &str) {
    assert_eq!(run.instance.status, Status::Parked);
    let parked = run.instance.parked.as_ref().unwrap();
    (parked.step.as_deref().unwrap(), &parked.code)
}

#[test]
fn a_branch_that_fails_while_the_instance_is_parked_for_another_parks_it_again() {
    let mut run = booked();
    run.succeed(PAY).reply(MAIL, Phase::Action, refusal("mail"));
    run.reply(INVOICE, Phase::Action, refusal("invoice"));
    assert_eq!(parked(&run), ("mail", "NO"));
    run.succeed(MAIL);
    assert_eq!(parked(&run), ("invoice", "NO"));
    assert_eq!(run.keys().iter().filter(|key| **key == "order.parked").count(), 2);
    run.succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn a_compensation_that_ends_while_the_instance_is_parked_for_another_parks_it_again() {
    let mut run = booked();
    let unroutable = |attempt| Event::Unroutable {
        part: Part::Attempt { step: FLIGHT, phase: Phase::Compensation, attempt },
        reason: "NO_ROUTE".to_owned(),
        maybe_delivered: false,
    };
    run.refuse(PAY).event(unroutable(1));
    run.wait();
    assert_eq!(last_sent(&run), ["undo_flight"]);
    run.reply(HOTEL, Phase::Compensation, refusal("hotel")).event(unroutable(2));
    assert_eq!(parked(&run), ("hotel", "NO"));
    run.undo(HOTEL);
    assert_eq!(parked(&run), ("flight", "NOT_UNDONE"));
    run.undo(FLIGHT).undo(SEAT).undo(INSURE).undo(CAR).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn an_event_answers_the_branch_in_flight_whose_rules_match_it() {
    let booking = |name: &str| {
        let rule = format!(
            "{{on: {{exchange: f, key: booked}}, when: '=reply.data.what == \"{name}\"', outcome: success}}"
        );
        format!(
            "{{step: {name}, command: {{exchange: e, key: {name}}}, compensate: none, replies: [{rule}]}}"
        )
    };
    let bookings = format!("{{parallel: bookings, steps: [{}, {}]}}", booking("room"), booking("seat"));
    let Run { plan, instance, .. } = Run::of(with_steps(&[bookings]));
    let event = |what: &str| Message {
        exchange: "f".to_owned(),
        key: "booked".to_owned(),
        data: json!({"what": what}),
        ..Message::default()
    };
    let answered = |what: &str| answered_step(&plan, &instance, &event(what));
    assert_eq!(answered("seat"), Ok(Some((1, Phase::Action))));
    assert_eq!(answered("room"), Ok(Some((0, Phase::Action))));
    assert!(answered("car").is_err());
}

/// What stands in a place of a definition: one step, or more of them.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Step,
    Wait,
    Delay,
    Emit,
    Parallel(Vec<Shape>),
    Sequence(Vec<Shape>),
}

/// Any plan with blocks in blocks before its pivot, and perhaps after it.
pub(super) fn any_plan() -> impl Strategy<Value = Plan> {
    let leaf = prop_oneof![4 => Just(Shape::Step), 1 => Just(Shape::Wait), 1 => Just(Shape::Delay), 1 => Just(Shape::Emit)];
    let shape = leaf.prop_recursive(3, 6, 3, |inner| {
        let inner = || proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![2 => inner().prop_map(Shape::Parallel), 1 => inner().prop_map(Shape::Sequence)]
    });
    let shapes = |sizes| proptest::collection::vec(shape.clone(), sizes);
    (shapes(1..3), shapes(0..3)).prop_map(|(before, after)| {
        let mut names = Vec::new();
        let mut seen = Vec::new();
        let mut write = |shapes: &[Shape], kind| {
            shapes.iter().map(|shape| written(shape, kind, &mut names, &mut seen)).collect::<Vec<_>>()
        };
        let steps =
            [write(&before, "compensatable"), write(&[Shape::Step], "pivot"), write(&after, "retriable")];
        with_steps(&steps.concat())
    })
}

/// A shape in YAML. Every step sends what it sees of those before it, which are added to `seen`.
fn written(shape: &Shape, kind: &str, names: &mut Vec<String>, seen: &mut Vec<String>) -> String {
    let name = format!("n{}", names.len());
    names.push(name.clone());
    match shape {
        Shape::Step => {
            let outputs = |seen: &[String]| {
                seen.iter().map(|name| format!("=steps.{name}.output")).collect::<Vec<_>>().join(", ")
            };
            let command = format!("command: {{exchange: e, key: {name}, body: [{}]}}", outputs(seen));
            seen.push(name.clone());
            let rest = match kind {
                "compensatable" => format!(
                    "retry: normal, compensate: {{command: {{exchange: e, key: undo, body: [{}]}}, retry: undo}}",
                    outputs(seen)
                ),
                "pivot" => "retry: normal".to_owned(),
                _ => "retry: forever".to_owned(),
            };
            let limit = if names.len().is_multiple_of(3) { "limit: {in_flight: 1}, " } else { "" };
            format!("{{step: {name}, kind: {kind}, {command}, {limit}output: =reply.data, {rest}}}")
        }
        Shape::Wait => {
            let on_timeout = match (kind, name.len().is_multiple_of(2)) {
                ("compensatable", true) => "compensate",
                (_, true) => "park",
                (_, false) => "continue",
            };
            let on = "on: {exchange: e, key: approved}, timeout: 20s";
            seen.push(name.clone());
            format!("{{wait: {name}, {on}, on_timeout: {on_timeout}, output: =event.data}}")
        }
        Shape::Delay => format!("{{delay: {name}, for: 30s}}"),
        Shape::Emit => {
            let outputs =
                seen.iter().map(|name| format!("=steps.{name}.output")).collect::<Vec<_>>().join(", ");
            format!("{{emit: {name}, event: {{exchange: e, key: {name}, body: [{outputs}]}}}}")
        }
        Shape::Sequence(shapes) => {
            let steps: Vec<_> = shapes.iter().map(|shape| written(shape, kind, names, seen)).collect();
            format!("{{sequence: {name}, steps: [{}]}}", steps.join(", "))
        }
        Shape::Parallel(shapes) => {
            let before = seen.len();
            let mut of_branches = Vec::new();
            let mut steps = Vec::new();
            for shape in shapes {
                steps.push(written(shape, kind, names, seen));
                of_branches.extend(seen.drain(before..));
            }
            seen.append(&mut of_branches);
            format!("{{parallel: {name}, steps: [{}]}}", steps.join(", "))
        }
    }
}
