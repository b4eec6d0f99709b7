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
pub const WORLDS: &[BuiltIn] = &[
    BuiltIn {
        name: "triangle",
        about: "three PoPs, a slow and lossy direct link, a better way around",
        text: include_str!("../../worlds/triangle.toml"),
    },
    BuiltIn {
        name: "demo",
        about: "five cities in Asia, a bad direct path, a relay that dies",
        text: include_str!("../../worlds/demo.toml"),
    },
    BuiltIn {
        name: "atlantic",
        about: "fourteen cities around the North Atlantic, whose main crossing turns bad for a while",
        text: include_str!("../../worlds/atlantic.toml"),
    },
    BuiltIn {
        name: "clouds-20",
        about: "twenty regions of three clouds over the world, a relay that dies",
        text: include_str!("../../worlds/clouds-20.toml"),
    },
    BuiltIn {
        name: "geant",
        about: "the European research network of 2012, 37 PoPs, a line cut for a while",
        text: include_str!("../../worlds/geant.toml"),
    },
    BuiltIn {
        name: "cities-100",
        about: "a hundred cities near most people, a relay that dies",
        text: include_str!("../../worlds/cities-100.toml"),
    },
    BuiltIn {
        name: "planet-200",
        about: "two hundred cities, measured latencies or distances, a continent cut off",
        text: include_str!("../../worlds/planet-200.toml"),
    },
];

const DATA: &[(&str, &str)] = &[
    ("places/cities.csv", include_str!("../../data/places/cities.csv")),
    ("places/clouds.csv", include_str!("../../data/places/clouds.csv")),
    ("places/planet.csv", include_str!("../../data/places/planet.csv")),
    ("latency/cities_2018.csv", include_str!("../../data/latency/cities_2018.csv")),
    ("latency/clouds_2022.csv", include_str!("../../data/latency/clouds_2022.csv")),
    ("topologies/geant2012.graphml", include_str!("../../data/topologies/geant2012.graphml")),
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
