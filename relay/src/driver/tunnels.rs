//! The listeners of tunnels, over reloads: what is new is opened before anything is given up.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::{Context, anyhow};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::socket::{Port, WANTED_BUFFER, bind};
use super::{Event, in_use};
use crate::config::{PortRange, Tunnel};
use crate::node::edge::TunnelId;

/// The sockets of one tunnel, in the order of its ports.
pub type Sockets = Vec<Rc<UdpSocket>>;

/// Binds every port of every tunnel.
pub fn bind_all(tunnels: &[Tunnel]) -> anyhow::Result<Vec<Vec<std::net::UdpSocket>>> {
    tunnels.iter().map(|tunnel| tunnel.listen.addresses().map(bind_one).collect()).collect()
}

fn bind_one(address: SocketAddr) -> anyhow::Result<std::net::UdpSocket> {
    let bound = bind(address, WANTED_BUFFER);
    bound.map(|(socket, _)| socket).with_context(|| in_use("tunnel.listen", address, "udp"))
}

/// A bound socket for the runtime that this is called in.
pub fn register(socket: std::net::UdpSocket) -> std::io::Result<Rc<UdpSocket>> {
    UdpSocket::from_std(socket).map(Rc::new)
}

/// The tunnels of a relay, each under its number.
#[derive(Default)]
pub struct Tunnels {
    held: BTreeMap<TunnelId, (Tunnel, Vec<Port>)>,
    last_id: u32,
}

impl Tunnels {
    /// Opens the sockets of `wanted`; ports held already are shared. Whatever comes of it, nothing
    /// changes for the tunnels there are.
    pub fn open(&self, wanted: &[Tunnel]) -> anyhow::Result<Vec<Sockets>> {
        let held = self.held.values().flat_map(|(old, ports)| old.listen.addresses().zip(ports));
        // Port 0 is another one each time.
        let held: HashMap<_, _> = held.filter(|(address, _)| address.port() != 0).collect();
        let open = |address| match held.get(&address) {
            Some(port) => Ok(port.socket()),
            None => Ok(register(bind_one(address).map_err(|error| self.blame(address, error))?)?),
        };
        wanted.iter().map(|tunnel| tunnel.listen.addresses().map(open).collect()).collect()
    }

    /// Why `address` can't be had: a tunnel may hold its port on another address, such as a wildcard.
    fn blame(&self, address: SocketAddr, error: anyhow::Error) -> anyhow::Error {
        let port = PortRange { first: address, count: 1 };
        let mut held = self.held.values().map(|(old, _)| old.listen);
        match held.find(|held| held.overlaps(port)) {
            Some(own) => anyhow!(
                "tunnel.listen = \"{address}\" can't be bound while this relay itself listens on \
                 {own}; reload once without that tunnel, and again with the new one"
            ),
            None => error,
        }
    }

    /// Takes on `wanted`, with its sockets as opened. A tunnel that listens where one did before
    /// keeps that one's number; ports that no tunnel has any more are closed.
    pub fn replace(
        &mut self,
        wanted: &[Tunnel],
        opened: Vec<Sockets>,
        events: &mpsc::Sender<Event>,
    ) {
        let mut former = std::mem::take(&mut self.held);
        for (tunnel, sockets) in wanted.iter().zip(opened) {
            let mut numbers = former.iter();
            let same = numbers.find(|(_, (old, _))| old.listen == tunnel.listen).map(|(id, _)| *id);
            let kept = same.and_then(|id| Some((id, former.remove(&id)?.1)));
            let (id, ports) = kept.unwrap_or_else(|| {
                self.last_id += 1;
                let id = TunnelId(self.last_id);
                let listen = |(offset, socket)| listen(id, offset, socket, events);
                (id, (0..).zip(sockets).map(listen).collect())
            });
            self.held.insert(id, (tunnel.clone(), ports));
        }
    }

    /// A tunnel by its number.
    pub fn get(&self, id: TunnelId) -> Option<&Tunnel> {
        self.held.get(&id).map(|(tunnel, _)| tunnel)
    }

    /// All tunnels with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.held.iter().map(|(&id, (tunnel, _))| (id, tunnel))
    }

    /// Sends an answer; false: the kernel did not take it.
    pub fn answer(&self, tunnel: TunnelId, offset: u16, to: SocketAddr, payload: &[u8]) -> bool {
        let port = self.held.get(&tunnel).and_then(|(_, ports)| ports.get(usize::from(offset)));
        port.is_some_and(|port| port.send(payload, Some(to)).is_ok())
    }
}

fn listen(
    tunnel: TunnelId,
    offset: u16,
    socket: Rc<UdpSocket>,
    events: &mpsc::Sender<Event>,
) -> Port {
    let event = move |source, payload| Event::Tunnel { tunnel, offset, source, payload };
    Port::start(socket, events.clone(), event)
}
