//! Ports for processes of the tests.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that nothing listens on: below those that outgoing connections are given, and above those
/// of throw-away brokers.
pub(crate) fn free_port() -> u16 {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = u32::from(COUNT.fetch_add(1, Ordering::Relaxed));
        let port = 30_000 + (std::process::id().wrapping_mul(101).wrapping_add(number) % 2_700) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
