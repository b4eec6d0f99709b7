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

/// A file `worlds/NAME.toml` and what it is.
macro_rules! world {
    ($name:literal, $about:literal) => {
        BuiltIn {
            name: $name,
            about: $about,
            text: include_str!(concat!("../../worlds/", $name, ".toml")),
        }
    };
}

/// All worlds that are part of this program, the smaller ones first.
pub const WORLDS: &[BuiltIn] = &[
    world!("triangle", "three PoPs, a slow and lossy direct link, a better way around"),
    world!("demo", "five cities in Asia, a bad direct path, a relay that dies"),
    world!(
        "atlantic",
        "fourteen cities around the North Atlantic, whose main crossing turns bad for a while"
    ),
    world!("clouds-20", "twenty regions of three clouds over the world, a relay that dies"),
    world!("geant", "the European research network of 2012, 37 PoPs, a line cut for a while"),
    world!("cities-100", "a hundred cities near most people, a relay that dies"),
    world!(
        "planet-200",
        "two hundred cities, measured latencies or distances, a continent cut off"
    ),
];

/// A file below `data/`, by its name there.
macro_rules! data {
    ($name:literal) => {
        ($name, include_str!(concat!("../../data/", $name)))
    };
}

const DATA: &[(&str, &str)] = &[
    data!("places/cities.csv"),
    data!("places/clouds.csv"),
    data!("places/planet.csv"),
    data!("latency/cities_2018.csv"),
    data!("latency/clouds_2022.csv"),
    data!("topologies/geant2012.graphml"),
];

/// The text of the world of that name, or what to say if there is none.
pub(super) fn text(name: &str) -> Result<&'static str, String> {
    let names = || WORLDS.iter().map(|world| world.name);
    let found = WORLDS.iter().find(|world| world.name == name).map(|world| world.text);
    found.ok_or_else(|| {
        let (hint, all) = (hint(name, names()), names().collect::<Vec<_>>().join(", "));
        format!("there is no such file, and no built-in world{hint} (those are {all})")
    })
}

/// The file of that name, or what to say if there is none.
pub(super) fn data(name: &str) -> Result<&'static str, String> {
    let found = DATA.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    found.ok_or_else(|| {
        let hint = hint(name, DATA.iter().map(|(known, _)| *known));
        format!("no such file is part of this program{hint}")
    })
}
