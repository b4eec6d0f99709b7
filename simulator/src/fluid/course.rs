//! The way of a flow's packets through the relays as they stand now.

use tradewind_proto::link::Liveness;
use tradewind_proto::packet::Path;
use tradewind_proto::units::{PolicyId, PopKey};

use super::net::Net;

/// The links that packets cross which are sent now, and what ends their way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Course {
    /// As the packets have it in the end.
    pub(super) path: Path,
    /// The pipes that they enter, in order.
    pub(super) pipes: Vec<usize>,
    pub(super) fate: Fate,
}

/// How a way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// At the egress.
    Through,
    /// In the last pipe, of which its sender does not know yet that it is dead.
    Swallowed,
    /// At a relay that knows no way on.
    Dropped,
}

impl Net {
    /// Follows `path`, as each relay on it sends packets of `bytes` bytes on (`node/forward.rs`).
    /// A twin, one of two copies, takes no detour.
    pub(super) fn course(&self, path: Path, policy: PolicyId, bytes: usize, twin: bool) -> Course {
        let mut course = Course { path, pipes: Vec::new(), fate: Fate::Through };
        while let Some(next) = course.path.next() {
            let here = course.path.here();
            let Some((host, port)) = self.towards(here, next) else {
                course.fate = Fate::Dropped;
                return course;
            };
            let trusted = |port: usize| {
                let port = &self.hosts[host].ports[port];
                let state = port.watch.state();
                port.line.is_some() && matches!(state, Liveness::Up | Liveness::Starting)
            };
            let mut port = port;
            if !trusted(port) && !twin {
                let tables = &self.hosts[host].tables;
                let detour = tables.detour(&course.path, policy, bytes);
                let other = detour.and_then(|path| {
                    let (_, port) = self.towards(here, path.next()?)?;
                    trusted(port).then_some((path, port))
                });
                if let Some((path, other)) = other {
                    (course.path, port) = (path, other);
                }
            }
            let entry = &self.hosts[host].ports[port];
            let known_dead = entry.line.is_none() || entry.watch.state() == Liveness::Down;
            let Some(onward) = course.path.advanced().filter(|_| !known_dead) else {
                course.fate = Fate::Dropped;
                return course;
            };
            course.pipes.push(entry.out);
            course.path = onward;
            let there = &self.hosts[entry.peer];
            let there_knows = there.ports[entry.mirror].line == entry.line;
            if !self.pipes[entry.out].up || there.control.is_none() || !there_knows {
                course.fate = Fate::Swallowed;
                return course;
            }
        }
        course
    }

    fn towards(&self, here: PopKey, next: PopKey) -> Option<(usize, usize)> {
        let host = *self.by_key.get(&here)?;
        self.hosts[host].control.as_ref()?;
        Some((host, *self.hosts[host].port_of.get(&next)?))
    }
}
