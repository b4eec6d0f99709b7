use super::*;

const WORLD: &str = r#"
[run]
name = "pair"
seed = 4
duration = "2s"
warmup = "1s"

[[pop]]
id = "a"
[[pop]]
id = "b"

[[link]]
between = ["a", "b"]
delay = "20ms"

[[traffic]]
name = "media"
from = "a"
to = "b"
pps = 100
size = 400
"#;

struct Nobody;

impl Observer for Nobody {
    fn finished(&self, _: usize, _: usize) {}
}

struct Impatient;

impl Observer for Impatient {
    fn finished(&self, _: usize, _: usize) {}

    fn interrupted(&self) -> bool {
        true
    }
}

fn sweep(vary: &[&str], seeds: u32) -> Result<Sweep, WorldError> {
    let axes = vary.iter().map(|axis| axis.parse().unwrap()).collect();
    Sweep::new(("pair.toml", WORLD), axes, seeds, None)
}

fn jobs(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

#[test]
fn one_thread_or_two_the_bytes_are_the_same() {
    let vary = ["link.loss=0,0.3", "traffic.media.size=\"200B\",1000"];
    let sweep = sweep(&vary, 2).unwrap();
    let documents = |jobs_wanted: usize| {
        let result = sweep.run(jobs(jobs_wanted), &Nobody);
        (result.table().to_string(), result.to_csv(), result.to_json(), result.to_svg().unwrap())
    };
    let (table, csv, json, svg) = documents(1);
    assert_eq!((table.clone(), csv.clone(), json.clone(), svg.clone()), documents(2));
    assert_eq!((table.lines().count(), csv.lines().count()), (6, 5), "{table}");
    let header = "link.loss,traffic.media.size,runs,failed,in_time_percent_mean,";
    assert!(csv.starts_with(header) && csv.contains("\n0.3,1000,2,0,"), "{csv}");
    assert!(svg.starts_with("<svg") && svg.contains("traffic.media.size=1000"));
    let point = &json["points"][3];
    assert_eq!(point["settings"]["link.loss"], "0.3");
    assert_eq!(point["runs"][1]["seed"], 5);
    // Other seeds, other losses.
    let wire = |run: usize| point["runs"][run]["figures"]["wire_per_crossing"].as_f64();
    assert_ne!(wire(0), wire(1));
    assert!(point["figures"]["wire_per_crossing"]["ci95"].as_f64() > Some(0.0));
    let of = |point: usize| json["points"][point]["figures"]["wire_per_crossing"]["mean"].as_f64();
    assert!(of(2) > of(0), "repair of 30 % loss costs nothing: {json}");
}

#[test]
fn what_makes_no_world_is_one_sentence_that_names_the_point() {
    for (vary, error) in [
        (
            "link.los=0.1",
            "pair.toml with link.los=0.1: unknown key \"los\"; did you mean \"loss\"?",
        ),
        (
            "link.loss=0,7",
            "pair.toml with link.loss=7: invalid value: integer `7`, expected a share, such as 0.03 or \"3%\"",
        ),
        (
            "traffic.medai.pps=1",
            "pair.toml with traffic.medai.pps=1: there is no [[traffic]] \"medai\"; did you mean \"media\"?",
        ),
        ("rum.seed=1", "pair.toml with rum.seed=1: unknown key \"rum\"; did you mean \"run\"?"),
    ] {
        let got = sweep(&[vary], 1).err().map(|error| error.to_string());
        assert_eq!(got.as_deref(), Some(error), "{vary}");
    }
    let axis = format!("run.seed={}", vec!["1"; 2_000].join(","));
    let error = sweep(&[&axis], 1_000).err().unwrap();
    assert_eq!(error.message, "the grid has more than 100000 runs: vary fewer values");
}

#[test]
fn a_run_without_a_route_is_told_and_does_not_end_the_others() {
    let vary = ["policy.none.deny_pops=[],[\"b\"]"];
    let bound = "policy = \"none\"\n[[policy]]\nname = \"none\"\n";
    let axes = vary.iter().map(|axis| axis.parse().unwrap()).collect();
    let text = format!("{WORLD}{bound}");
    let sweep = Sweep::new(("pair.toml", &text), axes, 1, Some(9)).unwrap();
    let result = sweep.run(jobs(1), &Nobody);
    assert!(!result.is_whole());
    let remarks = result.remarks();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    let begins =
        "no result with policy.none.deny_pops=[\"b\"] seed 9: no route for traffic \"media\"";
    assert!(remarks[0].starts_with(begins), "{remarks:?}");
    assert!(result.to_csv().contains("\n[],1,0,100,"), "{}", result.to_csv());
    assert!(result.to_csv().contains("\n\"[\"\"b\"\"]\",0,1,,,"), "{}", result.to_csv());
}

#[test]
fn what_is_not_as_asserted_is_told_with_its_point_seed_and_figures() {
    let text =
        format!("{WORLD}[assert]\nin_time = \"99%\"\nwire = 3\n[recovery]\nmode = \"none\"\n");
    let axes = vec!["link.loss=0,0.2".parse().unwrap()];
    let sweep = Sweep::new(("pair.toml", &text), axes, 2, None).unwrap();
    let result = sweep.run(jobs(1), &Nobody);
    assert!(result.is_whole());
    let broken = result.broken();
    let wanted = [4, 5].map(|seed| format!("link.loss=0.2 seed {seed}: media: "));
    for (line, wanted) in broken.iter().zip(&wanted) {
        assert!(line.starts_with(wanted), "{broken:?}");
        assert!(line.ends_with(" % in time, at least 99 % wanted"), "{broken:?}");
    }
    assert_eq!(broken.len(), 2, "{broken:?}");
    let told = |line: usize| {
        result.to_csv().lines().nth(line).map(|line| line.rsplit_once(',').unwrap().1.to_owned())
    };
    assert_eq!([0, 1, 2].map(|line| told(line).unwrap()), ["broken", "0", "2"]);
    let json = result.to_json();
    assert_eq!(json["points"][0]["runs"][1]["broken"], serde_json::json!([]));
    let figure = json["points"][1]["runs"][0]["broken"][0].as_str().unwrap();
    assert!(broken[0].ends_with(figure), "{figure}");
}

#[test]
fn an_interrupted_sweep_says_how_far_it_came() {
    let result = sweep(&["link.loss=0,0.1"], 3).unwrap().run(jobs(2), &Impatient);
    assert_eq!(result.remarks()[1], "interrupted after 0 of 6 runs");
    assert!(result.to_svg().unwrap().contains("link.loss"));
}
