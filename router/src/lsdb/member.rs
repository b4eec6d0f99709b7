//! One member: its full statement, the newest delta on it, and what the two amount to.

use std::sync::Arc;

use tradewind_proto::statement::{
    ClockCoordinate, LinkStatement, NodeState, Policy, SignedStatement, Statement,
};
use tradewind_proto::units::{Incarnation, PolicyId, PopId, PopKey, Timestamp};

use super::Change;
use super::stated::{Stated, same};

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
pub struct HeldLink<'a> {
    /// The newest that the member said of it.
    pub statement: &'a LinkStatement,
    /// Since when it has been up, by our clock; for a link that is down: when that was heard.
    pub since: Timestamp,
}

/// The newest that one relay said of itself.
#[derive(Clone, Debug)]
pub struct Member {
    key: PopKey,
    labels: Arc<Labels>,
    full: SignedStatement,
    full_heard_at: Timestamp,
    delta: Option<SignedStatement>,
    stated: Stated,
    /// That of `stated`, at hand: clocks are asked for at each measurement.
    clock: ClockCoordinate,
    /// Of each link.
    since: Vec<Timestamp>,
    /// Where those lead that are up.
    neighbours: Vec<PopKey>,
    policies: Vec<PolicyId>,
    changed: u64,
    turned: u64,
}

impl Member {
    /// Takes the first full statement; `None` if it is none.
    pub(super) fn new(
        signed: SignedStatement,
        statement: Arc<Statement>,
        labels: &Labels,
        version: u64,
        now: Timestamp,
    ) -> Option<Self> {
        let key = statement.origin.key();
        let stated = Stated::full(statement)?;
        Some(Self {
            key,
            labels: Arc::new(labels.clone()),
            full: signed,
            full_heard_at: now,
            delta: None,
            clock: stated.clock(),
            since: stated.links().map(|_| now).collect(),
            neighbours: stated.neighbours().collect(),
            policies: stated.state().policies.iter().map(Policy::id).collect(),
            stated,
            changed: version,
            turned: version,
        })
    }

    /// Takes a newer statement: a full one, of the same or a later start, or a delta on the full one
    /// held. `None`: it is a delta on another.
    pub(super) fn take(
        &mut self,
        signed: SignedStatement,
        statement: Arc<Statement>,
        labels: &Labels,
        version: u64,
        now: Timestamp,
    ) -> Option<Change> {
        let next = self.stated.followed_by(statement)?;
        let restarted = next.incarnation() != self.incarnation();
        let mut change = self.succeed(&next, restarted, now);
        if next.is_delta() {
            self.delta = Some(signed);
        } else {
            change.restarted = restarted;
            change.node = restarted
                || *self.labels != *labels
                || node_differs(self.stated.state(), next.state());
            if *self.labels != *labels {
                self.labels = Arc::new(labels.clone());
            }
            if self.stated.state().policies != next.state().policies {
                self.policies = next.state().policies.iter().map(Policy::id).collect();
            }
            (self.full, self.full_heard_at, self.delta) = (signed, now, None);
        }
        (self.clock, self.stated) = (next.clock(), next);
        if change.is_visible() {
            self.changed = version;
        }
        if change.links && !self.stated.neighbours().eq(self.neighbours.iter().copied()) {
            (self.neighbours, self.turned) = (self.stated.neighbours().collect(), version);
        }
        Some(change)
    }

    /// How the links of `next` differ from those held; since when they are up. A link that was up
    /// before keeps the time since when, unless the relay `restarted`.
    fn succeed(&mut self, next: &Stated, restarted: bool, now: Timestamp) -> Change {
        let mut before = self.links().peekable();
        let (mut links, mut down) = (false, false);
        let mut since = Vec::with_capacity(self.since.len());
        for link in next.links() {
            while let Some(gone) = before.next_if(|held| held.statement.to < link.to) {
                (links, down) = (true, down | gone.statement.up);
            }
            let held = before.next_if(|held| held.statement.to == link.to);
            links |= held.is_none_or(|held| !same(held.statement, link));
            down |= held.is_some_and(|held| held.statement.up && !link.up);
            let kept = held.filter(|held| held.statement.up == link.up && !restarted);
            since.push(kept.map_or(now, |held| held.since));
        }
        for gone in before {
            (links, down) = (true, down | gone.statement.up);
        }
        self.since = since;
        Change { links, down, ..Change::default() }
    }

    /// Its name.
    pub fn id(&self) -> &PopId {
        self.stated.origin()
    }

    /// Its name in packets.
    pub fn key(&self) -> PopKey {
        self.key
    }

    /// Which start of it.
    pub fn incarnation(&self) -> Incarnation {
        self.stated.incarnation()
    }

    /// What it says of itself. Its clock and links may be older than [`Self::clock`] and [`Self::links`].
    pub fn state(&self) -> &NodeState {
        self.stated.state()
    }

    /// What its certificate says of it.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Its X.509 certificate (DER): with its key, later deltas are verified.
    pub fn certificate(&self) -> &[u8] {
        &self.state().certificate
    }

    /// Its clock, as last stated.
    pub fn clock(&self) -> ClockCoordinate {
        self.clock
    }

    /// What it says of itself and its links.
    pub(crate) fn stated(&self) -> &Stated {
        &self.stated
    }

    /// What its certificate says of it, to share.
    pub(crate) fn shared_labels(&self) -> &Arc<Labels> {
        &self.labels
    }

    /// Its outgoing links, as last stated, by neighbour.
    pub fn links(&self) -> impl Iterator<Item = HeldLink<'_>> + Clone {
        let since = self.since.iter().copied();
        self.stated.links().zip(since).map(|(statement, since)| HeldLink { statement, since })
    }

    /// Where its links lead that are up, in order.
    pub(super) fn neighbours(&self) -> &[PopKey] {
        &self.neighbours
    }

    /// Its outgoing link to `to`, as last stated.
    pub fn link(&self, to: PopKey) -> Option<&LinkStatement> {
        self.stated.link(to)
    }

    /// The policies it defines, each with its id.
    pub fn policies(&self) -> impl Iterator<Item = (PolicyId, &Policy)> {
        self.policies.iter().copied().zip(&self.state().policies)
    }

    /// When its last full statement came, by our clock.
    pub fn full_heard_at(&self) -> Timestamp {
        self.full_heard_at
    }

    /// The number of the full statement held.
    pub fn full_seq(&self) -> u32 {
        self.stated.full_seq()
    }

    /// The number of the newest statement held.
    pub fn newest_seq(&self) -> u32 {
        self.stated.newest_seq()
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
        &self.full
    }

    pub(super) fn signed_delta(&self) -> Option<&SignedStatement> {
        self.delta.as_ref()
    }
}

fn node_differs(old: &NodeState, new: &NodeState) -> bool {
    old.services != new.services || old.policies != new.policies || old.draining != new.draining
}
