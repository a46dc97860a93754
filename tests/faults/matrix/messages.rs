//! Messages: confirms, returns, duplicates, and what nobody can use.

use lapin::options::{
    BasicGetOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;

use super::{closed_channels, keys, redelivered, repeated};
use crate::participant::Behaviour;
use crate::proxy::{Fault, How, Way, What};
use crate::rig::Rig;
use crate::{BROKER, CONSUMER, PUBLISHER, eventually, peer};

#[test]
fn a_lost_confirm_has_the_same_bytes_published_again() {
    let rig = Rig::start("confirm-lost", &BROKER.url());
    // All of this connection: a later one may confirm what those before it did.
    rig.proxy.inject(PUBLISHER, Fault::SwallowConfirms(u32::MAX));
    rig.place_all(&keys("A", 10), &[]);
    eventually("confirms are lost", || rig.proxy.count("confirm_swallowed") > 0);
    eventually("it takes another connection", || {
        rig.site.log().contains("no answer to published messages within 5s")
    });
    let evidence = rig.finish();
    evidence.assert_all(10, "completed");
    assert!(repeated(&evidence.journal) > 0, "nothing was published again");
}

#[test]
fn a_message_that_the_broker_does_not_take_goes_out_again_until_it_does() {
    let rig = Rig::start("nacked", &BROKER.url());
    // A queue that has one message and takes no more: from then on the broker nacks what is routed to it.
    let (queue, exchange) = (format!("{}.full", rig.prefix), format!("{}.payment", rig.prefix));
    rig.blocking(async |peer| {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let options = QueueDeclareOptions::durable();
        peer.channel.queue_declare(queue.as_str().into(), options, arguments).await?;
        peer.publish("", &queue, peer::json("filler"), b"").await?;
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let (queue, exchange) = (queue.as_str(), exchange.as_str());
        peer.channel
            .queue_bind(queue.into(), exchange.into(), "payment.charge".into(), options, none)
            .await?;
        Ok(Some(()))
    });
    rig.place_all(&keys("A", 5), &[]);
    let nacks = || {
        let journal = rig.proxy.journal();
        journal.iter().filter(|record| matches!(record.what, What::Confirmed { taken: false, .. })).count()
    };
    eventually("the broker nacks", || nacks() >= 5);
    rig.faulted("broker_nack");
    rig.blocking(async |peer| {
        peer.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.map(Some)
    });
    let evidence = rig.finish();
    evidence.assert_all(5, "completed");
    repeated(&evidence.journal);
}

#[test]
fn a_confirm_that_says_no_has_the_same_bytes_published_again() {
    let rig = Rig::start("turned", &BROKER.url());
    rig.proxy.inject(PUBLISHER, Fault::NackConfirms(3));
    rig.place_all(&keys("A", 10), &[]);
    eventually("confirms say no", || rig.proxy.count("confirm_nacked") == 3);
    let evidence = rig.finish();
    evidence.assert_all(10, "completed");
    assert!(repeated(&evidence.journal) > 0, "nothing was published again");
}

#[test]
fn an_unroutable_command_counts_as_an_attempt_and_the_policy_decides() {
    let rig = Rig::start("unroutable", &BROKER.url());
    rig.bind("stock", false);
    rig.place("A-1", &[]);
    rig.becomes("A-1", "compensated");
    rig.faulted("unroutable");
    let returned: Vec<_> = rig
        .proxy
        .journal()
        .into_iter()
        .filter_map(|record| match record.what {
            What::Returned { message_id, .. } => Some(message_id),
            _ => None,
        })
        .collect();
    assert_eq!(returned.len(), 4, "{returned:?}");
    assert_eq!(rig.details("A-1")["error"]["code"], "UNROUTABLE");

    rig.bind("stock", true);
    rig.place("A-2", &[]);
    rig.becomes("A-2", "completed");
    let evidence = rig.finish();
    assert_eq!(evidence.lines("stock.ledger").len(), 1, "a command that went nowhere was done");
}

#[test]
fn an_exchange_that_is_missing_closes_a_channel_and_loses_no_command() {
    let rig = Rig::start("no-exchange", &BROKER.url());
    let exchange = format!("{}.stock", rig.prefix);
    rig.blocking(async |peer| {
        let options = ExchangeDeleteOptions::default();
        peer.channel.exchange_delete(exchange.as_str().into(), options).await.map(Some)
    });
    rig.place("A-1", &[]);
    // The exchange is made again, but nobody is bound to it any more.
    rig.becomes("A-1", "compensated");
    rig.faulted("exchange_missing");
    assert_eq!(closed_channels(&rig.proxy.journal(), PUBLISHER), [404]);
    assert!(rig.site.log().contains("the broker refused a message"));
    assert_eq!(rig.details("A-1")["error"]["code"], "UNROUTABLE");
    rig.bind("stock", true);
    rig.place("A-2", &[]);
    rig.becomes("A-2", "completed");
    rig.finish();
}

#[test]
fn a_channel_that_the_broker_closes_over_an_ack_is_followed_by_a_fresh_one() {
    let rig = Rig::start("precondition", &BROKER.url());
    for name in [PUBLISHER, CONSUMER] {
        rig.proxy.inject(name, Fault::ForgeAck);
    }
    rig.place_all(&keys("A", 20), &[]);
    for name in [PUBLISHER, CONSUMER] {
        eventually("the broker closes the channel", || closed_channels(&rig.proxy.journal(), name) == [406]);
    }
    assert_eq!(rig.proxy.count("ack_forged"), 2);
    let evidence = rig.finish();
    evidence.assert_all(20, "completed");
    // A tag of the closed channel, used on the fresh one, would have closed that as well.
    assert_eq!(closed_channels(&evidence.journal, CONSUMER), [406]);
    assert!(redelivered(&evidence.journal) > 0, "nothing was delivered again");
}

#[test]
fn deliveries_whose_ack_got_lost_come_again_and_change_nothing() {
    let rig = Rig::start("ack-lost", &BROKER.url());
    rig.proxy.inject(CONSUMER, Fault::SwallowAcks(u32::MAX));
    rig.place_all(&keys("A", 10), &[]);
    for key in keys("A", 10) {
        rig.becomes(&key, "completed");
    }
    rig.replays_from_here();
    rig.proxy.inject(CONSUMER, Fault::Break { way: Way::ToClient, after: 0, how: How::Reset });
    // Ten starts and thirty replies.
    eventually("all of it comes again", || redelivered(&rig.proxy.journal()) >= 40);
    assert!(rig.proxy.count("ack_swallowed") > 0);
    let evidence = rig.finish();
    evidence.assert_all(10, "completed");
    let ledgers =
        ["stock.ledger", "payment.ledger", "shipping.ledger"].map(|name| evidence.lines(name).len());
    assert_eq!(ledgers, [10, 10, 10]);
}

#[test]
fn starts_commands_and_replies_that_come_twice_change_nothing() {
    let rig = Rig::start("twice", &BROKER.url());
    let twice = ["stock.reserve", "payment.charge", "shipping.ship"].map(|key| (key, Behaviour::Duplicate));
    let (queue, exchange) = (format!("{}.again", rig.prefix), format!("{}.stock", rig.prefix));
    rig.blocking(async |peer| peer.make_queue(&queue, &[(exchange.clone(), "#")]).await.map(Some));
    rig.place_all(&keys("A", 5), &twice);
    let steps = || keys("A", 5).iter().map(|key| rig.details(key)["steps"].clone()).collect::<Vec<Value>>();
    let ignored = |count: u64| keys("A", 5).iter().all(|key| rig.details(key)["ignored"] == count);
    for key in keys("A", 5) {
        rig.becomes(&key, "completed");
    }
    eventually("the second replies are recorded", || ignored(3));
    let before = steps();

    rig.replays_from_here();
    rig.place_all(&keys("A", 5), &twice);
    for _ in 0..5 {
        // A participant answers it from its ledger.
        rig.blocking(async |peer| {
            let options = BasicGetOptions { no_ack: true };
            let copy = peer.channel.basic_get(queue.as_str().into(), options).await?;
            let Some(copy) = copy else { return Ok(None) };
            let properties = copy.delivery.properties.clone();
            peer.publish(&exchange, "stock.reserve", properties, &copy.delivery.data).await.map(Some)
        });
    }
    rig.faulted("duplicate");
    // The same start once more leaves no trace at all.
    eventually("the further replies are recorded", || ignored(4));
    assert_eq!(before, steps());
    let evidence = rig.finish();
    evidence.assert_all(5, "completed");
    assert_eq!(evidence.lines("stock.ledger").len(), 5);
}

#[test]
fn poison_is_dead_lettered_once_and_holds_up_nothing() {
    let rig = Rig::start("poison", &BROKER.url());
    let poison: [&[u8]; 4] = [b"", b"{\"order_id\": ", b"\xff\xfe", b"[1, 2, 3]"];
    for (number, body) in poison.iter().enumerate() {
        for queue in ["events", "replies"] {
            rig.place_garbage(queue, &format!("poison-{queue}-{number}"), body);
        }
    }
    rig.place_all(&keys("A", 5), &[]);
    rig.faulted("poison");
    let evidence = rig.finish();
    evidence.assert_all(5, "completed");
    assert_eq!(evidence.lines("dead.jsonl").len(), 8, "not once each");
}

#[test]
fn huge_messages_are_refused_in_bounded_memory() {
    let rig = Rig::start("huge", &BROKER.url());
    let body = vec![b' '; 8 << 20];
    let before = rig.peak_memory();
    for number in 0..20 {
        rig.place_garbage("events", &format!("huge-{number}"), &body);
    }
    rig.place("A-1", &[]);
    rig.becomes("A-1", "completed");
    rig.faulted("huge_message");
    let more = rig.peak_memory() - before;
    assert!(more < 100 << 20, "{} MiB more for 160 MiB of messages", more >> 20);
    let evidence = rig.finish();
    evidence.assert_all(1, "completed");
    assert_eq!(evidence.lines("dead.jsonl").len(), 20);
}
