//! The evidence, sorted by instance.

use std::collections::{HashMap, HashSet};

use super::evidence::{Entry, Evidence, Observed, Seen};
use crate::saga::fact::{Fact, HistoryEntry};
use crate::saga::id::{InstanceId, MessageId, Phase};
use crate::saga::instance::Instance;
use crate::saga::plan::Plan;

/// What there was to look at. What was looked at and is empty is evidence too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    pub(super) placed: bool,
    pub(super) messages: bool,
    pub(super) entries: bool,
    pub(super) acks: bool,
    pub(super) dead: bool,
    pub(super) secret: bool,
}

impl Looked {
    /// Of evidence in memory, where nothing tells an empty log from one that nobody kept.
    pub(super) fn of(evidence: &Evidence) -> Self {
        Self {
            placed: !evidence.placed.is_empty(),
            messages: !evidence.messages.is_empty(),
            entries: !evidence.entries.is_empty(),
            acks: !evidence.acks.is_empty(),
            dead: true,
            secret: false,
        }
    }
}

/// All evidence, with what is needed to find things in it.
pub(super) struct Cases<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) looked: Looked,
    pub(super) all: Vec<Case<'a>>,
    /// Where the case of an instance is; of the first, should there be several.
    by_id: HashMap<InstanceId, usize>,
    /// Which attempts were decided, and for which case.
    attempts: HashMap<MessageId, usize>,
    /// Messages that name an instance which is not there.
    pub(super) unknown_messages: Vec<&'a Seen>,
    /// Entries under a command id that no step of any instance has.
    pub(super) unknown_entries: Vec<&'a Entry>,
}

/// What is known of one instance.
pub(super) struct Case<'a> {
    pub(super) observed: &'a Observed,
    pub(super) plan: Option<&'a Plan>,
    /// Ledger entries of each step, up to the moment at which inputs were delivered again.
    pub(super) booked: Vec<Booked<'a>>,
    pub(super) messages: Vec<Sent<'a>>,
    /// Ids of messages that are on its history as a cause.
    pub(super) causes: HashSet<&'a str>,
    /// Ids of those that changed more than what is noted of messages that change nothing.
    pub(super) changed_by: HashSet<&'a str>,
}

/// What the ledgers hold of one step.
#[derive(Default)]
pub(super) struct Booked<'a> {
    pub(super) action: Vec<&'a Entry>,
    pub(super) compensation: Vec<&'a Entry>,
}

/// A message of an instance.
pub(super) struct Sent<'a> {
    pub(super) seen: &'a Seen,
    pub(super) told: Told,
}

/// What a message's headers say that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Told {
    /// An attempt of a command.
    Attempt { step: usize, phase: Phase, attempt: u32 },
    /// An event that tells an end; which one its id tells, if it is right.
    Notice(Option<usize>),
    /// A command, but of which step or attempt cannot be read.
    Unreadable,
}

impl<'a> Cases<'a> {
    pub(super) fn new(evidence: &'a Evidence, looked: Looked) -> Self {
        let mut cases = Self {
            evidence,
            looked,
            all: Vec::with_capacity(evidence.instances.len()),
            by_id: HashMap::new(),
            attempts: HashMap::new(),
            unknown_messages: Vec::new(),
            unknown_entries: Vec::new(),
        };
        for (index, observed) in evidence.instances.iter().enumerate() {
            let case = Case::new(evidence, observed);
            cases.by_id.entry(observed.instance.id).or_insert(index);
            cases.attempts.extend(case.attempts().map(|attempt| (attempt, index)));
            cases.all.push(case);
        }
        cases.sort_entries();
        cases.sort_messages();
        cases
    }

    /// The case of an instance.
    pub(super) fn of(&self, saga: &str, business_key: &str) -> Option<&Case<'a>> {
        self.by_id(InstanceId::new(saga, business_key))
    }

    /// The case of an instance, by its id.
    pub(super) fn by_id(&self, id: InstanceId) -> Option<&Case<'a>> {
        self.by_id.get(&id).map(|index| &self.all[*index])
    }

    /// The case whose command a reply answers, by the reply's id.
    pub(super) fn answered_by(&self, reply_id: &str) -> Option<&Case<'a>> {
        const LENGTH: usize = 36;
        if reply_id.len() <= LENGTH {
            return None;
        }
        let ids = (0..=reply_id.len() - LENGTH).filter_map(|from| reply_id.get(from..from + LENGTH));
        let mut named = ids.filter_map(MessageId::parse).filter_map(|id| self.attempts.get(&id));
        named.next().map(|index| &self.all[*index])
    }

    fn sort_entries(&mut self) {
        let mut commands = HashMap::new();
        for (index, case) in self.all.iter().enumerate() {
            for step in 0..case.instance().steps.len() {
                for phase in [Phase::Action, Phase::Compensation] {
                    commands.insert(case.id_of(step, phase, 1), (index, step, phase));
                }
            }
        }
        let end = self.evidence.replayed_at.unwrap_or(usize::MAX);
        for entry in self.evidence.entries.iter().take(end) {
            match MessageId::parse(&entry.command_id).and_then(|id| commands.get(&id)) {
                None => self.unknown_entries.push(entry),
                Some((index, step, phase)) => self.all[*index].booked[*step].of_mut(*phase).push(entry),
            }
        }
    }

    fn sort_messages(&mut self) {
        for seen in &self.evidence.messages {
            let Some(id) = seen.headers.get("x-saga-id") else { continue };
            if seen.headers.contains_key("x-saga-outcome") {
                continue;
            }
            match id.parse().ok().and_then(|id: InstanceId| self.by_id.get(&id)) {
                None => self.unknown_messages.push(seen),
                Some(index) => {
                    let case = &mut self.all[*index];
                    case.messages.push(Sent { seen, told: told(seen, &case.observed.instance) });
                }
            }
        }
    }
}

/// Whether an entry says more than that messages are out, which rides along, and that one changed nothing.
fn changes(entry: &HistoryEntry) -> bool {
    entry.facts.iter().any(|recorded| {
        !matches!(recorded.fact, Fact::Ignored { .. } | Fact::Published { .. } | Fact::NoticePublished { .. })
    })
}

impl<'a> Case<'a> {
    fn new(evidence: &'a Evidence, observed: &'a Observed) -> Self {
        let instance = &observed.instance;
        Self {
            observed,
            plan: evidence.plans.get(&instance.definition).map(AsRef::as_ref),
            booked: instance.steps.iter().map(|_| Booked::default()).collect(),
            messages: Vec::new(),
            causes: observed.history.iter().filter_map(|entry| entry.causation_id.as_deref()).collect(),
            changed_by: observed
                .history
                .iter()
                .filter(|entry| changes(entry))
                .filter_map(|entry| entry.causation_id.as_deref())
                .collect(),
        }
    }

    pub(super) fn instance(&self) -> &'a Instance {
        &self.observed.instance
    }

    pub(super) fn id(&self) -> InstanceId {
        self.observed.instance.id
    }

    /// Whether it began with an event, of which the mark is known where it has one.
    pub(super) fn began_with(&self, message_id: &str, mark: Option<&str>) -> bool {
        let instance = self.instance();
        match &instance.event_id {
            Some(began) => began == message_id,
            None => mark.is_some_and(|mark| instance.input.to_string().contains(&format!("\"{mark}\""))),
        }
    }

    /// Every fact of the history, in order.
    pub(super) fn facts(&self) -> impl Iterator<Item = &'a Fact> + use<'a> {
        self.observed.history.iter().flat_map(|entry| &entry.facts).map(|recorded| &recorded.fact)
    }

    /// The id that an attempt of one of its steps must have.
    pub(super) fn id_of(&self, step: usize, phase: Phase, attempt: u32) -> MessageId {
        self.instance().attempt_id(self.name(step), phase, attempt)
    }

    /// The name of a step.
    pub(super) fn name(&self, step: usize) -> &'a str {
        self.instance().steps.get(step).map_or("?", |state| &state.name)
    }

    /// Whether its definition names nothing that undoes a step. Of a definition that is not known,
    /// nothing is believed.
    pub(super) fn has_no_compensation(&self, step: usize) -> bool {
        self.plan.and_then(|plan| plan.steps.get(step)).is_some_and(|step| step.compensation.is_none())
    }

    /// Whether a participant does a step. Of a definition that is not known, all are believed to be.
    pub(super) fn is_done_by_participant(&self, step: usize) -> bool {
        let step = self.plan.and_then(|plan| plan.steps.get(step));
        step.is_none_or(|step| step.call(Phase::Action).is_some())
    }

    /// The messages that say of themselves that they are this.
    pub(super) fn copies(&self, told: Told) -> impl Iterator<Item = &'a Seen> {
        self.messages.iter().filter(move |sent| sent.told == told).map(|sent| sent.seen)
    }

    /// The name of the step that a command id is of.
    pub(super) fn step_of_command(&self, command_id: &str) -> Option<&'a str> {
        let id = MessageId::parse(command_id)?;
        let is = |step: usize| {
            [Phase::Action, Phase::Compensation].map(|phase| self.id_of(step, phase, 1)).contains(&id)
        };
        (0..self.instance().steps.len()).find(|step| is(*step)).map(|step| self.name(step))
    }

    /// Every attempt that was decided.
    fn attempts(&self) -> impl Iterator<Item = MessageId> {
        self.facts().filter_map(|fact| match fact {
            Fact::Dispatched { step, phase, attempt } => Some(self.id_of(*step, *phase, *attempt)),
            _ => None,
        })
    }
}

impl<'a> Booked<'a> {
    /// The entries of one phase.
    pub(super) fn of(&self, phase: Phase) -> &[&'a Entry] {
        match phase {
            Phase::Action => &self.action,
            Phase::Compensation => &self.compensation,
        }
    }

    fn of_mut(&mut self, phase: Phase) -> &mut Vec<&'a Entry> {
        match phase {
            Phase::Action => &mut self.action,
            Phase::Compensation => &mut self.compensation,
        }
    }
}

/// Reads from a message's headers what it is.
fn told(seen: &Seen, instance: &Instance) -> Told {
    let Some(name) = seen.headers.get("x-saga-step") else {
        let is_this = |ordinal: &usize| instance.notice_id(*ordinal).to_string() == seen.message_id;
        // One more than there are, so that a notice which nobody decided is told from a wrong id.
        return Told::Notice((0..=instance.notices.len()).find(is_this));
    };
    let step = instance.steps.iter().position(|step| step.name == *name);
    let phase = match seen.headers.get("x-saga-phase").map(String::as_str) {
        Some("action") => Some(Phase::Action),
        Some("compensation") => Some(Phase::Compensation),
        _ => None,
    };
    let attempt = seen.headers.get("x-saga-attempt").and_then(|attempt| attempt.parse().ok());
    match (step, phase, attempt) {
        (Some(step), Some(phase), Some(attempt)) => Told::Attempt { step, phase, attempt },
        _ => Told::Unreadable,
    }
}
