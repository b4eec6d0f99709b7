//! Worlds and data that are part of this program: for `tradewind-sim run NAME`, and for world files
//! that name `builtin:…`. Sources and licences: `data/NOTICE`.

use super::error::hint;

/// A world that is known by its name.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// For the command line.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// The world file.
    pub text: &'static str,
}

/// All worlds that are part of this program, the smaller ones first.
pub const WORLDS: &[BuiltIn] = &[];

const DATA: &[(&str, &str)] = &[
    ("places/cities.csv", include_str!("../../data/places/cities.csv")),
    ("places/clouds.csv", include_str!("../../data/places/clouds.csv")),
    ("places/planet.csv", include_str!("../../data/places/planet.csv")),
    ("latency/cities_2018.csv", include_str!("../../data/latency/cities_2018.csv")),
    ("latency/clouds_2022.csv", include_str!("../../data/latency/clouds_2022.csv")),
    ("topologies/geant2012.graphml", include_str!("../../data/topologies/geant2012.graphml")),
];

/// The world of that name.
pub fn world(name: &str) -> Option<&'static BuiltIn> {
    WORLDS.iter().find(|world| world.name == name)
}

/// The file of that name, or what to say if there is none.
pub(super) fn data(name: &str) -> Result<&'static str, String> {
    let found = DATA.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    found.ok_or_else(|| {
        let hint = hint(name, DATA.iter().map(|(known, _)| *known));
        format!("no such file is part of this program{hint}")
    })
}
