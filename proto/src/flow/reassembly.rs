//! Joining the fragments of a payload.
//!
//! It knows neither what was handed out before ([`super::window`]) nor that a fragment's link
//! repairs it; what is still incomplete at its deadline is given up.

use bytes::Bytes;

use super::fragment::MAX_PAYLOAD;
use crate::packet::Fragment;
use crate::units::{FlowSeq, Timestamp};

/// The most incomplete payloads of one direction of one flow.
const MOST_PARTIALS: usize = 64;
/// The most bytes that they take together: four of the largest.
const MOST_BYTES: usize = 256 << 10;

/// What happened to fragments and to payloads that were not completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReassemblyCounters {
    /// Fragments that were there already.
    pub duplicates: u64,
    /// Incomplete payloads given up at their deadline.
    pub expired: u64,
    /// Incomplete payloads given up to make room for newer ones.
    pub evicted: u64,
    /// Fragments that contradict others of their payload, or themselves.
    pub refused: u64,
}

/// The incomplete payloads of one direction of one flow.
///
/// At most 64 and 256 KiB; beyond, the one whose deadline is nearest makes room: it is the least
/// likely to be completed. Fragments are copied into place as they come, so that they don't keep
/// the datagrams (and whatever batch those were received in) alive; the payload is allocated once.
#[derive(Clone, Debug, Default)]
pub struct Reassembly {
    partials: Vec<Partial>,
    /// Sum of [`Partial::cost`].
    bytes: usize,
    counters: ReassemblyCounters,
}

/// A payload of which something is missing.
#[derive(Clone, Debug)]
struct Partial {
    seq: FlowSeq,
    expires: Timestamp,
    count: u8,
    received: u8,
    /// Bit `i`: piece `i` is here.
    map: [u64; 4],
    /// Length of every piece but the last; 0 while only the last is here.
    piece: usize,
    /// All pieces but the last, in place; allocated with the first of them.
    body: Vec<u8>,
    /// The last piece, which says nothing of its own place.
    tail: Vec<u8>,
}

impl Reassembly {
    /// A reassembly without payloads; allocates nothing.
    pub const fn new() -> Self {
        let counters = ReassemblyCounters { duplicates: 0, expired: 0, evicted: 0, refused: 0 };
        Self { partials: Vec::new(), bytes: 0, counters }
    }

    /// Takes a fragment of a payload that is of use until `expires`; gives the payload if that was
    /// the last one missing. A payload that was not cut comes back as it is.
    pub fn handle(
        &mut self,
        seq: FlowSeq,
        fragment: Fragment,
        payload: Bytes,
        expires: Timestamp,
        now: Timestamp,
    ) -> Option<Bytes> {
        if fragment == Fragment::WHOLE && payload.len() <= MAX_PAYLOAD {
            return Some(payload);
        }
        self.expire(now);
        if !is_plausible(fragment, &payload) {
            self.counters.refused += 1;
            return None;
        }
        let at = self.find_or_begin(seq, fragment.count, expires);
        match self.partials[at].insert(fragment, &payload) {
            Ok(cost) => self.bytes += cost,
            Err(Unfit::Duplicate) => self.counters.duplicates += 1,
            Err(Unfit::Contradiction) => self.counters.refused += 1,
        }
        if self.partials[at].is_complete() {
            return Some(self.remove(at).join());
        }
        self.make_room();
        None
    }

    /// Gives up what expired. [`Self::handle`] does it too: only to be called where nothing comes.
    pub fn expire(&mut self, now: Timestamp) {
        while let Some(at) = self.next_to_expire().filter(|&at| self.partials[at].expires < now) {
            self.remove(at);
            self.counters.expired += 1;
        }
    }

    /// When the next incomplete payload expires; [`Timestamp::NEVER`] without one.
    pub fn poll_timeout(&self) -> Timestamp {
        self.next_to_expire().map_or(Timestamp::NEVER, |at| self.partials[at].expires)
    }

    /// What was counted so far.
    pub const fn counters(&self) -> &ReassemblyCounters {
        &self.counters
    }

    fn find_or_begin(&mut self, seq: FlowSeq, count: u8, expires: Timestamp) -> usize {
        if let Some(at) = self.partials.iter().position(|partial| partial.seq == seq) {
            return at;
        }
        if self.partials.len() >= MOST_PARTIALS {
            self.evict();
        }
        self.partials.push(Partial::new(seq, count, expires));
        self.partials.len() - 1
    }

    fn make_room(&mut self) {
        while self.bytes > MOST_BYTES {
            self.evict();
        }
    }

    fn evict(&mut self) {
        if let Some(at) = self.next_to_expire() {
            self.remove(at);
            self.counters.evicted += 1;
        }
    }

    /// A scan of at most 64; only cut payloads pay for it.
    fn next_to_expire(&self) -> Option<usize> {
        let ends = self.partials.iter().enumerate().map(|(at, partial)| (partial.expires, at));
        ends.min().map(|(_, at)| at)
    }

    fn remove(&mut self, at: usize) -> Partial {
        let partial = self.partials.swap_remove(at);
        self.bytes -= partial.cost();
        partial
    }
}

/// Why a fragment was not taken.
enum Unfit {
    Duplicate,
    Contradiction,
}

/// Whether a fragment can be part of what [`super::fragment::fragments`] makes, seen by itself.
fn is_plausible(fragment: Fragment, payload: &Bytes) -> bool {
    let (index, count) = (usize::from(fragment.index), usize::from(fragment.count));
    let before_last = count.saturating_sub(1);
    // All pieces but the last have this one's length, if it is one of them.
    let least_total =
        if index < before_last { payload.len().saturating_mul(before_last) } else { 0 };
    index < count && count > 1 && !payload.is_empty() && least_total < MAX_PAYLOAD
}

impl Partial {
    fn new(seq: FlowSeq, count: u8, expires: Timestamp) -> Self {
        Self {
            seq,
            expires,
            count,
            received: 0,
            map: [0; 4],
            piece: 0,
            body: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// Takes a piece and says how many bytes more are held now.
    fn insert(&mut self, fragment: Fragment, payload: &[u8]) -> Result<usize, Unfit> {
        let index = usize::from(fragment.index);
        let (word, bit) = (index / 64, 1 << (index % 64));
        if fragment.count != self.count || !self.fits(index, payload.len()) {
            return Err(Unfit::Contradiction);
        }
        if self.map[word] & bit != 0 {
            return Err(Unfit::Duplicate);
        }
        let before = self.cost();
        if index == self.last() {
            self.tail = payload.to_vec();
        } else {
            self.place(index, payload);
        }
        self.map[word] |= bit;
        self.received += 1;
        Ok(self.cost() - before)
    }

    /// Whether a piece's length goes with those that are here.
    fn fits(&self, index: usize, len: usize) -> bool {
        let last = if index == self.last() { len } else { self.tail.len() };
        let piece = if index == self.last() { self.piece } else { len };
        let same = index == self.last() || self.piece == 0 || self.piece == len;
        same && (piece == 0 || last <= piece) && piece * self.last() + last <= MAX_PAYLOAD
    }

    fn place(&mut self, index: usize, payload: &[u8]) {
        if self.piece == 0 {
            self.piece = payload.len();
            // With room for the last piece, so that joining allocates nothing.
            self.body = Vec::with_capacity(self.piece * usize::from(self.count));
            self.body.resize(self.piece * self.last(), 0);
        }
        self.body[index * self.piece..][..self.piece].copy_from_slice(payload);
    }

    fn last(&self) -> usize {
        usize::from(self.count) - 1
    }

    fn is_complete(&self) -> bool {
        self.received == self.count
    }

    fn cost(&self) -> usize {
        self.body.capacity() + self.tail.capacity()
    }

    fn join(mut self) -> Bytes {
        self.body.extend_from_slice(&self.tail);
        self.body.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::fragment::fragments;
    use super::*;

    const LATER: Timestamp = Timestamp::from_micros(100_000);
    const NOW: Timestamp = Timestamp::from_micros(0);

    fn of(index: u8, count: u8) -> Fragment {
        Fragment { index, count }
    }

    fn bytes(len: usize) -> Bytes {
        Bytes::from(vec![1; len])
    }

    #[test]
    fn contradictions_are_refused_and_the_rest_still_joins() {
        let mut reassembly = Reassembly::new();
        let mut give =
            |fragment, len| reassembly.handle(FlowSeq(1), fragment, bytes(len), LATER, NOW);
        assert_eq!(give(of(0, 3), 10), None);
        for (fragment, len) in [
            (of(1, 4), 10),       // another count
            (of(1, 3), 9),        // another length
            (of(2, 3), 11),       // the last longer than the others
            (of(3, 3), 10),       // beyond the end
            (of(1, 3), 0),        // nothing
            (of(1, 255), 60_000), // too large
        ] {
            assert_eq!(give(fragment, len), None);
        }
        assert_eq!(give(of(2, 3), 4), None);
        assert_eq!(give(of(1, 3), 10), Some(bytes(24)));
        assert_eq!(reassembly.counters().refused, 6);
        assert_eq!(reassembly.bytes, 0);
    }

    #[test]
    fn incomplete_payloads_are_given_up_at_their_deadline() {
        let mut reassembly = Reassembly::new();
        let at = Timestamp::from_micros;
        assert_eq!(reassembly.poll_timeout(), Timestamp::NEVER);
        for (seq, expires) in [(1, 500), (2, 300), (3, 400)] {
            reassembly.handle(FlowSeq(seq), of(0, 2), bytes(10), at(expires), at(0));
        }
        assert_eq!(reassembly.poll_timeout(), at(300));
        assert!(reassembly.handle(FlowSeq(1), of(1, 2), bytes(9), at(500), at(401)).is_some());
        assert_eq!((reassembly.counters().expired, reassembly.partials.len()), (2, 0));
    }

    #[test]
    fn number_and_bytes_are_bounded_and_the_oldest_makes_room() {
        let mut reassembly = Reassembly::new();
        for seq in 0..100 {
            let expires = Timestamp::from_micros(1000 + u64::from(seq));
            reassembly.handle(FlowSeq(seq), of(0, 2), bytes(10), expires, NOW);
        }
        assert_eq!((reassembly.partials.len(), reassembly.counters().evicted), (64, 36));
        assert!(reassembly.handle(FlowSeq(99), of(1, 2), bytes(1), LATER, NOW).is_some());
        for seq in 200..300 {
            reassembly.handle(FlowSeq(seq), of(0, 40), bytes(1400), LATER, NOW);
            assert!(reassembly.bytes <= MOST_BYTES);
        }
        assert!(reassembly.partials.len() <= MOST_BYTES / 56_000);
    }

    proptest! {
        /// Several payloads at once, their pieces in any order and some of them twice.
        #[test]
        fn any_order_with_any_copies_gives_each_payload_exactly(
            payloads in prop::collection::vec((2usize..4000, 40usize..1000), 1..6),
            extra in prop::collection::vec(any::<prop::sample::Index>(), 0..50),
            keys in prop::collection::vec(any::<u64>(), 700),
        ) {
            let whole = |seq: usize, len: usize| (0..len).map(|i| (i * 31 + seq * 7) as u8).collect::<Vec<_>>();
            let mut arrivals: Vec<_> = payloads.iter().enumerate().flat_map(|(seq, &(len, max))| {
                let pieces = fragments(Bytes::from(whole(seq, len)), max.min(len - 1));
                pieces.into_iter().flatten().map(move |(fragment, piece)| (seq, fragment, piece))
            }).collect();
            let mut missing: Vec<usize> =
                (0..payloads.len()).map(|seq| arrivals.iter().filter(|a| a.0 == seq).count()).collect();
            for index in extra {
                arrivals.push(arrivals[index.index(arrivals.len())].clone());
            }
            let mut keyed: Vec<_> = keys.into_iter().zip(arrivals).collect();
            keyed.sort_by_key(|(key, _)| *key);
            let mut seen = BTreeSet::new();
            let mut copies = 0;
            let mut reassembly = Reassembly::new();
            for (_, (seq, fragment, piece)) in keyed {
                if missing[seq] == 0 {
                    continue; // a copy after the payload is complete is the window's business
                }
                if seen.insert((seq, fragment.index)) {
                    missing[seq] -= 1;
                } else {
                    copies += 1;
                }
                let joined = reassembly.handle(FlowSeq(seq as u32), fragment, piece, LATER, NOW);
                let expected = (missing[seq] == 0).then(|| Bytes::from(whole(seq, payloads[seq].0)));
                prop_assert_eq!(joined, expected);
            }
            let expected = ReassemblyCounters { duplicates: copies, ..ReassemblyCounters::default() };
            prop_assert_eq!(*reassembly.counters(), expected);
            prop_assert!(missing.iter().all(|&left| left == 0));
        }

        #[test]
        fn nonsense_neither_panics_nor_grows(
            junk in prop::collection::vec((0..80u32, any::<u8>(), any::<u8>(), 0..3000usize, 0..200u64), 1..300)
        ) {
            let mut reassembly = Reassembly::new();
            for (seq, index, count, len, expires) in junk {
                let expires = Timestamp::from_micros(expires);
                reassembly.handle(FlowSeq(seq), of(index, count), bytes(len), expires, Timestamp::from_micros(100));
                prop_assert!(reassembly.partials.len() <= MOST_PARTIALS && reassembly.bytes <= MOST_BYTES);
                let held: usize = reassembly.partials.iter().map(Partial::cost).sum();
                prop_assert_eq!(held, reassembly.bytes);
            }
        }
    }
}
