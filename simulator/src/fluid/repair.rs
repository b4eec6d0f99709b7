//! What the recovery plan makes of losses on one link, in expectation.
//!
//! The plan's own tables say how many shards go out at each chance. What arrives is the Markov
//! chain over the shards that a group lacks: the programme by which the plan was made, run
//! forwards. A packet of a group that lacks `l` and then `l'` was among those repaired with
//! probability `(l - l') / l`.

use std::collections::BTreeMap;
use std::sync::Arc;

use tradewind_proto::link::Recovery;
use tradewind_proto::link::code::MAX_DATA;
use tradewind_proto::link::plan::{LossCounts, MAX_CHANCES, OperatingPoint, Plan, Target};

/// The most shards of one chance that are looked at.
const MOST_SHARDS: usize = 192;
/// Losses and bursts are told apart in steps of this share.
const STEP: f64 = 0.01;

/// What becomes of packets on a link.
#[derive(Clone, Debug)]
pub(super) struct Rounds {
    /// Share that arrives by itself, by what follows at once, and with each round of repair.
    pub(super) arrive: Vec<f64>,
    /// Shards sent for each packet.
    pub(super) shards: f64,
}

/// A link as it is, and how its sender sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Losses {
    /// Share of packets lost, 0 to 1.
    pub(super) loss: f64,
    /// Mean run of losses, in packets.
    pub(super) burst: f64,
    /// What the sender goes by, and what it aims at.
    pub(super) believed: OperatingPoint,
    pub(super) target: Target,
}

/// Steps of loss and burst, what the sender believes and aims at, chances, packets of a group.
type Case = ((i32, i32), OperatingPoint, Target, usize, usize);

/// Keeps what was computed.
pub(super) struct Forecasts {
    recovery: Recovery,
    counts: BTreeMap<(i32, i32), LossCounts>,
    rounds: BTreeMap<Case, Arc<Rounds>>,
}

impl Forecasts {
    /// For links that recover like this.
    pub(super) fn new(recovery: Recovery) -> Self {
        Self { recovery, counts: BTreeMap::new(), rounds: BTreeMap::new() }
    }

    /// What becomes of packets in groups of `k` that can be helped `chances` times.
    pub(super) fn rounds(&mut self, losses: Losses, chances: usize, k: usize) -> Arc<Rounds> {
        let step = |value: f64| (value.max(1e-9).ln() / STEP.ln_1p()).round() as i32;
        let point = (step(losses.loss), step(losses.burst));
        let most = if self.recovery.repeats() { MAX_CHANCES } else { 1 };
        let (chances, k) = (chances.clamp(1, most), k.clamp(1, MAX_DATA));
        let case = (point, losses.believed, losses.target, chances, k);
        if let Some(known) = self.rounds.get(&case) {
            return Arc::clone(known);
        }
        let new_counts = || LossCounts::new(losses.loss, losses.burst);
        let counts = self.counts.entry(point).or_insert_with(new_counts);
        let plan = Plan::of(losses.believed, losses.target);
        let rounds = Arc::new(Rounds::of(counts, (self.recovery, plan), losses.loss, chances, k));
        self.rounds.insert(case, Arc::clone(&rounds));
        rounds
    }
}

impl Rounds {
    fn of(
        counts: &mut LossCounts,
        (recovery, plan): (Recovery, &Plan),
        loss: f64,
        chances: usize,
        k: usize,
    ) -> Self {
        let parity = recovery.upfront(plan, k, chances).min(MOST_SHARDS - k);
        let first = counts.of(k + parity);
        // By shards lacking: how likely that is, and how many packets are missing then.
        let mut odds = vec![0.0; MAX_DATA + 1];
        let mut missing = vec![0.0; MAX_DATA + 1];
        for (lost, chance) in first.iter().enumerate().skip(parity + 1) {
            let lacking = (lost - parity).min(MAX_DATA);
            odds[lacking] += chance;
            missing[lacking] += chance * (lost * k) as f64 / (k + parity) as f64;
        }
        let left = |missing: &[f64]| missing.iter().sum::<f64>() / k as f64;
        let mut shards = (k + parity) as f64;
        let mut rest = left(&missing);
        let mut arrive = vec![1.0 - loss, (loss - rest).max(0.0)];
        for chance in (1..chances).rev() {
            let mut next = vec![0.0; MAX_DATA + 1];
            let mut still = vec![0.0; MAX_DATA + 1];
            for lacking in (1..=MAX_DATA).filter(|&lacking| odds[lacking] > 1e-12) {
                let sent = recovery.repair(plan, lacking, chance).min(MOST_SHARDS);
                shards += odds[lacking] * sent as f64;
                for (lost, odd) in counts.of(sent).iter().enumerate() {
                    let after = lacking - lacking.min(sent - lost);
                    next[after] += odds[lacking] * odd;
                    still[after] += missing[lacking] * odd * after as f64 / lacking as f64;
                }
            }
            let after = left(&still[1..]);
            arrive.push((rest - after).max(0.0));
            (odds, missing, rest) = (next, still, after);
            odds[0] = 0.0;
        }
        Self { arrive, shards: shards / k as f64 }
    }
}

#[cfg(test)]
mod tests {
    use tradewind_proto::units::Class;

    use super::*;

    fn rounds(loss: f32, chances: usize, k: usize) -> Rounds {
        let believed = OperatingPoint::new(loss, 1.0);
        let (burst, target) = (1.0 / (1.0 - f64::from(loss)), Target::new(Class::Video, 1));
        let losses = Losses { loss: loss.into(), burst, believed, target };
        Forecasts::new(Recovery::Plan).rounds(losses, chances, k).as_ref().clone()
    }

    #[test]
    fn all_packets_are_accounted_for_and_time_replaces_parity() {
        for loss in [0.01, 0.05, 0.3] {
            for k in [1, 20] {
                let residual: Vec<f64> = (1..=4)
                    .map(|chances| 1.0 - rounds(loss, chances, k).arrive.iter().sum::<f64>())
                    .collect();
                assert!(residual.iter().all(|r| (-1e-9..1e-3).contains(r)), "{loss} {residual:?}");
                let cost: Vec<f64> = (1..=4).map(|c| rounds(loss, c, k).shards).collect();
                assert!(cost.is_sorted_by(|a, b| a >= b), "{loss}: {cost:?}");
                let floor = 1.0 / (1.0 - f64::from(loss));
                assert!(cost[3] >= floor - 1e-6 && cost[3] < floor * 1.2, "{loss}: {cost:?}");
            }
        }
    }

    #[test]
    fn a_repeat_arrives_as_often_as_the_link_lets_it() {
        let rounds = rounds(0.05, 3, 20);
        assert!((rounds.arrive[0] - 0.95).abs() < 1e-9 && rounds.arrive[1].abs() < 1e-9);
        assert!((0.047..0.05).contains(&rounds.arrive[2]), "{rounds:?}");
    }
}
