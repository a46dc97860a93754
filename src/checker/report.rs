//! What was found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::case::{Cases, Looked};
use super::evidence::{Evidence, Placing};
use super::{
    Invariant, aside, calls, effects, events, histories, limits, messages, numbers, starts, time_line, undone,
};
use crate::saga::fact::Fact;
use crate::saga::id::InstanceId;
use crate::saga::instance::Status;

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Instances in the store.
    pub instances: usize,
    /// Instances that completed.
    pub completed: usize,
    /// Instances that were compensated.
    pub compensated: usize,
    /// Instances that wait for a person.
    pub parked: usize,
    /// What was injected, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Start events that are neither an instance nor a dead letter.
    pub lost: usize,
    /// Commands that are booked twice, or that are no step's.
    pub double_effects: usize,
    /// What answers settled that somebody had made up.
    pub forged: usize,
    /// Instances of which something is still to be done.
    pub stuck: usize,
    /// The longest time from the end of a fault to work as usual, in milliseconds where it is JSON.
    #[serde(rename = "slowest_recovery_ms", serialize_with = "as_millis")]
    pub slowest_recovery: Option<Duration>,
    /// Everything that did not hold, in the order of the invariants.
    pub violations: Vec<Violation>,
    /// What could not be decided, and why not.
    pub unseen: Vec<&'static str>,
    /// All that is known of the instance of the first violation, a line each.
    pub time_line: Vec<String>,
}

/// Something that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What should have held.
    pub invariant: Invariant,
    /// The instance that it was seen at, if it is about one.
    pub instance: Option<InstanceId>,
    /// What was seen instead.
    pub what: String,
}

/// Decides every invariant that the evidence has something to say about.
///
/// A log that is empty counts as one that nobody kept: what it would have shown is in
/// [`Report::unseen`]. I18 needs files, see [`Folder`](super::Folder).
pub fn check(evidence: &Evidence) -> Report {
    report(evidence, Looked::of(evidence), Vec::new())
}

/// What the parts of the checker have found so far.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) violations: Vec<Violation>,
    pub(super) lost: usize,
    pub(super) double_effects: usize,
    pub(super) forged: usize,
    pub(super) stuck: usize,
}

impl Findings {
    pub(super) fn add(&mut self, invariant: Invariant, instance: Option<InstanceId>, what: String) {
        self.violations.push(Violation { invariant, instance, what: plain(&what) });
    }
}

/// Decides every invariant, and adds what was found already.
pub(super) fn report(evidence: &Evidence, looked: Looked, found: Vec<Violation>) -> Report {
    let cases = Cases::new(evidence, looked);
    let mut findings = Findings { violations: found, ..Findings::default() };
    starts::check(&cases, &mut findings);
    events::check(&cases, &mut findings);
    numbers::check(&cases, &mut findings);
    undone::check(&cases, &mut findings);
    aside::check(&cases, &mut findings);
    effects::check(&cases, &mut findings);
    messages::check(&cases, &mut findings);
    calls::check(&cases, &mut findings);
    limits::check(&cases, &mut findings);
    for case in &cases.all {
        histories::check(case, &mut findings);
    }
    let Findings { mut violations, lost, double_effects, forged, stuck } = findings;
    violations.sort_by_key(|violation| violation.invariant);
    let of = |status| evidence.instances.iter().filter(|one| one.instance.status == status).count();
    Report {
        instances: evidence.instances.len(),
        completed: of(Status::Completed),
        compensated: of(Status::Compensated),
        parked: of(Status::Parked),
        faults: evidence.faults.clone(),
        lost,
        double_effects,
        forged,
        stuck,
        slowest_recovery: evidence.slowest_recovery,
        time_line: violations.first().map(|first| time_line::of(&cases, first)).unwrap_or_default(),
        violations,
        unseen: unseen(&cases),
    }
}

/// What could not be decided for want of anything to decide it from.
fn unseen(cases: &Cases<'_>) -> Vec<&'static str> {
    let Cases { evidence, looked, .. } = cases;
    let has = |wanted: fn(&Fact) -> bool| cases.all.iter().flat_map(|case| case.facts()).any(wanted);
    let placed = |wanted: fn(&Placing) -> bool| evidence.placed.iter().any(|placed| wanted(&placed.what));
    let answers = evidence.acks.iter().filter_map(|ack| ack.message_id.as_deref());
    let known = cases.all.iter().all(|case| case.plan.is_some());
    let reasons = [
        (!looked.placed, "I1 over lost and invented instances: nobody noted what was placed"),
        (evidence.instances.is_empty(), "I2 to I17: the store has no instances"),
        (!looked.entries, "I3, I4, I10, I12: no ledgers"),
        (!has(|fact| matches!(fact, Fact::CompensationStarted)), "I4, I5, I6: nothing was compensated"),
        (!looked.messages, "I5, I7, I9, I15, I16 over what was sent: no message log"),
        (!known, "I3, I6, I11, I15, I16 where they need it: the definition of an instance is missing"),
        (!looked.acks, "I8: no log of acks"),
        (
            looked.acks && answers.filter_map(|id| cases.answered_by(id)).next().is_none(),
            "I8 over replies: no id of a settled reply names the command that it answers",
        ),
        (evidence.replayed_at.is_none(), "I10: inputs were not delivered once more"),
        (!placed(|what| *what == Placing::Garbage), "I13: no garbage was placed"),
        (!looked.dead, "I8, I13 over the dead-letter queue: nobody looked into it"),
        (!has(is_timer), "I14: no timer fired"),
        (!looked.secret, "I18: there is no secret to look for"),
        (!placed(|what| matches!(what, Placing::Answer { .. })), "I21: no event was placed that answers"),
        (
            evidence.placed.iter().all(|placed| placed.numbers.is_empty()),
            "I22: nobody noted which numbers were said",
        ),
        (!has(|fact| matches!(fact, Fact::LeftUndone { .. })), "I23: a person left nothing as it was"),
        (evidence.dead.iter().all(|dead| dead.reason.is_none()), "I24: nobody noted why a message is dead"),
        (evidence.acks.iter().all(|ack| ack.by.is_none()), "I25: nobody noted which store took a message"),
    ];
    reasons.into_iter().filter_map(|(applies, reason)| applies.then_some(reason)).collect()
}

fn is_timer(fact: &Fact) -> bool {
    matches!(fact, Fact::TimedOut { .. } | Fact::RetryScheduled { .. } | Fact::DeadlinePassed)
}

impl Report {
    /// Whether everything held, and something was injected that could have broken it.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.injected() > 0
    }

    /// How many faults were injected.
    pub fn injected(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// Figures, then the first violation with the time line of its instance, then the verdict.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instances, completed, compensated, parked, lost, double_effects, forged, stuck, .. } =
            self;
        writeln!(
            f,
            "instances {instances}: completed {completed}, compensated {compensated}, parked {parked}"
        )?;
        let kinds: Vec<_> = self.faults.iter().map(|(kind, n)| format!("{} {n}", plain(kind))).collect();
        let colon = if kinds.is_empty() { "" } else { ": " };
        writeln!(f, "faults {}{colon}{}", self.injected(), kinds.join(", "))?;
        write!(f, "lost {lost}, double effects {double_effects}, forged {forged}, stuck {stuck}")?;
        match self.slowest_recovery {
            Some(slowest) => writeln!(f, ", slowest recovery {:.3} s", slowest.as_secs_f64())?,
            None => writeln!(f)?,
        }
        for reason in &self.unseen {
            writeln!(f, "not looked at: {reason}")?;
        }
        if let Some(first) = self.violations.first() {
            writeln!(f, "\nviolations {}: {}", self.violations.len(), by_invariant(&self.violations))?;
            writeln!(f, "the first: {}, {}", first.invariant, first.invariant.text())?;
            writeln!(f, "  {first}")?;
            for line in &self.time_line {
                writeln!(f, "    {line}")?;
            }
        }
        match (self.violations.len(), self.injected()) {
            (0, 0) => write!(f, "\nNOT PASSED: no fault was injected, so nothing is shown"),
            (0, _) => write!(f, "\npassed"),
            (1, _) => write!(f, "\nNOT PASSED: 1 violation"),
            (violations, _) => write!(f, "\nNOT PASSED: {violations} violations"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instance {
            Some(instance) => write!(f, "instance {instance}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// How often each invariant was violated; the violations are sorted.
fn by_invariant(violations: &[Violation]) -> String {
    let groups = violations.chunk_by(|one, next| one.invariant == next.invariant);
    groups.map(|group| format!("{} {}", group[0].invariant, group.len())).collect::<Vec<_>>().join(", ")
}

/// Text from outside made safe for a terminal and for lines.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn as_millis<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
}
