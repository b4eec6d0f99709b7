//! Link frames: what one datagram between two neighbours is made of.
//!
//! A datagram holds one or more frames; every frame but the last carries its length. Which frames
//! are sent when, and what a receiver makes of them, is the business of [`crate::link`].

use bytes::{Buf, BufMut, Bytes};

use crate::units::{GroupId, LinkSeq, WireTime};
use crate::wire::{Reader, WireError};

/// The first row of parity; rows below it are data.
pub const FIRST_PARITY: u8 = 64;
/// The most packets that one group holds.
pub const MAX_GROUP: u8 = 64;
/// The longest map of a [`Report`], in bytes.
pub const MAX_REPORT_MAP: usize = 512;
/// Bytes of a data or repeat frame beside the packet, when it is the last of its datagram.
pub const DATA_OVERHEAD: usize = 9;
/// Bytes of a parity frame beside the symbol, when it is the last of its datagram.
pub const PARITY_OVERHEAD: usize = 10;
/// Bytes that a frame takes more when another follows it.
pub const LENGTH_OVERHEAD: usize = 2;

/// The shortest symbol: the length of a packet, and a packet of one byte.
const MIN_SYMBOL: usize = 3;

/// Where a shard belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its group.
    pub group: GroupId,
    /// Its row: data 0 to 63, parity from 64.
    pub index: u8,
}

/// One frame. Byte slices are parts of the datagram, not copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A packet, sent for the first time.
    Data {
        /// Its place among all that the link sent.
        seq: LinkSeq,
        /// Its place in a group.
        shard: Shard,
        /// The packet, not empty.
        packet: Bytes,
    },
    /// A packet sent again, bit for bit.
    Repeat {
        /// Its place among all that the link sent: a new one with each repetition.
        seq: LinkSeq,
        /// Its place in a group, as at first.
        shard: Shard,
        /// The packet, not empty.
        packet: Bytes,
    },
    /// A combination of the group's `k` packets. See [`crate::link`] and `PROTOCOL.md`.
    Parity {
        /// Its place among all that the link sent.
        seq: LinkSeq,
        /// Its place in a group.
        shard: Shard,
        /// How many packets the group holds, 1 to [`MAX_GROUP`].
        k: u8,
        /// The combination: of the packets' lengths in two bytes, then of their bytes.
        symbol: Bytes,
    },
    /// What the receiver has.
    Report(Report),
    /// The link is alive.
    Heartbeat(Heartbeat),
    /// One of a train, padded to the full datagram.
    Probe {
        /// Its place among all that the link sent.
        seq: LinkSeq,
        /// The sender's clock.
        sent_at: WireTime,
        /// Counts trains (wrapping).
        train: u8,
        /// Its place in the train, from 0.
        index: u8,
        /// Bytes without meaning that follow.
        padding: u16,
    },
}

/// Sent on a hot, silent link every 10 ms, on a cold one every second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its place among all that the link sent.
    pub seq: LinkSeq,
    /// The sender's clock.
    pub sent_at: WireTime,
    /// Data shards sent for the first time so far (wrapping), so that the receiver can count what
    /// it never saw.
    pub data_sent: u32,
}

/// Which numbers arrived: a selective acknowledgement of everything that took a [`LinkSeq`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Counts reports (wrapping), so that their loss is known too.
    pub number: u16,
    /// The reporter's clock now.
    pub at: WireTime,
    /// The highest number received.
    pub largest: LinkSeq,
    /// The reporter's clock when it came.
    pub largest_at: WireTime,
    /// Bit `i` of the map (most significant bit of the first byte first): `largest - 1 - i`
    /// arrived. At most [`MAX_REPORT_MAP`] bytes; [`Frame::encode`] leaves out what lies beyond.
    pub received: Bytes,
}

/// In the first byte: a length follows it.
const HAS_LENGTH: u8 = 0x80;

const DATA: u8 = 0;
const REPEAT: u8 = 1;
const PARITY: u8 = 2;
const REPORT: u8 = 3;
const HEARTBEAT: u8 = 4;
const PROBE: u8 = 5;

/// Bytes of a frame's contents before what has no fixed length.
const SHARD_HEAD: usize = DATA_OVERHEAD - 1;
const PARITY_HEAD: usize = PARITY_OVERHEAD - 1;
const REPORT_HEAD: usize = 14;
const HEARTBEAT_HEAD: usize = 12;
const PROBE_HEAD: usize = 10;

impl Frame {
    /// Bytes that [`Self::encode`] writes, with or without a length.
    pub fn encoded_len(&self, last: bool) -> usize {
        1 + if last { 0 } else { LENGTH_OVERHEAD } + self.contents_len()
    }

    /// Appends the frame to a datagram; `last`: nothing follows, so no length is written.
    ///
    /// A frame is shorter than 64 KiB, as the datagram that it is a part of.
    pub fn encode(&self, last: bool, out: &mut impl BufMut) {
        match last {
            true => out.put_u8(self.kind()),
            false => {
                let len = u16::try_from(self.contents_len()).expect("a frame fits into a datagram");
                out.put_u8(self.kind() | HAS_LENGTH);
                out.put_u16(len);
            }
        }
        self.encode_contents(out);
    }

    /// Takes the next frame off the front of `datagram`; `None` when it is empty. After an error
    /// the rest of the datagram is lost.
    pub fn decode(datagram: &mut Bytes) -> Result<Option<Self>, WireError> {
        if datagram.is_empty() {
            return Ok(None);
        }
        let (kind, contents) = split_first(datagram).inspect_err(|_| datagram.clear())?;
        decode_contents(kind, contents).inspect_err(|_| datagram.clear()).map(Some)
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Data { .. } => DATA,
            Self::Repeat { .. } => REPEAT,
            Self::Parity { .. } => PARITY,
            Self::Report(_) => REPORT,
            Self::Heartbeat(_) => HEARTBEAT,
            Self::Probe { .. } => PROBE,
        }
    }

    fn contents_len(&self) -> usize {
        match self {
            Self::Data { packet, .. } | Self::Repeat { packet, .. } => SHARD_HEAD + packet.len(),
            Self::Parity { symbol, .. } => PARITY_HEAD + symbol.len(),
            Self::Report(report) => REPORT_HEAD + report.map().len(),
            Self::Heartbeat(_) => HEARTBEAT_HEAD,
            Self::Probe { padding, .. } => PROBE_HEAD + usize::from(*padding),
        }
    }

    fn encode_contents(&self, out: &mut impl BufMut) {
        match self {
            Self::Data { seq, shard, packet } | Self::Repeat { seq, shard, packet } => {
                out.put_slice(&shard_head(*seq, *shard));
                out.put_slice(packet);
            }
            Self::Parity { seq, shard, k, symbol } => {
                out.put_slice(&shard_head(*seq, *shard));
                out.put_u8(*k);
                out.put_slice(symbol);
            }
            Self::Report(report) => report.encode(out),
            Self::Heartbeat(heartbeat) => {
                out.put_u32(heartbeat.seq.0);
                out.put_u32(heartbeat.sent_at.0);
                out.put_u32(heartbeat.data_sent);
            }
            Self::Probe { seq, sent_at, train, index, padding } => {
                out.put_u32(seq.0);
                out.put_u32(sent_at.0);
                out.put_slice(&[*train, *index]);
                out.put_bytes(0, usize::from(*padding));
            }
        }
    }
}

fn shard_head(seq: LinkSeq, shard: Shard) -> [u8; SHARD_HEAD] {
    let [s0, s1, s2, s3] = seq.0.to_be_bytes();
    let [_, g0, g1, g2] = shard.group.bits().to_be_bytes();
    [s0, s1, s2, s3, g0, g1, g2, shard.index]
}

/// The kind and the contents of the first frame, which leaves the datagram.
fn split_first(datagram: &mut Bytes) -> Result<(u8, Bytes), WireError> {
    let mut reader = Reader::new(datagram);
    let first = reader.u8()?;
    if first & HAS_LENGTH == 0 {
        datagram.advance(1);
        return Ok((first, std::mem::take(datagram)));
    }
    let len = usize::from(reader.u16()?);
    reader.take(len)?;
    datagram.advance(1 + LENGTH_OVERHEAD);
    Ok((first & !HAS_LENGTH, datagram.split_to(len)))
}

fn decode_contents(kind: u8, contents: Bytes) -> Result<Frame, WireError> {
    match kind {
        DATA => {
            let (seq, shard, packet) = decode_packet(contents)?;
            Ok(Frame::Data { seq, shard, packet })
        }
        REPEAT => {
            let (seq, shard, packet) = decode_packet(contents)?;
            Ok(Frame::Repeat { seq, shard, packet })
        }
        PARITY => decode_parity(contents),
        REPORT => Report::decode(contents).map(Frame::Report),
        HEARTBEAT => Heartbeat::decode(&contents).map(Frame::Heartbeat),
        PROBE => decode_probe(&contents),
        unknown => Err(WireError::UnknownFrame(unknown)),
    }
}

fn decode_shard(reader: &mut Reader<'_>) -> Result<(LinkSeq, Shard), WireError> {
    let seq = LinkSeq(reader.u32()?);
    let shard = Shard { group: GroupId::new(reader.u24()?), index: reader.u8()? };
    Ok((seq, shard))
}

fn decode_packet(mut contents: Bytes) -> Result<(LinkSeq, Shard, Bytes), WireError> {
    let (seq, shard) = decode_shard(&mut Reader::new(&contents))?;
    contents.advance(SHARD_HEAD);
    if shard.index >= FIRST_PARITY {
        return Err(WireError::ShardIndex(shard.index));
    }
    if contents.is_empty() {
        return Err(WireError::ShardLength(0));
    }
    Ok((seq, shard, contents))
}

fn decode_parity(mut contents: Bytes) -> Result<Frame, WireError> {
    let mut reader = Reader::new(&contents);
    let (seq, shard) = decode_shard(&mut reader)?;
    let k = reader.u8()?;
    contents.advance(PARITY_HEAD);
    if shard.index < FIRST_PARITY {
        return Err(WireError::ShardIndex(shard.index));
    }
    if k == 0 || k > MAX_GROUP {
        return Err(WireError::GroupSize(k));
    }
    if contents.len() < MIN_SYMBOL {
        return Err(WireError::ShardLength(contents.len()));
    }
    Ok(Frame::Parity { seq, shard, k, symbol: contents })
}

fn decode_probe(contents: &[u8]) -> Result<Frame, WireError> {
    let mut reader = Reader::new(contents);
    let (seq, sent_at) = (LinkSeq(reader.u32()?), WireTime(reader.u32()?));
    let [train, index] = reader.array()?;
    let limit = usize::from(u16::MAX);
    let too_long = WireError::Length { what: "padding of a probe", len: reader.len(), limit };
    let padding = u16::try_from(reader.len()).map_err(|_| too_long)?;
    Ok(Frame::Probe { seq, sent_at, train, index, padding })
}

impl Heartbeat {
    fn decode(contents: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(contents);
        let seq = LinkSeq(reader.u32()?);
        let (sent_at, data_sent) = (WireTime(reader.u32()?), reader.u32()?);
        reader.finish()?;
        Ok(Self { seq, sent_at, data_sent })
    }
}

impl Report {
    fn map(&self) -> &[u8] {
        &self.received[..self.received.len().min(MAX_REPORT_MAP)]
    }

    fn encode(&self, out: &mut impl BufMut) {
        out.put_u16(self.number);
        out.put_u32(self.at.0);
        out.put_u32(self.largest.0);
        out.put_u32(self.largest_at.0);
        out.put_slice(self.map());
    }

    fn decode(mut contents: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(&contents);
        let number = reader.u16()?;
        let at = WireTime(reader.u32()?);
        let largest = LinkSeq(reader.u32()?);
        let largest_at = WireTime(reader.u32()?);
        contents.advance(REPORT_HEAD);
        if contents.len() > MAX_REPORT_MAP {
            let (len, limit) = (contents.len(), MAX_REPORT_MAP);
            return Err(WireError::Length { what: "map of a report", len, limit });
        }
        Ok(Self { number, at, largest, largest_at, received: contents })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::mutation::mutated;

    const SEQ: LinkSeq = LinkSeq(0x0102_0304);

    fn shard(index: u8) -> Shard {
        Shard { group: GroupId::new(0x0a_0b0c), index }
    }

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, frame) in frames.iter().enumerate() {
            let (before, last) = (out.len(), at + 1 == frames.len());
            frame.encode(last, &mut out);
            assert_eq!(out.len() - before, frame.encoded_len(last));
        }
        out
    }

    fn all_of(datagram: &[u8]) -> Result<Vec<Frame>, WireError> {
        let mut datagram = Bytes::copy_from_slice(datagram);
        let mut frames = Vec::new();
        while let Some(frame) = Frame::decode(&mut datagram)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// One frame of each kind, and its bytes at the end of a datagram.
    fn samples() -> [(Frame, Vec<u8>); 6] {
        let (seq, sent_at) = (SEQ, WireTime(5));
        let packet = Bytes::from_static(b"pkt");
        let symbol = Bytes::from_static(b"sym");
        let (number, at, largest) = (258, WireTime(6), LinkSeq(7));
        let (largest_at, received) = (WireTime(8), Bytes::from_static(&[0xc0]));
        [
            (
                Frame::Data { seq, shard: shard(63), packet: packet.clone() },
                b"\0\x01\x02\x03\x04\x0a\x0b\x0c\x3fpkt".into(),
            ),
            (
                Frame::Repeat { seq, shard: shard(0), packet },
                b"\x01\x01\x02\x03\x04\x0a\x0b\x0c\0pkt".into(),
            ),
            (
                Frame::Parity { seq, shard: shard(64), k: 20, symbol },
                b"\x02\x01\x02\x03\x04\x0a\x0b\x0c\x40\x14sym".into(),
            ),
            (
                Frame::Report(Report { number, at, largest, largest_at, received }),
                b"\x03\x01\x02\0\0\0\x06\0\0\0\x07\0\0\0\x08\xc0".into(),
            ),
            (
                Frame::Heartbeat(Heartbeat { seq, sent_at, data_sent: 9 }),
                b"\x04\x01\x02\x03\x04\0\0\0\x05\0\0\0\x09".into(),
            ),
            (
                Frame::Probe { seq, sent_at, train: 10, index: 11, padding: 2 },
                b"\x05\x01\x02\x03\x04\0\0\0\x05\x0a\x0b\0\0".into(),
            ),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        for (frame, bytes) in samples() {
            assert_eq!(bytes_of(std::slice::from_ref(&frame)), bytes, "{frame:?}");
            assert_eq!(all_of(&bytes), Ok(vec![frame.clone()]));

            let len = (bytes.len() - 1) as u8;
            let inner = [&[bytes[0] | 0x80, 0, len], &bytes[1..], &bytes[..]].concat();
            assert_eq!(bytes_of(&[frame.clone(), frame.clone()]), inner, "{frame:?}");
            assert_eq!(all_of(&inner), Ok(vec![frame.clone(), frame]));
        }
    }

    #[test]
    fn packets_are_not_copied() {
        let [(frame, bytes), ..] = samples();
        let mut datagram = Bytes::from(bytes_of(&[frame.clone(), frame]));
        let range = datagram.as_ptr_range();
        while let Some(frame) = Frame::decode(&mut datagram).unwrap() {
            let Frame::Data { packet, .. } = frame else { panic!("{frame:?}, {bytes:?}") };
            assert!(range.contains(&packet.as_ptr()));
        }
    }

    #[test]
    fn malformed_frames_are_refused_and_the_rest_is_lost() {
        let shard = |kind, index, rest: &[u8]| [&[kind, 1, 2, 3, 4, 0, 0, 1, index], rest].concat();
        let cut = |need, got| WireError::Truncated { need, got };
        let report = [&[3; 15][..], &[0; 513]].concat();
        let map_length = WireError::Length { what: "map of a report", len: 513, limit: 512 };
        for (name, bytes, error) in [
            ("unknown kind", vec![6], WireError::UnknownFrame(6)),
            ("reserved bit", vec![0x40], WireError::UnknownFrame(0x40)),
            ("cut in its length", vec![0x84, 0], cut(2, 1)),
            ("longer than the datagram", vec![0x84, 0, 2, 0], cut(2, 1)),
            ("cut in its number", vec![0, 1, 2], cut(4, 2)),
            ("data in a row of parity", shard(0, 64, b"pkt"), WireError::ShardIndex(64)),
            ("empty packet", shard(0, 1, b""), WireError::ShardLength(0)),
            ("repeat in a row of parity", shard(1, 255, b"pkt"), WireError::ShardIndex(255)),
            ("parity in a row of data", shard(2, 63, b"\x01sym"), WireError::ShardIndex(63)),
            ("group of none", shard(2, 64, b"\0sym"), WireError::GroupSize(0)),
            ("group of too many", shard(2, 64, b"\x41sym"), WireError::GroupSize(65)),
            ("short symbol", shard(2, 64, b"\x01sy"), WireError::ShardLength(2)),
            ("short report", vec![3; 14], cut(4, 3)),
            ("long map", report, map_length),
            ("short heartbeat", vec![4; 12], cut(4, 3)),
            ("long heartbeat", vec![4; 14], WireError::TrailingBytes(1)),
            ("short probe", vec![5; 10], cut(2, 1)),
        ] {
            let mut datagram = Bytes::from(bytes);
            assert_eq!(Frame::decode(&mut datagram), Err(error), "{name}");
            assert_eq!(Frame::decode(&mut datagram), Ok(None), "{name}");
        }
    }

    #[test]
    fn a_bad_frame_costs_the_good_ones_behind_it() {
        let mut datagram = Bytes::from([&[0x84, 0, 1, 9], &samples()[4].1[..]].concat());
        let error = WireError::Truncated { need: 4, got: 1 };
        assert_eq!(Frame::decode(&mut datagram), Err(error));
        assert_eq!(Frame::decode(&mut datagram), Ok(None));
    }

    #[test]
    fn padding_means_nothing() {
        let mut bytes = samples()[5].1.clone();
        *bytes.last_mut().unwrap() = 0xff;
        assert_eq!(all_of(&bytes), Ok(vec![samples()[5].0.clone()]));
    }

    #[test]
    fn a_map_is_cut_to_its_limit() {
        let received = Bytes::from(vec![0xff; 600]);
        let [.., (Frame::Report(report), _), _, _] = samples() else { panic!("no report") };
        let decoded = all_of(&bytes_of(&[Frame::Report(Report { received, ..report.clone() })]));
        let received = Bytes::from(vec![0xff; MAX_REPORT_MAP]);
        assert_eq!(decoded, Ok(vec![Frame::Report(Report { received, ..report })]));
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let seq = || any::<u32>().prop_map(LinkSeq);
        let time = || any::<u32>().prop_map(WireTime);
        let shard = |rows: std::ops::RangeInclusive<u8>| {
            (any::<u32>(), rows)
                .prop_map(|(group, index)| Shard { group: GroupId::new(group), index })
        };
        let bytes = |len| vec(any::<u8>(), len).prop_map(Bytes::from);
        prop_oneof![
            (seq(), shard(0..=63), bytes(1..200)).prop_map(|(seq, shard, packet)| Frame::Data {
                seq,
                shard,
                packet
            }),
            (seq(), shard(0..=63), bytes(1..200)).prop_map(|(seq, shard, packet)| Frame::Repeat {
                seq,
                shard,
                packet
            }),
            (seq(), shard(64..=255), 1u8..=64, bytes(3..200))
                .prop_map(|(seq, shard, k, symbol)| Frame::Parity { seq, shard, k, symbol }),
            (any::<u16>(), time(), seq(), time(), bytes(0..513)).prop_map(
                |(number, at, largest, largest_at, received)| {
                    Frame::Report(Report { number, at, largest, largest_at, received })
                }
            ),
            (seq(), time(), any::<u32>()).prop_map(|(seq, sent_at, data_sent)| {
                Frame::Heartbeat(Heartbeat { seq, sent_at, data_sent })
            }),
            (seq(), time(), any::<u8>(), any::<u8>(), 0u16..1500).prop_map(
                |(seq, sent_at, train, index, padding)| {
                    Frame::Probe { seq, sent_at, train, index, padding }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(frames in vec(any_frame(), 0..6)) {
            prop_assert_eq!(all_of(&bytes_of(&frames)), Ok(frames));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn no_bytes_panic(datagram in vec(any::<u8>(), 0..128)) {
            let _ = all_of(&datagram);
        }

        #[test]
        fn what_is_accepted_is_understood(
            datagram in mutated(vec(any_frame(), 1..4).prop_map(|frames| bytes_of(&frames))),
        ) {
            if let Ok(frames) = all_of(&datagram) {
                prop_assert_eq!(all_of(&bytes_of(&frames)), Ok(frames));
            }
        }
    }
}
