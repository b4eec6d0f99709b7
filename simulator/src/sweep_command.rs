//! `tradewind-sim sweep`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use clap::Args;
use tradewind_simulator::progress::Progress;
use tradewind_simulator::sweep::{Axis, Observer, Sweep, SweepResult};
use tradewind_simulator::world::World;

use crate::Options;
use crate::terminal::Terminal;

#[derive(Args)]
pub struct SweepArgs {
    /// The world file (TOML; the format is described in simulator/README.md)
    world: PathBuf,
    /// A key of the world file and the values that it takes; may be given several times
    ///
    /// The key is a path: run.duration, or link.loss for all links, or link.a-b.loss and
    /// traffic.NAME.pps for one. Values are written as in the file, quotes may be left out.
    #[arg(long, value_name = "KEY=A,B,…", required = true)]
    vary: Vec<Axis>,
    /// How many seeds each point runs with, counted up from the world's own or --seed
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    seeds: u32,
    /// Threads; by default as many as there are cores
    #[arg(long, value_name = "J")]
    jobs: Option<NonZeroUsize>,
    /// Also write DIR/sweep.csv, DIR/sweep.json and DIR/sweep.svg
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// Shows how many runs are over.
struct Shared(Mutex<Terminal>);

impl Shared {
    fn terminal(&self) -> MutexGuard<'_, Terminal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Shared {
    fn finished(&self, runs: usize, of: usize) {
        self.terminal().count(runs, of);
    }

    fn interrupted(&self) -> bool {
        self.terminal().interrupted()
    }
}

/// So many figures that are not as asserted are told; `--json` and DIR/sweep.json have all.
const MOST_BROKEN: usize = 20;

/// Whether every run came to its end, with what the world asserts.
pub fn run(args: SweepArgs) -> anyhow::Result<bool> {
    let SweepArgs { world, vary, seeds, jobs, out, options } = args;
    let (file, text) = (world.display().to_string(), World::read(&world)?);
    let sweep = Sweep::new((&file, &text), vary, seeds, options.seed)?;
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let shared = Shared(Mutex::new(Terminal::new()?));
    let result = sweep.run(jobs.unwrap_or_else(cores), &shared);
    shared.terminal().finish();
    let mut stdout = std::io::stdout().lock();
    if options.json {
        writeln!(stdout, "{:#}", result.to_json())?;
    } else {
        writeln!(stdout, "{}\n", result.table())?;
        for remark in result.remarks() {
            writeln!(stdout, "{remark}")?;
        }
    }
    if let Some(dir) = out {
        write_files(&dir, &result).with_context(|| format!("can't write to {}", dir.display()))?;
    }
    let broken = result.broken();
    for figure in broken.iter().take(MOST_BROKEN) {
        eprintln!("not as asserted: {figure}");
    }
    if broken.len() > MOST_BROKEN {
        eprintln!("not as asserted: {} more", broken.len() - MOST_BROKEN);
    }
    Ok(result.is_whole() && broken.is_empty())
}

fn write_files(dir: &std::path::Path, result: &SweepResult) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("sweep.csv"), result.to_csv())?;
    std::fs::write(dir.join("sweep.json"), format!("{:#}\n", result.to_json()))?;
    std::fs::write(dir.join("sweep.svg"), result.to_svg()?)?;
    Ok(())
}
