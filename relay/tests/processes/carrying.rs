//! UDP from a client at one relay reaches a service behind another, and answers come back.

use std::net::Ipv6Addr;

use tradewind_relay::api::types::Links;

use crate::harness::{Overlay, Setup};
use crate::traffic::{Echo, payload, receive, socket, tunnel};

/// Media packets, what fits a datagram and just doesn't, SRT's and Ethernet's sizes, and the
/// largest and smallest that UDP has.
const SIZES: [usize; 9] = [1, 160, 1_200, 1_316, 1_332, 1_472, 9_000, 65_507, 0];

#[test]
fn packets_and_answers_cross_four_relays_byte_for_byte() {
    let mut overlay = Overlay::new();
    let echo = Echo::listen("127.0.0.1:0");
    let listen = format!("127.0.0.1:{}", overlay.port());
    overlay.add("fra", Setup { edges: &tunnel(&listen, "echo"), ..Setup::default() });
    overlay.add("mad", Setup { peers: &["fra"], ..Setup::default() });
    overlay.add("nyc", Setup { peers: &["mad"], ..Setup::default() });
    overlay.add("sgp", Setup { peers: &["mad"], edges: &echo.service("echo"), ..Setup::default() });
    overlay.wait_ready(&["fra", "mad", "nyc", "sgp"]);
    overlay.wait_route("fra", "sgp");
    overlay.wait_service("fra", "echo");

    let clients = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    // Nothing was sent before: the first of these is packet 1 of its flow.
    for (round, size) in SIZES.into_iter().enumerate() {
        for (number, client) in clients.iter().enumerate() {
            let sent = payload(size, 2 * round + number);
            client.send_to(&sent, &listen).unwrap();
        }
        // Each gets its own bytes and nothing else, from the address that it sent to.
        for (number, client) in clients.iter().enumerate() {
            let (answer, from) =
                receive(client, &format!("the answer of {size} bytes to client {number}"));
            assert_eq!(from.to_string(), listen);
            assert!(answer == payload(size, 2 * round + number), "{size} bytes, {number}");
        }
    }

    let arrivals = echo.arrivals();
    assert_eq!(arrivals.len(), 2 * SIZES.len());
    let first = arrivals[0].from;
    let others: Vec<_> = arrivals.iter().map(|it| it.from).filter(|from| *from != first).collect();
    assert_eq!(others.len(), SIZES.len(), "two flows, two sockets at the egress");
    assert!(others.iter().all(|from| *from == others[0]), "{others:?}");
}

#[test]
fn relays_speak_ipv6_among_themselves_and_with_local_programs() {
    let mut overlay = Overlay::on(Ipv6Addr::LOCALHOST.into());
    let echo = Echo::listen("[::1]:0");
    let listen = format!("[::1]:{}", overlay.port());
    overlay.add("fra", Setup { edges: &tunnel(&listen, "echo"), ..Setup::default() });
    overlay.add("sgp", Setup { peers: &["fra"], edges: &echo.service("echo"), ..Setup::default() });
    overlay.wait_route("fra", "sgp");
    overlay.wait_service("fra", "echo");
    let client = socket("[::1]:0");
    for size in [160, 1_332, 9_000] {
        client.send_to(&payload(size, size), &listen).unwrap();
        let (answer, from) = receive(&client, &format!("the answer of {size} bytes"));
        assert_eq!(from.to_string(), listen);
        assert!(answer == payload(size, size), "{size} bytes");
    }
    let links = overlay.get::<Links>("sgp", "links").expect("the relay answers");
    assert_eq!(links.links[0].address, overlay.overlay_address("fra").to_string());
}

#[test]
fn each_port_of_a_range_leads_to_its_own() {
    let mut overlay = Overlay::new();
    // Services in a row: the ports of the block are.
    let [low, high] = [5_u16, 5].map(|count| {
        let ports: Vec<_> = (0..count).map(|_| overlay.port()).collect();
        let row = ports.windows(2).all(|pair| pair[1] == pair[0] + 1);
        assert!(row, "{ports:?} are not in a row");
        ports
    });
    let echoes: Vec<_> =
        high.iter().map(|port| Echo::listen(&format!("127.0.0.1:{port}"))).collect();
    let range = |ports: &[u16]| format!("127.0.0.1:{}-{}", ports[0], ports[ports.len() - 1]);
    let service = format!("[[service]]\nname = \"sfu\"\ntarget = \"{}\"\n", range(&high));
    overlay.add("a", Setup { edges: &tunnel(range(&low), "sfu"), ..Setup::default() });
    overlay.add("d", Setup { peers: &["a"], edges: &service, ..Setup::default() });
    overlay.wait_route("a", "d");
    overlay.wait_service("a", "sfu");

    let client = socket("127.0.0.1:0");
    for (seed, port) in low.iter().enumerate() {
        client.send_to(&payload(100 + seed, seed), ("127.0.0.1", *port)).unwrap();
        let (answer, from) = receive(&client, &format!("the answer from port {port}"));
        assert_eq!((answer, from.port()), (payload(100 + seed, seed), *port));
    }
    for (seed, echo) in echoes.iter().enumerate() {
        let arrivals = echo.arrivals();
        assert_eq!(arrivals.len(), 1, "port {seed} of the range");
        assert_eq!(arrivals[0].payload, payload(100 + seed, seed));
    }
}
