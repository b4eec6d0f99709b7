//! Connections: dialled and accepted, and the tasks that move what comes and goes on them.
//!
//! Each connection has one bidirectional stream for control messages, opened by the dialler, and
//! carries frames as datagrams. What arrives goes to the relay's loop as [`Event`]s; who is at the
//! other end is read from its certificate here, all else is decided by the node.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::{Bytes, BytesMut};
use quinn::{
    Connecting, Connection, ConnectionError, Endpoint, Incoming, ReadError, RecvStream,
    SendDatagramError, SendStream,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tradewind_proto::control::Message;
use tradewind_proto::units::{PopId, Timestamp};

use super::Event;
use super::clock::Clock;
use super::transport::{Quic, SEND_BUFFER, SMALLEST_MTU};
use crate::identity::SERVER_NAME;
use crate::node::neighbour::{ConnId, Connected};

/// A handshake that takes longer is tried again with the smallest MTU, then given up.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(1);
/// How long an accepted connection may take to finish its handshake and open the control stream.
const ACCEPT_PATIENCE: Duration = Duration::from_secs(5);
/// The most control messages that wait for a stream; a neighbour slower than that is cut off.
const MAX_WAITING_MESSAGES: usize = 8192;
/// The most handshakes under way at once that others began.
const MAX_ACCEPTING: usize = 256;
/// The most of them from one address.
const MAX_ACCEPTING_EACH: usize = 4;
/// From so many on, others must prove their address first (RFC 9000, section 8.1.2).
const RETRY_FROM: usize = 32;

/// A connection as the relay's loop holds it.
pub struct Line {
    /// quinn's handle.
    pub quic: Connection,
    /// Bytes that a packet takes of datagrams.
    room: usize,
    /// Bytes of the datagram that was sent last.
    latest: usize,
    messages: mpsc::Sender<Message>,
    tasks: [AbortHandle; 4],
}

impl Line {
    /// Sends a datagram in a packet of its own. What frames should share a packet is decided where datagrams are
    /// made: copies of the same thing don't, for they would be lost together. quinn puts into a packet all that
    /// waits and fits, so what waits leaves first; two that don't fit need not, and leave in one batch.
    pub async fn send(&mut self, datagram: Bytes) -> Result<(), SendDatagramError> {
        let fits = self.latest + datagram.len() <= self.room;
        if fits && self.quic.datagram_send_buffer_space() < SEND_BUFFER {
            tokio::task::yield_now().await;
        }
        self.latest = datagram.len();
        self.quic.send_datagram(datagram)
    }

    /// Queues a control message; false: the neighbour doesn't read, cut it off.
    pub fn tell(&self, message: Message) -> bool {
        self.messages.try_send(message).is_ok()
    }

    /// Closes the connection and stops its tasks.
    pub fn close(&self, reason: &str) {
        self.quic.close(0u32.into(), reason.as_bytes());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A connection whose handshake is done, with its control stream.
pub struct Established {
    /// Who is at the other end.
    pub connected: Connected,
    quic: Connection,
    send: SendStream,
    recv: RecvStream,
}

impl Established {
    /// Starts moving what comes and goes.
    pub fn start(self, events: &mpsc::Sender<Event>) -> (Connected, Line) {
        let (conn, room) = (self.connected.conn, self.connected.datagram);
        let (messages, waiting) = mpsc::channel(MAX_WAITING_MESSAGES);
        let tasks = [
            tokio::task::spawn_local(write_messages(self.send, waiting)).abort_handle(),
            tokio::task::spawn_local(read_messages(
                conn,
                self.recv,
                self.quic.clone(),
                events.clone(),
            ))
            .abort_handle(),
            tokio::task::spawn_local(read_datagrams(conn, self.quic.clone(), events.clone()))
                .abort_handle(),
            tokio::task::spawn_local(watch(conn, self.quic.clone(), events.clone())).abort_handle(),
        ];
        (self.connected, Line { quic: self.quic, room, latest: 0, messages, tasks })
    }
}

async fn write_messages(mut stream: SendStream, mut waiting: mpsc::Receiver<Message>) {
    let mut bytes = BytesMut::new();
    while let Some(message) = waiting.recv().await {
        message.encode(&mut bytes);
        while let Ok(message) = waiting.try_recv() {
            message.encode(&mut bytes);
            if bytes.len() > 1 << 16 {
                break;
            }
        }
        if stream.write_chunk(bytes.split().freeze()).await.is_err() {
            return;
        }
    }
}

async fn read_messages(
    conn: ConnId,
    mut stream: RecvStream,
    quic: Connection,
    events: mpsc::Sender<Event>,
) {
    let mut bytes = BytesMut::new();
    let reason = loop {
        match Message::decode(&mut bytes) {
            Ok(Some(message)) => {
                if events.send(Event::Message(conn, message)).await.is_err() {
                    return;
                }
            }
            Ok(None) => match stream.read_chunk(1 << 16, true).await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
                // Without it no hello, link state or goodbye can come any more.
                Ok(None) | Err(ReadError::Reset(_)) => {
                    break "it ended its control stream".to_owned();
                }
                // The whole connection ended: `watch` tells that.
                Err(_) => return,
            },
            Err(error) => break format!("a control message can't be read: {error}"),
        }
    };
    quic.close(1u32.into(), reason.as_bytes());
    let remote = quic.remote_address().ip().to_canonical();
    let _ = events.send(Event::Refused { remote, reason }).await;
}

async fn read_datagrams(conn: ConnId, quic: Connection, events: mpsc::Sender<Event>) {
    while let Ok(datagram) = quic.read_datagram().await {
        if events.send(Event::Datagram(conn, datagram)).await.is_err() {
            return;
        }
    }
}

async fn watch(conn: ConnId, quic: Connection, events: mpsc::Sender<Event>) {
    let error = quic.closed().await;
    let reason = error.to_string();
    if is_of_tls(&error) {
        // We dialled, and the other end judged our certificate only after our handshake was done.
        let remote = quic.remote_address().ip().to_canonical();
        let _ = events.send(Event::Refused { remote, reason: reason.clone() }).await;
    }
    let _ = events.send(Event::Closed(conn, reason)).await;
}

/// Whether TLS ended the connection, at either end: one refuses the other's certificate, or they
/// have no version or algorithm in common. The codes are those of RFC 9001, section 4.8.
fn is_of_tls(error: &ConnectionError) -> bool {
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(close) => close.error_code,
        _ => return false,
    };
    (0x100..0x200).contains(&u64::from(code))
}

/// Reads the relay's name from a certificate that TLS has accepted.
pub type NameOf = Rc<dyn Fn(&[u8], Timestamp) -> anyhow::Result<PopId>>;

/// Makes connections.
pub struct Connector {
    /// The socket under all connections.
    pub endpoint: Endpoint,
    /// At the configured MTU.
    pub full: Quic,
    /// At the smallest MTU.
    pub small: Quic,
    /// Whose certificate it is.
    pub name_of: NameOf,
    /// The time.
    pub clock: Clock,
    events: mpsc::Sender<Event>,
    next_conn: u64,
    /// When the handshakes under way were begun, by who began them.
    accepting: Rc<RefCell<HashMap<SocketAddr, Vec<Timestamp>>>>,
}

impl Connector {
    /// Makes connections over `endpoint`.
    pub fn new(
        endpoint: Endpoint,
        full: Quic,
        small: Quic,
        name_of: NameOf,
        clock: Clock,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            endpoint,
            full,
            small,
            name_of,
            clock,
            events,
            next_conn: 0,
            accepting: Rc::default(),
        }
    }

    fn next_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    /// Dials `address` in the background; the outcome comes as an event.
    pub fn dial(&mut self, address: String) {
        let attempt = Attempt {
            conn: self.next_conn(),
            endpoint: self.endpoint.clone(),
            configs: [self.full.clone(), self.small.clone()],
            name_of: self.name_of.clone(),
            clock: self.clock,
        };
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let event = match attempt.dial(&address).await {
                Ok(established) => Event::Connected(Box::new(established)),
                Err(error) => {
                    let refused = error.downcast_ref().is_some_and(is_of_tls);
                    Event::DialFailed { address, reason: format!("{error:#}"), refused }
                }
            };
            let _ = events.send(event).await;
        });
    }

    /// Somebody wants to connect: finish the handshake in the background.
    pub fn accept(&mut self, incoming: Incoming) {
        let remote = incoming.remote_address();
        let under_way = self.accepting.borrow().len();
        if under_way >= MAX_ACCEPTING {
            incoming.refuse();
            return;
        }
        if under_way >= RETRY_FROM && incoming.may_retry() {
            let _ = incoming.retry();
            return;
        }
        // A dialler without an answer after a second dials again with the smallest MTU: what we
        // sent before may have been too large for the path, so we go down with it.
        let now = self.clock.now();
        let again = {
            let mut accepting = self.accepting.borrow_mut();
            let begun = accepting.entry(remote).or_default();
            if begun.len() >= MAX_ACCEPTING_EACH {
                incoming.refuse();
                return;
            }
            begun.push(now);
            now.since(begun[0]) >= HANDSHAKE_PATIENCE / 2
        };
        let quic = if again { self.small.clone() } else { self.full.clone() };
        let conn = self.next_conn();
        let (name_of, clock, events) = (self.name_of.clone(), self.clock, self.events.clone());
        let accepting = self.accepting.clone();
        tokio::task::spawn_local(async move {
            let handshake = accept(conn, incoming, &quic, &name_of, clock);
            let outcome = match timeout(ACCEPT_PATIENCE, handshake).await {
                Ok(outcome) => outcome,
                Err(_) => Err(anyhow!("the handshake took longer than {ACCEPT_PATIENCE:?}")),
            };
            {
                let mut accepting = accepting.borrow_mut();
                if let Some(begun) = accepting.get_mut(&remote) {
                    begun.retain(|at| *at != now);
                    if begun.is_empty() {
                        accepting.remove(&remote);
                    }
                }
            }
            let event = match outcome {
                Ok(established) => Event::Connected(Box::new(established)),
                Err(error) => {
                    let remote = remote.ip().to_canonical();
                    Event::Refused { remote, reason: format!("{error:#}") }
                }
            };
            let _ = events.send(event).await;
        });
    }
}

struct Attempt {
    conn: ConnId,
    endpoint: Endpoint,
    configs: [Quic; 2],
    name_of: NameOf,
    clock: Clock,
}

impl Attempt {
    async fn dial(&self, address: &str) -> anyhow::Result<Established> {
        let remotes: Vec<_> = tokio::net::lookup_host(address)
            .await
            .with_context(|| format!("{address} can't be resolved"))?
            .collect();
        let mut last = anyhow!("{address} resolves to no address");
        for remote in remotes {
            for quic in &self.configs {
                match self.try_one(address, self.reachable(remote), quic).await {
                    Ok(established) => return Ok(established),
                    Err(error) => last = error,
                }
                if self.configs[0].mtu == SMALLEST_MTU {
                    break;
                }
            }
        }
        Err(last)
    }

    /// An IPv4 address as a socket bound to IPv6 knows it.
    fn reachable(&self, remote: SocketAddr) -> SocketAddr {
        match (self.endpoint.local_addr(), remote.ip()) {
            (Ok(SocketAddr::V6(_)), IpAddr::V4(ip)) => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), remote.port())
            }
            _ => remote,
        }
    }

    async fn try_one(
        &self,
        address: &str,
        remote: SocketAddr,
        quic: &Quic,
    ) -> anyhow::Result<Established> {
        let connecting = self
            .endpoint
            .connect_with(quic.client.clone(), remote, SERVER_NAME)
            .with_context(|| format!("{remote} can't be dialled"))?;
        let handshake = async {
            let connection = connecting.await?;
            let (send, recv) = connection.open_bi().await?;
            anyhow::Ok((connection, send, recv))
        };
        let (connection, send, recv) = timeout(HANDSHAKE_PATIENCE, handshake)
            .await
            .map_err(|_| anyhow!("{remote} did not answer within {HANDSHAKE_PATIENCE:?}"))?
            .with_context(|| format!("{remote} refused the connection"))?;
        let peer = peer_name(&connection, &self.name_of, self.clock)?;
        let connected = connected(self.conn, peer, Some(address.to_owned()), &connection, quic)?;
        Ok(Established { connected, quic: connection, send, recv })
    }
}

async fn accept(
    conn: ConnId,
    incoming: Incoming,
    quic: &Quic,
    name_of: &NameOf,
    clock: Clock,
) -> anyhow::Result<Established> {
    let connecting: Connecting = incoming.accept_with(quic.server.clone())?;
    let connection = connecting.await?;
    let (send, recv) = connection.accept_bi().await?;
    let peer = peer_name(&connection, name_of, clock)?;
    let connected = connected(conn, peer, None, &connection, quic)?;
    Ok(Established { connected, quic: connection, send, recv })
}

fn peer_name(connection: &Connection, name_of: &NameOf, clock: Clock) -> anyhow::Result<PopId> {
    let identity = connection.peer_identity().context("the other end showed no certificate")?;
    let chain = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| anyhow!("the other end's identity is no certificate"))?;
    let certificate = chain.first().context("the other end showed no certificate")?;
    name_of(certificate, clock.now())
}

fn connected(
    conn: ConnId,
    peer: PopId,
    dialled: Option<String>,
    connection: &Connection,
    quic: &Quic,
) -> anyhow::Result<Connected> {
    let Some(datagram) = connection.max_datagram_size() else {
        bail!("{peer} takes no datagrams");
    };
    let remote = connection.remote_address();
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    Ok(Connected { conn, peer, dialled, remote: remote.to_string(), datagram, mtu: quic.mtu })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quinn::{ConnectionClose, EndpointConfig, TokioRuntime, TransportErrorCode};

    use super::*;
    use crate::identity::{Identity, Issuer};

    /// A connection over loopback, both ends: the dialler's first; and what they tell.
    async fn connected_lines() -> (Vec<Line>, mpsc::Receiver<Event>) {
        let clock = Clock::start();
        let now = clock.now().as_micros() / 1_000_000;
        let issuer = Issuer::generate(now).unwrap();
        let (events, mut inbox) = mpsc::channel(64);
        let connector = |id: &str| {
            let issued =
                issuer.issue(&format!("tradewind://pop/{id}").parse().unwrap(), now, 1).unwrap();
            let [authority, certificate, key] =
                [issuer.certificate(), &issued.certificate, &issued.key].map(str::as_bytes);
            let identity = Identity::from_pem(authority, certificate, key, now).unwrap();
            let tls = (identity.client_config().unwrap(), identity.server_config().unwrap());
            let quic = Quic::new(Arc::new(tls.0), Arc::new(tls.1), SMALLEST_MTU).unwrap();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let server = Some((*quic.server).clone());
            let endpoint =
                Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime))
                    .unwrap();
            let name_of = Rc::new(move |certificate: &[u8], _| {
                Ok(identity.authority().verify_certificate(certificate, now)?.id().clone())
            });
            Connector::new(endpoint, quic.clone(), quic, name_of, clock, events.clone())
        };
        let [mut dialler, mut other] = ["a", "b"].map(connector);
        dialler.dial(other.endpoint.local_addr().unwrap().to_string());
        let incoming = other.endpoint.accept().await.unwrap();
        other.accept(incoming);
        let mut lines = Vec::new();
        while lines.len() < 2 {
            match inbox.recv().await.unwrap() {
                Event::Connected(established) => {
                    let (_, line) = established.start(&events);
                    assert!(line.tell(Message::Bye), "only with that the other sees the stream");
                    lines.push(line);
                }
                Event::DialFailed { reason, .. } | Event::Refused { reason, .. } => {
                    panic!("{reason}")
                }
                _ => {}
            }
        }
        (lines, inbox)
    }

    #[test]
    fn each_datagram_has_a_packet_of_its_own() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (mut lines, mut inbox) = connected_lines().await;
            let line = &mut lines[0];
            let before = line.quic.stats();
            for number in 0..20 {
                line.send(Bytes::from(vec![number; 100])).await.unwrap();
            }
            let mut came = 0;
            while came < 20 {
                if let Event::Datagram(_, datagram) = inbox.recv().await.unwrap() {
                    assert_eq!(datagram, vec![came; 100]);
                    came += 1;
                }
            }
            let after = line.quic.stats();
            let datagrams = after.frame_tx.datagram - before.frame_tx.datagram;
            let packets = after.udp_tx.datagrams - before.udp_tx.datagrams;
            assert_eq!(datagrams, 20);
            assert!(packets >= 20, "{packets} packets for {datagrams} datagrams");
        });
    }

    #[test]
    fn what_tls_refuses_is_told_from_other_ends() {
        let closed = |error_code| {
            let close = ConnectionClose { error_code, frame_type: None, reason: "".into() };
            ConnectionError::ConnectionClosed(close)
        };
        let here = TransportErrorCode::crypto(48);
        for (error, expected) in [
            (ConnectionError::TransportError(here.into()), true),
            (closed(TransportErrorCode::crypto(0)), true),
            (closed(TransportErrorCode::crypto(255)), true),
            (closed(TransportErrorCode::NO_ERROR), false),
            (closed(TransportErrorCode::CONNECTION_REFUSED), false),
            (ConnectionError::TimedOut, false),
            (ConnectionError::LocallyClosed, false),
        ] {
            assert_eq!(is_of_tls(&error), expected, "{error}");
        }
    }
}
