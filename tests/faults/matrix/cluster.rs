//! A broker of three nodes, and a partition between them.

use sagamq::throwaway::{Cluster, test_root};

use super::{keys, repeated};
use crate::proxy::What;
use crate::rig::Rig;
use crate::{PUBLISHER, eventually};

#[test]
fn in_a_minority_nothing_counts_as_published_and_once_healed_all_is_drained() {
    let cluster = Cluster::start_in(test_root().as_deref(), 3).unwrap();
    let urls = cluster.urls();
    // Participants are at the other nodes, the orchestrator is led to the one that will be alone.
    let mut rig = Rig::build("minority", &urls[1..]);
    rig.proxy.retarget(&urls[0]);
    rig.restart();
    for node in cluster.nodes() {
        node.settle().unwrap();
    }
    rig.set_working(false);
    rig.place_all(&keys("A", 10), &[]);
    eventually("the commands are out", || rig.messages().len() >= 20);

    cluster.partition(0).unwrap();
    rig.faulted("partition");
    let before = confirmed(&rig);
    rig.set_working(true);
    rig.place_all(&keys("B", 10), &[]);
    // It cannot hear of these orders; and what it sends, if it can send anything, nobody confirms.
    eventually("the publisher is told nothing, or is away", || {
        rig.proxy.connections(PUBLISHER) == 0 || rig.site.log().contains("no answer to published messages")
    });
    assert_eq!(confirmed(&rig), before, "a minority confirmed");
    assert!(!rig.statuses().contains_key("B-0"), "a minority delivered what it cannot know of");

    cluster.heal().unwrap();
    let evidence = rig.finish();
    evidence.assert_all(20, "completed");
    repeated(&evidence.journal);
}

#[test]
fn a_node_that_is_killed_is_done_without_by_the_others() {
    let mut cluster = Cluster::start_in(test_root().as_deref(), 3).unwrap();
    let urls = cluster.urls();
    let rig = {
        let mut rig = Rig::build("one-less", &urls[1..]);
        rig.proxy.retarget(&urls[0]);
        rig.restart();
        rig
    };
    for node in cluster.nodes() {
        node.settle().unwrap();
    }
    rig.place_all(&keys("A", 20), &[]);
    cluster.nodes_mut()[0].kill();
    rig.faulted("broker_kill");
    rig.proxy.retarget(&urls[1]);
    rig.place_all(&keys("B", 20), &[]);
    let evidence = rig.finish();
    evidence.assert_all(40, "completed");
    repeated(&evidence.journal);
}

/// Messages of the orchestrator that the broker has confirmed.
fn confirmed(rig: &Rig) -> usize {
    let journal = rig.proxy.journal();
    journal.iter().filter(|record| matches!(record.what, What::Confirmed { .. })).count()
}
