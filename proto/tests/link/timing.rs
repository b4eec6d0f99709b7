//! When links act: wake-ups, heartbeats, silence, packing, expiry, salvage.

use std::collections::BTreeSet;
use std::time::Duration;

use tradewind_proto::link::{Heat, Liveness, Refused};
use tradewind_proto::units::Class;

use crate::channel::{Bench, Channel, DATAGRAM, assert_balance, outbound};

const MILLI: Duration = Duration::from_millis(1);

/// A bench whose links are hot and have met.
fn warm(channel: Channel, seed: u64) -> Bench {
    let mut bench = Bench::new(channel, seed);
    for end in 0..2 {
        let now = bench.clock(end);
        bench.ends[end].link.set_heat(Heat::Hot, now);
    }
    bench.run_for(Duration::from_secs(1));
    bench
}

#[test]
fn silent_links_wake_rarely() {
    // Cold, each of the 20 heartbeats is answered by a report.
    for (heat, most_wakes, most_bytes) in [(Heat::Cold, 45, 1000), (Heat::Hot, 2600, 130_000)] {
        let mut bench = Bench::new(Channel::lossy(0.0), 1);
        for end in 0..2 {
            let now = bench.clock(end);
            bench.ends[end].link.set_heat(heat, now);
        }
        bench.run_for(Duration::from_secs(2));
        let before = (bench.wakes, bench.counters(0).bytes_tx);
        bench.run_for(Duration::from_secs(10));
        let (wakes, bytes) = (bench.wakes - before.0, bench.counters(0).bytes_tx - before.1);
        assert!(
            wakes <= most_wakes && bytes <= most_bytes,
            "{heat:?}: {wakes} wakes, {bytes} bytes"
        );
        assert_eq!(bench.ends[0].liveness, [Liveness::Up], "{heat:?}");
    }
}

#[test]
fn both_ends_measure_what_the_channel_does() {
    let mut bench = warm(Channel::lossy(0.0), 3);
    bench.run_for(Duration::from_secs(1));
    let [a, b] = [0, 1].map(|end| bench.ends[end].link.quality());
    assert_eq!(a.rtt, Some(40 * MILLI));
    assert_eq!(b.min_rtt, Some(40 * MILLI));
    assert_eq!((a.raw_delay_tx, a.raw_delay_rx), (b.raw_delay_rx, b.raw_delay_tx));
    let sum = a.raw_delay_tx.unwrap() + a.raw_delay_rx.unwrap();
    assert_eq!(sum, 40_000, "the clocks' offset cancels");
    assert_eq!((a.loss_tx, b.loss_rx), (0.0, 0.0));
}

#[test]
fn a_probe_train_shows_loss_before_first_use() {
    let mut bench = Bench::new(Channel::lossy(0.0), 1);
    bench.channels[0].loss = 0.5;
    for _ in 0..20 {
        let now = bench.clock(0);
        bench.ends[0].link.probe(now);
        bench.flush(0);
        bench.run_for(200 * MILLI);
    }
    assert_eq!(bench.largest, DATAGRAM);
    let loss = bench.ends[0].link.quality().loss_tx;
    assert!((0.3..0.7).contains(&loss), "{loss}");
}

#[test]
fn the_last_packets_before_silence_are_repaired() {
    for seed in 0..200 {
        let mut bench = warm(Channel::lossy(0.0), seed);
        let packets = 1 + seed as u32 % 5;
        bench.channels[0].loss = 1.0;
        for seq in 0..packets {
            bench.send(seq, 1000, 200 * MILLI).unwrap();
        }
        bench.run_for(MILLI);
        bench.channels[0].loss = 0.0;
        bench.run_for(150 * MILLI);
        assert_eq!(bench.ends[1].received.len() as u32, packets, "seed {seed}");
        bench.run_for(Duration::from_secs(2));
        assert_balance(&bench);
    }
}

#[test]
fn packets_of_which_nothing_came_are_counted_lost_after_the_silence() {
    for heat in [Heat::Hot, Heat::Cold] {
        let mut bench = warm(Channel::lossy(0.0), 5);
        let now = bench.clock(0);
        bench.ends[0].link.set_heat(heat, now);
        bench.channels[0].loss = 1.0;
        for seq in 0..100 {
            let _ = bench.send(seq, 200, 60 * MILLI);
            bench.run_for(MILLI);
        }
        bench.run_for(50 * MILLI);
        bench.channels[0].loss = 0.0;
        bench.run_for(Duration::from_secs(2));
        assert_eq!(bench.counters(1).lost_rx, bench.counters(0).data_tx, "{heat:?}");
        bench.send(1000, 200, 200 * MILLI).unwrap();
        bench.run_for(Duration::from_secs(2));
        assert_balance(&bench);
        assert_eq!(bench.ends[1].received.len(), 1);
    }
}

#[test]
fn repaired_packets_are_charged_for_their_real_age() {
    let mut bench = warm(Channel::lossy(0.2), 7);
    for seq in 0..2000 {
        bench.send(seq, 1000, 150 * MILLI).unwrap();
        bench.run_for(MILLI);
    }
    bench.run_for(Duration::from_secs(2));
    let mut repaired = 0;
    let start = bench.now.minus(Duration::from_secs(2) + 2000 * MILLI);
    for (at, inbound) in &bench.ends[1].received {
        let age = at.since(start + MILLI * inbound.header.seq.0);
        let left = inbound.header.budget.span();
        let expected = 150 * MILLI - age;
        assert!(left.abs_diff(expected) <= MILLI, "{age:?} old, {left:?} left");
        repaired += u32::from(age > 40 * MILLI);
    }
    assert!(repaired > 200);
}

#[test]
fn small_packets_share_datagrams() {
    let mut bench = warm(Channel::lossy(0.0), 1);
    let before = bench.counters(0).datagram_tx;
    let now = bench.clock(0);
    for seq in 0..70 {
        let packet = outbound(seq, 100, 200 * MILLI, Class::Audio, now);
        bench.ends[0].link.send(packet, now).unwrap();
    }
    bench.flush(0);
    assert!(bench.counters(0).datagram_tx - before <= 9);
    bench.run_for(100 * MILLI);
    assert_eq!(bench.ends[1].received.len(), 70);
    assert!(bench.largest <= DATAGRAM);
}

#[test]
fn what_cannot_be_carried_is_refused() {
    let mut bench = warm(Channel::lossy(0.0), 1);
    let overhead = outbound(0, 4, MILLI, Class::Video, bench.now).header.encoded_len();
    let most = bench.ends[0].link.max_packet() - overhead;
    assert_eq!(bench.send(0, most + 1, 100 * MILLI), Err(Refused::TooLarge));
    assert_eq!(bench.send(1, most, 100 * MILLI), Ok(()));
    assert_eq!(bench.send(2, 100, 19 * MILLI), Err(Refused::Late));
    assert_eq!(bench.counters(0).expired_tx(), 1);
    let now = bench.clock(0);
    let flood = (3..100_000).map(|seq| outbound(seq, 1000, 500 * MILLI, Class::Bulk, now));
    let refused =
        flood.filter(|packet| bench.ends[0].link.send(packet.clone(), now).is_err()).count();
    assert!(refused > 90_000);
    assert_eq!(bench.counters(0).overflow_tx, refused as u64);
    bench.flush(0);
    bench.run_for(Duration::from_secs(3));
    assert_balance(&bench);
    assert!(bench.largest <= DATAGRAM);
}

#[test]
fn the_largest_packet_can_be_rebuilt() {
    let mut bench = warm(Channel::lossy(0.3), 2);
    let overhead = outbound(0, 4, MILLI, Class::Video, bench.now).header.encoded_len();
    let most = bench.ends[0].link.max_packet() - overhead;
    for seq in 0..2000 {
        let _ = bench.send(seq, most, 120 * MILLI);
        bench.run_for(MILLI);
    }
    bench.run_for(Duration::from_secs(2));
    assert!(bench.counters(1).decoded_rx > 100);
    assert!(bench.largest <= DATAGRAM);
    assert_balance(&bench);
}

#[test]
fn a_dark_link_is_suspect_soon_and_gives_back_what_is_in_time_once() {
    let mut bench = warm(Channel::lossy(0.0), 1);
    for seq in 0..500 {
        bench.send(seq, 500, 300 * MILLI).unwrap();
        if seq == 400 {
            bench.channels.iter_mut().for_each(|channel| channel.loss = 1.0);
        }
        bench.run_for(MILLI);
    }
    assert_eq!(bench.ends[0].liveness[..2], [Liveness::Up, Liveness::Suspect]);
    let now = bench.clock(0);
    let salvaged = bench.ends[0].link.salvage(|_, _| true, now);
    let seqs: BTreeSet<u32> = salvaged.iter().map(|packet| packet.header.seq.0).collect();
    assert_eq!(seqs.len(), salvaged.len(), "each once");
    assert!((400..500).all(|seq| seqs.contains(&seq)));
    for packet in &salvaged {
        let left = packet.header.budget.span();
        assert_eq!(packet.entered, now);
        assert!(left.abs_diff(packet.arrive_by.since(now)) <= MILLI, "{left:?}");
        assert_eq!(packet.payload.len(), 500);
    }
    assert!(bench.ends[0].link.salvage(|_, _| true, now).is_empty());
    bench.run_for(Duration::from_secs(5));
    assert_eq!(bench.ends[0].liveness.last(), Some(&Liveness::Down));
    assert_eq!((bench.counters(0).suspects, bench.counters(0).downs), (1, 1));
}

#[test]
fn a_suspect_link_gives_back_its_queue() {
    let mut bench = warm(Channel::lossy(0.0), 1);
    let now = bench.clock(0);
    for seq in 0..100 {
        let packet = outbound(seq, 1000, 300 * MILLI, Class::Video, now);
        bench.ends[0].link.send(packet, now).unwrap();
    }
    assert_eq!(bench.ends[0].link.salvage(|_, _| true, now).len(), 100);
    bench.run_for(100 * MILLI);
    assert!(bench.ends[1].received.is_empty());
}

/// How often the ends of a link took it for dead in two minutes, of which one sent 500 packets/s.
fn downs_one_way(channel: Channel, seed: u64) -> [u64; 2] {
    let mut bench = warm(Channel::lossy(0.0), seed);
    bench.channels = [channel; 2];
    for seq in 0..60_000 {
        // The channel may be slower than that for a while; refusals are no matter here.
        let _ = bench.send(seq, 100, 140 * MILLI);
        bench.run_for(2 * MILLI);
    }
    [0, 1].map(|end| bench.counters(end).downs)
}

#[test]
fn a_direction_of_nothing_but_heartbeats_is_not_taken_for_dead() {
    let bursts = Channel { burst: 5.0, ..Channel::lossy(0.05) };
    for (name, channel) in [("50 %", Channel::lossy(0.5)), ("bursts", bursts)] {
        let downs = [1, 2, 3].map(|seed| downs_one_way(channel, seed));
        println!("{name}: {downs:?}");
        assert_eq!(downs, [[0; 2]; 3], "{name}");
    }
}

/// The delay is mostly that of heartbeats, which pass a narrow link ten times as fast as packets.
#[test]
fn packets_that_take_their_time_on_a_narrow_link_are_not_taken_for_lost() {
    let mut again = Vec::new();
    for gap in 12..=17 {
        let mut bench = warm(Channel::narrow(1_000_000), 1);
        for seq in 0..400 {
            let _ = bench.send(seq, 1200, 300 * MILLI);
            bench.run_for(5 * MILLI); // too much: so the link learns what it carries
        }
        bench.run_for(Duration::from_secs(2));
        let before = bench.counters(0).repeat_tx;
        for seq in 1_000..2_000 {
            bench.send(seq, 1200, 300 * MILLI).unwrap();
            bench.run_for(gap * MILLI);
        }
        again.push((gap, bench.counters(0).repeat_tx - before));
    }
    assert!(again.iter().all(|(_, again)| *again == 0), "ms, of 1,000 packets: {again:?}");
}

#[test]
fn a_queue_that_only_grows_is_more_than_the_link_carries() {
    let mut bench = warm(Channel::narrow(2_000_000), 1);
    let mut seq = 0;
    let mut send = |bench: &mut Bench, gap: Duration, span: Duration| {
        let until = bench.now + span;
        while bench.now < until {
            let _ = bench.send(seq, 1200, 400 * MILLI);
            seq += 1;
            bench.run_for(gap);
        }
        let quality = bench.ends[0].link.quality();
        quality.demand_bps as f64 / quality.capacity_bps.unwrap_or(u64::MAX) as f64
    };
    send(&mut bench, 4 * MILLI, Duration::from_secs(1)); // so the link learns what it carries
    send(&mut bench, 20 * MILLI, Duration::from_secs(40));
    let expired = bench.counters(0).expired_tx();
    // 2.02 Mbit/s with all headers; nothing is late yet.
    let used = send(&mut bench, Duration::from_micros(5_200), Duration::from_millis(1500));
    assert_eq!(bench.counters(0).expired_tx(), expired);
    assert!(used >= 0.99, "{used} of the capacity was asked for");
    // Else it looked free as soon as the traffic has left for another way, and would come back.
    let used = send(&mut bench, Duration::from_secs(1), Duration::from_secs(8));
    assert!(used >= 0.99, "{used} is remembered");
}
