//! The broker: everything of the orchestrator that speaks AMQP, and its only user of `lapin`.
//!
//! ```text
//!            ┌──────────── consumer ────────────┐            ┌─────────── publisher ──────────┐
//!  broker ──>│ a channel per queue: decode, hand │── Delivery │ an outbox, lanes of channels:  │──> broker
//!         <──│ over; reject and ack on request   │<─ Settlement  publish, await the confirms   │<── confirms
//!            └──────────────────────────────────┘    Report <─└────────────────────────────────┘
//! ```
//!
//! Each has a connection of its own, because a broker that raises an alarm blocks the connection
//! that publishes. A third one hears of what the broker put aside by itself ([`aside`]). A lost
//! connection is opened again for ever ([`session`]); each opening is an **epoch**. Nothing here is
//! durable: what was not acked is delivered again, and what was not reported as published is
//! published again by whoever asked for it.

mod acks;
pub mod aside;
pub mod consumer;
mod depth;
mod dial;
mod exchange;
mod in_order;
mod inflow;
mod mismatch;
mod outbox;
pub mod owner;
mod pace;
pub mod publisher;
pub mod session;
pub(crate) mod tls;
pub mod topology;
mod wire;

pub use consumer::Consumer;
pub use mismatch::TlsError;
pub use owner::{Owner, OwnerError};
pub use publisher::Publisher;
pub use session::{AmqpError, apply_once, probe};
pub use topology::Topology;
