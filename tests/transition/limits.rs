//! Steps that are limited: what a queue means for one instance.

use super::parallel::with_steps;
use super::*;

const PRINT: usize = 1;
const STAMP: usize = 2;

/// reserve -> print (limited) -> stamp (limited, pivot)
fn run() -> Run {
    let undo = "compensate: {command: {exchange: e, key: undo}, retry: undo}";
    let mut run = Run::of(with_steps(&[
        format!("{{step: reserve, command: {{exchange: e, key: reserve}}, {undo}}}"),
        format!(
            "{{step: print, command: {{exchange: e, key: print}}, timeout: 10s, retry: normal, \
             limit: {{in_flight: 1}}, {undo}}}"
        ),
        "{step: stamp, kind: pivot, command: {exchange: e, key: stamp}, timeout: 10s, retry: normal, \
         limit: {per_second: 2}}"
            .to_owned(),
    ]));
    run.succeed(RESERVE);
    run
}

fn is_queued(run: &Run, step: usize) -> bool {
    run.instance.steps[step].is_queued()
}

#[test]
fn a_step_that_is_limited_sends_nothing_before_its_turn() {
    let mut run = run();
    assert!(is_queued(&run, PRINT));
    assert_eq!(run.keys(), ["reserve"]);
    assert_eq!(run.instance.next_due(), run.instance.deadline, "only the time limit runs");
    run.turn();
    assert_eq!(run.keys(), ["reserve", "print"]);
    run.event(Event::Turn { step: PRINT });
    run.event(Event::Turn { step: 99 });
    assert_eq!(run.keys(), ["reserve", "print"], "a turn that nobody awaits changes nothing");
    run.succeed(PRINT).turn().succeed(STAMP);
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn every_further_attempt_awaits_its_turn_when_it_is_due() {
    let mut run = run();
    run.turn().publish();
    run.reply(PRINT, Phase::Action, Outcome::Retry(failure("BUSY"), None));
    assert!(!is_queued(&run, PRINT), "it waits for its time first");
    run.now = run.instance.next_due().unwrap();
    run.event(Event::Tick);
    assert!(is_queued(&run, PRINT));
    assert_eq!(run.instance.steps[PRINT].action.attempt, 1);
    run.turn();
    assert_eq!(run.keys(), ["reserve", "print", "print"]);
    assert_eq!(run.instance.steps[PRINT].action.attempt, 2);
}

#[test]
fn undoing_is_not_limited() {
    let mut run = run();
    run.turn().succeed(PRINT).turn().refuse(STAMP);
    assert_eq!(run.keys()[3..], ["undo"]);
    run.undo(PRINT).undo(RESERVE);
    assert_eq!(run.instance.status, Status::Compensated);
}

#[test]
fn an_instance_that_stops_gives_up_its_turn_and_undoes_what_may_have_happened() {
    let mut never_sent = run();
    never_sent.event(Event::Cancel { event_id: None, event: None });
    assert_eq!(never_sent.step(PRINT), StepStatus::Failed);
    assert_eq!(never_sent.instance.steps[PRINT].error.as_ref().unwrap().code, "STOPPED");
    assert_eq!(never_sent.step(RESERVE), StepStatus::Compensating, "it turns back at once");

    let mut sent_before = run();
    sent_before.turn().wait();
    sent_before.now = sent_before.instance.next_due().unwrap();
    sent_before.event(Event::Tick);
    assert!(is_queued(&sent_before, PRINT));
    sent_before.event(Event::Cancel { event_id: None, event: None });
    assert_eq!(sent_before.step(PRINT), StepStatus::Compensating, "its first attempt may have got through");
}

#[test]
fn a_pivot_that_may_have_got_through_is_asked_on_in_its_turn_while_the_instance_stops() {
    let mut run = run();
    run.turn().succeed(PRINT).turn().wait();
    run.now = run.instance.next_due().unwrap();
    run.event(Event::Tick);
    run.event(Event::Cancel { event_id: None, event: None });
    assert!(is_queued(&run, STAMP) && run.instance.is_stopping());
    run.turn().succeed(STAMP);
    assert_eq!(run.instance.status, Status::Completed);
}

#[test]
fn an_answer_counts_from_the_first_attempt_on() {
    let mut run = run();
    run.succeed(PRINT);
    assert!(is_queued(&run, PRINT), "nothing was sent that could be answered");
    assert!(run.has(|fact| matches!(fact, Fact::Ignored { what: Ignored::UnexpectedReply, .. })));
    run.wait();
    run.now = run.instance.next_due().unwrap();
    run.event(Event::Tick);
    assert!(is_queued(&run, PRINT), "its second attempt awaits its turn");
    run.succeed(PRINT);
    assert_eq!(run.step(PRINT), StepStatus::Succeeded);
}

#[test]
fn a_person_may_settle_what_awaits_its_turn_but_not_send_it() {
    let mut run = run();
    let refused = run.order(Verb::Retry, Some("print"), Value::Null).unwrap_err();
    assert_eq!(refused, "it awaits its turn: step print is limited over all instances");
    run.order(Verb::Skip, Some("print"), json!({"page": 1})).unwrap();
    assert_eq!((run.step(PRINT), is_queued(&run, STAMP)), (StepStatus::Skipped, true));
    run.order(Verb::ResolveFailed, Some("stamp"), Value::Null).unwrap();
    assert_eq!((run.step(STAMP), run.instance.status), (StepStatus::Failed, Status::Compensating));
}
