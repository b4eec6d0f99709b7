//! Relays die under traffic, services come and go: packets go around, wait, and resume.

use std::time::Duration;

use tradewind_relay::api::types::Route;

use crate::diamond::{between, diamond};
use crate::harness::{Overlay, Setup, complaint, wait_for};
use crate::traffic::{Echo, Stream, tunnel};

const EVERY: Duration = Duration::from_millis(10);

/// Waits until more packets reached the service, and more answers the client.
fn wait_delivered(echo: &Echo, stream: &Stream, what: &str) {
    let (arrived, answered) = (echo.count(), stream.answers());
    wait_for(what, || echo.count() > arrived + 20 && stream.answers() > answered + 20);
}

#[test]
fn a_killed_relay_is_gone_around_and_used_again_when_it_is_back() {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = diamond(&echo, "deadline = \"10s\"");
    let stream = Stream::start(listen.parse().unwrap(), EVERY);
    wait_delivered(&echo, &stream, "packets cross");
    let first = between(&overlay);
    let second = if first == "b" { "c" } else { "b" };

    overlay.kill(&first);
    wait_delivered(&echo, &stream, "packets cross again after a relay died");
    wait_for("flows show the other path", || between(&overlay) == second);

    overlay.start(&first);
    overlay.wait_ready(&[&first]);
    wait_for("both neighbours have it back", || {
        ["a", "d"].iter().all(|end| overlay.link_state(end, &first) == "up")
    });
    // Nothing else is left to go over.
    overlay.kill(second);
    wait_delivered(&echo, &stream, "packets cross over the relay that came back");
    wait_for("flows show its path", || between(&overlay) == first);

    let flows = overlay.flows("d").flows;
    let audit = flows[0].paths_rx.iter().map(|record| record.path.join(" ")).collect::<Vec<_>>();
    for relay in [first.as_str(), second] {
        assert!(audit.contains(&format!("a {relay} d")), "{audit:?}");
    }
    let arrivals = echo.arrivals();
    let source = arrivals[0].from;
    assert!(arrivals.iter().all(|arrival| arrival.from == source), "the service saw {source} move");
}

/// Whatever a relay missed while the machine did not run it waits in its socket.
#[test]
fn a_relay_that_was_stopped_does_not_blame_its_neighbours() {
    let mut overlay = Overlay::new();
    overlay.add("a", Setup::default());
    overlay.add("b", Setup { peers: &["a"], ..Setup::default() });
    overlay.wait_route("a", "b");
    let downs = |overlay: &Overlay| overlay.metric("b", "tradewind_link_downs_total", "a");
    let before = downs(&overlay);
    for _ in 0..5 {
        overlay.signal("b", "STOP");
        wait_for("its neighbour misses it", || overlay.link_state("a", "b") == "down");
        overlay.signal("b", "CONT");
        wait_for("it is back", || overlay.link_state("a", "b") == "up");
    }
    assert_eq!(downs(&overlay), before);
}

#[test]
fn a_flow_without_a_way_says_why_and_resumes_by_itself() {
    let echo = Echo::listen("127.0.0.1:0");
    let mut overlay = Overlay::new();
    let listen = format!("127.0.0.1:{}", overlay.port());
    overlay.add("a", Setup { edges: &tunnel(&listen, "echo"), ..Setup::default() });
    overlay.wait_ready(&["a"]);
    let stream = Stream::start(listen.parse().unwrap(), EVERY);
    let blocked = |overlay: &Overlay| {
        let flow = overlay.flows("a").flows.into_iter().next();
        flow.and_then(|flow| Some((flow.blocked.clone()?, flow))).map(|(why, flow)| {
            assert!(flow.drops[&why] > 0, "{flow:?}");
            why
        })
    };
    wait_for("the flow says that nobody has the service", || {
        blocked(&overlay).as_deref() == Some("no_instance")
    });
    assert!(overlay.metric("a", "tradewind_edge_dropped_total", "no_instance") > 0.0);
    let asked = overlay.ask("a", &["route", "echo"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(complaint(&asked).contains("no relay or service is called \"echo\""), "{asked:?}");

    overlay.add("d", Setup { peers: &["a"], edges: &echo.service("echo"), ..Setup::default() });
    wait_delivered(&echo, &stream, "packets cross when the service's relay is there");
    overlay.kill("d");
    wait_for("the flow says that nobody can be reached", || blocked(&overlay).is_some());
    let asked = overlay.ask("a", &["route", "d"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(complaint(&asked).starts_with("tradewind: no route to d: "), "{asked:?}");
    overlay.start("d");
    wait_delivered(&echo, &stream, "packets cross when the service's relay is back");
    wait_for("nothing holds the flow up", || blocked(&overlay).is_none());
}

#[test]
fn a_policy_that_leaves_no_way_stops_packets_and_route_says_why() {
    let echo = Echo::listen("127.0.0.1:0");
    let mut overlay = Overlay::new();
    let listen = format!("127.0.0.1:{}", overlay.port());
    let edges = format!(
        "{}policy = \"eu-only\"\n[[policy]]\nname = \"eu-only\"\nallow_regions = [\"EU\"]\n",
        tunnel(&listen, "echo")
    );
    overlay.certify("a", &["--region", "EU"]);
    overlay.configure("a", Setup { edges: &edges, ..Setup::default() });
    overlay.certify("u", &["--region", "NA"]);
    let service = echo.service("echo");
    overlay.configure("u", Setup { peers: &["a"], edges: &service, ..Setup::default() });
    overlay.start("a");
    overlay.start("u");
    overlay.wait_route("a", "u");

    let stream = Stream::start(listen.parse().unwrap(), EVERY);
    wait_for("packets are dropped for want of an allowed way", || {
        overlay.flows("a").flows.iter().any(|flow| flow.blocked.is_some())
    });
    let asked = overlay.ask("a", &["route", "echo", "--policy", "eu-only"]);
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    assert!(complaint(&asked).contains("eu-only"), "{asked:?}");
    let free: Route = overlay.get("a", "route?to=echo").expect("the relay answers");
    assert!(free.primary.is_some(), "the policy alone forbids it: {free:?}");
    assert_eq!(echo.count(), 0, "a packet left the region");

    // An instance that is allowed appears: the flow finds it.
    let allowed = Echo::listen("127.0.0.1:0");
    overlay.certify("e", &["--region", "EU"]);
    let service = allowed.service("echo");
    overlay.configure("e", Setup { peers: &["a"], edges: &service, ..Setup::default() });
    overlay.start("e");
    wait_delivered(&allowed, &stream, "packets reach the allowed instance");
    assert_eq!(echo.count(), 0, "a packet left the region");
}
