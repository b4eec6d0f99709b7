//! One run of an alternative: a scheme without relays carries packets over the same link models, in
//! virtual time, over bare UDP.

use anyhow::{Context, ensure};
use bytes::Bytes;
use tradewind_proto::units::Timestamp;
use tradewind_simulator::emulator::IP_UDP_HEADERS;
use tradewind_simulator::link::{LinkModel, LinkSpec, stream_seed};
use tradewind_simulator::overlay::START;
use tradewind_simulator::traffic::FlowReport;
use tradewind_simulator::virtual_net::Events;

use crate::figures::{Phase, Spent};
use crate::scenario::{PhaseSpec, Scenario};

/// A direction of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Counted from the sender.
    pub hop: usize,
    /// Against the packets.
    pub back: bool,
}

/// How packets are brought from the first end to the last. Its datagrams are without the headers of
/// UDP and IP.
pub trait Scheme {
    /// For the hops of this scenario.
    fn new(scenario: &Scenario) -> Self;

    /// The next packet is handed to the first relay.
    fn enter(&mut self, number: u32, now: Timestamp);

    /// A datagram came out.
    fn receive(&mut self, way: Way, datagram: Bytes, now: Timestamp);

    /// When to call [`Self::wake`].
    fn next_at(&self) -> Timestamp;

    /// Time has come for something.
    fn wake(&mut self, now: Timestamp);

    /// The next datagram to send now. Called until `None` after each of the above.
    fn poll_transmit(&mut self, now: Timestamp) -> Option<(Way, Bytes)>;

    /// The next packet that the last relay hands out.
    fn poll_delivered(&mut self) -> Option<u32>;

    /// Shards sent so far on each hop: those of data, and all.
    fn shards(&self) -> Vec<(u64, u64)>;
}

impl Phase {
    /// All sent, nothing delivered so far.
    fn of(spec: &PhaseSpec) -> Self {
        let flow = FlowReport { sent: spec.packets.into(), ..FlowReport::default() };
        Self { flow, ..Self::default() }
    }
}

impl Scenario {
    fn packets(&self) -> u32 {
        self.phases.iter().map(|phase| phase.packets).sum()
    }

    fn sent_at(&self, number: u32) -> Timestamp {
        START + self.span(number)
    }

    /// The phase in which a packet is sent.
    fn phase_of(&self, number: u32) -> usize {
        let mut end = 0;
        let before = |phase: &&PhaseSpec| {
            end += phase.packets;
            number >= end
        };
        self.phases.iter().take_while(before).count()
    }
}

/// A run in progress.
pub struct Trial<'a, S> {
    scenario: &'a Scenario,
    scheme: S,
    /// With the packets and against them, for each hop.
    links: Vec<[LinkModel; 2]>,
    under_way: Events<(Way, Bytes)>,
    /// Bytes sent each way, headers included.
    wire: [u64; 2],
    now: Timestamp,
    next_packet: u32,
    seen: Vec<bool>,
    phases: Vec<Phase>,
}

impl<'a, S: Scheme> Trial<'a, S> {
    /// Runs it and gives the phases.
    pub fn run(scenario: &'a Scenario, seed: u64) -> anyhow::Result<Vec<Phase>> {
        let spec = LinkSpec { delay: scenario.one_way(), ..LinkSpec::default() };
        let link = |hop: usize, way: &str| {
            LinkModel::new(spec.clone(), stream_seed(seed, &format!("{hop}{way}")))
        };
        let mut trial = Self {
            scenario,
            scheme: S::new(scenario),
            links: (0..scenario.hops).map(|hop| [link(hop, ">"), link(hop, "<")]).collect(),
            under_way: Events::default(),
            wire: [0; 2],
            now: START,
            next_packet: 0,
            seen: vec![false; scenario.packets() as usize],
            phases: scenario.phases.iter().map(Phase::of).collect(),
        };
        let mut end = 0;
        for (at, phase) in scenario.phases.iter().enumerate() {
            let spec = LinkSpec { loss: phase.loss.model()?, ..spec.clone() };
            trial.links.iter_mut().flatten().for_each(|link| link.set(spec.clone()));
            end += phase.packets;
            let before = trial.spent();
            trial.run_until(scenario.sent_at(end))?;
            trial.phases[at].spent = trial.spent().since(&before);
        }
        // What is under way for the last packets is as much as it was for those before the first.
        trial.run_until(trial.now + scenario.deadline() * 2)?;
        Ok(trial.phases)
    }

    fn spent(&self) -> Spent {
        Spent { shards: self.scheme.shards(), wire: self.wire }
    }

    /// From one thing that happens to the next.
    fn run_until(&mut self, end: Timestamp) -> anyhow::Result<()> {
        let mut at_once = 0;
        loop {
            let next = self.next_send().min(self.under_way.next_at()).min(self.scheme.next_at());
            let next = next.max(self.now);
            if next >= end {
                self.now = end;
                return Ok(());
            }
            at_once = if next > self.now { 0 } else { at_once + 1 };
            ensure!(at_once < 100_000, "a machine asks to be woken at once, again and again");
            self.now = next;
            self.step()?;
        }
    }

    fn next_send(&self) -> Timestamp {
        match self.next_packet < self.scenario.packets() {
            true => self.scenario.sent_at(self.next_packet),
            false => Timestamp::NEVER,
        }
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let now = self.now;
        if let Some((_, (way, datagram))) = self.under_way.pop_until(now) {
            self.scheme.receive(way, datagram, now);
        }
        if self.next_send() <= now {
            self.scheme.enter(self.next_packet, now);
            self.next_packet += 1;
        }
        if self.scheme.next_at() <= now {
            self.scheme.wake(now);
        }
        while let Some((way, datagram)) = self.scheme.poll_transmit(now) {
            self.send(way, datagram);
        }
        while let Some(number) = self.scheme.poll_delivered() {
            self.deliver(number)?;
        }
        Ok(())
    }

    fn send(&mut self, way: Way, datagram: Bytes) {
        let (now, side) = (self.now, usize::from(way.back));
        let bytes = IP_UDP_HEADERS + datagram.len();
        self.wire[side] += bytes as u64;
        for arrival in self.links[way.hop][side].offer(bytes, now).deliveries() {
            self.under_way.schedule(arrival.at, (way, datagram.clone()));
        }
    }

    fn deliver(&mut self, number: u32) -> anyhow::Result<()> {
        let seen = self.seen.get_mut(number as usize).context("a packet that was never sent")?;
        if !std::mem::replace(seen, true) {
            let phase = &mut self.phases[self.scenario.phase_of(number)];
            let delay = self.now.since(self.scenario.sent_at(number));
            phase.flow.delivered += 1;
            phase.flow.in_time += u64::from(delay <= self.scenario.deadline());
            phase.flow.delays.record(delay);
        }
        Ok(())
    }
}
