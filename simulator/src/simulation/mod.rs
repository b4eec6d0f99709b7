//! A world run in virtual time: the daemon's own relays over link models, as fast as they compute.
//!
//! The counterpart of [`crate::emulation`], with the same result. What QUIC does is modelled (see
//! [`crate::overlay`]); what a machine does - timers that are late, time spent computing, full
//! socket buffers - is not there. The same world and seed give the same result, byte for byte.

mod direct;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use tradewind_proto::statement::Policy;
use tradewind_proto::units::{PolicyId, PopId, Timestamp};
use tradewind_relay::node::News;
use tradewind_router::explain::Target;
use tradewind_router::lsdb::Labels;

use crate::baseline::Way;
use crate::emulator::LinkReport;
use crate::fluid;
use crate::link::LinkSpec;
use crate::outcome::{FlowOutcome, LivenessAt, Outcome, RouteAt, WireUse};
use crate::overlay::{FlowNumber, FlowSpec, Overlay, RelaySpec, START, Watch};
use crate::progress::{Figures, FlowTick, Progress, Tick};
use crate::script::{self, Stage};
use crate::traffic::FlowReport;
use crate::world::{Fidelity, LinkId, Pop, Traffic, World};

/// How long relays may take until every flow has a route.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(20);
/// How often progress is told.
pub(crate) const TICK: Duration = Duration::from_millis(250);
/// How long to wait for stragglers after the last packet, beyond the longest deadline.
const LINGER: Duration = Duration::from_secs(1);
/// So many of the first flows, and of the worst, have their routes explained.
const EXPLAINED: usize = 20;

/// Runs `world` in virtual time: start, warm-up, duration.
///
/// # Errors
///
/// Flows that get no route within 20 s, an interruption before traffic began.
pub fn run(world: &World, progress: &mut dyn Progress) -> anyhow::Result<Outcome> {
    if world.fidelity == Fidelity::Flow {
        return fluid::run(world, progress);
    }
    let (overlay, flows) = build(world)?;
    let mut run = Run { world, overlay, flows, begun: Duration::ZERO, happened: Vec::new() };
    run.wait_for_routes(progress)?;
    run.go(progress)
}

/// The relays of a world, running, and a tunnel for each flow.
fn build(world: &World) -> anyhow::Result<(Overlay, Vec<FlowNumber>)> {
    let policies = policies(world)?;
    let mut overlay = Overlay::new(world.seed);
    let peers = world.peers();
    for pop in &world.pops {
        let dialled = peers[&pop.id].iter().map(|peer| peer.as_str());
        let relay = RelaySpec::new(pop.id.clone()).dialling(dialled);
        let (labels, policies) = (labels(pop), policies.clone());
        let (mesh, recovery) = (world.mesh, world.recovery);
        overlay.add(RelaySpec { labels, mesh, policies, recovery, ..relay });
    }
    for ((from, to), spec) in &world.links {
        overlay.link(from.as_str(), to.as_str(), spec.clone());
    }
    let joining = world.joining();
    for pop in world.pops.iter().filter(|pop| !joining.contains(&pop.id)) {
        overlay.start(pop.id.as_str());
    }
    let policy = |traffic: &Traffic| {
        let named = policies.iter().find(|policy| Some(policy.name()) == traffic.policy.as_deref());
        named.map_or(PolicyId::NONE, |policy| policy.id())
    };
    let flows = world.traffic.iter().map(|traffic| {
        overlay.tunnel(FlowSpec {
            size: traffic.size,
            interval: traffic.interval,
            shape: traffic.shape.clone(),
            seed: traffic.seed(world.seed),
            class: traffic.class,
            deadline: traffic.deadline,
            policy: policy(traffic),
            redundancy: traffic.redundancy,
            watch: Watch::Figures,
            ..FlowSpec::new(traffic.from.as_str(), traffic.to.as_str())
        })
    });
    let flows = flows.collect();
    Ok((overlay, flows))
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

/// The rules of a world as relays state them.
pub(crate) fn policies(world: &World) -> anyhow::Result<Vec<Policy>> {
    let mut policies = Vec::with_capacity(world.policies.len());
    for rule in &world.policies {
        let policy = rule.policy();
        policies.push(policy.with_context(|| format!("policy \"{}\"", rule.name))?);
    }
    Ok(policies)
}

/// What a PoP's certificate says.
pub(crate) fn labels(pop: &Pop) -> Labels {
    let [region, country, provider] = [&pop.region, &pop.country, &pop.provider]
        .map(|label| label.as_ref().map(|label| label.as_str().to_owned()));
    Labels { region, country, provider }
}

/// The flows whose routes are explained: the first, and the worst.
pub(crate) fn explained(flows: &[FlowOutcome]) -> Vec<usize> {
    let mut worst: Vec<usize> = (0..flows.len()).collect();
    worst.sort_by(|&a, &b| {
        flows[a].overlay.in_time_share().total_cmp(&flows[b].overlay.in_time_share())
    });
    (0..EXPLAINED.min(flows.len())).chain(worst.into_iter().take(EXPLAINED)).collect()
}

struct Run<'a> {
    world: &'a World,
    overlay: Overlay,
    /// In the order of the world.
    flows: Vec<FlowNumber>,
    /// When traffic begins, after [`START`].
    begun: Duration,
    happened: Vec<(Duration, String)>,
}

impl Run<'_> {
    fn wait_for_routes(&mut self, progress: &mut dyn Progress) -> anyhow::Result<()> {
        let until = START + READY_WITHIN;
        let joining = self.world.joining();
        let later = |flow: &Traffic| joining.contains(&flow.from) || joining.contains(&flow.to);
        let flows = || self.world.traffic.iter().zip(&self.flows).filter(|(flow, _)| !later(flow));
        while let Some((traffic, _)) = flows().find(|(_, flow)| self.route_of(**flow).is_none()) {
            anyhow::ensure!(
                self.overlay.now() < until,
                "no route for traffic \"{}\" from {} to {} within {READY_WITHIN:?} of simulated \
                 time: check that links join the two and that its policy leaves a path",
                traffic.name,
                traffic.from,
                traffic.to,
            );
            anyhow::ensure!(!progress.interrupted(), "interrupted before traffic began");
            self.overlay.run_for(Duration::from_millis(10));
        }
        let took = self.overlay.now().since(START).as_secs_f64();
        progress.note(&format!("all routes found after {took:.2} s"));
        self.overlay.run_for(self.world.warmup);
        Ok(())
    }

    fn go(mut self, progress: &mut dyn Progress) -> anyhow::Result<Outcome> {
        let world = self.world;
        self.begun = self.overlay.now().since(START);
        self.overlay.start_traces();
        for (&flow, traffic) in self.flows.iter().zip(&world.traffic) {
            self.overlay.send(flow, self.begun + traffic.start, self.begun + traffic.stop);
        }
        let before = self.links();
        let mut events = world.events.iter().peekable();
        let mut next_tick = Duration::ZERO;
        while self.elapsed() < world.duration && !progress.interrupted() {
            while let Some(event) = events.next_if(|event| event.at <= self.elapsed()) {
                let line = script::perform(&mut self, world, event)?;
                progress.note(&format!("{:6.2} s  {line}", event.at.as_secs_f64()));
                self.happened.push((event.at, line));
            }
            if self.elapsed() >= next_tick {
                let flows = self.flow_ticks();
                let (elapsed, total) = (self.elapsed(), world.duration);
                progress.tick(&Tick { elapsed, total, flows: &flows });
                progress.record(Way::Overlay, elapsed, &mut || self.figures());
                next_tick += TICK;
            }
            let event = events.peek().map_or(Duration::MAX, |event| event.at);
            let next = event.min(next_tick).min(world.duration);
            self.overlay.run_until(START + self.begun + next);
        }
        let lasted = self.elapsed().min(world.duration);
        self.flows.iter().for_each(|&flow| self.overlay.stop(flow));
        let deadlines = world.traffic.iter().map(|traffic| traffic.deadline);
        self.overlay.run_for(LINGER + deadlines.max().unwrap_or_default());
        progress.record(Way::Overlay, self.elapsed(), &mut || self.figures());
        Ok(self.outcome(lasted, &before, progress))
    }

    fn figures(&self) -> Figures {
        let report = |at: usize| self.overlay.report(self.flows[at]);
        Figures { rows: merged_rows(self.world, report), links: self.links() }
    }

    /// Since traffic began.
    fn elapsed(&self) -> Duration {
        self.overlay.now().since(START + self.begun)
    }

    fn flow_ticks(&self) -> Vec<FlowTick> {
        let tick = |(name, members): (&str, Vec<usize>)| {
            let flows = || members.iter().map(|&at| self.flows[at]);
            let single = members.len() == 1;
            FlowTick {
                name: name.to_owned(),
                flows: members.len(),
                sent: flows().map(|flow| self.overlay.sent(flow)).sum(),
                overlay_in_time: flows().filter_map(|flow| self.overlay.in_time(flow)).sum(),
                direct_in_time: None,
                route: flows().next().filter(|_| single).and_then(|flow| self.route_of(flow)),
            }
        };
        self.world.rows().into_iter().map(tick).collect()
    }

    /// The present route of a flow.
    fn route_of(&self, flow: FlowNumber) -> Option<Vec<PopId>> {
        let (_, path) = self.overlay.record(flow).routes.last()?;
        path.as_ref().map(|path| self.names(path))
    }

    fn links(&self) -> Vec<LinkReport> {
        let report = |link: &LinkId| {
            let counters = self.overlay.link_counters(link.0.as_str(), link.1.as_str())?;
            Some(LinkReport { link: link.clone(), counters: *counters })
        };
        self.world.links.keys().filter_map(report).collect()
    }

    /// The routes of a flow since traffic began, with that in force at that time.
    fn routes(&self, flow: FlowNumber) -> Vec<RouteAt> {
        let begun = START + self.begun;
        let names = |at: &Timestamp, path: &Option<tradewind_proto::packet::Path>| RouteAt {
            at: at.since(begun),
            path: path.as_ref().map(|path| self.names(path)),
        };
        let routes = &self.overlay.record(flow).routes;
        let first = routes.partition_point(|(at, _)| *at <= begun).saturating_sub(1);
        routes.iter().skip(first).map(|(at, path)| names(at, path)).collect()
    }

    fn names(&self, path: &tradewind_proto::packet::Path) -> Vec<PopId> {
        let name = |key| self.world.pops.iter().find(|pop| pop.id.key() == key);
        path.pops().iter().filter_map(|&key| Some(name(key)?.id.clone())).collect()
    }

    /// What relays found of their links since traffic began.
    fn liveness(&self) -> Vec<LivenessAt> {
        let begun = START + self.begun;
        let news = self.overlay.news().iter().filter(|(at, ..)| *at >= begun);
        news.filter_map(|(at, pop, news)| {
            let News::Liveness(neighbour, state) = news else { return None };
            let link = (pop.parse().ok()?, neighbour.clone());
            Some(LivenessAt { at: at.since(begun), link, state: *state })
        })
        .collect()
    }

    /// The account of their routes that the ingress routers of the first and the worst flows give.
    fn explain(&self, flows: &mut [FlowOutcome]) {
        for at in explained(flows) {
            let Traffic { from, to, .. } = &flows[at].traffic;
            let policy = self.overlay.policy_of(self.flows[at]);
            let now = self.overlay.clock(from.as_str());
            flows[at].why = self
                .overlay
                .node(from.as_str())
                .map(|node| node.control().router().explain(policy, &Target::Pop(to.clone()), now));
        }
    }

    fn outcome(
        self,
        lasted: Duration,
        before: &[LinkReport],
        progress: &mut dyn Progress,
    ) -> Outcome {
        let direct = direct::run(self.world, lasted, progress);
        let mut flows: Vec<FlowOutcome> = self
            .world
            .traffic
            .iter()
            .zip(&self.flows)
            .zip(direct)
            .map(|((traffic, &flow), direct)| FlowOutcome {
                traffic: traffic.clone(),
                overlay: self.overlay.report(flow).unwrap_or_default(),
                direct,
                baselines: BTreeMap::new(),
                routes: self.routes(flow),
                why: None,
            })
            .collect();
        self.explain(&mut flows);
        let links = self.links();
        let wire = WireUse::between(before, &links, &flows);
        let liveness = self.liveness();
        Outcome {
            name: self.world.name.clone(),
            seed: self.world.seed,
            duration: self.world.duration,
            lasted,
            flows,
            happened: self.happened,
            wire,
            wire_limit: self.world.wire_limit,
            links,
            liveness,
            baseline_wire: BTreeMap::new(),
            emulator: None,
        }
    }
}

impl Stage for Run<'_> {
    fn route(&self, traffic: &Traffic) -> Option<Vec<PopId>> {
        let at = self.world.traffic.iter().position(|other| other.name == traffic.name)?;
        self.route_of(self.flows[at])
    }

    fn kill(&mut self, pop: &PopId) -> bool {
        let alive = self.overlay.node(pop.as_str()).is_some();
        self.overlay.kill(pop.as_str());
        alive
    }

    fn drain(&mut self, pop: &PopId) -> bool {
        let alive = self.overlay.node(pop.as_str()).is_some();
        self.overlay.drain(pop.as_str());
        alive
    }

    fn revive(&mut self, pop: &PopId) -> anyhow::Result<()> {
        if self.overlay.node(pop.as_str()).is_none() {
            self.overlay.start(pop.as_str());
        }
        Ok(())
    }

    fn set_up(&mut self, (from, to): &LinkId, up: bool) {
        self.overlay.set_up(from.as_str(), to.as_str(), up);
    }

    fn set(&mut self, (from, to): &LinkId, spec: &LinkSpec) {
        self.overlay.link(from.as_str(), to.as_str(), spec.clone());
    }
}

#[cfg(test)]
mod tests;
