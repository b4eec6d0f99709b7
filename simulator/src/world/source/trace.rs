//! Traces of links: how fast and how slow one was over time.

use super::Source;
use super::table::Table;
use crate::link::{DelayTrace, RateTrace, TraceError};
use crate::world::error::WorldError;

/// The most rows of a trace.
const MAX_ROWS: usize = 4_000_000;
/// The longest trace, in milliseconds: a week.
const MAX_MS: f64 = 604_800_000.0;

/// A rate: `t_s` or `t_ms` and `mbps` in a CSV file; else mahimahi's, a line with the millisecond
/// of each chance to send 1,500 bytes.
pub(super) fn rate(source: &Source) -> Result<RateTrace, WorldError> {
    if source.kind() != "csv" {
        let chances = chances(source)?;
        return RateTrace::of_chances(&chances).map_err(|error| refused(source, &error));
    }
    let mut steps = Vec::new();
    let mut table = Table::new(source)?;
    let (clock, mbps) = (Clock::of(&table)?, table.column(&["mbps"])?);
    while table.next()? {
        let rate = table.number(mbps)?;
        if !(0.0..=1e6).contains(&rate) {
            return Err(table.wrong(format!("{rate} is no rate in Mbit/s")));
        }
        steps.push((clock.micros(&table, steps.len())?, (rate * 1e6) as u64));
    }
    RateTrace::of_steps(&steps).map_err(|error| refused(source, &error))
}

fn chances(source: &Source) -> Result<Vec<u64>, WorldError> {
    let mut chances = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let millis: u64 = line.parse().ok().filter(|ms| *ms as f64 <= MAX_MS).ok_or_else(|| {
            let line: String = line.chars().take(40).collect();
            source.wrong(
                at + 1,
                format!(
                    "\"{line}\" is no time in milliseconds, as a mahimahi trace has on each line"
                ),
            )
        })?;
        if chances.len() == MAX_ROWS {
            return Err(source.wrong(at + 1, format!("more than {MAX_ROWS} rows")));
        }
        if chances.last().is_some_and(|last| *last > millis) {
            return Err(source.wrong(at + 1, format!("{millis} ms is before the line above")));
        }
        chances.push(millis);
    }
    Ok(chances)
}

/// Delays over time: `t_s` or `t_ms`, `rtt_ms` (half of it each way) or `delay_ms` (one way), and
/// perhaps `loss`, a share from 0 to 1.
pub(super) fn delay(source: &Source) -> Result<DelayTrace, WorldError> {
    let mut rows = Vec::new();
    let mut table = Table::new(source)?;
    let clock = Clock::of(&table)?;
    let (column, part) = match table.find(&["delay_ms"]) {
        Some(column) => (column, 1_000.0),
        None => (table.column(&["rtt_ms", "delay_ms"])?, 500.0),
    };
    let loss = table.find(&["loss"]);
    while table.next()? {
        let micros = table.number(column)? * part;
        if !(0.0..=60e6).contains(&micros) {
            return Err(table.wrong("that is no delay: 0 ms to a minute"));
        }
        let share = loss.map_or(Ok(0.0), |column| table.number(column))?;
        if !(0.0..=1.0).contains(&share) {
            return Err(table.wrong(format!("a loss of {share} is no share from 0 to 1")));
        }
        rows.push((clock.micros(&table, rows.len())?, micros.round() as u32, share as f32));
    }
    DelayTrace::new(&rows).map_err(|error| refused(source, &error))
}

/// The column that says when.
pub(super) struct Clock {
    column: usize,
    /// Microseconds of one.
    unit: f64,
}

impl Clock {
    pub(super) fn of(table: &Table<'_>) -> Result<Self, WorldError> {
        match table.find(&["t_ms"]) {
            Some(column) => Ok(Self { column, unit: 1e3 }),
            None => Ok(Self { column: table.column(&["t_s", "t_ms"])?, unit: 1e6 }),
        }
    }

    /// When the present row is, the `count`th.
    pub(super) fn micros(&self, table: &Table<'_>, count: usize) -> Result<u64, WorldError> {
        if count == MAX_ROWS {
            return Err(table.wrong(format!("more than {MAX_ROWS} rows")));
        }
        let micros = table.number(self.column)? * self.unit;
        match (0.0..=MAX_MS * 1e3).contains(&micros) {
            true => Ok(micros.round() as u64),
            false => Err(table.wrong("a time in a trace is from 0 to a week")),
        }
    }
}

fn refused(source: &Source, error: &TraceError) -> WorldError {
    source.wrong(error.row(), error)
}
