//! The searches: cheapest paths of a bounded number of links, ways around relays, the cheapest
//! paths in order, the cheapest disjoint pair.
//!
//! They know numbers and costs only: no names, no policies (who is not allowed is not in the
//! arrays), no hysteresis. Costs may be slightly negative, so the searches are bounded by links
//! (Bellman-Ford) rather than ordered by cost (Dijkstra). A cycle never costs less than nothing
//! by the true delays; where noise makes it look so, paths are still loop-free and exact.

mod ascending;
mod labels;
mod pair;

pub use ascending::Ascending;
pub use labels::Labels;
pub(crate) use pair::beside;
pub use pair::{Pair, cheapest_pair};

use tradewind_proto::packet::MAX_PATH;

/// A relay by its number in the graph.
pub type Node = u16;

/// No way: more than any path costs, and far enough from the end of `i32` to add to it.
pub(crate) const FAR: i32 = i32::MAX / 2;

/// A directed link and its metric in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Its sending end.
    pub from: Node,
    /// Its receiving end.
    pub to: Node,
    /// Its metric.
    pub cost: i32,
}

/// One end of a link as seen from the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spoke {
    pub(crate) peer: Node,
    pub(crate) cost: i32,
}

/// A loop-free list of relays, at most [`MAX_PATH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trail {
    len: u8,
    nodes: [Node; MAX_PATH],
}

impl Trail {
    /// `nodes` in this order; `None` if there are none or too many, or one stands twice.
    pub fn new(nodes: &[Node]) -> Option<Self> {
        let looped = || nodes.iter().enumerate().any(|(at, node)| nodes[..at].contains(node));
        if nodes.is_empty() || nodes.len() > MAX_PATH || looped() {
            return None;
        }
        let mut trail = Self { len: nodes.len() as u8, nodes: [0; MAX_PATH] };
        trail.nodes[..nodes.len()].copy_from_slice(nodes);
        Some(trail)
    }

    /// All relays, source first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes[..usize::from(self.len)]
    }

    /// The relays between the two ends.
    pub fn between(&self) -> &[Node] {
        let nodes = self.nodes();
        nodes.get(1..nodes.len() - 1).unwrap_or_default()
    }

    /// Each link as its two ends.
    pub fn links(&self) -> impl Iterator<Item = (Node, Node)> {
        self.nodes().windows(2).map(|ends| (ends[0], ends[1]))
    }

    /// Whether it is one link.
    pub fn is_direct(&self) -> bool {
        self.len == 2
    }
}

/// The links that a search may use, seen from one source: by sending end and by receiving end.
///
/// Links back to the source are left out, as no loop-free path uses them.
#[derive(Clone, Debug)]
pub struct Arrays {
    source: Node,
    out: Rows,
    into: Rows,
}

/// The spokes of every relay, one after the other, each relay's sorted by peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    start: Vec<u32>,
    spokes: Vec<Spoke>,
}

impl Arrays {
    /// Arrays over `len` relays for searches from `source`. Of two links between the same relays
    /// the cheaper counts. Links that name relays beyond `len` are left out.
    pub fn new(len: usize, source: Node, edges: impl Iterator<Item = Edge>) -> Self {
        let known = move |node: Node| usize::from(node) < len;
        let usable = move |edge: &Edge| {
            known(edge.from) && known(edge.to) && edge.to != source && edge.from != edge.to
        };
        let edges: Vec<Edge> = edges.filter(usable).collect();
        let edges = edges.iter().copied();
        let flip = |Edge { from, to, cost }| Edge { from: to, to: from, cost };
        let into = Rows::new(len, edges.clone().map(flip));
        Self { source, out: Rows::new(len, edges), into }
    }

    /// How many relays there are.
    pub fn len(&self) -> usize {
        self.out.start.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the searches start.
    pub fn source(&self) -> Node {
        self.source
    }

    /// The metric of a link, if it may be used.
    pub fn cost(&self, from: Node, to: Node) -> Option<i32> {
        self.out.cost(from, to)
    }

    /// The metric of a path, if all its links may be used.
    pub fn cost_of(&self, trail: &Trail) -> Option<i32> {
        trail.links().map(|(from, to)| self.cost(from, to)).sum()
    }

    pub(crate) fn outward(&self, node: Node) -> &[Spoke] {
        self.out.row(node)
    }

    pub(crate) fn inward(&self, node: Node) -> &[Spoke] {
        self.into.row(node)
    }
}

impl Rows {
    pub(crate) fn new(len: usize, edges: impl Iterator<Item = Edge> + Clone) -> Self {
        let mut start = vec![0u32; len + 1];
        for edge in edges.clone() {
            start[usize::from(edge.from) + 1] += 1;
        }
        for at in 0..len {
            start[at + 1] += start[at];
        }
        let mut next = start.clone();
        let mut spokes = vec![Spoke::default(); start[len] as usize];
        for Edge { from, to, cost } in edges {
            let at = &mut next[usize::from(from)];
            spokes[*at as usize] = Spoke { peer: to, cost };
            *at += 1;
        }
        let rows = Self { start, spokes };
        rows.sorted()
    }

    fn sorted(mut self) -> Self {
        for bounds in self.start.windows(2) {
            let row = &mut self.spokes[bounds[0] as usize..bounds[1] as usize];
            if !row.is_sorted_by_key(|spoke| spoke.peer) {
                row.sort_unstable();
            }
        }
        self
    }

    pub(crate) fn cost(&self, from: Node, to: Node) -> Option<i32> {
        let row = self.row(from);
        let at = row.binary_search_by_key(&to, |spoke| spoke.peer).ok()?;
        Some(row[at].cost)
    }

    fn row(&self, node: Node) -> &[Spoke] {
        let at = usize::from(node);
        &self.spokes[self.start[at] as usize..self.start[at + 1] as usize]
    }
}

#[cfg(test)]
mod tests;
