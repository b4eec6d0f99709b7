//! What rate control makes of bottlenecks, measured: the daemon's own relays over link models in
//! virtual time, beside a QUIC stream under Cubic where that is asked for.
//!
//! The link has an RTT of 40 ms and 64 kB of queue unless a row says otherwise; packets are to be
//! delivered within propagation + 100 ms. Run it with `scripts/bench-bottleneck`.

mod rival;
mod scenario;

use std::ops::Range;
use std::time::Duration;

use clap::Parser;
use comfy_table::{Table, presets};
use rival::share_with_rival;
use scenario::{Bottleneck, SPAN, drop_to_a_fifth, narrow, wide};
use tradewind_proto::units::Class;
use tradewind_simulator::link::LinkSpec;

/// Bottlenecks in virtual time: what arrives in time, and how long the queue grows.
#[derive(Parser)]
struct Args {
    /// Runs per row, each with its own seed from 1 up
    #[arg(long, default_value_t = 10)]
    seeds: u64,
}

/// What the runs of a row have in common.
struct Row<'a> {
    name: String,
    /// Video offered, payload alone.
    mbps: f64,
    /// When what is counted is sent.
    span: Range<Duration>,
    wanted: &'a str,
    runs: Vec<Bottleneck>,
    remark: String,
}

impl Row<'_> {
    fn cells(&self) -> [String; 9] {
        let of = |class| self.runs.iter().map(move |run| run.tally(class, self.span.clone()));
        let missed: usize = of(Class::Audio).map(|tally| tally.sent - tally.in_time()).sum();
        let audio: usize = of(Class::Audio).map(|tally| tally.sent).sum();
        let least = of(Class::Video).map(|tally| tally.percent_in_time()).fold(100.0, f64::min);
        let arrived: f64 = of(Class::Video).map(|tally| tally.percent_in_time()).sum();
        let late: usize = of(Class::Video).map(|tally| tally.delivered() - tally.in_time()).sum();
        let expired: u64 = self.runs.iter().map(|run| run.link().counters().expired_video_tx).sum();
        let queue = |quantile| {
            let worst = self.runs.iter().map(|run| run.queue(self.span.clone(), quantile)).max();
            format!("{:.1}", worst.unwrap_or_default().as_secs_f64() * 1e3)
        };
        let runs = self.runs.len() as f64;
        [
            self.name.clone(),
            format!("{missed} of {audio}"),
            format!("{least:.2}"),
            format!("{:.2}", self.mbps * arrived / runs / 100.0),
            late.to_string(),
            format!("{:.0}", expired as f64 / runs),
            queue(0.95),
            self.remark.clone(),
            self.wanted.to_owned(),
        ]
    }
}

fn main() -> anyhow::Result<()> {
    let Args { seeds } = Args::parse();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "scenario",
        "audio missed",
        "video in time %, worst run",
        "video in time Mbit/s",
        "video late",
        "video expired unsent a run",
        "queue p95 ms, worst run",
        "",
        "wanted",
    ]);
    for (mbps, loss, wanted) in [
        (7.0, 0.05, "audio all, video 99 %, p95 20 ms"),
        (7.0, 0.0, "-"),
        (12.0, 0.0, "-"),
        (12.0, 0.05, "-"),
        (12.0, 0.3, "-"),
    ] {
        let name = format!("10 Mbit/s, {:.0} % loss, {mbps} Mbit/s offered", loss * 100.0);
        table.add_row(steady(name, narrow(10, loss), (mbps, wanted), seeds).cells());
    }
    let name = "no limit, 30 % loss, 15 Mbit/s offered".to_owned();
    table.add_row(steady(name, wide(0.3), (15.0, "rate above what is offered"), seeds).cells());
    for (loss, wanted) in [(0.0, "audio 99.9 %, none late, back within 2 s"), (0.05, "-")] {
        table.add_row(drop(loss, wanted, seeds).cells());
    }
    println!("{table}");
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "beside Cubic, 20 Mbit/s, queue kB",
        "began first",
        "ours Mbit/s",
        "Cubic's Mbit/s",
        "ours, worst run",
        "Cubic's, worst run",
        "wanted",
    ]);
    for queue in [32_000, 64_000, 100_000, 250_000] {
        for rival_first in [false, true] {
            let shares = (1..=seeds).map(|seed| share_with_rival(seed, queue, rival_first));
            let shares: Vec<_> = shares.collect::<anyhow::Result<_>>()?;
            let both = [0, 1].map(|who| shares.iter().map(move |share| share[who]));
            let mean = |who: usize| both[who].clone().sum::<f64>() / seeds as f64;
            let worst = |who: usize| both[who].clone().fold(f64::INFINITY, f64::min);
            let mut cells = vec![(queue / 1000).to_string()];
            cells.push(if rival_first { "Cubic" } else { "ours" }.to_owned());
            cells.extend([mean(0), mean(1), worst(0), worst(1)].map(|mbps| format!("{mbps:.1}")));
            cells.push("3.3 each".to_owned());
            table.add_row(cells);
        }
    }
    println!("{table}");
    Ok(())
}

fn steady(name: String, link: LinkSpec, (mbps, wanted): (f64, &str), seeds: u64) -> Row<'_> {
    let run = |seed| {
        let mut run = Bottleneck::new(seed, link.clone(), mbps);
        run.run_until(SPAN + Duration::from_millis(500));
        run
    };
    let runs: Vec<_> = (1..=seeds).map(run).collect();
    let least = runs.iter().flat_map(|run| run.rates(Duration::ZERO..SPAN)).min();
    let remark = format!("least rate {:.1} Mbit/s", least.unwrap_or(0) as f64 / 1e6);
    Row { name, mbps, span: Duration::ZERO..SPAN, wanted, runs, remark }
}

fn drop(loss: f64, wanted: &str, seeds: u64) -> Row<'_> {
    let drops: Vec<_> = (1..=seeds).map(|seed| drop_to_a_fifth(seed, loss)).collect();
    let back = drops.iter().map(|drop| drop.back_after.unwrap_or(Duration::MAX)).max();
    Row {
        name: format!("10 to 2 Mbit/s for 20 s, {:.0} % loss, 8 Mbit/s offered", loss * 100.0),
        mbps: 8.0,
        span: drops[0].narrow_for.clone(),
        wanted,
        remark: format!("90 % again after {:.2} s", back.unwrap_or_default().as_secs_f64()),
        runs: drops.into_iter().map(|drop| drop.link).collect(),
    }
}
