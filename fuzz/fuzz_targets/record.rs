//! What the store reads from its disk.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sagamq::fuzzing::record(data));
