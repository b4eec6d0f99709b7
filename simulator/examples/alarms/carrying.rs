//! What suspicions for nothing cost a flow: the daemon's own relays, a link that loses and is never
//! dead, and a longer way around it that loses nothing, or none.

use std::time::Duration;

use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::{FlowSpec, Overlay, RelaySpec, START, Watch, pop};
use tradewind_simulator::traffic::FlowReport;

use crate::ONE_WAY;

/// Of each half of the way around.
const HALF_AROUND: Duration = Duration::from_millis(40);
/// The relays find each other, and the link learns its loss, under traffic.
const SETTLED: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(2);

pub const HEADER: [&str; 9] = [
    "loss, each way",
    "way around",
    "suspects per minute",
    "packets over it %",
    "sent again over it %",
    "in time %",
    "median ms",
    "p99 ms",
    "wire bytes/payload byte",
];

pub const NOTE: &str = "A flow of 500 packets of 1,200 bytes a second and its answers, deadline 300 ms, over a link of 40 ms RTT \
that both ways lose; the way around has 160 ms. Suspects of both ends of the link; packets over the way around, and among them those sent again \
because they had not been acknowledged, of all packets and answers. Wire: all links, both directions, everything included.";

/// What one run, or several together, came to.
pub struct Cost {
    minutes: u64,
    suspects: u64,
    detoured: u64,
    salvaged: u64,
    wire: u64,
    flow: FlowReport,
}

impl Cost {
    pub fn of_all(runs: &[Self]) -> Self {
        let sum = |of: fn(&Self) -> u64| runs.iter().map(of).sum();
        Self {
            minutes: sum(|run| run.minutes),
            suspects: sum(|run| run.suspects),
            detoured: sum(|run| run.detoured),
            salvaged: sum(|run| run.salvaged),
            wire: sum(|run| run.wire),
            flow: FlowReport::merged(runs.iter().map(|run| &run.flow)),
        }
    }

    /// From the third column on.
    pub fn cells(&self) -> Vec<String> {
        // Every packet is answered.
        let packets = 2.0 * self.flow.sent as f64;
        let percent = |count: u64| format!("{:.2}", 100.0 * count as f64 / packets);
        let ms = |figure: Option<f64>| figure.map_or("-".into(), |ms| format!("{ms:.1}"));
        vec![
            format!("{:.1}", self.suspects as f64 / self.minutes as f64),
            percent(self.detoured),
            percent(self.salvaged),
            format!("{:.4}", 100.0 * self.flow.in_time_share()),
            ms(self.flow.delay_median_ms()),
            ms(self.flow.delay_p99_ms()),
            format!("{:.3}", self.wire as f64 / (2.0 * self.flow.sent_bytes as f64)),
        ]
    }
}

/// A minute of the flow.
pub fn run(loss: Loss, way_around: bool, seed: u64) -> Cost {
    let mut overlay = Overlay::new(seed);
    for (name, peers) in [("a", &[][..]), ("b", &["a"]), ("c", &["a", "b"])] {
        overlay.add(RelaySpec::new(pop(name)).dialling(peers.iter().copied()));
    }
    overlay.link_both("a", "b", &LinkSpec::with_delay(ONE_WAY));
    if way_around {
        overlay.link_both("a", "c", &LinkSpec::with_delay(HALF_AROUND));
        overlay.link_both("c", "b", &LinkSpec::with_delay(HALF_AROUND));
    }
    overlay.start_all();
    // Relays join over whole links.
    overlay.run_for(Duration::from_secs(5));
    overlay.link_both("a", "b", &LinkSpec { loss, ..LinkSpec::with_delay(ONE_WAY) });
    let spec = FlowSpec {
        size: 1_200,
        interval: EVERY,
        echo: true,
        watch: Watch::Figures,
        ..FlowSpec::new("a", "b")
    };
    let begin = overlay.now().since(START);
    overlay.flow(spec.clone().between(begin, begin + SETTLED));
    overlay.run_for(SETTLED);
    let flow = overlay.flow(spec.between(begin + SETTLED, begin + SETTLED + MINUTE));
    let before = counted(&overlay);
    overlay.run_for(MINUTE);
    let after = counted(&overlay);
    overlay.run_for(Duration::from_secs(1));
    let [suspects, detoured, salvaged, wire] = [0, 1, 2, 3].map(|at| after[at] - before[at]);
    let flow = overlay.report(flow).unwrap_or_else(|| panic!("figures of {flow:?} were asked for"));
    Cost { minutes: 1, suspects, detoured, salvaged, wire, flow }
}

/// So far: suspects of the lossy link, packets detoured and sent again, bytes of all links.
fn counted(overlay: &Overlay) -> [u64; 4] {
    let mut counted = [0; 4];
    for (near, far) in [("a", "b"), ("b", "a")] {
        let Some(node) = overlay.node(near) else { continue };
        let link = node.neighbours().get(pop(far).key()).map(|neighbour| &neighbour.line.link);
        counted[0] += link.map_or(0, |link| link.counters().suspects);
        counted[1] += node.counters().detoured;
        counted[2] += node.counters().salvaged;
    }
    for (from, to) in [("a", "b"), ("a", "c"), ("b", "c")] {
        let both = [(from, to), (to, from)].map(|(from, to)| overlay.link_counters(from, to));
        counted[3] += both.into_iter().flatten().map(|link| link.offered_bytes).sum::<u64>();
    }
    counted
}
