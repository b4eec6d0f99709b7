//! The recovery plan: how many shards to send so that a group arrives, for the least traffic.
//!
//! A group may be helped several times before its deadline, once per round trip. At each chance the
//! sender knows how many shards are lacking and chooses how many to send; whatever is lost may be
//! lacking at the next. The least expected number of shards is a dynamic programme over (shards
//! lacking, chances left), solved backwards from the last chance, after which every packet that is
//! still missing costs a fixed price:
//!
//! ```text
//! V(0, l) = price * l
//! V(c, l) = min over a >= l of  a + sum over j of P(j of a lost) * V(c - 1, lacking after that)
//! ```
//!
//! The price stands for the residual loss that is asked for: at the optimum one more shard saves
//! about one packet in `price`, so a group of `k` ends with about 1/`price` packets missing.
//! Losses follow the simple Gilbert model ("Capacity of a Burst-Noise Channel", BSTJ 1960): the
//! share lost and the mean length of a burst, in shards sent one after the other. Losses at
//! different chances count as independent: chances lie a round trip apart.
//!
//! Limits: the shards of one chance count as neighbours on the link although others may lie between
//! (too careful under bursts: `Outlook::most_margin` limits that), and reports as never lost (their loss
//! is part of the measured round, and `outgoing` makes up for what none has told of in time).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::code::{MAX_DATA, MAX_PARITY};

/// The most chances that are told apart; with more, the plan is that of so many.
pub const MAX_CHANCES: usize = 6;
/// Plans kept by a [`Planner`]; the one used longest ago goes.
const CACHED: usize = 64;
/// The most shards considered for one chance.
const MAX_SHARDS: usize = MAX_PARITY;
/// Packets of a typical group: what the price is reckoned for.
const TYPICAL_GROUP: f64 = 20.0;

/// Beyond this loss the residual asked for would cost more than the share of redundancy that links
/// are allowed: a cheaper plan loses fewer packets than a dear one cut off at random.
const HEAVY_LOSS: f64 = 0.4;
/// There the residual is so many times what is asked for.
const HEAVY_RESIDUAL: f64 = 20.0;

const LOSS_FLOOR: f64 = 0.001;
const LOSS_STEP: f64 = 1.08;
const LOSS_STEPS: u8 = 84;
const BURST_STEPS: [f64; 12] = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 21.0, 32.0, 48.0, 64.0];

/// How a link loses, in steps: equal points have equal plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatingPoint {
    loss: u8,
    burst: u8,
}

impl OperatingPoint {
    /// The next worse step for this share of shards lost and this mean length of a burst of losses.
    pub fn new(loss: f32, burst: f32) -> Self {
        let loss = f64::from(loss).clamp(0.0, 1.0);
        let step = ((loss / LOSS_FLOOR).ln() / LOSS_STEP.ln()).ceil();
        let step = if loss <= LOSS_FLOOR { 0 } else { (step as u8).min(LOSS_STEPS) };
        // Independent losses have runs too, of 1 / (1 - loss) on average: only what exceeds them counts.
        let excess = f64::from(burst) * (1.0 - loss);
        let burst = BURST_STEPS.iter().position(|&at| excess <= at * 1.1);
        Self { loss: step, burst: burst.unwrap_or(BURST_STEPS.len() - 1) as u8 }
    }

    /// The share of shards lost that the plan reckons with.
    pub fn loss(self) -> f64 {
        LOSS_FLOOR * LOSS_STEP.powi(i32::from(self.loss))
    }

    fn burst(self) -> f64 {
        BURST_STEPS[usize::from(self.burst)] / (1.0 - self.loss())
    }
}

/// The chances of every number of losses among shards sent one after the other.
struct LossCounts {
    /// `of[n][j]`: that of `n` shards `j` are lost.
    of: Vec<Vec<f64>>,
}

impl LossCounts {
    fn new(point: OperatingPoint, most: usize) -> Self {
        let (loss, recover) = (point.loss(), 1.0 / point.burst());
        let fail = (loss * recover / (1.0 - loss)).min(1.0);
        // Chance of `j` losses with the channel now good, and now bad (when the next is lost).
        let mut good = vec![1.0 - loss];
        let mut bad = vec![loss];
        let mut of = vec![vec![1.0]];
        for _ in 0..most {
            let len = good.len() + 1;
            let at = |of: &[f64], j: usize| of.get(j).copied().unwrap_or(0.0);
            let lost = |j: usize| if j == 0 { 0.0 } else { at(&bad, j - 1) };
            let next_good = (0..len).map(|j| at(&good, j) * (1.0 - fail) + lost(j) * recover);
            let next_bad = (0..len).map(|j| at(&good, j) * fail + lost(j) * (1.0 - recover));
            let (next_good, next_bad): (Vec<_>, Vec<_>) = (next_good.collect(), next_bad.collect());
            of.push(next_good.iter().zip(&next_bad).map(|(good, bad)| good + bad).collect());
            (good, bad) = (next_good, next_bad);
        }
        Self { of }
    }
}

/// The plan for one operating point.
#[derive(Debug)]
pub struct Plan {
    /// `[chances - 1][k - 1]`
    upfront: Vec<[u8; MAX_DATA]>,
    /// `[chances - 1][lacking - 1]`
    repair: Vec<[u8; MAX_DATA]>,
}

impl Plan {
    /// Solves the programme: some milliseconds.
    fn solve(point: OperatingPoint, residual: f64) -> Self {
        let residual = if point.loss() > HEAVY_LOSS { residual * HEAVY_RESIDUAL } else { residual };
        let price = 1.0 / (residual * TYPICAL_GROUP);
        let counts = LossCounts::new(point, MAX_SHARDS);
        let mut value: Vec<f64> = (0..=MAX_DATA).map(|lacking| price * lacking as f64).collect();
        let mut plan = Self { upfront: Vec::new(), repair: Vec::new() };
        for chance in 1..=MAX_CHANCES {
            let after = (chance > 1).then_some(&value[..]);
            plan.upfront.push(std::array::from_fn(|at| upfront(&counts, at + 1, price, after)));
            let solved: Vec<(f64, u8)> =
                (1..=MAX_DATA).map(|lacking| repair(&counts, lacking, &value)).collect();
            plan.repair.push(std::array::from_fn(|at| solved[at].1));
            value[1..].iter_mut().zip(solved).for_each(|(value, (best, _))| *value = best);
        }
        plan
    }

    /// Parity shards to send with a group of `k` packets, when the group can be helped `chances`
    /// times, this one included.
    pub fn upfront(&self, k: usize, chances: usize) -> usize {
        lookup(&self.upfront, k, chances.max(1))
    }

    /// Shards to send for a group that lacks `lacking`, when it can be helped `chances` times,
    /// this one included. None without a chance.
    pub fn repair(&self, lacking: usize, chances: usize) -> usize {
        if chances == 0 { 0 } else { lookup(&self.repair, lacking, chances) }
    }
}

fn lookup(table: &[[u8; MAX_DATA]], shards: usize, chances: usize) -> usize {
    if shards == 0 {
        0
    } else {
        table[chances.min(MAX_CHANCES) - 1][shards.min(MAX_DATA) - 1].into()
    }
}

/// The least cost of a group that lacks `lacking`, and how many shards to send for it.
fn repair(counts: &LossCounts, lacking: usize, after: &[f64]) -> (f64, u8) {
    least(lacking, |shards| {
        let odds = counts.of[shards].iter().enumerate();
        let still = |lost: usize| (lacking + lost).saturating_sub(shards);
        odds.map(|(lost, odds)| odds * after[still(lost)]).sum()
    })
}

/// How many parity shards to add to `k` packets. At the last chance what counts is every packet
/// lost, for the code is systematic: parity that does not suffice is of no use.
fn upfront(counts: &LossCounts, k: usize, price: f64, after: Option<&[f64]>) -> u8 {
    let (_, shards) = least(k, |shards| {
        let parity = shards - k;
        let cost = |lost: usize| match after {
            Some(after) => after[(lost - parity).min(MAX_DATA)],
            None => price * (lost * k) as f64 / shards as f64,
        };
        (parity + 1..=shards).map(|lost| counts.of[shards][lost] * cost(lost)).sum()
    });
    shards - k as u8
}

/// The number of shards, at least `from`, at which their number and the `cost` that then follows
/// add up to the least.
fn least(from: usize, cost: impl Fn(usize) -> f64) -> (f64, u8) {
    let mut best = (f64::INFINITY, from as u8);
    for shards in from..=MAX_SHARDS {
        if shards as f64 >= best.0 {
            break; // more shards can only cost more
        }
        let total = shards as f64 + cost(shards);
        if total < best.0 {
            best = (total, shards as u8);
        }
    }
    best
}

/// Keeps the plans of the operating points that a link has been through.
#[derive(Debug)]
pub struct Planner {
    residual: f64,
    /// With the turn in which each was used last.
    plans: BTreeMap<OperatingPoint, (u64, Arc<Plan>)>,
    turn: u64,
}

impl Planner {
    /// For links that may lose `residual` of their packets for good.
    pub fn new(residual: f64) -> Self {
        Self {
            residual: if residual.is_nan() { 0.1 } else { residual.clamp(1e-9, 0.1) },
            plans: BTreeMap::new(),
            turn: 0,
        }
    }

    /// The plan for a point; solved (some milliseconds) when it is met for the first time.
    pub fn plan(&mut self, point: OperatingPoint) -> Arc<Plan> {
        self.turn += 1;
        if let Some((used, plan)) = self.plans.get_mut(&point) {
            *used = self.turn;
            return Arc::clone(plan);
        }
        if self.plans.len() >= CACHED {
            let oldest = self.plans.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(&oldest) = oldest.map(|(point, _)| point) {
                self.plans.remove(&oldest);
            }
        }
        let plan = Arc::new(Plan::solve(point, self.residual));
        self.plans.insert(point, (self.turn, Arc::clone(&plan)));
        plan
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::SmallRng;
    use rand::{Rng as _, SeedableRng};

    use super::*;

    const RESIDUAL: f64 = 1e-5;

    fn plan(loss: f32) -> Arc<Plan> {
        Planner::new(RESIDUAL).plan(OperatingPoint::new(loss, 1.0))
    }

    #[test]
    fn points_are_never_better_than_what_was_measured() {
        for loss in [0.0, 0.0005, 0.001, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5] {
            let point = OperatingPoint::new(loss, 1.0);
            assert!(point.loss() >= f64::from(loss) * 0.999, "{loss}: {point:?}");
            assert!(point.loss() <= (f64::from(loss) * 1.09).max(LOSS_FLOOR), "{loss}: {point:?}");
        }
        for strange in [f32::NAN, f32::INFINITY, -1.0, 2.0] {
            assert!(OperatingPoint::new(strange, strange).loss() < 1.0);
        }
    }

    #[test]
    fn loss_counts_are_binomial_without_bursts() {
        let point = OperatingPoint::new(0.1, 1.0);
        let counts = LossCounts::new(point, 20);
        let p = point.loss();
        let two_of_20 = 190.0 * p.powi(2) * (1.0 - p).powi(18);
        assert!((counts.of[20][2] - two_of_20).abs() < 1e-9);
        for odds in &counts.of {
            assert!((odds.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn bursts_spread_the_losses_and_keep_their_mean() {
        let [even, burst] = [1.0, 8.0].map(|b| LossCounts::new(OperatingPoint::new(0.1, b), 20));
        let mean = |counts: &LossCounts| -> f64 {
            counts.of[20].iter().enumerate().map(|(lost, odds)| lost as f64 * odds).sum()
        };
        assert!((mean(&even) - mean(&burst)).abs() < 1e-6);
        assert!(burst.of[20][0] > 2.0 * even.of[20][0]);
        assert!(burst.of[20][10] > 100.0 * even.of[20][10]);
    }

    #[test]
    fn time_replaces_parity() {
        let clean = plan(0.0);
        for k in 1..=MAX_DATA {
            assert_eq!(clean.upfront(k, 2), 0, "a clean link needs no parity, k = {k}");
            assert_eq!(clean.repair(k, 3), k);
        }
        for loss in [0.02, 0.1, 0.3, 0.5] {
            let plan = plan(loss);
            for chances in 1..MAX_CHANCES {
                assert!(plan.upfront(20, chances) >= plan.upfront(20, chances + 1));
                assert!(plan.repair(3, chances) >= plan.repair(3, chances + 1));
            }
            assert!(plan.upfront(20, 1) > 0 && plan.repair(3, 1) > 3, "{loss}");
        }
    }

    #[test]
    fn the_ends_of_the_tables_hold() {
        let plan = plan(0.7);
        assert_eq!(plan.repair(0, 3), 0);
        assert_eq!(plan.repair(3, 0), 0);
        assert_eq!(plan.upfront(0, 3), 0);
        assert!(plan.repair(1000, 1) <= MAX_SHARDS);
        assert!(plan.upfront(1000, 1000) <= MAX_SHARDS);
    }

    /// The least expected cost of a group, by trying every number of shards at every chance. With
    /// `counts` of `most` shards, so many are the most that are tried.
    fn cheapest(counts: &LossCounts, price: f64, chances: usize, lacking: usize) -> f64 {
        if chances == 0 || lacking == 0 {
            return price * lacking as f64;
        }
        let cost = |shards: usize| {
            let odds = counts.of[shards].iter().enumerate();
            let rest = odds.map(|(lost, odds)| {
                let lacking = lacking - lacking.min(shards - lost);
                odds * cheapest(counts, price, chances - 1, lacking)
            });
            shards as f64 + rest.sum::<f64>()
        };
        (lacking..counts.of.len()).map(cost).fold(f64::INFINITY, f64::min)
    }

    /// What following a policy costs; `first` shards at the first chance, then `repair`.
    fn cost_of(
        counts: &LossCounts,
        price: f64,
        (lacking, first): (usize, usize),
        repair: &[Vec<u8>],
    ) -> f64 {
        let odds = counts.of[first].iter().enumerate();
        let rest = odds.map(|(lost, odds)| {
            let lacking = lacking - lacking.min(first - lost);
            odds * match repair.split_last() {
                _ if lacking == 0 => 0.0,
                None => price * lacking as f64,
                Some((now, later)) => {
                    cost_of(counts, price, (lacking, now[lacking - 1].into()), later)
                }
            }
        });
        first as f64 + rest.sum::<f64>()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// At every operating point, no choice of shards at any chance beats the plan.
        #[test]
        fn no_search_finds_anything_cheaper(
            loss in 0.001..0.6f32, burst in 1.0..6.0f32,
            residual in 1e-5..1e-2f64, chances in 1..=2usize, lacking in 1..=3usize,
        ) {
            let point = OperatingPoint::new(loss, burst);
            let counts = LossCounts::new(point, MAX_SHARDS);
            let few = LossCounts { of: counts.of[..40].to_vec() };
            let price = 1.0 / (residual * TYPICAL_GROUP);
            let mut after: Vec<f64> = (0..=MAX_DATA).map(|l| price * l as f64).collect();
            let mut plan = Vec::new();
            for _ in 0..chances {
                let solved: Vec<_> =
                    (1..=MAX_DATA).map(|lacking| repair(&counts, lacking, &after)).collect();
                plan.push(solved.iter().map(|&(_, shards)| shards).collect::<Vec<u8>>());
                after[1..].iter_mut().zip(&solved).for_each(|(after, &(cost, _))| *after = cost);
            }
            // The search is limited, the plan is not: it may be cheaper, never dearer.
            prop_assert!(after[lacking] <= cheapest(&few, price, chances, lacking) + 1e-9);
            let (now, later) = plan.split_last().expect("a chance at least");
            let first = now[lacking - 1].into();
            let cost = cost_of(&counts, price, (lacking, first), later);
            prop_assert!((cost - after[lacking]).abs() < 1e-6 * cost, "costs what it says");
            if let Some(value) = later.last().map(|_| {
                let mut value: Vec<f64> = (0..=MAX_DATA).map(|l| price * l as f64).collect();
                let solved: Vec<f64> =
                    (1..=MAX_DATA).map(|lacking| repair(&counts, lacking, &value).0).collect();
                value[1..].copy_from_slice(&solved);
                value
            }) {
                // Parity up front: a group lacks what is lost beyond its parity.
                let parity = usize::from(upfront(&counts, lacking, price, Some(&value)));
                let cost = |parity: usize| {
                    let shards = lacking + parity;
                    let lost = parity + 1..=shards;
                    shards as f64
                        + lost.map(|l| counts.of[shards][l] * value[l - parity]).sum::<f64>()
                };
                let best = (0..40).map(cost).fold(f64::INFINITY, f64::min);
                prop_assert!(cost(parity) <= best + 1e-9);
            }
        }

        #[test]
        fn no_plan_exceeds_its_caps(
            loss in any::<f32>(), burst in any::<f32>(), residual in any::<f64>(),
            shards in any::<usize>(), chances in any::<usize>(),
        ) {
            let plan = Planner::new(residual).plan(OperatingPoint::new(loss, burst));
            for (shards, chances) in [(shards, chances), (shards % 70, chances % 8)] {
                let upfront = plan.upfront(shards, chances);
                prop_assert!(upfront + shards.min(MAX_DATA) <= MAX_SHARDS);
                let repair = plan.repair(shards, chances);
                prop_assert!(repair <= MAX_SHARDS);
                prop_assert!(chances == 0 || repair >= shards.min(MAX_DATA));
            }
        }
    }

    /// What following the plan costs and leaves, over many groups of 20 with perfect reports.
    fn follow(loss: f32, chances: usize, seed: u64) -> (f64, f64) {
        let (plan, mut network) = (plan(loss), SmallRng::seed_from_u64(seed));
        let groups = 20_000;
        let (mut sent, mut missing) = (0, 0);
        for _ in 0..groups {
            let mut shards = 20 + plan.upfront(20, chances);
            let mut lacking = 20;
            for left in (0..chances).rev() {
                sent += shards;
                let arrived = (0..shards).filter(|_| !network.random_bool(loss.into())).count();
                lacking -= lacking.min(arrived);
                shards = plan.repair(lacking, left);
            }
            missing += lacking;
        }
        (sent as f64 / (20 * groups) as f64, missing as f64 / (20 * groups) as f64)
    }

    #[test]
    fn costs_little_more_than_the_least_possible() {
        // The limits of DESIGN for a residual of 1e-4, plus what ten times less loss costs.
        for (loss, chances, most) in [
            (0.02, 2, 1.06),
            (0.05, 2, 1.11),
            (0.1, 3, 1.14),
            (0.2, 3, 1.31),
            (0.3, 3, 1.54),
            (0.5, 3, 2.30),
        ] {
            let (cost, residual) = follow(loss, chances, 1);
            assert!(cost <= most, "{loss}, {chances} chances: {cost}");
            assert!(
                residual <= if loss > 0.4 { 5e-4 } else { 5e-5 },
                "{loss}, {chances} chances: {residual}"
            );
        }
    }

    #[test]
    fn plans_are_kept_and_their_number_is_bounded() {
        let mut planner = Planner::new(RESIDUAL);
        let first = OperatingPoint::new(0.1, 1.0);
        let kept = planner.plan(first);
        assert!(Arc::ptr_eq(&kept, &planner.plan(first)));
        planner.plans.extend(
            (0..200).map(|burst| (OperatingPoint { loss: 60, burst }, (1, Arc::clone(&kept)))),
        );
        planner.plans.retain(|point, _| point.loss != 60 || usize::from(point.burst) < CACHED - 1);
        planner.plan(OperatingPoint::new(0.2, 1.0));
        assert!(planner.plans.len() <= CACHED);
        assert!(planner.plans.contains_key(&first), "the newest stay");
    }
}
