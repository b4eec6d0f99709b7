//! CSV files: one line of column names, then a row a place or a measurement.

use std::collections::{HashMap, HashSet};

use csv::StringRecord;
use tradewind_proto::units::PopId;

use super::place::{Names, place};
use super::{Attributes, Source, number};
use crate::world::Pop;
use crate::world::error::{WorldError, nearest};

/// The most places that one file may list.
const MAX_PLACES: usize = 10_000;
/// The longest round trip that is one, in milliseconds.
const MAX_RTT_MS: f64 = 60_000.0;

/// A CSV file, row by row.
pub(super) struct Table<'a> {
    source: &'a Source,
    columns: Vec<String>,
    rows: csv::Reader<&'a [u8]>,
    row: StringRecord,
}

impl<'a> Table<'a> {
    pub(super) fn new(source: &'a Source) -> Result<Self, WorldError> {
        let mut rows = csv::ReaderBuilder::new().from_reader(source.text.as_bytes());
        let header = rows.headers().map_err(|error| explain(source, &error))?;
        let columns = header.iter().map(|name| name.trim().to_lowercase()).collect();
        Ok(Self { source, columns, rows, row: StringRecord::new() })
    }

    /// Where the first of `names` that is a column stands.
    pub(super) fn find(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.columns.iter().position(|column| column == name))
    }

    /// The same; there must be one.
    pub(super) fn column(&self, names: &[&str]) -> Result<usize, WorldError> {
        self.find(names).ok_or_else(|| {
            let near = nearest(names[0], self.columns.iter().map(String::as_str));
            let there = near.map_or_else(|| self.columns.join(", "), str::to_owned);
            let wanted = names.join(" or ");
            self.source.wrong(1, format!("there is no column {wanted}, but there is {there}"))
        })
    }

    /// Goes to the next row; false after the last.
    pub(super) fn next(&mut self) -> Result<bool, WorldError> {
        self.rows.read_record(&mut self.row).map_err(|error| explain(self.source, &error))
    }

    /// What the present row says in a column.
    pub(super) fn text(&self, column: usize) -> &str {
        self.row.get(column).unwrap_or_default().trim()
    }

    pub(super) fn number(&self, column: usize) -> Result<f64, WorldError> {
        let why = |why| self.wrong(format!("{}: {why}", self.columns[column]));
        number(self.text(column)).map_err(why)
    }

    /// About the present row.
    pub(super) fn wrong(&self, message: impl std::fmt::Display) -> WorldError {
        self.source.wrong(self.line(), message)
    }

    /// Whether there is room for one more place beside so many.
    fn check_room(&self, places: usize) -> Result<(), WorldError> {
        match places < MAX_PLACES {
            true => Ok(()),
            false => Err(self.wrong(format!("more than {MAX_PLACES} places"))),
        }
    }

    fn line(&self) -> Option<usize> {
        self.row.position().and_then(|position| usize::try_from(position.line()).ok())
    }
}

fn explain(source: &Source, error: &csv::Error) -> WorldError {
    let line = error.position().and_then(|position| usize::try_from(position.line()).ok());
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} cells, the first line {expected_len}")
        }
        _ => format!("no CSV: {error}"),
    };
    source.wrong(line, message)
}

const FROM: &[&str] = &["from", "src", "source"];
const TO: &[&str] = &["to", "dst", "target"];
const ROUND_TRIP: &[&str] = &["rtt_ms", "rtt"];

/// Whether it has the columns of a matrix; one that is no table has not.
pub(super) fn has_round_trips(source: &Source) -> bool {
    let has =
        |table: Table<'_>| [FROM, TO, ROUND_TRIP].iter().all(|names| table.find(names).is_some());
    Table::new(source).is_ok_and(has)
}

/// The rows of a table of places, or the places that a table of round trips names.
pub(super) fn places(source: &Source) -> Result<Vec<Pop>, WorldError> {
    if has_round_trips(source) {
        return ends(source);
    }
    let mut table = Table::new(source)?;
    table.column(&["id", "label", "name", "city"])?;
    let (mut names, mut places) = (Names::default(), Vec::new());
    while table.next()? {
        table.check_room(places.len())?;
        let mut row = Attributes::new(source, table.line());
        for (at, column) in table.columns.iter().enumerate() {
            row.set(column, table.text(at));
        }
        places.push(place(&row, &mut names)?);
    }
    Ok(places)
}

/// The places that round trips are between, in the order of the table.
fn ends(source: &Source) -> Result<Vec<Pop>, WorldError> {
    let mut table = Table::new(source)?;
    let (from, to) = (table.column(FROM)?, table.column(TO)?);
    let (mut seen, mut names, mut places) = (HashSet::new(), Names::default(), Vec::new());
    while table.next()? {
        for column in [from, to] {
            if seen.insert(table.text(column).to_owned()) {
                table.check_room(places.len())?;
                let mut end = Attributes::new(source, table.line());
                end.set("id", table.text(column));
                places.push(place(&end, &mut names)?);
            }
        }
    }
    Ok(places)
}

/// Round trips between places, in milliseconds. Of several rows about one direction the shortest
/// counts (what is added is waiting), of two directions the longer: neither beats light.
pub(in crate::world) struct Matrix {
    round_trips: HashMap<(usize, usize), f64>,
}

impl Matrix {
    /// The rows between `pops`; others don't matter.
    pub(in crate::world) fn read(
        source: &Source,
        pops: &HashMap<PopId, usize>,
    ) -> Result<Self, WorldError> {
        let mut table = Table::new(source)?;
        let from = table.column(FROM)?;
        let to = table.column(TO)?;
        let rtt = table.column(ROUND_TRIP)?;
        let mut places = HashMap::new();
        let mut matrix = Self { round_trips: HashMap::new() };
        while table.next()? {
            let round_trip = table.number(rtt)?;
            if !(0.0..=MAX_RTT_MS).contains(&round_trip) {
                return Err(table.wrong(format!("{round_trip} ms is no round trip")));
            }
            let ends = [from, to].map(|column| {
                let text = table.text(column);
                if let Some(&known) = places.get(text) {
                    return known;
                }
                let pop = Names::plain(text).and_then(|id| pops.get(&id).copied());
                places.insert(text.to_owned(), pop);
                pop
            });
            let [Some(a), Some(b)] = ends else { continue };
            if a != b {
                let shortest = matrix.round_trips.entry((a, b)).or_insert(round_trip);
                *shortest = shortest.min(round_trip);
            }
        }
        Ok(matrix)
    }

    /// The round trip between two PoPs in milliseconds.
    pub(in crate::world) fn round_trip_ms(&self, a: usize, b: usize) -> Option<f64> {
        let [there, back] = [(a, b), (b, a)].map(|pair| self.round_trips.get(&pair).copied());
        there.zip(back).map(|(there, back)| there.max(back)).or(there).or(back)
    }
}
