//! Deliveries: each is understood and acked, or refused and dead-lettered with its reason.

use metrics::counter;
use tracing::{error, warn};

use super::{Engine, EngineError};
use crate::delivery::{Delivery, PutAside, Queue, Token};
use crate::metric;
use crate::saga::time::Timestamp;
use crate::store::DeadLetter;

/// What becomes of a delivery.
pub(crate) enum Fate {
    /// It is understood, whether or not it changed anything.
    Settled,
    /// It can never be understood, for this reason; and what it is about, where that is known.
    Refused(String, Option<About>),
}

/// What a message is about that cannot be understood.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) saga: String,
    pub(crate) business_key: String,
    pub(crate) step: Option<String>,
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
                let reason = rejected.poison.to_string();
                let (correlation_id, message_id) = (rejected.correlation_id, rejected.message_id);
                let about = match token.queue {
                    Queue::Replies => {
                        self.undecoded(correlation_id.as_deref(), &reason, message_id.clone(), now)?
                    }
                    Queue::Events => None,
                };
                let letter = DeadLetter {
                    at: now,
                    queue: token.queue.as_str().to_owned(),
                    exchange: rejected.exchange,
                    key: rejected.key,
                    message_id,
                    correlation_id,
                    reason,
                    preview: rejected.preview,
                    size: rejected.size,
                    ..DeadLetter::default()
                };
                self.dead_letter(token, letter, about);
            }
            Ok(message) => match self.route(token.queue, &message, now)? {
                Fate::Settled => self.gathering.release.settlement.ack(token),
                Fate::Refused(reason, about) => {
                    let preview: String = message.data.to_string().chars().take(512).collect();
                    let letter = DeadLetter {
                        at: now,
                        queue: token.queue.as_str().to_owned(),
                        size: message.size,
                        exchange: message.exchange,
                        key: message.key,
                        message_id: message.id,
                        correlation_id: message.correlation_id,
                        reason,
                        preview,
                        ..DeadLetter::default()
                    };
                    self.dead_letter(token, letter, about);
                }
            },
        }
        Ok(())
    }

    /// Records what the broker put aside by itself.
    pub fn put_aside(&mut self, message: PutAside, now: Timestamp) {
        self.gathering.inputs += 1;
        let reason = message.reason();
        error!(
            queue = message.queue,
            exchange = message.exchange,
            key = message.key,
            message_id = message.message_id,
            reason,
            "the broker put a message aside: a person must look at it"
        );
        counter!(metric::PUT_ASIDE, "reason" => message.cause.as_str()).increment(1);
        let PutAside { queue, exchange, key, message_id, correlation_id, size, preview, .. } = message;
        let letter = DeadLetter {
            at: now,
            queue,
            exchange,
            key,
            message_id,
            correlation_id,
            saga: None,
            business_key: None,
            step: None,
            reason,
            preview,
            size,
        };
        self.gathering.batch.dead_letter(letter);
    }

    fn dead_letter(&mut self, token: Token, mut letter: DeadLetter, about: Option<About>) {
        if let Some(About { saga, business_key, step }) = about {
            (letter.saga, letter.business_key, letter.step) = (Some(saga), Some(business_key), step);
        }
        if let Some(left_out) = self.warnings.pass(&letter.kind(), letter.at) {
            warn!(
                queue = letter.queue,
                exchange = letter.exchange,
                key = letter.key,
                saga = letter.saga,
                business_key = letter.business_key,
                step = letter.step,
                reason = letter.reason,
                left_out,
                "message dead-lettered"
            );
        }
        counter!(metric::DEAD_LETTERS, "queue" => letter.queue.clone()).increment(1);
        self.gathering.batch.dead_letter(letter);
        self.gathering.release.settlement.reject.push(token);
    }
}
