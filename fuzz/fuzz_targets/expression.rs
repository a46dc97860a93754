//! Expressions of definitions.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sagamq::fuzzing::expression(data));
