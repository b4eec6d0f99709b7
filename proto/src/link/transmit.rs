//! What a link sends, and in what order: reports and heartbeats at once, then, as the pacer allows,
//! repairs before new packets.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Heat;
use super::machine::{Link, TRAIN, budget_left};
use super::outgoing::{Next, Repair};
use super::sent::{Sent, Wave};
use crate::frame::{DATA_OVERHEAD, FIRST_PARITY, Frame, Heartbeat, PARITY_OVERHEAD, Shard};
use crate::packet::Header;
use crate::units::{LinkSeq, Timestamp};

/// A hot link is not silent for longer.
const HOT_GAP: Duration = Duration::from_millis(10);
/// Nor a cold one.
const COLD_GAP: Duration = Duration::from_secs(1);
/// The first heartbeat after data on a cold link; the next ones wait twice as long each.
const FIRST_GAP: Duration = Duration::from_millis(25);
/// The most frames in one datagram.
const MOST_FRAMES: usize = 32;
/// Less room than this is of no use to another frame.
const LEAST_ROOM: usize = 40;
/// Gain of the mean spacing of sends.
const SPACING_GAIN: u32 = 32;

/// When a silent link shows that it lives.
#[derive(Debug)]
pub(super) struct Beats {
    heat: Heat,
    /// When something that takes a number was sent last.
    sent_at: Timestamp,
    /// Heartbeats sent since the last data.
    since_data: u32,
    /// When the next heartbeat is due.
    due: Timestamp,
    /// Mean time between two sends, none longer than [`HOT_GAP`].
    spacing: Duration,
}

impl Beats {
    pub(super) fn new(now: Timestamp) -> Self {
        let spacing = HOT_GAP;
        Self { heat: Heat::Cold, sent_at: now, since_data: 0, due: now, spacing }
    }

    pub(super) fn set_heat(&mut self, heat: Heat) {
        self.heat = heat;
        self.due = self.due.min(self.sent_at + self.gap());
    }

    /// The longest silence.
    pub(super) fn gap(&self) -> Duration {
        match self.heat {
            Heat::Hot => HOT_GAP,
            Heat::Cold => COLD_GAP,
        }
    }

    /// When the next heartbeat is due.
    pub(super) fn due(&self) -> Timestamp {
        self.due
    }

    /// Mean time between two sends.
    pub(super) fn spacing(&self) -> Duration {
        self.spacing
    }

    fn note_beat(&mut self, now: Timestamp) {
        let early = FIRST_GAP * (1 << self.since_data.min(6));
        self.since_data = self.since_data.saturating_add(1);
        self.sent_at = now;
        self.due = now + early.min(self.gap());
    }

    fn note_data(&mut self, now: Timestamp) {
        let gap = now.since(self.sent_at).min(HOT_GAP);
        self.spacing = (self.spacing * (SPACING_GAIN - 1) + gap) / SPACING_GAIN;
        self.since_data = 0;
        self.sent_at = now;
        self.due = now + FIRST_GAP.min(self.gap());
    }
}

impl Link {
    /// The next datagram to send now, if there is one. Call until `None`.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<Bytes> {
        self.now = self.now.max(now);
        self.traffic.advance(now);
        self.pack_control(now);
        let datagram = match self.packer.is_empty() && self.train.1 > 0 {
            true => self.pack_probe(now),
            false => self.pack_paced(now),
        }?;
        self.counters.datagram_tx += 1;
        self.counters.bytes_tx += datagram.len() as u64;
        self.traffic.note_datagram(datagram.len());
        self.pacer.spend(datagram.len(), now);
        Some(datagram)
    }

    fn pack_control(&mut self, now: Timestamp) {
        let beat = self.beats.due <= now;
        if (beat || self.receipts.due() <= now)
            && let Some(report) = self.receipts.report(now)
        {
            self.counters.report_tx += 1;
            self.packer.push(Frame::Report(report));
        }
        if beat {
            self.beats.note_beat(now);
            self.counters.probe_tx += 1;
            let seq = self.number(Sent::Other, HEARTBEAT_LEN, now);
            let data_sent = self.counters.data_tx as u32;
            self.packer.push(Frame::Heartbeat(Heartbeat { seq, sent_at: now.wire(), data_sent }));
        }
    }

    fn pack_probe(&mut self, now: Timestamp) -> Option<Bytes> {
        let (train, left) = self.train;
        self.train.1 = left - 1;
        self.counters.probe_tx += 1;
        let seq = self.number(Sent::Other, self.datagram, now);
        let probe = |padding| {
            let index = TRAIN - left;
            Frame::Probe { seq, sent_at: now.wire(), train, index, padding }
        };
        let padding = self.datagram.saturating_sub(probe(0).encoded_len(true));
        self.packer.push(probe(u16::try_from(padding).unwrap_or(u16::MAX)));
        self.packer.finish()
    }

    fn pack_paced(&mut self, now: Timestamp) -> Option<Bytes> {
        if self.pacer.ready_at(now) > now {
            self.held_back |= !self.queue.is_empty();
            return self.packer.finish();
        }
        // One shard per group and datagram: shards lost together are no help to each other.
        let mut groups = Vec::new();
        while groups.len() < MOST_FRAMES {
            match self.pack_repair(&groups, now) {
                Some(group) => groups.push(group),
                None => break,
            }
        }
        for _ in 0..MOST_FRAMES {
            let (packet, bytes) = match self.next_packet(now) {
                Some(next) => next,
                None => break,
            };
            let room = self.packer.room_after(DATA_OVERHEAD + bytes);
            let another = room >= LEAST_ROOM
                && self.queue.peek_bytes(now).is_some_and(|next| DATA_OVERHEAD + next <= room);
            self.count_expired();
            let (class, arrive_by) = (packet.header.class, packet.arrive_by);
            let (group, shard) = self.outgoing.place(class, arrive_by, now);
            let seq = self.note_packet((group, shard), bytes, packet.payload.len(), now);
            if !another {
                let frame = Frame::Data { seq, shard, packet: Bytes::new() };
                let (datagram, frozen) =
                    self.packer.finish_with(&frame, &packet.header, &packet.payload);
                self.outgoing.add(group, frozen, arrive_by, now);
                return Some(datagram);
            }
            let frozen = self.freeze(&packet.header, &packet.payload);
            self.packer.push(Frame::Data { seq, shard, packet: frozen.clone() });
            self.outgoing.add(group, frozen, arrive_by, now);
        }
        self.packer.finish()
    }

    /// The next queued packet that fits, ready to go, and its length.
    fn next_packet(&mut self, now: Timestamp) -> Option<(super::Outbound, usize)> {
        loop {
            let bytes = self.queue.peek_bytes(now);
            self.count_expired();
            if bytes? + DATA_OVERHEAD > self.packer.room() {
                return None;
            }
            let mut packet = self.queue.pop(now)?;
            match budget_left(&packet, now) {
                Some(budget) => {
                    (packet.header.budget, packet.header.sent_at) = (budget, now.wire());
                    return Some((packet, bytes?));
                }
                None => self.counters.expired_tx += 1,
            }
        }
    }

    fn count_expired(&mut self) {
        self.counters.expired_tx += self.queue.expired();
    }

    /// A packet is sent for the first time.
    fn note_packet(
        &mut self,
        (group, shard): (u64, Shard),
        bytes: usize,
        payload: usize,
        now: Timestamp,
    ) -> LinkSeq {
        self.counters.data_tx += 1;
        self.counters.payload_tx += payload as u64;
        self.traffic.note_data(DATA_OVERHEAD + bytes);
        self.beats.note_data(now);
        let sent = Sent::Packet { group, index: shard.index, wave: Wave::First };
        self.number(sent, DATA_OVERHEAD + bytes, now)
    }

    /// A packet that does not end its datagram: small, so that copying it twice costs little.
    fn freeze(&mut self, header: &Header, payload: &[u8]) -> Bytes {
        let mut packet = BytesMut::with_capacity(header.encoded_len() + payload.len());
        header.encode(&mut packet);
        packet.extend_from_slice(payload);
        packet.freeze()
    }

    /// Adds the next repair to the datagram and gives its group; `None` if there is none, no room
    /// for it, or one of the same group there already.
    fn pack_repair(&mut self, groups: &[u64], now: Timestamp) -> Option<u64> {
        let (group, bytes) = loop {
            let (group, next) = self.outgoing.next_repair(now)?;
            let bytes = match next {
                Next::Packet(bytes) => DATA_OVERHEAD + bytes,
                Next::Parity(bytes) => PARITY_OVERHEAD + bytes,
            };
            if self.traffic.allows_redundant(bytes) {
                break (group, bytes);
            }
            self.outgoing.skip_repair();
        };
        if bytes > self.packer.room() || groups.contains(&group) {
            return None;
        }
        let repair = self.outgoing.take_repair()?;
        self.traffic.note_redundant(bytes);
        self.beats.note_data(now);
        let seq = self.number(repair.sent, bytes, now);
        let frame = self.repair_frame(repair, seq);
        self.packer.push(frame);
        Some(group)
    }

    fn repair_frame(&mut self, repair: Repair, seq: LinkSeq) -> Frame {
        let Repair { shard, k, bytes, .. } = repair;
        if shard.index < FIRST_PARITY {
            self.counters.repeat_tx += 1;
            Frame::Repeat { seq, shard, packet: bytes }
        } else {
            self.counters.parity_tx += 1;
            Frame::Parity { seq, shard, k, symbol: bytes }
        }
    }

    fn number(&mut self, sent: Sent, bytes: usize, now: Timestamp) -> LinkSeq {
        self.watch.handle_sent(now);
        self.sent.push(sent, bytes, now)
    }
}

/// Bytes of a heartbeat, roughly: for the count of bytes delivered.
const HEARTBEAT_LEN: usize = 13;
