//! Headers: their bytes, what is refused, and that nothing is lost on the way.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::frame::{DATA_OVERHEAD, Frame, Shard};
use crate::units::{GroupId, LinkSeq};
use crate::wire::mutation::mutated;

fn keys(numbers: &[u32]) -> Vec<PopKey> {
    numbers.iter().copied().map(PopKey).collect()
}

/// Fixed: the bytes below depend on it.
fn sample() -> Header {
    Header {
        kind: PacketKind::Data,
        class: Class::Video,
        reverse: false,
        key_epoch: 2,
        policy: PolicyId(0x0a0b_0c0d),
        flow: FlowId { ingress: PopKey(0xaaaa_aaaa), incarnation: 0x1122_3344, number: 5 },
        seq: FlowSeq(0x0102_0304),
        fragment: Fragment { index: 1, count: 3 },
        sent_at: WireTime(0x5566_7788),
        budget: Budget::from_micros(300_000),
        path: Path::at(&keys(&[0xaaaa_aaaa, 0xbbbb_bbbb, 0xcccc_cccc]), 1).unwrap(),
        open: None,
    }
}

fn opening() -> Header {
    let service = "sfu".parse().unwrap();
    let deadline = Duration::from_millis(200);
    let redundancy = Redundancy::Disjoint;
    Header { open: Some(Open { service, port_offset: 7, deadline, redundancy }), ..sample() }
}

#[rustfmt::skip]
const SAMPLE: [u8; 39] = [
    0x12, // data, video, no open extension, forward, key epoch 2
    0x0a, 0x0b, 0x0c, 0x0d, // policy
    0x11, 0x22, 0x33, 0x44, // incarnation
    0, 0, 0, 5, // number of the flow
    1, 2, 3, 4, // number of the packet
    1, 3, // the second of three fragments
    0x55, 0x66, 0x77, 0x88, // sent at
    0x04, 0x93, 0xe0, // 300,000 us left
    0x31, // three PoPs, at the second
    0xaa, 0xaa, 0xaa, 0xaa, 0xbb, 0xbb, 0xbb, 0xbb, 0xcc, 0xcc, 0xcc, 0xcc,
];

#[rustfmt::skip]
const EXTENSION: [u8; 12] = [
    11, 3, b's', b'f', b'u', 0, 7, 0x00, 0x03, 0x0d, 0x40, 1,
];

fn encoded(header: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode(&mut out);
    out
}

#[test]
fn the_bytes_are_those_of_the_protocol() {
    assert_eq!(encoded(&sample()), SAMPLE);
    assert_eq!(Header::decode(&SAMPLE), Ok((sample(), &[][..])));

    let mut bytes = SAMPLE.to_vec();
    bytes[0] |= 8;
    bytes.extend(EXTENSION);
    assert_eq!(encoded(&opening()), bytes);
    bytes.extend(b"payload");
    assert_eq!(Header::decode(&bytes), Ok((opening(), &b"payload"[..])));
}

#[test]
fn one_of_two_copies_is_a_kind_of_its_own() {
    let mut bytes = SAMPLE;
    bytes[0] |= 0x80;
    let twin = Header { kind: PacketKind::Twin, ..sample() };
    assert_eq!(encoded(&twin), bytes);
    assert_eq!(Header::decode(&bytes), Ok((twin, &[][..])));
}

#[test]
fn the_ingress_is_where_a_reverse_path_ends() {
    let mut back = SAMPLE;
    back[0] |= 4;
    let (header, _) = Header::decode(&back).unwrap();
    assert_eq!(header.flow.ingress, PopKey(0xcccc_cccc));
    assert_eq!(encoded(&header), back);
}

#[test]
fn all_headers_together_take_48_bytes_on_two_hops() {
    let packet = encoded(&sample()).into();
    let shard = Shard { group: GroupId::new(1), index: 0 };
    let frame = Frame::Data { seq: LinkSeq(1), shard, packet };
    assert_eq!(frame.encoded_len(true), 48);
    assert_eq!(sample().encoded_len() + DATA_OVERHEAD, 48);
}

#[test]
fn malformed_packets_are_refused() {
    let with = |at: usize, byte: u8| {
        let mut bytes = SAMPLE.to_vec();
        bytes[at] = byte;
        bytes
    };
    let open = |extension: &[u8]| [&with(0, 0x1a)[..], extension].concat();
    let cut = |need, got| WireError::Truncated { need, got };
    for (name, packet, error) in [
        ("empty", vec![], cut(27, 0)),
        ("cut in its path", SAMPLE[..38].to_vec(), cut(12, 11)),
        ("of unknown kind", with(0, 0xd2), WireError::UnknownPacketKind(3)),
        ("of unknown class", with(0, 0x32), WireError::UnknownClass(3)),
        ("fragment beyond the last", with(17, 3), WireError::Fragment { index: 3, count: 3 }),
        ("no fragments", with(18, 0), WireError::Fragment { index: 1, count: 0 }),
        ("no path", with(26, 0x00), PathError::Length(0).into()),
        ("long path", with(26, 0x91), PathError::Length(9).into()),
        ("beyond its path", with(26, 0x33), PathError::Cursor { cursor: 3, len: 3 }.into()),
        (
            "looping",
            [&SAMPLE[..35], &SAMPLE[27..31]].concat(),
            PathError::Loop(PopKey(0xaaaa_aaaa)).into(),
        ),
        ("without its extension", open(&[]), cut(1, 0)),
        ("cut in its extension", open(&EXTENSION[..5]), cut(11, 4)),
        ("short extension", open(&[4, 3, b's', b'f', b'u', 0]), cut(2, 0)),
        ("bad name", open(&[9, 1, b' ', 0, 0, 0, 0, 0, 0, 0]), WireError::Text("service")),
        (
            "unknown redundancy",
            open(&[9, 1, b's', 0, 0, 0, 0, 0, 0, 2]),
            WireError::UnknownRedundancy(2),
        ),
    ] {
        assert_eq!(Header::decode(&packet), Err(error), "{name}");
    }
}

#[test]
fn what_later_versions_append_to_an_extension_is_skipped() {
    let mut bytes = encoded(&opening());
    bytes[39] += 2;
    bytes.extend([0xde, 0xad, b'p']);
    assert_eq!(Header::decode(&bytes), Ok((opening(), &b"p"[..])));
}

#[test]
fn the_longest_extension_fits() {
    let service = "x".repeat(ServiceName::MAX_LEN).parse().unwrap();
    let deadline = Duration::MAX;
    let open = Open { service, port_offset: 0, deadline, redundancy: Redundancy::Single };
    let header = Header { open: Some(open), ..sample() };
    let bytes = encoded(&header);
    assert_eq!(bytes.len(), header.encoded_len());
    let (decoded, _) = Header::decode(&bytes).unwrap();
    let deadline = Duration::from_micros(u32::MAX.into());
    assert_eq!(decoded.open.map(|open| open.deadline), Some(deadline), "cut to its bits");
}

fn any_path() -> impl Strategy<Value = Path> {
    let pops = prop::collection::btree_set(any::<u32>(), 1..=MAX_DETOURED_PATH);
    let pops = pops.prop_map(|pops| pops.into_iter().collect::<Vec<_>>()).prop_shuffle();
    (pops, any::<prop::sample::Index>())
        .prop_map(|(pops, at)| Path::at(&keys(&pops), at.index(pops.len())).unwrap())
}

fn any_open() -> impl Strategy<Value = Open> {
    let redundancy = prop_oneof![Just(Redundancy::Single), Just(Redundancy::Disjoint)];
    ("[A-Za-z0-9._-]{1,64}", any::<u16>(), any::<u32>(), redundancy).prop_map(
        |(service, port_offset, deadline, redundancy)| Open {
            service: service.parse().unwrap(),
            port_offset,
            deadline: Duration::from_micros(deadline.into()),
            redundancy,
        },
    )
}

fn any_header() -> impl Strategy<Value = Header> {
    let kind = prop::sample::select(vec![PacketKind::Data, PacketKind::Signal, PacketKind::Twin]);
    let flags = (kind, prop::sample::select(&Class::ALL[..]), any::<bool>(), 0u8..4);
    let fragment = (1u8..).prop_flat_map(|count| (0..count, Just(count)));
    let numbers = (any::<[u32; 5]>(), fragment, 0u32..1 << 24);
    (flags, numbers, any_path(), prop::option::of(any_open())).prop_map(
        |((kind, class, reverse, key_epoch), numbers, path, open)| {
            let ([policy, incarnation, number, seq, sent_at], (index, count), budget) = numbers;
            let flow = FlowId { ingress: ingress(&path, reverse), incarnation, number };
            Header {
                kind,
                class,
                reverse,
                key_epoch,
                policy: PolicyId(policy),
                flow,
                seq: FlowSeq(seq),
                fragment: Fragment { index, count },
                sent_at: WireTime(sent_at),
                budget: Budget::from_micros(budget),
                path,
                open,
            }
        },
    )
}

proptest! {
    #[test]
    fn headers_come_out_as_they_went_in(
        header in any_header(),
        payload in vec(any::<u8>(), 0..64),
    ) {
        let mut packet = encoded(&header);
        prop_assert_eq!(packet.len(), header.encoded_len());
        packet.extend(&payload);
        prop_assert_eq!(Header::decode(&packet), Ok((header, &payload[..])));
    }

    #[test]
    fn no_prefix_is_a_header(header in any_header(), cut in any::<prop::sample::Index>()) {
        let packet = encoded(&header);
        prop_assert!(Header::decode(&packet[..cut.index(packet.len())]).is_err());
    }

    #[test]
    fn ways_back_lead_back(path in any_path()) {
        let back = path.reversed();
        prop_assert_eq!((back.here(), back.last()), (path.here(), path.first()));
        prop_assert_eq!(Path::new(back.pops()), Ok(back));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_bytes_panic(packet in vec(any::<u8>(), 0..128)) {
        let _ = Header::decode(&packet);
    }

    #[test]
    fn what_is_accepted_is_understood(packet in mutated(any_header().prop_map(|h| encoded(&h)))) {
        if let Ok((header, payload)) = Header::decode(&packet) {
            let again = [&encoded(&header)[..], payload].concat();
            prop_assert_eq!(Header::decode(&again), Ok((header.clone(), payload)));
            if header.open.is_none() {
                prop_assert_eq!(again, packet);
            }
        }
    }
}
