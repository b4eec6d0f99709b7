//! Cheapest paths from one source to all, by number of links; and how they change when some
//! relays may not be used.
//!
//! Bellman-Ford in layers: layer h holds the cheapest walk of at most h links. A walk that beats
//! all shorter ones repeats no relay unless some cycle costs less than nothing; [`Labels::trail`]
//! checks. Without relay X only the labels whose walk visits X change, so a way around *every*
//! relay costs about as much as one search more.

use super::{Arrays, FAR, Node, Trail};

/// "As in the layer before": the walk has fewer links.
const SAME: Node = Node::MAX;

/// The cheapest walk of at most h links to each relay, for h up to a bound.
#[derive(Clone, Debug)]
pub struct Labels {
    source: Node,
    len: usize,
    bound: usize,
    /// By layer and relay.
    cost: Vec<i32>,
    /// The last relay before the end of the walk, by layer and relay.
    via: Vec<Node>,
    /// Scratch of [`Self::avoid`]: whose walk is spoilt.
    spoilt: Vec<bool>,
}

impl Labels {
    /// The cheapest walks of at most `bound` links.
    pub fn new(arrays: &Arrays, bound: usize) -> Self {
        let len = arrays.len();
        let mut labels = Self {
            source: arrays.source(),
            len,
            bound,
            cost: vec![FAR; len * (bound + 1)],
            via: vec![SAME; len * (bound + 1)],
            spoilt: Vec::new(),
        };
        labels.cost[usize::from(labels.source)] = 0;
        for layer in 1..=bound {
            labels.extend(arrays, layer);
        }
        labels
    }

    /// Computes `layer` from the one before. Only walks that are new there can lead to new ones.
    fn extend(&mut self, arrays: &Arrays, layer: usize) {
        let (done, todo) = self.cost.split_at_mut(layer * self.len);
        let before = &done[(layer - 1) * self.len..];
        let cost = &mut todo[..self.len];
        cost.copy_from_slice(before);
        let (known, via) = self.via.split_at_mut(layer * self.len);
        let fresh = &known[(layer - 1) * self.len..];
        for from in 0..self.len {
            let is_source = from == usize::from(self.source);
            if before[from] >= FAR || (fresh[from] == SAME && (layer > 1 || !is_source)) {
                continue;
            }
            for spoke in arrays.outward(from as Node) {
                let to = usize::from(spoke.peer);
                let sum = before[from] + spoke.cost;
                if sum < cost[to] {
                    cost[to] = sum;
                    via[to] = from as Node;
                }
            }
        }
    }

    /// Turns `self` into the labels of `base` with the relays `avoided` gone from the graph; `base`
    /// may be short of some relays already.
    /// `self` is scratch of any content, so that many can be computed without allocating.
    pub fn avoid(&mut self, base: &Self, arrays: &Arrays, avoided: &[Node]) {
        self.clone_from_base(base);
        for layer in 1..=self.bound {
            self.spoil(layer, avoided);
            for to in 0..self.len {
                let at = layer * self.len + to;
                if self.spoilt[at] {
                    let gone = avoided.contains(&(to as Node));
                    let best =
                        if gone { (FAR, SAME) } else { self.best_into(arrays, layer, to as Node) };
                    (self.cost[at], self.via[at]) = best;
                }
            }
        }
    }

    fn clone_from_base(&mut self, base: &Self) {
        (self.source, self.len, self.bound) = (base.source, base.len, base.bound);
        self.cost.clone_from(&base.cost);
        self.via.clone_from(&base.via);
        self.spoilt.clear();
        self.spoilt.resize(base.cost.len(), false);
    }

    /// Marks the labels of `layer` whose walk in the base visits a relay avoided.
    fn spoil(&mut self, layer: usize, avoided: &[Node]) {
        let (before, this) = self.spoilt.split_at_mut(layer * self.len);
        let before = &before[(layer - 1) * self.len..];
        let via = &self.via[layer * self.len..(layer + 1) * self.len];
        for ((to, spoilt), &via) in this.iter_mut().enumerate().take(self.len).zip(via) {
            *spoilt = before[if via == SAME { to } else { usize::from(via) }];
        }
        for &node in avoided {
            this[usize::from(node)] = true;
        }
    }

    /// The cheapest of all walks of at most `layer` links that end with a link to `to`, or of
    /// those of fewer links.
    fn best_into(&self, arrays: &Arrays, layer: usize, to: Node) -> (i32, Node) {
        let before = &self.cost[(layer - 1) * self.len..layer * self.len];
        let shorter = (before[usize::from(to)], SAME);
        arrays.inward(to).iter().fold(shorter, |best, spoke| {
            let sum = before[usize::from(spoke.peer)].saturating_add(spoke.cost);
            if sum < best.0 { (sum, spoke.peer) } else { best }
        })
    }

    /// Whether any walk goes on after `node`.
    pub fn pass(&self, node: Node) -> bool {
        self.via.contains(&node)
    }

    /// How many links the walks have at most.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// The cost of the cheapest walk of at most `links` links to `to`: no path costs less.
    pub fn cost_within(&self, links: usize, to: Node) -> Option<i32> {
        let cost = self.cost[links.min(self.bound) * self.len + usize::from(to)];
        (cost < FAR / 2).then_some(cost)
    }

    /// The cost of the cheapest walk to `to`.
    pub fn cost(&self, to: Node) -> Option<i32> {
        self.cost_within(self.bound, to)
    }

    /// The cheapest path to `to`. `Err` if noise makes a cycle look cheaper than nothing and the
    /// cheapest walk repeats a relay: ask [`super::Ascending`] then.
    pub fn trail(&self, to: Node) -> Result<Option<Trail>, Repeats> {
        if self.cost(to).is_none() {
            return Ok(None);
        }
        self.walk(self.bound, to, &[])
    }

    /// The cheapest path to `to` of at most `links` links that does not use the link from the
    /// source to `to`; no walk of `self` may go on after `to`.
    pub fn trail_around(
        &self,
        arrays: &Arrays,
        to: Node,
        links: usize,
    ) -> Result<Option<Trail>, Repeats> {
        let layer = links.min(self.bound);
        if layer < 2 {
            return Ok(None);
        }
        let before = &self.cost[(layer - 1) * self.len..layer * self.len];
        let relays = arrays.inward(to).iter().filter(|spoke| spoke.peer != self.source);
        let sums = relays
            .map(|spoke| (before[usize::from(spoke.peer)].saturating_add(spoke.cost), spoke.peer));
        match sums.min() {
            Some((sum, via)) if sum < FAR / 2 => self.walk(layer - 1, via, &[to]),
            _ => Ok(None),
        }
    }

    /// The walk of label (`layer`, `end`), with `rest` appended.
    fn walk(&self, mut layer: usize, end: Node, rest: &[Node]) -> Result<Option<Trail>, Repeats> {
        let mut nodes = [0; tradewind_proto::packet::MAX_PATH];
        let mut first = nodes.len();
        for &node in rest.iter().rev().chain([&end]) {
            first = first.checked_sub(1).ok_or(Repeats)?;
            nodes[first] = node;
        }
        while nodes[first] != self.source {
            let via = self.via[layer * self.len + usize::from(nodes[first])];
            layer = layer.checked_sub(1).ok_or(Repeats)?;
            if via != SAME {
                first = first.checked_sub(1).ok_or(Repeats)?;
                nodes[first] = via;
            }
        }
        Trail::new(&nodes[first..]).map(Some).ok_or(Repeats)
    }
}

/// The cheapest walk visits a relay twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeats;
