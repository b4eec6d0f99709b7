//! The bytes of QUIC's acknowledgements: counted among those of the link, not carried. They are never
//! lost and take no room at a bottleneck.

use std::collections::VecDeque;
use std::time::Duration;

use tradewind_proto::units::Timestamp;

use crate::emulator::IP_UDP_HEADERS;
use crate::virtual_net::QUIC_OVERHEAD;

/// Packets after which the daemon asks for an acknowledgement.
const ACK_EVERY: u32 = 20;
/// quinn keeps so many ranges.
const ACK_RANGES: usize = 64;
/// Type, largest (2), delay (2), number of ranges, first range (RFC 9000, section 19.3).
const ACK_FRAME: usize = 7;
const ACK_RANGE: usize = 2;

/// What one end of a connection owes the other, as the daemon sets quinn up: an acknowledgement
/// after [`ACK_EVERY`] packets or some time, with a datagram that goes that way where there is one.
/// quinn bundles a little less often.
#[derive(Debug, Default)]
pub(super) struct QuicAcks {
    unacknowledged: u32,
    since: Timestamp,
    /// When packets were lost of late: each makes a gap, until its report was acknowledged.
    gaps: VecDeque<Timestamp>,
}

impl QuicAcks {
    /// A packet came; bytes of the packet with which, `delay` after the first of those before it, they
    /// were acknowledged, if no datagram went that way.
    pub(super) fn handle_arrival(&mut self, now: Timestamp, delay: Duration) -> Option<usize> {
        let overdue = self.unacknowledged > 0 && now.since(self.since) >= delay;
        let alone = (self.unacknowledged > ACK_EVERY || overdue).then(|| {
            self.unacknowledged = 0;
            // A datagram's type and length are not there.
            IP_UDP_HEADERS + QUIC_OVERHEAD - 2 + self.frame()
        });
        if self.unacknowledged == 0 {
            self.since = now;
        }
        self.unacknowledged += 1;
        alone
    }

    /// A packet that was on its way is lost.
    pub(super) fn handle_loss(&mut self, now: Timestamp, round_trip: Duration) {
        self.gaps.push_back(now);
        while self.gaps.front().is_some_and(|&at| now.since(at) > round_trip * 3 / 2) {
            self.gaps.pop_front();
        }
    }

    /// Bytes that go with a datagram which is sent now.
    pub(super) fn bundled(&mut self) -> usize {
        match std::mem::take(&mut self.unacknowledged) {
            0 => 0,
            _ => self.frame(),
        }
    }

    fn frame(&self) -> usize {
        ACK_FRAME + ACK_RANGE * self.gaps.len().min(ACK_RANGES)
    }
}
