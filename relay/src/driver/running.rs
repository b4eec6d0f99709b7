//! The loop that drives a node.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use tradewind_proto::control::Message;
use tradewind_proto::link::{Liveness, Recovery};
use tradewind_proto::statement::ServiceStatement;
use tradewind_proto::units::{FlowId, PopId, ServiceName, Timestamp};
use tradewind_router::metric::Metric;

use super::admin::Admin;
use super::clock::Clock;
use super::connection::{Connector, Line};
use super::pings::Pings;
use super::refusals::Refusals;
use super::socket::Egresses;
use super::transport::{Quic, SMALLEST_MTU};
use super::tunnels::{self, Tunnels};
use super::warnings::{self, Warnings};
use super::{BATCH, Command, DriverCounters, Event, FAREWELL, MAX_EVENTS, Relay, route_mtu};
use crate::api::Query;
use crate::config::{self, Config};
use crate::identity::Identity;
use crate::node::control::SelfDescription;
use crate::node::edge::{EdgeLimits, LocalOutput, ServiceSpec, Target, TunnelSpec};
use crate::node::neighbour::ConnId;
use crate::node::{Mesh, News, Node, NodeConfig, Output};

/// A timer so late was held up, and the whole relay with it: ...
const HELD_UP: Duration = Duration::from_millis(2);
/// ... it first reads for so long what came meanwhile, before it says or concludes that it did not.
const CATCH_UP: Duration = Duration::from_millis(1);

/// A relay at work.
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) identity: Rc<Identity>,
    pub(super) clock: Clock,
    pub(super) node: Node<Rc<Identity>>,
    connector: Connector,
    pub(super) lines: HashMap<ConnId, Line>,
    pub(super) tunnels: Tunnels,
    pub(super) egresses: Egresses,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    queries: mpsc::Receiver<Query>,
    /// Ends with the relay.
    _admin: Admin,
    pub(super) pings: Pings,
    refusals: Refusals,
    pub(super) counters: DriverCounters,
    pub(super) warnings: Warnings,
    /// Set when the relay should end: when, and why if by an error.
    ending: Option<(Timestamp, Option<String>)>,
}

impl Running {
    pub(super) fn start(relay: Relay) -> anyhow::Result<Self> {
        let Relay { config, identity, clock, overlay, admin, tunnels: bound, warnings } = relay;
        let now = clock.now();
        let peers: Vec<String> =
            config.overlay.peers.iter().map(|peer| peer.as_str().to_owned()).collect();
        let mtu = config.overlay.mtu.unwrap_or_else(|| route_mtu::payload(&peers));
        let quic = |mtu| {
            let (client, server) = (identity.client_config()?, identity.server_config()?);
            Quic::new(Arc::new(client), Arc::new(server), mtu)
        };
        let (full, small) = (quic(mtu)?, quic(SMALLEST_MTU)?);
        let server = (*full.server).clone();
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(server), overlay, Arc::new(TokioRuntime))
                .context("the QUIC endpoint can't be made")?;
        let (events, inbox) = mpsc::channel(MAX_EVENTS);
        let registered = |sockets: Vec<_>| sockets.into_iter().map(tunnels::register).collect();
        let opened: std::io::Result<Vec<_>> = bound.into_iter().map(registered).collect();
        let mut tunnels = Tunnels::default();
        tunnels.replace(&config.tunnels, opened?, &events);
        let (query_sender, queries) = mpsc::channel(64);
        let admin = Admin::start(admin, query_sender)?;
        let authority = identity.clone();
        let name_of = Rc::new(move |certificate: &[u8], now: Timestamp| {
            let seconds = now.as_micros() / 1_000_000;
            Ok(authority.authority().verify_certificate(certificate, seconds)?.id().clone())
        });
        let connector = Connector::new(endpoint, full, small, name_of, clock, events.clone());
        let node = Node::new(
            NodeConfig {
                id: config.node.id.clone(),
                incarnation: clock.incarnation(),
                description: describe(&config),
                peers,
                mesh: match config.overlay.mesh {
                    config::Mesh::Auto => Mesh::Auto,
                    config::Mesh::Full => Mesh::Full,
                    config::Mesh::Peers => Mesh::Peers,
                },
                limits: EdgeLimits::default(),
                recovery: Recovery::Plan,
                metric: Metric::default(),
            },
            identity.clone(),
            now,
        );
        let mut running = Self {
            identity,
            clock,
            node,
            connector,
            lines: HashMap::new(),
            tunnels,
            egresses: Egresses::default(),
            events,
            inbox,
            queries,
            _admin: admin,
            pings: Pings::default(),
            refusals: Refusals::default(),
            counters: DriverCounters::default(),
            warnings,
            ending: None,
            config,
        };
        running.warn_anew(&Warnings::default());
        running.tell_edge(now);
        info!(id = %running.node.id(), listen = %running.config.overlay.listen, mtu, "relay started");
        Ok(running)
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        let mut caught_up = Timestamp::ZERO;
        self.flush().await;
        loop {
            if let Some((at, error)) = &self.ending
                && *at <= self.clock.now()
            {
                let error = error.clone();
                self.end().await;
                return error.map_or(Ok(()), |error| Err(anyhow::anyhow!(error)));
            }
            let mut wake = self.node.poll_timeout().min(self.pings.poll_timeout());
            if let Some((at, _)) = self.ending {
                wake = wake.min(at);
            }
            wake = wake.max(caught_up);
            sleep.as_mut().reset(self.clock.instant(wake));
            tokio::select! {
                _ = self.inbox.recv_many(&mut batch, BATCH) => {
                    for event in batch.drain(..) {
                        self.handle(event);
                    }
                }
                () = &mut sleep => {}
                incoming = self.connector.endpoint.accept() => match incoming {
                    Some(incoming) => self.connector.accept(incoming),
                    None => return Ok(()),
                },
                Some(query) = self.queries.recv() => self.answer(query),
                Some(command) = commands.recv() => self.obey(command),
            }
            let now = self.clock.now();
            if caught_up < wake && now.since(wake) >= HELD_UP {
                caught_up = now + CATCH_UP;
            }
            if now < caught_up {
                continue;
            }
            if self.node.poll_timeout() <= now {
                self.node.handle_timeout(now);
            }
            self.pings.handle_timeout(now);
            self.send_pings(now);
            self.flush().await;
        }
    }

    /// Whether the relay has begun to leave.
    pub(super) fn leaving(&self) -> bool {
        self.ending.is_some()
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Datagram(conn, datagram) => self.node.handle_datagram(conn, datagram, now),
            Event::Message(conn, message) => self.node.handle_message(conn, message, now),
            Event::Tunnel { tunnel, offset, source, payload } => {
                self.node.handle_tunnel(tunnel, offset, source, payload, now);
            }
            Event::Egress { flow, payload } => self.node.handle_egress(flow, payload, now),
            Event::Connected(established) => {
                let (connected, line) = established.start(&self.events);
                self.lines.insert(connected.conn, line);
                self.node.handle_connected(connected, now);
            }
            Event::DialFailed { address, reason, refused } => {
                self.counters.refused += u64::from(refused);
                debug!(address, reason, "dialling failed");
                if self.refusals.record(&address, now) {
                    warn!("{reason}; trying again");
                }
                self.node.handle_dial_failed(&address, now);
            }
            Event::Refused { remote, reason } => {
                self.counters.refused += 1;
                if self.refusals.record(&remote.to_string(), now) {
                    warn!("refused a connection from {remote}: {reason}");
                }
            }
            Event::Closed(conn, reason) => {
                self.lines.remove(&conn);
                self.node.handle_closed(conn, &reason, now);
            }
        }
    }

    /// Does all that the node wants done.
    async fn flush(&mut self) {
        let now = self.clock.now();
        while let Some(output) = self.node.poll_output(now) {
            match output {
                Output::Datagram(conn, datagram) => self.send(conn, datagram).await,
                Output::Local(output) => self.hand_out(output),
                Output::Message(conn, message) => self.tell(conn, message),
                Output::Close(conn, reason) => {
                    if let Some(line) = self.lines.remove(&conn) {
                        line.close(&reason);
                    }
                    self.node.handle_closed(conn, &reason, now);
                }
                Output::Dial(address) => self.connector.dial(address),
                Output::Pong(pong) => self.pings.handle_pong(&pong),
                Output::News(news) => self.log(news),
                Output::Stop(reason) => self.ending = Some((now, Some(reason))),
            }
        }
    }

    async fn send(&mut self, conn: ConnId, datagram: Bytes) {
        let Some(line) = self.lines.get_mut(&conn) else { return };
        if line.send(datagram).await.is_err() {
            self.counters.datagrams_refused += 1;
        }
    }

    fn tell(&mut self, conn: ConnId, message: Message) {
        let Some(line) = self.lines.get(&conn) else { return };
        if !line.tell(message) {
            let reason = "it does not read its control stream";
            line.close(reason);
            self.lines.remove(&conn);
            self.counters.cut_off += 1;
            self.node.handle_closed(conn, reason, self.clock.now());
        }
    }

    fn hand_out(&mut self, output: LocalOutput) {
        match output {
            LocalOutput::Deliver { flow, service, port_offset, payload } => {
                self.deliver(flow, &service, port_offset, &payload);
            }
            LocalOutput::Answer { tunnel, port_offset, to, payload } => {
                if !self.tunnels.answer(tunnel, port_offset, to, &payload) {
                    self.counters.local_refused += 1;
                }
            }
            LocalOutput::CloseEgress(flow) => self.egresses.close(flow),
        }
    }

    fn deliver(&mut self, flow: FlowId, service: &ServiceName, offset: u16, payload: &[u8]) {
        let held = self.config.services.iter().find(|held| held.name == *service);
        let target = held.and_then(|held| held.target.addresses().nth(usize::from(offset)));
        let sent = target.map(|to| self.egresses.deliver(flow, to, payload, &self.events));
        if !matches!(sent, Some(Ok(()))) {
            self.counters.local_refused += 1;
            debug!(%service, "the service's socket did not take a packet: {sent:?}");
        }
    }

    fn log(&mut self, news: News) {
        let now = self.clock.now();
        match news {
            News::Joined(peer, remote) => info!(%peer, remote, "neighbour connected"),
            News::Lost(peer, reason) => info!(%peer, reason, "neighbour lost"),
            News::Liveness(peer, Liveness::Down) => warn!(%peer, "link down"),
            News::Liveness(peer, _) => info!(%peer, "link up"),
            News::Refused(peer, refusal) => {
                self.counters.refused += 1;
                if self.refusals.record(peer.as_str(), now) {
                    warn!(%peer, "refused a connection: {refusal}");
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Reload(_, answer) if self.leaving() => {
                let _ = answer.send(Err(anyhow::anyhow!("the relay is leaving")));
            }
            Command::Reload(config, answer) => {
                let _ = answer.send(self.reload(*config, now));
            }
            Command::Leave if self.ending.is_none() => {
                info!("leaving: forwarding for {FAREWELL:?} more");
                self.node.announce_leaving(now);
                self.ending = Some((now + FAREWELL, None));
            }
            Command::Leave => {}
        }
    }

    /// Logs the warnings that did not hold before.
    fn warn_anew(&self, before: &Warnings) {
        for warning in self.warnings.iter().filter(|it| before.iter().all(|held| held != *it)) {
            warn!("{warning}");
        }
    }

    /// Takes on what a running relay can change; the rest becomes a warning.
    fn reload(&mut self, new: Config, now: Timestamp) -> anyhow::Result<()> {
        let descriptors = warnings::few_descriptors(&new);
        let restart = warnings::restart_needed(&self.config.changes_needing_restart(&new));
        let opened = self.tunnels.open(&new.tunnels)?;
        // From here on nothing can fail.
        let kept = Config {
            services: new.services,
            tunnels: new.tunnels,
            policies: new.policies,
            overlay: config::Overlay { peers: new.overlay.peers, ..self.config.overlay.clone() },
            ..self.config.clone()
        };
        self.config = kept;
        self.tunnels.replace(&self.config.tunnels, opened, &self.events);
        self.tell_edge(now);
        let peers: Vec<String> =
            self.config.overlay.peers.iter().map(|peer| peer.as_str().to_owned()).collect();
        self.node.reconfigure(describe(&self.config), &peers, now);
        let buffers = self.warnings.buffers.clone();
        let before =
            std::mem::replace(&mut self.warnings, Warnings { buffers, descriptors, restart });
        info!("configuration reloaded");
        self.warn_anew(&before);
        Ok(())
    }

    fn tell_edge(&mut self, now: Timestamp) {
        let config = &self.config;
        let tunnels = self.tunnels.iter().map(|(id, tunnel)| {
            let spec = TunnelSpec {
                service: Target {
                    service: tunnel.service.clone(),
                    pop: tunnel.pop.as_ref().map(PopId::key),
                },
                class: tunnel.class,
                deadline: tunnel.deadline,
                policy: config.policy_id_of(tunnel),
                redundancy: tunnel.redundancy,
                ports: tunnel.listen.count,
            };
            (id, spec)
        });
        let tunnels = tunnels.collect();
        let services = config
            .services
            .iter()
            .map(|service| ServiceSpec { name: service.name.clone(), ports: service.target.count })
            .collect();
        self.node.set_edge(tunnels, services, now);
    }

    /// The end: a goodbye to all neighbours, given a moment to leave.
    async fn end(&mut self) {
        self.node.say_goodbye();
        self.flush().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        for line in self.lines.values() {
            line.close("it leaves");
        }
        let idle = self.connector.endpoint.wait_idle();
        let _ = tokio::time::timeout(Duration::from_millis(500), idle).await;
        info!("relay ended");
    }
}

/// What the relay says of itself.
fn describe(config: &Config) -> SelfDescription {
    SelfDescription {
        addresses: config.overlay.advertise.iter().map(|host| host.as_str().to_owned()).collect(),
        location: config.node.location,
        services: config
            .services
            .iter()
            .map(|service| ServiceStatement {
                name: service.name.clone(),
                ports: service.target.count,
            })
            .collect(),
        policies: config.policies.clone(),
        draining: false,
    }
}
