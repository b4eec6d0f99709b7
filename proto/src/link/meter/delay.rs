//! One-way delay as two clocks show it: signed and off by an unknown, nearly constant amount.

use std::time::Duration;

use super::WindowedMin;
use crate::units::Timestamp;

/// The least delay is remembered for about 30 s: long enough for a queue to have been empty once,
/// short enough for clock drift (50 ppm: 1.5 ms) and route changes.
const BASE_SLOTS: usize = 6;
const BASE_SLOT: Duration = Duration::from_secs(5);

/// The queue is judged by the least delay of 40 to 50 ms: a queue that stands delays every packet,
/// jitter does not (CoDel's argument, RFC 8289 section 3.1).
const RECENT_SLOTS: usize = 5;
const RECENT_SLOT: Duration = Duration::from_millis(10);

/// Smoothing spans 100 ms where packets are many and 8 samples where they are few.
const SMOOTHING_MICROS: f64 = 100_000.0;
const MOST_GAIN: f64 = 1.0 / 8.0;
/// Packets that come in one batch have the same time and still count.
const LEAST_GAIN: f64 = 1.0 / 256.0;

/// Smoothed one-way delay, its deviation, its least value and the queueing delay above that.
///
/// Samples are "arrival on the receiver's clock less departure on the sender's" in microseconds;
/// the offset between the clocks cancels in all but [`Self::smoothed`] and [`Self::min`].
#[derive(Clone, Debug)]
pub struct DelayMeter {
    /// The first sample: the others are held as differences from it, so that fractions of a
    /// microsecond survive whatever the clocks' offset.
    origin: Option<i64>,
    smoothed: f64,
    deviation: f64,
    recorded_at: Timestamp,
    base: WindowedMin<BASE_SLOTS>,
    recent: WindowedMin<RECENT_SLOTS>,
}

impl DelayMeter {
    /// A meter that has seen nothing.
    pub fn new() -> Self {
        Self {
            origin: None,
            smoothed: 0.0,
            deviation: 0.0,
            recorded_at: Timestamp::ZERO,
            base: WindowedMin::new(BASE_SLOT),
            recent: WindowedMin::new(RECENT_SLOT),
        }
    }

    /// A packet that arrived by `now` took `micros`, give or take the clocks' offset.
    pub fn record(&mut self, micros: i64, now: Timestamp) {
        let origin = *self.origin.get_or_insert(micros);
        let sample = micros.saturating_sub(origin) as f64;
        let elapsed = now.since(self.recorded_at).as_micros() as f64;
        let gain = (elapsed / SMOOTHING_MICROS).clamp(LEAST_GAIN, MOST_GAIN);
        let difference = sample - self.smoothed;
        self.smoothed += difference * gain;
        self.deviation += (difference.abs() - self.deviation) * (gain / 2.0);
        self.recorded_at = now;
        self.base.record(micros, now);
        self.recent.record(micros, now);
    }

    /// A queue has gone: the mean is that of now, the deviation that of before.
    pub fn resume(&mut self, micros: i64, jitter: Duration) {
        if let Some(origin) = self.origin {
            self.smoothed = micros.saturating_sub(origin) as f64;
            self.deviation = jitter.as_micros() as f64;
        }
    }

    /// The smoothed delay in microseconds, over the last 100 ms or 8 samples, whichever is longer.
    pub fn smoothed(&self) -> Option<i64> {
        self.origin.map(|origin| origin.saturating_add(self.smoothed.round() as i64))
    }

    /// The least delay of the last 25 to 30 s, in microseconds.
    pub fn min(&self) -> Option<i64> {
        self.base.get()
    }

    /// The smoothed absolute deviation from the smoothed delay, with half its gain. As RFC 3550's
    /// jitter (section 6.4.1), but against the mean instead of the previous packet: neighbours in
    /// a fast stream share their fate, so their difference would hide a delay that swings slowly.
    pub fn jitter(&self) -> Duration {
        Duration::from_micros(self.deviation.round() as u64)
    }

    /// How much a sample exceeds [`Self::min`].
    pub fn beyond_least(&self, micros: i64) -> Duration {
        let least = self.base.get().unwrap_or(micros);
        Duration::from_micros(micros.saturating_sub(least).max(0) as u64)
    }

    /// How long a packet stood in queues of late: the least delay of the last 40 to 50 ms (of the
    /// last sample if that is older) less [`Self::min`].
    pub fn queueing(&self) -> Duration {
        self.recent.get().map_or(Duration::ZERO, |recent| self.beyond_least(recent))
    }
}

impl Default for DelayMeter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const START: u64 = 1_700_000_000_000_000;

    /// A packet every `gap` µs for `span` µs, each delayed by `delay(time since the start, noise)`.
    fn feed(
        meter: &mut DelayMeter,
        from: u64,
        span: u64,
        gap: u64,
        mut delay: impl FnMut(u64) -> i64,
    ) -> u64 {
        for t in (from..from + span).step_by(gap as usize) {
            meter.record(delay(t), Timestamp::from_micros(START + t));
        }
        from + span
    }

    #[test]
    fn jitter_is_not_taken_for_a_queue() {
        for seed in 0..20 {
            let mut noise = SmallRng::seed_from_u64(seed);
            let mut meter = DelayMeter::new();
            feed(&mut meter, 0, 5_000_000, 500, |_| -40_000 + noise.random_range(0..10_000));
            assert!(meter.queueing() < Duration::from_micros(1_000), "{:?}", meter.queueing());
            let smoothed = meter.smoothed().unwrap_or_default();
            assert!((-36_500..-33_500).contains(&smoothed), "{smoothed}");
            // The mean absolute deviation of a uniform distribution is a quarter of its width.
            let jitter = meter.jitter().as_micros();
            assert!((2_000..3_000).contains(&jitter), "{jitter}");
        }
    }

    #[test]
    fn a_queue_is_seen_within_100_ms_and_its_end_at_once() {
        let mut meter = DelayMeter::new();
        let t = feed(&mut meter, 0, 2_000_000, 500, |_| 7_000);
        assert_eq!((meter.queueing(), meter.min()), (Duration::ZERO, Some(7_000)));
        let t = feed(&mut meter, t, 100_000, 500, |_| 37_000);
        assert_eq!(meter.queueing(), Duration::from_millis(30));
        feed(&mut meter, t, 500, 500, |_| 7_000);
        assert_eq!(meter.queueing(), Duration::ZERO);
    }

    #[test]
    fn a_route_that_became_longer_is_no_queue_for_ever() {
        let mut meter = DelayMeter::new();
        let t = feed(&mut meter, 0, 10_000_000, 10_000, |_| 7_000);
        feed(&mut meter, t, 31_000_000, 10_000, |_| 27_000);
        assert_eq!((meter.queueing(), meter.min()), (Duration::ZERO, Some(27_000)));
    }

    proptest! {
        #[test]
        fn the_offset_of_the_clocks_shifts_the_delay_and_nothing_else(
            offset in -1_000_000_000_000i64..1_000_000_000_000,
            samples in prop::collection::vec((0..50_000i64, 0..40_000u64), 1..200),
        ) {
            let (mut plain, mut shifted) = (DelayMeter::new(), DelayMeter::new());
            let mut t = START;
            for (delay, gap) in samples {
                t += gap;
                plain.record(delay, Timestamp::from_micros(t));
                shifted.record(delay + offset, Timestamp::from_micros(t));
            }
            prop_assert_eq!(plain.queueing(), shifted.queueing());
            prop_assert_eq!(plain.jitter(), shifted.jitter());
            prop_assert_eq!(plain.min().map(|d| d + offset), shifted.min());
            prop_assert_eq!(plain.smoothed().map(|d| d + offset), shifted.smoothed());
        }

        #[test]
        fn extreme_samples_do_not_panic(samples in prop::collection::vec((any::<i64>(), any::<u64>()), 1..20)) {
            let mut meter = DelayMeter::new();
            for (delay, at) in samples {
                meter.record(delay, Timestamp::from_micros(at));
                let _ = (meter.smoothed(), meter.min(), meter.jitter(), meter.queueing());
            }
        }
    }
}
