//! What the emulator drops is what QUIC misses: a count from below and one from above the link.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Mutex;
use std::time::Instant;

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::emulator::Emulator;
use crate::link::{LinkSpec, Loss};
use crate::world::{LinkId, World};
use tradewind_relay::api::types::{Document, Links};

use super::*;

/// Both relays dial, over 20 ms each way; traffic enters at both.
const WORLD: &str = r#"
[[pop]]
id = "a"
[[pop]]
id = "b"
[[link]]
between = ["a", "b"]
delay = "20ms"
[[traffic]]
from = "a"
to = "b"
pps = 1
size = 400
[[traffic]]
from = "b"
to = "a"
pps = 1
size = 400
"#;

/// The share lost while the link is bad.
const LOSS: f64 = 0.05;
/// Packets dropped each way before the link is good again.
const DROPS: u64 = 150;
/// What a busy machine may need.
const PATIENCE: Duration = Duration::from_secs(60);

/// Real relays that can be asked for their links.
#[derive(Default)]
struct Watched {
    admins: Mutex<BTreeMap<String, SocketAddr>>,
}

impl RelayHost for Watched {
    fn make_certificates(&self, pops: &[Pop], dir: &Path) -> anyhow::Result<()> {
        RealRelays.make_certificates(pops, dir)
    }

    fn start(&self, config: &Path, admin: SocketAddr) -> anyhow::Result<Box<dyn RunningRelay>> {
        let name = config.file_stem().unwrap().to_string_lossy().into_owned();
        self.admins.lock().unwrap().insert(name, admin);
        RealRelays.start(config, admin)
    }
}

/// What both sides count of one direction of the link.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// QUIC packets sent, and those declared lost.
    sent: u64,
    lost: u64,
    /// Datagrams that reached the emulator, and those that it dropped.
    offered: u64,
    dropped: u64,
}

impl Count {
    fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            lost: self.lost - before.lost,
            offered: self.offered - before.offered,
            dropped: self.dropped - before.dropped,
        }
    }
}

struct Bench<'a> {
    world: &'a World,
    host: &'a Watched,
    emulator: Emulator,
    cluster: Cluster<'a>,
    client: UdpSocket,
    agent: ureq::Agent,
}

impl Bench<'_> {
    fn set_loss(&self, loss: Loss) {
        for (link, spec) in &self.world.links {
            self.emulator.set(link, &LinkSpec { loss, ..spec.clone() });
        }
    }

    /// Both directions. QUIC is asked first: what it has missed by then the emulator has dropped.
    fn counts(&self) -> Option<[Count; 2]> {
        let quic = self.world.links.keys().map(|link| self.quic(link)).collect::<Option<Vec<_>>>();
        let links = self.emulator.report().links;
        let counts = quic?.into_iter().zip(links).map(|((sent, lost), seen)| Count {
            sent,
            lost,
            offered: seen.counters.offered,
            dropped: seen.counters.dropped(),
        });
        counts.collect::<Vec<_>>().try_into().ok()
    }

    fn quic(&self, (from, to): &LinkId) -> Option<(u64, u64)> {
        let admin = *self.host.admins.lock().unwrap().get(from.as_str())?;
        let mut answer = self.agent.get(format!("http://{admin}/api/v1/links")).call().ok()?;
        let links: Document<Links> = answer.body_mut().read_json().ok()?;
        let up = |link: &&tradewind_relay::api::types::Link| {
            link.neighbour == to.as_str() && link.state == "up"
        };
        let link = links.body.links.iter().find(up)?;
        Some((link.quic_sent_packets, link.quic_lost_packets))
    }

    /// Lets traffic flow both ways until `enough`.
    fn drive(&self, what: &str, enough: impl Fn(&[Count; 2]) -> bool) -> [Count; 2] {
        let start = Instant::now();
        loop {
            for _ in 0..20 {
                for traffic in &self.world.traffic {
                    let tunnel = self.cluster.tunnel(traffic).unwrap();
                    self.client.send_to(&[0; 400], tunnel).unwrap();
                }
                thread::sleep(Duration::from_millis(2));
            }
            let counts = self.counts();
            if let Some(counts) = counts.filter(&enough) {
                return counts;
            }
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {counts:?}");
        }
    }
}

#[test]
fn what_the_emulator_drops_quic_declares_lost() {
    let world = World::parse("test", WORLD).unwrap();
    let host = Watched::default();
    let emulator = Emulator::start(&world, Clock::start()).unwrap();
    let sinks = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let targets = sinks.each_ref().map(|sink| sink.local_addr().unwrap());
    let cluster = Cluster::start(&world, &emulator, &targets, &host).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN)).build().into();
    let bench = Bench { world: &world, host: &host, emulator, cluster, client, agent };

    // The link is good at first, so that handshakes and the second of two simultaneous dials, which
    // closes with the first heartbeat, are over: from here on a datagram is one packet of one
    // connection.
    let before = bench.drive("traffic flows", |counts| counts.iter().all(|it| it.sent > 500));
    bench.set_loss(Loss::independent(LOSS).unwrap());
    let dropped = before.map(|count| count.dropped);
    let most = dropped.iter().max().unwrap() + DROPS;
    let bad =
        bench.drive("packets are dropped", |counts| counts.iter().all(|it| it.dropped >= most));
    // And good at the end: QUIC misses a packet only when later ones have come through.
    bench.set_loss(Loss::None);
    let noticed = bench.drive("QUIC declares every dropped packet lost", |counts| {
        counts.iter().zip(before).all(|(count, before)| {
            let count = count.since(before);
            count.lost >= count.dropped
        })
    });
    let sent = noticed.map(|count| count.sent).into_iter().max().unwrap_or_default();
    let after =
        bench.drive("traffic goes on", |counts| counts.iter().all(|it| it.sent > sent + 200));

    for ((before, bad), after) in before.into_iter().zip(bad).zip(after) {
        let (bad, whole) = (bad.since(before), after.since(before));
        // Five standard deviations of a binomial distribution.
        let spread = 5.0 * (LOSS * (1.0 - LOSS) / bad.offered as f64).sqrt();
        assert!((share(bad.dropped, bad.offered) - LOSS).abs() < spread, "{bad:?}");
        // No drop goes unnoticed: packets with nothing but an acknowledgement, too, are numbered and
        // acknowledged. Order is kept on this link, so QUIC's thresholds of three packets and 9/8 of a
        // round trip err for no packet that arrives. More is missed only where this machine, busy,
        // has no room in a socket's buffer; that is not the emulator's doing, and rare.
        let excess = whole.lost.checked_sub(whole.dropped);
        assert!(excess.is_some_and(|excess| excess <= whole.dropped / 50), "{whole:?}");
        // The two are asked one after the other while packets go on.
        let rates = [share(whole.lost, whole.sent), share(whole.dropped, whole.offered)];
        assert!((rates[0] / rates[1] - 1.0).abs() < 0.03, "{whole:?}: {rates:?}");
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
