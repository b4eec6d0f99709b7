//! Which flows have been silent longest: an order by time that packets do not keep up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use tradewind_proto::units::Timestamp;

/// The key of a flow, and whom the flow belongs to: a tunnel or an ingress, which may have so many.
pub(super) trait Member: Copy + Ord + Debug {
    type Group: Copy + Ord + Debug;

    fn group(&self) -> Self::Group;
}

/// All flows of one end, by a time that may lie before their last packet, never after it: a packet
/// only notes its time in its flow, and whoever looks for silent flows puts the others where they belong.
#[derive(Clone, Debug)]
pub(super) struct Idle<K: Member> {
    all: BTreeSet<(Timestamp, K)>,
    groups: BTreeMap<K::Group, BTreeSet<(Timestamp, K)>>,
}

impl<K: Member> Idle<K> {
    pub(super) const fn new() -> Self {
        Self { all: BTreeSet::new(), groups: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, at: Timestamp, key: K) {
        self.all.insert((at, key));
        self.groups.entry(key.group()).or_default().insert((at, key));
    }

    pub(super) fn remove(&mut self, at: Timestamp, key: K) {
        self.all.remove(&(at, key));
        if let Some(group) = self.groups.get_mut(&key.group()) {
            group.remove(&(at, key));
            if group.is_empty() {
                self.groups.remove(&key.group());
            }
        }
    }

    /// How many flows a tunnel or ingress has.
    pub(super) fn count(&self, group: K::Group) -> usize {
        self.groups.get(&group).map_or(0, BTreeSet::len)
    }

    /// Takes out the flow that has been silent longest, of a group or of all, if that is at least
    /// `patience`. `moved` says when a flow had its last packet, and notes that as its new place.
    ///
    /// A flow is moved at most once in `patience`, so a call is cheap on the whole.
    pub(super) fn take_silent(
        &mut self,
        group: Option<K::Group>,
        patience: Duration,
        now: Timestamp,
        mut moved: impl FnMut(&K) -> Option<Timestamp>,
    ) -> Option<K> {
        loop {
            let set = group.map_or(Some(&self.all), |group| self.groups.get(&group));
            let &(at, key) = set?.first().filter(|(at, _)| *at + patience <= now)?;
            self.remove(at, key);
            match moved(&key) {
                Some(active_at) if active_at > at => self.insert(active_at, key),
                _ => return Some(key),
            }
        }
    }

    /// When [`Self::take_silent`] may find one.
    pub(super) fn next(&self, patience: Duration) -> Timestamp {
        self.all.first().map_or(Timestamp::NEVER, |&(at, _)| at + patience)
    }
}
