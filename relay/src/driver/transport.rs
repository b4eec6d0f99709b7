//! How QUIC is set up under our links.
//!
//! Rate control and liveness are ours, so quinn's congestion controller never limits and its idle
//! timeout is only the last resort. The MTU is fixed: quinn's search for it takes random loss for
//! a smaller path (its black-hole detection) and then refuses full datagrams.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use quinn::congestion::{Controller, ControllerFactory};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};

/// The UDP payload that every path must carry (RFC 9000, section 14).
pub const SMALLEST_MTU: u16 = 1200;
/// The UDP payload where nothing else is said.
pub const DEFAULT_MTU: u16 = 1452;
/// A connection that brought nothing for so long is given up by QUIC itself.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of datagrams that QUIC takes before it has sent any. Our own queue is in front; this holds what
/// one wake-up hands over.
pub const SEND_BUFFER: usize = 1 << 20;
/// Acknowledge every so many packets: our reports are what recovery works with.
const ACK_EVERY: u32 = 20;

/// A window so large that quinn neither limits nor paces.
#[derive(Clone, Copy, Debug)]
struct Unlimited;

const WINDOW: u64 = 1 << 40;

impl Controller for Unlimited {
    fn on_congestion_event(&mut self, _: Instant, _: Instant, _: bool, _: u64) {}

    fn on_mtu_update(&mut self, _: u16) {}

    fn window(&self) -> u64 {
        WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl ControllerFactory for Unlimited {
    fn build(self: Arc<Self>, _: Instant, _: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}

/// Both sides of QUIC, for one MTU.
#[derive(Clone)]
pub struct Quic {
    /// The size of UDP payloads.
    pub mtu: u16,
    /// For dialling.
    pub client: ClientConfig,
    /// For accepting.
    pub server: Arc<ServerConfig>,
}

impl Quic {
    /// QUIC over the given TLS, with UDP payloads of `mtu` bytes.
    pub fn new(
        tls_client: Arc<rustls::ClientConfig>,
        tls_server: Arc<rustls::ServerConfig>,
        mtu: u16,
    ) -> anyhow::Result<Self> {
        let transport = Arc::new(transport(mtu));
        let client_tls =
            QuicClientConfig::try_from(tls_client).context("TLS does not suit QUIC")?;
        let server_tls =
            QuicServerConfig::try_from(tls_server).context("TLS does not suit QUIC")?;
        let mut client = ClientConfig::new(Arc::new(client_tls));
        client.transport_config(transport.clone());
        let mut server = ServerConfig::with_crypto(Arc::new(server_tls));
        server.transport_config(transport);
        // A neighbour's address is its identity to firewalls; links are re-made, not moved.
        server.migration(false);
        Ok(Self { mtu, client, server: Arc::new(server) })
    }
}

fn transport(mtu: u16) -> TransportConfig {
    let mut ack_frequency = AckFrequencyConfig::default();
    ack_frequency.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY));
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(Unlimited))
        .initial_mtu(mtu)
        .min_mtu(mtu)
        .mtu_discovery_config(None)
        .ack_frequency_config(Some(ack_frequency))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        // Handshake packets are repeated three times a second until the round trip is known.
        .initial_rtt(Duration::from_millis(100))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(4 << 20))
        .datagram_send_buffer_size(SEND_BUFFER);
    transport
}
