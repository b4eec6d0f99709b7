//! What tunnels with a fixed ratio do: ten parity packets after every twenty, from end to end,
//! whatever the link is like. Relays pass on what comes and repair nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tradewind_proto::units::Timestamp;

use crate::scenario::Scenario;
use crate::trial::{Scheme, Way};

const K: u32 = 20;
/// A block that does not fill is closed after this long, with parity for half its packets.
const FLUSH: Duration = Duration::from_millis(8);
/// Blocks remembered at the far end.
const BLOCKS: usize = 4096;

/// Number of the first packet, row, packets of the block (0: unknown), and what the tunnel needs
/// of a checksum.
const HEADER: usize = 8;

pub struct Block {
    hops: usize,
    payload: usize,
    /// The first packet of the open block, how many it has, and when it began.
    open: Option<(u32, u32, Timestamp)>,
    out: VecDeque<(Way, Bytes)>,
    /// Per block, by its first packet: rows that came, and the number of packets once known.
    blocks: BTreeMap<u32, (u64, u32)>,
    delivered: VecDeque<u32>,
    shards: Vec<(u64, u64)>,
}

impl Scheme for Block {
    fn new(scenario: &Scenario) -> Self {
        Self {
            hops: scenario.hops,
            payload: scenario.payload,
            open: None,
            out: VecDeque::new(),
            blocks: BTreeMap::new(),
            delivered: VecDeque::new(),
            shards: vec![(0, 0); scenario.hops],
        }
    }

    fn enter(&mut self, number: u32, now: Timestamp) {
        let (first, len, began) = self.open.unwrap_or((number, 0, now));
        self.send(first, len, 0);
        self.open = Some((first, len + 1, began));
        if len + 1 == K {
            self.close();
        }
    }

    fn receive(&mut self, way: Way, datagram: Bytes, _now: Timestamp) {
        if way.hop + 1 < self.hops {
            self.pass(Way { hop: way.hop + 1, ..way }, datagram);
            return;
        }
        let mut head = &datagram[..];
        let (first, row, k) = (head.get_u32(), u32::from(head.get_u8()), u32::from(head.get_u8()));
        if row < K {
            self.delivered.push_back(first + row);
        }
        let (rows, known) = self.blocks.entry(first).or_default();
        *rows |= 1 << row;
        *known = k.max(*known);
        if *known > 0 && rows.count_ones() >= *known {
            self.delivered.extend(first..first + *known);
        }
        while self.blocks.len() > BLOCKS {
            self.blocks.pop_first();
        }
    }

    fn next_at(&self) -> Timestamp {
        self.open.map_or(Timestamp::NEVER, |(_, _, began)| began + FLUSH)
    }

    fn wake(&mut self, _now: Timestamp) {
        self.close();
    }

    fn poll_transmit(&mut self, _now: Timestamp) -> Option<(Way, Bytes)> {
        self.out.pop_front()
    }

    fn poll_delivered(&mut self) -> Option<u32> {
        self.delivered.pop_front()
    }

    fn shards(&self) -> Vec<(u64, u64)> {
        self.shards.clone()
    }
}

impl Block {
    fn close(&mut self) {
        let Some((first, len, _)) = self.open.take() else { return };
        for row in 0..len.div_ceil(2) {
            self.send(first, K + row, len);
        }
    }

    fn send(&mut self, first: u32, row: u32, k: u32) {
        let mut datagram = BytesMut::with_capacity(HEADER + self.payload);
        datagram.put_u32(first);
        datagram.put_slice(&[row as u8, k as u8]);
        datagram.resize(HEADER + self.payload, 0);
        self.pass(Way { hop: 0, back: false }, datagram.freeze());
    }

    fn pass(&mut self, way: Way, datagram: Bytes) {
        // What got lost before is a data shard of this hop no more.
        let is_data = u32::from(datagram[4]) < K;
        let (data, all) = &mut self.shards[way.hop];
        *data += u64::from(is_data);
        *all += 1;
        self.out.push_back((way, datagram));
    }
}
