//! Connections that break, hang, crawl, or cannot be had.

use std::time::Duration;

use super::{keys, redelivered, repeated};
use crate::proxy::{Door, Fault, How, Way, What};
use crate::rig::Rig;
use crate::{BROKER, CONSUMER, PUBLISHER, eventually};

/// What two heartbeats, the first delay before a reconnect and a busy machine take at most.
const NOTICED: Duration = Duration::from_secs(5);

#[test]
fn a_publisher_reset_in_the_middle_of_a_frame_publishes_the_same_bytes_again() {
    let rig = Rig::start("publisher-reset", &BROKER.url());
    for (round, way) in [Way::ToBroker, Way::ToClient].into_iter().enumerate() {
        // So that what got through before the reset is unconfirmed however slow the load is.
        if way == Way::ToBroker {
            rig.proxy.inject(PUBLISHER, Fault::SwallowConfirms(u32::MAX));
        }
        assert_eq!(rig.proxy.inject(PUBLISHER, Fault::Break { way, after: 5, how: How::MidFrame }), 1);
        rig.place_all(&keys(&format!("R{round}"), 20), &[]);
        eventually("the connection is reset", || rig.proxy.count("reset_mid_frame") == round as u64 + 1);
        eventually("there is a new one", || rig.proxy.connections(PUBLISHER) == 1);
    }
    let evidence = rig.finish();
    evidence.assert_all(40, "completed");
    assert!(repeated(&evidence.journal) > 0, "nothing was published again");
}

#[test]
fn a_consumer_reset_in_the_middle_of_a_frame_takes_its_deliveries_again() {
    let rig = Rig::start("consumer-reset", &BROKER.url());
    for (round, way) in [Way::ToBroker, Way::ToClient].into_iter().enumerate() {
        assert_eq!(rig.proxy.inject(CONSUMER, Fault::Break { way, after: 5, how: How::MidFrame }), 1);
        rig.place_all(&keys(&format!("R{round}"), 20), &[]);
        eventually("the connection is reset", || rig.proxy.count("reset_mid_frame") == round as u64 + 1);
        eventually("there is a new one", || rig.proxy.connections(CONSUMER) == 1);
    }
    let evidence = rig.finish();
    evidence.assert_all(40, "completed");
    assert!(redelivered(&evidence.journal) > 0, "nothing was delivered again");
}

#[test]
fn a_connection_that_ends_between_frames_is_opened_again() {
    let rig = Rig::start("between-frames", &BROKER.url());
    for (round, how) in [How::Closed, How::Reset].into_iter().enumerate() {
        for name in [PUBLISHER, CONSUMER] {
            rig.proxy.inject(name, Fault::Break { way: Way::ToClient, after: 3, how });
        }
        rig.place_all(&keys(&format!("R{round}"), 10), &[]);
        eventually("both are gone and opened again", || {
            let opened = |name| {
                let journal = rig.proxy.journal();
                journal.iter().filter(|record| record.name == name && record.what == What::Opened).count()
            };
            opened(PUBLISHER) == round + 2 && opened(CONSUMER) == round + 2
        });
    }
    assert_eq!((rig.proxy.count("closed"), rig.proxy.count("reset")), (2, 2));
    rig.finish().assert_all(20, "completed");
}

#[test]
fn a_delivery_that_is_missing_while_later_ones_come_ends_the_connection_and_comes_again() {
    let rig = Rig::start("gap", &BROKER.url());
    // Until one was taken, only one is out at a time, and none can overtake it.
    rig.place("first", &[]);
    rig.becomes("first", "completed");
    assert_eq!(rig.proxy.inject(CONSUMER, Fault::SwallowDelivery), 1);
    rig.place_all(&keys("A", 20), &[]);
    eventually("the gap is told", || rig.site.log().contains("did not come, and later ones did"));
    assert_eq!(rig.proxy.count("delivery_swallowed"), 1);
    let evidence = rig.finish();
    evidence.assert_all(21, "completed");
    assert!(redelivered(&evidence.journal) > 0, "nothing was delivered again");
}

#[test]
fn a_half_open_connection_is_noticed_within_two_heartbeats() {
    let rig = Rig::start("half-open", &BROKER.url());
    rig.place_all(&keys("before", 5), &[]);
    for name in [PUBLISHER, CONSUMER] {
        assert_eq!(rig.proxy.inject(name, Fault::Stall), 1);
    }
    let stalled_at = crate::evidence::now();
    rig.place_all(&keys("during", 5), &[]);
    for name in [PUBLISHER, CONSUMER] {
        let mut opened_at = 0;
        eventually("there is a new connection", || {
            let journal = rig.proxy.journal();
            let opened = journal.iter().rfind(|record| record.name == name && record.what == What::Opened);
            opened_at = opened.map_or(0, |record| record.at);
            opened_at > stalled_at
        });
        assert!(
            Duration::from_millis(opened_at - stalled_at) < NOTICED,
            "{name}: {}",
            opened_at - stalled_at
        );
    }
    assert!(rig.proxy.count("stall") >= 2);
    rig.finish().assert_all(10, "completed");
}

#[test]
fn a_start_whose_connection_breaks_while_it_looks_at_the_broker_tries_again() {
    let mut rig = Rig::build("probe", &[BROKER.url()]);
    rig.proxy.arm("sagamq probe", Fault::Break { way: Way::ToBroker, after: 4, how: How::Reset });
    rig.restart();
    assert_eq!(rig.proxy.count("reset"), 1);
    assert!(rig.site.log().contains("waiting for the broker"));
    rig.place_all(&keys("A", 3), &[]);
    rig.finish().assert_all(3, "completed");
}

#[test]
fn a_handshake_that_stalls_is_given_up_and_tried_again() {
    let rig = Rig::start("handshake", &BROKER.url());
    rig.proxy.set_door(Door::Silent);
    for name in [PUBLISHER, CONSUMER] {
        rig.proxy.inject(name, Fault::Break { way: Way::ToClient, after: 0, how: How::Reset });
    }
    rig.place("A-1", &[]);
    // Two of them are the first tries; a third one means that one of these was given up.
    eventually("a handshake is given up", || rig.proxy.count("stalled_handshake") >= 3);
    assert!(!rig.site.is_ready());
    rig.finish().assert_all(1, "completed");
}

#[test]
fn a_broker_that_refuses_connections_is_tried_until_it_takes_them() {
    let rig = Rig::start("refused", &BROKER.url());
    rig.proxy.set_door(Door::Refusing);
    for name in [PUBLISHER, CONSUMER] {
        rig.proxy.inject(name, Fault::Break { way: Way::ToClient, after: 0, how: How::Closed });
    }
    rig.place("A-1", &[]);
    eventually("it tries again", || rig.proxy.count("refused") >= 6);
    rig.finish().assert_all(1, "completed");
}

#[test]
fn a_slow_connection_only_takes_longer() {
    let rig = Rig::start("slow", &BROKER.url());
    for name in [PUBLISHER, CONSUMER] {
        rig.proxy.inject(name, Fault::Slow { bytes_per_second: 20_000 });
    }
    rig.place_all(&keys("A", 20), &[]);
    rig.becomes("A-19", "completed");
    assert!(rig.proxy.count("slow") > 0);
    rig.finish().assert_all(20, "completed");
}
