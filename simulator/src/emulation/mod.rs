//! A world run in real time: relays, emulated links, traffic and events from start to result.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tradewind_proto::units::{PopId, Timestamp};

use crate::clock::Clock;
use crate::cluster::{Cluster, RelayHost};
use crate::emulator::{Emulator, EmulatorReport};
use crate::link::LinkSpec;
use crate::outcome::{FlowOutcome, Outcome, RouteAt, WireUse};
use crate::progress::{FlowTick, Progress, Tick};
use crate::script::{self, Stage};
use crate::traffic::{Receiver, Sender, Ways};
use crate::world::{Event, LinkId, Traffic, World};

/// Each flow has three sockets and two threads of its own here.
const MAX_FLOWS: usize = 256;

/// How long relays may take until every flow has a route.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How often routes are looked at and progress is told.
const TICK: Duration = Duration::from_millis(250);

/// How long to wait for stragglers after the last packet, beyond the longest deadline.
const LINGER: Duration = Duration::from_secs(1);

/// Runs `world` with relays of `host`, in as long as it takes: start, warm-up, duration.
///
/// # Errors
///
/// Sockets, threads or relays that can't be started; flows that get no route within 20 s.
pub fn run(
    world: &World,
    host: &dyn RelayHost,
    progress: &mut dyn Progress,
) -> anyhow::Result<Outcome> {
    let flows = world.traffic.len();
    anyhow::ensure!(
        flows <= MAX_FLOWS,
        "{flows} flows are too many for real sockets, at most {MAX_FLOWS}: run the world in virtual time"
    );
    let clock = Clock::start();
    let mut emulator = Emulator::start(world, clock).context("can't start the emulator")?;
    let meters = Meters::start(world, &mut emulator, clock).context("can't open the meters")?;
    let cluster = Cluster::start(world, &emulator, &meters.targets(), host)?;
    let run =
        Run { world, clock, emulator, cluster, meters, happened: Vec::new(), start: clock.now() };
    run.wait_for_routes(progress)?;
    run.go(progress)
}

/// Both ends' receivers.
struct Meters {
    overlay: Vec<Receiver>,
    /// With the address to send to.
    direct: Vec<Option<(Receiver, SocketAddr)>>,
}

impl Meters {
    fn start(world: &World, emulator: &mut Emulator, clock: Clock) -> std::io::Result<Self> {
        let (mut overlay, mut direct) = (Vec::new(), Vec::new());
        for (stream, traffic) in (0..).step_by(2).zip(&world.traffic) {
            overlay.push(Receiver::start(stream, traffic, clock)?);
            let receiver = Receiver::start(stream + 1, traffic, clock)?;
            let link = (traffic.from.clone(), traffic.to.clone());
            let address = emulator.direct_path(&link, receiver.address())?;
            direct.push(address.map(|address| (receiver, address)));
        }
        Ok(Self { overlay, direct })
    }

    fn targets(&self) -> Vec<SocketAddr> {
        self.overlay.iter().map(Receiver::address).collect()
    }
}

struct Run<'a> {
    world: &'a World,
    clock: Clock,
    emulator: Emulator,
    cluster: Cluster<'a>,
    meters: Meters,
    happened: Vec<(Duration, String)>,
    /// When traffic begins.
    start: Timestamp,
}

impl Run<'_> {
    fn wait_for_routes(&self, progress: &mut dyn Progress) -> anyhow::Result<()> {
        let count = self.world.pops.len();
        progress.note(&format!("{count} relays started, waiting for routes"));
        let patience = self.clock.now() + READY_WITHIN;
        let joining = self.world.joining();
        let later = |flow: &Traffic| joining.contains(&flow.from) || joining.contains(&flow.to);
        let flows = || self.world.traffic.iter().filter(|flow| !later(flow));
        let missing = || flows().find(|flow| self.cluster.route(flow).is_none());
        while let Some(traffic) = missing() {
            anyhow::ensure!(
                self.clock.now() < patience,
                "no route for traffic \"{}\" from {} to {} within {READY_WITHIN:?}: \
                 check that links join the two and that its policy leaves a path",
                traffic.name,
                traffic.from,
                traffic.to,
            );
            anyhow::ensure!(!progress.interrupted(), "interrupted before traffic began");
            std::thread::sleep(Duration::from_millis(50));
        }
        let took = self.clock.now().since(Timestamp::ZERO).as_secs_f64();
        let warmup = self.world.warmup;
        progress.note(&format!("all routes found after {took:.2} s; warming up for {warmup:?}"));
        std::thread::sleep(warmup);
        Ok(())
    }

    fn go(mut self, progress: &mut dyn Progress) -> anyhow::Result<Outcome> {
        let mut history = vec![Vec::new(); self.world.traffic.len()];
        let before = self.emulator.report();
        self.start = self.clock.now() + Duration::from_millis(10);
        self.emulator.start_traces(self.start);
        let mut sender = Sender::start(self.flows()?, self.world.seed, self.start, self.clock)
            .context("can't start the sender")?;
        let mut events = self.world.events.iter().peekable();
        let mut next_tick = Duration::ZERO;
        while self.elapsed() < self.world.duration && !progress.interrupted() {
            while let Some(event) = events.next_if(|event| event.at <= self.elapsed()) {
                self.watch_routes(&mut history);
                self.happen(event, progress)?;
            }
            if self.elapsed() >= next_tick {
                self.watch_routes(&mut history);
                let flows = self.flow_ticks(&sender, &history);
                let (elapsed, total) = (self.elapsed(), self.world.duration);
                progress.tick(&Tick { elapsed, total, flows: &flows });
                next_tick = self.elapsed() + TICK;
            }
            let event = events.peek().map_or(Duration::MAX, |event| event.at);
            let next = event.min(next_tick).min(self.world.duration);
            self.clock.sleep_until(self.start + next);
        }
        let lasted = self.elapsed().min(self.world.duration);
        sender.stop();
        let deadlines = self.world.traffic.iter().map(|traffic| traffic.deadline);
        std::thread::sleep(LINGER + deadlines.max().unwrap_or_default());
        self.watch_routes(&mut history);
        let used = self.emulator.report();
        Ok(Outcome { lasted, ..self.outcome(&sender, history, &before, used) })
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().since(self.start)
    }

    fn flows(&self) -> anyhow::Result<Vec<(Traffic, Ways)>> {
        let mut flows = Vec::with_capacity(self.world.traffic.len());
        for (stream, (traffic, direct)) in
            (0..).step_by(2).zip(self.world.traffic.iter().zip(&self.meters.direct))
        {
            let tunnel = self.cluster.tunnel(traffic).context("a flow without a tunnel")?;
            let direct = direct.as_ref().map(|(_, address)| (stream + 1, *address));
            flows.push((traffic.clone(), Ways { overlay: (stream, tunnel), direct }));
        }
        Ok(flows)
    }

    /// Notes every flow's route where it differs from the last one noted.
    fn watch_routes(&self, history: &mut [Vec<RouteAt>]) {
        for (traffic, history) in self.world.traffic.iter().zip(history) {
            let path = self.cluster.route(traffic);
            if history.last().is_none_or(|last: &RouteAt| last.path != path) {
                history.push(RouteAt { at: self.elapsed(), path });
            }
        }
    }

    fn flow_ticks(&self, sender: &Sender, history: &[Vec<RouteAt>]) -> Vec<FlowTick> {
        let tick = |(name, members): (&str, Vec<usize>)| {
            let first = members[0];
            let single = members.len() == 1;
            let route = || history[first].last().and_then(|last| last.path.clone());
            let direct = || members.iter().filter_map(|&at| self.meters.direct[at].as_ref());
            let in_time = || direct().map(|(receiver, _)| receiver.in_time()).sum();
            FlowTick {
                name: name.to_owned(),
                flows: members.len(),
                sent: members.iter().map(|&at| sender.sent()[at].packets()).sum(),
                overlay_in_time: members.iter().map(|&at| self.meters.overlay[at].in_time()).sum(),
                direct_in_time: direct().next().map(|_| in_time()),
                route: single.then(route).flatten(),
            }
        };
        self.world.rows().into_iter().map(tick).collect()
    }

    fn happen(&mut self, event: &Event, progress: &mut dyn Progress) -> anyhow::Result<()> {
        let line = script::perform(self, self.world, event)?;
        let at = self.elapsed();
        if !line.is_empty() {
            progress.note(&format!("{:6.2} s  {line}", at.as_secs_f64()));
            self.happened.push((at, line));
        }
        Ok(())
    }

    fn outcome(
        self,
        sender: &Sender,
        history: Vec<Vec<RouteAt>>,
        before: &EmulatorReport,
        used: EmulatorReport,
    ) -> Outcome {
        let flows =
            self.world.traffic.iter().zip(history).enumerate().map(|(i, (traffic, routes))| {
                let sent = &sender.sent()[i];
                let direct = self.meters.direct[i].as_ref();
                FlowOutcome {
                    traffic: traffic.clone(),
                    overlay: self.meters.overlay[i].report(sent),
                    direct: direct.map(|(receiver, _)| receiver.report(sent)),
                    baselines: BTreeMap::new(),
                    routes,
                    why: None,
                }
            });
        let flows: Vec<FlowOutcome> = flows.collect();
        let wire = WireUse::between(&before.links, &used.links, &flows);
        Outcome {
            name: self.world.name.clone(),
            seed: self.world.seed,
            duration: self.world.duration,
            lasted: self.world.duration,
            flows,
            happened: self.happened,
            wire,
            wire_limit: self.world.wire_limit,
            links: used.links,
            liveness: Vec::new(),
            baseline_wire: BTreeMap::new(),
            emulator: Some(used.health),
        }
    }
}

impl Stage for Run<'_> {
    fn route(&self, traffic: &Traffic) -> Option<Vec<PopId>> {
        self.cluster.route(traffic)
    }

    fn kill(&mut self, pop: &PopId) -> bool {
        self.cluster.kill(pop, &self.emulator)
    }

    fn drain(&mut self, pop: &PopId) -> bool {
        self.cluster.drain(pop)
    }

    fn revive(&mut self, pop: &PopId) -> anyhow::Result<()> {
        self.cluster.revive(pop, &self.emulator)
    }

    fn set_up(&mut self, link: &LinkId, up: bool) {
        self.emulator.set_up(link, up);
    }

    fn set(&mut self, link: &LinkId, spec: &LinkSpec) {
        self.emulator.set(link, spec);
    }
}

#[cfg(test)]
mod tests;
