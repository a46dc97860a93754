//! Commands that are given only so much time.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::NodeError;

/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a command to its end and returns what it printed. One that takes longer than the limit, such
/// as for an engine on a host that is gone, is killed, and failed.
pub(super) fn output(mut command: Command, limit: Duration) -> Result<String, NodeError> {
    let program = PathBuf::from(command.get_program());
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(source) => return Err(NodeError::Spawn { program, source }),
    };
    let process = Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    // Its pipes have to be read while it runs. The receiver may have given up.
    thread::spawn(move || drop(sender.send(child.wait_with_output())));
    let output = ended.recv_timeout(limit).unwrap_or_else(|_| {
        // It was not yet waited for, so that the id is still its own.
        let _ = kill_process(process, Signal::KILL);
        let _ = ended.recv_timeout(KILL_TIMEOUT);
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end within {} s", limit.as_secs())))
    });
    let said = match output {
        Ok(output) => {
            let [printed, errors] =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            if output.status.success() {
                return Ok(printed);
            }
            format!("{printed}{errors}").trim().to_owned()
        }
        Err(error) => error.to_string(),
    };
    let arguments = command.get_args().map(|argument| argument.to_string_lossy());
    // A script is left out.
    let arguments: Vec<_> = arguments.filter(|argument| !argument.contains('\n')).collect();
    Err(NodeError::Command {
        command: format!("{} {}", program.display(), arguments.join(" ")),
        output: said,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_succeeds_only_by_ending_well_in_time() {
        let run = |line: &[&str], limit| {
            let mut command = Command::new(line[0]);
            command.args(&line[1..]);
            output(command, limit)
        };
        let minute = Duration::from_secs(60);
        assert_eq!(run(&["echo", "said"], minute).unwrap(), "said\n");
        assert!(matches!(run(&["false"], minute), Err(NodeError::Command { .. })));
        assert!(matches!(run(&["no-such-program-as-this"], minute), Err(NodeError::Spawn { .. })));
        let late = run(&["sleep", "600"], Duration::from_millis(1)).unwrap_err();
        assert!(late.to_string().contains("sleep 600 failed: no end within"), "{late}");
    }
}
