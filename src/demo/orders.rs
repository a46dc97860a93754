//! The orders of the demo, and what must become of each.

use std::collections::HashMap;

use crate::saga::instance::Status;

/// How many messages are placed that are no orders at all.
pub(super) const POISON: usize = 1;

/// Twenty orders in which every fate occurs; more orders repeat it.
const DECK: [Fate; 20] = {
    use Fate::{Completed, Declined, Duplicate, Flaky, Late, OutOfStock, Silent, Undeliverable};
    [
        Completed,
        Completed,
        OutOfStock,
        Late,
        Completed,
        Declined,
        Silent,
        Completed,
        Undeliverable,
        Flaky,
        Completed,
        Duplicate,
        Completed,
        OutOfStock,
        Completed,
        Declined,
        Completed,
        Undeliverable,
        Completed,
        Completed,
    ]
};

/// What an order is made to live through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Everything works.
    Completed,
    /// Inventory refuses.
    OutOfStock,
    /// Payment refuses.
    Declined,
    /// Shipping refuses, at the pivot.
    Undeliverable,
    /// Inventory answers after the timeout.
    Late,
    /// Inventory fails twice before it works.
    Flaky,
    /// The order is placed twice.
    Duplicate,
    /// Payment takes the money and never answers.
    Silent,
}

/// One order.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The order id, which is the business key.
    pub(super) id: String,
    /// What it lives through.
    pub(super) fate: Fate,
    /// How many pieces it is for.
    pub(super) quantity: u32,
}

/// Price of a piece, in cents.
pub(super) const PRICE_CENTS: i64 = 1999;

impl Fate {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Completed,
        Self::Duplicate,
        Self::Flaky,
        Self::Late,
        Self::OutOfStock,
        Self::Declined,
        Self::Undeliverable,
        Self::Silent,
    ];

    /// The fate in words.
    pub fn words(self) -> &'static str {
        match self {
            Fate::Completed => "everything works",
            Fate::OutOfStock => "out of stock",
            Fate::Declined => "payment declined",
            Fate::Undeliverable => "shipping refused",
            Fate::Late => "inventory answers late",
            Fate::Flaky => "inventory needs retries",
            Fate::Duplicate => "order placed twice",
            Fate::Silent => "payment never answers",
        }
    }

    /// How its saga must end.
    pub fn expected(self) -> Status {
        match self {
            Fate::Completed | Fate::Late | Fate::Flaky | Fate::Duplicate => Status::Completed,
            Fate::OutOfStock | Fate::Declined | Fate::Undeliverable | Fate::Silent => Status::Compensated,
        }
    }

    /// The customer whose name makes the sample services play this fate.
    pub(super) fn customer(self) -> &'static str {
        match self {
            Fate::Declined => "declined-dora",
            Fate::Undeliverable => "nowhere-nils",
            Fate::Silent => "silent-sam",
            _ => "carla",
        }
    }

    /// The product whose name makes the sample services play this fate.
    pub(super) fn product(self) -> &'static str {
        match self {
            Fate::OutOfStock => "SOLD-OUT",
            Fate::Late => "SLOW",
            Fate::Flaky => "FLAKY",
            _ => "LAMP",
        }
    }
}

impl Order {
    /// What it costs, in cents.
    pub(super) fn cents(&self) -> i64 {
        PRICE_CENTS * i64::from(self.quantity)
    }

    /// Whether its saga has come to an end, the expected one or not.
    pub(super) fn has_ended(&self, statuses: &HashMap<String, Status>) -> bool {
        let ended = [Status::Completed, Status::Compensated, Status::Parked];
        statuses.get(&self.id).is_some_and(|status| ended.contains(status))
    }
}

/// Makes `count` orders. The run's id keeps their keys apart from those of earlier runs on the same
/// broker.
pub(super) fn deal(count: usize, run_id: &str) -> Vec<Order> {
    let fates = DECK.iter().copied().cycle().take(count).enumerate();
    fates
        .map(|(number, fate)| Order {
            id: format!("{run_id}-{:04}", number + 1),
            fate,
            quantity: u32::try_from(number % 3).unwrap_or(0) + 1,
        })
        .collect()
}

/// What did not end as it must.
pub(super) fn surprises(orders: &[Order], statuses: &HashMap<String, Status>) -> Vec<String> {
    let surprise = |order: &Order| {
        let (expected, id, fate) = (order.fate.expected(), &order.id, order.fate.words());
        match statuses.get(id) {
            Some(status) if *status == expected => None,
            Some(status) => Some(format!("order {id} ({fate}) is {status}, not {expected}")),
            None => Some(format!("order {id} ({fate}) has no saga")),
        }
    };
    let mut all: Vec<String> = orders.iter().filter_map(surprise).collect();
    if statuses.len() > orders.len() {
        all.push(format!("{} sagas for {} orders", statuses.len(), orders.len()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fate_is_dealt() {
        let orders = deal(40, "t");
        assert_eq!(orders.len(), 40);
        for fate in Fate::ALL {
            assert!(orders.iter().any(|order| order.fate == fate), "{fate:?}");
        }
    }

    #[test]
    fn another_end_and_a_missing_saga_are_surprises() {
        let orders = deal(2, "t");
        let statuses = HashMap::from([("t-0001".to_owned(), Status::Compensated)]);
        assert_eq!(surprises(&orders, &statuses).len(), 2);
    }
}
