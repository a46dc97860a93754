//! Times and retries: what may last how long.

use std::time::Duration;

use super::super::compile::{DEFAULT_TIMEOUT, retry_policy};
use super::*;
use crate::saga::definition::{Attempts, Limit, Policy};

/// Most attempts that may be counted.
const MAX_ATTEMPTS: u32 = 10_000;

impl Lint<'_> {
    /// The time that a step may take up must fit into the deadline.
    pub(super) fn budget(&mut self, step: &Step) {
        let policy = retry_policy(self.definition, step.retry.as_ref());
        let timeout_at = || step.timeout.as_ref().map_or(step.step.at, |timeout| timeout.at);
        let at = step.retry.as_ref().map_or_else(timeout_at, |retry| retry.at);
        let deadline = self.definition.deadline.as_ref().map(|deadline| deadline.after.value);
        let (attempts, deadline) = match (policy.attempts, deadline) {
            (None, None) => {
                let message =
                    format!("step {:?} is tried without end, and the saga has no deadline", step.step.value);
                let hint = "give the saga a `deadline`, or the policy a number of attempts";
                return self.refuse(Code::WithoutEnd, at, message, Some(hint));
            }
            // A deadline of zero is refused by itself.
            (Some(attempts), Some(deadline)) if !deadline.0.is_zero() => {
                (attempts.min(MAX_ATTEMPTS), deadline)
            }
            _ => return,
        };
        let timeout = step.timeout.as_ref().map_or(DEFAULT_TIMEOUT, |timeout| timeout.value.0);
        let delays: Duration = (1..attempts).map(|attempt| policy.longest_delay_after(attempt)).sum();
        let budget = timeout.saturating_mul(attempts).saturating_add(delays);
        if budget > deadline.0 {
            let message = format!(
                "step {:?} may take {}, longer than the deadline of {deadline}",
                step.step.value,
                Period(budget)
            );
            self.refuse(
                Code::OverDeadline,
                at,
                message,
                Some("lower attempts, delays or timeout, or allow the saga more time"),
            );
        }
    }

    pub(super) fn policy(&mut self, policy: &Policy) {
        if let Attempts::AtMost(count) = policy.attempts.value
            && !(1..=MAX_ATTEMPTS).contains(&count)
        {
            let message = format!("attempts must be 1 to {MAX_ATTEMPTS}, or `unlimited`");
            self.refuse(Code::AttemptsOutOfRange, policy.attempts.at, message, None);
        }
        if let Some(factor) = &policy.factor
            && !(factor.value >= 1.0 && factor.value.is_finite())
        {
            self.refuse(
                Code::ShrinkingDelays,
                factor.at,
                "the factor must be at least 1, delays never shrink",
                None,
            );
        }
        for period in [&policy.initial, &policy.max].into_iter().flatten() {
            self.not_zero(period);
        }
        if let (Some(initial), Some(max)) = (&policy.initial, &policy.max)
            && initial.value.0 > max.value.0
        {
            self.refuse(Code::MaxBelowInitial, max.at, "`max` is shorter than `initial`", None);
        }
    }

    /// A limit limits something, and lets something through.
    pub(super) fn limit(&mut self, limit: &Located<Limit>) {
        let Limit { in_flight, per_second } = &limit.value;
        if in_flight.is_none() && per_second.is_none() {
            let hint = "say `in_flight`, `per_second`, or both; or leave out `limit`";
            self.refuse(Code::NoLimit, limit.at, "a limit that says nothing", Some(hint));
        }
        if let Some(count) = in_flight
            && count.value == 0
        {
            let message = "`in_flight` is zero, so that nothing would ever be sent";
            self.refuse(Code::NoLimit, count.at, message, Some("write 1 or more"));
        }
        if let Some(rate) = per_second
            && !(rate.value > 0.0 && rate.value.is_finite())
        {
            let message = "`per_second` must be a number above 0";
            self.refuse(Code::NoLimit, rate.at, message, Some("`0.5` is one every 2 seconds"));
        }
    }

    pub(super) fn not_zero(&mut self, period: &Located<Period>) {
        if period.value.0.is_zero() {
            self.refuse(Code::ZeroDuration, period.at, "a duration of zero", Some("write at least 1ms"));
        }
    }

    /// A time that passes before the pivot must fit into the deadline.
    pub(super) fn within_deadline(&mut self, what: &str, name: &str, period: &Located<Period>) {
        let deadline = self.definition.deadline.as_ref().map(|deadline| deadline.after.value.0);
        if let Some(deadline) = deadline
            && !deadline.is_zero()
            && period.value.0 > deadline
        {
            let message = format!(
                "{what} {name:?} may take {}, longer than the deadline of {}",
                period.value,
                Period(deadline)
            );
            let hint = "shorten it, or allow the saga more time";
            self.refuse(Code::OverDeadline, period.at, message, Some(hint));
        }
    }
}
