//! Faults that tests put into this very code: points at which the process dies, and bugs that the test
//! suite has to find. Without the feature `faults`, which no release has, all of it compiles to nothing.
//!
//! `FAILPOINTS` says what happens, in the words of the crate `fail`: `FAILPOINTS=synced=9*off->return`
//! dies at the tenth commit, right after its fdatasync; `FAILPOINTS=bug_random_ids=return` plants a bug.

/// A point on the way of a delivery at which the process can be made to die by SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A delivery came in.
    Received,
    /// It was decoded.
    Decoded,
    /// What it means was decided.
    Decided,
    /// A commit begins.
    Commit,
    /// It is about to be written to the log.
    Append,
    /// The log has it, if the system does not crash.
    Logged,
    /// It is durable.
    Synced,
    /// The database has written what the log had, and has yet to sync it.
    Settling,
    /// It is acknowledged; nothing of it has left.
    Committed,
    /// A wave of messages is about to be published.
    Publish,
    /// A message is on the wire, without a confirm.
    Published,
    /// A wave is confirmed, and nobody knows yet.
    Confirmed,
    /// Deliveries are about to be acked or rejected.
    Settle,
    /// Deliveries were rejected; those that go with them are not acked.
    Rejected,
    /// Deliveries were acked.
    Settled,
    /// A timer fired, and nothing is decided.
    Timer,
    /// An open instance was taken up, others were not.
    Recovering,
    /// All were taken up, and nothing is consumed.
    Recovered,
    /// The broker has what other definitions need, and nothing of them is stored.
    Reload,
    /// They are durable, and not in force.
    Reloaded,
    /// A stop has begun.
    Stopping,
}

/// A bug that tests plant, to see that the suite finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Deliveries are acked before their commit.
    AckBeforeCommit,
    /// Messages are published before their commit.
    PublishBeforeCommit,
    /// Command ids are new at every attempt and after every restart.
    RandomIds,
    /// A commit is not synced.
    NoSync,
    /// A returned message counts as published, because its confirm is an ack.
    ReturnsUnseen,
    /// Steps are undone without regard to what stands on them.
    UnorderedCompensation,
    /// A step whose outcome is unknown is not undone.
    UnknownNotUndone,
    /// Timers are not armed again after a restart.
    TimersLost,
    /// A second start event of a business key starts a second instance.
    SecondStart,
    /// What a restart finds to be out of a limited step is not counted.
    SlotsLost,
    /// Nobody remembers which events have counted.
    EventsForgotten,
    /// Numbers of messages are rounded to doubles.
    NumbersRounded,
    /// What a person leaves undone is told as undone.
    LeftToldUndone,
    /// The broker puts aside what comes back to it a second time.
    LowDeliveryLimit,
    /// Nobody looks whom a prefix belongs to.
    PrefixUnclaimed,
    /// A reply counts whoever made its correlation.
    ForgedAdmitted,
}

impl Point {
    /// All points, in the order in which a delivery passes them.
    pub const ALL: [Self; 21] = [
        Self::Received,
        Self::Decoded,
        Self::Decided,
        Self::Commit,
        Self::Append,
        Self::Logged,
        Self::Synced,
        Self::Settling,
        Self::Committed,
        Self::Publish,
        Self::Published,
        Self::Confirmed,
        Self::Settle,
        Self::Rejected,
        Self::Settled,
        Self::Timer,
        Self::Recovering,
        Self::Recovered,
        Self::Reload,
        Self::Reloaded,
        Self::Stopping,
    ];

    /// Its name in `FAILPOINTS`.
    pub fn name(self) -> &'static str {
        match self {
            Point::Received => "received",
            Point::Decoded => "decoded",
            Point::Decided => "decided",
            Point::Commit => "commit",
            Point::Append => "append",
            Point::Logged => "logged",
            Point::Synced => "synced",
            Point::Settling => "settling",
            Point::Committed => "committed",
            Point::Publish => "publish",
            Point::Published => "published",
            Point::Confirmed => "confirmed",
            Point::Settle => "settle",
            Point::Rejected => "rejected",
            Point::Settled => "settled",
            Point::Timer => "timer",
            Point::Recovering => "recovering",
            Point::Recovered => "recovered",
            Point::Reload => "reload",
            Point::Reloaded => "reloaded",
            Point::Stopping => "stopping",
        }
    }
}

impl Bug {
    /// All bugs.
    pub const ALL: [Self; 16] = [
        Self::AckBeforeCommit,
        Self::PublishBeforeCommit,
        Self::RandomIds,
        Self::NoSync,
        Self::ReturnsUnseen,
        Self::UnorderedCompensation,
        Self::UnknownNotUndone,
        Self::TimersLost,
        Self::SecondStart,
        Self::SlotsLost,
        Self::EventsForgotten,
        Self::NumbersRounded,
        Self::LeftToldUndone,
        Self::LowDeliveryLimit,
        Self::PrefixUnclaimed,
        Self::ForgedAdmitted,
    ];

    /// Its name in `FAILPOINTS`.
    pub fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeCommit => "bug_ack_before_commit",
            Bug::PublishBeforeCommit => "bug_publish_before_commit",
            Bug::RandomIds => "bug_random_ids",
            Bug::NoSync => "bug_no_sync",
            Bug::ReturnsUnseen => "bug_returns_unseen",
            Bug::UnorderedCompensation => "bug_unordered_compensation",
            Bug::UnknownNotUndone => "bug_unknown_not_undone",
            Bug::TimersLost => "bug_timers_lost",
            Bug::SecondStart => "bug_second_start",
            Bug::SlotsLost => "bug_slots_lost",
            Bug::EventsForgotten => "bug_events_forgotten",
            Bug::NumbersRounded => "bug_numbers_rounded",
            Bug::LeftToldUndone => "bug_left_told_undone",
            Bug::LowDeliveryLimit => "bug_low_delivery_limit",
            Bug::PrefixUnclaimed => "bug_prefix_unclaimed",
            Bug::ForgedAdmitted => "bug_forged_admitted",
        }
    }
}

pub use switch::*;

#[cfg(feature = "faults")]
mod switch {
    use super::{Bug, Point};

    /// Takes `FAILPOINTS` into force for the rest of the process.
    pub fn from_environment() {
        std::mem::forget(fail::FailScenario::setup());
    }

    /// Dies here, if a test says so.
    pub(crate) fn pass(point: Point) {
        fail::fail_point!(point.name(), |_| die());
    }

    /// Whether a test has planted this bug.
    pub(crate) fn planted(bug: Bug) -> bool {
        fail::fail_point!(bug.name(), |_| true);
        false
    }

    /// A number that no other process and no other call has had.
    pub(crate) fn ticket() -> usize {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        (std::process::id() as usize) << 32 | count as usize
    }

    /// As the system ends a process without asking: no destructor runs, no buffer is written.
    fn die() {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(not(feature = "faults"))]
mod switch {
    use super::{Bug, Point};

    /// Does nothing.
    pub fn from_environment() {}

    /// Does nothing.
    #[inline(always)]
    pub(crate) fn pass(_: Point) {}

    /// No.
    #[inline(always)]
    pub(crate) fn planted(_: Bug) -> bool {
        false
    }

    /// Nobody asks: nothing is planted.
    #[inline(always)]
    pub(crate) fn ticket() -> usize {
        0
    }
}
