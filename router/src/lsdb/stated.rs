//! What a full statement and the newest delta on it say together.
//!
//! Both stay as they were decoded, which is shared by all that hold them, rather than being made into
//! lists of links that each would have to hold, and to move, by itself.

use std::sync::Arc;

use tradewind_proto::statement::{Body, ClockCoordinate, LinkStatement, NodeState, Statement};
use tradewind_proto::units::{Incarnation, PopId, PopKey};

/// A full statement and the newest delta on it. Links stand in the order of neighbours in both, as
/// decoding leaves them.
#[derive(Clone, Debug)]
pub(crate) struct Stated {
    full: Arc<Statement>,
    delta: Option<Arc<Statement>>,
}

impl Stated {
    /// A full statement alone; `None` if it is none.
    pub(crate) fn full(full: Arc<Statement>) -> Option<Self> {
        let Body::Full(state) = &full.body else { return None };
        debug_assert!(state.links.is_sorted_by(|a, b| a.to < b.to), "{:?}", state.links);
        Some(Self { full, delta: None })
    }

    /// This with a newer statement of the same relay; `None` if it is a delta on another full one.
    pub(crate) fn followed_by(&self, next: Arc<Statement>) -> Option<Self> {
        let Body::Delta { base, links, .. } = &next.body else { return Self::full(next) };
        debug_assert!(links.is_sorted_by(|a, b| a.to < b.to), "{links:?}");
        let follows = (next.incarnation, *base) == (self.incarnation(), self.full_seq());
        follows.then(|| Self { full: Arc::clone(&self.full), delta: Some(next) })
    }

    pub(crate) fn is_delta(&self) -> bool {
        self.delta.is_some()
    }

    pub(crate) fn origin(&self) -> &PopId {
        &self.full.origin
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.full.incarnation
    }

    pub(crate) fn full_seq(&self) -> u32 {
        self.full.seq
    }

    pub(crate) fn newest_seq(&self) -> u32 {
        self.delta.as_ref().unwrap_or(&self.full).seq
    }

    /// Of the full statement: clock and links may be older than [`Self::clock`] and [`Self::links`].
    pub(crate) fn state(&self) -> &NodeState {
        match &self.full.body {
            Body::Full(state) => state,
            Body::Delta { .. } => unreachable!("made of a full statement"),
        }
    }

    pub(crate) fn clock(&self) -> ClockCoordinate {
        match self.delta.as_deref() {
            Some(Statement { body: Body::Delta { clock, .. }, .. }) => *clock,
            _ => self.state().clock,
        }
    }

    /// What the delta adds and takes away.
    fn changes(&self) -> (&[LinkStatement], &[PopKey]) {
        match self.delta.as_deref() {
            Some(Statement { body: Body::Delta { links, removed, .. }, .. }) => (links, removed),
            _ => (&[], &[]),
        }
    }

    /// All links, in the order of neighbours.
    pub(crate) fn links(&self) -> impl Iterator<Item = &LinkStatement> + Clone {
        let (changes, removed) = self.changes();
        Merged { base: &self.state().links, changes }.filter(|link| !removed.contains(&link.to))
    }

    /// The link to `to`.
    pub(crate) fn link(&self, to: PopKey) -> Option<&LinkStatement> {
        let (changes, removed) = self.changes();
        if removed.contains(&to) {
            return None;
        }
        LinkStatement::find(changes, to).or_else(|| LinkStatement::find(&self.state().links, to))
    }

    /// Where links lead that are up, in order.
    pub(crate) fn neighbours(&self) -> impl Iterator<Item = PopKey> {
        self.links().filter(|link| link.up).map(|link| link.to)
    }
}

/// Whether two statements on a link say the same. Mostly they are one.
pub(crate) fn same(a: &LinkStatement, b: &LinkStatement) -> bool {
    std::ptr::eq(a, b) || a == b
}

/// Two lists in order as one; on a link of both the second says what counts.
#[derive(Clone)]
struct Merged<'a> {
    base: &'a [LinkStatement],
    changes: &'a [LinkStatement],
}

impl<'a> Iterator for Merged<'a> {
    type Item = &'a LinkStatement;

    fn next(&mut self) -> Option<&'a LinkStatement> {
        let Some((change, changes)) = self.changes.split_first() else {
            return self.base.split_off_first();
        };
        if self.base.first().is_some_and(|link| link.to < change.to) {
            return self.base.split_off_first();
        }
        if self.base.first().is_some_and(|link| link.to == change.to) {
            self.base = &self.base[1..];
        }
        self.changes = changes;
        Some(change)
    }
}
