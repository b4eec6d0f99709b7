//! Which ways users' packets take, seen on the wire: those that never arrive, too.

use std::collections::BTreeMap;

use bytes::Bytes;
use tradewind_proto::frame::Frame;
use tradewind_proto::packet::{Header, PacketKind};
use tradewind_proto::units::{FlowId, PopKey};

/// One user's packet, all its fragments and copies together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacketName {
    /// Its flow.
    pub flow: FlowId,
    /// From egress to ingress.
    pub reverse: bool,
    /// Its number in that direction.
    pub seq: u32,
}

/// How a copy of a packet was seen on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whether it was one of two copies that are to keep apart.
    pub twin: bool,
    /// Its whole path, ingress first.
    pub pops: Vec<PopKey>,
}

/// The different ways that each packet was seen on.
pub type Sightings = BTreeMap<PacketName, Vec<Sighting>>;

/// Notes the packets that a datagram carries: data and repeats, not what parity would rebuild.
pub(super) fn note(sightings: &mut Sightings, datagram: &Bytes) {
    let mut rest = datagram.clone();
    while let Ok(Some(frame)) = Frame::decode(&mut rest) {
        let (Frame::Data { packet, .. } | Frame::Repeat { packet, .. }) = frame else { continue };
        let Ok((header, _)) = Header::decode(&packet) else { continue };
        if header.kind == PacketKind::Signal {
            continue;
        }
        let (flow, reverse, seq) = (header.flow, header.reverse, header.seq.0);
        let pops = header.path.pops().to_vec();
        let sighting = Sighting { twin: header.kind == PacketKind::Twin, pops };
        let seen = sightings.entry(PacketName { flow, reverse, seq }).or_default();
        if !seen.contains(&sighting) {
            seen.push(sighting);
        }
    }
}
