//! What is written of a run with `--out`: a page for people, and files for programs.
//!
//! The same world, seed and binary write the same bytes: no time of day, no name of a machine.

mod events;
mod html;
mod labels;
mod map;
mod plots;
mod routes;
mod series;
mod worst;

use std::io;
use std::path::Path;

pub use series::Recorder;

use crate::outcome::Outcome;
use crate::world::World;

/// The files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Name and content.
    files: [(&'static str, String); 4],
}

impl Report {
    /// The report of a run of `world` during which `recorder` was told.
    pub fn new(world: &World, outcome: &Outcome, recorder: &Recorder<'_>) -> Self {
        let files = [
            ("report.html", html::page(world, outcome, recorder)),
            ("summary.json", format!("{:#}\n", outcome.to_json())),
            ("series.csv", series::csv(world, recorder)),
            ("events.ndjson", events::ndjson(outcome)),
        ];
        Self { files }
    }

    /// What is in a file of the report; `None` if it has no such file.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.iter().find(|(other, _)| *other == name).map(|(_, text)| text.as_str())
    }

    /// Writes the files into a folder, which is made if it does not exist.
    ///
    /// # Errors
    ///
    /// Whatever the file system refuses.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        self.files.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
    }
}

#[cfg(test)]
mod tests;
