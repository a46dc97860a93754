//! The figures, and what they add up to.

use serde::{Deserialize, Serialize};

use super::Options;
use super::latency::{Latency, Percentiles};
use super::names::{BODY_BYTES, MESSAGES};
use super::run::Run;
use crate::config::QueueType;
use crate::throwaway::Broker;

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Under which conditions.
    pub setting: Setting,
    /// With as many sagas under way as are allowed.
    pub throughput: Throughput,
    /// With half as many sagas a second as the slower one can do; `None` if that was not asked for.
    pub half_load: Option<HalfLoad>,
}

/// The conditions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// Of sagamq.
    pub version: String,
    /// Whether it was built without optimisation, so that its figures mean nothing.
    pub debug_build: bool,
    /// CPUs that all processes and the broker share.
    pub cpus: usize,
    /// Where the broker comes from.
    pub broker: String,
    /// Type of all queues.
    pub queue_type: String,
    /// Deliveries that are out at a time on each queue of an orchestrator.
    pub prefetch: u16,
    /// Whether the store was in memory, so that its syncs cost nothing.
    pub store_in_memory: bool,
    /// Messages that a saga takes.
    pub messages_of_a_saga: u64,
    /// Bytes of each message's body.
    pub body_bytes: usize,
    /// Pairs of runs for throughput.
    pub pairs: u32,
    /// Sagas of a run.
    pub sagas: u64,
    /// Sagas under way at a time.
    pub in_flight: u64,
    /// Sagas of each run before those that count.
    pub warm_up: u64,
    /// Pairs of runs at half load.
    pub latency_pairs: u32,
}

/// A run of each orchestrator, one right after the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pair {
    /// The null orchestrator's.
    pub null: Run,
    /// sagamq's.
    pub sagamq: Run,
}

/// Runs at full load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Throughput {
    /// Sagas a second of sagamq, as a part of those of the null orchestrator in the same pair.
    pub ratio: Spread,
    /// The null orchestrator over all pairs.
    pub null: Summary,
    /// sagamq over all pairs.
    pub sagamq: Summary,
    /// In the order in which they were run.
    pub pairs: Vec<Pair>,
}

/// One orchestrator's runs at full load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// See [`Run`].
    pub sagas_per_s: Spread,
    /// See [`Run`].
    pub cpu_us_per_saga: Spread,
    /// See [`Run`].
    pub resident_kib: Spread,
    /// See [`Run`].
    pub peak_resident_kib: Spread,
    /// See [`Run`].
    pub commits_per_saga: Spread,
    /// See [`Run`].
    pub fsyncs_per_saga: Spread,
    /// See [`Run`].
    pub fsyncs_per_s: Spread,
    /// See [`Run`].
    pub written_bytes_per_saga: Spread,
    /// See [`Run`].
    pub messages_per_saga: Spread,
}

/// Runs at half load, open loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HalfLoad {
    /// Sagas that were started in a second.
    pub sagas_per_s: f64,
    /// From the start event to the end event of a saga.
    pub whole: Sides,
    /// Of that, the time that a saga was with the orchestrator itself; `None` where the broker's traffic
    /// cannot be read.
    pub held: Option<Sides>,
    /// What the disk took beside either for small writes, each made durable.
    pub disk: Sides,
    /// In the order in which they were run.
    pub pairs: Vec<Pair>,
}

/// A latency of both orchestrators: the median over all pairs of each percentile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sides {
    /// The null orchestrator's.
    pub null: Percentiles,
    /// sagamq's.
    pub sagamq: Percentiles,
    /// The median over all pairs of the difference within the pair. It is the difference of two percentiles,
    /// not the percentile of a difference that no saga could tell.
    pub added: Percentiles,
}

/// A figure over several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The lowest.
    pub min: f64,
    /// The one in the middle, or between the two in the middle.
    pub median: f64,
    /// The highest.
    pub max: f64,
}

impl Setting {
    pub(super) fn of(options: &Options, broker: &Broker, store_in_memory: bool) -> Self {
        let broker_words = match broker {
            Broker::Given(_) => "given by SAGAMQ_BROKER__URL",
            Broker::Node(_) => "a throw-away node",
            Broker::Compose(_) => "a throw-away container",
        };
        let queue_type = match options.broker.queue_type {
            QueueType::Quorum => "quorum",
            QueueType::Classic => "classic",
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            debug_build: cfg!(debug_assertions),
            cpus: std::thread::available_parallelism().map_or(0, Into::into),
            broker: broker_words.to_owned(),
            queue_type: queue_type.to_owned(),
            prefetch: options.broker.prefetch,
            store_in_memory,
            messages_of_a_saga: MESSAGES,
            body_bytes: BODY_BYTES,
            pairs: options.pairs,
            sagas: options.sagas,
            in_flight: options.in_flight,
            warm_up: options.warm_up,
            latency_pairs: options.latency_pairs,
        }
    }
}

impl Pair {
    /// Sagas a second of sagamq, as a part of those of the null orchestrator.
    pub fn ratio(&self) -> f64 {
        self.sagamq.sagas_per_s / self.null.sagas_per_s
    }
}

impl Throughput {
    pub(super) fn of(pairs: Vec<Pair>) -> Self {
        Self {
            ratio: Spread::of(pairs.iter().map(Pair::ratio)),
            null: Summary::of(pairs.iter().map(|pair| &pair.null)),
            sagamq: Summary::of(pairs.iter().map(|pair| &pair.sagamq)),
            pairs,
        }
    }
}

impl Summary {
    pub(super) fn of<'a>(runs: impl Iterator<Item = &'a Run> + Clone) -> Self {
        let spread = |of: fn(&Run) -> f64| Spread::of(runs.clone().map(of));
        Self {
            sagas_per_s: spread(|run| run.sagas_per_s),
            cpu_us_per_saga: spread(|run| run.cpu_us_per_saga),
            resident_kib: spread(|run| run.resident_kib as f64),
            peak_resident_kib: spread(|run| run.peak_resident_kib as f64),
            commits_per_saga: spread(|run| run.commits_per_saga),
            fsyncs_per_saga: spread(|run| run.fsyncs_per_saga),
            fsyncs_per_s: spread(|run| run.fsyncs_per_s),
            written_bytes_per_saga: spread(|run| run.written_bytes_per_saga),
            messages_per_saga: spread(|run| run.messages_per_saga),
        }
    }
}

impl HalfLoad {
    pub(super) fn of(sagas_per_s: f64, pairs: Vec<Pair>) -> Self {
        let whole = Sides::of(&pairs, |run| run.latency.percentiles);
        let is_held = pairs.iter().all(|pair| pair.null.held.is_some() && pair.sagamq.held.is_some());
        let of = |latency: &Option<Latency>| latency.as_ref().map(|it| it.percentiles).unwrap_or_default();
        let held = is_held.then(|| Sides::of(&pairs, |run| of(&run.held)));
        let disk = Sides::of(&pairs, |run| of(&run.disk));
        Self { sagas_per_s, whole, held, disk, pairs }
    }
}

impl Sides {
    fn of(pairs: &[Pair], latency: impl Fn(&Run) -> Percentiles) -> Self {
        let median = |of: &dyn Fn(&Pair) -> f64| Spread::of(pairs.iter().map(of)).median;
        let null = |pair: &Pair| latency(&pair.null);
        let sagamq = |pair: &Pair| latency(&pair.sagamq);
        Self {
            null: Percentiles::combine(|of| median(&|pair| of(&null(pair)))),
            sagamq: Percentiles::combine(|of| median(&|pair| of(&sagamq(pair)))),
            added: Percentiles::combine(|of| median(&|pair| of(&sagamq(pair)) - of(&null(pair)))),
        }
    }
}

impl Spread {
    pub(super) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
        let last = sorted.len().saturating_sub(1);
        Self { min: at(0), median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), max: at(last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        let spread = |figures: &[f64]| Spread::of(figures.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(spread(&[4.0, 1.0, 3.0, 2.0]), Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(spread(&[7.0]), Spread { min: 7.0, median: 7.0, max: 7.0 });
    }
}
