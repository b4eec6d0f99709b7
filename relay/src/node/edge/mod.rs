//! The edge of the overlay: the flows of one relay, at tunnels and at services, without I/O.
//!
//! A local program's packet becomes a flow, gets a path, a deadline and a number, is cut if need
//! be, and leaves as overlay packets; what ends here is freed of duplicates, joined, and handed to
//! the service from the flow's own socket, or back to the local program. The edge knows routes only
//! by asking for them ([`Routes`]), and cuts payloads to what all links of a way carry; links,
//! detours and pings are not its business. After each
//! `handle_*` or `set_*` take everything that `poll_output` has.
//!
//! A flow's id lasts as long as its egress knows it: when the egress restarts or another instance
//! takes over, the flow begins anew under a new id, so that numbers and answers never mix.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use tradewind_proto::packet::{Header, PacketKind, Signal};
use tradewind_proto::units::{
    Class, FlowId, Incarnation, PolicyId, PopKey, Redundancy, ServiceName, Timestamp,
};

mod counters;
mod egress;
mod idle;
mod info;
mod ingress;
mod lane;
mod outbox;
mod routes;

pub use counters::{DropCounts, DropReason, EdgeCounters};
pub use info::{FlowEnd, FlowInfo, FlowState, FlowWarning, MAX_RECORDED_PATHS, RecordedPath};
pub use outbox::DETOUR_ROOM;
pub use routes::{Alone, DEADLINE_MARGIN, Routes, Terms, Ways};

use egress::Egress;
use ingress::{Ingress, Source};
use outbox::Outbox;

/// A flow silent for this long may be ended to make room for a new one.
const EVICTABLE: Duration = Duration::from_secs(10);
/// How much longer an egress remembers a silent flow than its ingress, so that no packet of a flow
/// that is alive meets an egress that has just forgotten it.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// A tunnel as the driver numbers it: the number stays with the tunnel across reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub u32);

/// Where a tunnel leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// At this PoP and no other; `None`: at the nearest that has it.
    pub pop: Option<PopKey>,
}

impl Target {
    /// The relay that serves a flow which enters at `own`, and its ports, where those matter: the one
    /// that did, `held`, or else the best one now.
    pub fn instance(
        &self,
        routes: &impl Routes,
        policy: PolicyId,
        own: PopKey,
        held: Option<PopKey>,
    ) -> Option<(PopKey, u16)> {
        if let Some(pop) = self.pop {
            // A relay further off refuses what it doesn't have; this one would have to ask itself.
            let there = pop != own || routes.serves(policy, own, &self.service);
            return there.then_some((pop, u16::MAX));
        }
        match held.filter(|&pop| routes.serves(policy, pop, &self.service)) {
            Some(pop) => Some((pop, u16::MAX)),
            None => routes.nearest(policy, &self.service),
        }
    }
}

/// A tunnel: local UDP ports whose packets enter the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelSpec {
    /// Where it leads.
    pub service: Target,
    /// The class of its packets.
    pub class: Class,
    /// How long after entering a packet is worth delivering.
    pub deadline: Duration,
    /// Which relays its packets may visit.
    pub policy: PolicyId,
    /// How many copies travel.
    pub redundancy: Redundancy,
    /// How many consecutive ports it has, at least 1.
    pub ports: u16,
}

impl TunnelSpec {
    /// What both ends of its flows do with their packets.
    pub const fn terms(&self) -> Terms {
        Terms {
            class: self.class,
            deadline: self.deadline,
            policy: self.policy,
            redundancy: self.redundancy,
        }
    }
}

/// A service that this relay hands packets to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// How many consecutive ports it has, at least 1.
    pub ports: u16,
}

/// Bounds of the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeLimits {
    /// The most flows at tunnels. Beyond, the one silent longest makes room if that is 10 s or more;
    /// otherwise the newcomer's packets are dropped.
    pub ingress_flows: usize,
    /// The most of them at one tunnel, so that one flooded tunnel leaves room for others.
    pub flows_per_tunnel: usize,
    /// The most flows at services (a socket each). Beyond, as at tunnels; the newcomer is refused.
    pub egress_flows: usize,
    /// The most of them from one ingress.
    pub flows_per_ingress: usize,
    /// The most flows, at each end, that wait for missing fragments: each may hold 256 KiB.
    pub reassembling_flows: usize,
    /// The most packets that wait for `poll_output`.
    pub outputs: usize,
    /// A flow without packets for this long ends (at its egress 30 s later).
    pub idle: Duration,
    /// A refused flow tries again after this long.
    pub refused: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            ingress_flows: 10_000,
            flows_per_tunnel: 8_000,
            egress_flows: 10_000,
            flows_per_ingress: 8_000,
            reassembling_flows: 512,
            outputs: 4_096,
            idle: Duration::from_secs(180),
            refused: Duration::from_secs(1),
        }
    }
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeOutput {
    /// Put this into the overlay. Its path stands at this relay; if it has no other PoP, the packet
    /// comes straight back to [`Edge::handle_packet`].
    Send {
        /// With its whole budget as of now.
        header: Header,
        /// What follows the header.
        payload: Bytes,
    },
    /// Do this with a local socket.
    Local(LocalOutput),
    /// Have routes under this policy computed. Repeated once a second while packets need them.
    WantPolicy(PolicyId),
    /// Have two ways to this relay that share no relay between computed, under this policy. Repeated
    /// once a second while packets need them.
    WantPair(PolicyId, PopKey),
}

/// What is to be done with the sockets of tunnels and services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalOutput {
    /// Hand this to the service's target, from the flow's own socket, opened with the first one.
    Deliver {
        /// Whose socket.
        flow: FlowId,
        /// Which service.
        service: ServiceName,
        /// Which port of the service's range.
        port_offset: u16,
        /// Byte for byte what the local program sent.
        payload: Bytes,
    },
    /// Hand this to a local program, from the tunnel's socket.
    Answer {
        /// Which tunnel.
        tunnel: TunnelId,
        /// Which port of the tunnel's range.
        port_offset: u16,
        /// The program.
        to: SocketAddr,
        /// Byte for byte what the service sent.
        payload: Bytes,
    },
    /// Close this flow's socket.
    CloseEgress(FlowId),
}

/// The flows of one relay.
pub struct Edge {
    ingress: Ingress,
    egress: Egress,
    out: Outbox,
}

impl Edge {
    /// An edge without tunnels and services. `incarnation`: this start of relay `own`.
    pub fn new(own: PopKey, incarnation: Incarnation, limits: EdgeLimits) -> Self {
        Self {
            ingress: Ingress::new(own, incarnation, limits),
            egress: Egress::new(own, limits),
            out: Outbox::new(own, &limits),
        }
    }

    /// Replaces the tunnels. Flows of those that are the same as before go on, others end.
    pub fn set_tunnels(&mut self, tunnels: BTreeMap<TunnelId, TunnelSpec>, now: Timestamp) {
        self.ingress.set_tunnels(tunnels, now, &mut self.out);
    }

    /// Replaces the services. Flows whose service and port are still there go on, others end.
    pub fn set_services(&mut self, services: Vec<ServiceSpec>) {
        self.egress.set_services(services, &mut self.out);
    }

    /// Relay `ingress` was started anew, as `incarnation`: flows of its earlier starts end.
    pub fn handle_restart(&mut self, ingress: PopKey, incarnation: Incarnation) {
        self.egress.handle_restart(ingress, incarnation, &mut self.out);
    }

    /// While draining, flows that are new at a service here are refused; known ones go on.
    pub const fn set_draining(&mut self, draining: bool) {
        self.egress.set_draining(draining);
    }

    /// A local program at `source` sent `payload` to the port `port_offset` of a tunnel.
    pub fn handle_tunnel(
        &mut self,
        tunnel: TunnelId,
        port_offset: u16,
        source: SocketAddr,
        payload: Bytes,
        routes: &impl Routes,
        now: Timestamp,
    ) {
        let source = Source { tunnel, port_offset, addr: source };
        self.ingress.handle_tunnel(source, payload, routes, now, &mut self.out);
    }

    /// A service sent `payload` to the socket of `flow`.
    pub fn handle_egress(
        &mut self,
        flow: FlowId,
        payload: Bytes,
        routes: &impl Routes,
        now: Timestamp,
    ) {
        self.egress.handle_egress(flow, payload, routes, now, &mut self.out);
    }

    /// A packet whose path ends here. Pings and their answers are ignored: they belong to the node.
    pub fn handle_packet(
        &mut self,
        header: Header,
        payload: Bytes,
        routes: &impl Routes,
        now: Timestamp,
    ) {
        let out = &mut self.out;
        if is_ping(&header, &payload) {
            return;
        }
        out.counters.overlay_rx += 1;
        let (path, own) = (&header.path, out.own());
        let ingress = if header.reverse { own } else { path.first() };
        if path.here() != own || path.next().is_some() || header.flow.ingress != ingress {
            return out.drop(DropReason::Misrouted);
        }
        if header.reverse {
            self.ingress.handle_packet(&header, payload, now, out);
        } else {
            self.egress.handle_packet(&header, payload, routes, now, out);
        }
    }

    /// Time has come for something. Cheap when it hasn't.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.ingress.handle_timeout(now, &mut self.out);
        self.egress.handle_timeout(now, &mut self.out);
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Timestamp {
        self.ingress.poll_timeout().min(self.egress.poll_timeout())
    }

    /// The next thing to do. Call until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<EdgeOutput> {
        self.out.pop()
    }

    /// All flows: those of tunnels first, in the order of tunnels and sources, then those of
    /// services in the order of their ids.
    pub fn flows(&self, now: Timestamp) -> impl Iterator<Item = FlowInfo> {
        self.ingress.flows(now).into_iter().chain(self.egress.flows(now))
    }

    /// The relays to which flows want two ways that share no relay between, under which policy.
    pub fn pairs(&self) -> BTreeSet<(PolicyId, PopKey)> {
        self.ingress.pairs().chain(self.egress.pairs()).collect()
    }

    /// How many flows have their other end at which relay. Looks at all of them.
    pub fn flows_by_peer(&self) -> BTreeMap<PopKey, usize> {
        let mut flows = BTreeMap::new();
        for peer in self.ingress.peers().chain(self.egress.peers()) {
            *flows.entry(peer).or_default() += 1;
        }
        flows
    }

    /// How many flows there are at tunnels, and how many at services.
    pub fn flow_counts(&self) -> (usize, usize) {
        (self.ingress.count(), self.egress.count())
    }

    /// What was counted so far.
    pub const fn counters(&self) -> &EdgeCounters {
        &self.out.counters
    }
}

fn is_ping(header: &Header, payload: &[u8]) -> bool {
    header.kind == PacketKind::Signal
        && matches!(Signal::decode(payload), Ok(Signal::Ping { .. } | Signal::Pong { .. }))
}

#[cfg(test)]
mod tests;
