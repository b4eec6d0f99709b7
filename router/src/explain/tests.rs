use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::lsdb::Lsdb;
use crate::routes::RouterConfig;
use crate::world::{NOON, World, eu_only, id, key};

const LATER: Timestamp = Timestamp::from_micros(NOON.as_micros() + 60_000_000);

fn routed(world: &mut World) -> (Router, Lsdb) {
    let lsdb = world.lsdb("fra", NOON);
    let mut router = Router::new(id("fra"), RouterConfig::default());
    router.update(&lsdb, NOON);
    (router, lsdb)
}

fn json(router: &Router, policy: PolicyId, target: Target) -> Value {
    serde_json::to_value(router.explain(policy, &target, LATER)).expect("plain data")
}

fn to_sgp() -> Target {
    Target::Pop(id("sgp"))
}

fn bad_triangle() -> World {
    let mut world =
        World::new(&[("fra", "dxb", 30.0), ("dxb", "sgp", 35.0), ("fra", "sgp", 150.0)]);
    world.link("fra", "sgp").loss = 0.03;
    world
}

#[test]
fn a_route_around_a_bad_link_says_so_with_the_figures() {
    let (router, _) = routed(&mut bad_triangle());
    let said = json(&router, PolicyId::NONE, to_sgp());
    assert_eq!(said["chosen"]["pops"], serde_json::json!(["fra", "dxb", "sgp"]));
    assert_eq!(said["chosen"]["total_ms"], 65.5);
    assert_eq!(said["chosen"]["terms"]["delay_ms"], 65.0);
    assert_eq!(said["chosen"]["links"][1]["terms"]["delay_ms"], 35.0);
    assert_eq!(said["chosen"]["reason"], "first");
    assert_eq!(said["chosen"]["age_ms"], 60_000);
    assert_eq!(said["backup"]["pops"], serde_json::json!(["fra", "sgp"]));
    assert_eq!(said["backup"]["loss"], 0.03);
    let summary = said["summary"].as_str().unwrap_or_default();
    let start = "fra > dxb > sgp at 65.5 ms; the direct link is not used: slower by ";
    assert!(summary.starts_with(start) && summary.contains(": delay +85.0 ms, "), "{summary}");
    assert_eq!(said["alternates"].as_array().map(Vec::len), Some(1));
    assert_eq!(said["policy"], Value::Null);
}

#[test]
fn what_recovery_is_expected_to_make_of_a_link_is_shown() {
    let (router, _) = routed(&mut bad_triangle());
    let said = json(&router, PolicyId::NONE, to_sgp());
    // A round trip of 300 ms leaves little time for repeats: parity takes their place.
    let direct = &said["direct"]["path"];
    let figure = |name: &str| direct["links"][0][name].as_f64().unwrap_or(f64::NAN);
    assert!((0.1..0.5).contains(&figure("redundancy")), "{direct}");
    assert!((1e-6..1e-3).contains(&figure("residual_loss")), "{direct}");
    assert_eq!(direct["residual_loss"], direct["links"][0]["residual_loss"]);
    let ms = |name: &str| direct["terms"][name].as_f64().unwrap_or(f64::NAN);
    assert!((ms("redundancy_ms") - figure("redundancy") * 50.0).abs() < 0.01, "{direct}");
    assert!((ms("residual_loss_ms") - figure("residual_loss") * 2_000.0).abs() < 0.01, "{direct}");
    assert!((0.5..5.0).contains(&ms("recovery_ms")), "{direct}");
    let clean = &said["chosen"]["links"][0];
    assert_eq!([&clean["redundancy"], &clean["residual_loss"]], [0.0, 0.0]);
}

#[test]
fn terms_add_up_to_the_metric() {
    let mut world = bad_triangle();
    world.link("fra", "dxb").cost = Duration::from_millis(3);
    world.link("dxb", "sgp").jitter = Duration::from_millis(1);
    let (router, _) = routed(&mut world);
    let said = json(&router, PolicyId::NONE, to_sgp());
    for path in [&said["chosen"], &said["backup"]] {
        let sum = |of: &Value| {
            of["terms"]
                .as_object()
                .map_or(0.0, |terms| terms.values().filter_map(Value::as_f64).sum())
        };
        let total = |of: &Value| of["total_ms"].as_f64().unwrap_or(f64::NAN);
        let links = path["links"].as_array().cloned().unwrap_or_default();
        assert!((sum(path) - total(path)).abs() < 1e-6, "{path}");
        assert!((links.iter().map(total).sum::<f64>() - total(path)).abs() < 1e-6, "{path}");
        links.iter().for_each(|link| assert!((sum(link) - total(link)).abs() < 1e-6, "{link}"));
    }
}

#[test]
fn what_a_policy_forbids_is_shown_with_the_reason() {
    let mut world = bad_triangle();
    world.label("EU", &["fra", "sgp"]);
    world.label("ME", &["dxb"]);
    world.pop("fra").policies = vec![eu_only()];
    let (mut router, mut lsdb) = routed(&mut world);
    let policy = eu_only().id();
    assert_eq!(
        json(&router, policy, to_sgp())["summary"],
        "policy eu-only is not in use at this relay yet"
    );
    assert_eq!(json(&router, PolicyId(7), to_sgp())["summary"], "no relay defines policy 00000007");
    router.want_policy(policy);
    router.update(&lsdb, NOON);
    let said = json(&router, policy, to_sgp());
    assert_eq!(said["policy"]["name"], "eu-only");
    assert_eq!(said["chosen"]["pops"], serde_json::json!(["fra", "sgp"]));
    assert_eq!(
        said["alternates"][0]["why"],
        "excluded by policy eu-only at dxb: its region ME is not allowed"
    );
    assert_eq!(
        said["excluded"],
        serde_json::json!([{ "pop": "dxb", "why": "policy: its region ME is not allowed" }])
    );
    let dxb = json(&router, policy, Target::Pop(id("dxb")));
    assert_eq!(dxb["summary"], "policy eu-only does not allow dxb: its region ME is not allowed");
    assert_eq!(dxb["chosen"], Value::Null);
    world.link("fra", "sgp").up = false;
    world.say(&mut lsdb, "fra", LATER);
    router.update(&lsdb, LATER);
    let said = json(&router, policy, to_sgp());
    assert_eq!(said["summary"], "every way to sgp passes a relay that policy eu-only excludes");
}

#[test]
fn the_choice_of_an_instance_is_explained() {
    let mut world = bad_triangle();
    world.pop("sgp").services = vec!["sfu"];
    world.pop("dxb").services = vec!["sfu"];
    world.pop("dxb").draining = true;
    let (router, _) = routed(&mut world);
    let sfu = || "sfu".parse::<ServiceName>().expect("a valid name");
    let said = json(&router, PolicyId::NONE, Target::Service(sfu()));
    assert_eq!((&said["pop"], &said["to"]), (&Value::from("sgp"), &Value::from("sfu")));
    assert_eq!(said["instances"][0]["why"], "draining: takes no new flows");
    assert_eq!(said["instances"][1]["chosen"], true);
    let pinned = json(&router, PolicyId::NONE, Target::ServiceAt(sfu(), id("dxb")));
    assert_eq!((&pinned["pop"], &pinned["to"]), (&Value::from("dxb"), &Value::from("sfu@dxb")));
    assert_eq!(pinned["instances"][0]["why"], "the one asked for");
    let cases = [
        (Target::Service("nope".parse().expect("a valid name")), "no relay advertises nope"),
        (Target::ServiceAt(sfu(), id("fra")), "fra does not advertise sfu"),
        (Target::Pop(id("zzz")), "zzz is not a member"),
        (Target::Pop(id("fra")), "this relay itself"),
    ];
    for (target, summary) in cases {
        assert_eq!(json(&router, PolicyId::NONE, target.clone())["summary"], summary, "{target:?}");
    }
}

#[test]
fn a_better_path_that_must_wait_says_for_how_long() {
    let mut world = World::new(&[
        ("fra", "a", 30.0),
        ("a", "sgp", 30.0),
        ("fra", "b", 40.0),
        ("b", "sgp", 30.0),
    ]);
    let (mut router, mut lsdb) = routed(&mut world);
    let because = |router: &Router| {
        let said = json(router, PolicyId::NONE, to_sgp());
        (
            said["alternates"][0]["why"].as_str().unwrap_or_default().to_owned(),
            said["direct"]["why"].clone(),
        )
    };
    let none = Value::from("there is no link to it that is up");
    assert_eq!(because(&router), ("slower by 10.0 ms: delay +10.0 ms".into(), none.clone()));
    for (delay_ms, why) in [
        (22, "better by 8.0 ms; taken in 5.0 s if that lasts"),
        (
            28,
            "better by only 2.0 ms: moving takes 5.0 ms and 10 %, for 5 s; nor may a path be over 2.0 ms slower than a clean direct link",
        ),
    ] {
        world.link("fra", "b").delay_micros = delay_ms * 1_000;
        world.say(&mut lsdb, "fra", LATER);
        router.update(&lsdb, LATER);
        assert_eq!(because(&router), (why.into(), none.clone()));
    }
    router.set_suspect(key("b"), true);
    router.update(&lsdb, LATER);
    assert_eq!(because(&router).0, "its first link is suspect");
    assert_eq!(
        router.route(PolicyId::NONE, key("sgp")).map(|route| route.primary.path.next()),
        Some(Some(key("a")))
    );
}
