//! The same link models under a virtual clock, for tests and benchmarks of machines without I/O.
//!
//! [`Events`] is the queue that every simulation here runs on; [`VirtualNet`] carries datagrams
//! between named ends. What comes out depends on the seed and on what was sent, on nothing else.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use bytes::{Bytes, BytesMut};
use tradewind_proto::units::{PopId, Timestamp};

use crate::emulator::IP_UDP_HEADERS;
use crate::link::{Fate, LinkCounters, LinkModel, LinkSpec, stream_seed};

/// Bytes that QUIC puts around a datagram frame in a packet of its own: a short header with an
/// 8-byte connection id and a 2-byte packet number (11), the frame's type and length (2), and the
/// AEAD's tag (16). RFC 9000 section 17.3, RFC 9221 section 4, RFC 9001 section 5.3.
pub const QUIC_OVERHEAD: usize = 29;

/// Things that will happen, the earliest first; of two at the same time, the one scheduled first.
///
/// Only the next slice of time is kept in order: in a heap of all that is to happen, each event would
/// be moved many times, over more memory than caches hold.
#[derive(Debug)]
pub struct Events<T> {
    /// What happens in the slice of `reached`; empty only if nothing will happen.
    soon: BinaryHeap<Reverse<Event<T>>>,
    reached: u64,
    /// What happens in later slices, in no order.
    later: BTreeMap<u64, Vec<Reverse<Event<T>>>>,
    len: usize,
    next_order: u64,
}

/// The slice of a time: 1,024 microseconds.
fn slice(at: Timestamp) -> u64 {
    at.as_micros() >> 10
}

#[derive(Debug)]
struct Event<T> {
    at: Timestamp,
    order: u64,
    what: T,
}

impl<T> PartialEq for Event<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Event<T> {}

impl<T> PartialOrd for Event<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Event<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Self { soon: BinaryHeap::new(), reached: 0, later: BTreeMap::new(), len: 0, next_order: 0 }
    }
}

impl<T> Events<T> {
    /// `what` will happen at `at`.
    pub fn schedule(&mut self, at: Timestamp, what: T) {
        let event = Reverse(Event { at, order: self.next_order, what });
        self.next_order += 1;
        self.len += 1;
        let slice = slice(at);
        if slice < self.reached || self.soon.is_empty() {
            let soon = std::mem::take(&mut self.soon).into_vec();
            let reached = std::mem::replace(&mut self.reached, slice);
            if !soon.is_empty() {
                self.later.insert(reached, soon);
            }
        }
        if slice == self.reached {
            self.soon.push(event);
        } else {
            self.later.entry(slice).or_default().push(event);
        }
    }

    /// When the next thing happens; [`Timestamp::NEVER`] if nothing will.
    pub fn next_at(&self) -> Timestamp {
        self.soon.peek().map_or(Timestamp::NEVER, |Reverse(event)| event.at)
    }

    /// The next thing that happens.
    pub fn pop(&mut self) -> Option<(Timestamp, T)> {
        let Reverse(event) = self.soon.pop()?;
        self.len -= 1;
        if self.soon.is_empty()
            && let Some((slice, events)) = self.later.pop_first()
        {
            (self.reached, self.soon) = (slice, events.into());
        }
        Some((event.at, event.what))
    }

    /// The next thing, if it has happened by `now`.
    pub fn pop_until(&mut self, now: Timestamp) -> Option<(Timestamp, T)> {
        if self.next_at() > now { None } else { self.pop() }
    }

    /// How many things are still to happen.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing will happen.
    pub fn is_empty(&self) -> bool {
        self.soon.is_empty()
    }
}

/// A datagram that arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: Timestamp,
    /// Who sent it.
    pub from: PopId,
    /// To whom.
    pub to: PopId,
    /// What.
    pub datagram: Bytes,
}

/// A network of link models. Datagrams between ends that are not connected vanish, as on links
/// that are cut.
pub struct VirtualNet {
    seed: u64,
    overhead: usize,
    links: BTreeMap<(PopId, PopId), LinkModel>,
    under_way: Events<(PopId, PopId, Bytes)>,
}

impl VirtualNet {
    /// A network without links, whose datagrams travel inside QUIC packets.
    pub fn new(seed: u64) -> Self {
        Self::with_overhead(seed, IP_UDP_HEADERS + QUIC_OVERHEAD)
    }

    /// The same with `overhead` bytes around each datagram.
    pub fn with_overhead(seed: u64, overhead: usize) -> Self {
        Self { seed, overhead, links: BTreeMap::new(), under_way: Events::default() }
    }

    /// Makes the link from `a` to `b`, that direction only, or changes it.
    pub fn connect(&mut self, a: &PopId, b: &PopId, spec: LinkSpec) {
        let seed = stream_seed(self.seed, &format!("{a}>{b}"));
        match self.links.get_mut(&(a.clone(), b.clone())) {
            Some(link) => link.set(spec),
            None => {
                self.links.insert((a.clone(), b.clone()), LinkModel::new(spec, seed));
            }
        }
    }

    /// Makes both directions alike.
    pub fn connect_both(&mut self, a: &PopId, b: &PopId, spec: LinkSpec) {
        self.connect(a, b, spec.clone());
        self.connect(b, a, spec);
    }

    /// Sends a datagram; `now` must not go back. `None` without a link.
    pub fn send(
        &mut self,
        from: &PopId,
        to: &PopId,
        datagram: Bytes,
        now: Timestamp,
    ) -> Option<Fate> {
        let link = self.links.get_mut(&(from.clone(), to.clone()))?;
        let fate = link.offer(datagram.len() + self.overhead, now);
        for delivery in fate.deliveries() {
            let datagram = match delivery.flipped {
                Some(bit) => flipped(&datagram, bit),
                None => datagram.clone(),
            };
            self.under_way.schedule(delivery.at, (from.clone(), to.clone(), datagram));
        }
        Some(fate)
    }

    /// When [`Self::next`] has something; [`Timestamp::NEVER`] if nothing is under way.
    pub fn next_at(&self) -> Timestamp {
        self.under_way.next_at()
    }

    /// The next datagram that arrives.
    #[expect(
        clippy::should_implement_trait,
        reason = "it is no iterator: more may be sent in between"
    )]
    pub fn next(&mut self) -> Option<Arrival> {
        let (at, (from, to, datagram)) = self.under_way.pop()?;
        Some(Arrival { at, from, to, datagram })
    }

    /// Cuts or restores one direction. What is under way arrives.
    pub fn set_up(&mut self, from: &PopId, to: &PopId, up: bool) {
        if let Some(link) = self.links.get_mut(&(from.clone(), to.clone())) {
            link.set_up(up);
        }
    }

    /// What one direction did so far.
    pub fn counters(&self, from: &PopId, to: &PopId) -> Option<&LinkCounters> {
        self.links.get(&(from.clone(), to.clone())).map(LinkModel::counters)
    }
}

fn flipped(datagram: &Bytes, bit: u32) -> Bytes {
    let mut bytes = BytesMut::from(&datagram[..]);
    if !bytes.is_empty() {
        let bit = bit as usize % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::link::Loss;

    fn id(name: &str) -> PopId {
        name.parse().unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1000)
    }

    proptest! {
        #[test]
        fn events_come_in_order_of_time_then_of_scheduling(
            steps in prop::collection::vec(prop::option::weighted(0.7, 0..20_000u64), 0..120),
        ) {
            let (mut events, mut wanted) = (Events::default(), BTreeSet::new());
            let rest = steps.len();
            let steps = steps.into_iter().chain(std::iter::repeat_n(None, rest));
            for (order, time) in steps.enumerate() {
                match time.map(Timestamp::from_micros) {
                    Some(at) => {
                        events.schedule(at, order);
                        wanted.insert((at, order));
                    }
                    None => prop_assert_eq!(events.pop(), wanted.pop_first()),
                }
                let next = wanted.first().map_or(Timestamp::NEVER, |(at, _)| *at);
                prop_assert_eq!((events.next_at(), events.len()), (next, wanted.len()));
            }
            prop_assert!(events.is_empty());
        }
    }

    /// Sends 500 datagrams each way and notes what arrives.
    fn transcript(seed: u64, extra: bool) -> Vec<Arrival> {
        let mut net = VirtualNet::new(seed);
        let spec = LinkSpec {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(2),
            loss: Loss::in_bursts(0.1, 3.0).unwrap(),
            duplicate: 0.05,
            corrupt: 0.05,
            reorder: 0.05,
            ..LinkSpec::default()
        };
        net.connect_both(&id("a"), &id("b"), spec.clone());
        if extra {
            net.connect_both(&id("a"), &id("c"), spec);
        }
        let mut arrivals = Vec::new();
        for i in 0..500u64 {
            for (from, to) in [("a", "b"), ("b", "a")] {
                net.send(&id(from), &id(to), Bytes::from(i.to_be_bytes().to_vec()), at(i));
            }
            if extra {
                net.send(&id("a"), &id("c"), Bytes::from_static(b"more"), at(i));
            }
        }
        arrivals.extend(std::iter::from_fn(|| net.next()));
        arrivals.retain(|arrival| arrival.to != id("c"));
        arrivals
    }

    #[test]
    fn the_seed_decides_and_other_links_change_nothing() {
        let first = transcript(1, false);
        assert!(first.len() > 800 && first.windows(2).all(|w| w[0].at <= w[1].at));
        assert_eq!(first, transcript(1, false));
        assert_ne!(first, transcript(2, false));
        // Of arrivals at the same time the order may differ, their set may not.
        let sorted = |mut arrivals: Vec<Arrival>| {
            arrivals.sort_by(|a, b| (a.at, &a.to, &a.datagram).cmp(&(b.at, &b.to, &b.datagram)));
            arrivals
        };
        assert_eq!(sorted(first), sorted(transcript(1, true)));
    }

    #[test]
    fn headers_count_and_missing_links_carry_nothing() {
        let mut net = VirtualNet::new(1);
        net.connect(&id("a"), &id("b"), LinkSpec::with_delay(Duration::from_millis(5)));
        net.send(&id("a"), &id("b"), Bytes::from_static(&[0; 100]), at(1));
        assert_eq!(net.send(&id("b"), &id("a"), Bytes::new(), at(1)), None);
        assert_eq!(net.next_at(), at(6));
        assert_eq!(net.next().map(|arrival| (arrival.from, arrival.to)), Some((id("a"), id("b"))));
        assert_eq!(net.counters(&id("a"), &id("b")).unwrap().offered_bytes, 157);
        net.set_up(&id("a"), &id("b"), false);
        net.send(&id("a"), &id("b"), Bytes::new(), at(7));
        assert!(net.next().is_none());
    }
}
