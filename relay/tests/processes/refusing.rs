//! Who does not belong to the overlay, or speaks wrongly in it, is refused, and all else goes on.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, SendStream};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tradewind_proto::control::{Hello, Message, VERSION};
use tradewind_proto::units::{Incarnation, Timestamp};
use tradewind_relay::identity::{Identity, Issuer, Labels, SERVER_NAME, Subject};

use crate::harness::{Overlay, PATIENCE, Setup, wait_for};
use crate::traffic::{Echo, payload, receive, socket, tunnel};

const REFUSED: &str = "tradewind_connections_refused_total";

/// Two relays, a with a tunnel at the address returned, d with the echo service.
fn pair(echo: &Echo) -> (Overlay, String) {
    let mut overlay = Overlay::new();
    let listen = format!("127.0.0.1:{}", overlay.port());
    overlay.add("a", Setup { edges: &tunnel(&listen, "echo"), ..Setup::default() });
    overlay.add("d", Setup { peers: &["a"], edges: &echo.service("echo"), ..Setup::default() });
    overlay.wait_route("a", "d");
    overlay.wait_service("a", "echo");
    (overlay, listen)
}

#[track_caller]
fn assert_carries(listen: &str) {
    let client = socket("127.0.0.1:0");
    client.send_to(&payload(160, 5), listen).unwrap();
    assert_eq!(receive(&client, "the answer of 160 bytes").0, payload(160, 5));
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The identity `id` of an overlay, as it was in force at `unix_seconds`.
fn identity(overlay: &Overlay, id: &str, unix_seconds: u64) -> Identity {
    let read = |name: &str| fs::read(overlay.directory().join(name)).unwrap();
    let [cert, key] = ["pem", "key"].map(|kind| read(&format!("{id}.{kind}")));
    Identity::from_pem(&read("ca.pem"), &cert, &key, unix_seconds).unwrap()
}

fn hello(id: &str, incarnation: u64) -> Hello {
    Hello {
        version: VERSION,
        id: id.parse().unwrap(),
        incarnation: Incarnation(incarnation),
        now: Timestamp::from_micros(unix_seconds() * 1_000_000),
        mtu: 1452,
    }
}

fn bytes(message: &Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    bytes
}

/// Dials a relay as somebody else would, says `words` on the control stream, does `then`, and
/// returns why the relay closed the connection.
fn speak(
    to: SocketAddr,
    identity: &Identity,
    words: &[u8],
    then: impl AsyncFnOnce(&Connection, &mut SendStream),
) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let conversation = async {
        let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let tls = QuicClientConfig::try_from(identity.client_config().unwrap()).unwrap();
        let config = ClientConfig::new(Arc::new(tls));
        let connection = endpoint.connect_with(config, to, SERVER_NAME).unwrap();
        let connection = match connection.await {
            Ok(connection) => connection,
            Err(error) => return error.to_string(),
        };
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(words).await.unwrap();
        then(&connection, &mut send).await;
        connection.closed().await.to_string()
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, conversation).await }).unwrap()
}

#[test]
fn a_relay_of_another_ca_is_refused() {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = pair(&echo);
    let mut strangers = Overlay::on(Ipv4Addr::new(127, 0, 0, 2).into());
    let address = overlay.overlay_address("a").to_string();
    strangers.add("x", Setup { peers: &[&address], ..Setup::default() });
    overlay.wait_for_log("a", "refused a connection from 127.0.0.2: ");
    assert!(overlay.log("a").contains("it is from another CA"));
    assert!(overlay.metric("a", REFUSED, "") > 0.0);
    strangers.wait_for_log("x", "it is from another CA");
    assert!(strangers.metric("x", REFUSED, "") > 0.0, "the one that dials counts it, too");
    let ready = strangers.ask("x", &["status"]);
    let ready = String::from_utf8_lossy(&ready.stdout);
    assert!(ready.contains("not ready: no link to another relay is up yet"), "{ready}");
    assert_carries(&listen);
}

#[test]
fn an_expired_certificate_is_refused() {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = pair(&echo);
    let (now, day) = (unix_seconds(), 86_400);
    let subject =
        Subject { id: "late".parse().unwrap(), labels: Labels::default(), services: None };
    let issuer = Issuer::load(overlay.directory()).unwrap();
    let issued = issuer.issue(&subject, now - 5 * day, 2).unwrap();
    fs::write(overlay.directory().join("late.pem"), issued.certificate).unwrap();
    fs::write(overlay.directory().join("late.key"), issued.key).unwrap();

    // The relay itself doesn't start with it.
    let config = overlay.configure("late", Setup { peers: &["a"], ..Setup::default() });
    let start = overlay.run(&["relay", "--config", config.to_str().unwrap()]);
    assert_eq!(start.status.code(), Some(2), "{start:?}");
    assert!(String::from_utf8_lossy(&start.stderr).contains("expired 3 day(s) ago"), "{start:?}");

    // Nor do others talk with one that does.
    let late = identity(&overlay, "late", now - 4 * day);
    let why = speak(overlay.overlay_address("a"), &late, &bytes(&Message::Bye), async |_, _| ());
    assert!(why.contains("it expired 3 day(s) ago"), "{why}");
    overlay.wait_for_log("a", "it expired 3 day(s) ago");
    assert!(overlay.metric("a", REFUSED, "") > 0.0);
    assert_carries(&listen);
}

#[test]
fn hellos_that_lie_are_refused() {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = pair(&echo);
    let to = overlay.overlay_address("a");
    overlay.certify("e", &[]);
    let [e, d] = ["e", "d"].map(|id| identity(&overlay, id, unix_seconds()));
    let later = unix_seconds() * 2_000;
    let newer = Hello { version: 99, ..hello("e", later) };
    for (what, identity, hello, why) in [
        ("name", &e, hello("d", later), "it calls itself d, but its certificate is for e"),
        ("incarnation", &d, hello("d", 1), "it is an older start (1) of d"),
        ("version", &e, newer, "it speaks protocol version 99"),
    ] {
        let before = overlay.metric("a", REFUSED, "");
        let closed = speak(to, identity, &bytes(&Message::Hello(hello)), async |_, _| ());
        assert!(closed.contains(why), "{what}: {closed}");
        wait_for(&format!("{what}: counted"), || overlay.metric("a", REFUSED, "") > before);
    }
    for why in ["it calls itself d", "it is an older start (1) of d"] {
        assert!(overlay.log("a").contains(why), "{why}");
    }
    assert_carries(&listen);
}

#[test]
fn the_older_of_two_relays_with_one_name_stops() {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = pair(&echo);
    let twin = Setup { id: Some("d"), peers: &["a"], ..Setup::default() };
    overlay.configure("twin", Setup { edges: &echo.service("echo"), ..twin });
    overlay.start("twin");
    let status = overlay.wait_end("d");
    assert_eq!(status.code(), Some(1));
    let log = overlay.log("d");
    assert!(log.contains("tradewind: another relay named d was started later"), "{log}");
    wait_for("a reaches the newer one", || overlay.link_state("a", "d") == "up");
    assert_carries(&listen);
    assert!(overlay.runs("twin"));
}

#[test]
fn garbage_stops_nobody() {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = pair(&echo);
    assert_carries(&listen);
    let egress = echo.arrivals()[0].from;
    let mut random = SmallRng::seed_from_u64(1);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let targets = [overlay.overlay_address("a"), overlay.overlay_address("d"), egress];
    for _ in 0..3_000 {
        let mut garbage = vec![0; random.random_range(0..1_500)];
        random.fill_bytes(&mut garbage);
        for target in targets {
            // Refusals of earlier ones are of no interest.
            let _ = stranger.send_to(&garbage, target);
        }
    }
    // A tunnel takes anything: it arrives as it is.
    let mut garbage = vec![0; 700];
    random.fill_bytes(&mut garbage);
    let client = socket("127.0.0.1:0");
    client.send_to(&garbage, &listen).unwrap();
    assert_eq!(receive(&client, "the answer of random bytes").0, garbage);
    assert!(overlay.runs("a") && overlay.runs("d"));
}

#[test]
fn garbage_from_a_member_is_counted_and_its_connection_closed() {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = pair(&echo);
    let to = overlay.overlay_address("a");
    overlay.certify("e", &[]);
    let member = identity(&overlay, "e", unix_seconds());
    let greeting = bytes(&Message::Hello(hello("e", unix_seconds() * 1_000)));

    let mut random = SmallRng::seed_from_u64(2);
    let closed = speak(to, &member, &greeting, async |connection, _| {
        for _ in 0..500 {
            let mut garbage = vec![0; random.random_range(1..1_000)];
            random.fill_bytes(&mut garbage);
            connection.send_datagram(garbage.into()).unwrap();
        }
        let start = tokio::time::Instant::now();
        let counted =
            || overlay.metric("a", "tradewind_link_malformed_received_total", "\"e\"") > 0.0;
        while start.elapsed() < PATIENCE && !counted() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(counted());
        connection.close(0u32.into(), b"");
    });
    assert_eq!(closed, "closed");

    let before = overlay.metric("a", REFUSED, "");
    let closed = speak(to, &member, &[&greeting[..], &[0xff; 64]].concat(), async |_, _| ());
    assert!(closed.contains("a control message can't be read"), "{closed}");
    wait_for("it is counted", || overlay.metric("a", REFUSED, "") > before);
    overlay.wait_for_log("a", "a control message can't be read");
    assert_carries(&listen);
}

#[test]
fn a_member_that_ends_its_control_stream_is_let_go() {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = pair(&echo);
    let to = overlay.overlay_address("a");
    overlay.certify("e", &[]);
    let member = identity(&overlay, "e", unix_seconds());
    let later = unix_seconds() * 1_000;
    for (what, start) in [("finished", later), ("reset", later + 1)] {
        let before = overlay.metric("a", REFUSED, "");
        let greeting = bytes(&Message::Hello(hello("e", start)));
        let closed = speak(to, &member, &greeting, async |_, stream| {
            while overlay.link_state("a", "e").is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            match what {
                "finished" => stream.finish().unwrap(),
                _ => stream.reset(0u32.into()).unwrap(),
            }
        });
        assert!(closed.contains("it ended its control stream"), "{what}: {closed}");
        wait_for("it is no neighbour", || overlay.link_state("a", "e").is_empty());
        wait_for("it is counted", || overlay.metric("a", REFUSED, "") > before);
    }
    assert_carries(&listen);
}
