//! Flows as rates: where their packets go now, and what came of them so far.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use tradewind_proto::flow::fragment::fragments;
use tradewind_proto::frame::DATA_OVERHEAD;
use tradewind_proto::link::plan::{self, OperatingPoint};
use tradewind_proto::link::{BEAT_ANSWER, GUARD, OVERDUE, REORDERING};
use tradewind_proto::packet::{Fragment, Header, PacketKind, Path};
use tradewind_proto::units::{Budget, FlowId, FlowSeq, PolicyId, PopKey, Redundancy, Timestamp};
use tradewind_relay::node::edge::{Alone, DETOUR_ROOM, Target, TunnelSpec, Ways};

use super::course::{Course, Fate};
use super::delivery::{Delivery, Hop};
use super::net::Net;
use super::repair::{Forecasts, Losses};
use super::tally::Tally;
use crate::emulator::IP_UDP_HEADERS;
use crate::overlay::service_at;
use crate::traffic::FlowReport;
use crate::virtual_net::QUIC_OVERHEAD;
use crate::world::Traffic;

/// A report of a missing number waits for its turn, in seconds.
const REPORT_WAIT: f64 = 0.0005;
/// The mean absolute deviation of a normal distribution, in standard deviations.
const MEAN_DEVIATION: f64 = 0.8;

/// A flow of the world.
pub(super) struct Flow {
    pub(super) ingress: usize,
    spec: TunnelSpec,
    size: usize,
    interval: f64,
    egress: Option<PopKey>,
    /// When it sends.
    pub(super) span: (Timestamp, Timestamp),
    ways: Option<Ways>,
    pub(super) courses: Vec<Course>,
    deadline: f64,
    pieces: usize,
    /// Bytes of a piece with its header.
    packet: usize,
    /// Versions of all pipes on its courses, when the delivery was reckoned.
    stamp: u64,
    /// What becomes of packets, and what each course costs.
    delivery: Option<Delivery>,
    pub(super) shards: Vec<Vec<f64>>,
    /// What was sent before is in the tally.
    since: Timestamp,
    pub(super) tally: Tally,
    /// The route in use whenever it changed.
    pub(super) routes: Vec<(Timestamp, Option<Path>)>,
}

/// Packets that a dead link swallowed while its sender did not know.
#[derive(Clone, Debug)]
pub(super) struct Swallowed {
    pub(super) flow: usize,
    /// Standing at the relay that sent them into it.
    path: Path,
    /// When they were sent by the ingress; without end: they still are.
    from: Timestamp,
    to: Option<Timestamp>,
    /// How long from the ingress to that relay.
    offset: Duration,
}

impl Flow {
    pub(super) fn new(
        traffic: &Traffic,
        ingress: usize,
        policy: PolicyId,
        begun: Timestamp,
    ) -> Self {
        let service = service_at(traffic.to.as_str());
        Self {
            ingress,
            spec: TunnelSpec {
                service: Target { service, pop: None },
                class: traffic.class,
                deadline: traffic.deadline,
                policy,
                redundancy: traffic.redundancy,
                ports: 1,
            },
            size: traffic.size,
            interval: traffic.interval.as_secs_f64(),
            egress: None,
            span: (begun, begun),
            ways: None,
            courses: Vec::new(),
            deadline: traffic.deadline.as_secs_f64(),
            pieces: 1,
            packet: 0,
            stamp: 0,
            delivery: None,
            shards: Vec::new(),
            since: begun,
            tally: Tally::default(),
            routes: Vec::new(),
        }
    }

    /// Its packets are sent from then to then.
    pub(super) fn schedule(&mut self, from: Timestamp, to: Timestamp) {
        (self.span, self.since) = ((from, to), from);
    }

    pub(super) fn is_active(&self, now: Timestamp) -> bool {
        (self.span.0..self.span.1).contains(&now)
    }

    pub(super) fn policy(&self) -> PolicyId {
        self.spec.policy
    }

    /// Asks the tables of its ingress. `Some`: the ways changed; with the pair that is missing.
    pub(super) fn choose(&mut self, net: &Net) -> Option<Option<PopKey>> {
        let host = &net.hosts[self.ingress];
        let own = host.key;
        let terms = self.spec.terms();
        let instance = host.control.as_ref().and_then(|_| {
            self.spec.service.instance(&*host.tables, terms.policy, own, self.egress)
        });
        if let Some((pop, _)) = instance {
            self.egress = Some(pop);
        }
        let ways = instance.and_then(|(pop, _)| Ways::find(&*host.tables, &terms, own, pop));
        let route = self.egress.and_then(|pop| host.tables.route(terms.policy, pop));
        let route = route.map(|entry| entry.primary.path);
        if self.routes.last().map(|(_, path)| path) != Some(&route) {
            self.routes.push((net.now, route));
        }
        let changed = match (&self.ways, &ways) {
            (Some(old), Some(new)) => (old.path, old.copy) != (new.path, new.copy),
            (old, new) => old.is_some() != new.is_some(),
        };
        let unasked = ways.filter(|ways| ways.alone == Some(Alone::Unasked));
        let wanted = unasked.and(self.egress);
        self.ways = ways;
        (changed || wanted.is_some()).then_some(wanted)
    }

    /// Follows its packets anew. `at_ingress`: because the ingress chose other ways. Gives what is
    /// swallowed from now on.
    pub(super) fn follow(
        &mut self,
        number: usize,
        net: &Net,
        forecasts: &mut Forecasts,
        at_ingress: bool,
    ) -> Option<Vec<(usize, usize, Swallowed)>> {
        let twin = self.spec.redundancy == Redundancy::Disjoint
            && self.ways.is_some_and(|ways| ways.copy.is_some());
        let paths = self.ways.iter().flat_map(|ways| [Some(ways.path), ways.copy]).flatten();
        let courses: Vec<Course> =
            paths.map(|path| net.course(path, self.spec.policy, self.packet, twin)).collect();
        let stamp =
            courses.iter().flat_map(|course| &course.pipes).map(|&p| net.pipes[p].version + 1);
        let stamp: u64 = stamp.sum();
        if courses == self.courses {
            if stamp != self.stamp {
                self.flush(net.now);
                self.reckon(net, forecasts, stamp);
            }
            return None;
        }
        let boundary =
            if at_ingress { net.now } else { net.now.minus(self.difference(&courses, net)) };
        self.flush(boundary);
        self.courses = courses;
        self.reckon(net, forecasts, stamp);
        let single = self.courses.len() == 1 && !twin;
        let swallowed =
            self.courses.iter().filter(|course| course.fate == Fate::Swallowed && single);
        Some(swallowed.filter_map(|course| self.swallow(number, course, boundary, net)).collect())
    }

    fn swallow(
        &self,
        flow: usize,
        course: &Course,
        from: Timestamp,
        net: &Net,
    ) -> Option<(usize, usize, Swallowed)> {
        let (&dead, before) = course.pipes.split_last()?;
        let (host, port) = net.ends_of(dead);
        let pops = course.path.pops();
        let cursor = pops.iter().position(|pop| *pop == net.hosts[host].key)?;
        let path = Path::at(pops, cursor).ok()?;
        let offset = self.offset(before, net);
        Some((host, port, Swallowed { flow, path, from, to: None, offset }))
    }

    /// How long after their sending packets come to where the courses begin to differ.
    fn difference(&self, courses: &[Course], net: &Net) -> Duration {
        let both = self.courses.iter().zip(courses).find(|(old, new)| old != new);
        let Some((old, new)) = both else { return Duration::ZERO };
        let shared = old.pipes.iter().zip(&new.pipes).take_while(|(a, b)| a == b).count();
        let dead_end = |course: &Course| match course.fate {
            // What is cut takes nothing in any more; who is dead takes nothing out.
            Fate::Swallowed => course
                .pipes
                .last()
                .map(|&last| course.pipes.len() - usize::from(!net.pipes[last].up)),
            _ => None,
        };
        let shared = match (old.fate, dead_end(new)) {
            (Fate::Through, Some(end)) => shared.min(end),
            // A detour begins where the dead link does.
            _ if old.fate == Fate::Swallowed => shared.min(old.pipes.len().saturating_sub(1)),
            _ => shared,
        };
        self.offset(&old.pipes[..shared.min(old.pipes.len())], net)
    }

    fn offset(&self, pipes: &[usize], net: &Net) -> Duration {
        let sum: f64 = pipes.iter().map(|&pipe| net.pipes[pipe].delay(self.wire_bytes())).sum();
        Duration::from_secs_f64(sum)
    }

    fn wire_bytes(&self) -> f64 {
        (self.packet + DATA_OVERHEAD + QUIC_OVERHEAD + IP_UDP_HEADERS) as f64
    }

    /// What was sent until `until` went as reckoned.
    pub(super) fn flush(&mut self, until: Timestamp) {
        let mut tally = std::mem::take(&mut self.tally);
        self.since = self.record(until, &mut tally);
        self.tally = tally;
    }

    /// Until when what was sent is in the tally.
    pub(super) fn flushed(&self) -> Timestamp {
        self.since.min(self.span.1)
    }

    /// Adds what was sent until `until` and is not in the tally yet; since when nothing is missing.
    fn record(&self, until: Timestamp, tally: &mut Tally) -> Timestamp {
        let (from, until) = (self.since.max(self.span.0), until.min(self.span.1));
        if until <= from {
            return self.since;
        }
        let deadline = self.spec.deadline.as_secs_f64();
        let nothing = Delivery::default();
        let delivery = self.delivery.as_ref().unwrap_or(&nothing);
        tally.record((from, until), self.interval, delivery, deadline);
        until
    }

    /// Its figures at `now`, when `sent` packets have been sent.
    pub(super) fn report(&self, sent: u64, now: Timestamp, rng: &mut SmallRng) -> FlowReport {
        let mut tally = self.tally.clone();
        self.record(now, &mut tally);
        let last = now.min(self.span.1);
        tally.report((sent, sent * self.size as u64), Some(last), rng)
    }

    /// Whether a pipe on its way changed.
    pub(super) fn is_stale(&self, net: &Net) -> bool {
        let pipes = self.courses.iter().flat_map(|course| &course.pipes);
        pipes.map(|&pipe| net.pipes[pipe].version + 1).sum::<u64>() != self.stamp
    }

    fn reckon(&mut self, net: &Net, forecasts: &mut Forecasts, stamp: u64) {
        self.stamp = stamp;
        self.shards.clear();
        let Some(ways) = self.ways else {
            self.delivery = None;
            return;
        };
        self.deadline = ways.stretch(self.spec.deadline).as_secs_f64();
        self.cut(&ways);
        let mut copies = Vec::with_capacity(2);
        for course in &self.courses {
            let delivery = self.over(course, net, forecasts);
            self.shards.push(delivery.shards.clone());
            if course.fate == Fate::Through {
                copies.push(delivery.in_pieces(self.pieces));
            }
        }
        self.delivery = match &copies[..] {
            [] => None,
            [a, b, ..] => Some(Delivery::sooner(a, b)),
            [_] => copies.pop(),
        };
    }

    /// Into how many pieces payloads are cut, and how large those are with their headers.
    fn cut(&mut self, ways: &Ways) {
        let header = header_len(&self.spec, ways.path);
        let hops = ways.path.pops().len();
        let longer = ways.copy.map_or(0, |copy| copy.pops().len().saturating_sub(hops));
        let used = header + DETOUR_ROOM + longer * size_of::<PopKey>();
        let most = ways.max_packet.saturating_sub(used);
        self.pieces = 1;
        if self.size > most {
            let pieces = fragments(Bytes::from(vec![0; self.size]), most);
            self.pieces = pieces.map_or(1, |pieces| pieces.len());
        }
        self.packet = self.size.div_ceil(self.pieces) + header;
    }

    fn over(&self, course: &Course, net: &Net, forecasts: &mut Forecasts) -> Delivery {
        let pops = course.path.pops();
        let hop = |(at, &pipe): (usize, &usize)| {
            let (host, port) = net.ends_of(pipe);
            let (host, out) = (&net.hosts[host], &net.pipes[pipe]);
            let port = &host.ports[port];
            let back = &net.pipes[port.back];
            let bytes = self.wire_bytes();
            let lane = out.load.packets[self.spec.class as usize].max(self.pps());
            let all = out.load.pps().max(self.pps());
            let jitter = port.sense.jitter.max(MEAN_DEVIATION * out.sigma());
            let missed = (f64::from(REORDERING) / all)
                .min(1.0 / all + OVERDUE.as_secs_f64())
                .min(BEAT_ANSWER.as_secs_f64());
            let found = missed + REPORT_WAIT + 2.0 * jitter;
            let rtt = out.delay(bytes) + back.delay(100.0);
            let next = pops.get(at + 1).copied().unwrap_or_default();
            let ahead = pops.get(at + 2..).unwrap_or_default();
            Hop {
                delay: out.delay(bytes),
                sigma: out.sigma(),
                losses: Losses {
                    loss: out.loss(),
                    burst: out.burst(100.0),
                    believed: OperatingPoint::new(port.believed.0, port.believed.1),
                    target: plan::Target::new(self.spec.class, course.pipes.len()),
                },
                expected: rtt / 2.0 + 2.0 * jitter + GUARD.as_secs_f64(),
                round_expected: rtt + jitter + 1.5 * found,
                round: rtt + found,
                reserved: host.tables.delay_along(next, ahead).as_secs_f64(),
                lane,
                served: out.served[self.spec.class as usize],
            }
        };
        let hops: Vec<Hop> = course.pipes.iter().enumerate().map(hop).collect();
        Delivery::over(&hops, self.deadline, |losses, chances, k| {
            forecasts.rounds(losses, chances, k)
        })
    }

    fn pps(&self) -> f64 {
        self.pieces as f64 / self.interval
    }

    /// What it adds to the load of each pipe: packets per second and bytes of each.
    pub(super) fn loads(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let pps = self.pps();
        self.courses.iter().zip(&self.shards).flat_map(move |(course, shards)| {
            course.pipes.iter().zip(shards).map(move |(&pipe, shards)| (pipe, pps * shards))
        })
    }

    /// Its class, and the bytes of one of its packets on the wire.
    pub(super) fn packet(&self) -> (tradewind_proto::units::Class, f64) {
        (self.spec.class, self.wire_bytes())
    }

    /// Packets that a link swallowed are sent again, at `now`, from the relay before it, unless
    /// there is no way or no time left. Whether that settles the matter.
    pub(super) fn salvage(
        &mut self,
        lost: &mut Swallowed,
        net: &Net,
        forecasts: &mut Forecasts,
    ) -> bool {
        let course = net.course(lost.path, self.spec.policy, self.packet, false);
        if course.fate != Fate::Through {
            return false;
        }
        let arrived = net.now.minus(lost.offset);
        let to = lost.to.unwrap_or(arrived).min(arrived).min(self.span.1);
        let from = lost.from.max(self.span.0);
        if to > from {
            // The rest of the way, for a packet that has just that much time: none for repairs.
            let rest = self.over(&course, net, forecasts).least();
            let at = net.now.since(from) + rest;
            let deadline = self.deadline.min(self.spec.deadline.as_secs_f64());
            self.tally.record_burst((from, to), self.interval, at.as_secs_f64(), deadline);
        }
        lost.from = to.max(lost.from);
        true
    }
}

impl Swallowed {
    /// No more packets are swallowed from then on.
    pub(super) fn end(&mut self, now: Timestamp) {
        self.to.get_or_insert(now.minus(self.offset));
    }

    /// Whether packets are still sent into it.
    pub(super) fn is_open(&self) -> bool {
        self.to.is_none()
    }
}

/// Bytes of a packet's header.
fn header_len(spec: &TunnelSpec, path: Path) -> usize {
    let header = Header {
        kind: PacketKind::Data,
        class: spec.class,
        reverse: false,
        key_epoch: 0,
        policy: spec.policy,
        flow: FlowId { ingress: path.first(), incarnation: 0, number: 0 },
        seq: FlowSeq(0),
        fragment: Fragment::WHOLE,
        sent_at: Timestamp::ZERO.wire(),
        budget: Budget::new(spec.deadline),
        path,
        open: None,
    };
    header.encoded_len()
}
