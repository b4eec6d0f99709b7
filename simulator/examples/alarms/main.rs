//! How often a link that lives is taken for dead, and what a suspicion for nothing costs the
//! traffic, in virtual time.
//!
//! Run it with `scripts/bench-failover alarms`.

mod carrying;
mod silent;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use comfy_table::{Table, presets};
use tradewind_simulator::link::{Loss, LossError};

use carrying::Cost;

/// How often a link that lives is suspected, or taken for dead, and what that costs.
#[derive(Parser)]
struct Args {
    /// Hours of each silent link
    #[arg(long, default_value_t = 1)]
    hours: u32,
    /// Silent links per row, each with its own seed
    #[arg(long, default_value_t = 96)]
    links: u64,
    /// Minutes of traffic per row of what suspicions cost, each with its own seed
    #[arg(long, default_value_t = 20)]
    minutes: u64,
}

const HOUR: Duration = Duration::from_secs(3_600);
/// Of the links that lose.
const ONE_WAY: Duration = Duration::from_millis(20);

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(
        args.hours > 0 && args.links > 0 && args.minutes > 0,
        "--hours, --links and --minutes must be above zero"
    );
    let losses = losses()?;
    let silent = silent_table(&losses, &args);
    let costs = cost_table(&losses, &args);
    println!("{silent}");
    println!(
        "Hot and silent: RTT {} ms, a heartbeat every 10 ms each way, both ways lossy, both ends' verdicts of a link added up.",
        2 * ONE_WAY.as_millis()
    );
    println!("\n{costs}");
    println!("{}", carrying::NOTE);
    Ok(())
}

/// What the links lose, each way.
fn losses() -> Result<[(&'static str, Loss); 3], LossError> {
    let burst = Duration::from_millis(25);
    Ok([
        ("30 %, by chance", Loss::independent(0.3)?),
        ("2 %, bursts of 25 ms", Loss::outages(0.02, burst)?),
        ("10 %, bursts of 25 ms", Loss::outages(0.1, burst)?),
    ])
}

fn silent_table(losses: &[(&str, Loss)], args: &Args) -> Table {
    let mut table = table(&[
        "loss, each way",
        "link-days",
        "suspects per link and minute",
        "downs",
        "downs per link and day, at most (95 %)",
    ]);
    for (name, loss) in losses {
        let runs =
            on_all_processors(args.links, |seed| silent::run(*loss, HOUR * args.hours, seed));
        let (suspects, downs) = runs.iter().fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
        let days = (args.links * u64::from(args.hours)) as f64 / 24.0;
        table.add_row([
            (*name).to_owned(),
            format!("{days:.1}"),
            format!("{:.2}", suspects as f64 / (days * 24.0 * 60.0)),
            downs.to_string(),
            format!("{:.2}", upper_limit(downs) / days),
        ]);
        eprintln!("{table}\n");
    }
    table
}

fn cost_table(losses: &[(&str, Loss)], args: &Args) -> Table {
    let mut table = table(&carrying::HEADER);
    for (name, loss) in losses {
        for way_around in [false, true] {
            let runs =
                on_all_processors(args.minutes, |seed| carrying::run(*loss, way_around, seed));
            let way = if way_around { "longer by 60 ms" } else { "none" };
            let mut row = vec![(*name).to_owned(), way.to_owned()];
            row.extend(Cost::of_all(&runs).cells());
            table.add_row(row);
            eprintln!("{table}\n");
        }
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
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

/// What `run` gives for each seed from 0 up, in their order.
fn on_all_processors<T: Send>(seeds: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let done = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let result = run(seed);
                    if let Ok(mut done) = done.lock() {
                        done.push((seed, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_unstable_by_key(|&(seed, _)| seed);
    done.into_iter().map(|(_, result)| result).collect()
}
