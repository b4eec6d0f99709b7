//! When each relay wants to be woken, and which one first.

use tradewind_proto::units::Timestamp;

/// A tournament: the leaves are the relays' times, every node above is the earlier of its two, so
/// that one relay's change costs a few comparisons however many relays there are.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// The root at 1, the children of `n` at `2n` and `2n + 1`, the leaves last.
    earliest: Vec<Timestamp>,
    relays: usize,
}

impl Wakes {
    /// A relay more, which never wants to be woken so far.
    pub(super) fn add(&mut self) {
        if self.relays == self.leaves() {
            let times: Vec<_> = (0..self.relays).map(|relay| self.of(relay)).collect();
            self.earliest = vec![Timestamp::NEVER; 4 * self.relays.max(1)];
            for (relay, at) in times.into_iter().enumerate() {
                self.set(relay, at);
            }
        }
        self.relays += 1;
    }

    /// A relay wants to be woken at `at`.
    pub(super) fn set(&mut self, relay: usize, at: Timestamp) {
        let mut node = self.leaves() + relay;
        self.earliest[node] = at;
        while node > 1 {
            node /= 2;
            let earlier = self.earliest[2 * node].min(self.earliest[2 * node + 1]);
            if std::mem::replace(&mut self.earliest[node], earlier) == earlier {
                break;
            }
        }
    }

    /// The earliest time and whose it is, of several the first relay's.
    pub(super) fn first(&self) -> (Timestamp, usize) {
        let Some(&at) = self.earliest.get(1) else { return (Timestamp::NEVER, 0) };
        let mut node = 1;
        while node < self.leaves() {
            node = if self.earliest[2 * node] == at { 2 * node } else { 2 * node + 1 };
        }
        (at, node - self.leaves())
    }

    fn of(&self, relay: usize) -> Timestamp {
        self.earliest[self.leaves() + relay]
    }

    fn leaves(&self) -> usize {
        self.earliest.len() / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_is_the_earliest(changes in prop::collection::vec((0..20usize, 0..9u64), 1..100)) {
            let mut wakes = Wakes::default();
            prop_assert_eq!(wakes.first(), (Timestamp::NEVER, 0));
            let mut plain: Vec<Timestamp> = Vec::new();
            for (relay, at) in changes {
                while plain.len() <= relay {
                    plain.push(Timestamp::NEVER);
                    wakes.add();
                }
                let at = if at == 0 { Timestamp::NEVER } else { Timestamp::from_micros(at) };
                plain[relay] = at;
                wakes.set(relay, at);
                let wanted = plain.iter().enumerate().map(|(relay, &at)| (at, relay)).min();
                prop_assert_eq!(Some(wakes.first()), wanted);
            }
        }
    }
}
