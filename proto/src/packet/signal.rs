//! What the two ends of a flow tell each other.

use bytes::BufMut;

use crate::units::WireTime;
use crate::wire::{Reader, WireError};

/// What the two ends of a flow, or of a ping, tell each other: the payload of a
/// [`PacketKind::Signal`](super::PacketKind::Signal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The egress has the flow: the open extension may be left out.
    Accept,
    /// The egress can't serve the flow.
    Refuse(RefuseReason),
    /// The flow is unknown there (a restart): begin anew, with the open extension.
    Reset,
    /// Answer this with a [`Signal::Pong`] over the way it came.
    Ping {
        /// Chosen by the asker.
        id: u32,
        /// The asker's clock.
        sent_at: WireTime,
    },
    /// The answer to a ping.
    Pong {
        /// As in the ping.
        id: u32,
        /// As in the ping.
        sent_at: WireTime,
        /// The answerer's clock.
        received_at: WireTime,
    },
}

/// Why an egress refuses a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefuseReason {
    /// It declares no such service.
    UnknownService,
    /// The port offset lies beyond the service's range.
    PortOutOfRange,
    /// It has as many flows as it may.
    TooManyFlows,
    /// It is leaving.
    Draining,
}

const ACCEPT: u8 = 0;
const REFUSE: u8 = 1;
const RESET: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;

impl Signal {
    /// Writes the signal.
    pub fn encode(&self, out: &mut impl BufMut) {
        match *self {
            Self::Accept => out.put_u8(ACCEPT),
            Self::Refuse(reason) => {
                out.put_u8(REFUSE);
                out.put_u8(reason.code());
            }
            Self::Reset => out.put_u8(RESET),
            Self::Ping { id, sent_at } => {
                out.put_u8(PING);
                out.put_u32(id);
                out.put_u32(sent_at.0);
            }
            Self::Pong { id, sent_at, received_at } => {
                out.put_u8(PONG);
                out.put_u32(id);
                out.put_u32(sent_at.0);
                out.put_u32(received_at.0);
            }
        }
    }

    /// Reads a signal that fills `payload`.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(payload);
        let signal = match reader.u8()? {
            ACCEPT => Self::Accept,
            REFUSE => Self::Refuse(RefuseReason::from_code(reader.u8()?)?),
            RESET => Self::Reset,
            PING => Self::Ping { id: reader.u32()?, sent_at: WireTime(reader.u32()?) },
            PONG => Self::Pong {
                id: reader.u32()?,
                sent_at: WireTime(reader.u32()?),
                received_at: WireTime(reader.u32()?),
            },
            unknown => return Err(WireError::UnknownSignal(unknown)),
        };
        reader.finish()?;
        Ok(signal)
    }
}

impl RefuseReason {
    const fn code(self) -> u8 {
        match self {
            Self::UnknownService => 0,
            Self::PortOutOfRange => 1,
            Self::TooManyFlows => 2,
            Self::Draining => 3,
        }
    }

    const fn from_code(code: u8) -> Result<Self, WireError> {
        Ok(match code {
            0 => Self::UnknownService,
            1 => Self::PortOutOfRange,
            2 => Self::TooManyFlows,
            3 => Self::Draining,
            unknown => return Err(WireError::UnknownRefusal(unknown)),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn encoded(signal: Signal) -> Vec<u8> {
        let mut out = Vec::new();
        signal.encode(&mut out);
        out
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let (id, sent_at, received_at) = (7, WireTime(0x0102_0304), WireTime(0x0506_0708));
        for (signal, bytes) in [
            (Signal::Accept, &[0][..]),
            (Signal::Refuse(RefuseReason::UnknownService), &[1, 0]),
            (Signal::Refuse(RefuseReason::PortOutOfRange), &[1, 1]),
            (Signal::Refuse(RefuseReason::TooManyFlows), &[1, 2]),
            (Signal::Refuse(RefuseReason::Draining), &[1, 3]),
            (Signal::Reset, &[2]),
            (Signal::Ping { id, sent_at }, &[3, 0, 0, 0, 7, 1, 2, 3, 4]),
            (Signal::Pong { id, sent_at, received_at }, &[4, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8]),
        ] {
            assert_eq!(encoded(signal), bytes, "{signal:?}");
            assert_eq!(Signal::decode(bytes), Ok(signal));
        }
    }

    #[test]
    fn malformed_signals_are_refused() {
        for (name, payload, error) in [
            ("empty", &[][..], WireError::Truncated { need: 1, got: 0 }),
            ("unknown", &[5], WireError::UnknownSignal(5)),
            ("unknown reason", &[1, 4], WireError::UnknownRefusal(4)),
            ("short ping", &[3, 0, 0, 0, 1, 9], WireError::Truncated { need: 4, got: 1 }),
            ("more than a signal", &[0, 0], WireError::TrailingBytes(1)),
        ] {
            assert_eq!(Signal::decode(payload), Err(error), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn what_is_read_is_what_would_be_written(payload in vec(0u8..6, 0..16)) {
            if let Ok(signal) = Signal::decode(&payload) {
                prop_assert_eq!(encoded(signal), payload);
            }
        }

        #[test]
        fn no_bytes_panic(payload in vec(any::<u8>(), 0..32)) {
            let _ = Signal::decode(&payload);
        }
    }
}
