//! What a link is like, estimated from what happened on it: loss and burst length, one-way delay,
//! round trips.
//!
//! The meters take single observations with the time of each, hold a bounded number of numbers and
//! answer at once. They send no probes and judge nothing: [`super::liveness`] decides whether a
//! link is dead and [`super::rate`] how fast to send.

mod delay;
pub mod loss;
mod rtt;

use std::time::Duration;

use crate::units::Timestamp;

pub use delay::DelayMeter;
pub use loss::LossMeter;
pub use rtt::RttMeter;

/// The least of the values recorded of late: over `SLOTS` slots of equal length, of which the
/// newest is in progress. So it forgets a value after `SLOTS - 1` to `SLOTS` slots.
///
/// Coarser than a monotonic deque, and in exchange of constant size and cost at any packet rate.
#[derive(Clone, Debug)]
struct WindowedMin<const SLOTS: usize> {
    slot: Duration,
    /// Newest first.
    least: [Option<i64>; SLOTS],
    slot_began: Timestamp,
}

impl<const SLOTS: usize> WindowedMin<SLOTS> {
    fn new(slot: Duration) -> Self {
        Self { slot, least: [None; SLOTS], slot_began: Timestamp::ZERO }
    }

    fn record(&mut self, value: i64, now: Timestamp) {
        self.turn(now);
        self.least[0] = Some(self.least[0].map_or(value, |least| least.min(value)));
    }

    /// Drops the slots that are too old. Without records nothing is forgotten: an old value is
    /// better than none.
    fn turn(&mut self, now: Timestamp) {
        let passed = now.since(self.slot_began).as_micros() / self.slot.as_micros();
        if passed == 0 {
            return;
        }
        let shift = usize::try_from(passed).map_or(SLOTS, |slots| slots.min(SLOTS));
        self.least.rotate_right(shift % SLOTS);
        self.least[..shift].fill(None);
        self.slot_began =
            if shift == SLOTS { now } else { self.slot_began + self.slot * shift as u32 };
    }

    fn get(&self) -> Option<i64> {
        self.least.iter().flatten().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_value_is_forgotten_in_time() {
        let at = |ms: u64| Timestamp::from_micros(1_000_000_000 + ms * 1000);
        let mut least = WindowedMin::<4>::new(Duration::from_millis(10));
        assert_eq!(least.get(), None);
        for (ms, value, expected) in [
            (0, 5, 5),
            (1, 7, 5),
            (12, 9, 5),
            (25, 6, 5),
            (39, 8, 5),
            (41, 8, 6),
            (66, 8, 8),
            (500, 9, 9),
        ] {
            least.record(value, at(ms));
            assert_eq!(least.get(), Some(expected), "at {ms} ms");
        }
    }
}
