//! Steps that send no command: waits, delays and events.

use sagamq::saga::reply::{Via, answered_step, read};

use super::parallel::with_steps;
use super::*;

const RESERVE: usize = 0;
const APPROVAL: usize = 1;
const TELL: usize = 2;
const REST: usize = 3;
const SHIP: usize = 4;
const SURVEY: usize = 5;

fn reserve() -> String {
    "{step: reserve, command: {exchange: e, key: reserve}, timeout: 10s, compensate: {command: {exchange: e, key: release}, timeout: 10s}}".to_owned()
}

/// reserve -> approval (wait) -> tell (emit) -> rest (delay) -> ship (pivot) -> survey (wait)
fn plan(on_timeout: &str) -> Plan {
    let approval = format!(
        "{{wait: approval, timeout: 10m, on_timeout: {on_timeout}, output: {{by: =event.data.by}}, events: [\
         {{on: {{exchange: desk, key: approval.*}}, when: =event.data.yes}}, \
         {{on: {{exchange: desk, key: approval.*}}, outcome: failure, error: NOT_APPROVED}}]}}"
    );
    let tell =
        "{emit: tell, event: {exchange: shop, key: order.approved, body: {by: =steps.approval.output.by}}}";
    let rest = "{delay: rest, for: 5m}";
    let ship = "{step: ship, kind: pivot, command: {exchange: e, key: ship}, timeout: 10s}";
    let survey = "{wait: survey, on: {exchange: desk, key: survey}, timeout: 1d, on_timeout: park}";
    with_steps(&[reserve(), approval, tell.to_owned(), rest.to_owned(), ship.to_owned(), survey.to_owned()])
}

fn run(on_timeout: &str) -> Run {
    Run::of(plan(on_timeout))
}

fn approved() -> Message {
    message("approval.given", json!({"order_id": "A-1", "yes": true, "by": "ann"}))
}

fn refused() -> Message {
    message("approval.given", json!({"order_id": "A-1", "yes": false}))
}

fn message(key: &str, data: Value) -> Message {
    Message { exchange: "desk".to_owned(), key: key.to_owned(), data, ..Message::default() }
}

impl Run {
    /// Hands an event to the step that it answers, as the engine does.
    fn hear(&mut self, message: &Message) -> &mut Self {
        let (step, phase) = answered_step(&self.plan, &self.instance, message).unwrap().unwrap();
        let outcome = read(&self.plan, step, phase, &self.instance, message, Via::Event).unwrap();
        self.event(Event::Reply { step, phase, attempt: None, outcome, message_id: None, event: None });
        self
    }
}

#[test]
fn a_wait_is_over_when_its_event_comes_and_keeps_what_it_is_told_to() {
    let mut run = run("compensate");
    run.succeed(RESERVE);
    assert_eq!(run.step(APPROVAL), StepStatus::Dispatched);
    assert_eq!(run.instance.next_due(), Some(run.now + Duration::from_secs(600)));
    run.hear(&approved());
    assert_eq!(run.instance.steps[APPROVAL].output.as_deref(), Some(&json!({"by": "ann"})));
    assert_eq!(run.keys(), ["reserve", "order.approved"]);
}

#[test]
fn an_event_that_comes_before_its_turn_counts_when_the_turn_comes() {
    for (event, expected) in [(approved(), StepStatus::Succeeded), (refused(), StepStatus::Failed)] {
        let mut run = run("compensate");
        run.hear(&event);
        assert_eq!(run.step(APPROVAL), StepStatus::Pending);
        assert_eq!(run.keys(), ["reserve"], "the step before is awaited");
        run.hear(&refused());
        assert!(run.has(|fact| matches!(fact, Fact::Ignored { what: Ignored::DuplicateReply, .. })));
        run.succeed(RESERVE);
        assert_eq!(run.step(APPROVAL), expected);
    }
}

#[test]
fn an_event_after_a_wait_in_vain_is_kept_for_the_next_wait_for_it() {
    let wait = |name: &str, timeout: &str| {
        format!(
            "{{wait: {name}, on: {{exchange: desk, key: paid}}, timeout: {timeout}, on_timeout: continue}}"
        )
    };
    let steps = [wait("payment", "1m"), "{delay: grace, for: 5m}".to_owned(), wait("late_payment", "10m")];
    let mut run = Run::of(with_steps(&steps));
    run.wait();
    assert_eq!((run.step(0), run.step(1)), (StepStatus::Skipped, StepStatus::Dispatched));
    run.hear(&message("paid", json!({"order_id": "A-1"})));
    run.wait();
    assert_eq!(run.step(2), StepStatus::Succeeded);
}

#[test]
fn headers_of_an_event_do_not_say_why_a_wait_has_failed() {
    let mut run = run("continue");
    run.succeed(RESERVE);
    let mut event = refused();
    event.headers.insert("x-saga-error-code".to_owned(), json!("OF_ANOTHER_STEP"));
    run.hear(&event);
    assert_eq!(run.instance.error.as_ref().unwrap().code, "NOT_APPROVED");
}

#[test]
fn a_refusing_event_turns_the_instance_back() {
    let mut run = run("continue");
    run.succeed(RESERVE).hear(&refused()).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
    assert_eq!(run.instance.error.as_ref().unwrap().code, "NOT_APPROVED");
}

#[test]
fn a_wait_in_vain_ends_as_the_definition_says() {
    let ends = [
        ("continue", StepStatus::Skipped, Status::Running),
        ("compensate", StepStatus::Failed, Status::Compensating),
        ("park", StepStatus::Unknown, Status::Parked),
    ];
    for (on_timeout, step, status) in ends {
        let mut run = run(on_timeout);
        run.succeed(RESERVE).wait();
        assert_eq!((run.step(APPROVAL), run.instance.status), (step, status), "{on_timeout}");
        assert!(run.has(|fact| matches!(fact, Fact::TimedOut { step: APPROVAL, attempt: 0, .. })));
    }
}

#[test]
fn the_event_takes_an_instance_on_that_was_parked_for_it() {
    let mut run = run("park");
    run.succeed(RESERVE).wait().hear(&approved());
    assert_eq!((run.step(APPROVAL), run.step(TELL)), (StepStatus::Succeeded, StepStatus::Dispatched));
}

#[test]
fn a_person_may_answer_for_an_event_or_a_delay() {
    let mut run = run("compensate");
    run.succeed(RESERVE);
    let refused = run.order(Verb::Retry, Some("approval"), Value::Null).unwrap_err();
    assert!(refused.contains("skip it, or resolve it"), "{refused}");
    run.order(Verb::ResolveSucceeded, Some("approval"), json!({"by": "phone"})).unwrap();
    run.publish();
    assert_eq!(run.sent[1].body, br#"{"by":"phone"}"#);
    run.order(Verb::Skip, Some("rest"), Value::Null).unwrap();
    assert_eq!(run.step(SHIP), StepStatus::Dispatched);
}

#[test]
fn a_wait_that_an_instance_is_parked_for_begins_anew_on_order() {
    let mut run = run("park");
    run.succeed(RESERVE).wait();
    run.order(Verb::Retry, None, Value::Null).unwrap();
    assert_eq!((run.step(APPROVAL), run.instance.status), (StepStatus::Dispatched, Status::Running));
    assert_eq!(run.instance.next_due(), Some(run.now + Duration::from_secs(600)));
}

#[test]
fn an_emitted_event_is_done_when_the_broker_has_it_and_expects_no_answer() {
    let mut run = run("compensate");
    run.succeed(RESERVE).hear(&approved());
    let event = run.sent[1].clone();
    assert!(!event.wants_reply);
    assert_eq!(event.headers.get("x-saga-step").as_deref(), Some("tell"));
    assert_eq!(event.headers.get("x-saga-command-id"), None, "it is no command");
    assert_eq!(run.step(TELL), StepStatus::Dispatched);
    run.publish();
    assert_eq!((run.step(TELL), run.step(REST)), (StepStatus::Succeeded, StepStatus::Dispatched));
}

#[test]
fn that_nobody_listens_to_an_event_is_on_record_and_no_failure() {
    let mut run = run("compensate");
    run.succeed(RESERVE).hear(&approved());
    let part = Part::Attempt { step: TELL, phase: Phase::Action, attempt: 1 };
    run.event(Event::Unroutable { part, reason: "NO_ROUTE".to_owned(), maybe_delivered: false });
    assert!(run.has(|fact| matches!(fact, Fact::Unroutable { step: TELL, .. })));
    assert_eq!(run.step(TELL), StepStatus::Succeeded);
}

#[test]
fn a_delay_is_over_when_its_time_has_come_and_not_before() {
    let mut run = run("compensate");
    run.succeed(RESERVE).hear(&approved()).publish();
    run.now = run.now + Duration::from_secs(299);
    assert!(run.event(Event::Tick).is_empty());
    run.now = run.now + Duration::from_secs(1);
    run.event(Event::Tick);
    assert_eq!((run.step(REST), run.step(SHIP)), (StepStatus::Succeeded, StepStatus::Dispatched));
}

#[test]
fn a_delay_up_to_a_time_ends_then_at_once_if_it_is_past_and_fails_if_it_is_no_time() {
    let rest = "{delay: rest, until: =input.at}".to_owned();
    let ship = "{step: ship, kind: pivot, command: {exchange: e, key: ship}}".to_owned();
    let run_at = |at: Value| {
        let data = json!({"order_id": "A-1", "customer": "c", "at": at});
        let mut run = Run::placed(with_steps(&[reserve(), rest.clone(), ship.clone()]), data);
        run.succeed(RESERVE);
        run
    };
    let mut run = run_at(json!("1970-01-01T01:00:00+00:30"));
    assert_eq!(run.instance.next_due(), Some(Timestamp(1_800_000)));
    run.wait();
    assert_eq!(run.keys(), ["reserve", "ship"]);
    assert_eq!(run_at(json!("1969-12-31T23:59:59Z")).keys(), ["reserve", "ship"]);
    for at in [json!("tomorrow"), json!(5), Value::Null] {
        let run = run_at(at);
        assert_eq!(run.instance.error.as_ref().unwrap().code, "BAD_EXPRESSION");
        assert_eq!(run.keys(), ["reserve", "release"]);
    }
}

#[test]
fn waits_and_delays_are_not_awaited_when_the_instance_stops() {
    let two = [
        "{delay: rest, for: 30m}",
        "{wait: approval, on: {exchange: desk, key: approval}, timeout: 30m}",
        "{step: pay, command: {exchange: e, key: pay}, compensate: none}",
    ];
    let block = format!("{{parallel: all_three, steps: [{}]}}", two.join(", "));
    let mut run = Run::of(with_steps(&[reserve(), block]));
    run.succeed(RESERVE);
    run.refuse(3);
    assert_eq!((run.step(1), run.step(2)), (StepStatus::Failed, StepStatus::Failed));
    assert_eq!(run.keys(), ["reserve", "pay", "release"]);
}

#[test]
fn a_cancellation_ends_a_wait_or_a_delay_at_once() {
    for steps in [1, 2] {
        let mut run = run("compensate");
        run.succeed(RESERVE);
        if steps > 1 {
            run.hear(&approved()).publish();
        }
        run.event(Event::Cancel { event_id: None, event: None });
        run.undo(RESERVE);
        assert_eq!(run.instance.status, Status::Compensated);
        assert_eq!(run.instance.error.as_ref().unwrap().code, "CANCELLED");
    }
}

#[test]
fn a_wait_after_the_pivot_parks_where_it_is_refused_or_in_vain() {
    let mut run = run("compensate");
    run.succeed(RESERVE).hear(&approved()).wait().succeed(SHIP).wait().wait();
    assert_eq!((run.step(SURVEY), run.instance.status), (StepStatus::Unknown, Status::Parked));
    run.hear(&message("survey", json!({"order_id": "A-1"})));
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn a_refused_cancellation_is_told_each_time_up_to_the_limit_of_what_is_recorded() {
    let refused = "on_cancel_refused: {emit: {exchange: shop, key: not_cancelled, body: {is: =saga.status}}}";
    let mut run = Run::of(load("order.yaml", &format!("{DEFINITION}{refused}\n")).unwrap());
    run.succeed(0).succeed(1).succeed(2);
    run.event(Event::Cancel { event_id: None, event: None });
    assert_eq!(run.sent.last().unwrap().body, br#"{"is":"running"}"#, "the pivot is behind it");
    run.succeed(3);
    run.publish();
    assert!(!run.instance.is_open());
    run.event(Event::Cancel { event_id: None, event: None });
    assert_eq!(run.sent.last().unwrap().body, br#"{"is":"completed"}"#);
    assert!(run.instance.is_open(), "it is to be published, also after a restart");
    for _ in 0..200 {
        run.event(Event::Cancel { event_id: None, event: None });
    }
    assert_eq!(run.keys().iter().filter(|key| **key == "not_cancelled").count(), 100);
}

#[test]
fn a_cancellation_that_comes_again_is_not_told_as_refused() {
    let refused = "on_cancel_refused: {emit: {exchange: shop, key: not_cancelled}}";
    let mut run = Run::of(load("order.yaml", &format!("{DEFINITION}{refused}\n")).unwrap());
    run.succeed(0);
    for _ in 0..2 {
        run.event(Event::Cancel { event_id: Some("e-2".to_owned()), event: None });
    }
    run.succeed(1).undo(1);
    run.event(Event::Cancel { event_id: Some("e-2".to_owned()), event: None });
    run.undo(0);
    run.event(Event::Cancel { event_id: Some("e-2".to_owned()), event: None });
    assert_eq!(run.instance.status, Status::Compensated);
    assert!(!run.keys().contains(&"not_cancelled"), "{:?}", run.keys());
}
