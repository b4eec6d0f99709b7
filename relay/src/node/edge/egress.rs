//! Flows at the end where the service is.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;

use tradewind_proto::packet::{Header, Open, PacketKind, RefuseReason, Signal};
use tradewind_proto::units::{FlowId, Incarnation, PolicyId, PopKey, ServiceName, Timestamp};

use super::counters::{DropCounts, DropReason, Tally};
use super::idle::{Idle, Member};
use super::info::{FlowEnd, FlowInfo, FlowState};
use super::lane::{Incoming, Outgoing, Waiting};
use super::outbox::{Outbox, SIGNAL_GAP};
use super::routes::{Routes, Terms, Ways};
use super::{EVICTABLE, EdgeLimits, EdgeOutput, FORGET_AFTER, LocalOutput, ServiceSpec};

impl Member for FlowId {
    type Group = PopKey;

    fn group(&self) -> PopKey {
        self.ingress
    }
}

struct Flow {
    service: ServiceName,
    port_offset: u16,
    terms: Terms,
    /// When the flow was accepted last.
    accepted_at: Option<Timestamp>,
    outgoing: Outgoing,
    incoming: Incoming,
    drops: DropCounts,
    opened_at: Timestamp,
    active_at: Timestamp,
    /// Its time in [`Egress::idle`].
    queued_at: Timestamp,
}

pub(super) struct Egress {
    own: PopKey,
    limits: EdgeLimits,
    services: BTreeMap<ServiceName, u16>,
    draining: bool,
    /// At most `limits.egress_flows`. Boxed, so that the table itself stays small: under churn it
    /// doubles once, long after it is full, when marks of removed entries fill its free half.
    flows: HashMap<FlowId, Box<Flow>>,
    /// Every flow, by the time of its last packet or earlier.
    idle: Idle<FlowId>,
    waiting: Waiting<FlowId>,
}

impl Egress {
    pub(super) fn new(own: PopKey, limits: EdgeLimits) -> Self {
        Self {
            own,
            limits,
            services: BTreeMap::new(),
            draining: false,
            flows: HashMap::new(),
            idle: Idle::new(),
            waiting: Waiting::new(limits.reassembling_flows),
        }
    }

    pub(super) const fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Flows whose service and port are still there go on, the others end.
    pub(super) fn set_services(&mut self, specs: Vec<ServiceSpec>, out: &mut Outbox) {
        self.services = specs.into_iter().map(|spec| (spec.name, spec.ports)).collect();
        let services = &self.services;
        let gone = |flow: &Flow| {
            services.get(&flow.service).is_none_or(|&ports| flow.port_offset >= ports)
        };
        let ended = self.flows.iter().filter(|(_, flow)| gone(flow)).map(|(&id, _)| id).collect();
        self.end_all(ended, out);
    }

    /// Flows of earlier starts of `ingress` end.
    pub(super) fn handle_restart(
        &mut self,
        ingress: PopKey,
        incarnation: Incarnation,
        out: &mut Outbox,
    ) {
        let old = |id: &FlowId| id.ingress == ingress && id.incarnation != incarnation.short();
        let ended = self.flows.keys().copied().filter(old).collect();
        self.end_all(ended, out);
    }

    /// In the order of their ids, as it can be seen from outside.
    fn end_all(&mut self, mut ids: Vec<FlowId>, out: &mut Outbox) {
        ids.sort_unstable();
        for id in ids {
            self.end(id, out);
        }
    }

    /// A packet came for a service, or a signal from a flow's ingress.
    pub(super) fn handle_packet(
        &mut self,
        header: &Header,
        payload: Bytes,
        routes: &impl Routes,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        match header.kind {
            PacketKind::Signal => self.handle_signal(header.flow, &payload, out),
            PacketKind::Data | PacketKind::Twin => {
                if self.admit(header, now, out) {
                    self.deliver(header, payload, now, out);
                    self.accept(header, routes, now, out);
                }
            }
        }
    }

    /// Makes sure that the packet's flow is known, or tells its ingress why it is not.
    fn admit(&mut self, header: &Header, now: Timestamp, out: &mut Outbox) -> bool {
        if self.flows.contains_key(&header.flow) {
            return true;
        }
        let Some(open) = &header.open else {
            out.drop(DropReason::UnknownFlow);
            out.reply(header, Signal::Reset, now);
            return false;
        };
        match self.refusal(open, header.flow.ingress, now, out) {
            Some(reason) => {
                out.drop(DropReason::Refused);
                out.reply(header, Signal::Refuse(reason), now);
                false
            }
            None => {
                self.open(header, open, now, out);
                true
            }
        }
    }

    /// Why a new flow can't be served; makes room for it if it can.
    fn refusal(
        &mut self,
        open: &Open,
        ingress: PopKey,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Option<RefuseReason> {
        let Some(&ports) = self.services.get(&open.service) else {
            return Some(RefuseReason::UnknownService);
        };
        if open.port_offset >= ports {
            return Some(RefuseReason::PortOutOfRange);
        }
        if self.draining {
            return Some(RefuseReason::Draining);
        }
        let room = if self.idle.count(ingress) >= self.limits.flows_per_ingress {
            self.make_room(Some(ingress), now, out)
        } else if self.flows.len() >= self.limits.egress_flows {
            self.make_room(None, now, out)
        } else {
            true
        };
        (!room).then_some(RefuseReason::TooManyFlows)
    }

    fn open(&mut self, header: &Header, open: &Open, now: Timestamp, out: &mut Outbox) {
        out.counters.egress_opened += 1;
        self.idle.insert(now, header.flow);
        let terms = Terms {
            class: header.class,
            deadline: open.deadline,
            policy: header.policy,
            redundancy: open.redundancy,
        };
        let flow = Box::new(Flow {
            service: open.service.clone(),
            port_offset: open.port_offset,
            terms,
            accepted_at: None,
            outgoing: Outgoing::starting_at(now),
            incoming: Incoming::default(),
            drops: DropCounts::default(),
            opened_at: now,
            active_at: now,
            queued_at: now,
        });
        self.flows.insert(header.flow, flow);
    }

    fn end(&mut self, id: FlowId, out: &mut Outbox) {
        let Some(mut flow) = self.flows.remove(&id) else { return };
        flow.incoming.restart(id, &mut self.waiting);
        self.idle.remove(flow.queued_at, id);
        out.counters.egress_closed += 1;
        out.push(EdgeOutput::Local(LocalOutput::CloseEgress(id)));
    }

    /// Ends the flow that was silent longest, of one ingress or of all, if that is long enough.
    fn make_room(&mut self, ingress: Option<PopKey>, now: Timestamp, out: &mut Outbox) -> bool {
        let silent = self.take_silent(ingress, EVICTABLE, now);
        if let Some(id) = silent {
            out.counters.evicted += 1;
            self.end(id, out);
        }
        silent.is_some()
    }

    fn take_silent(
        &mut self,
        ingress: Option<PopKey>,
        patience: Duration,
        now: Timestamp,
    ) -> Option<FlowId> {
        let flows = &mut self.flows;
        self.idle.take_silent(ingress, patience, now, |id| {
            let flow = flows.get_mut(id)?;
            flow.queued_at = flow.active_at;
            Some(flow.active_at)
        })
    }

    fn deliver(&mut self, header: &Header, payload: Bytes, now: Timestamp, out: &mut Outbox) {
        let Some(flow) = self.flows.get_mut(&header.flow) else { return };
        flow.active_at = now;
        let mut drops = Tally { flow: &mut flow.drops, total: &mut out.counters.drops };
        let (id, waiting) = (header.flow, &mut self.waiting);
        let received = flow.incoming.receive(id, header, payload, &mut drops, waiting, now);
        let Some(payload) = received else { return };
        let bytes = payload.len() as u64;
        let (service, port_offset) = (flow.service.clone(), flow.port_offset);
        match out.hand_out(LocalOutput::Deliver { flow: id, service, port_offset, payload }) {
            Ok(()) => {
                out.counters.service_tx += 1;
                out.counters.service_tx_bytes += bytes;
            }
            Err(reason) => {
                flow.drops.add(reason, 1);
                out.drop(reason);
            }
        }
    }

    /// Tells the ingress that it may leave out the open extension: at once, and again while it doesn't.
    fn accept(&mut self, header: &Header, routes: &impl Routes, now: Timestamp, out: &mut Outbox) {
        let Some(flow) = self.flows.get_mut(&header.flow) else { return };
        let lately = flow.accepted_at.is_some_and(|at| now < at + SIGNAL_GAP);
        if header.open.is_none() || lately {
            return;
        }
        flow.accepted_at = Some(now);
        let id = header.flow;
        match flow.ways_back(self.own, id, routes, now, out) {
            Ok(ways) => {
                let header = flow.outgoing.header(id, true, &flow.terms, ways, now);
                out.signal(header, &ways, Signal::Accept);
            }
            Err(reason) => flow.lose(reason, out),
        }
    }

    /// The ingress does not know the flow any more: it is over. Anything else makes no sense here.
    fn handle_signal(&mut self, id: FlowId, signal: &[u8], out: &mut Outbox) {
        match Signal::decode(signal) {
            Ok(Signal::Reset) => self.end(id, out),
            _ => out.drop(DropReason::BadSignal),
        }
    }

    /// A service answered.
    pub(super) fn handle_egress(
        &mut self,
        id: FlowId,
        payload: Bytes,
        routes: &impl Routes,
        now: Timestamp,
        out: &mut Outbox,
    ) {
        out.counters.service_rx += 1;
        out.counters.service_rx_bytes += payload.len() as u64;
        let Some(flow) = self.flows.get_mut(&id) else { return out.drop(DropReason::UnknownFlow) };
        flow.active_at = now;
        let sent = flow.ways_back(self.own, id, routes, now, out).and_then(|ways| {
            let header = flow.outgoing.header(id, true, &flow.terms, ways, now);
            flow.outgoing.send(header, None, &ways, payload, out)
        });
        flow.outgoing.blocked = sent.err();
        if let Err(reason) = sent {
            flow.lose(reason, out);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp, out: &mut Outbox) {
        while let Some(id) = self.waiting.pop(now) {
            let Some(flow) = self.flows.get_mut(&id) else { continue };
            let mut drops = Tally { flow: &mut flow.drops, total: &mut out.counters.drops };
            flow.incoming.expire(id, &mut drops, &mut self.waiting, now);
        }
        while let Some(id) = self.take_silent(None, self.limits.idle + FORGET_AFTER, now) {
            self.end(id, out);
        }
    }

    pub(super) fn poll_timeout(&self) -> Timestamp {
        self.idle.next(self.limits.idle + FORGET_AFTER).min(self.waiting.poll_timeout())
    }

    /// The relays to which flows want two ways, under which policy.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (PolicyId, PopKey)> {
        let disjoint = self.flows.iter().filter(|(_, flow)| flow.terms.is_disjoint());
        disjoint.map(|(id, flow)| (flow.terms.policy, id.ingress))
    }

    /// The relay at which each flow enters.
    pub(super) fn peers(&self) -> impl Iterator<Item = PopKey> {
        self.flows.keys().map(|id| id.ingress)
    }

    /// How many flows there are.
    pub(super) fn count(&self) -> usize {
        self.flows.len()
    }

    /// In the order of their ids.
    pub(super) fn flows(&self, now: Timestamp) -> Vec<FlowInfo> {
        let mut flows: Vec<_> = self.flows.iter().collect();
        flows.sort_unstable_by_key(|&(id, _)| *id);
        flows.into_iter().map(|(id, flow)| flow.info(*id, now)).collect()
    }
}

impl Flow {
    /// How answers travel: by this relay's own routes. While those under the flow's policy are
    /// still to be computed, back over the relays that the last packet visited: the policy allowed
    /// each of them, so that this breaks nothing. Known routes without a way fail closed.
    fn ways_back(
        &self,
        own: PopKey,
        id: FlowId,
        routes: &impl Routes,
        now: Timestamp,
        out: &mut Outbox,
    ) -> Result<Ways, DropReason> {
        if let Some(ways) = Ways::find(routes, &self.terms, own, id.ingress) {
            out.want_pair(&ways, self.terms.policy, id.ingress, now);
            return Ok(ways);
        }
        if routes.has_policy(self.terms.policy) {
            return Err(DropReason::NoRoute);
        }
        out.want(self.terms.policy, now);
        let came_by = self.incoming.paths.latest().ok_or(DropReason::RoutesPending)?;
        Ok(Ways::over(came_by.reversed()))
    }

    fn lose(&mut self, reason: DropReason, out: &mut Outbox) {
        self.drops.add(reason, 1);
        out.drop(reason);
    }

    fn info(&self, id: FlowId, now: Timestamp) -> FlowInfo {
        let (path_tx, copy_tx) = self.outgoing.paths();
        FlowInfo {
            id,
            end: FlowEnd::Egress,
            service: self.service.clone(),
            port_offset: self.port_offset,
            peer: Some(id.ingress),
            state: FlowState::Open,
            class: self.terms.class,
            policy: self.terms.policy,
            redundancy: self.terms.redundancy,
            deadline: self.terms.deadline,
            deadline_used: self.outgoing.deadline_used(&self.terms),
            warnings: self.outgoing.warnings(&self.terms),
            path_tx,
            copy_tx,
            paths_rx: self.incoming.paths.paths().to_vec(),
            packets_tx: self.outgoing.packets,
            bytes_tx: self.outgoing.bytes,
            packets_rx: self.incoming.packets,
            bytes_rx: self.incoming.bytes,
            blocked: self.outgoing.blocked,
            drops: self.drops,
            reopened: 0,
            reset: 0,
            age: now.since(self.opened_at),
            idle: now.since(self.active_at),
        }
    }
}
