//! The daemon's own relays in virtual time.
//!
//! An [`Overlay`] drives any number of [`Node`]s, the very machines that the daemon drives, over
//! link models: no sockets, no threads, no fixed tick, only the next thing that happens. Each relay
//! has a clock of its own. How connections behave is said in [`line`]. The same seed and the same
//! calls give the same run, bit for bit ([`Overlay::trace_hash`]).
//!
//! All times that callers see are true time; only the relays live by their own clocks.

mod acks;
mod clock;
mod flow;
mod host;
pub(crate) mod line;
mod output;
mod sightings;
mod tap;
mod trust;
mod wakes;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::units::{PolicyId, PopId, Timestamp};
use tradewind_relay::node::edge::{Target, TunnelId, TunnelSpec};
use tradewind_relay::node::{News, Node};

pub use clock::{ClockError, SkewedClock};
pub use flow::{Delivery, FlowNumber, FlowRecord, FlowSpec, Watch};
pub use host::{RelaySpec, Work};
pub use line::Carried;
pub use sightings::{PacketName, Sighting, Sightings};
pub use trust::PlainTrust;

use flow::Flow;
use host::Host;
use line::{Line, Segment, Side};
use tap::Tap;
use wakes::Wakes;

use crate::capture::Payload;
use crate::link::{Delivery as Arrival, LinkCounters, LinkModel, LinkSpec, stream_seed};
use crate::traffic::{Departures, FlowReport, Meter, Stamp};

/// True time when a simulation begins: late enough for clocks that are hours behind.
pub const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// For how long the daemon forwards after it has said that it leaves.
pub(crate) const LEAVING: Duration = Duration::from_secs(2);
/// What the daemon leaves its goodbye to travel, before it closes its connections.
const FAREWELL: Duration = Duration::from_millis(100);
/// A relay that asks so often in a row to be woken at once never stops.
const MAX_SPINS: u32 = 1000;

/// Something that is going to happen.
enum Event {
    Datagram(u64, Side, Bytes),
    Write(u64, Side, Bytes),
    Segment(Segment),
    SendSegment(Segment),
    Flight(u64, Side),
    SendFlight(u64),
    Patience(u64),
    Farewell(u64, Side, String),
    Idle(u64, Side),
    Packet(FlowNumber),
    Left { host: usize, life: u32 },
    Over { host: usize, life: u32, reason: String },
}

/// Relays and the network between them.
pub struct Overlay {
    seed: u64,
    now: Timestamp,
    events: crate::virtual_net::Events<Event>,
    hosts: Vec<Host>,
    wakes: Wakes,
    names: BTreeMap<String, usize>,
    links: BTreeMap<(usize, usize), LinkModel>,
    lines: BTreeMap<u64, Line>,
    next_line: u64,
    carried: BTreeMap<(u64, usize, usize), Carried>,
    flows: Vec<Flow>,
    news: Vec<(Timestamp, String, News)>,
    trace: Trace,
    sightings: Option<Sightings>,
    tap: Option<Tap>,
}

impl Overlay {
    /// An empty network at [`START`].
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: START,
            events: crate::virtual_net::Events::default(),
            hosts: Vec::new(),
            wakes: Wakes::default(),
            names: BTreeMap::new(),
            links: BTreeMap::new(),
            lines: BTreeMap::new(),
            next_line: 0,
            carried: BTreeMap::new(),
            flows: Vec::new(),
            news: Vec::new(),
            trace: Trace::default(),
            sightings: None,
            tap: None,
        }
    }

    /// A place for a relay, which offers the service `at-PLACE` there. It does not run yet.
    ///
    /// # Panics
    ///
    /// If there is such a place already, or its name makes no name of a service.
    pub fn add(&mut self, spec: RelaySpec) {
        let number = self.hosts.len();
        let service = service_at(&spec.host);
        let former = self.names.insert(spec.host.clone(), number);
        assert!(former.is_none(), "there is a place {:?} already", spec.host);
        let mut host = Host::new(spec, START);
        host.services.push(service);
        self.hosts.push(host);
        self.wakes.add();
    }

    /// Makes the link from `from` to `to`, that direction only, or changes it.
    pub fn link(&mut self, from: &str, to: &str, spec: LinkSpec) {
        let seed = stream_seed(self.seed, &format!("{from}>{to}"));
        let ends = (self.number(from), self.number(to));
        match self.links.get_mut(&ends) {
            Some(link) => link.set(spec),
            None => {
                self.links.insert(ends, LinkModel::new(spec, seed));
            }
        }
    }

    /// The traces of all links begin now.
    pub fn start_traces(&mut self) {
        let now = self.now;
        self.links.values_mut().for_each(|link| link.start_traces(now));
    }

    /// Makes both directions alike.
    pub fn link_both(&mut self, a: &str, b: &str, spec: &LinkSpec) {
        self.link(a, b, spec.clone());
        self.link(b, a, spec.clone());
    }

    /// Cuts one direction, or restores it. What is under way arrives.
    pub fn set_up(&mut self, from: &str, to: &str, up: bool) {
        let ends = (self.number(from), self.number(to));
        if let Some(link) = self.links.get_mut(&ends) {
            link.set_up(up);
        }
    }

    /// Cuts both directions, or restores them.
    pub fn set_both_up(&mut self, a: &str, b: &str, up: bool) {
        self.set_up(a, b, up);
        self.set_up(b, a, up);
    }

    /// Starts the relay at a place, anew if it ran before.
    pub fn start(&mut self, host: &str) {
        let number = self.number(host);
        let now = self.now;
        self.hosts[number].kill();
        self.hosts[number].start(now);
        self.flush(number);
    }

    /// Starts all relays that don't run.
    pub fn start_all(&mut self) {
        let idle = |host: &&Host| host.node.is_none();
        let names: Vec<_> =
            self.hosts.iter().filter(idle).map(|host| host.spec.host.clone()).collect();
        names.iter().for_each(|name| self.start(name));
    }

    /// The relay at a place dies without a word.
    pub fn kill(&mut self, host: &str) {
        let number = self.number(host);
        self.end_now(number);
    }

    fn end_now(&mut self, number: usize) {
        self.hosts[number].kill();
        self.wakes.set(number, Timestamp::NEVER);
    }

    /// The relay at a place leaves as the daemon does: it says so, forwards for a while, and ends.
    pub fn drain(&mut self, host: &str) {
        let number = self.number(host);
        self.with_node(number, |node, now| node.announce_leaving(now));
        let life = self.hosts[number].life;
        self.events.schedule(self.now + LEAVING, Event::Left { host: number, life });
    }

    /// The relay at a place says goodbye and ends.
    pub fn leave(&mut self, host: &str) {
        let number = self.number(host);
        self.end(number, "it leaves");
    }

    fn end(&mut self, number: usize, reason: &str) {
        self.with_node(number, |node, _| node.say_goodbye());
        let host = &mut self.hosts[number];
        host.ending = true;
        self.wakes.set(number, Timestamp::NEVER);
        let over = Event::Over { host: number, life: host.life, reason: reason.to_owned() };
        self.events.schedule(self.now + FAREWELL, over);
    }

    /// Traffic between two places, by a tunnel of its own.
    ///
    /// # Panics
    ///
    /// If a place does not exist, or the packets are too small to be told apart.
    pub fn flow(&mut self, spec: FlowSpec) -> FlowNumber {
        let times = (spec.start, spec.stop);
        let number = self.tunnel(spec);
        self.send(number, times.0, times.1);
        number
    }

    /// A tunnel for a flow between two places, without packets so far.
    ///
    /// # Panics
    ///
    /// As [`Self::flow`].
    pub fn tunnel(&mut self, spec: FlowSpec) -> FlowNumber {
        assert!(spec.size >= 24, "a packet needs 24 bytes to be told from others");
        let (from, to) = (self.number(&spec.from), self.number(&spec.to));
        let number = FlowNumber(self.flows.len());
        let tunnel = TunnelSpec {
            service: Target { service: service_at(&spec.to), pop: None },
            class: spec.class,
            deadline: spec.deadline,
            policy: spec.policy,
            redundancy: spec.redundancy,
            ports: 1,
        };
        let now = self.now;
        self.hosts[from].tunnels.insert(tunnel_of(number), tunnel);
        if self.hosts[from].node.is_some() {
            self.hosts[from].configure(now);
            self.flush(from);
        }
        self.flows.push(Flow::new(spec, from, to));
        number
    }

    /// Sends packets of a flow that has sent none yet, from `start` to `stop` after [`START`].
    pub fn send(&mut self, number: FlowNumber, start: Duration, stop: Duration) {
        let flow = &mut self.flows[number.0];
        (flow.spec.start, flow.spec.stop) = (start, stop);
        if flow.spec.watch == Watch::Figures {
            flow.meter = Some(Meter::new(stream_of(number), flow.spec.deadline));
        }
        let due = flow.begin((START + start).max(self.now));
        self.events.schedule(due, Event::Packet(number));
    }

    /// Sends no more packets of a flow.
    pub fn stop(&mut self, number: FlowNumber) {
        let spec = &mut self.flows[number.0].spec;
        spec.stop = spec.stop.min(self.now.since(START));
    }

    /// How many packets of a flow were sent so far.
    pub fn sent(&self, flow: FlowNumber) -> u64 {
        self.flows[flow.0].departures.as_ref().map_or(0, Departures::sent)
    }

    /// The figures of a flow so far; `None` if more is kept of it than these.
    pub fn report(&self, flow: FlowNumber) -> Option<FlowReport> {
        self.flows[flow.0].report()
    }

    /// How many of its packets came out in time so far; `None` as [`Self::report`].
    pub fn in_time(&self, flow: FlowNumber) -> Option<u64> {
        self.flows[flow.0].meter.as_ref().map(Meter::in_time)
    }

    /// Which relays a flow may visit.
    pub fn policy_of(&self, flow: FlowNumber) -> PolicyId {
        self.flows[flow.0].spec.policy
    }

    /// What became of a flow so far.
    pub fn record(&self, flow: FlowNumber) -> &FlowRecord {
        &self.flows[flow.0].record
    }

    /// From now on remembers the ways of all packets.
    pub fn watch_packets(&mut self) {
        self.sightings.get_or_insert_default();
    }

    /// The ways of all packets since [`Self::watch_packets`].
    pub fn sightings(&self) -> Option<&Sightings> {
        self.sightings.as_ref()
    }

    /// The time, in true time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Runs for so long.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// Runs up to and including `until`.
    pub fn run_until(&mut self, until: Timestamp) {
        while self.step(until) {}
        self.now = self.now.max(until);
    }

    /// Runs until `wanted` holds; `None` if it does not within `span`.
    pub fn run_while_not(
        &mut self,
        span: Duration,
        wanted: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let began = self.now;
        while !wanted(self) {
            if !self.step(began + span) {
                self.now = began + span;
                return wanted(self).then_some(span);
            }
        }
        Some(self.now.since(began))
    }

    /// Does the next thing, if it happens by `until`.
    fn step(&mut self, until: Timestamp) -> bool {
        let (wake_at, number) = self.wakes.first();
        if self.events.next_at() <= wake_at {
            let Some((at, event)) = self.events.pop_until(until) else { return false };
            self.now = self.now.max(at);
            self.handle(event);
        } else {
            if wake_at > until {
                return false;
            }
            self.wake(number, wake_at);
        }
        true
    }

    fn wake(&mut self, number: usize, at: Timestamp) {
        let host = &mut self.hosts[number];
        self.now = self.now.max(at);
        host.spins = if host.woken_at == self.now { host.spins + 1 } else { 0 };
        host.woken_at = self.now;
        assert!(host.spins < MAX_SPINS, "{} wants to be woken for ever", host.spec.host);
        host.work.wake_ups += 1;
        self.with_node(number, |node, now| node.handle_timeout(now));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Datagram(line, side, datagram) => self.handle_datagram(line, side, datagram),
            Event::Write(line, side, bytes) => self.write(line, side, bytes),
            Event::Segment(segment) => self.handle_segment(segment),
            Event::SendSegment(segment) => self.send_segment(segment),
            Event::Flight(line, side) => self.handle_flight(line, side),
            Event::SendFlight(line) => self.send_flight(line),
            Event::Patience(line) => self.handle_patience(line),
            Event::Farewell(line, side, reason) => self.handle_farewell(line, side, &reason),
            Event::Idle(line, side) => self.handle_idle(line, side),
            Event::Packet(flow) => self.send_packet(flow),
            Event::Left { host, life } => {
                if self.hosts[host].lives(life) {
                    self.end(host, "it leaves");
                }
            }
            Event::Over { host, life, reason } => {
                if self.hosts[host].lives(life) {
                    self.close_all(host, &reason);
                    self.end_now(host);
                }
            }
        }
    }

    fn send_packet(&mut self, number: FlowNumber) {
        let now = self.now;
        let flow = &mut self.flows[number.0];
        if now >= START + flow.spec.stop {
            return;
        }
        let Some((packet, size, next)) = flow.leave(now) else { return };
        self.events.schedule(next, Event::Packet(number));
        let stamp = Stamp { stream: stream_of(number), number: packet, sent_at: now };
        let mut payload = vec![0; size];
        stamp.write(&mut payload);
        let (from, tunnel) = (flow.from, tunnel_of(number));
        self.with_node(from, |node, now| {
            node.handle_tunnel(tunnel, 0, source_of(number), payload.into(), now);
        });
    }

    /// Sends a packet of `bytes` bytes into a link; when it arrives, undamaged. `None`: never.
    fn offer(
        &mut self,
        from: usize,
        to: usize,
        bytes: usize,
        payload: Payload<'_>,
    ) -> Option<Timestamp> {
        let link = self.links.get_mut(&(from, to))?;
        let sound = |arrival: &Arrival| arrival.flipped.is_none();
        let fate = link.offer(bytes, self.now);
        if let Some(tap) = &mut self.tap {
            tap.note((from, to), self.now, bytes, payload, fate);
        }
        fate.deliveries().filter(sound).map(|arrival| arrival.at).min()
    }

    /// Counts packets, or bytes that ride on others, which are not carried.
    fn count_in(&mut self, from: usize, to: usize, packets: u64, bytes: usize) {
        if let Some(link) = self.links.get_mut(&(from, to)) {
            link.count_in(packets, bytes);
        }
    }

    /// A packet of somebody else's, of `bytes` bytes, enters a link at [`Self::now`]; when it comes out.
    /// `None`: never.
    pub fn cross(&mut self, from: &str, to: &str, bytes: usize) -> Option<Timestamp> {
        self.offer(self.number(from), self.number(to), bytes, Payload::Foreign)
    }

    /// How long a packet that enters a link now waits in front of its bottleneck.
    pub fn waiting(&self, from: &str, to: &str) -> Duration {
        let link = self.links.get(&(self.number(from), self.number(to)));
        link.map_or(Duration::ZERO, |link| link.waiting(self.now))
    }

    fn delay(&self, from: usize, to: usize) -> Duration {
        self.links.get(&(from, to)).map_or(Duration::ZERO, |link| link.spec().mean_delay())
    }

    fn number(&self, host: &str) -> usize {
        let Some(&number) = self.names.get(host) else { panic!("there is no place {host:?}") };
        number
    }

    /// The relay that runs at a place.
    pub fn node(&self, host: &str) -> Option<&Node<PlainTrust>> {
        self.hosts[self.number(host)].node.as_ref()
    }

    /// The names of the relays on the path that flows without a policy take now from the relay at
    /// `from` to that at `to`; `None` if there is none.
    pub fn route(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let node = self.node(from)?;
        let to = self.hosts[self.number(to)].spec.id.key();
        let path = node.tables().route(PolicyId::NONE, to)?.primary.path;
        let name = |key| Some(node.control().lsdb().member(key)?.id().as_str().to_owned());
        path.pops().iter().map(|&key| name(key)).collect()
    }

    /// What the clock at a place shows.
    pub fn clock(&self, host: &str) -> Timestamp {
        self.hosts[self.number(host)].clock.shown_at(self.now)
    }

    /// How often the relay at a place was at work.
    pub fn work(&self, host: &str) -> Work {
        self.hosts[self.number(host)].work
    }

    /// Why the relay at a place stopped by itself, if it did.
    pub fn stopped(&self, host: &str) -> Option<&str> {
        self.hosts[self.number(host)].stopped.as_deref()
    }

    /// What the connection in use between two places carried in one direction.
    pub fn carried(&self, from: &str, to: &str) -> Option<Carried> {
        let (from, to) = (self.number(from), self.number(to));
        let peer = self.hosts[to].spec.id.key();
        let node = self.hosts[from].node.as_ref()?;
        let line = node.neighbours().get(peer)?.line.conn.0 / 2;
        self.carried.get(&(line, from, to)).copied()
    }

    /// What a link's model counted.
    pub fn link_counters(&self, from: &str, to: &str) -> Option<&LinkCounters> {
        let link = self.links.get(&(self.number(from), self.number(to)))?;
        Some(link.counters())
    }

    /// What relays told their logs, with true time and place.
    pub fn news(&self) -> &[(Timestamp, String, News)] {
        &self.news
    }

    /// A number that stands for all that happened so far.
    pub fn trace_hash(&self) -> u64 {
        self.trace.hasher.finish()
    }
}

/// The name of the service at a place.
pub fn service_at(host: &str) -> tradewind_proto::units::ServiceName {
    let name = format!("at-{host}").parse();
    name.unwrap_or_else(|error| panic!("{host:?} makes no name of a service: {error}"))
}

/// A relay's name.
///
/// # Panics
///
/// If it is none.
pub fn pop(name: &str) -> PopId {
    name.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn tunnel_of(flow: FlowNumber) -> TunnelId {
    TunnelId(stream_of(flow))
}

fn stream_of(flow: FlowNumber) -> u32 {
    u32::try_from(flow.0).unwrap_or(u32::MAX)
}

fn source_of(flow: FlowNumber) -> std::net::SocketAddr {
    let port = 10_000 + u16::try_from(flow.0 % 50_000).unwrap_or(0);
    (std::net::Ipv4Addr::LOCALHOST, port).into()
}

/// A running hash of what relays sent and were told.
#[derive(Default)]
struct Trace {
    hasher: DefaultHasher,
}

impl Trace {
    fn note(&mut self, at: Timestamp, host: usize, what: &[u8]) {
        (at, host, what).hash(&mut self.hasher);
    }
}
