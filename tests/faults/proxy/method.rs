//! Methods: those that a fault or the journal is about, read from the payload of their frames.

/// What a method frame says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Method {
    StartOk { name: String },
    ConnectionClose { code: u16, text: String },
    Blocked,
    Unblocked,
    ChannelOpen,
    ChannelClose { code: u16, text: String },
    Consume { queue: String },
    ConsumeOk { consumer: String },
    Cancel { consumer: String },
    Publish { exchange: String, key: String },
    Return { text: String, exchange: String, key: String },
    Deliver { consumer: String, tag: u64, redelivered: bool, exchange: String, key: String },
    Ack { tag: u64, multiple: bool },
    Nack { tag: u64, multiple: bool, requeue: bool },
    Reject { tag: u64, requeue: bool },
    SelectOk,
    Other,
}

/// Method number of `basic.ack` within its class.
pub(super) const ACK: u16 = 80;
/// Method number of `basic.nack` within its class.
pub(super) const NACK: u16 = 120;
/// Class number of `basic`.
pub(super) const BASIC: u16 = 60;

impl Method {
    /// None if the payload is too short for what it says that it is.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut rest = Rest(payload);
        Some(match (rest.u16()?, rest.u16()?) {
            (10, 11) => Method::StartOk { name: connection_name(rest.0).unwrap_or_default() },
            (10, 50) => Method::ConnectionClose { code: rest.u16()?, text: rest.text()? },
            (10, 60) => Method::Blocked,
            (10, 61) => Method::Unblocked,
            (20, 10) => Method::ChannelOpen,
            (20, 40) => Method::ChannelClose { code: rest.u16()?, text: rest.text()? },
            (BASIC, 20) => {
                rest.u16()?;
                Method::Consume { queue: rest.text()? }
            }
            (BASIC, 21) => Method::ConsumeOk { consumer: rest.text()? },
            (BASIC, 30) => Method::Cancel { consumer: rest.text()? },
            (BASIC, 40) => {
                rest.u16()?;
                Method::Publish { exchange: rest.text()?, key: rest.text()? }
            }
            (BASIC, 50) => {
                rest.u16()?;
                Method::Return { text: rest.text()?, exchange: rest.text()?, key: rest.text()? }
            }
            (BASIC, 60) => Method::Deliver {
                consumer: rest.text()?,
                tag: rest.u64()?,
                redelivered: rest.u8()? & 1 != 0,
                exchange: rest.text()?,
                key: rest.text()?,
            },
            (BASIC, ACK) => Method::Ack { tag: rest.u64()?, multiple: rest.u8()? & 1 != 0 },
            (BASIC, NACK) => {
                let (tag, bits) = (rest.u64()?, rest.u8()?);
                Method::Nack { tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 }
            }
            (BASIC, 90) => Method::Reject { tag: rest.u64()?, requeue: rest.u8()? & 1 != 0 },
            (85, 11) => Method::SelectOk,
            _ => Method::Other,
        })
    }

    /// The payload of a `basic.ack` of one delivery.
    pub(super) fn ack_payload(tag: u64) -> Vec<u8> {
        [&BASIC.to_be_bytes()[..], &ACK.to_be_bytes(), &tag.to_be_bytes(), &[0]].concat()
    }
}

/// What a content header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Properties {
    pub(super) body_bytes: u64,
    pub(super) message_id: String,
}

impl Properties {
    /// None if the payload is too short for what it says that it is.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let mut rest = Rest(payload);
        let (_class, _weight, body_bytes) = (rest.u16()?, rest.u16()?, rest.u64()?);
        let flags = rest.u16()?;
        let has = |bit: u16| flags & (1 << bit) != 0;
        // The properties before the message id, in their order.
        for bit in [15, 14] {
            if has(bit) {
                rest.text()?;
            }
        }
        if has(13) {
            let bytes = rest.u32()?;
            rest.take(bytes as usize)?;
        }
        for bit in [12, 11] {
            if has(bit) {
                rest.u8()?;
            }
        }
        for bit in [10, 9, 8] {
            if has(bit) {
                rest.text()?;
            }
        }
        let message_id = if has(7) { rest.text()? } else { String::new() };
        Some(Self { body_bytes, message_id })
    }
}

/// The name in the properties of a client: found by its key, since no value there is longer or could
/// be taken for it.
fn connection_name(properties: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\x0fconnection_nameS";
    let at = properties.windows(KEY.len()).position(|window| window == KEY)?;
    let mut rest = Rest(&properties[at + KEY.len()..]);
    let bytes = rest.u32()? as usize;
    Some(String::from_utf8_lossy(rest.take(bytes)?).into_owned())
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let bytes = usize::from(self.u8()?);
        Some(String::from_utf8_lossy(self.take(bytes)?).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_is_cut_off_says_nothing() {
        let whole = Method::ack_payload(7);
        assert_eq!(Method::read(&whole), Some(Method::Ack { tag: 7, multiple: false }));
        for bytes in 0..whole.len() {
            assert_eq!(Method::read(&whole[..bytes]), None);
        }
    }

    #[test]
    fn the_message_id_is_found_behind_all_other_properties() {
        let properties = b"\x04text\x02gz\x00\x00\x00\x03abc\x02\x05\x01c\x01r\x019\x02id\x00";
        let flags = 0b1111_1111_1000_0000_u16;
        let head = [&60_u16.to_be_bytes()[..], &[0, 0], &9_u64.to_be_bytes(), &flags.to_be_bytes()].concat();
        let read = Properties::read(&[&head[..], properties].concat());
        assert_eq!(read, Some(Properties { body_bytes: 9, message_id: "id".to_owned() }));
    }
}
