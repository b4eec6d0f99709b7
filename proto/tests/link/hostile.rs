//! Whatever arrives: no panic, bounded memory and answers, and no packet twice.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use tradewind_proto::frame::{Frame, Heartbeat, Report, Shard};
use tradewind_proto::link::{Heat, Link, LinkConfig, LinkEvent, Recovery};
use tradewind_proto::units::{Class, GroupId, LinkSeq, Timestamp, WireTime};

use crate::channel::{Bench, Channel, DATAGRAM, assert_balance, header, outbound};

fn start() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

/// A link that has some packets out.
fn busy_link() -> Link {
    let mut link = Link::new(
        LinkConfig { datagram: DATAGRAM, peer_clock_offset: 0, recovery: Recovery::Plan },
        start(),
    );
    for seq in 0..40 {
        let deadline = Duration::from_millis(200);
        link.send(outbound(seq, 300, deadline, Class::Video, start()), start()).unwrap();
    }
    while link.poll_transmit(start()).is_some() {}
    link
}

/// Feeds datagrams, a millisecond apart; gives how many datagrams the link sent.
fn feed(link: &mut Link, datagrams: impl IntoIterator<Item = Bytes>) -> usize {
    let mut sent = 0;
    for (millis, datagram) in (1..).zip(datagrams) {
        let now = start() + Duration::from_millis(millis);
        link.handle_datagram(datagram, now);
        link.handle_timeout(now);
        while link.poll_event().is_some() {}
        while link.poll_transmit(now).is_some() {
            sent += 1;
        }
        assert!(link.poll_timeout() > now);
    }
    sent
}

fn packet() -> impl Strategy<Value = Bytes> {
    let valid = (any::<u32>(), 0..60_000u64, 0..300usize).prop_map(|(seq, millis, len)| {
        let mut packet = BytesMut::new();
        header(seq, Class::Audio, Duration::from_millis(millis)).encode(&mut packet);
        packet.resize(packet.len() + len, 7);
        packet.freeze()
    });
    prop_oneof![valid, vec(any::<u8>(), 1..100).prop_map(Bytes::from)]
}

/// Valid frames with numbers that are near enough to meet, or far off.
fn frame() -> impl Strategy<Value = Frame> {
    let number = || prop_oneof![0..100u32, any::<u32>()];
    let seq = || number().prop_map(LinkSeq);
    let group = || prop_oneof![0..8u32, any::<u32>()].prop_map(GroupId::new);
    let time = || {
        let near = (0..10_000u32).prop_map(|ahead| start().wire().0.wrapping_add(ahead));
        prop_oneof![near, any::<u32>()].prop_map(WireTime)
    };
    let data = (seq(), group(), 0..64u8, packet(), any::<bool>()).prop_map(
        |(seq, group, index, packet, again)| {
            let shard = Shard { group, index };
            if again {
                Frame::Repeat { seq, shard, packet }
            } else {
                Frame::Data { seq, shard, packet }
            }
        },
    );
    let parity = (seq(), group(), 64..=255u8, 1..=64u8, vec(any::<u8>(), 3..100)).prop_map(
        |(seq, group, index, k, symbol)| Frame::Parity {
            seq,
            shard: Shard { group, index },
            k,
            symbol: symbol.into(),
        },
    );
    let report = (any::<u16>(), time(), seq(), time(), vec(any::<u8>(), 0..512)).prop_map(
        |(number, at, largest, largest_at, received)| {
            Frame::Report(Report { number, at, largest, largest_at, received: received.into() })
        },
    );
    let heartbeat = (seq(), time(), number()).prop_map(|(seq, sent_at, data_sent)| {
        Frame::Heartbeat(Heartbeat { seq, sent_at, data_sent })
    });
    let probe = (seq(), time(), any::<u8>(), any::<u8>(), 0..100u16).prop_map(
        |(seq, sent_at, train, index, padding)| Frame::Probe {
            seq,
            sent_at,
            train,
            index,
            padding,
        },
    );
    prop_oneof![data, parity, report, heartbeat, probe]
}

fn datagram(frames: &[Frame]) -> Bytes {
    let mut out = BytesMut::new();
    for (at, frame) in frames.iter().enumerate() {
        frame.encode(at + 1 == frames.len(), &mut out);
    }
    out.freeze()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_do_no_harm(datagrams in vec(vec(any::<u8>(), 0..200), 1..100)) {
        let mut link = busy_link();
        let count = datagrams.len();
        let sent = feed(&mut link, datagrams.into_iter().map(Bytes::from));
        prop_assert!(sent <= 40 * 3 + count);
        prop_assert_eq!(link.counters().datagram_rx, count as u64);
    }

    #[test]
    fn random_frames_do_no_harm(datagrams in vec(vec(frame(), 1..4), 1..100)) {
        let mut link = busy_link();
        let count = datagrams.len();
        let sent = feed(&mut link, datagrams.iter().map(|frames| datagram(frames)));
        // At most what a group may be sent of repairs, and one report or heartbeat per step.
        prop_assert!(sent <= 40 * 6 + 2 * count, "{}", sent);
        let end = start() + Duration::from_secs(10);
        link.handle_timeout(end);
        while link.poll_transmit(end).is_some() {}
        prop_assert!(link.poll_timeout() > end);
    }
}

/// Reports that always claim a loss must not make the sender flood.
#[test]
fn a_neighbour_that_denies_everything_gets_no_flood() {
    let mut link = busy_link();
    link.set_heat(Heat::Hot, start());
    let mut payload = 0;
    for millis in 1..2000u64 {
        let now = start() + Duration::from_millis(millis);
        let deadline = Duration::from_millis(500);
        if link.send(outbound(millis as u32, 1000, deadline, Class::Video, now), now).is_ok() {
            payload += 1000;
        }
        let largest = LinkSeq(link.counters().data_tx as u32);
        let (at, largest_at) = (now.wire(), now.wire());
        let received = Bytes::from(vec![0; 500]);
        let report = Frame::Report(Report { number: 0, at, largest, largest_at, received });
        link.handle_datagram(datagram(&[report]), now);
        while link.poll_transmit(now).is_some() {}
        while link.poll_event().is_some() {}
    }
    let bytes = link.counters().bytes_tx;
    assert!(bytes <= payload * 28 / 10, "{bytes} bytes for {payload}");
}

/// Runs a flow of 4,000 packets; gives how often each number came.
fn counts_over(channel: Channel, seed: u64) -> Vec<u32> {
    let mut bench = Bench::new(channel, seed);
    for seq in 0..4000 {
        let _ = bench.send(seq, 100 + (seq as usize * 37) % 1200, Duration::from_millis(300));
        bench.run_for(Duration::from_micros(700));
    }
    bench.run_for(Duration::from_secs(2));
    let mut counts = vec![0; 4000];
    for (_, inbound) in &bench.ends[1].received {
        if let Some(count) = counts.get_mut(inbound.header.seq.0 as usize) {
            *count += 1;
        }
    }
    if channel.corrupt == 0.0 {
        assert_balance(&bench);
    }
    counts
}

#[test]
fn reordered_and_duplicated_datagrams_deliver_each_packet_at_most_once() {
    let wrong =
        Channel { jitter: Duration::from_millis(15), duplicate: 0.1, ..Channel::lossy(0.1) };
    for seed in 0..5 {
        let counts = counts_over(wrong, seed);
        assert!(counts.iter().all(|&count| count <= 1), "seed {seed}");
        let never = counts.iter().filter(|&&count| count == 0).count();
        assert!(never <= 2, "seed {seed}: {never} packets never came");
    }
}

/// QUIC lets no corrupted datagram through, so nothing is asked but to survive.
#[test]
fn corrupted_datagrams_do_no_harm() {
    for seed in 0..5 {
        let counts = counts_over(Channel { corrupt: 0.05, ..Channel::lossy(0.1) }, seed);
        assert!(counts.iter().any(|&count| count > 0));
    }
}

#[test]
fn events_are_only_what_came() {
    let mut link = busy_link();
    feed(&mut link, [Bytes::from_static(&[0xff; 40])]);
    assert!(!matches!(link.poll_event(), Some(LinkEvent::Received(_))));
    assert_eq!(link.counters().malformed_rx, 1);
}
