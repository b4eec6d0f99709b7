//! A stream over QUIC as others speak it: quinn's own protocol machine under Cubic (RFC 9438), both
//! ends, over the same link models and the same virtual time as the relays.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::congestion::CubicConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    ServerConfig, StreamId, Transmit, TransportConfig, VarInt,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tradewind_proto::units::{Class, Timestamp};
use tradewind_simulator::emulator::IP_UDP_HEADERS;
use tradewind_simulator::overlay::{Overlay, START};
use tradewind_simulator::virtual_net::Events;

use super::scenario::{Bottleneck, LEAD, VIDEO, narrow};

const NAME: &str = "rival";
/// The other gets so much time before one joins it, and so much passes before shares are taken.
const HEAD_START: Duration = Duration::from_secs(5);
/// Shares are those of this time.
const SHARED: Duration = Duration::from_secs(50);
/// Windows that never limit.
const WINDOW: u32 = 64 << 20;
/// The places between which it sends, and their addresses.
const PLACES: [(&str, SocketAddr); 2] = [
    ("a", SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1)),
    ("b", SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 2)),
];

/// Our link, with 30 Mbit/s of video to carry, and a rival share 20 Mbit/s with `queue` bytes in
/// front: what each has got, in Mbit/s of payload.
pub fn share_with_rival(seed: u64, queue: usize, rival_first: bool) -> anyhow::Result<[f64; 2]> {
    let mut spec = narrow(20, 0.0);
    spec.rate.iter_mut().for_each(|rate| rate.queue = queue);
    let mut link = Bottleneck::new(seed, spec, 30.0);
    // At any phase of timers.
    let phase = Duration::from_micros(seed * 7_919 % 50_000);
    if !rival_first {
        link.run_until(HEAD_START + phase);
    }
    let mut rival = Rival::new(&mut link.overlay)?;
    let joined = if rival_first { Duration::ZERO } else { HEAD_START + phase };
    let (from, to) = (joined + HEAD_START, joined + HEAD_START + SHARED);
    rival.run_until(from, &mut link);
    let before = rival.received;
    rival.run_until(to, &mut link);
    let ours = link.tally(Class::Video, from..to).delivered() * VIDEO;
    let mbps = |bytes: f64| bytes * 8.0 / SHARED.as_secs_f64() / 1e6;
    Ok([mbps(ours as f64), mbps((rival.received - before) as f64)])
}

struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
}

/// A bulk transfer from `a` to `b` that never ends.
struct Rival {
    /// What quinn's clock shows at [`START`]. Only differences matter.
    epoch: Instant,
    ends: [End; 2],
    under_way: Events<(usize, Vec<u8>)>,
    stream: Option<StreamId>,
    received: u64,
}

impl Rival {
    /// Dials at the overlay's present time.
    fn new(overlay: &mut Overlay) -> anyhow::Result<Self> {
        let epoch = Instant::now();
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certified.cert.der().clone())?;
        let transport = Arc::new(transport());
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
        client.transport_config(transport.clone());
        let mut server =
            ServerConfig::with_single_cert(vec![certified.cert.der().clone()], key.into())?;
        server.transport_config(transport);
        let config = Arc::new(EndpointConfig::default());
        let end = |server| End {
            endpoint: Endpoint::new(config.clone(), server, false, Some([7; 32])),
            connection: None,
        };
        let mut rival = Self {
            epoch,
            ends: [end(None), end(Some(Arc::new(server)))],
            under_way: Events::default(),
            stream: None,
            received: 0,
        };
        let now = rival.instant(overlay.now());
        rival.ends[0].connection =
            Some(rival.ends[0].endpoint.connect(now, client, PLACES[1].1, NAME)?);
        rival.settle(overlay);
        Ok(rival)
    }

    /// Both run until so long after our traffic began.
    fn run_until(&mut self, since_lead: Duration, link: &mut Bottleneck) {
        let end = START + LEAD + since_lead;
        while link.overlay.now() < end {
            let next = self.next_at().min(end).max(link.overlay.now());
            link.overlay.run_until(next);
            self.run(&mut link.overlay);
        }
    }

    /// When it wants [`Self::run`].
    fn next_at(&mut self) -> Timestamp {
        let epoch = self.epoch;
        let timeouts = self.ends.iter_mut().filter_map(|end| {
            let at = end.connection.as_mut()?.1.poll_timeout()?;
            let micros = at.saturating_duration_since(epoch).as_nanos().div_ceil(1000);
            Some(START + Duration::from_micros(micros as u64))
        });
        timeouts.min().unwrap_or(Timestamp::NEVER).min(self.under_way.next_at())
    }

    /// Does what is due at the overlay's present time.
    fn run(&mut self, overlay: &mut Overlay) {
        let now = self.instant(overlay.now());
        while let Some((_, (to, packet))) = self.under_way.pop_until(overlay.now()) {
            self.receive(to, &packet, overlay);
        }
        for end in &mut self.ends {
            if let Some((_, connection)) = &mut end.connection {
                connection.handle_timeout(now);
            }
        }
        self.settle(overlay);
    }

    fn receive(&mut self, to: usize, packet: &[u8], overlay: &mut Overlay) {
        let now = self.instant(overlay.now());
        let from = PLACES[1 - to].1;
        let mut answer = Vec::new();
        let end = &mut self.ends[to];
        let event = end.endpoint.handle(now, from, None, None, BytesMut::from(packet), &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut end.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                end.connection = end.endpoint.accept(incoming, now, &mut answer, None).ok();
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Lets both ends do all that they can at this instant.
    fn settle(&mut self, overlay: &mut Overlay) {
        let now = self.instant(overlay.now());
        self.write();
        self.read();
        for (at, end) in self.ends.iter_mut().enumerate() {
            let Some((handle, connection)) = &mut end.connection else { continue };
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = end.endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while connection.poll().is_some() {}
            let mut packet = Vec::new();
            while let Some(Transmit { size, .. }) = connection.poll_transmit(now, 1, &mut packet) {
                let sent = std::mem::take(&mut packet);
                let (from, to) = (PLACES[at].0, PLACES[1 - at].0);
                if let Some(arrival) = overlay.cross(from, to, size + IP_UDP_HEADERS) {
                    self.under_way.schedule(arrival, (1 - at, sent));
                }
            }
        }
    }

    /// Fills the stream.
    fn write(&mut self) {
        let Some((_, connection)) = &mut self.ends[0].connection else { return };
        if connection.is_handshaking() {
            return;
        }
        if self.stream.is_none() {
            self.stream = connection.streams().open(Dir::Uni);
        }
        let Some(stream) = self.stream else { return };
        while connection.send_stream(stream).write(&[0; 16 << 10]).is_ok() {}
    }

    /// Empties it.
    fn read(&mut self) {
        let Some((_, connection)) = &mut self.ends[1].connection else { return };
        let Some(stream) = self.stream else { return };
        let mut stream = connection.recv_stream(stream);
        let Ok(mut chunks) = stream.read(true) else { return };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.received += chunk.bytes.len() as u64;
        }
        let _ = chunks.finalize();
    }

    fn instant(&self, at: Timestamp) -> Instant {
        self.epoch + at.since(START)
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .initial_mtu(1452)
        .min_mtu(1452)
        .mtu_discovery_config(None)
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(1 << 20);
    transport
}
