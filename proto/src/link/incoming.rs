//! The neighbour's groups: every packet is passed up as it arrives, once; what is missing is
//! rebuilt as soon as enough shards are there.
//!
//! Bounded: [`MOST_GROUPS`] groups, [`MOST_BYTES`] of shards held for rebuilding, [`LIFETIME`] per
//! group. What falls out is counted: its missing packets as lost, what comes for it later as stale.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::code::{FIRST_PARITY, MAX_DATA, rebuild};
use super::counters::Counters;
use crate::frame::Shard;
use crate::units::{GroupId, Timestamp};

/// Groups remembered; the oldest goes first.
pub(super) const MOST_GROUPS: usize = 4096;
/// Bytes of shards held; the oldest group gives up its own first.
pub(super) const MOST_BYTES: usize = 32 << 20;
/// How long after its first shard a group can still be helped. Senders give up before.
pub(super) const LIFETIME: Duration = Duration::from_millis(1500);

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// In its first transmission.
    First,
    /// Repeated.
    Repeat,
}

#[derive(Debug)]
struct Group {
    since: Timestamp,
    /// Until when rebuilding is of use to any of its packets.
    useful_until: Timestamp,
    /// Packets that were passed up, by row.
    have: u64,
    /// The number of packets, once a parity shard told.
    k: Option<u8>,
    /// Shards kept for rebuilding.
    packets: Vec<(u8, Bytes)>,
    parity: Vec<(u8, Bytes)>,
}

impl Group {
    fn count(&self) -> usize {
        self.have.count_ones() as usize
    }

    /// The number of packets as far as it is known.
    fn len(&self) -> usize {
        self.k.map_or(64 - self.have.leading_zeros() as usize, usize::from)
    }

    fn is_complete(&self) -> bool {
        self.k.is_some_and(|k| self.count() >= usize::from(k))
    }

    fn release(&mut self) -> usize {
        let held = self.packets.drain(..).chain(self.parity.drain(..));
        held.map(|(_, shard)| shard.len()).sum()
    }
}

/// All groups of one direction.
#[derive(Debug)]
pub(super) struct Incoming {
    /// By number, counted on from the 24 bits of the wire.
    groups: BTreeMap<u64, Group>,
    /// The highest group so far.
    newest: Option<u64>,
    /// Groups below are gone.
    floor: u64,
    /// Groups below hold no shards any more.
    released: u64,
    /// Bytes of shards held.
    bytes: usize,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self { groups: BTreeMap::new(), newest: None, floor: 0, released: 0, bytes: 0 }
    }

    /// A packet came; `true` unless it was there. Appends those that it helped rebuild to `rebuilt`.
    pub(super) fn handle_packet(
        &mut self,
        (shard, via): (Shard, Via),
        packet: &Bytes,
        useful_until: Timestamp,
        (rebuilt, counters): (&mut Vec<Bytes>, &mut Counters),
        now: Timestamp,
    ) -> bool {
        if usize::from(shard.index) >= MAX_DATA {
            counters.malformed_rx += 1;
            return false;
        }
        let Some(id) = self.admit(shard.group, counters, now) else { return false };
        let Some(group) = self.groups.get_mut(&id) else { return false };
        if group.k.is_some_and(|k| shard.index >= k) {
            counters.malformed_rx += 1;
            return false;
        }
        if group.have & (1 << shard.index) != 0 {
            counters.duplicate_rx += 1;
            return false;
        }
        match via {
            Via::First => counters.data_first_rx += 1,
            Via::Repeat => counters.repeated_rx += 1,
        }
        group.have |= 1 << shard.index;
        group.useful_until = group.useful_until.max(useful_until.min(group.since + LIFETIME));
        if id >= self.released && !group.is_complete() {
            self.bytes += packet.len();
            group.packets.push((shard.index, packet.clone()));
        }
        self.try_rebuild(id, rebuilt, counters);
        self.bound_bytes();
        true
    }

    /// A parity shard came. Appends the packets that it helped rebuild to `rebuilt`.
    pub(super) fn handle_parity(
        &mut self,
        (shard, k): (Shard, u8),
        symbol: Bytes,
        (rebuilt, counters): (&mut Vec<Bytes>, &mut Counters),
        now: Timestamp,
    ) {
        counters.parity_rx += 1;
        let possible = (1..=MAX_DATA).contains(&usize::from(k)) && shard.index >= FIRST_PARITY;
        let Some(id) = possible.then(|| self.admit(shard.group, counters, now)).flatten() else {
            counters.malformed_rx += u64::from(!possible);
            return;
        };
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.k.is_some_and(|known| known != k)
            || group.len() > usize::from(k) && group.k.is_none()
        {
            counters.malformed_rx += 1;
            return;
        }
        group.k = Some(k);
        if group.is_complete() {
            self.bytes -= group.release();
        } else if group.parity.iter().any(|&(row, _)| row == shard.index) {
            counters.duplicate_rx += 1;
        } else if id >= self.released {
            self.bytes += symbol.len();
            group.parity.push((shard.index, symbol));
            self.try_rebuild(id, rebuilt, counters);
            self.bound_bytes();
        }
    }

    /// Lets go of what is too old.
    pub(super) fn handle_timeout(&mut self, counters: &mut Counters, now: Timestamp) {
        while let Some(oldest) = self.groups.first_entry()
            && now >= oldest.get().since + LIFETIME
        {
            let id = *oldest.key();
            self.retire(id, counters);
        }
        while let Some((&id, group)) = self.groups.range_mut(self.released..).next()
            && now >= group.useful_until
            && self.newest.is_some_and(|newest| id < newest)
        {
            self.bytes -= group.release();
            self.released = id + 1;
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub(super) fn next_timeout(&self) -> Timestamp {
        let oldest = self.groups.first_key_value();
        oldest.map_or(Timestamp::NEVER, |(_, group)| group.since + LIFETIME)
    }

    /// Gives up all groups.
    pub(super) fn retire_all(&mut self, counters: &mut Counters) {
        while let Some((&id, _)) = self.groups.first_key_value() {
            self.retire(id, counters);
        }
    }

    /// Groups and bytes held.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.groups.len(), self.bytes)
    }

    /// The full number of a group, which exists from now on; `None` if it is gone.
    fn admit(&mut self, group: GroupId, counters: &mut Counters, now: Timestamp) -> Option<u64> {
        let span = MOST_GROUPS as u64;
        // The first one met: leave room below, for it may have overtaken others.
        let newest = *self.newest.get_or_insert((1 << 24) + u64::from(group.bits()));
        let newest_id = GroupId::new(newest as u32);
        let id = newest.saturating_add_signed(newest_id.behind(group).into());
        if id < self.floor || id + span <= newest {
            counters.stale_rx += 1;
            return None;
        }
        if id > newest {
            self.newest = Some(id);
            while let Some((&oldest, _)) = self.groups.first_key_value()
                && oldest + span <= id
            {
                self.retire(oldest, counters);
            }
        }
        let new = || Group {
            since: now,
            useful_until: now,
            have: 0,
            k: None,
            packets: Vec::new(),
            parity: Vec::new(),
        };
        self.groups.entry(id).or_insert_with(new);
        Some(id)
    }

    fn retire(&mut self, id: u64, counters: &mut Counters) {
        if let Some(mut group) = self.groups.remove(&id) {
            counters.lost_rx += (group.len() - group.count()) as u64;
            self.bytes -= group.release();
            self.floor = self.floor.max(id + 1);
            self.released = self.released.max(id + 1);
        }
    }

    fn try_rebuild(&mut self, id: u64, out: &mut Vec<Bytes>, counters: &mut Counters) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(k) = group.k.map(usize::from) else { return };
        if group.is_complete() {
            self.bytes -= group.release();
            return;
        }
        if group.packets.len() != group.count() || group.count() + group.parity.len() < k {
            return;
        }
        let mut data = vec![None; k];
        for (row, packet) in &group.packets {
            data[usize::from(*row)] = Some(packet.clone());
        }
        let rebuilt = rebuild(&data, &group.parity).unwrap_or_default();
        for (row, packet) in rebuilt {
            group.have |= 1 << row;
            counters.decoded_rx += 1;
            out.push(packet);
        }
        counters.malformed_rx += u64::from(!group.is_complete());
        self.bytes -= group.release();
    }

    fn bound_bytes(&mut self) {
        while self.bytes > MOST_BYTES {
            let Some((&id, group)) = self.groups.range_mut(self.released..).next() else { return };
            self.bytes -= group.release();
            self.released = id + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::link::code::append_parity;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);
    const LATER: Timestamp = Timestamp::from_micros(9_000_000);

    #[derive(Default)]
    struct Receiver {
        fresh: Vec<Bytes>,
        counters: Counters,
    }

    fn packet(row: u8) -> Bytes {
        Bytes::from(vec![row; 10 + usize::from(row)])
    }

    fn shard(group: u32, index: u8) -> Shard {
        Shard { group: GroupId::new(group), index }
    }

    impl Receiver {
        fn packet(&mut self, incoming: &mut Incoming, group: u32, row: u8, via: Via) {
            let mut rebuilt = Vec::new();
            let (place, out) = ((shard(group, row), via), (&mut rebuilt, &mut self.counters));
            if incoming.handle_packet(place, &packet(row), LATER, out, NOW) {
                self.fresh.push(packet(row));
            }
            self.fresh.append(&mut rebuilt);
        }

        fn parity(&mut self, incoming: &mut Incoming, group: u32, row: u8, k: u8) {
            let packets: Vec<Bytes> = (0..k).map(packet).collect();
            let mut symbol = BytesMut::new();
            append_parity(row, packets.iter().map(|packet| &packet[..]), &mut symbol);
            let out = (&mut self.fresh, &mut self.counters);
            incoming.handle_parity((shard(group, row), k), symbol.freeze(), out, NOW);
        }
    }

    #[test]
    fn passes_packets_up_once_and_rebuilds_the_missing() {
        let (mut incoming, mut receiver) = (Incoming::new(), Receiver::default());
        for row in [0, 2, 2] {
            receiver.packet(&mut incoming, 7, row, Via::First);
        }
        receiver.parity(&mut incoming, 7, 64, 4);
        assert_eq!(receiver.fresh, [packet(0), packet(2)]);
        receiver.parity(&mut incoming, 7, 70, 4);
        assert_eq!(receiver.fresh, [0, 2, 1, 3].map(packet));
        receiver.packet(&mut incoming, 7, 1, Via::Repeat);
        let Counters { data_first_rx, decoded_rx, duplicate_rx, .. } = receiver.counters;
        assert_eq!((data_first_rx, decoded_rx, duplicate_rx), (2, 2, 2));
        assert_eq!(incoming.held(), (1, 0), "a complete group holds no shards");
    }

    #[test]
    fn a_group_of_one_is_rebuilt_from_parity_alone() {
        let (mut incoming, mut receiver) = (Incoming::new(), Receiver::default());
        receiver.parity(&mut incoming, 0, 255, 1);
        assert_eq!(receiver.fresh, [packet(0)]);
    }

    #[test]
    fn what_is_missing_at_the_end_is_lost_and_what_comes_later_stale() {
        let (mut incoming, mut receiver) = (Incoming::new(), Receiver::default());
        receiver.packet(&mut incoming, 7, 3, Via::First); // 0 to 2 are missing
        receiver.packet(&mut incoming, 8, 0, Via::First);
        receiver.parity(&mut incoming, 8, 64, 3); // 1 and 2 are missing
        assert_eq!(incoming.next_timeout(), NOW + LIFETIME);
        incoming.handle_timeout(&mut receiver.counters, NOW + LIFETIME);
        assert_eq!(receiver.counters.lost_rx, 5);
        receiver.packet(&mut incoming, 7, 0, Via::Repeat);
        assert_eq!(receiver.counters.stale_rx, 1);
        assert_eq!(incoming.held(), (0, 0));
    }

    #[test]
    fn contradictions_are_malformed() {
        let (mut incoming, mut receiver) = (Incoming::new(), Receiver::default());
        receiver.parity(&mut incoming, 7, 64, 3);
        receiver.parity(&mut incoming, 7, 65, 4);
        receiver.packet(&mut incoming, 7, 3, Via::First);
        receiver.packet(&mut incoming, 8, 9, Via::First);
        receiver.parity(&mut incoming, 8, 64, 9);
        assert_eq!(receiver.counters.malformed_rx, 3);
        assert_eq!(receiver.fresh, [packet(9)]);
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let (mut incoming, mut receiver) = (Incoming::new(), Receiver::default());
        for group in 0..20_000u32 {
            receiver.packet(&mut incoming, group.wrapping_mul(3), 1, Via::First);
            assert!(incoming.held().0 <= MOST_GROUPS);
        }
        let mut incoming = Incoming::new();
        for group in 0..40 {
            let out = (&mut receiver.fresh, &mut receiver.counters);
            let large = Bytes::from(vec![0; 1 << 20]);
            incoming.handle_packet((shard(group, 0), Via::First), &large, LATER, out, NOW);
            receiver.fresh.clear();
            assert!(incoming.held().1 <= MOST_BYTES);
        }
    }

    #[test]
    fn group_numbers_wrap() {
        let (mut incoming, mut receiver) = (Incoming::new(), Receiver::default());
        for group in [0xff_ffff, 0, 0xff_fffe, 1] {
            receiver.packet(&mut incoming, group, 0, Via::First);
        }
        assert_eq!(receiver.counters.data_first_rx, 4);
        assert_eq!(incoming.held().0, 4);
    }
}
