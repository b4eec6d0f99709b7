//! Link state: what a relay says of itself and its outgoing links, and signs.
//!
//! A statement has exactly one encoding, whose bytes are what is signed: lists stand in ascending
//! order, without repetition, within the limits below. [`Statement::encode`] sees to that, and
//! [`Statement::decode`] refuses anything else. Whether a signature is right, and which of two
//! statements is newer, is judged elsewhere.

mod codec;
mod policy;
mod signed;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;

pub use policy::{MAX_LABEL, MAX_LIST, MAX_RULE, Policy, Rule};
pub use signed::SignedStatement;

use crate::units::{Incarnation, PopId, PopKey, ServiceName, Timestamp};

/// What stands before every statement, so that its signature is good for nothing else.
pub const PREFIX: &[u8; 22] = b"tradewind statement 1\0";
/// The most addresses of a relay.
pub const MAX_ADDRESSES: usize = 4;
/// The longest address, in bytes.
pub const MAX_ADDRESS: usize = 255;
/// The longest certificate, in bytes.
pub const MAX_CERTIFICATE: usize = 4096;
/// The most services of a relay.
pub const MAX_SERVICES: usize = 256;
/// The most policies of a relay.
pub const MAX_POLICIES: usize = 64;
/// The most links of a relay, and the most removed ones in a delta.
pub const MAX_LINKS: usize = 1024;
/// Every link carries packets (header and payload) of this many bytes: what QUIC's least UDP
/// payload, 1,200 bytes, leaves.
pub const LEAST_PACKET: u16 = 1_150;

/// What one relay says of itself, decoded. Numbered: the higher (incarnation, seq) wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Who says it.
    pub origin: PopId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Counts full statements and deltas together, from 1.
    pub seq: u32,
    /// What it says.
    pub body: Body,
}

/// Either all, or what changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Everything. Sent every 60 s and when something other than links changes.
    Full(NodeState),
    /// The links that differ from the full statement `base`: all of them, so only the newest delta
    /// counts.
    Delta {
        /// The [`Statement::seq`] of that full statement; less than the delta's own.
        base: u32,
        /// The clock coordinate now.
        clock: ClockCoordinate,
        /// Replace those to the same neighbours, or join them.
        links: Vec<LinkStatement>,
        /// Links of the full statement that are gone. They go before `links` come.
        removed: Vec<PopKey>,
    },
}

/// All that a relay says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeState {
    /// Its X.509 certificate (DER, at most [`MAX_CERTIFICATE`] bytes), from which everybody reads its
    /// labels and key.
    pub certificate: Bytes,
    /// Where it can be dialled, the best first: `host:port` in printable ASCII, at most
    /// [`MAX_ADDRESSES`] of at most [`MAX_ADDRESS`] bytes.
    pub addresses: Vec<String>,
    /// Degrees north (-90 to 90) and east (-180 to 180), for maps.
    pub location: Option<(f32, f32)>,
    /// What can be reached there, at most [`MAX_SERVICES`], by name.
    pub services: Vec<ServiceStatement>,
    /// The rules that its flows obey, at most [`MAX_POLICIES`], by name.
    pub policies: Vec<Policy>,
    /// It is leaving: no new flows, no new paths through it.
    pub draining: bool,
    /// Its load, 0 to 1000 (1000: all of one core).
    pub load_permille: u16,
    /// Its clock against the overlay's.
    pub clock: ClockCoordinate,
    /// An X25519 key for sealing, once relays seal.
    pub sealing_key: Option<[u8; 32]>,
    /// Its outgoing links, at most [`MAX_LINKS`], by neighbour.
    pub links: Vec<LinkStatement>,
}

/// A service that a relay can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatement {
    /// Its name.
    pub name: ServiceName,
    /// How many ports it has, at least 1.
    pub ports: u16,
}

/// How a relay's clock stands against the overlay's common time: at `at` (its own clock),
/// subtracting the offset from its readings gives common time; the offset grows by the drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockCoordinate {
    /// The relay's clock when this was computed.
    pub at: Timestamp,
    /// Microseconds ahead of common time.
    pub offset_micros: i64,
    /// Parts per billion.
    pub drift_ppb: i32,
}

/// One outgoing link, as its sending end knows it. Spans are microseconds in 32 bits on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkStatement {
    /// The neighbour.
    pub to: PopKey,
    /// Whether it carries packets.
    pub up: bool,
    /// One-way delay in microseconds, in common time (raw difference of clocks, corrected by both
    /// ends' clock coordinates); may be slightly negative.
    pub delay_micros: i32,
    /// Smoothed deviation of the delay.
    pub jitter: Duration,
    /// Smoothed round-trip time of the link.
    pub rtt: Duration,
    /// Share of packets lost, 0 to 1. On the wire in steps of 1/65,536, rounded up.
    pub loss: f32,
    /// Mean length of a burst of losses in packets, at least 1. On the wire in steps of 1/16.
    pub burst: f32,
    /// What it is known to carry, 0 if unknown. Kilobits per second.
    pub capacity_kbps: u32,
    /// What it carries. Kilobits per second.
    pub load_kbps: u32,
    /// What the operator adds to its metric.
    pub cost: Duration,
    /// The largest packet that it carries: bytes of header and payload, at least [`LEAST_PACKET`].
    pub max_packet: u16,
}

impl LinkStatement {
    /// That of the link to `to` among `links`, which stand in the order of neighbours.
    pub fn find(links: &[Self], to: PopKey) -> Option<&Self> {
        let at = links.binary_search_by_key(&to, |link| link.to).ok()?;
        links.get(at)
    }
}
