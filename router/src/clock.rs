//! One-way delays without synchronised clocks.
//!
//! A one-way delay as two clocks show it is true delay + (receiver's offset - sender's). Along a
//! path the offsets of the relays between cancel, so the order of all paths between the same two
//! relays is right whatever the clocks say. Where absolute figures are wanted, each relay states a
//! *clock coordinate*: the least-squares solution, over its links, of "half the difference of the
//! two directions is clocks, not distance", found by every relay averaging over its neighbours as
//! in Vivaldi (Dabek et al., SIGCOMM 2004). With it, [`normalised`] delays look like RTT/2 and
//! still rank paths as the raw ones do.

mod agreement;

use std::time::Duration;

use tradewind_proto::statement::ClockCoordinate;
use tradewind_proto::units::{PopKey, Timestamp};

pub use agreement::Times;

/// The fastest that a settled coordinate moves: 1 ms a second. Relays state their delays at
/// different times; a coordinate that jumped would bend the delays of one path against each other.
pub const SLEW_PPM: i64 = 1_000;
/// An error beyond this is a wrong clock, not noise, and is stepped over: NTP's step threshold
/// (RFC 5905, STEPT).
const STEP_MICROS: i64 = 128_000;
/// For so long after its first sample a relay is new and follows its neighbours without limit.
const YOUNG: Duration = Duration::from_secs(10);
/// Drift is judged over spans of this length.
const DRIFT_SPAN: Duration = Duration::from_secs(16);
/// No quartz is further off than this; NTP allows the same (RFC 5905, MAXFREQ).
const MAX_DRIFT_PPB: i64 = 500_000;
/// The furthest that two clocks are taken to be apart: ten years.
const MAX_OFFSET_MICROS: i64 = 315_360_000_000_000;

/// What one link says of two clocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockSample {
    /// The neighbour.
    pub peer: PopKey,
    /// The neighbour's coordinate, as it last stated it.
    pub theirs: ClockCoordinate,
    /// Delay towards the neighbour as the clocks show it, in microseconds.
    pub raw_tx: i64,
    /// Delay from the neighbour as the clocks show it, in microseconds.
    pub raw_rx: i64,
    /// The link's round trip.
    pub rtt: Duration,
}

impl ClockSample {
    /// How far the neighbour's clock seems to be ahead of ours.
    fn ahead(&self) -> i64 {
        let half = self.raw_tx.saturating_sub(self.raw_rx) / 2;
        half.clamp(-MAX_OFFSET_MICROS, MAX_OFFSET_MICROS)
    }

    /// How much it counts: distant neighbours are more likely to differ between directions.
    fn weight(&self) -> f64 {
        1.0 / self.rtt.as_secs_f64().max(0.001)
    }

    /// What our offset would be if this link were symmetric. `None` without a stated coordinate.
    fn wanted_offset(&self, now: Timestamp) -> Option<i64> {
        let theirs_now =
            Timestamp::from_micros(now.as_micros().saturating_add_signed(self.ahead()));
        is_stated(&self.theirs).then(|| offset_at(&self.theirs, theirs_now) - self.ahead())
    }
}

/// Keeps this relay's clock coordinate.
#[derive(Clone, Debug, Default)]
pub struct ClockEstimator {
    state: Option<Settled>,
}

#[derive(Clone, Copy, Debug)]
struct Settled {
    coordinate: ClockCoordinate,
    /// When the first coordinate of a neighbour came in; until then there is nothing to follow.
    followed_since: Option<Timestamp>,
    /// Movement beyond the drift since `span_began`.
    moved: i64,
    span_began: Timestamp,
}

impl ClockEstimator {
    /// An estimator that has no coordinate to state yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the coordinate towards what the links say; about once a second.
    ///
    /// The first call settles it at once: on the neighbours' common time if any states one, else
    /// on our own clock. Later calls go half of the way, so that two relays which follow each
    /// other meet, and once no longer new at most at [`SLEW_PPM`].
    pub fn update(&mut self, samples: &[ClockSample], now: Timestamp) {
        let target = weighted_mean(samples, now);
        match &mut self.state {
            None => self.state = Some(Settled::first(target, now)),
            Some(settled) => settled.follow(target, now),
        }
    }

    /// Whether our time and the neighbour's may be the same: they are apart by no more than the
    /// link's two directions can differ. So it is as long as one of the two has no time.
    pub fn agrees(&self, sample: &ClockSample, now: Timestamp) -> bool {
        let own = self.state.map(|settled| settled.at(now).offset_micros);
        let apart = own.zip(sample.wanted_offset(now)).map(|(own, wanted)| wanted - own);
        apart.is_none_or(|apart| agreement::plausible(apart, sample.rtt))
    }

    /// Takes over the neighbour's time, all at once.
    pub fn adopt(&mut self, sample: &ClockSample, now: Timestamp) {
        if let Some(offset) = sample.wanted_offset(now) {
            self.state = Some(Settled::first(Some(offset), now));
        }
    }

    /// What to state at `now`. Before the first update it is [`ClockCoordinate::default`], which
    /// says nothing.
    pub fn coordinate(&self, now: Timestamp) -> ClockCoordinate {
        self.state.map_or_else(ClockCoordinate::default, |settled| settled.at(now))
    }
}

impl Settled {
    fn first(target: Option<i64>, now: Timestamp) -> Self {
        let offset_micros = target.unwrap_or(0);
        Self {
            coordinate: ClockCoordinate { at: now, offset_micros, drift_ppb: 0 },
            followed_since: target.map(|_| now),
            moved: 0,
            span_began: now,
        }
    }

    fn at(&self, now: Timestamp) -> ClockCoordinate {
        ClockCoordinate {
            at: now,
            offset_micros: offset_at(&self.coordinate, now),
            ..self.coordinate
        }
    }

    fn follow(&mut self, target: Option<i64>, now: Timestamp) {
        let elapsed = now.since(self.coordinate.at);
        self.coordinate = self.at(now);
        let Some(target) = target else { return };
        let young = now.since(*self.followed_since.get_or_insert(now)) < YOUNG;
        let error = target - self.coordinate.offset_micros;
        let free = young || error.abs() > STEP_MICROS;
        let limit = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX) / (1_000_000 / SLEW_PPM);
        let step = if free { error / 2 } else { (error / 2).clamp(-limit, limit) };
        self.coordinate.offset_micros += step;
        if free {
            (self.moved, self.span_began) = (0, now);
        } else {
            self.moved += step;
            self.judge_drift(now);
        }
    }

    /// What had to be corrected all the time is drift. A quarter of it at a time: the neighbours
    /// correct theirs as well.
    fn judge_drift(&mut self, now: Timestamp) {
        let span = now.since(self.span_began);
        if span < DRIFT_SPAN {
            return;
        }
        let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let drift = i64::from(self.coordinate.drift_ppb) + self.moved * 1_000 / seconds / 4;
        let drift = drift.clamp(-MAX_DRIFT_PPB, MAX_DRIFT_PPB);
        self.coordinate.drift_ppb = i32::try_from(drift).unwrap_or_default();
        (self.moved, self.span_began) = (0, now);
    }
}

/// The least-squares solution for our offset, the neighbours' held fixed.
fn weighted_mean(samples: &[ClockSample], now: Timestamp) -> Option<i64> {
    let wanted = |sample: &ClockSample| Some((sample.wanted_offset(now)?, sample.weight()));
    let wanted: Vec<(i64, f64)> = samples.iter().filter_map(wanted).collect();
    // Relative to the first: an f64 has no microseconds left at large offsets.
    let origin = wanted.first()?.0;
    let (sum, weights) = wanted.iter().fold((0.0, 0.0), |(sum, weights), (offset, weight)| {
        (sum + (offset - origin) as f64 * weight, weights + weight)
    });
    Some(origin + (sum / weights) as i64)
}

fn is_stated(coordinate: &ClockCoordinate) -> bool {
    coordinate.at != Timestamp::ZERO
}

/// The offset at `now` on the clock of the relay that stated it.
fn offset_at(coordinate: &ClockCoordinate, now: Timestamp) -> i64 {
    let elapsed = now.micros_after(coordinate.at).clamp(-MAX_OFFSET_MICROS, MAX_OFFSET_MICROS);
    let drifted = i128::from(elapsed) * i128::from(coordinate.drift_ppb) / 1_000_000_000;
    let drifted = i64::try_from(drifted).unwrap_or_default();
    coordinate.offset_micros.clamp(-MAX_OFFSET_MICROS, MAX_OFFSET_MICROS) + drifted
}

/// A delay towards a neighbour in common time: `raw` (arrival on its clock less departure on ours)
/// corrected by both coordinates at `now` on our clock. Microseconds; cut to what an `i32` holds.
pub fn normalised(
    raw: i64,
    own: &ClockCoordinate,
    theirs: &ClockCoordinate,
    now: Timestamp,
) -> i32 {
    let own_offset = if is_stated(own) { offset_at(own, now) } else { 0 };
    let common = now.as_micros().saturating_add_signed(-own_offset);
    let theirs_offset = if is_stated(theirs) {
        let theirs_now = common.saturating_add_signed(
            theirs.offset_micros.clamp(-MAX_OFFSET_MICROS, MAX_OFFSET_MICROS),
        );
        offset_at(theirs, Timestamp::from_micros(theirs_now))
    } else {
        0
    };
    let delay = raw.saturating_add(own_offset).saturating_sub(theirs_offset);
    delay.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests;
