//! The way of a packet through a relay: to the next link, around a silent one, or to the edge.
//!
//! Which way is right was decided by the ingress, and by the tables for detours; here it is followed.

use bytes::Bytes;
use tradewind_proto::link::{Liveness, Outbound, Refused};
use tradewind_proto::packet::{Header, PacketKind, Path};
use tradewind_proto::units::{PopKey, Timestamp};

use super::control::Trust;
use super::echo::{self, Echo};
use super::neighbour::{Line, Neighbour};
use super::{Node, Output};

/// Packets that this relay dropped between its links and its edge, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardCounters {
    /// Packets passed from link to link.
    pub forwarded: u64,
    /// Packets that ended here.
    pub ended: u64,
    /// Packets sent over a detour.
    pub detoured: u64,
    /// Packets sent again over a detour because their link fell silent.
    pub salvaged: u64,
    /// The packet's path does not stand at this relay.
    pub misrouted: u64,
    /// The next hop is no neighbour or down, and no detour is allowed.
    pub no_way: u64,
    /// The packet was too large for the next link, or for every detour around a link that is down.
    pub too_large: u64,
    /// The queue of the next link was full.
    pub queue_full: u64,
    /// The packet could not arrive in time any more.
    pub late: u64,
}

/// How a packet gets around a silent link.
pub(super) enum Detour {
    /// Not at all.
    None,
    /// There are ways around, but none that carries so large a packet.
    TooSmall,
    /// On this path.
    Over(Path),
}

impl<T: Trust> Node<T> {
    /// Sends what a silent link holds over detours. What has none stays while the link is only
    /// suspect, as it may be well again in time.
    pub(super) fn salvage(&mut self, key: PopKey, now: Timestamp) {
        let trusted: Vec<_> =
            self.neighbours.iter().filter(|(_, n)| n.trusted()).map(|(key, _)| key).collect();
        let (tables, own) = (&self.tables, self.own);
        let has_detour = |header: &Header, packet: usize| {
            let here = standing_at(header.path, own).filter(|_| header.kind != PacketKind::Twin);
            let detour = here.and_then(|here| tables.detour(&here, header.policy, packet));
            detour.and_then(|path| path.next()).is_some_and(|next| trusted.contains(&next))
        };
        let Some(neighbour) = self.neighbours.get_mut(key) else { return };
        let down = neighbour.line.link.liveness() == Liveness::Down;
        let wanted = |header: &Header, packet| down || has_detour(header, packet);
        let packets = neighbour.line.link.salvage(wanted, now);
        self.send_again(packets, now);
    }

    /// Looks once more at the links that are silent, as there may be a detour now.
    pub(super) fn salvage_all(&mut self, now: Timestamp) {
        let silent: Vec<_> =
            self.neighbours.iter().filter(|(_, n)| !n.trusted()).map(|(key, _)| key).collect();
        silent.into_iter().for_each(|key| self.salvage(key, now));
    }

    /// Sends what a connection that ended still holds.
    pub(super) fn resend(&mut self, mut line: Line, now: Timestamp) {
        let packets = line.link.salvage(|_, _| true, now);
        self.send_again(packets, now);
    }

    pub(super) fn send_again(&mut self, packets: Vec<Outbound>, now: Timestamp) {
        for Outbound { mut header, payload, .. } in packets {
            if let Some(path) = self.standing_here(header.path) {
                header.path = path;
                self.counters.salvaged += 1;
                self.dispatch(header, payload, now);
            }
        }
    }

    /// `path` with its cursor on this relay, if it is on it.
    pub(super) fn standing_here(&self, path: Path) -> Option<Path> {
        standing_at(path, self.own)
    }

    /// A packet came over a link: it goes on, or ends here.
    pub(super) fn handle_packet(&mut self, header: Header, payload: Bytes, now: Timestamp) {
        if header.path.here() != self.own {
            self.counters.misrouted += 1;
            return;
        }
        if header.path.next().is_some() {
            self.counters.forwarded += 1;
            if !self.tables.has_policy(header.policy) {
                self.control.want_policy(header.policy, now);
            }
        }
        self.dispatch(header, payload, now);
    }

    /// Sends a packet whose path stands here on its way: to the next relay, around it if its link
    /// is silent, or to the edge.
    pub(super) fn dispatch(&mut self, mut header: Header, payload: Bytes, now: Timestamp) {
        let Some(next) = header.path.next() else {
            self.counters.ended += 1;
            self.finish(header, payload, now);
            return;
        };
        let mut detour = Detour::None;
        if !self.trusts(next) && header.kind != PacketKind::Twin {
            detour = self.detour(&header, payload.len());
        }
        if let Detour::Over(path) = detour {
            header.path = path;
            self.counters.detoured += 1;
        }
        let Some(onward) = header.path.advanced() else { return };
        let next = onward.here();
        let alive = |neighbour: &&mut Neighbour| neighbour.line.link.liveness() != Liveness::Down;
        let Some(neighbour) = self.neighbours.get_mut(next).filter(alive) else {
            match detour {
                Detour::TooSmall => self.counters.too_large += 1,
                Detour::None | Detour::Over(_) => self.counters.no_way += 1,
            }
            return;
        };
        neighbour.note_use(onward, header.policy, now);
        header.path = onward;
        let rest = self.tables.delay_along(next, onward.ahead());
        let arrive_by = (now + header.budget.span()).minus(rest);
        let outbound = Outbound { header, payload, entered: now, arrive_by };
        match neighbour.line.link.send(outbound, now) {
            Ok(()) => {}
            Err(Refused::TooLarge) => self.counters.too_large += 1,
            Err(Refused::QueueFull) => self.counters.queue_full += 1,
            Err(Refused::Late) => self.counters.late += 1,
        }
        self.touch(next);
    }

    /// The way around the next hop of a packet whose payload has `payload` bytes.
    pub(super) fn detour(&self, header: &Header, payload: usize) -> Detour {
        let around = |packet| self.tables.detour(&header.path, header.policy, packet);
        match around(header.encoded_len() + payload) {
            Some(path) if path.next().is_some_and(|next| self.trusts(next)) => Detour::Over(path),
            Some(_) => Detour::None,
            None if around(0).is_some() => Detour::TooSmall,
            None => Detour::None,
        }
    }

    pub(super) fn trusts(&self, key: PopKey) -> bool {
        self.neighbours.get(key).is_some_and(Neighbour::trusted)
    }

    /// A packet's path ends here.
    pub(super) fn finish(&mut self, header: Header, payload: Bytes, now: Timestamp) {
        if header.kind == PacketKind::Signal {
            match echo::handle(&header, &payload, now) {
                Some(Echo::Answer(header, payload)) => {
                    self.dispatch(header, payload, now);
                    return;
                }
                Some(Echo::Pong(pong)) => {
                    self.outputs.push_back(Output::Pong(pong));
                    return;
                }
                None => {}
            }
        }
        let tables = self.tables.clone();
        self.edge.handle_packet(header, payload, &*tables, now);
    }
}

/// `path` with its cursor on `pop`, if that is on it.
fn standing_at(path: Path, pop: PopKey) -> Option<Path> {
    let cursor = path.pops().iter().position(|&other| other == pop)?;
    Path::at(path.pops(), cursor).ok()
}
