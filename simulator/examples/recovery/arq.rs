//! Plain retransmission on each hop: a gap is asked for at once, and again every round trip until
//! it is filled or too old. One copy each time, no parity, packets passed on as they come.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tradewind_proto::units::Timestamp;

use crate::scenario::Scenario;
use crate::trial::{Scheme, Way};

/// Number on the hop, number of the packet, and a timestamp, as SRT has them.
const HEADER: usize = 16;
/// Asked for again after a round trip and this.
const PATIENCE: Duration = Duration::from_millis(5);
/// The most numbers in one request.
const MOST_ASKED: usize = 300;

#[derive(Default)]
struct Hop {
    next: u32,
    /// Sent of late: number on the hop and packet.
    sent: VecDeque<(Timestamp, u32, u32)>,
    /// The next number that should come.
    expected: u32,
    /// Missing: since when, and when to ask.
    missing: BTreeMap<u32, (Timestamp, Timestamp)>,
    data: u64,
    repeats: u64,
}

pub struct Arq {
    hops: Vec<Hop>,
    payload: usize,
    again: Duration,
    deadline: Duration,
    out: VecDeque<(Way, Bytes)>,
    delivered: VecDeque<u32>,
}

impl Scheme for Arq {
    fn new(scenario: &Scenario) -> Self {
        Self {
            hops: (0..scenario.hops).map(|_| Hop::default()).collect(),
            payload: scenario.payload,
            again: scenario.rtt + PATIENCE,
            deadline: scenario.deadline(),
            out: VecDeque::new(),
            delivered: VecDeque::new(),
        }
    }

    fn enter(&mut self, number: u32, now: Timestamp) {
        self.forward(0, number, now);
    }

    fn receive(&mut self, way: Way, mut datagram: Bytes, now: Timestamp) {
        if way.back {
            while datagram.remaining() >= 4 {
                self.repeat(way.hop, datagram.get_u32());
            }
            return;
        }
        let (seq, number) = (datagram.get_u32(), datagram.get_u32());
        let hop = &mut self.hops[way.hop];
        let fresh = seq >= hop.expected || hop.missing.remove(&seq).is_some();
        for gap in hop.expected..seq {
            hop.missing.insert(gap, (now, now));
        }
        hop.expected = hop.expected.max(seq + 1);
        if !fresh {
            return;
        }
        if way.hop + 1 < self.hops.len() {
            self.forward(way.hop + 1, number, now);
        } else {
            self.delivered.push_back(number);
        }
    }

    fn next_at(&self) -> Timestamp {
        let due = self.hops.iter().flat_map(|hop| hop.missing.values()).map(|&(_, due)| due);
        due.min().unwrap_or(Timestamp::NEVER)
    }

    fn wake(&mut self, now: Timestamp) {
        for (at, hop) in self.hops.iter_mut().enumerate() {
            let deadline = self.deadline;
            hop.missing.retain(|_, (since, _)| now.since(*since) < deadline);
            let mut asked = BytesMut::new();
            let due = hop.missing.iter_mut().filter(|(_, (_, due))| *due <= now);
            for (&seq, (_, due)) in due.take(MOST_ASKED) {
                *due = now + self.again;
                asked.put_u32(seq);
            }
            if !asked.is_empty() {
                self.out.push_back((Way { hop: at, back: true }, asked.freeze()));
            }
        }
    }

    fn poll_transmit(&mut self, _now: Timestamp) -> Option<(Way, Bytes)> {
        self.out.pop_front()
    }

    fn poll_delivered(&mut self) -> Option<u32> {
        self.delivered.pop_front()
    }

    fn shards(&self) -> Vec<(u64, u64)> {
        self.hops.iter().map(|hop| (hop.data, hop.data + hop.repeats)).collect()
    }
}

impl Arq {
    fn forward(&mut self, at: usize, number: u32, now: Timestamp) {
        let hop = &mut self.hops[at];
        let seq = hop.next;
        hop.next += 1;
        hop.data += 1;
        hop.sent.push_back((now, seq, number));
        while hop.sent.front().is_some_and(|&(sent, ..)| now.since(sent) > self.deadline) {
            hop.sent.pop_front();
        }
        self.send(at, seq, number);
    }

    fn repeat(&mut self, at: usize, seq: u32) {
        let hop = &mut self.hops[at];
        let Ok(found) = hop.sent.binary_search_by_key(&seq, |&(_, seq, _)| seq) else { return };
        let (_, seq, number) = hop.sent[found];
        hop.repeats += 1;
        self.send(at, seq, number);
    }

    fn send(&mut self, hop: usize, seq: u32, number: u32) {
        let mut datagram = BytesMut::with_capacity(HEADER + self.payload);
        datagram.put_u32(seq);
        datagram.put_u32(number);
        datagram.resize(HEADER + self.payload, 0);
        self.out.push_back((Way { hop, back: false }, datagram.freeze()));
    }
}
