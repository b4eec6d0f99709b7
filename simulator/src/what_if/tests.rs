use super::*;
use crate::progress::Silent;
use crate::simulation;
use crate::world::World;

/// Two ways from a to d, over b (short, in CN) and over c.
const WORLD: &str = r#"
[run]
duration = "2s"
warmup = "1s"

[[pop]]
id = "a"
region = "EU"
[[pop]]
id = "b"
country = "CN"
[[pop]]
id = "c"
region = "NA"
country = "US"
[[pop]]
id = "d"
region = "NA"
country = "US"

[[link]]
between = ["a", "b"]
delay = "10ms"
[[link]]
between = ["b", "d"]
delay = "10ms"
[[link]]
between = ["a", "c"]
delay = "30ms"
[[link]]
between = ["c", "d"]
delay = "30ms"

[[traffic]]
name = "through"
from = "a"
to = "d"
pps = 50
size = 200
[[traffic]]
name = "to-b"
from = "a"
to = "b"
pps = 50
size = 200

[[policy]]
name = "eu-only"
allow_regions = ["EU"]
[[policy]]
name = "not-c"
deny_pops = ["c"]

[[event]]
at = "1s"
degrade = ["b", "d"]
loss = 0.1
"#;

fn world() -> World {
    World::parse("diamond.toml", WORLD).unwrap()
}

fn changes(texts: &[&str]) -> Vec<WhatIf> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn compared(texts: &[&str]) -> anyhow::Result<Comparison> {
    let run = &mut |_: &str, world: &World| simulation::run(world, &mut Silent);
    compare(("diamond.toml", &world()), &changes(texts), run)
}

/// The last route of each flow in the last case.
fn routes(texts: &[&str]) -> Vec<String> {
    let comparison = compared(texts).unwrap();
    let last = comparison.cases.last().unwrap();
    last.outcome.flows.iter().map(|flow| flow.route_after()).collect()
}

#[test]
fn changes_change_routes() {
    let unchanged = ["a > b > d", "a > b"];
    assert_eq!(routes(&[]), unchanged);
    assert_eq!(routes(&["demand x2"]), unchanged);
    assert_eq!(routes(&["remove b"]), ["a > c > d"]);
    assert_eq!(routes(&["deny CN"]), ["a > c > d", "a > b"]);
    assert_eq!(routes(&["deny pop b"]), ["a > c > d", "a > b"]);
    assert_eq!(routes(&["cut b d"]), ["a > c > d", "a > b"]);
    assert_eq!(routes(&["kill country CN at 500ms"])[0], "a > c > d");
    assert_eq!(routes(&["add link a d 5ms"]), ["a > d", "a > b"]);
    assert_eq!(routes(&["delay a b 200ms"])[0], "a > c > d");
    assert_eq!(routes(&["loss a b 60%"])[0], "a > c > d");
    // First each alone, then all together.
    assert_eq!(routes(&["remove b", "add link a d 5ms"]), ["a > d"]);
}

#[test]
fn the_table_has_every_flow_before_and_after() {
    let comparison = compared(&["remove b", "deny CN", "policy not-c"]).unwrap();
    let names: Vec<_> = comparison.cases.iter().map(Case::name).collect();
    assert_eq!(
        names,
        ["before", "remove b", "deny CN", "policy not-c", "remove b + deny CN + policy not-c"]
    );
    let table = comparison.table().to_string();
    assert_eq!(table.lines().count(), 2 + 2 * 5, "{table}");
    let row = |flow: &str, case: &str| -> Vec<String> {
        let of = |line: &&str| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            cells[1..3] == [flow, case]
        };
        let line = table.lines().find(of).unwrap_or_else(|| panic!("{flow} {case}: {table}"));
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    assert_eq!(row("through", "before")[6], "a > b > d");
    assert_eq!(row("through", "remove b")[3..7], ["100.000", "60.0", "60.0", "a > c > d"]);
    assert_eq!(row("to-b", "remove b")[3..7], ["-", "-", "-", "begins or ends at what is gone"]);
    let remarks = comparison.remarks();
    assert!(remarks.contains(&"remove b: traffic that begins or ends there: to-b".to_owned()));
    assert!(
        remarks.contains(&"deny CN: traffic that begins or ends there is as before: to-b".into()),
        "{remarks:?}"
    );
    let last = comparison.cases.last().unwrap();
    assert!(last.notes[1].starts_with("\"deny CN\" is left out: no PoP, region"), "{last:?}");
    assert_eq!(last.notes[2], "no path is left for through");
    let json = comparison.to_json();
    assert_eq!(json["cases"][0]["result"]["world"], "world");
    assert_eq!(json["cases"][1]["result"]["world"], "world, what if: remove b");
    assert_eq!(json["cases"][1]["what_if"], serde_json::json!(["remove b"]));
    assert_eq!(json["cases"][1]["result"]["flows"].as_array().map(Vec::len), Some(1));
}

#[test]
fn traffic_without_a_path_is_named_and_the_rest_runs() {
    let comparison = compared(&["policy eu-only"]).unwrap();
    let last = &comparison.cases[1];
    assert_eq!(last.cut_off.len(), 2);
    assert_eq!(last.notes, ["no path is left for through, to-b"]);
    assert!(last.outcome.flows.is_empty());
    assert!(comparison.table().to_string().contains("no path is left"));
}

#[test]
fn demand_can_grow_for_all_or_for_some() {
    let sent = |text: &str| -> Vec<u64> {
        let mut world = world();
        text.parse::<WhatIf>().unwrap().apply(&mut world).unwrap();
        world.traffic.iter().map(|traffic| traffic.packets()).collect()
    };
    assert_eq!(sent("demand x2"), [200, 200]);
    assert_eq!(sent("demand 0.5 of to-b"), [100, 50]);
}

#[test]
fn what_makes_no_sense_is_told_in_one_sentence() {
    for (text, error) in [
        ("remov b", "write \"remove PLACE\", not \"remov b\""),
        (
            "explode",
            "unknown change \"explode\"; known: remove, kill, cut, add, delay, loss, rate, demand, deny, policy",
        ),
        ("cut a", "write \"cut A B [at TIME]\", not \"cut a\""),
        ("remove b at 1s", "write \"remove PLACE\", not \"remove b\""),
        ("loss a b 7", "\"7\" is not a share, such as 5% or 0.05"),
        ("add link a d soon", "\"soon\" is not a span of time, such as 40ms"),
        ("rate a b fast", "\"fast\" is not a rate, such as 2.5Mbit"),
        ("demand double", "\"double\" is not a factor from x0.001 to x1000, such as x2"),
    ] {
        assert_eq!(text.parse::<WhatIf>().err().as_deref(), Some(error), "{text}");
    }
    for (text, error) in [
        ("remove e", "no PoP, region, country or provider is called \"e\"; did you mean \"a\"?"),
        ("deny region UE", "no PoP is in a region \"UE\"; did you mean \"EU\"?"),
        ("cut a d", "there is no link between a and d"),
        ("cut a x-1", "there is no PoP \"x-1\""),
        ("delay a a 5ms", "both ends of the link are \"a\""),
        ("add link a b 5ms", "a and b have a link; change its delay, loss or rate"),
        ("kill b at 2s", "at 2s the run of 2s is over"),
        ("demand x2 of to-c", "there is no traffic \"to-c\"; did you mean \"to-b\"?"),
        ("policy eu-onyl", "there is no [[policy]] named \"eu-onyl\"; did you mean \"eu-only\"?"),
    ] {
        let got = compared(&[text]).unwrap_err();
        let wanted = format!("diamond.toml: what if \"{text}\": {error}");
        assert_eq!(got.to_string(), wanted);
        assert!(got.is::<crate::world::WorldError>());
    }
}
