//! The failure matrix: one test a fault, named by what must happen.

mod broker;
mod clock;
mod cluster;
mod connection;
mod messages;
mod participants;
mod process;
mod reload;

use std::collections::{BTreeMap, BTreeSet};

use crate::proxy::{Record, What};

/// Business keys of `count` orders.
fn keys(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name}-{number}")).collect()
}

/// Checks that all copies of a published message are the same, and returns how many have copies.
fn repeated(journal: &[Record]) -> usize {
    let mut digests: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for record in journal {
        if let What::Published { message_id, digest, .. } = &record.what {
            digests.entry(message_id).or_default().push(*digest);
        }
    }
    for (message_id, digests) in &digests {
        let different: BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), 1, "copies of {message_id} differ");
    }
    digests.values().filter(|digests| digests.len() > 1).count()
}

/// Messages that were delivered again.
fn redelivered(journal: &[Record]) -> usize {
    journal.iter().filter(|record| matches!(record.what, What::Delivered { redelivered: true, .. })).count()
}

/// Codes with which the broker closed channels of a connection.
fn closed_channels(journal: &[Record], connection: &str) -> Vec<u16> {
    let of_connection = journal.iter().filter(|record| record.name == connection);
    of_connection
        .filter_map(|record| match record.what {
            What::ChannelClosed { code, .. } => Some(code),
            _ => None,
        })
        .collect()
}
