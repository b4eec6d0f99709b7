//! What a node wants done, and what it has to tell.

use std::net::SocketAddr;

use bytes::Bytes;
use tradewind_proto::control::Message;
use tradewind_proto::link::Liveness;
use tradewind_proto::units::{FlowId, PopId, ServiceName};

use super::echo::Pong;
use super::edge::TunnelId;
use super::neighbour::{ConnId, Refusal};

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
