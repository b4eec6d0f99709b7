//! Which packets of a flow were handed out already.
//!
//! Copies come from redundancy, salvage and repair. Only whole packets are numbered here;
//! fragments that come twice are the business of [`super::reassembly`].

use crate::units::FlowSeq;

/// Bits per word of the map.
const WORD: u32 = u64::BITS;
/// Words of the largest map: 8,192 packets in 1 KiB, 400 ms at 20,000 packets/s.
const MOST_WORDS: u32 = 128;
/// Word numbers have 26 bits.
const WORD_MASK: u32 = u32::MAX / WORD;

/// What the window knows of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen before.
    New,
    /// Seen before.
    Duplicate,
    /// So far behind the newest that it is not known; to be treated as seen.
    TooOld,
}

/// A sliding window over the numbers of one direction of one flow: the ring of words of RFC 6479,
/// on wrapping numbers.
///
/// It reaches 8,128 to 8,191 numbers back from the newest. Memory follows what was seen, up to 1 KiB:
/// a flow of three packets costs eight bytes on the heap.
#[derive(Clone, Debug, Default)]
pub struct DuplicateWindow {
    /// Word `w` stands in slot `w % len`. The length is a power of two, so the ring has no seam
    /// where numbers wrap. Empty before the first packet.
    ring: Vec<u64>,
    newest: FlowSeq,
    /// How many words, counted back from that of the newest, are in the ring; at most its length.
    /// Nothing older was seen unless this is [`MOST_WORDS`].
    span: u32,
}

impl DuplicateWindow {
    /// A window that has seen nothing; allocates nothing.
    pub const fn new() -> Self {
        Self { ring: Vec::new(), newest: FlowSeq(0), span: 0 }
    }

    /// What is known of `seq`, without noting it.
    pub fn check(&self, seq: FlowSeq) -> Verdict {
        if self.ring.is_empty() || seq.is_after(self.newest) {
            return Verdict::New;
        }
        match words_between(seq, self.newest) {
            MOST_WORDS.. => Verdict::TooOld,
            behind if behind >= self.span => Verdict::New,
            _ if self.ring[self.slot(word_of(seq))] & bit_of(seq) != 0 => Verdict::Duplicate,
            _ => Verdict::New,
        }
    }

    /// Notes `seq` and says what was known of it before.
    pub fn accept(&mut self, seq: FlowSeq) -> Verdict {
        let verdict = self.check(seq);
        if verdict != Verdict::New {
            return verdict;
        }
        if self.ring.is_empty() {
            self.newest = seq;
        }
        if seq.is_after(self.newest) {
            self.advance(seq);
        } else {
            self.reach(words_between(seq, self.newest) + 1);
        }
        let slot = self.slot(word_of(seq));
        self.ring[slot] |= bit_of(seq);
        Verdict::New
    }

    /// Moves on to a newer number: opens the words up to its own.
    fn advance(&mut self, seq: FlowSeq) {
        let steps = words_between(self.newest, seq);
        if steps >= MOST_WORDS {
            // All that was known is too old by now.
            self.ring.fill(0);
            self.span = 1;
        } else {
            // Before the newest moves: growing reads the old positions.
            let span = (self.span + steps).min(MOST_WORDS);
            self.grow(span);
            for step in 1..=steps {
                let slot = self.slot(word_of(self.newest).wrapping_add(step));
                self.ring[slot] = 0;
            }
            self.span = span;
        }
        self.newest = seq;
    }

    /// Takes older words in, none of which was seen so far.
    fn reach(&mut self, span: u32) {
        if span > self.span {
            self.grow(span);
            self.span = span;
        }
    }

    /// Makes the ring at least `words` long.
    fn grow(&mut self, words: u32) {
        let len = words.next_power_of_two() as usize;
        if len <= self.ring.len() {
            return;
        }
        let mut grown = vec![0; len];
        for back in 0..self.span {
            let word = word_of(self.newest).wrapping_sub(back);
            grown[word as usize % len] = self.ring[self.slot(word)];
        }
        self.ring = grown;
    }

    fn slot(&self, word: u32) -> usize {
        word as usize % self.ring.len()
    }
}

const fn word_of(seq: FlowSeq) -> u32 {
    seq.0 / WORD
}

const fn bit_of(seq: FlowSeq) -> u64 {
    1 << (seq.0 % WORD)
}

/// By how many words `newer` lies ahead of `older`.
const fn words_between(older: FlowSeq, newer: FlowSeq) -> u32 {
    word_of(newer).wrapping_sub(word_of(older)) & WORD_MASK
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn copies_are_seen_and_old_numbers_refused() {
        let mut window = DuplicateWindow::new();
        let start = u32::MAX - 3000; // wraps on the way
        for at in 0..10_000 {
            let seq = FlowSeq(start.wrapping_add(at));
            assert_eq!(window.accept(seq), Verdict::New, "{at}");
            assert_eq!(window.accept(seq), Verdict::Duplicate, "{at}");
        }
        for (back, verdict) in
            [(0, Verdict::Duplicate), (8127, Verdict::Duplicate), (8192, Verdict::TooOld)]
        {
            let seq = FlowSeq(start.wrapping_add(9_999 - back));
            assert_eq!(window.check(seq), verdict, "{back} back");
        }
    }

    #[test]
    fn what_came_before_the_first_is_new() {
        let mut window = DuplicateWindow::new();
        assert_eq!(window.accept(FlowSeq(2000)), Verdict::New);
        for seq in (0..2000).rev() {
            assert_eq!(window.accept(FlowSeq(seq)), Verdict::New, "{seq}");
        }
        assert_eq!(window.accept(FlowSeq(0)), Verdict::Duplicate);
    }

    #[test]
    fn a_small_flow_is_small_and_a_long_one_bounded() {
        let mut window = DuplicateWindow::new();
        assert_eq!(window.ring.capacity(), 0);
        (0..3).for_each(|seq| {
            window.accept(FlowSeq(seq));
        });
        assert_eq!(window.ring.len(), 1);
        (0..100_000).for_each(|seq| {
            window.accept(FlowSeq(seq * 3));
        });
        assert_eq!(window.ring.len(), MOST_WORDS as usize);
    }

    proptest! {
        /// Against a plain set: no number is new twice, none within reach is refused.
        #[test]
        fn agrees_with_a_set(
            start in any::<u32>(), moves in prop::collection::vec((-300i64..400, 0..40u32), 1..400),
            jump in 0..20_000i64, jump_at in 0..400usize,
        ) {
            let mut window = DuplicateWindow::new();
            let mut seen = BTreeSet::new();
            let (mut position, mut newest) = (0i64, i64::MIN);
            for (step, &(by, scale)) in moves.iter().enumerate() {
                position += by * i64::from(scale) / 8 + if step == jump_at { jump } else { 0 };
                let seq = FlowSeq(start.wrapping_add(position as u32));
                let checked = window.check(seq);
                let verdict = window.accept(seq);
                prop_assert_eq!(checked, verdict);
                newest = newest.max(position);
                match verdict {
                    Verdict::New => prop_assert!(seen.insert(position)),
                    Verdict::Duplicate => prop_assert!(seen.contains(&position)),
                    Verdict::TooOld => prop_assert!(newest - position > 8127),
                }
                prop_assert!(verdict == Verdict::TooOld || newest - position < 8192);
            }
        }
    }
}
