//! Worlds with one thing wrong: exit status 2, and one sentence that says where and what.

use std::path::PathBuf;
use std::process::Command;

/// Good, as the cases below change it. In the same directory lie the files of [`FILES`].
const WORLD: &str = r#"[run]
duration = "1s"

[pops]
from = "pops.csv"

[links]
matrix = "rtt.csv"
distance = { factor = 1.6 }

[[link]]
between = ["fra", "sgp"]
loss = "1%"

[[traffic]]
from = "fra"
to = "sgp"
pps = 50
size = 160

[[event]]
at = "500ms"
cut = ["fra", "lon"]
"#;

const FILES: &[(&str, &str)] = &[
    ("pops.csv", "id,lat,lon,region\nfra,50.1,8.7,EU\nlon,51.5,-0.1,EU\nsgp,1.4,103.8,Asia\n"),
    ("rtt.csv", "src,dst,rtt_ms\nfra,lon,12\n"),
    ("nowhere.csv", "id,region\nfra,EU\nlon,EU\nsgp,Asia\n"),
    ("north.csv", "id,lat,lon\nfra,50.1,8.7\nlon,95,-0.1\n"),
    ("words.csv", "id,lat,lon\nfra,fifty,8.7\n"),
    ("nameless.csv", "lat,lon\n50,8\n"),
    ("blank.csv", "id,lat,lon\nfra,50,8\n ,51,0\n"),
    ("ragged.csv", "src,dst,rtt_ms\nfra,lon,12\nfra,sgp\n"),
    ("slow.csv", "src,dst,rtt_ms\nfra,lon,12\nfra,sgp,soon\n"),
    ("negative.csv", "src,dst,rtt_ms\nfra,lon,-12\n"),
    ("units.csv", "src,dst,rtt_m\nfra,lon,12\n"),
    ("empty.csv", ""),
    ("words.graphml", "Frankfurt is joined to London.\n"),
    ("page.graphml", "<html><body/></html>"),
    (
        "edge.graphml",
        "<graphml><graph>\n<node id='fra'/>\n<edge source='fra' target='mars'/></graph></graphml>",
    ),
    ("bare.graphml", "<graphml><graph/></graphml>"),
    ("open.gml", "graph [\n node [ id 1 ]\n"),
    ("deep.gml", "a [ a [ a [ a [ a [ a [ a [ a [ a [ a [ a [ a [ a [ a [ a [ a [ a [ a ["),
    ("value.gml", "graph [\n node [ id ]\n]"),
    (
        "time.gml",
        "graph [ node [ id 1 ] node [ id 2 ]\n edge [ source 1 target 2 latency \"5 parsecs\" ] ]",
    ),
    ("list.json", "[1, 2]"),
    ("twice.json", "{\"nodes\":[{\"id\":1},{\"id\":1}],\"links\":[]}"),
    ("garbage", "1\n2\nthree\n"),
    ("back", "5\n4\n"),
    ("still", "0\n"),
    ("idle.csv", "t_s,mbps\n0,0\n1,0\n"),
    ("lossy.csv", "t_s,rtt_ms,loss\n0,10,0\n1,10,7\n"),
    ("backwards.csv", "t_s,rtt_ms\n0,10\n2,10\n1,10\n"),
    ("short.csv", "t_s,rtt_ms\n0,10\n"),
];

/// What is replaced, and by each of what what is said.
const BROKEN: &[(&str, &[(&str, &str)])] = &[
    // The world file itself.
    ("[pops]", &[("[pop]", "world.toml:4: invalid type: map, expected a sequence")]),
    (
        "from = \"pops.csv\"",
        &[("form = \"pops.csv\"", "world.toml:5: unknown key \"form\"; did you mean \"from\"?")],
    ),
    ("matrix =", &[("matrx =", "world.toml:8: unknown key \"matrx\"; did you mean \"matrix\"?")]),
    (
        "factor = 1.6",
        &[
            ("facto = 1.6", "world.toml:9: unknown key \"facto\"; did you mean \"factor\"?"),
            (
                "factor = 0.5",
                "world.toml:7: the factor of a distance is 1 to 100: nothing beats light",
            ),
            ("factor = nan", "world.toml:7: the factor of a distance"),
        ],
    ),
    (
        "matrix = \"rtt.csv\"\ndistance = { factor = 1.6 }",
        &[(
            "loss = \"1%\"",
            "world.toml:7: [links] needs one of matrix, topology, distance and delay",
        )],
    ),
    ("matrix = \"rtt.csv\"\n", &[("nearest = 0\n", "world.toml:7: nearest = 0 leaves no link")]),
    ("distance = { factor = 1.6 }", &[("jitter = \"1 parsec\"", "world.toml:9: ")]),
    (
        "between = [\"fra\", \"sgp\"]",
        &[(
            "between = [\"fra\", \"sgpp\"]",
            "world.toml:11: there is no [[pop]] with id \"sgpp\"; did you mean \"sgp\"?",
        )],
    ),
    (
        "at = \"500ms\"",
        &[("at = \"5s\"", "world.toml:21: an event at 5s comes after the run's 1s")],
    ),
    (
        "duration = \"1s\"",
        &[("mesh = \"ful\"", "world.toml:2: unknown value \"ful\"; did you mean \"full\"?")],
    ),
    // Places.
    (
        "pops.csv",
        &[
            ("pop.csv", "world.toml:4: pop.csv: can't read the file: "),
            (
                "builtin:places/citys.csv",
                "world.toml:4: builtin:places/citys.csv: no such file is part of this program; did you mean \"places/cities.csv\"?",
            ),
            ("north.csv", "world.toml:4: north.csv:3: a place is at most 90 degrees north"),
            ("words.csv", "world.toml:4: words.csv:2: \"fifty\" is no number"),
            ("nameless.csv", "world.toml:4: nameless.csv:1: there is no column id or"),
            ("blank.csv", "world.toml:4: blank.csv:3: this place has no name"),
            ("nowhere.csv", "world.toml:7: \"fra\" has no location to tell distances from"),
        ],
    ),
    (
        "pops.csv\"",
        &[
            (
                "nowhere.csv\"\npick = 1",
                "world.toml:4: pick = 1 needs to know where places are: nowhere.csv has no lat and lon of \"fra\"",
            ),
            ("pops.csv\"\npick = 9", "world.toml:4: pick = 9 of the 3 places in pops.csv"),
            (
                "pops.csv\"\npick = [\"fra\", \"lno\"]",
                "world.toml:4: there is no place \"lno\" in pops.csv; did you mean \"lon\"?",
            ),
            (
                "pops.csv\"\npick = { regions = [\"Mars\"] }",
                "world.toml:4: no place in pops.csv has these labels",
            ),
            ("pops.csv\"\npick = true", "world.toml:6: pick is a number of places, their names"),
        ],
    ),
    (
        "[pops]",
        &[("[[pop]]\nid = \"fra\"\n[pops]", "world.toml:6: a second [[pop]] with id \"fra\"")],
    ),
    // Latencies.
    (
        "rtt.csv",
        &[
            ("rtt.txt", "world.toml:7: rtt.txt: can't read the file: "),
            ("ragged.csv", "world.toml:7: ragged.csv:3: the row has 2 cells, the first line 3"),
            ("slow.csv", "world.toml:7: slow.csv:3: rtt_ms: \"soon\" is no number"),
            ("negative.csv", "world.toml:7: negative.csv:2: -12 ms is no round trip"),
            (
                "units.csv",
                "world.toml:7: units.csv:1: there is no column rtt_ms or rtt, but there is rtt_m",
            ),
            ("empty.csv", "world.toml:7: empty.csv:1: there is no column from or src or source"),
        ],
    ),
    (
        "\ndistance = { factor = 1.6 }\n\n[[link]]\nbetween = [\"fra\", \"sgp\"]",
        &[(
            "\n[[link]]\nbetween = [\"fra\", \"lon\"]",
            "world.toml:7: \"sgp\" has no link: no row of rtt.csv is about it and another PoP",
        )],
    ),
    // Topologies.
    (
        "matrix = \"rtt.csv\"",
        &[
            ("topology = \"words.graphml\"", "world.toml:7: words.graphml:1: no XML: "),
            (
                "topology = \"page.graphml\"",
                "world.toml:7: page.graphml:1: it is no GraphML: it begins with <html>",
            ),
            (
                "topology = \"edge.graphml\"",
                "world.toml:7: edge.graphml:3: there is no node with id \"mars\"",
            ),
            (
                "topology = \"bare.graphml\"",
                "world.toml:7: bare.graphml: the topology has no nodes",
            ),
            ("topology = \"open.gml\"", "world.toml:7: open.gml:3: the file ends within a list"),
            ("topology = \"deep.gml\"", "world.toml:7: deep.gml:1: lists lie more than 16 deep"),
            ("topology = \"value.gml\"", "world.toml:7: value.gml:2: no GML: \"id\" has no value"),
            (
                "topology = \"time.gml\"",
                "world.toml:7: time.gml:2: \"5 parsecs\" is no time, such as \"10 ms\"",
            ),
            ("topology = \"list.json\"", "world.toml:7: list.json:1: "),
            ("topology = \"twice.json\"", "world.toml:7: twice.json: a second node with id \"1\""),
            (
                "topology = \"rtt.csv\"",
                "world.toml:7: rtt.csv: a topology is a .graphml, .gml or .json file",
            ),
        ],
    ),
    // Traces.
    (
        "loss = \"1%\"",
        &[
            (
                "rate_trace = \"garbage\"",
                "world.toml:11: garbage:3: \"three\" is no time in milliseconds",
            ),
            ("rate_trace = \"back\"", "world.toml:11: back:2: 4 ms is before the line above"),
            ("rate_trace = \"still\"", "world.toml:11: still: a trace needs at least two times"),
            (
                "rate_trace = \"idle.csv\"",
                "world.toml:11: idle.csv: a trace that never carries anything",
            ),
            (
                "rate_trace = \"back\"\nrate = \"1Mbit\"",
                "world.toml:11: write either rate or rate_trace",
            ),
            ("delay_trace = \"lossy.csv\"", "world.toml:11: lossy.csv:3: a loss of 7 is no share"),
            (
                "delay_trace = \"backwards.csv\"",
                "world.toml:11: backwards.csv:4: row 3 of the trace is not later",
            ),
            (
                "delay_trace = \"short.csv\"",
                "world.toml:11: short.csv: a trace needs at least two times",
            ),
            (
                "delay_trace = \"rtt.csv\"",
                "world.toml:11: rtt.csv:1: there is no column t_s or t_ms",
            ),
        ],
    ),
];

/// A directory with the files, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("tradewind-broken-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in FILES {
            std::fs::write(dir.join(name), text).unwrap();
        }
        Self(dir)
    }

    /// Exit status and what was said.
    fn run(&self, world: &str) -> (Option<i32>, String) {
        std::fs::write(self.0.join("world.toml"), world).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tradewind-sim"))
            .args(["run", "world.toml"])
            .current_dir(&self.0)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_wrong_is_said_in_one_sentence_with_its_place() {
    let dir = Dir::new();
    let (status, said) = dir.run(WORLD);
    assert_eq!(status, Some(0), "{said}");
    let cases = BROKEN.iter().flat_map(|(from, cases)| cases.iter().map(move |case| (from, case)));
    for (from, (to, wanted)) in cases {
        assert!(WORLD.contains(from), "{from}");
        let (status, said) = dir.run(&WORLD.replacen(from, to, 1));
        assert_eq!(status, Some(2), "{from} -> {to}: {said}");
        assert!(
            said.starts_with(&format!("error: {wanted}")),
            "{from} -> {to}:\n got {said}\nwant {wanted}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
