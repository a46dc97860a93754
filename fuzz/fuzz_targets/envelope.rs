//! Bodies in every envelope, and what follows from them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sagamq::fuzzing::envelope(data));
