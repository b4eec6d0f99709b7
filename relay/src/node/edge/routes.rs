//! What the edge asks of the router's tables, and how an answer becomes the ways of one packet.

use std::time::Duration;

use tradewind_proto::packet::Path;
use tradewind_proto::statement::LEAST_PACKET;
use tradewind_proto::units::{Class, PolicyId, PopKey, Redundancy, ServiceName};
use tradewind_router::tables::{Pairing, RouteEntry, Tables, Way};

/// What a path needs beyond its own delay: a deadline with less room than this is stretched.
pub const DEADLINE_MARGIN: Duration = Duration::from_millis(25);

/// The routes of this relay at one time. In the daemon: [`Tables`].
pub trait Routes {
    /// Whether routes under `policy` have been computed (even if there are none).
    fn has_policy(&self, policy: PolicyId) -> bool;

    /// How to get to `to`, another relay; `None`: no allowed way.
    fn route(&self, policy: PolicyId, to: PopKey) -> Option<&RouteEntry>;

    /// The relay (this one included) by which `service` is reached soonest, and its ports there.
    fn nearest(&self, policy: PolicyId, service: &ServiceName) -> Option<(PopKey, u16)>;

    /// Whether `pop` (maybe this relay) advertises `service` and can be reached.
    fn serves(&self, policy: PolicyId, pop: PopKey, service: &ServiceName) -> bool;
}

impl Routes for Tables {
    fn has_policy(&self, policy: PolicyId) -> bool {
        Self::has_policy(self, policy)
    }

    fn route(&self, policy: PolicyId, to: PopKey) -> Option<&RouteEntry> {
        Self::route(self, policy, to)
    }

    fn nearest(&self, policy: PolicyId, service: &ServiceName) -> Option<(PopKey, u16)> {
        Self::nearest(self, policy, service)
    }

    fn serves(&self, policy: PolicyId, pop: PopKey, service: &ServiceName) -> bool {
        Self::serves(self, policy, pop, service)
    }
}

/// What both ends of a flow do with its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How it is ranked.
    pub class: Class,
    /// How long after entering a packet is worth delivering.
    pub deadline: Duration,
    /// Which relays it may visit.
    pub policy: PolicyId,
    /// How many copies travel.
    pub redundancy: Redundancy,
}

impl Terms {
    /// Whether packets travel twice where they can.
    pub(super) fn is_disjoint(&self) -> bool {
        self.redundancy == Redundancy::Disjoint
    }
}

/// Where one packet goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ways {
    /// The ingress first.
    pub path: Path,
    /// A second copy takes this one.
    pub copy: Option<Path>,
    /// Of the faster of the two.
    pub delay: Duration,
    /// The largest packet that both carry.
    pub max_packet: usize,
    /// Why there is one path for a flow that wants two.
    pub alone: Option<Alone>,
}

/// Why there is no second path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// Nobody has looked for one yet.
    Unasked,
    /// There is none.
    Impossible,
}

impl Ways {
    /// One path of which nobody knows the delay and what it carries.
    pub(super) fn over(path: Path) -> Self {
        let max_packet = LEAST_PACKET.into();
        Self { path, copy: None, delay: Duration::ZERO, max_packet, alone: None }
    }

    /// No link at all: the other end is this relay, too.
    fn at_home(own: PopKey) -> Option<Self> {
        let path = Path::new(&[own]).ok()?;
        Some(Self { max_packet: usize::MAX, ..Self::over(path) })
    }

    /// The ways from `own` to `to`; `None`: there is no allowed one.
    pub fn find(routes: &impl Routes, terms: &Terms, own: PopKey, to: PopKey) -> Option<Self> {
        if own == to {
            return Self::at_home(own);
        }
        let entry = routes.route(terms.policy, to)?;
        Some(match (terms.redundancy, &entry.pair) {
            (Redundancy::Single, _) => Self::of(&entry.primary, None),
            (Redundancy::Disjoint, Pairing::Unasked) => {
                Self::of(&entry.primary, Some(Alone::Unasked))
            }
            (Redundancy::Disjoint, Pairing::Impossible) => {
                Self::of(&entry.primary, Some(Alone::Impossible))
            }
            (Redundancy::Disjoint, Pairing::Pair(a, b)) => Self {
                path: a.path,
                copy: Some(b.path),
                delay: a.delay.min(b.delay),
                max_packet: a.max_packet.min(b.max_packet),
                alone: None,
            },
        })
    }

    const fn of(way: &Way, alone: Option<Alone>) -> Self {
        let Way { path, delay, max_packet } = *way;
        Self { path, copy: None, delay, max_packet, alone }
    }

    /// The deadline to work with: the configured one, unless no packet could meet it.
    pub fn stretch(&self, deadline: Duration) -> Duration {
        deadline.max(self.delay + DEADLINE_MARGIN)
    }
}
