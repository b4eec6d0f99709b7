//! `tradewind-sim run WORLD --what-if CHANGE`.

use super::{directory, sim, stderr, stdout};

const WORLD: &str = r#"
[run]
duration = "1s"
warmup = "1s"
[[pop]]
id = "a"
[[pop]]
id = "b"
country = "CN"
[[pop]]
id = "c"
[[link]]
between = ["a", "b"]
delay = "10ms"
[[link]]
between = ["b", "c"]
delay = "10ms"
[[link]]
between = ["a", "c"]
delay = "50ms"
[[traffic]]
name = "media"
from = "a"
to = "c"
pps = 50
size = 400
"#;

#[test]
fn before_and_after_stand_side_by_side() {
    let dir = directory("what-if");
    let world = dir.join("three.toml");
    std::fs::write(&world, WORLD).unwrap();
    let run = |more: &[&str]| {
        let args = [&["run", world.to_str().unwrap()][..], more].concat();
        sim(&args)
    };
    let changes = ["--what-if", "deny CN", "--what-if", "demand x2"];
    let output = run(&changes);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(table.starts_with("| flow  | what if             | in time % |"), "{table}");
    let routes: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| media"))
        .map(|line| line.split('|').nth(6).unwrap().trim())
        .collect();
    assert_eq!(routes, ["a > b > c", "a > c", "a > b > c", "a > c"], "{table}");
    let json = stdout(&run(&[&changes[..], &["--json"]].concat()));
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    let sent = |case: usize| &document["cases"][case]["result"]["flows"][0]["overlay"]["sent"];
    assert_eq!((sent(0).as_u64(), sent(3).as_u64()), (Some(50), Some(100)));
    let out = dir.join("report");
    let output = run(&[&changes[..], &["--out", out.to_str().unwrap()]].concat());
    assert_eq!(stdout(&output), table, "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(out.join("summary.json")).unwrap(), json);
    let titles = ["before", "what-if-1", "what-if-2", "what-if-all"].map(|case| {
        let page = std::fs::read_to_string(out.join(case).join("report.html")).unwrap();
        let (_, rest) = page.split_once("<title>").unwrap();
        rest.split_once(" - ").unwrap().0.to_owned()
    });
    let changed = ["deny CN", "demand x2", "deny CN + demand x2"]
        .map(|what| format!("world, what if: {what}"));
    assert_eq!((titles[0].as_str(), &titles[1..]), ("world", &changed[..]));
    // The way without b takes 50 ms.
    std::fs::write(&world, format!("{WORLD}[assert]\ndelay_median = \"30ms\"\n")).unwrap();
    let output = run(&["--what-if", "demand x2", "--what-if", "deny CN"]);
    let told: Vec<_> =
        stderr(&output).lines().filter(|line| line.contains("assert")).map(str::to_owned).collect();
    assert_eq!((output.status.code(), told.len()), (Some(1), 2), "{told:?}");
    assert!(told[0].starts_with("not as asserted: deny CN: "), "{told:?}");
    assert!(told[1].starts_with("not as asserted: demand x2 + deny CN: "), "{told:?}");
    for (change, wanted) in [
        ("remove d", ": what if \"remove d\": no PoP, region, country or provider is called \"d\""),
        ("cut a", "write \"cut A B [at TIME]\", not \"cut a\""),
    ] {
        let output = run(&["--what-if", change]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
