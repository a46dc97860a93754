//! What becomes of each saga when other definitions come into force.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::saga::plan::Plan;

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Each saga that was or is in force, by name.
    pub sagas: Vec<SagaChange>,
}

/// What a reload has changed of one saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaChange {
    /// Its name.
    pub saga: String,
    /// What it comes to.
    pub change: ChangeKind,
    /// The version that new instances started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u32>,
    /// The version that new instances start with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<u32>,
}

/// What became of a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// A higher version is in force.
    Raised,
    /// A lower version is in force: it is the highest in the folder.
    Lowered,
    /// Nothing starts it any more.
    Removed,
    /// The same version is in force.
    Unchanged,
}

impl Change {
    /// What has changed from those that were in force to those that are.
    pub(super) fn between(before: &[Arc<Plan>], now: &[Arc<Plan>]) -> Self {
        let mut versions: BTreeMap<&str, (Option<u32>, Option<u32>)> = BTreeMap::new();
        for plan in before {
            versions.entry(&plan.saga).or_default().0 = Some(plan.version);
        }
        for plan in now {
            versions.entry(&plan.saga).or_default().1 = Some(plan.version);
        }
        let change = |(saga, (before, now)): (&str, (Option<u32>, Option<u32>))| {
            let change = match (before, now) {
                (None, _) => ChangeKind::Added,
                (_, None) => ChangeKind::Removed,
                (before, now) if before < now => ChangeKind::Raised,
                (before, now) if before > now => ChangeKind::Lowered,
                _ => ChangeKind::Unchanged,
            };
            SagaChange { saga: saga.to_owned(), change, before, now }
        };
        Self { sagas: versions.into_iter().map(change).collect() }
    }
}

impl fmt::Display for Change {
    /// What is not as before, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changed = self.sagas.iter().filter(|saga| saga.change != ChangeKind::Unchanged);
        let changed: Vec<_> = changed.map(ToString::to_string).collect();
        f.write_str(if changed.is_empty() { "nothing" } else { "" })?;
        f.write_str(&changed.join("; "))
    }
}

impl fmt::Display for SagaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { saga, change, .. } = self;
        let (before, now) = (self.before.unwrap_or_default(), self.now.unwrap_or_default());
        match change {
            ChangeKind::Added => write!(f, "{saga}: version {now} is new"),
            ChangeKind::Raised => write!(f, "{saga}: version {now} is in force, before it {before}"),
            ChangeKind::Lowered => write!(
                f,
                "{saga}: version {now} is in force, lower than {before} before: it is the highest in the folder"
            ),
            ChangeKind::Removed => {
                write!(f, "{saga}: removed, nothing starts with version {before} any more")
            }
            ChangeKind::Unchanged => write!(f, "{saga}: version {now} as before"),
        }
    }
}
