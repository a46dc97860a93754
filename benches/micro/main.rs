//! What a part of the way of a delivery costs, each by itself: `make micro`.
//!
//! The order of the modules is that of ARCHITECTURE.md. The disk under `commit` and `saga` is the one that
//! `target/` lies on; everything else is computed.

mod order;

mod decode;

mod expression;

mod transition;

mod command;

mod record;

mod commit;

mod timers;

mod definition;

mod saga;

/// Counts what is allocated, too.
#[global_allocator]
static ALLOCATOR: divan::AllocProfiler<mimalloc::MiMalloc> = divan::AllocProfiler::new(mimalloc::MiMalloc);

fn main() {
    divan::main();
}
