//! The machine of a link: its parts, its timers, and what its driver may ask.
//!
//! Receiving is in [`super::receive`], sending in [`super::transmit`].

use std::collections::VecDeque;
use std::time::Duration;

use super::clock::PeerClock;
use super::code::SYMBOL_OVERHEAD;
use super::datagram::Packer;
use super::incoming::Incoming;
use super::liveness::{Losses, Watch};
use super::meter::{DelayMeter, LossMeter, RttMeter};
use super::outgoing::Outgoing;
use super::outlook::Outlook;
use super::pacer::Pacer;
use super::plan::OperatingPoint;
use super::queue::ClassQueue;
use super::rate::RateControl;
use super::receipts::Receipts;
use super::sent::SentLog;
use super::traffic::Traffic;
use super::transmit::Beats;
use super::{
    Counters, Heat, LinkConfig, LinkEvent, Liveness, Outbound, Quality, Recovery, Refused,
};
use crate::frame::PARITY_OVERHEAD;
use crate::packet::Header;
use crate::units::{Budget, Timestamp};

/// Probes in a train.
pub(super) const TRAIN: u8 = 10;
/// What a round is taken to last before one was measured.
const FIRST_ROUND: Duration = Duration::from_millis(100);

/// The machine of one link; lives as long as the connection under it.
///
/// After each `handle_*` and each [`Self::send`], send what [`Self::poll_transmit`] gives, take
/// what [`Self::poll_event`] gives, and come back at [`Self::poll_timeout`].
pub struct Link {
    pub(super) clock: PeerClock,
    /// The latest time that was passed in.
    pub(super) now: Timestamp,
    pub(super) counters: Counters,
    pub(super) events: VecDeque<LinkEvent>,
    // Towards the neighbour.
    pub(super) datagram: usize,
    pub(super) queue: ClassQueue<Outbound>,
    pub(super) pacer: Pacer,
    pub(super) rate: RateControl,
    pub(super) packer: Packer,
    pub(super) sent: SentLog,
    pub(super) outgoing: Outgoing,
    pub(super) recovery: Recovery,
    pub(super) traffic: Traffic,
    pub(super) beats: Beats,
    /// Number of the newest train, and how many of its probes are still to be sent.
    pub(super) train: (u8, u8),
    /// Whether the pacer made packets wait since the last report.
    pub(super) held_back: bool,
    pub(super) watch: Watch,
    pub(super) loss_tx: LossMeter,
    pub(super) delay_tx: DelayMeter,
    pub(super) rtt: RttMeter,
    /// Time from when a shard should have arrived until a report shows that it did not.
    pub(super) detection: RttMeter,
    // From the neighbour.
    pub(super) receipts: Receipts,
    pub(super) incoming: Incoming,
    pub(super) loss_rx: LossMeter,
    pub(super) delay_rx: DelayMeter,
    /// How much data the neighbour says it sent, and since when it says so with none coming.
    pub(super) announced: Option<(u32, Timestamp)>,
}

impl Link {
    /// A link that has heard nothing yet; cold.
    pub fn new(config: LinkConfig, now: Timestamp) -> Self {
        let rate = RateControl::new(now);
        let outlook = Outlook {
            one_way: Duration::ZERO,
            round: FIRST_ROUND,
            spread: Duration::ZERO,
            point: OperatingPoint::default(),
            recovery: config.recovery,
        };
        Self {
            clock: PeerClock::new(config.peer_clock_offset),
            now,
            counters: Counters::default(),
            events: VecDeque::new(),
            datagram: config.datagram,
            queue: ClassQueue::new(),
            pacer: Pacer::new(rate.rate_bps(), now),
            rate,
            packer: Packer::new(config.datagram),
            sent: SentLog::new(),
            outgoing: Outgoing::new(outlook),
            recovery: config.recovery,
            traffic: Traffic::new(now),
            beats: Beats::new(now),
            train: (0, 0),
            held_back: false,
            watch: Watch::new(now),
            loss_tx: LossMeter::new(),
            delay_tx: DelayMeter::new(),
            rtt: RttMeter::new(),
            detection: RttMeter::new(),
            receipts: Receipts::new(),
            incoming: Incoming::new(),
            loss_rx: LossMeter::new(),
            delay_rx: DelayMeter::new(),
            announced: None,
        }
    }

    /// The most bytes that header and payload of one packet may have.
    pub fn max_packet(&self) -> usize {
        self.datagram.saturating_sub(PARITY_OVERHEAD + SYMBOL_OVERHEAD)
    }

    /// Queues a packet. It is on its way with the next [`Self::poll_transmit`] that the pacer allows.
    pub fn send(&mut self, packet: Outbound, now: Timestamp) -> Result<(), Refused> {
        self.now = self.now.max(now);
        let bytes = packet.header.encoded_len() + packet.payload.len();
        if bytes > self.max_packet() {
            return Err(Refused::TooLarge);
        }
        let latest = packet.arrive_by.minus(self.soonest(now));
        if latest < now {
            self.counters.note_expired(packet.header.class, 1);
            if self.rate.queue(now).is_some() {
                self.traffic.note_refused(bytes as u64);
            }
            return Err(Refused::Late);
        }
        // Where more comes than can leave, some must go: rather those that waited for half of their
        // time, than that all that leave do so at the last moment, too late for any repair.
        let send_by = now + latest.since(now) / 2;
        self.queue.push(packet.header.class, bytes, send_by, packet).map_err(|_| {
            self.counters.overflow_tx += 1;
            self.traffic.note_refused(bytes as u64);
            Refused::QueueFull
        })
    }

    /// What a packet sent now takes at least: who could still arrive is not turned away for what a
    /// queue that has gone by now did to others.
    fn soonest(&self, now: Timestamp) -> Duration {
        let queue = self.rate.queue(now).unwrap_or_else(|| self.delay_tx.queueing());
        self.rtt.min().unwrap_or_default() / 2 + queue
    }

    /// Time has come for something. Cheap when it hasn't.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.outgoing.handle_timeout(now);
        self.counters.forgotten_tx = self.outgoing.forgotten();
        self.incoming.handle_timeout(&mut self.counters, now);
        self.count_unseen(now);
        self.watch.handle_timeout(now);
        self.note_liveness();
    }

    /// What happened, oldest first. Call until `None` after each `handle_*`.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`] and [`Self::poll_transmit`], should nothing arrive before.
    pub fn poll_timeout(&self) -> Timestamp {
        let waiting = !self.queue.is_empty() || self.outgoing.has_repairs();
        let paced = if waiting { self.pacer.ready_at(self.now) } else { Timestamp::NEVER };
        [
            paced,
            self.receipts.due(self.beats.gap()),
            self.beats.due(),
            self.outgoing.next_timeout(),
            self.incoming.next_timeout(),
            self.unseen_due(),
            self.watch.poll_timeout(),
        ]
        .into_iter()
        .min()
        .unwrap_or(Timestamp::NEVER)
    }

    /// Says how the link is used.
    pub fn set_heat(&mut self, heat: Heat, now: Timestamp) {
        self.now = self.now.max(now);
        self.beats.set_heat(heat);
        self.tune_watch();
    }

    /// Sends a train of ten full-size probes.
    pub fn probe(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.train = (self.train.0.wrapping_add(1), TRAIN);
    }

    /// The state of the outgoing direction.
    pub fn liveness(&self) -> Liveness {
        self.watch.state()
    }

    /// What was measured so far.
    pub fn quality(&self) -> Quality {
        Quality {
            rtt: self.rtt.smoothed(),
            min_rtt: self.rtt.min(),
            raw_delay_tx: self.delay_tx.smoothed(),
            raw_delay_rx: self.delay_rx.smoothed(),
            jitter_tx: self.delay_tx.jitter(),
            jitter_rx: self.delay_rx.jitter(),
            queueing_tx: self.delay_tx.queueing(),
            loss_tx: self.loss_tx.loss(),
            loss_tx_at_most: self.loss_tx.loss_at_most(),
            loss_rx: self.loss_rx.loss(),
            burst_tx: self.loss_tx.burst(),
            rate_bps: self.rate.rate_bps(),
            capacity_bps: self.rate.capacity_bps(),
            load_bps: self.traffic.load_bps(),
            demand_bps: self.traffic.demand_bps(self.now),
            protection_tx: self.outgoing.protection,
            redundancy_tx: self.traffic.redundancy(),
        }
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Packets queued, or sent and not acknowledged, that are still in time: for the detour, when the
    /// link is suspect. Each packet is handed out at most once; queued ones leave the queue. Those that
    /// are not `wanted`, told by header and length, stay.
    pub fn salvage(
        &mut self,
        wanted: impl Fn(&Header, usize) -> bool,
        now: Timestamp,
    ) -> Vec<Outbound> {
        self.now = self.now.max(now);
        let of_packet = |packet: &[u8]| {
            Header::decode(packet).is_ok_and(|(header, _)| wanted(&header, packet.len()))
        };
        let sent = self.outgoing.salvage(of_packet, now).into_iter().filter_map(|packet| {
            let (bytes, sent_at, arrive_by) = packet;
            let (header, payload) = Header::decode(&bytes).ok()?;
            let budget = header.budget.after(now.since(sent_at))?;
            let payload = bytes.slice(bytes.len() - payload.len()..);
            Some(Outbound { header: Header { budget, ..header }, payload, entered: now, arrive_by })
        });
        let mut packets: Vec<Outbound> = sent.collect();
        let queued: Vec<Outbound> = self.queue.drain().collect();
        for mut packet in queued {
            let bytes = packet.header.encoded_len() + packet.payload.len();
            if !wanted(&packet.header, bytes) {
                // The one refusal that there may be, for being late, is counted.
                let _ = self.send(packet, now);
                continue;
            }
            match budget_left(&packet, now) {
                Some(budget) if packet.arrive_by > now => {
                    (packet.header.budget, packet.entered) = (budget, now);
                    packets.push(packet);
                }
                _ => self.counters.note_expired(packet.header.class, 1),
            }
        }
        packets
    }

    /// Tells the driver if the outgoing direction changed.
    pub(super) fn note_liveness(&mut self) {
        (self.counters.suspects, self.counters.downs) = (self.watch.suspects(), self.watch.downs());
        if let Some(state) = self.watch.poll_change() {
            self.events.push_back(LinkEvent::Liveness(state));
        }
    }

    /// Tells the watch what is normal on this link.
    pub(super) fn tune_watch(&mut self) {
        let losses = [&self.loss_tx, &self.loss_rx]
            .map(|estimate| Losses { loss: estimate.loss(), burst: estimate.burst() });
        let rtt = self.rtt.smoothed().unwrap_or_default() + self.rtt.deviation() * 4;
        self.watch.tune(self.beats.gap(), losses, rtt);
    }
}

/// What is left of a queued packet's budget.
pub(super) fn budget_left(packet: &Outbound, now: Timestamp) -> Option<Budget> {
    packet.header.budget.after(now.since(packet.entered))
}
