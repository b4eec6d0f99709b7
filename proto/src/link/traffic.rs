//! What a link sent in the last second: its load, and how much redundancy it may add.

use std::time::Duration;

use crate::units::Timestamp;

const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_millis(100);
/// Redundant bytes allowed per data byte, averaged over a second. Single groups may exceed it.
const MOST_REDUNDANCY: f64 = 1.5;
/// Redundant bytes allowed in any second, so that a slow flow's few packets can be saved.
const LEAST_ALLOWANCE: u64 = 32 << 10;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    total: u64,
    data: u64,
    redundant: u64,
}

/// The last second in slots.
#[derive(Debug)]
pub(super) struct Traffic {
    slots: [Slot; SLOTS],
    /// When the slot in use began, and which it is.
    since: Timestamp,
    current: usize,
}

impl Traffic {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { slots: [Slot::default(); SLOTS], since: now, current: 0 }
    }

    /// Moves on to the slot of `now`.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let passed = now.since(self.since).as_micros() / SLOT.as_micros();
        for _ in 0..passed.min(SLOTS as u128) {
            self.current = (self.current + 1) % SLOTS;
            self.slots[self.current] = Slot::default();
        }
        self.since = self.since + SLOT * u32::try_from(passed).unwrap_or(u32::MAX);
    }

    /// A datagram was sent.
    pub(super) fn note_datagram(&mut self, bytes: usize) {
        self.slots[self.current].total += bytes as u64;
    }

    /// A packet was sent for the first time.
    pub(super) fn note_data(&mut self, bytes: usize) {
        self.slots[self.current].data += bytes as u64;
    }

    /// A repeat or parity was sent.
    pub(super) fn note_redundant(&mut self, bytes: usize) {
        self.slots[self.current].redundant += bytes as u64;
    }

    /// Whether so many bytes of repair are within the limit.
    pub(super) fn allows_redundant(&self, bytes: usize) -> bool {
        let (data, redundant) = self.sums();
        let allowed = LEAST_ALLOWANCE.max((data as f64 * MOST_REDUNDANCY) as u64);
        redundant + bytes as u64 <= allowed
    }

    /// Redundant bytes per data byte over the last second.
    pub(super) fn redundancy(&self) -> f32 {
        let (data, redundant) = self.sums();
        if data == 0 { 0.0 } else { redundant as f32 / data as f32 }
    }

    /// Bytes of data and of redundancy.
    fn sums(&self) -> (u64, u64) {
        let sum = |of: fn(&Slot) -> u64| self.slots.iter().map(of).sum();
        (sum(|slot| slot.data), sum(|slot| slot.redundant))
    }

    /// Bits per second over the last second.
    pub(super) fn load_bps(&self) -> u64 {
        let bytes: u64 = self.slots.iter().map(|slot| slot.total).sum();
        bytes * 8 * 10 / SLOTS as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancy_is_limited_and_the_limit_moves_with_the_data() {
        let start = Timestamp::from_micros(1_000_000);
        let mut traffic = Traffic::new(start);
        assert!(traffic.allows_redundant(32 << 10) && !traffic.allows_redundant((32 << 10) + 1));
        traffic.note_data(100_000);
        traffic.note_redundant(149_000);
        assert_eq!(traffic.redundancy(), 1.49);
        assert!(traffic.allows_redundant(1000) && !traffic.allows_redundant(1001));
        traffic.advance(start + Duration::from_millis(950));
        assert!(!traffic.allows_redundant(1001));
        traffic.advance(start + Duration::from_secs(3600));
        assert!(!traffic.allows_redundant(100_000) && traffic.allows_redundant(1001));
    }

    #[test]
    fn load_is_that_of_the_last_second() {
        let start = Timestamp::from_micros(1_000_000);
        let mut traffic = Traffic::new(start);
        for step in 0..30 {
            traffic.advance(start + SLOT * step);
            traffic.note_datagram(1000);
        }
        assert_eq!(traffic.load_bps(), 80_000);
    }
}
