//! Events as they count for definitions: those that came by way of another exchange, and strays.

use std::borrow::Cow;

use metrics::counter;
use tracing::{debug, info};

use super::{Engine, Fate};
use crate::metric;
use crate::saga::arrival::Arrival;
use crate::saga::message::Message;

impl Engine {
    /// An event as definitions mean it: what came through an exchange that they name counts as published there.
    ///
    /// # Errors
    /// What becomes of one that nobody asks for, or of which nobody can tell through which exchange it came.
    pub(crate) fn arrived<'m>(&mut self, message: &'m Message) -> Result<Cow<'m, Message>, Fate> {
        // A message that was sent straight to the queue came through no exchange.
        if message.exchange.is_empty() {
            return Ok(Cow::Borrowed(message));
        }
        match self.catalog.arrival(message) {
            Arrival::Direct => return Ok(Cow::Borrowed(message)),
            Arrival::Through(exchange) => {
                debug!(
                    published_to = message.exchange,
                    through = exchange,
                    "event by way of another exchange"
                );
                let exchange = exchange.to_owned();
                return Ok(Cow::Owned(Message { exchange, ..message.clone() }));
            }
            // We hear our own commands where a definition listens to their exchange. They ask nothing of us.
            _ if message.is_command => return Ok(Cow::Borrowed(message)),
            Arrival::Unclear(through) => return Err(Fate::Refused(unclear(message, &through), None)),
            Arrival::Unasked => {}
        }
        let Some(is_first) = self.catalog.take_left_over(message) else {
            return Err(Fate::Refused(unasked(message), None));
        };
        counter!(metric::IGNORED, "what" => "unmatched_event").increment(1);
        if is_first {
            let Message { exchange, key, .. } = message;
            info!(
                exchange,
                key, "event for a definition that is not in force: the like of it are counted from now on"
            );
        }
        Err(Fate::Settled)
    }
}

fn unclear(Message { exchange, key, .. }: &Message, through: &[&str]) -> String {
    let through: Vec<_> = through.iter().map(|name| format!("{name:?}")).collect();
    format!(
        "event {key:?}, published to exchange {exchange:?}, may have come through any of the exchanges {}: name \
         {exchange:?} itself in the definition that it is for, or have it come through one of them only",
        through.join(", ")
    )
}

fn unasked(Message { exchange, key, .. }: &Message) -> String {
    format!(
        "event {key:?} on exchange {exchange:?} that no definition asks for: somebody else has bound the queue to \
         it, or exchange {exchange:?} does not go by keys (say its `type` under `exchanges`)"
    )
}
