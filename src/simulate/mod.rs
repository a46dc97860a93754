//! A whole world in virtual time: the real engine and the real store over a simulated disk, a broker,
//! participants, and every kind of bad luck that a seed can bring. The same seed is the same history.
//!
//! | file | what |
//! |---|---|
//! | `setting` | what is played, and how it went |
//! | `world` | what happens next, and what goes wrong |
//! | `process` | the orchestrator, which may die |
//! | `broker` | queues, acks, and a log of all that passed |
//! | `participant` | those who do the work, more or less |
//! | `stranger` | those who have no part in it, and answer all the same |
//! | `chance` | dice |
//!
//! What it observed is [`Evidence`](crate::checker::Evidence), for the [checker](crate::checker) to judge.

pub(crate) mod broker;
mod chance;
mod participant;
pub(crate) mod process;
mod setting;
mod stranger;
mod world;

pub use process::ProcessError;
pub use setting::{Outcome, Planned, Setting, Trouble};
pub use world::play;
