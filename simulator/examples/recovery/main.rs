//! What it costs to deliver in time, measured in virtual time: the protocol's links over lossy link
//! models, beside two alternatives on the same channels.
//!
//! `scripts/bench-recovery` runs it and prints one table. The same seed loses the same way for
//! all schemes, as far as they send the same.

mod arq;
mod block;
mod scenario;
mod tradewind;
mod trial;

use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use tradewind_simulator::emulator::IP_UDP_HEADERS;
use tradewind_simulator::virtual_net::QUIC_OVERHEAD;

use scenario::{Must, Scenario};
use trial::{Phase, Scheme, Trial};

/// Recovery in virtual time: delivered in time, delay and cost.
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
}

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
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(HEADER);
    for scenario in scenario::all(args.packets)? {
        let named = |(name, _): &(String, Must)| name.contains(&args.only);
        if !scenario.phases.iter().filter_map(|phase| phase.row.as_ref()).any(named) {
            continue;
        }
        let mut rows = measure::<tradewind::Tradewind>("tradewind", &scenario, args.seeds)?;
        if !args.alone {
            rows.extend(measure::<block::Block>("20 + 10", &scenario, args.seeds)?);
            rows.extend(measure::<arq::Arq>("hop ARQ", &scenario, args.seeds)?);
        }
        rows.sort_by_key(|(phase, _)| *phase);
        table.add_rows(rows.into_iter().map(|(_, row)| row));
    }
    for column in 2..HEADER.len() {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    println!(
        "{} seeds of {} packets (slow flows: a quarter) after 2 s not counted. Unless stated: one hop of 40 ms RTT, \
         2,000 packets/s of 1,200 bytes, deadline propagation + 100 ms; both directions lose. sent/data: data, \
         parity and repeats per data shard, on the worst hop. Wire: both directions of all hops, everything included: \
         {IP_UDP_HEADERS} bytes of UDP/IP, {QUIC_OVERHEAD} of QUIC and QUIC's acknowledgements (a model of quinn's) for \
         Tradewind; the alternatives go over bare UDP. Back: against the packets, that is reports and heartbeats.",
        args.seeds, args.packets
    );
    Ok(())
}

/// The rows of one scheme, each with the phase that it belongs to.
fn measure<S: Scheme>(
    name: &str,
    scenario: &Scenario,
    seeds: u64,
) -> anyhow::Result<Vec<(usize, Vec<String>)>> {
    let mut sums: Vec<Sum> = scenario.phases.iter().map(|_| Sum::default()).collect();
    for seed in 1..=seeds * scenario.runs {
        for (sum, phase) in sums.iter_mut().zip(Trial::<S>::run(scenario, seed)?) {
            sum.add(phase);
        }
    }
    let rows = scenario.phases.iter().zip(sums).enumerate().filter_map(|(at, (phase, mut sum))| {
        let (row, must) = phase.row.as_ref()?;
        let sent = u64::from(phase.packets) * seeds * scenario.runs;
        let mut cells = vec![row.clone(), name.to_owned()];
        cells.extend(sum.cells(scenario, sent, *must));
        Some((at, cells))
    });
    Ok(rows.collect())
}

/// What all runs of one phase gave.
#[derive(Default)]
struct Sum {
    delays: Vec<Duration>,
    /// Per hop: shards of data, and all.
    shards: Vec<(u64, u64)>,
    wire: [u64; 2],
}

impl Sum {
    fn add(&mut self, phase: Phase) {
        let Phase { delays, before, after } = phase;
        self.delays.extend(delays);
        self.shards.resize(after.shards.len(), (0, 0));
        for (sum, (after, before)) in
            self.shards.iter_mut().zip(after.shards.iter().zip(&before.shards))
        {
            sum.0 += after.0 - before.0;
            sum.1 += after.1 - before.1;
        }
        for way in 0..2 {
            self.wire[way] += after.wire[way] - before.wire[way];
        }
    }

    fn cells(&mut self, scenario: &Scenario, sent: u64, must: Must) -> Vec<String> {
        let in_time = self.delays.iter().filter(|delay| **delay <= scenario.deadline()).count();
        let in_time = 100.0 * in_time as f64 / sent as f64;
        self.delays.sort_unstable();
        let share = |&(data, all): &(u64, u64)| all as f64 / data.max(1) as f64;
        let shards = self.shards.iter().map(share).fold(0.0, f64::max);
        let packets = (sent * scenario.hops as u64) as f64;
        let plain = (scenario.payload + IP_UDP_HEADERS) as f64;
        let [_, back] = self.wire;
        let wire = self.wire.iter().sum::<u64>() as f64 / packets;
        let reached = must.in_time.is_none_or(|least| in_time >= least)
            && must.shards.is_none_or(|most| shards <= most)
            && must.wire.is_none_or(|most| wire / plain <= most);
        let or_dash = |limit: Option<f64>| limit.map_or("-".into(), |limit| limit.to_string());
        vec![
            format!("{in_time:.4}"),
            or_dash(must.in_time),
            self.millis(0.5),
            self.millis(0.99),
            self.millis(0.999),
            format!("{shards:.3}"),
            or_dash(must.shards),
            format!("{:.3}", wire / scenario.payload as f64),
            format!("{:.3}", back as f64 / packets / scenario.payload as f64),
            match must.wire {
                Some(most) => format!("{:.3} (at most {most})", wire / plain),
                None => format!("{:.3}", wire / plain),
            },
            if reached { "yes" } else { "no" }.into(),
        ]
    }

    /// A quantile of the delays, which are sorted.
    fn millis(&self, quantile: f64) -> String {
        let at = (self.delays.len() as f64 * quantile) as usize;
        let delay = self.delays.get(at.min(self.delays.len().saturating_sub(1)));
        delay.map_or("-".into(), |delay| format!("{:.1}", delay.as_secs_f64() * 1e3))
    }
}
