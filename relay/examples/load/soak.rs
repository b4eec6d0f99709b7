//! Short flows come and go for a long time through a chain of relays.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::overlay::Overlay;
use super::process::{Held, median, tradewind};
use super::stream::{STAMP, Sink, stamp};

/// What a relay may hold more in the last third than in the first. The slack in memory is what one
/// moment of overload (another program on this machine) leaves with the allocator; a leak of four
/// bytes a packet would be ten times that.
const GROWTH: f64 = 1.05;
const SLACK_BYTES: u64 = 4 << 20;
const SLACK_DESCRIPTORS: usize = 16;
/// Fewer packets than this share of those asked for are no soak.
const LEAST_LOAD: f64 = 0.9;
const TICK: Duration = Duration::from_millis(2);

#[derive(clap::Args)]
pub struct Args {
    /// How long
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10m")]
    duration: Duration,
    /// What of it does not count: caches fill, flows come up to their limit
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1m")]
    warm_up: Duration,
    /// Packets a second, over all flows
    #[arg(long, default_value_t = 20_000)]
    pps: u32,
    /// Flows at a time
    #[arg(long, default_value_t = 1000)]
    flows: usize,
    /// How long a flow lasts
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    life: Duration,
    /// Bytes of a packet
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Answer every so many packets (0: none)
    #[arg(long, default_value_t = 10)]
    answer: u64,
    /// Relays in the chain, 2 or 3
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    relays: u8,
    /// Time between two lines
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    every: Duration,
    /// Another `tradewind` than the one built beside this program
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Flows as their clients: each one socket.
struct Clients {
    tunnel: SocketAddr,
    sockets: Vec<UdpSocket>,
    numbers: Vec<u64>,
    /// Flows begun.
    begun: u64,
    /// Packets sent.
    sent: u64,
    /// Answers that came.
    answers: u64,
    packet: Vec<u8>,
    start: Instant,
}

impl Clients {
    /// A client with an address of its own: ports alone come back too soon.
    fn open(&mut self) -> anyhow::Result<UdpSocket> {
        self.begun += 1;
        let [.., a, b] = (self.begun / 100).to_be_bytes();
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, a, b.max(1)), 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(self.tunnel)?;
        Ok(socket)
    }

    fn send(&mut self, packets: u64) {
        for _ in 0..packets {
            let at = (self.sent % self.sockets.len() as u64) as usize;
            stamp(&mut self.packet, self.start, self.numbers[at]);
            let _ = self.sockets[at].send(&self.packet);
            self.numbers[at] += 1;
            self.sent += 1;
        }
    }

    /// The oldest `flows` end, others begin in their place.
    fn replace(&mut self, flows: u64) -> anyhow::Result<()> {
        for _ in 0..flows {
            let at = (self.begun % self.sockets.len() as u64) as usize;
            let mut answer = [0; 2048];
            while self.sockets[at].recv(&mut answer).is_ok() {
                self.answers += 1;
            }
            self.sockets[at] = self.open()?;
            self.numbers[at] = 0;
        }
        Ok(())
    }
}

struct Sample {
    at: Duration,
    held: Vec<Held>,
}

pub fn run(args: &Args) -> anyhow::Result<bool> {
    ensure!(args.flows > 0 && !args.life.is_zero(), "--flows and --life must not be zero");
    ensure!(args.warm_up < args.duration, "--warm-up must be shorter than --duration");
    let start = Instant::now();
    let sink = Sink::start(start, args.answer, false)?;
    let names = &["ingress", "middle", "egress"];
    let names = if args.relays == 3 { &names[..] } else { &["ingress", "egress"] };
    let mut overlay = Overlay::start(&tradewind(args.binary.as_ref())?, names, sink.address)?;
    let mut clients = Clients {
        tunnel: overlay.tunnel,
        sockets: Vec::new(),
        numbers: vec![0; args.flows],
        begun: 0,
        sent: 0,
        answers: 0,
        packet: vec![0; args.size.max(STAMP)],
        start,
    };
    for _ in 0..args.flows {
        let socket = clients.open()?;
        clients.sockets.push(socket);
    }
    println!(
        "{} relays, {} flows of {:?} at a time, {} packets of {} bytes a second, {:?}",
        names.len(),
        args.flows,
        args.life,
        args.pps,
        args.size,
        args.duration
    );
    let samples = drive(args, &mut overlay, &mut clients, &sink)?;
    std::thread::sleep(Duration::from_millis(500));
    let delivered = sink.seen.packets.load(Relaxed);
    let firsts = sink.seen.firsts.load(Relaxed);
    println!(
        "\n{} packets sent, {:.3} % of them delivered; {} flows, the first packet of {:.3} % of them; \
         {} answers came back",
        clients.sent,
        percent(delivered, clients.sent),
        clients.begun,
        percent(firsts, clients.begun),
        clients.answers
    );
    let asked = f64::from(args.pps) * args.duration.as_secs_f64();
    let loaded = delivered as f64 >= asked * LEAST_LOAD;
    if !loaded {
        println!(
            "fewer packets than {LEAST_LOAD} of those asked for: this machine can't, lower --pps"
        );
    }
    Ok(verdict(args, names, &samples) && loaded)
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// Sends until the time is up, and looks at the relays now and then.
fn drive(
    args: &Args,
    overlay: &mut Overlay,
    clients: &mut Clients,
    sink: &Sink,
) -> anyhow::Result<Vec<Sample>> {
    let (begun, mut samples) = (Instant::now(), Vec::new());
    let first_flows = clients.begun;
    let renewal = args.flows as f64 / args.life.as_secs_f64();
    let mut last = (Duration::ZERO, 0, 0);
    loop {
        let elapsed = begun.elapsed();
        let due = (elapsed.as_secs_f64() * f64::from(args.pps)) as u64;
        clients.send(due.saturating_sub(clients.sent));
        let flows = first_flows + (elapsed.as_secs_f64() * renewal) as u64;
        clients.replace(flows.saturating_sub(clients.begun))?;
        if elapsed >= last.0 + args.every {
            let received = sink.seen.packets.load(Relaxed);
            let passed = (elapsed - last.0).as_secs_f64();
            let rate = |now: u64, then: u64| (now - then) as f64 / passed;
            let (tx, rx) = (rate(clients.sent, last.1), rate(received, last.2));
            samples.push(look(overlay, elapsed, tx, rx)?);
            last = (elapsed, clients.sent, received);
        }
        if elapsed >= args.duration {
            return Ok(samples);
        }
        std::thread::sleep(TICK);
    }
}

fn look(overlay: &mut Overlay, at: Duration, tx: f64, rx: f64) -> anyhow::Result<Sample> {
    let mut line = format!("{:4.0} s  {tx:6.0} pps in  {rx:6.0} out", at.as_secs_f64());
    let mut held = Vec::new();
    for number in 0..overlay.relays.len() {
        overlay.relays[number].check()?;
        let status = overlay.status(number)?;
        let relay = &overlay.relays[number];
        let now = relay.held()?;
        line += &format!(
            "  |  {} {:5.1} MiB {:5} fds {:5} flows",
            relay.name,
            mib(now.rss_bytes),
            now.descriptors,
            status.flows_ingress + status.flows_egress
        );
        held.push(now);
    }
    println!("{line}");
    Ok(Sample { at, held })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Compares the first third with the last third after the warm-up.
fn verdict(args: &Args, names: &[&str], samples: &[Sample]) -> bool {
    let third = (args.duration - args.warm_up) / 3;
    let first = samples.iter().filter(|s| s.at >= args.warm_up && s.at < args.warm_up + third);
    let last = samples.iter().filter(|s| s.at >= args.duration - third);
    let (first, last): (Vec<_>, Vec<_>) = (first.collect(), last.collect());
    if first.is_empty() || last.is_empty() {
        println!("too short to tell: make --duration longer than --warm-up by six times --every");
        return false;
    }
    let mut flat = true;
    for (at, name) in names.iter().enumerate() {
        let rss = |part: &[&Sample]| {
            median(&part.iter().map(|sample| sample.held[at].rss_bytes).collect::<Vec<_>>())
        };
        let open = |part: &[&Sample]| {
            median(&part.iter().map(|sample| sample.held[at].descriptors).collect::<Vec<_>>())
        };
        let ((rss_a, rss_b), (open_a, open_b)) =
            ((rss(&first), rss(&last)), (open(&first), open(&last)));
        let held = (rss_b as f64) <= rss_a as f64 * GROWTH + SLACK_BYTES as f64
            && open_b as f64 <= open_a as f64 * GROWTH + SLACK_DESCRIPTORS as f64;
        flat &= held;
        println!(
            "{name}: {:.1} -> {:.1} MiB, {open_a} -> {open_b} descriptors: {}",
            mib(rss_a),
            mib(rss_b),
            if held { "flat" } else { "GROWS" }
        );
    }
    flat
}
