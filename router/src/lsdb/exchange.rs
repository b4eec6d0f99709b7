//! Which statements a neighbour lacks.
//!
//! Neighbours tell each other once a second, over a reliable stream, what they hold: all of it at
//! first, then what changed. So each keeps a small picture of what the other has, and passes on
//! only what is missing there. In a mesh of many links all neighbours of a relay see at once that it
//! lacks something: two of them, on whom all agree, pass it on, the others only should it still be
//! missing a digest later (compare the flooding reduction of RFC 9667).

use std::collections::BTreeMap;
use std::sync::Arc;

use tradewind_proto::control::DigestEntry;
use tradewind_proto::statement::{Body, SignedStatement, Statement};
use tradewind_proto::units::{Incarnation, PopKey};

use super::{ByKey, Lsdb, MAX_MEMBERS, Member};

/// What one neighbour was told and what it holds. A new one for each connection.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// [`Lsdb::version`] up to which it was told.
    told: u64,
    /// The newest it has of each origin. At most [`MAX_MEMBERS`] by its own word, and our members.
    theirs: ByKey<Held>,
    /// [`Lsdb::version`] up to which it was looked what it lacks.
    looked: u64,
    /// What it lacked and others should pass on, with what it had of that then. Members only.
    left: BTreeMap<PopKey, Option<Held>>,
    /// Whose statements we pass on to it, as far as that was looked at while links led where they led
    /// at [`Self::topology`]: they seldom change. Members only.
    passes_on: ByKey<bool>,
    /// [`Lsdb::topology`] at that time.
    topology: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    incarnation: Incarnation,
    full: u32,
    newest: u32,
}

impl Cursor {
    /// The neighbour sent us this statement, so it need not be sent back.
    pub fn heard(&mut self, statement: &Statement) {
        let (incarnation, newest) = (statement.incarnation, statement.seq);
        let full = match statement.body {
            Body::Full(_) => newest,
            Body::Delta { base, .. } => base,
        };
        self.note(statement.origin.key(), Held { incarnation, full, newest });
    }

    fn note(&mut self, origin: PopKey, held: Held) {
        let room = self.theirs.len() < MAX_MEMBERS;
        match self.theirs.get_mut(&origin) {
            Some(known) => *known = held.max(*known),
            None if room => drop(self.theirs.insert(origin, held)),
            None => {}
        }
    }
}

/// What neighbours have not been told. Those that were told the same share it.
#[derive(Debug)]
pub struct Digests<'a> {
    lsdb: &'a Lsdb,
    /// The latest, and up to which version its neighbour was told before.
    latest: Option<(u64, Arc<[DigestEntry]>)>,
}

impl Digests<'_> {
    /// As [`Lsdb::digest_since`].
    pub fn since(&mut self, cursor: &mut Cursor) -> Arc<[DigestEntry]> {
        let told = std::mem::replace(&mut cursor.told, self.lsdb.version);
        let same = self.latest.as_ref().filter(|(since, _)| *since == told);
        if let Some((_, digest)) = same {
            return Arc::clone(digest);
        }
        let news = self.lsdb.news.range(told + 1..).map(|(_, entry)| *entry);
        let digest: Arc<[DigestEntry]> = news.collect();
        self.latest = Some((told, Arc::clone(&digest)));
        digest
    }
}

impl Lsdb {
    /// What this relay holds, all of it.
    pub fn digest_all(&self) -> Vec<DigestEntry> {
        self.members().map(entry).collect()
    }

    /// What this relay holds and the neighbour has not been told. Empty if nothing changed.
    pub fn digest_since(&self, cursor: &mut Cursor) -> Arc<[DigestEntry]> {
        self.digests().since(cursor)
    }

    /// The same for one neighbour after the other.
    pub fn digests(&self) -> Digests<'_> {
        Digests { lsdb: self, latest: None }
    }

    /// The statements to pass on to the neighbour `peer` after its digest `theirs`, full ones before
    /// deltas: what it lacks, unless others should pass that on.
    ///
    /// They count as sent. Call it for each digest (an empty one too).
    pub fn lacking(
        &self,
        peer: PopKey,
        theirs: &[DigestEntry],
        cursor: &mut Cursor,
    ) -> Vec<SignedStatement> {
        let since = std::mem::replace(&mut cursor.looked, self.version);
        let left = std::mem::take(&mut cursor.left);
        if std::mem::replace(&mut cursor.topology, self.topology) != self.topology {
            cursor.passes_on.clear();
        }
        let neighbours = self.member(peer).map(Member::neighbours).unwrap_or_default();
        let mut statements = Vec::new();
        let mut look = |ours: &DigestEntry, cursor: &mut Cursor| {
            let had = cursor.theirs.get(&ours.origin).copied();
            if had.is_some_and(|had| had >= Held::from(ours)) {
                return;
            }
            let Some(member) = self.member(ours.origin) else { return };
            let waited = left.get(&ours.origin) == Some(&had);
            let may = || self.passes_on(member, peer, neighbours);
            if waited || *cursor.passes_on.entry(ours.origin).or_insert_with(may) {
                statements.extend(missing(member, cursor));
            } else {
                cursor.left.insert(ours.origin, had);
            }
        };
        let older = |origin: &PopKey| {
            let version = self.versions.get(origin).filter(|version| **version <= since)?;
            self.news.get(version)
        };
        theirs.iter().for_each(|told| cursor.note(told.origin, Held::from(told)));
        left.keys().filter_map(older).for_each(|ours| look(ours, cursor));
        self.news.range(since + 1..).for_each(|(_, ours)| look(ours, cursor));
        statements
    }

    /// Whether we are one of the two relays that pass on what `origin` says to `peer`, given its
    /// neighbours: of those that hear the origin itself, or else of all, the two whose keys come first
    /// after the origin's. Neighbours of the origin hear it themselves.
    fn passes_on(&self, origin: &Member, peer: PopKey, neighbours: &[PopKey]) -> bool {
        let own = self.own.key();
        if peer == origin.key() || neighbours.binary_search(&origin.key()).is_ok() {
            return origin.key() == own;
        }
        let rank = |key: PopKey| key.0.wrapping_sub(origin.key().0);
        let (mut sooner, mut hears, mut others_hear) = (0, false, false);
        for key in common(origin.neighbours(), neighbours) {
            others_hear |= key != own;
            hears |= key == own;
            sooner += usize::from(rank(key) < rank(own));
        }
        if !hears && !others_hear {
            sooner = neighbours.iter().filter(|key| rank(**key) < rank(own)).count();
        }
        (hears || !others_hear) && sooner < 2
    }

    /// The statements of one origin that the neighbour lacks, for what should not wait for a digest.
    /// They count as sent.
    pub fn lacking_of(&self, origin: PopKey, cursor: &mut Cursor) -> Vec<SignedStatement> {
        self.member(origin).into_iter().flat_map(|member| missing(member, cursor)).collect()
    }
}

/// What of a member's statements is newer than what the neighbour has. It counts as sent.
fn missing<'a>(
    member: &'a Member,
    cursor: &mut Cursor,
) -> impl Iterator<Item = SignedStatement> + use<'a> {
    let ours = Held::from(&entry(member));
    let theirs = cursor.theirs.get(&member.key()).copied();
    let lacks = theirs.is_none_or(|theirs| theirs < ours);
    let has_base = theirs
        .is_some_and(|theirs| (theirs.incarnation, theirs.full) == (ours.incarnation, ours.full));
    if lacks {
        cursor.theirs.insert(member.key(), ours);
    }
    let full = (lacks && !has_base).then(|| member.signed_full());
    let delta = member.signed_delta().filter(|_| lacks);
    full.into_iter().chain(delta).cloned()
}

/// What is in both, given that both are in order.
fn common(a: &[PopKey], b: &[PopKey]) -> impl Iterator<Item = PopKey> {
    let mut b = b.iter().copied().peekable();
    a.iter().copied().filter(move |key| {
        while b.next_if(|other| other < key).is_some() {}
        b.peek() == Some(key)
    })
}

impl From<&DigestEntry> for Held {
    fn from(entry: &DigestEntry) -> Self {
        let DigestEntry { incarnation, full, newest, .. } = *entry;
        Self { incarnation, full, newest }
    }
}

/// What a digest says of it.
pub(super) fn entry(member: &Member) -> DigestEntry {
    DigestEntry {
        origin: member.key(),
        incarnation: member.incarnation(),
        full: member.full_seq(),
        newest: member.newest_seq(),
    }
}
