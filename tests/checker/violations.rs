//! For each invariant, the smallest thing that is wrong, and nothing else is told.

use std::time::Duration;

use sagamq::checker::evidence::{Acked, Dead, Entry, Observed, Placed, Placing, Seen, Settled};
use sagamq::checker::{Evidence, Invariant, Report, check};
use sagamq::saga::fact::{Fact, HistoryEntry, Recorded};
use sagamq::saga::id::{InstanceId, MessageId, Phase, StoreId};
use sagamq::saga::instance::Instance;
use sagamq::saga::time::Timestamp;
use sagamq::store::DeadLetter;

use crate::play::{CHARGE, Play, RESERVE, SHIP, failure, right};
use Invariant::{
    I1, I2, I3, I4, I5, I6, I7, I8, I9, I10, I11, I12, I13, I14, I15, I16, I17, I21, I22, I23, I24, I25,
};
use Phase::{Action, Compensation};

type Wrong = (Invariant, &'static str, fn(&mut Evidence));

/// What is done to a run that is right.
const WRONGS: [Wrong; 48] = [
    (I1, "a start is lost", |run| place(run, "start-lost", start_of("lost"))),
    (I1, "an instance from nowhere", |run| run.placed.retain(|placed| placed.message_id != "start-undone")),
    (I1, "a second start in one history", |run| {
        let history = &mut of(run, "done").history;
        let first = history[0].facts[0].clone();
        history[0].facts.insert(1, first);
    }),
    (I2, "an instance that goes on for ever", |run| {
        let mut play = Play::start(std::mem::take(run), "stuck");
        play.publish();
        *run = play.end();
    }),
    (I3, "an action that is booked twice", |run| {
        let twice = entry(run, "done", CHARGE, Action).clone();
        book(run, twice);
    }),
    (I3, "an effect of no command", |run| {
        let entry = entry(run, "done", CHARGE, Action).clone();
        book(run, Entry { command_id: "11111111-1111-1111-1111-111111111111".to_owned(), ..entry });
    }),
    (I3, "a step that is done and never booked", |run| {
        let id = entry(run, "done", CHARGE, Action).command_id.clone();
        run.entries.retain(|entry| entry.command_id != id);
        run.replayed_at = Some(run.entries.len());
    }),
    (I3, "a refusal that counts as done", |run| {
        let entry = entry(run, "done", CHARGE, Action);
        entry.answer = "failure".into();
        entry.effect.clear();
    }),
    (I3, "a compensation that gives back too little", |run| {
        entry(run, "undone", CHARGE, Compensation).effect.clear();
    }),
    (I4, "shipped and refunded", |run| {
        entry(run, "undone", SHIP, Action).effect.insert("parcels".to_owned(), 1);
    }),
    (I5, "what was refused is undone", |run| {
        before(run, "late", CHARGE, Fact::Failed { step: CHARGE, error: failure("charge") });
    }),
    (I5, "what was never sent is undone", |run| {
        let id = attempt("cancelled", RESERVE, Action, 1);
        run.messages.retain(|seen| seen.message_id != id);
        run.entries.retain(|entry| entry.command_id != id);
        run.replayed_at = Some(run.entries.len());
        entry(run, "cancelled", RESERVE, Compensation).effect.clear();
    }),
    (I6, "the first step is undone first", |run| {
        for fact in facts(run, "undone") {
            match &mut fact.fact {
                Fact::Dispatched { step, phase: Compensation, .. }
                | Fact::Published { step, phase: Compensation, .. }
                | Fact::Compensated { step } => *step = 1 - *step,
                _ => {}
            }
        }
    }),
    (I6, "a step is undone after the pivot", |run| {
        let step = SHIP;
        let output = serde_json::Value::Null;
        before(run, "undone", CHARGE, Fact::succeeded(step, output));
    }),
    (I7, "a command id that is not its own", |run| {
        let wrong = attempt("done", SHIP, Action, 1);
        *header(run, "done", CHARGE, "x-saga-command-id") = wrong;
    }),
    (I7, "a copy that is not the same", |run| {
        let mut copy = message(run, "done", CHARGE).clone();
        copy.headers.insert("traceparent".to_owned(), "00-1-2-01".to_owned());
        run.messages.push(copy);
    }),
    (I8, "a cancellation is acked and forgotten", |run| {
        place(run, "cancel-done", cancel_of("done"));
        settle(run, "sagamq.events", "cancel-done", Settled::Acked);
    }),
    (I8, "a second start is acked and forgotten", |run| {
        place(run, "start-done-again", start_of("done"));
        settle(run, "sagamq.events", "start-done-again", Settled::Acked);
    }),
    (I8, "a reply is acked and forgotten", |run| {
        let id = format!("reply-99-{}", attempt("done", CHARGE, Action, 1));
        settle(run, "sagamq.replies", &id, Settled::Acked);
    }),
    (I8, "a rejected message is nowhere", |run| {
        run.letters.push(run.letters[0].clone());
        run.letters[1].message_id = Some("odd".to_owned());
        settle(run, "sagamq.events", "odd", Settled::Rejected);
    }),
    (I9, "a confirmed command that nobody saw", |run| {
        let id = attempt("done", SHIP, Action, 1);
        run.messages.retain(|seen| seen.message_id != id);
    }),
    (I9, "a command that nobody decided", |run| {
        let mut seen = message(run, "done", CHARGE).clone();
        seen.message_id = attempt("done", CHARGE, Action, 9);
        seen.headers.insert("x-saga-attempt".to_owned(), "9".to_owned());
        run.messages.push(seen);
    }),
    (I9, "a command of an instance that is not there", |run| {
        *header(run, "done", SHIP, "x-saga-id") = InstanceId::new("order", "other").to_string();
        let facts = &mut of(run, "done").history;
        facts.iter_mut().for_each(|entry| entry.facts.retain(|one| !is_published(&one.fact, SHIP)));
    }),
    (I9, "an end that is never told", |run| {
        let mut play = Play::start(std::mem::take(run), "untold");
        play.publish().answer(RESERVE, Action, false);
        *run = play.end();
    }),
    (I10, "an effect at the second delivery", |run| {
        let again = entry(run, "done", CHARGE, Action).clone();
        run.entries.push(again);
    }),
    (I11, "a timeout of what was answered", |run| {
        let fact = Fact::TimedOut { step: SHIP, phase: Action, attempt: 1 };
        let of = of(run, "done");
        let at = of.history.iter().position(|entry| succeeds(entry, SHIP)).unwrap();
        let recorded = Recorded { at: of.history[at].facts[0].at, fact };
        of.history[at].facts.push(recorded);
    }),
    (I12, "a late success that is not undone", |run| {
        entry(run, "late", CHARGE, Compensation).effect.clear();
    }),
    (I12, "a success that counts as refused", |run| {
        entry(run, "refused", CHARGE, Action).effect.insert("cents".to_owned(), 5);
    }),
    (I13, "garbage that is dead-lettered twice", |run| run.dead.push(run.dead[0].clone())),
    (I13, "garbage that changes an instance", |run| {
        let history = &mut of(run, "undone").history;
        let timed_out = history.iter_mut().find(|entry| matches!(entry.facts[0].fact, Fact::TimedOut { .. }));
        timed_out.unwrap().causation_id = Some("garbage-1".to_owned());
    }),
    (I14, "a timeout that comes early", |run| {
        let history = &mut of(run, "undone").history;
        let early = history.iter_mut().find(|entry| matches!(entry.facts[0].fact, Fact::TimedOut { .. }));
        early.unwrap().facts.iter_mut().for_each(|one| one.at = one.at - Duration::from_secs(5));
    }),
    (I15, "a revision that is there twice", |run| of(run, "done").history[2].revision = 2),
    (I15, "a command that says something else", |run| {
        message_mut(run, "done", CHARGE).body = "{}".to_owned();
    }),
    (I16, "a command of another version", |run| {
        *header(run, "done", CHARGE, "x-saga-version") = "2".to_owned();
    }),
    (I13, "an answer that was made up and counts", |run| {
        place(run, "forged-1", Placing::Forged);
        caused(run, "done", CHARGE, "forged-1");
    }),
    (I21, "an event that counts twice", |run| caused(run, "heard", SHIP, "event-1")),
    (I21, "an event that counts for an instance which it does not name", |run| {
        caused(run, "done", CHARGE, "event-1");
    }),
    (I21, "a start event that answers what it has started", |run| caused(run, "done", SHIP, "start-done")),
    (I21, "an event without an id that counts twice", |run| {
        run.placed.push(Placed {
            mark: Some("m-1".to_owned()),
            ..Placed::new("unnamed-1", answer_of("done"), Timestamp(1))
        });
        for fact in facts(run, "done") {
            if let Fact::Succeeded { step: CHARGE | SHIP, output } = &mut fact.fact {
                *output = serde_json::json!({"mark": "m-1"}).into();
            }
        }
    }),
    (I21, "an event with the correlation of one that answers another one as well", |run| {
        run.placed
            .push(Placed { correlated: true, ..Placed::new("event-1", answer_of("done"), Timestamp(1)) });
        caused(run, "done", CHARGE, "event-1");
    }),
    (I22, "an amount that lost its zero", |run| input(run, "done")["weight"] = serde_json::json!(12.5)),
    (I22, "a number that is the next double", |run| {
        input(run, "done")["serial"] = serde_json::from_str("90071992547409930000").unwrap();
    }),
    (I23, "what a person left is told as undone", |run| {
        for fact in facts(run, "left") {
            if fact.fact == (Fact::LeftUndone { step: RESERVE }) {
                fact.fact = Fact::Compensated { step: RESERVE };
            }
        }
    }),
    (I23, "an end that does not say what is left", |run| {
        run.messages.iter_mut().for_each(|seen| drop(seen.headers.remove("x-saga-not-undone")));
    }),
    (I24, "a healthy message is put aside", |run| aside(run, "start-done", true)),
    (I24, "a reply is put aside", |run| {
        aside(run, &format!("reply-99-{}", attempt("done", CHARGE, Action, 1)), true);
    }),
    (I24, "what is put aside is listed nowhere", |run| aside(run, "odd", false)),
    (I25, "two stores take messages at a time", |run| {
        let last = run.acks.len() - 1;
        run.acks[last - 1].by = Some("store 2".to_owned());
    }),
];

#[test]
fn a_run_that_is_right_passes_and_everything_was_looked_at() {
    let report = check(&right());
    assert_eq!(report.violations, [], "{report}");
    assert_eq!(report.unseen, ["I18: there is no secret to look for"]);
    let Report { instances, completed, compensated, parked, .. } = report;
    assert_eq!((instances, completed, compensated, parked), (7, 2, 4, 1));
    assert_eq!((report.lost, report.double_effects, report.forged, report.stuck), (0, 0, 0, 0));
    assert!(report.passed());
}

#[test]
fn a_prefix_that_is_given_to_another_store_is_right() {
    let mut run = right();
    let half = run.acks.len() / 2;
    run.acks[half..].iter_mut().for_each(|ack| ack.by = Some("store 2".to_owned()));
    assert_eq!(check(&run).violations, []);
}

#[test]
fn an_event_for_two_instances_that_counts_once_for_each_is_right() {
    let mut run = right();
    place(&mut run, "event-1", answer_of("done"));
    caused(&mut run, "done", CHARGE, "event-1");
    assert_eq!(check(&run).violations, []);
}

#[test]
fn what_is_put_aside_and_listed_and_was_never_healthy_is_right() {
    let mut run = right();
    aside(&mut run, "garbled-1", true);
    assert_eq!(check(&run).violations, []);
}

#[test]
fn what_started_the_instance_of_another_key_is_told_to_have_lost_digits() {
    let mut run = right();
    let placed = run.placed.iter_mut().find(|placed| placed.message_id == "start-done").unwrap();
    placed.what = start_of("done-1");
    let told: Vec<_> = check(&run).violations.iter().map(|violation| violation.invariant).collect();
    assert!(told.contains(&I22), "{told:?}");
}

#[test]
fn a_run_without_a_fault_fails() {
    let mut run = right();
    run.faults.clear();
    let report = check(&run);
    assert!(report.violations.is_empty() && !report.passed());
    assert!(
        report.to_string().ends_with("NOT PASSED: no fault was injected, so nothing is shown"),
        "{report}"
    );
}

#[test]
fn everything_wrong_is_told_by_its_invariant_alone() {
    for (invariant, what, spoil) in WRONGS {
        let mut run = right();
        spoil(&mut run);
        run.instances.iter_mut().for_each(fold);
        let report = check(&run);
        let mut told: Vec<_> = report.violations.iter().map(|violation| violation.invariant).collect();
        told.dedup();
        assert_eq!(told, [invariant], "{what}: {report}");
        assert!(!report.passed(), "{what}");
    }
}

#[test]
fn a_record_that_is_not_the_fold_is_told_as_such() {
    let mut run = right();
    of(&mut run, "done").instance.ignored = 7;
    let told: Vec<_> = check(&run).violations.iter().map(|violation| violation.invariant).collect();
    assert_eq!(told, [I17]);
}

#[test]
fn every_invariant_but_the_one_of_files_has_a_wrong() {
    // Those of calls and limits are shown by themselves.
    let tried = WRONGS.iter().map(|(invariant, ..)| *invariant).chain([I17, Invariant::I19, Invariant::I20]);
    let tried: std::collections::BTreeSet<_> = tried.collect();
    let untried: Vec<_> = Invariant::ALL.iter().filter(|one| !tried.contains(one)).collect();
    assert_eq!(untried, [&Invariant::I18]);
}

#[test]
fn what_is_lost_doubled_and_stuck_is_counted() {
    let mut run = right();
    place(&mut run, "start-lost", start_of("lost"));
    let twice = entry(&mut run, "done", CHARGE, Action).clone();
    book(&mut run, twice);
    let mut play = Play::start(run, "stuck");
    play.publish();
    let report = check(&play.end());
    assert_eq!((report.lost, report.double_effects, report.stuck), (1, 1, 1));
}

#[test]
fn the_first_violation_comes_with_everything_that_is_known_of_its_instance() {
    let mut run = right();
    entry(&mut run, "undone", CHARGE, Compensation).effect.clear();
    let text = check(&run).to_string();
    let undo = attempt("undone", CHARGE, Compensation, 1);
    let parts = [
        "the first: I3, completed: each step has exactly one net effect".to_owned(),
        format!("instance {}: step charge: the instance is compensated", InstanceId::new("order", "undone")),
        "placed    start event start-undone".to_owned(),
        "history   revision 1: started".to_owned(),
        format!("dispatched charge attempt=1 phase=\"compensation\" id={undo}"),
        format!("message   payment.refund on \"payments\" charge compensation 1 id {undo}"),
        format!("ledger    charge: charge booked {{}} for {undo}"),
        "acked     start-undone of sagamq.events".to_owned(),
        "NOT PASSED: 1 violation".to_owned(),
    ];
    for part in parts {
        assert!(text.contains(&part), "{part} is missing in\n{text}");
    }
    let times: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("    2023-")).collect();
    assert!(times.len() > 20 && times.is_sorted_by_key(|line| &line[..18]), "{text}");
}

#[test]
fn where_nobody_looked_nothing_is_held_against_anybody() {
    let mut run = right();
    (run.placed, run.messages, run.entries, run.acks) = Default::default();
    run.replayed_at = None;
    let report = check(&run);
    assert_eq!(report.violations, [], "{report}");
    for reason in
        ["I21:", "I22:", "I25:", "I1 over", "no ledgers", "no message log", "no log of acks", "I10:", "I13:"]
    {
        assert!(report.unseen.iter().any(|unseen| unseen.contains(reason)), "{reason}: {:?}", report.unseen);
    }
}

/// Makes the record what the history says.
fn fold(observed: &mut Observed) {
    observed.instance = Instance::replay(observed.instance.id, &observed.history).unwrap();
}

fn of<'a>(run: &'a mut Evidence, order: &str) -> &'a mut Observed {
    run.instances.iter_mut().find(|one| one.instance.business_key == order).unwrap()
}

fn facts<'a>(run: &'a mut Evidence, order: &str) -> impl Iterator<Item = &'a mut Recorded> {
    of(run, order).history.iter_mut().flat_map(|entry| &mut entry.facts)
}

/// Puts a fact before the one by which a step is undone.
fn before(run: &mut Evidence, order: &str, wanted: usize, fact: Fact) {
    for HistoryEntry { facts, .. } in &mut of(run, order).history {
        let undoes = |one: &Recorded| matches!(one.fact, Fact::Dispatched { step, phase: Compensation, .. } if step == wanted);
        if let Some(index) = facts.iter().position(undoes) {
            let at = facts[index].at;
            facts.insert(index, Recorded { at, fact: fact.clone() });
            return;
        }
    }
}

fn succeeds(entry: &HistoryEntry, wanted: usize) -> bool {
    entry.facts.iter().any(|one| matches!(one.fact, Fact::Succeeded { step, .. } if step == wanted))
}

fn is_published(fact: &Fact, wanted: usize) -> bool {
    matches!(fact, Fact::Published { step, phase: Action, .. } if *step == wanted)
}

fn attempt(order: &str, step: usize, phase: Phase, attempt: u32) -> String {
    let name = ["reserve", "charge", "ship", "invoice"][step];
    MessageId::attempt(StoreId::default(), InstanceId::new("order", order), name, phase, attempt).to_string()
}

fn entry<'a>(run: &'a mut Evidence, order: &str, step: usize, phase: Phase) -> &'a mut Entry {
    let id = attempt(order, step, phase, 1);
    run.entries.iter_mut().find(|entry| entry.command_id == id).unwrap()
}

/// Books something before the moment at which inputs come again.
fn book(run: &mut Evidence, entry: Entry) {
    run.entries.insert(0, entry);
    run.replayed_at = run.replayed_at.map(|at| at + 1);
}

fn message<'a>(run: &'a mut Evidence, order: &str, step: usize) -> &'a Seen {
    message_mut(run, order, step)
}

fn message_mut<'a>(run: &'a mut Evidence, order: &str, step: usize) -> &'a mut Seen {
    let id = attempt(order, step, Action, 1);
    run.messages.iter_mut().find(|seen| seen.message_id == id).unwrap()
}

fn header<'a>(run: &'a mut Evidence, order: &str, step: usize, name: &str) -> &'a mut String {
    message_mut(run, order, step).headers.get_mut(name).unwrap()
}

fn place(run: &mut Evidence, id: &str, what: Placing) {
    run.placed.push(Placed::new(id, what, Timestamp(1)));
}

fn settle(run: &mut Evidence, queue: &str, id: &str, verdict: Settled) {
    let (queue, message_id) = (queue.to_owned(), Some(id.to_owned()));
    run.acks.push(Acked { queue, message_id, verdict, by: None, at: Timestamp(1) });
}

fn start_of(order: &str) -> Placing {
    Placing::Start { saga: "order".to_owned(), business_key: order.to_owned() }
}

fn answer_of(order: &str) -> Placing {
    Placing::Answer { saga: "order".to_owned(), business_key: order.to_owned() }
}

/// Has a message be what a step succeeded by, in place of its reply.
fn caused(run: &mut Evidence, order: &str, step: usize, id: &str) {
    let entry = of(run, order).history.iter_mut().find(|entry| succeeds(entry, step)).unwrap();
    let reply = entry.causation_id.replace(id.to_owned());
    run.acks.retain(|ack| ack.message_id != reply);
}

/// The input that an instance has kept.
fn input<'a>(run: &'a mut Evidence, order: &str) -> &'a mut serde_json::Value {
    let Fact::Started(started) = &mut of(run, order).history[0].facts[0].fact else { panic!("no start") };
    std::sync::Arc::make_mut(&mut started.input)
}

/// The broker puts a message aside because it came back too often.
fn aside(run: &mut Evidence, id: &str, is_listed: bool) {
    let reason = Some("delivery_limit".to_owned());
    run.dead.push(Dead { message_id: id.to_owned(), reason, at: Timestamp(1) });
    if is_listed {
        let letter = run.letters[0].clone();
        run.letters.push(DeadLetter { message_id: Some(id.to_owned()), ..letter });
    }
}

fn cancel_of(order: &str) -> Placing {
    Placing::Cancel { saga: "order".to_owned(), business_key: order.to_owned() }
}
