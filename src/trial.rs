//! Trials: what a definition does on every path, and in a team's own cases, before any service exists.
//!
//! The real engine runs over the real store on a simulated disk, in virtual time, with a broker in memory
//! and participants that do what a script says. Nothing is left to chance: the same files are the same
//! outcome.
//!
//! | file | what |
//! |---|---|
//! | `path` | what goes wrong, as values |
//! | `explore`, `explored` | every path of a definition, played and checked, and what came of them |
//! | `judgement` | what does not hold of a play |
//! | `choice` | which pairs of faults are played, where there are too many |
//! | `scenario`, `form` | a team's own cases, as they are written |
//! | `proofread` | what they name, and their definition does not have |
//! | `rehearsal`, `comparison` | a case, played and held against what it expects |
//! | `sample`, `draft`, `question` | events and replies of the shape that the expressions ask for |
//! | `member` | a definition with what it does for each item of lists |
//! | `cast` | the instance that is played, and those that it calls |
//! | `script` | what becomes of each attempt of each command |
//! | `stage`, `ledger` | one instance from its start to its end, and what participants keep of it |
//! | `time_line` | what happened, moment by moment |

use std::time::{Duration, Instant};

use crate::definitions::Loaded;
use crate::saga::id::Phase;
use crate::saga::instance::Status;
use crate::saga::problem::Problem;
use crate::simulate::ProcessError;

mod cast;
mod choice;
mod comparison;
mod draft;
mod explore;
mod explored;
#[cfg(test)]
mod fixture;
mod form;
mod judgement;
mod ledger;
mod member;
mod path;
mod proofread;
mod question;
mod rehearsal;
mod sample;
mod scenario;
mod script;
mod stage;
mod time_line;

pub use comparison::Difference;
pub use explored::{Explored, Told, Walked};
pub use path::{Fault, Path, Target, targets};
pub use rehearsal::Rehearsed;
pub use scenario::{ScenarioFile, schema};
pub use time_line::{Happened, Moment, TimeLine};

use draft::Given;

/// What is to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Every path of every definition.
    pub paths: bool,
    /// At most so many of those on which two things go wrong, for each definition; where it is left open, all
    /// unless there are too many. Those with a filter are all played.
    pub pairs: Option<usize>,
    /// Only paths and scenarios with this in their name.
    pub filter: Option<&'a str>,
    /// Also what happened on paths on which all held.
    pub time_lines: bool,
}

/// Hears how far a definition is: its saga, how many paths were looked at, and of about how many.
pub type Progress<'a> = &'a (dyn Fn(&str, usize, usize) + Sync);

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The definitions, each with its paths.
    pub definitions: Vec<Tried>,
    /// The scenarios.
    pub scenarios: Vec<Rehearsed>,
    /// How long all paths took.
    pub took: Duration,
}

/// A definition whose paths were played.
#[derive(Debug)]
pub struct Tried {
    /// The definition.
    pub loaded: Loaded,
    /// The file that its start event is from, where it is not made up.
    pub start: Option<String>,
    /// What could not be made up.
    pub gaps: Vec<String>,
    /// What came of its paths.
    pub explored: Explored,
    /// Whether all of them were played.
    pub is_whole: bool,
}

impl Tried {
    /// Steps whose compensation was sent on no path, where all were played.
    pub fn never_undone(&self) -> Vec<String> {
        self.never(Phase::Compensation)
    }

    /// Steps that were begun on no path, where all were played.
    pub fn never_begun(&self) -> Vec<String> {
        self.never(Phase::Action)
    }

    /// Whether no path at all comes through, where all were played.
    pub fn is_dead_end(&self) -> bool {
        self.is_whole && self.explored.paths() > 0 && !self.explored.ends.contains_key(&Status::Completed)
    }

    fn never(&self, phase: Phase) -> Vec<String> {
        let plan = &self.loaded.plan;
        let mut never = targets(plan);
        let is_never = |target: &Target| target.phase == phase && !self.explored.reached.contains(target);
        never.retain(|target| self.is_whole && is_never(target));
        never.into_iter().map(|target| target.step_name(plan)).collect()
    }
}

impl Outcome {
    /// Whether everything held.
    pub fn passed(&self) -> bool {
        self.definitions.iter().all(|tried| tried.explored.failed == 0 && !tried.is_dead_end())
            && self.scenarios.iter().all(Rehearsed::passed)
    }

    /// How many paths were played.
    pub fn paths(&self) -> usize {
        self.definitions.iter().map(|tried| tried.explored.paths()).sum()
    }
}

/// What is wrong with scenario files, over these definitions.
pub fn problems(loaded: &[Loaded], files: &[ScenarioFile]) -> Vec<Problem> {
    files.iter().flat_map(|file| proofread::problems(file, loaded)).collect()
}

/// Plays paths and scenarios. Of a file with [`problems`], what has none.
///
/// # Errors
/// The engine or the store cannot go on: a bug.
pub fn run(
    loaded: &[Loaded],
    files: &[ScenarioFile],
    selection: Selection<'_>,
    progress: Progress<'_>,
) -> Result<Outcome, ProcessError> {
    let begun = Instant::now();
    let mut definitions = Vec::new();
    for one in loaded.iter().filter(|_| selection.paths) {
        definitions.push(tried(one, loaded, files, selection, progress)?);
    }
    let took = begun.elapsed();
    let mut scenarios = Vec::new();
    for file in files {
        let Some(one) = file.definition(loaded) else { continue };
        let others = cast::callables(&one.plan, loaded);
        for scenario in &file.scenarios.scenarios {
            if selection.filter.is_none_or(|filter| scenario.scenario.contains(filter)) {
                scenarios.push(rehearsal::rehearse(&one, &others, file, scenario)?);
            }
        }
    }
    Ok(Outcome { definitions, scenarios, took })
}

fn tried(
    loaded: &Loaded,
    all: &[Loaded],
    files: &[ScenarioFile],
    selection: Selection<'_>,
    progress: Progress<'_>,
) -> Result<Tried, ProcessError> {
    let plan = &loaded.plan;
    let file = files.iter().find(|file| file.is_about(plan));
    let given = file.map_or_else(Given::default, |file| rehearsal::given(file, None));
    let start = file.filter(|_| !given.start.data.is_null()).map(|file| file.file.clone());
    let others = cast::callables(plan, all);
    let cast = cast::cast(plan, &given, &others);
    // What only others call is played where they call it.
    if plan.start.is_none() {
        let (gaps, explored) = Default::default();
        return Ok(Tried { loaded: loaded.clone(), start, gaps, explored, is_whole: false });
    }
    let explored = explore::explore(loaded, &others, &cast, selection, progress)?;
    let gaps = cast.iter().filter(|actor| actor.is_looked_at()).flat_map(|actor| actor.gaps(plan)).collect();
    Ok(Tried { loaded: loaded.clone(), start, gaps, explored, is_whole: selection.filter.is_none() })
}
