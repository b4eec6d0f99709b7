//! What the edge asks of the router's tables, and how an answer becomes the ways of one packet.

use std::time::Duration;

use tradewind_proto::packet::Path;
use tradewind_proto::units::{Class, PolicyId, PopKey, Redundancy, ServiceName};
use tradewind_router::tables::{RouteEntry, Tables};

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
pub(super) struct Terms {
    pub(super) class: Class,
    pub(super) deadline: Duration,
    pub(super) policy: PolicyId,
    pub(super) redundancy: Redundancy,
}

/// Where one packet goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ways {
    pub(super) path: Path,
    /// A second copy takes this one.
    pub(super) copy: Option<Path>,
    /// Of the faster of the two.
    pub(super) delay: Duration,
}

impl Ways {
    /// One path whose delay nobody knows, or that has none.
    pub(super) const fn over(path: Path) -> Self {
        Self { path, copy: None, delay: Duration::ZERO }
    }

    /// The ways from `own` to `to`; `None`: there is no allowed one.
    pub(super) fn find(
        routes: &impl Routes,
        terms: &Terms,
        own: PopKey,
        to: PopKey,
    ) -> Option<Self> {
        if own == to {
            return Path::new(&[own]).ok().map(Self::over);
        }
        let entry = routes.route(terms.policy, to)?;
        Some(match (&entry.pair, terms.redundancy) {
            (Some((a, b)), Redundancy::Disjoint) => {
                Self { path: a.path, copy: Some(b.path), delay: a.delay.min(b.delay) }
            }
            _ => Self { path: entry.primary.path, copy: None, delay: entry.primary.delay },
        })
    }

    /// The deadline to work with: the configured one, unless no packet could meet it.
    pub(super) fn stretch(&self, deadline: Duration) -> Duration {
        deadline.max(self.delay + DEADLINE_MARGIN)
    }
}
