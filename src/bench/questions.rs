//! Questions to the API of an orchestrator whose store has grown.

use super::BenchError;
use super::latency::{Latency, Percentiles};
use super::names::{ATTRIBUTE, SAGA};
use super::process::Process;
use super::starts::Starts;
use crate::saga::id::InstanceId;

/// Rounds after which the same sagas are asked about again.
pub(super) const ROUNDS: u64 = 1000;

/// In words, and the path for the saga with this business key.
type Question = (&'static str, fn(&str) -> String);

/// What is asked.
const QUESTIONS: [Question; 6] = [
    ("list: the newest 50", |_| "/api/v1/sagas".to_owned()),
    ("list: the newest 50 that have completed", |_| "/api/v1/sagas?status=completed".to_owned()),
    ("list: the newest 50 in flight", |_| "/api/v1/sagas?status=running".to_owned()),
    ("list: the newest 50 with an attribute", |_| {
        let (name, value) = ATTRIBUTE;
        format!("/api/v1/sagas?saga={SAGA}&attribute={name}:{value}")
    }),
    ("list: the one with a business key", |key| format!("/api/v1/sagas?saga={SAGA}&business_key={key}")),
    ("show: any one", |key| format!("/api/v1/sagas/{}", InstanceId::new(SAGA, key))),
];

/// Questions over a store, and how long the answers took.
pub(super) struct Questions {
    /// How many sagas the store has.
    sagas: u64,
    rounds: u64,
    micros: [Vec<u64>; QUESTIONS.len()],
}

impl Questions {
    pub(super) fn over(sagas: u64) -> Self {
        Self { sagas, rounds: 0, micros: Default::default() }
    }

    /// What is asked, in words.
    pub(super) fn words() -> impl Iterator<Item = &'static str> {
        QUESTIONS.into_iter().map(|(words, _)| words)
    }

    /// Asks each question once, about another saga each time: they are evenly spread over the store.
    pub(super) fn ask(&mut self, orchestrator: &Process) -> Result<(), BenchError> {
        let key = Starts::business_key(self.sagas * (self.rounds % ROUNDS) / ROUNDS);
        for ((_, path), micros) in QUESTIONS.iter().zip(&mut self.micros) {
            micros.push(orchestrator.ask(&path(&key))?.as_micros() as u64);
        }
        self.rounds += 1;
        Ok(())
    }

    /// How often each was asked.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds
    }

    /// How long the answers to each took, in the order of the questions.
    pub(super) fn answered(self) -> impl Iterator<Item = Percentiles> {
        self.micros.into_iter().map(|micros| Latency::of(micros).percentiles)
    }
}
