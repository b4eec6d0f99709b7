//! A relay's clock: off by an offset, and running a little fast or slow.

use std::time::Duration;

use tradewind_proto::units::Timestamp;

/// How a clock stands against true time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockError {
    /// Microseconds ahead of true time when the simulation begins; negative: behind it.
    pub offset_micros: i64,
    /// How much it gains, in parts per million; negative: loses.
    pub drift_ppm: i32,
}

/// Translates between true time and what one clock shows.
#[derive(Clone, Copy, Debug)]
pub struct SkewedClock {
    start: Timestamp,
    error: ClockError,
}

impl SkewedClock {
    /// A clock whose error counts from `start`.
    pub fn new(start: Timestamp, error: ClockError) -> Self {
        Self { start, error }
    }

    /// What the clock shows at `truth`.
    pub fn shown_at(&self, truth: Timestamp) -> Timestamp {
        let passed = i128::from(truth.micros_after(self.start));
        let gained = (passed * i128::from(self.error.drift_ppm)).div_euclid(1_000_000);
        let shown = i128::from(truth.as_micros()) + i128::from(self.error.offset_micros) + gained;
        Timestamp::from_micros(u64::try_from(shown.max(0)).unwrap_or(u64::MAX))
    }

    /// The first true time at which the clock shows `shown` or later.
    pub fn true_at(&self, shown: Timestamp) -> Timestamp {
        if shown == Timestamp::NEVER {
            return Timestamp::NEVER;
        }
        let at_start = self.shown_at(self.start);
        let ahead = i128::from(shown.micros_after(at_start));
        let rate = 1_000_000 + i128::from(self.error.drift_ppm);
        let passed = (ahead * 1_000_000).div_euclid(rate);
        let truth = i128::from(self.start.as_micros()) + passed;
        let mut truth = Timestamp::from_micros(u64::try_from(truth.max(0)).unwrap_or(u64::MAX));
        // Division rounds down, by less than two microseconds.
        while self.shown_at(truth) < shown {
            truth = truth + Duration::from_micros(1);
        }
        truth
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wake_up_is_never_early_and_at_most_two_microseconds_late(
            offset_micros in -10_000_000_000i64..10_000_000_000,
            drift_ppm in -500i32..500,
            after in 0u64..100_000_000_000,
        ) {
            let start = Timestamp::from_micros(1_700_000_000_000_000);
            let clock = SkewedClock::new(start, ClockError { offset_micros, drift_ppm });
            let shown = clock.shown_at(start) + Duration::from_micros(after);
            let truth = clock.true_at(shown);
            prop_assert!(clock.shown_at(truth) >= shown);
            prop_assert!(clock.shown_at(truth.minus(Duration::from_micros(2))) < shown);
        }
    }
}
