//! What `/readyz` tells: which parts work right now.

use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by the parts that report and the API that tells. All flags start as false.
#[derive(Debug, Default)]
pub struct Health {
    /// Both queues are being consumed.
    pub consuming: Flag,
    /// The publishing connection is open.
    pub publishing: Flag,
    /// The last commit succeeded, and recovery is done.
    pub storing: Flag,
    /// Something was stored and acked since this was last taken back.
    pub moved: Flag,
    /// The disk of the store is full, and room is awaited.
    pub full: Flag,
    /// The lock on the prefix is lost, or is not had yet: nothing is published.
    pub disowned: Flag,
    /// Another process has that lock, as far as the broker knows.
    pub contended: Flag,
    /// A stop has begun.
    pub stopping: Flag,
}

/// A flag that any thread may set and read.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Flag {
    /// Sets the flag; true if that changed it.
    pub fn set(&self, value: bool) -> bool {
        self.0.swap(value, Ordering::SeqCst) != value
    }

    /// Reads the flag.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Health {
    /// What keeps the orchestrator from being ready, in words; empty when it is ready.
    pub fn obstacles(&self) -> Vec<&'static str> {
        let checks = [
            (self.consuming.is_set(), "not consuming from the broker"),
            (self.publishing.is_set(), "not connected to the broker for publishing"),
            (self.storing.is_set(), "the store is not accepting commits"),
            (!self.full.is_set(), "the disk of the store is full: make room, and it goes on by itself"),
            (
                !self.contended.is_set(),
                "another process has the lock of the prefix, or the broker takes it for alive",
            ),
            (!self.stopping.is_set(), "stopping"),
        ];
        checks.into_iter().filter(|(fine, _)| !fine).map(|(_, words)| words).collect()
    }
}
