//! Loss rate and burst length, quick to see a change and deaf to noise.

use std::time::Duration;

use crate::units::Timestamp;

/// A bucket is closed once it spans this long. Slower traffic gets a bucket per outcome.
const BUCKET: Duration = Duration::from_millis(10);
/// Buckets of one level, each of twice the length of one of the level below, before two are merged.
const PER_LEVEL: usize = 5;
/// With [`PER_LEVEL`] and [`BUCKET`] room for 25 s of fast traffic.
const LEVELS: u8 = 9;

/// What is older than this is forgotten ...
pub const MEMORY: Duration = Duration::from_secs(10);
/// ... unless fewer outcomes than this would be left: a link with one heartbeat a second.
pub const LEAST_OUTCOMES: u32 = 64;

/// How many nats of evidence for "the loss has changed" cut the window.
pub const EVIDENCE: f64 = 12.0;
/// An improvement is believed only once it has lasted this long.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// After a cut the former estimate counts as this many outcomes.
const PRIOR_WEIGHT: f64 = 4.0;
/// So many standard errors above the estimate the loss after a change for the worse may well be.
const CAUTION: f64 = 2.0;
/// The mean burst length is that of about this many bursts.
const BURST_MEMORY: f64 = 32.0;

/// Share of datagrams lost, and the mean length of runs of losses.
///
/// # Design
///
/// The loss is the mean over a window that is as long as the link has been steady, at most 10 s (or
/// 64 outcomes where traffic is slower than that). After each 10 ms the window is searched for a
/// point that parts it into two stretches with different loss; if one is found, the older stretch
/// is forgotten. So noise is averaged away while nothing changes, and a change shows as soon as the
/// outcomes prove it. This is ADWIN (Bifet and Gavaldà, "Learning from time-changing data with
/// adaptive windowing", 2007) on its exponential histogram: at most 45 buckets, newer ones finer.
///
/// Two stretches differ if the generalised likelihood ratio for Bernoulli outcomes,
/// `n0 kl(p0, p) + n1 kl(p1, p)` with the relative entropy `kl` and the pooled loss `p`, exceeds 12
/// nats. Losses in bursts are fewer independent facts than they seem, so it is first divided by the
/// variance inflation of a two-state Markov chain, `(1 + r) / (1 - r)`, where
/// `r = 1 - 1/B - p0 / (B (1 - p0))` is the correlation of neighbours for mean burst length `B` at
/// the older stretch's loss.
///
/// # Statistics
///
/// By chance alone a given cut passes with probability about `exp(-12)` = 6e-6; with some 40 cuts,
/// most of them sharing their data, tested up to a hundred times a second. Measured at 2,000
/// packets/s: no false cut in 8 minutes of independent losses, up to 5 where they come in bursts
/// (the test `the_window_is_seldom_cut_for_nothing`). After one, the estimate is that of the newer
/// stretch for a while. A step from 0 to 30 % gives 1.5 nats a datagram: found after about 10 of
/// them, of which 3 are lost; at 2,000 packets/s by the next 10 ms border. A step from 0 to 2 %
/// takes 200 datagrams. No estimator that errs as rarely can be much quicker: a lone loss on a
/// clean link is no proof of anything. Worsening that the data can prove within 250 ms is seen
/// within 250 ms; improvement is held back until it has lasted a second, and borders there are up
/// to 0.32 s apart, so it is seen within 2 s.
///
/// The first estimate after a change is that of few outcomes: of 20 % it says 11 to 29 % by chance.
/// Who waits for a better one stays on a bad link for some seconds too long, so decisions that can
/// be taken back use [`Self::loss_at_most`], two standard errors more. With it a step from 0 to 20 %
/// is known for more than 15 % after 70 ms, in 999 of 1,000 cases after 240 ms (250 packets/s);
/// without, in one of ten cases after more than 0.2 s and in one of a hundred after 1.2 s.
///
/// Burst lengths are averaged over about 32 bursts however long those take, since they are the
/// link's nature more than its mood, and rare ones must not be forgotten. A burst in progress
/// counts where it is longer than the mean.
///
/// A record costs a few instructions; a border costs a search with four logarithms a bucket, some
/// microseconds.
#[derive(Clone, Debug)]
pub struct LossMeter {
    /// Closed buckets, oldest first, at most `LEVELS * PER_LEVEL`.
    closed: Vec<Bucket>,
    /// The bucket that grows. Counted by the estimate, not by the search.
    open: Bucket,
    /// Sums of `closed`.
    total: Tally,
    /// The estimate before the last cut.
    prior: f64,
    /// The last cut was for more loss.
    worsened: bool,
    runs: Runs,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    outcomes: u32,
    lost: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    level: u8,
    began: Timestamp,
    tally: Tally,
}

/// Lengths of runs of losses.
#[derive(Clone, Debug, Default)]
struct Runs {
    /// Sums over ended runs that decay with each further one.
    count: f64,
    losses: f64,
    /// Length of the run in progress.
    current: u32,
}

impl LossMeter {
    /// A meter that has seen nothing: no loss, bursts of 1.
    pub fn new() -> Self {
        Self {
            closed: Vec::new(),
            open: Bucket::default(),
            total: Tally::default(),
            prior: 0.0,
            worsened: false,
            runs: Runs::default(),
        }
    }

    /// What became of the next transmission, in the order of sending.
    pub fn record(&mut self, arrived: bool, now: Timestamp) {
        if self.open.tally.outcomes > 0 && now.since(self.open.began) >= BUCKET {
            self.close(now);
        }
        if self.open.tally.outcomes == 0 {
            self.open.began = now;
        }
        self.open.tally.count(arrived);
        self.runs.count(arrived);
    }

    /// The share of transmissions lost of late, 0 to 1.
    pub fn loss(&self) -> f32 {
        let seen = self.total.plus(self.open.tally);
        if seen.outcomes == 0 {
            return self.prior as f32;
        }
        let lost = f64::from(seen.lost) + self.prior * PRIOR_WEIGHT;
        (lost / (f64::from(seen.outcomes) + PRIOR_WEIGHT)) as f32
    }

    /// What the loss may be if it has worsened: [`Self::loss`] and two standard errors of it, those of a
    /// Markov chain. They vanish as outcomes come in. Else [`Self::loss`]: no noise on a steady link,
    /// however few outcomes it has.
    pub fn loss_at_most(&self) -> f32 {
        let loss = f64::from(self.loss());
        if !self.worsened {
            return loss as f32;
        }
        let seen = f64::from(self.total.plus(self.open.tally).outcomes) + PRIOR_WEIGHT;
        let inflation = variance_inflation(loss, self.runs.ended_mean());
        let error = (loss * (1.0 - loss) * inflation / seen).sqrt();
        (loss + CAUTION * error).min(1.0) as f32
    }

    /// The mean length of a run of losses, at least 1. Independent losses of probability `p` have
    /// `1 / (1 - p)`.
    pub fn burst(&self) -> f32 {
        self.runs.mean() as f32
    }

    fn close(&mut self, now: Timestamp) {
        let bucket = std::mem::take(&mut self.open);
        self.total = self.total.plus(bucket.tally);
        self.closed.push(bucket);
        self.merge();
        self.forget(now);
        while let Some(cut) = self.find_change(now) {
            self.prior = f64::from(self.loss());
            for old in self.closed.drain(..cut) {
                self.total = self.total.minus(old.tally);
            }
            self.worsened = self.total.loss() > self.prior;
        }
    }

    /// Keeps at most [`PER_LEVEL`] buckets per level by joining the two oldest of a full one.
    fn merge(&mut self) {
        for level in 0..LEVELS {
            let mut of_level = (0..self.closed.len()).filter(|&i| self.closed[i].level == level);
            let oldest = of_level.next();
            if of_level.count() < PER_LEVEL {
                return;
            }
            if let Some(oldest) = oldest {
                let older = self.closed.remove(oldest);
                if level + 1 < LEVELS {
                    let newer = &mut self.closed[oldest];
                    newer.level += 1;
                    newer.began = older.began;
                    newer.tally = newer.tally.plus(older.tally);
                } else {
                    self.total = self.total.minus(older.tally);
                }
            }
        }
    }

    /// Drops what is too old, while enough is left.
    fn forget(&mut self, now: Timestamp) {
        while let [oldest, next, ..] = self.closed[..]
            && now.since(next.began) > MEMORY
            && self.total.minus(oldest.tally).outcomes >= LEAST_OUTCOMES
        {
            self.total = self.total.minus(oldest.tally);
            self.closed.remove(0);
        }
    }

    /// The index of the first bucket after the most evident change, if one is evident enough.
    fn find_change(&self, now: Timestamp) -> Option<usize> {
        let burst = self.runs.ended_mean();
        let mut best = None;
        let mut most = EVIDENCE;
        let mut newer = Tally::default();
        for cut in (1..self.closed.len()).rev() {
            newer = newer.plus(self.closed[cut].tally);
            let older = self.total.minus(newer);
            let improved = newer.loss() < older.loss();
            if improved && now.since(self.closed[cut].began) < PATIENCE {
                continue;
            }
            let inflation = variance_inflation(older.loss(), burst);
            let evidence = likelihood_ratio(older, newer) / inflation;
            if evidence > most {
                most = evidence;
                best = Some(cut);
            }
        }
        best
    }
}

impl Default for LossMeter {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    fn count(&mut self, arrived: bool) {
        self.outcomes = self.outcomes.saturating_add(1);
        self.lost = self.lost.saturating_add(u32::from(!arrived));
    }

    fn plus(self, other: Self) -> Self {
        Self {
            outcomes: self.outcomes.saturating_add(other.outcomes),
            lost: self.lost.saturating_add(other.lost),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            outcomes: self.outcomes.saturating_sub(other.outcomes),
            lost: self.lost.saturating_sub(other.lost),
        }
    }

    fn loss(self) -> f64 {
        f64::from(self.lost) / f64::from(self.outcomes.max(1))
    }
}

impl Runs {
    fn count(&mut self, arrived: bool) {
        if !arrived {
            self.current = self.current.saturating_add(1);
        } else if self.current > 0 {
            let keep = 1.0 - 1.0 / BURST_MEMORY;
            self.count = self.count * keep + 1.0;
            self.losses = self.losses * keep + f64::from(self.current);
            self.current = 0;
        }
    }

    /// Without the run in progress: a link that goes dark is to be seen as such at once, not to be
    /// excused as one long burst.
    fn ended_mean(&self) -> f64 {
        if self.count > 0.0 { self.losses / self.count } else { 1.0 }
    }

    fn mean(&self) -> f64 {
        let current = f64::from(self.current);
        let ended = self.ended_mean();
        if current > ended { (self.losses + current) / (self.count + 1.0) } else { ended }
    }
}

/// By how much more the count of losses of a Gilbert chain varies than that of independent ones.
fn variance_inflation(loss: f64, burst: f64) -> f64 {
    let into_burst = loss / (burst * (1.0 - loss).max(0.01));
    let correlation = (1.0 - 1.0 / burst - into_burst).clamp(0.0, 0.99);
    (1.0 + correlation) / (1.0 - correlation)
}

/// The logarithm of the generalised likelihood ratio of "two loss rates" against "one".
fn likelihood_ratio(older: Tally, newer: Tally) -> f64 {
    let pooled = older.plus(newer).loss();
    [older, newer]
        .iter()
        .map(|part| f64::from(part.outcomes) * divergence(part.loss(), pooled))
        .sum()
}

/// Relative entropy of two Bernoulli distributions in nats; 0 where `q` is 0 or 1, since `p` is
/// pooled into `q`.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| if p > 0.0 && q > 0.0 { p * (p / q).ln() } else { 0.0 };
    term(p, q) + term(1.0 - p, 1.0 - q)
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// A link with a two-state (Gilbert) loss process.
    struct Source {
        random: SmallRng,
        meter: LossMeter,
        now: Timestamp,
        bad: bool,
    }

    impl Source {
        fn new(seed: u64) -> Self {
            let now = Timestamp::from_micros(1_700_000_000_000_000);
            let random = SmallRng::seed_from_u64(seed);
            Self { random, meter: LossMeter::new(), now, bad: false }
        }

        fn one(&mut self, pps: u64, loss: f64, burst: f64) {
            let enter = loss / (burst * (1.0 - loss));
            self.bad = self.random.random_bool(if self.bad { 1.0 - 1.0 / burst } else { enter });
            self.meter.record(!self.bad, self.now);
            self.now = self.now + Duration::from_micros(1_000_000 / pps);
        }

        /// Independent losses for a while.
        fn run(&mut self, pps: u64, loss: f64, millis: u64) {
            (0..pps * millis / 1000).for_each(|_| self.one(pps, loss, 1.0 / (1.0 - loss)));
        }
    }

    #[test]
    fn nothing_seen_is_no_loss() {
        let meter = LossMeter::new();
        assert_eq!((meter.loss(), meter.burst()), (0.0, 1.0));
    }

    #[test]
    fn worsening_is_seen_within_250_ms_and_improvement_within_2_s() {
        for (pps, loss, near) in [
            (100, 0.3, 0.25),
            (500, 0.3, 0.1),
            (2_000, 0.3, 0.1),
            (2_000, 0.1, 0.05),
            (20_000, 0.02, 0.01),
        ] {
            let mut unlucky = 0;
            for seed in 0..50 {
                let mut link = Source::new(seed);
                link.run(pps, 0.0, 20_000);
                assert_eq!(link.meter.loss(), 0.0);
                link.run(pps, loss, 250);
                let early = f64::from(link.meter.loss());
                link.run(pps, loss, 10_000);
                let late = f64::from(link.meter.loss());
                link.run(pps, 0.0, 2_000);
                let after = f64::from(link.meter.loss());
                let good = (early - loss).abs() < near
                    && (late - loss).abs() < near / 2.0
                    && after < loss * 0.15;
                unlucky += u32::from(!good);
            }
            // 25 heartbeats of which 30 % are lost may well lose next to none.
            assert!(unlucky <= if pps > 100 { 1 } else { 5 }, "{pps} pps, {loss}: {unlucky} of 50");
        }
    }

    #[test]
    fn a_step_to_30_percent_shows_after_some_ten_packets() {
        let mut lost = 0;
        for seed in 0..200 {
            let mut link = Source::new(seed);
            link.run(2_000, 0.0, 5_000);
            let mut waits = 0;
            while link.meter.loss() < 0.1 {
                link.one(2_000, 0.3, 1.0 / 0.7);
                lost += u32::from(link.bad);
                waits += 1;
            }
            assert!(waits <= 100, "seed {seed}: {waits} packets");
        }
        assert!(lost < 200 * 10, "{} packets lost on average", f64::from(lost) / 200.0);
    }

    #[test]
    fn what_the_loss_may_be_is_never_said_too_low_for_long_nor_too_high() {
        for (pps, within) in [(250, 300), (1_000, 150)] {
            for seed in 0..100 {
                let mut link = Source::new(seed);
                link.run(pps, 0.0, 10_000);
                assert_eq!(link.meter.loss_at_most(), 0.0);
                let mut most = 0.0_f32;
                for _ in 0..pps * within / 1_000 {
                    link.one(pps, 0.2, 1.25);
                    most = most.max(link.meter.loss_at_most());
                }
                assert!(most > 0.157, "{pps} pps, seed {seed}: {most}");
                link.run(pps, 0.2, 10_000);
                let (loss, at_most) = (link.meter.loss(), link.meter.loss_at_most());
                assert!(at_most - loss < 0.025, "{pps} pps, seed {seed}: {loss} {at_most}");
                link.run(pps, 0.0, 3_000);
                assert_eq!(link.meter.loss_at_most(), link.meter.loss());
            }
        }
    }

    #[test]
    fn a_steady_link_gives_a_steady_estimate() {
        // Estimates further than `bound` from the truth, per minute.
        for (pps, loss, seconds, bound) in [
            (1, 0.1, 3_600, 0.15),
            (100, 0.05, 600, 0.04),
            (2_000, 0.01, 120, 0.008),
            (2_000, 0.3, 120, 0.06),
            (20_000, 0.001, 30, 0.001),
        ] {
            for seed in 0..4 {
                let mut link = Source::new(seed);
                link.run(pps, loss, seconds * 1000 / 4);
                let (mut off, mut checks) = (0, 0);
                for _ in 0..seconds * 10 {
                    link.run(pps.max(10), loss, 100);
                    off += u32::from((f64::from(link.meter.loss()) - loss).abs() > bound);
                    checks += 1;
                }
                assert!(
                    f64::from(off) < 0.01 * f64::from(checks),
                    "{pps} pps, {loss}: off {off} times of {checks}"
                );
            }
        }
    }

    #[test]
    fn the_window_is_seldom_cut_for_nothing() {
        for (pps, loss, burst) in [
            (100, 0.05, 1.0 / 0.95),
            (2_000, 0.01, 1.0 / 0.99),
            (2_000, 0.3, 1.0 / 0.7),
            (2_000, 0.02, 3.0),
            (2_000, 0.02, 10.0),
            (2_000, 0.02, 50.0),
        ] {
            let mut cuts = 0;
            for seed in 0..2 {
                let mut link = Source::new(seed);
                (0..pps * 20).for_each(|_| link.one(pps, loss, burst));
                for _ in 0..pps * 120 {
                    let before = link.meter.prior;
                    link.one(pps, loss, burst);
                    cuts += u32::from(link.meter.prior != before);
                }
            }
            assert!(
                cuts <= 5,
                "{cuts} cuts in 4 minutes at {pps} pps, {loss} in bursts of {burst}"
            );
        }
    }

    #[test]
    fn burst_lengths_are_found() {
        for (pps, loss, burst) in [
            (2_000, 0.02, 1.0 / 0.98),
            (2_000, 0.3, 1.0 / 0.7),
            (5_000, 0.02, 3.0),
            (2_000, 0.05, 25.0),
        ] {
            let (mut bursts, mut losses) = (0.0, 0.0);
            for seed in 0..20 {
                let mut link = Source::new(seed);
                (0..pps * 60).for_each(|_| link.one(pps, loss, burst));
                bursts += f64::from(link.meter.burst()) / 20.0;
                losses += f64::from(link.meter.loss()) / 20.0;
            }
            assert!((bursts / burst - 1.0).abs() < 0.2, "{bursts} for {burst}");
            assert!((losses / loss - 1.0).abs() < 0.5, "{losses} for {loss}");
        }
    }

    #[test]
    fn a_dark_link_loses_everything() {
        let mut link = Source::new(1);
        link.run(2_000, 0.0, 20_000);
        (0..500).for_each(|_| link.one(2_000, 0.999_999, 1e6));
        assert!(link.meter.loss() > 0.9, "{}", link.meter.loss());
        assert!(link.meter.burst() > 100.0);
    }

    #[test]
    fn memory_is_bounded_and_the_sums_agree() {
        for pps in [1, 50, 3_000, 20_000] {
            let mut link = Source::new(pps);
            for step in 0..200 {
                link.run(pps.max(10), f64::from(step % 5) / 10.0, 500);
                let meter = &link.meter;
                assert!(meter.closed.len() <= usize::from(LEVELS) * PER_LEVEL);
                let sum = meter.closed.iter().fold(Tally::default(), |sum, b| sum.plus(b.tally));
                assert_eq!((sum.outcomes, sum.lost), (meter.total.outcomes, meter.total.lost));
                assert!(meter.closed.is_sorted_by_key(|bucket| bucket.began));
                assert!(meter.closed.is_sorted_by(|older, newer| older.level >= newer.level));
            }
        }
    }
}
