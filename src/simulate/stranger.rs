//! Strangers: they answer what nobody has asked them, with correlations that they made up.

use serde_json::{Value, json};

use super::chance::Dice;
use crate::delivery::Queue;
use crate::saga::correlation::{Asked, Sealer};
use crate::saga::message::{Origin, Outgoing, Part, RawMessage};
use crate::saga::time::Timestamp;

/// The key of another store.
const FOREIGN: [u8; 32] = [9; 32];

/// An answer to a command by somebody who makes up that it is one, and where it arrives.
pub(super) fn forged(
    command: &Outgoing,
    message_id: String,
    data: &Value,
    dice: &mut Dice,
) -> (Queue, RawMessage) {
    let given = command.correlation_id().unwrap_or_default();
    let forgery = dice.below(5);
    let correlation_id = match forgery {
        0 => Some(changed(&given, dice)),
        1 => foreign(command.origin),
        // Who knows the names of things knows this id, too.
        2 => Some(command.message_id.to_string()),
        3 => None,
        // Right, but nobody has asked for such an event.
        _ => Some(given),
    };
    let headers = json!({"x-saga-outcome": "success", "x-saga-command-id": command.message_id});
    let message = RawMessage {
        message_id: Some(message_id),
        correlation_id,
        headers: headers.as_object().cloned().unwrap_or_default(),
        body: data.to_string().into_bytes(),
        ..RawMessage::default()
    };
    if forgery == 4 {
        let (exchange, key) = ("anywhere".to_owned(), "at.all".to_owned());
        (Queue::Events, RawMessage { exchange, key, ..message })
    } else {
        (Queue::Replies, RawMessage { key: "replies".to_owned(), ..message })
    }
}

/// With another character somewhere in it.
fn changed(correlation: &str, dice: &mut Dice) -> String {
    let at = dice.below(correlation.len().max(1));
    let other = |(index, char)| match char {
        'k' if index == at => 'm',
        _ if index == at => 'k',
        char => char,
    };
    correlation.chars().enumerate().map(other).collect()
}

/// As another store would give it to the same attempt.
fn foreign(Origin { instance, part }: Origin) -> Option<String> {
    let Part::Attempt { step, phase, attempt } = part else { return None };
    let asked = Asked { instance, step, phase, attempt };
    Some(Sealer::new(FOREIGN).issue(asked, Timestamp(0)).to_string())
}
