//! Round-trip time, smoothed.

use std::time::Duration;

use super::WindowedMin;
use crate::units::Timestamp;

/// How many slots of [`MIN_SLOT`] the least round trip is remembered for: about a minute.
const MIN_SLOTS: usize = 6;
const MIN_SLOT: Duration = Duration::from_secs(10);

/// Smoothed round-trip time and its deviation as in RFC 6298 section 2 (gains 1/8 and 1/4; so RFC
/// 9002 section 5.3), and the least of the last minute (RFC 9002 section 5.2, but windowed, since a
/// route may change for good).
///
/// Samples are to exclude the time that the other side waited before it answered.
#[derive(Clone, Debug)]
pub struct RttMeter {
    smoothed: Option<Duration>,
    deviation: Duration,
    least: WindowedMin<MIN_SLOTS>,
}

impl RttMeter {
    /// A meter that has seen nothing.
    pub fn new() -> Self {
        Self { smoothed: None, deviation: Duration::ZERO, least: WindowedMin::new(MIN_SLOT) }
    }

    /// A packet and its answer took `sample`. Samples above a minute are cut to it.
    pub fn record(&mut self, sample: Duration, now: Timestamp) {
        let sample = sample.min(Duration::from_secs(60));
        self.least.record(sample.as_micros() as i64, now);
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.deviation = sample / 2;
            }
            Some(smoothed) => {
                self.deviation = (self.deviation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// The smoothed round-trip time, `None` before the first sample.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The least sample of the last minute or so.
    pub fn min(&self) -> Option<Duration> {
        self.least.get().map(|micros| Duration::from_micros(micros.unsigned_abs()))
    }

    /// The smoothed mean deviation of the samples.
    pub fn deviation(&self) -> Duration {
        self.deviation
    }
}

impl Default for RttMeter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn smooths_as_rfc_6298_does() {
        let mut meter = RttMeter::new();
        assert_eq!((meter.smoothed(), meter.min()), (None, None));
        meter.record(80 * MS, Timestamp::from_micros(1));
        assert_eq!((meter.smoothed(), meter.deviation()), (Some(80 * MS), 40 * MS));
        meter.record(160 * MS, Timestamp::from_micros(2));
        assert_eq!((meter.smoothed(), meter.deviation()), (Some(90 * MS), 50 * MS));
        assert_eq!(meter.min(), Some(80 * MS));
    }

    #[test]
    fn a_longer_route_becomes_the_least_after_a_minute() {
        let mut meter = RttMeter::new();
        for second in 0..130 {
            let sample = if second < 60 { 40 * MS } else { 55 * MS };
            meter.record(sample, Timestamp::from_micros(second * 1_000_000));
            if second == 100 {
                assert_eq!(meter.min(), Some(40 * MS));
            }
        }
        assert_eq!(meter.min(), Some(55 * MS));
    }
}
