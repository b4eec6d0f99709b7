//! What a relay's meters would say of a link, drawn from the link's model.
//!
//! Each figure is the truth as the meters of `proto/src/link/meter` smooth it, with the noise of
//! as many samples as they would have: delays follow within 100 ms (or eight samples), losses are
//! counted over ten seconds (or 64 outcomes), and a change of the loss counts once the outcomes
//! since then prove it.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tradewind_proto::link::meter::loss::{EVIDENCE, LEAST_OUTCOMES, MEMORY, PATIENCE};
use tradewind_proto::units::Timestamp;

use super::pipe::Pipe;
use crate::link::{LinkSpec, normal};

/// Smoothing of delays: so many seconds, or samples.
const SMOOTHING: f64 = 0.1;
const SMOOTHING_SAMPLES: f64 = 8.0;
/// The mean absolute deviation of a normal distribution, in standard deviations.
const MEAN_DEVIATION: f64 = 0.8;

/// Outcomes of transmissions.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    outcomes: f64,
    lost: f64,
}

impl Counted {
    fn loss(self) -> f64 {
        if self.outcomes > 0.0 { self.lost / self.outcomes } else { 0.0 }
    }
}

/// The estimates of one direction, kept by its sending end.
pub(super) struct Sense {
    rng: SmallRng,
    at: Timestamp,
    /// Seconds.
    pub(super) delay: f64,
    pub(super) jitter: f64,
    /// Deviation of the smoothed delay from the mean, in its standard deviations.
    noise: f64,
    held: Counted,
    /// Since the loss of the link changed.
    fresh: Counted,
    fresh_since: Timestamp,
    /// The loss of the link, last time.
    true_loss: f64,
    pub(super) burst: f64,
}

impl Sense {
    /// Has seen the link's first probes.
    pub(super) fn new(seed: u64, pipe: &Pipe, now: Timestamp) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            at: now,
            delay: pipe.delay(100.0),
            jitter: pipe.sigma() * MEAN_DEVIATION,
            noise: 0.0,
            held: Counted::default(),
            fresh: Counted::default(),
            fresh_since: now,
            true_loss: pipe.loss(),
            burst: 1.0,
        }
    }

    /// The share lost, as counted.
    pub(super) fn loss(&self) -> f64 {
        self.held.loss()
    }

    /// What was sent since the last call, at `beats` heartbeats a second beside the data, has been
    /// reported. A link that is down or has no neighbour behind it tells nothing.
    pub(super) fn observe(&mut self, pipe: &Pipe, beats: f64, now: Timestamp) {
        let span = now.since(self.at).as_secs_f64();
        self.at = now;
        let rate = pipe.load.pps() + beats;
        self.observe_delay(pipe, rate, span);
        self.observe_loss(pipe, rate, span, now);
    }

    fn observe_delay(&mut self, pipe: &Pipe, rate: f64, span: f64) {
        let size =
            if pipe.load.pps() > 0.0 { pipe.load.bps() / 8.0 / pipe.load.pps() } else { 100.0 };
        let memory = SMOOTHING.max(SMOOTHING_SAMPLES / rate.max(1e-3));
        let kept = (-span / memory).exp();
        self.delay = kept * self.delay + (1.0 - kept) * pipe.delay(size);
        let kept_deviation = (-span / (2.0 * memory)).exp();
        let sigma = pipe.sigma();
        let target = sigma * MEAN_DEVIATION;
        self.jitter = kept_deviation * self.jitter + (1.0 - kept_deviation) * target;
        if sigma > 0.0 {
            let fresh = (1.0 - kept * kept).sqrt();
            self.noise = kept * self.noise + fresh * normal(&mut self.rng);
        }
    }

    /// The smoothed delay with its noise, in microseconds.
    pub(super) fn smoothed_micros(&self, pipe: &Pipe, beats: f64) -> i64 {
        let sigma = pipe.sigma();
        if sigma == 0.0 {
            return (self.delay * 1e6).round() as i64;
        }
        // Means over `memory` of a process that forgets in `apart`.
        let rate = pipe.load.pps() + beats;
        let memory = SMOOTHING.max(SMOOTHING_SAMPLES / rate.max(1e-3));
        let apart = LinkSpec::JITTER_MEMORY.as_secs_f64().max(0.5 / rate.max(1e-3));
        let spread = sigma * (apart / (apart + memory)).sqrt();
        ((self.delay + self.noise * spread).max(0.0) * 1e6).round() as i64
    }

    fn observe_loss(&mut self, pipe: &Pipe, rate: f64, span: f64, now: Timestamp) {
        let loss = pipe.loss();
        if (loss - self.true_loss).abs() > 1e-9 {
            self.true_loss = loss;
            (self.fresh, self.fresh_since) = (Counted::default(), now);
        }
        if loss == 0.0 && self.held.lost < 1e-3 {
            (self.held, self.burst) = (Counted::default(), 1.0);
            return;
        }
        let outcomes = rate * span;
        let burst = pipe.burst(rate);
        let lost = self.draw_losses(outcomes * loss, burst).min(outcomes.max(1.0));
        let memory = MEMORY.as_secs_f64().max(f64::from(LEAST_OUTCOMES) / rate.max(1e-3));
        let kept = (-span / memory).exp();
        self.held.outcomes = self.held.outcomes * kept + outcomes;
        self.held.lost = self.held.lost * kept + lost;
        self.fresh.outcomes += outcomes;
        self.fresh.lost += lost;
        self.burst += (burst - self.burst) * (lost / burst / 32.0).min(1.0);
        let inflation = 2.0 * burst - 1.0;
        let before = Counted {
            outcomes: (self.held.outcomes - self.fresh.outcomes).max(0.0),
            lost: (self.held.lost - self.fresh.lost).max(0.0),
        };
        let improved = self.fresh.loss() < before.loss();
        let patient = !improved || now.since(self.fresh_since) >= PATIENCE;
        if patient && evidence(before, self.fresh) / inflation > EVIDENCE {
            self.held = self.fresh;
            self.fresh = Counted::default();
        }
    }

    /// How many are lost where `mean` are on average, in runs.
    fn draw_losses(&mut self, mean: f64, burst: f64) -> f64 {
        let runs = mean / burst;
        if runs > 30.0 {
            return (runs + runs.sqrt() * normal(&mut self.rng)).max(0.0) * burst;
        }
        let (limit, mut product, mut count) = ((-runs).exp(), self.rng.random::<f64>(), 0.0);
        while product > limit {
            product *= self.rng.random::<f64>();
            count += 1.0;
        }
        count * burst
    }
}

/// The logarithm of the likelihood ratio of "two losses" against "one" (as in the loss meter).
fn evidence(older: Counted, newer: Counted) -> f64 {
    let pooled =
        Counted { outcomes: older.outcomes + newer.outcomes, lost: older.lost + newer.lost }.loss();
    let term = |p: f64, q: f64| if p > 0.0 && q > 0.0 { p * (p / q).ln() } else { 0.0 };
    let nats = |part: Counted| {
        let p = part.loss().min(1.0);
        part.outcomes * (term(p, pooled) + term(1.0 - p, 1.0 - pooled))
    };
    nats(older) + nats(newer)
}
