//! Definition files in any state.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sagamq::fuzzing::definition(data));
