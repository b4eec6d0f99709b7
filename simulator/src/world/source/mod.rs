//! Files that a world file names: places, latencies, topologies, traces.
//!
//! They come from anywhere, so each is bounded in size and whatever is wrong in one is an error
//! with its name and line.

mod gml;
mod graph;
mod place;
mod table;
mod trace;
mod traffic;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Pop;
use super::error::WorldError;
use crate::link::{DelayTrace, RateTrace};
use crate::traffic::Recording;

pub(super) use graph::{Edge, Graph};
pub(super) use place::{Names, distance_km, spread};
pub(super) use table::Matrix;
pub(super) use traffic::weights;

/// Where the files of a world are found, and the traces read so far: links share them.
pub(super) struct Sources {
    /// The directory of the world file.
    base: PathBuf,
    rates: BTreeMap<String, Arc<RateTrace>>,
    delays: BTreeMap<String, Arc<DelayTrace>>,
    recordings: BTreeMap<String, Arc<Recording>>,
}

/// A file that was read.
pub(super) struct Source {
    /// As the world file names it.
    pub(super) name: String,
    pub(super) text: String,
}

impl Sources {
    /// The largest file.
    const MAX_BYTES: u64 = 64 << 20;
    /// Before the names of files that are part of this program.
    pub(super) const BUILT_IN: &str = "builtin:";

    /// Files named in the world file `world` are relative to its directory.
    pub(super) fn beside(world: &str) -> Self {
        let base = Path::new(world).parent().map(Path::to_path_buf).unwrap_or_default();
        let (rates, delays, recordings) = Default::default();
        Self { base, rates, delays, recordings }
    }

    pub(super) fn read(&self, name: &str) -> Result<Source, WorldError> {
        let text = match name.strip_prefix(Self::BUILT_IN) {
            Some(built_in) => super::builtin::data(built_in)
                .map(str::to_owned)
                .map_err(|message| wrong(name, None, message)),
            None => read_bounded(&self.base.join(name), Self::MAX_BYTES)
                .map_err(|message| wrong(name, None, message)),
        }?;
        Ok(Source { name: name.to_owned(), text })
    }

    /// Reads a trace of a rate, once.
    pub(super) fn rate_trace(&mut self, name: &str) -> Result<Arc<RateTrace>, WorldError> {
        if let Some(trace) = self.rates.get(name) {
            return Ok(trace.clone());
        }
        let trace = Arc::new(trace::rate(&self.read(name)?)?);
        self.rates.insert(name.to_owned(), trace.clone());
        Ok(trace)
    }

    /// Reads packets that were recorded, once.
    pub(super) fn recording(&mut self, name: &str) -> Result<Arc<Recording>, WorldError> {
        if let Some(recording) = self.recordings.get(name) {
            return Ok(recording.clone());
        }
        let recording = Arc::new(traffic::recording(&self.read(name)?)?);
        self.recordings.insert(name.to_owned(), recording.clone());
        Ok(recording)
    }

    /// Reads a trace of delays, once.
    pub(super) fn delay_trace(&mut self, name: &str) -> Result<Arc<DelayTrace>, WorldError> {
        if let Some(trace) = self.delays.get(name) {
            return Ok(trace.clone());
        }
        let trace = Arc::new(trace::delay(&self.read(name)?)?);
        self.delays.insert(name.to_owned(), trace.clone());
        Ok(trace)
    }
}

impl Source {
    /// The part of the name behind the last dot, in lower case.
    fn kind(&self) -> String {
        self.name.rsplit_once('.').map(|(_, kind)| kind.to_lowercase()).unwrap_or_default()
    }

    fn wrong(&self, line: impl Into<Option<usize>>, message: impl Display) -> WorldError {
        wrong(&self.name, line.into(), message.to_string())
    }

    /// Whether it is a table of round trips.
    pub(super) fn has_round_trips(&self) -> bool {
        self.kind() == "csv" && table::has_round_trips(self)
    }

    /// The places in the file: the rows of a CSV file, or those that its round trips are between;
    /// the nodes of a topology.
    pub(super) fn places(&self) -> Result<Vec<Pop>, WorldError> {
        match self.kind().as_str() {
            "csv" => table::places(self),
            _ => Ok(Graph::read(self)?.nodes),
        }
    }
}

fn wrong(file: &str, line: Option<usize>, message: String) -> WorldError {
    WorldError { file: file.to_owned(), line, message }
}

fn read_bounded(path: &Path, limit: u64) -> Result<String, String> {
    let mut text = String::new();
    let file =
        std::fs::File::open(path).map_err(|error| format!("can't read the file: {error}"))?;
    file.take(limit + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("can't read the file: {error}"))?;
    match text.len() as u64 > limit {
        true => Err(format!("the file is larger than {} MiB", limit >> 20)),
        false => Ok(text),
    }
}

/// What a file says of one thing: names in lower case, values as text.
struct Attributes<'a> {
    source: &'a Source,
    line: Option<usize>,
    pairs: BTreeMap<String, String>,
}

impl<'a> Attributes<'a> {
    fn new(source: &'a Source, line: impl Into<Option<usize>>) -> Self {
        Self { source, line: line.into(), pairs: BTreeMap::new() }
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.pairs.insert(name.to_lowercase(), value.into());
    }

    /// The first of `names` that is there and not empty.
    fn text(&self, names: &[&str]) -> Option<&str> {
        let values = names.iter().filter_map(|name| self.pairs.get(*name));
        values.map(|value| value.trim()).find(|value| !value.is_empty())
    }

    fn number(&self, names: &[&str]) -> Result<Option<f64>, WorldError> {
        self.text(names).map(|text| number(text).map_err(|why| self.wrong(why))).transpose()
    }

    fn wrong(&self, message: impl Display) -> WorldError {
        self.source.wrong(self.line, message)
    }
}

fn number(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim().parse().ok();
    number.filter(|number| number.is_finite()).ok_or_else(|| format!("{text:?} is no number"))
}
