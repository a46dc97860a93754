//! Retry policies: how often, and how long to wait. Randomness is an argument.

use std::time::Duration;

/// How often a command is sent, and how long to wait between attempts.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; `None` is unlimited.
    pub attempts: Option<u32>,
    /// Delay before the second attempt.
    pub initial: Duration,
    /// Each delay is this many times the one before; at least 1.
    pub factor: f64,
    /// No delay is longer.
    pub max: Duration,
    /// How delays are spread.
    pub jitter: Jitter,
    /// Error codes that are refusals: no further attempt.
    pub except: Vec<String>,
}

/// How delays are spread, so that instances that failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Exactly the computed delay.
    None,
    /// Anything between zero and the computed delay.
    Full,
}

impl RetryPolicy {
    /// The policy of a command that names none: one attempt.
    pub fn once() -> Self {
        Self {
            attempts: Some(1),
            initial: Duration::from_secs(1),
            factor: 2.0,
            max: Duration::from_secs(60),
            jitter: Jitter::Full,
            except: Vec::new(),
        }
    }

    /// Whether another attempt may follow `attempt` (from 1).
    pub fn allows_after(&self, attempt: u32) -> bool {
        self.attempts.is_none_or(|attempts| attempt < attempts)
    }

    /// How long to wait after `attempt` (from 1). `entropy` is a random number in `[0, 1)`.
    pub fn delay_after(&self, attempt: u32, entropy: f64) -> Duration {
        let scale = match self.jitter {
            Jitter::None => 1.0,
            Jitter::Full => entropy.clamp(0.0, 1.0),
        };
        self.longest_delay_after(attempt).mul_f64(scale)
    }

    /// The delay after `attempt` (from 1) where jitter shortens nothing.
    pub fn longest_delay_after(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let secs = self.initial.as_secs_f64() * self.factor.powi(exponent);
        // Infinity and NaN both end at the maximum.
        if secs < self.max.as_secs_f64() { Duration::from_secs_f64(secs) } else { self.max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: Some(3),
            max: Duration::from_secs(5),
            jitter: Jitter::None,
            ..RetryPolicy::once()
        }
    }

    #[test]
    fn delays_grow_by_the_factor_up_to_the_maximum() {
        let delays: Vec<_> = (1..=5).map(|attempt| policy().delay_after(attempt, 0.3).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 5, 5]);
        assert_eq!(policy().delay_after(u32::MAX, 0.0), Duration::from_secs(5));
    }

    #[test]
    fn full_jitter_takes_the_share_that_it_is_given() {
        let policy = RetryPolicy { jitter: Jitter::Full, ..policy() };
        assert_eq!(policy.delay_after(2, 0.25), Duration::from_millis(500));
        assert_eq!(policy.delay_after(2, 0.0), Duration::ZERO);
    }

    #[test]
    fn attempts_count_the_first_one() {
        assert!(policy().allows_after(2));
        assert!(!policy().allows_after(3));
        assert!(RetryPolicy { attempts: None, ..policy() }.allows_after(u32::MAX));
    }
}
