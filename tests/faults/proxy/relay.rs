//! One connection: two pumps, and the faults between them.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::Mutex;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::Shared;
use super::fault::{Fate, Fault, Faults, How, Way};
use super::frame::{Frames, METHOD};
use super::journal::Observer;
use super::method::Method;

/// Bytes that a slow connection moves at a time.
const PACED_BYTES: usize = 1 << 10;

/// A connection that is present.
pub(super) struct Link {
    name: Mutex<String>,
    faults: Mutex<Faults>,
    observer: Mutex<Observer>,
    close: Notify,
}

impl Link {
    pub(super) fn new(number: u64) -> Self {
        Self {
            name: Mutex::default(),
            faults: Mutex::default(),
            observer: Mutex::new(Observer::new(number)),
            close: Notify::new(),
        }
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        *self.name.lock().unwrap() == name
    }

    pub(super) fn inject(&self, fault: Fault) {
        self.faults.lock().unwrap().add(fault);
    }

    /// Takes all faults away; a connection that is stalled is closed, because what it held back is lost.
    pub(super) fn heal(&self) {
        let mut faults = self.faults.lock().unwrap();
        if faults.is_stalled() {
            self.close.notify_one();
        }
        faults.clear();
    }

    fn named(&self, name: &str, shared: &Shared) {
        name.clone_into(&mut self.name.lock().unwrap());
        for fault in shared.armed_for(name) {
            self.inject(fault);
        }
    }
}

/// Moves frames both ways until a side closes or a fault ends the connection, and ends it on both sides.
pub(super) async fn relay(mut client: TcpStream, mut broker: TcpStream, link: &Link, shared: &Shared) {
    // Without it frames wait for one another; it changes nothing else.
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let how = {
        let ((from_client, to_client), (from_broker, to_broker)) = (client.split(), broker.split());
        tokio::select! {
            how = pump(Way::ToBroker, from_client, to_broker, link, shared) => how,
            how = pump(Way::ToClient, from_broker, to_client, link, shared) => how,
            () = link.close.notified() => How::Closed,
        }
    };
    // A side that is gone already needs no goodbye.
    let _ = match how {
        How::Closed => (shut(client), shut(broker)),
        How::Reset | How::MidFrame => (client.set_zero_linger(), broker.set_zero_linger()),
    };
    link.observer.lock().unwrap().closed(&shared.journal);
}

/// Moves frames one way. Returns how the connection ends.
async fn pump(way: Way, from: ReadHalf<'_>, to: WriteHalf<'_>, link: &Link, shared: &Shared) -> How {
    let mut frames = Frames::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match receive(&from, &mut buffer).await {
            Ok(0) | Err(_) => return How::Closed,
            Ok(bytes) => frames.push(&buffer[..bytes]),
        }
        let mut out = Vec::new();
        let end = pass(way, &mut frames, &mut out, link, shared);
        if send(&to, &out, link, shared).await.is_err() {
            return How::Closed;
        }
        match end {
            None => {}
            Some(Fate::Break(how)) => return how,
            Some(_) => return std::future::pending().await,
        }
    }
}

/// Takes whole frames to what goes out. Returns what ends the connection, if it ends.
fn pass(way: Way, frames: &mut Frames, out: &mut Vec<u8>, link: &Link, shared: &Shared) -> Option<Fate> {
    loop {
        let frame = match frames.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => return None,
            Err(_) => return Some(Fate::Break(How::Reset)),
        };
        let method = if frame.kind() == METHOD { Method::read(frame.payload()) } else { None };
        if let Some(Method::StartOk { name }) = &method {
            link.named(name, shared);
        }
        let (fate, kind) = link.faults.lock().unwrap().meet(way, &frame, method.as_ref());
        if let Some(kind) = kind {
            shared.count(kind);
        }
        let mut observer = link.observer.lock().unwrap();
        match fate {
            Fate::Pass => {
                observer.see(way, &frame, method, &shared.journal);
                out.extend(frame.bytes);
            }
            Fate::PassBehind(forged) => {
                observer.see(way, &frame, method, &shared.journal);
                out.extend(forged.bytes);
                out.extend(frame.bytes);
            }
            Fate::Replace(other) => {
                observer.see(way, &other, Method::read(other.payload()), &shared.journal);
                out.extend(other.bytes);
            }
            // What the client said, it said, even if nobody hears it.
            Fate::Drop if way == Way::ToBroker => observer.see(way, &frame, method, &shared.journal),
            Fate::Drop => {}
            Fate::Break(How::MidFrame) => {
                out.extend(&frame.bytes[..frame.bytes.len() / 2]);
                return Some(fate);
            }
            Fate::Stall | Fate::Break(_) => return Some(fate),
        }
    }
}

/// Reads what is there; 0 bytes at the end.
async fn receive(from: &ReadHalf<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// Writes everything, at the pace of the connection.
async fn send(to: &WriteHalf<'_>, mut bytes: &[u8], link: &Link, shared: &Shared) -> io::Result<()> {
    let pace = link.faults.lock().unwrap().pace();
    if pace.is_some() && !bytes.is_empty() {
        shared.count("slow");
    }
    while !bytes.is_empty() {
        to.writable().await?;
        let part = if pace.is_some() { &bytes[..bytes.len().min(PACED_BYTES)] } else { bytes };
        match to.try_write(part) {
            Ok(written) => {
                bytes = &bytes[written..];
                if let Some(nanos) = pace {
                    tokio::time::sleep(Duration::from_nanos(nanos * written as u64)).await;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends a connection in good order.
fn shut(socket: TcpStream) -> io::Result<()> {
    socket.into_std()?.shutdown(Shutdown::Both)
}
