//! What came of a flow, in expectation: packets in time, a histogram of delays, the longest gap.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use tradewind_proto::units::Timestamp;

use super::delivery::Delivery;
use crate::traffic::{Delays, FlowReport};

/// Buckets are so much wider each than the one before.
const STEP: f64 = 0.002;

/// Adds up what came of a flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Packets by delay: number of the bucket.
    delays: BTreeMap<u16, f64>,
    delivered: f64,
    in_time: f64,
    first_sent: Option<Timestamp>,
    /// When the last packet that came in time arrived, in seconds after `first_sent`.
    last_in_time: Option<f64>,
    longest_gap: f64,
}

impl Tally {
    /// Packets were sent evenly from `from` to `to`, one every `interval` seconds, and fared as
    /// `delivery` says.
    pub(super) fn record(
        &mut self,
        (from, to): (Timestamp, Timestamp),
        interval: f64,
        delivery: &Delivery,
        deadline: f64,
    ) {
        let start = self.note_sending(from);
        let span = to.since(from).as_secs_f64();
        let packets = span / interval;
        if packets <= 0.0 {
            return;
        }
        let mut in_time = 0.0;
        let mut first = f64::INFINITY;
        for (delay, share) in delivery.spread() {
            self.add(delay, share * packets);
            if delay <= deadline {
                in_time += share;
                first = first.min(delay);
            }
        }
        self.in_time += in_time * packets;
        if in_time * packets >= 0.5 {
            self.note_gap(start + first, start + span + first - interval.min(span));
            self.note_runs(in_time, delivery, packets, interval);
        }
    }

    /// Packets sent evenly from `from` to `to` all arrived at `at`.
    pub(super) fn record_burst(
        &mut self,
        (from, to): (Timestamp, Timestamp),
        interval: f64,
        at: f64,
        deadline: f64,
    ) {
        let start = self.note_sending(from);
        let packets = to.since(from).as_secs_f64() / interval;
        let mut in_time = 0.0;
        for packet in 0..packets.ceil() as u32 {
            let delay = at - f64::from(packet) * interval;
            if delay <= deadline {
                let whole = (packets - f64::from(packet)).min(1.0);
                self.add(delay, whole);
                in_time += whole;
            }
        }
        self.in_time += in_time;
        if in_time >= 0.5 {
            self.note_gap(start + at, start + at);
        }
    }

    fn note_sending(&mut self, at: Timestamp) -> f64 {
        let begun = *self.first_sent.get_or_insert(at);
        at.since(begun).as_secs_f64()
    }

    fn add(&mut self, delay: f64, packets: f64) {
        let micros = (delay * 1e6).max(1.0);
        *self.delays.entry((micros.ln() / STEP).round() as u16).or_default() += packets;
        self.delivered += packets;
    }

    /// Something came in time from `first` on, and until `last`.
    fn note_gap(&mut self, first: f64, last: f64) {
        let before = self.last_in_time.unwrap_or(first);
        self.longest_gap = self.longest_gap.max(first - before);
        self.last_in_time = Some(before.max(last));
    }

    /// The longest run of packets that were not there when their time had come, as chance makes one
    /// among so many: `q^n * packets = 1` (Schilling, "The longest run of heads", 1990). It ends when
    /// the first of them comes after all.
    fn note_runs(&mut self, in_time: f64, delivery: &Delivery, packets: f64, interval: f64) {
        let run = |missing: f64| match missing.clamp(0.0, 0.99) {
            missing if missing * packets > 1.0 => (packets.ln() / (1.0 / missing).ln()).max(1.0),
            _ => 0.0,
        };
        let behind = (run(1.0 - delivery.prompt()) * interval).min(delivery.lag(1.0 / packets));
        let gap = behind.max(run(1.0 - in_time) * interval);
        self.longest_gap = self.longest_gap.max(interval + gap);
    }

    /// Packets in time so far.
    pub(super) fn in_time(&self) -> u64 {
        self.in_time as u64
    }

    /// The figures when `sent` packets have been sent. Fractions of packets are rounded at random.
    pub(super) fn report(
        &self,
        (sent, sent_bytes): (u64, u64),
        last_sent: Option<Timestamp>,
        rng: &mut SmallRng,
    ) -> FlowReport {
        // One number for both, and the same whenever the generator is: neither count ever falls.
        let dice: f64 = rng.random();
        let whole = |expected: f64| ((expected - dice).ceil().max(0.0) as u64).min(sent);
        let delivered = whole(self.delivered);
        let in_time = whole(self.in_time).min(delivered);
        let begun = self.first_sent.zip(last_sent);
        let silence = begun.map_or(0.0, |(first, last)| {
            last.since(first).as_secs_f64() - self.last_in_time.unwrap_or(0.0)
        });
        let longest_gap = Duration::from_secs_f64(self.longest_gap.max(silence).max(0.0));
        FlowReport {
            sent,
            sent_bytes,
            delivered,
            in_time,
            duplicates: 0,
            damaged: 0,
            delays: self.delays(delivered),
            longest_gap,
        }
    }

    /// As many whole packets, with the delays that they had on average.
    fn delays(&self, packets: u64) -> Delays {
        let mut delays = Delays::default();
        let scale = packets as f64 / self.delivered.max(1e-9);
        let (mut passed, mut counted) = (0.0, 0);
        for (&bucket, &expected) in &self.delays {
            passed += expected * scale;
            let until = (passed.round() as u64).min(packets);
            let delay = Duration::from_secs_f64((f64::from(bucket) * STEP).exp() / 1e6);
            delays.record_many(delay, u32::try_from(until - counted).unwrap_or(u32::MAX));
            counted = until;
        }
        delays
    }
}
