//! The proxy itself, between plain clients and a broker.

use std::time::{Duration, Instant};

use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm};
use tokio::time::timeout;

use crate::proxy::{Door, Fault, How, Proxy, Record, Verdict, Way, What};
use crate::{BROKER, PATIENCE, eventually};

/// A client of the proxy, with a queue of its own.
struct Client {
    connection: Connection,
    channel: Channel,
    queue: String,
}

impl Client {
    async fn connect(proxy: &Proxy, name: &str) -> Self {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = Connection::connect(&proxy.url(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let queue = format!("proxy-{}", proxy.port);
        let declared = channel.queue_declare(
            queue.as_str().into(),
            QueueDeclareOptions::durable(),
            FieldTable::default(),
        );
        declared.await.unwrap();
        Self { connection, channel, queue }
    }

    async fn send(&self, id: &str) -> PublisherConfirm {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let properties = properties.with_message_id(id.into());
        self.channel
            .basic_publish("".into(), self.queue.as_str().into(), options, b"body", properties)
            .await
            .unwrap()
    }

    async fn is_lost(&self) {
        let lost = async {
            while self.connection.status().connected() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, lost).await.expect("the connection is lost");
    }
}

fn passed<T>(proxy: &Proxy, of: impl Fn(Record) -> Option<T>) -> Vec<T> {
    proxy.journal().into_iter().filter_map(of).collect()
}

#[tokio::test]
async fn what_passes_is_written_down_with_the_ids_that_tags_stand_for() {
    let proxy = Proxy::start(&BROKER.url());
    let client = Client::connect(&proxy, "writer").await;
    let ids = ["a", "b", "c"];
    for id in ids {
        assert_eq!(client.send(id).await.await.unwrap(), Confirmation::Ack(None));
    }
    let consuming = client.channel.basic_consume(
        client.queue.as_str().into(),
        "tag".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let deliveries: Vec<_> = consuming.await.unwrap().take(3).collect().await;
    let last = deliveries.last().unwrap().as_ref().unwrap();
    last.ack(BasicAckOptions { multiple: true }).await.unwrap();
    client.connection.close(200, "done".into()).await.unwrap();

    eventually("the end is written down", || {
        passed(&proxy, |record| (record.what == What::Gone).then_some(())).len() == 1
    });
    let published = passed(&proxy, |record| match record.what {
        What::Published { message_id, .. } => Some((record.name, message_id)),
        _ => None,
    });
    assert_eq!(published, ids.map(|id| ("writer".to_owned(), id.to_owned())));
    let confirmed = passed(&proxy, |record| match record.what {
        What::Confirmed { message_id, taken: true } => Some(message_id),
        _ => None,
    });
    assert_eq!(confirmed, ids);
    let delivered = passed(&proxy, |record| match record.what {
        What::Delivered { queue, message_id, redelivered: false, .. } => Some((queue, message_id)),
        _ => None,
    });
    assert_eq!(delivered, ids.map(|id| (client.queue.clone(), id.to_owned())));
    let settled = passed(&proxy, |record| match record.what {
        What::Settled { queue, message_id, verdict: Verdict::Acked } => Some((queue, message_id)),
        _ => None,
    });
    assert_eq!(settled, delivered);
}

#[tokio::test]
async fn a_connection_breaks_as_it_is_told_and_only_the_one_that_is_named() {
    let proxy = Proxy::start(&BROKER.url());
    let bystander = Client::connect(&proxy, "bystander").await;
    for (how, way) in
        [(How::Closed, Way::ToClient), (How::Reset, Way::ToBroker), (How::MidFrame, Way::ToClient)]
    {
        let client = Client::connect(&proxy, "victim").await;
        assert_eq!(proxy.inject("victim", Fault::Break { way, after: 0, how }), 1);
        // Heartbeats are frames too, so nothing has to be sent.
        client.is_lost().await;
        assert_eq!(proxy.count(how.kind()), 1, "{how:?}");
        eventually("the proxy lets go of it", || proxy.connections("victim") == 0);
    }
    assert_eq!(bystander.send("a").await.await.unwrap(), Confirmation::Ack(None));
}

#[tokio::test]
async fn a_stalled_connection_stays_open_until_its_heart_is_missed() {
    let proxy = Proxy::start(&BROKER.url());
    let client = Client::connect(&proxy, "stalled").await;
    proxy.inject("stalled", Fault::Stall);
    let since = Instant::now();
    let confirm = client.send("a").await;
    client.is_lost().await;
    assert!(since.elapsed() > Duration::from_millis(900), "it was lost at once");
    assert!(confirm.await.is_err());
    assert_eq!(proxy.connections("stalled"), 1, "the proxy keeps its sides open");
    proxy.heal();
    eventually("the stalled connection is closed", || proxy.connections("stalled") == 0);
    assert!(proxy.count("stall") > 0);
}

#[tokio::test]
async fn confirms_get_lost_or_turned_and_the_rest_does_not() {
    let proxy = Proxy::start(&BROKER.url());
    proxy.arm("publisher", Fault::SwallowConfirms(1));
    let client = Client::connect(&proxy, "publisher").await;
    let lost = client.send("lost").await;
    eventually("a confirm is lost", || proxy.count("confirm_swallowed") == 1);
    assert_eq!(client.send("kept").await.await.unwrap(), Confirmation::Ack(None));
    assert!(lost.now_or_never().is_none(), "its confirm came");
    proxy.inject("publisher", Fault::NackConfirms(1));
    assert!(matches!(client.send("turned").await.await.unwrap(), Confirmation::Nack(_)));
    assert_eq!(proxy.count("confirm_nacked"), 1);
}

#[tokio::test]
async fn the_broker_closes_a_channel_over_an_ack_that_is_forged() {
    let proxy = Proxy::start(&BROKER.url());
    let client = Client::connect(&proxy, "forger").await;
    proxy.inject("forger", Fault::ForgeAck);
    // Whether this one is confirmed before the channel is closed is up to the broker.
    let _ = client.send("a").await.await;
    eventually("the broker closes the channel", || {
        let closed = passed(&proxy, |record| match record.what {
            What::ChannelClosed { code, .. } => Some(code),
            _ => None,
        });
        closed == [406]
    });
    assert!(client.connection.status().connected());
}

#[tokio::test]
async fn the_door_can_be_shut_and_lead_elsewhere() {
    let proxy = Proxy::start(&BROKER.url());
    let url = proxy.url();
    let connect = || Connection::connect(&url, ConnectionProperties::default());
    proxy.set_door(Door::Refusing);
    assert!(connect().await.is_err());
    proxy.set_door(Door::Silent);
    assert!(timeout(Duration::from_millis(300), connect()).await.is_err(), "somebody answered");
    assert_eq!((proxy.count("refused"), proxy.count("stalled_handshake")), (1, 1));

    proxy.heal();
    let elsewhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    proxy.retarget(&format!("amqp://guest:guest@{}/%2f", elsewhere.local_addr().unwrap()));
    tokio::select! {
        _ = connect() => panic!("nobody is there to answer"),
        came = timeout(PATIENCE, elsewhere.accept()) => came.expect("it comes here").unwrap(),
    };
}

#[tokio::test]
async fn a_slow_connection_is_slow() {
    let proxy = Proxy::start(&BROKER.url());
    let client = Client::connect(&proxy, "slow").await;
    proxy.inject("slow", Fault::Slow { bytes_per_second: 20_000 });
    let since = Instant::now();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let body = vec![0; 10_000];
    let sent =
        client.channel.basic_publish("".into(), client.queue.as_str().into(), options, &body, properties);
    assert_eq!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None));
    assert!(since.elapsed() > Duration::from_millis(400), "{:?}", since.elapsed());
}
