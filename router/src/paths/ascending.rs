//! All loop-free paths to one relay, the cheapest first.
//!
//! Best-first search backwards from the target: what is still missing costs at least what
//! [`Labels`] says, so each path comes out in its turn and little else is looked at. (Yen's
//! algorithm gives the same list with a whole search per candidate; tests compare with all paths.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tradewind_proto::packet::MAX_PATH;

use super::{Arrays, Labels, Node, Trail};

/// A search ends after it has looked at so many partial paths: some 10 ms and 6 MB. On a full
/// mesh of 200 relays that is well over a thousand paths to one target.
pub const MAX_PARTIALS: usize = 200_000;

/// An iterator over the paths from the arrays' source to one target, by cost, then links, then
/// numbers of relays.
#[derive(Debug)]
pub struct Ascending<'a> {
    arrays: &'a Arrays,
    bounds: &'a Labels,
    avoided: &'a [Node],
    direct: bool,
    /// Paths that cost this much or more are not looked for.
    limit: i32,
    open: BinaryHeap<Reverse<Partial>>,
    looked_at: usize,
}

/// The end of a path, from `nodes[0]` to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Partial {
    /// What the whole path costs at least.
    least: i32,
    len: u8,
    /// From the target backwards.
    nodes: [Node; MAX_PATH],
    /// What this end of it costs.
    cost: i32,
}

impl<'a> Ascending<'a> {
    /// The paths to `to` of at most as many links as `bounds`, the labels of `arrays`.
    pub fn new(arrays: &'a Arrays, bounds: &'a Labels, to: Node) -> Self {
        let mut nodes = [0; MAX_PATH];
        nodes[0] = to;
        let start = bounds.cost(to).filter(|_| to != arrays.source());
        let start = start.map(|least| Reverse(Partial { least, len: 1, nodes, cost: 0 }));
        let open = start.into_iter().collect();
        Self { arrays, bounds, avoided: &[], direct: true, limit: i32::MAX, open, looked_at: 0 }
    }

    /// Leaves out paths over any of these relays.
    pub fn avoiding(self, avoided: &'a [Node]) -> Self {
        Self { avoided, ..self }
    }

    /// Leaves out the link from source to target.
    pub fn without_direct(self) -> Self {
        Self { direct: false, ..self }
    }

    /// Ends before the first path that costs `limit` or more.
    pub fn set_limit(&mut self, limit: i32) {
        self.limit = limit;
    }

    /// Whether the search gave up at its bound: there may be more paths.
    pub fn gave_up(&self) -> bool {
        self.looked_at > MAX_PARTIALS
    }

    fn extend(&mut self, end: Partial) {
        let head = end.nodes[usize::from(end.len) - 1];
        let links_left = (self.bounds.bound() + 1).saturating_sub(usize::from(end.len));
        if links_left == 0 || usize::from(end.len) == MAX_PATH {
            return;
        }
        for spoke in self.arrays.inward(head) {
            let skipped = spoke.peer == self.arrays.source() && end.len == 1 && !self.direct;
            let visited = end.nodes[..usize::from(end.len)].contains(&spoke.peer);
            if skipped || visited || self.avoided.contains(&spoke.peer) {
                continue;
            }
            let Some(rest) = self.bounds.cost_within(links_left - 1, spoke.peer) else { continue };
            let cost = end.cost + spoke.cost;
            if cost + rest >= self.limit {
                continue;
            }
            let mut longer = Partial { least: cost + rest, cost, len: end.len + 1, ..end };
            longer.nodes[usize::from(end.len)] = spoke.peer;
            self.open.push(Reverse(longer));
            self.looked_at += 1;
        }
    }
}

impl Iterator for Ascending<'_> {
    /// What the path costs, and the path.
    type Item = (i32, Trail);

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(Reverse(end)) = self.open.pop() {
            if end.least >= self.limit || self.gave_up() {
                self.open.clear();
                return None;
            }
            let mut nodes = end.nodes;
            let nodes = &mut nodes[..usize::from(end.len)];
            if nodes.last() == Some(&self.arrays.source()) {
                nodes.reverse();
                return Trail::new(nodes).map(|trail| (end.cost, trail));
            }
            self.extend(end);
        }
        None
    }
}
