//! When the next datagram may leave: a token bucket.
//!
//! It spreads what a link sends in time, so that a burst from the application does not become a
//! burst in somebody's queue. The rate comes from [`super::rate`].

use std::time::Duration;

use crate::units::Timestamp;

/// Credit that may gather while nothing is sent: what the rate sends in this time, since a burst is
/// a queue of that length at the bottleneck, ...
const BURST_MICROS: u64 = 5_000;
/// ... but no more than one GSO batch of quinn's, ...
const BATCH_BYTES: u64 = 10 * 1500;
/// ... except where that is less than this time: a timer that comes a little late costs no
/// throughput. And a datagram, however low the rate.
const LATE_MICROS: u64 = 2_000;
const DATAGRAM_BYTES: u64 = 1500;
/// So that credit fits its type with room to spare: 1 Tbit/s.
const MAX_RATE: u64 = 1_000_000_000_000;
/// So that a wait ends.
const MIN_RATE: u64 = 1_000;
/// Credit is kept in millionths of a bit, which is what one bit/s earns in a microsecond: every
/// sum is exact, so the rate does not drift.
const BIT: i64 = 1_000_000;

/// A token bucket. It may be overdrawn by one datagram: there is credit as long as it is positive.
#[derive(Clone, Debug)]
pub struct Pacer {
    rate_bps: u64,
    /// Millionths of a bit, right at `updated`.
    credit: i64,
    updated: Timestamp,
}

impl Pacer {
    /// A pacer with a full bucket.
    pub fn new(rate_bps: u64, now: Timestamp) -> Self {
        let mut pacer =
            Self { rate_bps: rate_bps.clamp(MIN_RATE, MAX_RATE), credit: 0, updated: now };
        pacer.credit = pacer.burst();
        pacer
    }

    /// Changes the rate from now on. Credit stays, cut to what the new rate may gather.
    pub fn set_rate(&mut self, rate_bps: u64, now: Timestamp) {
        self.credit = self.credit_at(now);
        self.updated = self.updated.max(now);
        self.rate_bps = rate_bps.clamp(MIN_RATE, MAX_RATE);
        self.credit = self.credit.min(self.burst());
    }

    /// When the next datagram may leave: `now` if there is credit.
    pub fn ready_at(&self, now: Timestamp) -> Timestamp {
        let credit = self.credit_at(now);
        if credit > 0 {
            return now;
        }
        let wait = credit.unsigned_abs() / self.rate_bps + 1;
        now + Duration::from_micros(wait)
    }

    /// A datagram of that many bytes left.
    pub fn spend(&mut self, bytes: usize, now: Timestamp) {
        let cost = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(8 * BIT);
        self.credit = self.credit_at(now).saturating_sub(cost);
        self.updated = self.updated.max(now);
    }

    fn credit_at(&self, now: Timestamp) -> i64 {
        let elapsed = u64::try_from(now.since(self.updated).as_micros()).unwrap_or(u64::MAX);
        let earned = i64::try_from(elapsed.saturating_mul(self.rate_bps)).unwrap_or(i64::MAX);
        self.credit.saturating_add(earned).min(self.burst())
    }

    fn burst(&self) -> i64 {
        let of = |micros| self.rate_bps / 1000 * micros / 1000;
        let bits =
            of(BURST_MICROS).min(BATCH_BYTES * 8).max(of(LATE_MICROS)).max(DATAGRAM_BYTES * 8);
        bits as i64 * BIT
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    /// Sends all that the pacer allows for `span` and returns the bytes.
    fn send_for(pacer: &mut Pacer, from: Timestamp, span: Duration, bytes: usize) -> u64 {
        let (mut now, mut sent) = (from, 0);
        loop {
            now = pacer.ready_at(now);
            if now.since(from) >= span {
                return sent;
            }
            pacer.spend(bytes, now);
            sent += bytes as u64;
        }
    }

    #[test]
    fn five_milliseconds_go_at_once_then_the_rate_holds() {
        let mut pacer = Pacer::new(12_000_000, START);
        for _ in 0..5 {
            assert_eq!(pacer.ready_at(START), START);
            pacer.spend(1500, START);
        }
        // The bucket is empty, not overdrawn: the first moment with credit.
        assert_eq!(pacer.ready_at(START), START + Duration::from_micros(1));
        pacer.spend(1500, START);
        assert_eq!(pacer.ready_at(START), START + Duration::from_micros(1001));
    }

    #[test]
    fn the_burst_grows_with_the_rate() {
        let mut pacer = Pacer::new(1_000_000_000, START);
        let mut at_once = 0;
        while pacer.ready_at(START) == START {
            pacer.spend(1250, START);
            at_once += 1250;
        }
        assert_eq!(at_once, 250_000); // 2 ms of 1 Gbit/s
    }

    #[test]
    fn a_new_rate_holds_from_then_on() {
        let mut pacer = Pacer::new(1_000_000_000, START);
        pacer.set_rate(8_000_000, START);
        let sent = send_for(&mut pacer, START, Duration::from_secs(1), 1000);
        assert!((1_000_000..=1_000_000 + BATCH_BYTES + 1000).contains(&sent), "{sent}");
    }

    proptest! {
        #[test]
        fn over_long_spans_the_rate_is_exact(rate in 100_000u64..200_000_000, bytes in 50usize..1500) {
            let mut pacer = Pacer::new(rate, START);
            let span = Duration::from_secs(2);
            let sent = send_for(&mut pacer, START, span, bytes);
            let due = rate * 2 / 8;
            let burst = BATCH_BYTES.max(rate / 8 / 500);
            prop_assert!(sent + 2 * bytes as u64 >= due, "{} of {}", sent, due);
            prop_assert!(sent <= due + burst + 2 * bytes as u64, "{} of {}", sent, due);
        }

        #[test]
        fn whatever_is_asked_the_answer_is_not_in_the_past(
            rate in any::<u64>(), at in any::<u64>(), bytes in any::<usize>(), later in any::<u64>()
        ) {
            let mut pacer = Pacer::new(rate, Timestamp::from_micros(at));
            pacer.spend(bytes, Timestamp::from_micros(later));
            pacer.set_rate(!rate, Timestamp::from_micros(at));
            let now = Timestamp::from_micros(later);
            prop_assert!(pacer.ready_at(now) >= now);
        }
    }
}
