//! A relay as machines without I/O, joined by messages.
//!
//! [`Control`] computes routes, a [`Link`](tradewind_proto::link::Link) carries packets to one
//! neighbour, the [`Edge`] keeps flows; [`Node`] passes packets between them and drives them in a
//! fixed order. The daemon drives a node with sockets and a clock, the simulator with events and
//! virtual time: call a `handle_*`, then send all that [`Node::poll_output`] gives, and come back
//! at [`Node::poll_timeout`].

pub mod advertise;
mod connections;
pub mod control;
pub mod dial;
#[cfg(test)]
mod double;
pub mod echo;
pub mod edge;
mod forward;
#[cfg(test)]
mod joining_tests;
pub mod mesh;
pub mod neighbour;
mod output;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::control::Message;
use tradewind_proto::link::{Inbound, LinkEvent, Liveness, Recovery};
use tradewind_proto::packet::Path;
use tradewind_proto::units::{FlowId, Incarnation, PolicyId, PopId, PopKey, Timestamp};
use tradewind_router::lsdb::Cursor;
use tradewind_router::metric::Metric;
use tradewind_router::tables::Tables;

use control::{Control, ControlOutput, MEASURE_INTERVAL, Measured, SelfDescription, Trust};
use dial::Dialler;
use edge::{Edge, EdgeLimits, EdgeOutput, ServiceSpec, TunnelId, TunnelSpec};
pub use forward::ForwardCounters;
use neighbour::{ConnId, Neighbour, Neighbours};
pub use output::{News, Output};

/// How often the mesh and the heat of links are looked at, beside when members come or go.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How often it is looked which pairs of ways are still in use: flows end minutes after their last
/// packet.
const TIDYING: Duration = Duration::from_secs(60);

/// What a relay is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub id: PopId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// What it says of itself.
    pub description: SelfDescription,
    /// Addresses to dial.
    pub peers: Vec<String>,
    /// Which members become neighbours.
    pub mesh: Mesh,
    /// Bounds on flows.
    pub limits: EdgeLimits,
    /// How links make up for losses. No operator chooses: what a daemon's configuration offers must
    /// be of use to somebody, and the plan is the cheapest that arrives in time. Simulations compare.
    pub recovery: Recovery,
    /// What routes are chosen by. Simulations compare; a daemon's is the default.
    pub metric: Metric,
}

/// Which members become neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mesh {
    /// All of up to 64 members; of more, the nearest 16, 8 spread out and up to 8 that flows go to
    /// or come from.
    #[default]
    Auto,
    /// All.
    Full,
    /// Only the configured peers.
    Peers,
}

/// The neighbours that stand by for the next one on `path`, which stands at the relay of `tables`:
/// they are watched as closely.
pub fn standbys_of(
    tables: &Tables,
    path: &Path,
    policy: PolicyId,
) -> impl Iterator<Item = PopKey> + use<> {
    let detour = tables.detour(path, policy, 0).and_then(|path| path.next());
    let backup = tables.route(policy, path.last()).and_then(|route| route.backup.as_ref());
    detour.into_iter().chain(backup.and_then(|way| way.path.next()))
}

/// One relay.
pub struct Node<T> {
    id: PopId,
    own: PopKey,
    incarnation: Incarnation,
    control: Control<T>,
    neighbours: Neighbours,
    dialler: Dialler,
    edge: Edge,
    tables: Arc<Tables>,
    mesh: Mesh,
    /// Neighbours whose link may have something to send.
    touched: Vec<PopKey>,
    outputs: VecDeque<Output>,
    next_measure: Timestamp,
    next_housekeeping: Timestamp,
    next_tidying: Timestamp,
    /// How many members there were when the mesh was looked at last.
    members: usize,
    counters: ForwardCounters,
}

impl<T: Trust> Node<T> {
    /// A relay that knows nobody yet.
    pub fn new(config: NodeConfig, trust: T, now: Timestamp) -> Self {
        let NodeConfig { id, incarnation, description, peers, mesh, limits, recovery, metric } =
            config;
        let own = id.key();
        let mut dialler = Dialler::new(own);
        dialler.set_configured(&peers, now);
        let mut node = Self {
            own,
            incarnation,
            control: Control::new(id.clone(), incarnation, description, metric, trust, now),
            neighbours: Neighbours::new(id.clone(), incarnation, recovery),
            dialler,
            edge: Edge::new(own, incarnation, limits),
            tables: Arc::default(),
            mesh,
            touched: Vec::new(),
            outputs: VecDeque::new(),
            next_measure: now + MEASURE_INTERVAL,
            next_housekeeping: now + HOUSEKEEPING,
            next_tidying: now + TIDYING,
            members: 0,
            counters: ForwardCounters::default(),
            id,
        };
        node.settle(now);
        node
    }

    /// Replaces what a reload may change.
    pub fn reconfigure(&mut self, description: SelfDescription, peers: &[String], now: Timestamp) {
        self.control.describe(description);
        self.dialler.set_configured(peers, now);
        self.measure(now);
        self.settle(now);
    }

    /// Tells everybody that this relay is leaving.
    pub fn announce_leaving(&mut self, now: Timestamp) {
        let description = SelfDescription { draining: true, ..self.control.description().clone() };
        self.control.describe(description);
        self.edge.set_draining(true);
        self.measure(now);
        self.settle(now);
    }

    /// Says goodbye to all neighbours; nothing is to be sent after it.
    pub fn say_goodbye(&mut self) {
        for (_, neighbour) in self.neighbours.iter() {
            self.outputs.push_back(Output::Message(neighbour.line.conn, Message::Bye));
        }
    }

    /// A datagram came.
    pub fn handle_datagram(&mut self, conn: ConnId, datagram: Bytes, now: Timestamp) {
        let Some((key, former)) = self.neighbours.receiving(conn) else {
            self.neighbours.hold(conn, datagram);
            return;
        };
        if let Some(former) = former {
            let reason = "the connection dialled by the other end stays".to_owned();
            self.outputs.push_back(Output::Close(former.conn, reason));
            self.renew(key, Cursor::default(), now);
            self.resend(former, now);
        }
        if let Some(neighbour) = self.neighbours.get_mut(key) {
            neighbour.line.link.handle_datagram(datagram, now);
        }
        self.touch(key);
    }

    /// A local program sent a packet to a tunnel.
    pub fn handle_tunnel(
        &mut self,
        tunnel: TunnelId,
        port_offset: u16,
        source: SocketAddr,
        payload: Bytes,
        now: Timestamp,
    ) {
        let tables = self.tables.clone();
        self.edge.handle_tunnel(tunnel, port_offset, source, payload, &*tables, now);
    }

    /// A service answered on a flow's socket.
    pub fn handle_egress(&mut self, flow: FlowId, payload: Bytes, now: Timestamp) {
        let tables = self.tables.clone();
        self.edge.handle_egress(flow, payload, &*tables, now);
    }

    /// Sends a ping along `path`, which stands at this relay.
    pub fn ping(&mut self, path: Path, policy: PolicyId, id: u32, now: Timestamp) {
        let (header, payload) = echo::ask(self.own, self.incarnation, path, policy, id, now);
        self.dispatch(header, payload, now);
        self.settle(now);
    }

    /// Time has come for something.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let due: Vec<_> = self
            .neighbours
            .iter()
            .filter(|(_, neighbour)| neighbour.poll_timeout() <= now)
            .map(|(key, _)| key)
            .collect();
        for key in due {
            if let Some(neighbour) = self.neighbours.get_mut(key) {
                neighbour.line.link.handle_timeout(now);
            }
            self.touch(key);
        }
        self.edge.handle_timeout(now);
        self.control.handle_timeout(now);
        if now >= self.next_measure {
            self.measure(now);
        }
        if now >= self.next_housekeeping || self.control.lsdb().members().len() != self.members {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.keep_house(now);
        }
        self.dial(now);
        self.settle(now);
    }

    /// When to call [`Self::handle_timeout`], should nothing happen before.
    pub fn poll_timeout(&self) -> Timestamp {
        let links = self.neighbours.iter().map(|(_, neighbour)| neighbour.poll_timeout());
        // Links that are down are dialled anew with the next measurement that finds them due.
        let dialler = self.dialler.poll_timeout(|peer| self.neighbours.get(peer).is_some());
        links
            .chain([self.next_measure, self.next_housekeeping, dialler])
            .chain([self.edge.poll_timeout(), self.control.poll_timeout()])
            .min()
            .unwrap_or(Timestamp::NEVER)
    }

    /// What is wanted, oldest first. Call until `None` after each `handle_*`.
    pub fn poll_output(&mut self, now: Timestamp) -> Option<Output> {
        if self.outputs.is_empty() {
            self.settle(now);
            self.transmit(now);
        }
        self.outputs.pop_front()
    }

    /// Passes packets and messages between the machines until all are quiet.
    fn settle(&mut self, now: Timestamp) {
        loop {
            let mut quiet = true;
            let mut at = 0;
            while let Some(&key) = self.touched.get(at) {
                at += 1;
                while let Some(event) = self.poll_link(key) {
                    quiet = false;
                    self.handle_event(key, event, now);
                }
            }
            while let Some(output) = self.edge.poll_output() {
                quiet = false;
                self.handle_edge(output, now);
            }
            while let Some(output) = self.control.poll_output() {
                quiet = false;
                self.handle_control(output);
            }
            if quiet {
                return;
            }
        }
    }

    fn poll_link(&mut self, key: PopKey) -> Option<LinkEvent> {
        self.neighbours.get_mut(key)?.line.link.poll_event()
    }

    /// Collects the datagrams of links that may have some.
    fn transmit(&mut self, now: Timestamp) {
        for key in std::mem::take(&mut self.touched) {
            let Some(neighbour) = self.neighbours.get_mut(key) else { continue };
            let conn = neighbour.line.conn;
            while let Some(datagram) = neighbour.line.link.poll_transmit(now) {
                self.outputs.push_back(Output::Datagram(conn, datagram));
            }
        }
        for line in self.neighbours.candidates_mut() {
            line.link.handle_timeout(now);
            while let Some(datagram) = line.link.poll_transmit(now) {
                self.outputs.push_back(Output::Datagram(line.conn, datagram));
            }
        }
    }

    fn touch(&mut self, key: PopKey) {
        if !self.touched.contains(&key) {
            self.touched.push(key);
        }
    }

    fn handle_event(&mut self, key: PopKey, event: LinkEvent, now: Timestamp) {
        match event {
            LinkEvent::Received(Inbound { header, payload }) => {
                if let Some(neighbour) = self.neighbours.get_mut(key) {
                    neighbour.note_use(header.path, header.policy, now);
                }
                self.handle_packet(header, payload, now);
            }
            LinkEvent::Liveness(liveness) => self.handle_liveness(key, liveness, now),
        }
    }

    fn handle_liveness(&mut self, key: PopKey, liveness: Liveness, now: Timestamp) {
        if let Some(neighbour) = self.neighbours.get_mut(key)
            && neighbour.note_liveness(liveness, now)
        {
            let id = neighbour.id.clone();
            self.outputs.push_back(Output::News(News::Liveness(id, liveness)));
        }
        self.control.set_suspect(key, liveness == Liveness::Suspect, now);
        match liveness {
            Liveness::Starting => {}
            Liveness::Up => {
                self.measure(now);
                self.salvage_all(now);
            }
            Liveness::Suspect => self.salvage(key, now),
            Liveness::Down => {
                self.measure(now);
                self.salvage(key, now);
            }
        }
    }

    fn handle_control(&mut self, output: ControlOutput) {
        match output {
            ControlOutput::Tell(peer, message) => {
                if let Some(neighbour) = self.neighbours.get(peer) {
                    self.outputs.push_back(Output::Message(neighbour.line.conn, message));
                }
            }
            ControlOutput::Tables(tables) => self.tables = tables,
            ControlOutput::Restarted(relay, incarnation) => {
                self.edge.handle_restart(relay, incarnation);
            }
            ControlOutput::Replaced(newer) => self.replaced(newer),
        }
    }

    fn handle_edge(&mut self, output: EdgeOutput, now: Timestamp) {
        match output {
            EdgeOutput::Send { header, payload } => self.dispatch(header, payload, now),
            EdgeOutput::WantPolicy(policy) => self.control.want_policy(policy, now),
            EdgeOutput::WantPair(policy, to) => self.control.want_pair(policy, to, now),
            EdgeOutput::Local(output) => self.outputs.push_back(Output::Local(output)),
        }
    }

    /// Tells the control plane how the links are.
    fn measure(&mut self, now: Timestamp) {
        self.next_measure = now + MEASURE_INTERVAL;
        let measured = |(to, neighbour): (PopKey, &Neighbour)| {
            let link = &neighbour.line.link;
            let (liveness, quality) = (link.liveness(), link.quality());
            Measured { to, liveness, quality, max_packet: link.max_packet() }
        };
        let links: Vec<_> = self.neighbours.iter().map(measured).collect();
        self.control.handle_links(&links, now);
        self.watch_standbys(now);
    }

    /// Links that are the detour or backup of a used one are watched as closely as that one.
    fn watch_standbys(&mut self, now: Timestamp) {
        let mut standbys = Vec::new();
        for (_, neighbour) in self.neighbours.iter().filter(|(_, n)| n.used(now)) {
            let Some((path, policy)) = neighbour.sample else { continue };
            let Some(path) = self.standing_here(path) else { continue };
            standbys.extend(standbys_of(&self.tables, &path, policy));
        }
        for key in standbys {
            if let Some(neighbour) = self.neighbours.get_mut(key) {
                neighbour.note_standby(now);
            }
        }
        for (_, neighbour) in self.neighbours.iter_mut() {
            let heat = neighbour.heat(now);
            neighbour.line.link.set_heat(heat, now);
        }
    }

    fn name(&self, key: PopKey) -> Option<PopId> {
        self.neighbours.get(key).map(|neighbour| neighbour.id.clone())
    }

    /// This relay's name.
    pub fn id(&self) -> &PopId {
        &self.id
    }

    /// Which start of it this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Computes routes under `policy` if they are not there yet.
    pub fn want_policy(&mut self, policy: PolicyId, now: Timestamp) {
        self.control.want_policy(policy, now);
        self.settle(now);
    }

    /// Link state and routes.
    pub fn control(&self) -> &Control<T> {
        &self.control
    }

    /// Connections and links.
    pub fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    /// Flows.
    pub fn edge(&self) -> &Edge {
        &self.edge
    }

    /// Replaces tunnels and services.
    pub fn set_edge(
        &mut self,
        tunnels: BTreeMap<TunnelId, TunnelSpec>,
        services: Vec<ServiceSpec>,
        now: Timestamp,
    ) {
        self.edge.set_tunnels(tunnels, now);
        self.edge.set_services(services);
        self.settle(now);
    }

    /// Routes as packets follow them now.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Packets dropped between links and edge, by reason.
    pub fn counters(&self) -> &ForwardCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests;
