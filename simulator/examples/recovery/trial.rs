//! One run: a scheme carries packets over link models, in virtual time.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use tradewind_proto::units::Timestamp;
use tradewind_simulator::emulator::IP_UDP_HEADERS;
use tradewind_simulator::link::{LinkModel, LinkSpec, stream_seed};
use tradewind_simulator::virtual_net::{Events, QUIC_OVERHEAD};

use crate::scenario::Scenario;

/// Some moment in 2026; the machines want plausible clocks.
pub const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// A direction of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Counted from the sender.
    pub hop: usize,
    /// Against the packets.
    pub back: bool,
}

/// How packets are brought from the first relay to the last. Its datagrams are without the headers
/// of what carries them.
pub trait Scheme {
    /// Whether its datagrams travel in QUIC, which adds headers and acknowledgements.
    const QUIC: bool;

    /// For the hops of this scenario.
    fn new(scenario: &Scenario) -> anyhow::Result<Self>
    where
        Self: Sized;

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

/// What was sent up to some moment.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    /// Per hop: shards of data, and all.
    pub shards: Vec<(u64, u64)>,
    /// Bytes with all headers, with the packets and against them.
    pub wire: [u64; 2],
}

/// What became of the packets of one phase.
#[derive(Debug, Default)]
pub struct Phase {
    /// The delay of each that was delivered.
    pub delays: Vec<Duration>,
    /// What was sent meanwhile.
    pub before: Spent,
    pub after: Spent,
}

/// A run in progress.
pub struct Trial<'a, S> {
    scenario: &'a Scenario,
    scheme: S,
    /// With the packets and against them, for each hop.
    links: Vec<[LinkModel; 2]>,
    acks: Vec<[QuicAcks; 2]>,
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
            scheme: S::new(scenario)?,
            links: (0..scenario.hops).map(|hop| [link(hop, ">"), link(hop, "<")]).collect(),
            acks: (0..scenario.hops).map(|_| Default::default()).collect(),
            under_way: Events::default(),
            wire: [0; 2],
            now: START,
            next_packet: 0,
            seen: vec![false; scenario.packets() as usize],
            phases: scenario.phases.iter().map(|_| Phase::default()).collect(),
        };
        let mut end = 0;
        for (at, phase) in scenario.phases.iter().enumerate() {
            let spec = LinkSpec { loss: phase.loss, ..spec.clone() };
            trial.links.iter_mut().flatten().for_each(|link| link.set(spec.clone()));
            end += phase.packets;
            trial.phases[at].before = trial.spent();
            trial.run_until(scenario.sent_at(end))?;
            trial.phases[at].after = trial.spent();
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
            self.acks[way.hop][usize::from(way.back)].handle_arrival(now);
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
        let mut bytes = IP_UDP_HEADERS + datagram.len();
        if S::QUIC {
            bytes += QUIC_OVERHEAD + self.acks[way.hop][1 - side].bundled();
            self.wire[side] += self.acks[way.hop][1 - side].alone();
        }
        self.wire[side] += bytes as u64;
        let arrivals: Vec<_> = self.links[way.hop][side].offer(bytes, now).deliveries().collect();
        if arrivals.is_empty() {
            self.acks[way.hop][side].handle_loss(now, self.scenario.rtt);
        }
        for arrival in arrivals {
            self.under_way.schedule(arrival.at, (way, datagram.clone()));
        }
    }

    fn deliver(&mut self, number: u32) -> anyhow::Result<()> {
        let seen = self.seen.get_mut(number as usize).context("a packet that was never sent")?;
        if !std::mem::replace(seen, true) {
            let phase = self.scenario.phase_of(number);
            self.phases[phase].delays.push(self.now.since(self.scenario.sent_at(number)));
        }
        Ok(())
    }
}

/// quinn's acknowledgements of one direction, as the daemon sets them: after [`ACK_EVERY`] packets
/// or [`ACK_DELAY`], bundled with what goes the other way where something does. A model: quinn
/// bundles a little less often. They are counted, not carried.
#[derive(Debug, Default)]
struct QuicAcks {
    unacknowledged: u32,
    since: Timestamp,
    /// When datagrams were lost of late: each makes a gap, until its report was acknowledged.
    gaps: VecDeque<Timestamp>,
    /// Bytes of packets of their own, not yet counted.
    alone: u64,
}

const ACK_EVERY: u32 = 20;
const ACK_DELAY: Duration = Duration::from_millis(25);
/// quinn keeps so many ranges.
const ACK_RANGES: usize = 64;
/// Type, largest (2), delay (2), number of ranges, first range.
const ACK_FRAME: usize = 7;
const ACK_RANGE: usize = 2;

impl QuicAcks {
    fn handle_arrival(&mut self, now: Timestamp) {
        let overdue = self.unacknowledged > 0 && now.since(self.since) >= ACK_DELAY;
        if self.unacknowledged > ACK_EVERY || overdue {
            // The tag and the short header remain of what a datagram has around it.
            self.alone += (IP_UDP_HEADERS + QUIC_OVERHEAD - 2 + self.frame()) as u64;
            self.unacknowledged = 0;
        }
        if self.unacknowledged == 0 {
            self.since = now;
        }
        self.unacknowledged += 1;
    }

    fn handle_loss(&mut self, now: Timestamp, rtt: Duration) {
        self.gaps.push_back(now);
        while self.gaps.front().is_some_and(|&at| now.since(at) > rtt * 3 / 2) {
            self.gaps.pop_front();
        }
    }

    fn frame(&self) -> usize {
        ACK_FRAME + ACK_RANGE * self.gaps.len().min(ACK_RANGES)
    }

    /// Bytes that go with a datagram which is sent now.
    fn bundled(&mut self) -> usize {
        match std::mem::take(&mut self.unacknowledged) {
            0 => 0,
            _ => self.frame(),
        }
    }

    fn alone(&mut self) -> u64 {
        std::mem::take(&mut self.alone)
    }
}
