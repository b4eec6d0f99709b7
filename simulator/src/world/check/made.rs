//! Links made by the rule in `[links]`.
//!
//! Which PoPs are linked: those that the topology joins, else all. What a link's delay is: what the
//! topology says, else half the round trip in the matrix, else how long light takes, else `delay`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use petgraph::algo::min_spanning_tree;
use petgraph::data::Element;
use petgraph::graph::UnGraph;
use toml::Spanned;
use tradewind_proto::units::PopId;

use super::links::apply;
use super::{Checked, Pops};
use crate::link::{LinkSpec, Loss};
use crate::world::LinkId;
use crate::world::error::{Fault, hint};
use crate::world::file::{DistanceTable, LinksTable};
use crate::world::quantity::Span;
use crate::world::source::{Edge, Graph, Matrix, Sources, distance_km};

/// Kilometres that light travels in fibre in a millisecond: two thirds of its speed in vacuum.
const FIBRE_KM_PER_MS: f64 = 299.792_458 * 2.0 / 3.0;

/// A PoP for which the rule made no link, and why.
pub(super) struct Unlinked {
    pub(super) id: PopId,
    pub(super) at: Range<usize>,
    pub(super) why: String,
}

/// A pair of PoPs by number, and what is known of one direction.
type Candidate = (usize, usize, LinkSpec);

/// Adds the links to `links`.
pub(super) fn make_links(
    table: &Spanned<LinksTable>,
    pops: &Pops,
    sources: &mut Sources,
    links: &mut BTreeMap<LinkId, LinkSpec>,
) -> Checked<Vec<Unlinked>> {
    let at = table.span();
    let table = table.get_ref();
    let rule = Rule::read(table, pops, sources, &at)?;
    let mut candidates = match &rule.topology {
        Some(graph) => rule.joined(graph)?,
        None => rule.all_pairs()?,
    };
    if let Some(nearest) = table.nearest {
        if nearest == 0 {
            return Err(Fault::new(at, "nearest = 0 leaves no link"));
        }
        candidates = keep_nearest(candidates, pops.list.len(), nearest);
    }
    let mut linked = vec![false; pops.list.len()];
    for (from, to, spec) in candidates {
        (linked[from], linked[to]) = (true, true);
        links.insert((pops.list[from].id.clone(), pops.list[to].id.clone()), spec);
    }
    let alone = pops.list.iter().zip(linked).filter(|(_, linked)| !linked);
    Ok(alone.map(|(pop, _)| rule.unlinked(&pop.id)).collect())
}

/// `[links]` with its files read.
struct Rule<'a> {
    pops: &'a Pops,
    at: &'a Range<usize>,
    table: &'a LinksTable,
    topology: Option<Graph>,
    matrix: Option<Matrix>,
    distance: Option<DistanceTable>,
    /// What all links have in common.
    common: LinkSpec,
}

impl<'a> Rule<'a> {
    fn read(
        table: &'a LinksTable,
        pops: &'a Pops,
        sources: &mut Sources,
        at: &'a Range<usize>,
    ) -> Checked<Self> {
        let keys = table.link_keys();
        let common = apply(&keys, &LinkSpec::default(), at, sources)?;
        let fault = |error: crate::world::WorldError| Fault::new(at.clone(), error.to_string());
        let topology = table.topology.as_ref().map(|name| Graph::read(&sources.read(name)?));
        let matrix = table.matrix.as_ref();
        let matrix = matrix.map(|name| Matrix::read(&sources.read(name)?, &pops.numbers));
        let nothing_else = topology.is_some() && keys.delay.is_none();
        let distance = table.distance.or_else(|| nothing_else.then(DistanceTable::default));
        if topology.is_none() && matrix.is_none() && distance.is_none() && keys.delay.is_none() {
            let message = "[links] needs one of matrix, topology, distance and delay";
            return Err(Fault::new(at.clone(), message));
        }
        if distance.is_some_and(|distance| !(1.0..=100.0).contains(&distance.factor)) {
            let message = "the factor of a distance is 1 to 100: nothing beats light";
            return Err(Fault::new(at.clone(), message));
        }
        Ok(Self {
            pops,
            at,
            table,
            topology: topology.transpose().map_err(fault)?,
            matrix: matrix.transpose().map_err(fault)?,
            distance,
            common,
        })
    }

    fn all_pairs(&self) -> Checked<Vec<Candidate>> {
        let count = self.pops.list.len();
        let mut candidates = Vec::with_capacity(count * (count - 1));
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                if let Some(delay) = self.delay(from, to, None)? {
                    candidates.push((from, to, LinkSpec { delay, ..self.common.clone() }));
                }
            }
        }
        Ok(candidates)
    }

    /// The links of a topology between PoPs of this world; of several between two the shortest.
    fn joined(&self, graph: &Graph) -> Checked<Vec<Candidate>> {
        let number = |node: usize| self.pops.numbers.get(&graph.nodes[node].id).copied();
        let mut shortest: BTreeMap<(usize, usize), LinkSpec> = BTreeMap::new();
        for edge in &graph.edges {
            let (Some(a), Some(b)) = (number(edge.from), number(edge.to)) else { continue };
            let ways = [(a, b), (b, a)];
            for (from, to) in ways.into_iter().take(if edge.directed { 1 } else { 2 }) {
                let spec = self.along(from, to, edge)?;
                let known = shortest.entry((from, to)).or_insert_with(|| spec.clone());
                if spec.delay < known.delay {
                    *known = spec;
                }
            }
        }
        Ok(shortest.into_iter().map(|((from, to), spec)| (from, to, spec)).collect())
    }

    fn along(&self, from: usize, to: usize, edge: &Edge) -> Checked<LinkSpec> {
        let measured = match edge.delay {
            Some(delay) => Some(delay),
            None => self.delay(from, to, edge.km)?,
        };
        let loss = match edge.loss {
            Some(share) if share > 0.0 => Loss::independent(share)
                .map_err(|error| Fault::new(self.at.clone(), error.to_string()))?,
            _ => self.common.loss,
        };
        Ok(LinkSpec {
            delay: measured.unwrap_or(self.common.delay),
            jitter: edge.jitter.unwrap_or(self.common.jitter),
            loss,
            ..self.common.clone()
        })
    }

    /// What a packet takes from one PoP to another; `None` if nothing says so. `km`: along the way.
    fn delay(&self, from: usize, to: usize, km: Option<f64>) -> Checked<Option<Duration>> {
        let measured = self.matrix.as_ref().and_then(|matrix| matrix.round_trip_ms(from, to));
        if let Some(round_trip) = measured {
            return Ok(Some(millis(round_trip / 2.0)));
        }
        let Some(distance) = self.distance else {
            return Ok(self.table.link_keys().delay.map(|Span(delay)| delay));
        };
        let km = match km {
            Some(km) => km,
            None => distance_km(self.location(from)?, self.location(to)?),
        };
        Ok(Some(millis(km * distance.factor / FIBRE_KM_PER_MS)))
    }

    fn location(&self, pop: usize) -> Checked<[f64; 2]> {
        let pop = &self.pops.list[pop];
        pop.location.ok_or_else(|| {
            let message = format!("\"{}\" has no location to tell distances from", pop.id);
            Fault::new(self.at.clone(), message)
        })
    }

    fn unlinked(&self, pop: &PopId) -> Unlinked {
        let why = match (&self.topology, &self.table.topology, &self.table.matrix) {
            (Some(graph), Some(file), _) => {
                let hint = hint(pop.as_str(), graph.nodes.iter().map(|node| node.id.as_str()));
                format!("\"{pop}\" is joined to no other PoP in {file}{hint}")
            }
            (_, _, Some(file)) => {
                format!("\"{pop}\" has no link: no row of {file} is about it and another PoP")
            }
            _ => format!("\"{pop}\" has no link"),
        };
        Unlinked { id: pop.clone(), at: self.at.clone(), why }
    }
}

/// In whole microseconds, as links count.
fn millis(millis: f64) -> Duration {
    Duration::from_micros((millis * 1e3).round() as u64)
}

/// The links of each PoP to the `nearest` others and from them, and those of a shortest tree that
/// joins all, so that no part of the world is cut off.
fn keep_nearest(candidates: Vec<Candidate>, pops: usize, nearest: usize) -> Vec<Candidate> {
    let mut around: Vec<Vec<(Duration, usize)>> = vec![Vec::new(); pops];
    let mut graph = UnGraph::<(), Duration>::new_undirected();
    let nodes: Vec<_> = (0..pops).map(|_| graph.add_node(())).collect();
    for &(from, to, ref spec) in &candidates {
        around[from].push((spec.delay, to));
        graph.add_edge(nodes[from], nodes[to], spec.delay);
    }
    let mut keep = BTreeSet::new();
    for (pop, others) in around.iter_mut().enumerate() {
        others.sort_unstable();
        for &(_, other) in others.iter().take(nearest) {
            keep.extend([(pop, other), (other, pop)]);
        }
    }
    for element in min_spanning_tree(&graph) {
        if let Element::Edge { source, target, .. } = element {
            keep.extend([(source, target), (target, source)]);
        }
    }
    candidates.into_iter().filter(|(from, to, _)| keep.contains(&(*from, *to))).collect()
}
