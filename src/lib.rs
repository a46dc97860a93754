//! sagamq: a saga orchestrator that runs beside RabbitMQ.
//!
//! The crate is made for its one binary; the library exists for tests and tools. The modules stand in
//! reading order, and ARCHITECTURE.md follows a delivery through them.

mod json;
mod number;
pub mod saga;

pub mod store;

mod audit;
mod cache;
pub mod catalog;
pub mod delivery;
pub mod engine;
pub mod reload;
pub mod retention;
mod routing;
pub mod runtime;
pub mod timers;

pub mod amqp;

pub mod config;
pub mod definitions;
pub mod depict;
pub mod fault;
#[cfg(any(test, feature = "faults"))]
pub mod fuzzing;
pub mod health;
pub mod http;
pub mod metric;
pub mod telemetry;

pub mod checker;

pub mod bench;
pub mod cli;
pub mod demo;
pub mod simulate;
pub mod throwaway;
pub mod trial;
