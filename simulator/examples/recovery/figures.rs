//! What came of a scenario.

use tradewind_simulator::traffic::FlowReport;

use crate::scenario::Scenario;

/// What was sent up to some moment, or between two.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    /// Per hop: shards of data, and all.
    pub shards: Vec<(u64, u64)>,
    /// Bytes with all headers, with the packets and against them.
    pub wire: [u64; 2],
}

impl Spent {
    pub fn since(&self, before: &Self) -> Self {
        let less = |(now, before): (&(u64, u64), &(u64, u64))| {
            (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
        };
        Self {
            shards: self.shards.iter().zip(&before.shards).map(less).collect(),
            wire: [0, 1].map(|way| self.wire[way] - before.wire[way]),
        }
    }

    /// Shards sent for each of data, on the worst hop.
    pub fn worst(&self) -> f64 {
        let share = |&(data, all): &(u64, u64)| all as f64 / data.max(1) as f64;
        self.shards.iter().map(share).fold(0.0, f64::max)
    }
}

/// What became of the packets of one phase, of one run or of several together.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    pub flow: FlowReport,
    pub spent: Spent,
}

impl Phase {
    /// The same phase of another run.
    pub fn add(&mut self, other: &Self) {
        self.flow = FlowReport::merged([&self.flow, &other.flow]);
        self.spent.shards.resize(other.spent.shards.len(), (0, 0));
        for (sum, shards) in self.spent.shards.iter_mut().zip(&other.spent.shards) {
            *sum = (sum.0 + shards.0, sum.1 + shards.1);
        }
        for way in 0..2 {
            self.spent.wire[way] += other.spent.wire[way];
        }
    }

    pub fn figures(&self, scenario: &Scenario) -> Figures {
        let payload = (self.flow.sent * (scenario.payload * scenario.hops) as u64) as f64;
        let wire = self.spent.wire.map(|bytes| bytes as f64 / payload);
        Figures { shards: Some(self.spent.worst()), wire: Some(wire), ..Figures::of(&self.flow) }
    }
}

/// A row of the table, as far as it was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Percent.
    pub in_time: f64,
    /// Milliseconds: median, 99 % and 99.9 %.
    pub delays: [Option<f64>; 3],
    /// Sent for each of data, on the worst hop.
    pub shards: Option<f64>,
    /// Bytes on a hop for each byte of payload, with the packets and against them.
    pub wire: Option<[f64; 2]>,
}

impl Figures {
    /// Those of a flow alone.
    pub fn of(flow: &FlowReport) -> Self {
        let millis = |q| flow.delays.quantile(q).map(|delay| delay.as_secs_f64() * 1e3);
        Self {
            in_time: 100.0 * flow.in_time_share(),
            delays: [0.5, 0.99, 0.999].map(millis),
            shards: None,
            wire: None,
        }
    }
}
