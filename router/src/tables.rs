//! What the router hands to the packet path: an immutable snapshot of routes and detours.
//!
//! The relay's machines share it behind an `Arc` and get a new one whenever routes change.
//! Nothing here allocates; a detour looks at a few ways computed ahead, at worst at each
//! neighbour of this relay once per relay ahead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tradewind_proto::packet::{MAX_DETOURED_PATH, Path};
use tradewind_proto::units::{PolicyId, PopKey, ServiceName};

use crate::graph::{Link, Row, link_to};
use crate::metric::Cost;
use crate::paths::{Arrays, Labels, Node, Trail};

/// One way to a PoP.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// This relay first.
    pub path: Path,
    /// Expected one-way propagation along it, jitter margins included.
    pub delay: Duration,
    /// The largest packet, header and payload, that every link along it carries, in bytes;
    /// `usize::MAX` for a path of one PoP.
    pub max_packet: usize,
}

/// The two ways of flows whose packets travel twice (`redundancy = "disjoint"`).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Pairing {
    /// Not computed: nobody asked with [`crate::routes::Router::want_pair`].
    #[default]
    Unasked,
    /// No two ways share no relay between.
    Impossible,
    /// The cheapest two that share none, the cheaper first.
    Pair(Way, Way),
}

impl Pairing {
    /// The two ways, if there are two.
    pub fn ways(&self) -> Option<(&Way, &Way)> {
        match self {
            Self::Pair(a, b) => Some((a, b)),
            Self::Unasked | Self::Impossible => None,
        }
    }
}

/// How to get to one PoP under one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteEntry {
    /// The way to take. To this relay itself: a path of one PoP.
    pub primary: Way,
    /// A way that shares no relay between with `primary`, where one exists.
    pub backup: Option<Way>,
    /// Two ways for packets that travel twice.
    pub pair: Pairing,
}

/// All routes and detours of one relay at one time.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub(crate) map: Arc<Map>,
    pub(crate) policies: BTreeMap<PolicyId, Arc<PolicyTable>>,
}

/// What does not depend on policies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Map {
    pub(crate) own: PopKey,
    /// Sorted; the position is the number of a relay.
    pub(crate) keys: Arc<[PopKey]>,
    /// The links of each relay.
    pub(crate) rows: Vec<Row>,
}

/// Routes and detours under one policy.
#[derive(Clone, Debug)]
pub(crate) struct PolicyTable {
    /// By number of relay.
    pub(crate) routes: Vec<Option<RouteEntry>>,
    /// Which relays packets may visit.
    pub(crate) allowed: Vec<bool>,
    /// The soonest reached first.
    pub(crate) services: BTreeMap<ServiceName, Vec<Instance>>,
    pub(crate) ways: Ways,
}

/// A relay that advertises a service and can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    pub(crate) cost: Cost,
    pub(crate) pop: PopKey,
    pub(crate) ports: u16,
    pub(crate) draining: bool,
}

/// The searches' results as far as detours need them.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) arrays: Arrays,
    pub(crate) labels: Labels,
    /// The cheapest path to each relay, whatever loyalty says.
    pub(crate) best: Vec<Option<Trail>>,
    /// For each relay that this one has a link to.
    pub(crate) around: BTreeMap<Node, Around>,
}

/// What there is instead of one neighbour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    /// The cheapest path to it by another first link.
    pub(crate) link: Option<Trail>,
    /// The cheapest paths without it, to those relays whose cheapest path is over it.
    pub(crate) others: BTreeMap<Node, Option<Trail>>,
}

/// The most hops that one detour inserts.
const MAX_INSERTED: usize = MAX_DETOURED_PATH - tradewind_proto::packet::MAX_PATH;

impl Tables {
    /// Whether routes under `policy` have been computed (even if there are none).
    pub fn has_policy(&self, policy: PolicyId) -> bool {
        self.policies.contains_key(&policy)
    }

    /// How to get to `to`; `None`: no allowed way.
    pub fn route(&self, policy: PolicyId, to: PopKey) -> Option<&RouteEntry> {
        let to = self.map.node(to)?;
        self.policies.get(&policy)?.routes.get(usize::from(to))?.as_ref()
    }

    /// The relay by which `service` is reached soonest, and how many ports it has there: draining ones are left out.
    pub fn nearest(&self, policy: PolicyId, service: &ServiceName) -> Option<(PopKey, u16)> {
        let instances = self.policies.get(&policy)?.services.get(service)?;
        let nearest = instances.iter().find(|instance| !instance.draining)?;
        Some((nearest.pop, nearest.ports))
    }

    /// Whether `pop` advertises `service` and can be reached: a flow stays with it while this holds.
    pub fn serves(&self, policy: PolicyId, pop: PopKey, service: &ServiceName) -> bool {
        let instances = self.policies.get(&policy).and_then(|table| table.services.get(service));
        instances.is_some_and(|instances| instances.iter().any(|instance| instance.pop == pop))
    }

    /// Expected one-way propagation, jitter margins included, along `ahead` starting at `from`: what a hop reserves for the rest of the path.
    /// Links that are not known count as nothing.
    pub fn delay_along(&self, from: PopKey, ahead: &[PopKey]) -> Duration {
        let mut here = self.map.node(from);
        let mut sum = Cost::ZERO;
        for &next in ahead {
            let next = self.map.node(next);
            let ends = here.zip(next);
            let link = ends.and_then(|(u, v)| self.map.link(u, v));
            sum = sum + link.map_or(Cost::ZERO, Link::propagation);
            here = next;
        }
        sum.span()
    }

    /// A way around the next hop of `path` (which stands at this relay), or around the link to it where the next hop
    /// is the destination: the same path with what lies ahead replaced. Every link on it carries the packet, which now
    /// has `packet` bytes with its header (0: any). `None`: the policy is unknown here, or no allowed way exists that
    /// carries the packet, visits nobody twice and inserts at most two hops.
    pub fn detour(&self, path: &Path, policy: PolicyId, packet: usize) -> Option<Path> {
        let table = self.policies.get(&policy)?;
        if path.here() != self.map.own {
            return None;
        }
        let ahead = Ahead::new(&self.map, path, packet)?;
        let (_, rest) = ahead.nodes().split_first()?;
        // Fails closed on what the ingress wrote, too.
        if !rest.iter().all(|&node| table.allowed[usize::from(node)]) {
            return None;
        }
        let around = table.ways.around_relay(&ahead).or_else(|| table.ways.around_link(&ahead))?;
        self.rerouted(path, &around, &ahead)
    }

    fn rerouted(&self, path: &Path, around: &Found, ahead: &Ahead<'_>) -> Option<Path> {
        let tail = &ahead.nodes()[ahead.len - around.tail..];
        let mut pops = [PopKey::default(); MAX_DETOURED_PATH];
        let mut len = 0;
        for &node in around.trail.nodes()[1..].iter().chain(tail) {
            *pops.get_mut(len)? = self.map.keys[usize::from(node)];
            len += 1;
        }
        path.rerouted(&pops[..len]).ok()
    }
}

impl Map {
    pub(crate) fn node(&self, key: PopKey) -> Option<Node> {
        crate::graph::node(&self.keys, key)
    }

    fn link(&self, from: Node, to: Node) -> Option<&Link> {
        link_to(self.rows.get(usize::from(from))?, to)
    }
}

/// The rest of a packet's path, who may not be visited (again), and how long the packet is.
struct Ahead<'a> {
    map: &'a Map,
    own: Node,
    packet: usize,
    nodes: [Node; MAX_DETOURED_PATH],
    len: usize,
    visited: [Node; MAX_DETOURED_PATH],
    visited_len: usize,
}

/// A way from here to one of the relays ahead; `tail` of them follow behind it.
struct Found {
    trail: Trail,
    tail: usize,
}

impl<'a> Ahead<'a> {
    /// `None` if a relay ahead is not known. One that was visited and is no member any more
    /// can't be on a detour anyway.
    fn new(map: &'a Map, path: &Path, packet: usize) -> Option<Self> {
        let mut this = Self {
            map,
            own: map.node(path.here())?,
            packet,
            nodes: [0; MAX_DETOURED_PATH],
            len: path.ahead().len(),
            visited: [0; MAX_DETOURED_PATH],
            visited_len: 0,
        };
        for (at, &key) in path.ahead().iter().enumerate() {
            this.nodes[at] = map.node(key)?;
        }
        let visited = path.pops().len() - this.len;
        for node in path.pops()[..visited].iter().filter_map(|&key| map.node(key)) {
            this.visited[this.visited_len] = node;
            this.visited_len += 1;
        }
        Some(this)
    }

    fn nodes(&self) -> &[Node] {
        &self.nodes[..self.len]
    }

    /// Whether a way over `between` to `self.nodes[target]` meets nobody twice, is short enough, and
    /// carries the packet.
    fn fits(&self, between: &[Node], target: usize) -> bool {
        let tail = &self.nodes()[target + 1..];
        let visited = &self.visited[..self.visited_len];
        let met = |node: &Node| visited.contains(node) || tail.contains(node);
        let len = between.len() + 1 + tail.len();
        len <= self.len + MAX_INSERTED
            && visited.len() + len <= MAX_DETOURED_PATH
            && !between.iter().any(met)
            && self.carries(between, target)
    }

    /// Whether every link of that way carries the packet, which each hop more makes longer. Links
    /// that are not known are left to the relays ahead.
    fn carries(&self, between: &[Node], target: usize) -> bool {
        let rest = &self.nodes()[target..];
        let longer = (between.len() + rest.len()) * size_of::<PopKey>();
        let packet = (self.packet + longer).saturating_sub(self.len * size_of::<PopKey>());
        let mut here = self.own;
        between.iter().chain(rest).all(|&next| {
            let link = self.map.link(here, next);
            here = next;
            link.is_none_or(|link| packet <= usize::from(link.max_packet))
        })
    }
}

impl Ways {
    /// A way past the next hop, to the one after it or else to one further on.
    fn around_relay(&self, ahead: &Ahead<'_>) -> Option<Found> {
        let next = *ahead.nodes().first()?;
        let found = |target: usize, trail: Trail| Found { trail, tail: ahead.len - target - 1 };
        let computed = (1..ahead.len).find_map(|target| {
            let trail = self.without(next, ahead.nodes[target])?;
            ahead.fits(trail.between(), target).then(|| found(target, trail))
        });
        computed.or_else(|| {
            (1..ahead.len).find_map(|target| {
                let trail = self.over_one_relay(ahead, target, next)?;
                Some(found(target, trail))
            })
        })
    }

    /// Another way to the next hop itself.
    fn around_link(&self, ahead: &Ahead<'_>) -> Option<Found> {
        let next = *ahead.nodes().first()?;
        let computed = match self.around.get(&next) {
            Some(around) => around.link,
            None => *self.best.get(usize::from(next))?, // there is no link to it: any way will do
        };
        let trail = computed.filter(|trail| ahead.fits(trail.between(), 0));
        let trail = trail.or_else(|| self.over_one_relay(ahead, 0, next));
        trail.map(|trail| Found { trail, tail: ahead.len - 1 })
    }

    /// The cheapest path to `to` that does not visit `avoided`, as computed ahead.
    fn without(&self, avoided: Node, to: Node) -> Option<Trail> {
        if let Some(other) = self.around.get(&avoided).and_then(|around| around.others.get(&to)) {
            return *other;
        }
        let best = (*self.best.get(usize::from(to))?)?;
        (!best.between().contains(&avoided)).then_some(best)
    }

    /// The cheapest way over exactly one relay that may be visited.
    fn over_one_relay(&self, ahead: &Ahead<'_>, target: usize, avoided: Node) -> Option<Trail> {
        let (own, to) = (self.arrays.source(), ahead.nodes[target]);
        let mut into = self.arrays.inward(to).iter().peekable();
        let mut best: Option<(i32, Node)> = None;
        for first in self.arrays.outward(own) {
            while into.next_if(|last| last.peer < first.peer).is_some() {}
            let Some(last) = into.next_if(|last| last.peer == first.peer) else { continue };
            let sum = first.cost + last.cost;
            let better = first.peer != avoided && best.is_none_or(|(least, _)| sum < least);
            if better && ahead.fits(&[first.peer], target) {
                best = Some((sum, first.peer));
            }
        }
        best.and_then(|(_, relay)| Trail::new(&[own, relay, to]))
    }
}

#[cfg(test)]
mod tests;
