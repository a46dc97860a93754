//! The broker: restarted, killed, out of memory, and rearranged.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use sagamq::throwaway::Node;

use super::{keys, repeated};
use crate::proxy::What;
use crate::rig::Rig;
use crate::{BROKER, CONSUMER, PUBLISHER, eventually, support};

/// A broker for those that end it or bring it to a halt, one after the other.
static FRAGILE: LazyLock<Mutex<Node>> = LazyLock::new(|| Mutex::new(support::broker()));

fn fragile() -> MutexGuard<'static, Node> {
    FRAGILE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_broker_that_is_restarted_under_load_is_taken_up_again() {
    let mut node = fragile();
    let rig = Rig::start("restart", &node.url());
    std::thread::scope(|scope| {
        let placing = scope.spawn(|| place_one_after_the_other(&rig, 60));
        eventually("the load is on", || rig.messages().len() > 30);
        node.restart().unwrap();
        rig.faulted("broker_restart");
        placing.join().unwrap();
    });
    let evidence = rig.finish();
    evidence.assert_all(60, "completed");
    repeated(&evidence.journal);
    let closed =
        |record: &&crate::proxy::Record| matches!(record.what, What::ConnectionClosed { code: 320, .. });
    assert!(evidence.journal.iter().any(|record| closed(&record)), "the broker did not say that it stops");
}

#[test]
fn a_broker_that_is_killed_under_load_is_taken_up_again() {
    let mut node = fragile();
    let rig = Rig::start("broker-kill", &node.url());
    node.settle().unwrap();
    std::thread::scope(|scope| {
        let placing = scope.spawn(|| place_one_after_the_other(&rig, 60));
        eventually("the load is on", || rig.messages().len() > 30);
        node.kill();
        rig.faulted("broker_kill");
        node.restart().unwrap();
        placing.join().unwrap();
    });
    let evidence = rig.finish();
    evidence.assert_all(60, "completed");
    repeated(&evidence.journal);
}

#[test]
fn while_the_broker_blocks_publishers_timers_run_on_and_all_goes_out_afterwards() {
    let node = fragile();
    let rig = Rig::start("blocked", &node.url());
    rig.set_working(false);
    rig.place_all(&keys("A", 5), &[]);
    eventually("all of them await an answer", || rig.messages().len() >= 5);
    node.block_publishers().unwrap();
    eventually("the broker blocks the publisher", || {
        let journal = rig.proxy.journal();
        journal.iter().any(|record| record.name == PUBLISHER && record.what == What::Blocked)
    });
    rig.faulted("memory_alarm");
    eventually("another attempt is decided and waits for the broker", || {
        rig.details("A-0")["steps"][0]["action"]["awaiting"] == "confirm"
    });
    let published = rig.messages().len();
    eventually("a blocked connection is given up", || rig.site.log().contains("the broker has blocked it"));
    assert_eq!(rig.messages().len(), published, "it was published in spite of the alarm");
    node.unblock_publishers().unwrap();
    rig.set_working(true);
    let evidence = rig.finish();
    evidence.assert_all(5, "completed");
    repeated(&evidence.journal);
}

#[test]
fn while_the_broker_blocks_publishers_no_more_is_taken_than_the_outbox_bears() {
    const OUTBOX: usize = 8;
    let node = fragile();
    let mut rig = Rig::build("outbox", &[node.url()]);
    rig.site.set("SAGAMQ_BROKER__OUTBOX", &OUTBOX.to_string());
    rig.restart();
    rig.kill();
    rig.place_all(&keys("A", 60), &[]);
    node.block_publishers().unwrap();
    rig.faulted("memory_alarm");
    rig.boot("");
    eventually("a blocked connection is given up", || rig.site.log().contains("the broker has blocked it"));
    assert_eq!(rig.statuses().len(), OUTBOX, "as many as the outbox bears were started");
    node.unblock_publishers().unwrap();
    rig.finish().assert_all(60, "completed");
}

#[test]
fn a_queue_that_is_deleted_is_made_and_consumed_again() {
    let rig = Rig::start("deleted", &BROKER.url());
    for queue in ["events", "replies"] {
        let queue = format!("{}.{queue}", rig.prefix);
        rig.place(&format!("before-{queue}"), &[]);
        rig.becomes(&format!("before-{queue}"), "completed");
        rig.blocking(async |peer| {
            peer.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.map(Some)
        });
        eventually("the consumer is told", || {
            let journal = rig.proxy.journal();
            let cancelled = What::Cancelled { queue: queue.clone() };
            journal.iter().any(|record| record.name == CONSUMER && record.what == cancelled)
        });
        rig.faulted("queue_deleted");
        // It is consumed once it is bound; before that, a start event would go nowhere.
        eventually("the queue is consumed again", || {
            rig.blocking(async |peer| {
                // To ask for a queue that is missing closes the channel, which is tried again.
                peer.consumers(&queue).await.map(Some)
            }) == 1
        });
    }
    rig.place("after", &[]);
    rig.finish().assert_all(3, "completed");
}

#[test]
fn a_queue_that_became_another_is_told_of_until_it_is_mended() {
    let rig = Rig::start("another", &BROKER.url());
    let queue = format!("{}.replies", rig.prefix);
    let replaced = |kind: &'static str| {
        let queue = queue.clone();
        rig.blocking(async |peer| {
            peer.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
            peer.channel
                .queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), arguments)
                .await
                .map(Some)
        });
    };
    replaced("classic");
    eventually("it is told", || rig.site.log().contains("it exists but is different"));
    rig.faulted("precondition_failed");
    assert!(!rig.site.is_ready(), "it is ready without its queue");
    rig.blocking(async |peer| {
        peer.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.map(Some)
    });
    rig.place("A-1", &[]);
    rig.finish().assert_all(1, "completed");
}

fn place_one_after_the_other(rig: &Rig, count: usize) {
    for key in keys("A", count) {
        rig.place(&key, &[]);
    }
}
