//! The configuration file of each relay of a world, as an operator would write it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;
use tradewind_proto::units::{Class, PopId, Redundancy};
use tradewind_relay::node::Mesh;

use crate::world::{MeshName, PolicyRule, Pop};

/// A relay's file; DESIGN section 8.
#[derive(Debug, Serialize)]
pub(super) struct RelayFile<'a> {
    pub(super) node: Node<'a>,
    pub(super) overlay: Overlay,
    pub(super) identity: Identity,
    pub(super) admin: Admin,
    pub(super) service: Vec<Service<'a>>,
    pub(super) tunnel: Vec<Tunnel<'a>>,
    pub(super) policy: Vec<&'a PolicyRule>,
}

#[derive(Debug, Serialize)]
pub(super) struct Node<'a> {
    id: &'a PopId,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<[f64; 2]>,
}

impl<'a> Node<'a> {
    pub(super) fn of(pop: &'a Pop) -> Self {
        Self { id: &pop.id, location: pop.location }
    }
}

/// Relays know each other by the emulator's sockets.
#[derive(Debug, Serialize)]
pub(super) struct Overlay {
    pub(super) listen: SocketAddr,
    pub(super) advertise: SocketAddr,
    pub(super) peers: Vec<SocketAddr>,
    #[serde(with = "MeshName")]
    pub(super) mesh: Mesh,
    pub(super) mtu: u16,
}

#[derive(Debug, Serialize)]
pub(super) struct Identity {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Debug, Serialize)]
pub(super) struct Admin {
    pub(super) listen: SocketAddr,
}

#[derive(Debug, Serialize)]
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
    pub(super) target: SocketAddr,
}

#[derive(Debug, Serialize)]
pub(super) struct Tunnel<'a> {
    pub(super) listen: SocketAddr,
    pub(super) service: String,
    pub(super) class: Class,
    pub(super) deadline: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<&'a str>,
    pub(super) redundancy: Redundancy,
}
