//! The overlay packet: what a link carries from relay to relay, its path written into it.
//!
//! Laid out so that what never changes on the way is contiguous (associated data for sealing) and
//! precedes what every relay rewrites. `proto/PROTOCOL.md` has the bytes. How a packet is repaired
//! is the business of the link, how fragments are joined that of the flow.

mod path;
mod signal;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::BufMut;

pub use path::{MAX_DETOURED_PATH, MAX_PATH, Path, PathError};
pub use signal::{RefuseReason, Signal};

use crate::units::{
    Budget, Class, FlowId, FlowSeq, PolicyId, PopKey, Redundancy, ServiceName, WireTime,
};
use crate::wire::{Reader, WireError, flag, put_text};

/// Which part of a packet that was cut into several this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    /// From 0.
    pub index: u8,
    /// How many there are, at least 1 and more than `index`.
    pub count: u8,
}

impl Fragment {
    /// A packet that was not cut.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// What the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// A user's bytes (or a fragment of them).
    Data,
    /// The same, one of two copies on ways that share no relay between. It keeps to its way, as a
    /// detour might lead it over the relays of the other.
    Twin,
    /// A [`Signal`] between the two ends.
    Signal,
}

/// Travels on the packets of a flow until the egress has acknowledged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The service that the flow wants.
    pub service: ServiceName,
    /// Which port of a service that has a range, from 0.
    pub port_offset: u16,
    /// The deadline of the flow's packets, for the way back. On the wire: microseconds in 32 bits,
    /// so at most 71 minutes.
    pub deadline: Duration,
    /// The redundancy of the flow, for the way back.
    pub redundancy: Redundancy,
}

/// Everything before the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: PacketKind,
    /// Priority and default deadline.
    pub class: Class,
    /// From egress to ingress.
    pub reverse: bool,
    /// 0: the payload is not sealed; otherwise which of the flow's keys sealed it (1 to 3, in turn).
    pub key_epoch: u8,
    /// The policy that binds the path.
    pub policy: PolicyId,
    /// The conversation. Its ingress is not on the wire: it is the first PoP of the path, or the
    /// last if `reverse`.
    pub flow: FlowId,
    /// Counted per flow and direction.
    pub seq: FlowSeq,
    /// Which part of the user's packet.
    pub fragment: Fragment,
    /// When the link sent it first, by the sender's clock.
    pub sent_at: WireTime,
    /// What was left of the deadline at `sent_at`.
    pub budget: Budget,
    /// Where it goes.
    pub path: Path,
    /// Present until the flow is acknowledged.
    pub open: Option<Open>,
}

/// Bytes before the PoPs of the path.
const FIXED: usize = 27;
/// Bytes of each PoP.
const POP: usize = 4;
/// Bytes of an open extension beside the name: two lengths, offset, deadline, redundancy.
const OPEN_FIXED: usize = 9;

const KIND_SHIFT: u32 = 6;
const CLASS_SHIFT: u32 = 4;
const OPEN: u8 = 1 << 3;
const REVERSE: u8 = 1 << 2;
const TWO_BITS: u8 = 3;
const FOUR_BITS: u8 = 15;

impl Header {
    /// Bytes that [`Self::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |open| OPEN_FIXED + open.service.as_str().len());
        FIXED + POP * self.path.pops().len() + open
    }

    /// Writes the header; the payload follows it to the end of the packet.
    pub fn encode(&self, out: &mut impl BufMut) {
        debug_assert_eq!(self.flow.ingress, ingress(&self.path, self.reverse));
        debug_assert!(self.key_epoch <= TWO_BITS && self.fragment.index < self.fragment.count);
        let pops = self.path.pops();
        let mut bytes = [0; FIXED + POP * MAX_DETOURED_PATH];
        let mut head = &mut bytes[..];
        head.put_u8(self.flags());
        head.put_u32(self.policy.0);
        head.put_u32(self.flow.incarnation);
        head.put_u32(self.flow.number);
        head.put_u32(self.seq.0);
        head.put_u8(self.fragment.index);
        head.put_u8(self.fragment.count);
        head.put_u32(self.sent_at.0);
        head.put_uint(u64::from(self.budget.as_micros()), 3);
        head.put_u8((pops.len() as u8) << 4 | self.path.cursor() as u8);
        pops.iter().for_each(|pop| head.put_u32(pop.0));
        out.put_slice(&bytes[..FIXED + POP * pops.len()]);
        if let Some(open) = &self.open {
            open.encode(out);
        }
    }

    /// Splits a packet into its header and its payload.
    pub fn decode(packet: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let mut reader = Reader::new(packet);
        // One check of the length for all of them.
        let fixed: [u8; FIXED] = reader.array()?;
        let mut head = Reader::new(&fixed);
        let flags = head.u8()?;
        let policy = PolicyId(head.u32()?);
        let (incarnation, number) = (head.u32()?, head.u32()?);
        let seq = FlowSeq(head.u32()?);
        let fragment = decode_fragment(head.array()?)?;
        let sent_at = WireTime(head.u32()?);
        let budget = Budget::from_micros(head.u24()?);
        let path = decode_path(head.u8()?, &mut reader)?;
        let reverse = flags & REVERSE != 0;
        let header = Self {
            kind: kind_from_bits(flags >> KIND_SHIFT)?,
            class: class_from_bits(flags >> CLASS_SHIFT & TWO_BITS)?,
            reverse,
            key_epoch: flags & TWO_BITS,
            policy,
            flow: FlowId { ingress: ingress(&path, reverse), incarnation, number },
            seq,
            fragment,
            sent_at,
            budget,
            path,
            open: if flags & OPEN == 0 { None } else { Some(Open::decode(&mut reader)?) },
        };
        Ok((header, reader.rest()))
    }

    fn flags(&self) -> u8 {
        let kind = match self.kind {
            PacketKind::Data => 0,
            PacketKind::Signal => 1,
            PacketKind::Twin => 2,
        };
        let class = match self.class {
            Class::Audio => 0,
            Class::Video => 1,
            Class::Bulk => 2,
        };
        let (open, reverse) = (flag(self.open.is_some(), OPEN), flag(self.reverse, REVERSE));
        kind << KIND_SHIFT | class << CLASS_SHIFT | open | reverse | self.key_epoch & TWO_BITS
    }
}

/// A detour never changes the ends of a path, so that they name the ends of the flow.
fn ingress(path: &Path, reverse: bool) -> PopKey {
    if reverse { path.last() } else { path.first() }
}

fn kind_from_bits(bits: u8) -> Result<PacketKind, WireError> {
    match bits {
        0 => Ok(PacketKind::Data),
        1 => Ok(PacketKind::Signal),
        2 => Ok(PacketKind::Twin),
        unknown => Err(WireError::UnknownPacketKind(unknown)),
    }
}

fn class_from_bits(bits: u8) -> Result<Class, WireError> {
    match bits {
        0 => Ok(Class::Audio),
        1 => Ok(Class::Video),
        2 => Ok(Class::Bulk),
        unknown => Err(WireError::UnknownClass(unknown)),
    }
}

fn decode_fragment([index, count]: [u8; 2]) -> Result<Fragment, WireError> {
    match index < count {
        true => Ok(Fragment { index, count }),
        false => Err(WireError::Fragment { index, count }),
    }
}

fn decode_path(hops: u8, reader: &mut Reader<'_>) -> Result<Path, WireError> {
    let (len, cursor) = (usize::from(hops >> 4), usize::from(hops & FOUR_BITS));
    let mut pops = [PopKey::default(); MAX_DETOURED_PATH];
    let listed = pops.get_mut(..len).ok_or(PathError::Length(len))?;
    let (keys, _) = reader.take(POP * len)?.as_chunks();
    listed.iter_mut().zip(keys).for_each(|(pop, &key)| *pop = PopKey(u32::from_be_bytes(key)));
    Ok(Path::at(listed, cursor)?)
}

impl Open {
    /// Writes the extension behind its length.
    fn encode(&self, out: &mut impl BufMut) {
        let service = self.service.as_str();
        out.put_u8((OPEN_FIXED - 1 + service.len()) as u8);
        put_text(out, service);
        out.put_u16(self.port_offset);
        out.put_u32(u32::try_from(self.deadline.as_micros()).unwrap_or(u32::MAX));
        out.put_u8(match self.redundancy {
            Redundancy::Single => 0,
            Redundancy::Disjoint => 1,
        });
    }

    /// Reads the extension; what a later version appended to it is skipped.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let len = usize::from(reader.u8()?);
        let mut reader = Reader::new(reader.take(len)?);
        Ok(Self {
            service: reader.name("service", ServiceName::MAX_LEN)?,
            port_offset: reader.u16()?,
            deadline: Duration::from_micros(u64::from(reader.u32()?)),
            redundancy: match reader.u8()? {
                0 => Redundancy::Single,
                1 => Redundancy::Disjoint,
                unknown => return Err(WireError::UnknownRedundancy(unknown)),
            },
        })
    }
}
