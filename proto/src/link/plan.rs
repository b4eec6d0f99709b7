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
//! A group that is sent for the first time lacks all its packets, so the same programme says how
//! much parity goes along; only at a last chance is that another question (see `solve`).
//! Losses follow the simple Gilbert model ("Capacity of a Burst-Noise Channel", BSTJ 1960): the
//! share lost and the mean length of a burst, in shards sent one after the other. Losses at
//! different chances count as independent: chances lie a round trip apart.
//!
//! A plan follows from its [`OperatingPoint`] and [`Target`] alone, and there are few of both. So
//! each is solved once in a process, when it is first asked for, and then kept for all links.
//!
//! Limits: the shards of one chance count as neighbours on the link although others may lie between
//! (too careful under bursts: `Outlook::most_margin` limits that), and reports as never lost (their loss
//! is part of the measured round, and `outgoing` makes up for what none has told of in time).

mod expect;
mod solve;

use std::sync::OnceLock;

pub use self::expect::Expected;
pub use self::solve::LossCounts;
use super::code::{MAX_DATA, MAX_PARITY};
use crate::units::Class;

/// The most chances that are told apart; with more, the plan is that of so many.
pub const MAX_CHANCES: usize = 6;
/// The most shards considered for one chance.
const MAX_SHARDS: usize = MAX_PARITY;

const LOSS_FLOOR: f64 = 0.001;
const LOSS_STEP: f64 = 1.08;
const LOSS_STEPS: u8 = 84;
const BURST_STEPS: [f64; 12] = [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 21.0, 32.0, 48.0, 64.0];
/// Paths of more hops count as the next of these.
const HOP_STEPS: [usize; 4] = [1, 2, 4, 7];

/// The share of the packets of audio and video that a path may lose for good.
const MEDIA_RESIDUAL: f64 = 1e-5;
/// The same of bulk: whoever sends it repeats what is missing and has no playout to fill.
const BULK_RESIDUAL: f64 = 1e-4;

/// How a link loses, in steps: equal points have equal plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatingPoint {
    loss: u8,
    burst: u8,
}

impl OperatingPoint {
    /// How many there are.
    const COUNT: usize = (LOSS_STEPS as usize + 1) * BURST_STEPS.len();

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

    /// The losses that the plan reckons with.
    fn loss_counts(self) -> LossCounts {
        LossCounts::new(self.loss(), self.burst())
    }

    fn index(self) -> usize {
        usize::from(self.loss) * BURST_STEPS.len() + usize::from(self.burst)
    }
}

/// What share of its packets a link may lose for good, in steps: what their path may lose, which
/// depends on the class, divided by the path's hops. Of two of one class the greater is stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    media: bool,
    hops: u8,
}

impl Target {
    /// How many there are.
    const COUNT: usize = 2 * HOP_STEPS.len();

    /// Of a packet of this class on a path of so many links.
    pub fn new(class: Class, hops: usize) -> Self {
        let step = HOP_STEPS.iter().position(|&step| hops <= step);
        Self { media: class != Class::Bulk, hops: step.unwrap_or(HOP_STEPS.len() - 1) as u8 }
    }

    /// The share.
    pub fn residual(self) -> f64 {
        let of_path = if self.media { MEDIA_RESIDUAL } else { BULK_RESIDUAL };
        of_path / HOP_STEPS[usize::from(self.hops)] as f64
    }

    fn index(self) -> usize {
        usize::from(self.media) * HOP_STEPS.len() + usize::from(self.hops)
    }
}

/// The plan for one operating point and target.
#[derive(Debug)]
pub struct Plan {
    /// Parity up front at the only chance. `[k - 1]`
    only: [u8; MAX_DATA],
    /// `[chances - 1][lacking - 1]`
    repair: [[u8; MAX_DATA]; MAX_CHANCES],
}

/// Bounded: with all of them solved, `COUNT` times `COUNT` plans of 448 bytes, 4 MB.
static PLANS: [OnceLock<Box<Plan>>; OperatingPoint::COUNT * Target::COUNT] =
    [const { OnceLock::new() }; OperatingPoint::COUNT * Target::COUNT];

impl Plan {
    /// The plan for links that lose like `point` and groups with this target. Solved when first
    /// asked for.
    pub fn of(point: OperatingPoint, target: Target) -> &'static Self {
        let cell = &PLANS[point.index() * Target::COUNT + target.index()];
        cell.get_or_init(|| Box::new(Self::solve(point, target)))
    }

    /// Parity shards to send with a group of `k` packets, when the group can be helped `chances`
    /// times, this one included.
    pub fn upfront(&self, k: usize, chances: usize) -> usize {
        let k = k.min(MAX_DATA);
        match chances {
            _ if k == 0 => 0,
            0 | 1 => self.only[k - 1].into(),
            _ => self.repair(k, chances) - k,
        }
    }

    /// Shards to send for a group that lacks `lacking`, when it can be helped `chances` times,
    /// this one included. None without a chance.
    pub fn repair(&self, lacking: usize, chances: usize) -> usize {
        match (lacking.min(MAX_DATA), chances.min(MAX_CHANCES)) {
            (0, _) | (_, 0) => 0,
            (lacking, chances) => self.repair[chances - 1][lacking - 1].into(),
        }
    }
}

#[cfg(test)]
mod tests;
