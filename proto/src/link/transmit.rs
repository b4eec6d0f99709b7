//! What a link sends, and in what order: reports and heartbeats at once, then, as the pacer allows,
//! class by class what the neighbour is known to lack, new packets, and redundancy.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Heat;
use super::machine::{Link, TRAIN, budget_left};
use super::outgoing::{Need, Next, Repair};
use super::sent::{Sent, Wave};
use crate::frame::{DATA_OVERHEAD, FIRST_PARITY, Frame, Heartbeat, PARITY_OVERHEAD, Shard};
use crate::packet::Header;
use crate::units::{Class, LinkSeq, Timestamp};

/// Longer spacing of sends is not told apart.
const HOT_GAP: Duration = Heat::Hot.gap();
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
        self.heat.gap()
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
        self.traffic.advance(self.queue.bytes(), now);
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
        if (beat || self.receipts.due(self.beats.gap()) <= now)
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
        // By class; what is lacking is as good as what is new, and has less time. What only might
        // be lacking comes last: on a full link, whose queue never empties, never.
        for class in Class::ALL {
            self.pack_repairs((class, Need::Lacking), &mut groups, now);
            if let Some(datagram) = self.pack_packets(class, now) {
                return Some(datagram);
            }
            if self.queue.peek_bytes(class, now).is_some() {
                break; // it does not fit
            }
            self.pack_repairs((class, Need::Margin), &mut groups, now);
        }
        self.packer.finish()
    }

    /// Adds packets of a class as long as there is room; the datagram, if that ended it.
    fn pack_packets(&mut self, class: Class, now: Timestamp) -> Option<Bytes> {
        for _ in 0..MOST_FRAMES {
            let (packet, bytes) = self.next_packet(class, now)?;
            let room = self.packer.room_after(DATA_OVERHEAD + bytes);
            let another = room >= LEAST_ROOM
                && self.peek_bytes(now).is_some_and(|next| DATA_OVERHEAD + next <= room);
            let (class, arrive_by) = (packet.header.class, packet.arrive_by);
            let hops = packet.header.path.links();
            let (group, shard) = self.outgoing.place(class, arrive_by, now);
            let seq = self.note_packet((group, shard), bytes, packet.payload.len(), now);
            if !another {
                let frame = Frame::Data { seq, shard, packet: Bytes::new() };
                let (datagram, frozen) =
                    self.packer.finish_with(&frame, &packet.header, &packet.payload);
                self.outgoing.add(group, frozen, hops, arrive_by, now);
                return Some(datagram);
            }
            let frozen = self.freeze(&packet.header, &packet.payload);
            self.packer.push(Frame::Data { seq, shard, packet: frozen.clone() });
            self.outgoing.add(group, frozen, hops, arrive_by, now);
        }
        None
    }

    /// The size of the next packet of any class.
    fn peek_bytes(&mut self, now: Timestamp) -> Option<usize> {
        Class::ALL.into_iter().find_map(|class| {
            let next = self.queue.peek_bytes(class, now);
            self.note_expired(class);
            next
        })
    }

    /// The next queued packet of a class if it fits, ready to go, and its length.
    fn next_packet(&mut self, class: Class, now: Timestamp) -> Option<(super::Outbound, usize)> {
        loop {
            let bytes = self.queue.peek_bytes(class, now);
            self.note_expired(class);
            if bytes? + DATA_OVERHEAD > self.packer.room() {
                return None;
            }
            let mut packet = self.queue.pop(class, now)?;
            match budget_left(&packet, now) {
                Some(budget) => {
                    (packet.header.budget, packet.header.sent_at) = (budget, now.wire());
                    return Some((packet, bytes?));
                }
                None => self.counters.note_expired(class, 1),
            }
        }
    }

    fn note_expired(&mut self, class: Class) {
        let expired = self.queue.expired(class);
        self.counters.note_expired(class, expired.packets);
        self.traffic.note_refused(expired.bytes);
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

    /// Adds repairs of a lane to the datagram as long as there is room.
    fn pack_repairs(&mut self, of: (Class, Need), groups: &mut Vec<u64>, now: Timestamp) {
        while groups.len() < MOST_FRAMES
            && let Some(group) = self.pack_repair(of, groups, now)
        {
            groups.push(group);
        }
    }

    /// Adds the next repair of a lane to the datagram and gives its group; `None` if there is none,
    /// no room for it, or one of the same group there already.
    fn pack_repair(&mut self, of: (Class, Need), groups: &[u64], now: Timestamp) -> Option<u64> {
        let (group, bytes) = loop {
            let (group, next) = self.outgoing.next_repair(of, now)?;
            let bytes = match next {
                Next::Packet(bytes) => DATA_OVERHEAD + bytes,
                Next::Parity(bytes) => PARITY_OVERHEAD + bytes,
            };
            if self.traffic.allows_redundant(bytes) {
                break (group, bytes);
            }
            self.outgoing.skip_repair(of);
        };
        if bytes > self.packer.room() || groups.contains(&group) {
            return None;
        }
        let repair = self.outgoing.take_repair(of)?;
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
