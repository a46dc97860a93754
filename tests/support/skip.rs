//! Tests that a machine cannot run.

use std::io::Write;

/// Says that a test is skipped, past what captures the output of tests. Where `TESTS_MUST_RUN` is set,
/// everything has to be there, and this fails.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("TESTS_MUST_RUN").is_none(), "cannot be tested here: {reason}");
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped: {}: {reason}", thread.name().unwrap_or_default());
}
