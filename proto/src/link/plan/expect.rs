//! What plans make of a link: further delay, what stays lost, and what it costs.
//!
//! For those who compare links rather than repair them. So what they get varies with loss, burst,
//! round trip and budget without steps, and gets no better when loss or burst get worse: between a
//! few operating points it is interpolated, and at each of them the worst of all that are better.

use std::sync::OnceLock;
use std::time::Duration;

use super::solve::{LossCounts, TYPICAL_GROUP};
use super::{MAX_CHANCES, MAX_SHARDS, OperatingPoint, Plan, Target};
use crate::units::Class;

/// From a loss to the report of it: a report leaves every 10 ms at the latest. As long waits a
/// packet that is rebuilt from parity for its group to be complete.
const REPORT_DELAY: Duration = Duration::from_millis(10);
/// Links with a longer round trip count as having this one.
const LONGEST_RTT: Duration = Duration::from_secs(60);
/// Links of the path that the plan is for: most are of one or two.
const TYPICAL_HOPS: usize = 2;

/// Where plans are looked at; less of a burst is no burst, and more makes no difference, for
/// repeats come a round trip later.
const LOSSES: [f64; 13] =
    [0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.64, 1.0];
const BURSTS: [f64; 5] = [1.0, 2.0, 4.0, 9.0, 21.0];

/// What to expect of the recovery of a link, for video over a path of two links.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expected {
    /// What repair adds to the delay of a packet, on average over all packets.
    pub delay: Duration,
    /// The share of packets that are lost for good, 0 to 1.
    pub residual: f64,
    /// Shards sent per packet: 1 without losses.
    pub shards: f64,
}

impl Expected {
    /// Of a link that loses the share `loss` of its shards in bursts of the mean length `burst`, with
    /// this round trip, when packets have `budget` left beyond the propagation of their path.
    pub fn of(loss: f32, burst: f32, rtt: Duration, budget: Duration) -> Self {
        if loss <= 0.0 {
            return Self { shards: 1.0, ..Self::default() }; // most links
        }
        let round = (rtt.min(LONGEST_RTT) + REPORT_DELAY).as_secs_f64();
        let fit = (budget.as_secs_f64() / round).min((MAX_CHANCES - 1) as f64);
        let outcome = Outcome::of(f64::from(loss), f64::from(burst), fit);
        let delay = outcome.rounds * round + outcome.at_once * REPORT_DELAY.as_secs_f64();
        Self {
            delay: Duration::from_secs_f64(delay),
            residual: outcome.residual,
            shards: outcome.shards,
        }
    }
}

/// What comes of a typical group under a plan.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Round trips that a packet waits, on average.
    rounds: f64,
    /// Share of packets rebuilt from the parity that came along.
    at_once: f64,
    /// Share of packets lost for good.
    residual: f64,
    /// Shards sent per packet.
    shards: f64,
}

/// For each number of chances, less one, each of [`LOSSES`] and of [`BURSTS`].
type Outcomes = [[[Outcome; BURSTS.len()]; LOSSES.len()]; MAX_CHANCES];

impl Outcome {
    /// When so many rounds fit after the first sending.
    fn of(loss: f64, burst: f64, rounds: f64) -> Self {
        static OUTCOMES: OnceLock<Box<Outcomes>> = OnceLock::new();
        let outcomes = OUTCOMES.get_or_init(Self::all);
        let (loss, burst) = (Place::among(&LOSSES, loss), Place::among(&BURSTS, burst));
        let of_chances = |chances: usize| {
            let of_loss = |at: usize| burst.between(|burst| outcomes[chances][at][burst]);
            loss.between(of_loss)
        };
        Place { at: rounds as usize, share: rounds.fract() }.between(of_chances)
    }

    fn all() -> Box<Outcomes> {
        let mut all = Box::new(Outcomes::default());
        for loss in 0..LOSSES.len() {
            for burst in 0..BURSTS.len() {
                let own = Self::at(LOSSES[loss], BURSTS[burst]);
                for (all, own) in all.iter_mut().zip(own) {
                    let better = [
                        (loss > 0).then(|| all[loss - 1][burst]),
                        (burst > 0).then(|| all[loss][burst - 1]),
                    ];
                    all[loss][burst] = better.into_iter().flatten().fold(own, Self::worse);
                }
            }
        }
        all
    }

    /// For each number of chances, less one.
    fn at(loss: f64, burst: f64) -> [Self; MAX_CHANCES] {
        if loss == 0.0 {
            return [Self { shards: 1.0, ..Self::default() }; MAX_CHANCES];
        }
        if loss == 1.0 {
            let lost = |rounds| Self { rounds, residual: 1.0, ..Self::default() };
            return std::array::from_fn(|at| lost((at + 1) as f64));
        }
        let point = OperatingPoint::new(loss as f32, burst as f32);
        let plan = Plan::of(point, Target::new(Class::Video, TYPICAL_HOPS));
        let mut counts = point.loss_counts();
        counts.reach(MAX_SHARDS);
        std::array::from_fn(|at| Self::following(plan, &counts, at + 1))
    }

    /// What follows from a plan, with so many chances.
    fn following(plan: &Plan, counts: &LossCounts, chances: usize) -> Self {
        // What follows once 0, 1, 2, … are lacking: rounds waited, packets lost for good, shards.
        let mut then: Vec<[f64; 3]> =
            (0..=TYPICAL_GROUP).map(|lacking| [0.0, lacking as f64, 0.0]).collect();
        for chance in 1..chances {
            let repair = |lacking| {
                let shards = plan.repair(lacking, chance);
                let [rounds, lost, sent] = counts.sum(lacking, shards, &then);
                [rounds + lacking as f64, lost, sent + shards as f64]
            };
            then = (0..=TYPICAL_GROUP).map(repair).collect();
        }
        let shards = TYPICAL_GROUP + plan.upfront(TYPICAL_GROUP, chances);
        let parity = shards - TYPICAL_GROUP;
        let [rounds, lost, sent] = counts.sum(TYPICAL_GROUP, shards, &then);
        // Where parity does not suffice, packets are missing that it could have replaced.
        let data = TYPICAL_GROUP as f64 / shards as f64;
        let (_, all_lost) = counts.beyond(shards, 0);
        let (fail, fail_lost) = counts.beyond(shards, parity);
        let missing = fail_lost * data;
        let replaced = missing - (fail_lost - fail * parity as f64);
        let group = match chances {
            1 => Self { residual: missing, ..Self::default() },
            _ => Self { rounds: rounds + replaced, residual: lost, ..Self::default() },
        };
        Self {
            rounds: group.rounds / TYPICAL_GROUP as f64,
            at_once: (all_lost * data - missing) / TYPICAL_GROUP as f64,
            residual: group.residual / TYPICAL_GROUP as f64,
            shards: (sent + shards as f64) / TYPICAL_GROUP as f64,
        }
    }

    fn worse(self, other: Self) -> Self {
        self.join(other, f64::max)
    }

    fn join(self, other: Self, join: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            rounds: join(self.rounds, other.rounds),
            at_once: join(self.at_once, other.at_once),
            residual: join(self.residual, other.residual),
            shards: join(self.shards, other.shards),
        }
    }
}

/// A place between two rows of a table: so far from one to the next.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    share: f64,
}

impl Place {
    /// Where a value stands among ascending ones; at an end, if it is beyond or no number.
    fn among(values: &[f64], value: f64) -> Self {
        let above = values.partition_point(|&each| each <= value);
        let Some(at) = above.checked_sub(1) else { return Self { at: 0, share: 0.0 } };
        let share =
            values.get(above).map_or(0.0, |next| (value - values[at]) / (next - values[at]));
        Self { at, share }
    }

    fn between(self, row: impl Fn(usize) -> Outcome) -> Outcome {
        let first = row(self.at);
        if self.share <= 0.0 {
            return first;
        }
        first.join(row(self.at + 1), |a, b| a + (b - a) * self.share)
    }
}
