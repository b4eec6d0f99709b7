//! Tradewind: the protocol's own [`Link`]s, one after the other.
//!
//! A relay here is what joins two links: a packet that comes out of one goes into the next with
//! what is left of its budget, less the propagation of the hops after that, as in the relay's node.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::link::{Counters, Heat, Link, LinkConfig, LinkEvent, Outbound, Recovery};
use tradewind_proto::packet::{Fragment, Header, PacketKind, Path};
use tradewind_proto::units::{
    Budget, Class, FlowId, FlowSeq, PolicyId, PopKey, Timestamp, WireTime,
};

use crate::scenario::Scenario;
use crate::trial::{START, Scheme, Way};

/// What quinn leaves of 1,452 bytes of UDP payload for a datagram.
const DATAGRAM: usize = 1_414;
/// Both clocks are the same one.
const CONFIG: LinkConfig =
    LinkConfig { datagram: DATAGRAM, peer_clock_offset: 0, recovery: Recovery::Plan };
/// Kept for each hop after the next: the margins for jitter that a router adds to its delay.
const RESERVE: Duration = Duration::from_micros(500);

pub struct Tradewind {
    /// Of each hop, the end that sends the packets and the end that receives them.
    hops: Vec<[Link; 2]>,
    /// Ends that may have something to say.
    touched: Vec<Way>,
    path: Path,
    class: Class,
    payload: Bytes,
    one_way: Duration,
    deadline: Duration,
    delivered: VecDeque<u32>,
}

impl Scheme for Tradewind {
    const QUIC: bool = true;

    fn new(scenario: &Scenario) -> anyhow::Result<Self> {
        let hop = || {
            let mut ends = [(); 2].map(|()| Link::new(CONFIG, START));
            ends.iter_mut().for_each(|end| end.set_heat(Heat::Hot, START));
            ends
        };
        let pops: Vec<PopKey> = (1..).map(PopKey).take(scenario.hops + 1).collect();
        Ok(Self {
            hops: (0..scenario.hops).map(|_| hop()).collect(),
            touched: Vec::new(),
            path: Path::new(&pops)?,
            class: scenario.class,
            payload: vec![0x5a; scenario.payload].into(),
            one_way: scenario.one_way(),
            deadline: scenario.deadline(),
            delivered: VecDeque::new(),
        })
    }

    fn enter(&mut self, number: u32, now: Timestamp) {
        let header = Header {
            kind: PacketKind::Data,
            class: self.class,
            reverse: false,
            key_epoch: 0,
            policy: PolicyId::NONE,
            flow: FlowId { ingress: self.path.first(), incarnation: 1, number: 1 },
            seq: FlowSeq(number),
            fragment: Fragment::WHOLE,
            sent_at: WireTime::default(),
            budget: Budget::new(self.deadline),
            path: self.path,
            open: None,
        };
        self.forward(0, header, self.payload.clone(), now);
    }

    fn receive(&mut self, way: Way, datagram: Bytes, now: Timestamp) {
        let end = Way { hop: way.hop, back: !way.back };
        self.link(end).handle_datagram(datagram, now);
        self.handle_events(end, now);
    }

    fn next_at(&self) -> Timestamp {
        let timeouts = self.hops.iter().flatten().map(Link::poll_timeout);
        timeouts.min().unwrap_or(Timestamp::NEVER)
    }

    fn wake(&mut self, now: Timestamp) {
        for hop in 0..self.hops.len() {
            for back in [false, true] {
                let end = Way { hop, back };
                if self.link(end).poll_timeout() <= now {
                    self.link(end).handle_timeout(now);
                    self.handle_events(end, now);
                }
            }
        }
    }

    fn poll_transmit(&mut self, now: Timestamp) -> Option<(Way, Bytes)> {
        loop {
            let end = *self.touched.last()?;
            if let Some(datagram) = self.link(end).poll_transmit(now) {
                return Some((end, datagram));
            }
            self.touched.pop();
        }
    }

    fn poll_delivered(&mut self) -> Option<u32> {
        self.delivered.pop_front()
    }

    fn shards(&self) -> Vec<(u64, u64)> {
        let shards = |[sender, _]: &[Link; 2]| {
            let Counters { data_tx, parity_tx, repeat_tx, .. } = *sender.counters();
            (data_tx, data_tx + parity_tx + repeat_tx)
        };
        self.hops.iter().map(shards).collect()
    }
}

impl Tradewind {
    /// The end that sends this way.
    fn link(&mut self, end: Way) -> &mut Link {
        &mut self.hops[end.hop][usize::from(end.back)]
    }

    fn touch(&mut self, end: Way) {
        if !self.touched.contains(&end) {
            self.touched.push(end);
        }
    }

    fn handle_events(&mut self, end: Way, now: Timestamp) {
        self.touch(end);
        while let Some(event) = self.link(end).poll_event() {
            let LinkEvent::Received(inbound) = event else { continue };
            if end.hop + 1 < self.hops.len() {
                self.forward(end.hop + 1, inbound.header, inbound.payload, now);
            } else {
                self.delivered.push_back(inbound.header.seq.0);
            }
        }
    }

    /// What a link refuses is not delivered, and counts so.
    fn forward(&mut self, hop: usize, mut header: Header, payload: Bytes, now: Timestamp) {
        let Some(onward) = header.path.advanced() else { return };
        let further = self.hops.len() - hop - 1;
        let rest = (self.one_way + RESERVE) * further as u32;
        let arrive_by = (now + header.budget.span()).minus(rest);
        header.path = onward;
        let end = Way { hop, back: false };
        let _ = self.link(end).send(Outbound { header, payload, entered: now, arrive_by }, now);
        self.touch(end);
    }
}
