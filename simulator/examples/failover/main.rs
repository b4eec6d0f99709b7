//! How long packets stay out when a relay dies or a link goes dark: the daemon's own relays in a
//! mesh of twenty, in virtual time or with real sockets.
//!
//! Run it with `scripts/bench-failover mesh` or `mesh-real`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use comfy_table::{Table, presets};
use tradewind_proto::units::Redundancy;

mod mesh;
mod real;

use mesh::{Fault, Outcome, Scenario};

/// How long packets stay out when a relay dies or a link goes dark in a mesh of twenty.
#[derive(Parser)]
struct Args {
    /// Places at which it happens
    #[arg(long, default_value_t = 30)]
    places: usize,
    /// Runs at each place, each with other losses, jitter and phases
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// So many cases with real relays on loopback in real time instead
    #[arg(long, value_name = "CASES", conflicts_with_all = ["places", "seeds", "only"])]
    real: Option<usize>,
}

/// One-way delay of the longest link of the mesh that the figures are asked for, and of others.
const NEAR: Duration = Duration::from_millis(20);
const FAR: Duration = Duration::from_millis(100);

/// What is asked for, of gaps in milliseconds: median and 99th percentile.
enum Wanted {
    Gap(Option<u64>, u64),
    LessHop(u64, u64),
    Nothing,
    NoneMissed,
}

struct Row {
    name: &'static str,
    scenario: Scenario,
    wanted: Wanted,
}

const fn row(
    name: &'static str,
    (faults, percent, longest): (&'static [Fault], u32, Duration),
    redundancy: Redundancy,
    wanted: Wanted,
) -> Row {
    let loss = percent as f64 / 100.0;
    Row { name, scenario: Scenario { faults, loss, longest, redundancy }, wanted }
}

const ROWS: [Row; 6] = {
    use Redundancy::{Disjoint, Single};
    const BOTH: &[Fault] = &[Fault::Relay, Fault::Link];
    const ONE_WAY: &[Fault] = &[Fault::OneWay];
    [
        row("no loss", (BOTH, 0, NEAR), Single, Wanted::Gap(Some(80), 150)),
        row("30 % loss", (BOTH, 30, NEAR), Single, Wanted::Gap(None, 400)),
        row("far links", (BOTH, 0, FAR), Single, Wanted::LessHop(40, 110)),
        row("disjoint", (BOTH, 0, NEAR), Disjoint, Wanted::NoneMissed),
        row("dark one way", (ONE_WAY, 0, NEAR), Single, Wanted::Gap(Some(80), 150)),
        row("disjoint, 30 % loss", (BOTH, 30, NEAR), Disjoint, Wanted::Nothing),
    ]
};

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(cases) = args.real {
        return real::print(cases, NEAR);
    }
    ensure!(args.places > 0 && args.seeds > 0, "--places and --seeds must be above zero");
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "what",
        "cases",
        "gap median ms",
        "p99",
        "worst",
        "less the hop's RTT median",
        "p99",
        "wanted",
        "missed of sent",
        "before: suspects/s",
        "detoured %",
    ]);
    for row in ROWS.iter().filter(|row| row.name.contains(&args.only)) {
        table.add_row(cells(row, &cases(&row.scenario, &args)));
        eprintln!("{table}\n");
    }
    println!("{table}");
    println!(
        "By turns a relay on the path is killed or a link on it goes dark. Meshes of {} relays, one flow of 200 packets/s, {} places x {} seeds; links of at most {} ms RTT (far: {} ms), \
         a way around that is at most 10 ms longer; virtual time. Before: in the two seconds before the fault, \
         all links of all relays together.",
        mesh::RELAYS,
        args.places,
        args.seeds,
        2 * NEAR.as_millis(),
        2 * FAR.as_millis(),
    );
    Ok(())
}

/// Runs the cases of all places that suit the scenario, on all processors.
fn cases(scenario: &Scenario, args: &Args) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Vec<Outcome>)>> = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                // Four in five places suit; the others are left out.
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let enough = |done: &[(usize, Vec<Outcome>)]| {
                        done.iter().filter(|(at, cases)| *at < place && !cases.is_empty()).count()
                            >= args.places
                    };
                    if place >= 4 * args.places || done.lock().is_ok_and(|done| enough(&done)) {
                        return;
                    }
                    let place_no = place as u64;
                    let outcomes =
                        (0..args.seeds).filter_map(|seed| mesh::run(scenario, place_no, seed));
                    let outcomes = outcomes.collect();
                    if let Ok(mut done) = done.lock() {
                        done.push((place, outcomes));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_unstable_by_key(|(place, _)| *place);
    done.retain(|(_, outcomes)| !outcomes.is_empty());
    done.into_iter().take(args.places).flat_map(|(_, outcomes)| outcomes).collect()
}

fn cells(row: &Row, cases: &[Outcome]) -> Vec<String> {
    let gaps = sorted(cases, |case| case.gap);
    let less = sorted(cases, |case| case.gap.saturating_sub(case.hop));
    let sum = |of: fn(&Outcome) -> u64| cases.iter().map(of).sum::<u64>();
    let wanted = match row.wanted {
        Wanted::Gap(Some(median), p99) => format!("{median}, {p99}"),
        Wanted::Gap(None, p99) => format!("p99 {p99}"),
        Wanted::LessHop(median, p99) => format!("less RTT {median}, {p99}"),
        Wanted::NoneMissed => "none missed".to_owned(),
        Wanted::Nothing => "-".to_owned(),
    };
    vec![
        row.name.to_owned(),
        cases.len().to_string(),
        ms(quantile(&gaps, 0.5)),
        ms(quantile(&gaps, 0.99)),
        ms(quantile(&gaps, 1.0)),
        ms(quantile(&less, 0.5)),
        ms(quantile(&less, 0.99)),
        wanted,
        format!("{} of {}", sum(|case| case.missed as u64), sum(|case| case.sent as u64)),
        format!("{:.2}", sum(|case| case.suspects) as f64 / (2.0 * cases.len().max(1) as f64)),
        format!(
            "{:.2}",
            100.0 * sum(|case| case.detoured) as f64 / sum(|case| case.calm).max(1) as f64
        ),
    ]
}

fn sorted(cases: &[Outcome], of: impl Fn(&Outcome) -> Duration) -> Vec<Duration> {
    let mut spans: Vec<_> = cases.iter().map(of).collect();
    spans.sort_unstable();
    spans
}

/// The least value that so large a share does not exceed.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

fn ms(span: Duration) -> String {
    format!("{:.1}", span.as_secs_f64() * 1e3)
}
