//! A client that says to the broker what no client library would: frames made by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::process::PATIENCE;

/// Bytes of a frame beside its payload.
const FRAME_OVERHEAD: usize = 8;

/// A connection with a channel in confirm mode.
pub(crate) struct RawPeer {
    stream: TcpStream,
    frame_max: usize,
}

/// Properties of a message, as bytes: they need not be text, nor headers a table.
#[derive(Clone, Default)]
pub(crate) struct RawProperties {
    pub(crate) content_encoding: Option<Vec<u8>>,
    /// The entries of the table, see [`header`].
    pub(crate) headers: Option<Vec<u8>>,
    pub(crate) correlation_id: Option<Vec<u8>>,
    pub(crate) message_id: Option<Vec<u8>>,
}

impl RawPeer {
    /// Connects to a throw-away node.
    pub(crate) fn connect(url: &str) -> Self {
        let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
        let mut peer = Self { stream, frame_max: 4096 };
        peer.await_method(10, 10);
        peer.method(
            0,
            10,
            11,
            &[&table(b"")[..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")],
        );
        let limits = peer.await_method(10, 30);
        peer.frame_max = u32::from_be_bytes(limits[2..6].try_into().unwrap()) as usize;
        // No heartbeats: who waits for a test is silent.
        peer.method(0, 10, 31, &[&limits[..6], &[0, 0]]);
        peer.method(0, 10, 40, &[&short(b"/"), &short(b""), &[0]]);
        peer.await_method(10, 41);
        peer.method(1, 20, 10, &[&short(b"")]);
        peer.await_method(20, 11);
        peer.method(1, 85, 10, &[&[0]]);
        peer.await_method(85, 11);
        peer
    }

    /// Publishes a persistent message that a queue must take, and awaits the confirm.
    pub(crate) fn publish(&mut self, exchange: &str, key: &str, properties: &RawProperties, body: &[u8]) {
        const MANDATORY: &[u8] = &[1];
        self.method(1, 60, 40, &[&[0, 0], &short(exchange.as_bytes()), &short(key.as_bytes()), MANDATORY]);
        let RawProperties { content_encoding, headers, correlation_id, message_id } = properties;
        let texts = |text: &Option<Vec<u8>>| text.as_ref().map(|text| short(text));
        let fields = [
            (14, texts(content_encoding)),
            (13, headers.as_ref().map(|entries| table(entries))),
            (12, Some(vec![2])),
            (10, texts(correlation_id)),
            (7, texts(message_id)),
        ];
        let given = || fields.iter().filter_map(|(bit, value)| Some((bit, value.as_ref()?)));
        let flags: u16 = given().map(|(bit, _)| 1 << bit).sum();
        let mut header = [&60_u16.to_be_bytes()[..], &[0, 0], &(body.len() as u64).to_be_bytes()].concat();
        header.extend(flags.to_be_bytes());
        given().for_each(|(_, value)| header.extend(value));
        self.frame(2, 1, &header);
        for part in body.chunks(self.frame_max - FRAME_OVERHEAD) {
            self.frame(3, 1, part);
        }
        self.await_method(60, 80);
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[&[u8]]) {
        let head = [class.to_be_bytes(), method.to_be_bytes()].concat();
        self.frame(1, channel, &[head, arguments.concat()].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        assert!(payload.len() + FRAME_OVERHEAD <= self.frame_max, "the broker would refuse this frame");
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat();
        self.stream.write_all(&frame).unwrap();
    }

    /// The arguments of the next method, which must be this one.
    fn await_method(&mut self, class: u16, method: u16) -> Vec<u8> {
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head).unwrap();
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let mut payload = vec![0; size + 1];
            self.stream.read_exact(&mut payload).unwrap();
            if head[0] == 1 {
                let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
                assert_eq!(payload[..4], wanted, "{}", payload.escape_ascii());
                return payload[4..size].to_vec();
            }
        }
    }
}

/// An entry of a table of headers; the value begins with its type.
pub(crate) fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&short(name), value].concat()
}

/// A value that is a text.
pub(crate) fn text(text: &[u8]) -> Vec<u8> {
    [b"S", &long(text)[..]].concat()
}

/// A value that is an array in an array, and so on.
pub(crate) fn nested_arrays(depth: u32) -> Vec<u8> {
    (0..depth).rev().flat_map(|inside| [&b"A"[..], &(inside * 5).to_be_bytes()].concat()).collect()
}

fn table(entries: &[u8]) -> Vec<u8> {
    long(entries)
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}
