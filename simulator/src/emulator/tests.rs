use super::*;
use tradewind_proto::units::Timestamp;

const WORLD: &str = r#"
[[pop]]
id = "a"
[[pop]]
id = "b"
[[pop]]
id = "c"
[[link]]
between = ["a", "b"]
delay = "20ms"
"#;

fn id(name: &str) -> PopId {
    name.parse().unwrap()
}

fn link(from: &str, to: &str) -> LinkId {
    (id(from), id(to))
}

struct Bench {
    clock: Clock,
    emulator: Emulator,
    a: UdpSocket,
    b: UdpSocket,
}

/// Two sockets in the place of relays.
fn bench() -> Bench {
    let world = World::parse("test", WORLD).unwrap();
    let clock = Clock::start();
    let emulator = Emulator::start(&world, clock).unwrap();
    let [a, b] = [(); 2].map(|()| open_socket().unwrap());
    emulator.attach(&id("a"), Some(a.local_addr().unwrap()));
    emulator.attach(&id("b"), Some(b.local_addr().unwrap()));
    Bench { clock, emulator, a, b }
}

impl Bench {
    fn advertised(&self, pop: &str) -> SocketAddr {
        self.emulator.address(&id(pop)).unwrap()
    }
}

fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 2048];
    let (len, from) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..len].to_vec(), from))
}

fn silent(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
    socket.recv_from(&mut [0; 2048]).is_err()
}

fn counters(report: &EmulatorReport, link: &LinkId) -> LinkCounters {
    report.links.iter().find(|l| l.link == *link).unwrap().counters
}

#[test]
fn a_packet_takes_the_links_delay_and_comes_from_the_senders_advertised_address() {
    let bench = bench();
    let sent_at = bench.clock.now();
    bench.a.send_to(b"ping", bench.advertised("b")).unwrap();
    let (bytes, from) = receive(&bench.b).unwrap();
    // Only the lower bound is sure on a busy machine.
    assert!(bench.clock.now().since(sent_at) >= Duration::from_millis(20));
    assert_eq!((bytes.as_slice(), from), (&b"ping"[..], bench.advertised("a")));
    bench.b.send_to(b"pong", from).unwrap();
    assert_eq!(receive(&bench.a).unwrap(), (b"pong".to_vec(), bench.advertised("b")));
    let there = counters(&bench.emulator.report(), &link("a", "b"));
    assert_eq!((there.offered, there.delivered, there.offered_bytes), (1, 1, 32));
}

#[test]
fn strangers_missing_links_and_dead_relays_are_counted() {
    let bench = bench();
    let stranger = open_socket().unwrap();
    stranger.send_to(b"who", bench.advertised("b")).unwrap();
    bench.a.send_to(b"nowhere", bench.advertised("c")).unwrap();
    bench.emulator.attach(&id("b"), None);
    bench.a.send_to(b"too late", bench.advertised("b")).unwrap();
    assert!(silent(&bench.b));
    let health = bench.emulator.report().health;
    assert_eq!((health.strays, health.no_link, health.to_the_dead), (1, 1, 1));
}

#[test]
fn cutting_and_degrading_act_on_the_overlay_and_on_direct_paths() {
    let mut bench = bench();
    let target = bench.b.local_addr().unwrap();
    let direct = bench.emulator.direct_path(&link("a", "b"), target).unwrap().unwrap();
    let try_both = |bench: &Bench| {
        [direct, bench.advertised("b")].map(|to| {
            bench.a.send_to(b"x", to).unwrap();
            !silent(&bench.b)
        })
    };
    assert_eq!(try_both(&bench), [true, true]);
    bench.emulator.set_up(&link("a", "b"), false);
    assert_eq!(try_both(&bench), [false, false]);
    bench.emulator.set_up(&link("a", "b"), true);
    bench.emulator.set(&link("a", "b"), &LinkSpec { mtu: 28, ..LinkSpec::default() });
    assert_eq!(try_both(&bench), [false, false]);
    let there = counters(&bench.emulator.report(), &link("a", "b"));
    assert_eq!((there.offered, there.down, there.too_big), (3, 1, 1));
    assert!(bench.emulator.direct_path(&link("a", "c"), target).unwrap().is_none());
}

#[test]
fn a_damaged_packet_differs_in_one_bit() {
    let bench = bench();
    let spec = LinkSpec { corrupt: 1.0, ..LinkSpec::default() };
    bench.emulator.set(&link("a", "b"), &spec);
    bench.a.send_to(&[0; 100], bench.advertised("b")).unwrap();
    let (bytes, _) = receive(&bench.b).unwrap();
    assert_eq!(bytes.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    assert!(bench.clock.now() > Timestamp::ZERO);
}
