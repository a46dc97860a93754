//! Free ports, and whether a broker answers at one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime};

use super::NodeError;

/// Where ports are picked: below those that the system gives to outgoing connections. From there, a
/// client that reconnects while the node is down could be given the node's own port and keep it.
pub(super) const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// So many ports of 127.0.0.1 that nothing listens on at this moment.
pub(super) fn pick<const N: usize>() -> Result<[u16; N], NodeError> {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
    let start = now.wrapping_add(std::process::id().wrapping_mul(7919));
    let size = u32::from(PORTS.end - PORTS.start);
    let candidates = (0..size).map(|n| PORTS.start + (start.wrapping_add(n * 7919) % size) as u16);
    // Held together, so that they differ.
    let held: Vec<_> =
        candidates.filter_map(|port| bind(port).ok().map(|held| (port, held))).take(N).collect();
    let ports: Vec<_> = held.iter().map(|(port, _)| *port).collect();
    ports.try_into().map_err(|_| NodeError::NoPorts)
}

/// Whether nothing listens on a port.
pub(super) fn is_free(port: u16) -> bool {
    bind(port).is_ok()
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// Whether a broker answers the AMQP 0-9-1 header with its `Connection.Start`.
pub(super) fn greets(port: u16) -> bool {
    let handshake = || -> io::Result<[u8; 11]> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut frame = [0; 11];
        socket.read_exact(&mut frame)?;
        Ok(frame)
    };
    // A method frame (1) with class 10 and method 10.
    matches!(handshake(), Ok([1, _, _, _, _, _, _, 0, 10, 0, 10]))
}
