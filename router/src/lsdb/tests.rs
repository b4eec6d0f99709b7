use std::collections::BTreeSet;

use proptest::prelude::*;
use tradewind_proto::statement::{ClockCoordinate, LinkStatement, NodeState};

use super::*;
use crate::world::{NOON, World, id, insert, key, link, signed};

fn world() -> World {
    World::new(&[("fra", "sgp", 80.0), ("fra", "nyc", 40.0), ("nyc", "sgp", 110.0)])
}

fn delta(name: &str, base: u32, seq: u32, links: &[(&str, f64)]) -> Statement {
    let mut links: Vec<_> = links.iter().map(|&(to, delay_ms)| link(to, delay_ms)).collect();
    links.sort_by_key(|link| link.to);
    let body = Body::Delta { base, clock: ClockCoordinate::default(), links, removed: vec![] };
    Statement { origin: id(name), incarnation: Incarnation(1), seq, body }
}

fn restarted(statement: Statement) -> Statement {
    Statement { incarnation: Incarnation(2), seq: 1, ..statement }
}

#[test]
fn the_newer_statement_stays() {
    let mut world = world();
    let mut lsdb = world.lsdb("fra", NOON);
    let old = world.statement("sgp");
    let new = world.statement("sgp");
    let stale = |seq| Err(Rejected::Stale { origin: id("sgp"), seq });
    let unknown = |base| Err(Rejected::UnknownBase { origin: id("sgp"), base });
    let quiet = Ok(Change::default());
    let links = Ok(Change { links: true, ..Change::default() });
    let again = Ok(Change { restarted: true, node: true, ..Change::default() });
    let steps = [
        ("newer full", new.clone(), quiet.clone()),
        ("older full", old, stale(2)),
        ("the same again", new, stale(3)),
        ("delta", delta("sgp", 3, 4, &[("fra", 90.0)]), links),
        ("the same delta", delta("sgp", 3, 4, &[("fra", 95.0)]), stale(4)),
        ("delta that changes nothing", delta("sgp", 3, 5, &[("fra", 90.0)]), quiet),
        ("delta on an older base", delta("sgp", 2, 6, &[]), unknown(2)),
        ("delta on a newer base", delta("sgp", 6, 7, &[]), unknown(6)),
        (
            "restart",
            restarted(world.statement("sgp")),
            again.map(|change: Change| Change { links: true, ..change }),
        ),
        ("delta of the former start", delta("sgp", 3, 9, &[]), stale(9)),
    ];
    for (name, statement, result) in steps {
        assert_eq!(insert(&mut lsdb, statement, NOON), result, "{name}");
    }
}

#[test]
fn a_delta_replaces_joins_and_removes_links_of_its_base() {
    let mut world = world();
    let mut lsdb = world.lsdb("fra", NOON);
    let later = NOON + Duration::from_secs(5);
    let mut first = delta("sgp", 1, 2, &[("fra", 90.0), ("tyo", 30.0)]);
    if let Body::Delta { removed, .. } = &mut first.body {
        removed.push(key("nyc"));
    }
    let change = insert(&mut lsdb, first, later).unwrap();
    assert_eq!(change, Change { links: true, down: true, ..Change::default() });
    let delays = |lsdb: &Lsdb| -> BTreeMap<PopKey, i32> {
        let links = lsdb.member(key("sgp")).unwrap().links();
        links.map(|held| (held.statement.to, held.statement.delay_micros)).collect()
    };
    assert_eq!(delays(&lsdb), BTreeMap::from([(key("fra"), 90_000), (key("tyo"), 30_000)]));
    // Only the newest delta counts: what it does not name is as in the base.
    insert(&mut lsdb, delta("sgp", 1, 3, &[("tyo", 31.0)]), later).unwrap();
    let expected = [(key("fra"), 80_000), (key("tyo"), 31_000), (key("nyc"), 110_000)];
    assert_eq!(delays(&lsdb), BTreeMap::from(expected));
    let links = lsdb.member(key("sgp")).unwrap().links();
    let since = |to| links.clone().find(|held| held.statement.to == key(to)).unwrap().since;
    assert_eq!((since("fra"), since("nyc")), (NOON, later), "up all the time, and up again");
}

#[test]
fn the_clock_is_that_of_the_newest_statement() {
    let mut world = world();
    let mut lsdb = world.lsdb("fra", NOON);
    let mut newest = delta("sgp", 1, 2, &[]);
    let stated = ClockCoordinate { offset_micros: 7, ..ClockCoordinate::default() };
    if let Body::Delta { clock, .. } = &mut newest.body {
        *clock = stated;
    }
    let clock = |lsdb: &Lsdb| lsdb.member(key("sgp")).unwrap().clock();
    assert_ne!(clock(&lsdb), stated);
    insert(&mut lsdb, newest, NOON).unwrap();
    assert_eq!(clock(&lsdb), stated);
}

#[test]
fn a_link_that_goes_down_is_said_to() {
    let mut world = world();
    let mut lsdb = world.lsdb("fra", NOON);
    world.link("sgp", "nyc").up = false;
    assert!(world.say(&mut lsdb, "sgp", NOON).down);
    assert_eq!(world.say(&mut lsdb, "sgp", NOON), Change::default(), "down already");
    world.link("sgp", "nyc").up = true;
    assert_eq!(world.say(&mut lsdb, "sgp", NOON), Change { links: true, ..Change::default() });
}

#[test]
fn names_that_collide_in_packets_are_refused() {
    let (held, refused) = ("yiijsv", "ktodoe");
    assert_eq!(key(held), key(refused));
    let mut world = World::new(&[("fra", held, 1.0), ("fra", refused, 1.0)]);
    let mut lsdb = Lsdb::new(id("fra"));
    world.say(&mut lsdb, held, NOON);
    let statement = world.statement(refused);
    let error = Rejected::KeyCollision { held: id(held), refused: id(refused) };
    assert_eq!(insert(&mut lsdb, restarted(statement), NOON), Err(error));
}

#[test]
fn a_newer_start_under_our_own_name_is_told() {
    let mut world = world();
    let mut lsdb = world.lsdb("fra", NOON);
    let theirs = restarted(world.statement("fra"));
    let error = Rejected::OwnName { name: id("fra"), ours: Incarnation(1), theirs: Incarnation(2) };
    assert_eq!(insert(&mut lsdb, theirs, NOON), Err(error));
}

#[test]
fn members_are_bounded() {
    let mut lsdb = Lsdb::new(id("fra"));
    let mut world = World::default();
    let mut key_of = std::collections::BTreeSet::new();
    for name in (0..).map(|n| format!("pop-{n}")) {
        let statement = world.statement(&name);
        if lsdb.members().len() == MAX_MEMBERS && !key_of.contains(&key(&name)) {
            assert_eq!(
                insert(&mut lsdb, statement, NOON),
                Err(Rejected::Full { origin: id(&name) })
            );
            break;
        }
        key_of.insert(key(&name));
        insert(&mut lsdb, statement, NOON).ok();
    }
}

#[test]
fn the_silent_leave_and_are_not_brought_back_by_old_statements() {
    let mut world = world();
    let mut lsdb = world.lsdb("fra", NOON);
    let soon = NOON + SILENCE / 2;
    world.say(&mut lsdb, "nyc", soon);
    let last = delta("sgp", 1, 2, &[("fra", 81.0)]);
    insert(&mut lsdb, last, soon).unwrap();
    assert_eq!(lsdb.expire(NOON + SILENCE), [id("sgp")], "neither nyc nor ourselves");
    let held_elsewhere = Statement { seq: 1, ..world.statement("sgp") };
    assert!(matches!(insert(&mut lsdb, held_elsewhere, soon), Err(Rejected::Stale { .. })));
    let last = delta("sgp", 1, 2, &[]);
    assert!(matches!(insert(&mut lsdb, last, soon), Err(Rejected::Stale { .. })));
    let back = Statement { seq: 3, ..world.statement("sgp") };
    assert!(insert(&mut lsdb, back, soon).unwrap().joined);
}

/// Everything that `from` finds lacking at `to`, passed on; returns how many statements that took.
fn pass_on(
    from: &Lsdb,
    to: &mut Lsdb,
    cursor: &mut Cursor,
    theirs: &mut Cursor,
    said: &Said,
) -> usize {
    let missing = from.lacking(to.own().key(), &to.digest_since(theirs), cursor);
    for signed in &missing {
        let statement = said[&(signed.body().to_vec(), *signed.signature())].clone();
        let _ = to.insert(signed.clone(), Arc::new(statement), &Labels::default(), NOON);
    }
    missing.len()
}

type Said = BTreeMap<(Vec<u8>, [u8; 64]), Statement>;

/// What each holds, by origin.
fn held(lsdb: &Lsdb) -> Vec<(PopKey, u64, u32, u32)> {
    let numbers = |m: &Member| (m.key(), m.incarnation().0, m.full_seq(), m.newest_seq());
    lsdb.members().map(numbers).collect()
}

proptest! {
    #[test]
    fn two_that_exchange_digests_come_to_hold_the_same(
        steps in prop::collection::vec((0..3usize, any::<bool>(), any::<bool>(), any::<bool>()), 1..40),
    ) {
        let names = ["nyc", "sgp", "tyo"];
        let (mut a, mut b) = (Lsdb::new(id("fra")), Lsdb::new(id("lon")));
        let mut world = World::default();
        let mut bases = BTreeMap::new();
        let mut said = Said::new();
        // What a knows of b and was told by it, and the reverse.
        let [mut a_of_b, mut b_of_a, mut told_a, mut told_b] = [(); 4].map(|()| Cursor::default());
        let mut sent = 0;
        for (who, full, to_a, exchange) in &steps {
            let name = names[*who];
            let mut statement = world.statement(name);
            if let (Some(&base), false) = (bases.get(name), full) {
                statement = delta(name, base, statement.seq, &[]);
            } else {
                bases.insert(name, statement.seq);
            }
            let wrapped = signed(&statement);
            said.insert((wrapped.body().to_vec(), *wrapped.signature()), statement.clone());
            let _ = insert(if *to_a { &mut a } else { &mut b }, statement, NOON);
            if *exchange {
                sent += pass_on(&a, &mut b, &mut a_of_b, &mut told_a, &said);
                sent += pass_on(&b, &mut a, &mut b_of_a, &mut told_b, &said);
            }
        }
        for _ in 0..2 {
            sent += pass_on(&a, &mut b, &mut a_of_b, &mut told_a, &said);
            sent += pass_on(&b, &mut a, &mut b_of_a, &mut told_b, &said);
        }
        prop_assert_eq!(held(&a), held(&b));
        prop_assert!(sent <= 2 * steps.len(), "{} statements for {} steps", sent, steps.len());
        let quiet = pass_on(&a, &mut b, &mut a_of_b, &mut told_a, &said) + pass_on(&b, &mut a, &mut b_of_a, &mut told_b, &said);
        prop_assert_eq!(quiet, 0);
    }
}

#[test]
fn what_a_neighbour_sent_is_not_sent_back_and_digests_carry_only_changes() {
    let mut world = world();
    let mut lsdb = Lsdb::new(id("fra"));
    let mut cursor = Cursor::default();
    world.say(&mut lsdb, "fra", NOON);
    let from_neighbour = world.statement("sgp");
    cursor.heard(&from_neighbour);
    insert(&mut lsdb, from_neighbour, NOON).unwrap();
    let missing = lsdb.lacking(key("sgp"), &[], &mut cursor);
    assert_eq!(missing.iter().map(|m| m.body().to_vec()).collect::<Vec<_>>(), [b"fra".to_vec()]);
    assert_eq!(lsdb.digest_since(&mut cursor).len(), 2);
    assert_eq!(lsdb.digest_since(&mut cursor)[..], []);
    world.say(&mut lsdb, "sgp", NOON);
    assert_eq!(lsdb.digest_since(&mut cursor).len(), 1);
    assert_eq!(lsdb.digest_all().len(), 2);
}

#[test]
fn neighbours_that_were_told_the_same_share_a_digest_and_others_get_their_own() {
    let mut world = world();
    let mut lsdb = world.lsdb("fra", NOON);
    let [mut one, mut other, mut new] = [(); 3].map(|()| Cursor::default());
    [&mut one, &mut other].into_iter().for_each(|cursor| drop(lsdb.digest_since(cursor)));
    world.say(&mut lsdb, "sgp", NOON);
    let mut digests = lsdb.digests();
    let [one, other, new] = [&mut one, &mut other, &mut new].map(|cursor| digests.since(cursor));
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!((one.len(), new.len()), (1, 3));
}

/// What relays at the given places on a ring, each with links to the eight nearest on either side,
/// say to each other.
struct Ring {
    relays: Vec<Lsdb>,
    /// By relay and neighbour: what is known of it, and what it was told.
    cursors: BTreeMap<(usize, usize), [Cursor; 2]>,
    received: Vec<usize>,
}

impl Ring {
    const LEN: usize = 40;
    const REACH: usize = 8;

    fn name(at: usize) -> String {
        format!("r{at}")
    }

    fn neighbours(at: usize) -> impl Iterator<Item = usize> {
        let near = 1..=Self::REACH;
        near.flat_map(move |step| [(at + step) % Self::LEN, (at + Self::LEN - step) % Self::LEN])
    }

    /// All know all.
    fn new(world: &mut World) -> Self {
        for at in 0..Self::LEN {
            Self::neighbours(at)
                .for_each(|to| world.connect(&Self::name(at), link(&Self::name(to), 5.0)));
        }
        let relays: Vec<Lsdb> = (0..Self::LEN).map(|at| Lsdb::new(id(&Self::name(at)))).collect();
        let pairs = (0..Self::LEN).flat_map(|at| Self::neighbours(at).map(move |to| (at, to)));
        let cursors = pairs.map(|pair| (pair, Default::default())).collect();
        let mut ring = Self { relays, cursors, received: vec![0; Self::LEN] };
        for name in (0..Self::LEN).map(Self::name) {
            let statement = world.statement(&name);
            ring.relays.iter_mut().for_each(|lsdb| drop(insert(lsdb, statement.clone(), NOON)));
        }
        let none = BTreeSet::new();
        (0..3).for_each(|_| ring.exchange(&none, None));
        ring.received.fill(0);
        ring
    }

    /// `origin` says something; its neighbours hear it.
    fn say(&mut self, statement: &Statement, origin: usize) {
        insert(&mut self.relays[origin], statement.clone(), NOON).unwrap();
        for to in Self::neighbours(origin) {
            self.cursors.get_mut(&(origin, to)).unwrap()[0].heard(statement);
            self.hear(statement, origin, to);
        }
    }

    fn hear(&mut self, statement: &Statement, from: usize, to: usize) {
        self.received[to] += 1;
        self.cursors.get_mut(&(to, from)).unwrap()[0].heard(statement);
        let _ = insert(&mut self.relays[to], statement.clone(), NOON);
    }

    /// All tell their digests at once; what is lacking is passed on, but not by those that are `mute`.
    fn exchange(&mut self, mute: &BTreeSet<usize>, statement: Option<&Statement>) {
        let tell = |(&(from, to), [_, told]): (&(usize, usize), &mut [Cursor; 2])| {
            ((from, to), self.relays[from].digest_since(told))
        };
        let digests: Vec<_> = self.cursors.iter_mut().map(tell).collect();
        let mut passed_on = Vec::new();
        for ((from, to), digest) in digests {
            let [known, _] = self.cursors.get_mut(&(to, from)).unwrap();
            let lacking = self.relays[to].lacking(key(&Self::name(from)), &digest, known);
            passed_on.extend(
                (!mute.contains(&to)).then_some(lacking).into_iter().flatten().map(|_| (to, from)),
            );
        }
        for (from, to) in passed_on {
            self.hear(statement.expect("all know all"), from, to);
        }
    }

    fn lacks(&self, statement: &Statement) -> usize {
        let newest = |lsdb: &&Lsdb| lsdb.member(statement.origin.key()).unwrap().newest_seq();
        self.relays.iter().filter(|lsdb| newest(lsdb) < statement.seq).count()
    }
}

#[test]
fn in_a_mesh_two_neighbours_pass_on_what_a_relay_lacks_and_the_others_only_if_it_still_does() {
    let mut world = World::default();
    let mut ring = Ring::new(&mut world);
    let statement = world.statement("r0");
    ring.say(&statement, 0);
    // Those two hops away have it at once; of the last ones nobody near heard it from the origin, so
    // it may take them an exchange more.
    ring.exchange(&BTreeSet::new(), Some(&statement));
    assert_eq!(ring.lacks(&statement), 7);
    (0..2).for_each(|_| ring.exchange(&BTreeSet::new(), Some(&statement)));
    assert_eq!(ring.lacks(&statement), 0);
    (0..2).for_each(|_| ring.exchange(&BTreeSet::new(), Some(&statement)));
    // Two hops away two pass it on, of up to fifteen that could.
    let two_hops = (9..=16).chain(24..=31);
    assert!(two_hops.clone().all(|at| ring.received[at] <= 2), "{:?}", ring.received);
    assert!(ring.received.iter().all(|times| *times <= 8), "{:?}", ring.received);

    // Most of those who should pass it on do not.
    let statement = world.statement("r0");
    ring.say(&statement, 0);
    let mute: BTreeSet<usize> = (2..=8).chain(32..=38).collect();
    (0..8).for_each(|_| ring.exchange(&mute, Some(&statement)));
    assert_eq!(ring.lacks(&statement), 0);
}

proptest! {
    #[test]
    fn links_are_those_of_the_base_with_changes_and_without_the_removed(
        base in prop::collection::btree_map(0..12u32, 1..90u32, 0..10),
        changes in prop::collection::btree_map(0..12u32, 1..90u32, 0..10),
        removed in prop::collection::btree_set(0..12u32, 0..4),
    ) {
        let links = |of: &BTreeMap<u32, u32>| -> Vec<_> {
            let of = of.iter().map(|(&to, &delay)| (PopKey(to), delay as i32));
            of.map(|(to, delay_micros)| LinkStatement { to, delay_micros, ..link("x", 1.0) }).collect()
        };
        let statement = |seq, body| {
            Arc::new(Statement { origin: id("fra"), incarnation: Incarnation(1), seq, body })
        };
        let state = NodeState { links: links(&base), ..NodeState::default() };
        let full = Stated::full(statement(1, Body::Full(state))).unwrap();
        let gone = removed.iter().copied().map(PopKey).collect();
        let clock = ClockCoordinate::default();
        let delta = |base| Body::Delta { base, clock, links: links(&changes), removed: gone };
        let stated = full.followed_by(statement(2, delta(1))).unwrap();
        let mut expected = base.clone();
        expected.extend(&changes);
        expected.retain(|to, _| !removed.contains(to));
        prop_assert_eq!(stated.links().copied().collect::<Vec<_>>(), links(&expected));
        for to in 0..12 {
            let delay = stated.link(PopKey(to)).map(|link| link.delay_micros as u32);
            prop_assert_eq!(delay, expected.get(&to).copied());
        }
    }
}

/// Whose statements are passed on is remembered, but not once links lead elsewhere.
#[test]
fn who_passes_on_is_looked_at_anew_when_links_come_or_go() {
    let mut world = World::new(&[("fra", "sgp", 5.0), ("fra", "nyc", 5.0)]);
    let mut lsdb = world.lsdb("fra", NOON);
    let mut cursor = Cursor::default();
    let all = lsdb.digest_all();
    lsdb.lacking(key("sgp"), &all, &mut cursor);
    for (linked, passed_on) in [(false, 1), (true, 0)] {
        if linked {
            world.connect("sgp", link("nyc", 5.0));
        }
        let said = world.statement("sgp");
        cursor.heard(&said);
        insert(&mut lsdb, said, NOON).unwrap();
        world.say(&mut lsdb, "nyc", NOON);
        assert_eq!(lsdb.lacking(key("sgp"), &[], &mut cursor).len(), passed_on, "{linked}");
    }
}
