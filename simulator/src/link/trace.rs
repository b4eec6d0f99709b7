//! Links as they were measured: rates and delays that change over time, from a trace that repeats.

use std::time::Duration;

/// Why a series makes no trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Nothing in it.
    #[error("a trace needs at least two times, one later than the other")]
    Short,
    /// Nothing would ever get through.
    #[error("a trace that never carries anything is a cut link: use an [[event]]")]
    Still,
    /// Time went back.
    #[error("row {row} of the trace is not later than the one before")]
    Backwards {
        /// Counted from 1.
        row: usize,
    },
}

impl TraceError {
    /// The line of a file with a line of names above the rows.
    pub fn row(self) -> Option<usize> {
        match self {
            Self::Backwards { row } => Some(row + 1),
            Self::Short | Self::Still => None,
        }
    }
}

/// What a link can carry over time, as the bits that it could have carried since its trace began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateTrace {
    /// Microseconds since the start and the bits until then, both rising.
    points: Vec<(u64, u64)>,
    /// In between, bits come evenly; else all at once, at the points.
    even: bool,
    /// Microseconds after which it repeats.
    period: u64,
    /// Bits of one period.
    bits: u64,
}

impl RateTrace {
    /// What one chance carries, in bits: 1,500 bytes (mahimahi, Netravali et al., USENIX ATC 2015).
    pub const CHANCE_BITS: u64 = 12_000;

    /// Chances to send 1,500 bytes each, in milliseconds, none before the one in front of it; they
    /// repeat after the last.
    ///
    /// # Errors
    ///
    /// No chance later than 0.
    pub fn of_chances(millis: &[u64]) -> Result<Self, TraceError> {
        let mut points: Vec<(u64, u64)> = Vec::new();
        for (at, bits) in millis.iter().zip((1..).map(|n| n * Self::CHANCE_BITS)) {
            match points.last_mut() {
                Some(last) if last.0 == at * 1_000 => last.1 = bits,
                _ => points.push((at * 1_000, bits)),
            }
        }
        match points.last() {
            Some(&(period, bits)) if period > 0 => Ok(Self { points, even: false, period, bits }),
            _ => Err(TraceError::Short),
        }
    }

    /// Rates in bits per second from given microseconds on; the last holds as long as the one
    /// before it.
    ///
    /// # Errors
    ///
    /// Times that don't rise, no two of them, nothing but zeros.
    pub fn of_steps(steps: &[(u64, u64)]) -> Result<Self, TraceError> {
        let (first, period) = period(steps.iter().map(|step| step.0))?;
        let ends = steps[1..].iter().map(|step| step.0 - first).chain([period]);
        let mut points = vec![(0, 0)];
        let (mut before, mut bits) = (0, 0);
        for (&(_, rate), end) in steps.iter().zip(ends) {
            bits += (u128::from(rate) * u128::from(end - before) / 1_000_000) as u64;
            points.push((end, bits));
            before = end;
        }
        match bits {
            0 => Err(TraceError::Still),
            bits => Ok(Self { points, even: true, period, bits }),
        }
    }

    /// The rate over a whole period, in bits per second.
    pub fn mean(&self) -> u64 {
        let rate = u128::from(self.bits) * 1_000_000 / u128::from(self.period);
        u64::try_from(rate).unwrap_or(u64::MAX).max(1)
    }

    /// The bits that could have been carried before `micros`.
    pub(super) fn carried(&self, micros: u64) -> u128 {
        // What comes at an instant is there for those who ask at that instant.
        let Some(micros) = micros.checked_sub(if self.even { 0 } else { 1 }) else { return 0 };
        let (round, at) = (micros / self.period, micros % self.period);
        let next = self.points.partition_point(|point| point.0 <= at);
        let within = match (next.checked_sub(1).map(|last| self.points[last]), self.even) {
            (None, _) => 0,
            (Some((_, bits)), false) => u128::from(bits),
            (Some(last), true) => {
                let Some(&next) = self.points.get(next) else { return u128::from(self.bits) };
                let share = u128::from(next.1 - last.1) * u128::from(at - last.0);
                u128::from(last.1) + share / u128::from(next.0 - last.0)
            }
        };
        u128::from(round) * u128::from(self.bits) + within
    }

    /// The microsecond at which so many bits have been carried, 1 at least.
    pub(super) fn when(&self, bits: u128) -> u64 {
        let all = u128::from(self.bits);
        let (round, rest) = ((bits - 1) / all, (bits - 1) % all + 1);
        let next = self.points.partition_point(|point| u128::from(point.1) < rest);
        let (end, until) = self.points[next.min(self.points.len() - 1)];
        let within = match next.checked_sub(1).filter(|_| self.even) {
            None => u128::from(end),
            Some(last) => {
                let (start, from) = self.points[last];
                let share = (rest - u128::from(from)) * u128::from(end - start);
                u128::from(start) + share.div_ceil(u128::from(until - from))
            }
        };
        u64::try_from(round * u128::from(self.period) + within).unwrap_or(u64::MAX)
    }
}

/// How long packets took and how many were lost, over time.
#[derive(Clone, Debug, PartialEq)]
pub struct DelayTrace {
    /// Microseconds since the start, what a packet takes from then on in microseconds, the share lost.
    rows: Vec<(u64, u32, f32)>,
    period: u64,
}

impl DelayTrace {
    /// From rows of a time in microseconds, what a packet takes one way from then on in
    /// microseconds, and the share lost, 0 to 1. The last holds as long as the one before it.
    ///
    /// # Errors
    ///
    /// Times that don't rise, or no two of them.
    pub fn new(rows: &[(u64, u32, f32)]) -> Result<Self, TraceError> {
        let (first, period) = period(rows.iter().map(|row| row.0))?;
        let rows = rows.iter().map(|&(at, delay, loss)| (at - first, delay, loss)).collect();
        Ok(Self { rows, period })
    }

    /// What a packet takes that is sent `micros` after the start, and its chance of being lost.
    pub fn at(&self, micros: u64) -> (Duration, f64) {
        let next = self.rows.partition_point(|row| row.0 <= micros % self.period);
        let (_, delay, loss) = self.rows[next.saturating_sub(1)];
        (Duration::from_micros(delay.into()), loss.into())
    }

    /// The delay over a whole period.
    pub fn mean_delay(&self) -> Duration {
        Duration::from_micros(self.mean(|row| row.1.into()) as u64)
    }

    /// The share lost over a whole period, 0 to 1.
    pub fn mean_loss(&self) -> f64 {
        self.mean(|row| row.2.into())
    }

    fn mean(&self, of: impl Fn(&(u64, u32, f32)) -> f64) -> f64 {
        let ends = self.rows[1..].iter().map(|row| row.0).chain([self.period]);
        let parts = self.rows.iter().zip(ends).map(|(row, end)| of(row) * (end - row.0) as f64);
        parts.sum::<f64>() / self.period as f64
    }
}

/// The first of some times that rise, and for how long they hold.
fn period(times: impl Iterator<Item = u64> + Clone) -> Result<(u64, u64), TraceError> {
    let pairs = || times.clone().zip(times.clone().skip(1));
    if let Some(row) = pairs().position(|(before, after)| before >= after) {
        return Err(TraceError::Backwards { row: row + 2 });
    }
    let (Some(first), Some((before, last))) = (times.clone().next(), pairs().last()) else {
        return Err(TraceError::Short);
    };
    Ok((first, last - first + (last - before)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chances_come_at_their_millisecond_and_repeat() {
        let trace = RateTrace::of_chances(&[0, 5, 5, 10]).unwrap();
        assert_eq!(trace.mean(), 4_800_000);
        let chance = u128::from(RateTrace::CHANCE_BITS);
        for (n, at) in [(1, 0), (2, 5), (3, 5), (4, 10), (5, 10), (6, 15), (8, 20)] {
            assert_eq!(trace.when(n * chance), at * 1_000, "chance {n}");
            assert_eq!(trace.when((n - 1) * chance + 1), at * 1_000, "chance {n}");
        }
        for (micros, chances) in [(0, 0), (1, 1), (5_000, 1), (5_001, 3), (10_000, 3), (10_001, 5)]
        {
            assert_eq!(trace.carried(micros), chances * chance, "{micros}");
        }
    }

    #[test]
    fn steps_hold_until_the_next_and_repeat() {
        let (one, two) = (1_000_000, 2_000_000);
        let trace = RateTrace::of_steps(&[(7, one), (1_000_007, 0), (2_000_007, two)]).unwrap();
        assert_eq!((trace.period, trace.mean()), (3_000_000, 1_000_000));
        assert_eq!(trace.carried(500_000), 500_000);
        assert_eq!(trace.carried(1_700_000), 1_000_000);
        assert_eq!(trace.carried(3_500_000), 3_500_000);
        assert_eq!(trace.when(1_000_000), 1_000_000);
        assert_eq!(trace.when(1_000_002), 2_000_001);
        assert_eq!(trace.when(3_500_000), 3_500_000);
    }

    #[test]
    fn delays_hold_until_the_next_and_repeat() {
        let trace = DelayTrace::new(&[(50, 10, 0.0), (60, 30, 0.5), (70, 20, 0.0)]).unwrap();
        for (at, delay, loss) in
            [(0, 10, 0.0), (9, 10, 0.0), (10, 30, 0.5), (29, 20, 0.0), (30, 10, 0.0)]
        {
            assert_eq!(trace.at(at), (Duration::from_micros(delay), loss), "{at}");
        }
        assert_eq!(trace.mean_delay(), Duration::from_micros(20));
        assert!((trace.mean_loss() - 0.5 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn series_that_make_no_trace_are_refused() {
        assert_eq!(RateTrace::of_chances(&[]), Err(TraceError::Short));
        assert_eq!(RateTrace::of_chances(&[0, 0]), Err(TraceError::Short));
        assert_eq!(RateTrace::of_steps(&[(0, 5)]), Err(TraceError::Short));
        assert_eq!(RateTrace::of_steps(&[(0, 0), (9, 0)]), Err(TraceError::Still));
        let error = TraceError::Backwards { row: 3 };
        assert_eq!(RateTrace::of_steps(&[(0, 1), (9, 1), (9, 1)]), Err(error));
        assert_eq!(DelayTrace::new(&[(0, 1, 0.0), (9, 1, 0.0), (8, 1, 0.0)]), Err(error));
    }

    proptest! {
        #[test]
        fn what_is_carried_at_a_time_is_carried_by_that_time(
            gaps in prop::collection::vec((1..5_000u64, 0..3_000_000u64), 2..40),
            even: bool,
            bits in 1..100_000_000u64,
        ) {
            let mut at = 0;
            let steps: Vec<_> = gaps.iter().map(|(gap, rate)| { at += gap; (at, *rate) }).collect();
            let trace = match even {
                true => RateTrace::of_steps(&steps),
                false => RateTrace::of_chances(&steps.iter().map(|step| step.0).collect::<Vec<_>>()),
            };
            prop_assume!(trace.is_ok());
            let (trace, bits) = (trace.unwrap(), u128::from(bits));
            let when = trace.when(bits);
            // By then there is room for them, and a moment before there was not.
            prop_assert!(trace.carried(when + 1) >= bits, "{} < {bits}", trace.carried(when + 1));
            prop_assert!(when == 0 || trace.carried(when - 1) < bits);
        }
    }
}
