//! `tradewind-sim import`: a world file from data that others made.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tradewind_simulator::snapshot;
use tradewind_simulator::world::{World, WorldError};

#[derive(Args)]
pub struct ImportArgs {
    /// What the file is
    format: Format,
    /// The file to read
    file: PathBuf,
    /// Write the world here instead of to standard output
    #[arg(short, long, value_name = "WORLD")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Round trips (columns src, dst, rtt_ms) or places (id, lat, lon, country, …)
    Csv,
    /// A topology, such as those of the Internet Topology Zoo
    Graphml,
    /// A topology, as the Internet Topology Zoo or Shadow have it
    Gml,
    /// What `tradewind export` or `tradewind export --json` wrote of a live overlay
    Snapshot,
}

impl Format {
    fn world_of(self, file: &Path) -> Result<String, WorldError> {
        match self {
            Self::Csv => World::import(file, "csv"),
            Self::Graphml => World::import(file, "graphml"),
            Self::Gml => World::import(file, "gml"),
            Self::Snapshot => snapshot::import(&file.display().to_string(), &World::read(file)?),
        }
    }
}

impl ImportArgs {
    pub fn run(self) -> anyhow::Result<()> {
        let text = self.format.world_of(&self.file)?;
        match self.output {
            None => Ok(std::io::stdout().lock().write_all(text.as_bytes())?),
            Some(path) => {
                std::fs::write(&path, &text)
                    .with_context(|| format!("can't write {}", path.display()))?;
                let world = World::load(&path)?;
                let (pops, links) = (world.pops.len(), world.links.len());
                let path = path.display();
                eprintln!(
                    "{path}: {pops} PoPs, {links} directed links; next: tradewind-sim run {path}"
                );
                Ok(())
            }
        }
    }
}
