//! CPU per packet and delay of a relay in the middle, beside a bare quinn relay, in turns.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::bare::Chain;
use super::overlay::Overlay;
use super::process::{Process, median, tradewind};
use super::stream::{Sink, send};

/// The middle of three.
const MIDDLE: usize = 1;
/// Time for a chain to fall silent, and for a new one to settle.
const PAUSE: Duration = Duration::from_millis(300);
const WARM_UP: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub struct Args {
    /// Runs of each kind; medians are shown
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// How long one run lasts
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    duration: Duration,
    /// Packets a second: several, as a list; one per core is what a relay is planned for
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 40_000])]
    pps: Vec<u32>,
    /// Bytes of a packet: several, as a list
    #[arg(long, value_delimiter = ',', default_values_t = [1200, 160])]
    sizes: Vec<usize>,
    /// A JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Another `tradewind` than the one built beside this program
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// The four chains: ours and the bare one, with a relay in the middle and without.
struct Chains {
    relay: Overlay,
    relay_short: Overlay,
    bare: Chain,
    bare_short: Chain,
}

#[derive(Clone, Copy, Default)]
struct Run {
    /// Of the middle, if there is one.
    cpu_ns: f64,
    delay_us: f64,
    delivered: f64,
}

/// All runs of one load.
#[derive(Default)]
struct Runs {
    relay: Vec<Run>,
    relay_short: Vec<Run>,
    bare: Vec<Run>,
    bare_short: Vec<Run>,
}

/// The sink of a run: chains outlive it, so it is one socket for all.
struct Bench {
    sink: Sink,
    start: Instant,
}

pub fn run(args: &Args) -> anyhow::Result<bool> {
    let binary = tradewind(args.binary.as_ref())?;
    let start = Instant::now();
    let bench = Bench { sink: Sink::start(start, 0, true)?, start };
    let to = bench.sink.address;
    let mut chains = Chains {
        relay: Overlay::start(&binary, &["ingress", "middle", "egress"], to)?,
        relay_short: Overlay::start(&binary, &["first", "last"], to)?,
        bare: Chain::start(&binary, 3, to)?,
        bare_short: Chain::start(&binary, 2, to)?,
    };
    std::thread::sleep(PAUSE);
    for entry in chains.entries() {
        send(entry, 1200, 5000.0, WARM_UP, start)?;
    }
    let mut documents = Vec::new();
    for &size in &args.sizes {
        for &pps in &args.pps {
            let mut runs = Runs::default();
            for _ in 0..args.runs {
                bench.round(&mut chains, &mut runs, size, pps, args.duration)?;
            }
            documents.push(show(&runs, size, pps, args.json));
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&documents)?);
    }
    Ok(true)
}

impl Chains {
    fn entries(&self) -> [SocketAddr; 4] {
        [self.relay.tunnel, self.bare.entry, self.relay_short.tunnel, self.bare_short.entry]
    }
}

impl Bench {
    fn round(
        &self,
        chains: &mut Chains,
        runs: &mut Runs,
        size: usize,
        pps: u32,
        duration: Duration,
    ) -> anyhow::Result<()> {
        let [relay, bare, relay_short, bare_short] = chains.entries();
        let one = |entry, middle| self.one(entry, middle, size, pps, duration);
        runs.relay.push(one(relay, Some(&chains.relay.relays[MIDDLE]))?);
        runs.bare.push(one(bare, Some(&chains.bare.hops[MIDDLE]))?);
        runs.relay_short.push(one(relay_short, None)?);
        runs.bare_short.push(one(bare_short, None)?);
        for process in chains.relay.relays.iter_mut().chain(&mut chains.bare.hops) {
            process.check()?;
        }
        Ok(())
    }

    fn one(
        &self,
        entry: SocketAddr,
        middle: Option<&Process>,
        size: usize,
        pps: u32,
        duration: Duration,
    ) -> anyhow::Result<Run> {
        let cpu = |of: Option<&Process>| of.map_or(Ok(0), Process::cpu_ns);
        let (received, spent) = (self.sink.seen.packets.load(Relaxed), cpu(middle)?);
        lock(&self.sink.delays).clear();
        let sent = send(entry, size, f64::from(pps), duration, self.start)?;
        std::thread::sleep(PAUSE);
        let spent = cpu(middle)? - spent;
        let received = self.sink.seen.packets.load(Relaxed) - received;
        let delay_us = f64::from(median(&lock(&self.sink.delays)));
        let per_packet = spent as f64 / received.max(1) as f64;
        let delivered = received as f64 / sent.max(1) as f64;
        Ok(Run { cpu_ns: per_packet, delay_us, delivered })
    }
}

fn lock(delays: &Mutex<Vec<u32>>) -> std::sync::MutexGuard<'_, Vec<u32>> {
    delays.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn show(runs: &Runs, size: usize, pps: u32, json: bool) -> serde_json::Value {
    let of =
        |runs: &[Run], part: fn(&Run) -> f64| median(&runs.iter().map(part).collect::<Vec<_>>());
    let cpu = |runs: &[Run]| of(runs, |run| run.cpu_ns) / 1000.0;
    let delay = |runs: &[Run]| of(runs, |run| run.delay_us);
    let delivered = |runs: &[Run]| of(runs, |run| run.delivered) * 100.0;
    // In pairs: what disturbs one of two neighbouring runs mostly disturbs the other too.
    let pairs = runs.relay.iter().zip(&runs.bare).map(|(ours, bare)| ours.cpu_ns / bare.cpu_ns);
    let ratio = median(&pairs.collect::<Vec<_>>());
    let added = delay(&runs.relay) - delay(&runs.relay_short);
    let added_bare = delay(&runs.bare) - delay(&runs.bare_short);
    if !json {
        println!(
            "{size:5} bytes {pps:6} pps: CPU per packet {:.2} us, bare {:.2} us, ratio {ratio:.2}; \
             delay added {added:.0} us, bare {added_bare:.0} us, ratio {:.2}; delivered {:.2} %, bare {:.2} %",
            cpu(&runs.relay),
            cpu(&runs.bare),
            added / added_bare,
            delivered(&runs.relay),
            delivered(&runs.bare),
        );
    }
    serde_json::json!({
        "size_bytes": size,
        "rate_pps": pps,
        "cpu_us": cpu(&runs.relay),
        "bare_cpu_us": cpu(&runs.bare),
        "cpu_ratio": ratio,
        "added_delay_us": added,
        "bare_added_delay_us": added_bare,
        "delivered": delivered(&runs.relay) / 100.0,
        "bare_delivered": delivered(&runs.bare) / 100.0,
    })
}
