//! Which packets a link loses: independently, or in bursts.
//!
//! Bursts follow the two-state Markov chain of Gilbert (Bell System Technical Journal 39, 1960)
//! and Elliott (42, 1963), as `tc netem loss gemodel` has it: a good and a bad state, each with a
//! loss rate of its own. It steps with every packet, or flows with time when the length of a burst
//! is given as a time.

use std::time::Duration;

use rand::Rng;
use tradewind_proto::units::Timestamp;

/// A loss process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// Nothing is lost.
    #[default]
    None,
    /// Each packet by itself, with this probability.
    Independent(f64),
    /// In bursts, counted in packets.
    Chain(Chain),
    /// In bursts that last a time: a share of time in which everything is lost.
    Outages {
        /// The share of time, 0 to 1.
        share: f64,
        /// How long an outage lasts on average.
        mean: Duration,
    },
}

/// The four numbers of `gemodel`, each a probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chain {
    /// From good to bad, per packet.
    pub p: f64,
    /// From bad to good, per packet; above 0.
    pub r: f64,
    /// Loss in the bad state (netem's `1-h`).
    pub bad: f64,
    /// Loss in the good state (netem's `1-k`).
    pub good: f64,
}

impl Loss {
    /// Loses the share `rate` of all packets, in runs of `burst` packets on average.
    ///
    /// # Errors
    ///
    /// A rate outside 0 to 1, or a burst that no chain has at that rate: shorter than one packet,
    /// or so short that the good packets between the bursts would be fewer than one.
    pub fn in_bursts(rate: f64, burst: f64) -> Result<Self, LossError> {
        Self::independent(rate)?;
        let shortest = (rate / (1.0 - rate)).max(1.0);
        if !burst.is_finite() || burst < shortest {
            return Err(LossError::Burst { rate, burst, shortest });
        }
        let r = 1.0 / burst;
        Ok(Self::Chain(Chain { p: r * rate / (1.0 - rate), r, bad: 1.0, good: 0.0 }))
    }

    /// Loses everything for the share `share` of the time, in outages of `mean` on average.
    ///
    /// # Errors
    ///
    /// A share that is not one, or is all of the time; a mean of zero.
    pub fn outages(share: f64, mean: Duration) -> Result<Self, LossError> {
        Self::independent(share)?;
        if share >= 1.0 || mean.is_zero() {
            return Err(LossError::Outage { share, mean });
        }
        Ok(Self::Outages { share, mean })
    }

    /// Loses the share `rate` of all packets, each by itself.
    ///
    /// # Errors
    ///
    /// A rate outside 0 to 1.
    pub fn independent(rate: f64) -> Result<Self, LossError> {
        match rate {
            0.0 => Ok(Self::None),
            rate if (0.0..=1.0).contains(&rate) => Ok(Self::Independent(rate)),
            rate => Err(LossError::Share(rate)),
        }
    }

    /// The same with the share `extra` of what passes lost as well: packet by packet, and in outages
    /// as more of them.
    pub fn and_independent(self, extra: f64) -> Self {
        let both = |loss: f64| 1.0 - (1.0 - loss) * (1.0 - extra);
        match self {
            _ if extra == 0.0 => self,
            Self::None => Self::Independent(extra),
            Self::Independent(loss) => Self::Independent(both(loss)),
            Self::Chain(chain) => {
                Self::Chain(Chain { bad: both(chain.bad), good: both(chain.good), ..chain })
            }
            Self::Outages { share, mean } => Self::Outages { share: both(share), mean },
        }
    }

    /// The share of packets lost in the long run.
    pub fn rate(&self) -> f64 {
        match *self {
            Self::None => 0.0,
            Self::Independent(rate) | Self::Outages { share: rate, .. } => rate,
            Self::Chain(Chain { p, r, bad, good }) => (p * bad + r * good) / (p + r),
        }
    }
}

/// Why numbers describe no loss process.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum LossError {
    /// Not a share.
    #[error("a loss of {0} is not between 0 and 1")]
    Share(f64),
    /// Too short a burst for that loss.
    #[error("a loss of {rate} in runs of {burst} packets is impossible: {shortest:.2} at least")]
    Burst {
        /// The loss asked for.
        rate: f64,
        /// The mean run asked for.
        burst: f64,
        /// The shortest that is possible.
        shortest: f64,
    },
    /// Outages without end or without length.
    #[error("outages of {mean:?} can't make up {share} of the time")]
    Outage {
        /// The share asked for.
        share: f64,
        /// The mean length asked for.
        mean: Duration,
    },
}

/// Where a loss process stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LossState {
    bad: bool,
    /// The last packet's time, `None` before the first.
    at: Option<Timestamp>,
}

impl LossState {
    /// Whether the packet sent now is lost.
    pub(super) fn next(&mut self, loss: &Loss, now: Timestamp, rng: &mut impl Rng) -> bool {
        match *loss {
            Loss::None => false,
            Loss::Independent(rate) => rng.random_bool(rate),
            Loss::Chain(chain) => self.next_of_chain(&chain, rng),
            Loss::Outages { share, mean } => self.next_in_time(share, mean, now, rng),
        }
    }

    fn next_of_chain(&mut self, chain: &Chain, rng: &mut impl Rng) -> bool {
        let flips = rng.random_bool(if self.bad { chain.r } else { chain.p }.min(1.0));
        self.bad ^= flips;
        rng.random_bool(if self.bad { chain.bad } else { chain.good })
    }

    /// The chain in continuous time: its state relaxes to the long-run share at the sum of both
    /// rates, so it can be drawn for any distance in time.
    fn next_in_time(
        &mut self,
        share: f64,
        mean: Duration,
        now: Timestamp,
        rng: &mut impl Rng,
    ) -> bool {
        let memory = self.at.map_or(0.0, |at| {
            let bad = mean.as_secs_f64();
            let relaxation = bad * (1.0 - share);
            (-now.since(at).as_secs_f64() / relaxation).exp()
        });
        self.at = Some(now);
        let before = f64::from(u8::from(self.bad));
        self.bad = rng.random_bool((share + (before - share) * memory).clamp(0.0, 1.0));
        self.bad
    }
}
