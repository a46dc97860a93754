//! Which broker is at hand.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::output::output;
use super::programs::locate;
use super::{Compose, Node, NodeError, compose};

/// How long a container engine may take to say that it is there.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);

/// What [`find`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A broker of the user's own, at the URL in `SAGAMQ_BROKER__URL`.
    Url(String),
    /// A local `rabbitmq-server`, to be started as a node of its own.
    Local,
    /// A container engine with Docker Compose, and a `docker-compose.yml` in this folder.
    Compose,
    /// None of these.
    Nothing,
}

/// A broker to use for a while. What was started for it ends when it is dropped.
#[derive(Debug)]
pub enum Broker {
    /// The user's own, which is left as it is.
    Given(String),
    /// A throw-away node.
    Node(Node),
    /// A throw-away container.
    Compose(Compose),
}

/// Looks for a broker: the environment first, then a local server, then containers. Starts
/// nothing.
pub fn find() -> Found {
    match std::env::var("SAGAMQ_BROKER__URL") {
        Ok(url) if !url.is_empty() => Found::Url(url),
        _ if locate("rabbitmq-server").is_some() => Found::Local,
        _ if Path::new(compose::FILE).exists() && engine_answers() => Found::Compose,
        _ => Found::Nothing,
    }
}

impl Found {
    /// Makes ready what was found. Blocks: 5 s for a local node, minutes where an image must be
    /// fetched.
    ///
    /// # Errors
    /// Nothing was found, or it does not start.
    pub fn start(self) -> Result<Broker, NodeError> {
        match self {
            Found::Url(url) => Ok(Broker::Given(url)),
            Found::Local => Node::start().map(Broker::Node),
            Found::Compose => Compose::up().map(Broker::Compose),
            Found::Nothing => Err(NodeError::NotFound("rabbitmq-server")),
        }
    }
}

impl Broker {
    /// The URL to connect to.
    pub fn url(&self) -> String {
        match self {
            Broker::Given(url) => url.clone(),
            Broker::Node(node) => node.url(),
            Broker::Compose(compose) => compose.url(),
        }
    }
}

/// Whether there is an engine that runs, and the Compose plugin.
fn engine_answers() -> bool {
    [["version", "--format={{.Server.Version}}"], ["compose", "version"]].iter().all(|arguments| {
        let mut command = Command::new("docker");
        command.args(arguments);
        output(command, ENGINE_TIMEOUT).is_ok()
    })
}
