//! Routes and detours as packets take them.

use proptest::prelude::*;
use tradewind_proto::units::Timestamp;

use super::*;
use crate::lsdb::Lsdb;
use crate::routes::{Router, RouterConfig};
use crate::world::{NOON, World, eu_only, id, key, link};

fn tables(world: &mut World, own: &str, policies: &[PolicyId]) -> Arc<Tables> {
    let lsdb = world.lsdb(own, NOON);
    routed(&lsdb, own, policies, NOON)
}

fn routed(lsdb: &Lsdb, own: &str, policies: &[PolicyId], now: Timestamp) -> Arc<Tables> {
    let mut router = Router::new(id(own), RouterConfig::default());
    for &policy in policies {
        router.want_policy(policy);
    }
    router.update(lsdb, now);
    router.tables()
}

fn path(pops: &str, cursor: usize) -> Path {
    let keys: Vec<PopKey> = pops.split(' ').map(key).collect();
    Path::at(&keys, cursor).expect("tests use valid paths")
}

/// A ring of six and a chord: fra a b c d e (fra), a-c.
fn ring() -> World {
    World::new(&[
        ("fra", "a", 10.0),
        ("a", "b", 10.0),
        ("b", "c", 10.0),
        ("c", "d", 10.0),
        ("d", "e", 10.0),
        ("e", "fra", 10.0),
        ("a", "c", 30.0),
    ])
}

#[test]
fn detours_go_around_the_next_relay_or_the_link_to_the_last() {
    let cases = [
        ("past b", "a", "fra a b c", 1, Some("fra a c")),
        ("past a, the long way round", "fra", "fra a b", 0, Some("fra e d c b")),
        ("past a to c", "fra", "fra a c d", 0, Some("fra e d")),
        ("to the neighbour itself", "a", "fra a b", 1, Some("fra a c b")),
        ("back over a relay visited", "b", "fra a b c d", 2, None), // a has been visited
        ("not here", "a", "fra a b", 0, None),
        ("at the end", "a", "fra a", 1, None),
        ("over an unknown relay", "fra", "fra a zzz", 0, None),
    ];
    for (name, own, packet, cursor, detour) in cases {
        let tables = tables(&mut ring(), own, &[]);
        let found = tables.detour(&path(packet, cursor), PolicyId::NONE, 0);
        assert_eq!(found, detour.map(|pops| path(pops, cursor)), "{name}");
        assert_eq!(
            tables.detour(&path(packet, cursor), PolicyId(7), 0),
            None,
            "unknown policy: {name}"
        );
    }
}

#[test]
fn a_hop_reserves_what_the_links_ahead_take() {
    let mut world = ring();
    world.link("b", "c").jitter = Duration::from_millis(3);
    let tables = tables(&mut world, "fra", &[]);
    let along = |ahead: &str| {
        let ahead: Vec<PopKey> = ahead.split(' ').map(key).collect();
        tables.delay_along(key("a"), &ahead)
    };
    assert_eq!(along("b c"), Duration::from_millis(26));
    assert_eq!(along("b zzz c"), Duration::from_millis(10), "what is not known counts as nothing");
    let route = tables.route(PolicyId::NONE, key("c")).expect("a route");
    assert_eq!(tables.delay_along(key("fra"), route.primary.path.ahead()), route.primary.delay);
    assert_eq!(Tables::default().delay_along(key("a"), &[key("b")]), Duration::ZERO);
}

#[test]
fn a_way_carries_what_its_smallest_link_does() {
    let mut world = ring();
    world.link("a", "b").max_packet = 1_150;
    world.link("b", "a").max_packet = 1_300; // the other direction does not matter
    let tables = tables(&mut world, "fra", &[]);
    let route = |to| tables.route(PolicyId::NONE, key(to)).expect("a route");
    let largest = |to| route(to).primary.max_packet;
    assert_eq!([largest("a"), largest("b")], [1_402, 1_150]);
    assert_eq!(route("b").backup.as_ref().expect("the other way round").max_packet, 1_402);
    assert_eq!(largest("fra"), usize::MAX, "no link, no limit");
}

#[test]
fn detours_carry_the_packet_or_are_none() {
    let mut world = World::new(&[
        ("fra", "x", 5.0),
        ("x", "sgp", 5.0),
        ("fra", "near", 10.0),
        ("near", "sgp", 10.0),
        ("fra", "far", 20.0),
        ("far", "sgp", 20.0),
        ("far", "x", 20.0),
    ]);
    world.link("near", "sgp").max_packet = 1_150;
    let tables = tables(&mut world, "fra", &[]);
    let over = |relay: &str| Some(path(&format!("fra {relay} sgp"), 0));
    for (packet_path, packet, detour) in [
        ("fra x sgp", 0, over("near")),
        ("fra x sgp", 1_150, over("near")),
        ("fra x sgp", 1_151, over("far")),
        ("fra x sgp", 1_402, over("far")),
        ("fra x sgp", 1_403, None),
        ("fra x", 1_142, Some(path("fra near sgp x", 0))), // 8 bytes longer for two hops
        ("fra x", 1_143, Some(path("fra far x", 0))),
        ("fra x", 1_398, Some(path("fra far x", 0))),
        ("fra x", 1_399, None),
    ] {
        let found = tables.detour(&path(packet_path, 0), PolicyId::NONE, packet);
        assert_eq!(found, detour, "{packet_path} {packet}");
    }
}

#[test]
fn a_service_of_this_relay_is_served_and_the_nearest() {
    let mut world = ring();
    let name: ServiceName = "echo".parse().expect("a valid name");
    world.pop("fra").services = vec!["echo"];
    world.pop("b").services = vec!["echo"];
    let serves = |tables: &Tables, pop| tables.serves(PolicyId::NONE, key(pop), &name);
    let of = tables(&mut world, "fra", &[]);
    assert_eq!(of.nearest(PolicyId::NONE, &name), Some((key("fra"), 1)));
    assert!(serves(&of, "fra") && serves(&of, "b") && !serves(&of, "a"));
    world.pop("fra").services.clear();
    let of = tables(&mut world, "fra", &[]);
    assert_eq!(of.nearest(PolicyId::NONE, &name), Some((key("b"), 1)));
    assert!(!serves(&of, "fra") && serves(&of, "b"));
}

const NAMES: [&str; 8] = ["fra", "par", "mad", "ams", "nyc", "lax", "sgp", "tyo"];

/// Random links among eight relays, half of them in the EU; and who is killed, and which links.
fn worlds() -> impl Strategy<Value = (World, Vec<usize>, Vec<(usize, usize)>)> {
    let delays = prop::collection::vec(prop::option::weighted(0.6, 1.0..200.0f64), 64);
    let killed = prop::collection::vec(1..8usize, 0..2);
    let cut = prop::collection::vec((0..8usize, 0..8usize), 0..4);
    (delays, killed, cut).prop_map(|(delays, killed, cut)| {
        let mut world = World::default();
        for name in NAMES {
            world.pop(name);
        }
        for (at, delay) in delays.iter().enumerate().filter(|(at, _)| at / 8 != at % 8) {
            if let Some(delay_ms) = delay {
                world.connect(NAMES[at / 8], link(NAMES[at % 8], *delay_ms));
            }
        }
        world.label("EU", &NAMES[..4]);
        world.label("US", &NAMES[4..]);
        world.pop("fra").policies = vec![eu_only()];
        (world, killed, cut)
    })
}

/// What happened to a packet: all relays it visited, and whether it arrived.
struct Fate {
    visited: Vec<PopKey>,
    arrived: bool,
}

/// Carries a packet along `path` over links as they are *now*, while all relays but those next to a
/// failure still route as before it: each hop that finds its next link dead takes the detour.
fn carry(
    path: Path,
    policy: PolicyId,
    tables: &BTreeMap<PopKey, Arc<Tables>>,
    alive: impl Fn(PopKey, PopKey) -> bool,
) -> Fate {
    let mut at = path;
    let mut detours = 0;
    loop {
        let visited = at.pops()[..at.pops().len() - at.ahead().len()].to_vec();
        let Some(next) = at.next() else { return Fate { visited, arrived: true } };
        if alive(at.here(), next) {
            at = at.advanced().expect("there is a next");
            continue;
        }
        let detour =
            (detours < 3).then(|| tables.get(&at.here())?.detour(&at, policy, 0)).flatten();
        let Some(detour) = detour else { return Fate { visited, arrived: false } };
        assert!(detour.pops().len() <= MAX_DETOURED_PATH);
        assert!(detour.ahead().len() <= at.ahead().len() + MAX_INSERTED);
        assert_eq!((detour.here(), detour.last()), (at.here(), at.last()));
        at = detour;
        detours += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The policy `eu-only` holds on every packet's recorded path, through failures, detours and
    /// reroutes; nobody is visited twice; and where no allowed way is left there is no route.
    #[test]
    fn packets_stay_inside_their_policy_whatever_fails((mut world, killed, cut) in worlds()) {
        let policy = eu_only().id();
        let eu: Vec<PopKey> = NAMES[..4].iter().map(|name| key(name)).collect();
        let before: BTreeMap<PopKey, Arc<Tables>> =
            NAMES.iter().map(|name| (key(name), tables(&mut world, name, &[policy]))).collect();
        let dead = |pop: PopKey| killed.iter().any(|&at| key(NAMES[at]) == pop);
        let is_cut = |from: PopKey, to: PopKey| cut.iter().any(|&(a, b)| (key(NAMES[a]), key(NAMES[b])) == (from, to));
        let linked: std::collections::BTreeSet<(PopKey, PopKey)> =
            world.pops.iter().flat_map(|(from, pop)| pop.links.keys().map(move |to| (key(from), *to))).collect();
        let alive = |from, to| linked.contains(&(from, to)) && !dead(from) && !dead(to) && !is_cut(from, to);
        // Then everybody hears of it.
        for (from, pop) in &mut world.pops {
            let from = key(from);
            pop.links.values_mut().for_each(|link| link.up = alive(from, link.to));
        }
        let after: BTreeMap<PopKey, Arc<Tables>> =
            NAMES.iter().map(|name| (key(name), tables(&mut world, name, &[policy]))).collect();
        for own in NAMES {
            for to in NAMES.iter().filter(|to| **to != own) {
                for tables in [&before, &after] {
                    let Some(route) = tables[&key(own)].route(policy, key(to)) else { continue };
                    for way in [Some(&route.primary), route.backup.as_ref()].into_iter().flatten() {
                        let fate = carry(way.path, policy, tables, alive);
                        prop_assert!(fate.visited.iter().all(|pop| eu.contains(pop)), "{:?}", fate.visited);
                        prop_assert!(way.path.pops().iter().all(|pop| eu.contains(pop)));
                    }
                }
                if let Some(route) = after[&key(own)].route(policy, key(to)) {
                    prop_assert!(carry(route.primary.path, policy, &after, alive).arrived);
                }
                let reachable = reach(&linked, &eu, key(own), alive).contains(&key(to));
                prop_assert_eq!(after[&key(own)].route(policy, key(to)).is_some(), reachable);
            }
        }
    }

    /// If one relay or link fails and the hop before it has any other way of one relay more, the packet arrives.
    #[test]
    fn a_detour_is_found_where_one_relay_gets_around((mut world, killed, _) in worlds()) {
        let own = tables(&mut world, "fra", &[]);
        let linked = |from: &str, to: PopKey| world.pops[from].links.contains_key(&to);
        for to in &NAMES[1..] {
            let Some(route) = own.route(PolicyId::NONE, key(to)) else { continue };
            let path = route.primary.path;
            let (next, target) = match path.ahead() {
                [next] => (*next, *next),
                [next, after, ..] => (*next, *after),
                [] => continue,
            };
            let free = |name: &&&str| key(name) != next && !path.pops().contains(&key(name));
            let around = NAMES.iter().filter(free).find(|relay| linked("fra", key(relay)) && linked(relay, target));
            if let (Some(relay), false) = (around, killed.is_empty()) {
                let detour = own.detour(&path, PolicyId::NONE, 0);
                prop_assert!(detour.is_some(), "{:?} gets around {} on {:?}", relay, next, path);
                prop_assert!(detour.is_none_or(|d| d.next() != Some(next) && (next == target || !d.ahead().contains(&next))));
            }
        }
    }
}

/// Who can be reached over at most four links among `allowed`.
fn reach(
    linked: &std::collections::BTreeSet<(PopKey, PopKey)>,
    allowed: &[PopKey],
    from: PopKey,
    alive: impl Fn(PopKey, PopKey) -> bool,
) -> Vec<PopKey> {
    let mut reached = if allowed.contains(&from) { vec![from] } else { vec![] };
    for _ in 0..4 {
        let next = linked
            .iter()
            .filter(|(a, b)| reached.contains(a) && allowed.contains(b) && alive(*a, *b));
        let next: Vec<PopKey> = next.map(|(_, b)| *b).collect();
        reached.extend(next);
    }
    reached
}
