//! How large a UDP payload the route to a peer takes.

use std::net::{SocketAddr, ToSocketAddrs};

use super::socket::bind;
use super::transport::{DEFAULT_MTU, SMALLEST_MTU};

/// The UDP payload to use where the configuration names none: what the routes to `peers` take, as
/// far as the kernel knows, at most [`DEFAULT_MTU`].
pub fn payload(peers: &[String]) -> u16 {
    let routes = peers.iter().filter_map(|peer| peer.to_socket_addrs().ok()).flatten();
    routes.filter_map(of_route).min().unwrap_or(DEFAULT_MTU).clamp(SMALLEST_MTU, DEFAULT_MTU)
}

fn of_route(remote: SocketAddr) -> Option<u16> {
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let (socket, _) = bind(any.parse().ok()?, 0).ok()?;
    socket.connect(remote).ok()?;
    let (mtu, headers) = match remote {
        SocketAddr::V4(_) => (rustix::net::sockopt::ip_mtu(&socket).ok()?, 20 + 8),
        SocketAddr::V6(_) => (rustix::net::sockopt::ipv6_mtu(&socket).ok()?, 40 + 8),
    };
    Some(u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX))
}
