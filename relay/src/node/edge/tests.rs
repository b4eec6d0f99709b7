//! Edges joined back to back, without links, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tradewind_proto::packet::Path;
use tradewind_router::tables::{Pairing, RouteEntry, Way};

use super::*;

mod chaos;
mod ends;
mod limits;
mod signals;
mod ways;

const FRA: PopKey = PopKey(1);
const SGP: PopKey = PopKey(2);
const MAD: PopKey = PopKey(3);
const VIA: PopKey = PopKey(8);
const WIA: PopKey = PopKey(9);
const TUNNEL: TunnelId = TunnelId(7);
const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn name(name: &str) -> ServiceName {
    name.parse().expect("a valid name")
}

fn path(pops: &[PopKey]) -> Path {
    Path::new(pops).expect("a valid path")
}

fn way(pops: &[PopKey], delay: u64) -> Way {
    Way { path: path(pops), delay: ms(delay), max_packet: MAX_PACKET }
}

fn entry(pops: &[PopKey], delay: u64) -> RouteEntry {
    RouteEntry { primary: way(pops, delay), backup: None, pair: Pairing::Unasked }
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// As large as packets may be on the ways of these tests.
const MAX_PACKET: usize = 600;

fn limits() -> EdgeLimits {
    EdgeLimits::default()
}

fn tunnel_to(service: &str, pop: Option<PopKey>) -> TunnelSpec {
    TunnelSpec {
        service: Target { service: name(service), pop },
        class: Class::Video,
        deadline: ms(300),
        policy: PolicyId::NONE,
        redundancy: Redundancy::Single,
        ports: 1,
    }
}

/// Routes as a test wants them.
#[derive(Default)]
struct Map {
    policies: BTreeSet<PolicyId>,
    entries: BTreeMap<(PolicyId, PopKey), RouteEntry>,
    /// The nearest first.
    instances: Vec<(PopKey, u16)>,
}

impl Routes for Map {
    fn has_policy(&self, policy: PolicyId) -> bool {
        self.policies.contains(&policy)
    }

    fn route(&self, policy: PolicyId, to: PopKey) -> Option<&RouteEntry> {
        self.entries.get(&(policy, to))
    }

    fn nearest(&self, policy: PolicyId, _: &ServiceName) -> Option<(PopKey, u16)> {
        self.instances.first().copied().filter(|_| self.has_policy(policy))
    }

    fn serves(&self, policy: PolicyId, pop: PopKey, _: &ServiceName) -> bool {
        self.has_policy(policy) && self.instances.iter().any(|&(at, _)| at == pop)
    }
}

struct Pop {
    edge: Edge,
    map: Map,
}

/// What came out, for the test to look at.
#[derive(Clone, Debug, PartialEq)]
enum Out {
    Service(PopKey, FlowId, Bytes),
    Client(PopKey, SocketAddr, Bytes),
    Closed(PopKey, FlowId),
    Wanted(PopKey, PolicyId),
    PairWanted(PopKey, PopKey),
}

/// PoPs whose packets wait in `wire` until the test lets them through.
struct World {
    pops: BTreeMap<PopKey, Pop>,
    wire: VecDeque<(Header, Bytes)>,
    out: Vec<Out>,
    now: Timestamp,
}

impl World {
    /// A tunnel at FRA, the service "echo" at SGP and MAD (the nearer is SGP).
    fn new() -> Self {
        Self::with(limits())
    }

    fn with(limits: EdgeLimits) -> Self {
        let pops = [FRA, SGP, MAD].map(|own| (own, Pop::new(own, limits)));
        let mut world =
            Self { pops: pops.into(), wire: VecDeque::new(), out: Vec::new(), now: START };
        world.set_tunnel(tunnel_to("echo", None));
        world.out.clear();
        world
    }

    fn set_tunnel(&mut self, spec: TunnelSpec) {
        let now = self.now;
        self.pop(FRA).edge.set_tunnels([(TUNNEL, spec)].into(), now);
        self.collect();
    }

    fn pop(&mut self, pop: PopKey) -> &mut Pop {
        self.pops.get_mut(&pop).expect("a PoP of this world")
    }

    fn restart(&mut self, pop: PopKey) {
        self.pop(pop).edge = Pop::new(pop, limits()).edge;
    }

    /// The program at `port` sends, and everything that follows from it happens.
    fn client_sends(&mut self, port: u16, payload: impl Into<Bytes>) {
        self.client_puts(port, payload);
        self.settle();
    }

    fn client_puts(&mut self, port: u16, payload: impl Into<Bytes>) {
        let now = self.now;
        let Pop { edge, map } = self.pop(FRA);
        edge.handle_tunnel(TUNNEL, 0, client(port), payload.into(), map, now);
        self.collect();
    }

    fn service_sends(&mut self, at: PopKey, flow: FlowId, payload: impl Into<Bytes>) {
        let now = self.now;
        let Pop { edge, map } = self.pop(at);
        edge.handle_egress(flow, payload.into(), map, now);
        self.collect();
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((header, payload)) = self.wire.pop_front() {
            self.arrive(header, payload);
        }
    }

    /// Lets a packet reach the end of its path.
    fn arrive(&mut self, mut header: Header, payload: Bytes) {
        while let Some(further) = header.path.advanced() {
            header.path = further;
        }
        let now = self.now;
        let Pop { edge, map } = self.pop(header.path.last());
        edge.handle_packet(header, payload, map, now);
        self.collect();
    }

    /// Takes every output to where it belongs.
    fn collect(&mut self) {
        for (&at, pop) in &mut self.pops {
            while let Some(output) = pop.edge.poll_output() {
                self.out.push(match output {
                    EdgeOutput::Send { header, payload } => {
                        assert_eq!(header.path.here(), at, "a packet starts where it is sent");
                        self.wire.push_back((header, payload));
                        continue;
                    }
                    EdgeOutput::Local(LocalOutput::Deliver { flow, payload, .. }) => {
                        Out::Service(at, flow, payload)
                    }
                    EdgeOutput::Local(LocalOutput::Answer { to, payload, .. }) => {
                        Out::Client(at, to, payload)
                    }
                    EdgeOutput::Local(LocalOutput::CloseEgress(flow)) => Out::Closed(at, flow),
                    EdgeOutput::WantPolicy(policy) => Out::Wanted(at, policy),
                    EdgeOutput::WantPair(_, to) => Out::PairWanted(at, to),
                });
            }
        }
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
        for pop in self.pops.values_mut() {
            pop.edge.handle_timeout(self.now);
            assert!(pop.edge.poll_timeout() > self.now, "asks to be woken in the past");
        }
        self.collect();
    }

    fn take_out(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    /// The flow to which the last delivery belonged.
    fn last_flow(&self) -> FlowId {
        let flows = self.out.iter().rev().filter_map(|out| match out {
            Out::Service(_, flow, _) => Some(*flow),
            _ => None,
        });
        flows.into_iter().next().expect("something was delivered")
    }

    /// The only flow of a PoP.
    fn flow(&self, at: PopKey) -> FlowInfo {
        let mut flows = self.pops[&at].edge.flows(self.now);
        let flow = flows.next().expect("there is a flow");
        assert!(flows.next().is_none(), "there is one flow only");
        flow
    }

    /// The flow of the program at `port`.
    fn flow_of(&self, port: u16) -> FlowInfo {
        let end = FlowEnd::Ingress { tunnel: TUNNEL, source: client(port) };
        let mut flows = self.pops[&FRA].edge.flows(self.now);
        flows.find(|flow| flow.end == end).expect("it has a flow")
    }

    fn count(&self, at: PopKey) -> usize {
        let edge = &self.pops[&at].edge;
        let (ingress, egress) = edge.flow_counts();
        assert_eq!(edge.flows(self.now).count(), ingress + egress);
        ingress + egress
    }

    fn dropped(&self, at: PopKey, reason: DropReason) -> u64 {
        self.pops[&at].edge.counters().drops.of(reason)
    }
}

impl Pop {
    /// Everything is reached by way of `VIA`.
    fn new(own: PopKey, limits: EdgeLimits) -> Self {
        let mut edge = Edge::new(own, Incarnation(own.0.into()), limits);
        if own != FRA {
            edge.set_services(vec![ServiceSpec { name: name("echo"), ports: 1 }]);
        }
        let routes = [FRA, SGP, MAD].into_iter().filter(|&to| to != own);
        let entries = routes.map(|to| ((PolicyId::NONE, to), entry(&[own, VIA, to], 40))).collect();
        let map =
            Map { policies: [PolicyId::NONE].into(), entries, instances: vec![(SGP, 1), (MAD, 1)] };
        Self { edge, map }
    }
}
