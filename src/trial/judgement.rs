//! Judgement: what does not hold of a play, and what could not be evaluated.

use super::stage::Played;
use crate::checker::evidence::Observed;
use crate::checker::{Invariant, check};
use crate::saga::fact::{Fact, Failure};
use crate::saga::id::Phase;
use crate::saga::instance::{Instance, Status};

/// Everything that does not hold of a play.
pub(super) fn wrong(played: &Played) -> Vec<String> {
    let of = |invariant: Invariant, what: &str| format!("{invariant}, {}: {what}", invariant.text());
    // When everything that came in comes once more, it may go on again.
    let is_under_way =
        |instance: &&Instance| matches!(instance.status, Status::Running | Status::Compensating);
    let hangs = played.ended.iter().filter(is_under_way);
    let hangs = hangs.map(|instance| of(Invariant::I2, &format!("it is still {}", instance.status)));
    let letters = played.evidence.letters.iter();
    let dead =
        letters.map(|letter| format!("a message of {} was dead-lettered: {}", letter.queue, letter.reason));
    let violations = check(&played.evidence).violations.into_iter();
    hangs.chain(dead).chain(violations.map(|violation| of(violation.invariant, &violation.what))).collect()
}

/// Expressions that could not be evaluated.
pub(super) fn obstacles(played: &Played) -> Vec<String> {
    let Some(instance) = &played.ended else { return Vec::new() };
    let facts = played.evidence.instances.iter().flat_map(|Observed { instance, history }| {
        history.iter().flat_map(|entry| &entry.facts).map(move |recorded| (instance, &recorded.fact))
    });
    let of_step = |of: &Instance, step: usize, phase, error: &Failure| {
        let name = of.steps.get(step).map_or("?", |state| &state.name);
        let undo = if phase == Phase::Compensation { "undo " } else { "" };
        // The saga of an item is named after the step that it is for.
        let below = of.saga.strip_prefix(&instance.saga).and_then(|below| below.strip_prefix('.'));
        let path = below.map(|below| format!("{}/", below.replace('.', "/"))).unwrap_or_default();
        format!("{undo}{path}{name}: {}", error.message)
    };
    let obstacle = |(of, fact): (&Instance, &Fact)| match fact {
        Fact::NotSent { step, phase, error } => Some(of_step(of, *step, *phase, error)),
        Fact::GivenUp { step, error } if error.code == "BAD_OUTPUT" => {
            Some(of_step(of, *step, Phase::Action, error))
        }
        Fact::NoticeDropped { notice, reason } => {
            let status = instance.notices.get(*notice).map_or("an end", |notice| notice.status.as_str());
            Some(format!("the event that tells of {status} cannot be made: {reason}"))
        }
        _ => None,
    };
    let mut found: Vec<_> = facts.filter_map(obstacle).collect();
    found.dedup();
    found
}
