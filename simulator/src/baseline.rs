//! What the overlay is compared with: the same world and seed, run again with something left out.

use std::time::Duration;

use serde::Serialize;
use tradewind_proto::link::Recovery;
use tradewind_proto::units::Redundancy;
use tradewind_router::metric::Metric;

use crate::outcome::Outcome;
use crate::progress::{Figures, Progress, Tick};
use crate::simulation;
use crate::world::{Happening, World};

/// A way from end to end, in the order of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The direct link between the ends, without an overlay.
    Direct,
    /// The overlay's routes, nothing repaired.
    Routed,
    /// The overlay with routes by round-trip time alone.
    Rtt,
    /// The overlay with fixed parity.
    Fec,
    /// The overlay with repeats alone.
    Arq,
    /// The overlay with all packets sent over two disjoint paths.
    Disjoint,
    /// The overlay as the world has it.
    Overlay,
}

/// Parity shards per packet of [`Way::Fec`].
const PARITY: f64 = 0.2;

impl Way {
    /// The ways that take a run of their own.
    pub const BASELINES: [Self; 5] =
        [Self::Routed, Self::Rtt, Self::Fec, Self::Arq, Self::Disjoint];

    /// As tables and documents have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Routed => "routed",
            Self::Rtt => "rtt",
            Self::Fec => "fec",
            Self::Arq => "arq",
            Self::Disjoint => "disjoint",
            Self::Overlay => "overlay",
        }
    }

    /// What it is, for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Direct => "the direct link between the ends, without an overlay",
            Self::Routed => "the overlay's routes, nothing repaired",
            Self::Rtt => "the overlay with routes by round-trip time alone",
            Self::Fec => "the overlay with 20 % parity instead of the plan",
            Self::Arq => "the overlay with repeats alone instead of the plan",
            Self::Disjoint => "the overlay with every packet on two disjoint paths",
            Self::Overlay => "the overlay as the world has it",
        }
    }

    /// `world`, of which `outcome` came, as it is run for this way.
    fn world(self, world: &World, outcome: &Outcome) -> World {
        let mut world = as_it_happened(world, outcome);
        match self {
            Self::Routed => world.recovery = Recovery::None,
            Self::Rtt => world.metric = Metric::RoundTrip,
            Self::Fec => world.recovery = Recovery::FixedFec { parity: PARITY },
            Self::Arq => world.recovery = Recovery::ArqOnly,
            Self::Disjoint => {
                let flows = world.traffic.iter_mut();
                flows.for_each(|flow| flow.redundancy = Redundancy::Disjoint);
            }
            Self::Direct | Self::Overlay => {}
        }
        world
    }
}

/// The same relays die whatever the route is now: else ways would be compared after different
/// failures.
fn as_it_happened(world: &World, outcome: &Outcome) -> World {
    let mut world = world.clone();
    let carrier = |name: &str, at: Duration| {
        let flow = outcome.flows.iter().find(|flow| flow.traffic.name == name)?;
        let route = flow.routes.iter().take_while(|route| route.at <= at).last()?;
        match route.path.as_deref()? {
            [_, relay, .., _] => Some(relay.clone()),
            _ => None,
        }
    };
    for event in &mut world.events {
        if let Happening::KillRelayOf(name) = &event.what
            && let Some(relay) = carrier(name, event.at)
        {
            event.what = Happening::Kill(relay);
        }
    }
    world
}

/// Runs `world`, and again for each of the `baselines`.
///
/// # Errors
///
/// As [`simulation::run`].
pub fn run(
    world: &World,
    baselines: &[Way],
    progress: &mut dyn Progress,
) -> anyhow::Result<Outcome> {
    let mut outcome = simulation::run(world, progress)?;
    compare(&mut outcome, world, baselines, progress)?;
    Ok(outcome)
}

/// Runs `world`, of which `outcome` came, again for each of the `baselines`, and adds what comes of
/// them. When interrupted, baselines that had not come to their end are left out: they would be of
/// another time.
///
/// # Errors
///
/// As [`simulation::run`].
pub fn compare(
    outcome: &mut Outcome,
    world: &World,
    baselines: &[Way],
    progress: &mut dyn Progress,
) -> anyhow::Result<()> {
    for &way in baselines {
        if progress.interrupted() {
            break;
        }
        progress.note(&format!("once more for \"{}\": {}", way.name(), way.meaning()));
        let rerun = simulation::run(&way.world(world, outcome), &mut Rerun { way, progress })?;
        if !rerun.interrupted() {
            for (flow, again) in outcome.flows.iter_mut().zip(rerun.flows) {
                flow.baselines.insert(way, again.overlay);
            }
            outcome.baseline_wire.insert(way, rerun.wire);
        }
    }
    Ok(())
}

/// What a baseline's run tells: its overlay is the baseline, its direct links are known.
struct Rerun<'a> {
    way: Way,
    progress: &'a mut dyn Progress,
}

impl Progress for Rerun<'_> {
    fn tick(&mut self, state: &Tick<'_>) {
        self.progress.tick(state);
    }

    fn interrupted(&self) -> bool {
        self.progress.interrupted()
    }

    fn record(&mut self, way: Way, at: Duration, figures: &mut dyn FnMut() -> Figures) {
        if way == Way::Overlay {
            self.progress.record(self.way, at, figures);
        }
    }

    fn record_last(&mut self, way: Way, at: Duration, figures: &mut dyn FnMut() -> Figures) {
        if way == Way::Overlay {
            self.progress.record_last(self.way, at, figures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = r#"
[run]
duration = "3s"
warmup = "2s"
[[pop]]
id = "a"
[[pop]]
id = "b"
[[pop]]
id = "x"
[[link]]
between = ["a", "b"]
delay = "90ms"
loss = "5%"
[[link]]
between = ["a", "x"]
delay = "15ms"
loss = "10%"
[[link]]
between = ["x", "b"]
delay = "15ms"
[[traffic]]
name = "media"
from = "a"
to = "b"
pps = 400
size = 400
deadline = "300ms"
"#;

    /// Counts what is recorded of each way, and interrupts once told so.
    #[derive(Default)]
    struct Listener {
        records: std::collections::BTreeMap<Way, u32>,
        interrupted_by: Option<Way>,
    }

    impl Progress for Listener {
        fn interrupted(&self) -> bool {
            self.interrupted_by.is_some_and(|way| self.records.get(&way) > Some(&5))
        }

        fn record(&mut self, way: Way, _: Duration, figures: &mut dyn FnMut() -> Figures) {
            *self.records.entry(way).or_default() += 1;
            let Figures { rows, links } = figures();
            assert_eq!((rows.len(), links.is_empty()), (1, way == Way::Direct));
        }
    }

    #[test]
    fn what_repair_is_worth_shows_beside_the_same_routes_without() {
        let world = World::parse("test", WORLD).unwrap();
        let mut listener = Listener::default();
        let ways = [Way::Routed, Way::Arq];
        let outcome = run(&world, &ways, &mut listener).unwrap();
        let rows = outcome.rows();
        let [direct, routed, arq, overlay] = rows[0].ways().collect::<Vec<_>>()[..] else {
            panic!("{:?}", rows[0])
        };
        assert_eq!(
            [direct.0, routed.0, arq.0, overlay.0],
            [Way::Direct, Way::Routed, Way::Arq, Way::Overlay]
        );
        let lost = |report: &crate::traffic::FlowReport| 1.0 - report.in_time_share();
        assert!((lost(routed.1) - 0.1).abs() < 0.03, "{:?}", routed.1.in_time_share());
        assert!(lost(arq.1) < 0.005 && lost(overlay.1) < 0.001);
        assert_eq!(outcome.baseline_wire.keys().copied().collect::<Vec<_>>(), ways);
        assert!(outcome.baseline_wire[&Way::Routed].bytes < outcome.wire.bytes);
        let json = outcome.to_json();
        assert_eq!(json["flows"][0]["routed"]["sent"], 1200);
        assert!(json["wire"]["arq"]["overlay_bytes"].is_u64());
        // A record a tick, and one when all has come.
        let each = ways.into_iter().chain([Way::Direct, Way::Overlay]);
        assert!(each.into_iter().all(|way| listener.records[&way] >= 13), "{:?}", listener.records);
    }

    #[test]
    fn by_round_trip_time_alone_the_short_and_lossy_way_is_taken() {
        // The other way is 3 ms longer, and loses nothing.
        let clean = "[[pop]]\nid = \"y\"\n[[link]]\nbetween = [\"a\", \"y\"]\ndelay = \"16ms\"\n\
                     [[link]]\nbetween = [\"y\", \"b\"]\ndelay = \"17ms\"\n[[traffic]]";
        let text = WORLD.replace("[[traffic]]", clean);
        for fidelity in ["packet", "flow"] {
            let text = text.replace("[run]", &format!("[run]\nfidelity = \"{fidelity}\""));
            let world = World::parse("test", &text).unwrap();
            let mut listener = Listener::default();
            let outcome = run(&world, &[Way::Rtt], &mut listener).unwrap();
            assert_eq!(outcome.flows[0].route_after(), "a > y > b");
            let [overlay, rtt] =
                [&outcome.flows[0].overlay, &outcome.flows[0].baselines[&Way::Rtt]];
            let wire = [&outcome.wire, &outcome.baseline_wire[&Way::Rtt]].map(|wire| wire.bytes);
            // Repair makes it arrive all the same: later, and for more bytes.
            assert!(rtt.delay_median_ms() < overlay.delay_median_ms(), "{fidelity}: {rtt:?}");
            assert!(rtt.delay_p99_ms() > overlay.delay_p99_ms(), "{fidelity}: {rtt:?}");
            assert!(wire[1] as f64 > 1.03 * wire[0] as f64, "{fidelity}: {wire:?}");
        }
    }

    #[test]
    fn every_way_loses_the_relay_that_the_overlay_lost() {
        let kill = "[[event]]\nat = \"1s\"\nkill_relay_of = \"media\"\n";
        let world = World::parse("test", &format!("{WORLD}{kill}")).unwrap();
        let outcome = run(&world, &[], &mut Listener::default()).unwrap();
        let relay: tradewind_proto::units::PopId = "x".parse().unwrap();
        assert!(outcome.happened[0].1.contains("relay x killed"), "{:?}", outcome.happened);
        let again = Way::Routed.world(&world, &outcome);
        assert_eq!(again.events[0].what, Happening::Kill(relay));
    }

    #[test]
    fn a_baseline_that_did_not_come_to_its_end_is_left_out() {
        let world = World::parse("test", WORLD).unwrap();
        let mut listener = Listener { interrupted_by: Some(Way::Arq), ..Listener::default() };
        let ways = [Way::Routed, Way::Arq, Way::Disjoint];
        let outcome = run(&world, &ways, &mut listener).unwrap();
        let run: Vec<Way> = outcome.flows[0].baselines.keys().copied().collect();
        assert_eq!(run, [Way::Routed]);
        assert!(!outcome.interrupted());
    }
}
