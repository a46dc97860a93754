//! The watch: stands between an orchestrator and the broker, and takes the time that sagas are with the
//! orchestrator.
//!
//! It passes on every byte as it came and reads along: the body of each message begins with the number of
//! its saga. A saga is with the orchestrator from when the watch passes a message on to it until the watch
//! gets the one that follows. So neither the broker nor a participant is in that time, nor a queue.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::{Word, end_of, tell};
use crate::bench::BenchError;
use crate::bench::latency::Latency;
use crate::bench::names::STEPS;
use crate::bench::starts::Starts;

/// Bytes that are passed on at once.
const CHUNK: usize = 64 * 1024;
/// Times that a saga is with the orchestrator: after the start, and after each reply.
const STAYS: usize = STEPS.len() + 1;

/// Passes on what comes by until it is told to end; then tells how long each saga was with the orchestrator.
pub(super) async fn watch(
    broker: &str,
    orders: &mut UnboundedReceiver<String>,
) -> Result<Latency, BenchError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    tell(&Word::Listening(listener.local_addr()?))?;
    let stays = RefCell::new(Stays::default());
    let mut connections = FuturesUnordered::new();
    let ended = end_of(orders);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            accepted = listener.accept() => connections.push(pass(accepted?.0, broker, &stays)),
            // A connection that breaks breaks for the orchestrator too, which tells it.
            Some(_) = connections.next(), if !connections.is_empty() => {}
            () = &mut ended => break,
        }
    }
    drop(connections);
    Ok(Latency::of(stays.into_inner().micros()))
}

/// Passes on one connection.
async fn pass(mut client: TcpStream, broker: &str, stays: &RefCell<Stays>) -> io::Result<()> {
    let mut broker = TcpStream::connect(broker).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    let inbound = copy(from_broker, to_client, |number, at| stays.borrow_mut().begin(number, at));
    let outbound = copy(from_client, to_broker, |number, at| stays.borrow_mut().end(number, at));
    try_join(inbound, outbound).await.map(drop)
}

/// Passes on one direction; notes the sagas whose messages come by before they are passed on.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    note: impl Fn(u64, Instant),
) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let now = Instant::now();
        frames.read(&chunk[..count], |body| {
            if let Some(number) = Starts::number_of(body) {
                note(number, now);
            }
        });
        to.write_all(&chunk[..count]).await?;
    }
}

/// How long sagas have been with the orchestrator.
#[derive(Default)]
struct Stays {
    begun: HashMap<u64, Instant>,
    ended: HashMap<u64, (usize, Duration)>,
}

impl Stays {
    fn begin(&mut self, number: u64, at: Instant) {
        self.begun.entry(number).or_insert(at);
    }

    fn end(&mut self, number: u64, at: Instant) {
        if let Some(begun) = self.begun.remove(&number) {
            let (count, sum) = self.ended.entry(number).or_default();
            *count += 1;
            *sum += at - begun;
        }
    }

    /// The sums of all sagas that came to their end.
    fn micros(self) -> Vec<u64> {
        let whole = self.ended.into_values().filter(|(count, _)| *count == STAYS);
        whole.map(|(_, sum)| sum.as_micros() as u64).collect()
    }
}

/// Finds bodies in a stream of AMQP frames: type, channel (2 bytes), size (4 bytes), payload, end.
#[derive(Default)]
struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    fn read(&mut self, bytes: &[u8], mut on_body: impl FnMut(&[u8])) {
        /// How a client greets, before its first frame.
        const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
        const HEADER: usize = 7;
        const BODY: u8 = 3;
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((header, payload)) = self.rest[at..].split_first_chunk::<HEADER>() {
            if GREETING.starts_with(header) {
                if payload.is_empty() {
                    break;
                }
                at += GREETING.len();
                continue;
            }
            let &[kind, _, _, size @ ..] = header;
            let size = u32::from_be_bytes(size) as usize;
            if payload.len() <= size {
                break;
            }
            if kind == BODY {
                on_body(&payload[..size]);
            }
            at += HEADER + size + 1;
        }
        self.rest.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_found_however_the_stream_is_cut() {
        let mut stream = b"AMQP\x00\x00\x09\x01".to_vec();
        for (kind, payload) in [(1, "method"), (3, "first"), (8, ""), (3, "second")] {
            stream.extend([kind, 0, 1, 0, 0, 0, payload.len() as u8]);
            stream.extend(payload.bytes().chain([0xCE]));
        }
        for size in 1..stream.len() {
            let (mut frames, mut bodies) = (Frames::default(), Vec::new());
            for chunk in stream.chunks(size) {
                frames.read(chunk, |body| bodies.push(String::from_utf8(body.to_vec()).unwrap()));
            }
            assert_eq!(bodies, ["first", "second"], "chunks of {size}");
        }
    }

    #[test]
    fn a_saga_counts_once_it_was_there_for_its_start_and_all_its_replies() {
        let (mut stays, start) = (Stays::default(), Instant::now());
        for stay in 0..STAYS as u64 {
            assert!(stays.ended.get(&1).is_none_or(|(count, _)| *count < STAYS));
            stays.begin(1, start + Duration::from_millis(10 * stay));
            stays.end(1, start + Duration::from_millis(10 * stay + 2));
            // A repeat ends nothing.
            stays.end(1, start + Duration::from_millis(10 * stay + 3));
        }
        stays.begin(2, start);
        assert_eq!(stays.micros(), [2000 * STAYS as u64]);
    }
}
