//! Faults: what is done to one connection, and when.

use super::frame::{Frame, METHOD};
use super::method::{Method, NACK};

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
}

/// How a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Closed in good order as far as TCP sees it (FIN), between two frames.
    Closed,
    /// Reset (RST), between two frames.
    Reset,
    /// Reset after half of a frame.
    MidFrame,
}

/// A fault of one connection. Frames are counted from when it is put on the connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Breaks the connection: this many more frames get through in this direction, the next one does not.
    Break {
        /// The direction.
        way: Way,
        /// Frames that still get through.
        after: u32,
        /// How it breaks.
        how: How,
    },
    /// Nothing gets through any more, heartbeats included, and the connection stays open: what a half-open
    /// TCP connection looks like.
    Stall,
    /// The next confirms get lost; one frame can confirm several messages, those before a lost one among
    /// them.
    SwallowConfirms(u32),
    /// The next confirms say that the broker did not take the messages.
    NackConfirms(u32),
    /// The next frames in which the client acks deliveries get lost.
    SwallowAcks(u32),
    /// The next delivery gets lost with its content, and those behind it do not.
    SwallowDelivery,
    /// The next channel to be used acks a delivery that there was not, for which the broker closes it
    /// with PRECONDITION_FAILED.
    ForgeAck,
    /// The connection is slow, in each direction.
    Slow {
        /// Its speed.
        bytes_per_second: u32,
    },
}

/// What becomes of a frame.
#[derive(Debug, PartialEq)]
pub(super) enum Fate {
    /// It goes on.
    Pass,
    /// It goes on behind this one.
    PassBehind(Frame),
    /// This one goes on instead.
    Replace(Frame),
    /// It does not go on.
    Drop,
    /// Nothing goes on from here.
    Stall,
    /// It ends the connection.
    Break(How),
}

/// The faults of one connection.
#[derive(Debug, Default)]
pub(super) struct Faults {
    present: Vec<Fault>,
    /// The channel on which the content of a delivery gets lost, up to its next method.
    losing: Option<u16>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.present.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.present.clear();
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.present.contains(&Fault::Stall)
    }

    /// Nanoseconds that a byte takes, if it is slow.
    pub(super) fn pace(&self) -> Option<u64> {
        self.present.iter().find_map(|fault| match fault {
            Fault::Slow { bytes_per_second } => Some(1_000_000_000 / u64::from(*bytes_per_second).max(1)),
            _ => None,
        })
    }

    /// What becomes of a frame, and the kind of fault that this is, to be counted.
    pub(super) fn meet(
        &mut self,
        way: Way,
        frame: &Frame,
        method: Option<&Method>,
    ) -> (Fate, Option<&'static str>) {
        if way == Way::ToClient && self.losing == Some(frame.channel()) {
            if frame.kind() != METHOD {
                return (Fate::Drop, None);
            }
            self.losing = None;
        }
        for at in 0..self.present.len() {
            let fate = match (&mut self.present[at], way, method) {
                (Fault::Stall, ..) => return (Fate::Stall, Some("stall")),
                (Fault::Break { way: broken, after, how }, ..) if *broken == way => match *after {
                    0 => return (Fate::Break(*how), Some(how.kind())),
                    _ => {
                        *after -= 1;
                        continue;
                    }
                },
                // On this way, acks and nacks are confirms.
                (
                    Fault::SwallowConfirms(next),
                    Way::ToClient,
                    Some(Method::Ack { .. } | Method::Nack { .. }),
                ) => {
                    *next -= 1;
                    (Fate::Drop, "confirm_swallowed")
                }
                (Fault::NackConfirms(next), Way::ToClient, Some(Method::Ack { .. })) => {
                    *next -= 1;
                    (Fate::Replace(nacked(frame)), "confirm_nacked")
                }
                (Fault::SwallowAcks(next), Way::ToBroker, Some(Method::Ack { .. })) => {
                    *next -= 1;
                    (Fate::Drop, "ack_swallowed")
                }
                (Fault::SwallowDelivery, Way::ToClient, Some(Method::Deliver { .. })) => {
                    self.losing = Some(frame.channel());
                    (Fate::Drop, "delivery_swallowed")
                }
                // Before a method, no content is under way on its channel.
                (Fault::ForgeAck, Way::ToBroker, Some(_)) if frame.channel() > 0 => {
                    let forged = Frame::new(METHOD, frame.channel(), &Method::ack_payload(1 << 40));
                    (Fate::PassBehind(forged), "ack_forged")
                }
                _ => continue,
            };
            if self.present[at].is_over() {
                self.present.remove(at);
            }
            return (fate.0, Some(fate.1));
        }
        (Fate::Pass, None)
    }
}

impl Fault {
    /// Whether nothing more can come of it, once it took place.
    fn is_over(&self) -> bool {
        match self {
            Fault::SwallowConfirms(next) | Fault::NackConfirms(next) | Fault::SwallowAcks(next) => *next == 0,
            Fault::ForgeAck | Fault::SwallowDelivery => true,
            Fault::Break { .. } | Fault::Stall | Fault::Slow { .. } => false,
        }
    }
}

impl How {
    /// The kind of fault that is counted.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            How::Closed => "closed",
            How::Reset => "reset",
            How::MidFrame => "reset_mid_frame",
        }
    }
}

/// The same confirm as a refusal: tag and `multiple` stand at the same place.
fn nacked(ack: &Frame) -> Frame {
    let mut payload = ack.payload().to_vec();
    payload[2..4].copy_from_slice(&NACK.to_be_bytes());
    Frame::new(METHOD, ack.channel(), &payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(tag: u64) -> Frame {
        Frame::new(METHOD, 3, &Method::ack_payload(tag))
    }

    fn meet(faults: &mut Faults, way: Way, frame: &Frame) -> Fate {
        faults.meet(way, frame, Method::read(frame.payload()).as_ref()).0
    }

    #[test]
    fn a_break_lets_as_many_frames_through_as_it_says() {
        let mut faults = Faults::default();
        faults.add(Fault::Break { way: Way::ToClient, after: 2, how: How::Reset });
        let mut fates = (0..3).map(|tag| {
            assert_eq!(meet(&mut faults, Way::ToBroker, &ack(tag)), Fate::Pass);
            meet(&mut faults, Way::ToClient, &ack(tag))
        });
        let fates: Vec<_> = fates.by_ref().collect();
        assert_eq!(fates, [Fate::Pass, Fate::Pass, Fate::Break(How::Reset)]);
    }

    #[test]
    fn confirms_are_lost_or_turned_as_often_as_was_said_and_acks_of_the_client_are_not() {
        let mut faults = Faults::default();
        faults.add(Fault::SwallowConfirms(1));
        faults.add(Fault::NackConfirms(1));
        assert_eq!(meet(&mut faults, Way::ToBroker, &ack(1)), Fate::Pass);
        assert_eq!(meet(&mut faults, Way::ToClient, &ack(1)), Fate::Drop);
        let Fate::Replace(frame) = meet(&mut faults, Way::ToClient, &ack(2)) else { panic!("not turned") };
        let nack = Method::Nack { tag: 2, multiple: false, requeue: false };
        assert_eq!(Method::read(frame.payload()), Some(nack));
        assert_eq!(meet(&mut faults, Way::ToClient, &ack(3)), Fate::Pass);
    }
}
