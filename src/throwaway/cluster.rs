//! Several nodes that are one broker, and partitions between them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Instant;

use super::epmd::Epmd;
use super::ports::{self, greets};
use super::programs::Programs;
use super::{Node, NodeError, POLL, START_TIMEOUT, with_free_ports};

/// Where Erlang keeps what nodes prove to each other that they know, in their home folder.
const COOKIE: &str = ".erlang.cookie";

/// An expression that is true once this node serves nobody, or where it is not meant to stop: with
/// Khepri as its metadata store, a node of a minority goes on, and confirms nothing.
const PAUSED: &str =
    "not rabbit:is_running() orelse (try rabbit_khepri:is_enabled() catch error:undef -> false end)";

/// A broker of several nodes. Those of a minority pause, or confirm nothing, and come back by
/// themselves. All methods block. Dropping it kills all nodes and removes their folders.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

impl Cluster {
    /// Starts nodes of the installed RabbitMQ, one after the other, and returns once all are up:
    /// about 6 s for each.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or a node does not start or join.
    pub fn start(size: usize) -> Result<Self, NodeError> {
        Self::start_in(None, size)
    }

    /// Starts nodes of the RabbitMQ in the system under a root, as [`Node::start_in`] does.
    ///
    /// # Errors
    /// There is none, or this process may not enter it, or a node does not start or join.
    pub fn start_in(root: Option<&Path>, size: usize) -> Result<Self, NodeError> {
        let programs = Programs::find(root)?;
        with_free_ports(|| {
            let [port] = ports::pick()?;
            let epmd = Arc::new(Epmd::start(&programs, port)?);
            let mut nodes = Vec::with_capacity(size);
            for _ in 0..size {
                nodes.push(Node::start_with(&programs, epmd.clone(), Some(&nodes), None)?);
            }
            let cluster = Self { nodes };
            cluster.await_all()?;
            Ok(cluster)
        })
    }

    /// The nodes, in the order in which they were started.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes, to stop, kill and restart them. Keep one running: after all were down, the first
    /// to come back may wait for the others, and its restart fails.
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The URLs to connect to, one a node.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// Cuts a node off from all others, in both directions, and returns once both sides noticed.
    /// Clients still reach both sides. Takes 1 to 4 s.
    ///
    /// # Errors
    /// There is no such node, it does not run, or one of them does not notice.
    pub fn partition(&self, index: usize) -> Result<(), NodeError> {
        let size = self.nodes.len();
        let node = self.nodes.get(index).filter(|node| node.runs());
        let node = node.ok_or(NodeError::NoSuchNode { index, size })?;
        let others = self.others(node);
        // Only this side has the wrong cookie: if both had it, they would match.
        node.eval(&format!(
            "Peers = [{}], [erlang:set_cookie(Peer, cut) || Peer <- Peers], \
             [erlang:disconnect_node(Peer) || Peer <- Peers].",
            names(&others)
        ))?;
        let lost = |peers: &[&Node]| format!("(nodes() -- [{}]) =:= nodes()", names(peers));
        node.await_true(&format!("{} andalso ({PAUSED})", lost(&others)))?;
        let mut running = others.iter().filter(|other| other.runs());
        running.try_for_each(|other| other.await_true(&lost(&[node])))
    }

    /// Ends all partitions, and returns once every node that runs serves again. Takes 2 to 5 s.
    ///
    /// # Errors
    /// A node does not come back.
    pub fn heal(&self) -> Result<(), NodeError> {
        for node in self.running() {
            node.eval(&format!(
                "Peers = [{}], [erlang:set_cookie(Peer, erlang:get_cookie()) || Peer <- Peers], \
                 [net_kernel:connect_node(Peer) || Peer <- Peers].",
                names(&self.others(node))
            ))?;
        }
        self.await_all()
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.runs())
    }

    fn others(&self, node: &Node) -> Vec<&Node> {
        self.nodes.iter().filter(|other| other.name != node.name).collect()
    }

    /// Waits until the nodes that run know each other and take connections.
    fn await_all(&self) -> Result<(), NodeError> {
        let count = self.running().count().to_string();
        let timeout = START_TIMEOUT.as_secs().to_string();
        for node in self.running() {
            let deadline = Instant::now() + START_TIMEOUT;
            while !greets(node.amqp_port) {
                if Instant::now() >= deadline {
                    return Err(NodeError::NotReady { log: node.log_tail() });
                }
                sleep(POLL);
            }
            node.ctl(&["await_online_nodes", &count, "--timeout", &timeout])?;
        }
        Ok(())
    }
}

/// What a node's configuration says of the cluster that it forms with `others`.
pub(super) fn configuration(others: &[Node], node: &Node) -> String {
    let mut text = String::from(
        "cluster_partition_handling = pause_minority\n\
         cluster_formation.peer_discovery_backend = classic_config\n",
    );
    for (n, peer) in others.iter().chain([node]).enumerate() {
        text.push_str(&format!("cluster_formation.classic_config.nodes.{} = {}\n", n + 1, peer.name));
    }
    text
}

/// Gives a node the cookie of the others, if there are any.
pub(super) fn share_cookie(others: &[Node], node: &Node) -> Result<(), NodeError> {
    let Some(first) = others.first() else { return Ok(()) };
    let path = node.folder.join(COOKIE);
    let copied = fs::copy(first.folder.join(COOKIE), &path)
        .and_then(|_| fs::set_permissions(&path, Permissions::from_mode(0o400)));
    copied.map_err(|source| NodeError::Folder { path, source })
}

/// Names of nodes as Erlang writes a list of them, without its brackets.
fn names(nodes: &[&Node]) -> String {
    let quoted: Vec<_> = nodes.iter().map(|node| format!("'{}'", node.name)).collect();
    quoted.join(", ")
}

impl Node {
    fn runs(&self) -> bool {
        self.guard.is_some()
    }

    fn eval(&self, expression: &str) -> Result<String, NodeError> {
        self.ctl(&["eval", expression])
    }

    /// Waits for up to 30 s until an expression is true on the node.
    fn await_true(&self, condition: &str) -> Result<(), NodeError> {
        let wait = format!(
            "Wait = fun Again(0) -> exit(timeout); \
                        Again(N) -> case ({condition}) of \
                            true -> ok; \
                            false -> timer:sleep(50), Again(N - 1) \
                        end end, \
             Wait(600)."
        );
        self.eval(&wait).map(drop)
    }
}
