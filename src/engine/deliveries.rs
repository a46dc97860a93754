//! Deliveries: each is understood and acked, or refused and dead-lettered with its reason.

use metrics::counter;
use tracing::warn;

use super::{Engine, EngineError};
use crate::delivery::{Delivery, Token};
use crate::metric;
use crate::saga::time::Timestamp;
use crate::store::DeadLetter;

/// What becomes of a delivery.
pub(crate) enum Fate {
    /// It is understood, whether or not it changed anything.
    Settled,
    /// It can never be understood, for this reason.
    Refused(String),
}

impl Engine {
    /// Decides what a delivery means.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn handle_delivery(&mut self, delivery: Delivery, now: Timestamp) -> Result<(), EngineError> {
        self.gathering.inputs += 1;
        let token = delivery.token;
        match delivery.content {
            Err(rejected) => {
                let letter = DeadLetter {
                    at: now,
                    queue: token.queue.as_str().to_owned(),
                    exchange: rejected.exchange,
                    key: rejected.key,
                    message_id: rejected.message_id,
                    reason: rejected.poison.to_string(),
                    preview: rejected.preview,
                    size: rejected.size,
                };
                self.dead_letter(token, letter);
            }
            Ok(message) => match self.route(token.queue, &message, now)? {
                Fate::Settled => self.gathering.release.settlement.ack(token),
                Fate::Refused(reason) => {
                    let preview: String = message.data.to_string().chars().take(512).collect();
                    let letter = DeadLetter {
                        at: now,
                        queue: token.queue.as_str().to_owned(),
                        size: message.size,
                        exchange: message.exchange,
                        key: message.key,
                        message_id: message.id,
                        reason,
                        preview,
                    };
                    self.dead_letter(token, letter);
                }
            },
        }
        Ok(())
    }

    fn dead_letter(&mut self, token: Token, letter: DeadLetter) {
        warn!(
            queue = letter.queue,
            exchange = letter.exchange,
            key = letter.key,
            reason = letter.reason,
            "message dead-lettered"
        );
        counter!(metric::DEAD_LETTERS, "queue" => letter.queue.clone()).increment(1);
        self.gathering.batch.dead_letter(letter);
        self.gathering.release.settlement.reject.push(token);
    }
}
