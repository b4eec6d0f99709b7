//! What several seeds say together.

use serde::Serialize;

use crate::outcome::Outcome;
use crate::traffic::FlowReport;

/// The figures of one run, over all its flows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Share of all packets sent that arrived in time.
    pub in_time_percent: f64,
    /// Median delay of what arrived; `None` if nothing did.
    pub delay_median_ms: Option<f64>,
    /// The 99th percentile of the same.
    pub delay_p99_ms: Option<f64>,
    /// The longest time that a flow was without a delivery in time.
    pub longest_gap_ms: f64,
    /// Bytes on one link for each payload byte that crossed it.
    pub wire_per_crossing: f64,
}

impl Figures {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// Their names in CSV and JSON.
    pub const NAMES: [&str; Self::COUNT] = [
        "in_time_percent",
        "delay_median_ms",
        "delay_p99_ms",
        "longest_gap_ms",
        "wire_per_crossing",
    ];
    /// Their titles in tables and plots.
    pub const TITLES: [&str; Self::COUNT] =
        ["in time %", "median ms", "p99 ms", "longest gap ms", "wire/payload byte a link"];
    /// Digits behind the point in tables.
    pub(super) const DIGITS: [usize; Self::COUNT] = [3, 1, 1, 0, 3];

    pub(super) fn of(outcome: &Outcome) -> Self {
        let all = FlowReport::merged(outcome.flows.iter().map(|flow| &flow.overlay));
        Self {
            in_time_percent: all.in_time_share() * 100.0,
            delay_median_ms: all.delay_median_ms(),
            delay_p99_ms: all.delay_p99_ms(),
            longest_gap_ms: all.longest_gap_ms(),
            wire_per_crossing: outcome.wire.per_crossing(),
        }
    }

    /// In the order of [`Self::NAMES`].
    pub(super) fn values(&self) -> [Option<f64>; Self::COUNT] {
        [
            Some(self.in_time_percent),
            self.delay_median_ms,
            self.delay_p99_ms,
            Some(self.longest_gap_ms),
            Some(self.wire_per_crossing),
        ]
    }
}

/// A mean over seeds and how far the true one may be from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of its 95 % confidence interval (Student's t); `None` of a single run.
    pub ci95: Option<f64>,
}

impl Estimate {
    /// From one value a run; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let spread = |free: usize| student(free) * (squares / free as f64 / count).sqrt();
        Some(Self { mean, ci95: (values.len() > 1).then(|| spread(values.len() - 1)) })
    }
}

/// The 97.5 % quantile of Student's t with `free` degrees of freedom; beyond the table the first
/// two terms of Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5), right to 0.001.
fn student(free: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    const NORMAL: f64 = 1.959_964;
    let expanded = || {
        let [z, z3, z5] = [1, 3, 5].map(|power| NORMAL.powi(power));
        let (free, square) = (free as f64, (free as f64).powi(2));
        z + (z3 + z) / (4.0 * free) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * square)
    };
    TABLE.get(free.saturating_sub(1)).copied().unwrap_or_else(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_student_s() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[3.0]), Some(Estimate { mean: 3.0, ci95: None }));
        // Mean 3, standard deviation 1.5811, t = 2.776, of five values.
        let five = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(five.mean, 3.0);
        assert!((five.ci95.unwrap() - 1.963).abs() < 0.001, "{five:?}");
        assert_eq!(Estimate::of(&[2.0; 9]).unwrap().ci95, Some(0.0));
        for (free, wanted) in [(1, 12.706), (30, 2.042), (31, 2.040), (60, 2.000), (1_000, 1.962)] {
            assert!((student(free) - wanted).abs() < 0.002, "{free}: {}", student(free));
        }
    }
}
