//! The time line: all that is known of one instance, in the order of time.

use serde_json::Value;

use super::case::{Case, Cases};
use super::evidence::{Acked, Entry, Placed, Placing, Settled};
use super::report::{Violation, plain};
use crate::saga::fact::{Fact, Recorded};
use crate::saga::id::InstanceId;
use crate::saga::time::Timestamp;

/// Characters of a line at most, without its time.
const WIDTH: usize = 240;

/// What is known of the instance of a violation, a line each. What has no time comes last, because
/// ledgers and logs need not keep one.
pub(super) fn of(cases: &Cases<'_>, violation: &Violation) -> Vec<String> {
    let Some(id) = violation.instance else { return Vec::new() };
    let case = cases.all.iter().find(|case| case.id() == id);
    let mut lines = Lines(Vec::new());
    lines.placed(cases, id);
    if let Some(case) = case {
        lines.history(case);
        lines.messages(case);
        lines.entries(cases, case);
    }
    lines.settled(cases, case, id);
    let Lines(mut lines) = lines;
    lines.sort_by_key(|(at, _)| if at.0 == 0 { Timestamp(i64::MAX) } else { *at });
    let line = |(at, text): (Timestamp, String)| {
        let at = if at.0 == 0 { "no time".to_owned() } else { at.to_string() };
        let text: String = plain(&text).chars().take(WIDTH).collect();
        format!("{at:<24}  {text}")
    };
    lines.into_iter().map(line).collect()
}

struct Lines(Vec<(Timestamp, String)>);

impl Lines {
    fn add(&mut self, at: Timestamp, source: &str, text: String) {
        self.0.push((at, format!("{source:<8}  {text}")));
    }

    fn placed(&mut self, cases: &Cases<'_>, id: InstanceId) {
        for Placed { message_id, what, at, .. } in &cases.evidence.placed {
            let kind = match what {
                Placing::Start { .. } => "start event",
                Placing::Cancel { .. } => "cancellation",
                Placing::Answer { .. } => "answering event",
                Placing::Garbage | Placing::Forged => continue,
            };
            if what.instance().is_some_and(|(saga, key)| InstanceId::new(saga, key) == id) {
                self.add(*at, "placed", format!("{kind} {message_id}"));
            }
        }
    }

    fn history(&mut self, case: &Case<'_>) {
        for entry in &case.observed.history {
            let cause = entry.causation_id.as_ref().map(|cause| format!(", by {cause}")).unwrap_or_default();
            for Recorded { at, fact } in &entry.facts {
                let words = fact_in_words(case, fact);
                self.add(*at, "history", format!("revision {}: {words}{cause}", entry.revision));
            }
        }
    }

    fn messages(&mut self, case: &Case<'_>) {
        for sent in &case.messages {
            let seen = sent.seen;
            let header = |name: &str| seen.headers.get(name).map_or("", String::as_str);
            let (step, phase, attempt) =
                (header("x-saga-step"), header("x-saga-phase"), header("x-saga-attempt"));
            let text = format!(
                "{} on {:?} {step} {phase} {attempt} id {} {}",
                seen.key, seen.exchange, seen.message_id, seen.body
            );
            self.add(seen.at, "message", text);
        }
    }

    /// Also what was booked after the moment at which inputs were delivered again.
    fn entries(&mut self, cases: &Cases<'_>, case: &Case<'_>) {
        for Entry { participant, command_id, compensates, effect, at, .. } in &cases.evidence.entries {
            let Some(step) = case.step_of_command(command_id) else { continue };
            let undoes = compensates.as_ref().map(|id| format!(", undoes {id}")).unwrap_or_default();
            let text = format!("{participant}: {step} booked {effect:?} for {command_id}{undoes}");
            self.add(*at, "ledger", text);
        }
    }

    /// Acks and dead letters of every message that the instance has to do with.
    fn settled(&mut self, cases: &Cases<'_>, case: Option<&Case<'_>>, instance: InstanceId) {
        let placed = |id: &str| {
            let is_this = |what: &Placing| {
                what.instance().is_some_and(|(saga, key)| InstanceId::new(saga, key) == instance)
            };
            cases.evidence.placed.iter().any(|placed| placed.message_id == id && is_this(&placed.what))
        };
        let concerns = |id: &str| {
            placed(id)
                || case.is_some_and(|case| case.causes.contains(id))
                || cases.answered_by(id).is_some_and(|case| case.id() == instance)
        };
        for Acked { queue, message_id, verdict, at, .. } in &cases.evidence.acks {
            let Some(id) = message_id.as_deref().filter(|id| concerns(id)) else { continue };
            let verdict = match verdict {
                Settled::Acked => "acked",
                Settled::Rejected => "rejected",
            };
            self.add(*at, verdict, format!("{id} of {queue}"));
        }
        for dead in cases.evidence.dead.iter().filter(|dead| concerns(&dead.message_id)) {
            self.add(dead.at, "dead", dead.message_id.clone());
        }
    }
}

/// A fact as it is stored, with the name of its step, and the id of the message that it speaks of.
fn fact_in_words(case: &Case<'_>, fact: &Fact) -> String {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(fact) else { return format!("{fact:?}") };
    let name = fields.remove("fact").and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
    let mut words = name;
    let index =
        fields.remove("step").and_then(|step| step.as_u64()).and_then(|step| usize::try_from(step).ok());
    if let Some(step) = index {
        words.push_str(&format!(" {}", case.name(step)));
    }
    for (field, value) in &fields {
        words.push_str(&format!(" {field}={value}"));
    }
    if let Fact::Dispatched { step, phase, attempt } = *fact {
        words.push_str(&format!(" id={}", case.id_of(step, phase, attempt)));
    }
    words
}
