//! The transition function, by table and by property: no broker, no store, no clock.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "transition/calls.rs"]
mod calls;
#[path = "transition/each.rs"]
mod each;
#[path = "transition/limits.rs"]
mod limits;
#[path = "transition/nested.rs"]
mod nested;
#[path = "transition/parallel.rs"]
mod parallel;
#[path = "transition/waits.rs"]
mod waits;

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use sagamq::saga::called::Told;
use sagamq::saga::command;
use sagamq::saga::compile::load;
use sagamq::saga::fact::{Fact, Failure, HistoryEntry, Ignored, Recorded};
use sagamq::saga::id::{MessageId, Phase, StoreId};
use sagamq::saga::instance::{Awaiting, Instance, Status, StepStatus};
use sagamq::saga::message::{Message, Outgoing, Part};
use sagamq::saga::order::{Order, Verb};
use sagamq::saga::plan::{Kind, Plan};
use sagamq::saga::reply::Outcome;
use sagamq::saga::time::Timestamp;
use sagamq::saga::transition::{
    Decision, Event, IGNORED_RECORDED, MAX_STILL_WORKING, business_key, start, transition,
};
use serde_json::{Value, json};

const RESERVE: usize = 0;
const CHARGE: usize = 1;
const SHIP: usize = 2;
const INVOICE: usize = 3;

const DEFINITION: &str = r#"
saga: order
version: 1
start:
  on: {exchange: orders, key: order.placed}
  business_key: =event.data.order_id
attributes: {customer: =input.customer}
deadline: {after: 1h, then: compensate}
retry:
  normal: {attempts: 3, initial: 1s, factor: 2, max: 60s, jitter: none, except: [BROKEN]}
  undo: {attempts: 2, initial: 1s, jitter: none}
  forever: {attempts: unlimited, initial: 1s, jitter: none}
steps:
  - step: reserve
    command: {exchange: inventory, key: stock.reserve, body: {order: =saga.business_key, items: =input.items}}
    timeout: 10s
    retry: normal
    output: {reservation: =reply.data.reservation}
    compensate:
      command: {exchange: inventory, key: stock.release, body: {reservation: =steps.reserve.output.reservation}}
      timeout: 10s
      retry: undo
  - step: charge
    command: {exchange: payments, key: payment.charge, body: {order: =saga.business_key}}
    timeout: 10s
    retry: normal
    compensate:
      command: {exchange: payments, key: payment.refund, body: {order: =saga.business_key}}
      timeout: 10s
      retry: undo
  - step: ship
    kind: pivot
    command: {exchange: shipping, key: shipment.create, body: {reservation: =steps.reserve.output.reservation}}
    timeout: 10s
    retry: normal
  - step: invoice
    kind: retriable
    when: =input.invoice
    command: {exchange: billing, key: invoice.send, body: {order: =saga.business_key}}
    timeout: 10s
    retry: forever
on_completed: {emit: {exchange: orders, key: order.completed, body: {order: =saga.business_key}}}
on_compensated: {emit: {exchange: orders, key: order.rejected, body: {reason: =saga.error}}}
on_parked: {emit: {exchange: orders, key: order.parked, body: {reason: =saga.error}}}
"#;

/// One instance, driven by hand.
struct Run {
    plan: Plan,
    instance: Instance,
    now: Timestamp,
    history: Vec<HistoryEntry>,
    sent: Vec<Outgoing>,
    told: Vec<Told>,
}

impl Run {
    fn new() -> Self {
        Self::of(load("order.yaml", DEFINITION).unwrap())
    }

    fn of(plan: Plan) -> Self {
        let data = json!({"order_id": "A-1", "customer": "c-7", "items": [1, 2], "invoice": true});
        Self::placed(plan, data)
    }

    fn placed(plan: Plan, data: Value) -> Self {
        let now = Timestamp(1_000_000);
        let event = Message { id: Some("e-1".to_owned()), data, ..Message::default() };
        let key = business_key(&plan, &event).unwrap();
        let (instance, decision) = start(&plan, key, &event, StoreId::default(), now).unwrap();
        let mut run = Self { plan, instance, now, history: Vec::new(), sent: Vec::new(), told: Vec::new() };
        run.keep(decision);
        run
    }

    fn keep(&mut self, decision: Decision) -> Vec<Recorded> {
        if !decision.facts.is_empty() {
            self.instance.revision += 1;
            let revision = self.instance.revision;
            self.history.push(HistoryEntry {
                revision,
                causation_id: None,
                user: None,
                facts: decision.facts.clone(),
            });
        }
        self.sent.extend(decision.outgoing);
        self.told.extend(decision.told);
        decision.facts
    }

    fn event(&mut self, event: Event) -> Vec<Recorded> {
        let decision = transition(&self.plan, &mut self.instance, event, self.now);
        self.keep(decision)
    }

    fn reply(&mut self, step: usize, phase: Phase, outcome: Outcome) -> &mut Self {
        self.answer(step, phase, None, outcome)
    }

    fn answer(&mut self, step: usize, phase: Phase, attempt: Option<u32>, mut outcome: Outcome) -> &mut Self {
        if let Outcome::Failure(error) | Outcome::Retry(error, _) | Outcome::Success(Err(error)) =
            &mut outcome
        {
            error.step = self.instance.steps.get(step).map(|state| state.name.clone());
        }
        self.event(Event::Reply { step, phase, attempt, outcome, message_id: None, event: None });
        self
    }

    fn order(&mut self, verb: Verb, step: Option<&str>, output: Value) -> Result<(), String> {
        let (step, actor, reason) =
            (step.map(str::to_owned), "ann".to_owned(), "the warehouse said so".to_owned());
        let order = Order { verb, step, output, actor, reason };
        let mut decision = transition(&self.plan, &mut self.instance, Event::Ordered(order), self.now);
        let refused = decision.refused.take();
        self.keep(decision);
        refused.map_or(Ok(()), Err)
    }

    fn succeed(&mut self, step: usize) -> &mut Self {
        self.reply(step, Phase::Action, Outcome::Success(Ok(json!({"reservation": "r-1"}))))
    }

    fn refuse(&mut self, step: usize) -> &mut Self {
        self.reply(step, Phase::Action, Outcome::Failure(failure("NO")))
    }

    fn undo(&mut self, step: usize) -> &mut Self {
        self.reply(step, Phase::Compensation, Outcome::Success(Ok(Value::Null)))
    }

    /// Confirms everything that is out.
    fn publish(&mut self) -> &mut Self {
        for part in self.instance.unconfirmed().collect::<Vec<_>>() {
            self.event(Event::Published(part));
        }
        self
    }

    /// Gives every step its turn that awaits it.
    fn turn(&mut self) -> &mut Self {
        for step in 0..self.instance.steps.len() {
            if self.instance.steps[step].is_queued() {
                self.event(Event::Turn { step });
            }
        }
        self
    }

    /// Goes to the next time at which something is due.
    fn wait(&mut self) -> &mut Self {
        self.turn().publish();
        if let Some(due) = self.instance.next_due() {
            self.now = self.now.max(due);
            self.event(Event::Tick);
        }
        self
    }

    /// Lets every attempt of a step time out.
    fn exhaust(&mut self, step: usize, phase: Phase) -> &mut Self {
        let out = |run: &Run| match phase {
            Phase::Action => run.step(step) == StepStatus::Dispatched,
            Phase::Compensation => run.instance.status == Status::Compensating,
        };
        while out(self) {
            self.wait();
        }
        self
    }

    fn step(&self, step: usize) -> StepStatus {
        self.instance.steps[step].status
    }

    fn keys(&self) -> Vec<&str> {
        self.sent.iter().map(|outgoing| &*outgoing.key).collect()
    }

    fn has(&self, wanted: impl Fn(&Fact) -> bool) -> bool {
        self.history.iter().flat_map(|entry| &entry.facts).any(|recorded| wanted(&recorded.fact))
    }
}

fn failure(code: &str) -> Failure {
    Failure { step: None, code: code.to_owned(), message: "refused".to_owned() }
}

#[test]
fn every_step_succeeding_completes_in_order() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).succeed(SHIP).succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
    assert_eq!(
        run.keys(),
        ["stock.reserve", "payment.charge", "shipment.create", "invoice.send", "order.completed"]
    );
}

#[test]
fn a_command_carries_what_the_contract_says() {
    let run = Run::new();
    let command = &run.sent[0];
    let id = run.instance.attempt_id("reserve", Phase::Action, 1);
    assert_eq!(command.message_id, id);
    let body: Value = serde_json::from_slice(&command.body).unwrap();
    assert_eq!(body, json!({"order": "A-1", "items": [1, 2]}));
    let header = |name: &str| command.headers.get(name).unwrap();
    assert_eq!(header("x-saga-id"), run.instance.id.to_string());
    assert_eq!(header("x-saga-name"), "order");
    assert_eq!(header("x-saga-version"), "1");
    assert_eq!(header("x-saga-step"), "reserve");
    assert_eq!(header("x-saga-phase"), "action");
    assert_eq!(header("x-saga-attempt"), "1");
    assert_eq!(header("x-saga-command-id"), id.to_string());
    assert_eq!(header("x-saga-deadline"), "1970-01-01T01:16:40.000Z");
}

#[test]
fn two_orders_whose_numbers_differ_in_the_last_of_twenty_one_digits_are_two_instances() {
    const CHARGE: &str = "
saga: order
version: 1
start:
  on: {exchange: orders, key: order.placed}
  business_key: =event.data.order_id
steps:
  - step: charge
    command: {exchange: payments, key: charge, body: {order: =input.order_id, key: =saga.business_key, fee: 2.50}}
    compensate: none
";
    let placed = |number: &str| {
        let data = serde_json::from_str(&format!("{{\"order_id\":{number}}}")).unwrap();
        let run = Run::placed(load("order.yaml", CHARGE).unwrap(), data);
        (run.instance.id, String::from_utf8(run.sent[0].body.clone()).unwrap())
    };
    let (first, body) = placed("123456789012345678901");
    assert_eq!(body, r#"{"fee":2.50,"key":"123456789012345678901","order":123456789012345678901}"#);
    let (second, body) = placed("123456789012345678902");
    assert_eq!(body, r#"{"fee":2.50,"key":"123456789012345678902","order":123456789012345678902}"#);
    assert_ne!(first, second);
    assert_eq!(placed("7").0, placed("7.0").0);
}

#[test]
fn the_command_id_stays_over_attempts_and_a_compensation_names_what_it_undoes() {
    let mut run = Run::new();
    run.wait().wait().succeed(RESERVE).refuse(CHARGE);
    let header = |nth: usize, name: &str| run.sent[nth].headers.get(name).unwrap();
    assert_eq!(run.keys(), ["stock.reserve", "stock.reserve", "payment.charge", "stock.release"]);
    assert_ne!(run.sent[0].message_id, run.sent[1].message_id);
    assert_eq!(header(0, "x-saga-command-id"), header(1, "x-saga-command-id"));
    assert_eq!(header(3, "x-saga-compensates"), header(0, "x-saga-command-id"));
    assert_eq!(header(3, "x-saga-phase"), "compensation");
}

#[test]
fn a_refusal_undoes_what_was_done_in_reverse_and_not_the_refused_step() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).refuse(SHIP).undo(CHARGE).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
    assert_eq!(run.keys()[3..], ["payment.refund", "stock.release", "order.rejected"]);
    let reason: Value = serde_json::from_slice(&run.sent[5].body).unwrap();
    assert_eq!(reason["reason"]["code"], "NO");
}

#[test]
fn a_refusal_of_the_first_step_compensates_nothing() {
    let mut run = Run::new();
    run.refuse(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
    assert_eq!(run.keys(), ["stock.reserve", "order.rejected"]);
}

#[test]
fn a_silent_step_is_retried_then_undone_because_its_effect_is_unknown() {
    let mut run = Run::new();
    run.succeed(RESERVE).exhaust(CHARGE, Phase::Action);
    assert!(run.has(|fact| matches!(fact, Fact::GivenUp { step: CHARGE, .. })));
    run.undo(CHARGE).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
    assert_eq!(
        run.keys()[1..6],
        ["payment.charge", "payment.charge", "payment.charge", "payment.refund", "stock.release"]
    );
}

#[test]
fn retries_wait_as_the_policy_says() {
    let mut run = Run::new();
    run.publish();
    run.reply(RESERVE, Phase::Action, Outcome::Retry(failure("BUSY"), None));
    assert_eq!(run.instance.next_due(), Some(run.now + Duration::from_secs(1)));
    run.wait().publish();
    run.reply(RESERVE, Phase::Action, Outcome::Retry(failure("BUSY"), Some(Duration::from_millis(70))));
    assert_eq!(run.instance.next_due(), Some(run.now + Duration::from_millis(70)));
}

#[test]
fn a_transient_error_that_the_policy_excepts_is_not_retried() {
    let mut run = Run::new();
    run.reply(RESERVE, Phase::Action, Outcome::Retry(failure("BROKEN"), None));
    assert_eq!(run.keys(), ["stock.reserve", "stock.release"]);
}

#[test]
fn pending_starts_the_timeout_anew() {
    let mut run = Run::new();
    run.publish();
    run.now = run.now + Duration::from_secs(9);
    run.reply(RESERVE, Phase::Action, Outcome::Pending);
    assert_eq!(run.instance.next_due(), Some(run.now + Duration::from_secs(10)));
}

#[test]
fn pending_counts_once_a_tenth_of_the_timeout_has_passed_since_the_last() {
    let mut run = Run::new();
    run.publish();
    let (begun, mut last) = (run.now, run.now);
    for _ in 0..1000 {
        run.now = run.now + Duration::from_millis(7);
        run.reply(RESERVE, Phase::Action, Outcome::Pending);
        let due = run.instance.next_due().unwrap();
        if due == run.now + Duration::from_secs(10) {
            assert!(run.now.since(last) >= Duration::from_secs(1));
            last = run.now;
        }
        assert!(due >= run.now + Duration::from_secs(9));
    }
    assert_eq!((run.now.since(begun), run.instance.still_working), (Duration::from_secs(7), 6));
    assert_eq!(run.instance.ignored, IGNORED_RECORDED, "of those that change nothing");
}

#[test]
fn after_ten_thousand_pendings_the_timeout_runs() {
    let mut run = Run::new();
    run.publish();
    for _ in 0..MAX_STILL_WORKING + 5 {
        run.now = run.now + Duration::from_secs(2);
        let (step, phase, outcome) = (RESERVE, Phase::Action, Outcome::Pending);
        let pending = Event::Reply { step, phase, attempt: None, outcome, message_id: None, event: None };
        transition(&run.plan, &mut run.instance, pending, run.now);
    }
    assert_eq!(run.instance.still_working, MAX_STILL_WORKING);
    assert_eq!(run.instance.steps[RESERVE].action.awaiting, Awaiting::Reply(run.now));
}

#[test]
fn a_timeout_does_not_run_before_the_command_is_published() {
    let mut run = Run::new();
    run.now = run.now + Duration::from_secs(30);
    assert!(run.event(Event::Tick).is_empty());
    assert_eq!(run.step(RESERVE), StepStatus::Dispatched);
}

#[test]
fn an_unroutable_command_is_retried_and_then_refused_without_compensating_it() {
    let mut run = Run::new();
    run.succeed(RESERVE);
    for attempt in 1..=3 {
        let part = Part::Attempt { step: CHARGE, phase: Phase::Action, attempt };
        run.event(Event::Unroutable { part, reason: "NO_ROUTE".to_owned(), maybe_delivered: false });
        run.wait();
    }
    assert_eq!(run.step(CHARGE), StepStatus::Failed);
    assert!(!run.keys().contains(&"payment.refund"));
    assert!(run.has(|fact| matches!(fact, Fact::Unroutable { attempt: 3, .. })));
}

#[test]
fn an_unroutable_command_whose_first_copy_may_have_arrived_is_compensated() {
    let mut run = Run::new();
    run.succeed(RESERVE);
    for attempt in 1..=3 {
        let part = Part::Attempt { step: CHARGE, phase: Phase::Action, attempt };
        run.event(Event::Unroutable { part, reason: "NO_ROUTE".to_owned(), maybe_delivered: attempt == 1 });
        run.wait();
    }
    assert_eq!(run.step(CHARGE), StepStatus::Compensating);
}

#[test]
fn a_silent_pivot_parks_and_its_late_success_takes_the_instance_on() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).exhaust(SHIP, Phase::Action);
    assert_eq!((run.instance.status, run.step(SHIP)), (Status::Parked, StepStatus::Unknown));
    assert_eq!(run.keys().last(), Some(&"order.parked"));
    run.succeed(SHIP).succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn a_parked_pivot_that_turns_out_refused_is_compensated() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).exhaust(SHIP, Phase::Action).refuse(SHIP);
    assert_eq!(run.instance.status, Status::Compensating);
    assert_eq!(run.keys().last(), Some(&"payment.refund"));
}

#[test]
fn a_pivot_that_was_refused_and_then_succeeds_parks_once_steps_are_being_undone() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).refuse(SHIP).succeed(SHIP).succeed(SHIP);
    assert_eq!((run.instance.status, run.step(SHIP)), (Status::Parked, StepStatus::Failed));
    assert_eq!(run.instance.parked.as_ref().unwrap().code, "CONTRADICTION");
    assert!(!run.keys().contains(&"stock.release"));
}

#[test]
fn a_refused_retriable_step_parks() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).succeed(SHIP).refuse(INVOICE);
    assert_eq!(run.instance.status, Status::Parked);
    assert!(!run.keys().contains(&"payment.refund"));
}

#[test]
fn a_compensation_that_is_never_answered_parks_and_its_late_answer_takes_it_on() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).refuse(SHIP).exhaust(CHARGE, Phase::Compensation);
    assert_eq!(run.instance.status, Status::Parked);
    run.undo(CHARGE).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
    let refunds = run.keys().iter().filter(|key| **key == "payment.refund").count();
    assert_eq!(refunds, 2, "the undo policy has two attempts");
}

#[test]
fn a_late_success_before_its_compensation_is_sent_keeps_the_output_for_it() {
    let mut run = Run::of(
        load(
            "order.yaml",
            &DEFINITION.replace("step: charge\n", "step: charge\n    on_timeout: compensate\n"),
        )
        .unwrap(),
    );
    run.succeed(RESERVE).publish();
    run.exhaust(CHARGE, Phase::Action);
    run.succeed(CHARGE);
    assert!(
        run.has(|fact| matches!(fact, Fact::Ignored { what: Ignored::LateReply, .. })),
        "refund is out already"
    );
    run.undo(CHARGE).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn a_duplicate_reply_and_a_duplicate_start_change_nothing_but_the_history() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(RESERVE);
    run.event(Event::StartedAgain { event_id: Some("e-2".to_owned()) });
    assert!(run.event(Event::StartedAgain { event_id: Some("e-1".to_owned()) }).is_empty());
    assert_eq!(run.keys(), ["stock.reserve", "payment.charge"]);
    assert_eq!(run.instance.ignored, 2);
}

#[test]
fn messages_that_change_nothing_are_counted_for_ever_and_recorded_a_hundred_times() {
    let mut run = Run::new();
    for _ in 0..150 {
        let event = Event::StartedAgain { event_id: Some("e-2".to_owned()) };
        assert_eq!(
            transition(&run.plan, &mut run.instance, event, run.now).ignored,
            Some(Ignored::DuplicateStart)
        );
    }
    assert_eq!(run.instance.ignored, 100);
}

#[test]
fn a_skipped_pivot_is_passed_and_nothing_is_undone_after_it() {
    let mut run = Run::of(plans().remove(2));
    run.succeed(RESERVE).succeed(CHARGE);
    assert_eq!((run.step(SHIP), run.step(INVOICE)), (StepStatus::Skipped, StepStatus::Dispatched));
    run.event(Event::Cancel { event_id: None, event: None });
    run.succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn a_notice_stays_as_it_was_when_the_instance_goes_on() {
    let body = "key: order.parked, body: {reason: =saga.error, ship: =steps.ship.status}";
    let source = DEFINITION.replace("key: order.parked, body: {reason: =saga.error}", body);
    let mut run = Run::of(load("order.yaml", &source).unwrap());
    run.succeed(RESERVE).succeed(CHARGE).exhaust(SHIP, Phase::Action);
    let parked = run.sent.last().unwrap().clone();
    run.succeed(SHIP);
    let again = command::render(&run.plan, &run.instance, Part::Notice(0)).unwrap().unwrap();
    assert_eq!(again, parked);
    let body: Value = serde_json::from_slice(&parked.body).unwrap();
    assert_eq!((&body["ship"], &body["reason"]["code"]), (&json!("unknown"), &json!("TIMEOUT")));
}

#[test]
fn an_output_that_cannot_be_read_parks_the_pivot_once() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE);
    for _ in 0..3 {
        run.reply(SHIP, Phase::Action, Outcome::Success(Err(failure("BAD_OUTPUT"))));
    }
    assert_eq!(run.instance.status, Status::Parked);
    assert_eq!(run.keys().iter().filter(|key| **key == "order.parked").count(), 1);
}

#[test]
fn a_false_condition_skips_the_step() {
    let mut run =
        Run::of(load("order.yaml", &DEFINITION.replace("=input.invoice", "=!input.invoice")).unwrap());
    run.succeed(RESERVE).succeed(CHARGE).succeed(SHIP);
    assert_eq!((run.instance.status, run.step(INVOICE)), (Status::Completed, StepStatus::Skipped));
}

#[test]
fn a_body_that_cannot_be_made_fails_the_step_and_compensates() {
    let broken = DEFINITION.replace(
        "key: payment.charge, body: {order: =saga.business_key}",
        "key: payment.charge, body: {x: =input.nothing}",
    );
    let mut run = Run::of(load("order.yaml", &broken).unwrap());
    run.succeed(RESERVE).undo(RESERVE);
    assert_eq!((run.instance.status, run.step(CHARGE)), (Status::Compensated, StepStatus::Failed));
    let error = run.instance.error.unwrap();
    assert_eq!(error.code, "BAD_EXPRESSION");
    assert!(error.message.contains("nothing"), "{}", error.message);
}

#[test]
fn the_deadline_turns_back_before_the_pivot_and_only_alerts_after_it() {
    let mut run = Run::new();
    run.succeed(RESERVE).publish();
    run.now = run.now + Duration::from_secs(3600);
    run.event(Event::Tick);
    run.undo(CHARGE).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);

    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).succeed(SHIP).publish();
    run.now = run.now + Duration::from_secs(3600);
    run.event(Event::Tick);
    assert!(run.instance.deadline_passed);
    run.succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn a_cancellation_waits_for_the_step_in_flight_and_undoes_it() {
    let mut run = Run::new();
    run.succeed(RESERVE);
    run.event(Event::Cancel { event_id: None, event: None });
    assert_eq!(run.keys().last(), Some(&"payment.charge"), "nothing is undone while the charge is out");
    run.succeed(CHARGE);
    assert_eq!(run.keys()[2..], ["payment.refund"]);
    run.undo(CHARGE).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn a_pivot_that_succeeds_overrules_a_cancellation() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE);
    run.event(Event::Cancel { event_id: None, event: None });
    run.succeed(SHIP).succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
    assert!(!run.has(|fact| matches!(fact, Fact::Ignored { what: Ignored::RefusedCancel, .. })));
    run.event(Event::Cancel { event_id: None, event: None });
    assert!(run.has(|fact| matches!(fact, Fact::Ignored { what: Ignored::RefusedCancel, .. })));
}

/// The order saga, which also tells that a cancellation is refused; the pivot is in flight.
fn at_the_pivot() -> Run {
    let told =
        "on_cancel_refused: {emit: {exchange: orders, key: not_cancelled, body: {is: =saga.status}}}\n";
    let mut run = Run::of(load("order.yaml", &format!("{DEFINITION}{told}")).unwrap());
    run.succeed(RESERVE).succeed(CHARGE);
    run
}

#[test]
fn a_cancellation_that_the_pivot_overrules_is_told_once() {
    let cancels: [fn(&mut Run); 3] = [
        |run| _ = run.event(Event::Cancel { event_id: None, event: None }),
        |run| (0..3).for_each(|_| _ = run.event(Event::Cancel { event_id: None, event: None })),
        |run| run.order(Verb::Cancel, None, Value::Null).unwrap(),
    ];
    for cancel in cancels {
        let mut run = at_the_pivot();
        cancel(&mut run);
        assert!(!run.keys().contains(&"not_cancelled"), "the pivot may still fail");
        run.succeed(SHIP);
        let told: Vec<_> = run.sent.iter().filter(|sent| &*sent.key == "not_cancelled").collect();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].body, br#"{"is":"running"}"#);
        run.succeed(INVOICE);
        assert_eq!(run.instance.status, Status::Completed);
        assert_eq!(run.keys().iter().filter(|key| **key == "not_cancelled").count(), 1);
        check(&run);
    }
}

#[test]
fn a_cancellation_that_an_answer_after_parking_overrules_is_told_once() {
    let mut run = at_the_pivot();
    run.event(Event::Cancel { event_id: None, event: None });
    run.exhaust(SHIP, Phase::Action);
    run.event(Event::Cancel { event_id: None, event: None });
    assert_eq!(run.instance.status, Status::Parked);
    run.succeed(SHIP).succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
    assert_eq!(run.keys().iter().filter(|key| **key == "not_cancelled").count(), 1);
    check(&run);
}

#[test]
fn a_cancellation_that_counts_and_a_stop_of_another_kind_are_not_told_as_refused() {
    let mut cancelled = at_the_pivot();
    cancelled.event(Event::Cancel { event_id: None, event: None });
    cancelled.refuse(SHIP).undo(CHARGE).undo(RESERVE);
    let mut late = at_the_pivot();
    late.publish();
    late.now = late.now + Duration::from_secs(3600);
    late.event(Event::Tick);
    late.succeed(SHIP).succeed(INVOICE);
    let mut ordered = at_the_pivot();
    ordered.order(Verb::Compensate, None, Value::Null).unwrap();
    ordered.succeed(SHIP).succeed(INVOICE);
    for (run, status, overruled) in [
        (cancelled, Status::Compensated, false),
        (late, Status::Completed, true),
        (ordered, Status::Completed, true),
    ] {
        assert_eq!(run.instance.status, status);
        assert_eq!(run.has(|fact| *fact == Fact::StopOverruled), overruled);
        assert!(!run.keys().contains(&"not_cancelled"), "{:?}", run.keys());
    }
}

/// The order saga; the same steps as a diamond: charge and a second charge after reserve, then ship; and
/// the order saga with its pivot skipped.
fn plans() -> Vec<Plan> {
    let chain = load("order.yaml", DEFINITION).unwrap();
    let charge = DEFINITION.split("  - step: charge").nth(1).unwrap().split("  - step: ship").next().unwrap();
    let doubled = DEFINITION.replace("  - step: ship", &format!("  - step: charge2{charge}  - step: ship"));
    let mut diamond = load("order.yaml", &doubled).unwrap();
    diamond.steps[2].requires = vec![0];
    diamond.steps[3].requires = vec![1, 2];
    let skipped = DEFINITION.replace("kind: pivot\n", "kind: pivot\n    when: =!input.invoice\n");
    vec![chain, diamond, load("order.yaml", &skipped).unwrap()]
}

/// Reserve succeeded, the two charges are out at the same time.
fn diamond() -> Run {
    let mut run = Run::of(plans().remove(1));
    run.succeed(0);
    run
}

#[test]
fn independent_steps_run_and_are_undone_at_the_same_time() {
    let mut run = diamond();
    assert_eq!(run.keys()[1..], ["payment.charge", "payment.charge"]);
    run.succeed(2);
    assert_eq!(run.sent.len(), 3, "ship waits for both");
    run.succeed(1).refuse(3);
    assert_eq!(run.keys()[4..], ["payment.refund", "payment.refund"]);
    run.undo(1);
    assert_eq!(run.sent.len(), 6, "release waits for both refunds");
    run.undo(2).undo(0);
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn a_failed_branch_waits_for_the_other_before_anything_is_undone() {
    let mut run = diamond();
    run.refuse(1);
    assert_eq!(run.sent.len(), 3);
    run.succeed(2);
    assert_eq!(run.keys()[3..], ["payment.refund"]);
}

#[test]
fn a_success_that_comes_while_another_branch_drains_makes_its_step_compensatable_with_its_output() {
    let mut run = diamond();
    run.refuse(1);
    run.publish();
    run.exhaust(2, Phase::Action);
    assert_eq!(run.step(2), StepStatus::Compensating);
}

/// The pivot's attempts are used up, and nobody knows what became of it.
fn parked_at_the_pivot() -> Run {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).exhaust(SHIP, Phase::Action);
    assert_eq!((run.instance.status, run.step(SHIP)), (Status::Parked, StepStatus::Unknown));
    run
}

#[test]
fn an_order_is_on_the_history_with_who_gave_it_and_why() {
    let mut run = parked_at_the_pivot();
    run.order(Verb::Retry, None, Value::Null).unwrap();
    let wanted = Fact::Ordered {
        verb: Verb::Retry,
        step: Some(SHIP),
        actor: "ann".to_owned(),
        reason: "the warehouse said so".to_owned(),
    };
    assert!(run.has(|fact| *fact == wanted));
}

#[test]
fn a_parked_step_is_tried_once_more_under_the_same_command_id() {
    let mut run = parked_at_the_pivot();
    run.order(Verb::Retry, None, Value::Null).unwrap();
    let [.., last] = &run.sent[..] else { panic!("nothing was sent") };
    assert_eq!((&*last.key, last.headers.get("x-saga-attempt").as_deref()), ("shipment.create", Some("4")));
    assert_eq!(run.instance.status, Status::Running);
    run.exhaust(SHIP, Phase::Action);
    assert_eq!(run.instance.status, Status::Parked, "one order is one attempt");
    run.order(Verb::Retry, Some("ship"), Value::Null).unwrap();
    run.succeed(SHIP).succeed(INVOICE);
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn a_step_that_waits_for_its_next_attempt_is_tried_at_once() {
    let mut run = Run::new();
    run.reply(RESERVE, Phase::Action, Outcome::Retry(failure("BUSY"), None));
    run.order(Verb::Retry, Some("reserve"), Value::Null).unwrap();
    assert_eq!(run.keys(), ["stock.reserve", "stock.reserve"]);
    let refused = run.order(Verb::Retry, Some("reserve"), Value::Null).unwrap_err();
    assert!(refused.contains("may still be answered"), "{refused}");
}

#[test]
fn a_step_that_counts_as_succeeded_has_the_output_that_was_given() {
    let mut run = Run::new();
    run.publish();
    run.order(Verb::ResolveSucceeded, Some("reserve"), json!({"reservation": "by phone"})).unwrap();
    run.succeed(CHARGE).refuse(SHIP).undo(CHARGE);
    let [.., release] = &run.sent[..] else { panic!("nothing was sent") };
    assert_eq!(release.body, json!({"reservation": "by phone"}).to_string().as_bytes());
}

#[test]
fn a_pivot_that_is_known_to_have_failed_has_everything_undone() {
    let mut run = parked_at_the_pivot();
    let refused = run.order(Verb::Compensate, None, Value::Null).unwrap_err();
    assert!(refused.contains("resolve that step first"), "{refused}");
    run.order(Verb::ResolveFailed, None, Value::Null).unwrap();
    run.undo(CHARGE).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
    assert_eq!(run.instance.error.as_ref().unwrap().code, "RESOLVED");
}

#[test]
fn a_skipped_step_is_gone_on_without_and_keeps_what_was_given() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).succeed(SHIP).refuse(INVOICE);
    assert_eq!(run.instance.status, Status::Parked);
    run.order(Verb::Skip, None, json!({"sent": "by post"})).unwrap();
    assert_eq!((run.instance.status, run.step(INVOICE)), (Status::Completed, StepStatus::Skipped));
    assert_eq!(run.instance.steps[INVOICE].output.as_deref(), Some(&json!({"sent": "by post"})));
}

#[test]
fn a_pivot_is_not_skipped_while_the_instance_turns_back() {
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE);
    run.order(Verb::Cancel, None, Value::Null).unwrap();
    let refused = run.order(Verb::Skip, Some("ship"), Value::Null).unwrap_err();
    assert!(refused.contains("turns back"), "{refused}");
    run.order(Verb::ResolveFailed, Some("ship"), Value::Null).unwrap();
    assert_eq!(run.instance.status, Status::Compensating);
}

#[test]
fn an_output_that_nothing_keeps_is_refused() {
    let mut run = parked_at_the_pivot();
    for verb in [Verb::Retry, Verb::ResolveFailed, Verb::Compensate, Verb::Cancel] {
        let refused = run.order(verb, None, json!(1)).unwrap_err();
        assert!(refused.contains("leave it out"), "{refused}");
    }
}

#[test]
fn a_compensation_that_cannot_be_done_is_skipped_or_tried_again() {
    for verb in [Verb::Skip, Verb::ResolveSucceeded, Verb::Retry] {
        let mut run = Run::new();
        run.succeed(RESERVE).succeed(CHARGE).refuse(SHIP).exhaust(CHARGE, Phase::Compensation);
        assert_eq!(run.instance.status, Status::Parked);
        assert!(run.order(Verb::ResolveFailed, None, Value::Null).is_err());
        run.order(verb, None, Value::Null).unwrap();
        if verb == Verb::Retry {
            run.undo(CHARGE);
        }
        run.undo(RESERVE);
        assert_eq!(run.instance.status, Status::Compensated, "{verb:?}");
    }
}

#[test]
fn what_a_person_has_left_on_the_way_back_is_told_as_not_undone() {
    for (verb, left) in [(Verb::Skip, vec!["charge"]), (Verb::ResolveSucceeded, vec![])] {
        let mut run = Run::new();
        run.succeed(RESERVE).succeed(CHARGE).refuse(SHIP).exhaust(CHARGE, Phase::Compensation);
        run.order(verb, None, Value::Null).unwrap();
        run.undo(RESERVE);
        assert_eq!(run.instance.status, Status::Compensated);
        assert_eq!(run.instance.not_undone().collect::<Vec<_>>(), left, "{verb:?}");
        assert_eq!(run.step(CHARGE) == StepStatus::NotUndone, verb == Verb::Skip);
        let notice = run.sent.iter().rev().find(|sent| !sent.wants_reply).unwrap();
        let told = notice.headers.get("x-saga-not-undone");
        assert_eq!(told.as_deref(), left.first().copied(), "{verb:?}");
    }
    // Nor is a step undone that was skipped while its command was out, and may have been done.
    let mut run = Run::new();
    run.succeed(RESERVE);
    run.publish();
    run.order(Verb::Skip, Some("charge"), Value::Null).unwrap();
    assert_eq!(run.instance.not_undone().count(), 0, "nothing is to be undone yet");
    run.refuse(SHIP).undo(RESERVE);
    assert_eq!(run.instance.not_undone().collect::<Vec<_>>(), ["charge"]);
}

#[test]
fn an_output_that_a_person_gives_must_be_what_the_step_declares() {
    let mut run = Run::new();
    for (output, reason) in [
        (
            Value::Null,
            "step reserve keeps an output, which later steps count on: --output '{\"reservation\": ...}'",
        ),
        (json!("r-1"), "the output of step reserve is an object: --output '{\"reservation\": ...}'"),
        (json!({"reservations": 1}), "the output of step reserve lacks reservation"),
        (
            json!({"reservation": 1, "x": 2}),
            "the output of step reserve has no field \"x\", only reservation",
        ),
    ] {
        let refused = run.order(Verb::ResolveSucceeded, Some("reserve"), output).unwrap_err();
        assert_eq!(refused, reason);
    }
    run.order(Verb::ResolveSucceeded, Some("reserve"), json!({"reservation": "r-1"})).unwrap();
    assert_eq!(run.step(RESERVE), StepStatus::Succeeded);
}

#[test]
fn what_a_step_keeps_is_corrected_while_the_instance_is_parked_and_only_then() {
    let mut run = Run::new();
    run.succeed(RESERVE);
    let output = json!({"reservation": "right"});
    let refused = run.order(Verb::Correct, Some("reserve"), output.clone()).unwrap_err();
    assert_eq!(refused, "it is running: only what a parked instance keeps can be changed");
    let mut run = parked_at_the_pivot();
    let refused = run.order(Verb::Correct, Some("reserve"), output.clone()).unwrap_err();
    assert!(refused.contains("has yet to confirm a message"), "{refused}");
    run.publish();
    for (step, output, reason) in [
        (None, output.clone(), "name the step"),
        (Some("reserve"), Value::Null, "say what the step is to keep"),
        (Some("reserve"), json!({}), "lacks reservation"),
        (Some("ship"), output.clone(), "keeps nothing yet"),
    ] {
        let refused = run.order(Verb::Correct, step, output).unwrap_err();
        assert!(refused.contains(reason), "{refused}");
    }
    run.order(Verb::Correct, Some("reserve"), output.clone()).unwrap();
    assert_eq!(
        (run.instance.status, run.instance.steps[RESERVE].output.as_deref()),
        (Status::Parked, Some(&output))
    );
    run.order(Verb::Retry, None, Value::Null).unwrap();
    assert_eq!(run.step(SHIP), StepStatus::Dispatched);
}

#[test]
fn turning_back_is_refused_where_there_is_no_way_back_and_says_why() {
    let mut run = Run::new();
    run.succeed(RESERVE);
    run.order(Verb::Cancel, None, Value::Null).unwrap();
    assert_eq!(run.instance.error.as_ref().unwrap().code, "CANCELLED");
    let mut cases = vec![(run, "on its way back already")];
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).succeed(SHIP);
    cases.push((run, "its pivot has succeeded"));
    let mut run = Run::new();
    run.succeed(RESERVE).succeed(CHARGE).succeed(SHIP).succeed(INVOICE);
    cases.push((run, "it has ended: completed"));
    for (mut run, reason) in cases {
        let before = run.instance.clone();
        for verb in [Verb::Cancel, Verb::Compensate] {
            let refused = run.order(verb, None, Value::Null).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
        assert_eq!(run.instance, before);
    }
}

#[test]
fn an_order_to_a_step_that_is_not_there_or_not_due_is_refused() {
    let mut run = Run::new();
    let unknown = run.order(Verb::Skip, Some("chip"), Value::Null).unwrap_err();
    assert_eq!(unknown, "there is no step \"chip\", only reserve, charge, ship, invoice");
    let early = run.order(Verb::Skip, Some("ship"), Value::Null).unwrap_err();
    assert_eq!(early, "step ship is pending, and not what the instance waits for");
}

#[test]
fn an_order_that_is_given_twice_settles_no_second_step() {
    for verb in [Verb::Skip, Verb::ResolveSucceeded] {
        let mut run = Run::new();
        run.succeed(RESERVE);
        let refused = run.order(verb, None, Value::Null).unwrap_err();
        assert!(refused.ends_with("name the one that is meant: --step charge"), "{refused}");
        run.order(verb, Some("charge"), Value::Null).unwrap();
        let refused = run.order(verb, Some("charge"), Value::Null).unwrap_err();
        assert!(refused.contains("not what the instance waits for"), "{refused}");
        assert_eq!(run.step(SHIP), StepStatus::Dispatched);
    }
    let mut run = parked_at_the_pivot();
    run.order(Verb::Skip, None, Value::Null).unwrap();
    let refused = run.order(Verb::Skip, None, Value::Null).unwrap_err();
    assert!(refused.ends_with("--step invoice"), "{refused}");
    assert_eq!(run.step(INVOICE), StepStatus::Dispatched);
}

#[test]
fn where_several_steps_are_under_way_all_are_named_to_choose_from() {
    let mut run = diamond();
    for verb in [Verb::Retry, Verb::Skip, Verb::ResolveFailed] {
        let refused = run.order(verb, None, Value::Null).unwrap_err();
        assert!(refused.ends_with("--step charge or --step charge2"), "{refused}");
    }
}

#[derive(Clone, Debug)]
enum Input {
    /// A reply to one of the steps that are not settled.
    Answer {
        nth: usize,
        kind: u8,
    },
    /// A reply to any step.
    Reply {
        step: usize,
        phase: Phase,
        attempt: Option<u32>,
        kind: u8,
    },
    Publish,
    Unroutable {
        step: usize,
        phase: Phase,
        attempt: u32,
        maybe: bool,
    },
    Turn {
        step: usize,
    },
    Wait,
    Cancel,
    StartedAgain,
    Order {
        verb: Verb,
        step: Option<usize>,
    },
}

fn input() -> impl Strategy<Value = Input> {
    let phase = || prop_oneof![3 => Just(Phase::Action), 2 => Just(Phase::Compensation)];
    let kind = || prop_oneof![6 => Just(0u8), 2 => Just(1), 2 => Just(2), 1 => Just(3), 1 => Just(4)];
    prop_oneof![
        10 => (any::<usize>(), kind()).prop_map(|(nth, kind)| Input::Answer { nth, kind }),
        5 => (any::<usize>(), phase(), proptest::option::of(1..4u32), kind())
            .prop_map(|(step, phase, attempt, kind)| Input::Reply { step, phase, attempt, kind }),
        4 => Just(Input::Publish),
        2 => (any::<usize>(), phase(), 1..4u32, any::<bool>())
            .prop_map(|(step, phase, attempt, maybe)| Input::Unroutable { step, phase, attempt, maybe }),
        4 => (0..6usize).prop_map(|step| Input::Turn { step }),
        3 => Just(Input::Wait),
        1 => Just(Input::Cancel),
        1 => Just(Input::StartedAgain),
        2 => (proptest::sample::select(Verb::ALL.to_vec()), proptest::option::of(0..5usize))
            .prop_map(|(verb, step)| Input::Order { verb, step }),
    ]
}

fn feed(run: &mut Run, input: Input) {
    match input {
        Input::Answer { nth, kind } => {
            let open = run.instance.steps.iter().enumerate().filter_map(|(step, state)| match state.status {
                StepStatus::Dispatched | StepStatus::Unknown | StepStatus::Failed => {
                    Some((step, Phase::Action))
                }
                StepStatus::Compensating => Some((step, Phase::Compensation)),
                _ => None,
            });
            let open: Vec<_> = open.collect();
            if let Some((step, phase)) = nth.checked_rem(open.len()).map(|nth| open[nth]) {
                feed(run, Input::Reply { step, phase, attempt: None, kind });
            }
        }
        Input::Reply { step, phase, attempt, kind } => {
            let step = step % (run.plan.steps.len() + 1);
            let name = run.instance.steps.get(step).map(|state| state.name.clone());
            let failure = |code| Failure { step: name.clone(), ..failure(code) };
            let outcome = match kind {
                0 => Outcome::Success(Ok(json!({"reservation": "r-1"}))),
                1 => Outcome::Failure(failure("NO")),
                2 => Outcome::Retry(failure("BUSY"), None),
                3 => Outcome::Pending,
                _ => Outcome::Success(Err(failure("BAD_OUTPUT"))),
            };
            run.answer(step, phase, attempt, outcome);
        }
        Input::Publish => {
            run.publish();
        }
        Input::Unroutable { step, phase, attempt, maybe } => {
            let step = step % (run.plan.steps.len() + 1);
            let part = Part::Attempt { step, phase, attempt };
            run.event(Event::Unroutable { part, reason: "NO_ROUTE".to_owned(), maybe_delivered: maybe });
        }
        Input::Turn { step } => {
            run.event(Event::Turn { step });
        }
        Input::Wait => {
            run.wait();
        }
        Input::Cancel => {
            run.event(Event::Cancel { event_id: None, event: None });
        }
        Input::StartedAgain => {
            run.event(Event::StartedAgain { event_id: None });
        }
        Input::Order { verb, step } => {
            let step = step.and_then(|step| run.instance.steps.get(step).map(|state| state.name.clone()));
            let before = run.instance.clone();
            if run.order(verb, step.as_deref(), Value::Null).is_err() {
                assert_eq!(run.instance, before, "a refused order changed something");
            }
        }
    }
}

fn check(run: &Run) {
    let Run { plan, instance, .. } = run;
    let replayed = Instance::replay(instance.id, &run.history).expect("a history begins with a start");
    assert_eq!(&replayed, instance, "the record is the fold of the history");
    if matches!(instance.status, Status::Running | Status::Compensating) {
        let queued = instance.steps.iter().any(|step| step.is_queued());
        assert!(queued || instance.next_due().is_some(), "{:?} without a timer", instance.status);
    }
    // What is unconfirmed is rendered again exactly as it was sent.
    for part in instance.unconfirmed() {
        let again = command::render(plan, instance, part).unwrap().unwrap();
        assert!(run.sent.contains(&again), "{part:?} would be published with other bytes");
    }
    let pivot = plan.steps.iter().position(|step| step.kind == Kind::Pivot).unwrap();
    let shipped = matches!(instance.steps[pivot].status, StepStatus::Succeeded | StepStatus::Skipped);
    let open = |step: usize| match instance.steps[step].status {
        StepStatus::Succeeded | StepStatus::Unknown => plan.steps[step].compensation.is_some(),
        status => status == StepStatus::Dispatched,
    };
    match instance.status {
        Status::Completed => {
            let settled = |status| matches!(status, StepStatus::Succeeded | StepStatus::Skipped);
            assert!(instance.steps.iter().all(|step| settled(step.status)));
        }
        Status::Compensated => assert!(!(0..plan.steps.len()).any(open), "{instance:#?}"),
        _ => {}
    }
    let undoing = instance.steps.iter().any(|step| !step.compensation.is_idle());
    assert!(!(shipped && undoing), "shipped and refunded");
    for step in
        instance.steps.iter().filter(|step| matches!(step.status, StepStatus::Pending | StepStatus::Skipped))
    {
        assert!(step.compensation.is_idle(), "undone without having been sent");
    }
    // Undoing a step begins only when nothing that stands on it may still be in effect.
    for recorded in run.history.last().iter().flat_map(|entry| &entry.facts) {
        let Fact::Dispatched { step: undone, phase: Phase::Compensation, attempt: 1 } = recorded.fact else {
            continue;
        };
        for (later, _) in plan.steps.iter().enumerate().filter(|(_, step)| step.requires.contains(&undone)) {
            let status = instance.steps[later].status;
            assert!(!open(later) && status != StepStatus::Compensating, "undone out of order");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_any_order_of_inputs_the_invariants_hold_and_silence_ends_it(
        plan in prop_oneof![(0..3usize).prop_map(|which| plans().remove(which)), parallel::any_plan()],
        inputs in proptest::collection::vec(input(), 0..60),
    ) {
        let mut run = Run::of(plan);
        check(&run);
        for input in inputs {
            let ended = matches!(run.instance.status, Status::Completed | Status::Compensated);
            let before = run.instance.steps.clone();
            feed(&mut run, input);
            check(&run);
            prop_assert!(!ended || before == run.instance.steps, "an ended instance changed");
        }
        // No two messages share an id, unless they are the same message.
        let mut seen: HashMap<MessageId, &Outgoing> = HashMap::new();
        for outgoing in &run.sent {
            prop_assert!(seen.insert(outgoing.message_id, outgoing).is_none(), "sent twice: {outgoing:?}");
        }
        // From here on nobody answers any more: it ends, or a person is asked; only a step after the
        // pivot is tried for ever.
        for _ in 0..60 + 40 * run.plan.steps.len() {
            run.wait();
        }
        check(&run);
        let forward_only = run.plan.steps.iter().zip(&run.instance.steps).any(|(step, state)| {
            step.kind == Kind::Retriable && state.status == StepStatus::Dispatched
        });
        let under_way = matches!(run.instance.status, Status::Running | Status::Compensating);
        prop_assert!(!under_way || forward_only, "hangs: {:#?}", run.instance);
    }
}
