//! Solves the programme of a plan.

use super::{MAX_CHANCES, MAX_DATA, MAX_SHARDS, OperatingPoint, Plan, Target};

/// Packets of a typical group: what the price is reckoned for.
pub(super) const TYPICAL_GROUP: usize = 20;
/// Beyond this loss the residual asked for would cost more than the share of redundancy that links
/// are allowed: a cheaper plan loses fewer packets than a dear one cut off at random.
const HEAVY_LOSS: f64 = 0.4;
/// There the residual is so many times what is asked for.
const HEAVY_RESIDUAL: f64 = 20.0;
/// More than this is not told apart: the chain has to turn good at times.
const MOST_LOSS: f64 = 0.999;
/// Odds so small weigh nothing, whatever the price.
const NEGLIGIBLE: f64 = 1e-20;

/// Shards that a packet lost for good is worth.
pub(super) fn price(point: OperatingPoint, target: Target) -> f64 {
    let heavy = if point.loss() > HEAVY_LOSS { HEAVY_RESIDUAL } else { 1.0 };
    1.0 / (target.residual() * heavy * TYPICAL_GROUP as f64)
}

/// The chances of every number of losses among shards sent one after the other, in the simple
/// Gilbert model.
#[derive(Clone, Debug)]
pub struct LossCounts {
    /// `[n][j]`: that of `n` shards `j` are lost; without what is negligible at the end.
    odds: Vec<Vec<f64>>,
    /// `[n][j]`: that of `n` shards `j` or more are lost, and how many then are, times that chance.
    beyond: Vec<Vec<(f64, f64)>>,
    /// With the channel now good, and now bad (when the next is lost): chances of `j` losses among
    /// as many shards as there are rows, less one.
    good: Vec<f64>,
    bad: Vec<f64>,
    /// From a good shard to a lost one, and from a lost one to a good one.
    turns: (f64, f64),
}

impl LossCounts {
    /// Of a link that loses the share `loss` of its shards, 0 to 1, in runs of `burst` on average.
    pub fn new(loss: f64, burst: f64) -> Self {
        let (loss, recover) = (loss.clamp(0.0, MOST_LOSS), 1.0 / burst.max(1.0));
        let fail = (loss * recover / (1.0 - loss)).min(1.0);
        Self {
            odds: vec![vec![1.0]],
            beyond: vec![vec![(1.0, 0.0)]],
            good: vec![1.0 - loss],
            bad: vec![loss],
            turns: (fail, recover),
        }
    }

    /// The chances that 0, 1, 2, … of so many shards are lost; what is negligible at the end is left out.
    pub fn of(&mut self, shards: usize) -> &[f64] {
        self.reach(shards);
        &self.odds[shards]
    }

    /// Makes the rows of up to `shards` shards: few are needed where little is lost.
    pub(super) fn reach(&mut self, shards: usize) {
        while self.odds.len() <= shards {
            self.add();
        }
    }

    fn add(&mut self) {
        let (fail, recover) = self.turns;
        self.good.push(0.0);
        self.bad.insert(0, 0.0); // one more is lost
        let mut odds = Vec::with_capacity(self.good.len());
        for (good, bad) in self.good.iter_mut().zip(&mut self.bad) {
            (*good, *bad) =
                (*good * (1.0 - fail) + *bad * recover, *good * fail + *bad * (1.0 - recover));
            odds.push(*good + *bad);
        }
        let mut tail = (0.0, 0.0);
        let mut beyond = vec![tail; odds.len()];
        for (lost, (beyond, odds)) in beyond.iter_mut().zip(&odds).enumerate().rev() {
            tail = (tail.0 + odds, tail.1 + odds * lost as f64);
            *beyond = tail;
        }
        let end = odds.iter().rposition(|&odds| odds > NEGLIGIBLE);
        odds.truncate(end.map_or(0, |end| end + 1));
        self.odds.push(odds);
        self.beyond.push(beyond);
    }

    /// The chances that 1, 2, … are still lacking of `lacking`, after so many shards.
    pub(super) fn still(&self, lacking: usize, shards: usize) -> &[f64] {
        self.odds[shards].get(shards + 1 - lacking..).unwrap_or_default()
    }

    /// The mean of what follows when 0, 1, 2, … are still lacking of `lacking`, after so many shards.
    pub(super) fn sum(&self, lacking: usize, shards: usize, then: &[[f64; 3]]) -> [f64; 3] {
        let still = self.still(lacking, shards).iter().zip(then.iter().skip(1));
        still
            .fold([0.0; 3], |sum, (odds, then)| std::array::from_fn(|at| sum[at] + odds * then[at]))
    }

    /// The chance that more than `lost` of so many shards are, and how many then are, times that
    /// chance.
    pub(super) fn beyond(&self, shards: usize, lost: usize) -> (f64, f64) {
        self.beyond[shards].get(lost + 1).copied().unwrap_or_default()
    }
}

impl Plan {
    /// Solves the programme: see the benchmark `link`.
    pub fn solve(point: OperatingPoint, target: Target) -> Self {
        let price = price(point, target);
        let mut counts = point.loss_counts();
        let mut value: Vec<f64> = (0..=MAX_DATA).map(|lacking| price * lacking as f64).collect();
        let mut repair = [[0; MAX_DATA]; MAX_CHANCES];
        for (chance, row) in repair.iter_mut().enumerate() {
            let mut next = vec![0.0];
            let mut guess = 0;
            for (lacking, shards) in (1..).zip(row) {
                let after = (chance > 0).then_some(&value[1..]);
                let best = least_repair(&mut counts, lacking, guess + 1, (price, after));
                *shards = best.shards as u8;
                guess = best.shards;
                next.push(best.total);
            }
            value = next;
        }
        let only = std::array::from_fn(|at| least_only(&mut counts, at + 1, price) as u8);
        Self { only, repair }
    }
}

/// A number of shards, and what they and all that follows cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Best {
    pub(super) total: f64,
    pub(super) shards: usize,
}

/// How many shards to send for a group that lacks `lacking`; probably around `guess`. `after`: what
/// it costs when 1, 2, … are still lacking, unless each costs the price.
pub(super) fn least_repair(
    counts: &mut LossCounts,
    lacking: usize,
    guess: usize,
    (price, after): (f64, Option<&[f64]>),
) -> Best {
    let rest = |shards: usize| {
        counts.reach(shards);
        match after {
            Some(after) => dot(counts.still(lacking, shards), after),
            None => {
                let (odds, lost) = counts.beyond(shards, shards - lacking);
                price * (lost - odds * (shards - lacking) as f64)
            }
        }
    };
    Search::run(rest, lacking, guess.clamp(lacking, MAX_SHARDS))
}

/// A search for the least of `shards + rest(shards)`, where `rest` never grows: between two numbers
/// no total is below the lower number plus the rest at the higher.
struct Search<F> {
    rest: F,
    best: Best,
}

impl<F: FnMut(usize) -> f64> Search<F> {
    fn run(rest: F, from: usize, guess: usize) -> Best {
        let mut search = Self { rest, best: Best { total: f64::INFINITY, shards: from } };
        let rest = search.attempt(guess);
        search.between(from, guess, rest);
        search.between(guess + 1, MAX_SHARDS + 1, 0.0);
        search.best
    }

    fn attempt(&mut self, shards: usize) -> f64 {
        let rest = (self.rest)(shards);
        let total = shards as f64 + rest;
        if total < self.best.total {
            self.best = Best { total, shards };
        }
        rest
    }

    /// From `low` on and below `high`, where that much is left.
    fn between(&mut self, low: usize, high: usize, rest: f64) {
        // More than that are no use.
        let high = high.min((self.best.total - rest).ceil() as usize);
        if low >= high {
            return;
        }
        let middle = low + (high - low) / 2;
        let rest_at = self.attempt(middle);
        self.between(low, middle, rest_at);
        self.between(middle + 1, high, rest);
    }
}

/// How much parity to add to `k` packets that can't be helped again. What counts is every packet
/// lost, for the code is systematic: parity that does not suffice is of no use.
fn least_only(counts: &mut LossCounts, k: usize, price: f64) -> usize {
    let mut best = Best { total: f64::INFINITY, shards: k };
    for shards in k..=MAX_SHARDS {
        if shards as f64 >= best.total {
            break; // more can only cost more
        }
        counts.reach(shards);
        let (_, lost) = counts.beyond(shards, shards - k);
        let total = shards as f64 + price * lost * k as f64 / shards as f64;
        if total < best.total {
            best = Best { total, shards };
        }
    }
    best.shards - k
}

/// The sum of products, four at a time: a single sum has to wait for itself.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let len = a.len().min(b.len());
    let (a, b) = (a[..len].chunks_exact(4), b[..len].chunks_exact(4));
    let rest = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum::<f64>();
    let mut sums = [0.0; 4];
    for (a, b) in a.zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + rest
}
