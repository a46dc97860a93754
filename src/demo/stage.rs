//! The processes of the demo: a broker, the orchestrator, the sample services.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::orders::{Order, PRICE_CENTS};
use super::{DemoError, Fault, Options};
use crate::saga::instance::Status;
use crate::throwaway::{self, Broker};

/// How long the orchestrator may take to get ready.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a process may take to end in good order.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// The sample services that run all the time.
const SERVICES: [&str; 5] = ["inventory", "payment", "shipping", "email", "analytics"];
/// The one that places orders, and ends.
const ORDER: &str = "order";
/// The orchestrator's name among the processes, and of its log.
const ORCHESTRATOR: &str = "orchestrator";
/// Sagas asked for at once; as many as the API gives.
const PAGE: usize = 500;

/// Everything that runs. Dropping it ends the processes, then the broker, then removes the folder.
pub(super) struct Stage {
    children: Vec<(&'static str, Child)>,
    broker: Broker,
    folder: TempDir,
    options: Options,
    run_id: String,
    port: u16,
}

/// Looks for everything that is to run.
pub(super) fn look(options: &Options) -> Result<(), DemoError> {
    let services = SERVICES.into_iter().chain([ORDER]).map(|name| service(options, name));
    match [options.binary.clone()].into_iter().chain(services).find(|program| !program.exists()) {
        Some(missing) => Err(DemoError::NotBuilt(missing)),
        None => Ok(()),
    }
}

impl Stage {
    /// Finds or starts the broker.
    pub(super) fn set(options: &Options) -> Result<Self, DemoError> {
        let broker = throwaway::find().start()?;
        if options.fault == Fault::Broker && !matches!(broker, Broker::Node(_)) {
            return Err(DemoError::ForeignBroker);
        }
        let folder = tempfile::Builder::new()
            .prefix("sagamq-demo-")
            .tempdir()
            .map_err(|source| DemoError::File { path: std::env::temp_dir(), source })?;
        let port = free_port().map_err(|source| DemoError::File { path: "127.0.0.1".into(), source })?;
        let run_id = format!("demo-{:x}", chrono::Utc::now().timestamp_millis());
        Ok(Self { children: Vec::new(), broker, folder, options: options.clone(), run_id, port })
    }

    pub(super) fn start_all(&mut self) -> Result<(), DemoError> {
        for name in SERVICES {
            let mut command = Command::new(service(&self.options, name));
            command.env("LEDGER", self.folder.path().join(format!("{name}.ledger")));
            self.start(name, command)?;
        }
        self.start_orchestrator()
    }

    /// Where the broker comes from, in words.
    pub(super) fn broker_name(&self) -> &'static str {
        match self.broker {
            Broker::Given(_) => "yours, from SAGAMQ_BROKER__URL",
            Broker::Node(_) => "a throw-away node",
            Broker::Compose(_) => "a throw-away container",
        }
    }

    /// What the keys of this run's orders begin with.
    pub(super) fn run_id(&self) -> &str {
        &self.run_id
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Has the order service place all orders, some twice, and something that is no order.
    pub(super) fn place(&self, orders: &[Order]) -> Result<(), DemoError> {
        let again = orders.iter().filter(|order| order.fate == super::Fate::Duplicate);
        let mut lines = String::new();
        for order in orders.iter().chain(again) {
            let Order { id, fate, quantity } = order;
            let (customer, product, price) = (fate.customer(), fate.product(), PRICE_CENTS as f64 / 100.0);
            lines.push_str(&format!(
                "--order-id {id} --customer {customer} --product {product} --quantity {quantity} --price {price}\n"
            ));
        }
        lines.push_str("--garbage\n");
        let failed = |text: String| DemoError::NotPlaced(text);
        let mut command = Command::new(service(&self.options, ORDER));
        command.arg("--stdin").env("AMQP_URL", self.broker.url());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|source| DemoError::Spawn { program: ORDER.to_owned(), source })?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes()).map_err(|error| failed(error.to_string()))?;
        }
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
    }

    /// Where each of this run's sagas stands; `None` while the orchestrator does not answer.
    pub(super) fn statuses(&self) -> Option<HashMap<String, Status>> {
        let mut statuses = HashMap::new();
        let mut cursor = String::new();
        loop {
            let page = self.ask(&format!("/api/v1/sagas?saga=order&limit={PAGE}{cursor}"))?;
            for item in page["items"].as_array()? {
                let key = item["business_key"].as_str()?;
                if key.starts_with(&self.run_id) {
                    let status = serde_json::from_value(item["status"].clone()).ok()?;
                    statuses.insert(key.to_owned(), status);
                }
            }
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Some(statuses),
            }
        }
    }

    /// How many messages the orchestrator has given up.
    pub(super) fn dead_letters(&self) -> usize {
        let page = self.ask("/api/v1/dead-letters?limit=100");
        page.and_then(|page| page["items"].as_array().map(Vec::len)).unwrap_or(0)
    }

    /// That the orchestrator ended by itself is worth a clear word.
    pub(super) fn check_alive(&mut self) -> Result<(), DemoError> {
        let log = self.log_tail(ORCHESTRATOR);
        let orchestrator = self.children.iter_mut().find(|(name, _)| *name == ORCHESTRATOR);
        match orchestrator.map(|(_, child)| child.try_wait()) {
            Some(Ok(Some(status))) => Err(DemoError::Ended { status: status.to_string(), log }),
            _ => Ok(()),
        }
    }

    /// Kills something by SIGKILL and starts it again.
    pub(super) fn inject(&mut self, fault: Fault) -> Result<(), DemoError> {
        match (fault, &mut self.broker) {
            (Fault::None, _) => Ok(()),
            (Fault::Orchestrator, _) => {
                if let Some(at) = self.children.iter().position(|(name, _)| *name == ORCHESTRATOR) {
                    let (_, mut child) = self.children.remove(at);
                    let _ = child.kill();
                    let _ = child.wait();
                }
                self.start_orchestrator()
            }
            (Fault::Broker, Broker::Node(node)) => {
                node.settle()?;
                node.kill();
                Ok(node.restart()?)
            }
            (Fault::Broker, _) => Err(DemoError::ForeignBroker),
        }
    }

    /// Stops the payment service in its tracks, so that orders wait for it.
    pub(super) fn hold_payment(&self) {
        self.signal("payment", Signal::STOP);
    }

    /// Lets it go on.
    pub(super) fn release_payment(&self) {
        self.signal("payment", Signal::CONT);
    }

    /// Ends the services and the orchestrator in good order; those that do not end are killed.
    pub(super) fn stop_all(&mut self) {
        for name in SERVICES.into_iter().chain([ORCHESTRATOR]) {
            self.signal(name, Signal::CONT);
            self.signal(name, Signal::TERM);
        }
        let deadline = Instant::now() + END_TIMEOUT;
        for (_, mut child) in self.children.drain(..) {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Keeps logs and ledgers, and says where.
    pub(super) fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Sends a signal to a process of ours. One that has ended is none the worse for it: it is not
    /// waited for yet, so its id is still its own.
    fn signal(&self, name: &str, signal: Signal) {
        for (_, child) in self.children.iter().filter(|(known, _)| *known == name) {
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
        }
    }

    fn start_orchestrator(&mut self) -> Result<(), DemoError> {
        let mut command = Command::new(&self.options.binary);
        command
            .arg("run")
            .env("SAGAMQ_BROKER__URL", self.broker.url())
            .env("SAGAMQ_BROKER__PREFIX", format!("sagamq-{}", self.run_id))
            .env("SAGAMQ_STORE__PATH", self.folder.path().join("store"))
            .env("SAGAMQ_HTTP__BIND", format!("127.0.0.1:{}", self.port))
            .env("SAGAMQ_DEFINITIONS", &self.options.definitions);
        self.start(ORCHESTRATOR, command)?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while self.ask("/readyz").is_none() {
            self.check_alive()?;
            super::check_interrupt(&self.options)?;
            if Instant::now() > deadline {
                return Err(DemoError::NotReady { log: self.log_tail(ORCHESTRATOR) });
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts a process whose output goes to a log of its name.
    fn start(&mut self, name: &'static str, mut command: Command) -> Result<(), DemoError> {
        let path = self.folder.path().join(format!("{name}.log"));
        let file_error = |source| DemoError::File { path: path.clone(), source };
        let log = File::options().create(true).append(true).open(&path).map_err(file_error)?;
        let errors = log.try_clone().map_err(file_error)?;
        command.env("AMQP_URL", self.broker.url()).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child =
            command.spawn().map_err(|source| DemoError::Spawn { program: name.to_owned(), source })?;
        self.children.push((name, child));
        Ok(())
    }

    /// Asks the admin API; `None` if it does not answer, or not with success.
    fn ask(&self, path: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut response =
            ureq::get(&url).config().timeout_global(Some(Duration::from_secs(5))).build().call().ok()?;
        response.body_mut().read_json().ok()
    }

    fn log_tail(&self, name: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop_all();
    }
}

fn service(options: &Options, name: &str) -> PathBuf {
    options.binary.with_file_name("examples").join(name)
}

/// A port that is free now; the orchestrator binds it a moment later.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
