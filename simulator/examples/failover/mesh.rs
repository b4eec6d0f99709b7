//! A mesh of twenty relays with one flow, in which a relay dies or a link goes dark.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tradewind_proto::units::Redundancy;
use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::{FlowNumber, FlowSpec, Overlay, RelaySpec, START, pop};

/// How many relays there are.
pub const RELAYS: usize = 20;
/// Packets are sent this far apart.
pub const EVERY: Duration = Duration::from_millis(5);
/// How much longer the way around may be.
const DETOUR: Duration = Duration::from_millis(10);
/// The flow begins at this time and the fault comes about two seconds later.
const SETTLED: Duration = Duration::from_secs(6);
/// What is looked at after the fault.
const AFTER: Duration = Duration::from_millis(1_500);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A relay between the two ends dies without a word.
    Relay,
    /// A link on the path carries nothing any more, either way.
    Link,
    /// A link on the path carries nothing any more towards the far end.
    OneWay,
}

/// A kind of case.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What goes wrong, in turns.
    pub faults: &'static [Fault],
    /// Share of packets that every link loses, each direction by itself.
    pub loss: f64,
    /// The one-way delay of the longest link.
    pub longest: Duration,
    /// Of the flow.
    pub redundancy: Redundancy,
}

/// What one case showed.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The longest time between two packets that came out, from the fault on.
    pub gap: Duration,
    /// The round trip of the hop that died.
    pub hop: Duration,
    /// Packets sent from 200 ms before the fault until a second after it,
    pub sent: usize,
    /// and those of them that never came out.
    pub missed: usize,
    /// In the two seconds before the fault: packets sent by the flow,
    pub calm: u64,
    /// those sent over a detour or again, for nothing,
    pub detoured: u64,
    /// and how often links were suspected, all relays together.
    pub suspects: u64,
}

/// Delays of the links, one way; `None`: there is none.
pub struct World {
    pub delays: [[Option<Duration>; RELAYS]; RELAYS],
    loss: f64,
}

impl World {
    /// Relays on a square, links between those that are not too far from each other.
    pub fn new(place: u64, longest: Duration, loss: f64) -> Self {
        let mut rng = StdRng::seed_from_u64(place);
        let longest = longest.as_secs_f64();
        let at = [(); RELAYS].map(|()| (rng.random::<f64>(), rng.random::<f64>()));
        let mut delays = [[None; RELAYS]; RELAYS];
        for a in 0..RELAYS {
            for b in a + 1..RELAYS {
                let distance = (at[a].0 - at[b].0).hypot(at[a].1 - at[b].1) * 1.4 * longest;
                let delay = distance * rng.random_range(1.0..1.4);
                if delay <= longest && rng.random_bool(0.8) {
                    let delay = Duration::from_secs_f64(delay.max(0.001));
                    (delays[a][b], delays[b][a]) = (Some(delay), Some(delay));
                }
            }
        }
        Self { delays, loss }
    }

    /// The shortest way that does without `avoided`, and without the link from `from` to `barred`.
    pub fn shortest(
        &self,
        from: usize,
        to: usize,
        avoided: &[usize],
        barred: usize,
    ) -> Option<(Duration, Vec<usize>)> {
        let mut best: [Option<(Duration, usize)>; RELAYS] = [None; RELAYS];
        best[from] = Some((Duration::ZERO, from));
        for _ in 0..RELAYS {
            for (a, row) in self.delays.iter().enumerate() {
                let Some((so_far, _)) = best[a].filter(|_| !avoided.contains(&a)) else { continue };
                for (b, delay) in row.iter().enumerate() {
                    let Some(delay) = delay.filter(|_| (a, b) != (from, barred)) else { continue };
                    let sum = so_far + delay;
                    if best[b].is_none_or(|(least, _)| sum < least) {
                        best[b] = Some((sum, a));
                    }
                }
            }
        }
        let (delay, _) = best[to]?;
        let mut nodes = vec![to];
        while nodes.last() != Some(&from) {
            nodes.push(best[*nodes.last()?]?.1);
        }
        nodes.reverse();
        Some((delay, nodes))
    }

    /// The sum of the delays.
    pub fn delay_along(&self, path: &[usize]) -> Duration {
        path.windows(2).filter_map(|ends| self.delays[ends[0]][ends[1]]).sum()
    }

    /// Whether the relay before `path[at]` has a way around it, or around the link to it, that is
    /// hardly longer.
    fn has_detour(&self, path: &[usize], at: usize, fault: Fault) -> bool {
        let (before, to) = (path[at - 1], path[path.len() - 1]);
        let mut avoided = path[..at - 1].to_vec();
        if fault == Fault::Relay {
            avoided.push(path[at]);
        }
        let around = self.shortest(before, to, &avoided, path[at]);
        around.is_some_and(|(delay, _)| delay <= self.delay_along(&path[at - 1..]) + DETOUR)
    }

    /// Where on a path it happens: the relay that dies, or the far end of the link that goes dark, can
    /// be gone around.
    pub fn place_of(&self, failing: Fault, path: &[usize], seed: u64) -> Option<usize> {
        let places = 1..path.len() - usize::from(failing == Fault::Relay);
        let places: Vec<_> = places.filter(|&at| self.has_detour(path, at, failing)).collect();
        places.get(seed as usize % places.len().max(1)).copied()
    }

    /// Two relays without a link to each other, all of whose paths' relays can be gone around.
    pub fn ends(&self, place: u64) -> Option<(usize, usize)> {
        let mut rng = StdRng::seed_from_u64(place);
        let mut all: Vec<_> = (0..RELAYS).flat_map(|a| (0..RELAYS).map(move |b| (a, b))).collect();
        all.shuffle(&mut rng);
        all.into_iter().find(|&(a, b)| {
            let Some((_, path)) = self.shortest(a, b, &[], RELAYS) else { return false };
            let links = path.len() - 1;
            (2..=4).contains(&links)
                && (1..links).all(|at| self.has_detour(&path, at, Fault::Relay))
                && self.has_detour(&path, links, Fault::Link)
        })
    }

    /// The relays, all started, and the flow between `ends`.
    fn overlay(
        &self,
        ends: (usize, usize),
        redundancy: Redundancy,
        seed: u64,
    ) -> (Overlay, FlowNumber) {
        let mut overlay = Overlay::new(seed);
        for relay in 0..RELAYS {
            let peers = (0..relay).filter(|&peer| self.delays[relay][peer].is_some()).map(name);
            let peers: Vec<_> = peers.collect();
            overlay
                .add(RelaySpec::new(pop(&name(relay))).dialling(peers.iter().map(String::as_str)));
        }
        for a in 0..RELAYS {
            for (b, delay) in self.delays[a].iter().enumerate() {
                let Some(delay) = *delay else { continue };
                let loss = Loss::independent(self.loss).unwrap_or(Loss::None);
                let jitter = Duration::from_micros(300);
                overlay.link(
                    &name(a),
                    &name(b),
                    LinkSpec { jitter, loss, ..LinkSpec::with_delay(delay) },
                );
            }
        }
        overlay.start_all();
        let (from, to) = (name(ends.0), name(ends.1));
        let spec = FlowSpec { interval: EVERY, redundancy, ..FlowSpec::new(&from, &to) };
        let flow = overlay.flow(spec.between(SETTLED, Duration::MAX));
        (overlay, flow)
    }
}

/// What a relay is called.
pub fn name(relay: usize) -> String {
    format!("p{relay}")
}

/// The detours taken and suspicions of all relays so far.
fn alarms(overlay: &Overlay) -> (u64, u64) {
    let (mut detoured, mut suspects) = (0, 0);
    for node in (0..RELAYS).filter_map(|relay| overlay.node(&name(relay))) {
        detoured += node.counters().detoured;
        let links = node.neighbours().iter().map(|(_, neighbour)| &neighbour.line.link);
        suspects += links.map(|link| link.counters().suspects).sum::<u64>();
    }
    (detoured, suspects)
}

/// Runs a case; `None` if the place does not suit it.
pub fn run(scenario: &Scenario, place: u64, seed: u64) -> Option<Outcome> {
    let failing = scenario.faults[seed as usize % scenario.faults.len()];
    let world = World::new(place, scenario.longest, scenario.loss);
    let ends = world.ends(place)?;
    let (mut overlay, flow) = world.overlay(ends, scenario.redundancy, place * 1_000 + seed);
    overlay.run_until(START + SETTLED);
    let before = alarms(&overlay);
    // Faults come at any phase of timers.
    overlay.run_for(Duration::from_secs(2) + Duration::from_micros(seed * 7_919 % 50_000));
    let after = alarms(&overlay);

    let path = overlay.route(&name(ends.0), &name(ends.1))?;
    let path: Vec<usize> = path.iter().filter_map(|name| name[1..].parse().ok()).collect();
    let at = world.place_of(failing, &path, seed)?;
    let (near, far) = (name(path[at - 1]), name(path[at]));
    let fault = overlay.now();
    match failing {
        Fault::Relay => overlay.kill(&far),
        Fault::Link => overlay.set_both_up(&near, &far, false),
        Fault::OneWay => overlay.set_up(&near, &far, false),
    }
    overlay.run_for(AFTER);

    let record = overlay.record(flow);
    let gap = record.longest_gap(fault.minus(EVERY), fault + Duration::from_secs(1));
    let (delivered, sent) = record
        .delivered_of(fault.minus(Duration::from_millis(200)), fault + Duration::from_secs(1));
    let calm = record.delivered_of(START + SETTLED, fault).1 as u64;
    Some(Outcome {
        gap,
        hop: world.delay_along(&path[at - 1..=at]) * 2,
        sent,
        missed: sent - delivered,
        calm,
        detoured: after.0 - before.0,
        suspects: after.1 - before.1,
    })
}
