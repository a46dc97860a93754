//! The audit log: what decisions come to, as log lines and counters.

use metrics::counter;
use tracing::{debug, error, info, warn};

use crate::metric;
use crate::saga::fact::Fact;
use crate::saga::instance::{Instance, Status};
use crate::saga::transition::Decision;

/// Tells people what a decision came to.
pub(crate) fn tell(instance: &Instance, decision: &Decision) {
    let (saga, id, key) = (&instance.saga, instance.id, &instance.business_key);
    let ended = |status: Status| {
        counter!(metric::ENDED, "saga" => saga.clone(), "status" => status.as_str()).increment(1);
    };
    if let Some(what) = decision.ignored {
        counter!(metric::IGNORED, "what" => what.as_str()).increment(1);
    }
    for recorded in &decision.facts {
        match &recorded.fact {
            Fact::Completed => {
                ended(Status::Completed);
                debug!(saga, instance = %id, business_key = key, "instance completed");
            }
            Fact::AllCompensated => {
                ended(Status::Compensated);
                for step in instance.not_undone() {
                    counter!(metric::NOT_UNDONE, "saga" => saga.clone(), "step" => step.to_owned())
                        .increment(1);
                    warn!(saga, instance = %id, business_key = key, step, "compensated, and this step is not undone");
                }
                info!(saga, instance = %id, business_key = key, "instance compensated");
            }
            Fact::Parked { error } => {
                ended(Status::Parked);
                error!(saga, instance = %id, business_key = key, step = error.step, code = error.code,
                    reason = error.message, "instance parked: a person must look at it");
            }
            Fact::Ordered { verb, actor, reason, .. } => {
                counter!(metric::ORDERS, "verb" => verb.as_str()).increment(1);
                info!(saga, instance = %id, business_key = key, verb = verb.as_str(), actor, reason, "ordered");
            }
            Fact::DeadlinePassed => {
                counter!(metric::DEADLINES, "saga" => saga.clone()).increment(1);
                warn!(saga, instance = %id, business_key = key, "deadline passed");
            }
            Fact::Stopping { error } => {
                info!(saga, instance = %id, business_key = key, step = error.step, code = error.code,
                    reason = error.message, "instance turns back");
            }
            _ => {}
        }
    }
}
