//! The pure core: values and functions of values. No I/O, no clock, no randomness.

pub mod correlation;
pub mod decode;
pub mod duration;
pub mod id;
pub mod message;
pub mod time;

pub mod code;
pub mod compile;
pub mod definition;
mod graph;
mod lint;
mod names;
pub mod problem;
mod reader;
pub mod schema;
mod yaml;

mod cost;
pub mod expression;
mod interpreter;
pub mod scope;
pub mod template;

#[cfg(any(test, feature = "faults"))]
pub(crate) mod fuzzing;

mod advance;
mod answer;
pub mod arrival;
pub mod called;
pub mod command;
pub mod each;
pub mod exchange;
pub mod fact;
pub mod instance;
pub mod order;
pub mod plan;
pub mod reply;
pub mod retry;
pub mod transition;
