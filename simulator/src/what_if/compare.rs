//! The same world with and without changes, side by side.

use comfy_table::{Cell, Table};
use serde_json::{Value, json};

use super::WhatIf;
use super::apply::{names, take_out_cut_off};
use crate::outcome::{Outcome, Row, number, plain_table};
use crate::world::{Traffic, World, WorldError};

/// The world as it is first, then each change by itself, then all together if there are several.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// At least the world as it is.
    pub cases: Vec<Case>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Case {
    /// The changes, as they were written; none in the first case.
    pub changes: Vec<String>,
    /// What is worth knowing about them.
    pub notes: Vec<String>,
    /// Traffic for which no path is left.
    pub cut_off: Vec<Traffic>,
    /// What came of the rest.
    pub outcome: Outcome,
}

/// A case before it runs.
struct Planned {
    changes: Vec<String>,
    notes: Vec<String>,
    cut_off: Vec<Traffic>,
    world: World,
}

/// Runs `world`, read from `file`, with its seed, before and after the changes: `run` is told what a
/// case is called and runs its world.
///
/// # Errors
///
/// A [`WorldError`] if a change makes no sense in this world; whatever keeps a run from its end.
pub fn compare(
    (file, world): (&str, &World),
    changes: &[WhatIf],
    run: &mut dyn FnMut(&str, &World) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Comparison> {
    let alone = changes.iter().map(std::slice::from_ref);
    let together = (changes.len() > 1).then_some(changes);
    let sets = [&[][..]].into_iter().chain(alone).chain(together);
    let planned: Vec<Planned> =
        sets.map(|changes| plan(file, world, changes)).collect::<Result<_, _>>()?;
    let mut cases = Vec::with_capacity(planned.len());
    for Planned { changes, notes, cut_off, world } in planned {
        let outcome = run(&case_name(&changes), &world)?;
        let interrupted = outcome.interrupted();
        cases.push(Case { changes, notes, cut_off, outcome });
        if interrupted {
            break;
        }
    }
    Ok(Comparison { cases })
}

fn plan(file: &str, world: &World, changes: &[WhatIf]) -> Result<Planned, WorldError> {
    let mut world = world.clone();
    let mut notes = Vec::new();
    for change in changes {
        match change.apply(&mut world) {
            Ok(made) => notes.extend(made),
            // By itself it made sense: another change has taken away what it is about.
            Err(why) if changes.len() > 1 => {
                notes.push(format!("\"{}\" is left out: {why}", change.text()));
            }
            Err(why) => {
                let message = format!("what if \"{}\": {why}", change.text());
                return Err(WorldError { file: file.to_owned(), line: None, message });
            }
        }
    }
    let cut_off = if changes.is_empty() { Vec::new() } else { take_out_cut_off(&mut world) };
    notes.extend(names(cut_off.iter()).map(|names| format!("no path is left for {names}")));
    let changes: Vec<String> = changes.iter().map(|change| change.text().to_owned()).collect();
    if !changes.is_empty() {
        world.name = format!("{}, what if: {}", world.name, case_name(&changes));
    }
    Ok(Planned { changes, notes, cut_off, world })
}

fn case_name(changes: &[String]) -> String {
    match changes {
        [] => "before".into(),
        changes => changes.join(" + "),
    }
}

impl Case {
    /// `before`, or the changes.
    pub fn name(&self) -> String {
        case_name(&self.changes)
    }
}

impl Comparison {
    /// Whether all runs came to their end.
    pub fn is_whole(&self) -> bool {
        self.cases.iter().all(|case| !case.outcome.interrupted())
    }

    /// What the world asserts and is not so, a sentence each that begins with the case. Nothing is
    /// asked of traffic that was taken out.
    pub fn broken(&self) -> Vec<String> {
        let of = |case: &Case| -> Vec<String> {
            let broken = case.outcome.broken().into_iter();
            broken.map(|figure| format!("{}: {figure}", case.name())).collect()
        };
        self.cases.iter().flat_map(of).collect()
    }

    /// Every flow or group: a row before, and one for each case.
    pub fn table(&self) -> Table {
        let header = ["flow", "what if", "in time %", "median ms", "p99 ms", "route at the end"];
        let mut table = plain_table(&header);
        let Some(before) = self.cases.first() else { return table };
        for old in before.outcome.rows() {
            for case in &self.cases {
                let rows = case.outcome.rows();
                let new = rows.iter().find(|row| row.name == old.name);
                let mut cells = vec![Cell::new(old.name), Cell::new(case.name())];
                match new {
                    Some(new) => cells.extend(figures(&old, new)),
                    None => {
                        cells.extend(std::iter::repeat_n(number("-"), 3));
                        cells.push(Cell::new(case.fate(old.name)));
                    }
                }
                table.add_row(cells);
            }
        }
        table
    }

    /// What happened, and to whom, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let notes = |case: &Case| -> Vec<String> {
            let events = case.outcome.happened.iter();
            let events =
                events.map(|(at, what)| format!("after {:.2} s: {what}", at.as_secs_f64()));
            let interrupted = case.outcome.interrupted().then(|| "interrupted".to_owned());
            let lines = case.notes.iter().cloned().chain(events).chain(interrupted);
            lines.map(|line| format!("{}: {line}", case.name())).collect()
        };
        self.cases.iter().flat_map(notes).collect()
    }

    /// The whole result as one document.
    pub fn to_json(&self) -> Value {
        let cases = self.cases.iter().map(|case| {
            json!({
                "what_if": case.changes,
                "notes": case.notes,
                "cut_off": case.cut_off.iter().map(|flow| &flow.name).collect::<Vec<_>>(),
                "result": case.outcome.to_json(),
            })
        });
        json!({ "cases": cases.collect::<Vec<_>>() })
    }
}

impl Case {
    /// Why a row is not there.
    fn fate(&self, name: &str) -> &'static str {
        let ours = |flow: &Traffic| flow.name == name || flow.group.as_deref() == Some(name);
        match self.cut_off.iter().any(ours) {
            true => "no path is left",
            false => "begins or ends at what is gone",
        }
    }
}

fn figures(old: &Row<'_>, new: &Row<'_>) -> Vec<Cell> {
    let delay = |delay: Option<f64>| number(delay.map_or("-".into(), |ms| format!("{ms:.1}")));
    let route = match new.single() {
        Some(flow) => flow.route_after(),
        None => {
            let was = |name: &str| old.flows.iter().find(|flow| flow.traffic.name == name);
            let moved = new.flows.iter().filter(|flow| {
                let before = was(&flow.traffic.name).map(|flow| flow.route_after());
                before != Some(flow.route_after())
            });
            format!("{} of {} flows on another", moved.count(), new.flows.len())
        }
    };
    vec![
        number(format!("{:.3}", (new.overlay.in_time_share() * 1e5).floor() / 1e3)),
        delay(new.overlay.delay_median_ms()),
        delay(new.overlay.delay_p99_ms()),
        Cell::new(route),
    ]
}
