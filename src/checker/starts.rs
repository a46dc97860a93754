//! What came in, and what became of it: I1, I2, I8, I13.

use std::collections::{HashMap, HashSet};

use super::Invariant::{I1, I2, I8, I13};
use super::case::{Case, Cases};
use super::evidence::{Acked, Placed, Placing, Settled};
use super::report::Findings;
use crate::saga::fact::Fact;
use crate::saga::id::InstanceId;
use crate::saga::instance::{Instance, Status};
use crate::saga::transition::IGNORED_RECORDED;
use crate::store::MAX_DEAD_LETTERS;

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    let given_up = GivenUp::of(cases);
    if cases.looked.placed {
        every_start_is_an_instance_or_a_dead_letter(cases, &given_up, found);
        every_instance_was_placed(cases, found);
        garbage_is_dead_lettered_once(cases, &given_up, found);
    }
    no_instance_is_there_twice(cases, found);
    for case in &cases.all {
        it_has_one_start(case, found);
        it_has_ended(cases, case, found);
    }
    acks_come_after_the_effect(cases, found);
    rejections_are_dead_letters(cases, &given_up, found);
}

/// What was dead-lettered, by message id.
struct GivenUp<'a> {
    /// Copies in the dead-letter queue; none where nobody looked.
    dead: Option<HashMap<&'a str, usize>>,
    /// On record in the store; none where the store may have dropped some.
    letters: Option<HashSet<&'a str>>,
}

impl<'a> GivenUp<'a> {
    fn of(cases: &Cases<'a>) -> Self {
        let mut dead = HashMap::new();
        for message in &cases.evidence.dead {
            *dead.entry(message.message_id.as_str()).or_default() += 1;
        }
        let letters = cases.evidence.letters.iter();
        let is_whole = (letters.len() as u64) < MAX_DEAD_LETTERS;
        Self {
            dead: cases.looked.dead.then_some(dead),
            letters: is_whole.then(|| letters.filter_map(|letter| letter.message_id.as_deref()).collect()),
        }
    }

    fn is_dead(&self, id: &str) -> bool {
        match (&self.dead, &self.letters) {
            (Some(dead), _) => dead.contains_key(id),
            (None, Some(letters)) => letters.contains(id),
            (None, None) => true,
        }
    }

    /// Whether the reason is on record, as far as that can be told.
    fn is_on_record(&self, id: &str) -> bool {
        self.letters.as_ref().is_none_or(|letters| letters.contains(id))
    }
}

/// I1. An event that one saga takes and another one refuses is both, so both at once is no violation.
fn every_start_is_an_instance_or_a_dead_letter(
    cases: &Cases<'_>,
    given_up: &GivenUp<'_>,
    found: &mut Findings,
) {
    for Placed { message_id, what, .. } in &cases.evidence.placed {
        let Placing::Start { saga, business_key } = what else { continue };
        if cases.of(saga, business_key).is_none() && !given_up.is_dead(message_id) {
            found.lost += 1;
            let what = format!(
                "start event {message_id} of {saga} {business_key} is neither an instance nor a dead letter"
            );
            found.add(I1, Some(InstanceId::new(saga, business_key)), what);
        }
    }
}

/// I1.
fn every_instance_was_placed(cases: &Cases<'_>, found: &mut Findings) {
    let starts = cases.evidence.placed.iter().filter_map(|placed| match &placed.what {
        Placing::Start { saga, business_key } => Some(InstanceId::new(saga, business_key)),
        _ => None,
    });
    let starts: HashSet<_> = starts.collect();
    let called = cases.all.iter().flat_map(Case::facts).filter_map(|fact| match fact {
        Fact::Called { instance, .. } | Fact::ItemCalled { instance, .. } => Some(*instance),
        _ => None,
    });
    let called: HashSet<_> = called.collect();
    let is_started = |case: &Case<'_>| match case.instance().caller {
        Some(_) => called.contains(&case.id()),
        None => starts.contains(&case.id()),
    };
    for case in cases.all.iter().filter(|case| !is_started(case)) {
        found.add(I1, Some(case.id()), "nobody placed a start event for it, or called it".to_owned());
    }
}

/// I1.
fn no_instance_is_there_twice(cases: &Cases<'_>, found: &mut Findings) {
    let mut known = HashSet::new();
    for case in &cases.all {
        let instance = case.instance();
        let (saga, key) = (&instance.saga, &instance.business_key);
        if !known.insert((saga, key)) {
            found.add(I1, Some(instance.id), format!("{saga} {key} has a further instance"));
        }
        if instance.id != InstanceId::new(saga, key) {
            found.add(I1, Some(instance.id), format!("its id is not the one of {saga} {key}"));
        }
    }
}

/// I1.
fn it_has_one_start(case: &Case<'_>, found: &mut Findings) {
    let starts = case.facts().filter(|fact| matches!(fact, Fact::Started(_))).count();
    if starts != 1 || !matches!(case.facts().next(), Some(Fact::Started(_))) {
        found.add(
            I1,
            Some(case.id()),
            format!("its history has {starts} starts, and must begin with its only one"),
        );
    }
}

/// I2. That it has ended and still has something to publish is I9. What is held for a caller that waits for a
/// person waits for that person too.
fn it_has_ended(cases: &Cases<'_>, case: &Case<'_>, found: &mut Findings) {
    let instance = case.instance();
    if is_held_for_parked(cases, instance) {
        return;
    }
    if instance.is_open() {
        found.stuck += 1;
    }
    if matches!(instance.status, Status::Running | Status::Compensating) {
        let due = match instance.next_due() {
            Some(due) => format!("waits until {due}"),
            None => "waits for nothing".to_owned(),
        };
        found.add(I2, Some(instance.id), format!("it is still {} and {due}", instance.status));
    }
}

fn is_held_for_parked(cases: &Cases<'_>, instance: &Instance) -> bool {
    let mut of = instance;
    while of.held
        && let Some(caller) = of.caller.and_then(|caller| cases.by_id(caller.instance))
    {
        of = caller.instance();
    }
    instance.held && of.status == Status::Parked
}

/// I8, of what was acked. Only what cannot be judged wrongly is judged:
/// - A start that was acked has its instance; a second one, under another id, is on its history.
/// - A cancellation, or an event that answers, that was acked after a start of its instance, on the same queue, is on its history.
///   An earlier one had nothing to cancel and leaves no trace, and one that has a correlation and names another
///   instance may be on the history of either.
/// - A reply whose id names a command that was decided is on the history of its instance.
///
/// What changes nothing is on a history up to a limit: an instance that has reached it is not judged.
fn acks_come_after_the_effect(cases: &Cases<'_>, found: &mut Findings) {
    let mut placed: HashMap<&str, Vec<&Placing>> = HashMap::new();
    let mut unclear = HashSet::new();
    for Placed { message_id, what, correlated, .. } in &cases.evidence.placed {
        placed.entry(message_id).or_default().push(what);
        unclear.extend(correlated.then_some(message_id.as_str()));
    }
    let mut started = HashSet::new();
    for Acked { queue, message_id, verdict, .. } in &cases.evidence.acks {
        let (Some(id), Settled::Acked) = (message_id, verdict) else { continue };
        for what in placed.get(id.as_str()).into_iter().flatten() {
            match what {
                Placing::Start { saga, business_key } => {
                    let instance = InstanceId::new(saga, business_key);
                    started.insert((queue, instance));
                    match cases.of(saga, business_key) {
                        None => {
                            let what =
                                format!("start event {id} was acked, and {saga} {business_key} is not there");
                            found.add(I8, Some(instance), what);
                        }
                        Some(case) if is_first(case, id) => {}
                        Some(case) => is_on_history(case, id, "start event", found),
                    }
                }
                // Which of them it answers is up to where they stand.
                Placing::Answer { .. } if unclear.contains(id.as_str()) => {}
                Placing::Cancel { saga, business_key } | Placing::Answer { saga, business_key } => {
                    if started.contains(&(queue, InstanceId::new(saga, business_key)))
                        && let Some(case) = cases.of(saga, business_key)
                    {
                        is_on_history(case, id, "event", found);
                    }
                }
                Placing::Garbage | Placing::Forged => {}
            }
        }
        if (queue == "replies" || queue.ends_with(".replies"))
            && let Some(case) = cases.answered_by(id)
        {
            is_on_history(case, id, "reply", found);
        }
    }
}

/// Whether an instance was started by this event, or by one that had no id.
fn is_first(case: &Case<'_>, id: &str) -> bool {
    case.instance().event_id.as_ref().is_none_or(|event| event == id)
}

fn is_on_history(case: &Case<'_>, id: &str, kind: &str, found: &mut Findings) {
    if !case.causes.contains(id) && case.instance().ignored < IGNORED_RECORDED {
        found.add(I8, Some(case.id()), format!("{kind} {id} was acked, and is not on its history"));
    }
}

/// I8, of what was rejected.
fn rejections_are_dead_letters(cases: &Cases<'_>, given_up: &GivenUp<'_>, found: &mut Findings) {
    for ack in cases.evidence.acks.iter().filter(|ack| ack.verdict == Settled::Rejected) {
        let Some(id) = &ack.message_id else { continue };
        if !given_up.is_dead(id) {
            found.add(I8, None, format!("message {id} was rejected, and is not in the dead-letter queue"));
        }
        if !given_up.is_on_record(id) {
            found.add(I8, None, format!("message {id} was rejected, and no reason is on record"));
        }
    }
}

/// I13. The reason may be on record more than once: a crash between commit and reject repeats it.
fn garbage_is_dead_lettered_once(cases: &Cases<'_>, given_up: &GivenUp<'_>, found: &mut Findings) {
    for Placed { message_id: id, what, .. } in &cases.evidence.placed {
        if *what != Placing::Garbage {
            continue;
        }
        if let Some(dead) = &given_up.dead {
            let copies = dead.get(id.as_str()).copied().unwrap_or_default();
            if copies != 1 {
                found.add(I13, None, format!("garbage {id} is in the dead-letter queue {copies} times"));
            }
        }
        if !given_up.is_on_record(id) {
            found.add(I13, None, format!("no reason is on record for garbage {id}"));
        }
    }
    let is_garbage = |placed: &&Placed| placed.what == Placing::Garbage;
    let garbage = cases.evidence.placed.iter().filter(is_garbage).map(|placed| placed.message_id.as_str());
    let garbage: HashSet<_> = garbage.collect();
    for case in &cases.all {
        for id in case.changed_by.intersection(&garbage) {
            found.add(I13, Some(case.id()), format!("garbage {id} changed it"));
        }
    }
}
