//! How long packets were under way, as a histogram that is small and can be added to others.

use std::time::Duration;

/// A histogram of delays: whole microseconds up to 1 ms, and above 512 buckets for every doubling,
/// so that what is read off is at most 0.1 % wrong. Only the buckets between the least and the
/// largest delay are kept, as ten thousand flows have one each; hdrhistogram's layout otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// The number of the first bucket kept.
    first: usize,
    counts: Vec<u32>,
    count: u64,
    most: Duration,
}

/// Buckets for every doubling.
const STEPS: usize = 512;
/// Delays beyond 71 minutes count as so long; at most 12,288 buckets.
const MAX_MICROS: u64 = u32::MAX as u64;

fn bucket_of(delay: Duration) -> usize {
    let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX).min(MAX_MICROS);
    let shift = (micros.max(1).ilog2() as usize).saturating_sub(STEPS.ilog2() as usize);
    shift * STEPS + (micros >> shift) as usize
}

/// The middle of a bucket.
fn middle_of(bucket: usize) -> Duration {
    let shift = (bucket / STEPS).saturating_sub(1);
    let least = (bucket - shift * STEPS) << shift;
    Duration::from_micros((least + (1 << shift) / 2) as u64)
}

impl Delays {
    /// A packet was so long under way.
    pub fn record(&mut self, delay: Duration) {
        self.record_many(delay, 1);
    }

    /// So many packets were so long under way.
    pub fn record_many(&mut self, delay: Duration, packets: u32) {
        if packets > 0 {
            self.add(bucket_of(delay), packets);
            self.most = self.most.max(delay);
        }
    }

    /// All that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        // The far end first: one growth instead of many.
        for (at, &packets) in other.counts.iter().enumerate().rev().filter(|(_, n)| **n > 0) {
            self.add(other.first + at, packets);
        }
        self.most = self.most.max(other.most);
    }

    /// What was recorded since `earlier`, an earlier state of this; the most is read off the buckets.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = Self::default();
        for (at, &packets) in self.counts.iter().enumerate().rev() {
            let bucket = self.first + at;
            let before = bucket.checked_sub(earlier.first).and_then(|at| earlier.counts.get(at));
            let packets = packets - before.copied().unwrap_or(0).min(packets);
            if packets > 0 {
                since.add(bucket, packets);
                since.most = since.most.max(middle_of(bucket)).min(self.most);
            }
        }
        since
    }

    fn add(&mut self, bucket: usize, packets: u32) {
        if self.counts.is_empty() {
            self.first = bucket;
        } else if bucket < self.first {
            let more = self.first - bucket;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.first = bucket;
        }
        let at = bucket - self.first;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] = self.counts[at].saturating_add(packets);
        self.count += u64::from(packets);
    }

    /// How many packets.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The delay that the share `q` of the packets, 0 to 1, did not exceed; `None` without packets.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let wanted = ((q * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut passed = 0;
        let found = self.buckets().find(|(_, packets)| {
            passed += packets;
            passed >= wanted
        });
        found.map(|(delay, _)| delay.min(self.most))
    }

    /// The longest delay; `None` without packets.
    pub fn max(&self) -> Option<Duration> {
        (self.count > 0).then_some(self.most)
    }

    /// Delays, shortest first, and how many packets had them.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let filled = self.counts.iter().enumerate().filter(|(_, packets)| **packets > 0);
        filled.map(|(at, &packets)| (middle_of(self.first + at), u64::from(packets)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delays(micros: &[u64]) -> Delays {
        let mut delays = Delays::default();
        micros.iter().for_each(|&micros| delays.record(Duration::from_micros(micros)));
        delays
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_thousandth(
            mut micros in prop::collection::vec(0..100_000_000u64, 1..200), q in 0.0..=1.0f64,
        ) {
            let got = delays(&micros);
            micros.sort_unstable();
            let rank = ((q * micros.len() as f64).ceil() as usize).clamp(1, micros.len());
            let exact = micros[rank - 1] as f64;
            let read = got.quantile(q).unwrap().as_micros() as f64;
            prop_assert!((read - exact).abs() <= exact / 1000.0, "{read} for {exact}");
            prop_assert_eq!(got.max(), micros.last().copied().map(Duration::from_micros));
        }

        #[test]
        fn merging_is_as_if_all_had_been_recorded_in_one(
            a in prop::collection::vec(0..10_000_000u64, 0..50),
            b in prop::collection::vec(0..10_000_000u64, 0..50),
        ) {
            let mut merged = delays(&a);
            merged.merge(&delays(&b));
            let whole = delays(&[a.clone(), b.clone()].concat());
            prop_assert_eq!(merged.count(), whole.count());
            prop_assert!(merged.buckets().eq(whole.buckets()));
            prop_assert_eq!(merged.max(), whole.max());
            let since = merged.since(&delays(&a));
            prop_assert_eq!(since.count(), delays(&b).count());
            prop_assert!(since.buckets().eq(delays(&b).buckets()));
        }
    }

    #[test]
    fn nothing_has_no_quantiles_and_what_never_ends_is_bounded() {
        assert_eq!((Delays::default().quantile(0.5), Delays::default().max()), (None, None));
        let endless = delays(&[u64::MAX, 0]);
        assert!(endless.counts.len() <= 24 * STEPS);
    }
}
