//! Processes of the binary, each with a folder, a port and settings of its own.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::CANARY;
use crate::port::free_port;

/// No wait in these tests is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How soon a process that is told to stop must have ended, if it waits for nothing.
pub(crate) const PROMPT: Duration = Duration::from_secs(8);

/// The folder and the settings of one orchestrator.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) port: u16,
    environment: Vec<(String, String)>,
    started: Cell<u32>,
}

impl Site {
    /// A folder with the definition `saga`, and a broker that is not there.
    pub(crate) fn new(saga: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut site = Self { folder, port, environment: Vec::new(), started: Cell::new(0) };
        fs::create_dir(site.path("sagas")).unwrap();
        site.write("sagas/order.yaml", saga);
        site.set("HTTP__BIND", &format!("127.0.0.1:{port}"));
        site.set("BROKER__URL", &format!("amqp://app:{CANARY}@127.0.0.1:{}/%2f", free_port()));
        site.set("BROKER__STARTUP_TIMEOUT", "1ms");
        site
    }

    /// The same with a broker that is there.
    pub(crate) fn with_broker(saga: &str, url: &str, prefix: &str) -> Self {
        let mut site = Self::new(saga);
        site.set("BROKER__URL", url);
        site.set("BROKER__PREFIX", prefix);
        site.set("BROKER__STARTUP_TIMEOUT", "30s");
        site
    }

    /// Sets `SAGAMQ_<key>`, for all processes from now on.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.environment.retain(|(known, _)| known != key);
        self.environment.push((key.to_owned(), value.to_owned()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A command in the folder, that knows the settings and nothing else.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagamq"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(key, value)| (format!("SAGAMQ_{key}"), value)));
        command
    }

    /// Starts a command; what it prints goes to files.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.spawn(self.command(arguments))
    }

    /// Starts the orchestrator below another program, which gets its own arguments first.
    pub(crate) fn start_below(&self, program: &Path, arguments: &[&str]) -> Running {
        let orchestrator = self.command(&["run"]);
        let mut command = Command::new(program);
        command.args(arguments).arg(orchestrator.get_program()).args(orchestrator.get_args());
        command.current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.envs(orchestrator.get_envs().filter_map(|(key, value)| value.map(|value| (key, value))));
        self.spawn(command)
    }

    /// Starts what [`Site::command`] made, after changes.
    pub(crate) fn spawn(&self, mut command: Command) -> Running {
        let number = self.started.replace(self.started.get() + 1);
        let [out, err] = ["out", "err"].map(|kind| self.path(&format!("{number}.{kind}")));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Running { child: command.spawn().unwrap(), out, err }
    }

    /// Runs a command to its end.
    pub(crate) fn call(&self, arguments: &[&str]) -> Ended {
        let mut running = self.start(arguments);
        let code = running.ends_within(PATIENCE);
        Ended { code, out: running.out(), err: running.err() }
    }

    /// Runs a command that must end well, and returns what it prints.
    pub(crate) fn printed(&self, arguments: &[&str]) -> String {
        let ended = self.call(arguments);
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{arguments:?}: {ended:?}");
        ended.out
    }

    /// The same of a command that prints JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.printed(arguments)).unwrap()
    }

    /// Starts the orchestrator and waits until it is ready.
    pub(crate) fn run_until_ready(&self) -> Running {
        let mut running = self.start(&["run"]);
        self.wait_until_ready(&mut running);
        running
    }

    pub(crate) fn wait_until_ready(&self, running: &mut Running) {
        let deadline = Instant::now() + PATIENCE;
        while self.call(&["ready"]).code != Some(0) {
            assert_eq!(running.code(), None, "it ended: {}", running.err());
            assert!(Instant::now() < deadline, "it does not get ready: {}", running.err());
        }
    }
}

/// A process that runs; killed with the value.
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn out(&self) -> String {
        read(&self.out)
    }

    pub(crate) fn err(&self) -> String {
        read(&self.err)
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The exit code, if it has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(|status| status.code().expect("no signal ended it"))
    }

    /// The exit code, once it ends.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        loop {
            match self.code() {
                None if Instant::now() < deadline => sleep(Duration::from_millis(5)),
                code => return code,
            }
        }
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it by SIGTERM, which it must obey.
    pub(crate) fn stop(&mut self) {
        self.terminate();
        assert_eq!(self.ends_within(PROMPT), Some(0), "{}", self.err());
        assert!(self.err().contains(": stopped\n"), "{}", self.err());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None where it did not end in time.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Checks that it was refused with this exit code, in one error on stderr that has all of `parts`.
    pub(crate) fn assert_refused(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{self:?}");
        let is_error = |line: &&str| line.starts_with("error: ") || line.contains(" ERROR ");
        assert_eq!(self.err.lines().filter(is_error).count(), 1, "not one error: {}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in {}", self.err);
        }
        for part in ["panicked", "RUST_BACKTRACE", CANARY] {
            assert!(!self.err.contains(part), "{part:?} is in {}", self.err);
        }
    }
}

/// Waits for a condition.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(20));
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}
