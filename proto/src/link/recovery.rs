//! How a link makes up for losses: as the plan says, or in ways to compare it with.

use super::code::MAX_PARITY;
use super::plan::Plan;

/// How a link makes up for losses. Relays in use follow the plan; the others are there to compare
/// it with, and constrain it: everything else on the link stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Recovery {
    /// Parity and repeats as [`plan`](super::plan) says.
    #[default]
    Plan,
    /// Nothing up front; what is known to be lost is sent again, shard for shard, while that helps.
    ArqOnly,
    /// So many parity shards per packet follow each group at once, at least one; nothing is sent again.
    FixedFec {
        /// Above 0; as many as the packets at 1.
        parity: f64,
    },
    /// What is lost is lost.
    None,
}

impl Recovery {
    /// Whether anything is sent again.
    pub fn repeats(self) -> bool {
        matches!(self, Self::Plan | Self::ArqOnly)
    }

    /// Parity shards to send with a group of `k` packets that can be helped `chances` times, this one
    /// included.
    pub fn upfront(self, plan: &Plan, k: usize, chances: usize) -> usize {
        match self {
            Self::Plan => plan.upfront(k, chances),
            Self::FixedFec { parity } => ((k as f64 * parity).ceil() as usize).min(MAX_PARITY),
            Self::ArqOnly | Self::None => 0,
        }
    }

    /// Shards to send for a group that lacks `lacking` and can be helped `chances` times, this one
    /// included.
    pub fn repair(self, plan: &Plan, lacking: usize, chances: usize) -> usize {
        match self {
            Self::Plan => plan.repair(lacking, chances),
            Self::ArqOnly if chances > 0 => lacking,
            _ => 0,
        }
    }
}
