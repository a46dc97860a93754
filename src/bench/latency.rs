//! How long sagas took.

use serde::{Deserialize, Serialize};

/// Latencies of one run, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Flat")]
pub struct Latency {
    /// The percentiles that are told.
    #[serde(flatten)]
    pub percentiles: Percentiles,
    /// The whole distribution: the percentiles 0 to 100 in steps of one.
    pub curve_ms: Vec<f64>,
}

/// Percentiles in milliseconds, or differences of such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of all are at most this.
    pub p50_ms: f64,
    /// 99 in a hundred.
    pub p99_ms: f64,
    /// 999 in a thousand.
    pub p999_ms: f64,
    /// All.
    pub max_ms: f64,
}

/// A latency as it is read: what is flattened is buffered, and a number that is kept by its digits is no `f64` then.
#[derive(Deserialize)]
struct Flat {
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    curve_ms: Vec<f64>,
}

impl From<Flat> for Latency {
    fn from(Flat { p50_ms, p99_ms, p999_ms, max_ms, curve_ms }: Flat) -> Self {
        Self { percentiles: Percentiles { p50_ms, p99_ms, p999_ms, max_ms }, curve_ms }
    }
}

impl Latency {
    /// The distribution of these latencies in microseconds.
    pub(super) fn of(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |share: f64| percentile(&micros, share) as f64 / 1000.0;
        Self {
            percentiles: Percentiles {
                p50_ms: at(0.5),
                p99_ms: at(0.99),
                p999_ms: at(0.999),
                max_ms: at(1.0),
            },
            curve_ms: (0..=100).map(|hundredths| at(f64::from(hundredths) / 100.0)).collect(),
        }
    }
}

impl Percentiles {
    /// Makes each of the same one of others.
    pub(super) fn combine(of: impl Fn(fn(&Percentiles) -> f64) -> f64) -> Self {
        Self {
            p50_ms: of(|percentiles| percentiles.p50_ms),
            p99_ms: of(|percentiles| percentiles.p99_ms),
            p999_ms: of(|percentiles| percentiles.p999_ms),
            max_ms: of(|percentiles| percentiles.max_ms),
        }
    }
}

/// The smallest of the sorted values that this share of all does not exceed; 0 where there are none.
fn percentile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let latency = Latency::of((1..=1000).rev().map(|milli| milli * 1000).collect());
        let expected = Percentiles { p50_ms: 500.0, p99_ms: 990.0, p999_ms: 999.0, max_ms: 1000.0 };
        assert_eq!(latency.percentiles, expected);
        assert_eq!((latency.curve_ms[0], latency.curve_ms[100]), (1.0, 1000.0));
        assert_eq!(Latency::of(vec![7000]).percentiles.p999_ms, 7.0);
        assert_eq!(Latency::of(Vec::new()).percentiles, Percentiles::default());
    }
}
