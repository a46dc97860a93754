//! What the queues, keys and messages of a run are called.

use crate::amqp::Topology;
use crate::config::{QueueType, TopologyMode};
use crate::saga::exchange::Exchange;
use crate::saga::plan::Subscription;

/// The steps, in their order.
pub(super) const STEPS: [&str; 3] = ["one", "two", "three"];
/// Messages that a saga takes: the start, a command and a reply for each step, and the end.
pub(super) const MESSAGES: u64 = 2 * STEPS.len() as u64 + 2;
/// Name of the saga.
pub(super) const SAGA: &str = "bench";
/// Routing key of start events.
pub(super) const START_KEY: &str = "start";
/// Routing key of end events.
pub(super) const COMPLETED_KEY: &str = "completed";
/// Bytes of the body of every message.
pub(super) const BODY_BYTES: usize = 500;

/// An attribute that one in a hundred sagas has over a store that has grown, and its value.
pub(super) const ATTRIBUTE: (&str, &str) = ("hundredth", "yes");

/// The definition, but for the exchange.
const DEFINITION: &str = include_str!("bench.yaml");

/// The names of one run, which all begin with a prefix of its own.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prefix: String,
}

impl Names {
    /// The exchange of events and commands.
    pub(super) fn exchange(&self) -> String {
        format!("{}.bench", self.prefix)
    }

    /// The queue of a step's participant.
    pub(super) fn step_queue(&self, step: &str) -> String {
        format!("{}.step.{step}", self.prefix)
    }

    /// The queue of end events, which the load generator consumes.
    pub(super) fn ends_queue(&self) -> String {
        format!("{}.ends", self.prefix)
    }

    /// The definition that sagamq runs.
    pub(super) fn definition(&self) -> String {
        DEFINITION.replace("EXCHANGE", &self.exchange())
    }

    /// The same with the [attribute](ATTRIBUTE). It costs every saga a moment to find out whether it has it,
    /// so the comparison with the null orchestrator is without.
    pub(super) fn definition_with_attribute(&self) -> String {
        let (name, value) = ATTRIBUTE;
        let has_it = format!(r#"=event.data.order_id.endsWith("00") ? "{value}" : null"#);
        format!("{}attributes: {{{name}: '{has_it}'}}\n", self.definition())
    }

    /// The orchestrator's own queues: the same for both orchestrators.
    pub(super) fn topology(&self, queue_type: QueueType) -> Topology {
        Topology {
            prefix: self.prefix.clone(),
            queue_type,
            mode: TopologyMode::Declare,
            exchanges: vec![Exchange::topic(self.exchange())],
            subscriptions: vec![Subscription::topic(self.exchange(), START_KEY)],
            unneeded: Vec::new(),
        }
    }
}

/// Routing key of a step's command.
pub(super) fn step_key(step: &str) -> String {
    format!("step.{step}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::compile;
    use crate::saga::id::Phase;

    #[test]
    fn the_definition_can_be_used_and_has_the_steps_and_keys_that_the_null_orchestrator_knows() {
        let names = Names { prefix: "bench-1".to_owned() };
        let plan = match compile::load("bench.yaml", &names.definition()) {
            Ok(plan) => plan,
            Err(problems) => panic!("{}", problems[0]),
        };
        let steps: Vec<_> =
            plan.steps.iter().map(|step| (step.name.as_str(), step.call(Phase::Action).unwrap())).collect();
        assert_eq!(steps.iter().map(|(name, _)| *name).collect::<Vec<_>>(), STEPS);
        assert_eq!(plan.saga, SAGA);
        for (name, action) in steps {
            assert_eq!(
                (&*action.exchange, &*action.key),
                (names.exchange().as_str(), step_key(name).as_str())
            );
        }
        assert_eq!(plan.on_completed.map(|emission| emission.key).as_deref(), Some(COMPLETED_KEY));
        assert!(plan.attributes.is_empty(), "the null orchestrator has none");
    }
}
