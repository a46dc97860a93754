//! What the disk does meanwhile: small writes at even distances, each made durable.
//!
//! A disk that is shared stands still now and then, and all that is to be durable waits. These writes tell when;
//! whether the load itself has slowed the disk, they cannot tell.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::BenchError;
use super::latency::Latency;

/// From one write to the next: seldom enough to be no load.
const EVERY: Duration = Duration::from_millis(10);
/// The same in words.
pub(super) const IN_WORDS: &str = "a write of 4 KiB with fdatasync each 10 ms";
/// Bytes of one.
const BYTES: usize = 4 << 10;
/// Writes after which the file is written from its beginning, as a log is.
const SLOTS: u64 = 256;

/// Writes under way. They end when it is dropped.
pub(super) struct DiskWatch {
    path: PathBuf,
    /// Dropping it ends them.
    end: Option<Sender<()>>,
    writing: Option<JoinHandle<io::Result<Vec<u64>>>>,
}

impl DiskWatch {
    /// Begins to write to a file in a folder.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(super) fn start(folder: &Path) -> Result<Self, BenchError> {
        let path = folder.join("disk-watch");
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|source| BenchError::File { path: path.clone(), source })?;
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name("disk watch".to_owned()).spawn(move || {
            let until = |due: Instant| match ended.recv_timeout(due.saturating_duration_since(Instant::now()))
            {
                Err(RecvTimeoutError::Timeout) => true,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => false,
            };
            write(&file, Instant::now(), until)
        })?;
        Ok(Self { path, end: Some(end), writing: Some(thread) })
    }

    /// Ends them, and tells how long they took.
    ///
    /// # Errors
    /// One failed.
    pub(super) fn finish(mut self) -> Result<Latency, BenchError> {
        let micros = self.end().unwrap_or_else(|| Ok(Vec::new()));
        micros.map(Latency::of).map_err(|source| BenchError::File { path: self.path.clone(), source })
    }

    fn end(&mut self) -> Option<io::Result<Vec<u64>>> {
        self.end = None;
        let thread = self.writing.take()?;
        Some(thread.join().unwrap_or_else(|_| Err(io::Error::other("the disk watch panicked"))))
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        // Whoever does not ask does not want to know.
        let _ = self.end();
    }
}

/// Writes when the time has come, as long as `until` says so. A write counts from when it was due: one that is
/// held up must not hide that the next ones were as well.
fn write(file: &File, mut due: Instant, until: impl Fn(Instant) -> bool) -> io::Result<Vec<u64>> {
    let page = [0x5a; BYTES];
    let mut micros = Vec::new();
    while until(due) {
        file.write_all_at(&page, micros.len() as u64 % SLOTS * BYTES as u64)?;
        file.sync_data()?;
        micros.push(due.elapsed().as_micros() as u64);
        due += EVERY;
    }
    Ok(micros)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Until so many writes were made.
    fn writes(number: usize) -> impl Fn(Instant) -> bool {
        let left = Cell::new(number);
        move |_| left.replace(left.get().saturating_sub(1)) > 0
    }

    #[test]
    fn writes_that_were_due_while_one_was_held_up_are_made_and_count_as_late() {
        let file = tempfile::tempfile().unwrap();
        let micros = write(&file, Instant::now() - 3 * EVERY, writes(4)).unwrap();
        assert_eq!((micros.len(), file.metadata().unwrap().len()), (4, 4 * BYTES as u64));
        assert!(micros[0] >= 30_000 && micros[1] >= 20_000 && micros[2] >= 10_000, "{micros:?}");
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let file = tempfile::tempfile().unwrap();
        let number = 2 * SLOTS as usize;
        assert_eq!(write(&file, Instant::now(), writes(number)).unwrap().len(), number);
        assert_eq!(file.metadata().unwrap().len(), SLOTS * BYTES as u64);
    }

    #[test]
    fn it_writes_until_it_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let watch = DiskWatch::start(folder.path()).unwrap();
        while folder.path().join("disk-watch").metadata().unwrap().len() == 0 {
            thread::yield_now();
        }
        assert!(watch.finish().unwrap().percentiles.max_ms > 0.0);
    }
}
