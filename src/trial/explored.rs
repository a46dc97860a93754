//! What came of all paths of a definition.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::path::{Path, Target};
use super::time_line::TimeLine;
use crate::saga::instance::Status;

/// Failing paths that are kept with their time lines.
pub(super) const MAX_FAILURES: usize = 10;

/// What came of all paths of a definition.
#[derive(Debug, Default)]
pub struct Explored {
    /// The paths with one fault.
    pub alone: Vec<Walked>,
    /// How those with two ended, by one of the two commands: each path counts for both.
    pub in_pairs: HashMap<(Target, Status), usize>,
    /// How many paths with two faults there were.
    pub pairs: usize,
    /// How many more there are that were not looked at.
    pub left_out: usize,
    /// How all paths ended.
    pub ends: HashMap<Status, usize>,
    /// Commands that were sent on some path.
    pub reached: HashSet<Target>,
    /// What cannot be evaluated on some path: what it is, the first path, and on how many.
    pub obstacles: Vec<(String, String, usize)>,
    /// The first paths on which something did not hold.
    pub failures: Vec<Told>,
    /// On how many paths something did not hold.
    pub failed: usize,
    /// Every path with its time line, where that was asked for.
    pub told: Vec<Told>,
}

/// A path that was played.
#[derive(Clone, Debug)]
pub struct Walked {
    /// What went wrong on it.
    pub path: Path,
    /// How it ended.
    pub end: Status,
    /// Whether the command that is looked at was sent.
    pub reached: bool,
}

/// A path with all that happened on it.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Its name.
    pub path: String,
    /// How it ended.
    pub end: Status,
    /// What did not hold.
    pub wrong: Vec<String>,
    /// What happened.
    pub time_line: TimeLine,
}

impl Explored {
    /// How many paths were played.
    pub fn paths(&self) -> usize {
        self.alone.len() + self.pairs
    }

    pub(super) fn add(&mut self, other: Self) {
        let Self { alone, in_pairs, pairs, left_out, ends, reached, obstacles, failures, failed, told } =
            other;
        self.alone.extend(alone);
        self.pairs += pairs;
        self.left_out += left_out;
        self.failed += failed;
        self.told.extend(told);
        self.failures.extend(failures);
        self.failures.truncate(MAX_FAILURES);
        in_pairs.into_iter().for_each(|(key, count)| *self.in_pairs.entry(key).or_default() += count);
        ends.into_iter().for_each(|(key, count)| *self.ends.entry(key).or_default() += count);
        self.reached.extend(reached);
        obstacles.into_iter().for_each(|(what, path, count)| self.add_obstacle(what, path, count));
    }

    pub(super) fn add_obstacle(&mut self, what: String, path: String, count: usize) {
        match self.obstacles.iter_mut().find(|(known, ..)| *known == what) {
            Some((.., known)) => *known += count,
            None => self.obstacles.push((what, path, count)),
        }
    }
}
