//! Correlations: what a command carries as its `correlation_id`, and what an answer to it repeats.
//!
//! A correlation says itself what it answers, so nothing has to be looked up, and an answer is known for as long as its
//! instance is kept. Its end is a MAC under the store's key: nobody can answer who has not seen the command.
//!
//! | part | bytes |
//! |---|---|
//! | format, 1 | 1 |
//! | instance | 16 |
//! | index of the step; the highest bit is set where the step is undone | 2 |
//! | attempt | 4 |
//! | beginning of HMAC-SHA-256 over all before it and the time at which the instance began | 12 |
//!
//! On the wire, that is base64 for URLs, without padding.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::id::{InstanceId, Phase};
use super::time::Timestamp;
use crate::fault::{self, Bug};

const FORMAT: u8 = 1;
/// Bytes before the MAC.
const SAID: usize = 23;
/// Bytes of the MAC. That makes 2^96 guesses, each of which is a message to the reply queue.
const PROOF: usize = 12;
const LENGTH: usize = SAID + PROOF;
/// Set in the index of a step that is undone.
const UNDOING: u16 = 1 << 15;

/// What a command carries, and its answer repeats.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Correlation([u8; LENGTH]);

/// An attempt of a command: what a correlation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whose command it is.
    pub instance: InstanceId,
    /// Index of the step.
    pub step: usize,
    /// Doing or undoing.
    pub phase: Phase,
    /// From 1.
    pub attempt: u32,
}

/// Makes correlations, and knows its own.
#[derive(Clone)]
pub struct Sealer(Hmac<Sha256>);

impl Sealer {
    /// One for the key of a store.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Hmac::new_from_slice(&key).expect("HMAC takes keys of any length"))
    }

    /// The correlation of an attempt of an instance that began at this time. It is the same each time.
    pub fn issue(&self, asked: Asked, began: Timestamp) -> Correlation {
        let Asked { instance, step, phase, attempt } = asked;
        // No saga has 2^15 steps; if it had, answers to the last ones would be unexpected ones.
        let step = u16::try_from(step).unwrap_or(UNDOING).min(UNDOING - 1);
        let step = if phase == Phase::Compensation { step | UNDOING } else { step };
        let mut bytes = [0; LENGTH];
        bytes[0] = FORMAT;
        bytes[1..17].copy_from_slice(instance.as_bytes());
        bytes[17..19].copy_from_slice(&step.to_be_bytes());
        bytes[19..SAID].copy_from_slice(&attempt.to_be_bytes());
        let proof = self.mac(&bytes, began).finalize().into_bytes();
        bytes[SAID..].copy_from_slice(&proof[..PROOF]);
        Correlation(bytes)
    }

    /// Whether this made the correlation, for an instance that began at this time.
    pub fn admits(&self, correlation: &Correlation, began: Timestamp) -> bool {
        self.mac(&correlation.0, began).verify_truncated_left(&correlation.0[SAID..]).is_ok()
            || fault::planted(Bug::ForgedAdmitted)
    }

    fn mac(&self, bytes: &[u8; LENGTH], began: Timestamp) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(&bytes[..SAID]);
        mac.update(&began.0.to_be_bytes());
        mac
    }
}

/// Without the key.
impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Correlation {
    /// Reads a `correlation_id`; `None` where it is no correlation at all. Whether it is a right one, [`Sealer::admits`]
    /// tells.
    pub fn parse(text: &str) -> Option<Self> {
        // Longer texts are not even decoded.
        if text.len() != LENGTH.div_ceil(3) * 4 - 1 {
            return None;
        }
        let mut bytes = [0; LENGTH];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == LENGTH && bytes[0] == FORMAT).then_some(Self(bytes))
    }

    /// What it says that it answers.
    pub fn asked(&self) -> Asked {
        let take = |from: usize| u16::from_be_bytes([self.0[from], self.0[from + 1]]);
        let mut instance = [0; 16];
        instance.copy_from_slice(&self.0[1..17]);
        let step = take(17);
        Asked {
            instance: InstanceId::from_bytes(instance),
            step: usize::from(step & !UNDOING),
            phase: if step & UNDOING == 0 { Phase::Action } else { Phase::Compensation },
            attempt: u32::from(take(19)) << 16 | u32::from(take(21)),
        }
    }
}

impl fmt::Display for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Correlation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Correlation({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Timestamp = Timestamp(1_796_000_000_000);

    fn asked() -> Asked {
        Asked {
            instance: InstanceId::new("order", "A-1"),
            step: 3,
            phase: Phase::Compensation,
            attempt: 70_000,
        }
    }

    #[test]
    fn a_token_says_what_it_answers_and_is_the_same_each_time() {
        let correlation = Sealer::new([7; 32]).issue(asked(), BEGAN);
        assert_eq!(correlation, Sealer::new([7; 32]).issue(asked(), BEGAN));
        let read = Correlation::parse(&correlation.to_string()).unwrap();
        assert_eq!((read, read.asked()), (correlation, asked()));
        assert!(Sealer::new([7; 32]).admits(&read, BEGAN));
    }

    #[test]
    fn a_token_of_another_store_of_an_earlier_run_or_for_another_step_is_not_admitted() {
        let sealer = Sealer::new([7; 32]);
        let correlation = sealer.issue(asked(), BEGAN);
        assert!(!Sealer::new([8; 32]).admits(&correlation, BEGAN));
        assert!(!sealer.admits(&correlation, Timestamp(BEGAN.0 + 1)));
        for at in 0..LENGTH {
            let mut forged = correlation;
            forged.0[at] ^= 1;
            assert!(!sealer.admits(&forged, BEGAN), "byte {at} counts");
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        let correlation = Sealer::new([7; 32]).issue(asked(), BEGAN).to_string();
        for text in
            ["", "A-1", "01890a5d-ac96-774b-bcce-b302099a8057", &correlation[1..], &format!("{correlation}A")]
        {
            assert_eq!(Correlation::parse(text), None, "{text:?}");
        }
        assert_eq!(
            Correlation::parse(&correlation.replace(correlation.as_bytes()[5] as char, "\u{e9}")),
            None
        );
    }
}
