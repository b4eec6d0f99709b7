//! The relays' control planes under virtual time, and the connections between them.
//!
//! Each relay is the daemon's own [`Control`]; what it says to others travels over modelled
//! connections: in order, after the delay of the link, each packet that is lost a round trip and a
//! late acknowledgement later. What it is told of its links comes from [`Sense`], and whether they
//! live from [`super::watching`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tradewind_proto::control::Message;
use tradewind_proto::frame::PARITY_OVERHEAD;
use tradewind_proto::link::code::SYMBOL_OVERHEAD;
use tradewind_proto::link::liveness::Watch;
use tradewind_proto::link::{Heat, Liveness, Quality};
use tradewind_proto::statement::{Policy, ServiceStatement};
use tradewind_proto::units::{Incarnation, PopId, PopKey, Timestamp};
use tradewind_relay::identity::Subject;
use tradewind_relay::node::control::{
    Control, ControlOutput, MEASURE_INTERVAL, Measured, SelfDescription,
};
use tradewind_relay::node::neighbour::{SETTLING, USED_FOR};
use tradewind_router::lsdb::Labels;
use tradewind_router::metric::Metric;
use tradewind_router::tables::Tables;

use super::pipe::{Idle, Pipe};
use super::sense::Sense;
use crate::emulator::IP_UDP_HEADERS;
use crate::link::{LinkSpec, stream_seed};
use crate::overlay::line::{ACK_DELAY, FLIGHT_REPEAT, MTU, RESERVED, SEGMENT};
use crate::overlay::{LEAVING, PlainTrust, START, service_at};
use crate::virtual_net::{Events, QUIC_OVERHEAD};

/// How often somebody who can't be reached is tried.
const REDIAL: Duration = Duration::from_secs(1);
/// Bytes of a heartbeat with the report that goes along, and of a report by itself.
const BEAT_BYTES: f64 = 40.0 + (IP_UDP_HEADERS + QUIC_OVERHEAD) as f64;

/// Something that is going to happen.
pub(super) enum Event {
    Measure(usize, u32),
    Urgent(usize, u32),
    Dial(usize, usize, u32),
    Hello(End),
    Message(End, Message),
    Beat(End),
    Heard(End, Option<Timestamp>),
    Watch(End),
    Idle(End),
    Left(usize, u32),
}

/// One end of a connection: a relay, which of its neighbours, and which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) host: usize,
    pub(super) port: usize,
    pub(super) line: u64,
}

/// What flows need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Routes of a relay changed.
    Tables(usize),
    /// A link of a relay carries packets, or not.
    Liveness { host: usize, port: usize, liveness: Liveness },
}

/// A place, and the control plane there.
pub(super) struct Host {
    pub(super) id: PopId,
    pub(super) key: PopKey,
    subject: Subject,
    policies: Vec<Policy>,
    pub(super) control: Option<Control<PlainTrust>>,
    /// Counts starts.
    pub(super) life: u32,
    pub(super) ports: Vec<Port>,
    pub(super) port_of: BTreeMap<PopKey, usize>,
    pub(super) tables: Arc<Tables>,
    next_measure: Timestamp,
    next_urgent: Timestamp,
    /// It is to be looked which links stand by for others.
    pub(super) restless: bool,
}

/// A neighbour.
pub(super) struct Port {
    pub(super) peer: usize,
    /// Which port leads back from there.
    pub(super) mirror: usize,
    /// The pipes to and from it.
    pub(super) out: usize,
    pub(super) back: usize,
    /// The connection, once it is made.
    pub(super) line: Option<u64>,
    since: Timestamp,
    /// When the last message under way arrives.
    stream_at: Timestamp,
    /// Messages that can't be delivered at present.
    held: VecDeque<Message>,
    used_at: Timestamp,
    pub(super) heat: Heat,
    pub(super) watch: Watch,
    /// Whether heartbeats are simulated one by one.
    pub(super) attended: bool,
    pub(super) up_since: Timestamp,
    /// Our heartbeats under way to the neighbour: arrival, sending.
    pub(super) there: VecDeque<(Timestamp, Timestamp)>,
    pub(super) newest_there: Option<Timestamp>,
    pub(super) sense: Sense,
    /// Loss and burst by which the sender plans repair: as measured when they last changed clearly.
    pub(super) believed: (f32, f32),
    pub(super) rng: SmallRng,
}

/// All relays and what is under way between them.
pub(super) struct Net {
    metric: Metric,
    pub(super) now: Timestamp,
    pub(super) events: Events<Event>,
    pub(super) hosts: Vec<Host>,
    pub(super) pipes: Vec<Pipe>,
    pub(super) by_key: BTreeMap<PopKey, usize>,
    next_line: u64,
    pub(super) news: Vec<News>,
}

impl Net {
    pub(super) fn new(metric: Metric) -> Self {
        Self {
            metric,
            now: START,
            events: Events::default(),
            hosts: Vec::new(),
            pipes: Vec::new(),
            by_key: BTreeMap::new(),
            next_line: 0,
            news: Vec::new(),
        }
    }

    /// A place for a relay; its number.
    pub(super) fn add(&mut self, id: PopId, labels: Labels, policies: Vec<Policy>) -> usize {
        let (number, key) = (self.hosts.len(), id.key());
        self.by_key.insert(key, number);
        self.hosts.push(Host {
            subject: Subject { id: id.clone(), labels, services: None },
            id,
            key,
            policies,
            control: None,
            life: 0,
            ports: Vec::new(),
            port_of: BTreeMap::new(),
            tables: Arc::default(),
            next_measure: Timestamp::NEVER,
            next_urgent: Timestamp::NEVER,
            restless: true,
        });
        number
    }

    /// Makes two places neighbours, given both directions of the link between them.
    pub(super) fn join(&mut self, seed: u64, ends: [usize; 2], specs: [LinkSpec; 2]) {
        let [there, back] = specs;
        let out = self.pipes.len();
        self.pipes.push(Pipe::new(ends[0], ends[1], there, self.now));
        self.pipes.push(Pipe::new(ends[1], ends[0], back, self.now));
        for (at, (out, back)) in [(out, out + 1), (out + 1, out)].into_iter().enumerate() {
            let (own, peer) = (ends[at], ends[1 - at]);
            let name = format!("{}>{} control", self.hosts[own].id, self.hosts[peer].id);
            let seed = stream_seed(seed, &name);
            let mirror = self.hosts[peer].ports.len() - usize::from(at == 1);
            let key = self.hosts[peer].key;
            let host = &mut self.hosts[own];
            host.port_of.insert(key, host.ports.len());
            host.ports.push(Port {
                peer,
                mirror,
                out,
                back,
                line: None,
                since: self.now,
                stream_at: Timestamp::ZERO,
                held: VecDeque::new(),
                used_at: Timestamp::ZERO,
                heat: Heat::Cold,
                watch: Watch::new(self.now),
                attended: false,
                up_since: Timestamp::NEVER,
                there: VecDeque::new(),
                newest_there: None,
                believed: (0.0, 1.0),
                sense: Sense::new(seed ^ 1, &self.pipes[out], self.now),
                rng: SmallRng::seed_from_u64(seed),
            });
        }
    }

    /// Starts those relays at once; of two neighbours the first dials.
    pub(super) fn start_all(&mut self, wanted: impl Fn(&PopId) -> bool) {
        let hosts: Vec<usize> =
            (0..self.hosts.len()).filter(|&host| wanted(&self.hosts[host].id)).collect();
        hosts.iter().for_each(|&host| self.wake(host));
        for host in hosts {
            for port in 0..self.hosts[host].ports.len() {
                if host < self.hosts[host].ports[port].peer {
                    self.dial(host, port, Duration::ZERO);
                }
            }
        }
    }

    /// Starts a relay unless it runs: it dials all its neighbours.
    pub(super) fn start(&mut self, host: usize) {
        if self.hosts[host].control.is_some() {
            return;
        }
        self.wake(host);
        (0..self.hosts[host].ports.len()).for_each(|port| self.dial(host, port, Duration::ZERO));
    }

    fn wake(&mut self, number: usize) {
        let now = self.now;
        let host = &mut self.hosts[number];
        let description = SelfDescription {
            addresses: vec![host.id.as_str().to_owned()],
            location: None,
            services: vec![ServiceStatement { name: service_at(host.id.as_str()), ports: 1 }],
            policies: host.policies.clone(),
            draining: false,
        };
        let incarnation = Incarnation(now.as_micros() / 1000);
        let trust = PlainTrust::new(host.subject.clone());
        host.life += 1;
        host.next_urgent = Timestamp::NEVER;
        host.control =
            Some(Control::new(host.id.clone(), incarnation, description, self.metric, trust, now));
        self.plan_measure(number);
        self.flush(number);
    }

    /// A relay dies without a word; whether one was alive.
    pub(super) fn kill(&mut self, number: usize) -> bool {
        let host = &mut self.hosts[number];
        let alive = host.control.take().is_some();
        host.tables = Arc::default();
        for port in &mut host.ports {
            (port.line, port.attended) = (None, false);
            port.held.clear();
        }
        if alive {
            for port in 0..self.hosts[number].ports.len() {
                self.attend_neighbour_of(number, port);
            }
            self.news.push(News::Tables(number));
        }
        alive
    }

    /// A relay says that it leaves, forwards for a while, and ends with a word to its neighbours.
    pub(super) fn drain(&mut self, number: usize) -> bool {
        let life = self.hosts[number].life;
        let Some(control) = &mut self.hosts[number].control else { return false };
        let description = SelfDescription { draining: true, ..control.description().clone() };
        control.describe(description);
        self.measure(number);
        self.events.schedule(self.now + LEAVING, Event::Left(number, life));
        true
    }

    fn leave(&mut self, number: usize) {
        for at in 0..self.hosts[number].ports.len() {
            let Port { peer, mirror, line, .. } = self.hosts[number].ports[at];
            if line.is_some() && self.hosts[peer].ports[mirror].line == line {
                self.lose(peer, mirror);
            }
        }
        self.kill(number);
    }

    fn attend_neighbour_of(&mut self, host: usize, port: usize) {
        let Port { peer, mirror, .. } = self.hosts[host].ports[port];
        self.attend(peer, mirror);
    }

    /// A pipe is cut, or restored.
    pub(super) fn set_up(&mut self, pipe: usize, up: bool) {
        self.pipes[pipe].settle(self.now);
        if std::mem::replace(&mut self.pipes[pipe].up, up) == up {
            return;
        }
        self.pipes[pipe].version += 1;
        let (host, port) = self.ends_of(pipe);
        self.attend(host, port);
        self.attend_neighbour_of(host, port);
        if up {
            self.release(host, port);
        }
    }

    /// The relay that sends into a pipe, and its port.
    pub(super) fn ends_of(&self, pipe: usize) -> (usize, usize) {
        let Pipe { from, to, .. } = self.pipes[pipe];
        (from, self.hosts[from].port_of[&self.hosts[to].key])
    }

    /// Does the next thing, if it happens by `until`.
    pub(super) fn step(&mut self, until: Timestamp) -> bool {
        let Some((at, event)) = self.events.pop_until(until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        match event {
            Event::Measure(host, life) => {
                if self.hosts[host].life == life && self.hosts[host].next_measure == at {
                    self.measure(host);
                }
            }
            Event::Urgent(host, life) => {
                let now = self.now;
                let this = &mut self.hosts[host];
                if this.life == life && this.next_urgent == at {
                    this.next_urgent = Timestamp::NEVER;
                    this.control.iter_mut().for_each(|control| control.handle_timeout(now));
                    self.flush(host);
                }
            }
            Event::Dial(host, port, life) => self.handle_dial(host, port, life),
            Event::Hello(end) => self.handle_hello(end),
            Event::Message(end, message) => self.handle_message(end, message),
            Event::Beat(end) => self.beat(end),
            Event::Heard(end, covered) => self.handle_heard(end, covered),
            Event::Watch(end) => self.handle_watch(end),
            Event::Idle(end) => self.handle_idle(end),
            Event::Left(host, life) => {
                if self.hosts[host].life == life && self.hosts[host].control.is_some() {
                    self.leave(host);
                }
            }
        }
        true
    }

    // --- connections

    fn dial(&mut self, host: usize, port: usize, wait: Duration) {
        let life = self.hosts[host].life;
        self.events.schedule(self.now + wait, Event::Dial(host, port, life));
    }

    /// An attempt to connect: if both are there, the other end hears of it after the handshake.
    fn handle_dial(&mut self, host: usize, port: usize, life: u32) {
        let this = &self.hosts[host];
        if this.life != life || this.control.is_none() {
            return;
        }
        let Port { peer, mirror, out, back, line, .. } = this.ports[port];
        if line.is_some() && self.hosts[peer].ports[mirror].line == line {
            return;
        }
        let open = self.pipes[out].up && self.pipes[back].up;
        if !open || self.hosts[peer].control.is_none() {
            return self.dial(host, port, REDIAL);
        }
        let line = self.next_line;
        self.next_line += 1;
        let lost = 1.0 - (1.0 - self.pipes[out].loss()) * (1.0 - self.pipes[back].loss());
        let repeats = self.hosts[host].ports[port].lost_in_a_row(lost);
        let rtt = self.pipes[out].span() + self.pipes[back].span();
        let full = (usize::from(MTU[0]) + IP_UDP_HEADERS) as f64;
        self.pipes[out].count(1.0 + f64::from(repeats), full * (1.0 + f64::from(repeats)));
        self.pipes[back].count(1.0, full);
        // A round trip for the handshake, and what the dialler says first comes a way later.
        let at = self.now + rtt + self.pipes[out].span() + FLIGHT_REPEAT * repeats;
        self.events.schedule(at, Event::Hello(End { host: peer, port: mirror, line }));
    }

    /// The first words of a neighbour that dialled came: from now on both use the connection.
    fn handle_hello(&mut self, end: End) {
        let End { host, port, line } = end;
        let Port { peer, mirror, .. } = self.hosts[host].ports[port];
        if self.hosts[host].control.is_none() || self.hosts[peer].control.is_none() {
            return self.dial(peer, mirror, REDIAL);
        }
        for (own, port) in [(host, port), (peer, mirror)] {
            self.take_over(own, port, line);
        }
        for (own, port) in [(host, port), (peer, mirror)] {
            self.attend(own, port);
        }
    }

    /// A connection is in use from now on, and the link over it begins anew.
    fn take_over(&mut self, host: usize, port: usize, line: u64) {
        let now = self.now;
        let this = &mut self.hosts[host];
        let Some(control) = &mut this.control else { return };
        let entry = &mut this.ports[port];
        entry.held.clear();
        (entry.line, entry.since) = (Some(line), now);
        (entry.attended, entry.heat) = (false, Heat::Hot);
        (entry.watch, entry.up_since) = (Watch::new(now), Timestamp::NEVER);
        entry.there.clear();
        entry.newest_there = None;
        entry.sense = Sense::new(entry.rng.random(), &self.pipes[entry.out], now);
        let (told, messages) = control.introduce();
        let key = self.hosts[self.hosts[host].ports[port].peer].key;
        messages.into_iter().for_each(|message| self.send(host, port, message));
        if let Some(control) = &mut self.hosts[host].control {
            control.set_suspect(key, false, now);
            control.handle_adjacent(key, told);
        }
        self.flush(host);
    }

    pub(super) fn is_current(&self, end: End) -> bool {
        let host = &self.hosts[end.host];
        host.control.is_some() && host.ports[end.port].line == Some(end.line)
    }

    /// Nothing was heard for so long that the connection counts as closed.
    fn handle_idle(&mut self, end: End) {
        if !self.is_current(end) || self.is_heard(end.host, end.port) {
            return;
        }
        self.lose(end.host, end.port);
        self.dial(end.host, end.port, REDIAL);
    }

    /// A connection is no more.
    fn lose(&mut self, host: usize, at: usize) {
        let key = self.hosts[self.hosts[host].ports[at].peer].key;
        let this = &mut self.hosts[host];
        let port = &mut this.ports[at];
        (port.line, port.attended) = (None, false);
        port.held.clear();
        if let Some(control) = &mut this.control {
            control.handle_lost(key);
        }
        self.news.push(News::Liveness { host, port: at, liveness: Liveness::Down });
        self.measure(host);
    }

    // --- messages

    /// What a relay says to a neighbour.
    fn send(&mut self, host: usize, port: usize, message: Message) {
        let Port { peer, mirror, out, back, line, .. } = self.hosts[host].ports[port];
        let Some(line) = line else { return };
        let len = message.encoded_len();
        let packets = len.div_ceil(SEGMENT);
        let bytes = (len + packets * (IP_UDP_HEADERS + QUIC_OVERHEAD)) as f64;
        self.pipes[out].count(packets as f64, bytes);
        let entry = &mut self.hosts[host].ports[port];
        if !self.pipes[out].up {
            entry.held.push_back(message);
            return;
        }
        let lost = self.pipes[out].loss();
        let repeats = (0..packets).map(|_| entry.lost_in_a_row(lost)).max().unwrap_or(0);
        if repeats > 0 {
            self.pipes[out].count(f64::from(repeats), bytes / packets as f64 * f64::from(repeats));
        }
        let rtt = (self.pipes[out].span() + self.pipes[back].span()).as_secs_f64();
        let wait = f64::from(repeats) * (rtt * 9.0 / 8.0 + ACK_DELAY.as_secs_f64());
        let way = self.pipes[out].delay(bytes / packets as f64) + wait;
        let at = (self.now + Duration::from_secs_f64(way)).max(entry.stream_at);
        entry.stream_at = at;
        let end = End { host: peer, port: mirror, line };
        self.events.schedule(at, Event::Message(end, message));
    }

    /// A pipe carries messages again: those held are repeated.
    fn release(&mut self, host: usize, port: usize) {
        let held = std::mem::take(&mut self.hosts[host].ports[port].held);
        held.into_iter().for_each(|message| self.send(host, port, message));
    }

    fn handle_message(&mut self, end: End, message: Message) {
        if !self.is_current(end) {
            return;
        }
        let now = self.now;
        let peer = self.hosts[self.hosts[end.host].ports[end.port].peer].key;
        let Some(control) = &mut self.hosts[end.host].control else { return };
        match message {
            Message::Statement(signed) => control.handle_statement(peer, signed, now),
            Message::Digest(digest) => control.handle_digest(peer, &digest),
            Message::Hello(_) | Message::Bye => {}
        }
        self.flush(end.host);
    }

    // --- the control plane

    fn plan_measure(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        host.next_measure = self.now + MEASURE_INTERVAL;
        self.events.schedule(host.next_measure, Event::Measure(number, host.life));
    }

    /// Tells a control plane how its links are.
    pub(super) fn measure(&mut self, number: usize) {
        if self.hosts[number].control.is_none() {
            return;
        }
        self.plan_measure(number);
        let now = self.now;
        let mut links = Vec::with_capacity(self.hosts[number].ports.len());
        for at in 0..self.hosts[number].ports.len() {
            if self.hosts[number].ports[at].line.is_none() {
                continue;
            }
            self.observe(number, at);
            let port = &self.hosts[number].ports[at];
            let (to, liveness) = (self.hosts[port.peer].key, port.watch.state());
            links.push(Measured {
                to,
                liveness,
                quality: self.quality(port),
                max_packet: self.max_packet(port),
            });
        }
        if let Some(control) = &mut self.hosts[number].control {
            control.handle_links(&links, now);
        }
        self.flush(number);
    }

    /// The largest packet of a link, by the payload with which its connection was made.
    fn max_packet(&self, port: &Port) -> usize {
        let least = self.pipes[port.out].spec.mtu.min(self.pipes[port.back].spec.mtu);
        let [full, small] = MTU.map(usize::from);
        let payload = if full + IP_UDP_HEADERS <= least { full } else { small };
        payload - RESERVED - PARITY_OVERHEAD - SYMBOL_OVERHEAD
    }

    fn observe(&mut self, number: usize, at: usize) {
        let now = self.now;
        let port = &mut self.hosts[number].ports[at];
        let heat = port.heat(now, &self.pipes);
        let (out, beats) = (port.out, 1.0 / heat.gap().as_secs_f64());
        port.heat = heat;
        let pipe = &mut self.pipes[out];
        port.sense.observe(pipe, beats, now);
        let (loss, told) = (port.sense.loss() as f32, port.believed.0);
        if (loss - told).abs() > 0.002_f32.max(told / 4.0) {
            port.believed = (loss, port.sense.burst as f32);
            pipe.version += 1;
        }
        let idle = Idle { packets: beats, bytes: beats * BEAT_BYTES };
        if pipe.idle != idle {
            pipe.settle(now);
            pipe.idle = idle;
        }
    }

    fn quality(&self, port: &Port) -> Quality {
        let (out, back) = (&self.pipes[port.out], &self.pipes[port.back]);
        let other = &self.hosts[port.peer].ports[port.mirror];
        let beats = 1.0 / port.heat.gap().as_secs_f64();
        let tx = port.sense.smoothed_micros(out, beats);
        let rx = other.sense.smoothed_micros(back, beats);
        let measured = port.watch.state() != Liveness::Starting;
        let rtt = Duration::from_micros((tx + rx).max(0).unsigned_abs());
        let jitter = |sense: &Sense| Duration::from_secs_f64(sense.jitter.max(0.0));
        Quality {
            rtt: measured.then_some(rtt),
            min_rtt: measured.then_some(out.span() + back.span()),
            raw_delay_tx: measured.then_some(tx),
            raw_delay_rx: measured.then_some(rx),
            jitter_tx: jitter(&port.sense),
            jitter_rx: jitter(&other.sense),
            queueing_tx: Duration::ZERO,
            loss_tx: port.sense.loss() as f32,
            loss_tx_at_most: port.sense.loss() as f32,
            loss_rx: other.sense.loss() as f32,
            burst_tx: port.sense.burst as f32,
            rate_bps: 0,
            capacity_bps: out.capacity_bps(),
            load_bps: out.load_bps(),
            ..Quality::default()
        }
    }

    /// Does what a control plane wants.
    pub(super) fn flush(&mut self, number: usize) {
        while let Some(output) = self.hosts[number].control.as_mut().and_then(Control::poll_output)
        {
            match output {
                ControlOutput::Tell(peer, message) => {
                    if let Some(&port) = self.hosts[number].port_of.get(&peer) {
                        self.send(number, port, message);
                    }
                }
                ControlOutput::Tables(tables) => {
                    let host = &mut self.hosts[number];
                    (host.tables, host.restless) = (tables, true);
                    self.news.push(News::Tables(number));
                }
                ControlOutput::Restarted(..) | ControlOutput::Replaced(_) => {}
            }
        }
        let host = &mut self.hosts[number];
        let due = host.control.as_ref().map_or(Timestamp::NEVER, Control::poll_timeout);
        if due < host.next_urgent {
            host.next_urgent = due.max(self.now);
            self.events.schedule(host.next_urgent, Event::Urgent(number, host.life));
        }
    }

    // --- what links stand for

    /// Packets cross a link, or it stands by for one that they cross.
    pub(super) fn note_use(&mut self, host: usize, port: usize) {
        let now = self.now;
        let Port { peer, mirror, .. } = self.hosts[host].ports[port];
        self.hosts[host].ports[port].used_at = now;
        self.hosts[peer].ports[mirror].used_at = now;
    }

    /// Whether everything on a link arrives, at both ends, loss aside.
    pub(super) fn is_sound(&self, host: usize, port: usize) -> bool {
        let entry = &self.hosts[host].ports[port];
        self.pipes[entry.out].up && self.is_heard(host, port)
    }

    /// Whether what the neighbour sends arrives, loss aside.
    pub(super) fn is_heard(&self, host: usize, port: usize) -> bool {
        let Port { peer, mirror, back, line, .. } = self.hosts[host].ports[port];
        let there = &self.hosts[peer];
        line.is_some()
            && self.pipes[back].up
            && there.control.is_some()
            && there.ports[mirror].line == line
    }
}

impl Port {
    /// How often in a row something is lost.
    fn lost_in_a_row(&mut self, loss: f64) -> u32 {
        let mut times = 0;
        while loss > 0.0 && times < 30 && self.rng.random::<f64>() < loss {
            times += 1;
        }
        times
    }

    /// How closely it is watched.
    fn heat(&self, now: Timestamp, pipes: &[Pipe]) -> Heat {
        let loaded = pipes[self.out].load.pps() > 0.0 || pipes[self.back].load.pps() > 0.0;
        let used = self.used_at != Timestamp::ZERO && now.since(self.used_at) < USED_FOR;
        let settling = now.since(self.since) < SETTLING;
        if loaded || used || settling { Heat::Hot } else { Heat::Cold }
    }
}
