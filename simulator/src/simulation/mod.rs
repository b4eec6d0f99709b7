//! A world run in virtual time: the daemon's own relays over link models, as fast as they compute.
//!
//! The counterpart of [`crate::emulation`], with the same result. What QUIC does is modelled (see
//! [`crate::overlay`]); what a machine does - timers that are late, time spent computing, full
//! socket buffers - is not there. The same world and seed give the same result, byte for byte.

mod direct;
mod runner;

use std::time::Duration;

use anyhow::Context;
use tradewind_proto::packet::Path;
use tradewind_proto::statement::Policy;
use tradewind_proto::units::{PolicyId, PopId, Timestamp};
use tradewind_relay::node::News;
use tradewind_router::explain::{Explanation, Target};
use tradewind_router::lsdb::Labels;

use crate::capture::{Capture, Captured};
use crate::emulator::LinkReport;
use crate::fluid;
use crate::link::LinkSpec;
use crate::outcome::{LivenessAt, Outcome};
use crate::overlay::{FlowNumber, FlowSpec, Overlay, RelaySpec, START, Watch};
use crate::progress::Progress;
use crate::script::Stage;
use crate::traffic::FlowReport;
use crate::world::{Fidelity, LinkId, Pop, Traffic, World};
pub(crate) use runner::{Runner, TICK, merged_rows, play, present_route};

/// How long to wait for stragglers after the last packet, beyond the longest deadline.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Runs `world` in virtual time: start, warm-up, duration.
///
/// # Errors
///
/// Flows that get no route within 20 s, an interruption before traffic began.
pub fn run(world: &World, progress: &mut dyn Progress) -> anyhow::Result<Outcome> {
    if world.fidelity == Fidelity::Flow {
        return fluid::run(world, progress);
    }
    play(world, &mut Run::new(world, None)?, progress)
}

/// The same, and writes the packets that enter links while traffic flows to a capture of them.
///
/// # Errors
///
/// Also what keeps the capture from being written.
///
/// # Panics
///
/// If the world is run without packets.
pub fn run_captured(
    world: &World,
    capture: Capture,
    progress: &mut dyn Progress,
) -> anyhow::Result<(Outcome, Captured)> {
    assert!(world.fidelity == Fidelity::Packet, "there are packets at fidelity packet only");
    let mut run = Run::new(world, Some(capture))?;
    let outcome = play(world, &mut run, progress)?;
    let captured = run.overlay.end_capture().map(Capture::finish).transpose();
    Ok((outcome, captured.context("can't write the capture")?.unwrap_or_default()))
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
        let World { mesh, recovery, metric, .. } = *world;
        overlay.add(RelaySpec { labels, mesh, policies, recovery, metric, ..relay });
    }
    for ((from, to), spec) in &world.links {
        overlay.link(from.as_str(), to.as_str(), spec.clone());
    }
    let joining = world.joining();
    for pop in world.pops.iter().filter(|pop| !joining.contains(&pop.id)) {
        overlay.start(pop.id.as_str());
    }
    let flows = world.traffic.iter().map(|traffic| {
        overlay.tunnel(FlowSpec {
            size: traffic.size,
            interval: traffic.interval,
            shape: traffic.shape.clone(),
            seed: traffic.seed(world.seed),
            class: traffic.class,
            deadline: traffic.deadline,
            policy: policy_of(traffic, &policies),
            redundancy: traffic.redundancy,
            watch: Watch::Figures,
            ..FlowSpec::new(traffic.from.as_str(), traffic.to.as_str())
        })
    });
    let flows = flows.collect();
    Ok((overlay, flows))
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

/// The rule that binds a flow.
pub(crate) fn policy_of(traffic: &Traffic, policies: &[Policy]) -> PolicyId {
    let named = policies.iter().find(|policy| Some(policy.name()) == traffic.policy.as_deref());
    named.map_or(PolicyId::NONE, Policy::id)
}

/// What a PoP's certificate says.
pub(crate) fn labels(pop: &Pop) -> Labels {
    let [region, country, provider] = [&pop.region, &pop.country, &pop.provider]
        .map(|label| label.as_ref().map(|label| label.as_str().to_owned()));
    Labels { region, country, provider }
}

struct Run<'a> {
    world: &'a World,
    overlay: Overlay,
    /// In the order of the world.
    flows: Vec<FlowNumber>,
    /// When traffic began.
    begun: Timestamp,
    /// What is to be captured from then on.
    capture: Option<Capture>,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, capture: Option<Capture>) -> anyhow::Result<Self> {
        let (overlay, flows) = build(world)?;
        Ok(Self { world, overlay, flows, begun: START, capture })
    }
}

impl Runner for Run<'_> {
    fn now(&self) -> Timestamp {
        self.overlay.now()
    }

    fn run_until(&mut self, until: Timestamp) {
        self.overlay.run_until(until);
    }

    fn begin(&mut self) {
        self.begun = self.overlay.now();
        let begun = self.begun.since(START);
        self.overlay.start_traces();
        if let Some(capture) = self.capture.take() {
            self.overlay.start_capture(capture);
        }
        for (&flow, traffic) in self.flows.iter().zip(&self.world.traffic) {
            self.overlay.send(flow, begun + traffic.start, begun + traffic.stop);
        }
    }

    fn end(&mut self) {
        self.flows.iter().for_each(|&flow| self.overlay.stop(flow));
        let deadlines = self.world.traffic.iter().map(|traffic| traffic.deadline);
        self.overlay.run_for(LINGER + deadlines.max().unwrap_or_default());
    }

    fn history(&self, flow: usize) -> &[(Timestamp, Option<Path>)] {
        &self.overlay.record(self.flows[flow]).routes
    }

    fn sent(&self, flow: usize) -> u64 {
        self.overlay.sent(self.flows[flow])
    }

    fn in_time(&self, flow: usize) -> u64 {
        self.overlay.in_time(self.flows[flow]).unwrap_or(0)
    }

    fn report(&self, flow: usize) -> FlowReport {
        self.overlay.report(self.flows[flow]).unwrap_or_default()
    }

    fn links(&self) -> Vec<LinkReport> {
        let report = |link: &LinkId| {
            let counters = self.overlay.link_counters(link.0.as_str(), link.1.as_str())?;
            Some(LinkReport { link: link.clone(), counters: *counters })
        };
        self.world.links.keys().filter_map(report).collect()
    }

    fn liveness(&self) -> Vec<LivenessAt> {
        let news = self.overlay.news().iter().filter(|(at, ..)| *at >= self.begun);
        news.filter_map(|(at, pop, news)| {
            let News::Liveness(neighbour, state) = news else { return None };
            let link = (pop.parse().ok()?, neighbour.clone());
            Some(LivenessAt { at: at.since(self.begun), link, state: *state })
        })
        .collect()
    }

    fn explain(&self, flow: usize) -> Option<Explanation> {
        let Traffic { from, to, .. } = &self.world.traffic[flow];
        let policy = self.overlay.policy_of(self.flows[flow]);
        let router = self.overlay.node(from.as_str())?.control().router();
        Some(router.explain(policy, &Target::Pop(to.clone()), self.overlay.clock(from.as_str())))
    }

    fn direct(&self, lasted: Duration, progress: &mut dyn Progress) -> Vec<Option<FlowReport>> {
        direct::run(self.world, lasted, progress)
    }
}

impl Stage for Run<'_> {
    fn route(&self, traffic: &Traffic) -> Option<Vec<PopId>> {
        let at = self.world.traffic.iter().position(|other| other.name == traffic.name)?;
        present_route(self, self.world, at)
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
