//! The documents of `/api/v1`. Units are in the names: `_ms`, `_s`, `_mbps` (10^6 bit/s).
//!
//! `tx` is from the relay that answers to its neighbour, `rx` the other way. Shares (`loss_tx`)
//! go from 0 to 1. What is not known is `null`. PoPs stand by their names, paths begin at the
//! ingress.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SCHEMA;

pub use crate::metrics::LinkCounters;

/// A document with its schema number in front.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document<T> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The rest, on the same level.
    #[serde(flatten)]
    pub body: T,
}

impl<T> Document<T> {
    /// `body` under the present schema.
    pub fn new(body: T) -> Self {
        Self { schema: SCHEMA, body }
    }
}

/// Why there is no other document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence.
    pub error: String,
}

/// `/api/v1/status`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who answers.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// Wall-clock milliseconds at its start.
    pub incarnation: u64,
    /// Time since its start.
    pub uptime_s: f64,
    /// `starting`, `ready` or `leaving`.
    pub state: String,
    /// Why it is not ready; `null`: it is.
    pub not_ready: Option<String>,
    /// Where others dial it.
    pub addresses: Vec<String>,
    /// From its certificate.
    pub labels: Labels,
    /// When its certificate ends, ISO 8601 in UTC.
    pub certificate_until: String,
    /// Relays in the overlay, itself included.
    pub members: usize,
    /// Links that carry packets.
    pub links_up: usize,
    /// Links in all.
    pub links: usize,
    /// Flows that enter here.
    pub flows_ingress: usize,
    /// Flows that leave here.
    pub flows_egress: usize,
    /// Tunnels, a range counted once.
    pub tunnels: usize,
    /// Services of its own.
    pub services: usize,
    /// What the operator should know for as long as it holds, a sentence each: small socket
    /// buffers, a low limit on descriptors, what a reload could not take over.
    pub warnings: Vec<String>,
}

/// What a certificate says of a relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Such as `EU`.
    pub region: Option<String>,
    /// Such as `DE`.
    pub country: Option<String>,
    /// Such as `hetzner`.
    pub provider: Option<String>,
}

/// `/api/v1/links`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// Who answers.
    pub node: String,
    /// By neighbour.
    pub links: Vec<Link>,
}

/// One link, seen from one end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// The other end.
    pub neighbour: String,
    /// `dialling`, `starting`, `up`, `suspect` or `down`.
    pub state: String,
    /// Where the other end is reached.
    pub address: String,
    /// Time since the connection was made; `null`: there is none.
    pub connected_s: Option<f64>,
    /// Bytes of a UDP payload on it.
    pub mtu_bytes: u16,
    /// Whether it is in use, or held ready as a detour or backup of one that is.
    pub hot: bool,
    /// Smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Least round-trip time of late.
    pub rtt_min_ms: Option<f64>,
    /// One-way delay in the overlay's common time.
    pub delay_tx_ms: Option<f64>,
    /// One-way delay in the overlay's common time.
    pub delay_rx_ms: Option<f64>,
    /// Smoothed deviation of the delay.
    pub jitter_tx_ms: f64,
    /// Smoothed deviation of the delay.
    pub jitter_rx_ms: f64,
    /// Delay beyond the least, of late.
    pub queueing_tx_ms: f64,
    /// Share of datagrams lost, before repair.
    pub loss_tx: f64,
    /// Share of datagrams lost, before repair.
    pub loss_rx: f64,
    /// Mean length of a burst of losses, in datagrams.
    pub burst_tx: f64,
    /// Packets of the newest group of packets repaired together; `null`: there was none.
    pub group_packets: Option<u8>,
    /// Parity shards that followed them before any loss was known.
    pub group_parity: Option<u8>,
    /// How often the group could be helped before its deadline, that time included.
    pub group_rounds: Option<u8>,
    /// Repeats and parity of the last second, in bytes per byte of data.
    pub redundancy_tx: f64,
    /// What the pacer allows.
    pub rate_mbps: f64,
    /// What the link was found to carry at most; `null`: no limit met so far.
    pub capacity_mbps: Option<f64>,
    /// What it carries.
    pub load_mbps: f64,
    /// QUIC packets sent since the connection was made.
    pub quic_sent_packets: u64,
    /// Of those, packets that QUIC declared lost.
    pub quic_lost_packets: u64,
    /// Packets and shards since the connection was made.
    pub counters: LinkCounters,
}

/// `/api/v1/routes`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    /// Who answers.
    pub node: String,
    /// By policy and destination.
    pub routes: Vec<RouteLine>,
}

/// The route in use to one PoP under one policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteLine {
    /// Where to.
    pub to: String,
    /// `null`: no policy.
    pub policy: Option<String>,
    /// This relay first. Empty: no way is allowed, or none is left.
    pub path: Vec<String>,
    /// Expected one-way delay along it, jitter margins included.
    pub delay_ms: Option<f64>,
    /// A path that shares no relay between with it.
    pub backup: Option<Way>,
}

/// A path and its delay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// This relay first.
    pub path: Vec<String>,
    /// Expected one-way delay along it, jitter margins included.
    pub delay_ms: f64,
}

/// `/api/v1/route?to=…&policy=…&explain=true`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Who answers.
    pub node: String,
    /// The PoP where the path ends: for a service, the instance chosen. `null`: none can be
    /// reached.
    pub to: Option<String>,
    /// The service asked for, if it was one.
    pub service: Option<String>,
    /// `null`: no policy.
    pub policy: Option<String>,
    /// The path in use; `null`: no way is allowed, or none is left.
    pub primary: Option<Way>,
    /// A path that shares no relay between with it.
    pub backup: Option<Way>,
    /// The cheapest two paths that share no relay between, where they are in use.
    pub pair: Option<[Way; 2]>,
    /// Why there is no path; `null`: there is one.
    pub refused: Option<String>,
    /// The router's account of the choice, if it was asked for.
    pub explanation: Option<serde_json::Value>,
}

/// `/api/v1/flows?limit=…`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Who answers.
    pub node: String,
    /// How many there are; `flows` may have fewer.
    pub total: usize,
    /// At most as many as asked for.
    pub flows: Vec<Flow>,
}

/// One flow, seen from one of its ends. `tx` is what enters the overlay here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Ingress, its incarnation's low bits and a number: `fra/1c2d3e4f/17`.
    pub id: String,
    /// Which end this relay is: `ingress` or `egress`.
    pub end: String,
    /// The tunnel's address, at its ingress.
    pub tunnel: Option<String>,
    /// The local program's address, at its ingress.
    pub source: Option<String>,
    /// The service.
    pub service: String,
    /// Which port of the service's range, from 0.
    pub port_offset: u16,
    /// The relay at the other end; `null` while none is found.
    pub peer: Option<String>,
    /// `choosing`, `opening`, `open` or `refused`.
    pub state: String,
    /// `audio`, `video` or `bulk`.
    pub class: String,
    /// `null`: no policy.
    pub policy: Option<String>,
    /// `single` or `disjoint`.
    pub redundancy: String,
    /// As configured.
    pub deadline_ms: f64,
    /// In use: longer where no packet could meet the configured one.
    pub deadline_used_ms: f64,
    /// The path of the last packet sent.
    pub path_tx: Vec<String>,
    /// The path of its copy, if it had one.
    pub copy_tx: Vec<String>,
    /// The last few distinct paths by which packets came: the audit trail.
    pub paths_rx: Vec<RecordedPath>,
    /// Users' packets put into the overlay.
    pub packets_tx: u64,
    /// Their bytes.
    pub bytes_tx: u64,
    /// Users' packets that came out.
    pub packets_rx: u64,
    /// Their bytes.
    pub bytes_rx: u64,
    /// Why the last packet of a user was not put into the overlay; `null`: it was.
    pub blocked: Option<String>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Times that it moved to another instance of its service.
    pub reopened: u32,
    /// Time since it began.
    pub age_s: f64,
    /// Time since its last packet.
    pub idle_s: f64,
    /// What the operator should know, a sentence each.
    pub warnings: Vec<String>,
}

/// A path by which packets came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordedPath {
    /// The PoPs, where the packets entered first.
    pub path: Vec<String>,
    /// Packets that came by it.
    pub packets: u64,
    /// Time since the last of them.
    pub last_s: f64,
}

/// `/api/v1/services`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// Who answers.
    pub node: String,
    /// By name.
    pub services: Vec<Service>,
}

/// A service somewhere in the overlay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The relays that advertise it, the nearest first.
    pub instances: Vec<Instance>,
}

/// A relay by which a service is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// The relay.
    pub pop: String,
    /// How many ports the service has there.
    pub ports: u16,
    /// Expected one-way delay to it; `null`: it can't be reached.
    pub delay_ms: Option<f64>,
    /// It is leaving and takes no new flows.
    pub draining: bool,
}

/// `/api/v1/ping?to=…&policy=…`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// Who asked.
    pub node: String,
    /// Who was asked.
    pub to: String,
    /// The way there, and back.
    pub path: Vec<String>,
    /// The round trip; `null`: no answer in time.
    pub rtt_ms: Option<f64>,
}

/// `/api/v1/trace?to=…&policy=…&packets=…`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Who asked.
    pub node: String,
    /// Where the path ends.
    pub to: String,
    /// Every relay on the way but the first.
    pub hops: Vec<Hop>,
}

/// What came back from one relay on the way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// The relay.
    pub pop: String,
    /// Packets sent to it.
    pub sent: u32,
    /// Answers.
    pub received: u32,
    /// Shortest round trip from the first relay; `null`: no answer.
    pub rtt_min_ms: Option<f64>,
    /// Mean round trip.
    pub rtt_mean_ms: Option<f64>,
    /// Longest round trip.
    pub rtt_max_ms: Option<f64>,
}

/// `/api/v1/export`: the overlay as the relay's link-state database has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// Who answers.
    pub node: String,
    /// When, ISO 8601 in UTC.
    pub at: String,
    /// Every member.
    pub pops: Vec<ExportedPop>,
    /// Every direction of every link.
    pub links: Vec<ExportedLink>,
}

/// A member of the overlay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExportedPop {
    /// Its name.
    pub id: String,
    /// From its certificate.
    #[serde(flatten)]
    pub labels: Labels,
    /// Degrees north and east.
    pub location: Option<[f64; 2]>,
    /// Where it is dialled.
    pub addresses: Vec<String>,
    /// The services that it advertises.
    pub services: Vec<String>,
    /// It is leaving.
    pub draining: bool,
}

/// One direction of a link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExportedLink {
    /// The sending end.
    pub from: String,
    /// The receiving end.
    pub to: String,
    /// Whether it carries packets.
    pub up: bool,
    /// One-way delay in the overlay's common time.
    pub delay_ms: f64,
    /// Smoothed deviation of the delay.
    pub jitter_ms: f64,
    /// Round-trip time.
    pub rtt_ms: f64,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Mean length of a burst of losses, in datagrams.
    pub burst: f64,
    /// `null`: unknown.
    pub capacity_mbps: Option<f64>,
    /// What it carries.
    pub load_mbps: f64,
}
