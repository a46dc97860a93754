//! The figures of a store that has grown, and what they add up to.

use serde::{Deserialize, Serialize};

use super::latency::Percentiles;
use super::report::{Setting, Spread, Summary};
use super::run::Run;

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScaleReport {
    /// Under which conditions.
    pub setting: Setting,
    /// With finished instances in the store; `None` if that was not asked for.
    pub finished: Option<Finished>,
    /// With instances in flight; `None` if that was not asked for.
    pub in_flight: Option<InFlight>,
    /// How long the API took to answer in the end, with all of these in the store.
    pub questioned: Questioned,
}

/// What finished instances cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finished {
    /// How many there were before the first run. The runs add theirs.
    pub instances: u64,
    /// How long it took to make them.
    pub fill_secs: f64,
    /// Bytes on disk that each took, with all that the store keeps beside.
    pub bytes_per_instance: f64,
    /// Sagas a second over this store, as a part of those over an empty one in the same pair.
    pub ratio: Spread,
    /// sagamq over an empty store.
    pub empty: Summary,
    /// sagamq over this one.
    pub filled: Summary,
    /// In the order in which they were run.
    pub pairs: Vec<StorePair>,
}

/// A run over each store, one right after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StorePair {
    /// Over an empty store.
    pub empty: Run,
    /// Over the one with finished instances.
    pub filled: Run,
}

/// What instances in flight cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InFlight {
    /// How many there were.
    pub instances: u64,
    /// Until the store was open.
    pub open_ms: Spread,
    /// From then on, until all of them were taken up.
    pub take_up_ms: Spread,
    /// From the start of `sagamq run` until it was ready, both of the above included.
    pub ready_ms: Spread,
    /// Memory of the process then.
    pub resident_kib: Spread,
    /// A run with all of them in flight beside its own sagas.
    pub busy: Run,
}

/// Questions to the API, one after the other, in rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Questioned {
    /// Each question.
    pub asked: Vec<Asked>,
    /// How often each was asked while sagamq had nothing else to do.
    pub rounds: u64,
    /// How often each was asked at half load, for as long as that lasted.
    pub rounds_at_half_load: u64,
    /// The run at half load, beside which they were asked.
    pub beside: Run,
}

/// A question to the API. Times are from the connection to the last byte of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    /// In words.
    pub what: String,
    /// While sagamq had nothing else to do.
    pub idle: Percentiles,
    /// Beside sagas that are started at half the rate that passes over this store.
    pub half_load: Percentiles,
}

impl StorePair {
    /// Sagas a second over the filled store, as a part of those over the empty one.
    pub fn ratio(&self) -> f64 {
        self.filled.sagas_per_s / self.empty.sagas_per_s
    }
}

impl Finished {
    pub(super) fn of(instances: u64, fill_secs: f64, store_bytes: u64, pairs: Vec<StorePair>) -> Self {
        Self {
            instances,
            fill_secs,
            bytes_per_instance: store_bytes as f64 / instances as f64,
            ratio: Spread::of(pairs.iter().map(StorePair::ratio)),
            empty: Summary::of(pairs.iter().map(|pair| &pair.empty)),
            filled: Summary::of(pairs.iter().map(|pair| &pair.filled)),
            pairs,
        }
    }
}
