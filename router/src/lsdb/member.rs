//! One member: its full statement, the newest delta on it, and what the two amount to.

use tradewind_proto::statement::{
    ClockCoordinate, LinkStatement, NodeState, Policy, SignedStatement,
};
use tradewind_proto::units::{Incarnation, PolicyId, PopId, PopKey, Timestamp};

use super::Change;

/// What a relay's certificate says of where it is and whose it is. Policies judge by nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Such as `EU`.
    pub region: Option<String>,
    /// Such as `DE`.
    pub country: Option<String>,
    /// Such as `hetzner`.
    pub provider: Option<String>,
}

/// An outgoing link of a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldLink {
    /// The newest that the member said of it.
    pub statement: LinkStatement,
    /// Since when it has been up, by our clock; for a link that is down: when that was heard.
    pub since: Timestamp,
}

/// The newest that one relay said of itself.
#[derive(Clone, Debug)]
pub struct Member {
    id: PopId,
    key: PopKey,
    incarnation: Incarnation,
    full: Full,
    full_heard_at: Timestamp,
    delta: Option<(u32, SignedStatement)>,
    clock: ClockCoordinate,
    /// Those of the full statement with the newest delta applied, by neighbour.
    links: Vec<HeldLink>,
    /// Where those lead that are up.
    neighbours: Vec<PopKey>,
    policies: Vec<PolicyId>,
    changed: u64,
    turned: u64,
}

/// A full statement, verified.
#[derive(Clone, Debug)]
pub(super) struct Full {
    pub(super) signed: SignedStatement,
    pub(super) seq: u32,
    pub(super) state: NodeState,
    pub(super) labels: Labels,
}

/// A delta on the full statement held, verified.
pub(super) struct Delta {
    pub(super) signed: SignedStatement,
    pub(super) seq: u32,
    pub(super) clock: ClockCoordinate,
    pub(super) links: Vec<LinkStatement>,
    pub(super) removed: Vec<PopKey>,
}

impl Member {
    pub(super) fn new(
        id: PopId,
        incarnation: Incarnation,
        full: Full,
        version: u64,
        now: Timestamp,
    ) -> Self {
        let key = id.key();
        let links = merged(&full.state.links, &[], &[], &[], now);
        Self {
            id,
            key,
            incarnation,
            full_heard_at: now,
            delta: None,
            clock: full.state.clock,
            neighbours: neighbours(&links),
            links,
            policies: full.state.policies.iter().map(Policy::id).collect(),
            full,
            changed: version,
            turned: version,
        }
    }

    /// Takes a newer full statement of the same or a later start.
    pub(super) fn replace(
        &mut self,
        incarnation: Incarnation,
        full: Full,
        version: u64,
        now: Timestamp,
    ) -> Change {
        let restarted = incarnation != self.incarnation;
        let before: &[HeldLink] = if restarted { &[] } else { &self.links };
        let links = merged(&full.state.links, &[], &[], before, now);
        let change = Change {
            restarted,
            node: restarted || node_differs(&self.full, &full),
            ..self.link_change(&links)
        };
        if self.full.state.policies != full.state.policies {
            self.policies = full.state.policies.iter().map(Policy::id).collect();
        }
        self.incarnation = incarnation;
        self.clock = full.state.clock;
        self.full_heard_at = now;
        self.delta = None;
        self.full = full;
        self.take(links, change, version)
    }

    /// Takes a newer delta on the full statement held.
    pub(super) fn apply(&mut self, delta: Delta, version: u64, now: Timestamp) -> Change {
        let Delta { signed, seq, clock, links, removed } = delta;
        let links = merged(&self.full.state.links, &links, &removed, &self.links, now);
        let change = self.link_change(&links);
        self.clock = clock;
        self.delta = Some((seq, signed));
        self.take(links, change, version)
    }

    fn take(&mut self, links: Vec<HeldLink>, change: Change, version: u64) -> Change {
        let neighbours = neighbours(&links);
        if neighbours != self.neighbours {
            (self.neighbours, self.turned) = (neighbours, version);
        }
        self.links = links;
        if change.is_visible() {
            self.changed = version;
        }
        change
    }

    /// How `next` differs from the links held.
    fn link_change(&self, next: &[HeldLink]) -> Change {
        let same = |(a, b): (&HeldLink, &HeldLink)| a.statement == b.statement;
        let links = self.links.len() != next.len() || !self.links.iter().zip(next).all(same);
        let still_up = |to| find(next, to).is_some_and(|held| held.statement.up);
        let lost = |held: &HeldLink| held.statement.up && !still_up(held.statement.to);
        Change { links, down: links && self.links.iter().any(lost), ..Change::default() }
    }

    /// Its name.
    pub fn id(&self) -> &PopId {
        &self.id
    }

    /// Its name in packets.
    pub fn key(&self) -> PopKey {
        self.key
    }

    /// Which start of it.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// What it says of itself. Its clock and links may be older than [`Self::clock`] and [`Self::links`].
    pub fn state(&self) -> &NodeState {
        &self.full.state
    }

    /// What its certificate says of it.
    pub fn labels(&self) -> &Labels {
        &self.full.labels
    }

    /// Its X.509 certificate (DER): with its key, later deltas are verified.
    pub fn certificate(&self) -> &[u8] {
        &self.full.state.certificate
    }

    /// Its clock, as last stated.
    pub fn clock(&self) -> ClockCoordinate {
        self.clock
    }

    /// Its outgoing links, as last stated, by neighbour.
    pub fn links(&self) -> &[HeldLink] {
        &self.links
    }

    /// Where its links lead that are up, in order.
    pub(super) fn neighbours(&self) -> &[PopKey] {
        &self.neighbours
    }

    /// Its outgoing link to `to`, as last stated.
    pub fn link(&self, to: PopKey) -> Option<&HeldLink> {
        find(&self.links, to)
    }

    /// The policies it defines, each with its id.
    pub fn policies(&self) -> impl Iterator<Item = (PolicyId, &Policy)> {
        self.policies.iter().copied().zip(&self.full.state.policies)
    }

    /// When its last full statement came, by our clock.
    pub fn full_heard_at(&self) -> Timestamp {
        self.full_heard_at
    }

    /// The number of the full statement held.
    pub fn full_seq(&self) -> u32 {
        self.full.seq
    }

    /// The number of the newest statement held.
    pub fn newest_seq(&self) -> u32 {
        self.delta.as_ref().map_or(self.full.seq, |(seq, _)| *seq)
    }

    /// [`super::Lsdb::version`] when something that routes depend on last changed.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// [`super::Lsdb::version`] when a link of it began or ceased to carry packets last.
    pub(super) fn turned(&self) -> u64 {
        self.turned
    }

    /// Its newest full statement, as it signed it.
    pub fn signed_full(&self) -> &SignedStatement {
        &self.full.signed
    }

    pub(super) fn signed_delta(&self) -> Option<&SignedStatement> {
        self.delta.as_ref().map(|(_, signed)| signed)
    }
}

fn node_differs(old: &Full, new: &Full) -> bool {
    old.labels != new.labels
        || old.state.services != new.state.services
        || old.state.policies != new.state.policies
        || old.state.draining != new.state.draining
}

fn neighbours(links: &[HeldLink]) -> Vec<PopKey> {
    links.iter().filter(|held| held.statement.up).map(|held| held.statement.to).collect()
}

fn find(links: &[HeldLink], to: PopKey) -> Option<&HeldLink> {
    let at = links.binary_search_by_key(&to, |held| held.statement.to).ok()?;
    links.get(at)
}

/// `base` with `changes` applied and `removed` taken out, sorted; of several statements on one
/// link the last counts. A link that was up `before` keeps the time since when.
fn merged(
    base: &[LinkStatement],
    changes: &[LinkStatement],
    removed: &[PopKey],
    before: &[HeldLink],
    now: Timestamp,
) -> Vec<HeldLink> {
    let mut links: Vec<LinkStatement> = Vec::with_capacity(base.len());
    for link in base.iter().chain(changes) {
        match links.binary_search_by_key(&link.to, |held| held.to) {
            Ok(at) => links[at] = *link,
            Err(at) => links.insert(at, *link),
        }
    }
    links.retain(|link| !removed.contains(&link.to));
    let since = |link: &LinkStatement| {
        let held = find(before, link.to).filter(|held| held.statement.up == link.up);
        held.map_or(now, |held| held.since)
    };
    links.into_iter().map(|statement| HeldLink { statement, since: since(&statement) }).collect()
}
