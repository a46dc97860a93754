//! The processes of a run. None outlives the one that started it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::peer::Word;
use super::{BenchError, usage};
use crate::throwaway::guard;

/// How long a process may take to end once it is told to.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a log an error shows.
const LOG_LINES: usize = 20;

/// A process. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    voice: Voice,
}

/// How a process tells what is to be known of it.
#[derive(Debug)]
enum Voice {
    Words(Receiver<Word>),
    /// The address of an orchestrator's API.
    Api(String),
}

impl Process {
    /// Starts one that tells words, and ends when its standard input does.
    pub(super) fn peer(name: &'static str, mut command: Command, folder: &Path) -> Result<Self, BenchError> {
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (mut child, log) = spawn(name, command, folder)?;
        let stdout = child.stdout.take().expect("it was asked for a pipe");
        Ok(Self { name, child, log, voice: Voice::Words(words(stdout)) })
    }

    /// Starts an orchestrator, which knows nothing of the bench, and which is asked at its API.
    pub(super) fn guarded(
        name: &'static str,
        command: &Command,
        folder: &Path,
        api: String,
    ) -> Result<Self, BenchError> {
        let mut shell = Command::new("/bin/sh");
        guard(&mut shell);
        shell.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        shell.stdout(Stdio::null());
        let (child, log) = spawn(name, shell, folder)?;
        Ok(Self { name, child, log, voice: Voice::Api(api) })
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it a line. That it is gone is what the caller finds out next.
    pub(super) fn say(&mut self, line: &str) {
        if let Some(stdin) = &mut self.child.stdin {
            let _ = writeln!(stdin, "{line}");
        }
    }

    /// The next word, if there is one within this time.
    ///
    /// # Errors
    /// There will be none, because the process has ended.
    pub(super) fn word(&mut self, limit: Duration) -> Result<Option<Word>, BenchError> {
        let Voice::Words(words) = &self.voice else { return Ok(None) };
        match words.recv_timeout(limit) {
            Ok(word) => Ok(Some(word)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    /// Whether it says that it is ready, within about this time.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn is_ready(&mut self, limit: Duration) -> Result<bool, BenchError> {
        match &self.voice {
            Voice::Words(_) => Ok(matches!(self.word(limit)?, Some(Word::Ready))),
            Voice::Api(address) => {
                let ready = usage::answers(address, "/readyz");
                self.check_alive()?;
                if !ready {
                    sleep(limit);
                }
                Ok(ready)
            }
        }
    }

    /// How often it has committed.
    pub(super) fn commits(&self) -> Result<u64, BenchError> {
        match &self.voice {
            Voice::Words(_) => Ok(0),
            Voice::Api(address) => usage::commits(address),
        }
    }

    /// How long its API takes to answer this.
    ///
    /// # Errors
    /// It has none, or does not answer with success.
    pub(super) fn ask(&self, path: &str) -> Result<Duration, BenchError> {
        match &self.voice {
            Voice::Words(_) => Ok(Duration::ZERO),
            Voice::Api(address) => usage::ask(address, path),
        }
    }

    /// Ends it, and returns its last word.
    ///
    /// # Errors
    /// It had none.
    pub(super) fn finish(&mut self) -> Result<Word, BenchError> {
        drop(self.child.stdin.take());
        self.word(END_TIMEOUT)?.ok_or_else(|| self.late("end", END_TIMEOUT))
    }

    /// Has an orchestrator end as it does when it is stopped, with all that it knows in its store.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn stop(&mut self) -> Result<(), BenchError> {
        // That it is gone is found out next.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        match self.end_within(END_TIMEOUT) {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(self.ended()),
            None => Err(self.late("end", END_TIMEOUT)),
        }
    }

    /// # Errors
    /// It has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(self.ended()),
        }
    }

    /// The error that it did not do something in time.
    pub(super) fn late(&self, what: &'static str, after: Duration) -> BenchError {
        BenchError::Late { name: self.name, what, secs: after.as_secs(), log: self.log_tail() }
    }

    fn ended(&mut self) -> BenchError {
        let status = match self.end_within(END_TIMEOUT) {
            Some(status) => status.to_string(),
            None => "but for its standard output".to_owned(),
        };
        BenchError::Ended { name: self.name, status, log: self.log_tail() }
    }

    fn end_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(5)),
                status => return status.ok().flatten(),
            }
        }
    }

    fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.end_within(END_TIMEOUT);
        // Neither can fail for a process that is still ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a process with a log of its name.
fn spawn(name: &'static str, mut command: Command, folder: &Path) -> Result<(Child, PathBuf), BenchError> {
    let log = folder.join(format!("{name}.log"));
    let opened = File::options().create(true).append(true).open(&log);
    let file = opened.map_err(|source| BenchError::File { path: log.clone(), source })?;
    let child = command.stderr(file).spawn().map_err(|source| BenchError::Spawn { name, source })?;
    Ok((child, log))
}

/// Takes a process at its words. What is none of them ends the talk.
fn words(stdout: ChildStdout) -> Receiver<Word> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let Ok(word) = serde_json::from_str(&line) else { return };
            if sender.send(word).is_err() {
                return;
            }
        }
    });
    receiver
}
