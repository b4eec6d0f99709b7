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
use tradewind_proto::units::{PopId, PopKey, Timestamp};
use tradewind_relay::node::{Mesh, mesh};
use tradewind_router::explain::{Explanation, Target};

use crate::emulator::LinkReport;
use crate::link::{LinkCounters, LinkSpec, stream_seed};
use crate::outcome::{LivenessAt, Outcome};
use crate::overlay::START;
use crate::progress::Progress;
use crate::script::Stage;
use crate::simulation::{LINGER, Runner, labels, play, policies, policy_of, present_route};
use crate::traffic::FlowReport;
use crate::world::{LinkId, Traffic, World};

use flows::{Flow, Swallowed};
use net::{Net, News};
use repair::Forecasts;

/// How often loads are added up, and what follows from them.
const SETTLE: Duration = Duration::from_millis(50);

/// How often relays look which links stand by for others, beside when routes change.
const STANDBYS: Duration = Duration::from_secs(1);

/// Runs `world` in virtual time: start, warm-up, duration.
///
/// # Errors
///
/// Flows that get no route within 20 s, an interruption before traffic began.
pub fn run(world: &World, progress: &mut dyn Progress) -> anyhow::Result<Outcome> {
    play(world, &mut Run::new(world)?, progress)
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
    /// The version of each pipe, when it was last seen who has to know.
    versions: Vec<u64>,
    /// Whether loads have to be added up anew.
    shifted: bool,
    next_settle: Timestamp,
    next_standbys: Timestamp,
    begun: Timestamp,
    /// When it ended.
    end: Timestamp,
    /// What relays found of their links since traffic began.
    liveness: Vec<LivenessAt>,
}

impl<'a> Run<'a> {
    /// The relays of a world, running, and its flows.
    fn new(world: &'a World) -> anyhow::Result<Self> {
        let policies = policies(world)?;
        let mut net = Net::new(world.metric);
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
            versions: Vec::new(),
            shifted: false,
            next_settle: START,
            next_standbys: START,
            begun: START,
            end: Timestamp::NEVER,
            liveness: Vec::new(),
        })
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
            self.liveness.push(LivenessAt { at: self.net.now.since(self.begun), link, state });
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
            self.net.hosts[host].restless = true;
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
        for at in self.over_changed_pipes() {
            if self.flows[at].is_stale(&self.net) {
                self.follow(at, false);
                self.shifted = true;
            }
        }
    }

    /// Flows that pass a relay whose links changed since the last call.
    fn over_changed_pipes(&mut self) -> BTreeSet<usize> {
        let mut flows = BTreeSet::new();
        self.versions.resize(self.net.pipes.len(), 0);
        for (pipe, version) in self.net.pipes.iter().zip(&mut self.versions) {
            if std::mem::replace(version, pipe.version) != pipe.version {
                flows.extend(&self.passing[pipe.from]);
            }
        }
        flows
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
    }

    /// Links that stand by for those that packets cross are watched as closely.
    fn watch_standbys(&mut self) {
        let now = self.net.now;
        if now >= self.next_standbys {
            self.next_standbys = now + STANDBYS;
            self.net.hosts.iter_mut().for_each(|host| host.restless = true);
        }
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
}

impl Runner for Run<'_> {
    fn now(&self) -> Timestamp {
        self.net.now
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

    fn begin(&mut self) {
        self.begun = self.net.now;
        for (flow, traffic) in self.flows.iter_mut().zip(&self.world.traffic) {
            flow.schedule(self.begun + traffic.start, self.begun + traffic.stop);
        }
        self.shifted = true;
        self.settle();
    }

    fn end(&mut self) {
        // What was swallowed last may still be salvaged.
        let end = self.net.now;
        self.end = end;
        self.flows.iter_mut().for_each(|flow| flow.span.1 = flow.span.1.min(end));
        self.run_until(end + LINGER);
    }

    fn history(&self, flow: usize) -> &[(Timestamp, Option<Path>)] {
        &self.flows[flow].routes
    }

    fn sent(&self, flow: usize) -> u64 {
        sent(&self.world.traffic[flow], self.flows[flow].flushed().since(self.begun))
    }

    fn in_time(&self, flow: usize) -> u64 {
        self.flows[flow].tally.in_time()
    }

    fn report(&self, flow: usize) -> FlowReport {
        let traffic = &self.world.traffic[flow];
        let seed = stream_seed(self.world.seed, &format!("{} tally", traffic.name));
        let mut rng = SmallRng::seed_from_u64(seed);
        let flow = &self.flows[flow];
        let elapsed = self.net.now.min(self.end).since(self.begun);
        flow.report(sent(traffic, elapsed), self.net.now, &mut rng)
    }

    fn links(&self) -> Vec<LinkReport> {
        let counters = |link: &LinkId| match self.pipes.get(link) {
            Some(&pipe) => self.net.pipes[pipe].counters(self.net.now),
            None => LinkCounters::default(),
        };
        let report = |link: &LinkId| LinkReport { link: link.clone(), counters: counters(link) };
        self.world.links.keys().map(report).collect()
    }

    fn liveness(&self) -> Vec<LivenessAt> {
        self.liveness.clone()
    }

    fn explain(&self, flow: usize) -> Option<Explanation> {
        let target = Target::Pop(self.world.traffic[flow].to.clone());
        let flow = &self.flows[flow];
        let router = self.net.hosts[flow.ingress].control.as_ref()?.router();
        Some(router.explain(flow.policy(), &target, self.net.now))
    }

    fn direct(&self, lasted: Duration, progress: &mut dyn Progress) -> Vec<Option<FlowReport>> {
        direct::run(self.world, lasted, progress)
    }
}

/// How many packets of a flow are sent in the first `elapsed` of traffic.
fn sent(traffic: &Traffic, elapsed: Duration) -> u64 {
    let stop = traffic.stop.min(elapsed);
    Traffic { stop, ..traffic.clone() }.packets()
}

/// The pairs of PoPs that become neighbours, each as its two directions, by the rule of the mesh
/// applied to the links' delays and to all flows of the world.
fn joined(world: &World) -> BTreeSet<(LinkId, LinkId)> {
    let both = |(a, b): &LinkId| match a < b {
        true => ((a.clone(), b.clone()), (b.clone(), a.clone())),
        false => ((b.clone(), a.clone()), (a.clone(), b.clone())),
    };
    if world.mesh != Mesh::Auto || world.pops.len() <= mesh::FULL_UP_TO {
        return world.links.keys().map(both).collect();
    }
    let mut flows: BTreeMap<&PopId, BTreeMap<PopKey, usize>> = BTreeMap::new();
    for Traffic { from, to, .. } in &world.traffic {
        for (own, peer) in [(from, to), (to, from)] {
            *flows.entry(own).or_default().entry(peer.key()).or_default() += 1;
        }
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
        let flows = flows.remove(&pop.id).unwrap_or_default();
        let chosen = mesh::chosen(&others, |(_, link)| link.1.key(), &flows, |_| false);
        joined.extend(chosen.into_iter().map(|(_, link)| both(link)));
    }
    joined
}

impl Stage for Run<'_> {
    fn route(&self, traffic: &Traffic) -> Option<Vec<PopId>> {
        let at = self.world.traffic.iter().position(|other| other.name == traffic.name)?;
        present_route(self, self.world, at)
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
