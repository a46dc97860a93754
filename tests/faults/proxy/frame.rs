//! Frames: type, channel, size, payload, end octet.

/// Frame type of methods.
pub(super) const METHOD: u8 = 1;
/// Frame type of content headers.
pub(super) const HEADER: u8 = 2;
/// Frame type of content bodies.
pub(super) const BODY: u8 = 3;

/// The end octet.
const END: u8 = 0xCE;
/// The first four bytes of what a client says first, which is no frame.
const GREETING: &[u8] = b"AMQP";
/// Bytes of the greeting as a whole.
const GREETING_BYTES: usize = 8;
/// Bytes before the payload.
const HEAD_BYTES: usize = 7;
/// No peer here negotiates larger payloads.
const MAX_PAYLOAD_BYTES: usize = 1 << 24;

/// One frame, or the greeting, as it was on the wire.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
}

/// Bytes that are no AMQP.
#[derive(Debug, PartialEq)]
pub(super) struct NotAmqp;

impl Frame {
    pub(super) fn new(kind: u8, channel: u16, payload: &[u8]) -> Self {
        let size = u32::try_from(payload.len()).expect("payloads here are small");
        let channel = channel.to_be_bytes();
        Self { bytes: [&[kind], &channel[..], &size.to_be_bytes(), payload, &[END]].concat() }
    }

    /// The type; that of the greeting is its first letter.
    pub(super) fn kind(&self) -> u8 {
        self.bytes[0]
    }

    pub(super) fn channel(&self) -> u16 {
        u16::from_be_bytes([self.bytes[1], self.bytes[2]])
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[HEAD_BYTES..self.bytes.len() - 1]
    }
}

/// One direction's bytes, to be taken apart into frames.
#[derive(Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    taken: usize,
}

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, NotAmqp> {
        let rest = &self.buffer[self.taken..];
        let Some(head) = rest.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let size = if head.starts_with(GREETING) {
            GREETING_BYTES
        } else {
            let payload = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            if payload > MAX_PAYLOAD_BYTES {
                return Err(NotAmqp);
            }
            HEAD_BYTES + payload + 1
        };
        let Some(bytes) = rest.get(..size) else { return Ok(None) };
        if !head.starts_with(GREETING) && bytes[size - 1] != END {
            return Err(NotAmqp);
        }
        self.taken += size;
        Ok(Some(Frame { bytes: bytes.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_come() {
        let sent = [
            Frame { bytes: b"AMQP\x00\x00\x09\x01".to_vec() },
            Frame::new(METHOD, 1, b"method"),
            Frame::new(8, 0, b""),
            Frame::new(BODY, 65535, b"\xce\xce"),
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(|frame| frame.bytes.clone()).collect();
        for size in 1..=bytes.len() {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for part in bytes.chunks(size) {
                frames.push(part);
                found.extend(std::iter::from_fn(|| frames.next().unwrap()));
            }
            assert_eq!(found, sent, "in parts of {size}");
        }
        assert_eq!((sent[3].kind(), sent[3].channel(), sent[3].payload()), (BODY, 65535, &b"\xce\xce"[..]));
    }

    #[test]
    fn a_wrong_end_octet_is_no_amqp() {
        let mut frames = Frames::default();
        let mut frame = Frame::new(METHOD, 1, b"method");
        *frame.bytes.last_mut().unwrap() = 0;
        frames.push(&frame.bytes);
        assert_eq!(frames.next(), Err(NotAmqp));
    }
}
