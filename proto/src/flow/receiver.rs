//! The receiving end of one direction of a flow: every payload once, whole, in whatever order.
//!
//! It does not reorder and does not wait: applications over UDP do that better.

use bytes::Bytes;

use super::reassembly::Reassembly;
use super::window::{DuplicateWindow, Verdict};
use crate::packet::Fragment;
use crate::units::{FlowSeq, Timestamp};

/// What became of the packets of one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounters {
    /// Payloads handed out.
    pub delivered: u64,
    /// Packets and fragments that were there already.
    pub duplicates: u64,
    /// Packets too far behind to be known as new.
    pub too_old: u64,
    /// Incomplete payloads given up, at their deadline or for lack of room.
    pub expired_partial: u64,
    /// Fragments that contradict others of their payload, or themselves.
    pub refused: u64,
}

/// Drops duplicates and joins fragments.
#[derive(Clone, Debug, Default)]
pub struct FlowReceiver {
    window: DuplicateWindow,
    reassembly: Reassembly,
    delivered: u64,
    duplicates: u64,
    too_old: u64,
}

impl FlowReceiver {
    /// A receiver that has seen nothing; allocates nothing.
    pub const fn new() -> Self {
        Self {
            window: DuplicateWindow::new(),
            reassembly: Reassembly::new(),
            delivered: 0,
            duplicates: 0,
            too_old: 0,
        }
    }

    /// Takes a packet and gives the payload that it completes, if any. `expires`: when the packet's
    /// budget ends; a payload incomplete by then is given up.
    pub fn receive(
        &mut self,
        seq: FlowSeq,
        fragment: Fragment,
        payload: Bytes,
        expires: Timestamp,
        now: Timestamp,
    ) -> Option<Bytes> {
        match self.window.check(seq) {
            Verdict::New => {}
            Verdict::Duplicate => {
                self.duplicates += 1;
                return None;
            }
            Verdict::TooOld => {
                self.too_old += 1;
                return None;
            }
        }
        let payload = self.reassembly.handle(seq, fragment, payload, expires, now)?;
        self.window.accept(seq);
        self.delivered += 1;
        Some(payload)
    }

    /// Gives up what expired, for flows that fell silent. [`Self::receive`] of fragments does it too.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.reassembly.expire(now);
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Timestamp {
        self.reassembly.poll_timeout()
    }

    /// What was counted so far.
    pub const fn counters(&self) -> FlowCounters {
        let fragments = self.reassembly.counters();
        FlowCounters {
            delivered: self.delivered,
            duplicates: self.duplicates + fragments.duplicates,
            too_old: self.too_old,
            expired_partial: fragments.expired + fragments.evicted,
            refused: fragments.refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::fragment::fragments;
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(0);
    const LATER: Timestamp = Timestamp::from_micros(1);

    #[test]
    fn whole_packets_pass_once_without_a_copy() {
        let mut receiver = FlowReceiver::new();
        let payload = Bytes::from_static(b"hello");
        let first = receiver.receive(FlowSeq(7), Fragment::WHOLE, payload.clone(), LATER, NOW);
        assert_eq!(first.map(|out| out.as_ptr()), Some(payload.as_ptr()));
        assert_eq!(
            receiver.receive(FlowSeq(7), Fragment::WHOLE, payload.clone(), LATER, NOW),
            None
        );
        assert_eq!(
            receiver.receive(FlowSeq(9_000), Fragment::WHOLE, payload.clone(), LATER, NOW),
            Some(payload.clone())
        );
        assert_eq!(receiver.receive(FlowSeq(8), Fragment::WHOLE, payload, LATER, NOW), None);
        let expected =
            FlowCounters { delivered: 2, duplicates: 1, too_old: 1, ..FlowCounters::default() };
        assert_eq!(receiver.counters(), expected);
    }

    #[test]
    fn a_fragment_after_its_payload_is_a_duplicate() {
        let mut receiver = FlowReceiver::new();
        let pieces: Vec<_> =
            fragments(Bytes::from(vec![5; 100]), 60).into_iter().flatten().collect();
        for round in 0..2 {
            for (index, (fragment, piece)) in pieces.iter().enumerate() {
                let out = receiver.receive(FlowSeq(0), *fragment, piece.clone(), LATER, NOW);
                assert_eq!(out.is_some(), round == 0 && index == 1);
            }
        }
        assert_eq!(receiver.counters().duplicates, 2);
    }

    proptest! {
        /// A lossy, duplicating, reordering network: what comes out was sent, and only once.
        #[test]
        fn each_payload_at_most_once_and_unchanged(
            lengths in prop::collection::vec(0..3000usize, 1..60),
            picks in prop::collection::vec((any::<prop::sample::Index>(), 0..3u8), 0..400),
        ) {
            let packets: Vec<_> = lengths.iter().enumerate().flat_map(|(seq, &len)| {
                let payload = Bytes::from(vec![seq as u8; len]);
                let pieces = fragments(payload, 1000).into_iter().flatten();
                pieces.map(move |(fragment, piece)| (seq, fragment, piece)).collect::<Vec<_>>()
            }).collect();
            let mut receiver = FlowReceiver::new();
            let mut out = BTreeMap::<usize, usize>::new();
            for (pick, copies) in picks {
                let (seq, fragment, piece) = &packets[pick.index(packets.len())];
                for _ in 0..copies {
                    if let Some(got) = receiver.receive(FlowSeq(*seq as u32), *fragment, piece.clone(), LATER, NOW) {
                        prop_assert_eq!(&got[..], &vec![*seq as u8; lengths[*seq]][..]);
                        *out.entry(*seq).or_default() += 1;
                    }
                }
            }
            prop_assert!(out.values().all(|&times| times == 1));
            prop_assert_eq!(receiver.counters().delivered, out.len() as u64);
        }
    }
}
