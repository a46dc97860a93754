//! Throw-away RabbitMQ nodes, for the demo, the tests and the benchmarks.
//!
//! A [`Node`] is a whole broker of its own: own ports, own epmd, own cookie and own data, all on
//! 127.0.0.1 and in one temporary folder. A [`Cluster`] is several that share epmd and cookie. They
//! leave nothing behind, however their owner ends:
//!
//! ```text
//! this process --stdin pipe--> epmd, with a guard in its process group
//!              --stdin pipe--> sh (guard, leads a process group)
//!                               `- rabbitmq-server - beam.smp
//! ```
//!
//! The node's guard reads one word a line from its pipe: `stop` ends the server in good order,
//! `kill` ends the group by SIGKILL. The end of the pipe, which a SIGKILL of this process also brings
//! about, removes the folder and then kills the group. And when the server ends by itself, so does
//! the group.
//!
//! A node may also run from the root of another system, as `scripts/brokers` sets up for further
//! versions of RabbitMQ. Then its processes run there by chroot, each in a mount namespace that ends
//! with it.

mod cluster;
mod compose;
mod epmd;
mod error;
mod found;
mod guard;
mod output;
mod ports;
mod programs;
mod tls;

pub use cluster::Cluster;
pub use compose::Compose;
pub use error::NodeError;
pub use found::{Broker, Found, find};
pub(crate) use guard::guard;
pub use tls::Listener;

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use epmd::Epmd;
use output::output;
use ports::greets;
use programs::Programs;

/// How long a node may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a node may take to end in good order before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `rabbitmqctl` may take; what waits in it waits for less.
const CTL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(25);
/// Starts with fresh ports after another process took one of the chosen ones.
const STARTS: u32 = 3;
/// How much of the node's log an error shows.
const LOG_LINES: usize = 20;

/// The guard's script; its parameters are the server and the folder.
const GUARD: &str = r#"
exec 3<&0 </dev/null
"$1" 3<&- &
server=$!
{
    while read -r word <&3; do
        case $word in
            stop) kill -TERM "$server" ;;
            kill) kill -KILL 0 ;;
        esac
    done
    rm -rf "$2" || rm -rf "$2"
    kill -KILL 0
} &
exec 3<&-
wait "$server"
kill -KILL 0
"#;

/// A RabbitMQ node of one's own. All methods block. Dropping it kills the node and removes its
/// folder.
#[derive(Debug)]
pub struct Node {
    programs: Programs,
    epmd: Arc<Epmd>,
    amqp_port: u16,
    /// Nothing listens there unless the node has TLS.
    tls_port: u16,
    distribution_port: u16,
    name: String,
    folder: PathBuf,
    /// Present while the node runs.
    guard: Option<Child>,
}

/// The root of the system whose RabbitMQ tests are to run against: `SAGAMQ_TEST_BROKER_ROOT`, if it
/// is set and not empty.
pub fn test_root() -> Option<PathBuf> {
    std::env::var_os("SAGAMQ_TEST_BROKER_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from)
}

impl Node {
    /// Starts a node of the installed RabbitMQ on free ports and returns once it takes AMQP
    /// connections: about 5 s.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or the node does not start; the error then has its log's tail.
    pub fn start() -> Result<Self, NodeError> {
        Self::start_in(None)
    }

    /// Starts a node of the RabbitMQ that is installed in the system under a root, such as
    /// `scripts/brokers` sets up, or of this machine's if there is none. All else is as in
    /// [`Node::start`].
    ///
    /// # Errors
    /// There is none, or this process may not enter it, or the node does not start.
    pub fn start_in(root: Option<&Path>) -> Result<Self, NodeError> {
        let programs = Programs::find(root)?;
        with_free_ports(|| {
            let [port] = ports::pick()?;
            Self::start_with(&programs, Arc::new(Epmd::start(&programs, port)?), None, None)
        })
    }

    /// Starts a node that also listens with TLS, at [`Node::tls_url`]. All else is as in
    /// [`Node::start_in`].
    ///
    /// # Errors
    /// There is none, or this process may not enter it, or the node does not start.
    pub fn start_with_tls(root: Option<&Path>, listener: &Listener) -> Result<Self, NodeError> {
        let programs = Programs::find(root)?;
        with_free_ports(|| {
            let [port] = ports::pick()?;
            Self::start_with(&programs, Arc::new(Epmd::start(&programs, port)?), None, Some(listener))
        })
    }

    /// The URL to connect to: user guest, virtual host `/`.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.amqp_port)
    }

    /// The version of RabbitMQ, such as `3.10.8`. Takes 1 s.
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub fn version(&self) -> Result<String, NodeError> {
        self.ctl(&["version"]).map(|version| version.trim().to_owned())
    }

    /// Ends the node in good order, as an administrator would; its data stays. By SIGKILL if it
    /// takes longer than 30 s.
    pub fn stop(&mut self) {
        self.say("stop");
        if !self.ended_within(STOP_TIMEOUT) {
            self.kill();
        }
    }

    /// Has the node write down the names of its new quorum queues, which it does only every now and
    /// then. Takes 1 to 2 s.
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub fn settle(&self) -> Result<(), NodeError> {
        self.ctl(&["eval", "lists:foreach(fun dets:sync/1, dets:all())."]).map(drop)
    }

    /// Ends the node by SIGKILL, all processes at once; its data stays as it is.
    ///
    /// On 3.10.8, a quorum queue that was declared just before the kill was seen to have no leader
    /// after the restart, for good: to declare it again hangs. Call [`Node::settle`] first.
    pub fn kill(&mut self) {
        self.say("kill");
        self.ended_within(STOP_TIMEOUT);
    }

    /// Starts the node again on the same ports and data; stops it before if it runs.
    ///
    /// # Errors
    /// The node does not start.
    pub fn restart(&mut self) -> Result<(), NodeError> {
        if self.guard.is_some() {
            self.stop();
        }
        self.launch()
    }

    /// Runs `rabbitmqctl` against the node and returns what it prints. Takes 1 to 2 s.
    ///
    /// # Errors
    /// The command fails; the error has its output.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, NodeError> {
        let mut command = self.command(&self.programs.ctl);
        command.arg("--quiet").args(arguments);
        output(command, CTL_TIMEOUT)
    }

    /// Closes all client connections from the broker's side, as an administrator may.
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub fn close_connections(&self) -> Result<(), NodeError> {
        self.ctl(&["close_all_connections", "closed by its throw-away node"]).map(drop)
    }

    /// Has the broker take nothing more from publishers, by its memory alarm, until
    /// [`Node::unblock_publishers`] or a restart. It sends `connection.blocked` to those that publish
    /// then. In a cluster this holds for all nodes.
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub fn block_publishers(&self) -> Result<(), NodeError> {
        self.ctl(&["set_vm_memory_high_watermark", "0"]).map(drop)
    }

    /// Ends the alarm of [`Node::block_publishers`].
    ///
    /// # Errors
    /// `rabbitmqctl` fails.
    pub fn unblock_publishers(&self) -> Result<(), NodeError> {
        self.ctl(&["set_vm_memory_high_watermark", "0.4"]).map(drop)
    }

    /// Starts a node that is alone, or one that joins `others` and forms a cluster with them.
    fn start_with(
        programs: &Programs,
        epmd: Arc<Epmd>,
        others: Option<&[Node]>,
        listener: Option<&Listener>,
    ) -> Result<Self, NodeError> {
        let [amqp_port, tls_port, distribution_port] = ports::pick()?;
        let (name, folder) = fresh_folder()?;
        let programs = programs.clone();
        // From here on, dropping the node removes the folder.
        let mut node =
            Self { programs, epmd, amqp_port, tls_port, distribution_port, name, folder, guard: None };
        let mut config = format!("listeners.tcp.1 = 127.0.0.1:{amqp_port}\nnum_acceptors.tcp = 2\n");
        if let Some(others) = others {
            config.push_str(&cluster::configuration(others, &node));
            cluster::share_cookie(others, &node)?;
        }
        if let Some(listener) = listener {
            config.push_str(&node.listen_with(listener)?);
        }
        let plugins = listener.map_or("[].\n".to_owned(), Listener::plugins);
        for (file, text) in [("rabbitmq.conf", &*config), ("env.conf", ""), ("plugins", &*plugins)] {
            let path = node.folder.join(file);
            fs::write(&path, text).map_err(|source| NodeError::Folder { path, source })?;
        }
        node.launch()?;
        Ok(node)
    }

    fn launch(&mut self) -> Result<(), NodeError> {
        let log = self.folder.join("console");
        let opened = fs::File::options().create(true).append(true).open(&log);
        let console = opened.map_err(|source| NodeError::Folder { path: log, source })?;
        let errors =
            console.try_clone().map_err(|source| NodeError::Folder { path: "console".into(), source })?;
        let mut command = self.command(Path::new("/bin/sh"));
        command.args(["-c", GUARD, "guard"]).arg(&self.programs.server).arg(&self.folder);
        command.process_group(0).stdin(Stdio::piped()).stdout(console).stderr(errors);
        let guard = command.spawn();
        self.guard =
            Some(guard.map_err(|source| NodeError::Spawn { program: self.programs.server.clone(), source })?);
        self.wait_until_ready()
    }

    /// Waits until the broker's part of the AMQP handshake arrives: an open port alone proves
    /// little.
    fn wait_until_ready(&mut self) -> Result<(), NodeError> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if self.ended_within(Duration::ZERO) {
                return Err(NodeError::Ended { log: self.log_tail() });
            }
            if greets(self.amqp_port) {
                return Ok(());
            }
            sleep(POLL);
        }
        self.kill();
        Err(NodeError::NotReady { log: self.log_tail() })
    }

    /// A program that runs in the node's environment and in no other: neither the user's settings
    /// nor those of an installed broker reach it.
    fn command(&self, program: &Path) -> Command {
        let file = |name: &str| OsString::from(self.folder.join(name));
        let loopback = "-kernel inet_dist_use_interface {127,0,0,1}";
        let mut command = self.programs.command(program);
        command.current_dir(&self.folder).envs([
            ("HOME", self.folder.clone().into()),
            ("TMPDIR", self.folder.clone().into()),
            ("LANG", "C.UTF-8".into()),
            ("ERL_EPMD_PORT", self.epmd.port.to_string().into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", self.name.clone().into()),
            ("RABBITMQ_DIST_PORT", self.distribution_port.to_string().into()),
            ("RABBITMQ_MNESIA_BASE", file("data")),
            ("RABBITMQ_LOG_BASE", file("log")),
            ("RABBITMQ_PID_FILE", file("pid")),
            ("RABBITMQ_CONFIG_FILE", file("rabbitmq")),
            ("RABBITMQ_CONFIG_FILES", file("conf.d")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config")),
            ("RABBITMQ_CONF_ENV_FILE", file("env.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", file("plugins")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", file("config")),
            // Schedulers that are bound to cores cannot make way for the programs that share these.
            ("RABBITMQ_SCHEDULER_BIND_TYPE", "u".into()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("+S 2:2 {loopback}").into()),
            ("RABBITMQ_CTL_ERL_ARGS", loopback.into()),
        ]);
        command
    }

    /// Tells the guard a word. That it is gone already is what the caller finds out next.
    fn say(&mut self, word: &str) {
        if let Some(pipe) = self.guard.as_mut().and_then(|guard| guard.stdin.as_mut()) {
            let _ = writeln!(pipe, "{word}");
        }
    }

    /// Whether the node's processes ended and its ports are free again.
    fn ended_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while let Some(guard) = &mut self.guard {
            // `Err` would mean that there is no such child.
            if !matches!(guard.try_wait(), Ok(None)) {
                self.guard = None;
            } else if Instant::now() >= deadline {
                return false;
            } else {
                sleep(POLL);
            }
        }
        // The kernel closes the sockets of a killed process a little after its parent is told.
        let deadline = Instant::now() + Duration::from_secs(5);
        let ports = [self.amqp_port, self.tls_port, self.distribution_port];
        while !ports.into_iter().all(ports::is_free) && Instant::now() < deadline {
            sleep(POLL);
        }
        true
    }

    /// The last lines of the log and of what the node printed.
    fn log_tail(&self) -> String {
        let console = fs::read(self.folder.join("console")).unwrap_or_default();
        let log = fs::read(self.folder.join(format!("log/{}.log", self.name))).unwrap_or_default();
        let text = [log, console].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.stdin = None;
        }
        self.ended_within(STOP_TIMEOUT);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Starts something; again on other ports if another process took one of the chosen ones.
fn with_free_ports<T>(start: impl Fn() -> Result<T, NodeError>) -> Result<T, NodeError> {
    for _ in 1..STARTS {
        match start() {
            Err(NodeError::Ended { log }) if log.contains("eaddrinuse") || log.contains("in use") => {}
            Err(NodeError::Epmd { .. }) => {}
            other => return other,
        }
    }
    start()
}

/// A new folder that only this user may enter, and the node name that goes with it.
fn fresh_folder() -> Result<(String, PathBuf), NodeError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let name = format!("sagamq-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(&name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok((format!("{name}@localhost"), path)),
            // Left by an earlier process of the same id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(NodeError::Folder { path, source }),
        }
    }
}
