//! Whole relays joined by lossless lines, in virtual time.

use std::rc::Rc;

use tradewind_proto::statement::ServiceStatement;
use tradewind_proto::units::{Class, Redundancy, ServiceName};

use super::edge::{DropReason, FlowWarning, LocalOutput, Target};
use super::neighbour::Connected;
use super::*;
use crate::identity::{Identity, Issuer};

const UNIX_SECONDS: u64 = 1_790_000_000;
const START: Timestamp = Timestamp::from_micros(UNIX_SECONDS * 1_000_000);
const TUNNEL: TunnelId = TunnelId(0);
/// What QUIC leaves of UDP payloads of 1,452 and of 1,200 bytes.
const FULL: usize = 1_414;
const SMALL: usize = 1_162;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn name(name: &str) -> ServiceName {
    name.parse().expect("a valid name")
}

/// What one relay did.
type Done = (&'static str, Output);

/// One end of a connection.
type End = (&'static str, ConnId);

enum Event {
    Datagram(End, Bytes),
    Message(End, Message),
}

/// Relays, what is under way between them, and what they handed out.
struct Net {
    nodes: BTreeMap<&'static str, Node<Rc<Identity>>>,
    /// The other end of each connection, and how long it takes to get there.
    ends: BTreeMap<End, (End, Duration)>,
    events: BTreeMap<(Timestamp, u64), Event>,
    sent: u64,
    now: Timestamp,
    done: Vec<Done>,
}

impl Net {
    /// Relays by these names; the service "echo" is at "sgp".
    fn new(names: &[&'static str]) -> Self {
        let issuer = Issuer::generate(UNIX_SECONDS).expect("a CA");
        let nodes = names.iter().map(|&name| (name, relay(&issuer, name))).collect();
        let (ends, events) = (BTreeMap::new(), BTreeMap::new());
        Self { nodes, ends, events, sent: 0, now: START, done: Vec::new() }
    }

    /// Connects two relays, with datagrams of at most so many bytes.
    fn connect(&mut self, names: [&'static str; 2], delay: Duration, datagram: usize) {
        let conn = ConnId(self.ends.len() as u64);
        for (own, peer) in [(names[0], names[1]), (names[1], names[0])] {
            self.ends.insert((own, conn), ((peer, conn), delay));
            let connected = Connected {
                conn,
                peer: peer.parse().expect("a valid name"),
                dialled: None,
                remote: peer.to_owned(),
                datagram,
                mtu: 0,
            };
            let now = self.now;
            self.node(own).handle_connected(connected, now);
            self.collect(own);
        }
    }

    /// Nothing passes between the two any more, and nobody says so.
    fn cut(&mut self, names: [&str; 2]) {
        self.ends
            .retain(|(own, _), ((peer, _), _)| ![[*own, *peer], [*peer, *own]].contains(&names));
    }

    fn node(&mut self, name: &str) -> &mut Node<Rc<Identity>> {
        self.nodes.get_mut(name).expect("a relay of this net")
    }

    /// A tunnel at `name` to the service "echo".
    fn tunnel(&mut self, name: &str, redundancy: Redundancy) {
        let service = Target { service: self::name("echo"), pop: None };
        let spec = TunnelSpec {
            service,
            class: Class::Video,
            deadline: ms(300),
            policy: PolicyId::NONE,
            redundancy,
            ports: 1,
        };
        let services = if name == "sgp" { vec![echo()] } else { Vec::new() };
        let now = self.now;
        self.node(name).set_edge([(TUNNEL, spec)].into(), services, now);
    }

    fn send(&mut self, name: &'static str, payload: Vec<u8>) {
        let (now, source) = (self.now, SocketAddr::from(([127, 0, 0, 1], 9)));
        self.node(name).handle_tunnel(TUNNEL, 0, source, payload.into(), now);
        self.collect(name);
    }

    /// Lets everything happen that is due within `span`.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let timer = self.nodes.iter().map(|(&name, node)| (node.poll_timeout(), name)).min();
            let (timer, name) = timer.expect("there are relays");
            let arrival = self.events.first_key_value().map(|(&(at, _), _)| at);
            let next = arrival.unwrap_or(Timestamp::NEVER).min(timer);
            if next > end {
                break;
            }
            self.now = next.max(self.now);
            if arrival.is_some_and(|at| at <= timer)
                && let Some((_, event)) = self.events.pop_first()
            {
                self.arrive(event);
            } else {
                let now = self.now;
                self.node(name).handle_timeout(now);
                self.collect(name);
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, event: Event) {
        let now = self.now;
        let name = match event {
            Event::Datagram((name, conn), datagram) => {
                self.node(name).handle_datagram(conn, datagram, now);
                name
            }
            Event::Message((name, conn), message) => {
                self.node(name).handle_message(conn, message, now);
                name
            }
        };
        self.collect(name);
    }

    fn collect(&mut self, name: &'static str) {
        let now = self.now;
        while let Some(output) = self.node(name).poll_output(now) {
            match output {
                Output::Datagram(conn, datagram) => {
                    self.put((name, conn), |end| Event::Datagram(end, datagram));
                }
                Output::Message(conn, message) => {
                    self.put((name, conn), |end| Event::Message(end, message));
                }
                other => self.done.push((name, other)),
            }
        }
    }

    fn put(&mut self, from: End, event: impl FnOnce(End) -> Event) {
        let Some(&(to, delay)) = self.ends.get(&from) else { return };
        self.sent += 1;
        self.events.insert((self.now + delay, self.sent), event(to));
    }

    /// The payloads handed to the service since last asked, and the flow of the last one.
    fn delivered(&mut self) -> (Vec<Bytes>, Option<FlowId>) {
        let mut last = None;
        let payloads = std::mem::take(&mut self.done).into_iter().filter_map(|(_, output)| {
            let Output::Local(LocalOutput::Deliver { flow, payload, .. }) = output else {
                return None;
            };
            last = Some(flow);
            Some(payload)
        });
        (payloads.collect(), last)
    }

    fn answers(&mut self) -> Vec<Bytes> {
        let answer = |(_, output)| match output {
            Output::Local(LocalOutput::Answer { payload, .. }) => Some(payload),
            _ => None,
        };
        std::mem::take(&mut self.done).into_iter().filter_map(answer).collect()
    }

    fn warnings(&self, name: &str) -> Vec<FlowWarning> {
        let mut flows = self.nodes[name].edge().flows(self.now);
        flows.next().expect("there is a flow").warnings
    }
}

fn echo() -> ServiceSpec {
    ServiceSpec { name: name("echo"), ports: 1 }
}

fn relay(issuer: &Issuer, name: &str) -> Node<Rc<Identity>> {
    let subject = format!("tradewind://pop/{name}").parse().expect("a valid subject");
    let issued = issuer.issue(&subject, UNIX_SECONDS, 1).expect("a certificate");
    let (certificate, key) = (issued.certificate.as_bytes(), issued.key.as_bytes());
    let ca = issuer.certificate().as_bytes();
    let identity = Identity::from_pem(ca, certificate, key, UNIX_SECONDS).expect("an identity");
    let serves = name == "sgp";
    let stated = ServiceStatement { name: self::name("echo"), ports: 1 };
    let services = if serves { vec![stated] } else { Vec::new() };
    let config = NodeConfig {
        id: name.parse().expect("a valid name"),
        incarnation: Incarnation(UNIX_SECONDS * 1000),
        description: SelfDescription { services, ..SelfDescription::default() },
        peers: Vec::new(),
        mesh: Mesh::Peers,
        limits: EdgeLimits::default(),
        recovery: Recovery::Plan,
        metric: Metric::default(),
    };
    let mut node = Node::new(config, Rc::new(identity), START);
    if serves {
        node.set_edge(BTreeMap::new(), vec![echo()], START);
    }
    node
}

#[test]
fn payloads_pass_a_smaller_link_further_on() {
    let mut net = Net::new(&["fra", "mid", "sgp"]);
    net.connect(["fra", "mid"], ms(5), FULL);
    net.connect(["mid", "sgp"], ms(5), SMALL);
    net.tunnel("fra", Redundancy::Single);
    net.run(ms(3_000));
    for len in [1_100, 1_200, 1_316, 1_332, 9_000] {
        net.send("fra", vec![7; len]);
        net.run(ms(500));
        let (payloads, flow) = net.delivered();
        assert_eq!(payloads, [vec![7; len]], "there");
        let now = net.now;
        net.node("sgp").handle_egress(flow.expect("a flow"), vec![8; len].into(), now);
        net.collect("sgp");
        net.run(ms(500));
        assert_eq!(net.answers(), [vec![8; len]], "and back");
    }
    for (name, node) in &net.nodes {
        assert_eq!(node.counters().too_large, 0, "{name}");
    }
}

#[test]
fn a_packet_too_large_for_the_detour_is_counted() {
    let mut net = Net::new(&["fra", "mid", "sgp"]);
    net.connect(["fra", "sgp"], ms(5), FULL);
    net.connect(["fra", "mid"], ms(5), SMALL);
    net.connect(["mid", "sgp"], ms(5), SMALL);
    net.tunnel("fra", Redundancy::Single);
    net.run(ms(3_000));
    net.cut(["fra", "sgp"]);
    for round in 0..2_000 {
        net.send("fra", vec![7; if round % 2 == 0 { 1_300 } else { 200 }]);
        net.run(ms(1));
    }
    // Cut small once routes know better; what was under way before is salvaged as far as it fits.
    let (payloads, _) = net.delivered();
    let after = payloads.iter().rev().take(1_000);
    assert_eq!(after.filter(|payload| payload.len() == 1_300).count(), 500);
    let counters = net.nodes["fra"].counters();
    assert!(counters.too_large > 0 && counters.detoured > 0, "{counters:?}");
}

#[test]
fn two_copies_travel_and_the_first_wins_even_when_one_way_goes_dark() {
    let mut net = Net::new(&["fra", "mid", "sgp"]);
    net.connect(["fra", "sgp"], ms(5), FULL);
    net.connect(["fra", "mid"], ms(5), SMALL);
    net.connect(["mid", "sgp"], ms(5), FULL);
    net.tunnel("fra", Redundancy::Disjoint);
    net.run(ms(3_000));
    net.send("fra", b"asks for the pair".to_vec());
    net.run(ms(100));
    net.delivered();
    for dark in [false, true] {
        if dark {
            net.cut(["fra", "sgp"]);
        }
        for number in 0..100u8 {
            net.send("fra", vec![number; 1_300]);
            net.run(ms(1));
            assert!(!net.warnings("fra").contains(&FlowWarning::NoPair) || dark);
        }
        net.run(ms(300));
        let (payloads, flow) = net.delivered();
        assert_eq!(payloads, (0..100).map(|number| vec![number; 1_300]).collect::<Vec<_>>());
        let drops = net.nodes["sgp"].edge().counters().drops;
        assert!(drops.of(DropReason::Duplicate) >= 200, "two pieces each, {drops:?}");
        if !dark {
            let now = net.now;
            net.node("sgp").handle_egress(flow.expect("a flow"), "answer".into(), now);
            net.collect("sgp");
            net.run(ms(100));
            assert_eq!(net.answers(), ["answer"]);
            assert!(net.nodes["fra"].edge().counters().drops.of(DropReason::Duplicate) > 0);
        }
    }
}

#[test]
fn a_pair_that_cannot_be_is_warned_of() {
    let mut net = Net::new(&["fra", "sgp"]);
    net.connect(["fra", "sgp"], ms(5), FULL);
    net.tunnel("fra", Redundancy::Disjoint);
    net.run(ms(3_000));
    for expected in [vec![], vec![FlowWarning::NoPair]] {
        net.send("fra", b"x".to_vec());
        assert_eq!(net.warnings("fra"), expected);
        net.run(ms(100));
    }
}

#[test]
fn a_tunnel_reaches_a_service_of_its_own_relay() {
    let mut net = Net::new(&["sgp"]);
    net.tunnel("sgp", Redundancy::Disjoint);
    net.run(ms(100));
    for len in [0, 1_300, 65_507] {
        net.send("sgp", vec![7; len]);
        let (payloads, flow) = net.delivered();
        assert_eq!(payloads, [vec![7; len]]);
        let now = net.now;
        net.node("sgp").handle_egress(flow.expect("a flow"), vec![8; len].into(), now);
        net.collect("sgp");
        assert_eq!(net.answers(), [vec![8; len]]);
    }
    assert_eq!(net.nodes["sgp"].edge().flows(net.now).count(), 2, "both ends");
    assert_eq!(net.warnings("sgp"), []);
}
