//! The link-state database: the newest that each relay said of itself.
//!
//! Membership is this database: who has a full statement here is a member. Signatures and
//! certificates were verified by the caller; what is decided here is which statement is newer,
//! whose name collides, who has fallen silent, and (with a [`Cursor`] per neighbour) which
//! statements a neighbour lacks.

mod by_key;
mod exchange;
mod member;
mod stated;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tradewind_proto::control::DigestEntry;
use tradewind_proto::statement::{Body, SignedStatement, Statement};
use tradewind_proto::units::{Incarnation, PopId, PopKey, Timestamp};

use by_key::ByKey;
pub use exchange::{Cursor, Digests};
pub use member::{HeldLink, Labels, Member};
pub(crate) use stated::{Stated, same};

/// The most members of one overlay, as one relay holds them.
pub const MAX_MEMBERS: usize = 4_096;
/// A member whose last full statement is older than this has left: three that it should have sent.
pub const SILENCE: Duration = Duration::from_secs(180);
/// How long the number of a departed member's last statement is remembered, so that relays which
/// forget it a little later don't hand it back to those that already did.
const MEMORY_OF_DEPARTED: Duration = Duration::from_secs(3_600);

/// Everybody's newest link state, as one relay holds it. At most [`MAX_MEMBERS`] members.
#[derive(Clone, Debug)]
pub struct Lsdb {
    own: PopId,
    members: BTreeMap<PopKey, Member>,
    /// What digests say of each member, by the version with which its newest statement came: small
    /// beside the members, as it is looked at far more often.
    news: BTreeMap<u64, DigestEntry>,
    /// That version, by member.
    versions: ByKey<u64>,
    /// Last statements of those that expired. At most [`MAX_MEMBERS`], the oldest leave first.
    departed: BTreeMap<PopKey, Departed>,
    /// Grows with each accepted statement and each expiry.
    version: u64,
    /// The version when somebody joined or left last.
    membership: u64,
    /// The version when somebody joined or left last, or a link began or ceased to carry packets.
    topology: u64,
}

#[derive(Clone, Copy, Debug)]
struct Departed {
    last: (Incarnation, u32),
    at: Timestamp,
}

/// What an accepted statement changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The origin was not a member before.
    pub joined: bool,
    /// The origin started anew.
    pub restarted: bool,
    /// A link appeared, left, or differs in what was measured.
    pub links: bool,
    /// A link that carried packets no longer does: recompute now, don't wait for more.
    pub down: bool,
    /// Services, policies or labels differ, or whether it is draining.
    pub node: bool,
}

impl Change {
    /// Whether routes may come out differently.
    pub fn is_visible(self) -> bool {
        self.joined || self.restarted || self.links || self.node
    }
}

/// Why a statement was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// As new a statement, or a newer one, is held.
    #[error("statement {seq} of {origin} is stale")]
    Stale {
        /// Who said it.
        origin: PopId,
        /// Its number.
        seq: u32,
    },
    /// A delta whose full statement is not held; the digest will ask for it.
    #[error("a delta of {origin} builds on statement {base}, which is not held")]
    UnknownBase {
        /// Who said it.
        origin: PopId,
        /// The full statement it builds on.
        base: u32,
    },
    /// Two names have the same four-byte key.
    #[error("{refused} can't join: its name collides with that of {held} in packets; rename it")]
    KeyCollision {
        /// The member that stays.
        held: PopId,
        /// The relay refused.
        refused: PopId,
    },
    /// Another relay was started under our name later than we were: this one must stop.
    #[error("another relay was started as {name} (incarnation {}, ours is {})", theirs.0, ours.0)]
    OwnName {
        /// The name.
        name: PopId,
        /// When we started.
        ours: Incarnation,
        /// When it started.
        theirs: Incarnation,
    },
    /// There are [`MAX_MEMBERS`] already.
    #[error("{origin} can't join: the overlay has {MAX_MEMBERS} members already")]
    Full {
        /// The relay refused.
        origin: PopId,
    },
}

impl Lsdb {
    /// A database without members. The relay inserts its own statements like all others, and
    /// first of all.
    pub fn new(own: PopId) -> Self {
        Self {
            own,
            members: BTreeMap::new(),
            news: BTreeMap::new(),
            versions: ByKey::default(),
            departed: BTreeMap::new(),
            version: 0,
            membership: 0,
            topology: 0,
        }
    }

    /// The relay that keeps this database.
    pub fn own(&self) -> &PopId {
        &self.own
    }

    /// Takes a statement whose signature and certificate the caller has verified, with its links in
    /// the order of neighbours, as decoding leaves them. `labels` are those of the origin's
    /// certificate; a delta leaves those held as they are.
    pub fn insert(
        &mut self,
        signed: SignedStatement,
        statement: Arc<Statement>,
        labels: &Labels,
        now: Timestamp,
    ) -> Result<Change, Rejected> {
        let key = statement.origin.key();
        self.refuse_departed(&statement)?;
        let version = self.version + 1;
        let said = Arc::clone(&statement);
        let taken = match self.members.get(&key) {
            Some(held) => {
                self.refuse_old(held, &statement)?;
                let held = self.members.get_mut(&key);
                held.and_then(|held| held.take(signed, said, labels, version, now))
            }
            None => {
                let member = Member::new(signed, said, labels, version, now);
                member.map(|member| self.admit(member)).transpose()?
            }
        };
        let Some(change) = taken else {
            let Body::Delta { base, .. } = statement.body else {
                unreachable!("only a delta has a base that can be unknown")
            };
            return Err(Rejected::UnknownBase { origin: statement.origin.clone(), base });
        };
        self.version = version;
        if change.joined {
            self.membership = version;
        }
        if let Some(before) = self.versions.insert(key, version) {
            self.news.remove(&before);
        }
        if let Some(member) = self.members.get(&key) {
            self.topology = self.topology.max(member.turned());
            self.news.insert(version, exchange::entry(member));
        }
        Ok(change)
    }

    /// Statements of a departed member which are no newer than the last one held.
    fn refuse_departed(&self, statement: &Statement) -> Result<(), Rejected> {
        let stale = || Rejected::Stale { origin: statement.origin.clone(), seq: statement.seq };
        match self.departed.get(&statement.origin.key()) {
            Some(gone) if (statement.incarnation, statement.seq) <= gone.last => Err(stale()),
            _ => Ok(()),
        }
    }

    fn refuse_old(&self, held: &Member, statement: &Statement) -> Result<(), Rejected> {
        let Statement { origin, incarnation, seq, .. } = statement;
        if held.id() != origin {
            let (held, refused) = (held.id().clone(), origin.clone());
            return Err(Rejected::KeyCollision { held, refused });
        }
        if *origin == self.own && *incarnation > held.incarnation() {
            let (name, ours) = (origin.clone(), held.incarnation());
            return Err(Rejected::OwnName { name, ours, theirs: *incarnation });
        }
        if (*incarnation, *seq) <= (held.incarnation(), held.newest_seq()) {
            return Err(Rejected::Stale { origin: origin.clone(), seq: *seq });
        }
        Ok(())
    }

    fn admit(&mut self, member: Member) -> Result<Change, Rejected> {
        if self.members.len() >= MAX_MEMBERS {
            return Err(Rejected::Full { origin: member.id().clone() });
        }
        self.departed.remove(&member.key());
        self.members.insert(member.key(), member);
        Ok(Change { joined: true, links: true, node: true, ..Change::default() })
    }

    /// Removes the members whose last full statement is older than [`SILENCE`] (never ourselves)
    /// and returns their names.
    pub fn expire(&mut self, now: Timestamp) -> Vec<PopId> {
        self.departed.retain(|_, gone| now.since(gone.at) < MEMORY_OF_DEPARTED);
        let own = self.own.key();
        let silent =
            |member: &Member| member.key() != own && now.since(member.full_heard_at()) >= SILENCE;
        let gone: Vec<PopKey> =
            self.members.values().filter(|member| silent(member)).map(Member::key).collect();
        gone.into_iter().filter_map(|key| self.forget(key, now)).collect()
    }

    fn forget(&mut self, key: PopKey, now: Timestamp) -> Option<PopId> {
        let member = self.members.remove(&key)?;
        self.versions.remove(&key).map(|version| self.news.remove(&version));

        self.version += 1;
        (self.membership, self.topology) = (self.version, self.version);
        let last = (member.incarnation(), member.newest_seq());
        self.departed.insert(key, Departed { last, at: now });
        if self.departed.len() > MAX_MEMBERS {
            let oldest = self.departed.iter().min_by_key(|(_, gone)| gone.at).map(|(key, _)| *key);
            self.departed.remove(&oldest?);
        }
        Some(member.id().clone())
    }

    /// The member that packets call `key`.
    pub fn member(&self, key: PopKey) -> Option<&Member> {
        self.members.get(&key)
    }

    /// All members, ourselves included, by key.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// Grows with every accepted statement and every expiry.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// [`Self::version`] when somebody joined or left last.
    pub fn membership(&self) -> u64 {
        self.membership
    }

    /// Members of whom something came after `version`.
    pub fn changed_since(&self, version: u64) -> impl Iterator<Item = &Member> {
        self.news.range(version + 1..).filter_map(|(_, entry)| self.member(entry.origin))
    }
}

#[cfg(test)]
mod tests;
