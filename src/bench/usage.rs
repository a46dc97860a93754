//! What a process has used, as the system tells it, and what an orchestrator tells of itself.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::Response;

use super::BenchError;
use crate::metric;

/// How long an answer of the API may take.
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Time on a CPU, for itself and in the system for it.
    pub(super) cpu_secs: f64,
    /// Bytes that it had written to storage.
    pub(super) written_bytes: u64,
    /// Memory that it has.
    pub(super) resident_kib: u64,
    /// The most that it had.
    pub(super) peak_resident_kib: u64,
}

impl Usage {
    /// Of the process with this id.
    pub(super) fn of(pid: u32) -> Result<Self, BenchError> {
        let status = Page::read(pid, "status")?;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        Ok(Self {
            cpu_secs: Page::read(pid, "stat")?.cpu_ticks()? as f64 / ticks,
            written_bytes: Page::read(pid, "io")?.field("write_bytes:")?,
            resident_kib: status.field("VmRSS:")?,
            peak_resident_kib: status.field("VmHWM:")?,
        })
    }
}

/// The commits that the orchestrator with this API has made; each is one fdatasync.
pub(super) fn commits(address: &str) -> Result<u64, BenchError> {
    let url = format!("http://{address}/metrics");
    let failed = |reason: String| BenchError::Metrics { url: url.clone(), reason };
    let page = get(&url).and_then(|mut page| page.body_mut().read_to_string());
    let page = page.map_err(|error| failed(error.to_string()))?;
    let mut values = page.lines().filter_map(|line| line.strip_prefix(metric::COMMITS));
    let value = values.next().and_then(|value| value.trim().parse().ok());
    value.ok_or_else(|| failed(format!("{} is not among them", metric::COMMITS)))
}

/// Whether the orchestrator with this API answers a question with success.
pub(super) fn answers(address: &str, path: &str) -> bool {
    get(&format!("http://{address}{path}")).is_ok()
}

/// How long the orchestrator with this API takes to answer a question with success, body included.
pub(super) fn ask(address: &str, path: &str) -> Result<Duration, BenchError> {
    let url = format!("http://{address}{path}");
    let begin = Instant::now();
    let answered = get(&url).and_then(|mut page| page.body_mut().read_to_string());
    let took = begin.elapsed();
    answered.map(|_| took).map_err(|error| BenchError::Api { url, reason: error.to_string() })
}

fn get(url: &str) -> Result<Response<Body>, ureq::Error> {
    ureq::get(url).config().timeout_global(Some(API_TIMEOUT)).build().call()
}

/// A file of a process in `/proc`.
struct Page {
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(pid: u32, name: &str) -> Result<Self, BenchError> {
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(error) => Err(BenchError::Usage { path, reason: error.to_string() }),
        }
    }

    /// The number after a name.
    fn field(&self, name: &str) -> Result<u64, BenchError> {
        let value = self.text.lines().find_map(|line| line.strip_prefix(name));
        let number =
            value.and_then(|value| value.split_whitespace().next()).and_then(|word| word.parse().ok());
        number.ok_or_else(|| self.odd(format!("it has no {name}")))
    }

    /// User and system time: the 14th and 15th field of `stat`, of which the second is the program's name
    /// in parentheses and may hold anything.
    fn cpu_ticks(&self) -> Result<u64, BenchError> {
        let after_name = self.text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let times = after_name.split_whitespace().skip(11).take(2);
        let times: Option<Vec<u64>> = times.map(|time| time.parse().ok()).collect();
        match times.as_deref() {
            Some([user, system]) => Ok(user + system),
            _ => Err(self.odd("it has no times".to_owned())),
        }
    }

    fn odd(&self, reason: String) -> BenchError {
        BenchError::Usage { path: self.path.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: "/proc/1/x".into(), text: text.to_owned() }
    }

    #[test]
    fn times_are_found_behind_a_name_that_looks_like_fields() {
        let stat = page("42 (a) 1 2 (b) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20");
        assert_eq!(stat.cpu_ticks().unwrap(), 200);
        assert!(page("42 (a) R 1").cpu_ticks().is_err());
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let io = page("cancelled_write_bytes: 7\nwrite_bytes: 4096\n");
        assert_eq!(io.field("write_bytes:").unwrap(), 4096);
        let error = io.field("VmRSS:").unwrap_err().to_string();
        assert!(error.contains("/proc/1/x") && error.contains("VmRSS"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kib > 0 && usage.peak_resident_kib >= usage.resident_kib, "{usage:?}");
    }
}
