//! Answers to the questions of the admin API. Those that need pings come when these are back.

use std::time::Duration;

use tokio::sync::oneshot;
use tradewind_proto::link::{Heat, Liveness, Quality};
use tradewind_proto::packet::{Path, RefuseReason};
use tradewind_proto::units::{PolicyId, PopId, PopKey, Redundancy, ServiceName, Timestamp};
use tradewind_router::clock::normalised;
use tradewind_router::explain::Target;
use tradewind_router::lsdb::Member;
use tradewind_router::tables::Way;

use super::running::Running;
use crate::api::types::{self, Export, Flows, Links, Ping, Route, Routes, Services, Status, Trace};
use crate::api::{Destination, Query, Refusal};
use crate::metrics::{Family, LinkSample, Snapshot};
use crate::node::edge::{FlowEnd, FlowInfo, FlowState};

/// The time between two packets of a trace.
const TRACE_GAP: Duration = Duration::from_millis(20);

impl Running {
    /// Answers a question, at once or when its pings are back.
    pub(super) fn answer(&mut self, query: Query) {
        let now = self.clock.now();
        match query {
            Query::Status(reply) => drop(reply.send(Ok(self.status(now)))),
            Query::Links(reply) => drop(reply.send(Ok(self.links(now)))),
            Query::Routes { policy, reply } => drop(reply.send(self.routes(policy, now))),
            Query::Route { to, policy, explain, reply } => {
                drop(reply.send(self.route(&to, policy, explain, now)));
            }
            Query::Flows { limit, reply } => drop(reply.send(Ok(self.flows(limit, now)))),
            Query::Services(reply) => drop(reply.send(Ok(self.services()))),
            Query::Export(reply) => drop(reply.send(Ok(self.export(now)))),
            Query::Metrics(reply) => drop(reply.send(Ok(self.metrics()))),
            Query::Ping { to, policy, reply } => match self.way(&to, policy.as_deref(), now) {
                Ok((policy, path)) => {
                    let answer = self.pings.plan(path, policy, now);
                    let mut ping = Ping {
                        node: self.node.id().to_string(),
                        to: self.name(path.last()),
                        path: self.names(&path),
                        rtt_ms: None,
                    };
                    tokio::task::spawn_local(async move {
                        ping.rtt_ms = answer.await.ok().map(ms);
                        let _ = reply.send(Ok(ping));
                    });
                }
                Err(refusal) => drop(reply.send(Err(refusal))),
            },
            Query::Trace { to, policy, packets, reply } => {
                match self.way(&to, policy.as_deref(), now) {
                    Ok((policy, path)) => self.trace(policy, &path, packets, reply, now),
                    Err(refusal) => drop(reply.send(Err(refusal))),
                }
            }
        }
        self.send_pings(now);
    }

    /// Pings every relay of the path but the first, several times.
    fn trace(
        &mut self,
        policy: PolicyId,
        path: &Path,
        packets: u16,
        reply: crate::api::Reply<Trace>,
        now: Timestamp,
    ) {
        let mut hops = Vec::new();
        for len in 2..=path.pops().len() {
            let Ok(part) = Path::new(&path.pops()[..len]) else { continue };
            let answers: Vec<_> = (0..u32::from(packets))
                .map(|packet| self.pings.plan(part, policy, now + TRACE_GAP * packet))
                .collect();
            hops.push((self.name(part.last()), answers));
        }
        let (node, to) = (self.node.id().to_string(), self.name(path.last()));
        tokio::task::spawn_local(async move {
            let mut trace = Trace { node, to, hops: Vec::new() };
            for (pop, answers) in hops {
                trace.hops.push(hop(pop, answers).await);
            }
            let _ = reply.send(Ok(trace));
        });
    }

    fn status(&self, now: Timestamp) -> Status {
        let links = self.node.neighbours().iter().count();
        let up = self.links_up();
        let (flows_ingress, flows_egress) = self.node.edge().flow_counts();
        let leaving = self.leaving();
        let not_ready = match (leaving, up, self.config.overlay.peers.is_empty()) {
            (true, ..) => Some("the relay is leaving".to_owned()),
            (false, 0, false) => Some("no link to another relay is up yet".to_owned()),
            _ => None,
        };
        let state = match (leaving, &not_ready) {
            (true, _) => "leaving",
            (false, Some(_)) => "starting",
            (false, None) => "ready",
        };
        let incarnation = self.node.incarnation().0;
        Status {
            node: self.node.id().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation,
            uptime_s: now.since(Timestamp::from_micros(incarnation * 1000)).as_secs_f64(),
            state: state.to_owned(),
            not_ready,
            addresses: self.node.control().description().addresses.clone(),
            labels: labels(self.identity.labels()),
            certificate_until: date(self.identity.certificate().not_after),
            members: self.node.control().lsdb().members().len(),
            links_up: up,
            links,
            flows_ingress,
            flows_egress,
            tunnels: self.config.tunnels.len(),
            services: self.config.services.len(),
            warnings: self.warnings.iter().cloned().collect(),
        }
    }

    fn links_up(&self) -> usize {
        let neighbours = self.node.neighbours().iter();
        neighbours.filter(|(_, n)| n.line.link.liveness() == Liveness::Up).count()
    }

    fn links(&self, now: Timestamp) -> Links {
        let links = self.node.neighbours().iter().map(|(key, neighbour)| {
            let quality = neighbour.line.link.quality();
            let (tx, rx) = self.delays(key, &quality, now);
            let line = self.lines.get(&neighbour.line.conn);
            let quic = line.map_or_else(Default::default, |line| line.quic.stats().path);
            types::Link {
                neighbour: neighbour.id.to_string(),
                state: liveness(neighbour.line.link.liveness()).to_owned(),
                address: neighbour.line.remote.clone(),
                connected_s: Some(now.since(neighbour.since).as_secs_f64()),
                mtu_bytes: neighbour.line.mtu,
                hot: neighbour.heat(now) == Heat::Hot,
                rtt_ms: quality.rtt.map(ms),
                rtt_min_ms: quality.min_rtt.map(ms),
                delay_tx_ms: tx,
                delay_rx_ms: rx,
                jitter_tx_ms: ms(quality.jitter_tx),
                jitter_rx_ms: ms(quality.jitter_rx),
                queueing_tx_ms: ms(quality.queueing_tx),
                loss_tx: f64::from(quality.loss_tx),
                loss_rx: f64::from(quality.loss_rx),
                burst_tx: f64::from(quality.burst_tx),
                group_packets: quality.protection_tx.map(|group| group.packets),
                group_parity: quality.protection_tx.map(|group| group.parity),
                group_rounds: quality.protection_tx.map(|group| group.rounds),
                redundancy_tx: f64::from(quality.redundancy_tx),
                rate_mbps: mbps(quality.rate_bps),
                capacity_mbps: quality.capacity_bps.map(mbps),
                load_mbps: mbps(quality.load_bps),
                quic_sent_packets: quic.sent_packets,
                quic_lost_packets: quic.lost_packets,
                counters: neighbour.line.link.counters().into(),
            }
        });
        Links { node: self.node.id().to_string(), links: links.collect() }
    }

    /// One-way delays in common time, milliseconds: towards the neighbour, and from it.
    fn delays(&self, key: PopKey, quality: &Quality, now: Timestamp) -> (Option<f64>, Option<f64>) {
        let lsdb = self.node.control().lsdb();
        let Some((own, theirs)) = lsdb.member(self.node.id().key()).zip(lsdb.member(key)) else {
            return (None, None);
        };
        let (own, theirs) = (own.clock(), theirs.clock());
        let in_ms = |micros: i32| f64::from(micros) / 1000.0;
        (
            quality.raw_delay_tx.map(|raw| in_ms(normalised(raw, &own, &theirs, now))),
            quality.raw_delay_rx.map(|raw| in_ms(normalised(raw, &theirs, &own, now))),
        )
    }

    fn routes(&mut self, policy: Option<String>, now: Timestamp) -> Result<Routes, Refusal> {
        let policies = match policy {
            Some(name) => vec![(self.policy(&name)?, Some(name))],
            None => {
                let own = self.config.policies.iter();
                let named = own.map(|policy| (policy.id(), Some(policy.name().to_owned())));
                std::iter::once((PolicyId::NONE, None)).chain(named).collect()
            }
        };
        let mut routes = Vec::new();
        for (id, policy) in policies {
            self.node.want_policy(id, now);
            let own = self.node.id();
            let others = self.node.control().lsdb().members().filter(|member| member.id() != own);
            for member in others {
                let entry = self.node.tables().route(id, member.key());
                routes.push(types::RouteLine {
                    to: member.id().to_string(),
                    policy: policy.clone(),
                    path: entry.map_or(Vec::new(), |entry| self.names(&entry.primary.path)),
                    delay_ms: entry.map(|entry| ms(entry.primary.delay)),
                    backup: entry
                        .and_then(|entry| entry.backup.as_ref())
                        .map(|way| self.way_line(way)),
                });
            }
        }
        Ok(Routes { node: self.node.id().to_string(), routes })
    }

    fn route(
        &mut self,
        to: &Destination,
        policy: Option<String>,
        explain: bool,
        now: Timestamp,
    ) -> Result<Route, Refusal> {
        let id = policy.as_deref().map_or(Ok(PolicyId::NONE), |name| self.policy(name))?;
        self.node.want_policy(id, now);
        let target = self.target(to)?;
        let explanation = self.node.control().router().explain(id, &target, now);
        let pop = explanation.pop.clone();
        let entry = pop.as_ref().and_then(|pop| self.node.tables().route(id, pop.key()));
        let service = match &target {
            Target::Pop(_) => None,
            Target::Service(name) | Target::ServiceAt(name, _) => Some(name.to_string()),
        };
        Ok(Route {
            node: self.node.id().to_string(),
            to: pop.map(|pop| pop.to_string()),
            service,
            policy,
            primary: entry.map(|entry| self.way_line(&entry.primary)),
            backup: entry.and_then(|entry| entry.backup.as_ref()).map(|way| self.way_line(way)),
            pair: entry
                .and_then(|entry| entry.pair.ways())
                .map(|(a, b)| [self.way_line(a), self.way_line(b)]),
            refused: entry.is_none().then(|| explanation.summary.clone()),
            explanation: explain.then(|| serde_json::to_value(&explanation).unwrap_or_default()),
        })
    }

    fn flows(&self, limit: usize, now: Timestamp) -> Flows {
        let (ingress, egress) = self.node.edge().flow_counts();
        let flows = self.node.edge().flows(now).take(limit).map(|flow| self.flow(&flow, now));
        let flows = flows.collect();
        Flows { node: self.node.id().to_string(), total: ingress + egress, flows }
    }

    fn flow(&self, flow: &FlowInfo, now: Timestamp) -> types::Flow {
        let (end, tunnel, source) = match flow.end {
            FlowEnd::Ingress { tunnel, source } => {
                let tunnel = self.tunnels.get(tunnel).map(|held| held.listen.to_string());
                ("ingress", tunnel, Some(source.to_string()))
            }
            FlowEnd::Egress => ("egress", None, None),
        };
        let state = match flow.state {
            FlowState::Choosing => "choosing",
            FlowState::Opening => "opening",
            FlowState::Open => "open",
            FlowState::Refused { .. } => "refused",
        };
        let mut warnings: Vec<_> = flow.warnings.iter().map(ToString::to_string).collect();
        if let FlowState::Refused { reason, .. } = flow.state {
            warnings.push(format!("the egress refused it: {}", refusal(reason)));
        }
        let paths = flow.paths_rx.iter().map(|record| types::RecordedPath {
            path: self.names(&record.path),
            packets: record.packets,
            last_s: now.since(record.last_at).as_secs_f64(),
        });
        let names = |path: &Option<Path>| path.as_ref().map_or(Vec::new(), |path| self.names(path));
        types::Flow {
            id: format!(
                "{}/{:08x}/{}",
                self.name(flow.id.ingress),
                flow.id.incarnation,
                flow.id.number
            ),
            end: end.to_owned(),
            tunnel,
            source,
            service: flow.service.to_string(),
            port_offset: flow.port_offset,
            peer: flow.peer.map(|peer| self.name(peer)),
            state: state.to_owned(),
            class: flow.class.as_str().to_owned(),
            policy: self.policy_name(flow.policy),
            redundancy: redundancy(flow.redundancy).to_owned(),
            deadline_ms: ms(flow.deadline),
            deadline_used_ms: ms(flow.deadline_used),
            path_tx: names(&flow.path_tx),
            copy_tx: names(&flow.copy_tx),
            paths_rx: paths.collect(),
            packets_tx: flow.packets_tx,
            bytes_tx: flow.bytes_tx,
            packets_rx: flow.packets_rx,
            bytes_rx: flow.bytes_rx,
            blocked: flow.blocked.map(|reason| reason.as_str().to_owned()),
            drops: flow
                .drops
                .occurred()
                .map(|(reason, count)| (reason.as_str().to_owned(), count))
                .collect(),
            reopened: flow.reopened,
            age_s: flow.age.as_secs_f64(),
            idle_s: flow.idle.as_secs_f64(),
            warnings,
        }
    }

    fn services(&self) -> Services {
        let mut services: std::collections::BTreeMap<String, Vec<types::Instance>> =
            std::collections::BTreeMap::new();
        for member in self.node.control().lsdb().members() {
            let entry = self.node.tables().route(PolicyId::NONE, member.key());
            let own = member.id() == self.node.id();
            for service in &member.state().services {
                let delay = if own { Some(0.0) } else { entry.map(|e| ms(e.primary.delay)) };
                services.entry(service.name.to_string()).or_default().push(types::Instance {
                    pop: member.id().to_string(),
                    ports: service.ports,
                    delay_ms: delay,
                    draining: member.state().draining,
                });
            }
        }
        let services = services.into_iter().map(|(name, mut instances)| {
            let far = |instance: &types::Instance| instance.delay_ms.unwrap_or(f64::INFINITY);
            instances.sort_by(|a, b| far(a).total_cmp(&far(b)));
            types::Service { name, instances }
        });
        Services { node: self.node.id().to_string(), services: services.collect() }
    }

    fn export(&self, now: Timestamp) -> Export {
        let lsdb = self.node.control().lsdb();
        let links = lsdb.members().flat_map(|member| {
            member.links().map(|held| {
                let link = held.statement;
                types::ExportedLink {
                    from: member.id().to_string(),
                    to: self.name(link.to),
                    up: link.up,
                    delay_ms: f64::from(link.delay_micros) / 1000.0,
                    jitter_ms: ms(link.jitter),
                    rtt_ms: ms(link.rtt),
                    loss: f64::from(link.loss),
                    burst: f64::from(link.burst),
                    capacity_mbps: (link.capacity_kbps > 0)
                        .then(|| f64::from(link.capacity_kbps) / 1000.0),
                    load_mbps: f64::from(link.load_kbps) / 1000.0,
                }
            })
        });
        Export {
            node: self.node.id().to_string(),
            at: date(now.as_micros() / 1_000_000),
            pops: lsdb.members().map(exported).collect(),
            links: links.collect(),
        }
    }

    fn metrics(&self) -> Snapshot {
        let links = self.node.neighbours().iter().map(|(_, neighbour)| LinkSample {
            neighbour: neighbour.id.to_string(),
            up: neighbour.line.link.liveness() == Liveness::Up,
            quality: neighbour.line.link.quality(),
            counters: *neighbour.line.link.counters(),
        });
        let forward = self.node.counters();
        let edge = self.node.edge().counters();
        let (flows_ingress, flows_egress) = self.node.edge().flow_counts();
        let control = self.node.control().counters();
        let count = |value: u64| value as f64;
        let families = vec![
            Family::gauge("members", "Relays in the overlay")
                .value(self.node.control().lsdb().members().len() as f64),
            Family::gauge("flows", "Flows that enter or leave here")
                .value((flows_ingress + flows_egress) as f64),
            Family::counter("packets_forwarded", "Packets passed from link to link")
                .value(count(forward.forwarded)),
            Family::counter("packets_ended", "Packets whose path ended here")
                .value(count(forward.ended)),
            Family::counter("packets_detoured", "Packets sent around a silent link")
                .value(count(forward.detoured)),
            Family::counter(
                "packets_salvaged",
                "Packets sent again because their link fell silent",
            )
            .value(count(forward.salvaged)),
            Family::counter("packets_dropped", "Packets dropped between links, by reason").by(
                "reason",
                [
                    ("misrouted", count(forward.misrouted)),
                    ("no_way", count(forward.no_way)),
                    ("too_large", count(forward.too_large)),
                    ("queue_full", count(forward.queue_full)),
                    ("late", count(forward.late)),
                ],
            ),
            Family::counter("edge_dropped", "Packets dropped where flows begin or end, by reason")
                .by("reason", edge.drops.occurred().map(|(why, n)| (why.as_str(), count(n)))),
            Family::counter("statements_sent", "Link-state statements made")
                .value(count(control.statements_tx)),
            Family::counter("statements_received", "Link-state statements received")
                .value(count(control.statements_rx)),
            Family::counter("statements_refused", "Link-state statements refused, by reason").by(
                "reason",
                [
                    ("stale", count(control.stale)),
                    ("unknown_base", count(control.unknown_base)),
                    ("forged", count(control.forged)),
                    ("malformed", count(control.malformed)),
                    ("collision", count(control.collisions)),
                    ("overflow", count(control.overflow)),
                ],
            ),
            Family::counter("route_computations", "Times that routes were computed")
                .value(count(control.computations)),
            Family::counter("connections_refused", "Connections refused")
                .value(count(self.counters.refused)),
            Family::counter("datagrams_refused", "Datagrams that QUIC did not take")
                .value(count(self.counters.datagrams_refused)),
            Family::counter("local_refused", "Payloads that a local socket did not take")
                .value(count(self.counters.local_refused)),
            Family::counter("neighbours_cut_off", "Neighbours that did not read their stream")
                .value(count(self.counters.cut_off)),
        ];
        Snapshot { links: links.collect(), families }
    }

    /// The path in use to a destination, this relay first.
    fn way(
        &mut self,
        to: &Destination,
        policy: Option<&str>,
        now: Timestamp,
    ) -> Result<(PolicyId, Path), Refusal> {
        let id = policy.map_or(Ok(PolicyId::NONE), |name| self.policy(name))?;
        self.node.want_policy(id, now);
        let target = self.target(to)?;
        let explanation = self.node.control().router().explain(id, &target, now);
        let own = self.node.id().key();
        let path = match explanation.pop.as_ref().map(PopId::key) {
            Some(key) if key == own => Path::new(&[own]).ok(),
            Some(key) => self.node.tables().route(id, key).map(|entry| entry.primary.path),
            None => None,
        };
        path.map(|path| (id, path)).ok_or(Refusal::Unknown(explanation.summary))
    }

    /// What a name stands for: a PoP, or else a service.
    fn target(&self, to: &Destination) -> Result<Target, Refusal> {
        let lsdb = self.node.control().lsdb();
        let name = match to {
            Destination::Instance(service, pop) => {
                return Ok(Target::ServiceAt(service.clone(), pop.clone()));
            }
            Destination::Name(name) => name,
        };
        if let Ok(pop) = name.parse::<PopId>()
            && lsdb.member(pop.key()).is_some_and(|member| *member.id() == pop)
        {
            return Ok(Target::Pop(pop));
        }
        let advertised = |service: &ServiceName| {
            let mut all = lsdb.members().flat_map(|member| &member.state().services);
            all.any(|held| held.name == *service)
        };
        match name.parse::<ServiceName>() {
            Ok(service) if advertised(&service) => Ok(Target::Service(service)),
            _ => {
                let known: Vec<_> =
                    lsdb.members().take(20).map(|member| member.id().as_str()).collect();
                Err(Refusal::Unknown(format!(
                    "no relay or service is called {name:?}; relays known here: {}",
                    known.join(", ")
                )))
            }
        }
    }

    fn policy(&self, name: &str) -> Result<PolicyId, Refusal> {
        let own = self.config.policies.iter();
        let members = self.node.control().lsdb().members();
        let stated = members.flat_map(|member| member.state().policies.iter());
        let found = own.chain(stated).find(|policy| policy.name() == name);
        found.map(|policy| policy.id()).ok_or_else(|| {
            Refusal::Unknown(format!(
                "no policy is called {name:?}; see [[policy]] in the configuration of the ingress"
            ))
        })
    }

    fn policy_name(&self, id: PolicyId) -> Option<String> {
        if id == PolicyId::NONE {
            return None;
        }
        let members = self.node.control().lsdb().members();
        let mut stated = members.flat_map(|member| member.state().policies.iter());
        let found = stated.find(|policy| policy.id() == id);
        Some(found.map_or_else(|| format!("{:08x}", id.0), |policy| policy.name().to_owned()))
    }

    fn name(&self, key: PopKey) -> String {
        let member = self.node.control().lsdb().member(key);
        member.map_or_else(|| key.to_string(), |member| member.id().to_string())
    }

    fn names(&self, path: &Path) -> Vec<String> {
        path.pops().iter().map(|&pop| self.name(pop)).collect()
    }

    fn way_line(&self, way: &Way) -> types::Way {
        types::Way { path: self.names(&way.path), delay_ms: ms(way.delay) }
    }
}

async fn hop(pop: String, answers: Vec<oneshot::Receiver<Duration>>) -> types::Hop {
    let sent = u32::try_from(answers.len()).unwrap_or(u32::MAX);
    let mut round_trips = Vec::new();
    for answer in answers {
        round_trips.extend(answer.await.ok().map(ms));
    }
    let received = u32::try_from(round_trips.len()).unwrap_or(u32::MAX);
    let mean = round_trips.iter().sum::<f64>() / round_trips.len().max(1) as f64;
    types::Hop {
        pop,
        sent,
        received,
        rtt_min_ms: round_trips.iter().copied().reduce(f64::min),
        rtt_mean_ms: (received > 0).then_some(mean),
        rtt_max_ms: round_trips.iter().copied().reduce(f64::max),
    }
}

fn exported(member: &Member) -> types::ExportedPop {
    let state = member.state();
    types::ExportedPop {
        id: member.id().to_string(),
        labels: labels(member.labels()),
        location: state.location.map(|(north, east)| [f64::from(north), f64::from(east)]),
        addresses: state.addresses.clone(),
        services: state.services.iter().map(|service| service.name.to_string()).collect(),
        draining: state.draining,
    }
}

fn labels(of: &tradewind_router::lsdb::Labels) -> types::Labels {
    types::Labels {
        region: of.region.clone(),
        country: of.country.clone(),
        provider: of.provider.clone(),
    }
}

fn liveness(state: Liveness) -> &'static str {
    match state {
        Liveness::Starting => "starting",
        Liveness::Up => "up",
        Liveness::Suspect => "suspect",
        Liveness::Down => "down",
    }
}

fn redundancy(of: Redundancy) -> &'static str {
    match of {
        Redundancy::Single => "single",
        Redundancy::Disjoint => "disjoint",
    }
}

fn refusal(reason: RefuseReason) -> &'static str {
    match reason {
        RefuseReason::UnknownService => "it declares no such service",
        RefuseReason::PortOutOfRange => "the service has fewer ports there than the tunnel",
        RefuseReason::TooManyFlows => "it has as many flows as it may",
        RefuseReason::Draining => "it is leaving",
    }
}

/// Seconds since the epoch as ISO 8601 in UTC.
fn date(unix_seconds: u64) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_secs(unix_seconds);
    humantime::format_rfc3339_seconds(at).to_string()
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn mbps(bps: u64) -> f64 {
    bps as f64 / 1e6
}
