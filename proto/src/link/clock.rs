//! The neighbour's clock, as far as a link needs it: to read its timestamps and to tell how old
//! its packets are.

use std::time::Duration;

use super::meter::{DelayMeter, RttMeter};
use crate::units::{Timestamp, WireTime};

/// Reads the neighbour's 32-bit timestamps.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerClock {
    /// The neighbour's clock less ours, in microseconds, known to some minutes.
    offset: i64,
}

impl PeerClock {
    pub(super) fn new(offset: i64) -> Self {
        Self { offset }
    }

    /// The full reading of the neighbour's clock that was sent not long before `now`.
    pub(super) fn read(self, time: WireTime, now: Timestamp) -> Timestamp {
        let there = now.as_micros().saturating_add_signed(self.offset);
        time.near(Timestamp::from_micros(there))
    }

    /// Arrival on our clock less departure on the neighbour's.
    pub(super) fn raw_delay(self, sent_at: WireTime, now: Timestamp) -> i64 {
        now.micros_after(self.read(sent_at, now))
    }

    /// How long ago something was sent. The least delay counts as half the least round trip: how
    /// the two directions share it can't be known from here.
    pub(super) fn age(
        self,
        sent_at: WireTime,
        (delays, rtt): (&DelayMeter, &RttMeter),
        now: Timestamp,
    ) -> Duration {
        let least = rtt.min().unwrap_or_default() / 2;
        let beyond = delays.min().map_or(0, |min| self.raw_delay(sent_at, now).saturating_sub(min));
        least + Duration::from_micros(beyond.max(0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_the_delay_beyond_the_least_plus_half_a_round_trip() {
        for offset in [0i64, -1_600_000_000_000, 86_400_000_000_000] {
            let ours = Timestamp::from_micros(1_700_000_000_000_000);
            let theirs = Timestamp::from_micros(ours.as_micros().saturating_add_signed(offset));
            // Known to a minute only.
            let clock = PeerClock::new(offset + 60_000_000);
            let (mut delays, mut rtt) = (DelayMeter::new(), RttMeter::new());
            let millis = Duration::from_millis;
            assert_eq!(clock.age(theirs.wire(), (&delays, &rtt), ours), millis(0));
            rtt.record(millis(40), ours);
            delays.record(clock.raw_delay(theirs.wire(), ours + millis(25)), ours + millis(25));
            let age = |ago| clock.age(theirs.wire(), (&delays, &rtt), ours + millis(ago));
            assert_eq!(
                [age(25), age(95), age(5)],
                [millis(20), millis(90), millis(20)],
                "{offset}"
            );
        }
    }
}
