//! What a link makes of the neighbour's datagrams.

use std::time::Duration;

use bytes::Bytes;

use super::incoming::{LIFETIME, Via};
use super::machine::Link;
use super::outlook::Outlook;
use super::plan::OperatingPoint;
use super::rate::Feedback;
use super::sent::{Outcome, Patience};
use super::{Inbound, LinkEvent};
use crate::frame::{Frame, Heartbeat, Report, Shard};
use crate::packet::Header;
use crate::units::{LinkSeq, Timestamp, WireTime};

/// Waited beyond the measured jitter before a missing tail counts as lost.
const TAIL_MARGIN: Duration = Duration::from_millis(2);
/// A neighbour may be kept from reading its sockets for so long without anything being lost.
const STALL: Duration = Duration::from_millis(25);
/// How long it takes to find a loss, before one was found: the timer of reports.
const FIRST_DETECTION: Duration = Duration::from_millis(10);
/// What a packet should have in hand when it arrives, for its next hop has work with it too.
pub const GUARD: Duration = Duration::from_micros(500);
/// Shards told apart by a burst: where the spacing of sends is unknown or wide, this is enough.
const WIDEST_SPREAD: Duration = Duration::from_millis(30);

impl Link {
    /// A datagram came.
    pub fn handle_datagram(&mut self, datagram: Bytes, now: Timestamp) {
        self.now = self.now.max(now);
        self.counters.datagram_rx += 1;
        self.counters.bytes_rx += datagram.len() as u64;
        let mut rest = datagram;
        let mut heard = false;
        loop {
            match Frame::decode(&mut rest) {
                Ok(Some(frame)) => self.handle_frame(frame, now),
                Ok(None) => break,
                Err(_) => {
                    self.counters.malformed_rx += 1;
                    break;
                }
            }
            heard = true;
        }
        self.receipts.settle(&mut self.loss_rx, now);
        if heard {
            self.watch.handle_heard(now);
        }
        self.note_liveness();
    }

    fn handle_frame(&mut self, frame: Frame, now: Timestamp) {
        match frame {
            Frame::Data { seq, shard, packet } => {
                self.note_data(seq, now);
                self.handle_packet((shard, Via::First), packet, now);
            }
            Frame::Repeat { seq, shard, packet } => {
                self.note_data(seq, now);
                self.handle_packet((shard, Via::Repeat), packet, now);
            }
            Frame::Parity { seq, shard, k, symbol } => {
                self.note_data(seq, now);
                let mut rebuilt = Vec::new();
                let out = (&mut rebuilt, &mut self.counters);
                self.incoming.handle_parity((shard, k), symbol, out, now);
                self.deliver_rebuilt(rebuilt, now);
            }
            Frame::Report(report) => self.handle_report(&report, now),
            Frame::Heartbeat(heartbeat) => self.handle_heartbeat(heartbeat, now),
            Frame::Probe { seq, sent_at, .. } => {
                self.counters.probe_rx += 1;
                self.receipts.record_data(seq, now);
                self.watch.handle_numbered(now);
                self.note_delay(sent_at, now);
            }
        }
    }

    fn note_data(&mut self, seq: LinkSeq, now: Timestamp) {
        self.receipts.record_data(seq, now);
        self.watch.handle_numbered(now);
        self.announced = None;
    }

    fn note_delay(&mut self, sent_at: WireTime, now: Timestamp) {
        self.delay_rx.record(self.clock.raw_delay(sent_at, now), now);
    }

    fn handle_heartbeat(&mut self, heartbeat: Heartbeat, now: Timestamp) {
        self.counters.probe_rx += 1;
        self.receipts.record_beat(heartbeat.seq, now);
        self.watch.handle_numbered(now);
        self.note_delay(heartbeat.sent_at, now);
        if self.announced.is_none_or(|(sent, _)| sent != heartbeat.data_sent) {
            self.announced = Some((heartbeat.data_sent, now));
        }
    }

    /// When all that the neighbour announced has come or can't come any more.
    pub(super) fn unseen_due(&self) -> Timestamp {
        let pending = self.announced.filter(|&(sent, _)| sent != self.accounted_for());
        pending.map_or(Timestamp::NEVER, |(_, since)| since + LIFETIME)
    }

    /// Data of which the receiver knows what became of it, as heartbeats count.
    fn accounted_for(&self) -> u32 {
        let counters = &self.counters;
        let came = counters.data_first_rx + counters.repeated_rx + counters.decoded_rx;
        (came + counters.lost_rx) as u32
    }

    /// After a silence, counts as lost what no shard of a known group told of: the last packets of
    /// a group, or groups of which nothing came.
    pub(super) fn count_unseen(&mut self, now: Timestamp) {
        if now < self.unseen_due() {
            return;
        }
        let Some((sent, _)) = self.announced else { return };
        self.incoming.retire_all(&mut self.counters);
        let unseen = sent.wrapping_sub(self.accounted_for());
        if unseen <= u32::MAX / 2 {
            self.counters.lost_rx += u64::from(unseen);
        }
        // A neighbour that announces less than came contradicts itself: nothing more to count.
        self.announced = Some((self.accounted_for(), now));
    }

    fn handle_packet(&mut self, place: (Shard, Via), packet: Bytes, now: Timestamp) {
        let header = Header::decode(&packet).map(|(header, payload)| (header, payload.len()));
        let useful = header.as_ref().map_or(Duration::ZERO, |(header, _)| header.budget.span());
        let mut rebuilt = Vec::new();
        let out = (&mut rebuilt, &mut self.counters);
        let fresh = self.incoming.handle_packet(place, &packet, now + useful, out, now);
        match header {
            Ok((header, payload)) => {
                if fresh && place.1 == Via::First {
                    self.note_delay(header.sent_at, now);
                }
                if fresh {
                    self.deliver(header, packet.slice(packet.len() - payload..), now);
                }
            }
            Err(_) => self.counters.malformed_rx += u64::from(fresh),
        }
        self.deliver_rebuilt(rebuilt, now);
    }

    fn deliver_rebuilt(&mut self, packets: Vec<Bytes>, now: Timestamp) {
        for packet in packets {
            match Header::decode(&packet).map(|(header, payload)| (header, payload.len())) {
                Ok((header, payload)) => {
                    self.deliver(header, packet.slice(packet.len() - payload..), now);
                }
                Err(_) => self.counters.malformed_rx += 1,
            }
        }
    }

    /// Passes a packet up with the time that it took on this link taken off its budget.
    fn deliver(&mut self, mut header: Header, payload: Bytes, now: Timestamp) {
        let age = self.clock.age(header.sent_at, (&self.delay_rx, &self.rtt), now);
        match header.budget.after(age) {
            Some(budget) => {
                header.budget = budget;
                self.events.push_back(LinkEvent::Received(Inbound { header, payload }));
            }
            None => self.counters.late_rx += 1,
        }
    }

    fn handle_report(&mut self, report: &Report, now: Timestamp) {
        self.counters.report_rx += 1;
        let Some(sent_at) = self.sent.sent_at(report.largest) else { return };
        let reported_at = self.clock.read(report.at, now);
        let arrived_at = report.largest_at.near(reported_at);
        let round_trip = now.micros_after(sent_at) - reported_at.micros_after(arrived_at).max(0);
        if let Ok(micros @ 1..) = u64::try_from(round_trip) {
            self.rtt.record(Duration::from_micros(micros), now);
        }
        let delay = arrived_at.micros_after(sent_at);
        if self.sent.acknowledge(report.largest) {
            self.delay_tx.record(delay, now);
            self.watch.handle_covered(sent_at, now);
        }
        let mut outcomes = Vec::new();
        let patience = self.patience(delay);
        let covered = self.sent.handle_report(report, reported_at, patience, &mut outcomes);
        let grace = self.rtt.smoothed().unwrap_or_default() + self.rtt.deviation() * 4 + STALL;
        self.sent.settle(&mut self.loss_tx, grace, now);
        if let Some(after) = covered.loss_found_after {
            self.detection.record(after, now);
        }
        let count = |wanted| outcomes.iter().filter(|(_, outcome)| *outcome == wanted).count();
        let feedback = Feedback {
            delivered_bytes: covered.bytes,
            outcomes: (count(Outcome::Arrived) as u32, count(Outcome::Lost) as u32),
            sent_at,
            arrived_at,
            queued: self.delay_tx.beyond_least(delay),
            in_flight_bytes: self.sent.bytes_after(report.largest),
            queueing: self.delay_tx.queueing(),
            rtt: self.rtt.smoothed().unwrap_or_default(),
            limited_by_application: !std::mem::take(&mut self.held_back),
        };
        let queued = self.rate.queue(now).is_some();
        self.rate.handle_report(feedback, now);
        if let Some((from, to)) = self.rate.queue_stood() {
            self.sent.set_queued(from, to);
        }
        if queued && self.rate.queue(now).is_none() {
            self.delay_tx.resume(delay, self.rate.jitter());
        }
        self.learn(now);
        self.outgoing.handle_outcomes(&outcomes, now);
    }

    /// What did not come with a packet that took `delay`, but should have: in front of a queue that
    /// grows nothing is late by the mean of the past.
    fn patience(&self, delay: i64) -> Patience {
        let jitter = self.delay_tx.jitter();
        let per_byte = |bps| Duration::from_secs(8).div_f64(bps as f64);
        Patience {
            raw_delay: self.delay_tx.smoothed().map_or(delay, |usual| usual.max(delay)),
            reordering: jitter * 2,
            tail: jitter * 4 + TAIL_MARGIN,
            per_byte: self.rate.capacity_bps().map_or(Duration::ZERO, per_byte),
        }
    }

    /// Renews what follows from the measurements.
    fn learn(&mut self, now: Timestamp) {
        self.receipts.set_rtt(self.rtt.smoothed().unwrap_or_default());
        self.receipts.set_way_back(self.loss_tx.loss(), self.loss_tx.burst());
        self.pacer.set_rate(self.rate.rate_bps(), now);
        self.queue.set_rate(self.rate.rate_bps());
        self.outgoing.outlook = self.outlook();
        self.tune_watch();
    }

    fn outlook(&self) -> Outlook {
        let jitter = self.delay_tx.jitter();
        let beyond_least = match (self.delay_tx.smoothed(), self.delay_tx.min()) {
            (Some(usual), Some(least)) => Duration::from_micros(usual.abs_diff(least)),
            _ => Duration::ZERO,
        };
        let least = self.rtt.min().unwrap_or_default() / 2;
        let found = self.detection.smoothed().unwrap_or(FIRST_DETECTION);
        let found = found + self.detection.deviation();
        let rtt = self.rtt.smoothed().unwrap_or_default() + self.rtt.deviation();
        let (loss, burst) = (self.loss_tx.loss(), self.loss_tx.burst());
        Outlook {
            one_way: least + beyond_least + jitter * 2 + GUARD,
            round: rtt + found,
            spread: self.spread(loss, burst),
            point: OperatingPoint::new(loss, burst),
            recovery: self.recovery,
        }
    }

    /// How long a burst lasts at the present rate of sending, beyond what chance alone makes.
    fn spread(&self, loss: f32, burst: f32) -> Duration {
        let excess = burst - 1.0 / (1.0 - loss.min(0.9));
        if excess < 0.5 {
            return Duration::ZERO;
        }
        self.beats.spacing().mul_f32(burst).min(WIDEST_SPREAD)
    }
}
