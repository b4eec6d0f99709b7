//! How often a link that lives is taken for dead: two `Link` machines of the protocol, hot and
//! silent (nothing but heartbeats and reports to judge by), over a lossy link model, in virtual time.
//!
//! Run it with `scripts/bench-failover alarms`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use comfy_table::{Table, presets};
use tradewind_proto::link::{Heat, Link, LinkConfig, Recovery};
use tradewind_proto::units::{PopId, Timestamp};
use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::pop;
use tradewind_simulator::virtual_net::VirtualNet;

/// How often a link that lives is suspected, or taken for dead.
#[derive(Parser)]
struct Args {
    /// Hours of each link
    #[arg(long, default_value_t = 1)]
    hours: u32,
    /// Links per row, each with its own seed
    #[arg(long, default_value_t = 96)]
    links: u64,
}

/// Some moment in 2026; the machines want plausible clocks.
const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
const HOUR: Duration = Duration::from_secs(3_600);
/// What comes before counts for nothing: the link learns its loss.
const WARMUP: Duration = Duration::from_secs(20);
const ONE_WAY: Duration = Duration::from_millis(20);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.hours > 0 && args.links > 0, "--hours and --links must be above zero");
    let burst = Duration::from_millis(25);
    let rows = [
        ("30 %, by chance", Loss::independent(0.3)?),
        ("2 %, bursts of 25 ms", Loss::outages(0.02, burst)?),
        ("10 %, bursts of 25 ms", Loss::outages(0.1, burst)?),
    ];
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "loss, each way",
        "link-days",
        "suspects per link and minute",
        "downs",
        "downs per link and day, at most (95 %)",
    ]);
    for (name, loss) in rows {
        let (suspects, downs) = count(loss, &args);
        let days = (args.links * u64::from(args.hours)) as f64 / 24.0;
        table.add_row([
            name.to_owned(),
            format!("{days:.1}"),
            format!("{:.2}", suspects as f64 / (days * 24.0 * 60.0)),
            downs.to_string(),
            format!("{:.2}", upper_limit(downs) / days),
        ]);
        eprintln!("{table}\n");
    }
    println!("{table}");
    println!(
        "RTT {} ms, a heartbeat every 10 ms each way, both ways lossy, both ends' verdicts of a link added up.",
        2 * ONE_WAY.as_millis()
    );
    Ok(())
}

/// What a Poisson count of `seen` allows the expectation to be at most, with 95 % confidence: 3 for
/// none (the rule of three), else by Wilson and Hilferty's approximation of the chi-square quantile.
fn upper_limit(seen: u64) -> f64 {
    if seen == 0 {
        return 3.0;
    }
    let n = (seen + 1) as f64;
    n * (1.0 - 1.0 / (9.0 * n) + 1.645 / (3.0 * n.sqrt())).powi(3)
}

/// Suspicions and downs of all links, on all processors.
fn count(loss: Loss, args: &Args) -> (u64, u64) {
    let next = AtomicU64::new(0);
    let sums = Mutex::new((0, 0));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.links {
                        return;
                    }
                    let (suspects, downs) = run(loss, HOUR * args.hours, seed);
                    if let Ok(mut sums) = sums.lock() {
                        *sums = (sums.0 + suspects, sums.1 + downs);
                    }
                }
            });
        }
    });
    sums.into_inner().unwrap_or_default()
}

/// One link for so long: suspicions and downs of both ends.
fn run(loss: Loss, span: Duration, seed: u64) -> (u64, u64) {
    let names: [PopId; 2] = ["a", "b"].map(pop);
    let mut net = VirtualNet::new(seed);
    net.connect_both(&names[0], &names[1], LinkSpec { loss, ..LinkSpec::with_delay(ONE_WAY) });
    let config = LinkConfig { datagram: 1_414, peer_clock_offset: 0, recovery: Recovery::Plan };
    let mut ends = [(); 2].map(|()| Link::new(config.clone(), START));
    ends.iter_mut().for_each(|end| end.set_heat(Heat::Hot, START));
    let alarms = |ends: &[Link; 2]| {
        let counters = ends.each_ref().map(|end| (end.counters().suspects, end.counters().downs));
        (counters[0].0 + counters[1].0, counters[0].1 + counters[1].1)
    };
    let mut before = None;
    let mut now = START;
    while now < START + WARMUP + span {
        if before.is_none() && now >= START + WARMUP {
            before = Some(alarms(&ends));
        }
        if net.next_at() <= now
            && let Some(arrival) = net.next()
        {
            ends[usize::from(arrival.to == names[1])].handle_datagram(arrival.datagram, now);
        }
        for (end, other) in [(0, 1), (1, 0)] {
            if ends[end].poll_timeout() <= now {
                ends[end].handle_timeout(now);
            }
            while let Some(datagram) = ends[end].poll_transmit(now) {
                net.send(&names[end], &names[other], datagram, now);
            }
            while ends[end].poll_event().is_some() {}
        }
        let wake = ends.iter().map(Link::poll_timeout).min().unwrap_or(Timestamp::NEVER);
        now = net.next_at().min(wake).max(now);
    }
    let (was, is) = (before.unwrap_or_default(), alarms(&ends));
    (is.0 - was.0, is.1 - was.1)
}
