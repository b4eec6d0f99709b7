//! What a link sent in the last second: its load, what it was asked for, and how much redundancy it
//! may add.

use std::time::Duration;

use crate::units::Timestamp;

const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_millis(100);
/// Redundant bytes allowed per data byte, averaged over a second. Single groups may exceed it.
const MOST_REDUNDANCY: f64 = 1.5;
/// From this share of refused bytes on the link is overloaded: that is not the burst of a moment.
const OVERLOAD: f64 = 0.05;
/// Nor is a queue that was not empty for so long.
const STANDS: Duration = Duration::from_millis(300);
/// So long after the first overload it is remembered, ...
const FIRST_MEMORY: Duration = Duration::from_secs(10);
/// ... after each further one that soon follows twice as long, ...
const LONGEST_MEMORY: Duration = Duration::from_secs(640);
/// ... where this many times that memory is soon.
const SOON: u32 = 2;
/// Redundant bytes allowed in any second, so that a slow flow's few packets can be saved.
const LEAST_ALLOWANCE: u64 = 32 << 10;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    total: u64,
    data: u64,
    redundant: u64,
    refused: u64,
}

/// More was asked for than could be sent. If that were forgotten once the traffic has gone elsewhere,
/// the link would look free and the traffic come back, again and again; so the memory grows, as the
/// hold of a link that flaps does.
#[derive(Clone, Copy, Debug)]
struct Overload {
    /// The most that was asked for, bits per second.
    demand: u64,
    /// Until then it is remembered, ...
    until: Timestamp,
    /// ... so long after it was last seen.
    memory: Duration,
}

/// The last second in slots.
#[derive(Debug)]
pub(super) struct Traffic {
    slots: [Slot; SLOTS],
    /// When the slot in use began, and which it is.
    since: Timestamp,
    current: usize,
    /// Bytes that wait to be sent, and since when some do.
    waiting: u64,
    waiting_since: Option<Timestamp>,
    overload: Option<Overload>,
}

impl Traffic {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            slots: [Slot::default(); SLOTS],
            since: now,
            current: 0,
            waiting: 0,
            waiting_since: None,
            overload: None,
        }
    }

    /// Moves on to the slot of `now`, when so many bytes wait to be sent.
    pub(super) fn advance(&mut self, waiting: usize, now: Timestamp) {
        self.waiting = waiting as u64;
        self.waiting_since = (waiting > 0).then(|| self.waiting_since.unwrap_or(now));
        let passed = now.since(self.since).as_micros() / SLOT.as_micros();
        if passed > 0 {
            self.judge(now);
        }
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

    /// Bytes expired in the queue, or found no room in it.
    pub(super) fn note_refused(&mut self, bytes: u64) {
        self.slots[self.current].refused += bytes;
    }

    /// Looks whether the last second was an overload.
    fn judge(&mut self, now: Timestamp) {
        let refused: u64 = self.slots.iter().map(|slot| slot.refused).sum();
        let demand = self.asked_bps();
        let stands = self.waiting_since.is_some_and(|since| now.since(since) >= STANDS);
        if !stands && (refused * 8) as f64 <= demand as f64 * OVERLOAD {
            return;
        }
        let (most, memory) = match self.overload {
            Some(last) if now <= last.until => (last.demand.max(demand), last.memory),
            Some(last) if now.since(last.until) <= last.memory * SOON => {
                (demand, (last.memory * 2).min(LONGEST_MEMORY))
            }
            _ => (demand, FIRST_MEMORY),
        };
        self.overload = Some(Overload { demand: most, until: now + memory, memory });
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
        self.bps(|slot| slot.total)
    }

    /// Bits per second that were to be sent: in the last second, or in an overload that is remembered.
    pub(super) fn demand_bps(&self, now: Timestamp) -> u64 {
        let overload = self.overload.filter(|overload| now <= overload.until);
        self.asked_bps().max(overload.map_or(0, |overload| overload.demand))
    }

    /// What waits was to be sent, too: on a slow link it does so for long before any of it is refused.
    fn asked_bps(&self) -> u64 {
        self.bps(|slot| slot.total + slot.refused) + self.waiting * 8
    }

    fn bps(&self, of: fn(&Slot) -> u64) -> u64 {
        self.slots.iter().map(of).sum::<u64>() * 8 * 10 / SLOTS as u64
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
        traffic.advance(0, start + Duration::from_millis(950));
        assert!(!traffic.allows_redundant(1001));
        traffic.advance(0, start + Duration::from_secs(3600));
        assert!(!traffic.allows_redundant(100_000) && traffic.allows_redundant(1001));
    }

    #[test]
    fn load_is_that_of_the_last_second() {
        let start = Timestamp::from_micros(1_000_000);
        let mut traffic = Traffic::new(start);
        for step in 0..30 {
            traffic.advance(0, start + SLOT * step);
            traffic.note_datagram(1000);
        }
        assert_eq!(traffic.load_bps(), 80_000);
    }

    #[test]
    fn what_was_asked_for_in_vain_is_remembered_longer_each_time() {
        let start = Timestamp::from_micros(1_000_000);
        let mut traffic = Traffic::new(start);
        let mut now = start;
        let mut run = |sent: usize, refused, slots: u32| {
            for _ in 0..slots {
                traffic.advance(0, now);
                traffic.note_datagram(sent);
                traffic.note_refused(refused);
                now = now + SLOT;
            }
            traffic.advance(0, now);
            traffic.demand_bps(now)
        };
        assert!((7_200_000..8_100_000).contains(&run(100_000, 1_000, 20)), "a burst of a moment");
        assert_eq!(run(0, 0, 11), 0, "is forgotten");
        for memory in [10, 20, 40] {
            let asked = run(100_000, 100_000, 20);
            assert!((14_000_000..=16_000_000).contains(&asked), "{asked}");
            assert!(run(0, 0, memory * 10 - 1) >= 14_000_000, "still known after {memory} s");
            assert_eq!(run(0, 0, 21), 0, "forgotten after {memory} s");
        }
        run(0, 0, 1_000);
        run(100_000, 100_000, 20);
        assert_eq!(run(0, 0, 120), 0, "long ago: as the first time");
    }

    #[test]
    fn what_waits_is_asked_for_and_a_queue_that_stands_is_an_overload() {
        let start = Timestamp::from_micros(1_000_000);
        for (waiting, slots, remembered) in [(50_000, 3, false), (50_000, 4, true), (0, 4, false)] {
            let mut traffic = Traffic::new(start);
            traffic.advance(waiting, start);
            assert_eq!(traffic.demand_bps(start), waiting as u64 * 8);
            (0..slots).for_each(|slot| traffic.advance(waiting, start + SLOT * slot));
            let later = start + Duration::from_secs(5);
            traffic.advance(0, later);
            assert_eq!(traffic.demand_bps(later) > 0, remembered, "{waiting} for {slots} slots");
        }
    }
}
