//! Limits: which commands of limited steps are out over all instances, and whose turn is next.
//!
//! ```text
//! step is queued --> waiting, the first come first --> turn: its command is out --> answered, timed out, ...
//!                      ^                                                              |
//!                      +------- a slot is free, and the rate allows the next ---------+
//! ```
//!
//! Nothing of this is stored: where a step stands follows from its instance alone, and is followed at each
//! decision. So no way in which a step can settle frees its slot by itself, and a restart finds the same
//! queues in the same order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use metrics::gauge;

use crate::metric;
use crate::saga::id::InstanceId;
use crate::saga::instance::{Awaiting, Instance, Status, StepState, StepStatus};
use crate::saga::plan::{Limit, Plan};
use crate::saga::time::Timestamp;

/// How much of its rate a queue may catch up where it could not let anyone go in time. Nothing is saved up
/// while nobody waits.
const CATCH_UP: Duration = Duration::from_millis(100);

/// The limited steps of all sagas.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// By saga and step, over all versions.
    queues: BTreeMap<(String, String), Queue>,
}

/// A step of an instance.
type Ticket = (InstanceId, usize);

/// One limited step over all instances.
#[derive(Debug, Default)]
struct Queue {
    places: HashMap<Ticket, Place>,
    waiting: BTreeSet<(Timestamp, Ticket)>,
    /// What is out of parked instances, by the time at which it counts no longer.
    lapsing: BTreeSet<(Timestamp, Ticket)>,
    /// When the rate allows the next one, in microseconds.
    free_at: i64,
}

/// Where a step of an instance stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// It awaits its turn, since this time, under the limit of its own definition.
    Waiting(Timestamp, Limit),
    /// Its command is out.
    Out,
    /// The same, and as nobody looks at a parked instance, its slot is free after this time.
    Lapsing(Timestamp),
}

impl Limits {
    /// Takes in where an instance stands now.
    pub(super) fn follow(&mut self, plan: &Plan, instance: &Instance) {
        for (ticket, state, limit) in limited(plan, instance) {
            self.queue(plan, state).put(ticket, Place::of(instance, state, limit));
        }
    }

    /// Takes in where an instance stood when the process ended, and what of a rate it has used up.
    pub(super) fn recover(&mut self, plan: &Plan, instance: &Instance) {
        self.follow(plan, instance);
        for (_, state, limit) in limited(plan, instance) {
            if state.action.attempt > 0 && !state.is_queued() {
                let queue = self.queue(plan, state);
                queue.free_at =
                    queue.free_at.max(micros(state.action.dispatched_at).saturating_add(spacing(limit)));
            }
        }
    }

    /// The step that has its turn now; it is not in a queue any more.
    pub(super) fn next_turn(&mut self, now: Timestamp) -> Option<Ticket> {
        self.queues.values_mut().find_map(|queue| queue.next_turn(now))
    }

    /// When somebody has a turn next without a further event.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.queues.values().filter_map(Queue::next_due).min()
    }

    /// Tells collectors how long the queues are.
    pub(super) fn tell(&self) {
        for ((saga, step), queue) in &self.queues {
            let labels = [("saga", saga.clone()), ("step", step.clone())];
            gauge!(metric::QUEUED, &labels).set(queue.waiting.len() as f64);
            gauge!(metric::IN_FLIGHT, &labels).set(queue.out() as f64);
        }
    }

    fn queue(&mut self, plan: &Plan, state: &StepState) -> &mut Queue {
        self.queues.entry((plan.saga.clone(), state.name.clone())).or_default()
    }
}

/// The steps of an instance that are limited.
fn limited<'a>(
    plan: &'a Plan,
    instance: &'a Instance,
) -> impl Iterator<Item = (Ticket, &'a StepState, Limit)> {
    let steps = plan.steps.iter().zip(&instance.steps).enumerate();
    steps.filter_map(|(step, (plan, state))| Some(((instance.id, step), state, plan.limit?)))
}

impl Queue {
    fn put(&mut self, ticket: Ticket, place: Option<Place>) {
        let before = match place {
            Some(place) => self.places.insert(ticket, place),
            None => self.places.remove(&ticket),
        };
        if before == place {
            return;
        }
        match before {
            Some(Place::Waiting(since, _)) => _ = self.waiting.remove(&(since, ticket)),
            Some(Place::Lapsing(until)) => _ = self.lapsing.remove(&(until, ticket)),
            Some(Place::Out) | None => {}
        }
        match place {
            Some(Place::Waiting(since, _)) => _ = self.waiting.insert((since, ticket)),
            Some(Place::Lapsing(until)) => _ = self.lapsing.insert((until, ticket)),
            Some(Place::Out) | None => {}
        }
    }

    fn next_turn(&mut self, now: Timestamp) -> Option<Ticket> {
        let (since, ticket, limit) = self.first()?;
        while let Some(&(until, lapsed)) = self.lapsing.first()
            && until <= now
        {
            self.put(lapsed, None);
        }
        if !self.has_room(limit) {
            return None;
        }
        if limit.per_second.is_some() {
            if self.free_at > micros(now) {
                return None;
            }
            // When it could have gone, but for what is too long ago.
            let from = self.free_at.max(micros(since)).max(micros(now - CATCH_UP));
            self.free_at = from.saturating_add(spacing(limit));
        }
        self.put(ticket, None);
        Some(ticket)
    }

    fn next_due(&self) -> Option<Timestamp> {
        let (since, _, limit) = self.first()?;
        if !self.has_room(limit) {
            return self.lapsing.first().map(|(until, _)| *until);
        }
        Some(
            limit.per_second.map_or(since, |_| since.max(Timestamp(self.free_at.saturating_add(999) / 1000))),
        )
    }

    /// Who waits first, since when, and under which limit.
    fn first(&self) -> Option<(Timestamp, Ticket, Limit)> {
        let (since, ticket) = *self.waiting.first()?;
        match self.places.get(&ticket) {
            Some(Place::Waiting(_, limit)) => Some((since, ticket, *limit)),
            _ => None,
        }
    }

    fn has_room(&self, limit: Limit) -> bool {
        limit.in_flight.is_none_or(|most| self.out() < most as usize)
    }

    /// How many commands are out.
    fn out(&self) -> usize {
        self.places.len() - self.waiting.len()
    }
}

impl Place {
    fn of(instance: &Instance, state: &StepState, limit: Limit) -> Option<Self> {
        let parked = instance.status == Status::Parked;
        match state.action.awaiting {
            _ if state.status != StepStatus::Dispatched => None,
            // It has its old place again when the instance goes on.
            Awaiting::Turn if parked => None,
            Awaiting::Turn => Some(Self::Waiting(state.action.dispatched_at, limit)),
            Awaiting::Reply(due) if parked => Some(Self::Lapsing(due)),
            Awaiting::Confirm | Awaiting::Reply(_) => Some(Self::Out),
            _ => None,
        }
    }
}

/// The time between two that go under a limit, in microseconds.
fn spacing(limit: Limit) -> i64 {
    // A rate of next to nothing comes to the longest time that there is.
    limit.per_second.map_or(0, |rate| (1e6 / rate) as i64)
}

fn micros(at: Timestamp) -> i64 {
    at.0.saturating_mul(1000)
}
