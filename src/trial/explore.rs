//! Exploring: every path of a definition, each played and checked.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::cast::{Actor, Place};
use super::choice::Choice;
use super::explored::{Explored, MAX_FAILURES, Told, Walked};
use super::judgement::{obstacles, wrong};
use super::member::{change, members};
use super::path::{Fault, Path, Target, own_targets, targets};
use super::sample::Sample;
use super::script::{Act, Crash, Cue, Script, USUAL, When};
use super::stage::{self, BEGIN, Opening, Played};
use super::{Progress, Selection};
use crate::checker::evidence::Placing;
use crate::definitions::Loaded;
use crate::saga::compile;
use crate::saga::expression::Expression;
use crate::saga::id::{InstanceId, Phase};
use crate::saga::instance::Status;
use crate::saga::plan::{Delay, OutcomeKind, Plan, Work};
use crate::simulate::ProcessError;

/// Attempts that a command has on a path, where it has more: what the fourth could bring about, the third
/// does.
const MAX_ATTEMPTS: u32 = 3;
/// How much longer than to the deadline a step takes that is to outlast it.
const LONG_AFTER: Duration = Duration::from_secs(3600);
/// Definitions that are kept for paths on which they differ.
const MAX_VARIANTS: usize = 256;

/// Plays the paths that are selected, on all processors.
///
/// # Errors
/// The engine or the store cannot go on: a bug.
pub(super) fn explore(
    loaded: &Loaded,
    others: &[Loaded],
    cast: &[Actor],
    selection: Selection<'_>,
    progress: Progress<'_>,
) -> Result<Explored, ProcessError> {
    let Some(first) = cast.first() else { return Ok(Explored::default()) };
    let mut explorer = Explorer {
        loaded,
        others,
        cast,
        first,
        selection,
        choice: Choice::default(),
        played: AtomicUsize::new(0),
        progress,
        variants: Mutex::default(),
    };
    let plan = &loaded.plan;
    let targets = targets(plan);
    let possible: Vec<_> = targets.iter().map(|target| explorer.faults(*target).count()).collect();
    explorer.choice = Choice::new(&possible, selection);
    let explorer = explorer;
    let firsts: Vec<_> = (0..targets.len())
        .flat_map(|index| explorer.faults(targets[index]).map(move |fault| (index, fault)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut parts = Vec::new();
        while let Some((index, fault)) = firsts.get(next.fetch_add(1, Ordering::Relaxed)) {
            parts.push((*index, *fault, explorer.group(&targets, *index, *fault)?));
        }
        Ok::<_, ProcessError>(parts)
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let parts: Result<Vec<_>, _> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no play panics")).collect()
    });
    let mut parts: Vec<_> = parts?.into_iter().flatten().collect();
    // However the work was shared, the outcome is the same.
    parts.sort_by_key(|(index, fault, _)| (*index, *fault));
    let mut explored = Explored::default();
    parts.into_iter().for_each(|(_, _, part)| explored.add(part));
    Ok(explored)
}

/// How the definition differs on a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Changes {
    /// Steps that are skipped; no other one is.
    skipped: Vec<Target>,
    /// Steps that wait, or delay, until the deadline has passed.
    held: Vec<Target>,
}

struct Explorer<'a> {
    loaded: &'a Loaded,
    others: &'a [Loaded],
    cast: &'a [Actor],
    /// The instance of the definition itself.
    first: &'a Actor,
    selection: Selection<'a>,
    choice: Choice,
    /// How many paths were looked at.
    played: AtomicUsize,
    progress: Progress<'a>,
    /// The definition as some paths need it.
    variants: Mutex<HashMap<Changes, Loaded>>,
}

impl Explorer<'_> {
    fn plan(&self) -> &Plan {
        &self.loaded.plan
    }

    /// What can befall a command.
    fn faults(&self, target: Target) -> impl Iterator<Item = Fault> {
        let can_be_cancelled = self.first.sample.cancel.is_some();
        Fault::ALL.into_iter().filter(move |fault| {
            fault.is_possible(self.plan(), target) && (*fault != Fault::Cancelled || can_be_cancelled)
        })
    }

    /// Plays the path on which a fault befalls one of these commands, and those on which another one befalls a
    /// later one too.
    fn group(&self, targets: &[Target], index: usize, fault: Fault) -> Result<Explored, ProcessError> {
        let mut explored = Explored::default();
        let first = &targets[index];
        let alone = Path::new(self.plan(), vec![(*first, fault)]);
        let sent = self.walk(&mut explored, alone.clone())?;
        self.advance(1);
        if fault == Fault::Success || self.choice.pairs == 0 {
            return Ok(explored);
        }
        let mut dice = self.choice.dice(index, fault);
        for other in &targets[index + 1..] {
            let (seconds, left_out): (Vec<_>, Vec<_>) =
                self.faults(*other).skip(1).partition(|_| self.choice.takes(&mut dice));
            explored.left_out += left_out.len();
            if seconds.is_empty() {
                continue;
            }
            self.advance(seconds.len());
            let goes_on = sent.contains(other);
            let with = |second| match goes_on {
                true => alone.and(*other, second),
                false => Path::new(self.plan(), vec![(*first, fault), (*other, second)]),
            };
            let sent = match goes_on {
                true => sent.clone(),
                false => self.reached(&self.play(&with(Fault::Success), false)?),
            };
            // Where one of the commands is not even sent, nothing can befall it.
            let are_sent = (fault == Fault::Skipped || sent.contains(first)) && sent.contains(other);
            for second in seconds.into_iter().filter(|_| are_sent) {
                self.walk(&mut explored, with(second))?;
            }
        }
        Ok(explored)
    }

    fn advance(&self, paths: usize) {
        let played = self.played.fetch_add(paths, Ordering::Relaxed) + paths;
        (self.progress)(&self.plan().saga, played, self.choice.paths);
    }

    /// Plays a path, adds what came of it, and tells which commands were sent.
    fn walk(&self, explored: &mut Explored, path: Path) -> Result<HashSet<Target>, ProcessError> {
        let name = || path.name(self.plan());
        if self.selection.filter.is_some_and(|filter| !name().contains(filter)) {
            return Ok(targets(self.plan()).into_iter().collect());
        }
        let played = self.play(&path, false)?;
        let end = played.ended.as_ref().map_or(Status::Running, |instance| instance.status);
        let wrong = wrong(&played);
        let tell = |wrong| {
            let time_line = self.play(&path, true)?.time_line;
            Ok::<_, ProcessError>(Told { path: name(), end, wrong, time_line })
        };
        if !wrong.is_empty() {
            explored.failed += 1;
            if explored.failures.len() < MAX_FAILURES {
                explored.failures.push(tell(wrong)?);
            }
        } else if self.selection.time_lines {
            explored.told.push(tell(wrong)?);
        }
        for what in obstacles(&played) {
            explored.add_obstacle(what, name(), 1);
        }
        *explored.ends.entry(end).or_default() += 1;
        let sent = self.reached(&played);
        explored.reached.extend(&sent);
        if let [(target, fault)] = path.faults[..] {
            let reached = match fault {
                Fault::Deadline => self.is_late(&played, target),
                _ => sent.contains(&target),
            };
            explored.alone.push(Walked { path, end, reached });
        } else {
            explored.pairs += 1;
            for (target, _) in path.faults {
                *explored.in_pairs.entry((target, end)).or_default() += 1;
            }
        }
        Ok(sent)
    }

    /// Which commands were sent: of items, those of the one that is looked at.
    fn reached(&self, played: &Played) -> HashSet<Target> {
        let wide = |(id, target): &(InstanceId, Target)| {
            let actor = self.cast.iter().find(|actor| actor.instance == *id && actor.is_looked_at())?;
            Some(Target { member: actor.place.member, ..*target })
        };
        played.reached.iter().filter_map(wide).collect()
    }

    /// Whether the deadline passed, and a step or a compensation was sent: of items that of any, since they are
    /// held alike.
    fn is_late(&self, played: &Played, target: Target) -> bool {
        let is_of = |actor: &&Actor| actor.place.member == target.member && actor.place.called_by.is_none();
        let of = Target { member: 0, ..target };
        let sent = |actor: &Actor| played.reached.contains(&(actor.instance, of));
        played.ended.as_ref().is_some_and(|instance| instance.deadline_passed)
            && self.cast.iter().filter(is_of).any(sent)
    }

    fn play(&self, path: &Path, told: bool) -> Result<Played, ProcessError> {
        let held = path.held(self.plan(), false);
        let variant = self.variant(Changes { skipped: path.skipped(), held });
        let Sample { business_key, start, .. } = &self.first.sample;
        stage::play(
            Opening { loaded: &variant, others: self.others, business_key, event: start },
            &self.script(path),
            told,
        )
    }

    fn variant(&self, mut changes: Changes) -> Loaded {
        // Commands are held by their participants.
        let members = members(self.plan());
        changes.held.retain(|of| {
            matches!(members[of.member].plan.steps[of.step].work, Work::Wait(_) | Work::Delay(_))
        });
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        // Hardly any is needed again much later.
        if variants.len() >= MAX_VARIANTS {
            variants.clear();
        }
        let long = self.deadline() + LONG_AFTER;
        let make = |Changes { skipped, held }: &Changes| {
            let Loaded { file, source, .. } = self.loaded;
            let mut plan = compile::reload(file, source).expect("it was compiled before");
            change(&mut plan, &mut |member, plan| {
                for (index, step) in plan.steps.iter_mut().enumerate() {
                    let is_it = |of: &Target| (of.member, of.step) == (member, index);
                    let runs = !skipped.iter().any(is_it);
                    step.when = step.when.as_ref().map(|_| Expression::literal(runs.into()));
                    match &mut step.work {
                        Work::Wait(wait) if held.iter().any(is_it) => wait.timeout = long,
                        Work::Delay(delay) if held.iter().any(is_it) => *delay = Delay::For(long),
                        _ => {}
                    }
                }
                few_attempts(plan);
            });
            Loaded { plan: Arc::new(plan), ..self.loaded.clone() }
        };
        variants.entry(changes).or_insert_with_key(make).clone()
    }

    /// How long after the start the deadline passes.
    fn deadline(&self) -> Duration {
        self.plan().deadline.map_or(Duration::ZERO, |deadline| deadline.after)
    }

    /// What everybody does on a path.
    fn script(&self, path: &Path) -> Script {
        let held = [false, true].map(|is_aside| path.held(self.plan(), is_aside));
        let acts = |actor: &Actor| {
            let Place { member, is_aside, .. } = actor.place;
            let fault = |target: Target| match held[usize::from(is_aside)].contains(&target) {
                true => Fault::Deadline,
                false if is_aside => Fault::Success,
                false => path.fault(target),
            };
            let acts = match actor.place.called_by {
                Some(step) => {
                    let befalls = fault(Target { member, step, phase: Phase::Action });
                    // What it does first is held, and after the deadline nothing is.
                    let late = |target: &Target| befalls == Fault::Deadline && target.phase == Phase::Action;
                    let late = own_targets(&actor.plan).into_iter().filter(late);
                    let mut acts = actor.usual(befalls == Fault::Failure);
                    acts.extend(late.map(|target| (target, self.acts(actor, target, Fault::Deadline))));
                    acts
                }
                None => {
                    let acts = |target| self.acts(actor, target, fault(Target { member, ..target }));
                    own_targets(&actor.plan).into_iter().map(|target| (target, acts(target))).collect()
                }
            };
            (actor.instance, acts)
        };
        let faults = path.faults.iter().chain(&path.way_back);
        let cues = faults.filter_map(|(target, fault)| self.cue(*target, *fault));
        Script { acts: self.cast.iter().map(acts).collect(), cues: cues.collect() }
    }

    fn acts(&self, actor: &Actor, target: Target, fault: Fault) -> Vec<Act> {
        let answer = |kind| actor.sample.answer(target, kind);
        let step = &actor.plan.steps[target.step];
        let deadline = BEGIN + self.deadline();
        let usual = actor.sample.usual(&actor.plan, target);
        let (silent, refused, timeout) = match (step.call(target.phase), &step.work) {
            (Some(call), _) => (Act::silent(), Act::refused(&answer(OutcomeKind::Failure)), call.timeout),
            (None, Work::Wait(wait)) => {
                (Act::default(), Act::answered(&answer(OutcomeKind::Failure)), wait.timeout)
            }
            _ => (Act::default(), Act::default(), Duration::ZERO),
        };
        let at = |whens: &[When]| {
            let answers =
                usual.answers.iter().flat_map(|(_, answer)| whens.iter().map(|when| (*when, answer.clone())));
            Act { answers: answers.collect(), ..usual.clone() }
        };
        let busy = || Act::answered(&answer(OutcomeKind::Retry));
        match fault {
            Fault::Success | Fault::Skipped | Fault::Cancelled => vec![usual],
            Fault::Failure => vec![refused],
            Fault::Timeout => vec![silent, usual],
            Fault::Silence => vec![silent],
            Fault::Transient => vec![busy(), usual],
            Fault::UsedUp => vec![busy()],
            Fault::Duplicate => vec![at(&[When::After(USUAL), When::After(USUAL * 2)])],
            Fault::Late => vec![at(&[When::After(timeout + Duration::from_millis(1))]), usual],
            // What is awaited comes as a cue.
            Fault::Early if step.call(target.phase).is_none() => vec![Act::default()],
            Fault::Early => vec![Act { confirmed: When::After(USUAL * 2), ..usual }],
            Fault::Unroutable => vec![Act { unroutable: true, ..Act::default() }],
            Fault::CrashBefore => vec![Act { crash: Some(Crash::Before), ..usual }],
            Fault::CrashAfter => vec![Act { crash: Some(Crash::After), ..usual }],
            // The broker confirms it only then, so no timeout runs before.
            Fault::Deadline => {
                vec![Act { confirmed: When::At(deadline + USUAL), ..at(&[When::At(deadline + USUAL * 2)]) }]
            }
        }
    }

    /// The event that comes in besides answers, for a fault.
    fn cue(&self, target: Target, fault: Fault) -> Option<Cue> {
        let sample = &self.first.sample;
        let (saga, business_key) = (self.plan().saga.clone(), sample.business_key.clone());
        match fault {
            Fault::Cancelled => {
                let what = Some(Placing::Cancel { saga, business_key });
                let is_it = |actor: &&Actor| actor.is_looked_at() && actor.place.member == target.member;
                let on = (self.cast.iter().find(is_it)?.instance, Target { member: 0, ..target });
                Some(Cue { on: Some(on), after: USUAL / 2, what, event: sample.cancel.clone()? })
            }
            Fault::Early
                if target.member == 0 && self.plan().steps[target.step].call(target.phase).is_none() =>
            {
                let what = Some(Placing::Answer { saga, business_key });
                let event = sample.answer(target, OutcomeKind::Success).message;
                Some(Cue { on: None, after: Duration::from_millis(1), what, event })
            }
            _ => None,
        }
    }
}

/// Bounds the attempts of every command.
fn few_attempts(plan: &mut Plan) {
    for step in &mut plan.steps {
        let command = match &mut step.work {
            Work::Command(call) => Some(call),
            _ => None,
        };
        for call in [command, step.compensation.as_mut()].into_iter().flatten() {
            call.retry.attempts = call.retry.attempts.map(|attempts| attempts.min(MAX_ATTEMPTS));
        }
    }
}
