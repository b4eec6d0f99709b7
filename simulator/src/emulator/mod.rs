//! A world's links in real time, between real sockets on loopback.
//!
//! Every relay is known to the others by a socket of the emulator's, which it advertises. A packet
//! that arrives there from another relay's own socket goes through the model of the link between
//! the two, and leaves, if it does, from the *sender's* emulator socket: so each side sees the other
//! at its advertised address and can answer. A direct path is one more socket whose packets go
//! through a twin of the link's model, with the same seed, to a fixed target: the network as it
//! would be without an overlay, not slowed by the overlay's own traffic.
//!
//! One thread per socket receives and asks the model; one thread sends what is due. Threads that
//! block are used because timers of an event loop count whole milliseconds; a condition variable
//! with a timeout is some 60 us late. How late packets left is measured and reported
//! ([`EmulatorHealth::lateness`]).

mod exchange;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tradewind_proto::units::{PopId, Timestamp};

use crate::clock::Clock;
use crate::link::{LinkCounters, LinkSpec};
use crate::world::{LinkId, World};
use exchange::{Entrance, Exchange};

/// Bytes of IPv4 and UDP headers in front of every payload: what links count beyond it.
pub const IP_UDP_HEADERS: usize = 28;

/// How long a receiving thread waits before it looks whether it should end.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Asked of the kernel for every socket; it may give less.
const SOCKET_BUFFER: usize = 4 << 20;

/// The running emulator; its threads end with [`Self::stop`] or when it is dropped.
pub struct Emulator {
    exchange: Arc<Exchange>,
    /// The advertised address of each PoP.
    addresses: BTreeMap<PopId, SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

/// What the emulator saw of one direction of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkReport {
    /// From, to.
    pub link: LinkId,
    /// What it did with the overlay's packets.
    pub counters: LinkCounters,
}

/// What the emulator counted in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmulatorReport {
    /// Every direction of every link.
    pub links: Vec<LinkReport>,
    /// Whether to trust that.
    pub health: EmulatorHealth,
}

/// What the emulator saw that no link accounts for, and how late it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmulatorHealth {
    /// Packets of the overlay between PoPs that have no link.
    pub no_link: u64,
    /// Packets from sockets that are no relay's.
    pub strays: u64,
    /// Packets for relays that are dead.
    pub to_the_dead: u64,
    /// Packets dropped because too much was under way; if not 0, the machine is too slow.
    pub overflow: u64,
    /// How late packets left: median, 99 % and most.
    pub lateness: [Duration; 3],
}

impl Emulator {
    /// Opens a socket for every PoP of `world` and begins to carry packets.
    ///
    /// # Errors
    ///
    /// Sockets or threads that the system refuses.
    pub fn start(world: &World, clock: Clock) -> io::Result<Self> {
        let mut sockets = Vec::with_capacity(world.pops.len());
        for _ in &world.pops {
            sockets.push(Arc::new(open_socket()?));
        }
        let mut addresses = BTreeMap::new();
        for (pop, socket) in world.pops.iter().zip(&sockets) {
            addresses.insert(pop.id.clone(), socket.local_addr()?);
        }
        let exchange = Arc::new(Exchange::new(world, sockets.clone(), clock));
        let mut emulator = Self { exchange, addresses, threads: Vec::new() };
        let sender = emulator.exchange.clone();
        emulator.spawn("emulator", move || sender.send_what_is_due())?;
        for (pop, socket) in sockets.into_iter().enumerate() {
            emulator.receive(socket, Entrance::Relay { pop })?;
        }
        Ok(emulator)
    }

    /// What the relay at `pop` should advertise.
    pub fn address(&self, pop: &PopId) -> Option<SocketAddr> {
        self.addresses.get(pop).copied()
    }

    /// From now on `socket` is the relay at `pop`; `None`: it is dead.
    pub fn attach(&self, pop: &PopId, socket: Option<SocketAddr>) {
        self.exchange.attach(pop, socket);
    }

    /// A direct path: what is sent to the address returned arrives at `target` as if sent over the
    /// link without an overlay. `None` when the world has no such link. Paths over the same link
    /// share its capacity.
    ///
    /// # Errors
    ///
    /// Sockets or threads that the system refuses.
    pub fn direct_path(
        &mut self,
        link: &LinkId,
        target: SocketAddr,
    ) -> io::Result<Option<SocketAddr>> {
        let Some(model) = self.exchange.direct_model(link) else { return Ok(None) };
        let socket = Arc::new(open_socket()?);
        let address = socket.local_addr()?;
        self.receive(socket.clone(), Entrance::Direct { model, socket, target })?;
        Ok(Some(address))
    }

    /// Cuts or restores a link, for the overlay and for direct paths.
    pub fn set_up(&self, link: &LinkId, up: bool) {
        self.exchange.with_models(link, |model| model.set_up(up));
    }

    /// Changes how a link behaves, for the overlay and for direct paths.
    pub fn set(&self, link: &LinkId, spec: &LinkSpec) {
        self.exchange.with_models(link, |model| model.set(spec.clone()));
    }

    /// The traces of all links begin at `at`.
    pub fn start_traces(&self, at: Timestamp) {
        self.exchange.with_all_models(|model| model.start_traces(at));
    }

    /// What was counted so far.
    pub fn report(&self) -> EmulatorReport {
        self.exchange.report()
    }

    /// Ends all threads; packets under way are lost.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        self.exchange.stop();
        for thread in self.threads.drain(..) {
            // A panic has printed its message already; there is nobody to hand it to.
            let _ = thread.join();
        }
    }

    fn receive(&mut self, socket: Arc<UdpSocket>, entrance: Entrance) -> io::Result<()> {
        let exchange = self.exchange.clone();
        self.spawn("emulator-socket", move || exchange.receive(&socket, &entrance))
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.join();
    }
}

/// A UDP socket on loopback with large buffers that wakes up now and then.
pub(crate) fn open_socket() -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.set_read_timeout(Some(STOP_CHECK))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
