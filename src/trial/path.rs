//! Paths: what goes wrong on the way of one instance, as values that can be counted and printed.

use super::member::{Member, body_of, members};
use crate::saga::id::Phase;
use crate::saga::plan::{AtDeadline, Kind, OnTimeout, OutcomeKind, Plan, Step, Work};

/// What may go wrong: doing a step, or undoing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whose step it is: 0 is the saga itself, the others are what it does for each item of lists, in order.
    pub member: usize,
    /// Index of the step.
    pub step: usize,
    /// Doing or undoing.
    pub phase: Phase,
}

/// What befalls a step or a compensation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing goes wrong.
    Success,
    /// The step's `when` is false.
    Skipped,
    /// The first attempt is done and not answered; an awaited event does not come.
    Timeout,
    /// The first attempt is answered, or the awaited event comes, after the timeout.
    Late,
    /// The first attempt is answered with `retry`.
    Transient,
    /// The answer comes twice.
    Duplicate,
    /// The answer comes before the broker's confirm, the awaited event before the step has its turn.
    Early,
    /// The power fails before the answer is committed.
    CrashBefore,
    /// The power fails when the answer is committed, and neither acked nor followed by anything; where there is
    /// no answer, when the step has begun.
    CrashAfter,
    /// The participant refuses; a saga that is called is compensated.
    Failure,
    /// Every attempt is done and none is answered.
    Silence,
    /// Every attempt is answered with `retry`.
    UsedUp,
    /// No queue is bound.
    Unroutable,
    /// The instance is cancelled meanwhile.
    Cancelled,
    /// The deadline passes meanwhile, however short it would have taken.
    Deadline,
}

/// What goes wrong on the way of one instance. Whatever is not named goes well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// What is looked at: one fault, or two.
    pub faults: Vec<(Target, Fault)>,
    /// What has the instance turn back, so that a compensation is reached.
    pub way_back: Option<(Target, Fault)>,
}

impl Fault {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 15] = [
        Self::Success,
        Self::Skipped,
        Self::Timeout,
        Self::Late,
        Self::Transient,
        Self::Duplicate,
        Self::Early,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Failure,
        Self::Silence,
        Self::UsedUp,
        Self::Unroutable,
        Self::Cancelled,
        Self::Deadline,
    ];

    /// Its name in tables and in the names of paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Success => "success",
            Fault::Skipped => "skipped",
            Fault::Failure => "failure",
            Fault::Timeout => "timeout",
            Fault::Silence => "silence",
            Fault::Transient => "transient",
            Fault::UsedUp => "retries used up",
            Fault::Duplicate => "duplicate reply",
            Fault::Late => "late reply",
            Fault::Early => "early reply",
            Fault::Unroutable => "unroutable",
            Fault::CrashBefore => "crash before commit",
            Fault::CrashAfter => "crash after commit",
            Fault::Cancelled => "cancelled",
            Fault::Deadline => "deadline",
        }
    }

    /// Whether it can befall a step or a compensation of this plan. What is tried without end never comes to
    /// its last attempt, and what nobody answers has no answer. An event that comes before an item's instance
    /// finds nobody.
    pub fn is_possible(self, plan: &Plan, target: Target) -> bool {
        let members = members(plan);
        let Some(step) = members.get(target.member).and_then(|of| of.plan.steps.get(target.step)) else {
            return false;
        };
        match self {
            Fault::Success => true,
            Fault::Skipped => target.phase == Phase::Action && step.when.is_some(),
            Fault::Cancelled => plan.cancel.is_some(),
            Fault::Deadline => plan.deadline.is_some(),
            _ => match step.call(target.phase) {
                Some(call) => match self {
                    Fault::Silence | Fault::UsedUp | Fault::Unroutable => call.retry.attempts.is_some(),
                    _ => true,
                },
                None if self == Fault::Early && target.member > 0 => false,
                None => self.is_possible_for(&step.work),
            },
        }
    }

    /// The same of what is no command.
    fn is_possible_for(self, work: &Work) -> bool {
        match work {
            Work::Command(_) => true,
            Work::Wait(wait) => match self {
                Fault::Failure => wait.has(OutcomeKind::Failure),
                Fault::Timeout => true,
                Fault::Late | Fault::Duplicate | Fault::Early | Fault::CrashBefore | Fault::CrashAfter => {
                    wait.has(OutcomeKind::Success)
                }
                _ => false,
            },
            Work::Delay(_) => self == Fault::CrashAfter,
            Work::Saga(_) => matches!(self, Fault::CrashAfter | Fault::Failure),
            Work::Each(_) => self == Fault::CrashAfter,
            Work::Emit(_) => matches!(self, Fault::CrashAfter | Fault::Unroutable),
        }
    }
}

/// Every step and every compensation of a definition, in the order in which they come: steps forward,
/// compensations backward, those for each item after the step that they are done for.
pub fn targets(plan: &Plan) -> Vec<Target> {
    let members = members(plan);
    let mut back = within(&members, 0, Phase::Compensation);
    back.retain(|of| members[of.member].plan.steps[of.step].compensation.is_some());
    back.reverse();
    [within(&members, 0, Phase::Action), back].concat()
}

/// The same without what is done for each item.
pub(super) fn own_targets(plan: &Plan) -> Vec<Target> {
    targets(plan).into_iter().filter(|target| target.member == 0).collect()
}

/// The steps of a member, each followed by those that it does for each item.
fn within(members: &[Member<'_>], member: usize, phase: Phase) -> Vec<Target> {
    let of = |step| {
        let body = body_of(members, member, step);
        let items = body.map(|body| within(members, body, phase)).unwrap_or_default();
        [Target { member, step, phase }].into_iter().chain(items)
    };
    (0..members[member].plan.steps.len()).flat_map(of).collect()
}

impl Path {
    /// The path on which these faults happen, with what it takes to get to a compensation among them:
    /// a later step fails, the pivot where there is one; else the step itself is silent, or the instance
    /// is cancelled or late.
    pub fn new(plan: &Plan, faults: Vec<(Target, Fault)>) -> Self {
        let is_free = |target: &Target| !faults.iter().any(|(other, _)| other == target);
        let undone = || faults.iter().map(|(of, _)| *of).filter(|of| of.phase == Phase::Compensation);
        let way_back = undone().next().and_then(|first| {
            let members = members(plan);
            let above: Vec<_> = undone().map(|of| above(&members, of)).collect();
            // One that stands on both, if there is one; else the second is not always reached.
            let later = above[0]
                .iter()
                .filter(|target| is_free(target))
                .filter_map(|target| Some((*target, refusal(plan, &members, *target)?)))
                .max_by_key(|(target, _)| above.iter().filter(|above| above.contains(target)).count());
            let of_itself = || turning_back(plan, &members, first).filter(|(target, _)| is_free(target));
            later.or_else(of_itself)
        });
        Self { faults, way_back }
    }

    /// The same path with another fault, which goes before what has the instance turn back.
    pub fn and(&self, target: Target, fault: Fault) -> Self {
        let mut path = self.clone();
        path.faults.push((target, fault));
        path.way_back = path.way_back.filter(|(other, _)| *other != target);
        path
    }

    /// What becomes of a command on this path.
    pub fn fault(&self, target: Target) -> Fault {
        let known = self.faults.iter().chain(&self.way_back).find(|(other, _)| *other == target);
        known.map_or(Fault::Success, |(_, fault)| *fault)
    }

    /// The steps whose `when` is false.
    pub fn skipped(&self) -> Vec<Target> {
        let skipped = self.faults.iter().filter(|(_, fault)| *fault == Fault::Skipped);
        skipped.map(|(target, _)| *target).collect()
    }

    /// What takes until the deadline has passed: the steps that it befalls, and all that those do for items. Where
    /// items are told apart, of those that nothing else befalls only what is held for all of them.
    pub(super) fn held(&self, plan: &Plan, is_aside: bool) -> Vec<Target> {
        let members = members(plan);
        let late = self.faults.iter().chain(&self.way_back).filter(|(_, fault)| *fault == Fault::Deadline);
        let held = |(target, _): &(Target, Fault)| {
            let body = Some(target).filter(|target| target.phase == Phase::Action);
            let body = body.and_then(|target| body_of(&members, target.member, target.step));
            let items = body.map(|body| within(&members, body, Phase::Action)).unwrap_or_default();
            [*target].into_iter().filter(|_| !is_aside).chain(items).collect::<Vec<_>>()
        };
        late.flat_map(held).collect()
    }

    /// Its name, such as `undo reserve_stock: timeout (after ship: failure)`.
    pub fn name(&self, plan: &Plan) -> String {
        let part = |(target, fault): &(Target, Fault)| format!("{}: {}", target.name(plan), fault.as_str());
        let faults: Vec<_> = self.faults.iter().map(part).collect();
        let after = self.way_back.as_ref().map(|way_back| format!(" (after {})", part(way_back)));
        faults.join(" + ") + &after.unwrap_or_default()
    }
}

impl Target {
    /// Its name, such as `ship`, `parcels/pick` or `undo reserve_stock`.
    pub fn name(self, plan: &Plan) -> String {
        match self.phase {
            Phase::Action => self.step_name(plan),
            Phase::Compensation => format!("undo {}", self.step_name(plan)),
        }
    }

    /// The name of the step, such as `ship` or `parcels/pick`.
    pub fn step_name(self, plan: &Plan) -> String {
        let members = members(plan);
        let Some(Member { plan, path, .. }) = members.get(self.member) else { return "?".to_owned() };
        let name = plan.steps.get(self.step).map_or("?", |step| &step.name);
        [&path[..], &[name]].concat().join("/")
    }
}

fn action(member: usize, step: usize) -> Target {
    Target { member, step, phase: Phase::Action }
}

/// What has a step fail for good, with nothing to undo of itself, so that the instance turns back.
fn refusal(plan: &Plan, members: &[Member<'_>], target: Target) -> Option<Fault> {
    let of: &Step = &members[target.member].plan.steps[target.step];
    let turns_back = |fault: &Fault| match (fault, &of.work) {
        (Fault::Timeout, Work::Wait(_)) => of.on_timeout == OnTimeout::Compensate,
        (Fault::Timeout, _) => false,
        _ => true,
    };
    let faults = [Fault::Failure, Fault::Timeout].into_iter().filter(|_| of.kind != Kind::Retriable);
    faults.filter(turns_back).find(|fault| fault.is_possible(plan, target))
}

/// What has an instance undo a step that no other one stands on.
fn turning_back(plan: &Plan, members: &[Member<'_>], undone: Target) -> Option<(Target, Fault)> {
    let target = Target { phase: Phase::Action, ..undone };
    let of: &Step = &members[target.member].plan.steps[target.step];
    let late = plan.deadline.is_some_and(|deadline| deadline.then == AtDeadline::Compensate);
    let ways = [
        (Fault::Silence, of.on_timeout != OnTimeout::Park),
        (Fault::UsedUp, true),
        (Fault::Cancelled, true),
        (Fault::Deadline, late),
    ];
    let found = ways.into_iter().find(|(fault, undoes)| *undoes && fault.is_possible(plan, target));
    found.map(|(fault, _)| (target, fault))
}

/// The steps whose failure has one undone: those that require it, by way of others or not, and what those do
/// for each item; of an item's step also those above the step that it is done for.
fn above(members: &[Member<'_>], undone: Target) -> Vec<Target> {
    let Member { plan, parent, .. } = &members[undone.member];
    let mut above = vec![false; plan.steps.len()];
    let mut found = Vec::new();
    for (index, later) in plan.steps.iter().enumerate() {
        above[index] = later.requires.iter().any(|earlier| *earlier == undone.step || above[*earlier]);
        if above[index] {
            found.push(action(undone.member, index));
            // After the pivot, an item that fails has nothing undone but itself.
            let body = body_of(members, undone.member, index).filter(|_| later.kind != Kind::Retriable);
            found.extend(body.map(|body| within(members, body, Phase::Action)).unwrap_or_default());
        }
    }
    if let Some((member, step)) = *parent
        && members[member].plan.steps[step].kind != Kind::Retriable
    {
        found.extend(self::above(members, action(member, step)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::compile;

    fn trip() -> Plan {
        compile::load("trip.yaml", include_str!("../../sagas/trip.yaml")).unwrap()
    }

    fn undo(step: usize) -> Target {
        Target { member: 0, step, phase: Phase::Compensation }
    }

    fn action(step: usize) -> Target {
        super::action(0, step)
    }

    #[test]
    fn commands_come_forward_and_then_backward() {
        let plan = trip();
        let names: Vec<_> = targets(&plan).into_iter().map(|target| target.name(&plan)).collect();
        assert_eq!(names.len(), 10);
        assert_eq!((names[0].as_str(), names[5].as_str()), ("book_hotel", "confirm"));
        assert_eq!((names[6].as_str(), names[9].as_str()), ("undo insure_car", "undo book_hotel"));
    }

    #[test]
    fn a_compensation_is_reached_by_the_last_step_that_can_fail_after_it() {
        let plan = trip();
        let name = |faults| Path::new(&plan, faults).name(&plan);
        assert_eq!(name(vec![(undo(2), Fault::Timeout)]), "undo book_car: timeout (after charge: failure)");
        // With the pivot late, the step after it in its own branch fails.
        let charge = action(4);
        assert_eq!(
            name(vec![(charge, Fault::Late), (undo(2), Fault::Success)]),
            "charge: late reply + undo book_car: success (after insure_car: failure)"
        );
        assert_eq!(
            name(vec![(charge, Fault::Late), (undo(0), Fault::Success)]),
            "charge: late reply + undo book_hotel: success (after book_hotel: silence)"
        );
    }

    #[test]
    fn what_is_tried_without_end_has_no_last_attempt() {
        let plan = trip();
        assert!(!Fault::UsedUp.is_possible(&plan, action(5)));
        assert!(Fault::Timeout.is_possible(&plan, action(5)));
        assert!(Fault::Skipped.is_possible(&plan, action(2)));
        assert!(!Fault::Skipped.is_possible(&plan, undo(2)));
    }
}
