//! A world run at fidelity `flow`: routing as exact as with packets, traffic as rates.
//!
//! Every PoP runs the daemon's own control plane ([`net`]) on what its meters would say of its
//! links ([`sense`]); whether those live, the daemon's own watch decides ([`watching`]). The routes
//! of flows come from the tables by the rule of the ingress, detours by that of the relays
//! ([`course`]). Packets are shares: what arrives when follows from the link models and the
//! recovery plan's own tables ([`repair`], [`delivery`]), is constant as long as nothing changes,
//! and adds up ([`tally`]). The same world and seed give the same result, byte for byte.

mod course;
mod delivery;
mod direct;
mod flows;
mod net;
mod pipe;
mod repair;
mod sense;
mod tally;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tradewind_proto::link::Liveness;
use tradewind_proto::packet::Path;
use tradewind_proto::statement::Policy;
use tradewind_proto::units::{PolicyId, PopId, Timestamp};
use tradewind_relay::node::{Mesh, mesh};
use tradewind_router::explain::Target;

use crate::baseline::Way;
use crate::emulator::LinkReport;
use crate::link::{LinkCounters, LinkSpec, stream_seed};
use crate::outcome::{FlowOutcome, LivenessAt, Outcome, RouteAt, WireUse};
use crate::overlay::START;
use crate::progress::{Figures, FlowTick, Progress, Tick};
use crate::script::{self, Stage};
use crate::simulation::{READY_WITHIN, TICK, explained, labels, merged_rows, policies};
use crate::traffic::FlowReport;
use crate::world::{LinkId, Traffic, World};

use flows::{Flow, Swallowed};
use net::{Net, News};
use repair::Forecasts;

/// How often loads are added up, and what follows from them.
const SETTLE: Duration = Duration::from_millis(50);

/// Runs `world` in virtual time: start, warm-up, duration.
///
/// # Errors
///
/// Flows that get no route within 20 s, an interruption before traffic began.
pub fn run(world: &World, progress: &mut dyn Progress) -> anyhow::Result<Outcome> {
    let mut run = Run::new(world)?;
    run.wait_for_routes(progress)?;
    run.go(progress)
}

struct Run<'a> {
    world: &'a World,
    net: Net,
    numbers: BTreeMap<&'a PopId, usize>,
    /// The pipes of links that relays use.
    pipes: BTreeMap<&'a LinkId, usize>,
    /// In the order of the world.
    flows: Vec<Flow>,
    /// By ingress, and by every relay on the way.
    entering: Vec<Vec<usize>>,
    passing: Vec<BTreeSet<usize>>,
    /// By the relay and port that sent them.
    swallowed: BTreeMap<(usize, usize), Vec<Swallowed>>,
    forecasts: Forecasts,
    /// Whether loads have to be added up anew.
    shifted: bool,
    next_settle: Timestamp,
    begun: Timestamp,
    /// When it ended.
    end: Timestamp,
    /// What relays found of their links since traffic began.
    liveness: Vec<LivenessAt>,
    happened: Vec<(Duration, String)>,
}

impl<'a> Run<'a> {
    /// The relays of a world, running, and its flows.
    fn new(world: &'a World) -> anyhow::Result<Self> {
        let policies = policies(world)?;
        let mut net = Net::new();
        let mut numbers = BTreeMap::new();
        for pop in &world.pops {
            numbers.insert(&pop.id, net.add(pop.id.clone(), labels(pop), policies.clone()));
        }
        let mut pipes = BTreeMap::new();
        for (a, b) in joined(world) {
            let ends = [numbers[&a.0], numbers[&a.1]];
            let at = net.pipes.len();
            let spec = |id: &LinkId| world.links.get(id).cloned().unwrap_or_default();
            net.join(world.seed, ends, [spec(&a), spec(&b)]);
            for (id, pipe) in [(&a, at), (&b, at + 1)] {
                match world.links.get_key_value(id) {
                    Some((id, _)) => drop(pipes.insert(id, pipe)),
                    None => net.pipes[pipe].up = false,
                }
            }
        }
        let flow = |traffic: &Traffic| {
            let ingress = numbers[&traffic.from];
            Flow::new(traffic, ingress, policy_of(traffic, &policies), START)
        };
        let flows: Vec<Flow> = world.traffic.iter().map(flow).collect();
        let mut entering = vec![Vec::new(); world.pops.len()];
        flows.iter().enumerate().for_each(|(at, flow)| entering[flow.ingress].push(at));
        let joining = world.joining();
        net.start_all(|id| !joining.contains(id));
        Ok(Self {
            world,
            passing: vec![BTreeSet::new(); world.pops.len()],
            net,
            numbers,
            pipes,
            flows,
            entering,
            swallowed: BTreeMap::new(),
            forecasts: Forecasts::new(world.recovery),
            shifted: false,
            next_settle: START,
            begun: START,
            end: Timestamp::NEVER,
            liveness: Vec::new(),
            happened: Vec::new(),
        })
    }

    fn wait_for_routes(&mut self, progress: &mut dyn Progress) -> anyhow::Result<()> {
        let until = START + READY_WITHIN;
        let joining = self.world.joining();
        let waiting = |(flow, traffic): (&Flow, &Traffic)| {
            let later = joining.contains(&traffic.from) || joining.contains(&traffic.to);
            !later && !matches!(flow.routes.last(), Some((_, Some(_))))
        };
        while let Some(at) = self.flows.iter().zip(&self.world.traffic).position(waiting) {
            let Traffic { name, from, to, .. } = &self.world.traffic[at];
            anyhow::ensure!(
                self.net.now < until,
                "no route for traffic \"{name}\" from {from} to {to} within {READY_WITHIN:?} of \
                 simulated time: check that links join the two and that its policy leaves a path",
            );
            anyhow::ensure!(!progress.interrupted(), "interrupted before traffic began");
            self.run_until(self.net.now + Duration::from_millis(10));
        }
        let took = self.net.now.since(START).as_secs_f64();
        progress.note(&format!("all routes found after {took:.2} s"));
        let end = self.net.now + self.world.warmup;
        while self.net.now < end && !progress.interrupted() {
            self.run_until(end.min(self.net.now + TICK));
        }
        Ok(())
    }

    fn go(mut self, progress: &mut dyn Progress) -> anyhow::Result<Outcome> {
        let world = self.world;
        self.begun = self.net.now;
        for (flow, traffic) in self.flows.iter_mut().zip(&world.traffic) {
            flow.schedule(self.begun + traffic.start, self.begun + traffic.stop);
        }
        self.shifted = true;
        self.settle();
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
            self.run_until(self.begun + next);
        }
        let lasted = self.elapsed().min(world.duration);
        // What was swallowed last may still be salvaged.
        let end = self.begun + lasted;
        self.end = end;
        self.flows.iter_mut().for_each(|flow| flow.span.1 = flow.span.1.min(end));
        self.run_until(self.net.now + READY_WITHIN.min(Duration::from_secs(1)));
        progress.record(Way::Overlay, self.elapsed(), &mut || self.figures());
        Ok(self.outcome(lasted, &before, progress))
    }

    /// Since traffic began.
    fn elapsed(&self) -> Duration {
        self.net.now.since(self.begun)
    }

    fn run_until(&mut self, until: Timestamp) {
        while self.net.now < until {
            let next = self.next_settle.min(until);
            while self.net.step(next) {
                self.follow_news();
            }
            if self.net.now >= self.next_settle {
                self.settle();
                self.next_settle = self.net.now + SETTLE;
            }
        }
    }

    fn follow_news(&mut self) {
        while !self.net.news.is_empty() {
            for news in std::mem::take(&mut self.net.news) {
                match news {
                    News::Tables(host) => self.reroute(host),
                    News::Liveness { host, port, liveness } => {
                        self.note_liveness(host, port, liveness);
                        self.salvage(host, port, liveness);
                        self.review(host);
                    }
                }
            }
        }
    }

    /// Remembers what an operator would be told: a link went down, or is well again.
    fn note_liveness(&mut self, host: usize, port: usize, state: Liveness) {
        let told = matches!(state, Liveness::Up | Liveness::Down);
        if told && self.end == Timestamp::NEVER && self.begun != START {
            let peer = self.net.hosts[host].ports[port].peer;
            let link = (self.net.hosts[host].id.clone(), self.net.hosts[peer].id.clone());
            self.liveness.push(LivenessAt { at: self.elapsed(), link, state });
        }
    }

    /// A relay has new tables.
    fn reroute(&mut self, host: usize) {
        for at in self.entering[host].clone() {
            if let Some(pair) = self.flows[at].choose(&self.net) {
                let (now, policy) = (self.net.now, self.flows[at].policy());
                if let Some((egress, control)) = pair.zip(self.net.hosts[host].control.as_mut()) {
                    control.want_pair(policy, egress, now);
                    self.net.flush(host);
                }
                self.follow(at, true);
            }
        }
        let doubtful = self.net.hosts[host].ports.iter().any(|port| {
            port.line.is_none() || matches!(port.watch.state(), Liveness::Suspect | Liveness::Down)
        });
        if doubtful {
            self.review(host);
        }
    }

    /// Something changed for the packets that pass a relay.
    fn review(&mut self, host: usize) {
        for at in self.passing[host].clone() {
            self.follow(at, false);
        }
    }

    fn follow(&mut self, at: usize, at_ingress: bool) {
        let now = self.net.now;
        let pops = |flow: &Flow, net: &Net| -> Vec<usize> {
            let pops = flow.courses.iter().flat_map(|course| course.path.pops());
            pops.filter_map(|pop| net.by_key.get(pop).copied()).collect()
        };
        let before = pops(&self.flows[at], &self.net);
        let flow = &mut self.flows[at];
        let Some(swallowed) = flow.follow(at, &self.net, &mut self.forecasts, at_ingress) else {
            return;
        };
        for old in self.swallowed.values_mut().flatten() {
            if old.flow == at && old.is_open() {
                old.end(now);
            }
        }
        for (host, port, lost) in swallowed {
            self.swallowed.entry((host, port)).or_default().push(lost);
        }
        for host in before {
            self.passing[host].remove(&at);
        }
        for host in pops(&self.flows[at], &self.net) {
            self.passing[host].insert(at);
        }
        self.shifted = true;
    }

    /// Packets that a link swallowed, now that its sender knows more of it.
    fn salvage(&mut self, host: usize, port: usize, liveness: Liveness) {
        let Some(mut lost) = self.swallowed.remove(&(host, port)) else { return };
        lost.retain_mut(|lost| {
            let flow = &mut self.flows[lost.flow];
            let settled = flow.salvage(lost, &self.net, &mut self.forecasts);
            (!settled && liveness != Liveness::Down) || lost.is_open()
        });
        if !lost.is_empty() {
            self.swallowed.insert((host, port), lost);
        }
    }

    /// Adds up loads, and lets flows know what came of that.
    fn settle(&mut self) {
        let now = self.net.now;
        self.shifted |= self.world.traffic.iter().any(|traffic| {
            let since = |at: Duration| {
                let at = self.begun + at;
                at <= now && at + SETTLE > now
            };
            since(traffic.start) || since(traffic.stop)
        });
        if std::mem::take(&mut self.shifted) {
            self.add_up();
        }
        self.watch_standbys();
        for at in 0..self.flows.len() {
            if self.flows[at].is_stale(&self.net) {
                self.follow(at, false);
                self.shifted = true;
            }
        }
    }

    fn add_up(&mut self) {
        let now = self.net.now;
        for pipe in &mut self.net.pipes {
            pipe.settle(now);
            pipe.load = Default::default();
        }
        for flow in self.flows.iter().filter(|flow| flow.is_active(now)) {
            let (class, bytes) = flow.packet();
            for (pipe, pps) in flow.loads() {
                self.net.pipes[pipe].load.add(class, pps, bytes);
            }
        }
        self.net.pipes.iter_mut().for_each(|pipe| pipe.reckon());
        self.net.hosts.iter_mut().for_each(|host| host.restless = true);
    }

    /// Links that stand by for those that packets cross are watched as closely.
    fn watch_standbys(&mut self) {
        let now = self.net.now;
        let restless: Vec<usize> =
            (0..self.net.hosts.len()).filter(|&at| self.net.hosts[at].restless).collect();
        for host in restless {
            self.net.hosts[host].restless = false;
            let mut seen = BTreeSet::new();
            for &at in &self.passing[host] {
                let flow = &self.flows[at];
                if !flow.is_active(now) {
                    continue;
                }
                let policy = flow.policy();
                let here = self.net.hosts[host].key;
                let paths = flow.courses.iter().filter_map(|course| {
                    let pops = course.path.pops();
                    let cursor = pops.iter().position(|pop| *pop == here)?;
                    Path::at(pops, cursor).ok().filter(|path| path.next().is_some())
                });
                for path in
                    paths.filter(|path| seen.insert((path.next(), policy))).collect::<Vec<_>>()
                {
                    let tables = &self.net.hosts[host].tables;
                    let standbys = tradewind_relay::node::standbys_of(tables, &path, policy);
                    let keys: Vec<_> = path.next().into_iter().chain(standbys).collect();
                    for key in keys {
                        if let Some(&port) = self.net.hosts[host].port_of.get(&key) {
                            self.net.note_use(host, port);
                        }
                    }
                }
            }
        }
    }

    fn flow_ticks(&self) -> Vec<FlowTick> {
        let rows = self.world.rows();
        let tick = |(name, members): (&str, Vec<usize>)| {
            let single = members.len() == 1;
            FlowTick {
                name: name.to_owned(),
                flows: members.len(),
                sent: members.iter().map(|&at| self.sent(at)).sum(),
                overlay_in_time: members.iter().map(|&at| self.flows[at].tally.in_time()).sum(),
                direct_in_time: None,
                route: members.first().filter(|_| single).and_then(|&at| self.route_of(at)),
            }
        };
        rows.into_iter().map(tick).collect()
    }

    /// How many packets of a flow were sent so far.
    fn sent(&self, at: usize) -> u64 {
        sent(&self.world.traffic[at], self.elapsed())
    }

    fn route_of(&self, at: usize) -> Option<Vec<PopId>> {
        let (_, path) = self.flows[at].routes.last()?;
        path.as_ref().map(|path| self.names(path))
    }

    fn names(&self, path: &Path) -> Vec<PopId> {
        let name = |key| Some(self.net.hosts[*self.net.by_key.get(key)?].id.clone());
        path.pops().iter().filter_map(name).collect()
    }

    fn figures(&self) -> Figures {
        let report = |at: usize| Some(self.report(at));
        Figures { rows: merged_rows(self.world, report), links: self.links() }
    }

    fn links(&self) -> Vec<LinkReport> {
        let counters = |link: &LinkId| match self.pipes.get(link) {
            Some(&pipe) => self.net.pipes[pipe].counters(self.net.now),
            None => LinkCounters::default(),
        };
        let report = |link: &LinkId| LinkReport { link: link.clone(), counters: counters(link) };
        self.world.links.keys().map(report).collect()
    }

    fn routes(&self, flow: &Flow) -> Vec<RouteAt> {
        let first = flow.routes.partition_point(|(at, _)| *at <= self.begun).saturating_sub(1);
        let route = |(at, path): &(Timestamp, Option<Path>)| RouteAt {
            at: at.since(self.begun),
            path: path.as_ref().map(|path| self.names(path)),
        };
        flow.routes.iter().skip(first).map(route).collect()
    }

    /// The figures of a flow so far.
    fn report(&self, at: usize) -> FlowReport {
        let traffic = &self.world.traffic[at];
        let seed = stream_seed(self.world.seed, &format!("{} tally", traffic.name));
        let mut rng = SmallRng::seed_from_u64(seed);
        let flow = &self.flows[at];
        let elapsed = self.net.now.min(self.end).since(self.begun);
        flow.report(sent(traffic, elapsed), self.net.now, &mut rng)
    }

    fn outcome(
        self,
        lasted: Duration,
        before: &[LinkReport],
        progress: &mut dyn Progress,
    ) -> Outcome {
        let reports: Vec<FlowReport> = (0..self.flows.len()).map(|at| self.report(at)).collect();
        let direct = direct::run(self.world, lasted);
        let rows = merged_rows(self.world, |at| direct[at].clone());
        progress
            .record(Way::Direct, lasted, &mut || Figures { rows: rows.clone(), links: Vec::new() });
        let links = self.links();
        let mut flows: Vec<FlowOutcome> = self
            .world
            .traffic
            .iter()
            .zip(&self.flows)
            .zip(reports.into_iter().zip(direct))
            .map(|((traffic, flow), (overlay, direct))| FlowOutcome {
                traffic: traffic.clone(),
                overlay,
                direct,
                baselines: BTreeMap::new(),
                routes: self.routes(flow),
                why: None,
            })
            .collect();
        for at in explained(&flows) {
            let flow = &self.flows[at];
            let target = Target::Pop(flows[at].traffic.to.clone());
            let control = self.net.hosts[flow.ingress].control.as_ref();
            let router = control.map(|control| control.router());
            flows[at].why =
                router.map(|router| router.explain(flow.policy(), &target, self.net.now));
        }
        let wire = WireUse::between(before, &links, &flows);
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
            liveness: self.liveness,
            baseline_wire: BTreeMap::new(),
            emulator: None,
        }
    }
}

/// How many packets of a flow are sent in the first `elapsed` of traffic.
fn sent(traffic: &Traffic, elapsed: Duration) -> u64 {
    let stop = traffic.stop.min(elapsed);
    Traffic { stop, ..traffic.clone() }.packets()
}

fn policy_of(traffic: &Traffic, policies: &[Policy]) -> PolicyId {
    let named = policies.iter().find(|policy| Some(policy.name()) == traffic.policy.as_deref());
    named.map_or(PolicyId::NONE, Policy::id)
}

/// The pairs of PoPs that become neighbours, each as its two directions, by the rule of the mesh
/// applied to the links' delays.
fn joined(world: &World) -> BTreeSet<(LinkId, LinkId)> {
    let both = |(a, b): &LinkId| match a < b {
        true => ((a.clone(), b.clone()), (b.clone(), a.clone())),
        false => ((b.clone(), a.clone()), (a.clone(), b.clone())),
    };
    if world.mesh != Mesh::Auto || world.pops.len() <= mesh::FULL_UP_TO {
        return world.links.keys().map(both).collect();
    }
    let mut joined = BTreeSet::new();
    for pop in &world.pops {
        let from = |link: &LinkId| link.0 == pop.id;
        let mut others: Vec<_> = world
            .links
            .iter()
            .filter(|(link, _)| from(link))
            .map(|(l, s)| (s.mean_delay(), l))
            .collect();
        others.sort();
        joined.extend(mesh::near_and_spread(others).into_iter().map(|(_, link)| both(link)));
    }
    joined
}

impl Stage for Run<'_> {
    fn route(&self, traffic: &Traffic) -> Option<Vec<PopId>> {
        let at = self.world.traffic.iter().position(|other| other.name == traffic.name)?;
        self.route_of(at)
    }

    fn kill(&mut self, pop: &PopId) -> bool {
        let host = self.numbers[pop];
        let alive = self.net.kill(host);
        self.review(host);
        self.follow_news();
        alive
    }

    fn drain(&mut self, pop: &PopId) -> bool {
        let alive = self.net.drain(self.numbers[pop]);
        self.follow_news();
        alive
    }

    fn revive(&mut self, pop: &PopId) -> anyhow::Result<()> {
        self.net.start(self.numbers[pop]);
        self.follow_news();
        Ok(())
    }

    fn set_up(&mut self, link: &LinkId, up: bool) {
        let Some(&pipe) = self.pipes.get(link) else { return };
        self.net.set_up(pipe, up);
        self.review(self.net.pipes[pipe].from);
        self.follow_news();
    }

    fn set(&mut self, link: &LinkId, spec: &LinkSpec) {
        let Some(&pipe) = self.pipes.get(link) else { return };
        self.net.pipes[pipe].settle(self.net.now);
        self.net.pipes[pipe].set(spec.clone());
        self.review(self.net.pipes[pipe].from);
        self.follow_news();
    }
}

#[cfg(test)]
mod tests;
