//! What was sent, by the tap: I5, I7, I9, I15, I16.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Invariant::{I5, I7, I9, I15, I16};
use super::case::{Case, Cases, Sent, Told};
use super::report::Findings;
use crate::saga::command;
use crate::saga::fact::Fact;
use crate::saga::id::{MessageId, Phase};
use crate::saga::instance::Status;

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    for case in &cases.all {
        nothing_waits_for_the_broker(case, found);
    }
    if !cases.looked.messages {
        return;
    }
    for seen in &cases.unknown_messages {
        let saga = seen.headers.get("x-saga-id").map_or("", String::as_str);
        found.add(
            I9,
            None,
            format!("message {} was published for {saga}, which is not there", seen.message_id),
        );
    }
    for case in &cases.all {
        copies_are_the_same(case, found);
        for sent in &case.messages {
            ids_are_right(case, sent, found);
            it_was_decided(case, sent, found);
            it_is_of_the_definition(case, sent, found);
        }
        what_was_confirmed_was_seen(case, found);
        what_is_undone_was_sent(case, found);
        ends_are_told_as_decided(case, found);
    }
}

/// I7.
fn copies_are_the_same(case: &Case<'_>, found: &mut Findings) {
    let mut first = HashMap::new();
    for Sent { seen, .. } in &case.messages {
        let content = (&seen.exchange, &seen.key, &seen.headers, &seen.body);
        match first.entry(&seen.message_id) {
            Entry::Vacant(place) => {
                place.insert(content);
            }
            Entry::Occupied(known) if *known.get() == content => {}
            Entry::Occupied(_) => {
                let what = format!("message {} was sent again, and not the same", seen.message_id);
                found.add(I7, Some(case.id()), what);
            }
        }
    }
}

/// I7. That no two messages share an id follows, because no two names have one id.
fn ids_are_right(case: &Case<'_>, Sent { seen, told }: &Sent<'_>, found: &mut Findings) {
    let mut must_be = |name: &str, is: Option<&String>, expected: MessageId| {
        if is.is_none_or(|is| *is != expected.to_string()) {
            let is = is.map_or("missing", String::as_str);
            let what = format!("message {}: its {name} is {is}, not {expected}", seen.message_id);
            found.add(I7, Some(case.id()), what);
        }
    };
    match *told {
        Told::Attempt { step, phase, attempt } => {
            must_be("message_id", Some(&seen.message_id), case.id_of(step, phase, attempt));
            if phase == Phase::Action && !case.is_done_by_participant(step) {
                return;
            }
            let header = |name| seen.headers.get(name);
            must_be("x-saga-command-id", header("x-saga-command-id"), case.id_of(step, phase, 1));
            if phase == Phase::Compensation {
                let action = case.id_of(step, Phase::Action, 1);
                must_be("x-saga-compensates", header("x-saga-compensates"), action);
            }
        }
        Told::Notice(Some(_)) => {}
        Told::Notice(None) | Told::Unreadable => {
            let what = format!("message {} has no id or headers that tell what it is", seen.message_id);
            found.add(I7, Some(case.id()), what);
        }
    }
}

/// I9: nothing is published that was not decided.
fn it_was_decided(case: &Case<'_>, Sent { seen, told }: &Sent<'_>, found: &mut Findings) {
    let decided = match *told {
        Told::Attempt { step, phase, attempt } => {
            let dispatched = Fact::Dispatched { step, phase, attempt };
            case.facts().any(|fact| *fact == dispatched)
        }
        Told::Notice(Some(ordinal)) => ordinal < case.instance().notices.len(),
        Told::Notice(None) | Told::Unreadable => true,
    };
    if !decided {
        let what = format!("message {} was published, and its history has no such decision", seen.message_id);
        found.add(I9, Some(case.id()), what);
    }
}

/// I9: what the broker confirmed is there. The default exchange has no tap.
fn what_was_confirmed_was_seen(case: &Case<'_>, found: &mut Findings) {
    for fact in case.facts() {
        let (told, id) = match *fact {
            Fact::Published { step, phase, attempt, .. } if !is_untapped(case, step, phase) => {
                (Told::Attempt { step, phase, attempt }, case.id_of(step, phase, attempt))
            }
            Fact::NoticePublished { notice } if !is_untapped_notice(case, notice) => {
                (Told::Notice(Some(notice)), case.instance().notice_id(notice))
            }
            _ => continue,
        };
        if case.copies(told).next().is_none() {
            found.add(I9, Some(case.id()), format!("message {id} was confirmed, and nobody saw it"));
        }
    }
}

/// I9: at the end nothing is unconfirmed. Of an instance that has not ended, I2 tells.
fn nothing_waits_for_the_broker(case: &Case<'_>, found: &mut Findings) {
    let instance = case.instance();
    let has_ended = !matches!(instance.status, Status::Running | Status::Compensating);
    if has_ended && instance.is_open() {
        let waiting = instance.unconfirmed().count();
        let what = format!("it is {}, and {waiting} of its messages were never confirmed", instance.status);
        found.add(I9, Some(case.id()), what);
    }
}

/// I5: a compensation without its action, unless an action came back and was perhaps routed all the
/// same. A message that was never confirmed may be in the participant's queue and not in the tap's.
fn what_is_undone_was_sent(case: &Case<'_>, found: &mut Findings) {
    let sent = |wanted: usize, of: Phase| {
        let is = |told| matches!(told, Told::Attempt { step, phase, .. } if step == wanted && phase == of);
        case.messages.iter().any(|sent| is(sent.told))
    };
    for step in 0..case.instance().steps.len() {
        let came_back = |fact: &Fact| matches!(fact, Fact::Unroutable { step: of, phase: Phase::Action, .. } if *of == step);
        if sent(step, Phase::Compensation)
            && !sent(step, Phase::Action)
            && case.booked[step].action.is_empty()
            && !is_untapped(case, step, Phase::Action)
            && !case.facts().any(came_back)
        {
            let what = format!("step {}: it was undone, and nobody saw its action", case.name(step));
            found.add(I5, Some(case.id()), what);
        }
    }
}

/// I15: a notice has the body that was decided. Commands are looked at where they are decided.
fn ends_are_told_as_decided(case: &Case<'_>, found: &mut Findings) {
    let bodies = case.facts().filter_map(|fact| match fact {
        Fact::NoticeDue { body, .. } => Some(body.to_string()),
        _ => None,
    });
    for (notice, body) in bodies.enumerate() {
        if case.copies(Told::Notice(Some(notice))).any(|seen| seen.body != body) {
            let what = format!("notice {notice} has another body than its history says");
            found.add(I15, Some(case.id()), what);
        }
    }
}

/// I16.
fn it_is_of_the_definition(case: &Case<'_>, Sent { seen, .. }: &Sent<'_>, found: &mut Findings) {
    let instance = case.instance();
    let is = |name: &str, expected: &str| seen.headers.get(name).is_some_and(|value| value == expected);
    let version = instance.version.to_string();
    if !is("x-saga-version", &version) || !is("x-saga-name", &instance.saga) {
        let what = format!(
            "message {} is of {} v{}, the instance is of {} v{version}",
            seen.message_id,
            seen.headers.get("x-saga-name").map_or("?", String::as_str),
            seen.headers.get("x-saga-version").map_or("?", String::as_str),
            instance.saga
        );
        found.add(I16, Some(case.id()), what);
    }
}

/// Whether a command goes to the default exchange.
fn is_untapped(case: &Case<'_>, step: usize, phase: Phase) -> bool {
    let step = case.plan.and_then(|plan| plan.steps.get(step));
    let call = step.and_then(|step| step.call(phase)).map(|call| &call.exchange);
    let event = step.and_then(|step| step.emission()).map(|event| &event.exchange);
    call.or(event).is_some_and(|exchange| exchange.is_empty())
}

/// Whether a notice goes to the default exchange.
fn is_untapped_notice(case: &Case<'_>, notice: usize) -> bool {
    let notice = case.plan.zip(case.instance().notices.get(notice));
    let emission = notice.and_then(|(plan, notice)| command::emission(plan, notice.tells, notice.status));
    emission.is_some_and(|emission| emission.exchange.is_empty())
}
