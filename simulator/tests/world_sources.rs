//! Worlds made from other files: places, latencies, topologies, distances, traces.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tradewind_proto::units::PopId;
use tradewind_simulator::link::{LinkSpec, Loss, Rate};
use tradewind_simulator::traffic::Shape;
use tradewind_simulator::world::{World, WorldError};

/// A directory with a world and what it names.
struct Dir(PathBuf);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tradewind-world-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        Self(dir)
    }

    fn load(&self, world: &str) -> Result<World, WorldError> {
        std::fs::write(self.0.join("world.toml"), world).unwrap();
        World::load(&self.0.join("world.toml"))
    }

    fn world(&self, text: &str) -> World {
        self.load(text).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn id(name: &str) -> PopId {
    name.parse().unwrap()
}

fn ids(world: &World) -> Vec<&str> {
    world.pops.iter().map(|pop| pop.id.as_str()).collect()
}

fn link<'a>(world: &'a World, from: &str, to: &str) -> Option<&'a LinkSpec> {
    world.links.get(&(id(from), id(to)))
}

fn delay_ms(world: &World, from: &str, to: &str) -> f64 {
    link(world, from, to).unwrap().delay.as_secs_f64() * 1e3
}

const PLACES: &str = "\
id,provider,region,country,lat,lon,population
x:fra,x,EU,DE,50.11,8.68,800000
x:lon,x,EU,GB,51.51,-0.13,9000000
y:nyc,y,North America,US,40.71,-74.01,8000000
y:\"sgp\",y,Asia,SG,1.35,103.82,6000000
y:ham,y,EU,DE,53.55,9.99,1800000
";

const LATENCY: &str = "\
src,dst,rtt_ms,note
x:fra,x:lon,14,first
x:fra,x:lon,12,of several the shortest
x:lon,x:fra,13,of both directions the longer
x:fra,y:nyc,80,
nowhere,x:fra,1,
x:fra,x:fra,0.3,
";

fn places() -> Dir {
    Dir::new(&[("pops.csv", PLACES), ("latency.csv", LATENCY)])
}

#[test]
fn places_come_from_a_table() {
    let world = places().world("pops = { from = \"pops.csv\" }\nlinks = { distance = {} }");
    assert_eq!(ids(&world), ["x-fra", "x-lon", "y-nyc", "y-sgp", "y-ham"]);
    let nyc = &world.pops[2];
    assert_eq!(nyc.region.as_ref().unwrap().as_str(), "North-America");
    assert_eq!(nyc.country.as_ref().unwrap().as_str(), "US");
    assert_eq!(nyc.provider.as_ref().unwrap().as_str(), "y");
    assert_eq!((nyc.location, nyc.population), (Some([40.71, -74.01]), Some(8_000_000)));
    assert_eq!(world.links.len(), 20);
}

#[test]
fn places_are_picked_by_name_by_label_and_by_where_people_are() {
    for (pick, wanted) in [
        ("[\"y:sgp\", \"x-fra\"]", &["y-sgp", "x-fra"][..]),
        ("{ regions = [\"EU\"], countries = [\"DE\"] }", &["x-fra", "y-ham"]),
        ("{ providers = [\"x\"] }", &["x-fra", "x-lon"]),
        ("3", &["x-lon", "y-nyc", "y-sgp"]),
        ("4", &["x-lon", "y-nyc", "y-sgp", "y-ham"]),
    ] {
        let text = format!(
            "pops = {{ from = \"pops.csv\", pick = {pick} }}\nlinks = {{ delay = \"9ms\" }}"
        );
        let world = places().world(&text);
        assert_eq!(ids(&world), wanted, "{pick}");
    }
}

#[test]
fn links_have_measured_delays_where_there_are_some_else_that_of_light() {
    let text = "pops = { from = \"pops.csv\" }\n\
        [[pop]]\nid = \"own\"\nlocation = [50.11, 8.68]\n\
        [links]\nmatrix = \"latency.csv\"\ndistance = { factor = 2 }\njitter = \"1ms\"\nloss = \"1%\"\n\
        [[link]]\nbetween = [\"x-fra\", \"y-nyc\"]\nloss = \"5%\"\n";
    let world = places().world(text);
    assert_eq!(world.links.len(), 30);
    assert_eq!(delay_ms(&world, "x-fra", "x-lon"), 6.5);
    assert_eq!(delay_ms(&world, "x-lon", "x-fra"), 6.5);
    assert_eq!(delay_ms(&world, "y-nyc", "x-fra"), 40.0);
    // 10,270 km and twice that at 199.86 km a millisecond.
    assert!((delay_ms(&world, "x-fra", "y-sgp") - 102.8).abs() < 0.3);
    assert_eq!(delay_ms(&world, "own", "x-fra"), 0.0);
    let changed = link(&world, "y-nyc", "x-fra").unwrap();
    assert_eq!((changed.loss, changed.jitter), (Loss::Independent(0.05), Duration::from_millis(1)));
    assert_eq!(link(&world, "own", "x-fra").unwrap().loss, Loss::Independent(0.01));
}

#[test]
fn without_distances_only_measured_pairs_are_linked() {
    let text = "pops = { from = \"pops.csv\", pick = [\"x:fra\", \"x:lon\", \"y:nyc\"] }\n\
        links = { matrix = \"latency.csv\" }";
    let world = places().world(text);
    assert_eq!(world.links.len(), 4);
    assert!(link(&world, "x-lon", "y-nyc").is_none());
}

#[test]
fn the_nearest_are_kept_and_nobody_is_cut_off() {
    let text = "pops = { from = \"pops.csv\" }\nlinks = { distance = {}, nearest = 1 }";
    let world = places().world(text);
    // Frankfurt and Hamburg are each other's nearest, London and New York have one each; Singapore
    // is nobody's nearest, but has one itself.
    assert!(link(&world, "x-fra", "y-ham").is_some() && link(&world, "y-ham", "x-fra").is_some());
    assert!(link(&world, "x-lon", "y-nyc").is_some() && link(&world, "x-lon", "y-ham").is_none());
    assert_eq!(world.links.len(), 8);
    // Two pairs far apart, joined by the shortest link between them.
    let pop =
        |name: &str, east: f64| format!("[[pop]]\nid = \"{name}\"\nlocation = [0.0, {east:?}]\n");
    let pairs = pop("a", 0.0) + &pop("b", 1.0) + &pop("c", 50.0) + &pop("d", 51.0);
    let world = places().world(&format!("{pairs}[links]\ndistance = {{}}\nnearest = 1"));
    assert_eq!(world.links.len(), 6);
    assert!(link(&world, "b", "c").is_some() && link(&world, "c", "b").is_some());
}

const GRAPHML: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key attr.name="Latitude" attr.type="double" for="node" id="d29" />
  <key attr.name="Longitude" attr.type="double" for="node" id="d32" />
  <key attr.name="label" attr.type="string" for="node" id="d33" />
  <key attr.name="LinkLengthKm" attr.type="double" for="edge" id="d40" />
  <graph edgedefault="undirected">
    <node id="0"><data key="d29">50.11</data><data key="d32">8.68</data><data key="d33">Frankfurt</data></node>
    <node id="1"><data key="d29">48.86</data><data key="d32">2.35</data><data key="d33">Paris</data></node>
    <node id="2"><data key="d33">Paris</data></node>
    <edge source="0" target="1" />
    <edge source="0" target="1"><data key="d40">400</data></edge>
    <edge source="1" target="2"><data key="d40">19.986</data></edge>
    <edge source="2" target="2"><data key="d40">1</data></edge>
  </graph>
</graphml>"#;

const GML: &str = r#"# As Shadow writes it.
graph [
  directed 0
  node [
    id 0
    host_bandwidth_down "1 Gbit"
  ]
  node [ id 1 label "far" ]
  edge [ source 0 target 0 latency "1 ms" packet_loss 0.0 ]
  edge [ source 0 target 1 latency "50 ms" jitter "2 ms" packet_loss 0.01 ]
]
"#;

const JSON: &str = r#"{"name":"small","coordinates":"wgs84","nodes":[{"id":0,"name":"New York",
"lat":40.71,"lon":-74.01},{"id":1,"name":"Chicago","lat":41.85,"lon":-87.65}],
"links":[{"a":0,"b":1,"km":1145.5}],"demands":[]}"#;

fn of_topology(name: &str, text: &str, more: &str) -> World {
    let world = format!("pops = {{ from = \"{name}\" }}\n[links]\ntopology = \"{name}\"\n{more}");
    Dir::new(&[(name, text)]).world(&world)
}

#[test]
fn topologies_are_read_in_three_formats() {
    let world = of_topology("zoo.graphml", GRAPHML, "distance = { factor = 2 }");
    assert_eq!(ids(&world), ["frankfurt", "paris", "paris-2"]);
    assert_eq!(world.links.len(), 4);
    assert!((delay_ms(&world, "frankfurt", "paris") - 4.003).abs() < 0.001);
    assert!((delay_ms(&world, "paris-2", "paris") - 0.2).abs() < 0.001);

    let world = of_topology("shadow.gml", GML, "");
    assert_eq!(ids(&world), ["0", "far"]);
    let spec = link(&world, "far", "0").unwrap();
    assert_eq!((spec.delay, spec.jitter), (Duration::from_millis(50), Duration::from_millis(2)));
    assert_eq!(spec.loss, Loss::Independent(0.01));

    let world = of_topology("small.json", JSON, "loss = \"2%\"");
    assert_eq!(ids(&world), ["new-york", "chicago"]);
    // 1,145.5 km, 1.6 times that at 199.86 km a millisecond.
    assert!((delay_ms(&world, "new-york", "chicago") - 9.17).abs() < 0.01);
    assert_eq!(link(&world, "chicago", "new-york").unwrap().loss, Loss::Independent(0.02));
}

#[test]
fn a_directed_topology_makes_one_way_links_and_a_pick_leaves_the_others_out() {
    let directed = GML.replace("directed 0", "directed 1");
    assert_eq!(of_topology("shadow.gml", &directed, "").links.len(), 1);
    let dir = Dir::new(&[("zoo.graphml", GRAPHML)]);
    let pick = "pops = { from = \"zoo.graphml\", pick = [\"Frankfurt\", \"Paris\"] }\n\
        links = { topology = \"zoo.graphml\" }";
    assert_eq!(dir.world(pick).links.len(), 2);
}

#[test]
fn a_topology_takes_its_delays_from_a_matrix_where_it_has_some() {
    let latency = "from,to,rtt\nfrankfurt,paris,10\n";
    let dir = Dir::new(&[("zoo.graphml", GRAPHML), ("latency.csv", latency)]);
    let world = dir.world(
        "pops = { from = \"zoo.graphml\" }\n\
        links = { topology = \"zoo.graphml\", matrix = \"latency.csv\" }",
    );
    assert_eq!(delay_ms(&world, "paris", "frankfurt"), 5.0);
    assert!((delay_ms(&world, "paris", "paris-2") - 0.16).abs() < 0.001);
}

#[test]
fn links_follow_traces() {
    let dir = Dir::new(&[
        ("mobile", "0\n5\n5\n10\n"),
        ("fixed.csv", "t_s,mbps\n0,1\n5,3\n"),
        ("moves.csv", "t_s,rtt_ms,loss\n0,10,0\n1,30,0.5\n"),
    ]);
    let text = "[[pop]]\nid = \"a\"\n[[pop]]\nid = \"b\"\n[[pop]]\nid = \"c\"\n\
        [[link]]\nfrom = \"a\"\nto = \"b\"\nrate_trace = \"mobile\"\n\
        [[link]]\nfrom = \"b\"\nto = \"a\"\nrate_trace = \"fixed.csv\"\nqueue = \"64kB\"\n\
        [[link]]\nbetween = [\"a\", \"c\"]\ndelay = \"3ms\"\ndelay_trace = \"moves.csv\"\n";
    let world = dir.world(text);
    let mobile = link(&world, "a", "b").unwrap();
    // Four times 1,500 bytes in 10 ms; 50 ms of that.
    assert_eq!(mobile.rate, Some(Rate { bits_per_second: 4_800_000, queue: 30_000 }));
    let fixed = link(&world, "b", "a").unwrap();
    assert_eq!(fixed.rate, Some(Rate { bits_per_second: 2_000_000, queue: 64_000 }));
    let [there, back] = [link(&world, "a", "c").unwrap(), link(&world, "c", "a").unwrap()];
    assert_eq!(there.mean_delay(), Duration::from_millis(3 + 10));
    let shared = |spec: &LinkSpec| std::sync::Arc::as_ptr(spec.delay_trace.as_ref().unwrap());
    assert_eq!(shared(there), shared(back));
}

#[test]
fn a_thousand_pops_are_a_world() {
    let mut rows = String::from("id,lat,lon\n");
    for n in 0..1_000 {
        rows += &format!("p{n},{:?},{:?}\n", (n % 120) as f64 - 60.0, (n / 3) as f64 - 170.0);
    }
    let dir = Dir::new(&[("pops.csv", &rows)]);
    let world =
        dir.world("pops = { from = \"pops.csv\" }\nlinks = { distance = {}, nearest = 24 }");
    assert_eq!(world.pops.len(), 1_000);
    assert!((24_000..48_000).contains(&world.links.len()), "{}", world.links.len());
    let error = dir
        .load("pops = { from = \"pops.csv\" }\nlinks = { delay = \"1ms\" }\n[[pop]]\nid = \"x\"");
    assert!(error.unwrap_err().to_string().contains("more than 1000 PoPs"));
}

const TWO: &str = "[[pop]]\nid = 'a'\nlocation = [0.0, 0.0]\npopulation = 1000\n\
                   [[pop]]\nid = 'b'\nlocation = [0.0, 10.0]\npopulation = 1000\n\
                   [[pop]]\nid = 'c'\nlocation = [0.0, 30.0]\npopulation = 1000\n";

#[test]
fn packets_are_sent_as_recorded_and_the_recording_is_repeated() {
    let dir = Dir::new(&[("packets.csv", "t_ms,bytes\n5,100\n7,1200\n15,4\n")]);
    let text = format!("{TWO}[[traffic]]\nfrom = 'a'\nto = 'b'\ntrace = 'packets.csv'");
    let traffic = dir.world(&text).traffic.remove(0);
    assert!(matches!(&traffic.shape, Shape::Recorded(recording) if recording.packets.len() == 3));
    assert_eq!((traffic.size, traffic.interval), (442, Duration::from_millis(5)));
    let packets: Vec<_> =
        traffic.schedule(1).take(4).map(|next| (next.at.as_millis(), next.size)).collect();
    assert_eq!(packets, [(0, 100), (2, 1200), (10, 24), (15, 100)]);
    for (keys, wanted) in [
        ("trace = 'packets.csv'\nsize = 100", "a trace has its own sizes"),
        ("trace = 'other.csv'", "other.csv: can't read the file"),
    ] {
        let text = format!("{TWO}[[traffic]]\nfrom = 'a'\nto = 'b'\n{keys}");
        let error = dir.load(&text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    for (rows, wanted) in [
        ("5,100\n4,100\n", "bad.csv:3: it left before"),
        ("5,100\n", "packets at two times"),
        ("5,100\n6,70000\n", "bad.csv:3: a packet has at most 65507 bytes"),
    ] {
        let dir = Dir::new(&[("bad.csv", &format!("t_ms,bytes\n{rows}"))]);
        let text = format!("{TWO}[[traffic]]\nfrom = 'a'\nto = 'b'\ntrace = 'bad.csv'");
        let error = dir.load(&text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn a_demand_follows_weights_from_a_file_and_distances() {
    let rows = "from,to,weight\na,b,3\nb,c,1\nc,c,9\na,x,9\n";
    let dir = Dir::new(&[("matrix.csv", rows), ("bad.csv", "from,to,weight\na,b,-1\n")]);
    let load = |keys: &str| {
        let table = format!("{TWO}[[demand]]\nflows = 400\npps = 1\nsize = 100\n{keys}");
        dir.load(&table).map(|world| world.traffic)
    };
    let count = |keys: &str, from: &str, to: &str| {
        let ends: [PopId; 2] = [from, to].map(|id| id.parse().unwrap());
        let traffic = load(keys).unwrap();
        traffic.iter().filter(|flow| [&flow.from, &flow.to] == [&ends[0], &ends[1]]).count()
    };
    assert_eq!(
        (count("matrix = 'matrix.csv'", "a", "b"), count("matrix = 'matrix.csv'", "b", "c")),
        (300, 100)
    );
    // 10, 20 and 30 degrees apart: 1, 1/4 and 1/9 with a power of two, 49/36 each way.
    let gravity = "matrix = 'gravity'\ndistance = 2";
    assert!(
        count(gravity, "a", "b").abs_diff(147) <= 1 && count(gravity, "c", "a").abs_diff(16) <= 1
    );
    for (keys, wanted) in [
        ("matrix = 'bad.csv'", "bad.csv:2: a weight is 0 at least, not -1"),
        (
            "matrix = 'matrix.tsv'",
            "unknown matrix \"matrix.tsv\"; known: gravity, uniform, and CSV files",
        ),
        ("matrix = 'uniform'\ndistance = 2", "distance belongs to matrix = \"gravity\""),
        ("matrix = 'gravity'\ndistance = 9", "0 to 4, not 9"),
    ] {
        let error = load(keys).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
