//! Evidence: files of JSON lines that say what really happened, and the verdict over them.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

/// A folder that is removed with the value, unless the test fails.
pub(crate) struct Folder(TempDir);

impl Folder {
    /// A new folder whose name begins with `prefix`, below the target folder.
    pub(crate) fn new(prefix: &str) -> Self {
        Self(tempfile::Builder::new().prefix(prefix).tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the evidence is in {}", self.path().display());
            self.0.disable_cleanup(true);
        }
    }
}

/// A file of JSON lines that is only appended to.
pub(crate) struct Lines(Mutex<File>);

impl Lines {
    /// Opens the file, and makes it if it is missing.
    pub(crate) fn open(path: &Path) -> Self {
        Self(Mutex::new(File::options().append(true).create(true).open(path).unwrap()))
    }

    /// Appends a line.
    pub(crate) fn add(&self, line: &Value) {
        self.0.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Appends a line that survives a power cut once this returns.
    pub(crate) fn add_durably(&self, line: &Value) {
        let mut file = self.0.lock().unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
        file.sync_data().unwrap();
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_millis() as u64
}

/// The whole lines of a file, which may still grow; none if it is missing.
pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').unwrap_or_default();
    text[..whole].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
