//! What it costs to deliver in time: whole relays over lossy links, in virtual time beside two
//! alternatives on the same link models, or real ones in real time.
//!
//! `scripts/bench-recovery` runs it and prints one table. The same seed loses the same way for
//! all schemes, as far as they send the same.

mod arq;
mod block;
mod figures;
mod nodes;
mod real;
mod scenario;
mod trial;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use tradewind_simulator::emulator::IP_UDP_HEADERS;
use tradewind_simulator::virtual_net::QUIC_OVERHEAD;

use arq::Arq;
use block::Block;
use figures::{Figures, Phase};
use scenario::{Must, Scenario};
use trial::Trial;

/// Recovery: delivered in time, delay and cost
#[derive(Parser)]
struct Args {
    /// Runs per row, each with its own seed from 1 up
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Packets measured in each run (a quarter of it for slow flows)
    #[arg(long, default_value_t = 100_000)]
    packets: u32,
    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Leave out the alternatives
    #[arg(long)]
    alone: bool,
    /// Real relays on loopback in real time instead, one run of so many seconds a row
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60",
          conflicts_with_all = ["seeds", "packets", "alone"])]
    real: Option<u32>,
}

/// Runs a scenario with a seed and gives what became of each phase.
type Run = fn(&Scenario, u64) -> anyhow::Result<Vec<Phase>>;

const SCHEMES: [(&str, Run); 3] = [
    ("tradewind", nodes::run),
    ("20 + 10", |scenario, seed| Trial::<Block>::run(scenario, seed)),
    ("hop ARQ", |scenario, seed| Trial::<Arq>::run(scenario, seed)),
];

const HEADER: [&str; 13] = [
    "links",
    "scheme",
    "in time %",
    "at least",
    "median ms",
    "p99 ms",
    "p99.9 ms",
    "sent/data",
    "at most",
    "wire/payload",
    "of it back",
    "wire/plain UDP",
    "reached",
];

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.packets >= 1_000 && args.seeds > 0, "at least 1,000 packets and a seed");
    let mut scenarios = scenario::all(args.packets);
    scenarios.retain(|scenario| scenario.rows().any(|(name, _)| name.contains(&args.only)));
    match args.real {
        Some(seconds) => real::print(&scenarios, seconds),
        None => print(&scenarios, &args),
    }
}

fn print(scenarios: &[Scenario], args: &Args) -> anyhow::Result<()> {
    let mut table = table(&HEADER);
    let schemes = &SCHEMES[..if args.alone { 1 } else { SCHEMES.len() }];
    for scenario in scenarios {
        let measured = measure(scenario, schemes, args.seeds)?;
        for (at, spec) in scenario.phases.iter().enumerate() {
            let Some((name, must)) = &spec.row else { continue };
            for ((scheme, _), phases) in schemes.iter().zip(&measured) {
                let mut row = vec![name.clone(), (*scheme).to_owned()];
                row.extend(phases[at].figures(scenario).cells(scenario, *must));
                table.add_row(row);
            }
        }
        eprintln!("{table}\n");
    }
    println!("{table}");
    println!(
        "{} seeds of {} packets (slow flows: a quarter) after 2 s not counted, virtual time. Unless stated: one hop of 40 ms RTT, \
         2,000 packets/s of 1,200 bytes, deadline propagation + 100 ms; both directions lose. sent/data: data, \
         parity and repeats per data shard, on the worst hop. Wire: both directions of all hops, everything included: \
         {IP_UDP_HEADERS} bytes of UDP/IP, {QUIC_OVERHEAD} of QUIC, control and QUIC's acknowledgements (a model of quinn's) for \
         Tradewind; the alternatives go over bare UDP. Back: against the packets, that is reports and heartbeats.",
        args.seeds, args.packets
    );
    Ok(())
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What became of each phase under each scheme, all runs together; on all processors.
fn measure(
    scenario: &Scenario,
    schemes: &[(&str, Run)],
    seeds: u64,
) -> anyhow::Result<Vec<Vec<Phase>>> {
    let seeds = seeds * scenario.runs;
    let next = AtomicU64::new(0);
    let sums: Mutex<Vec<Option<Vec<Phase>>>> = Mutex::new(vec![None; schemes.len()]);
    let work = || -> anyhow::Result<()> {
        loop {
            let job = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, run)) = schemes.get((job / seeds) as usize) else { return Ok(()) };
            let (seed, began) = (job % seeds + 1, Instant::now());
            let phases = run(scenario, seed)?;
            let row = scenario.rows().next().map_or("", |(row, _)| row);
            let took = began.elapsed().as_secs_f64();
            eprintln!("{row}: {name}, seed {seed} of {seeds}: {took:.1} s");
            let Ok(mut sums) = sums.lock() else { return Ok(()) };
            match &mut sums[(job / seeds) as usize] {
                Some(sum) => sum.iter_mut().zip(&phases).for_each(|(sum, it)| sum.add(it)),
                none => *none = Some(phases),
            }
        }
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let sums = sums.into_inner().unwrap_or_default();
    sums.into_iter().map(|sum| sum.context("a scheme without runs")).collect()
}

impl Figures {
    /// In the order of [`HEADER`], from the third on.
    fn cells(&self, scenario: &Scenario, must: Must) -> Vec<String> {
        let Self { in_time, delays, shards, wire } = *self;
        let plain = 1.0 + IP_UDP_HEADERS as f64 / scenario.payload as f64;
        let [both, back] = [0, 1].map(|from| wire.map(|wire| wire[from..].iter().sum::<f64>()));
        let times_plain = both.map(|both| both / plain);
        let within = |figure: Option<f64>, most: Option<f64>| {
            figure.zip(most).is_none_or(|(figure, most)| figure <= most)
        };
        let reached = must.in_time.is_none_or(|least| in_time >= least)
            && within(shards, must.shards)
            && within(times_plain, must.wire);
        let limit = |limit: Option<f64>| limit.map_or("-".into(), |limit| limit.to_string());
        let figure = |figure: Option<f64>, decimals: usize| {
            figure.map_or("-".into(), |figure| format!("{figure:.decimals$}"))
        };
        let mut cells = vec![format!("{in_time:.4}"), limit(must.in_time)];
        cells.extend(delays.map(|delay| figure(delay, 1)));
        cells.extend([figure(shards, 3), limit(must.shards), figure(both, 3), figure(back, 3)]);
        cells.push(match must.wire {
            Some(most) => format!("{} (at most {most})", figure(times_plain, 3)),
            None => figure(times_plain, 3),
        });
        cells.push(if reached { "yes" } else { "no" }.into());
        cells
    }
}
