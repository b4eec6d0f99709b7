//! The course of a run in virtual time, the same at any fidelity: routes, warm-up, traffic with its
//! events, stragglers, and the result.

use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_proto::packet::Path;
use tradewind_proto::units::{PopId, Timestamp};
use tradewind_router::explain::Explanation;

use crate::baseline::Way;
use crate::emulator::LinkReport;
use crate::outcome::{FlowOutcome, LivenessAt, Outcome, RouteAt, WireUse};
use crate::overlay::START;
use crate::progress::{Figures, FlowTick, Progress, Tick};
use crate::script::{self, Stage};
use crate::traffic::FlowReport;
use crate::world::{Traffic, World};

/// How long relays may take until every flow has a route.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often progress is told.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// So many of the first flows, and of the worst, have their routes explained.
const EXPLAINED: usize = 20;

/// Relays under a virtual clock. Flows are numbered in the order of the world.
pub(crate) trait Runner: Stage {
    /// The time.
    fn now(&self) -> Timestamp;

    /// Lets time pass.
    fn run_until(&mut self, until: Timestamp);

    /// Traffic begins.
    fn begin(&mut self);

    /// Traffic ends; what is under way may still come.
    fn end(&mut self);

    /// The routes of a flow: each with the time from which on it held.
    fn history(&self, flow: usize) -> &[(Timestamp, Option<Path>)];

    /// How many packets of a flow were sent so far, as far as it is known what came of them.
    fn sent(&self, flow: usize) -> u64;

    /// How many of them came in time.
    fn in_time(&self, flow: usize) -> u64;

    /// The figures of a flow so far.
    fn report(&self, flow: usize) -> FlowReport;

    /// What every direction of every link carried so far.
    fn links(&self) -> Vec<LinkReport>;

    /// What relays found of their links since traffic began.
    fn liveness(&self) -> Vec<LivenessAt>;

    /// The account of a flow's route that the router of its ingress gives.
    fn explain(&self, flow: usize) -> Option<Explanation>;

    /// What comes of the flows in that time without an overlay; told to `progress` too.
    fn direct(&self, lasted: Duration, progress: &mut dyn Progress) -> Vec<Option<FlowReport>>;
}

/// Runs `world` from start to end.
///
/// # Errors
///
/// Flows that get no route within 20 s, an interruption before traffic began.
pub(crate) fn play(
    world: &World,
    run: &mut impl Runner,
    progress: &mut dyn Progress,
) -> anyhow::Result<Outcome> {
    wait_for_routes(world, run, progress)?;
    let begun = run.now();
    run.begin();
    let before = run.links();
    let mut happened = Vec::new();
    let mut events = world.events.iter().peekable();
    let mut next_tick = Duration::ZERO;
    while run.now() < begun + world.duration && !progress.interrupted() {
        let elapsed = run.now().since(begun);
        while let Some(event) = events.next_if(|event| event.at <= elapsed) {
            let line = script::perform(run, world, event)?;
            if !line.is_empty() {
                progress.note(&format!("{:6.2} s  {line}", event.at.as_secs_f64()));
                happened.push((event.at, line));
            }
        }
        if elapsed >= next_tick {
            let flows = flow_ticks(world, run);
            progress.tick(&Tick { elapsed, total: world.duration, flows: &flows });
            progress.record(Way::Overlay, elapsed, &mut || figures(world, run));
            next_tick += TICK;
        }
        let event = events.peek().map_or(Duration::MAX, |event| event.at);
        run.run_until(begun + event.min(next_tick).min(world.duration));
    }
    let lasted = run.now().since(begun).min(world.duration);
    run.end();
    progress.record_last(Way::Overlay, run.now().since(begun), &mut || figures(world, run));
    Ok(outcome(world, run, begun, (lasted, &before, happened), progress))
}

fn wait_for_routes(
    world: &World,
    run: &mut impl Runner,
    progress: &mut dyn Progress,
) -> anyhow::Result<()> {
    let until = START + READY_WITHIN;
    let joining = world.joining();
    let later = |flow: &Traffic| joining.contains(&flow.from) || joining.contains(&flow.to);
    let waiting = |run: &_| {
        let mut flows = world.traffic.iter().enumerate();
        flows.find(|(at, flow)| !later(flow) && present_route(run, world, *at).is_none())
    };
    while let Some((_, Traffic { name, from, to, .. })) = waiting(run) {
        anyhow::ensure!(
            run.now() < until,
            "no route for traffic \"{name}\" from {from} to {to} within {READY_WITHIN:?} of simulated \
             time: check that links join the two and that its policy leaves a path",
        );
        anyhow::ensure!(!progress.interrupted(), "interrupted before traffic began");
        run.run_until(run.now() + Duration::from_millis(10));
    }
    let took = run.now().since(START).as_secs_f64();
    progress.note(&format!("all routes found after {took:.2} s"));
    let end = run.now() + world.warmup;
    while run.now() < end && !progress.interrupted() {
        run.run_until(end.min(run.now() + TICK));
    }
    Ok(())
}

/// The present route of a flow, both ends included.
pub(crate) fn present_route(run: &impl Runner, world: &World, flow: usize) -> Option<Vec<PopId>> {
    let (_, path) = run.history(flow).last()?;
    path.as_ref().map(|path| names(world, path))
}

fn names(world: &World, path: &Path) -> Vec<PopId> {
    let name = |key| world.pops.iter().find(|pop| pop.id.key() == key);
    path.pops().iter().filter_map(|&key| Some(name(key)?.id.clone())).collect()
}

/// The routes of a flow since traffic began, with that in force at that time.
fn routes(world: &World, run: &impl Runner, flow: usize, begun: Timestamp) -> Vec<RouteAt> {
    let history = run.history(flow);
    let first = history.partition_point(|(at, _)| *at <= begun).saturating_sub(1);
    let route = |(at, path): &(Timestamp, Option<Path>)| RouteAt {
        at: at.since(begun),
        path: path.as_ref().map(|path| names(world, path)),
    };
    history.iter().skip(first).map(route).collect()
}

fn flow_ticks(world: &World, run: &impl Runner) -> Vec<FlowTick> {
    let tick = |(name, members): (&str, Vec<usize>)| FlowTick {
        name: name.to_owned(),
        flows: members.len(),
        sent: members.iter().map(|&at| run.sent(at)).sum(),
        overlay_in_time: members.iter().map(|&at| run.in_time(at)).sum(),
        direct_in_time: None,
        route: match members[..] {
            [at] => present_route(run, world, at),
            _ => None,
        },
    };
    world.rows().into_iter().map(tick).collect()
}

fn figures(world: &World, run: &impl Runner) -> Figures {
    Figures { rows: merged_rows(world, |at| Some(run.report(at))), links: run.links() }
}

/// The reports of flows as rows of tables.
pub(crate) fn merged_rows(
    world: &World,
    report: impl Fn(usize) -> Option<FlowReport>,
) -> Vec<Option<FlowReport>> {
    let merged = |(_, members): (&str, Vec<usize>)| {
        let reports: Vec<FlowReport> = members.into_iter().filter_map(&report).collect();
        (!reports.is_empty()).then(|| FlowReport::merged(&reports))
    };
    world.rows().into_iter().map(merged).collect()
}

fn outcome(
    world: &World,
    run: &impl Runner,
    begun: Timestamp,
    (lasted, before, happened): (Duration, &[LinkReport], Vec<(Duration, String)>),
    progress: &mut dyn Progress,
) -> Outcome {
    let direct = run.direct(lasted, progress);
    let flow = |(at, (traffic, direct)): (usize, (&Traffic, _))| FlowOutcome {
        traffic: traffic.clone(),
        overlay: run.report(at),
        direct,
        baselines: BTreeMap::new(),
        routes: routes(world, run, at, begun),
        why: None,
    };
    let mut flows: Vec<FlowOutcome> =
        world.traffic.iter().zip(direct).enumerate().map(flow).collect();
    for at in explained(&flows) {
        flows[at].why = run.explain(at);
    }
    let links = run.links();
    let wire = WireUse::between(before, &links, &flows);
    Outcome {
        name: world.name.clone(),
        seed: world.seed,
        duration: world.duration,
        lasted,
        flows,
        happened,
        wire,
        wire_limit: world.wire_limit,
        links,
        liveness: run.liveness(),
        baseline_wire: BTreeMap::new(),
        emulator: None,
    }
}

/// The flows whose routes are explained: the first, and the worst.
fn explained(flows: &[FlowOutcome]) -> Vec<usize> {
    let mut worst: Vec<usize> = (0..flows.len()).collect();
    worst.sort_by(|&a, &b| {
        flows[a].overlay.in_time_share().total_cmp(&flows[b].overlay.in_time_share())
    });
    (0..EXPLAINED.min(flows.len())).chain(worst.into_iter().take(EXPLAINED)).collect()
}
