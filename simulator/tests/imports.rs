//! `tradewind-sim import`, and worlds known by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tradewind_simulator::world::{World, builtin};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tradewind-sim")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// The world that an import writes.
fn imported(format: &str, file: &Path) -> World {
    let output = sim(&["import", format, file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let written = text(&output.stdout);
    assert!(written.starts_with("# Made from "), "{written}");
    World::parse("written.toml", &written).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_an_import_writes_is_the_world_that_the_file_describes() {
    for (format, file, rule) in [
        ("graphml", "topologies/geant2012.graphml", "topology"),
        ("csv", "latency/clouds_2022.csv", "matrix"),
    ] {
        let path = data(file);
        let text = format!("pops = {{ from = {path:?} }}\nlinks = {{ {rule} = {path:?} }}");
        let described = World::parse("described.toml", &text).unwrap();
        let world = imported(format, &path);
        assert_eq!(world.pops, described.pops, "{file}");
        assert_eq!(world.links, described.links, "{file}");
        assert!(world.links.len() > 100 && world.traffic.len() == 1);
    }
    let places = imported("csv", &data("places/clouds.csv"));
    assert_eq!((places.pops.len(), places.links.len()), (69, 69 * 68));
}

#[test]
fn an_imported_world_runs() {
    let dir = std::env::temp_dir().join(format!("tradewind-import-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (graph, world) = (dir.join("shadow.gml"), dir.join("world.toml"));
    let gml = "graph [\n node [ id 0 ]\n node [ id 1 ]\n\
        edge [ source 0 target 1 latency \"10 ms\" packet_loss 0.01 jitter \"100 us\" ]\n]";
    std::fs::write(&graph, gml).unwrap();
    let [graph, world] = [&graph, &world].map(|path| path.to_str().unwrap());
    let output = sim(&["import", "gml", graph, "-o", world]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = sim(&["run", world, "--json"]);
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn files_that_are_none_are_named() {
    for (format, file, wanted) in [
        ("csv", "/nowhere/x.csv", "error: /nowhere/x.csv: can't read the file"),
        ("graphml", "/nowhere/x.csv", "error: import: /nowhere/x.csv does not end in .graphml"),
        ("gml", "/nowhere/x.gml", "error: import: /nowhere/x.gml: can't read the file"),
    ] {
        let output = sim(&["import", format, file]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).starts_with(wanted), "{}", text(&output.stderr));
    }
}

#[test]
fn worlds_that_are_built_in_are_known_by_name() {
    let listed = text(&sim(&["worlds"]).stdout);
    for world in builtin::WORLDS {
        assert!(listed.contains(world.name) && listed.contains(world.about), "{listed}");
        let loaded = World::load(Path::new(world.name)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.name, world.name);
        assert!(!loaded.traffic.is_empty());
    }
    let planet = World::load(Path::new("planet-200")).unwrap();
    assert_eq!((planet.pops.len(), planet.links.len()), (200, 200 * 199));
    assert!(planet.pops.iter().all(|pop| pop.population.is_some()));
    let output = sim(&["run", "nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error: nonsense: there is no such file, and no built-in world"),
        "{said}"
    );
    assert!(builtin::WORLDS.iter().all(|world| said.contains(world.name)), "{said}");
    let said = text(&sim(&["run", "atlntic"]).stderr);
    assert!(said.contains("did you mean \"atlantic\"?"), "{said}");
}
