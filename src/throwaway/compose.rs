//! A throw-away broker from `docker-compose.yml`.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::output::output;
use super::{NodeError, ports};

/// The file that says how to run a broker, in the working folder.
pub(super) const FILE: &str = "docker-compose.yml";

/// How long the broker may take to come up, its image fetched first.
const UP_TIMEOUT: Duration = Duration::from_secs(1800);
/// The password of a container that only this host can reach, and only for a while.
const PASSWORD: &str = "throw-away";

/// Takes everything of a project down once its standard input ends; its parameters are the file
/// and the project.
const GUARD: &str =
    r#"cat >/dev/null; docker compose -f "$1" -p "$2" down --volumes --timeout 5 >/dev/null 2>&1"#;

/// The broker of `docker-compose.yml`, as a project of its own on a free port. It is taken down
/// with its data when this is dropped, or when this process dies.
#[derive(Debug)]
pub struct Compose {
    port: u16,
    guard: Child,
}

impl Compose {
    /// Brings the service `rabbitmq` up and returns once its health check passes.
    ///
    /// # Errors
    /// The engine cannot fetch or start it; the error has what it said.
    pub fn up() -> Result<Self, NodeError> {
        let [port, management] = ports::pick()?;
        let project = format!("sagamq-{}-{}", std::process::id(), port);
        // The guard stands before there is anything to guard.
        let compose = Self { port, guard: guard(&project)? };
        let mut command = Command::new("docker");
        command.args(["compose", "-f", FILE, "-p", &project, "up", "--detach", "--wait", "rabbitmq"]).envs([
            ("RABBITMQ_PASSWORD", PASSWORD.to_owned()),
            ("RABBITMQ_PORT", port.to_string()),
            ("RABBITMQ_MANAGEMENT_PORT", management.to_string()),
        ]);
        output(command, UP_TIMEOUT)?;
        Ok(compose)
    }

    /// The URL to connect to from this host.
    pub fn url(&self) -> String {
        format!("amqp://sagamq:{PASSWORD}@127.0.0.1:{}/%2f", self.port)
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        self.guard.stdin = None;
        let _ = self.guard.wait();
    }
}

/// A process group of its own, so that Ctrl-C in the terminal does not end the guard first.
fn guard(project: &str) -> Result<Child, NodeError> {
    Command::new("/bin/sh")
        .args(["-c", GUARD, "guard", FILE, project])
        .env("RABBITMQ_PASSWORD", PASSWORD)
        .process_group(0)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|source| NodeError::Spawn { program: PathBuf::from("/bin/sh"), source })
}
