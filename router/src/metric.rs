//! The metric: the time in which a link can be expected to deliver.
//!
//! One for all classes, per direction, in microseconds, so that it adds up along a path. Not only
//! distance counts: a packet that is lost comes a round trip later, one that is lost for good is worth
//! a long detour, and what is sent more than once fills links. What to expect of repair is what the
//! links' own recovery plans say. Each contribution is kept apart for explanations.

use std::iter::Sum;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tradewind_proto::link::plan::Expected;
use tradewind_proto::statement::LinkStatement;

/// A span of the metric in microseconds. Slightly negative where clocks are not quite known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(i64);

impl Cost {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `micros` microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Milliseconds, for people.
    pub fn ms(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// The span, which is at most [`MAX_TERM`].
    pub fn from_span(span: Duration) -> Self {
        Self(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)).min(MAX_TERM)
    }

    /// This share of it, rounded down.
    pub const fn percent(self, percent: i64) -> Self {
        Self(self.0 * percent / 100)
    }

    /// As a span of time; nothing if negative.
    pub fn span(self) -> Duration {
        Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }

    fn from_f64(micros: f64) -> Self {
        // `as` saturates, and takes what is not a number to 0.
        Self(micros as i64).clamp(Self::ZERO, MAX_TERM)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::ZERO, Self::add)
    }
}

/// As milliseconds.
impl Serialize for Cost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.ms())
    }
}

/// What one contribution of one link amounts to at most: 10 s. No path is that long; and sums
/// along a path stay far from the ends of 32 bits, which the searches compute with.
pub const MAX_TERM: Cost = Cost(10_000_000);
/// The least delay believed of a link: clocks are not known better than this, and a relay that
/// claims to be faster than time must not draw all traffic to itself.
const MIN_DELAY: Cost = Cost(-50_000);
/// What a further relay costs: LIMITS.md has 50 to 100 us median per hop and a p99 of 1 to 2 ms.
/// It also keeps noise in nearly equal delays from making detours.
const RELAY: Cost = Cost(250);
/// Jitter counts twice: a playout buffer that holds two mean deviations catches about nine packets
/// in ten of a Laplacian spread and leaves the rest to repair.
const JITTER_FACTOR: u32 = 2;
/// What a typical packet has left of its deadline beyond the propagation of its path: the time that
/// repair has.
const REPAIR_BUDGET: Duration = Duration::from_millis(100);
/// What a packet lost for good is worth: two seconds. At 1 % residual loss a way 20 ms longer wins.
const LOST_MICROS: f64 = 2_000_000.0;
/// What it is worth not to send a packet twice: a link that needs that carries half, for twice the
/// price, and has its delay in the hands of chance.
const TWICE_MICROS: f64 = 50_000.0;
/// From this share of its known capacity on, a link counts as filling up.
const BUSY: f64 = 0.8;
/// What a full link costs; it is approached as the queue of M/M/1 grows.
const FULL_MICROS: f64 = 200_000.0;

/// What links are weighed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// All of [`MetricTerms`].
    #[default]
    Expected,
    /// Half the smoothed round trip and what a relay costs, as the latency metric of RON (Andersen et
    /// al., SOSP 2001): neither loss nor jitter, load, direction or an operator's wish. For simulations,
    /// to compare; explanations tell the terms of the other all the same.
    RoundTrip,
}

impl Metric {
    /// What a link costs of which that is said, and that is what it is made of.
    pub fn cost(self, link: &LinkStatement, terms: &MetricTerms) -> Cost {
        match self {
            Self::Expected => terms.total(),
            Self::RoundTrip => Cost::from_span(link.rtt / 2) + RELAY,
        }
    }
}

/// What each thing contributes to the metric of a link, or summed up, of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetricTerms {
    /// One-way delay, in common time.
    #[serde(rename = "delay_ms")]
    pub delay: Cost,
    /// Margin for its variation: twice the smoothed deviation.
    #[serde(rename = "jitter_ms")]
    pub jitter: Cost,
    /// What repair adds to the delay of a packet on average, by the link's recovery plan.
    #[serde(rename = "recovery_ms")]
    pub recovery: Cost,
    /// Penalty for what repair can't mend in time, at 2 s per packet.
    #[serde(rename = "residual_loss_ms")]
    pub residual_loss: Cost,
    /// Penalty for what repair sends, at 50 ms per shard and packet.
    #[serde(rename = "redundancy_ms")]
    pub redundancy: Cost,
    /// Penalty near the known capacity: none up to 80 %.
    #[serde(rename = "capacity_ms")]
    pub capacity: Cost,
    /// What passing one more relay costs.
    #[serde(rename = "relay_ms")]
    pub relay: Cost,
    /// What the operator adds.
    #[serde(rename = "operator_ms")]
    pub operator: Cost,
}

impl MetricTerms {
    /// The terms of one direction of a link.
    pub fn of(link: &LinkStatement) -> Self {
        let expected = expected(link);
        Self {
            delay: Cost(i64::from(link.delay_micros)).clamp(MIN_DELAY, MAX_TERM),
            jitter: Cost::from_span(link.jitter.saturating_mul(JITTER_FACTOR)),
            recovery: Cost::from_span(expected.delay),
            residual_loss: Cost::from_f64(expected.residual * LOST_MICROS),
            redundancy: Cost::from_f64((expected.shards - 1.0) * TWICE_MICROS),
            capacity: near_capacity(link.load_kbps, link.capacity_kbps),
            relay: RELAY,
            operator: Cost::from_span(link.cost),
        }
    }

    /// The metric: their sum.
    pub fn total(&self) -> Cost {
        let Self { delay, jitter, recovery, residual_loss, redundancy, capacity, relay, operator } =
            *self;
        delay + jitter + recovery + residual_loss + redundancy + capacity + relay + operator
    }

    /// Propagation with its margin: what a hop must reserve for the link.
    pub fn propagation(&self) -> Cost {
        self.delay + self.jitter
    }
}

impl Sum for MetricTerms {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::default(), |a, b| Self {
            delay: a.delay + b.delay,
            jitter: a.jitter + b.jitter,
            recovery: a.recovery + b.recovery,
            residual_loss: a.residual_loss + b.residual_loss,
            redundancy: a.redundancy + b.redundancy,
            capacity: a.capacity + b.capacity,
            relay: a.relay + b.relay,
            operator: a.operator + b.operator,
        })
    }
}

/// What to expect of repair on a link. Hostile statements are as good as any: see [`Expected::of`].
pub(crate) fn expected(link: &LinkStatement) -> Expected {
    Expected::of(link.loss, link.burst, link.rtt, REPAIR_BUDGET)
}

/// Nothing while a link is not busy or its capacity unknown; then as the queue of M/M/1 grows,
/// scaled to [`FULL_MICROS`] at 99 %.
fn near_capacity(load_kbps: u32, capacity_kbps: u32) -> Cost {
    if capacity_kbps == 0 {
        return Cost::ZERO;
    }
    let used = (f64::from(load_kbps) / f64::from(capacity_kbps)).min(0.99);
    let queue = |used: f64| used / (1.0 - used);
    let share = (queue(used) - queue(BUSY)) / (queue(0.99) - queue(BUSY));
    Cost::from_f64(share * FULL_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> LinkStatement {
        LinkStatement {
            to: Default::default(),
            up: true,
            delay_micros: 20_000,
            jitter: Duration::ZERO,
            rtt: Duration::from_millis(40),
            loss: 0.0,
            burst: 1.0,
            capacity_kbps: 0,
            load_kbps: 5_000,
            cost: Duration::ZERO,
            max_packet: 1_402,
        }
    }

    fn total_ms(link: LinkStatement) -> f64 {
        MetricTerms::of(&link).total().ms()
    }

    #[test]
    fn a_clean_link_costs_its_delay_and_the_relay() {
        assert_eq!(total_ms(link()), 20.25);
        assert_eq!(total_ms(LinkStatement { delay_micros: -300, ..link() }), -0.05);
    }

    #[test]
    fn of_the_round_trip_alone_no_trouble_is_seen() {
        let cost =
            |link: LinkStatement| Metric::RoundTrip.cost(&link, &MetricTerms::of(&link)).ms();
        let bad = LinkStatement {
            delay_micros: 35_000,
            jitter: Duration::from_millis(9),
            loss: 0.3,
            capacity_kbps: 5_000,
            cost: Duration::from_millis(50),
            ..link()
        };
        assert!(total_ms(bad) > 100.0);
        assert_eq!(cost(bad), 20.25);
        assert_eq!(cost(LinkStatement { rtt: Duration::from_millis(30), ..bad }), 15.25);
    }

    #[test]
    fn each_trouble_costs_more_the_worse_it_is() {
        type Set = fn(&mut LinkStatement, f32);
        let troubles: [(&str, Set); 5] = [
            ("loss", |link, x| link.loss = x),
            ("jitter", |link, x| link.jitter = Duration::from_secs_f32(x)),
            ("load", |link, x| {
                (link.capacity_kbps, link.load_kbps) = (1_000, 800 + (x * 190.0) as u32)
            }),
            ("operator", |link, x| link.cost = Duration::from_secs_f32(x)),
            ("bursts", |link, x| (link.loss, link.burst) = (0.2, 1.0 + x * 10.0)),
        ];
        for (name, set) in troubles {
            let at = |x| {
                let mut link = link();
                set(&mut link, x);
                total_ms(link)
            };
            let costs = [0.0, 0.1, 0.3, 0.6, 0.9].map(at);
            assert!(costs.windows(2).all(|pair| pair[0] < pair[1]), "{name}: {costs:?}");
        }
    }

    #[test]
    fn losses_cost_what_the_recovery_plan_expects() {
        // 100 ms hold two repairs at a round trip of 40 ms, and none at one of 150 ms.
        let at = |loss, rtt| {
            let rtt = Duration::from_millis(rtt);
            MetricTerms::of(&LinkStatement { loss, rtt, ..link() })
        };
        let near = at(0.2, 40);
        assert!((5.0..15.0).contains(&near.recovery.ms()), "{near:?}");
        assert!((10.0..25.0).contains(&near.redundancy.ms()), "{near:?}");
        assert!(near.residual_loss.ms() < 0.1, "{near:?}");
        let far = at(0.2, 400);
        assert!(far.redundancy > near.redundancy, "parity in place of time: {far:?}");
        // A shard more in a thousand, of which a few wait for 50 ms.
        assert!((0.05..0.2).contains(&at(0.001, 40).recovery.ms()));
        assert!(at(0.9, 40).residual_loss.ms() > 500.0);
    }

    #[test]
    fn a_little_more_loss_costs_a_little_more() {
        let at = |step: u32| {
            let link = LinkStatement { loss: step as f32 / 1_000.0, burst: 2.0, ..link() };
            MetricTerms::of(&link).total()
        };
        // So no noise in a measurement makes routes move: they do for 5 ms.
        for step in 0..400 {
            let more = at(step + 1) - at(step);
            assert!((Cost::ZERO..Cost(1_000)).contains(&more), "from {step} per mille: {more:?}");
        }
    }

    #[test]
    fn what_nobody_should_say_does_not_break_the_sum() {
        let odd = LinkStatement {
            delay_micros: i32::MIN,
            jitter: Duration::MAX,
            rtt: Duration::MAX,
            loss: f32::NAN,
            burst: f32::INFINITY,
            capacity_kbps: 1,
            load_kbps: u32::MAX,
            cost: Duration::MAX,
            ..link()
        };
        let total = MetricTerms::of(&odd).total();
        assert!(total > Cost::ZERO && total < Cost(8 * MAX_TERM.0), "{total:?}");
        for loss in [2.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE] {
            for burst in [f32::NAN, f32::NEG_INFINITY, 0.0, 1e30] {
                let total = MetricTerms::of(&LinkStatement { loss, burst, ..odd }).total();
                assert!(total > Cost::ZERO && total < Cost(8 * MAX_TERM.0), "{loss}, {burst}");
            }
        }
    }
}
