//! Every rule about which connection a neighbour is reached by.

use super::super::double::{at, colliding, id};
use super::*;

fn connected(conn: u64, peer: &PopId, dialled: bool) -> Connected {
    Connected {
        conn: ConnId(conn),
        peer: peer.clone(),
        dialled: dialled.then(|| "address:1".to_owned()),
        remote: "192.0.2.1:7400".into(),
        datagram: 1414,
        mtu: 1452,
    }
}

fn hello_of(peer: &PopId, incarnation: u64) -> Hello {
    let (id, incarnation) = (peer.clone(), Incarnation(incarnation));
    Hello { version: VERSION, id, incarnation, now: at(0), mtu: 1414 }
}

fn neighbours(own: &str) -> Neighbours {
    Neighbours::new(id(own), Incarnation(100), Recovery::Plan)
}

/// What a hello led to, with connections instead of lines.
#[derive(Debug, PartialEq, Eq)]
enum Joined {
    Neighbour { peer: PopKey, replaced: Vec<ConnId> },
    Candidate { replaced: Option<ConnId> },
}

fn hears(
    all: &mut Neighbours,
    conn: u64,
    hello: &Hello,
    now: Timestamp,
) -> Result<Joined, Refusal> {
    Ok(match all.handle_hello(ConnId(conn), hello, now)? {
        Welcome::Neighbour { peer, replaced } => {
            Joined::Neighbour { peer, replaced: replaced.iter().map(|line| line.conn).collect() }
        }
        Welcome::Candidate { replaced } => Joined::Candidate { replaced },
    })
}

/// A connection with its hello, both at `now`.
fn joins(
    neighbours: &mut Neighbours,
    (conn, peer, incarnation): (u64, &str, u64),
    dialled: bool,
    now: Timestamp,
) -> Result<Joined, Refusal> {
    neighbours.handle_connected(connected(conn, &id(peer), dialled), Cursor::default(), now)?;
    hears(neighbours, conn, &hello_of(&id(peer), incarnation), now)
}

fn welcome(peer: &str, replaced: &[u64]) -> Result<Joined, Refusal> {
    let replaced = replaced.iter().map(|conn| ConnId(*conn)).collect();
    Ok(Joined::Neighbour { peer: id(peer).key(), replaced })
}

fn candidate(replaced: Option<u64>) -> Result<Joined, Refusal> {
    Ok(Joined::Candidate { replaced: replaced.map(ConnId) })
}

fn in_use(neighbours: &Neighbours, peer: &str) -> Option<u64> {
    neighbours.get(id(peer).key()).map(|neighbour| neighbour.line.conn.0)
}

#[test]
fn a_newer_start_replaces_an_older_one_which_does_not_come_back() {
    let mut all = neighbours("fra");
    assert_eq!(joins(&mut all, (1, "sgp", 5), false, at(0)), welcome("sgp", &[]));
    assert_eq!(joins(&mut all, (2, "sgp", 6), false, at(10)), welcome("sgp", &[1]));
    assert_eq!(in_use(&all, "sgp"), Some(2));
    assert!(all.peer_of(ConnId(1)).is_none());
    let old = joins(&mut all, (3, "sgp", 5), false, at(20));
    assert_eq!(old, Err(Refusal::OldIncarnation { id: id("sgp"), got: 5, known: 6 }));
    assert_eq!(in_use(&all, "sgp"), Some(2), "the newer one stays");
}

#[test]
fn a_newer_start_replaces_a_candidate_too() {
    let mut all = neighbours("fra");
    joins(&mut all, (1, "sgp", 5), false, at(0)).unwrap();
    assert_eq!(joins(&mut all, (2, "sgp", 5), true, at(10)), candidate(None));
    assert_eq!(joins(&mut all, (3, "sgp", 6), false, at(20)), welcome("sgp", &[1, 2]));
    assert!(all.receiving(ConnId(2)).is_none());
}

#[test]
fn a_later_connection_of_the_same_start_replaces_the_former() {
    // The dialler found the former dead: whoever dialled that, and however young it is.
    for (dialled, after) in [(false, 10), (false, 2000)] {
        let mut all = neighbours("fra");
        joins(&mut all, (1, "sgp", 5), false, at(0)).unwrap();
        assert_eq!(joins(&mut all, (2, "sgp", 5), dialled, at(after)), welcome("sgp", &[1]));
    }
    let mut all = neighbours("fra");
    joins(&mut all, (1, "sgp", 5), false, at(0)).unwrap();
    assert_eq!(joins(&mut all, (2, "sgp", 5), true, at(2000)), welcome("sgp", &[1]));
}

#[test]
fn of_simultaneous_dials_the_one_by_the_smaller_name_stays_at_both_ends() {
    // Connection 1 is dialled by fra, 2 by sgp; hellos arrive in any order at either end.
    for fra_first in [1, 2] {
        for sgp_first in [1, 2] {
            let mut kept = Vec::new();
            for (own, peer, first) in [("fra", "sgp", fra_first), ("sgp", "fra", sgp_first)] {
                let mut all = neighbours(own);
                for conn in [first, 3 - first] {
                    let dialled = (conn == 1) == (own == "fra");
                    let joined = joins(&mut all, (conn, peer, 5), dialled, at(conn));
                    match (conn == first, conn) {
                        (true, _) => assert_eq!(joined, welcome(peer, &[])),
                        (false, 1) => assert_eq!(joined, candidate(None)),
                        (false, _) => assert_eq!(joined, Err(Refusal::Duplicate)),
                    }
                }
                // A first heartbeat on the one that stays.
                let (_, former) = all.receiving(ConnId(1)).expect("it is held");
                let former = former.map(|line| line.conn.0);
                assert_eq!(former, (first == 2).then_some(2), "{own} hears {first} first");
                kept.push(in_use(&all, peer));
            }
            assert_eq!(kept, [Some(1), Some(1)]);
        }
    }
}

#[test]
fn a_candidate_takes_over_when_the_line_in_use_ends_first() {
    let mut all = neighbours("fra");
    joins(&mut all, (2, "sgp", 5), false, at(0)).unwrap();
    assert_eq!(joins(&mut all, (1, "sgp", 5), true, at(10)), candidate(None));
    assert_eq!(in_use(&all, "sgp"), Some(2), "not before something came on it");
    let closed = all.handle_closed(ConnId(2));
    assert!(matches!(closed, Closed::Replaced(key, former)
        if key == id("sgp").key() && former.conn == ConnId(2)));
    assert_eq!(in_use(&all, "sgp"), Some(1));
    assert!(matches!(all.handle_closed(ConnId(1)), Closed::Lost(lost) if lost.id == id("sgp")));
    assert_eq!(in_use(&all, "sgp"), None);
}

#[test]
fn a_candidate_that_ends_leaves_the_line_in_use_alone() {
    let mut all = neighbours("fra");
    joins(&mut all, (2, "sgp", 5), false, at(0)).unwrap();
    joins(&mut all, (1, "sgp", 5), true, at(10)).unwrap();
    assert!(matches!(all.handle_closed(ConnId(1)), Closed::Nothing));
    assert!(all.receiving(ConnId(1)).is_none());
    assert_eq!(in_use(&all, "sgp"), Some(2));
}

#[test]
fn a_second_candidate_replaces_the_first_which_is_to_be_closed() {
    let mut all = neighbours("fra");
    joins(&mut all, (2, "sgp", 5), false, at(0)).unwrap();
    assert_eq!(joins(&mut all, (1, "sgp", 5), true, at(10)), candidate(None));
    assert_eq!(joins(&mut all, (3, "sgp", 5), true, at(20)), candidate(Some(1)));
    assert!(all.peer_of(ConnId(1)).is_none());
}

#[test]
fn the_end_of_a_connection_counts_once() {
    let mut all = neighbours("fra");
    joins(&mut all, (1, "sgp", 5), false, at(0)).unwrap();
    assert!(matches!(all.handle_closed(ConnId(1)), Closed::Lost(_)));
    assert!(matches!(all.handle_closed(ConnId(1)), Closed::Nothing));
    assert!(matches!(all.handle_closed(ConnId(9)), Closed::Nothing), "nobody's");
    assert!(all.receiving(ConnId(1)).is_none());
}

#[test]
fn a_hello_must_come_in_time_and_once() {
    let mut all = neighbours("fra");
    all.handle_connected(connected(1, &id("sgp"), false), Cursor::default(), at(0)).unwrap();
    assert_eq!(all.pending_peer(ConnId(1)), Some(&id("sgp")));
    assert!(all.expire(at(4999)).is_empty());
    let late: Vec<_> = all.expire(at(5000)).iter().map(|late| late.0).collect();
    assert_eq!(late, [ConnId(1)]);
    let late = hears(&mut all, 1, &hello_of(&id("sgp"), 5), at(5001));
    assert_eq!(late, Err(Refusal::OutOfOrder));
    joins(&mut all, (2, "sgp", 5), false, at(6000)).unwrap();
    let again = hears(&mut all, 2, &hello_of(&id("sgp"), 5), at(6001));
    assert_eq!(again, Err(Refusal::OutOfOrder));
    assert!(all.expire(at(60_000)).is_empty(), "a neighbour needs no other hello");
}

#[test]
fn hellos_that_prove_nothing_are_refused() {
    let (one, other) = colliding();
    let own = id("fra");
    let version = Hello { version: VERSION + 1, ..hello_of(&id("sgp"), 5) };
    let name = Refusal::Name { hello: id("nyc"), certificate: id("sgp") };
    let older = Refusal::OldIncarnation { id: own.clone(), got: 99, known: 100 };
    let cases = [
        (id("sgp"), version, Refusal::Version(VERSION + 1)),
        (id("sgp"), hello_of(&id("nyc"), 5), name),
        (own.clone(), hello_of(&own, 100), Refusal::Myself),
        (own.clone(), hello_of(&own, 99), older),
        (other.clone(), hello_of(&other, 5), Refusal::KeyCollision(one.clone(), other.clone())),
    ];
    for (peer, hello, refusal) in cases {
        let mut all = neighbours("fra");
        joins(&mut all, (1, one.as_str(), 5), false, at(0)).unwrap();
        all.handle_connected(connected(2, &peer, false), Cursor::default(), at(0)).unwrap();
        assert_eq!(hears(&mut all, 2, &hello, at(0)), Err(refusal));
        assert_eq!(all.iter().count(), 1);
        assert!(all.pending_peer(ConnId(2)).is_none() && all.peer_of(ConnId(2)).is_none());
    }
    let mut all = Neighbours::new(one.clone(), Incarnation(100), Recovery::Plan);
    let refused = joins(&mut all, (1, other.as_str(), 5), false, at(0));
    assert_eq!(refused, Err(Refusal::KeyCollision(one, other)), "with our own name");
}

#[test]
fn connections_without_a_hello_and_neighbours_are_bounded() {
    let mut all = neighbours("fra");
    let total = MAX_NEIGHBOURS as u64;
    for n in 0..total {
        joins(&mut all, (n, &format!("pop-{n}"), 5), false, at(0)).unwrap();
    }
    assert_eq!(joins(&mut all, (total, "sgp", 5), false, at(0)), Err(Refusal::TooMany));
    assert_eq!(joins(&mut all, (total + 1, "pop-7", 6), false, at(0)), welcome("pop-7", &[7]));
    for n in 0..MAX_PENDING as u64 {
        all.handle_connected(connected(10_000 + n, &id("sgp"), false), Cursor::default(), at(1))
            .unwrap();
    }
    let one_more =
        all.handle_connected(connected(20_000, &id("sgp"), false), Cursor::default(), at(1));
    assert_eq!(one_more, Err(Refusal::TooMany));
    assert_eq!(all.expire(at(5001)).len(), MAX_PENDING);
    all.handle_connected(connected(20_000, &id("sgp"), false), Cursor::default(), at(5001))
        .unwrap();
}

#[test]
fn a_link_that_stays_down_is_dialled_anew_and_told_once() {
    let mut all = neighbours("fra");
    joins(&mut all, (1, "sgp", 5), false, at(0)).unwrap();
    let neighbour = all.get_mut(id("sgp").key()).unwrap();
    for (liveness, when, news, redial) in [
        (Liveness::Up, 10, true, None),
        (Liveness::Suspect, 20, false, None),
        (Liveness::Up, 30, false, None),
        (Liveness::Down, 40, true, Some(1040)),
        (Liveness::Down, 50, false, Some(1040)),
        (Liveness::Up, 60, true, None),
    ] {
        assert_eq!(neighbour.note_liveness(liveness, at(when)), news, "{liveness:?} at {when}");
        assert_eq!(neighbour.redial_at(), redial.map(at), "{liveness:?} at {when}");
    }
}

#[test]
fn a_candidate_that_takes_over_begins_anew() {
    for by_datagram in [true, false] {
        let mut all = neighbours("fra");
        joins(&mut all, (2, "sgp", 5), false, at(0)).unwrap();
        let key = id("sgp").key();
        let neighbour = all.get_mut(key).unwrap();
        for (liveness, when) in [(Liveness::Up, 100), (Liveness::Down, 900)] {
            assert!(neighbour.note_liveness(liveness, at(when)));
        }
        joins(&mut all, (1, "sgp", 5), true, at(1_500)).unwrap();
        match by_datagram {
            true => assert!(all.receiving(ConnId(1)).is_some()),
            false => assert!(matches!(all.handle_closed(ConnId(2)), Closed::Replaced(..))),
        }
        let neighbour = all.get_mut(key).unwrap();
        assert_eq!(neighbour.redial_at(), None, "the link that was down is gone");
        assert_eq!(neighbour.heat(at(4_000)), Heat::Hot, "and this one is new");
        assert!(neighbour.note_liveness(Liveness::Up, at(1_600)), "it is up again: news");
    }
}

#[test]
fn a_neighbour_that_the_mesh_no_longer_wants_is_let_go_in_time() {
    for (dialled, expected) in [(true, true), (false, false)] {
        let mut all = neighbours("fra");
        joins(&mut all, (1, "sgp", 5), dialled, at(0)).unwrap();
        let neighbour = all.get_mut(id("sgp").key()).unwrap();
        assert!(!neighbour.is_unwanted(true, at(10_000)));
        assert!(!neighbour.is_unwanted(false, at(69_999)));
        neighbour.note_standby(at(70_000));
        assert!(!neighbour.is_unwanted(false, at(71_000)), "it is of use");
        assert!(!neighbour.is_unwanted(false, at(130_999)));
        assert_eq!(neighbour.is_unwanted(false, at(131_000)), expected);
    }
}

#[test]
fn links_are_hot_at_first_and_while_used_or_standing_by() {
    let mut all = neighbours("fra");
    joins(&mut all, (1, "sgp", 5), false, at(0)).unwrap();
    let path = Path::new(&[id("fra").key(), id("sgp").key()]).unwrap();
    let neighbour = all.get_mut(id("sgp").key()).unwrap();
    assert_eq!(neighbour.heat(at(2999)), Heat::Hot);
    assert_eq!(neighbour.heat(at(3000)), Heat::Cold);
    neighbour.note_use(path, PolicyId::NONE, at(4000));
    assert!(neighbour.used(at(8999)) && !neighbour.used(at(9000)));
    assert_eq!(neighbour.heat(at(8999)), Heat::Hot);
    neighbour.note_standby(at(9000));
    assert_eq!(neighbour.heat(at(13_999)), Heat::Hot);
    assert_eq!(neighbour.heat(at(14_000)), Heat::Cold);
}

#[test]
fn when_a_link_wants_to_be_woken_is_asked_again_once_it_may_have_changed() {
    let mut all = neighbours("fra");
    joins(&mut all, (1, "sgp", 5), false, at(0)).unwrap();
    joins(&mut all, (2, "sgp", 5), true, at(10)).unwrap();
    let sgp = id("sgp").key();
    let agrees = |all: &Neighbours| {
        let neighbour = all.get(sgp).unwrap();
        let asked = neighbour.poll_timeout();
        assert_eq!(asked, neighbour.poll_timeout());
        assert_eq!(asked, neighbour.line.link.poll_timeout());
        asked
    };
    let mut asked = vec![agrees(&all)];
    for millis in 1..100 {
        let link = &mut all.get_mut(sgp).unwrap().line.link;
        link.handle_timeout(at(millis));
        while link.poll_transmit(at(millis)).is_some() {}
        asked.push(agrees(&all));
    }
    for (_, neighbour) in all.iter_mut() {
        neighbour.line.link.set_heat(Heat::Cold, at(100));
    }
    asked.push(agrees(&all));
    all.receiving(ConnId(2)).unwrap();
    asked.push(agrees(&all));
    asked.dedup();
    assert!(asked.len() > 4, "{asked:?}");
}
