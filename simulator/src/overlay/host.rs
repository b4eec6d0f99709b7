//! A place where a relay runs, or ran.

use std::collections::BTreeMap;

use tradewind_proto::link::Recovery;
use tradewind_proto::statement::{Policy, ServiceStatement};
use tradewind_proto::units::{Incarnation, PopId, ServiceName, Timestamp};
use tradewind_relay::identity::Subject;
use tradewind_relay::node::control::SelfDescription;
use tradewind_relay::node::edge::{EdgeLimits, ServiceSpec, TunnelId, TunnelSpec};
use tradewind_relay::node::{Mesh, Node, NodeConfig};
use tradewind_router::lsdb::Labels;
use tradewind_router::metric::Metric;

use super::clock::{ClockError, SkewedClock};
use super::trust::PlainTrust;

/// A relay to simulate.
#[derive(Clone, Debug)]
pub struct RelaySpec {
    /// The place, at once the address that it advertises.
    pub host: String,
    /// Its name; usually the place.
    pub id: PopId,
    /// Where it is and whose, for policies.
    pub labels: Labels,
    /// How its clock is off.
    pub clock: ClockError,
    /// The places that it dials first.
    pub peers: Vec<String>,
    /// Which members become neighbours.
    pub mesh: Mesh,
    /// The rules that its flows may obey.
    pub policies: Vec<Policy>,
    /// How its links make up for losses.
    pub recovery: Recovery,
    /// What its routes are chosen by.
    pub metric: Metric,
}

impl RelaySpec {
    /// A relay at the place of its own name, with a true clock, that knows nobody.
    pub fn new(id: PopId) -> Self {
        Self {
            host: id.as_str().to_owned(),
            id,
            labels: Labels::default(),
            clock: ClockError::default(),
            peers: Vec::new(),
            mesh: Mesh::Auto,
            policies: Vec::new(),
            recovery: Recovery::Plan,
            metric: Metric::default(),
        }
    }

    /// The same with peers to dial first.
    #[must_use]
    pub fn dialling<'a>(self, peers: impl IntoIterator<Item = &'a str>) -> Self {
        Self { peers: peers.into_iter().map(str::to_owned).collect(), ..self }
    }
}

/// How often a relay was at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Times that it was woken because it asked to be.
    pub wake_ups: u64,
    /// Times that it was called at all: woken, or because something arrived.
    pub calls: u64,
}

/// The place, and the relay there.
pub(super) struct Host {
    pub(super) spec: RelaySpec,
    pub(super) clock: SkewedClock,
    pub(super) services: Vec<ServiceName>,
    pub(super) tunnels: BTreeMap<TunnelId, TunnelSpec>,
    pub(super) node: Option<Node<PlainTrust>>,
    /// Counts starts: connections of an earlier life are dead.
    pub(super) life: u32,
    /// True time of the last wake-up.
    pub(super) woken_at: Timestamp,
    /// Wake-ups in a row that came at the same instant.
    pub(super) spins: u32,
    pub(super) work: Work,
    /// Life, computations of routes and tunnels when routes of flows were noted last.
    pub(super) noted: (u32, Option<u64>, usize),
    /// It has said goodbye and takes nothing in any more.
    pub(super) ending: bool,
    /// Why the relay stopped by itself.
    pub(super) stopped: Option<String>,
}

impl Host {
    pub(super) fn new(spec: RelaySpec, start: Timestamp) -> Self {
        Self {
            clock: SkewedClock::new(start, spec.clock),
            spec,
            services: Vec::new(),
            tunnels: BTreeMap::new(),
            node: None,
            life: 0,
            woken_at: Timestamp::ZERO,
            spins: 0,
            work: Work::default(),
            noted: (0, None, 0),
            ending: false,
            stopped: None,
        }
    }

    /// Starts the relay, as the daemon does.
    pub(super) fn start(&mut self, truth: Timestamp) {
        let now = self.clock.shown_at(truth);
        let spec = &self.spec;
        let subject = Subject { id: spec.id.clone(), labels: spec.labels.clone(), services: None };
        let config = NodeConfig {
            id: spec.id.clone(),
            incarnation: Incarnation(now.as_micros() / 1000),
            description: self.description(),
            peers: spec.peers.clone(),
            mesh: spec.mesh,
            limits: EdgeLimits::default(),
            recovery: spec.recovery,
            metric: spec.metric,
        };
        self.life += 1;
        self.stopped = None;
        self.ending = false;
        self.node = Some(Node::new(config, PlainTrust::new(subject), now));
        self.tell_edge(now);
    }

    /// Tells a running relay of tunnels and services that are new.
    pub(super) fn configure(&mut self, truth: Timestamp) {
        let now = self.clock.shown_at(truth);
        let description = self.description();
        if let Some(node) = &mut self.node {
            node.reconfigure(description, &self.spec.peers, now);
        }
        self.tell_edge(now);
    }

    fn tell_edge(&mut self, now: Timestamp) {
        let services = self.services.iter();
        let services = services.map(|name| ServiceSpec { name: name.clone(), ports: 1 }).collect();
        if let Some(node) = &mut self.node {
            node.set_edge(self.tunnels.clone(), services, now);
        }
    }

    fn description(&self) -> SelfDescription {
        let services = self.services.iter();
        SelfDescription {
            addresses: vec![self.spec.host.clone()],
            location: None,
            services: services
                .map(|name| ServiceStatement { name: name.clone(), ports: 1 })
                .collect(),
            policies: self.spec.policies.clone(),
            draining: false,
        }
    }

    /// The relay is gone, without a word.
    pub(super) fn kill(&mut self) {
        self.node = None;
    }

    /// Whether the relay of this life is running.
    pub(super) fn lives(&self, life: u32) -> bool {
        self.node.is_some() && self.life == life
    }
}
