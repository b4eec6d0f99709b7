//! What becomes of the packets of a flow on their way: over one path, or two at once.

use std::time::Duration;

use tradewind_proto::link::LONGEST_OPEN;

use super::repair::{Losses, Rounds};

/// Shares below this are left out.
const NEGLIGIBLE: f64 = 1e-8;
/// Delays that differ by less are one.
const ALIKE: f64 = 100e-6;
/// Points that stand for a normal distribution.
const POINTS: usize = 24;

/// When packets arrive that are sent now, and how many.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delivery {
    /// Delay in seconds, shortest first, and the share of packets.
    pub(super) arrivals: Vec<(f64, f64)>,
    /// Standard deviation of all of them, in seconds.
    pub(super) sigma: f64,
    /// Shards offered for each packet, link by link.
    pub(super) shards: Vec<f64>,
}

/// One link of the way.
pub(super) struct Hop {
    /// From one end to the other, in seconds.
    pub(super) delay: f64,
    pub(super) sigma: f64,
    pub(super) losses: Losses,
    /// What the sender reckons for its own way and for one round of repair, in seconds.
    pub(super) expected: f64,
    pub(super) round_expected: f64,
    /// What a round really takes.
    pub(super) round: f64,
    /// What the sender keeps for the rest of the path.
    pub(super) reserved: f64,
    /// Packets of the same class per second.
    pub(super) lane: f64,
    /// Share of packets that leave, and whether they wait for that as long as they may.
    pub(super) served: f64,
}

impl Hop {
    /// How often a packet with so much time can be helped, its first sending included.
    fn chances(&self, budget: f64) -> usize {
        let slack = budget - self.reserved - self.expected;
        if slack < 0.0 { 0 } else { 1 + (slack / self.round_expected).min(1000.0) as usize }
    }

    /// Packets that share a group.
    fn group(&self, slack: f64, chances: usize) -> usize {
        let longest = LONGEST_OPEN.as_secs_f64();
        let wait = if chances > 1 { longest } else { (slack * 0.75).clamp(0.0, longest) };
        let lonely = 1.0 / self.lane.max(1e-9) > wait / 2.0;
        if lonely { 1 } else { 1 + (self.lane * wait) as usize }
    }
}

impl Delivery {
    /// Over `hops`, for packets that must arrive within `deadline` seconds.
    pub(super) fn over(
        hops: &[Hop],
        deadline: f64,
        mut rounds: impl FnMut(Losses, usize, usize) -> std::sync::Arc<Rounds>,
    ) -> Self {
        let mut arrivals = vec![(0.0, 1.0)];
        let (mut shards, mut variance) = (Vec::with_capacity(hops.len()), 0.0);
        for hop in hops {
            let mut next = Vec::with_capacity(arrivals.len() * 2);
            let mut sent = 0.0;
            for &(age, share) in &arrivals {
                let (budget, offered) = (deadline - age, share);
                let (share, wait) = match hop.served < 1.0 {
                    // What can't leave at once waits for half of the time that it has.
                    true => {
                        (share * hop.served, ((budget - hop.reserved - hop.delay) / 2.0).max(0.0))
                    }
                    false => (share, 0.0),
                };
                let (age, budget) = (age + wait, budget - wait);
                if hop.losses.loss <= 0.0 {
                    sent += offered;
                    next.push((age + hop.delay, share));
                    continue;
                }
                let chances = hop.chances(budget);
                if chances == 0 {
                    sent += offered;
                    next.push((age + hop.delay, share * (1.0 - hop.losses.loss)));
                    continue;
                }
                let k = hop.group(budget - hop.reserved - hop.expected, chances);
                let rounds = rounds(hop.losses, chances, k);
                sent += offered * rounds.shards;
                for (round, &arrive) in rounds.arrive.iter().enumerate() {
                    let late = match round {
                        0 => 0.0,
                        // Parity follows once the group is closed.
                        1 => LONGEST_OPEN.as_secs_f64().min((k - 1) as f64 / hop.lane.max(1e-9)),
                        repair => hop.round * (repair - 1) as f64,
                    };
                    if share * arrive > NEGLIGIBLE {
                        next.push((age + hop.delay + late, share * arrive));
                    }
                }
            }
            variance += hop.sigma * hop.sigma;
            shards.push(sent);
            next.retain(|&(age, _)| age + hop.reserved <= deadline);
            arrivals = merged(next);
        }
        Self { arrivals, sigma: variance.sqrt(), shards }
    }

    /// The sooner of two copies.
    pub(super) fn sooner(a: &Self, b: &Self) -> Self {
        let later = |of: &Self, than: f64| {
            1.0 - of
                .arrivals
                .iter()
                .filter(|(at, _)| *at <= than)
                .map(|(_, share)| share)
                .sum::<f64>()
        };
        let not_before = |of: &Self, at: f64| {
            1.0 - of.arrivals.iter().filter(|(t, _)| *t < at).map(|(_, share)| share).sum::<f64>()
        };
        let mine = a.arrivals.iter().map(|&(at, share)| (at, share * not_before(b, at)));
        let theirs = b.arrivals.iter().map(|&(at, share)| (at, share * later(a, at)));
        let arrivals = merged(mine.chain(theirs).collect());
        Self { arrivals, sigma: a.sigma.min(b.sigma), shards: Vec::new() }
    }

    /// A packet of several pieces is there when the last of them is.
    pub(super) fn in_pieces(mut self, pieces: usize) -> Self {
        if pieces > 1 {
            let (mut passed, mut before) = (0.0, 0.0);
            for (_, share) in &mut self.arrivals {
                passed += *share;
                let all = f64::powi(passed, i32::try_from(pieces).unwrap_or(i32::MAX));
                *share = all - before;
                before = all;
            }
        }
        self
    }

    /// Share that comes with the first.
    pub(super) fn prompt(&self) -> f64 {
        self.arrivals.first().map_or(0.0, |(_, share)| *share)
    }

    /// By how much those that come later than the first are behind it, all but this share.
    pub(super) fn lag(&self, but: f64) -> f64 {
        let mut left: f64 = self.arrivals.iter().map(|(_, share)| share).sum();
        let last = self.arrivals.iter().find(|(_, share)| {
            left -= share;
            left <= but
        });
        let first = self.arrivals.first().map_or(0.0, |(at, _)| *at);
        last.map_or(0.0, |(at, _)| at - first)
    }

    /// What the first to arrive take.
    pub(super) fn least(&self) -> Duration {
        Duration::from_secs_f64(self.arrivals.first().map_or(0.0, |(at, _)| at.max(0.0)))
    }

    /// Delays and shares with the spread around them.
    pub(super) fn spread(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let points: &[f64] = if self.sigma > 0.0 { &NORMAL } else { &[0.0] };
        let each = 1.0 / points.len() as f64;
        self.arrivals.iter().flat_map(move |&(at, share)| {
            points.iter().map(move |point| ((at + point * self.sigma).max(0.0), share * each))
        })
    }
}

/// Sorted, and those that lie together as one.
fn merged(mut arrivals: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    arrivals.dedup_by(|next, kept| {
        let alike = next.0 - kept.0 < ALIKE;
        if alike {
            kept.1 += next.1;
        }
        alike
    });
    arrivals
}

/// The middles of [`POINTS`] parts of equal weight of a standard normal distribution.
const NORMAL: [f64; POINTS] = [
    -2.037, -1.534, -1.258, -1.054, -0.887, -0.742, -0.610, -0.489, -0.374, -0.264, -0.157, -0.052,
    0.052, 0.157, 0.264, 0.374, 0.489, 0.610, 0.742, 0.887, 1.054, 1.258, 1.534, 2.037,
];
