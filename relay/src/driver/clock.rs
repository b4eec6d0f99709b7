//! The only place that reads clocks.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tradewind_proto::units::{Incarnation, Timestamp};

/// The relay's clock: the wall clock at start, carried on by the monotonic one, so it never jumps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_wall: Duration,
}

impl Clock {
    /// Starts now.
    #[allow(clippy::disallowed_methods, reason = "the driver reads the clocks for everybody")]
    pub fn start() -> Self {
        let start_wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self { start: Instant::now(), start_wall: start_wall.unwrap_or_default() }
    }

    /// The time.
    #[allow(clippy::disallowed_methods, reason = "the driver reads the clocks for everybody")]
    pub fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.start_wall + self.start.elapsed()
    }

    /// The start, as the number of this start of the relay.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(u64::try_from(self.start_wall.as_millis()).unwrap_or(u64::MAX))
    }

    /// `at` as the runtime's timers know it; the far future stands for "never".
    pub fn instant(&self, at: Timestamp) -> Instant {
        let start = Timestamp::ZERO + self.start_wall;
        self.start + at.since(start).min(Duration::from_secs(3600))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock {
            start: Clock::start().start,
            start_wall: Duration::from_micros(1_700_000_000_250_999),
        }
    }

    #[test]
    fn time_goes_on_from_the_wall_clock_at_the_start() {
        let clock = clock();
        let (first, second) = (clock.now(), clock.now());
        assert!(Timestamp::from_micros(1_700_000_000_250_999) <= first && first <= second);
        assert_eq!(clock.incarnation(), Incarnation(1_700_000_000_250));
    }

    #[test]
    fn timers_are_set_to_the_microsecond_and_never_is_no_overflow() {
        let clock = clock();
        let start = Timestamp::from_micros(1_700_000_000_250_999);
        let hour = Duration::from_secs(3600);
        for (at, after) in [
            (Timestamp::ZERO, Duration::ZERO),
            (start, Duration::ZERO),
            (start + Duration::from_micros(7), Duration::from_micros(7)),
            (Timestamp::NEVER, hour),
        ] {
            assert_eq!(clock.instant(at) - clock.start, after, "{at:?}");
        }
    }
}
