//! A world's relays, real ones, in this process: their certificates, their configuration files,
//! their lives and deaths. What a relay is stands behind [`RelayHost`].

mod config;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use tradewind_proto::units::PopId;

use crate::emulator::Emulator;
use crate::world::{Pop, Traffic, World};
use config::{Admin, Identity, Node, Overlay, RelayFile, Service, Tunnel};

/// UDP payload of the relays' QUIC: 1,500 bytes less IPv6 and UDP headers.
const OVERLAY_MTU: u16 = 1452;

/// What a relay's configuration may list. In a larger world a PoP dials the first so many of its
/// neighbours; the others dial it, or the link stays unused.
const MAX_PEERS: usize = 64;

/// Makes and runs relays.
pub trait RelayHost {
    /// Writes `ca.pem`, and `ID.pem` and `ID.key` of every PoP, into `dir`.
    ///
    /// # Errors
    ///
    /// Files that can't be written.
    fn make_certificates(&self, pops: &[Pop], dir: &Path) -> anyhow::Result<()>;

    /// Starts the relay that `config` describes, and returns when its sockets are open.
    ///
    /// # Errors
    ///
    /// A configuration it refuses, addresses that are taken.
    fn start(&self, config: &Path, admin: SocketAddr) -> anyhow::Result<Box<dyn RunningRelay>>;
}

/// A relay that runs. Dropping it kills it.
pub trait RunningRelay {
    /// The PoPs on its present route to `to` under `policy`, both ends included; `None` if there
    /// is none (yet).
    fn route(&self, to: &PopId, policy: Option<&str>) -> Option<Vec<PopId>>;

    /// It says that it leaves, forwards for a while, and ends.
    fn leave(&self);

    /// Its task ends and its sockets close at once, without a word to anybody: as with SIGKILL.
    /// Returns when the sockets are closed.
    fn kill(self: Box<Self>);
}

/// Everything that one relay needs, fixed over its restarts.
struct Place {
    config: PathBuf,
    overlay: SocketAddr,
    admin: SocketAddr,
    /// The tunnels here, by traffic.
    tunnels: BTreeMap<String, SocketAddr>,
    relay: Option<Box<dyn RunningRelay>>,
    /// It was told to leave.
    leaving: bool,
}

/// The relays of a world.
pub struct Cluster<'h> {
    host: &'h dyn RelayHost,
    places: BTreeMap<PopId, Place>,
    /// Removed at the end.
    _dir: TemporaryDir,
}

impl<'h> Cluster<'h> {
    /// Starts a relay at every PoP. `targets` says where each flow of `world` should be handed out,
    /// in the order of the world.
    ///
    /// # Errors
    ///
    /// Whatever keeps a relay from starting, with its name.
    pub fn start(
        world: &World,
        emulator: &Emulator,
        targets: &[SocketAddr],
        host: &'h dyn RelayHost,
    ) -> anyhow::Result<Self> {
        let dir = TemporaryDir::new()?;
        host.make_certificates(&world.pops, &dir.0).context("can't make certificates")?;
        let mut places = BTreeMap::new();
        // Ports are held until all are chosen, so that no two relays are given the same one.
        let mut held = HeldPorts::default();
        let peers = world.peers();
        for pop in &world.pops {
            let place =
                prepare(world, (pop, &peers[&pop.id]), emulator, targets, &dir.0, &mut held)
                    .with_context(|| format!("can't configure the relay at {}", pop.id))?;
            places.insert(pop.id.clone(), place);
        }
        drop(held);
        let mut cluster = Self { host, places, _dir: dir };
        let joining = world.joining();
        for pop in world.pops.iter().filter(|pop| !joining.contains(&pop.id)) {
            cluster.revive(&pop.id, emulator)?;
        }
        Ok(cluster)
    }

    /// Where packets of this traffic enter the overlay.
    pub fn tunnel(&self, traffic: &Traffic) -> Option<SocketAddr> {
        self.places.get(&traffic.from)?.tunnels.get(&traffic.name).copied()
    }

    /// The present route of this traffic.
    pub fn route(&self, traffic: &Traffic) -> Option<Vec<PopId>> {
        let relay = self.places.get(&traffic.from)?.relay.as_ref()?;
        relay.route(&traffic.to, traffic.policy.as_deref())
    }

    /// Kills the relay at `pop`; whether there was one alive.
    pub fn kill(&mut self, pop: &PopId, emulator: &Emulator) -> bool {
        let relay = self.places.get_mut(pop).and_then(|place| place.relay.take());
        emulator.attach(pop, None);
        relay.map(RunningRelay::kill).is_some()
    }

    /// Tells the relay at `pop` to leave; whether there was one.
    pub fn drain(&mut self, pop: &PopId) -> bool {
        let Some(place) = self.places.get_mut(pop) else { return false };
        place.leaving = true;
        place.relay.as_ref().map(|relay| relay.leave()).is_some()
    }

    /// Starts the relay at `pop` unless it runs and stays.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from starting.
    pub fn revive(&mut self, pop: &PopId, emulator: &Emulator) -> anyhow::Result<()> {
        let Some(place) = self.places.get_mut(pop) else { return Ok(()) };
        if std::mem::take(&mut place.leaving)
            && let Some(gone) = place.relay.take()
        {
            gone.kill();
        }
        if place.relay.is_none() {
            // Before the relay's first packet, so that none is a stranger's.
            emulator.attach(pop, Some(place.overlay));
            let relay = self.host.start(&place.config, place.admin);
            place.relay = Some(relay.with_context(|| format!("can't start the relay at {pop}"))?);
        }
        Ok(())
    }
}

fn prepare(
    world: &World,
    (pop, peers): (&Pop, &[&PopId]),
    emulator: &Emulator,
    targets: &[SocketAddr],
    dir: &Path,
    held: &mut HeldPorts,
) -> anyhow::Result<Place> {
    let advertised = |pop| emulator.address(pop).context("the emulator does not know this PoP");
    let (overlay, admin) = (held.udp()?, held.tcp()?);
    let mut tunnels = BTreeMap::new();
    for traffic in world.traffic.iter().filter(|traffic| traffic.from == pop.id) {
        tunnels.insert(traffic.name.clone(), held.udp()?);
    }
    let services: Vec<String> = (1..=world.traffic.len()).map(|n| format!("sink-{n}")).collect();
    let flows = || world.traffic.iter().zip(&services).zip(targets);
    let here = flows().filter(|((traffic, _), _)| traffic.to == pop.id);
    let service = here.map(|((_, name), target)| Service { name, target: *target });
    let tunnel = flows().filter_map(|((traffic, service), _)| {
        let listen = *tunnels.get(&traffic.name).filter(|_| traffic.from == pop.id)?;
        Some(Tunnel {
            listen,
            service: format!("{service}@{}", traffic.to),
            class: traffic.class,
            deadline: format!("{}us", traffic.deadline.as_micros()),
            policy: traffic.policy.as_deref(),
            redundancy: traffic.redundancy,
        })
    });
    let file = RelayFile {
        node: Node::of(pop),
        overlay: Overlay {
            listen: overlay,
            advertise: advertised(&pop.id)?,
            peers: peers
                .iter()
                .take(MAX_PEERS)
                .map(|peer| advertised(peer))
                .collect::<anyhow::Result<_>>()?,
            mesh: world.mesh,
            mtu: OVERLAY_MTU,
        },
        identity: Identity {
            ca: dir.join("ca.pem"),
            cert: dir.join(format!("{}.pem", pop.id)),
            key: dir.join(format!("{}.key", pop.id)),
        },
        admin: Admin { listen: admin },
        service: service.collect(),
        tunnel: tunnel.collect(),
        policy: world.policies.iter().collect(),
    };
    let config = dir.join(format!("{}.toml", pop.id));
    std::fs::write(&config, toml::to_string(&file)?)?;
    Ok(Place { config, overlay, admin, tunnels, relay: None, leaving: false })
}

/// Free ports on loopback, kept from others while this lives.
#[derive(Default)]
struct HeldPorts {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl HeldPorts {
    fn udp(&mut self) -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        self.udp.push(socket);
        Ok(address)
    }

    fn tcp(&mut self) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        self.tcp.push(listener);
        Ok(address)
    }
}

/// A directory that goes with its owner; private, for it holds keys.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tradewind-sim-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("can't make the directory {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // Left behind, it is a few kilobytes in the system's temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
