//! A relay as machines without I/O, joined by messages.
//!
//! [`Control`] computes routes, a [`Link`](tradewind_proto::link::Link) carries packets to one
//! neighbour, the [`Edge`] keeps flows; [`Node`] passes packets between them and drives them in a
//! fixed order. The daemon drives a node with sockets and a clock, the simulator with events and
//! virtual time: call a `handle_*`, then send all that [`Node::poll_output`] gives, and come back
//! at [`Node::poll_timeout`].

pub mod advertise;
pub mod control;
pub mod dial;
#[cfg(test)]
mod double;
pub mod echo;
pub mod edge;
#[cfg(test)]
mod joining_tests;
mod mesh;
pub mod neighbour;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tradewind_proto::control::{Hello, Message, VERSION};
use tradewind_proto::link::{Inbound, LinkEvent, Liveness, Outbound, Refused};
use tradewind_proto::packet::{Header, PacketKind, Path};
use tradewind_proto::units::{
    FlowId, Incarnation, PolicyId, PopId, PopKey, ServiceName, Timestamp,
};
use tradewind_router::tables::Tables;

use control::{Control, ControlOutput, MEASURE_INTERVAL, Measured, SelfDescription, Trust};
use dial::{Dialler, PATIENCE};
use echo::{Echo, Pong};
use edge::{Edge, EdgeLimits, EdgeOutput, ServiceSpec, TunnelId, TunnelSpec};
use neighbour::{Closed, ConnId, Connected, Line, Neighbour, Neighbours, Refusal, Welcome};

/// How often the mesh and the heat of links are looked at, beside when members come or go.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

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
}

/// Which members become neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mesh {
    /// All of up to 64 members; of more, the nearest 16 and 8 spread out.
    #[default]
    Auto,
    /// All.
    Full,
    /// Only the configured peers.
    Peers,
}

/// Packets that this relay dropped between its links and its edge, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardCounters {
    /// Packets passed from link to link.
    pub forwarded: u64,
    /// Packets that ended here.
    pub ended: u64,
    /// Packets sent over a detour.
    pub detoured: u64,
    /// Packets sent again over a detour because their link fell silent.
    pub salvaged: u64,
    /// The packet's path does not stand at this relay.
    pub misrouted: u64,
    /// The next hop is no neighbour or down, and no detour is allowed.
    pub no_way: u64,
    /// The packet was too large for the next link, or for every detour around a link that is down.
    pub too_large: u64,
    /// The queue of the next link was full.
    pub queue_full: u64,
    /// The packet could not arrive in time any more.
    pub late: u64,
}

/// What the node wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Datagram(ConnId, Bytes),
    /// Write to the connection's control stream.
    Message(ConnId, Message),
    /// Close the connection.
    Close(ConnId, String),
    /// Try to connect to an address; answer with `handle_connected` or `handle_dial_failed`.
    Dial(String),
    /// Hand a payload to a service from the flow's own socket.
    Deliver {
        /// The flow.
        flow: FlowId,
        /// The service.
        service: ServiceName,
        /// Which of its ports.
        port_offset: u16,
        /// What to send.
        payload: Bytes,
    },
    /// Hand a payload back to a local program from the tunnel's socket.
    Answer {
        /// The tunnel.
        tunnel: TunnelId,
        /// Which of its ports.
        port_offset: u16,
        /// The program's address.
        to: SocketAddr,
        /// What to send.
        payload: Bytes,
    },
    /// The flow ended: close its socket.
    CloseEgress(FlowId),
    /// A ping came back.
    Pong(Pong),
    /// Something that the operator should read in the log.
    News(News),
    /// This relay can't go on.
    Stop(String),
}

/// How a packet gets around a silent link.
enum Detour {
    /// Not at all.
    None,
    /// There are ways around, but none that carries so large a packet.
    TooSmall,
    /// On this path.
    Over(Path),
}

/// What happened to neighbours, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A relay is connected.
    Joined(PopId, String),
    /// A neighbour's connection ended.
    Lost(PopId, String),
    /// A connection was refused.
    Refused(PopId, Refusal),
    /// The link to a neighbour changed its state.
    Liveness(PopId, Liveness),
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
    /// How many members there were when the mesh was looked at last.
    members: usize,
    counters: ForwardCounters,
}

impl<T: Trust> Node<T> {
    /// A relay that knows nobody yet.
    pub fn new(config: NodeConfig, trust: T, now: Timestamp) -> Self {
        let NodeConfig { id, incarnation, description, peers, mesh, limits } = config;
        let own = id.key();
        let mut dialler = Dialler::new(own);
        dialler.set_configured(&peers, now);
        let mut node = Self {
            own,
            incarnation,
            control: Control::new(id.clone(), incarnation, description, trust, now),
            neighbours: Neighbours::new(id.clone(), incarnation),
            dialler,
            edge: Edge::new(own, incarnation, limits),
            tables: Arc::default(),
            mesh,
            touched: Vec::new(),
            outputs: VecDeque::new(),
            next_measure: now + MEASURE_INTERVAL,
            next_housekeeping: now + HOUSEKEEPING,
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

    /// A connection was made and its two ends have proven who they are.
    pub fn handle_connected(&mut self, connected: Connected, now: Timestamp) {
        let (conn, peer) = (connected.conn, connected.peer.clone());
        let dialled = connected.dialled.clone();
        let hello = Hello {
            version: VERSION,
            id: self.id.clone(),
            incarnation: self.incarnation,
            now,
            mtu: connected.mtu,
        };
        match self.neighbours.handle_connected(connected, now) {
            Ok(()) => self.outputs.push_back(Output::Message(conn, Message::Hello(hello))),
            Err(refusal) => {
                if let Some(address) = dialled {
                    self.dialler.handle_failed(&address, now);
                }
                self.refuse(conn, peer, refusal);
            }
        }
        self.settle(now);
    }

    /// An attempt to connect failed.
    pub fn handle_dial_failed(&mut self, address: &str, now: Timestamp) {
        self.dialler.handle_failed(address, now);
    }

    /// A connection ended.
    pub fn handle_closed(&mut self, conn: ConnId, reason: &str, now: Timestamp) {
        if let Some(address) = self.neighbours.pending_address(conn) {
            self.dialler.handle_failed(address, now);
        }
        match self.neighbours.handle_closed(conn) {
            Closed::Nothing => {}
            Closed::Replaced(key, former) => {
                self.control.handle_adjacent(key);
                self.resend(*former, now);
            }
            Closed::Lost(lost) => {
                let (key, lived) = (lost.id.key(), now.since(lost.since));
                self.outputs.push_back(Output::News(News::Lost(lost.id, reason.to_owned())));
                self.control.handle_lost(key);
                self.dialler.handle_lost(key, lived, now);
                self.measure(now);
                self.resend(lost.line, now);
            }
        }
        self.settle(now);
    }

    /// A control message came.
    pub fn handle_message(&mut self, conn: ConnId, message: Message, now: Timestamp) {
        let pending = self.neighbours.pending_peer(conn).cloned();
        match (message, pending) {
            (Message::Hello(hello), _) => self.handle_hello(conn, &hello, now),
            (Message::Bye, _) => {
                self.handle_closed(conn, "it leaves", now);
                self.outputs.push_back(Output::Close(conn, "it leaves".to_owned()));
            }
            (_, Some(peer)) => self.refuse(conn, peer, Refusal::OutOfOrder),
            (Message::Statement(signed), None) => {
                if let Some(peer) = self.neighbours.peer_of(conn) {
                    self.control.handle_statement(peer, signed, now);
                }
            }
            (Message::Digest(digest), None) => {
                if let Some(peer) = self.neighbours.peer_of(conn) {
                    self.control.handle_digest(peer, &digest);
                }
            }
        }
        self.settle(now);
    }

    fn handle_hello(&mut self, conn: ConnId, hello: &Hello, now: Timestamp) {
        let Some(peer) = self.neighbours.pending_peer(conn).cloned() else {
            if let Some(peer) = self.neighbours.peer_of(conn).and_then(|key| self.name(key)) {
                self.refuse(conn, peer, Refusal::OutOfOrder);
            }
            return;
        };
        if hello.id == self.id && peer == self.id && hello.incarnation > self.incarnation {
            self.replaced(hello.incarnation);
            return;
        }
        if let Some(refusal) = self.known_otherwise(hello) {
            self.refuse_with_proof(conn, peer, refusal, now);
            return;
        }
        let dialled = self.neighbours.pending_address(conn).map(str::to_owned);
        let held = self.neighbours.take_held(conn);
        let outcome = self.neighbours.handle_hello(conn, hello, now);
        if let Some(address) = dialled {
            match &outcome {
                Ok(_) | Err(Refusal::Duplicate | Refusal::Myself) => {
                    self.dialler.handle_connected(&address, peer.key(), now);
                }
                Err(_) => self.dialler.handle_failed(&address, now),
            }
        }
        match outcome {
            Ok(Welcome::Neighbour { peer: key, replaced }) => {
                for former in replaced {
                    let reason = "a newer connection replaces it".to_owned();
                    self.outputs.push_back(Output::Close(former, reason));
                }
                self.begin(key, now);
            }
            Ok(Welcome::Candidate { replaced }) => {
                if let Some(former) = replaced {
                    let reason = "a newer connection replaces it".to_owned();
                    self.outputs.push_back(Output::Close(former, reason));
                }
            }
            Err(refusal) => self.refuse_with_proof(conn, peer, refusal, now),
        }
        for datagram in held {
            self.handle_datagram(conn, datagram, now);
        }
    }

    /// An older start of a relay is shown what the newer one has signed, which makes it stop;
    /// others are just refused.
    fn refuse_with_proof(&mut self, conn: ConnId, peer: PopId, refusal: Refusal, now: Timestamp) {
        let older = matches!(refusal, Refusal::OldIncarnation { .. });
        let proof = older.then(|| self.control.newest_full(peer.key())).flatten();
        let Some(proof) = proof else {
            return self.refuse(conn, peer, refusal);
        };
        self.outputs.push_back(Output::Message(conn, Message::Statement(proof)));
        self.neighbours.linger(conn, refusal.clone(), now);
        self.outputs.push_back(Output::News(News::Refused(peer, refusal)));
    }

    /// What speaks against a hello in the link state of members that are no neighbours.
    fn known_otherwise(&self, hello: &Hello) -> Option<Refusal> {
        let member = self.control.lsdb().member(hello.id.key())?;
        if *member.id() != hello.id {
            return Some(Refusal::KeyCollision(member.id().clone(), hello.id.clone()));
        }
        let (got, known) = (hello.incarnation.0, member.incarnation().0);
        let id = hello.id.clone();
        (got < known).then_some(Refusal::OldIncarnation { id, got, known })
    }

    /// A neighbour's link begins.
    fn begin(&mut self, key: PopKey, now: Timestamp) {
        if let Some(neighbour) = self.neighbours.get_mut(key) {
            let heat = neighbour.heat(now);
            neighbour.line.link.set_heat(heat, now);
            neighbour.line.link.probe(now);
            let remote = neighbour.line.remote.clone();
            self.outputs.push_back(Output::News(News::Joined(neighbour.id.clone(), remote)));
        }
        self.control.handle_adjacent(key);
        self.touch(key);
    }

    fn refuse(&mut self, conn: ConnId, peer: PopId, refusal: Refusal) {
        self.outputs.push_back(Output::Close(conn, refusal.to_string()));
        if refusal != Refusal::Duplicate {
            self.outputs.push_back(Output::News(News::Refused(peer, refusal)));
        }
    }

    fn replaced(&mut self, newer: Incarnation) {
        self.outputs.push_back(Output::Stop(format!(
            "another relay named {} was started later ({} ms after 1970): stop one of the two, or \
             give it another node.id and certificate",
            self.id, newer.0
        )));
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
            self.control.handle_adjacent(key);
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
            .filter(|(_, neighbour)| neighbour.line.link.poll_timeout() <= now)
            .map(|(key, _)| key)
            .collect();
        for key in due {
            if let Some(neighbour) = self.neighbours.get_mut(key) {
                neighbour.line.link.handle_timeout(now);
            }
            self.touch(key);
        }
        self.edge.handle_timeout(now);
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
        let links = self.neighbours.iter().map(|(_, neighbour)| neighbour.line.link.poll_timeout());
        // Links that are down are dialled anew with the next measurement that finds them due.
        let dialler = self.dialler.poll_timeout(|peer| self.neighbours.get(peer).is_some());
        links
            .chain([self.next_measure, self.next_housekeeping, self.edge.poll_timeout(), dialler])
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
            Liveness::Up => self.measure(now),
            Liveness::Suspect => self.salvage(key, now),
            Liveness::Down => {
                self.measure(now);
                self.salvage(key, now);
            }
        }
    }

    /// Sends what a silent link holds over the detour, if there is one.
    fn salvage(&mut self, key: PopKey, now: Timestamp) {
        let Some(neighbour) = self.neighbours.get_mut(key) else { return };
        let Some((path, policy)) = neighbour.sample else { return };
        let here = self.standing_here(path);
        if here.and_then(|path| self.tables.detour(&path, policy, 0)).is_none() {
            return;
        }
        let packets = self
            .neighbours
            .get_mut(key)
            .map_or(Vec::new(), |neighbour| neighbour.line.link.salvage(now));
        self.send_again(packets, now);
    }

    /// Sends what a connection that ended still holds.
    fn resend(&mut self, mut line: Line, now: Timestamp) {
        let packets = line.link.salvage(now);
        self.send_again(packets, now);
    }

    fn send_again(&mut self, packets: Vec<Outbound>, now: Timestamp) {
        for Outbound { mut header, payload, .. } in packets {
            if let Some(path) = self.standing_here(header.path) {
                header.path = path;
                self.counters.salvaged += 1;
                self.dispatch(header, payload, now);
            }
        }
    }

    /// `path` with its cursor on this relay, if it is on it.
    fn standing_here(&self, path: Path) -> Option<Path> {
        let cursor = path.pops().iter().position(|&pop| pop == self.own)?;
        Path::at(path.pops(), cursor).ok()
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
            EdgeOutput::Deliver { flow, service, port_offset, payload } => {
                self.outputs.push_back(Output::Deliver { flow, service, port_offset, payload });
            }
            EdgeOutput::Answer { tunnel, port_offset, to, payload } => {
                self.outputs.push_back(Output::Answer { tunnel, port_offset, to, payload });
            }
            EdgeOutput::CloseEgress { flow } => {
                self.outputs.push_back(Output::CloseEgress(flow));
            }
        }
    }

    /// A packet came over a link: it goes on, or ends here.
    fn handle_packet(&mut self, header: Header, payload: Bytes, now: Timestamp) {
        if header.path.here() != self.own {
            self.counters.misrouted += 1;
            return;
        }
        if header.path.next().is_some() {
            self.counters.forwarded += 1;
            if !self.tables.has_policy(header.policy) {
                self.control.want_policy(header.policy, now);
            }
        }
        self.dispatch(header, payload, now);
    }

    /// Sends a packet whose path stands here on its way: to the next relay, around it if its link
    /// is silent, or to the edge.
    fn dispatch(&mut self, mut header: Header, payload: Bytes, now: Timestamp) {
        let Some(next) = header.path.next() else {
            self.counters.ended += 1;
            self.finish(header, payload, now);
            return;
        };
        let mut detour = Detour::None;
        if !self.trusts(next) {
            detour = self.detour(&header, payload.len());
        }
        if let Detour::Over(path) = detour {
            header.path = path;
            self.counters.detoured += 1;
        }
        let Some(onward) = header.path.advanced() else { return };
        let next = onward.here();
        let alive = |neighbour: &&mut Neighbour| neighbour.line.link.liveness() != Liveness::Down;
        let Some(neighbour) = self.neighbours.get_mut(next).filter(alive) else {
            match detour {
                Detour::TooSmall => self.counters.too_large += 1,
                Detour::None | Detour::Over(_) => self.counters.no_way += 1,
            }
            return;
        };
        neighbour.note_use(onward, header.policy, now);
        header.path = onward;
        let rest = self.tables.delay_along(next, onward.ahead());
        let arrive_by = (now + header.budget.span()).minus(rest);
        let outbound = Outbound { header, payload, entered: now, arrive_by };
        match neighbour.line.link.send(outbound, now) {
            Ok(()) => {}
            Err(Refused::TooLarge) => self.counters.too_large += 1,
            Err(Refused::QueueFull) => self.counters.queue_full += 1,
            Err(Refused::Late) => self.counters.late += 1,
        }
        self.touch(next);
    }

    /// The way around the next hop of a packet whose payload has `payload` bytes.
    fn detour(&self, header: &Header, payload: usize) -> Detour {
        let around = |packet| self.tables.detour(&header.path, header.policy, packet);
        match around(header.encoded_len() + payload) {
            Some(path) if path.next().is_some_and(|next| self.trusts(next)) => Detour::Over(path),
            Some(_) => Detour::None,
            None if around(0).is_some() => Detour::TooSmall,
            None => Detour::None,
        }
    }

    fn trusts(&self, key: PopKey) -> bool {
        self.neighbours.get(key).is_some_and(Neighbour::trusted)
    }

    /// A packet's path ends here.
    fn finish(&mut self, header: Header, payload: Bytes, now: Timestamp) {
        if header.kind == PacketKind::Signal {
            match echo::handle(&header, &payload, now) {
                Some(Echo::Answer(header, payload)) => {
                    self.dispatch(header, payload, now);
                    return;
                }
                Some(Echo::Pong(pong)) => {
                    self.outputs.push_back(Output::Pong(pong));
                    return;
                }
                None => {}
            }
        }
        let tables = self.tables.clone();
        self.edge.handle_packet(header, payload, &*tables, now);
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
            standbys.extend(self.tables.detour(&path, policy, 0).and_then(|path| path.next()));
            let route = self.tables.route(policy, path.last());
            let backup = route.and_then(|route| route.backup.as_ref());
            standbys.extend(backup.and_then(|way| way.path.next()));
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

    fn keep_house(&mut self, now: Timestamp) {
        for (conn, dialled, reason) in self.neighbours.expire(now) {
            if let Some(address) = dialled {
                self.dialler.handle_failed(&address, now);
            }
            self.outputs.push_back(Output::Close(conn, reason));
        }
        self.members = self.control.lsdb().members().len();
        if self.mesh != Mesh::Peers {
            let wanted = mesh::wanted(self.control.lsdb(), &self.tables, self.own, self.mesh);
            let own = (self.incarnation, self.own);
            let wanted = wanted.into_iter().map(|(key, address, incarnation)| {
                // The later started dials at once, the other gives it the time to.
                let wait = if own > (incarnation, key) { Duration::ZERO } else { PATIENCE };
                (key, address, now + wait)
            });
            self.dialler.set_learned(wanted, now);
        }
    }

    fn dial(&mut self, now: Timestamp) {
        let neighbours = &self.neighbours;
        let reached = |peer| {
            let redial = |neighbour: &Neighbour| neighbour.redial_at().is_some_and(|at| at <= now);
            neighbours.get(peer).is_some_and(|neighbour| !redial(neighbour))
        };
        while let Some(address) = self.dialler.poll_dial(reached, now) {
            self.outputs.push_back(Output::Dial(address));
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
