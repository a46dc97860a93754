//! I24 and I25: what the broker puts aside by itself, and who takes the messages of a prefix.

use std::collections::{HashMap, HashSet};

use super::Invariant::{I24, I25};
use super::case::Cases;
use super::evidence::{Acked, Dead, Placing};
use super::report::Findings;
use crate::store::MAX_DEAD_LETTERS;

/// Why the broker puts aside what comes back to it too often.
const TOO_OFTEN: &str = "delivery_limit";
/// Why a message is dead that the orchestrator refused. The broker has not put it aside by itself.
const REFUSED: &str = "rejected";

pub(super) fn check(cases: &Cases<'_>, found: &mut Findings) {
    nothing_healthy_is_put_aside(cases, found);
    what_is_put_aside_is_listed(cases, found);
    one_store_takes_the_messages(cases, found);
}

/// I24. Healthy is what somebody placed for an instance, and what answers a command that was decided. Other reasons
/// are those of whoever set a limit for a queue.
fn nothing_healthy_is_put_aside(cases: &Cases<'_>, found: &mut Findings) {
    let placed = &cases.evidence.placed;
    let healthy: HashMap<_, _> = placed
        .iter()
        .filter(|placed| !matches!(placed.what, Placing::Garbage | Placing::Forged))
        .map(|placed| (placed.message_id.as_str(), &placed.what))
        .collect();
    for Dead { message_id, reason, .. } in &cases.evidence.dead {
        let is_healthy = healthy.contains_key(message_id.as_str()) || cases.answered_by(message_id).is_some();
        if reason.as_deref() == Some(TOO_OFTEN) && is_healthy {
            let what = format!("message {message_id} is healthy, and the broker put it aside: {TOO_OFTEN}");
            found.add(I24, cases.answered_by(message_id).map(super::case::Case::id), what);
        }
    }
}

/// I24. What has no id cannot be looked for.
fn what_is_put_aside_is_listed(cases: &Cases<'_>, found: &mut Findings) {
    let letters = &cases.evidence.letters;
    if letters.len() as u64 >= MAX_DEAD_LETTERS {
        return;
    }
    let listed = letters.iter().filter(|letter| !letter.reason.is_empty());
    let listed: HashSet<_> = listed.filter_map(|letter| letter.message_id.as_deref()).collect();
    for Dead { message_id, reason, .. } in &cases.evidence.dead {
        let Some(reason) = reason.as_deref().filter(|reason| *reason != REFUSED) else { continue };
        if !message_id.is_empty() && !listed.contains(message_id.as_str()) {
            let what =
                format!("message {message_id} was put aside by the broker ({reason}), and is not listed");
            found.add(I24, None, what);
        }
    }
}

/// I25. A prefix may be given to another store; the one before takes nothing from then on.
fn one_store_takes_the_messages(cases: &Cases<'_>, found: &mut Findings) {
    let mut before = HashSet::new();
    let mut current = None;
    for Acked { queue, message_id, by, .. } in &cases.evidence.acks {
        let Some(by) = by.as_deref() else { continue };
        if current == Some(by) {
            continue;
        }
        before.extend(current);
        current = Some(by);
        if before.contains(by) {
            let id = message_id.as_deref().unwrap_or("without an id");
            let what = format!("{by} took message {id} of {queue}, after another store had taken over");
            found.add(I25, None, what);
        }
    }
}
