//! The checker: it passes what is right, and tells each thing that is wrong by its invariant.

#![expect(clippy::unwrap_used, reason = "tests")]

mod calls;
mod folder;
mod honest;
mod limits;
mod play;
mod violations;
