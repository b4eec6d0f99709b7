use std::time::Duration;

use proptest::prelude::*;
use tradewind_proto::statement::LinkStatement;

use super::*;
use crate::paths::Ascending;
use crate::tables::Pairing;
use crate::world::{NOON, World, eu_only, id, key, link};

const SECOND: Duration = Duration::from_secs(1);
/// Everything is old by then, and routes are loyal.
const LATER: Timestamp = Timestamp::from_micros(NOON.as_micros() + 60_000_000);

/// A router of `fra` that has heard all of `world`.
fn routed(world: &mut World) -> (Router, Lsdb) {
    let lsdb = world.lsdb("fra", NOON);
    let mut router = Router::new(id("fra"), RouterConfig::default());
    router.update(&lsdb, NOON);
    (router, lsdb)
}

fn names(router: &Router, path: &Path) -> String {
    let name =
        |&key: &PopKey| router.graph().relay(router.graph().node(key).unwrap()).id().to_string();
    path.pops().iter().map(name).collect::<Vec<_>>().join(" ")
}

fn primary(router: &Router, to: &str) -> String {
    let route = router.route(PolicyId::NONE, key(to));
    route.map_or("none".into(), |route| names(router, &route.primary.path))
}

fn backup(router: &Router, to: &str) -> String {
    let backup = router.route(PolicyId::NONE, key(to)).and_then(|route| route.backup.as_ref());
    backup.map_or("none".into(), |way| names(router, &way.path))
}

/// A direct link of 150 ms and 3 % loss against 30 + 35 ms over a third relay.
fn bad_triangle() -> World {
    let mut world =
        World::new(&[("fra", "dxb", 30.0), ("dxb", "sgp", 35.0), ("fra", "sgp", 150.0)]);
    world.link("fra", "sgp").loss = 0.03;
    world
}

/// Direct 50 ms; over `a` and over `b` longer.
fn three_ways() -> World {
    World::new(&[
        ("fra", "sgp", 50.0),
        ("fra", "a", 30.0),
        ("a", "sgp", 30.0),
        ("fra", "b", 40.0),
        ("b", "sgp", 40.0),
    ])
}

#[test]
fn a_bad_direct_link_is_left_at_the_first_update() {
    let (router, _) = routed(&mut bad_triangle());
    assert_eq!(primary(&router, "sgp"), "fra dxb sgp");
    assert_eq!(backup(&router, "sgp"), "fra sgp");
    assert_eq!(
        router.route(PolicyId::NONE, key("sgp")).unwrap().primary.delay,
        Duration::from_millis(65)
    );
    assert_eq!(primary(&router, "fra"), "fra");
}

#[test]
fn a_link_needs_both_ends_and_concerns_one_direction() {
    let mut world = bad_triangle();
    let (mut router, mut lsdb) = routed(&mut world);
    world.link("dxb", "fra").up = false; // the way back only
    world.say(&mut lsdb, "dxb", LATER);
    router.update(&lsdb, LATER);
    assert_eq!(primary(&router, "sgp"), "fra dxb sgp");
    world.link("dxb", "sgp").up = false;
    world.say(&mut lsdb, "dxb", LATER);
    router.update(&lsdb, LATER);
    assert_eq!(primary(&router, "sgp"), "fra sgp");
    assert_eq!(backup(&router, "sgp"), "none");
    lsdb.expire(NOON + Duration::from_secs(200)); // sgp fell silent
    router.update(&lsdb, NOON + Duration::from_secs(200));
    assert_eq!(primary(&router, "sgp"), "none");
}

#[test]
fn a_suspect_first_link_is_left_at_once_and_is_the_last_resort() {
    let mut world = three_ways();
    let (mut router, mut lsdb) = routed(&mut world);
    assert!(router.set_suspect(key("sgp"), true));
    assert!(!router.set_suspect(key("sgp"), true));
    router.update(&lsdb, LATER);
    assert_eq!(primary(&router, "sgp"), "fra a sgp");
    for relay in ["a", "b"] {
        world.link("fra", relay).up = false;
    }
    world.say(&mut lsdb, "fra", LATER);
    router.update(&lsdb, LATER);
    assert_eq!(primary(&router, "sgp"), "fra sgp", "better than nothing");
    world.link("fra", "a").up = true;
    world.say(&mut lsdb, "fra", LATER);
    router.update(&lsdb, LATER);
    assert_eq!(primary(&router, "sgp"), "fra a sgp");
    router.set_suspect(key("sgp"), false);
    router.update(&lsdb, LATER + 10 * SECOND);
    assert_eq!(primary(&router, "sgp"), "fra sgp", "nor may it be worse than the direct link");
}

#[test]
fn what_is_merely_better_waits_and_what_turned_bad_is_left() {
    let mut world = three_ways();
    world.connect("fra", link("sgp", 90.0));
    let (mut router, mut lsdb) = routed(&mut world);
    assert_eq!(primary(&router, "sgp"), "fra a sgp");
    // b becomes better by 8 ms of 60.
    world.connect("fra", link("b", 12.0));
    world.say(&mut lsdb, "fra", LATER);
    router.update(&lsdb, LATER);
    assert_eq!(primary(&router, "sgp"), "fra a sgp");
    assert_eq!(router.poll_timeout(), LATER + 5 * SECOND);
    router.update(&lsdb, LATER + 4 * SECOND);
    assert_eq!(primary(&router, "sgp"), "fra a sgp");
    router.update(&lsdb, LATER + 5 * SECOND);
    assert_eq!(primary(&router, "sgp"), "fra b sgp");
    assert_eq!(router.poll_timeout(), Timestamp::NEVER);
    // Now b loses a third of all packets.
    world.link("b", "sgp").loss = 0.33;
    world.say(&mut lsdb, "b", LATER + 6 * SECOND);
    router.update(&lsdb, LATER + 6 * SECOND);
    assert_eq!(primary(&router, "sgp"), "fra a sgp");
}

#[test]
fn a_relay_that_came_back_is_used_again_at_once() {
    let mut world = three_ways();
    world.connect("fra", link("sgp", 90.0));
    let (mut router, mut lsdb) = routed(&mut world);
    world.link("fra", "a").up = false;
    world.say(&mut lsdb, "fra", LATER);
    router.update(&lsdb, LATER);
    assert_eq!(primary(&router, "sgp"), "fra b sgp");
    world.link("fra", "a").up = true;
    world.say(&mut lsdb, "fra", LATER + SECOND);
    router.update(&lsdb, LATER + SECOND);
    assert_eq!(primary(&router, "sgp"), "fra a sgp");
}

#[test]
fn no_harm_is_done() {
    // Jitter makes the direct link dearer, but over a the delay is 5 ms longer.
    let mut world = World::new(&[("fra", "sgp", 50.0), ("fra", "a", 25.0), ("a", "sgp", 30.0)]);
    world.link("fra", "sgp").jitter = Duration::from_millis(10);
    let (router, _) = routed(&mut world);
    assert_eq!(primary(&router, "sgp"), "fra sgp");
    // With loss, or where the direct link is full or the operator charges for it, the rule does not hold.
    let clean = *world.link("fra", "sgp");
    for other in [
        LinkStatement { loss: 0.01, ..clean },
        LinkStatement { capacity_kbps: 1_000, load_kbps: 1_200, ..clean },
        LinkStatement { cost: Duration::from_millis(20), ..clean },
    ] {
        let mut world = world.clone();
        *world.link("fra", "sgp") = other;
        let (router, _) = routed(&mut world);
        assert_eq!(primary(&router, "sgp"), "fra a sgp", "{other:?}");
    }
}

#[test]
fn a_draining_relay_is_an_end_but_nothing_in_between() {
    let mut world = bad_triangle();
    world.pop("dxb").draining = true;
    world.pop("dxb").services = vec!["sfu"];
    world.pop("sgp").services = vec!["sfu"];
    let (router, _) = routed(&mut world);
    assert_eq!(primary(&router, "sgp"), "fra sgp");
    assert_eq!(primary(&router, "dxb"), "fra dxb");
    let (tables, sfu) = (router.tables(), "sfu".parse().unwrap());
    assert_eq!(tables.nearest(PolicyId::NONE, &sfu), Some((key("sgp"), 1)));
    assert!(tables.serves(PolicyId::NONE, key("dxb"), &sfu));
    assert!(!tables.serves(PolicyId::NONE, key("fra"), &sfu));
}

#[test]
fn a_service_here_is_the_nearest() {
    let mut world = bad_triangle();
    world.pop("fra").services = vec!["sfu"];
    world.pop("dxb").services = vec!["sfu"];
    let (router, _) = routed(&mut world);
    let nearest = router.tables().nearest(PolicyId::NONE, &"sfu".parse().unwrap());
    assert_eq!(nearest, Some((key("fra"), 1)));
}

#[test]
fn policies_bind_ends_relays_and_backups_and_fail_closed() {
    let policy = eu_only();
    let mut world = World::new(&[
        ("fra", "mad", 60.0),
        ("fra", "nyc", 10.0),
        ("nyc", "mad", 10.0),
        ("fra", "par", 40.0),
        ("par", "mad", 40.0),
    ]);
    world.label("EU", &["fra", "mad", "par"]);
    world.label("US", &["nyc"]);
    world.pop("mad").policies = vec![policy.clone()];
    let (mut router, mut lsdb) = routed(&mut world);
    assert!(!router.tables().has_policy(policy.id()));
    assert!(router.want_policy(policy.id()));
    assert!(!router.want_policy(policy.id()));
    router.update(&lsdb, LATER);
    let route = |router: &Router, to| {
        router.route(policy.id(), key(to)).map(|route| {
            let backup = route.backup.as_ref().map(|way| names(router, &way.path));
            (names(router, &route.primary.path), backup.unwrap_or_default())
        })
    };
    assert_eq!(primary(&router, "mad"), "fra nyc mad");
    assert_eq!(route(&router, "mad"), Some(("fra mad".into(), "fra par mad".into())));
    assert_eq!(route(&router, "nyc"), None);
    // The label is lost: a relay without one is not allowed.
    world.pop("fra").labels.region = None;
    world.say(&mut lsdb, "fra", LATER);
    router.update(&lsdb, LATER);
    assert_eq!(route(&router, "mad"), None);
    assert_eq!(route(&router, "fra"), None);
    assert!(router.tables().has_policy(policy.id()));
    // Nobody defines it any more.
    world.pop("mad").policies.clear();
    world.say(&mut lsdb, "mad", LATER);
    router.update(&lsdb, LATER);
    assert!(!router.tables().has_policy(policy.id()));
    assert_eq!(router.unknown_policies().collect::<Vec<_>>(), [policy.id()]);
}

#[test]
fn pairs_are_computed_where_wanted() {
    let (mut router, lsdb) = routed(&mut three_ways());
    let pair = |router: &Router| router.route(PolicyId::NONE, key("sgp")).unwrap().pair.clone();
    assert_eq!(pair(&router), Pairing::Unasked);
    assert!(router.want_pair(PolicyId::NONE, key("sgp")));
    assert!(!router.want_pair(PolicyId::NONE, key("sgp")));
    router.update(&lsdb, NOON);
    let Pairing::Pair(a, b) = pair(&router) else { panic!("{:?}", pair(&router)) };
    assert_eq!(
        (names(&router, &a.path), names(&router, &b.path)),
        ("fra sgp".into(), "fra a sgp".into())
    );
}

#[test]
fn a_pair_that_does_not_exist_is_told_from_one_that_nobody_asked_for() {
    let mut world = World::new(&[("fra", "sgp", 10.0), ("fra", "a", 10.0)]);
    let (mut router, mut lsdb) = routed(&mut world);
    assert!(router.want_pair(PolicyId::NONE, key("sgp")));
    router.update(&lsdb, NOON);
    let pair = |router: &Router| router.route(PolicyId::NONE, key("sgp")).unwrap().pair.clone();
    assert_eq!(pair(&router), Pairing::Impossible);
    world.connect("a", link("sgp", 10.0));
    world.say(&mut lsdb, "a", NOON);
    router.update(&lsdb, NOON);
    assert!(pair(&router).ways().is_some(), "it is looked for with every change");
}

#[test]
fn pairs_to_those_who_left_are_forgotten() {
    let (mut router, lsdb) = routed(&mut three_ways());
    assert!(router.want_pair(PolicyId::NONE, key("gone")));
    router.update(&lsdb, NOON);
    assert!(router.want_pair(PolicyId::NONE, key("gone")), "news again");
}

#[test]
fn pairs_that_nobody_uses_any_more_are_forgotten() {
    let (mut router, lsdb) = routed(&mut three_ways());
    for to in ["a", "sgp"] {
        assert!(router.want_pair(PolicyId::NONE, key(to)));
    }
    router.keep_pairs(&BTreeSet::from([(PolicyId::NONE, key("sgp"))]));
    router.update(&lsdb, NOON);
    let pair = |to| router.route(PolicyId::NONE, key(to)).unwrap().pair.clone();
    assert_eq!(pair("a"), Pairing::Unasked);
    assert!(pair("sgp").ways().is_some());
    router.keep_pairs(&BTreeSet::new());
    assert!(!router.has_pairs());
}

#[test]
fn refreshing_the_graph_is_as_good_as_making_it_anew() {
    let mut world = three_ways();
    let mut lsdb = world.lsdb("fra", NOON);
    let mut graph = Graph::new(&lsdb);
    let all = |graph: &Graph| {
        let mut all: Vec<_> =
            graph.edges().map(|(edge, _)| (edge.from, edge.to, edge.cost)).collect();
        let links = |(from, to, _): &(Node, Node, i32)| {
            graph.link(*from, *to).map(|link| link.cost().micros())
        };
        assert!(all.iter().all(|edge| links(edge) == Some(i64::from(edge.2))));
        all.sort_unstable();
        all
    };
    type Step = (&'static str, fn(&mut World));
    let steps: [Step; 5] = [
        ("a", |world| world.link("a", "sgp").up = false),
        ("b", |world| world.connect("b", link("a", 7.0))),
        ("b", |world| world.pop("b").links.retain(|to, _| *to != key("sgp"))),
        ("fra", |world| world.link("fra", "a").delay_micros = 5),
        ("new", |world| world.connect("new", link("fra", 3.0))),
    ];
    for (name, change) in steps {
        change(&mut world);
        world.say(&mut lsdb, name, NOON);
        assert_eq!(graph.refresh(&lsdb), name == "new");
        assert_eq!(all(&graph), all(&Graph::new(&lsdb)), "{name}");
    }
    assert!(graph.dot().contains("label=\"fra\""), "{}", graph.dot());
}

#[test]
fn the_searches_agree_with_petgraph() {
    use petgraph::algo::bellman_ford;
    let mut world = three_ways();
    world.connect("a", link("b", -3.0));
    let (router, _) = routed(&mut world);
    let graph = router.graph();
    let weights = graph.petgraph().map(|_, _| (), |_, link| link.cost().ms());
    let own = petgraph::graph::NodeIndex::new(usize::from(graph.node(key("fra")).unwrap()));
    let oracle = bellman_ford(&weights, own).expect("no negative cycle");
    for (node, relay) in graph.relays().filter(|(_, relay)| relay.key != key("fra")) {
        let best = router.tables.policies[&PolicyId::NONE].ways.labels.cost(node).unwrap();
        assert!(
            (f64::from(best) / 1_000.0 - oracle.distances[usize::from(node)]).abs() < 1e-6,
            "{}",
            relay.id()
        );
    }
}

/// Overlays of seven relays with random links, some lossy, some of them the operator's dear ones.
fn worlds() -> impl Strategy<Value = World> {
    let link_of = (1.0..120.0f64, prop_oneof![3 => Just(0.0f32), 1 => 0.0..0.2f32]);
    let links = prop::collection::vec(prop::option::weighted(0.7, link_of), 49);
    links.prop_map(|links| {
        let names = ["fra", "a", "b", "c", "d", "e", "f"];
        let mut world = World::default();
        for name in names {
            world.pop(name);
        }
        for (at, (delay_ms, loss)) in
            links.into_iter().enumerate().filter_map(|(at, link)| Some((at, link?)))
        {
            if at / 7 != at % 7 {
                world.connect(
                    names[at / 7],
                    LinkStatement { loss, ..link(names[at % 7], delay_ms) },
                );
            }
        }
        world
    })
}

proptest! {
    #[test]
    fn routes_are_the_best_that_do_no_harm_and_backups_the_best_beside_them(mut world in worlds()) {
        let (router, _) = routed(&mut world);
        let ways = &router.tables.policies[&PolicyId::NONE].ways;
        let graph = router.graph();
        let own = graph.node(key("fra")).unwrap();
        for (to, relay) in graph.relays().filter(|(_, relay)| relay.key != key("fra")) {
            let all: Vec<(i32, Trail)> = Ascending::new(&ways.arrays, &ways.labels, to).collect();
            let delay = |path: &Trail| -> i32 {
                path.links().map(|(u, v)| graph.statement(u, v).unwrap().delay_micros).sum()
            };
            let direct = graph.link(own, to).zip(graph.statement(own, to));
            let harmless = |path: &Trail| match direct {
                Some((_, said)) if said.loss < 0.001 => delay(path) <= said.delay_micros + 2_000,
                _ => true,
            };
            let best = all.iter().find(|(_, path)| harmless(path)).map(|(_, path)| *path);
            let route = router.route(PolicyId::NONE, relay.key);
            let used = route.and_then(|route| trail(graph, &route.primary.path));
            prop_assert_eq!(used, best);
            let Some(used) = used else { continue };
            if let Some((link, _)) = direct {
                prop_assert!(i64::from(ways.arrays.cost_of(&used).unwrap()) <= link.cost().micros());
            }
            let apart = |other: &Trail| {
                *other != used && !other.between().iter().any(|relay| used.between().contains(relay))
            };
            let beside = all.iter().find(|(_, path)| apart(path)).map(|(cost, _)| *cost);
            let backup = route.and_then(|route| route.backup.as_ref()).and_then(|way| trail(graph, &way.path));
            prop_assert!(backup.is_none_or(|path| apart(&path)));
            prop_assert_eq!(backup.and_then(|path| ways.arrays.cost_of(&path)), beside);
        }
    }

    /// Whatever the statements say from one moment to the next: a route is never worse than the
    /// direct link, never more than the thresholds behind the best for longer than the hold.
    #[test]
    fn loyalty_has_limits(steps in prop::collection::vec((worlds(), 1..20u64), 2..8)) {
        let mut router = Router::new(id("fra"), RouterConfig::default());
        let mut lsdb = Lsdb::new(id("fra"));
        let mut now = NOON;
        for (at, (mut world, seconds)) in steps.into_iter().enumerate() {
            now = now + SECOND * seconds as u32;
            for name in ["fra", "a", "b", "c", "d", "e", "f"] {
                (0..at).for_each(|_| drop(world.statement(name))); // numbers go on
                world.say(&mut lsdb, name, now);
            }
            router.update(&lsdb, now);
            let ways = &router.tables.policies[&PolicyId::NONE].ways;
            let own = router.graph().node(key("fra")).unwrap();
            for (to, relay) in router.graph().relays().filter(|(_, relay)| relay.key != key("fra")) {
                let route = router.route(PolicyId::NONE, relay.key);
                prop_assert_eq!(route.is_some(), ways.labels.cost(to).is_some());
                let used = route.and_then(|route| trail(router.graph(), &route.primary.path));
                let Some(cost) = used.and_then(|path| ways.arrays.cost_of(&path)) else { continue };
                prop_assert!(ways.arrays.cost(own, to).is_none_or(|direct| cost <= direct));
            }
            prop_assert!(router.poll_timeout() > now);
        }
    }
}
