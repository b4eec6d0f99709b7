//! A grid of runs: keys of a world file vary, every point of the grid runs with several seeds, and
//! one table says what came of it, with confidence intervals.
//!
//! The document is changed before it is read as a world, so any key can vary, and what is wrong is
//! told as of any world. Runs are spread over threads; results are put together in the order of the
//! grid, so the number of threads changes nothing but the time that it takes.

mod axis;
mod estimate;
mod plot;
mod result;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use toml::Table;

pub use axis::Axis;
pub use estimate::{Estimate, Figures};
pub use result::{Point, RunAt, SweepResult};

use crate::progress::Progress;
use crate::simulation;
use crate::world::{World, WorldError};

/// What to run.
pub struct Sweep {
    /// The name of the world file, for errors and for files that it names.
    file: String,
    document: Table,
    axes: Vec<Axis>,
    /// Points of the grid: which value of each axis, the last axis first to change.
    grid: Vec<Vec<usize>>,
    name: String,
    seeds: Vec<u64>,
}

/// Told how a sweep goes, from many threads.
pub trait Observer: Sync {
    /// So many of all runs are over.
    fn finished(&self, runs: usize, of: usize);

    /// Whether to end early, with the runs that are over.
    fn interrupted(&self) -> bool {
        false
    }
}

/// A run within a sweep tells nothing.
struct Within<'a>(&'a dyn Observer);

impl Progress for Within<'_> {
    fn interrupted(&self) -> bool {
        self.0.interrupted()
    }
}

impl Sweep {
    /// The most runs of one sweep.
    pub const MAX_RUNS: usize = 100_000;

    /// A grid over `axes` of the world in `text`, each point with `seeds` seeds, which count up from
    /// `first_seed` or from the world's own. All its worlds are checked.
    ///
    /// # Errors
    ///
    /// A key that leads nowhere, a value that makes no world, too many runs.
    pub fn new(
        (file, text): (&str, &str),
        axes: Vec<Axis>,
        seeds: u32,
        first_seed: Option<u64>,
    ) -> Result<Self, WorldError> {
        let world = World::parse(file, text)?;
        let wrong = |message| WorldError { file: file.to_owned(), line: None, message };
        let document = text.parse().map_err(|error| wrong(format!("{error}")))?;
        let mut runs = axes.iter().map(|axis| axis.values().len());
        let runs = runs.try_fold(seeds as usize, usize::checked_mul);
        if runs.is_none_or(|runs| runs > Self::MAX_RUNS) {
            let most = Self::MAX_RUNS;
            return Err(wrong(format!("the grid has more than {most} runs: vary fewer values")));
        }
        let first = first_seed.unwrap_or(world.seed);
        let seeds = (0..u64::from(seeds)).map(|n| first.wrapping_add(n)).collect();
        let (grid, name) = (grid(&axes), world.name);
        let sweep = Self { file: file.to_owned(), document, axes, grid, name, seeds };
        sweep.grid.iter().try_for_each(|point| sweep.world(point).map(drop))?;
        Ok(sweep)
    }

    /// How many runs it takes.
    pub fn runs(&self) -> usize {
        self.grid.len() * self.seeds.len()
    }

    /// The world at a point of the grid.
    fn world(&self, point: &[usize]) -> Result<World, WorldError> {
        let settings = self.settings(point);
        let named: Vec<_> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let here = format!("{} with {}", self.file, named.join(" "));
        let wrong = |message| WorldError { file: here.clone(), line: None, message };
        let mut document = self.document.clone();
        for (axis, &which) in self.axes.iter().zip(point) {
            axis.set(&mut document, which).map_err(wrong)?;
        }
        let text = toml::to_string(&document).map_err(|error| wrong(error.to_string()))?;
        World::parse(&self.file, &text).map_err(|error| match error.file == self.file {
            // Lines are those of a text that nobody has seen.
            true => wrong(error.message),
            false => error,
        })
    }

    fn settings(&self, point: &[usize]) -> Vec<(String, String)> {
        let setting =
            |(axis, &which): (&Axis, &usize)| (axis.key().to_owned(), axis.values()[which].clone());
        self.axes.iter().zip(point).map(setting).collect()
    }

    /// Runs the grid on `jobs` threads.
    pub fn run(&self, jobs: NonZeroUsize, observer: &dyn Observer) -> SweepResult {
        let results: Vec<Mutex<Option<RunAt>>> =
            (0..self.runs()).map(|_| Mutex::new(None)).collect();
        let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            while !observer.interrupted() {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(place) = results.get(at) else { break };
                let result = self.run_one(at, observer);
                *place.lock().unwrap_or_else(PoisonError::into_inner) = result;
                let done = finished.fetch_add(1, Ordering::Relaxed) + 1;
                observer.finished(done, self.runs());
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs.get().min(self.runs()) {
                scope.spawn(work);
            }
        });
        let results = results
            .into_iter()
            .map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner));
        self.collect(results.collect())
    }

    /// `None` if it was interrupted.
    fn run_one(&self, at: usize, observer: &dyn Observer) -> Option<RunAt> {
        let (point, seed) = (at / self.seeds.len(), self.seeds[at % self.seeds.len()]);
        let world = match self.world(&self.grid[point]) {
            Ok(world) => World { seed, ..world },
            Err(error) => return Some(RunAt::failed(seed, error.to_string())),
        };
        match simulation::run(&world, &mut Within(observer)) {
            _ if observer.interrupted() => None,
            Ok(outcome) => {
                let (result, broken) = (Ok(Figures::of(&outcome)), outcome.broken());
                Some(RunAt { seed, result, broken })
            }
            Err(error) => Some(RunAt::failed(seed, format!("{error:#}"))),
        }
    }

    fn collect(&self, results: Vec<Option<RunAt>>) -> SweepResult {
        let mut results = results.into_iter();
        let point = |at: &Vec<usize>| {
            let runs = results.by_ref().take(self.seeds.len());
            Point { settings: self.settings(at), runs: runs.flatten().collect() }
        };
        SweepResult {
            world: self.name.clone(),
            seeds: self.seeds.clone(),
            axes: self.axes.clone(),
            points: self.grid.iter().map(point).collect(),
        }
    }
}

/// All combinations of the axes' values, those of the last one next to each other.
fn grid(axes: &[Axis]) -> Vec<Vec<usize>> {
    axes.iter().fold(vec![Vec::new()], |points, axis| {
        let longer = |point: &Vec<usize>| -> Vec<Vec<usize>> {
            (0..axis.values().len()).map(|which| [&point[..], &[which]].concat()).collect()
        };
        points.iter().flat_map(longer).collect()
    })
}

#[cfg(test)]
mod tests;
