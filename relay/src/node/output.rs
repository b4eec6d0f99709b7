//! What a node wants done, and what it has to tell.

use bytes::Bytes;
use tradewind_proto::control::Message;
use tradewind_proto::link::Liveness;
use tradewind_proto::units::PopId;

use super::echo::Pong;
use super::edge::LocalOutput;
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
    /// Do this with a local socket.
    Local(LocalOutput),
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
