//! What an operator does: configure wrongly, reload, stop, ask nobody.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;

use crate::harness::{Overlay, Setup, complaint, wait_for};
use crate::traffic::{Echo, payload, receive, socket, tunnel};

#[track_caller]
fn assert_carries(listen: SocketAddr, bytes: usize) {
    let client = socket("127.0.0.1:0");
    client.send_to(&payload(bytes, 7), listen).unwrap();
    assert_eq!(receive(&client, &format!("the answer from {listen}")).0, payload(bytes, 7));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn is_one_sentence(text: &str) -> bool {
    text.starts_with("tradewind: ") && text.trim_end().lines().count() == 1
}

#[test]
fn mistakes_in_a_configuration_are_told_with_file_line_and_key() {
    let mut overlay = Overlay::new();
    overlay.certify("a", &[]);
    overlay.certify("b", &[]);
    let good = overlay.configure("a", Setup::default());
    let text = fs::read_to_string(&good).unwrap();
    let line_of = |text: &str, what: &str| {
        1 + text.lines().position(|line| line.contains(what)).expect("it is there")
    };
    let edge = |more: &str| format!("{text}{more}");
    let tunnel = "[[tunnel]]\nlisten = \"127.0.0.1:1\"\nservice = \"x\"\n";
    for (what, bad, blamed, words) in [
        ("unknown key", text.replace("peers", "pears"), "pears", "unknown key `overlay.pears`"),
        ("wrong type", text.replace("id = \"a\"", "id = 5"), "id = 5", "`node.id`"),
        ("missing file", text.replace("a.pem\"\nkey", "no.pem\"\nkey"), "no.pem", "no.pem"),
        ("key of another", text.replace("a.key", "b.key"), "b.key", "is not the key of"),
        ("name of another", text.replace("id = \"a\"", "id = \"b\""), "id = \"b\"", "`node.id`"),
        (
            "wildcard",
            text.replace("listen = \"127.0.0.1:", "listen = \"0.0.0.0:"),
            "listen = \"0.0.0.0:",
            "advertise = ",
        ),
        ("no policy", edge(&format!("{tunnel}policy = \"p\"\n")), "policy = \"p\"", "\"p\""),
        ("one address", edge(&tunnel.repeat(2)), "", "127.0.0.1:1 is taken by"),
    ] {
        let file = overlay.directory().join("bad.toml");
        fs::write(&file, &bad).unwrap();
        for command in ["relay", "check"] {
            let output = overlay.run(&[command, "--config", path(&file)]);
            let told = complaint(&output);
            assert_eq!(output.status.code(), Some(2), "{what}: {output:?}");
            assert!(is_one_sentence(&told) && told.contains(words), "{what}: {told}");
            let place = format!("bad.toml:{}", line_of(&bad, blamed));
            assert!(blamed.is_empty() || told.contains(&place), "{what}: {told}");
        }
    }
    let checked = overlay.run(&["check", "--config", path(&good)]);
    assert!(checked.status.success(), "{checked:?}");
    // What is printed is a whole configuration.
    let whole = overlay.directory().join("whole.toml");
    fs::write(&whole, &checked.stdout).unwrap();
    let again = overlay.run(&["check", "--config", path(&whole)]);
    assert_eq!(again.stdout, checked.stdout);
}

#[test]
fn a_port_in_use_stops_the_start() {
    let mut overlay = Overlay::new();
    overlay.certify("a", &[]);
    let [media, other] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    let taken = media.local_addr().unwrap().to_string();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = web.local_addr().unwrap().to_string();
    let config = overlay.configure("a", Setup { edges: &tunnel(&taken, "x"), ..Setup::default() });
    let admin = format!("admin.listen={web}");
    let quic = format!("overlay.listen={}", other.local_addr().unwrap());
    for (arguments, key) in [
        (&[][..], "tunnel.listen"),
        (&["--set", &admin][..], "admin.listen"),
        (&["--set", &quic][..], "overlay.listen"),
    ] {
        let output = overlay.run(&[&["relay", "--config", path(&config)], arguments].concat());
        let told = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{key}: {output:?}");
        let told = told.lines().last().unwrap_or_default();
        assert!(is_one_sentence(told) && told.contains(key), "{key}: {told}");
        assert!(told.contains("in use"), "{key}: {told}");
    }
}

#[test]
fn a_command_that_finds_no_relay_says_so() {
    let mut overlay = Overlay::new();
    let api = format!("http://127.0.0.1:{}", overlay.port());
    for command in [&["status"][..], &["links"], &["route", "x"], &["ping", "x"], &["export"]] {
        let output = overlay.run(&[command, &["--api", &api]].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = complaint(&output);
        assert!(is_one_sentence(&told), "{told}");
        assert!(told.contains(&api) && told.contains("--api"), "{told}");
    }
}

#[test]
fn a_reload_takes_over_what_is_good_and_refuses_what_is_not() {
    let mut overlay = Overlay::new();
    let echo = Echo::listen("127.0.0.1:0");
    let [first, second] = [0; 2].map(|_| SocketAddr::from(([127, 0, 0, 1], overlay.port())));
    let only = |listen: SocketAddr| tunnel(listen, "echo");
    overlay.add("a", Setup { edges: &only(first), ..Setup::default() });
    overlay.add("d", Setup { peers: &["a"], edges: &echo.service("echo"), ..Setup::default() });
    overlay.wait_route("a", "d");
    overlay.wait_service("a", "echo");
    assert_carries(first, 160);

    overlay.configure("a", Setup { edges: "[[tunel]]\n", ..Setup::default() });
    overlay.signal("a", "HUP");
    overlay.wait_for_log("a", "the new configuration is refused, the old one stays");
    assert!(overlay.log("a").contains("did you mean `tunnel`?"), "{}", overlay.log("a"));
    assert_carries(first, 161);

    // A port that is taken refuses the whole, too.
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let held = UdpSocket::bind(taken).unwrap();
    let both = format!("{}{}", only(second), only(taken));
    overlay.configure("a", Setup { edges: &both, ..Setup::default() });
    overlay.signal("a", "HUP");
    overlay.wait_for_log("a", "tunnel.listen = ");
    assert_carries(first, 162);
    drop(held);

    overlay.configure("a", Setup { edges: &only(second), ..Setup::default() });
    overlay.signal("a", "HUP");
    overlay.wait_for_log("a", "configuration reloaded");
    assert_carries(second, 163);
    wait_for("the port of the former tunnel is free", || UdpSocket::bind(first).is_ok());
    assert_eq!(overlay.log("a").matches("refused, the old one stays").count(), 2);
}

#[test]
fn a_reload_may_move_a_range_over_ports_that_it_holds() {
    let mut overlay = Overlay::new();
    let [ports, targets] = [4_u16, 3].map(|count| {
        let ports: Vec<_> = (0..count).map(|_| overlay.port()).collect();
        assert!(ports.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ports:?} are not in a row");
        ports
    });
    let _echoes: Vec<_> =
        targets.iter().map(|port| Echo::listen(&format!("127.0.0.1:{port}"))).collect();
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let range = |ports: &[u16]| format!("127.0.0.1:{}-{}", ports[0], ports[ports.len() - 1]);
    let before = tunnel(range(&ports[..2]), "sfu");
    overlay.add("a", Setup { edges: &before, ..Setup::default() });
    let service = format!("[[service]]\nname = \"sfu\"\ntarget = \"{}\"\n", range(&targets));
    overlay.add("d", Setup { peers: &["a"], edges: &service, ..Setup::default() });
    overlay.wait_route("a", "d");
    overlay.wait_service("a", "sfu");

    // The last of the new ports is taken: nothing changes, and what was opened is given back.
    let taken = UdpSocket::bind(address(ports[3])).unwrap();
    let after = tunnel(range(&ports[1..]), "sfu");
    overlay.configure("a", Setup { edges: &after, ..Setup::default() });
    overlay.signal("a", "HUP");
    overlay.wait_for_log("a", &format!("tunnel.listen = \"{}\"", address(ports[3])));
    assert_carries(address(ports[0]), 160);
    assert_carries(address(ports[1]), 161);
    wait_for("the port between is free", || UdpSocket::bind(address(ports[2])).is_ok());
    drop(taken);

    overlay.signal("a", "HUP");
    overlay.wait_for_log("a", "configuration reloaded");
    for port in &ports[1..] {
        assert_carries(address(*port), 162);
    }
    wait_for("the first port is free", || UdpSocket::bind(address(ports[0])).is_ok());

    // A wildcard's port is in the way of its own addresses.
    let wide = tunnel(format!("0.0.0.0:{}", ports[1]), "sfu");
    overlay.configure("a", Setup { edges: &wide, ..Setup::default() });
    overlay.signal("a", "HUP");
    overlay.wait_for_log("a", "while this relay itself listens on");
    assert_carries(address(ports[1]), 163);
}

#[test]
fn what_a_reload_could_not_take_over_stays_a_warning() {
    let mut overlay = Overlay::new();
    overlay.add("a", Setup::default());
    overlay.wait_ready(&["a"]);
    let warns = |overlay: &Overlay| {
        let status = String::from_utf8(overlay.ask("a", &["status"]).stdout).unwrap();
        let mut lines = status.lines().filter(|line| line.starts_with("warning: "));
        lines.any(|line| line.ends_with("but for what needs a restart: overlay.mtu"))
    };
    assert!(!warns(&overlay));
    overlay.configure("a", Setup { overlay: "mtu = 1300", ..Setup::default() });
    overlay.signal("a", "HUP");
    wait_for("status warns", || warns(&overlay));
    overlay.configure("a", Setup::default());
    overlay.signal("a", "HUP");
    wait_for("the warning is gone with its reason", || !warns(&overlay));
}

#[test]
fn a_relay_told_to_stop_says_goodbye() {
    let mut overlay = Overlay::new();
    overlay.add("a", Setup::default());
    overlay.add("d", Setup { peers: &["a"], ..Setup::default() });
    overlay.wait_ready(&["a", "d"]);
    overlay.signal("d", "TERM");
    overlay.wait_for_log("d", "leaving");
    let status = overlay.ask("d", &["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("leaving"), "{status:?}");
    assert_eq!(overlay.wait_end("d").code(), Some(0));
    // It was not found dead: it said so.
    overlay.wait_for_log("a", "neighbour lost peer=d reason=\"it leaves\"");
    assert!(overlay.runs("a"));
    overlay.signal("a", "INT");
    assert_eq!(overlay.wait_end("a").code(), Some(0));
}
