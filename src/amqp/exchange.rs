//! Exchanges that definitions name: made where they are missing, and taken as they are where they are there.
//!
//! An exchange belongs to whoever made it. We publish to it or bind to it, and for that it need not be as we would
//! have made it.

use lapin::options::ExchangeDeclareOptions;
use lapin::{Channel, Connection, ExchangeKind as Kind};
use tracing::{info, warn};

use super::session::{AmqpError, answered, open_channel};
use super::topology::{explain, name};
use super::wire::table;
use crate::saga::exchange::{Exchange, is_pattern};
use crate::saga::plan::Subscription;

/// Sees to it that an exchange is there that a definition names, whatever it is like. `subscriptions` are what is
/// listened to, there and elsewhere. The channel that comes back takes the place of the one that was given.
///
/// # Errors
/// It is not there and cannot be made, or what it hands on cannot be what a definition means.
pub(super) async fn see_to(
    connection: &Connection,
    channel: Channel,
    exchange: &Exchange,
    passive: bool,
    subscriptions: &[Subscription],
) -> Result<Channel, AmqpError> {
    let Err(error) = declare(&channel, exchange, passive || !exchange.declare).await else {
        return Ok(channel);
    };
    let AmqpError::Topology { object, reason, .. } = &error else { return Err(error) };
    if !exchange.declare {
        let remedy = "it is somebody else's (`declare: false`): have its owner make it, or mend its name in the \
                      definition";
        return Err(AmqpError::Topology { object: object.clone(), reason: reason.clone(), remedy });
    }
    if passive {
        return Err(error);
    }
    // The refusal closed the channel. What was refused because it is there with other properties, or is not ours
    // to make, is found without making it.
    let channel = open_channel(connection).await?;
    if declare(&channel, exchange, true).await.is_err() {
        return Err(error);
    }
    fits(exchange, reason, subscriptions)?;
    if exchange.make.is_some() && reason.contains("PRECONDITION_FAILED") {
        warn!(
            exchange = exchange.name,
            reason, "an exchange is taken as it is, and is not as its definition says"
        );
    } else {
        info!(exchange = exchange.name, reason, "an exchange of others is taken as it is");
    }
    Ok(channel)
}

/// Makes an exchange, or looks whether it is there.
pub(super) async fn declare(channel: &Channel, exchange: &Exchange, passive: bool) -> Result<(), AmqpError> {
    let object = format!("exchange {:?}", exchange.name);
    let name = name("exchange name", &exchange.name, &object)?;
    let options = ExchangeDeclareOptions { passive, durable: exchange.is_durable(), ..Default::default() };
    let kind = Kind::Custom(exchange.kind.as_str().into());
    let declaring = channel.exchange_declare(name, kind, options, table(&exchange.arguments()));
    answered("declare an exchange", declaring).await.map_err(|error| explain(error, object))
}

/// Whether bindings to an exchange that is of another type than was said can be what is meant by them.
fn fits(exchange: &Exchange, refusal: &str, subscriptions: &[Subscription]) -> Result<(), AmqpError> {
    let Some(kind) = actual_type(refusal) else { return Ok(()) };
    let Some(on) = subscriptions.iter().find(|on| on.exchange == exchange.name) else { return Ok(()) };
    let patterns = subscriptions.iter().filter(|on| on.exchange == exchange.name);
    if kind == "direct" && patterns.into_iter().any(|on| is_pattern(&on.pattern)) {
        return Err(AmqpError::Topology {
            object: format!("exchange {:?}", exchange.name),
            reason: format!("it is of type direct, which takes no pattern such as {:?}", on.pattern),
            remedy: "say `type: direct` of it under `exchanges` in the definition, and write whole keys",
        });
    }
    if kind != "direct" {
        warn!(
            exchange = exchange.name,
            kind,
            "it hands on messages whatever their keys: say its `type` under `exchanges` in the definition, or those \
             with other keys become dead letters"
        );
    }
    Ok(())
}

/// The type that an exchange has, where the broker refused to make it of another.
fn actual_type(refusal: &str) -> Option<&str> {
    let (_, about) = refusal.split_once("inequivalent arg 'type'")?;
    about.split_once("current is '")?.1.split('\'').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSAL: &str = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'in' in vhost '/': received \
                           'topic' but current is 'direct'";

    #[test]
    fn a_pattern_on_an_exchange_that_turns_out_to_be_direct_is_told() {
        assert_eq!(actual_type(REFUSAL), Some("direct"));
        assert_eq!(actual_type("PRECONDITION_FAILED - inequivalent arg 'durable' for exchange"), None);
        let exchange = Exchange::topic("in");
        let listening =
            |pattern: &str| [Subscription::topic("other", "#"), Subscription::topic("in", pattern)];
        assert!(fits(&exchange, REFUSAL, &listening("go")).is_ok());
        assert!(fits(&exchange, REFUSAL, &listening("go")[..1]).is_ok(), "it is only published to");
        let error = fits(&exchange, REFUSAL, &listening("go.*")).unwrap_err().to_string();
        assert!(
            error.contains("direct") && error.contains("\"go.*\"") && !error.contains("delete"),
            "{error}"
        );
        let fanout = REFUSAL.replace("'direct'", "'fanout'");
        assert!(fits(&exchange, &fanout, &listening("go.*")).is_ok());
    }
}
