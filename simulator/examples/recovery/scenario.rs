//! What is measured: the channels, the traffic, and what must come of it.

use std::time::Duration;

use tradewind_proto::units::Class;
use tradewind_simulator::link::{Loss, LossError};

/// What a row must reach. Limits are those of DESIGN.md, section 10, and of the issue behind it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Must {
    /// The least percent in time.
    pub in_time: Option<f64>,
    /// The most shards sent per data shard, on the worst hop.
    pub shards: Option<f64>,
    /// The most bytes on the wire, both directions, in multiples of those of plain UDP.
    pub wire: Option<f64>,
}

/// How the losses of a link come.
#[derive(Clone, Copy, Debug)]
pub enum Runs {
    /// Each by itself.
    Single,
    /// So many packets at once, on average.
    Packets(f64),
    /// All packets of such a time, on average.
    Time(Duration),
}

/// What a link loses, each direction by itself.
#[derive(Clone, Copy, Debug)]
pub struct Losses {
    /// 0 to 1.
    pub share: f64,
    pub runs: Runs,
}

impl Losses {
    fn percent(percent: f64) -> Self {
        Self { share: percent / 100.0, runs: Runs::Single }
    }

    pub fn model(self) -> Result<Loss, LossError> {
        match self.runs {
            Runs::Single => Loss::independent(self.share),
            Runs::Packets(mean) => Loss::in_bursts(self.share, mean),
            Runs::Time(mean) => Loss::outages(self.share, mean),
        }
    }
}

/// A time during which the links stay as they are.
#[derive(Clone, Debug)]
pub struct PhaseSpec {
    pub loss: Losses,
    pub packets: u32,
    /// What its row is called and must reach; `None`: not shown.
    pub row: Option<(String, Must)>,
}

/// A flow over some hops that are all alike.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub hops: usize,
    /// Of one hop.
    pub rtt: Duration,
    pub pps: u32,
    /// Bytes.
    pub payload: usize,
    pub class: Class,
    /// Deadline beyond propagation.
    pub slack: Duration,
    pub phases: Vec<PhaseSpec>,
    /// Runs for each seed asked for.
    pub runs: u64,
}

impl Scenario {
    /// One way of one hop.
    pub fn one_way(&self) -> Duration {
        self.rtt / 2
    }

    pub fn deadline(&self) -> Duration {
        self.one_way() * self.hops as u32 + self.slack
    }

    /// The rows that it fills.
    pub fn rows(&self) -> impl Iterator<Item = &(String, Must)> {
        self.phases.iter().filter_map(|phase| phase.row.as_ref())
    }

    /// How long it takes to send so many.
    pub fn span(&self, packets: u32) -> Duration {
        Duration::from_micros(u64::from(packets) * 1_000_000 / u64::from(self.pps))
    }

    /// One hop of 40 ms RTT with 2,000 packets of 1,200 bytes a second and 100 ms of slack.
    fn one_hop() -> Self {
        Self {
            hops: 1,
            rtt: Duration::from_millis(40),
            pps: 2_000,
            payload: 1_200,
            class: Class::Video,
            slack: Duration::from_millis(100),
            phases: Vec::new(),
            runs: 1,
        }
    }

    /// Two seconds to learn the link, then `packets` that count.
    fn steady(mut self, name: String, loss: Losses, packets: u32, must: Must) -> Self {
        self.phases = vec![
            PhaseSpec { loss, packets: self.pps * 2, row: None },
            PhaseSpec { loss, packets, row: Some((name, must)) },
        ];
        self
    }
}

/// All that is measured, with so many packets a run.
pub fn all(packets: u32) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    let must = |in_time, shards| Must { in_time, shards, wire: None };
    let none = Losses::percent(0.0);
    let clean = Must { in_time: Some(100.0), shards: Some(1.0), wire: Some(1.08) };
    scenarios.push(Scenario::one_hop().steady("no loss".into(), none, packets, clean));
    for (pps, payload) in [(250, 1_200), (50, 160)] {
        let slow = Scenario { pps, payload, ..Scenario::one_hop() };
        let name = format!("no loss, {pps} pps of {payload} bytes");
        scenarios.push(slow.steady(name, none, packets / 4, must(Some(100.0), Some(1.0))));
    }
    for (percent, in_time, shards) in [
        (1, 99.99, 1.13),
        (2, 99.99, 1.13),
        (5, 99.99, 1.16),
        (10, 99.99, 1.24),
        (20, 99.99, 1.42),
        (30, 99.99, 1.65),
        (50, 99.9, 2.36),
    ] {
        let must = must(Some(in_time), Some(shards));
        scenarios.push(Scenario::one_hop().steady(
            format!("{percent} %"),
            Losses::percent(f64::from(percent)),
            packets,
            must,
        ));
    }
    let bursts = Losses { share: 0.05, runs: Runs::Packets(5.0) };
    let name = "5 % in bursts of 5".to_owned();
    scenarios.push(Scenario::one_hop().steady(name, bursts, packets, Must::default()));
    for percent in [1, 2, 5, 10, 20, 30, 50] {
        let audio = Scenario { pps: 50, payload: 160, class: Class::Audio, ..Scenario::one_hop() };
        let loss = Losses::percent(f64::from(percent));
        let in_time = (percent <= 30).then_some(99.9);
        let name = format!("{percent} %, audio alone: 50 pps of 160 bytes");
        scenarios.push(audio.steady(name, loss, packets / 4, must(in_time, None)));
    }
    let short = Scenario { slack: Duration::from_millis(25), ..Scenario::one_hop() };
    let name = "10 %, propagation + 25 ms".to_owned();
    let loss = Losses::percent(10.0);
    scenarios.push(short.steady(name, loss, packets, must(Some(99.9), Some(1.5))));
    let path = Scenario {
        hops: 3,
        rtt: Duration::from_millis(30),
        pps: 5_000,
        slack: Duration::from_millis(80),
        ..Scenario::one_hop()
    };
    let bursts = Losses { share: 0.02, runs: Runs::Packets(3.0) };
    let name = "3 hops of 30 ms, 5,000 pps, 2 % each in bursts of 3, + 80 ms".to_owned();
    scenarios.push(path.clone().steady(name, bursts, packets, must(Some(99.999), Some(1.1))));
    let outages = Losses { share: 0.02, runs: Runs::Time(Duration::from_millis(5)) };
    let name = "the same in bursts of 5 ms".to_owned();
    scenarios.push(path.steady(name, outages, packets, must(Some(99.995), Some(1.1))));
    scenarios.push(step(packets));
    scenarios
}

/// A running flow whose loss goes from nothing to 30 % and back.
fn step(packets: u32) -> Scenario {
    let (none, lossy) = (Losses::percent(0.0), Losses::percent(30.0));
    let must = |in_time| Must { in_time, ..Must::default() };
    let phase = |loss, seconds: f64, row: Option<(&str, Option<f64>)>| PhaseSpec {
        loss,
        packets: (seconds * 2_000.0) as u32,
        row: row.map(|(name, in_time)| (name.to_owned(), must(in_time))),
    };
    Scenario {
        phases: vec![
            phase(none, 4.0, None),
            phase(lossy, 0.5, Some(("0 to 30 %: the first 500 ms", None))),
            phase(lossy, 3.5, Some(("0 to 30 %: after that", Some(99.99)))),
            phase(none, 0.5, Some(("30 to 0 %: the first 500 ms", None))),
            phase(none, 3.5, Some(("30 to 0 %: after that", Some(99.99)))),
        ],
        runs: u64::from(packets / 10_000).max(1),
        ..Scenario::one_hop()
    }
}
