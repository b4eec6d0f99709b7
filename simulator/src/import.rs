//! `tradewind-sim import`: a world file from data that others made.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tradewind_simulator::world::World;

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
}

impl Format {
    /// How names of such files end.
    fn ending(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Graphml => "graphml",
            Self::Gml => "gml",
        }
    }
}

impl ImportArgs {
    pub fn run(self) -> anyhow::Result<()> {
        let text = World::import(&self.file, self.format.ending())?;
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
