//! What arrived of a flow, and when: the figures that direct and overlay are compared by.

use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use tradewind_proto::units::Timestamp;

use super::delays::Delays;
use super::packet::Stamp;
use super::schedule::{Departure, Schedule};
use crate::world::{Traffic, World};

/// Reads the packets of one stream.
pub struct Meter {
    stream: u32,
    deadline: Duration,
    /// One bit for every packet up to the last that came. Bounded: [`World::MAX_PACKETS`] bits.
    seen: Vec<u64>,
    /// What came, without what was sent and the silence at the ends.
    came: FlowReport,
    /// The last packet that came in time: its arrival and its sending.
    last_in_time: Option<(Timestamp, Timestamp)>,
}

/// The packets of a stream as they leave.
#[derive(Clone, Debug)]
pub struct Departures {
    schedule: Schedule,
    begin: Timestamp,
    next: Option<Departure>,
    sent: u64,
    sent_bytes: u64,
    first_and_last: Option<(Timestamp, Timestamp)>,
}

impl Departures {
    /// None has left yet; the times of `schedule` count from `begin`.
    pub fn new(mut schedule: Schedule, begin: Timestamp) -> Self {
        let next = schedule.next();
        Self { schedule, begin, next, sent: 0, sent_bytes: 0, first_and_last: None }
    }

    /// When the next packet is due.
    pub fn due(&self) -> Timestamp {
        self.next.map_or(Timestamp::NEVER, |next| self.begin + next.at)
    }

    /// The next packet leaves: its number and size.
    pub fn leave(&mut self, now: Timestamp) -> (u64, usize) {
        let number = self.sent;
        let size = self.next.map_or(Traffic::MIN_SIZE, |next| next.size);
        self.sent += 1;
        self.sent_bytes += size as u64;
        let (first, _) = self.first_and_last.unwrap_or((now, now));
        self.first_and_last = Some((first, now));
        self.next = self.schedule.next();
        (number, size)
    }

    /// How many have left.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// What `meter` says of them.
    pub fn report(&self, meter: &Meter) -> FlowReport {
        meter.report(self.sent, self.sent_bytes, self.first_and_last)
    }
}

/// The figures of one stream, or of several together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowReport {
    /// Packets sent.
    pub sent: u64,
    /// The bytes in them.
    pub sent_bytes: u64,
    /// Packets that arrived intact, each counted once.
    pub delivered: u64,
    /// Of those, the ones that met the deadline.
    pub in_time: u64,
    /// Packets that arrived again.
    pub duplicates: u64,
    /// Packets that arrived altered.
    pub damaged: u64,
    /// How long what arrived was under way.
    pub delays: Delays,
    /// The longest time without a delivery in time; of several streams that of the worst.
    pub longest_gap: Duration,
}

impl FlowReport {
    /// Several streams as one.
    pub fn merged<'a>(reports: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for one in reports {
            all.sent += one.sent;
            all.sent_bytes += one.sent_bytes;
            all.delivered += one.delivered;
            all.in_time += one.in_time;
            all.duplicates += one.duplicates;
            all.damaged += one.damaged;
            all.delays.merge(&one.delays);
            all.longest_gap = all.longest_gap.max(one.longest_gap);
        }
        all
    }

    /// Share of the packets sent that met the deadline, 0 to 1.
    pub fn in_time_share(&self) -> f64 {
        self.in_time as f64 / self.sent.max(1) as f64
    }

    /// Packets that never arrived.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.delivered)
    }

    /// Median delay of what arrived, in milliseconds; `None` if nothing did.
    pub fn delay_median_ms(&self) -> Option<f64> {
        self.delays.quantile(0.5).map(millis)
    }

    /// The 99th percentile of the same.
    pub fn delay_p99_ms(&self) -> Option<f64> {
        self.delays.quantile(0.99).map(millis)
    }

    /// The most of the same.
    pub fn delay_max_ms(&self) -> Option<f64> {
        self.delays.max().map(millis)
    }

    /// The longest time without a delivery in time, in milliseconds.
    pub fn longest_gap_ms(&self) -> f64 {
        millis(self.longest_gap)
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

impl Serialize for FlowReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut figures = serializer.serialize_struct("FlowReport", 12)?;
        figures.serialize_field("sent", &self.sent)?;
        figures.serialize_field("sent_bytes", &self.sent_bytes)?;
        figures.serialize_field("delivered", &self.delivered)?;
        figures.serialize_field("in_time", &self.in_time)?;
        figures.serialize_field("in_time_share", &self.in_time_share())?;
        figures.serialize_field("lost", &self.lost())?;
        figures.serialize_field("duplicates", &self.duplicates)?;
        figures.serialize_field("damaged", &self.damaged)?;
        figures.serialize_field("delay_median_ms", &self.delay_median_ms())?;
        figures.serialize_field("delay_p99_ms", &self.delay_p99_ms())?;
        figures.serialize_field("delay_max_ms", &self.delay_max_ms())?;
        figures.serialize_field("longest_gap_ms", &self.longest_gap_ms())?;
        figures.end()
    }
}

impl Meter {
    /// A meter of a stream.
    pub fn new(stream: u32, deadline: Duration) -> Self {
        let (seen, came) = (Vec::new(), FlowReport::default());
        Self { stream, deadline, seen, came, last_in_time: None }
    }

    /// A packet arrived.
    pub fn record(&mut self, packet: &[u8], now: Timestamp) {
        let ours = |stamp: &Stamp| stamp.stream == self.stream && stamp.number < World::MAX_PACKETS;
        let Some(stamp) = Stamp::read(packet).filter(ours) else {
            self.came.damaged += 1;
            return;
        };
        let (word, bit) = ((stamp.number / 64) as usize, 1 << (stamp.number % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.came.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.came.delivered += 1;
        let delay = now.since(stamp.sent_at);
        self.came.delays.record(delay);
        if delay <= self.deadline {
            self.came.in_time += 1;
            if let Some((before, _)) = self.last_in_time {
                self.came.longest_gap = self.came.longest_gap.max(now.since(before));
            }
            self.last_in_time = Some((now, stamp.sent_at));
        }
    }

    /// Packets that met the deadline so far.
    pub fn in_time(&self) -> u64 {
        self.came.in_time
    }

    /// The figures, once all that may still come has come. `sent` packets of `sent_bytes` bytes
    /// were sent, the first and last of them at the times given: silence at the beginning and the
    /// end counts too.
    pub fn report(
        &self,
        sent: u64,
        sent_bytes: u64,
        first_and_last: Option<(Timestamp, Timestamp)>,
    ) -> FlowReport {
        let ends = first_and_last.map(|(first, last)| match self.last_in_time {
            Some((_, sent_at)) => last.since(sent_at),
            None => last.since(first),
        });
        let longest_gap = self.came.longest_gap.max(ends.unwrap_or_default());
        FlowReport { sent, sent_bytes, longest_gap, ..self.came.clone() }
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
        let mut meter = Meter::new(9, DEADLINE);
        for &(number, arrival) in arrivals {
            let mut packet = [0; 40];
            Stamp { stream: 9, number, sent_at: at(1000 + 20 * number) }.write(&mut packet);
            meter.record(&packet, at(arrival));
        }
        meter.report(5, 200, Some((at(1000), at(1080))))
    }

    #[test]
    fn what_is_late_repeated_or_missing_is_told_apart() {
        let report = metered(&[(0, 1050), (1, 1070), (1, 1071), (2, 1200), (4, 1130)]);
        let FlowReport { delivered, in_time, duplicates, .. } = report;
        assert_eq!((delivered, in_time, report.lost(), duplicates), (4, 3, 1, 1));
        assert_eq!(report.in_time_share(), 0.6);
        assert_eq!(report.longest_gap_ms(), 60.0);
        assert!((report.delay_median_ms().unwrap() - 50.0).abs() < 0.1);
        assert_eq!(report.delay_max_ms(), Some(160.0));
    }

    #[test]
    fn silence_at_the_end_is_a_gap() {
        assert_eq!(metered(&[(0, 1050)]).longest_gap_ms(), 80.0);
        let nothing = metered(&[]);
        assert_eq!((nothing.longest_gap_ms(), nothing.delay_median_ms()), (80.0, None));
    }

    #[test]
    fn altered_and_foreign_packets_are_not_delivered() {
        let mut meter = Meter::new(9, DEADLINE);
        let mut packet = [0; 40];
        for (stream, number) in [(8, 0), (9, World::MAX_PACKETS), (9, u64::MAX)] {
            Stamp { stream, number, sent_at: at(1000) }.write(&mut packet);
            meter.record(&packet, at(1001));
        }
        meter.record(b"hello", at(1001));
        let report = meter.report(5, 200, None);
        assert_eq!((report.damaged, report.delivered), (4, 0));
    }

    #[test]
    fn streams_together_are_the_sum_of_their_packets_and_the_worst_of_their_gaps() {
        let one = metered(&[(0, 1050), (1, 1070), (1, 1071), (2, 1200), (4, 1130)]);
        let other = metered(&[(0, 1010)]);
        let both = FlowReport::merged([&one, &other]);
        let FlowReport { sent, sent_bytes, delivered, in_time, duplicates, .. } = both;
        assert_eq!((sent, sent_bytes, delivered, in_time, duplicates), (10, 400, 5, 4, 1));
        assert_eq!((both.lost(), both.in_time_share()), (5, 0.4));
        assert_eq!(both.longest_gap_ms(), 80.0);
        assert_eq!(both.delays.count(), 5);
        assert_eq!(FlowReport::merged([]), FlowReport::default());
    }
}
