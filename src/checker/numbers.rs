//! I22: numbers arrive as they were said, digit by digit.

use std::collections::BTreeSet;

use super::Invariant::I22;
use super::case::{Case, Cases};
use super::evidence::{Placed, Placing};
use super::report::Findings;
use crate::saga::fact::{Early, Fact};
use crate::saga::id::InstanceId;

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    if cases.evidence.placed.iter().all(|placed| placed.numbers.is_empty()) {
        return;
    }
    for case in &cases.all {
        let said = || cases.evidence.placed.iter().filter(|placed| names(placed, case));
        let all: BTreeSet<_> = said().flat_map(|placed| &placed.numbers).map(String::as_str).collect();
        if !all.is_empty() {
            nothing_is_another_number(case, &all, found);
        }
        the_start_is_kept(cases, case, found);
    }
}

fn names(placed: &Placed, case: &Case<'_>) -> bool {
    placed.what.instance().is_some_and(|(saga, key)| InstanceId::new(saga, key) == case.id())
}

/// What it keeps, and what it sends, has no number that a double cannot tell from one that was said and that nobody
/// has said.
fn nothing_is_another_number(case: &Case<'_>, said: &BTreeSet<&str>, found: &mut Findings) {
    let doubles: Vec<(f64, &str)> =
        said.iter().filter_map(|text| Some((text.parse::<f64>().ok()?, *text))).collect();
    let mut look = |place: &str, text: &str| {
        for number in numbers(text).filter(|number| !said.contains(number)) {
            let Ok(double) = number.parse::<f64>() else { continue };
            if let Some((_, original)) = doubles.iter().find(|(known, _)| *known == double) {
                let what = format!("{place} says {number}, where {original} was said");
                found.add(I22, Some(case.id()), what);
            }
        }
    };
    for fact in case.facts() {
        match fact {
            Fact::Started(started) => look("its input", &started.input.to_string()),
            Fact::Succeeded { step, output } => {
                look(&format!("step {}", case.name(*step)), &output.to_string())
            }
            Fact::CameEarly { step, says: Early::Success(output) } => {
                look(&format!("step {}", case.name(*step)), &output.to_string());
            }
            _ => {}
        }
    }
    for sent in &case.messages {
        look(&format!("message {}", sent.seen.message_id), &sent.seen.body);
    }
}

/// What an event started has its key, and all its numbers.
fn the_start_is_kept(cases: &Cases<'_>, case: &Case<'_>, found: &mut Findings) {
    let instance = case.instance();
    let said = cases.evidence.placed.iter().filter(|placed| !placed.numbers.is_empty());
    for Placed { message_id, what, mark, numbers: said, .. } in said {
        let Placing::Start { saga, business_key } = what else { continue };
        if *saga != instance.saga || !case.began_with(message_id, mark.as_deref()) {
            continue;
        }
        if *business_key != instance.business_key {
            let what =
                format!("event {message_id} names {business_key}, and it started {}", instance.business_key);
            found.add(I22, Some(case.id()), what);
        }
        let input = instance.input.to_string();
        let kept: BTreeSet<_> = numbers(&input).collect();
        for number in said.iter().filter(|number| !kept.contains(number.as_str())) {
            let what = format!("event {message_id} says {number}, and its input does not");
            found.add(I22, Some(case.id()), what);
        }
    }
}

/// The numbers in a JSON text, as they are written there; none of those within strings.
fn numbers(json: &str) -> impl Iterator<Item = &str> {
    let (mut within, mut escaped) = (false, false);
    let outside = move |char: char| {
        let was_within = within;
        match char {
            '"' if !escaped => within = !within,
            _ => {}
        }
        escaped = was_within && char == '\\' && !escaped;
        was_within
    };
    let mut is_string = outside;
    let parts = json
        .split(move |char: char| is_string(char) || !matches!(char, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
    parts.filter(|part| part.bytes().any(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_found_as_they_are_written_and_not_within_strings() {
        let found: Vec<_> =
            super::numbers(r#"{"a1": 12.50, "b": [-1e-7,"x \" 9", 3], "c": true, "7": "\\", "d": 0}"#)
                .collect();
        assert_eq!(found, ["12.50", "-1e-7", "3", "0"]);
    }
}
