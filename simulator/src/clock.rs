//! The real clock, read here and nowhere else in this crate.

use std::time::{Duration, Instant};

use tradewind_proto::units::Timestamp;

/// Microseconds since a run began. Copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.start.elapsed()
    }

    /// How long it is until `at`; zero if that has passed.
    pub fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }

    /// Sleeps until `at`. The kernel's timers make that some 60 us too long.
    pub fn sleep_until(&self, at: Timestamp) {
        let left = self.until(at);
        if !left.is_zero() {
            std::thread::sleep(left);
        }
    }
}
