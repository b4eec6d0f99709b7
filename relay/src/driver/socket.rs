//! Local UDP: sockets that are read, and those that flows leave from.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tradewind_proto::units::FlowId;

use super::Event;

/// What sockets ask the kernel for; less is warned about once.
pub const WANTED_BUFFER: usize = 4 << 20;
/// Enough for a flow's own socket: there may be ten thousand.
const FLOW_BUFFER: usize = 512 << 10;
/// The largest UDP payload.
const MAX_PAYLOAD: usize = 65_507;

/// A bound UDP socket with buffers of `buffer` bytes, and what the kernel really gave to receive.
pub fn bind(address: SocketAddr, buffer: usize) -> std::io::Result<(std::net::UdpSocket, usize)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One wildcard socket serves both; where the host has no IPv4 mapping that is no error.
        let _ = socket.set_only_v6(false);
    }
    socket.set_nonblocking(true)?;
    // The kernel cuts these to its maximum; what came out is read back.
    let _ = socket.set_recv_buffer_size(buffer);
    let _ = socket.set_send_buffer_size(buffer);
    socket.bind(&address.into())?;
    // Linux reports twice what was set, for its own bookkeeping.
    let granted = socket.recv_buffer_size()? / if cfg!(target_os = "linux") { 2 } else { 1 };
    Ok((socket.into(), granted))
}

thread_local! {
    /// Where packets are received before a copy of the right size is made: one for all sockets of
    /// a thread, since thousands of flows with room for the largest packet each would fill memory.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_PAYLOAD + 1]);
}

/// A socket with the task that reads it.
pub struct Port {
    socket: Rc<UdpSocket>,
    task: AbortHandle,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Port {
    /// Reads `socket`, turning each packet into an event.
    pub fn start(
        socket: Rc<UdpSocket>,
        events: mpsc::Sender<Event>,
        event: impl Fn(SocketAddr, Bytes) -> Event + 'static,
    ) -> Self {
        let reader = socket.clone();
        let task = tokio::task::spawn_local(async move {
            loop {
                // An error here is ICMP's answer to an earlier packet; the socket itself is sound.
                let _ = reader.readable().await;
                let received = SCRATCH.with_borrow_mut(|scratch| {
                    let (len, from) = reader.try_recv_from(scratch)?;
                    std::io::Result::Ok((Bytes::copy_from_slice(&scratch[..len]), from))
                });
                if let Ok((payload, from)) = received
                    && events.send(event(from, payload)).await.is_err()
                {
                    return;
                }
            }
        });
        Self { socket, task: task.abort_handle() }
    }

    /// The socket, for another to read.
    pub fn socket(&self) -> Rc<UdpSocket> {
        self.socket.clone()
    }

    /// Sends `payload`, to `to` unless the socket is connected. It asks the kernel itself: tokio
    /// takes a socket for full until the reactor has seen it, and a flow's first packet would be
    /// lost.
    pub fn send(&self, payload: &[u8], to: Option<SocketAddr>) -> std::io::Result<()> {
        let socket = SockRef::from(&*self.socket);
        let send = || match to {
            Some(to) => socket.send_to(payload, &to.into()),
            None => socket.send(payload),
        };
        // A refusal is ICMP's answer to an earlier packet: this one has not been tried yet.
        let sent = match send() {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => send(),
            sent => sent,
        };
        sent.map(drop)
    }
}

/// The sockets that flows leave from: one each, for as long as the flow lives.
#[derive(Default)]
pub struct Egresses {
    ports: HashMap<FlowId, Port>,
}

impl Egresses {
    /// Sends a payload of `flow` to `target`, from the flow's own socket.
    pub fn deliver(
        &mut self,
        flow: FlowId,
        target: SocketAddr,
        payload: &[u8],
        events: &mpsc::Sender<Event>,
    ) -> std::io::Result<()> {
        let port = match self.ports.entry(flow) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let socket = connect(target)?;
                let event = move |_, payload| Event::Egress { flow, payload };
                entry.insert(Port::start(Rc::new(socket), events.clone(), event))
            }
        };
        port.send(payload, None)
    }

    /// The flow ended.
    pub fn close(&mut self, flow: FlowId) {
        self.ports.remove(&flow);
    }
}

/// A socket that talks to `target` only, so that strangers can't answer into a flow.
fn connect(target: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let (socket, _) = bind(any, FLOW_BUFFER)?;
    socket.connect(target)?;
    UdpSocket::from_std(socket)
}
