//! How long a large world takes, and how much memory: PoPs all over a globe, each with links to its
//! nearest and to others, flows between random ones, a relay killed and one link degraded.
//! `cargo run --release -p tradewind-simulator --example large -- --pops 200`; packet by packet, for
//! worlds that are not so large: `-- --packets --pops 20 --flows 200 --pps 100`

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tradewind_simulator::progress::{Progress, Tick};
use tradewind_simulator::simulation;
use tradewind_simulator::traffic::FlowReport;
use tradewind_simulator::world::World;

/// As in `tradewind-sim`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A large world.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 200)]
    pops: usize,
    #[arg(long, default_value_t = 10_000)]
    flows: usize,
    /// Links of each PoP to its nearest
    #[arg(long, default_value_t = 16)]
    near: usize,
    /// Links of each PoP to others, near and far
    #[arg(long, default_value_t = 8)]
    far: usize,
    /// At fidelity `packet` rather than `flow`
    #[arg(long)]
    packets: bool,
    /// Packets of 1,000 bytes a second of each flow, rather than sound and pictures
    #[arg(long)]
    pps: Option<u32>,
    /// Seconds of traffic
    #[arg(long, default_value_t = 60)]
    duration: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the world file and end
    #[arg(long)]
    print: bool,
    /// Print the whole outcome as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let text = world(&args)?;
    if args.print {
        print!("{text}");
        return Ok(());
    }
    let mut world = World::parse("large", &text)?;
    for traffic in &mut world.traffic {
        traffic.group = Some(format!("{:?}", traffic.class).to_lowercase());
    }
    let began = Instant::now();
    let outcome = simulation::run(&world, &mut Silent)?;
    let took = began.elapsed();
    if args.json {
        println!("{:#}", outcome.to_json());
    }
    let all = FlowReport::merged(outcome.flows.iter().map(|flow| &flow.overlay));
    let changes: usize = outcome.flows.iter().map(|flow| flow.routes.len() - 1).sum();
    let routed = outcome.flows.iter().filter(|flow| flow.routes.iter().all(|r| r.path.is_some()));
    eprintln!(
        "{} PoPs, {} directed links, {} flows, {} s: {:.1} s, {} MiB at most",
        world.pops.len(),
        world.links.len(),
        world.traffic.len(),
        args.duration,
        took.as_secs_f64(),
        peak_mib()?
    );
    eprintln!(
        "{:.4} % in time, {} changes of routes, {} flows routed all the time, {:.3} wire bytes \
         per payload byte and link",
        100.0 * all.in_time_share(),
        changes,
        routed.count(),
        outcome.wire.per_crossing()
    );
    Ok(())
}

fn world(args: &Args) -> anyhow::Result<String> {
    let mut rng = SmallRng::seed_from_u64(args.seed);
    let mut text = String::new();
    let Args { pops, flows, near, far, duration, seed, .. } = *args;
    let fidelity = if args.packets { "packet" } else { "flow" };
    writeln!(text, "[run]\nname = \"large\"\nfidelity = \"{fidelity}\"\nseed = {seed}")?;
    writeln!(text, "duration = \"{duration}s\"\nwarmup = \"5s\"")?;
    // Degrees north as on land, which lies north mostly.
    let place =
        |rng: &mut SmallRng| (rng.random_range(-35.0..60.0), rng.random_range(-120.0..150.0));
    let places: Vec<(f64, f64)> = (0..pops).map(|_| place(&mut rng)).collect();
    for (pop, (north, east)) in places.iter().enumerate() {
        writeln!(text, "[[pop]]\nid = \"pop-{pop}\"\nlocation = [{north:.3}, {east:.3}]")?;
    }
    let mut linked = std::collections::BTreeSet::new();
    for own in 0..pops {
        let mut others: Vec<usize> = (0..pops).filter(|&other| other != own).collect();
        others.sort_by(|&a, &b| {
            distance(places[own], places[a]).total_cmp(&distance(places[own], places[b]))
        });
        let distant = others.split_off(near.min(others.len()));
        others.extend((0..far).filter_map(|n| distant.get(n * distant.len() / far)));
        linked.extend(others.into_iter().map(|other| (own.min(other), own.max(other))));
    }
    for &(a, b) in &linked {
        // Light in glass, 200 km a millisecond, on a way 1.3 to 2.2 times as long.
        let way = distance(places[a], places[b]) * rng.random_range(1.3..2.2);
        let delay = way / 200.0 + 0.3;
        let jitter = if rng.random_bool(0.3) { rng.random_range(0.1..2.0) } else { 0.0 };
        let loss = if rng.random_bool(0.1) { rng.random_range(0.1..2.0) } else { 0.0 };
        writeln!(
            text,
            "[[link]]\nbetween = [\"pop-{a}\", \"pop-{b}\"]\ndelay = \"{:.0}us\"\n\
             jitter = \"{:.0}us\"\nloss = \"{loss:.2}%\"",
            delay * 1e3,
            jitter * 1e3
        )?;
    }
    for flow in 0..flows {
        let from = rng.random_range(0..pops);
        let to = (from + rng.random_range(1..pops)) % pops;
        let (class, pps, size) = match args.pps {
            Some(pps) => ("video", pps, 1000),
            None if flow % 2 == 0 => ("audio", 50, 160),
            None => ("video", 200, 1100),
        };
        writeln!(
            text,
            "[[traffic]]\nfrom = \"pop-{from}\"\nto = \"pop-{to}\"\n\
             class = \"{class}\"\npps = {pps}\nsize = {size}\ndeadline = \"400ms\""
        )?;
    }
    if let Some((a, b)) = linked.iter().nth(linked.len() / 2)
        && duration >= 4
    {
        let (kill, bad, well) = (duration / 3, duration / 2, duration * 3 / 4);
        writeln!(text, "[[event]]\nat = \"{kill}s\"\nkill = \"pop-{}\"", pops / 2)?;
        let link = format!("[\"pop-{a}\", \"pop-{b}\"]");
        writeln!(text, "[[event]]\nat = \"{bad}s\"\ndegrade = {link}\nloss = \"20%\"")?;
        writeln!(text, "[[event]]\nat = \"{well}s\"\nrestore = {link}")?;
    }
    Ok(text)
}

/// Kilometres on a globe (haversine).
fn distance(a: (f64, f64), b: (f64, f64)) -> f64 {
    let [lat1, lon1, lat2, lon2] = [a.0, a.1, b.0, b.1].map(f64::to_radians);
    let half = |x: f64| (x / 2.0).sin().powi(2);
    let h = half(lat2 - lat1) + lat1.cos() * lat2.cos() * half(lon2 - lon1);
    2.0 * 6371.0 * h.sqrt().asin()
}

/// The most memory that this process held (Linux).
fn peak_mib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.unwrap_or(0) / 1024)
}

struct Silent;

impl Progress for Silent {
    fn note(&mut self, line: &str) {
        eprintln!("{line}");
    }

    fn tick(&mut self, state: &Tick<'_>) {
        if state.elapsed.subsec_nanos() == 0 && state.elapsed.as_secs().is_multiple_of(5) {
            eprintln!("{:?} of {:?}", state.elapsed, Duration::from_secs(state.total.as_secs()));
        }
    }
}
