//! What a sweep found, as a table, CSV and JSON.

use std::fmt::Write;

use comfy_table::{Cell, Table};
use serde_json::{Value, json};

use super::{Axis, Estimate, Figures};
use crate::outcome::{number, plain_table};

/// The result of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct SweepResult {
    /// The world's name.
    pub world: String,
    /// The seeds that every point was to run with.
    pub seeds: Vec<u64>,
    /// What varied.
    pub axes: Vec<Axis>,
    /// Every point of the grid, the last key the first to change.
    pub points: Vec<Point>,
}

/// A point of the grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Every key and its value here.
    pub settings: Vec<(String, String)>,
    /// The runs that came to their end, in the order of their seeds.
    pub runs: Vec<RunAt>,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunAt {
    /// Its seed.
    pub seed: u64,
    /// Its figures, or why there are none.
    pub result: Result<Figures, String>,
    /// What the world asserts and is not so, a sentence each.
    pub broken: Vec<String>,
}

impl RunAt {
    pub(super) fn failed(seed: u64, why: String) -> Self {
        Self { seed, result: Err(why), broken: Vec::new() }
    }
}

impl Point {
    /// One for each of [`Figures::NAMES`]; `None` where no run has that figure.
    pub fn estimates(&self) -> [Option<Estimate>; Figures::COUNT] {
        let runs: Vec<_> = self.figures().map(|(_, figures)| figures.values()).collect();
        std::array::from_fn(|at| {
            let values: Vec<f64> = runs.iter().filter_map(|values| values[at]).collect();
            Estimate::of(&values)
        })
    }

    fn figures(&self) -> impl Iterator<Item = (u64, &Figures)> {
        self.runs.iter().filter_map(|run| Some((run.seed, run.result.as_ref().ok()?)))
    }

    fn failed(&self) -> impl Iterator<Item = (u64, &str)> {
        self.runs.iter().filter_map(|run| Some((run.seed, run.result.as_ref().err()?.as_str())))
    }

    /// `link.loss=0.05 recovery.mode=arq`.
    pub fn name(&self) -> String {
        let named = self.settings.iter().map(|(key, value)| format!("{key}={value}"));
        named.collect::<Vec<_>>().join(" ")
    }
}

impl SweepResult {
    /// Whether every run came to its end.
    pub fn is_whole(&self) -> bool {
        self.points.iter().all(|point| point.figures().count() == self.seeds.len())
    }

    /// What was asserted and is not so, a line each that names the point and the seed.
    pub fn broken(&self) -> Vec<String> {
        let of_run = |point: &Point, run: &RunAt| -> Vec<String> {
            let here = format!("{} seed {}", point.name(), run.seed);
            run.broken.iter().map(|figure| format!("{here}: {figure}")).collect()
        };
        let of_point = |point: &Point| -> Vec<String> {
            point.runs.iter().flat_map(|run| of_run(point, run)).collect()
        };
        self.points.iter().flat_map(of_point).collect()
    }

    /// A row for each point.
    pub fn table(&self) -> Table {
        let keys = self.axes.iter().map(Axis::key);
        let header: Vec<&str> = keys.chain(["runs"]).chain(Figures::TITLES).collect();
        let mut table = plain_table(&header);
        for point in &self.points {
            let mut row: Vec<Cell> =
                point.settings.iter().map(|(_, value)| Cell::new(value)).collect();
            row.push(number(point.figures().count()));
            let estimates = point.estimates().into_iter().zip(Figures::DIGITS);
            row.extend(estimates.map(|(estimate, digits)| number(text(estimate, digits))));
            table.add_row(row);
        }
        table
    }

    /// What the reader should know beside the table, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let done: usize = self.points.iter().map(|point| point.runs.len()).sum();
        let all = self.points.len() * self.seeds.len();
        let mut lines = Vec::new();
        if self.seeds.len() > 1 {
            lines.push("± is the 95 % confidence interval of the mean over the seeds".to_owned());
        }
        if done < all {
            lines.push(format!("interrupted after {done} of {all} runs"));
        }
        for point in &self.points {
            for (seed, why) in point.failed() {
                lines.push(format!("no result with {} seed {seed}: {why}", point.name()));
            }
        }
        lines
    }

    /// A line for each point: the keys, `runs`, `failed`, of each figure `…_mean` and `…_ci95`, and
    /// `broken`: runs in which something asserted is not so (RFC 4180; empty where there is none).
    pub fn to_csv(&self) -> String {
        let keys = self.axes.iter().map(|axis| quoted(axis.key()));
        let figures =
            Figures::NAMES.iter().flat_map(|name| [format!("{name}_mean"), format!("{name}_ci95")]);
        let header = keys.chain(["runs".into(), "failed".into()]).chain(figures);
        let header = header.chain(["broken".into()]);
        let mut csv = header.collect::<Vec<_>>().join(",") + "\n";
        for point in &self.points {
            let settings = point.settings.iter().map(|(_, value)| quoted(value));
            let counts = [point.figures().count(), point.failed().count()];
            let optional = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            let figures = point.estimates().into_iter().flat_map(|estimate| {
                [estimate.map(|e| e.mean), estimate.and_then(|e| e.ci95)].map(optional)
            });
            let counts = counts.iter().map(ToString::to_string);
            let broken = point.runs.iter().filter(|run| !run.broken.is_empty()).count();
            let cells = settings.chain(counts).chain(figures).chain([broken.to_string()]);
            let cells: Vec<String> = cells.collect();
            // Writing to a string can't fail.
            let _ = writeln!(csv, "{}", cells.join(","));
        }
        csv
    }

    /// The whole result as one document.
    pub fn to_json(&self) -> Value {
        json!({
            "world": self.world,
            "seeds": self.seeds,
            "vary": self.axes.iter().map(|axis| json!({
                "key": axis.key(), "values": axis.values(),
            })).collect::<Vec<_>>(),
            "points": self.points.iter().map(point_json).collect::<Vec<_>>(),
        })
    }
}

fn point_json(point: &Point) -> Value {
    let estimates = Figures::NAMES.into_iter().zip(point.estimates());
    let estimates = estimates.map(|(name, estimate)| (name.to_owned(), json!(estimate)));
    json!({
        "settings": point.settings.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "figures": estimates.collect::<serde_json::Map<_, _>>(),
        "runs": point.runs.iter().map(|run| match &run.result {
            Ok(figures) => {
                json!({ "seed": run.seed, "figures": figures, "broken": run.broken })
            }
            Err(error) => json!({ "seed": run.seed, "error": error }),
        }).collect::<Vec<_>>(),
    })
}

fn text(estimate: Option<Estimate>, digits: usize) -> String {
    match estimate {
        None => "-".into(),
        Some(Estimate { mean, ci95: None }) => format!("{mean:.digits$}"),
        Some(Estimate { mean, ci95: Some(ci95) }) => format!("{mean:.digits$} ± {ci95:.digits$}"),
    }
}

/// As RFC 4180 wants what holds a comma or a quote.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}
