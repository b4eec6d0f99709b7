//! `tradewind-sim sweep`.

use super::{directory, sim, stderr, stdout};

const WORLD: &str = "
[run]
duration = \"1s\"
warmup = \"1s\"
[[pop]]
id = \"a\"
[[pop]]
id = \"b\"
[[link]]
between = [\"a\", \"b\"]
delay = \"20ms\"
[[traffic]]
from = \"a\"
to = \"b\"
pps = 50
size = 400
";

#[test]
fn a_grid_is_one_table_and_three_files_whatever_the_threads() {
    let dir = directory("sweep");
    let world = dir.join("pair.toml");
    std::fs::write(&world, WORLD).unwrap();
    let run = |jobs: &str| {
        let out = dir.join(jobs);
        let output = sim(&[
            "sweep",
            world.to_str().unwrap(),
            "--vary=link.loss=0,0.2",
            "--vary=link.delay=10ms,40ms",
            "--seeds=3",
            "--jobs",
            jobs,
            "--out",
            out.to_str().unwrap(),
        ]);
        assert!(output.status.success(), "{}", stderr(&output));
        let files = ["sweep.csv", "sweep.json", "sweep.svg"];
        (stdout(&output), files.map(|file| std::fs::read_to_string(out.join(file)).unwrap()))
    };
    let (table, files) = run("1");
    assert_eq!((table.clone(), files.clone()), run("2"));
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(table.starts_with("| link.loss | link.delay | runs | in time % "), "{table}");
    assert!(
        table.contains("| 0.2       | 40ms       |    3 |") && table.contains(" ± "),
        "{table}"
    );
    let [csv, json, svg] = files;
    assert_eq!(csv.lines().count(), 5);
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["seeds"], serde_json::json!([1, 2, 3]));
    assert_eq!(document["points"].as_array().map(Vec::len), Some(4));
    assert!(svg.contains("</svg>") && svg.matches("http").count() == 1);
}

#[test]
fn what_is_not_as_asserted_is_named_and_makes_the_status_1() {
    let dir = directory("sweep-assert");
    let world = dir.join("pair.toml");
    std::fs::write(&world, format!("{WORLD}assert = {{ delay_median = \"30ms\" }}\n")).unwrap();
    let run = |delays: &str| {
        let vary = format!("--vary=link.delay={delays}");
        let output = sim(&["sweep", world.to_str().unwrap(), &vary, "--seeds=1"]);
        (output.status.code(), stderr(&output))
    };
    let (status, told) = run("10ms,20ms");
    assert!(status == Some(0) && !told.contains("asserted"), "{told}");
    let (status, told) = run("10ms,40ms");
    let wanted = "not as asserted: link.delay=40ms seed 1: traffic-1: median delay 40.";
    assert!(status == Some(1) && told.contains(wanted), "{told}");
    assert!(told.ends_with(" ms, at most 30 ms wanted\n"), "{told}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_key_that_no_world_has_is_wrong_usage_in_one_line() {
    let dir = directory("sweep-wrong");
    let world = dir.join("pair.toml");
    std::fs::write(&world, WORLD).unwrap();
    for (vary, wanted) in [
        ("link.los=0.1", " with link.los=0.1: unknown key \"los\"; did you mean \"loss\"?\n"),
        ("link.b-c.loss=1", ": there is no [[link]] \"b-c\"; did you mean \"b-a\"?\n"),
    ] {
        let output = sim(&["sweep", world.to_str().unwrap(), "--vary", vary]);
        assert_eq!(output.status.code(), Some(2));
        let error = stderr(&output);
        assert!(error.ends_with(wanted) && error.lines().count() == 1, "{error}");
    }
    assert_eq!(sim(&["sweep", world.to_str().unwrap()]).status.code(), Some(2));
    assert_eq!(sim(&["sweep", "/nowhere.toml", "--vary=link.loss=0"]).status.code(), Some(2));
    std::fs::remove_dir_all(&dir).unwrap();
}
