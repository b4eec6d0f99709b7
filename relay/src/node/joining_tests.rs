//! A node against a scripted other end: what it does with connections, hellos and goodbyes.

use tradewind_proto::control::{Hello, VERSION};

use super::double::{Papers, START, at, colliding, id, key};
use super::neighbour::{Connected, Refusal};
use super::*;

const US: u64 = START;
const CONN: ConnId = ConnId(1);

fn node(name: &str, peers: &[&str]) -> Node<Papers> {
    let config = NodeConfig {
        id: id(name),
        incarnation: Incarnation(US),
        description: SelfDescription::default(),
        peers: peers.iter().map(ToString::to_string).collect(),
        mesh: Mesh::Auto,
        limits: EdgeLimits::default(),
        recovery: Recovery::Plan,
        metric: Metric::default(),
    };
    Node::new(config, Papers::of(&id(name)), at(0))
}

fn connected(conn: ConnId, peer: &PopId, dialled: Option<&str>) -> Connected {
    Connected {
        conn,
        peer: peer.clone(),
        dialled: dialled.map(str::to_owned),
        remote: "192.0.2.1:7400".into(),
        datagram: 1414,
        mtu: 1452,
    }
}

fn hello(peer: &PopId, incarnation: u64) -> Message {
    let (id, incarnation) = (peer.clone(), Incarnation(incarnation));
    Message::Hello(Hello { version: VERSION, id, incarnation, now: at(0), mtu: 1414 })
}

/// All that the node wants; what it wants closed ends at once, as the daemon does it.
fn outputs(node: &mut Node<Papers>, now: Timestamp) -> Vec<Output> {
    let mut all = Vec::new();
    while let Some(output) = node.poll_output(now) {
        if let Output::Close(conn, reason) = &output {
            node.handle_closed(*conn, reason, now);
        }
        all.push(output);
    }
    all
}

/// Runs the node's timers up to `until`: what it wanted, and when.
fn run(node: &mut Node<Papers>, until: Timestamp) -> Vec<(Timestamp, Output)> {
    let mut all = Vec::new();
    for _ in 0..100_000 {
        let now = node.poll_timeout();
        if now > until {
            return all;
        }
        node.handle_timeout(now);
        all.extend(outputs(node, now).into_iter().map(|output| (now, output)));
    }
    panic!("its timers never come to rest");
}

fn dials(outputs: &[(Timestamp, Output)]) -> Vec<u64> {
    let dials = outputs.iter().filter(|(_, output)| matches!(output, Output::Dial(_)));
    dials.map(|(when, _)| when.as_micros() / 1000 - START).collect()
}

fn closed(outputs: &[Output]) -> Vec<(ConnId, &str)> {
    let closed = outputs.iter().filter_map(|output| match output {
        Output::Close(conn, reason) => Some((*conn, reason.as_str())),
        _ => None,
    });
    closed.collect()
}

/// A node that accepted a connection from `peer` and had its hello.
fn with_neighbour(peer: &PopId) -> Node<Papers> {
    let mut node = node("fra", &[]);
    node.handle_connected(connected(CONN, peer, None), at(0));
    node.handle_message(CONN, hello(peer, 1), at(0));
    outputs(&mut node, at(0));
    assert!(node.neighbours().get(peer.key()).is_some());
    node
}

#[test]
fn a_new_connection_brings_hello_statement_and_digest_at_once() {
    for dialled in [None, Some("b:1")] {
        let mut node = node("fra", &[]);
        node.handle_connected(connected(CONN, &id("sgp"), dialled), at(0));
        let told: Vec<_> = outputs(&mut node, at(0))
            .into_iter()
            .filter_map(|output| match output {
                Output::Message(CONN, message) => Some(message),
                _ => None,
            })
            .collect();
        let introduced =
            matches!(&told[..], [Message::Hello(_), Message::Statement(_), Message::Digest(_)]);
        assert!(introduced, "{told:?}");
    }
}

#[test]
fn nobody_is_dialled_again_while_the_hello_is_awaited() {
    let mut node = node("fra", &["b:1"]);
    assert_eq!(dials(&run(&mut node, at(50))), [0]);
    node.handle_connected(connected(CONN, &id("sgp"), Some("b:1")), at(60));
    assert!(dials(&run(&mut node, at(400))).is_empty());
    node.handle_message(CONN, hello(&id("sgp"), 1), at(400));
    assert!(dials(&run(&mut node, at(700))).is_empty());
    assert!(node.neighbours().get(key("sgp")).is_some());
}

#[test]
fn a_peer_that_refuses_us_is_dialled_again_with_growing_pauses() {
    let mut node = node("fra", &["b:1"]);
    let (mut waits, mut last) = (Vec::new(), at(0));
    assert_eq!(dials(&run(&mut node, at(0))), [0]);
    for n in 0..5 {
        let conn = ConnId(n);
        node.handle_connected(connected(conn, &id("sgp"), Some("b:1")), last);
        node.handle_closed(conn, "refused", last);
        let dialled = run(&mut node, last + Duration::from_secs(1));
        let when = at(dials(&dialled)[0]);
        assert_eq!(dials(&dialled).len(), 1);
        waits.push(when.since(last).as_millis());
        last = when;
    }
    assert_eq!(waits, [250, 500, 1000, 1000, 1000]);
}

#[test]
fn a_peer_that_ends_connections_after_its_hello_is_dialled_with_growing_pauses() {
    let mut node = node("fra", &["b:1"]);
    let (mut waits, mut last) = (Vec::new(), at(0));
    assert_eq!(dials(&run(&mut node, at(0))), [0]);
    for n in 0..4 {
        let conn = ConnId(n);
        node.handle_connected(connected(conn, &id("sgp"), Some("b:1")), last);
        node.handle_message(conn, hello(&id("sgp"), 1), last);
        node.handle_closed(conn, "refused", last);
        let when = at(dials(&run(&mut node, last + Duration::from_secs(1)))[0]);
        waits.push(when.since(last).as_millis());
        last = when;
    }
    assert_eq!(waits, [250, 500, 1000, 1000]);
}

#[test]
fn messages_before_the_hello_end_the_connection() {
    let sgp = Papers::of(&id("sgp"));
    for message in [Message::Statement(sgp.full(1, 1, vec![])), Message::Digest([].into())] {
        let mut node = node("fra", &[]);
        node.handle_connected(connected(CONN, &sgp.id, None), at(0));
        node.handle_message(CONN, message, at(0));
        let outputs = outputs(&mut node, at(0));
        assert_eq!(closed(&outputs), [(CONN, "it broke the order of messages")]);
        assert!(node.control().lsdb().member(key("sgp")).is_none());
        assert!(node.neighbours().pending_peer(CONN).is_none());
    }
}

#[test]
fn a_second_hello_ends_the_connection() {
    let mut node = with_neighbour(&id("sgp"));
    node.handle_message(CONN, hello(&id("sgp"), 1), at(10));
    let outputs = outputs(&mut node, at(10));
    assert_eq!(closed(&outputs), [(CONN, "it broke the order of messages")]);
    assert!(node.neighbours().get(key("sgp")).is_none());
}

#[test]
fn a_goodbye_ends_the_connection_once() {
    let lost = |outputs: &[Output]| {
        outputs.iter().filter(|o| matches!(o, Output::News(News::Lost(..)))).count()
    };
    let mut node = with_neighbour(&id("sgp"));
    node.handle_message(CONN, Message::Bye, at(10));
    let first = outputs(&mut node, at(10));
    assert_eq!((closed(&first), lost(&first)), (vec![(CONN, "it leaves")], 1));
    node.handle_closed(CONN, "closed by peer", at(20));
    assert_eq!(lost(&outputs(&mut node, at(20))), 0);
    assert!(node.neighbours().get(key("sgp")).is_none());
}

#[test]
fn a_goodbye_without_a_hello_ends_the_connection() {
    let mut node = node("fra", &[]);
    node.handle_connected(connected(CONN, &id("sgp"), None), at(0));
    node.handle_message(CONN, Message::Bye, at(0));
    assert_eq!(closed(&outputs(&mut node, at(0))), [(CONN, "it leaves")]);
}

#[test]
fn a_connection_without_a_hello_is_given_up() {
    let mut node = node("fra", &["b:1"]);
    run(&mut node, at(0));
    node.handle_connected(connected(CONN, &id("sgp"), Some("b:1")), at(100));
    let outputs = run(&mut node, at(6500));
    let closed = outputs.iter().find(|(_, output)| matches!(output, Output::Close(CONN, _)));
    let when = closed.expect("it is closed").0;
    assert!((at(5100)..=at(6100)).contains(&when), "{when:?}");
    assert!(dials(&outputs)[0] >= 5350, "dialled again, but not before: {:?}", dials(&outputs));
}

#[test]
fn a_name_that_collides_with_a_member_elsewhere_is_refused() {
    let (one, other) = colliding();
    let mut node = with_neighbour(&id("sgp"));
    let statement = Message::Statement(Papers::of(&one).full(1, 1, vec![]));
    node.handle_message(CONN, statement, at(10));
    assert!(node.control().lsdb().member(one.key()).is_some());
    node.handle_connected(connected(ConnId(2), &other, None), at(20));
    node.handle_message(ConnId(2), hello(&other, 5), at(20));
    let refusal = Refusal::KeyCollision(one, other);
    assert_eq!(closed(&outputs(&mut node, at(20))), [(ConnId(2), refusal.to_string().as_str())]);
}

#[test]
fn an_older_start_of_a_member_elsewhere_is_refused() {
    let nyc = Papers::of(&id("nyc"));
    let mut node = with_neighbour(&id("sgp"));
    node.handle_message(CONN, Message::Statement(nyc.full(9, 1, vec![])), at(10));
    for (conn, incarnation, welcome) in [(2, 8, false), (3, 9, true)] {
        node.handle_connected(connected(ConnId(conn), &nyc.id, None), at(20));
        node.handle_message(ConnId(conn), hello(&nyc.id, incarnation), at(20));
        outputs(&mut node, at(20));
        assert_eq!(node.neighbours().get(key("nyc")).is_some(), welcome, "{incarnation}");
    }
}

#[test]
fn a_clock_far_off_is_no_reason_to_fail() {
    for now in [0, 1, (START + 86_400_000_000) * 1000, u64::MAX / 2, u64::MAX] {
        let mut node = node("fra", &[]);
        let (id, incarnation, now) = (id("sgp"), Incarnation(1), Timestamp::from_micros(now));
        node.handle_connected(connected(CONN, &id, None), at(0));
        let hello = Hello { version: VERSION, id, incarnation, now, mtu: 1414 };
        node.handle_message(CONN, Message::Hello(hello), at(0));
        run(&mut node, at(500));
        assert!(node.neighbours().get(key("sgp")).is_some());
    }
}

#[test]
fn a_later_start_of_our_name_stops_us_and_an_older_one_is_refused() {
    for (incarnation, stops) in [(US + 1, true), (US, false), (US - 1, false)] {
        let mut node = node("fra", &[]);
        node.handle_connected(connected(CONN, &id("fra"), None), at(0));
        node.handle_message(CONN, hello(&id("fra"), incarnation), at(0));
        let mut outputs = outputs(&mut node, at(0));
        // An older start is given a moment to read why.
        outputs.extend(run(&mut node, at(2500)).into_iter().map(|(_, output)| output));
        assert_eq!(outputs.iter().any(|output| matches!(output, Output::Stop(_))), stops);
        assert_eq!(closed(&outputs).is_empty(), stops);
    }
}

#[test]
fn our_own_address_is_dialled_once() {
    let mut node = node("fra", &["a:1"]);
    run(&mut node, at(0));
    node.handle_connected(connected(CONN, &id("fra"), Some("a:1")), at(5));
    node.handle_message(CONN, hello(&id("fra"), US), at(5));
    let outputs = run(&mut node, at(20_000));
    assert!(dials(&outputs).is_empty());
}

#[test]
fn undefined_policies_in_packets_cost_no_computation() {
    let mut node = with_neighbour(&id("sgp"));
    run(&mut node, at(100));
    let before = node.control().counters().computations;
    for number in 0..1000 {
        node.want_policy(PolicyId(number + 1), at(100));
    }
    assert_eq!(node.control().counters().computations, before);
    let undefined = node.control().router().unknown_policies().count();
    assert!(undefined < 64, "{undefined} of them take room");
}
