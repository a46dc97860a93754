//! A throw-away broker comes up, in any version, keeps its data over restarts, can be made to fail,
//! and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use sagamq::throwaway::{self, Cluster, Node, NodeError};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// No wait in these tests is longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// For so long a publish has to stay unconfirmed to count as refused.
const REFUSED: Duration = Duration::from_secs(3);

#[test]
fn a_node_keeps_its_data_over_a_kill_and_a_restart() {
    let mut node = support::broker();
    node.ctl(&["add_vhost", "kept"]).unwrap();
    let url = node.url();
    let folder = environment(&node, "HOME");
    assert!(Path::new(&folder).exists());

    node.kill();
    assert!(!listens(&url));
    node.restart().unwrap();
    assert_eq!(node.url(), url);
    assert!(listens(&url));
    assert!(node.ctl(&["list_vhosts"]).unwrap().contains("kept"));

    node.restart().unwrap();
    assert!(node.ctl(&["list_vhosts"]).unwrap().contains("kept"));
    node.close_connections().unwrap();
    assert!(node.ctl(&["no_such_command"]).is_err());

    drop(node);
    assert!(!listens(&url));
    assert!(!Path::new(&folder).exists());
}

#[test]
fn a_node_ends_when_its_owner_is_killed() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "holds_a_node_until_it_is_killed", "--nocapture"];
    let mut owner = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap).skip_while(|line| !line.starts_with("amqp://"));
    let [url, epmd, folder] = [(); 3].map(|()| lines.next().unwrap());
    let there = || [listens(&url), listens(&epmd), Path::new(&folder).exists()];
    assert_eq!(there(), [true; 3]);

    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while there() != [false; 3] {
        assert!(Instant::now() < deadline, "a dead process left broker, epmd or folder: {:?}", there());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "run by a_node_ends_when_its_owner_is_killed"]
fn holds_a_node_until_it_is_killed() {
    let node: Node = support::broker();
    let [epmd, folder] = ["ERL_EPMD_PORT", "HOME"].map(|name| environment(&node, name));
    println!("\n{}\n127.0.0.1:{epmd}\n{folder}", node.url());
    loop {
        std::thread::park();
    }
}

#[test]
fn every_version_that_is_set_up_keeps_a_confirmed_message_over_a_kill() {
    let roots: Vec<_> = ["trixie", "sid"]
        .map(|suite| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/brokers").join(suite))
        .into_iter()
        .filter(|root| root.join("rabbitmq-version").exists())
        .collect();
    if roots.is_empty() || !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root, and the versions of RabbitMQ that scripts/brokers sets up");
        return;
    }
    for root in roots {
        let version = std::fs::read_to_string(root.join("rabbitmq-version")).unwrap();
        let mut node = Node::start_in(Some(&root)).unwrap();
        assert_eq!(node.version().unwrap(), version.trim());

        let client = Client::connect(&node.url());
        client.declare("kept");
        assert!(client.publish("kept", "confirmed", PATIENCE));
        node.settle().unwrap();
        node.kill();
        node.restart().unwrap();
        let client = Client::connect(&node.url());
        client.declare("kept");
        assert_eq!(client.drain("kept"), BTreeSet::from(["confirmed".to_owned()]), "{version}");
    }
}

#[test]
fn a_root_without_a_broker_is_refused_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let error = Node::start_in(Some(root.path())).unwrap_err();
    assert!(matches!(error, NodeError::Root { .. }), "{error}");
    assert!(error.to_string().contains("scripts/brokers"), "{error}");
    assert_eq!(root.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_node_blocks_and_unblocks_its_publishers() {
    let node = support::broker();
    let client = Client::connect(&node.url());
    client.declare("blocked");
    assert!(client.publish("blocked", "before", PATIENCE));

    node.block_publishers().unwrap();
    // The broker tells a connection with the first that it publishes.
    client.publish("blocked", "into the alarm", Duration::from_secs(1));
    eventually("the connection is blocked", || client.connection.status().blocked());
    assert!(!client.publish("blocked", "during", REFUSED));

    node.unblock_publishers().unwrap();
    eventually("the connection is unblocked", || !client.connection.status().blocked());
    assert!(client.publish("blocked", "after", PATIENCE));
}

#[test]
fn a_minority_confirms_nothing_and_serves_again_once_healed() {
    let mut cluster = Cluster::start_in(throwaway::test_root().as_deref(), 3).unwrap();
    let urls = cluster.urls();
    // Declared through the node that is cut off, so that the queue's leader is there.
    let minority = Client::connect(&urls[0]);
    minority.declare("split");
    assert!(minority.publish("split", "before", PATIENCE));

    cluster.partition(0).unwrap();
    assert!(!minority.publish("split", "minority", REFUSED));
    let majority = Client::connect(&urls[1]);
    eventually("the majority confirms", || majority.publish("split", "majority", REFUSED));
    assert!(cluster.partition(3).is_err());

    cluster.heal().unwrap();
    let healed = Client::connect(&urls[0]);
    eventually("the healed node confirms", || healed.publish("split", "healed", REFUSED));
    let kept = healed.drain("split");
    for confirmed in ["before", "majority", "healed"] {
        assert!(kept.contains(confirmed), "{confirmed} was confirmed, and is not among {kept:?}");
    }
    cluster.nodes_mut()[2].kill();
    assert!(majority.publish("split", "without the third", PATIENCE));
    cluster.nodes_mut()[2].restart().unwrap();
}

/// A client that waits for each answer.
struct Client {
    channel: Channel,
    connection: Connection,
    runtime: Runtime,
}

impl Client {
    fn connect(url: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let connecting = async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            (connection, channel)
        };
        let (connection, channel) = runtime.block_on(async { timeout(PATIENCE, connecting).await }).unwrap();
        Self { channel, connection, runtime }
    }

    fn declare(&self, queue: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declaring = self.channel.queue_declare(queue.into(), options, arguments);
        self.runtime.block_on(async { timeout(PATIENCE, declaring).await.unwrap().unwrap() });
    }

    /// Whether the broker confirms a message in time.
    fn publish(&self, queue: &str, body: &str, limit: Duration) -> bool {
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        let publishing = async {
            let exchange = "".into();
            let published =
                self.channel.basic_publish(exchange, queue.into(), options, body.as_bytes(), properties);
            published.await?.await
        };
        let outcome = self.runtime.block_on(async { timeout(limit, publishing).await });
        matches!(outcome, Ok(Ok(Confirmation::Ack(None))))
    }

    /// Takes everything out of a queue.
    fn drain(&self, queue: &str) -> BTreeSet<String> {
        let taking = async {
            let mut bodies = BTreeSet::new();
            let options = BasicGetOptions { no_ack: true };
            while let Some(message) = self.channel.basic_get(queue.into(), options).await.unwrap() {
                bodies.insert(String::from_utf8(message.delivery.data).unwrap());
            }
            bodies
        };
        self.runtime.block_on(async { timeout(PATIENCE, taking).await.unwrap() })
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listens(url: &str) -> bool {
    let address = url.rsplit('@').next().unwrap().trim_end_matches("/%2f");
    TcpStream::connect(address).is_ok()
}

/// A variable of a node's environment.
fn environment(node: &Node, name: &str) -> String {
    let value = node.ctl(&["eval", &format!("os:getenv(\"{name}\").")]).unwrap();
    value.trim().trim_matches('"').to_owned()
}
