//! Who becomes whose neighbour: newcomers, restarts, namesakes, both dialling at once.

use tradewind_proto::units::Timestamp;
use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::{Overlay, RelaySpec, pop};

use crate::world::{delay, ms, secs};

const NAMES: [&str; 8] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];

fn mesh(seed: u64, names: &[&str], spec: &LinkSpec, everybody_is_a_peer: bool) -> Overlay {
    let mut overlay = Overlay::new(seed);
    for name in names {
        let others = names.iter().copied().filter(|other| other != name);
        let peers = if everybody_is_a_peer { names.len() } else { 1 };
        overlay.add(RelaySpec::new(pop(name)).dialling(others.take(peers)));
    }
    for (i, a) in names.iter().enumerate() {
        for b in &names[i + 1..] {
            overlay.link_both(a, b, spec);
        }
    }
    overlay
}

/// Whether the two hold each other by one and the same connection.
fn agree(overlay: &Overlay, a: &str, b: &str) -> bool {
    let conn = |at: &str, of: &str| {
        let neighbours = overlay.node(at)?.neighbours();
        Some(neighbours.get(pop(of).key())?.line.conn.0 / 2)
    };
    conn(a, b).is_some() && conn(a, b) == conn(b, a)
}

fn all_agree(overlay: &Overlay, names: &[&str]) -> bool {
    let mut pairs =
        names.iter().enumerate().flat_map(|(i, a)| names[i + 1..].iter().map(move |b| (a, b)));
    pairs.all(|(a, b)| agree(overlay, a, b))
}

fn joins(overlay: &Overlay, since: Timestamp) -> usize {
    use tradewind_relay::node::News;
    let news = overlay.news().iter();
    news.filter(|(at, _, news)| *at > since && matches!(news, News::Joined(..))).count()
}

#[test]
fn everybody_dials_everybody_at_once_and_each_pair_agrees_on_one_connection() {
    for (name, spec) in [
        ("clean", delay(20)),
        ("far", delay(150)),
        ("jitter", LinkSpec { jitter: ms(8), ..delay(40) }),
        ("loss", LinkSpec { loss: Loss::Independent(0.2), ..delay(40) }),
    ] {
        for seed in 0..8 {
            let mut overlay = mesh(seed, &NAMES[..5], &spec, true);
            overlay.start_all();
            overlay.run_for(secs(8));
            assert!(all_agree(&overlay, &NAMES[..5]), "{name}, seed {seed}");
            // And it stays so.
            let settled = overlay.now();
            overlay.run_for(secs(20));
            assert!(all_agree(&overlay, &NAMES[..5]), "{name}, seed {seed}");
            assert_eq!(joins(&overlay, settled), 0, "{name}, seed {seed}");
        }
    }
}

#[test]
fn a_newcomer_that_knows_one_member_becomes_everybodys_neighbour() {
    for seed in 0..10 {
        let mut overlay = mesh(seed, &NAMES, &delay(25), false);
        NAMES[..7].iter().for_each(|name| overlay.start(name));
        overlay.run_for(secs(6));
        assert!(all_agree(&overlay, &NAMES[..7]), "seed {seed}");
        overlay.start("p7");
        let took = overlay.run_while_not(secs(5), |overlay| all_agree(overlay, &NAMES));
        assert!(took.is_some_and(|took| took < ms(2500)), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_restarted_relay_replaces_its_former_self_at_once() {
    for seed in 0..10 {
        let mut overlay = mesh(seed, &NAMES[..5], &delay(20), false);
        overlay.start_all();
        overlay.run_for(secs(6));
        overlay.kill("p2");
        // Before and after the others have found out.
        overlay.run_for(ms(20 + seed * 400));
        let former = overlay.now();
        overlay.start("p2");
        let took = overlay.run_while_not(secs(6), |overlay| {
            let newest = overlay.node("p2").map(|node| node.incarnation());
            all_agree(overlay, &NAMES[..5])
                && NAMES[..5].iter().all(|name| {
                    let lsdb = overlay.node(name).map(|node| node.control().lsdb());
                    let member = lsdb.and_then(|lsdb| lsdb.member(pop("p2").key()));
                    member.map(|member| member.incarnation()) == newest
                })
        });
        assert!(took.is_some_and(|took| took < secs(3)), "seed {seed}: {took:?}");
        overlay.run_for(secs(30));
        assert!(all_agree(&overlay, &NAMES[..5]), "seed {seed}");
        assert!(joins(&overlay, former) >= 8, "seed {seed}");
    }
}

#[test]
fn of_two_relays_of_one_name_the_older_stops() {
    for seed in 0..10 {
        let mut overlay = mesh(seed, &NAMES[..4], &delay(20), false);
        let twin = RelaySpec { host: "twin".into(), ..RelaySpec::new(pop("p3")) };
        overlay.add(twin.dialling(["p0"]));
        for name in &NAMES[..4] {
            overlay.link_both(name, "twin", &delay(20));
        }
        NAMES[..4].iter().for_each(|name| overlay.start(name));
        overlay.run_for(secs(4) + ms(seed * 100));
        overlay.start("twin");
        overlay.run_for(secs(3));
        let stopped = overlay.stopped("p3").unwrap_or_else(|| panic!("seed {seed}"));
        assert!(stopped.contains("another relay named p3"), "{stopped}");
        assert!(overlay.node("p3").is_none() && overlay.node("twin").is_some());
        assert!(overlay.stopped("twin").is_none());
    }
}

#[test]
fn an_older_start_is_refused_by_all() {
    let mut overlay = mesh(1, &NAMES[..3], &delay(20), false);
    let mut late = RelaySpec { host: "late".into(), ..RelaySpec::new(pop("p2")) }.dialling(["p0"]);
    late.clock.offset_micros = -3_600_000_000;
    overlay.add(late);
    overlay.link_both("late", "p0", &delay(20));
    overlay.link_both("late", "p1", &delay(20));
    NAMES[..3].iter().for_each(|name| overlay.start(name));
    overlay.run_for(secs(4));
    overlay.start("late");
    overlay.run_for(secs(3));
    assert!(overlay.stopped("late").is_some_and(|why| why.contains("another relay named p2")));
    assert!(all_agree(&overlay, &NAMES[..3]));
    assert!(overlay.stopped("p2").is_none(), "{:?}", overlay.stopped("p2"));
    let key = pop("p2").key();
    let held = overlay.node("p0").unwrap().neighbours().get(key).unwrap().incarnation;
    assert_eq!(held, overlay.node("p2").unwrap().incarnation());
}

#[test]
fn a_relay_that_leaves_is_forgotten_at_once_and_its_connections_end() {
    let mut overlay = mesh(1, &NAMES[..4], &delay(20), false);
    overlay.start_all();
    overlay.run_for(secs(4));
    overlay.leave("p3");
    overlay.run_for(ms(200));
    assert!(overlay.node("p3").is_none());
    for name in &NAMES[..3] {
        let node = overlay.node(name).unwrap();
        assert!(node.neighbours().get(pop("p3").key()).is_none(), "{name}");
    }
}
