//! The real binary, as a process.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::PATIENCE;
use crate::port::free_port;

/// Where an orchestrator lives, and how it is started.
pub(crate) struct Site {
    folder: PathBuf,
    port: u16,
    environment: Vec<(String, String)>,
}

/// A process that runs; killed with the value.
pub(crate) struct Running(Child);

impl Site {
    /// A site in a folder with definitions in `sagas`.
    pub(crate) fn new(folder: &Path, broker_url: &str, prefix: &str) -> Self {
        let port = free_port();
        let mut site = Self { folder: folder.to_owned(), port, environment: Vec::new() };
        site.set("SAGAMQ_BROKER__URL", broker_url);
        site.set("SAGAMQ_BROKER__PREFIX", prefix);
        site.set("SAGAMQ_BROKER__CONFIRM_TIMEOUT", "5s");
        site.set("SAGAMQ_STORE__PATH", "store");
        site.set("SAGAMQ_DEFINITIONS", "sagas");
        site.set("SAGAMQ_HTTP__BIND", &format!("127.0.0.1:{port}"));
        site
    }

    /// Sets an environment variable for all processes from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the orchestrator. What it says is appended to `orchestrator.log`. `failpoints` say where it
    /// dies by itself, and which bugs it has (see `src/fault.rs`).
    pub(crate) fn start(&self, failpoints: &str) -> Running {
        let log =
            File::options().append(true).create(true).open(self.folder.join("orchestrator.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagamq"));
        command.arg("run").current_dir(&self.folder).env_clear().envs(self.environment.iter().cloned());
        command.env("FAILPOINTS", failpoints);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running(command.spawn().unwrap())
    }

    /// Runs a command that must end well, and returns what it prints.
    pub(crate) fn printed(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sagamq"));
        command.args(arguments).current_dir(&self.folder).env_clear().envs(self.environment.iter().cloned());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the log says so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("orchestrator.log")).unwrap_or_default()
    }

    /// Whether it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        ureq::get(format!("http://127.0.0.1:{}/readyz", self.port)).call().is_ok()
    }

    /// What the API answers.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        ureq::get(format!("http://127.0.0.1:{}/api/v1/{path}", self.port))
            .call()
            .ok()?
            .body_mut()
            .read_json()
            .ok()
    }
}

impl Running {
    /// Ends it by SIGKILL.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Stops it in its tracks, for good: it can only be killed from here on.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Has it begin to end in good order.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Has it reload its definitions.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Whether it was ended by SIGKILL. That it ended by itself is a failure.
    pub(crate) fn is_killed(&mut self) -> bool {
        let Some(status) = self.0.try_wait().unwrap() else { return false };
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "it ended by itself: {status}");
        true
    }

    /// Ends it by SIGTERM, and returns its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.terminate();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.exit_code() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                code => return code,
            }
        }
    }

    /// The most memory that it had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The exit code, if it has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.0.try_wait().unwrap().map(|status| status.code().expect("no signal ended it"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
