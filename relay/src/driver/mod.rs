//! The daemon around a node: sockets, QUIC and the clock, and the one loop that drives it.
//!
//! A relay runs on one thread: one `current_thread` runtime with local tasks that read sockets,
//! and a loop that alone touches the node. Everything that arrives is an [`Event`] in one bounded
//! channel, taken in batches, so that one wake-up is shared by many packets. Protocol and routing
//! are the node's business: here is only I/O.

mod admin;
mod answer;
pub mod clock;
mod connection;
mod daemon;
mod pings;
mod refusals;
mod route_mtu;
mod running;
mod socket;
pub mod transport;
mod tunnels;
mod warnings;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tradewind_proto::control::Message;
use tradewind_proto::units::FlowId;

use crate::config::Config;
use crate::identity::Identity;
use crate::node::edge::TunnelId;
use crate::node::neighbour::ConnId;

pub use daemon::run;
pub use transport as quic;

use clock::Clock;
use connection::Established;
use socket::WANTED_BUFFER;
use warnings::Warnings;

/// The most events that wait for the loop; sockets are not read while it is full.
const MAX_EVENTS: usize = 4096;
/// The most events handled in one turn of the loop.
const BATCH: usize = 256;
/// How long a leaving relay goes on forwarding after it said so.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the tasks of a relay tell its loop.
pub(crate) enum Event {
    /// A connection was made.
    Connected(Box<Established>),
    /// An attempt to dial failed; `refused`: one end refused the other.
    DialFailed { address: String, reason: String, refused: bool },
    /// A connection was refused that somebody made, or that we made.
    Refused { remote: IpAddr, reason: String },
    /// A connection ended.
    Closed(ConnId, String),
    /// A datagram came.
    Datagram(ConnId, Bytes),
    /// A control message came.
    Message(ConnId, Message),
    /// A local program sent a packet to a tunnel.
    Tunnel { tunnel: TunnelId, offset: u16, source: SocketAddr, payload: Bytes },
    /// A service answered on a flow's socket.
    Egress { flow: FlowId, payload: Bytes },
}

/// What the outside tells a running relay.
pub enum Command {
    /// Take on a new configuration, or nothing of it.
    Reload(Box<Config>, oneshot::Sender<anyhow::Result<()>>),
    /// Say so, forward for two more seconds, and end.
    Leave,
}

/// What the daemon itself counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounters {
    /// Connections refused.
    pub refused: u64,
    /// Datagrams that QUIC did not take.
    pub datagrams_refused: u64,
    /// Payloads that a local socket did not take.
    pub local_refused: u64,
    /// Neighbours cut off because they did not read their control stream.
    pub cut_off: u64,
}

/// A relay with its sockets bound, ready to run.
pub struct Relay {
    config: Config,
    identity: Rc<Identity>,
    clock: Clock,
    overlay: std::net::UdpSocket,
    admin: std::net::TcpListener,
    /// Bound at once, so that a port in use is an error of the start.
    tunnels: Vec<Vec<std::net::UdpSocket>>,
    warnings: Warnings,
}

impl Relay {
    /// Reads the identity and binds every socket; nothing runs yet. A port in use is an error.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        tradewind_proto::link::code::cpu_supported()?;
        let clock = Clock::start();
        let seconds = clock.now().as_micros() / 1_000_000;
        let identity = Rc::new(config.load_identity(seconds)?);
        let listen = config.overlay.listen;
        let (overlay, granted) = socket::bind(listen, WANTED_BUFFER)
            .with_context(|| in_use("overlay.listen", listen, "udp"))?;
        let admin = std::net::TcpListener::bind(config.admin.listen)
            .with_context(|| in_use("admin.listen", config.admin.listen, "tcp"))?;
        admin.set_nonblocking(true)?;
        let warnings = Warnings {
            buffers: warnings::small_buffers(granted),
            descriptors: warnings::few_descriptors(&config),
            restart: None,
        };
        let tunnels = tunnels::bind_all(&config.tunnels)?;
        Ok(Self { config, identity, clock, overlay, admin, tunnels, warnings })
    }

    /// Where it receives QUIC.
    pub fn overlay_addr(&self) -> std::io::Result<SocketAddr> {
        self.overlay.local_addr()
    }

    /// Where it serves HTTP.
    pub fn admin_addr(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Runs until told to leave, or until it can't go on. Call on a `LocalSet` of a
    /// `current_thread` runtime. Dropping the future kills the relay without a goodbye.
    pub async fn run(self, commands: mpsc::Receiver<Command>) -> anyhow::Result<()> {
        running::Running::start(self)?.run(commands).await
    }
}

fn in_use(key: &str, address: SocketAddr, protocol: &str) -> String {
    format!(
        "{key} = \"{address}\" can't be bound; stop what uses that port or choose another \
         (`ss --{protocol} -lnp` shows who listens)"
    )
}
