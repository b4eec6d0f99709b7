//! What arrived of a flow, and when: the figures that direct and overlay are compared by.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tradewind_proto::units::Timestamp;

use super::packet::Stamp;
use crate::emulator::micros_histogram;

/// Reads the packets of one stream.
pub struct Meter {
    stream: u32,
    deadline: Duration,
    /// One bit for every packet that will be sent.
    seen: Vec<u64>,
    expected: u64,
    /// Microseconds, of every packet's first arrival.
    delays: Histogram<u64>,
    delivered: u64,
    in_time: u64,
    duplicates: u64,
    damaged: u64,
    /// The last packet that came in time: its arrival and its sending.
    last_in_time: Option<(Timestamp, Timestamp)>,
    longest_gap: Duration,
}

/// The packets of a stream as they leave, at an even pace.
#[derive(Clone, Debug)]
pub struct Departures {
    interval: Duration,
    sent: u64,
    first_and_last: Option<(Timestamp, Timestamp)>,
}

impl Departures {
    /// None has left yet.
    pub fn new(interval: Duration) -> Self {
        Self { interval, sent: 0, first_and_last: None }
    }

    /// A packet leaves: its number, and when the next one is due.
    pub fn next(&mut self, now: Timestamp) -> (u64, Timestamp) {
        let number = self.sent;
        self.sent += 1;
        let (first, _) = self.first_and_last.unwrap_or((now, now));
        self.first_and_last = Some((first, now));
        // Counted from the first, as intervals need not be whole microseconds.
        let nanos = self.interval.as_nanos() * u128::from(self.sent);
        (number, first + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// How many have left.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// What `meter` says of them.
    pub fn report(&self, meter: &Meter) -> FlowReport {
        meter.report(self.sent, self.first_and_last)
    }
}

/// The figures of one stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FlowReport {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived intact, each counted once.
    pub delivered: u64,
    /// Of those, the ones that met the deadline.
    pub in_time: u64,
    /// Share of the packets sent that met the deadline, 0 to 1.
    pub in_time_share: f64,
    /// Packets that never arrived.
    pub lost: u64,
    /// Packets that arrived again.
    pub duplicates: u64,
    /// Packets that arrived altered.
    pub damaged: u64,
    /// Delay of what arrived, in milliseconds; `None` if nothing did.
    pub delay_median_ms: Option<f64>,
    /// The 99th percentile of the same.
    pub delay_p99_ms: Option<f64>,
    /// The most of the same.
    pub delay_max_ms: Option<f64>,
    /// The longest time without a delivery in time, in milliseconds.
    pub longest_gap_ms: f64,
}

impl Meter {
    /// A meter of a stream of `expected` packets.
    pub fn new(stream: u32, expected: u64, deadline: Duration) -> Self {
        let words = usize::try_from(expected.div_ceil(64)).unwrap_or(usize::MAX);
        Self {
            stream,
            deadline,
            seen: vec![0; words],
            expected,
            delays: micros_histogram(),
            delivered: 0,
            in_time: 0,
            duplicates: 0,
            damaged: 0,
            last_in_time: None,
            longest_gap: Duration::ZERO,
        }
    }

    /// A packet arrived.
    pub fn record(&mut self, packet: &[u8], now: Timestamp) {
        let ours = |stamp: &Stamp| stamp.stream == self.stream && stamp.number < self.expected;
        let Some(stamp) = Stamp::read(packet).filter(ours) else {
            self.damaged += 1;
            return;
        };
        let word = &mut self.seen[(stamp.number / 64) as usize];
        let bit = 1 << (stamp.number % 64);
        if *word & bit != 0 {
            self.duplicates += 1;
            return;
        }
        *word |= bit;
        self.delivered += 1;
        let delay = now.since(stamp.sent_at);
        self.delays.saturating_record(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX));
        if delay <= self.deadline {
            self.in_time += 1;
            if let Some((before, _)) = self.last_in_time {
                self.longest_gap = self.longest_gap.max(now.since(before));
            }
            self.last_in_time = Some((now, stamp.sent_at));
        }
    }

    /// Packets that met the deadline so far.
    pub fn in_time(&self) -> u64 {
        self.in_time
    }

    /// The figures, once all that may still come has come. `sent` packets were sent, the first
    /// and last of them at the times given: silence at the beginning and the end counts too.
    pub fn report(&self, sent: u64, first_and_last: Option<(Timestamp, Timestamp)>) -> FlowReport {
        let ends = first_and_last.map(|(first, last)| match self.last_in_time {
            Some((_, sent_at)) => last.since(sent_at),
            None => last.since(first),
        });
        let millis = |micros: u64| micros as f64 / 1e3;
        let quantile = |q| (self.delivered > 0).then(|| millis(self.delays.value_at_quantile(q)));
        FlowReport {
            sent,
            delivered: self.delivered,
            in_time: self.in_time,
            in_time_share: self.in_time as f64 / sent.max(1) as f64,
            lost: sent.saturating_sub(self.delivered),
            duplicates: self.duplicates,
            damaged: self.damaged,
            delay_median_ms: quantile(0.5),
            delay_p99_ms: quantile(0.99),
            delay_max_ms: (self.delivered > 0).then(|| millis(self.delays.max())),
            longest_gap_ms: self.longest_gap.max(ends.unwrap_or_default()).as_secs_f64() * 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    /// Packets sent every 20 ms, five of them; (number, arrival in ms).
    fn metered(arrivals: &[(u64, u64)]) -> FlowReport {
        let mut meter = Meter::new(9, 5, DEADLINE);
        for &(number, arrival) in arrivals {
            let mut packet = [0; 40];
            Stamp { stream: 9, number, sent_at: at(1000 + 20 * number) }.write(&mut packet);
            meter.record(&packet, at(arrival));
        }
        meter.report(5, Some((at(1000), at(1080))))
    }

    #[test]
    fn what_is_late_repeated_or_missing_is_told_apart() {
        let report = metered(&[(0, 1050), (1, 1070), (1, 1071), (2, 1200), (4, 1130)]);
        let FlowReport { delivered, in_time, lost, duplicates, .. } = report;
        assert_eq!((delivered, in_time, lost, duplicates), (4, 3, 1, 1));
        assert_eq!(report.in_time_share, 0.6);
        assert_eq!(report.longest_gap_ms, 60.0);
        assert!((report.delay_median_ms.unwrap() - 50.0).abs() < 0.1);
        assert!((report.delay_max_ms.unwrap() - 160.0).abs() < 0.2);
    }

    #[test]
    fn silence_at_the_end_is_a_gap() {
        assert_eq!(metered(&[(0, 1050)]).longest_gap_ms, 80.0);
        let nothing = metered(&[]);
        assert_eq!((nothing.longest_gap_ms, nothing.delay_median_ms), (80.0, None));
    }

    #[test]
    fn altered_and_foreign_packets_are_not_delivered() {
        let mut meter = Meter::new(9, 5, DEADLINE);
        let mut packet = [0; 40];
        for (stream, number) in [(8, 0), (9, 5), (9, u64::MAX)] {
            Stamp { stream, number, sent_at: at(1000) }.write(&mut packet);
            meter.record(&packet, at(1001));
        }
        meter.record(b"hello", at(1001));
        let report = meter.report(5, None);
        assert_eq!((report.damaged, report.delivered), (4, 0));
    }
}
