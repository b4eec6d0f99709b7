//! The test bench: two links, the channel between them, and what each received.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tradewind_proto::link::{
    Counters, Inbound, Link, LinkConfig, LinkEvent, Liveness, Outbound, Recovery, Refused,
};
use tradewind_proto::packet::{Fragment, Header, PacketKind, Path};
use tradewind_proto::units::{
    Budget, Class, FlowId, FlowSeq, PolicyId, PopKey, Timestamp, WireTime,
};

pub const DATAGRAM: usize = 1414;
/// Bytes of IP, UDP and QUIC around a datagram.
const HEADERS: usize = 57;

/// What the channel does to datagrams, the same in both directions unless changed.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    pub delay: Duration,
    pub jitter: Duration,
    pub loss: f64,
    /// Mean length of a burst of losses; 0 for independent ones.
    pub burst: f64,
    pub duplicate: f64,
    pub corrupt: f64,
    /// Bits per second of a bottleneck; 0 for none.
    pub rate: u64,
}

impl Channel {
    /// 20 ms each way and so much independent loss.
    pub fn lossy(loss: f64) -> Self {
        let delay = Duration::from_millis(20);
        let (burst, duplicate, corrupt) = (0.0, 0.0, 0.0);
        Self { delay, jitter: Duration::ZERO, loss, burst, duplicate, corrupt, rate: 0 }
    }

    /// 20 ms each way, and so many bits per second.
    pub fn narrow(rate: u64) -> Self {
        Self { rate, ..Self::lossy(0.0) }
    }
}

pub struct End {
    pub link: Link,
    /// This end's clock less that of the bench.
    clock: i64,
    pub received: Vec<(Timestamp, Inbound)>,
    pub liveness: Vec<Liveness>,
    bad: bool,
    /// When the bottleneck will have sent all that this end gave it.
    free_at: Timestamp,
}

pub struct Bench {
    pub ends: [End; 2],
    /// What happens to what each end sends.
    pub channels: [Channel; 2],
    /// By arrival time and number: the end it arrives at and the datagram.
    in_flight: BTreeMap<(Timestamp, u64), (usize, Bytes)>,
    count: u64,
    pub now: Timestamp,
    random: SmallRng,
    /// Times that a link asked to be woken.
    pub wakes: u64,
    pub largest: usize,
}

fn shifted(now: Timestamp, clock: i64) -> Timestamp {
    Timestamp::from_micros(now.as_micros().saturating_add_signed(clock))
}

impl Bench {
    pub fn new(channel: Channel, seed: u64) -> Self {
        Self::with_recovery(channel, Recovery::Plan, seed)
    }

    pub fn with_recovery(channel: Channel, recovery: Recovery, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let clocks = [0, random.random_range(-3_000_000_000_000..3_000_000_000_000i64)];
        let end = |at: usize| {
            let peer_clock_offset = clocks[1 - at] - clocks[at];
            let config = LinkConfig { datagram: DATAGRAM, peer_clock_offset, recovery };
            let link = Link::new(config, shifted(now, clocks[at]));
            let (received, liveness) = (Vec::new(), Vec::new());
            End { link, clock: clocks[at], received, liveness, bad: false, free_at: now }
        };
        Self {
            ends: [end(0), end(1)],
            channels: [channel; 2],
            in_flight: BTreeMap::new(),
            count: 0,
            now,
            random,
            wakes: 0,
            largest: 0,
        }
    }

    pub fn counters(&self, end: usize) -> &Counters {
        self.ends[end].link.counters()
    }

    /// The clock of an end.
    pub fn clock(&self, end: usize) -> Timestamp {
        shifted(self.now, self.ends[end].clock)
    }

    /// End 0 sends packet `seq`, to arrive within `deadline`.
    pub fn send(&mut self, seq: u32, len: usize, deadline: Duration) -> Result<(), Refused> {
        self.send_as(seq, len, deadline, Class::Video)
    }

    pub fn send_as(
        &mut self,
        seq: u32,
        len: usize,
        deadline: Duration,
        class: Class,
    ) -> Result<(), Refused> {
        let now = self.clock(0);
        let packet = outbound(seq, len, deadline, class, now);
        let result = self.ends[0].link.send(packet, now);
        self.flush(0);
        result
    }

    /// Lets everything happen until `until`.
    pub fn run_until(&mut self, until: Timestamp) {
        loop {
            let wakes = [0, 1].map(|end| {
                let wake = self.ends[end].link.poll_timeout();
                if wake == Timestamp::NEVER { wake } else { shifted(wake, -self.ends[end].clock) }
            });
            let arrival =
                self.in_flight.first_key_value().map_or(Timestamp::NEVER, |(&(at, _), _)| at);
            let next = arrival.min(wakes[0]).min(wakes[1]);
            if next > until {
                self.now = until;
                return;
            }
            self.now = self.now.max(next);
            if arrival == next
                && let Some((_, (end, datagram))) = self.in_flight.pop_first()
            {
                let now = self.clock(end);
                self.ends[end].link.handle_datagram(datagram, now);
                self.flush(end);
            } else {
                let end = usize::from(wakes[1] < wakes[0]);
                self.wakes += 1;
                self.flush(end);
                let wake = self.ends[end].link.poll_timeout();
                assert!(wake > self.clock(end), "a link asks to be woken at once, again");
            }
        }
    }

    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    pub fn flush(&mut self, at: usize) {
        let now = self.clock(at);
        let end = &mut self.ends[at];
        end.link.handle_timeout(now);
        while let Some(event) = end.link.poll_event() {
            match event {
                LinkEvent::Received(inbound) => end.received.push((self.now, inbound)),
                LinkEvent::Liveness(state) => end.liveness.push(state),
            }
        }
        while let Some(datagram) = self.ends[at].link.poll_transmit(now) {
            self.largest = self.largest.max(datagram.len());
            self.carry(at, datagram);
        }
    }

    fn carry(&mut self, from: usize, datagram: Bytes) {
        let channel = self.channels[from];
        let sent_at = self.pass_bottleneck(from, channel, datagram.len());
        let copies = 1 + usize::from(self.random.random_bool(channel.duplicate));
        for _ in 0..copies {
            if self.is_lost(from, channel) {
                continue;
            }
            let jitter = channel.jitter.mul_f64(self.random.random_range(0.0..=1.0));
            let mut datagram = datagram.clone();
            if self.random.random_bool(channel.corrupt) {
                let mut bytes = datagram.to_vec();
                let at = self.random.random_range(0..bytes.len());
                bytes[at] ^= self.random.random_range(1..=255u8);
                datagram = bytes.into();
            }
            self.count += 1;
            let at = (sent_at + channel.delay + jitter, self.count);
            self.in_flight.insert(at, (1 - from, datagram));
        }
    }

    /// When a datagram that is sent now has left the bottleneck, whose queue has no end.
    fn pass_bottleneck(&mut self, from: usize, channel: Channel, len: usize) -> Timestamp {
        if channel.rate == 0 {
            return self.now;
        }
        let micros = (len + HEADERS) as u64 * 8_000_000 / channel.rate;
        let free_at = &mut self.ends[from].free_at;
        *free_at = self.now.max(*free_at) + Duration::from_micros(micros);
        *free_at
    }

    fn is_lost(&mut self, from: usize, channel: Channel) -> bool {
        if channel.burst == 0.0 {
            return self.random.random_bool(channel.loss);
        }
        let leave = 1.0 / channel.burst;
        let enter = (channel.loss * leave / (1.0 - channel.loss)).min(1.0);
        let bad = &mut self.ends[from].bad;
        *bad = if *bad { !self.random.random_bool(leave) } else { self.random.random_bool(enter) };
        *bad
    }
}

/// A packet whose payload shows its number.
pub fn outbound(
    seq: u32,
    len: usize,
    deadline: Duration,
    class: Class,
    now: Timestamp,
) -> Outbound {
    let mut payload = seq.to_be_bytes().to_vec();
    payload.resize(len.max(4), seq as u8);
    Outbound {
        header: header(seq, class, deadline),
        payload: payload.into(),
        entered: now,
        arrive_by: now + deadline,
    }
}

pub fn header(seq: u32, class: Class, budget: Duration) -> Header {
    let pops = [PopKey(1), PopKey(2)];
    Header {
        kind: PacketKind::Data,
        class,
        reverse: false,
        key_epoch: 0,
        policy: PolicyId::NONE,
        flow: FlowId { ingress: pops[0], incarnation: 7, number: 1 },
        seq: FlowSeq(seq),
        fragment: Fragment::WHOLE,
        sent_at: WireTime(0),
        budget: Budget::new(budget),
        path: Path::new(&pops).expect("two different PoPs are a path"),
        open: None,
    }
}

/// The counters of both directions add up.
pub fn assert_balance(bench: &Bench) {
    for (from, to) in [(0, 1), (1, 0)] {
        let (tx, rx) = (bench.counters(from), bench.counters(to));
        let found = rx.data_first_rx + rx.repeated_rx + rx.decoded_rx + rx.lost_rx;
        assert_eq!(tx.data_tx, found, "from {from}: {tx:?} {rx:?}");
    }
}
