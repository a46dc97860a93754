//! The name server of Erlang nodes.

use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::guard::guard;
use super::programs::Programs;
use super::{NodeError, POLL};

/// How long it may take until it listens, or until it is gone.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An epmd of one's own. It outlives the nodes that it names, because an Erlang program that finds
/// none would start one for good. It ends when this is dropped, or when this process dies.
#[derive(Debug)]
pub(super) struct Epmd {
    pub(super) port: u16,
    guard: Child,
}

impl Epmd {
    /// Starts one that listens on 127.0.0.1, and returns once it does.
    pub(super) fn start(programs: &Programs, port: u16) -> Result<Self, NodeError> {
        let mut command = programs.command(Path::new("/bin/sh"));
        let port_text = port.to_string();
        guard(&mut command);
        command.arg(&programs.epmd).args(["-port", &port_text, "-address", "127.0.0.1"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let spawned = command.spawn();
        let guard = spawned.map_err(|source| NodeError::Spawn { program: programs.epmd.clone(), source })?;
        // From here on, dropping it ends its processes.
        let mut epmd = Self { port, guard };
        let deadline = Instant::now() + TIMEOUT;
        while matches!(epmd.guard.try_wait(), Ok(None)) && Instant::now() < deadline {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(epmd);
            }
            sleep(POLL);
        }
        Err(NodeError::Epmd { port })
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        self.guard.stdin = None;
        let _ = self.guard.wait();
    }
}
