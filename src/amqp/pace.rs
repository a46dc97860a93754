//! The pace of a queue: how many of its deliveries may be out at a time.
//!
//! A crash, a lost connection and a full disk count as a delivery for every message that was out, and a quorum
//! queue puts a message aside that was delivered too often. So each connection begins with one message, which
//! says how often it was out: as it stood at the head of the queue, few came more often. While messages come often,
//! they go on to come alone, and a crash costs one of them one delivery.
//!
//! The client library keeps all that is out in memory, whatever its size. So only a few may be out until it shows
//! that bodies are light, and where they are heavy. More are let out by a further consumer; for fewer, the
//! connection is opened anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A message that was out this often comes alone.
const OFTEN: u64 = 3;

/// Deliveries that may be out where bodies are heavy, or their size is not known yet.
const FEW: u16 = 8;

/// Bytes of bodies that may be out, about.
const BYTES: u64 = 32 << 20;

/// So many messages in a row show that bodies are light again.
const LIGHT: u32 = 1000;

/// The mean size of bodies is taken over about this many.
const SPAN: u64 = 32;

/// Shared by the task that takes deliveries in and the one that acks them.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// As many as may ever be out.
    prefetch: u16,
    /// Messages that are still to come alone.
    alone: u32,
    /// Messages of which a few at most may be out.
    few: u32,
    /// Mean size of the last bodies.
    mean: u64,
    /// Whether they are so large that only a few may be out.
    heavy: bool,
    /// How many messages in a row would let more be out again.
    light: u32,
}

impl Pace {
    /// Of a queue of which nothing is known yet.
    pub(super) fn new(prefetch: u16) -> Self {
        Self(Arc::new(Mutex::new(State { prefetch, alone: 0, few: 0, mean: 0, heavy: false, light: 0 })))
    }

    /// Begins anew with one message, and then a few.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        state.alone = state.alone.max(1);
        // With the one, as many as may be out until then: none of them need be acked for more to come.
        state.few = u32::from(FEW) - 1;
    }

    /// Has all messages come alone that can have been out together with one that cannot be parsed.
    pub(super) fn distrust(&self) {
        let mut state = self.state();
        state.alone = u32::from(state.prefetch) + 1;
    }

    /// Notes a message of `bytes` that was delivered `before`.
    pub(super) fn note(&self, bytes: usize, before: u64) {
        let mut state = self.state();
        let bytes = bytes as u64;
        if state.alone > 0 {
            state.alone = state.alone.saturating_sub(1).max(u32::from(before >= OFTEN));
        } else {
            state.few = state.few.saturating_sub(1);
        }
        state.mean = if state.mean == 0 { bytes } else { (state.mean * (SPAN - 1) + bytes) / SPAN };
        let all = state.mean * u64::from(state.prefetch);
        state.light = if all > BYTES / 2 { 0 } else { state.light.saturating_add(1) };
        // To have fewer out costs a connection, so it does not change all the time.
        state.heavy = all > BYTES || (state.heavy && state.light < LIGHT);
    }

    /// How many may be out.
    pub(super) fn window(&self) -> u16 {
        let state = self.state();
        match *state {
            State { alone: 1.., .. } => 1,
            State { few: 1.., prefetch, .. } | State { heavy: true, prefetch, .. } => FEW.min(prefetch),
            State { prefetch, .. } => prefetch,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers are whole whatever became of the other task.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &Pace, messages: usize, bytes: usize, before: u64) -> u16 {
        (0..messages).for_each(|_| pace.note(bytes, before));
        pace.window()
    }

    fn begun() -> Pace {
        let pace = Pace::new(500);
        pace.begin();
        pace
    }

    #[test]
    fn one_comes_then_a_few_then_as_many_as_may() {
        let pace = begun();
        assert_eq!(pace.window(), 1);
        assert_eq!(after(&pace, 1, 500, 2), 8);
        assert_eq!(after(&pace, 6, 500, 2), 8);
        assert_eq!(after(&pace, 1, 500, 2), 500);
        pace.begin();
        assert_eq!(pace.window(), 1);
    }

    #[test]
    fn what_was_out_often_comes_alone_until_it_is_through() {
        let pace = begun();
        assert_eq!(after(&pace, 400, 500, 3), 1);
        assert_eq!(after(&pace, 1, 500, 2), 8);
    }

    #[test]
    fn all_that_were_out_with_what_cannot_be_parsed_come_alone_over_several_connections() {
        let pace = begun();
        pace.distrust();
        assert_eq!(after(&pace, 300, 500, 0), 1);
        pace.begin();
        assert_eq!(after(&pace, 200, 500, 0), 1);
        assert_eq!(after(&pace, 1, 500, 0), 8);
    }

    #[test]
    fn of_heavy_bodies_a_few_are_out() {
        let pace = begun();
        assert_eq!(after(&pace, 100, 1 << 20, 0), 8);
        assert_eq!(after(&pace, 1_000, 500, 0), 8);
        assert_eq!(after(&pace, 200, 500, 0), 500);
        assert_eq!(after(&pace, 1, 1 << 20, 0), 500, "one large body among small ones");
        assert_eq!(after(&pace, 4, 1 << 20, 0), 8);
    }

    #[test]
    fn a_small_prefetch_is_never_exceeded() {
        let pace = Pace::new(3);
        pace.begin();
        assert_eq!(after(&pace, 1, 500, 0), 3);
        assert_eq!(after(&pace, 100, 500, 0), 3);
    }
}
