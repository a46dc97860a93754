//! The consumer and the publisher over a real broker.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sagamq::amqp::{AmqpError, Consumer, Publisher, Topology, probe};
use sagamq::config::{BrokerConfig, QueueType, Secret, TopologyMode};
use sagamq::delivery::{Delivery, Queue, Report, Settlement, Verdict};
use sagamq::health::Health;
use sagamq::saga::correlation::{Asked, Sealer};
use sagamq::saga::exchange::Exchange;
use sagamq::saga::id::{InstanceId, MessageId, Phase, StoreId};
use sagamq::saga::message::{Header, Headers, Message, Origin, Outgoing, Part};
use sagamq::saga::plan::Subscription;
use sagamq::saga::time::Timestamp;
use sagamq::throwaway::Node;
use serde_json::json;
use tokio::sync::{RwLock, mpsc, watch};
use tokio::time::timeout;

/// No wait in these tests is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// One broker for all tests here; restarting it needs it alone.
static BROKER: LazyLock<Arc<RwLock<Node>>> = LazyLock::new(|| Arc::new(RwLock::new(support::broker())));

/// One orchestrator's part of the broker, and a peer that publishes and looks on.
struct Bench {
    config: BrokerConfig,
    topology: Arc<Topology>,
    peer: Channel,
    _connection: Connection,
}

impl Bench {
    async fn new(name: &str, url: &str) -> Self {
        let prefix = format!("{name}-{}", std::process::id());
        let config = config(url, &prefix);
        let exchange = format!("{prefix}.topic");
        let topology = Arc::new(Topology {
            prefix,
            queue_type: QueueType::Quorum,
            mode: TopologyMode::Declare,
            exchanges: vec![Exchange::topic(&exchange)],
            subscriptions: vec![Subscription::topic(exchange, "routed.#")],
            unneeded: Vec::new(),
        });
        probe(&config, &topology).await.unwrap();
        let (_connection, peer) = connect(url).await;
        Self { config, topology, peer, _connection }
    }

    fn publisher(&self) -> (Publisher, mpsc::UnboundedReceiver<Report>) {
        let (sender, reports) = mpsc::unbounded_channel();
        (Publisher::start(&self.config, self.followed(), sender, Arc::default()), reports)
    }

    fn consumer(&self, capacity: usize) -> (Consumer, mpsc::Receiver<Delivery>, Arc<Health>) {
        let (sender, deliveries) = mpsc::channel(capacity);
        let health = Arc::new(Health::default());
        (Consumer::start(&self.config, self.followed(), sender, health.clone(), None), deliveries, health)
    }

    /// The topology as it is followed; it does not change.
    fn followed(&self) -> watch::Receiver<Topology> {
        watch::channel(Topology::clone(&self.topology)).1
    }

    fn exchange(&self) -> &str {
        &self.topology.exchanges[0].name
    }

    async fn put(&self, queue: &str, body: &str) {
        let confirm = self.peer.basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            BasicProperties::default(),
        );
        confirm.await.unwrap();
    }

    /// Takes the next message out of a queue, once there is one.
    async fn get(&self, queue: &str) -> lapin::message::BasicGetMessage {
        let getting = async {
            loop {
                let options = BasicGetOptions { no_ack: true };
                if let Some(message) = self.peer.basic_get(queue.into(), options).await.unwrap() {
                    return message;
                }
            }
        };
        timeout(PATIENCE, getting).await.expect("a message in the queue")
    }

    /// Messages that wait in a queue.
    async fn depth(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let declared = self.peer.queue_declare(queue.into(), options, FieldTable::default());
        declared.await.unwrap().message_count()
    }
}

fn config(url: &str, prefix: &str) -> BrokerConfig {
    BrokerConfig {
        url: Secret::new(url),
        prefix: prefix.to_owned(),
        prefetch: 100,
        startup_timeout: PATIENCE,
        ..BrokerConfig::default()
    }
}

async fn connect(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

fn attempt_header(attempt: u32) -> Headers {
    let mut headers = Headers::default();
    headers.put("x-saga-attempt", Header::Number(attempt));
    headers
}

fn message(exchange: &str, key: &str, n: u32) -> Outgoing {
    let instance = InstanceId::new("order", "A-1");
    let asked = Asked { instance, step: 0, phase: Phase::Action, attempt: n };
    Outgoing {
        origin: Origin { instance, part: Part::Attempt { step: 0, phase: Phase::Action, attempt: n } },
        exchange: exchange.into(),
        key: key.into(),
        message_id: MessageId::attempt(StoreId::default(), instance, "step", Phase::Action, n),
        wants_reply: true,
        correlation: Some(Sealer::new([1; 32]).issue(asked, Timestamp(0))),
        timestamp: Timestamp(1_767_323_045_000),
        headers: attempt_header(n),
        body: json!({"n": n}).to_string().into_bytes(),
        extras: None,
        repeated: false,
    }
}

async fn next<T>(receiver: impl Future<Output = Option<T>>) -> T {
    timeout(PATIENCE, receiver).await.expect("in time").expect("an open channel")
}

fn understood(delivery: &Delivery) -> &Message {
    delivery.content.as_ref().unwrap()
}

#[tokio::test]
async fn the_topology_is_made_and_checked() {
    let broker = BROKER.read().await;
    let bench = Bench::new("topology", &broker.url()).await;
    let with = |change: fn(&mut Topology)| {
        let mut topology = Topology::clone(&bench.topology);
        change(&mut topology);
        topology
    };
    let check =
        async |topology: Topology| probe(&bench.config, &topology).await.map_err(|error| error.to_string());

    assert_eq!(check(with(|topology| topology.mode = TopologyMode::Verify)).await, Ok(()));
    assert_eq!(check(with(|_| ())).await, Ok(()));

    let missing = with(|topology| {
        topology.mode = TopologyMode::Verify;
        topology.exchanges.push(Exchange::topic("no-such-exchange"));
    });
    let error = check(missing).await.unwrap_err();
    assert!(
        error.contains("exchange \"no-such-exchange\"") && error.contains("set broker.topology to declare"),
        "{error}"
    );

    let different = with(|topology| topology.queue_type = QueueType::Classic);
    let error = check(different).await.unwrap_err();
    assert!(error.contains("queue \"topology-") && error.contains("it exists but is different"), "{error}");
}

// On further threads, since this one blocks.
#[tokio::test(flavor = "multi_thread")]
async fn a_topology_that_changes_is_followed_while_deliveries_go_on() {
    let broker = BROKER.read().await;
    let bench = Bench::new("follow", &broker.url()).await;
    let (sender, mut deliveries) = mpsc::channel(10);
    let (topology, followed) = watch::channel(Topology::clone(&bench.topology));
    let consumer = Consumer::start(&bench.config, followed, sender, Arc::default(), None);
    let exchange = bench.exchange();
    let publish = async |key: &str| {
        let options = BasicPublishOptions::default();
        let published =
            bench.peer.basic_publish(exchange.into(), key.into(), options, b"{}", BasicProperties::default());
        published.await.unwrap();
    };
    publish("routed.first").await;
    assert_eq!(understood(&next(deliveries.recv()).await).key, "routed.first");

    let [old, new] = ["routed.#", "other.#"].map(|pattern| Subscription::topic(exchange, pattern));
    let never = Subscription::topic("no-such-exchange", "#");
    topology.send_modify(|topology| {
        topology.subscriptions = vec![new];
        topology.unneeded = vec![never, old];
    });
    let queue = bench.topology.events_queue();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let printed =
            broker.ctl(&["list_bindings", "source_name", "destination_name", "routing_key"]).unwrap();
        let of_exchange = printed.lines().filter(|line| line.starts_with(&format!("{exchange}\t{queue}\t")));
        let keys: Vec<_> = of_exchange.filter_map(|line| line.rsplit('\t').next()).collect();
        if keys == ["other.#"] {
            break;
        }
        assert!(Instant::now() < deadline, "{printed}");
    }
    publish("routed.second").await;
    publish("other.first").await;
    assert_eq!(understood(&next(deliveries.recv()).await).key, "other.first");
    consumer.close().await;
}

#[tokio::test]
async fn a_broker_that_cannot_be_used_is_told_with_its_remedy() {
    let broker = BROKER.read().await;
    let bench = Bench::new("probe", &broker.url()).await;
    let try_url = async |url: &str| {
        let mut config = config(url, "probe");
        config.startup_timeout = Duration::from_secs(1);
        probe(&config, &bench.topology).await.unwrap_err()
    };
    let url = broker.url();
    let (_, address) = url.split_once("://").unwrap();
    let host = address.rsplit('@').next().unwrap().split('/').next().unwrap();

    let error = try_url(&format!("amqp://nobody:hunter2@{host}/%2f")).await;
    assert!(matches!(error, AmqpError::AccessRefused { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");

    let error = try_url(&format!("amqp://guest:guest@{host}/nowhere")).await;
    assert!(matches!(&error, AmqpError::VirtualHost { vhost, .. } if vhost == "nowhere"), "{error}");

    // The client library can be built so that it takes TLS for plain TCP, password and all.
    let error = try_url(&format!("amqps://guest:guest@{host}/%2f")).await;
    assert!(matches!(error, AmqpError::Tls(_)), "{error}");

    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = try_url(&format!("amqp://guest:hunter2@{unused}/%2f")).await;
    assert!(matches!(error, AmqpError::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn exactly_the_unroutable_messages_are_reported_so() {
    let broker = BROKER.read().await;
    let bench = Bench::new("unroutable", &broker.url()).await;
    let (publisher, mut reports) = bench.publisher();
    let exchange = bench.exchange();
    let messages = (0..300).map(|n| match n % 3 {
        0 => message(exchange, "routed.here", n),
        1 => message(exchange, "elsewhere", n),
        _ => message("no-such-exchange", "routed.here", n),
    });
    publisher.publish(messages.collect());

    let mut verdicts = HashMap::new();
    for _ in 0..300 {
        let report = next(reports.recv()).await;
        let Part::Attempt { attempt, .. } = report.origin.part else { panic!("{report:?}") };
        assert_eq!(verdicts.insert(attempt, report.verdict), None, "two reports for {attempt}");
    }
    for (n, verdict) in verdicts {
        let expected = match (n % 3, &verdict) {
            (0, verdict) => *verdict == Verdict::Published,
            (1, Verdict::Unroutable { reason, .. }) => reason.contains("no queue is bound"),
            (_, Verdict::Unroutable { reason, maybe_delivered }) => {
                reason.contains("NOT_FOUND") && !maybe_delivered
            }
            _ => false,
        };
        assert!(expected, "message {n}: {verdict:?}");
    }
    assert_eq!(publisher.close(PATIENCE).await, 0);

    let published = bench.get(&bench.topology.events_queue()).await.delivery;
    let properties = &published.properties;
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(properties.reply_to(), &Some(bench.topology.replies_queue().as_str().into()));
    let sent =
        [properties.message_id(), properties.correlation_id()].map(|id| id.as_ref().map(ToString::to_string));
    let message = message(exchange, "routed.here", 0);
    assert_eq!(sent, [Some(message.message_id.to_string()), message.correlation_id()]);
}

#[tokio::test]
async fn a_message_that_the_broker_refuses_does_not_hold_up_the_others() {
    let broker = BROKER.read().await;
    let bench = Bench::new("refused", &broker.url()).await;
    let (publisher, mut reports) = bench.publisher();
    let internal = message("amq.rabbitmq.trace", "x", 0);
    let long = message(bench.exchange(), &"k".repeat(300), 1);
    publisher.publish(vec![internal, long, message(bench.exchange(), "routed.here", 2)]);
    for _ in 0..3 {
        let report = next(reports.recv()).await;
        let Part::Attempt { attempt, .. } = report.origin.part else { panic!("{report:?}") };
        let reason = match &report.verdict {
            Verdict::Published => "",
            Verdict::Unroutable { reason, .. } => reason,
        };
        let expected = ["the broker refuses", "routing key is longer than 255 bytes", ""][attempt as usize];
        assert!(reason.starts_with(expected) && reason.is_empty() == expected.is_empty(), "{report:?}");
    }
    assert_eq!(publisher.close(PATIENCE).await, 0);
}

#[tokio::test]
async fn poison_is_dead_lettered_and_one_ack_settles_the_rest() {
    let broker = BROKER.read().await;
    let bench = Bench::new("settle", &broker.url()).await;
    let replies = bench.topology.replies_queue();
    let (consumer, mut deliveries, _) = bench.consumer(8);
    for n in 0..50 {
        let body = if n == 25 { "{poison".to_owned() } else { json!({"n": n}).to_string() };
        bench.put(&replies, &body).await;
    }
    let mut settlement = Settlement::default();
    for n in 0..50 {
        let delivery = next(deliveries.recv()).await;
        assert_eq!(delivery.token.queue, Queue::Replies);
        match &delivery.content {
            Ok(message) => assert_eq!(message.data, json!({"n": n})),
            Err(rejected) => {
                assert_eq!((rejected.preview.as_str(), rejected.size), ("{poison", 7));
                settlement.reject.push(delivery.token);
                continue;
            }
        }
        settlement.ack.push(delivery.token);
    }
    let last = settlement.ack.pop().unwrap();
    consumer.settle(Settlement { ack: vec![last], ..settlement });
    consumer.close().await;

    let dead = bench.get(&bench.topology.dead_queue()).await.delivery;
    assert_eq!(dead.data, b"{poison");
    assert_eq!(bench.depth(&replies).await, 0);
}

#[tokio::test]
async fn a_dead_letter_that_is_moved_back_is_the_event_that_it_was() {
    let broker = BROKER.read().await;
    let bench = Bench::new("back", &broker.url()).await;
    let (publisher, _reports) = bench.publisher();
    let (consumer, mut deliveries, _) = bench.consumer(8);
    publisher.publish(vec![message(bench.exchange(), "routed.here", 1)]);
    let first = next(deliveries.recv()).await;
    consumer.settle(Settlement { reject: vec![first.token], ..Default::default() });

    let dead = bench.get(&bench.topology.dead_queue()).await.delivery;
    let events = bench.topology.events_queue();
    let options = BasicPublishOptions::default();
    let moved = bench.peer.basic_publish(
        "".into(),
        events.as_str().into(),
        options,
        &dead.data,
        dead.properties.clone(),
    );
    moved.await.unwrap().await.unwrap();
    let again = next(deliveries.recv()).await;
    let (first, again) = (understood(&first), understood(&again));
    assert_eq!((&again.exchange, &again.key, &again.data), (&first.exchange, &first.key, &first.data));
    consumer.close().await;
}

#[tokio::test]
async fn a_pause_ends_the_inflow_and_keeps_the_settlements() {
    let broker = BROKER.read().await;
    let bench = Bench::new("pause", &broker.url()).await;
    let events = bench.topology.events_queue();
    let (consumer, mut deliveries, health) = bench.consumer(1000);
    bench.put(&events, "1").await;
    let first = next(deliveries.recv()).await;
    let ready = async {
        while !health.consuming.is_set() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ready).await.unwrap();
    consumer.pause();
    consumer.settle(Settlement { ack: vec![first.token], ..Default::default() });
    consumer.close().await;
    bench.put(&events, "2").await;
    assert_eq!(deliveries.recv().await, None);
    assert!(!health.consuming.is_set());
    assert_eq!(bench.get(&events).await.delivery.data, b"2");
}

#[tokio::test]
async fn a_deleted_queue_is_made_and_consumed_again_and_old_tokens_are_ignored() {
    let broker = BROKER.read().await;
    let bench = Bench::new("deleted", &broker.url()).await;
    let events = bench.topology.events_queue();
    let (consumer, mut deliveries, _) = bench.consumer(8);
    bench.put(&events, "1").await;
    let old = next(deliveries.recv()).await;
    bench.peer.queue_delete(events.as_str().into(), QueueDeleteOptions::default()).await.unwrap();

    // The queue may not be there yet: publish until the message arrives.
    let published = async {
        loop {
            bench.put(&events, "2").await;
            if let Ok(delivery) = timeout(Duration::from_millis(100), deliveries.recv()).await {
                return delivery.unwrap();
            }
        }
    };
    let new = timeout(PATIENCE, published).await.unwrap();
    assert_eq!(understood(&new).data, json!(2));
    assert_eq!(new.token.epoch, old.token.epoch + 1);

    consumer.settle(Settlement { ack: vec![old.token, new.token], reject: vec![old.token] });
    consumer.close().await;
    assert_eq!(bench.depth(&bench.topology.dead_queue()).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_broker_loses_no_message_and_no_report() {
    let mut broker = BROKER.clone().write_owned().await;
    let bench = Bench::new("restart", &broker.url()).await;
    let (publisher, mut reports) = bench.publisher();
    let (consumer, mut deliveries, _) = bench.consumer(64);
    let exchange = bench.exchange().to_owned();

    // Messages are under way all the time, so some are unconfirmed when the broker goes.
    let mut seen = HashSet::new();
    let mut reported = HashSet::new();
    let mut messages = 1;
    publisher.publish(vec![message(&exchange, "routed.here", 0)]);
    let first = next(deliveries.recv()).await;
    seen.insert(understood(&first).data["n"].as_u64());
    let restarting = tokio::task::spawn_blocking(move || broker.restart());
    while !restarting.is_finished() || reported.len() < messages as usize || seen.len() < messages as usize {
        if !restarting.is_finished() && publisher.outstanding() < 500 {
            publisher
                .publish((messages..messages + 50).map(|n| message(&exchange, "routed.here", n)).collect());
            messages += 50;
        }
        tokio::select! {
            report = reports.recv() => {
                let report = report.unwrap();
                assert_eq!(report.verdict, Verdict::Published);
                assert!(reported.insert(report.origin), "two reports for {:?}", report.origin);
            }
            delivery = deliveries.recv() => {
                let delivery = delivery.unwrap();
                seen.insert(understood(&delivery).data["n"].as_u64());
                consumer.settle(Settlement { ack: vec![delivery.token], ..Default::default() });
            }
            () = tokio::time::sleep(PATIENCE) => panic!("{} of {messages} reported, {} seen", reported.len(), seen.len()),
        }
    }
    restarting.await.unwrap().unwrap();

    // A message after the restart proves that both have come back.
    publisher.publish(vec![message(&exchange, "routed.here", messages)]);
    let last = async {
        loop {
            let delivery = next(deliveries.recv()).await;
            consumer.settle(Settlement { ack: vec![delivery.token], ..Default::default() });
            if understood(&delivery).data["n"] == json!(messages) {
                return delivery.token.epoch;
            }
        }
    };
    let last = timeout(PATIENCE, last).await.unwrap();
    assert!(last > 1, "the broker did not restart");
    assert_eq!(publisher.close(PATIENCE).await, 0);
    consumer.close().await;
}
