//! What the routes of the real router gain over the direct paths, on measured latencies.
//!
//! Every place is a relay with links to all others; what it states of a link is the measured delay,
//! half the larger of the two round trips. Then every relay's own router computes its routes. Run
//! it with `scripts/bench-gain`; the data and where they are from: `simulator/data/NOTICE`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Parser;
use comfy_table::{Table, presets};
use tradewind_proto::statement::{Body, LinkStatement, NodeState, SignedStatement, Statement};
use tradewind_proto::units::{Incarnation, PolicyId, PopId, PopKey, Timestamp};
use tradewind_router::lsdb::{Labels, Lsdb};
use tradewind_router::routes::{Router, RouterConfig};

const CLOUDS: &str = include_str!("../data/latency/clouds_2022.csv");
const CITIES: &str = include_str!("../data/latency/cities_2018.csv");
const SEATTLE: &str = include_str!("../data/latency/seattle_series.csv");

const NOON: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// The most links of the best path that an all-knowing router may take.
const LINKS: usize = 4;

/// Gain of the router's paths over direct ones, on measured latencies.
#[derive(Parser)]
struct Args {
    /// Slices of the time series
    #[arg(long, default_value_t = 688)]
    slices: usize,
    /// Time between two slices, which the data do not say
    #[arg(long, value_parser = humantime::parse_duration, default_value = "15s")]
    apart: Duration,
}

/// Delay of each direct path in milliseconds, one way; infinite: not measured.
#[derive(Clone)]
struct Matrix {
    ids: Vec<PopId>,
    delay: Vec<f64>,
}

impl Matrix {
    /// From round trips by pair of names; of two directions the larger counts.
    fn new(round_trips: &BTreeMap<(&str, &str), f64>) -> anyhow::Result<Self> {
        let mut names: Vec<&str> = round_trips.keys().flat_map(|&(a, b)| [a, b]).collect();
        names.sort_unstable();
        names.dedup();
        // Cities have names that no relay may have.
        let ids = (0..names.len()).map(|at| Ok(format!("pop-{at}").parse()?));
        let ids = ids.collect::<anyhow::Result<_>>()?;
        let mut delay = vec![f64::INFINITY; names.len() * names.len()];
        for (a, &from) in names.iter().enumerate() {
            for (b, &to) in names.iter().enumerate() {
                let round_trip = |pair| round_trips.get(&pair).copied();
                let larger = [round_trip((from, to)), round_trip((to, from))];
                if let Some(larger) = larger.into_iter().flatten().reduce(f64::max) {
                    delay[a * names.len() + b] = larger / 2.0;
                }
            }
        }
        Ok(Self { ids, delay })
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    fn at(&self, from: usize, to: usize) -> f64 {
        self.delay[from * self.len() + to]
    }

    fn of(&self, path: &[usize]) -> f64 {
        path.windows(2).map(|ends| self.at(ends[0], ends[1])).sum()
    }

    /// The least delay from `from` to all, with at most [`LINKS`] links.
    fn best(&self, from: usize) -> Vec<f64> {
        let mut best: Vec<f64> = (0..self.len()).map(|to| self.at(from, to)).collect();
        for _ in 1..LINKS {
            let before = best.clone();
            for (to, best) in best.iter_mut().enumerate() {
                let over = (0..self.len()).filter(|&via| via != to && via != from);
                let over = over.map(|via| before[via] + self.at(via, to));
                *best = over.fold(*best, f64::min);
            }
        }
        best
    }

    fn statement(&self, from: usize, seq: u32) -> (SignedStatement, Statement) {
        let measured = |to: &usize| *to != from && self.at(from, *to).is_finite();
        let link = |to: usize| LinkStatement {
            to: self.ids[to].key(),
            up: true,
            delay_micros: (self.at(from, to) * 1e3) as i32,
            jitter: Duration::ZERO,
            rtt: Duration::from_secs_f64(self.at(from, to) / 500.0),
            loss: 0.0,
            burst: 1.0,
            capacity_kbps: 0,
            load_kbps: 0,
            cost: Duration::ZERO,
            max_packet: 1_402,
        };
        let mut links: Vec<_> = (0..self.len()).filter(measured).map(link).collect();
        links.sort_by_key(|link| link.to);
        let state = NodeState { links, ..NodeState::default() };
        let (origin, incarnation) = (self.ids[from].clone(), Incarnation(1));
        let statement = Statement { origin, incarnation, seq, body: Body::Full(state) };
        (SignedStatement::new(Bytes::new(), [0; 64]), statement)
    }
}

/// Every relay's view and router.
struct Relays {
    lsdbs: Vec<Lsdb>,
    routers: Vec<Router>,
    numbers: BTreeMap<PopKey, usize>,
    seq: u32,
}

impl Relays {
    fn new(ids: &[PopId]) -> Self {
        Self {
            lsdbs: ids.iter().cloned().map(Lsdb::new).collect(),
            routers: ids
                .iter()
                .map(|id| Router::new(id.clone(), RouterConfig::default()))
                .collect(),
            numbers: ids.iter().map(PopId::key).zip(0..).collect(),
            seq: 0,
        }
    }

    /// All learn of all links as they are now, and choose.
    fn learn(&mut self, matrix: &Matrix, now: Timestamp) -> anyhow::Result<()> {
        self.seq += 1;
        for (lsdb, router) in self.lsdbs.iter_mut().zip(&mut self.routers) {
            for from in 0..matrix.len() {
                let (signed, statement) = matrix.statement(from, self.seq);
                let taken = lsdb.insert(signed, Arc::new(statement), &Labels::default(), now);
                taken.map_err(|why| anyhow::anyhow!("a statement is refused: {why:?}"))?;
            }
            router.update(lsdb, now);
        }
        Ok(())
    }

    fn path(&self, from: usize, to: &PopId) -> Option<Vec<usize>> {
        let path = self.routers[from].route(PolicyId::NONE, to.key())?.primary.path;
        path.pops().iter().map(|key| self.numbers.get(key).copied()).collect()
    }
}

/// Of ordered pairs with a measured direct path.
#[derive(Default)]
struct Gains {
    /// Milliseconds that the chosen path is shorter, negative if longer.
    saved: Vec<f64>,
    /// The chosen path's delay over that of the best there is.
    over_best: Vec<f64>,
}

impl Gains {
    /// Adds the paths in use, on the delays of `matrix`.
    fn add(&mut self, relays: &Relays, matrix: &Matrix) {
        for from in 0..matrix.len() {
            let best = matrix.best(from);
            for (to, id) in matrix.ids.iter().enumerate() {
                let direct = matrix.at(from, to);
                if from == to || !direct.is_finite() {
                    continue;
                }
                let Some(path) = relays.path(from, id) else { continue };
                self.saved.push(direct - matrix.of(&path));
                self.over_best.push(matrix.of(&path) / best[to]);
            }
        }
    }

    fn row(mut self, name: &str) -> [String; 8] {
        let pairs = self.saved.len();
        let share = |of: &dyn Fn(&&f64) -> bool| {
            let count = self.saved.iter().filter(of).count();
            format!("{:.1}", 100.0 * count as f64 / pairs.max(1) as f64)
        };
        let (improved, worse) = (share(&|saved| **saved > 1.0), share(&|saved| **saved < -2.0));
        self.saved.sort_by(f64::total_cmp);
        self.over_best.sort_by(f64::total_cmp);
        let at = |sorted: &[f64], q: f64| {
            let at = (q * sorted.len() as f64) as usize;
            sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
        };
        [
            name.to_owned(),
            pairs.to_string(),
            improved,
            format!("{:.1}", at(&self.saved, 0.5)),
            format!("{:.1}", at(&self.saved, 0.9)),
            format!("{:.1}", at(&self.saved, 0.99)),
            worse,
            format!("{:.1}", 100.0 * (at(&self.over_best, 0.5) - 1.0)),
        ]
    }
}

fn pairs(csv: &str) -> anyhow::Result<BTreeMap<(&str, &str), f64>> {
    csv.lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split(',');
            let mut cell = || cells.next().with_context(|| format!("a short row: {line}"));
            Ok(((cell()?, cell()?), cell()?.parse()?))
        })
        .collect()
}

/// The slices of a time series, a matrix each.
fn series(csv: &str) -> anyhow::Result<Vec<Matrix>> {
    let mut lines = csv.lines();
    let header = lines.next().context("an empty file")?.split(',').skip(1);
    let columns = header.map(|pair| pair.split_once('-').context("a column is named a-b"));
    let columns = columns.collect::<anyhow::Result<Vec<_>>>()?;
    let slice = |line: &str| {
        let cells = line.split(',').skip(1).map(str::parse);
        let cells = cells.collect::<Result<Vec<f64>, _>>()?;
        Matrix::new(&columns.iter().copied().zip(cells).collect())
    };
    lines.map(slice).collect()
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "latencies",
        "ordered pairs",
        "better by > 1 ms %",
        "gain p50 ms",
        "p90 ms",
        "p99 ms",
        "worse by > 2 ms %",
        "over the best path, median %",
    ]);
    for (name, csv) in [("clouds_2022", CLOUDS), ("cities_2018", CITIES)] {
        let matrix = Matrix::new(&pairs(csv)?)?;
        let mut relays = Relays::new(&matrix.ids);
        relays.learn(&matrix, NOON)?;
        let mut gains = Gains::default();
        gains.add(&relays, &matrix);
        table.add_row(gains.row(name));
    }
    let slices: Vec<Matrix> = series(SEATTLE)?.into_iter().take(args.slices).collect();
    let first = slices.first().context("no slices")?;
    let mut relays = Relays::new(&first.ids);
    let (mut seen, mut next) = (Gains::default(), Gains::default());
    for (at, matrix) in slices.iter().enumerate() {
        let now = NOON + args.apart * u32::try_from(at)?;
        relays.learn(matrix, now)?;
        seen.add(&relays, matrix);
        if let Some(later) = slices.get(at + 1) {
            next.add(&relays, later);
        }
    }
    table.add_row(seen.row("seattle, the slice seen"));
    table.add_row(next.row("seattle, the next slice"));
    println!("{table}");
    Ok(())
}
