//! What a packet costs both ends of a link, at several losses: all of sending, receiving, reports,
//! parity and repair, without QUIC and sockets.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tradewind_proto::link::plan::{Expected, OperatingPoint, Plan, Target};
use tradewind_proto::link::{Heat, Link, LinkConfig, Outbound, Recovery};
use tradewind_proto::packet::{Fragment, Header, PacketKind, Path};
use tradewind_proto::units::{
    Budget, Class, FlowId, FlowSeq, PolicyId, PopKey, Timestamp, WireTime,
};

const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const ONE_WAY: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_millis(120);
const GAP: Duration = Duration::from_micros(500);

/// Two ends with 20 ms between them.
struct Pair {
    ends: [Link; 2],
    /// What travels towards each end, in order.
    under_way: [VecDeque<(Timestamp, Bytes)>; 2],
    loss: f64,
    network: SmallRng,
    path: Path,
    payload: Bytes,
    now: Timestamp,
    sent: u32,
}

impl Pair {
    /// A pair that has learnt its loss.
    fn new(loss: f64) -> Self {
        let config = LinkConfig { datagram: 1414, peer_clock_offset: 0, recovery: Recovery::Plan };
        let mut ends = [(); 2].map(|()| Link::new(config.clone(), START));
        ends.iter_mut().for_each(|end| end.set_heat(Heat::Hot, START));
        let mut pair = Self {
            ends,
            under_way: Default::default(),
            loss,
            network: SmallRng::seed_from_u64(1),
            path: Path::at(&[PopKey(1), PopKey(2)], 1).expect("two PoPs are a path"),
            payload: Bytes::from(vec![0x5a; 1200]),
            now: START,
            sent: 0,
        };
        (0..10_000).for_each(|_| pair.step());
        pair
    }

    /// Half a millisecond, and a packet.
    fn step(&mut self) {
        self.now = self.now + GAP;
        let header = Header {
            kind: PacketKind::Data,
            class: Class::Video,
            reverse: false,
            key_epoch: 0,
            policy: PolicyId::NONE,
            flow: FlowId { ingress: PopKey(1), incarnation: 1, number: 1 },
            seq: FlowSeq(self.sent),
            fragment: Fragment::WHOLE,
            sent_at: WireTime::default(),
            budget: Budget::new(DEADLINE),
            path: self.path,
            open: None,
        };
        let (entered, arrive_by) = (self.now, self.now + DEADLINE);
        let packet = Outbound { header, payload: self.payload.clone(), entered, arrive_by };
        self.sent = self.sent.wrapping_add(1);
        // What a full queue refuses costs less.
        let _ = self.ends[0].send(packet, self.now);
        for end in 0..2 {
            while let Some((_, datagram)) =
                self.under_way[end].pop_front_if(|(at, _)| *at <= self.now)
            {
                self.ends[end].handle_datagram(datagram, self.now);
            }
            if self.ends[end].poll_timeout() <= self.now {
                self.ends[end].handle_timeout(self.now);
            }
            while let Some(event) = self.ends[end].poll_event() {
                black_box(event);
            }
            while let Some(datagram) = self.ends[end].poll_transmit(self.now) {
                if !self.network.random_bool(self.loss) {
                    self.under_way[1 - end].push_back((self.now + ONE_WAY, datagram));
                }
            }
        }
    }
}

fn packets(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("a packet of 1200 bytes, both ends");
    group.throughput(Throughput::Elements(1));
    for percent in [0, 5, 30] {
        group.bench_function(format!("{percent} % lost"), |b| {
            let mut pair = Pair::new(f64::from(percent) / 100.0);
            b.iter(|| pair.step());
        });
    }
    group.finish();
}

fn plans(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("solve a plan");
    for (percent, burst) in [(0, 1.0), (5, 1.05), (30, 1.43), (60, 2.5), (2, 25.0)] {
        let point = OperatingPoint::new(percent as f32 / 100.0, burst);
        group.bench_function(format!("{percent} % in bursts of {burst}"), |b| {
            b.iter(|| Plan::solve(black_box(point), Target::new(Class::Video, 1)));
        });
    }
    group.finish();
    bench.bench_function("look a plan up", |b| {
        b.iter(|| {
            Plan::of(OperatingPoint::new(black_box(0.05), 1.0), Target::new(Class::Video, 1))
        });
    });
    bench.bench_function("what to expect of a link", |b| {
        let (rtt, budget) = (Duration::from_millis(40), Duration::from_millis(100));
        b.iter(|| Expected::of(black_box(0.05), 1.0, rtt, budget));
    });
}

criterion_group!(benches, packets, plans);
criterion_main!(benches);
