//! What it costs a link to deliver in time, measured: two `Link` machines of the protocol over a
//! lossy link model, in virtual time.
//!
//! One hop of 40 ms RTT, packets of 1,200 bytes at 2,000 a second, to be delivered within
//! propagation + 100 ms. Run it with `scripts/bench-recovery`; the limits beside the figures are
//! those of DESIGN.md, section 10.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Parser;
use comfy_table::{Table, presets};
use hdrhistogram::Histogram;
use tradewind_proto::link::{Counters, Heat, Inbound, Link, LinkConfig, LinkEvent, Outbound};
use tradewind_proto::packet::{Fragment, Header, PacketKind, Path};
use tradewind_proto::units::{
    Budget, Class, FlowId, FlowSeq, PolicyId, PopId, Timestamp, WireTime,
};
use tradewind_simulator::emulator::IP_UDP_HEADERS;
use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::virtual_net::{QUIC_OVERHEAD, VirtualNet};

const PAYLOAD: usize = 1_200;
/// What quinn leaves of 1,452 bytes of UDP payload for a datagram.
const DATAGRAM: usize = 1_414;

/// Both clocks are the same one.
const CONFIG: LinkConfig = LinkConfig { datagram: DATAGRAM, peer_clock_offset: 0 };

/// Recovery of one link in virtual time: delivered in time, delay and cost for each loss.
#[derive(Parser)]
struct Args {
    /// Runs per row, each with its own seed from 1 up
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Packets measured in each run
    #[arg(long, default_value_t = 100_000)]
    packets: u32,
    /// Packets sent before that, while the link learns its loss
    #[arg(long, default_value_t = 4_000)]
    warmup: u32,
    /// Packets a second
    #[arg(long, default_value_t = 2_000)]
    pps: u32,
    /// Round-trip time of the link in milliseconds
    #[arg(long, default_value_t = 40)]
    rtt_ms: u32,
    /// Deadline beyond propagation in milliseconds
    #[arg(long, default_value_t = 100)]
    slack_ms: u32,
    /// Lose nothing on the way back, where the reports travel
    #[arg(long)]
    clean_way_back: bool,
}

impl Args {
    fn one_way(&self) -> Duration {
        Duration::from_millis(self.rtt_ms.into()) / 2
    }

    fn deadline(&self) -> Duration {
        self.one_way() + Duration::from_millis(self.slack_ms.into())
    }

    fn total(&self) -> u32 {
        self.warmup + self.packets
    }

    fn sent_at(&self, number: u32) -> Timestamp {
        let micros = u64::from(number) * 1_000_000 / u64::from(self.pps);
        START + Duration::from_micros(micros)
    }
}

/// Some moment in 2026; the machines want plausible clocks.
const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// A loss, and what DESIGN asks at it.
struct Row {
    percent: f64,
    /// Mean run of losses; `None`: by chance.
    burst: Option<f64>,
    /// The most shards per data shard.
    limit: Option<f64>,
    /// The least percent in time.
    wanted: Option<f64>,
}

const fn by_chance(percent: f64, limit: f64, wanted: f64) -> Row {
    Row { percent, burst: None, limit: Some(limit), wanted: Some(wanted) }
}

const ROWS: [Row; 9] = [
    Row { percent: 0.0, burst: None, limit: None, wanted: Some(99.99) },
    by_chance(1.0, 1.13, 99.99),
    by_chance(2.0, 1.13, 99.99),
    by_chance(5.0, 1.16, 99.99),
    by_chance(10.0, 1.24, 99.99),
    by_chance(20.0, 1.42, 99.99),
    by_chance(30.0, 1.65, 99.99),
    by_chance(50.0, 2.36, 99.9),
    Row { percent: 5.0, burst: Some(5.0), limit: None, wanted: None },
];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.pps > 0 && args.packets > 0, "--pps and --packets must be above zero");
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "loss %",
        "burst",
        "in time %",
        "wanted",
        "median ms",
        "p99 ms",
        "p99.9 ms",
        "shards/data",
        "limit",
        "wire bytes/payload byte",
    ]);
    for Row { percent, burst, limit, wanted } in ROWS {
        let loss = match burst {
            Some(burst) => Loss::in_bursts(percent / 100.0, burst)?,
            None => Loss::independent(percent / 100.0)?,
        };
        let mut result = Measured::new()?;
        for seed in 1..=args.seeds {
            Run::new(&args, loss, seed)?.measure(&mut result)?;
        }
        let or_dash = |value: Option<f64>| value.map_or("-".into(), |value| value.to_string());
        let millis = |q| format!("{:.1}", result.delays.value_at_quantile(q) as f64 / 1e3);
        table.add_row([
            percent.to_string(),
            or_dash(burst),
            format!("{:.4}", 100.0 * result.in_time as f64 / result.sent.max(1) as f64),
            or_dash(wanted),
            millis(0.5),
            millis(0.99),
            millis(0.999),
            format!("{:.3}", result.shards as f64 / result.data.max(1) as f64),
            or_dash(limit),
            format!("{:.3}", result.wire_bytes as f64 / result.payload_bytes.max(1) as f64),
        ]);
    }
    println!("{table}");
    let Args { seeds, packets, warmup, pps, rtt_ms, slack_ms, clean_way_back } = args;
    let way_back = if clean_way_back { "nothing" } else { "as much" };
    println!(
        "{seeds} seeds x {packets} packets of {PAYLOAD} bytes at {pps}/s after {warmup} not counted; RTT {rtt_ms} ms, \
         deadline propagation + {slack_ms} ms. The way back loses {way_back}. Shards: data + parity + repeats. \
         Wire bytes: both directions, reports and heartbeats included; each datagram with {IP_UDP_HEADERS} bytes of \
         UDP/IP and {QUIC_OVERHEAD} of QUIC (QUIC's own acknowledgements are not modelled)."
    );
    Ok(())
}

/// Sums over the seeds of one row.
struct Measured {
    sent: u64,
    in_time: u64,
    /// Microseconds.
    delays: Histogram<u64>,
    data: u64,
    shards: u64,
    wire_bytes: u64,
    payload_bytes: u64,
}

impl Measured {
    fn new() -> anyhow::Result<Self> {
        let delays = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self {
            sent: 0,
            in_time: 0,
            delays,
            data: 0,
            shards: 0,
            wire_bytes: 0,
            payload_bytes: 0,
        })
    }
}

/// One run: `a` sends to `b`.
struct Run<'a> {
    args: &'a Args,
    names: [PopId; 2],
    net: VirtualNet,
    ends: [Link; 2],
    path: Path,
    payload: Bytes,
    now: Timestamp,
    next_packet: u32,
    /// Arrivals of packets that count: delay of each.
    arrived: Vec<Duration>,
}

impl<'a> Run<'a> {
    fn new(args: &'a Args, loss: Loss, seed: u64) -> anyhow::Result<Self> {
        let names: [PopId; 2] = ["a".parse()?, "b".parse()?];
        let mut net = VirtualNet::new(seed);
        let spec = LinkSpec { delay: args.one_way(), loss, ..LinkSpec::default() };
        net.connect_both(&names[0], &names[1], spec.clone());
        if args.clean_way_back {
            net.connect(&names[1], &names[0], LinkSpec { loss: Loss::None, ..spec });
        }
        let mut ends = [(); 2].map(|()| Link::new(CONFIG, START));
        ends.iter_mut().for_each(|end| end.set_heat(Heat::Hot, START));
        let path = Path::at(&[names[0].key(), names[1].key()], 1)?;
        let payload = Bytes::from(vec![0x5a; PAYLOAD]);
        let arrived = Vec::with_capacity(args.packets as usize);
        Ok(Self { args, names, net, ends, path, payload, now: START, next_packet: 0, arrived })
    }

    fn measure(mut self, result: &mut Measured) -> anyhow::Result<()> {
        let start = self.args.sent_at(self.args.warmup);
        let end = self.args.sent_at(self.args.total());
        self.run_until(start)?;
        let before = self.used();
        self.run_until(end)?;
        // Repair of the last packets is as cheap as of the first ones under way at `start`.
        let after = self.used();
        self.run_until(end + self.args.deadline() + Duration::from_millis(200))?;
        let deadline = self.args.deadline();
        result.sent += u64::from(self.args.packets);
        result.in_time += self.arrived.iter().filter(|delay| **delay <= deadline).count() as u64;
        for delay in &self.arrived {
            result.delays.saturating_record(u64::try_from(delay.as_micros())?);
        }
        result.data += after.data - before.data;
        result.shards += after.shards - before.shards;
        result.wire_bytes += after.wire_bytes - before.wire_bytes;
        result.payload_bytes += u64::from(self.args.packets) * PAYLOAD as u64;
        Ok(())
    }

    /// From one thing that happens to the next.
    fn run_until(&mut self, end: Timestamp) -> anyhow::Result<()> {
        let mut at_once = 0;
        loop {
            let timeout = self.ends.iter().map(Link::poll_timeout).min().context("two ends")?;
            let next = self.next_send().min(self.net.next_at()).min(timeout).max(self.now);
            if next >= end {
                return Ok(());
            }
            at_once = if next > self.now { 0 } else { at_once + 1 };
            ensure!(at_once < 100_000, "a machine asks to be woken at once, again and again");
            self.now = next;
            self.step()?;
        }
    }

    fn next_send(&self) -> Timestamp {
        match self.next_packet < self.args.total() {
            true => self.args.sent_at(self.next_packet),
            false => Timestamp::NEVER,
        }
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let now = self.now;
        if self.net.next_at() <= now
            && let Some(arrival) = self.net.next()
        {
            let end = usize::from(arrival.to == self.names[1]);
            self.ends[end].handle_datagram(arrival.datagram, now);
        }
        if self.next_send() <= now {
            // What the link refuses is not delivered, and counts so.
            let _ = self.ends[0].send(self.packet(), now);
            self.next_packet += 1;
        }
        for (end, other) in [(0, 1), (1, 0)] {
            if self.ends[end].poll_timeout() <= now {
                self.ends[end].handle_timeout(now);
            }
            while let Some(datagram) = self.ends[end].poll_transmit(now) {
                self.net.send(&self.names[end], &self.names[other], datagram, now);
            }
            while let Some(event) = self.ends[end].poll_event() {
                if let LinkEvent::Received(inbound) = event {
                    self.arrive(&inbound);
                }
            }
        }
        Ok(())
    }

    fn packet(&self) -> Outbound {
        let entered = self.args.sent_at(self.next_packet);
        let deadline = self.args.deadline();
        let header = Header {
            kind: PacketKind::Data,
            class: Class::Video,
            reverse: false,
            key_epoch: 0,
            policy: PolicyId::NONE,
            flow: FlowId { ingress: self.names[0].key(), incarnation: 1, number: 1 },
            seq: FlowSeq(self.next_packet),
            fragment: Fragment::WHOLE,
            sent_at: WireTime::default(),
            budget: Budget::new(deadline),
            path: self.path,
            open: None,
        };
        Outbound { header, payload: self.payload.clone(), entered, arrive_by: entered + deadline }
    }

    fn arrive(&mut self, inbound: &Inbound) {
        let number = inbound.header.seq.0;
        if number >= self.args.warmup {
            self.arrived.push(self.now.since(self.args.sent_at(number)));
        }
    }

    fn used(&self) -> Used {
        let Counters { data_tx, parity_tx, repeat_tx, .. } = *self.ends[0].counters();
        let [a, b] = &self.names;
        let bytes = [(a, b), (b, a)]
            .map(|(from, to)| self.net.counters(from, to).map_or(0, |link| link.offered_bytes));
        Used {
            data: data_tx,
            shards: data_tx + parity_tx + repeat_tx,
            wire_bytes: bytes.iter().sum(),
        }
    }
}

/// What was sent so far.
struct Used {
    data: u64,
    shards: u64,
    wire_bytes: u64,
}
