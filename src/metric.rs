//! Names of the metrics. None has an id among its labels.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};

/// Deliveries received; label `queue`.
pub const DELIVERIES: &str = "sagamq_deliveries_total";
/// Instances started; label `saga`.
pub const STARTS: &str = "sagamq_starts_total";
/// Instances that ended or were parked; labels `saga`, `status`.
pub const ENDED: &str = "sagamq_instances_ended_total";
/// Steps that instances were compensated without; labels `saga`, `step`.
pub const NOT_UNDONE: &str = "sagamq_not_undone_total";
/// Deadlines that passed, also after the pivot; label `saga`.
pub const DEADLINES: &str = "sagamq_deadlines_passed_total";
/// Commands and notices that the broker confirmed.
pub const PUBLISHED: &str = "sagamq_published_total";
/// Messages that came back unroutable.
pub const RETURNED: &str = "sagamq_returned_total";
/// Messages that were dead-lettered; label `queue`.
pub const DEAD_LETTERS: &str = "sagamq_dead_letters_total";
/// Dead letters that are kept no longer, because there were too many of their kind.
pub const DEAD_LETTERS_DROPPED: &str = "sagamq_dead_letters_dropped_total";
/// Messages that the broker put aside by itself; label `reason`.
pub const PUT_ASIDE: &str = "sagamq_put_aside_total";
/// Messages in the queues of dead letters; label `queue`.
pub const QUEUE_MESSAGES: &str = "sagamq_queue_messages";
/// Messages that changed nothing; label `what`.
pub const IGNORED: &str = "sagamq_ignored_total";
/// Orders of people that were carried out, by verb.
pub const ORDERS: &str = "sagamq_orders_total";
/// Folders of definitions that were to come into force; label `result`.
pub const RELOADS: &str = "sagamq_reloads_total";
/// Backups that ended; label `result`.
pub const BACKUPS: &str = "sagamq_backups_total";
/// Instances that were archived and removed; label `status`.
pub const ARCHIVED: &str = "sagamq_archived_total";
/// Batches committed.
pub const COMMITS: &str = "sagamq_commits_total";
/// Time of a commit, flush included, in seconds.
pub const COMMIT_SECONDS: &str = "sagamq_commit_seconds";
/// Inputs in a batch.
pub const BATCH_INPUTS: &str = "sagamq_batch_inputs";
/// Instances of which something is still to be done.
pub const OPEN: &str = "sagamq_instances_open";
/// Connections that were lost or could not be had; label `connection`.
pub const RECONNECTS: &str = "sagamq_reconnects_total";
/// Messages committed and not yet confirmed.
pub const OUTBOX: &str = "sagamq_outbox";
/// Instances that await their turn at a limited step; labels `saga`, `step`.
pub const QUEUED: &str = "sagamq_queued";
/// Commands of a limited step that are out; labels `saga`, `step`.
pub const IN_FLIGHT: &str = "sagamq_in_flight";
/// Timers that are armed.
pub const TIMERS: &str = "sagamq_timers";

/// Gives the metrics their meaning in the page that a collector reads.
pub(crate) fn describe() {
    describe_counter!(DELIVERIES, "Deliveries received");
    describe_counter!(STARTS, "Instances started");
    describe_counter!(ENDED, "Instances that ended or were parked");
    describe_counter!(NOT_UNDONE, "Steps that instances were compensated without, because a person said so");
    describe_counter!(DEADLINES, "Deadlines that passed");
    describe_counter!(PUBLISHED, "Commands and notices that the broker confirmed");
    describe_counter!(RETURNED, "Messages that came back unroutable");
    describe_counter!(DEAD_LETTERS, "Messages that were dead-lettered");
    describe_counter!(DEAD_LETTERS_DROPPED, "Dead letters that are kept no longer");
    describe_counter!(PUT_ASIDE, "Messages that the broker put aside by itself");
    describe_gauge!(QUEUE_MESSAGES, "Messages in the queues of dead letters");
    describe_counter!(IGNORED, "Messages that changed nothing");
    describe_counter!(ORDERS, "Orders of people that were carried out");
    describe_counter!(RELOADS, "Folders of definitions that were to come into force");
    describe_counter!(BACKUPS, "Backups that ended");
    describe_counter!(ARCHIVED, "Instances that were archived and removed");
    describe_counter!(COMMITS, "Batches committed");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "Time of a commit, flush included");
    describe_histogram!(BATCH_INPUTS, "Inputs in a batch");
    describe_gauge!(OPEN, "Instances of which something is still to be done");
    describe_counter!(RECONNECTS, "Connections that were lost or could not be had");
    describe_gauge!(OUTBOX, "Messages committed and not yet confirmed");
    describe_gauge!(QUEUED, "Instances that await their turn at a limited step");
    describe_gauge!(IN_FLIGHT, "Commands of a limited step that are out");
    describe_gauge!(TIMERS, "Timers that are armed");
    // A counter that is there from the beginning shows its first change as one.
    for name in [PUBLISHED, RETURNED, COMMITS] {
        counter!(name).increment(0);
    }
    counter!(PUT_ASIDE, "reason" => "delivery_limit").increment(0);
}
