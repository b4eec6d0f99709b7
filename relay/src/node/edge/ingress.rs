//! Flows at the end where they begin: local programs at tunnels.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use tradewind_proto::packet::{Header, Open, PacketKind, Signal};
use tradewind_proto::units::{FlowId, Incarnation, PolicyId, PopKey, Timestamp};

use super::counters::{DropCounts, DropReason, Tally};
use super::idle::{Idle, Member};
use super::info::{FlowEnd, FlowInfo, FlowState};
use super::lane::{Incoming, Outgoing, Waiting};
use super::outbox::Outbox;
use super::routes::{Routes, Terms, Ways};
use super::{EVICTABLE, EdgeLimits, LocalOutput, TunnelId, TunnelSpec};

/// A flow silent for this long may have been ended by its egress: what it sends next opens it
/// again. Half of [`EVICTABLE`], as the last packet may have been lost on its way.
const PERHAPS_FORGOTTEN: Duration = Duration::from_secs(5);

/// Who sends into a tunnel: one flow each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source {
    pub(super) tunnel: TunnelId,
    pub(super) port_offset: u16,
    pub(super) addr: SocketAddr,
}

impl Member for Source {
    type Group = TunnelId;

    fn group(&self) -> TunnelId {
        self.tunnel
    }
}

/// One flow; its tunnel has the rest.
struct Flow {
    number: u32,
    terms: Terms,
    egress: Option<PopKey>,
    state: FlowState,
    outgoing: Outgoing,
    incoming: Incoming,
    drops: DropCounts,
    opened_at: Timestamp,
    active_at: Timestamp,
    /// Its time in [`Ingress::idle`].
    queued_at: Timestamp,
    reopened: u32,
    reset: u32,
}

/// Which number belongs to whom.
#[derive(Default)]
struct Numbers {
    next: u32,
    sources: HashMap<u32, Source>,
}

impl Numbers {
    /// A number that no flow has. Ends, as there are fewer flows than numbers.
    fn take(&mut self, source: Source) -> u32 {
        while self.sources.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.sources.insert(number, source);
        number
    }
}

pub(super) struct Ingress {
    own: PopKey,
    incarnation: u32,
    limits: EdgeLimits,
    tunnels: BTreeMap<TunnelId, TunnelSpec>,
    /// At most `limits.ingress_flows`. Boxed, so that the table itself stays small: under churn it
    /// doubles once, long after it is full, when marks of removed entries fill its free half.
    flows: HashMap<Source, Box<Flow>>,
    numbers: Numbers,
    /// Every flow, by the time of its last packet or earlier.
    idle: Idle<Source>,
    waiting: Waiting<Source>,
}

impl Ingress {
    pub(super) fn new(own: PopKey, incarnation: Incarnation, limits: EdgeLimits) -> Self {
        Self {
            own,
            incarnation: incarnation.short(),
            limits,
            tunnels: BTreeMap::new(),
            flows: HashMap::new(),
            numbers: Numbers::default(),
            idle: Idle::new(),
            waiting: Waiting::new(limits.reassembling_flows),
        }
    }

    /// Flows of tunnels that are the same as before go on, the others end.
    pub(super) fn set_tunnels(
        &mut self,
        specs: BTreeMap<TunnelId, TunnelSpec>,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        self.tunnels.retain(|id, old| specs.get(id) == Some(old));
        let tunnels = &self.tunnels;
        let ended = self.flows.keys().filter(|source| !tunnels.contains_key(&source.tunnel));
        for source in ended.copied().collect::<Vec<_>>() {
            self.end(source, now, out);
        }
        for spec in specs.values() {
            out.want(spec.policy, now);
        }
        self.tunnels = specs;
    }

    /// A local program sent a packet.
    pub(super) fn handle_tunnel(
        &mut self,
        source: Source,
        payload: Bytes,
        routes: &impl Routes,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        out.counters.tunnel_rx += 1;
        out.counters.tunnel_rx_bytes += payload.len() as u64;
        if let Err(reason) = self.admit(source, now, out) {
            return out.drop(reason);
        }
        let Self { flows, tunnels, numbers, .. } = self;
        let (Some(flow), Some(spec)) = (flows.get_mut(&source), tunnels.get(&source.tunnel)) else {
            return out.drop(DropReason::UnknownTunnel);
        };
        flow.wake(now);
        let mut sending =
            Sending { flow, source, spec, numbers, waiting: &mut self.waiting, out, now };
        let sent = sending.forward(payload, (self.own, self.incarnation), routes);
        flow.outgoing.blocked = sent.err();
        if let Err(reason) = sent {
            flow.drops.add(reason, 1);
            out.drop(reason);
        }
    }

    /// Makes sure that there is a flow for `source`.
    fn admit(
        &mut self,
        source: Source,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        if self.flows.contains_key(&source) {
            return Ok(());
        }
        let spec = self.tunnels.get(&source.tunnel).ok_or(DropReason::UnknownTunnel)?;
        if source.port_offset >= spec.ports {
            return Err(DropReason::UnknownTunnel);
        }
        if self.idle.count(source.tunnel) >= self.limits.flows_per_tunnel {
            self.make_room(Some(source.tunnel), now, out)?;
        } else if self.flows.len() >= self.limits.ingress_flows {
            self.make_room(None, now, out)?;
        }
        self.open(source, now, out);
        Ok(())
    }

    fn open(&mut self, source: Source, now: Timestamp, out: &mut Outbox) {
        let Some(spec) = self.tunnels.get(&source.tunnel) else { return };
        out.counters.ingress_opened += 1;
        self.idle.insert(now, source);
        let flow = Box::new(Flow {
            number: self.numbers.take(source),
            terms: spec.terms(),
            egress: None,
            state: FlowState::Choosing,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            drops: DropCounts::default(),
            opened_at: now,
            active_at: now,
            queued_at: now,
            reopened: 0,
            reset: 0,
        });
        self.flows.insert(source, flow);
    }

    /// Forgets the flow, and tells its egress, which need not hold its socket any longer.
    fn end(&mut self, source: Source, now: Timestamp, out: &mut Outbox) {
        let Some(mut flow) = self.flows.remove(&source) else { return };
        let id = self.id(&flow);
        flow.outgoing.farewell(id, &flow.terms, now, out);
        flow.incoming.restart(source, &mut self.waiting);
        self.numbers.sources.remove(&flow.number);
        self.idle.remove(flow.queued_at, source);
        out.counters.ingress_closed += 1;
    }

    /// Ends the flow that was silent longest, of one tunnel or of all, if that is long enough.
    fn make_room(
        &mut self,
        tunnel: Option<TunnelId>,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<(), DropReason> {
        let silent = self.take_silent(tunnel, EVICTABLE, now).ok_or(DropReason::TooManyFlows)?;
        out.counters.evicted += 1;
        self.end(silent, now, out);
        Ok(())
    }

    fn take_silent(
        &mut self,
        tunnel: Option<TunnelId>,
        patience: Duration,
        now: Timestamp,
    ) -> Option<Source> {
        let flows = &mut self.flows;
        self.idle.take_silent(tunnel, patience, now, |source| {
            let flow = flows.get_mut(source)?;
            flow.queued_at = flow.active_at;
            Some(flow.active_at)
        })
    }

    /// A packet of a flow that began here came back.
    pub(super) fn handle_packet(
        &mut self,
        header: &Header,
        payload: Bytes,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        let source = self.numbers.sources.get(&header.flow.number).copied();
        let current = source.filter(|_| header.flow.incarnation == self.incarnation);
        let Some((source, flow)) =
            current.and_then(|source| Some((source, self.flows.get_mut(&source)?)))
        else {
            out.drop(DropReason::UnknownFlow);
            return out.reply(header, Signal::Reset, now);
        };
        if flow.egress != Some(header.path.first()) {
            flow.drops.add(DropReason::Misrouted, 1);
            return out.drop(DropReason::Misrouted);
        }
        match header.kind {
            PacketKind::Data | PacketKind::Twin => {
                Self::answer(flow, source, header, payload, &mut self.waiting, now, out)
            }
            PacketKind::Signal => {
                flow.incoming.paths.record(&header.path, now);
                self.handle_signal(source, &payload, now, out);
            }
        }
    }

    fn answer(
        flow: &mut Flow,
        source: Source,
        header: &Header,
        payload: Bytes,
        waiting: &mut Waiting<Source>,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        flow.acknowledged();
        flow.active_at = now;
        let mut drops = Tally { flow: &mut flow.drops, total: &mut out.counters.drops };
        let received = flow.incoming.receive(source, header, payload, &mut drops, waiting, now);
        let Some(payload) = received else { return };
        let bytes = payload.len() as u64;
        let Source { tunnel, port_offset, addr: to } = source;
        match out.hand_out(LocalOutput::Answer { tunnel, port_offset, to, payload }) {
            Ok(()) => {
                out.counters.tunnel_tx += 1;
                out.counters.tunnel_tx_bytes += bytes;
            }
            Err(reason) => {
                flow.drops.add(reason, 1);
                out.drop(reason);
            }
        }
    }

    fn handle_signal(&mut self, source: Source, signal: &[u8], now: Timestamp, out: &mut Outbox) {
        let Some(flow) = self.flows.get_mut(&source) else { return };
        match Signal::decode(signal) {
            Ok(Signal::Accept) => flow.acknowledged(),
            Ok(Signal::Refuse(reason)) => {
                // One that comes after an acceptance belongs to an earlier attempt.
                if flow.state == FlowState::Opening {
                    out.counters.refusals_rx += 1;
                    flow.state = FlowState::Refused { reason, until: now + self.limits.refused };
                }
            }
            Ok(Signal::Reset) => {
                out.counters.reset += 1;
                flow.reset += 1;
                flow.begin_anew(source, &mut self.numbers, &mut self.waiting);
                flow.state = FlowState::Opening;
            }
            Ok(Signal::Ping { .. } | Signal::Pong { .. }) | Err(_) => {
                flow.drops.add(DropReason::BadSignal, 1);
                out.drop(DropReason::BadSignal);
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, out: &mut Outbox) {
        while let Some(source) = self.waiting.pop(now) {
            let Some(flow) = self.flows.get_mut(&source) else { continue };
            let mut drops = Tally { flow: &mut flow.drops, total: &mut out.counters.drops };
            flow.incoming.expire(source, &mut drops, &mut self.waiting, now);
        }
        while let Some(source) = self.take_silent(None, self.limits.idle, now) {
            self.end(source, now, out);
        }
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        self.idle.next(self.limits.idle).min(self.waiting.poll_timeout())
    }

    /// The relays to which flows want two ways, under which policy.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (PolicyId, PopKey)> {
        let disjoint = self.flows.values().filter(|flow| flow.terms.is_disjoint());
        disjoint.filter_map(|flow| Some((flow.terms.policy, flow.egress?)))
    }

    /// The relay that serves each flow.
    pub(super) fn peers(&self) -> impl Iterator<Item = PopKey> {
        self.flows.values().filter_map(|flow| flow.egress)
    }

    /// How many flows there are.
    pub(super) fn count(&self) -> usize {
        self.flows.len()
    }

    /// In the order of tunnels and sources.
    pub(super) fn flows(&self, now: Timestamp) -> Vec<FlowInfo> {
        let mut flows: Vec<_> = self.flows.iter().collect();
        flows.sort_unstable_by_key(|&(source, _)| *source);
        flows.into_iter().filter_map(|(source, flow)| self.info(source, flow, now)).collect()
    }

    fn info(&self, source: &Source, flow: &Flow, now: Timestamp) -> Option<FlowInfo> {
        let spec = self.tunnels.get(&source.tunnel)?;
        let (path_tx, copy_tx) = flow.outgoing.paths();
        Some(FlowInfo {
            id: self.id(flow),
            end: FlowEnd::Ingress { tunnel: source.tunnel, source: source.addr },
            service: spec.service.service.clone(),
            port_offset: source.port_offset,
            peer: flow.egress,
            state: flow.state,
            class: spec.class,
            policy: spec.policy,
            redundancy: spec.redundancy,
            deadline: spec.deadline,
            deadline_used: flow.outgoing.deadline_used(&flow.terms),
            warnings: flow.outgoing.warnings(&flow.terms),
            path_tx,
            copy_tx,
            paths_rx: flow.incoming.paths.paths().to_vec(),
            packets_tx: flow.outgoing.packets,
            bytes_tx: flow.outgoing.bytes,
            packets_rx: flow.incoming.packets,
            bytes_rx: flow.incoming.bytes,
            blocked: flow.outgoing.blocked,
            drops: flow.drops,
            reopened: flow.reopened,
            reset: flow.reset,
            age: now.since(flow.opened_at),
            idle: now.since(flow.active_at),
        })
    }

    fn id(&self, flow: &Flow) -> FlowId {
        FlowId { ingress: self.own, incarnation: self.incarnation, number: flow.number }
    }
}

impl Flow {
    fn wake(&mut self, now: Timestamp) {
        if self.state == FlowState::Open && self.active_at + PERHAPS_FORGOTTEN <= now {
            self.state = FlowState::Opening;
        }
        self.active_at = now;
    }

    fn acknowledged(&mut self) {
        if self.state == FlowState::Opening {
            self.state = FlowState::Open;
        }
    }

    /// Takes a new id, so that nothing of the conversation so far mixes with what follows.
    fn begin_anew(&mut self, source: Source, numbers: &mut Numbers, waiting: &mut Waiting<Source>) {
        numbers.sources.remove(&self.number);
        self.number = numbers.take(source);
        self.outgoing.restart();
        self.incoming.restart(source, waiting);
    }
}

/// One packet on its way out, and all that it touches.
struct Sending<'a> {
    flow: &'a mut Flow,
    source: Source,
    spec: &'a TunnelSpec,
    numbers: &'a mut Numbers,
    waiting: &'a mut Waiting<Source>,
    out: &'a mut Outbox,
    now: Timestamp,
}

impl Sending<'_> {
    fn forward(
        &mut self,
        payload: Bytes,
        (ingress, incarnation): (PopKey, u32),
        routes: &impl Routes,
    ) -> Result<(), DropReason> {
        let egress = self.instance(ingress, routes)?;
        let ways = Ways::find(routes, &self.flow.terms, ingress, egress)
            .ok_or_else(|| self.no_way(routes, DropReason::NoRoute))?;
        self.out.want_pair(&ways, self.flow.terms.policy, egress, self.now);
        let Flow { number, terms, outgoing, .. } = &mut *self.flow;
        let id = FlowId { ingress, incarnation, number: *number };
        let header = outgoing.header(id, false, terms, ways, self.now);
        let opening = self.flow.state == FlowState::Opening;
        let open = opening.then(|| self.extension());
        self.flow.outgoing.send(header, open, &ways, payload, self.out)
    }

    fn extension(&self) -> Open {
        Open {
            service: self.spec.service.service.clone(),
            port_offset: self.source.port_offset,
            deadline: self.flow.terms.deadline,
            redundancy: self.flow.terms.redundancy,
        }
    }

    /// The relay that serves this flow: the one that did, or else the best one now.
    fn instance(&mut self, own: PopKey, routes: &impl Routes) -> Result<PopKey, DropReason> {
        if let FlowState::Refused { until, .. } = self.flow.state {
            if self.now < until {
                return Err(DropReason::Refused);
            }
            self.flow.state = FlowState::Choosing;
        }
        let held = self.flow.egress.filter(|_| self.flow.state != FlowState::Choosing);
        let instance = self.spec.service.instance(routes, self.spec.policy, own, held);
        let (pop, ports) = instance.ok_or_else(|| self.no_way(routes, DropReason::NoInstance))?;
        if self.source.port_offset >= ports {
            return Err(DropReason::PortOutOfRange);
        }
        Ok(self.settle(pop))
    }

    /// Goes on with `pop`: as before, or anew if it is another one.
    fn settle(&mut self, pop: PopKey) -> PopKey {
        match self.flow.egress {
            Some(old) if old == pop => {}
            Some(_) => {
                self.flow.reopened += 1;
                self.out.counters.reopened += 1;
                self.flow.begin_anew(self.source, self.numbers, self.waiting);
                self.flow.state = FlowState::Opening;
            }
            None => self.flow.state = FlowState::Opening,
        }
        if self.flow.state == FlowState::Choosing {
            self.flow.state = FlowState::Opening;
        }
        self.flow.egress = Some(pop);
        pop
    }

    /// Why there is no way: there is none, or nobody has looked for one yet.
    fn no_way(&mut self, routes: &impl Routes, known: DropReason) -> DropReason {
        if routes.has_policy(self.spec.policy) {
            return known;
        }
        self.out.want(self.spec.policy, self.now);
        DropReason::RoutesPending
    }
}
