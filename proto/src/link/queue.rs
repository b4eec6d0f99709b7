//! What waits for the pacer: a short queue per class, whose packets leave in time or not at all.
//!
//! QUIC's own datagram queue knows no deadline and holds seconds of traffic at low rates; this one
//! holds about 100 ms at the link's rate. It neither measures time nor paces.

use std::collections::VecDeque;

use crate::units::{Class, Timestamp};

/// The most bytes that wait per class: this many milliseconds at the link's rate, but ...
const MILLIS: u64 = 100;
/// ... no less than a large video frame's worth, which expiry takes care of on a slow link, ...
const LEAST_BYTES: u64 = 64 << 10;
/// ... and no more than this.
const MOST_BYTES: u64 = 4 << 20;
/// The most packets that wait per class.
const MOST_PACKETS: usize = 8192;
/// The rate of a link that has measured nothing yet, bits per second.
const START_RATE: u64 = 20_000_000;

/// A bounded first-in-first-out queue per class.
///
/// When a class is full the *new* packet is refused: its sender learns of it at once and can count
/// it. What has become useless leaves from the front by its deadline, so the queue does not fill
/// with the dead.
#[derive(Clone, Debug)]
pub struct ClassQueue<T> {
    lanes: [Lane<T>; 3],
    most_bytes: usize,
}

#[derive(Clone, Debug)]
struct Lane<T> {
    waiting: VecDeque<Waiting<T>>,
    bytes: usize,
    expired: Expired,
}

/// What was dropped because it could not be sent in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Clone, Debug)]
struct Waiting<T> {
    bytes: usize,
    send_by: Timestamp,
    item: T,
}

impl<T> ClassQueue<T> {
    /// An empty queue for a link of 20 Mbit/s.
    pub fn new() -> Self {
        let mut queue = Self { lanes: std::array::from_fn(|_| Lane::new()), most_bytes: 0 };
        queue.set_rate(START_RATE);
        queue
    }

    /// Sets the limit to 100 ms at this rate, within 64 KiB and 4 MiB per class. What waits already
    /// stays.
    pub fn set_rate(&mut self, rate_bps: u64) {
        let bytes = (rate_bps / 8).saturating_mul(MILLIS) / 1000;
        self.most_bytes = bytes.clamp(LEAST_BYTES, MOST_BYTES) as usize;
    }

    /// Appends an item of `bytes` bytes that is useless unless sent by `send_by`. A full class gives
    /// it back.
    pub fn push(
        &mut self,
        class: Class,
        bytes: usize,
        send_by: Timestamp,
        item: T,
    ) -> Result<(), T> {
        let most_bytes = self.most_bytes;
        let lane = &mut self.lanes[class as usize];
        let full = lane.bytes.saturating_add(bytes) > most_bytes && !lane.waiting.is_empty();
        if full || lane.waiting.len() >= MOST_PACKETS {
            return Err(item);
        }
        lane.bytes += bytes;
        lane.waiting.push_back(Waiting { bytes, send_by, item });
        Ok(())
    }

    /// The next item of a class that can still be sent in time. Those before it that can't are
    /// dropped.
    pub fn pop(&mut self, class: Class, now: Timestamp) -> Option<T> {
        let lane = &mut self.lanes[class as usize];
        lane.drop_expired(now);
        lane.take().map(|next| next.item)
    }

    /// The size of what [`Self::pop`] would give now. Drops what it would drop.
    pub fn peek_bytes(&mut self, class: Class, now: Timestamp) -> Option<usize> {
        let lane = &mut self.lanes[class as usize];
        lane.drop_expired(now);
        lane.waiting.front().map(|next| next.bytes)
    }

    /// What of a class was dropped for its deadline since this was last asked.
    pub fn expired(&mut self, class: Class) -> Expired {
        std::mem::take(&mut self.lanes[class as usize].expired)
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.waiting.is_empty())
    }

    /// Empties the queue, the most urgent class first, whether in time or not.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.lanes.iter_mut().flat_map(|lane| {
            lane.bytes = 0;
            lane.waiting.drain(..).map(|waiting| waiting.item)
        })
    }
}

impl<T> Lane<T> {
    const fn new() -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, expired: Expired { packets: 0, bytes: 0 } }
    }

    /// Only from the front: each item is looked at once more than it is sent.
    fn drop_expired(&mut self, now: Timestamp) {
        while self.waiting.front().is_some_and(|next| next.send_by < now) {
            let bytes = self.take().map_or(0, |late| late.bytes as u64);
            self.expired.packets += 1;
            self.expired.bytes += bytes;
        }
    }

    fn take(&mut self) -> Option<Waiting<T>> {
        let next = self.waiting.pop_front()?;
        self.bytes -= next.bytes;
        Some(next)
    }
}

impl<T> Default for ClassQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_micros(ms * 1000)
    }

    /// The most urgent item.
    fn pop<T>(queue: &mut ClassQueue<T>, now: Timestamp) -> Option<T> {
        Class::ALL.into_iter().find_map(|class| queue.pop(class, now))
    }

    #[test]
    fn each_class_keeps_its_order() {
        let mut queue = ClassQueue::new();
        for (class, item) in
            [(Class::Bulk, 1), (Class::Video, 2), (Class::Audio, 3), (Class::Video, 4)]
        {
            assert_eq!(queue.push(class, 100 + item, at(10), item), Ok(()));
        }
        assert_eq!((queue.len(), queue.bytes()), (4, 410));
        assert_eq!(queue.peek_bytes(Class::Video, at(0)), Some(102));
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, at(0))).collect();
        assert_eq!(order, [3, 2, 4, 1]);
        assert!(queue.is_empty());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn what_is_too_late_is_dropped_and_counted() {
        let mut queue = ClassQueue::new();
        for (send_by, item) in [(10, 'a'), (20, 'b'), (15, 'c'), (30, 'd')] {
            assert_eq!(queue.push(Class::Video, 100, at(send_by), item), Ok(()));
        }
        assert_eq!(pop(&mut queue, at(10)), Some('a'));
        assert_eq!(queue.peek_bytes(Class::Video, at(21)), Some(100));
        assert_eq!(pop(&mut queue, at(21)), Some('d'));
        assert_eq!(
            [Class::Audio, Class::Video, Class::Video].map(|of| queue.expired(of)),
            [(0, 0), (2, 200), (0, 0)].map(|(packets, bytes)| Expired { packets, bytes })
        );
    }

    #[test]
    fn a_full_class_refuses_and_the_others_do_not() {
        let mut queue = ClassQueue::new();
        let mut taken = 0;
        while queue.push(Class::Bulk, 1250, at(1000), ()).is_ok() {
            taken += 1;
        }
        // 100 ms at 20 Mbit/s.
        assert_eq!(taken, 200);
        assert_eq!(queue.push(Class::Audio, 160, at(1000), ()), Ok(()));
        queue.set_rate(40_000_000);
        assert_eq!(queue.push(Class::Bulk, 1250, at(1000), ()), Ok(()));
        assert_eq!(queue.drain().count(), 202);
        assert_eq!((queue.bytes(), queue.len()), (0, 0));
    }

    #[test]
    fn small_packets_are_bounded_by_number() {
        let mut queue = ClassQueue::new();
        let taken = (0..10_000).filter(|_| queue.push(Class::Audio, 1, at(1), ()).is_ok()).count();
        assert_eq!(taken, MOST_PACKETS);
    }

    proptest! {
        #[test]
        fn everything_leaves_once_and_a_class_keeps_its_order(
            steps in prop::collection::vec((0..3usize, 1..60_000usize, 0..50u64, 0..3u8), 1..300)
        ) {
            let mut queue = ClassQueue::new();
            let (mut pushed, mut expired, mut left) = (0, 0, Vec::new());
            for (now, &(class, bytes, patience, pops)) in steps.iter().enumerate() {
                let now = now as u64;
                let pushes = queue.push(Class::ALL[class], bytes, at(now + patience), (class, now, patience));
                pushed += u64::from(pushes.is_ok());
                for _ in 0..pops {
                    let size = Class::ALL.into_iter().find_map(|of| queue.peek_bytes(of, at(now)));
                    let Some((class, since, patience)) = pop(&mut queue, at(now)) else { break };
                    prop_assert!(now <= since + patience);
                    prop_assert_eq!(size, Some(steps[since as usize].1));
                    left.push((class, since));
                }
                expired += Class::ALL.into_iter().map(|of| queue.expired(of).packets).sum::<u64>();
                let bytes: usize = queue.lanes.iter().flat_map(|l| &l.waiting).map(|w| w.bytes).sum();
                prop_assert_eq!(queue.bytes(), bytes);
            }
            prop_assert_eq!(pushed, expired + left.len() as u64 + queue.len() as u64);
            for class in 0..3 {
                prop_assert!(left.iter().filter(|(of, _)| *of == class).is_sorted());
            }
        }
    }
}
