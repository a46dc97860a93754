//! Chance, by a seed: the same seed throws the same dice.

use std::time::Duration;

/// Dice that a seed decides.
#[derive(Debug)]
pub(super) struct Dice(fastrand::Rng);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// True once in `n` throws on average; never where `n` is 0.
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.0.u32(..n) == 0
    }

    /// A number below `n`, which is not 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.usize(..n)
    }

    /// A time from zero up to `max` milliseconds.
    pub(super) fn up_to_ms(&mut self, max: u64) -> Duration {
        Duration::from_millis(self.0.u64(..=max))
    }

    /// One of several, by their weights; `None` if no weight is above 0.
    pub(super) fn weighted<T: Copy>(&mut self, choices: &[(T, u32)]) -> Option<T> {
        let total: u32 = choices.iter().map(|(_, weight)| weight).sum();
        let mut throw = self.0.u32(..total.max(1));
        choices.iter().find_map(|&(choice, weight)| {
            let hit = throw < weight;
            throw = throw.saturating_sub(weight);
            hit.then_some(choice)
        })
    }
}
