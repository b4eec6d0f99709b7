//! What `flows` shows: one flow as data, and the record of the paths that its packets took.

use std::net::SocketAddr;
use std::time::Duration;

use tradewind_proto::packet::{Path, RefuseReason};
use tradewind_proto::units::{Class, FlowId, PolicyId, PopKey, Redundancy, ServiceName, Timestamp};

use super::TunnelId;
use super::counters::{DropCounts, DropReason};

/// The most distinct paths of arrivals that a flow remembers.
pub const MAX_RECORDED_PATHS: usize = 4;

/// One flow as this relay sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowInfo {
    /// Its number in the overlay at present: it changes when the flow is reset or moves.
    pub id: FlowId,
    /// Which end this relay is.
    pub end: FlowEnd,
    /// The service.
    pub service: ServiceName,
    /// Which port of the range.
    pub port_offset: u16,
    /// The relay at the other end; `None` while no instance is found.
    pub peer: Option<PopKey>,
    /// How far it has come.
    pub state: FlowState,
    /// Its class.
    pub class: Class,
    /// The policy that binds it.
    pub policy: PolicyId,
    /// How many copies travel.
    pub redundancy: Redundancy,
    /// The deadline as configured.
    pub deadline: Duration,
    /// The deadline in use: longer where no packet could meet the configured one.
    pub deadline_used: Duration,
    /// What the operator should know.
    pub warnings: Vec<FlowWarning>,
    /// The path of the last packet sent.
    pub path_tx: Option<Path>,
    /// The path of its copy, if it had one.
    pub copy_tx: Option<Path>,
    /// The last few distinct paths by which packets came, the audit trail.
    pub paths_rx: Vec<RecordedPath>,
    /// Users' packets put into the overlay.
    pub packets_tx: u64,
    /// Their bytes.
    pub bytes_tx: u64,
    /// Users' packets that came out of the overlay.
    pub packets_rx: u64,
    /// Their bytes.
    pub bytes_rx: u64,
    /// Why the last packet of a user was not put into the overlay; `None`: it was.
    pub blocked: Option<DropReason>,
    /// What was dropped, by reason.
    pub drops: DropCounts,
    /// Times that it moved to another instance.
    pub reopened: u32,
    /// Times that its egress had forgotten it.
    pub reset: u32,
    /// Time since it began.
    pub age: Duration,
    /// Time since its last packet, in either direction.
    pub idle: Duration,
}

/// Which end of a flow this relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEnd {
    /// The flow enters here.
    Ingress {
        /// By this tunnel.
        tunnel: TunnelId,
        /// From this local program.
        source: SocketAddr,
    },
    /// The service is here.
    Egress,
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// No relay is chosen for it (yet).
    Choosing,
    /// Under way; the egress has not answered yet.
    Opening,
    /// Both ends know it.
    Open,
    /// The egress refused it: it tries again at the time stated.
    Refused {
        /// Why.
        reason: RefuseReason,
        /// When packets are sent again.
        until: Timestamp,
    },
}

/// What an operator should know of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowWarning {
    /// No packet could meet the configured deadline.
    #[error("the deadline of {configured:?} is too short for the path; {used:?} is used")]
    DeadlineStretched {
        /// As configured.
        configured: Duration,
        /// In use.
        used: Duration,
    },
    /// The flow wants two copies and gets one, as there is no second way for the other.
    #[error("there is no pair of node-disjoint paths: packets travel once")]
    NoPair,
}

/// A path by which packets came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedPath {
    /// The PoPs.
    pub path: Path,
    /// Packets, fragments and copies that came by it.
    pub packets: u64,
    /// When the last one came.
    pub last_at: Timestamp,
}

/// The distinct paths of late, at most [`MAX_RECORDED_PATHS`]: the one unused longest makes room.
#[derive(Clone, Debug, Default)]
pub(super) struct PathLog {
    paths: Vec<RecordedPath>,
}

impl PathLog {
    pub(super) fn record(&mut self, path: &Path, now: Timestamp) {
        let known = self.paths.iter_mut().find(|known| known.path == *path);
        if let Some(known) = known {
            known.packets += 1;
            known.last_at = now;
            return;
        }
        let fresh = RecordedPath { path: *path, packets: 1, last_at: now };
        if self.paths.len() < MAX_RECORDED_PATHS {
            self.paths.push(fresh);
        } else if let Some(oldest) = self.paths.iter_mut().min_by_key(|known| known.last_at) {
            *oldest = fresh;
        }
    }

    /// The path of the last arrival.
    pub(super) fn latest(&self) -> Option<&Path> {
        self.paths.iter().max_by_key(|known| known.last_at).map(|known| &known.path)
    }

    pub(super) fn paths(&self) -> &[RecordedPath] {
        &self.paths
    }
}
