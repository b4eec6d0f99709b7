//! Which statements a neighbour lacks.
//!
//! Neighbours tell each other once a second, over a reliable stream, what they hold: all of it at
//! first, then what changed. So each keeps a small picture of what the other has, and passes on
//! only what is missing there.

use std::collections::BTreeMap;

use tradewind_proto::control::DigestEntry;
use tradewind_proto::statement::{Body, SignedStatement, Statement};
use tradewind_proto::units::{Incarnation, PopKey};

use super::{Lsdb, MAX_MEMBERS, Member};

/// What one neighbour was told and what it holds. A new one for each connection.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// [`Lsdb::version`] up to which it was told.
    told: u64,
    /// The newest it has of each origin. At most [`MAX_MEMBERS`] by its own word, and our members.
    theirs: BTreeMap<PopKey, Held>,
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

impl Lsdb {
    /// What this relay holds, all of it.
    pub fn digest_all(&self) -> Vec<DigestEntry> {
        self.members().map(entry).collect()
    }

    /// What this relay holds and the neighbour has not been told. Empty if nothing changed.
    pub fn digest_since(&self, cursor: &mut Cursor) -> Vec<DigestEntry> {
        let told = std::mem::replace(&mut cursor.told, self.version);
        self.members().filter(|member| member.version() > told).map(entry).collect()
    }

    /// The statements that the neighbour lacks after its digest `theirs`, full ones before deltas.
    ///
    /// They count as sent. Call it for each digest (an empty one too).
    pub fn lacking(&self, theirs: &[DigestEntry], cursor: &mut Cursor) -> Vec<SignedStatement> {
        for told in theirs {
            let DigestEntry { incarnation, full, newest, .. } = *told;
            cursor.note(told.origin, Held { incarnation, full, newest });
        }
        self.members().flat_map(|member| missing(member, cursor)).collect()
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
    let ours = held(member);
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

fn held(member: &Member) -> Held {
    let (full, newest) = (member.full_seq(), member.newest_seq());
    Held { incarnation: member.incarnation(), full, newest }
}

fn entry(member: &Member) -> DigestEntry {
    let Held { incarnation, full, newest } = held(member);
    DigestEntry { origin: member.key(), incarnation, full, newest }
}
