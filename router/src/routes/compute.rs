//! One policy's routes, backups, pairs, detours and service instances.

use std::collections::BTreeMap;

use tradewind_proto::packet::Path;
use tradewind_proto::units::{PopKey, ServiceName, Timestamp};

use super::{Held, HeldPair, PolicyRoutes, RouterConfig, SUSPECT_PENALTY};
use crate::graph::{Graph, Link};
use crate::hysteresis::{Reason, Situation, Watch};
use crate::metric::Cost;
use crate::paths::{Arrays, Ascending, Edge, Labels, Node, Pair, Trail, beside, cheapest_pair};
use crate::policy::Judge;
use crate::tables::{Around, Instance, Pairing, PolicyTable, RouteEntry, Way, Ways};

/// So many paths are looked at for one that does no harm, before the direct link is taken.
const HARMLESS_CANDIDATES: usize = 8;
/// The most links of a way around a link: one more relay than needed.
const AROUND_LINK: usize = 3;

/// What all policies have in common.
pub(super) struct Terrain<'a> {
    pub(super) graph: &'a Graph,
    pub(super) own: Node,
    pub(super) suspects: &'a [Node],
    pub(super) config: &'a RouterConfig,
}

/// Computes the tables of one policy, and moves the routes in use where that is called for.
pub(super) fn table(
    terrain: &Terrain<'_>,
    judge: &Judge,
    routes: &mut PolicyRoutes,
    now: Timestamp,
) -> PolicyTable {
    let relays = terrain.graph.relays();
    let allowed: Vec<bool> =
        relays.map(|(_, relay)| judge.admit(relay.id(), relay.labels()).is_ok()).collect();
    let search = Search::new(terrain, &allowed, now);
    let primaries = search.primaries(&mut routes.held);
    let unreached = terrain.graph.keys().iter().zip(&primaries).zip(0..);
    let unreached = unreached.filter(|((_, primary), to)| primary.is_none() && *to != terrain.own);
    routes.unreached = unreached.map(|((key, _), _)| *key).collect();
    let (around, backups) = search.repairs(&primaries);
    let pairs = search.pairs(&mut routes.pairs);
    let entries = search.entries(&primaries, &backups, &pairs);
    let services = search.services(&primaries);
    let Search { arrays, labels, best, .. } = search;
    let ways = Ways { arrays, labels, best, around };
    PolicyTable { routes: entries, allowed, services, ways }
}

/// By number of the destination asked for; `None`: there is no pair.
type Pairs = BTreeMap<Node, Option<[Trail; 2]>>;

struct Search<'a> {
    terrain: &'a Terrain<'a>,
    arrays: Arrays,
    labels: Labels,
    /// The cheapest path to each relay.
    best: Vec<Option<Trail>>,
    now: Timestamp,
}

impl<'a> Search<'a> {
    fn new(terrain: &'a Terrain<'a>, allowed: &[bool], now: Timestamp) -> Self {
        let arrays = arrays(terrain, allowed);
        let labels = Labels::new(&arrays, terrain.config.max_links);
        let own_allowed = allowed[usize::from(terrain.own)]; // else not even to itself
        let reach = |to| cheapest(&arrays, &labels, to).filter(|_| own_allowed);
        let best = (0..arrays.len() as Node).map(reach).collect();
        Self { terrain, arrays, labels, best, now }
    }

    /// The paths to use, by number of the destination. Destinations that can't be reached are
    /// forgotten.
    fn primaries(&self, held: &mut BTreeMap<PopKey, Held>) -> Vec<Option<Trail>> {
        let graph = self.terrain.graph;
        let reached = |key: &PopKey| graph.node(*key).is_some_and(|to| self.best(to).is_some());
        held.retain(|key, _| reached(key));
        let destinations = graph.keys().iter().zip(&self.best).zip(0..);
        let choose = |((key, best), to): ((&PopKey, &Option<Trail>), Node)| {
            let best = self.harmless((*best)?, to);
            Some(self.choose(held, *key, best, to))
        };
        destinations.map(choose).collect()
    }

    fn best(&self, to: Node) -> Option<Trail> {
        self.best.get(usize::from(to)).copied().flatten()
    }

    /// The route to `to`: the one held, unless there is cause to leave it for `best`.
    fn choose(
        &self,
        held: &mut BTreeMap<PopKey, Held>,
        key: PopKey,
        best: Trail,
        to: Node,
    ) -> Trail {
        let take = |watch: Watch, reason: Reason| {
            let path = self.path(&best)?;
            Some(Held { path, watch, since: self.now, reason })
        };
        let Some(present) = held.get_mut(&key) else {
            if let Some(first) = take(Watch::new(self.now), Reason::First) {
                held.insert(key, first);
            }
            return best;
        };
        let current = super::trail(self.terrain.graph, &present.path);
        if current == Some(best) {
            present.watch.settle(self.cost(&best).unwrap_or_default());
            return best;
        }
        let situation = Situation {
            current: current.and_then(|trail| self.cost(&trail)),
            best: self.cost(&best).unwrap_or_default(),
            suspect: current.is_some_and(|trail| self.is_suspect(&trail))
                && !self.is_suspect(&best),
            harmful: current.is_some_and(|trail| self.harms(&trail, to)),
            fresh_link: self.has_fresh_link(&best),
        };
        let verdict = present.watch.judge(situation, &self.terrain.config.loyalty, self.now);
        match (verdict, current) {
            (None, Some(current)) => current,
            (reason, _) => {
                let reason = reason.unwrap_or(Reason::Gone);
                if let Some(next) = take(present.watch, reason) {
                    *present = next;
                }
                best
            }
        }
    }

    fn cost(&self, trail: &Trail) -> Option<Cost> {
        self.arrays.cost_of(trail).map(|cost| Cost::from_micros(i64::from(cost)))
    }

    fn is_suspect(&self, trail: &Trail) -> bool {
        trail.nodes().get(1).is_some_and(|first| self.terrain.suspects.contains(first))
    }

    fn has_fresh_link(&self, trail: &Trail) -> bool {
        let fresh = self.terrain.config.loyalty.fresh;
        self.links(trail).any(|link| self.now.since(link.since) < fresh)
    }

    fn links(&self, trail: &Trail) -> impl Iterator<Item = &Link> {
        trail.links().filter_map(|(from, to)| self.terrain.graph.link(from, to))
    }

    /// Do no harm: `best`, or if that is too much slower than a good direct link, the cheapest
    /// path that is not.
    fn harmless(&self, best: Trail, to: Node) -> Trail {
        if !self.harms(&best, to) {
            return best;
        }
        let paths = Ascending::new(&self.arrays, &self.labels, to).take(HARMLESS_CANDIDATES);
        let harmless = paths.map(|(_, path)| path).find(|path| !self.harms(path, to));
        harmless.or_else(|| Trail::new(&[self.terrain.own, to])).unwrap_or(best)
    }

    /// Whether `trail` is worse than the direct link: by the metric, or in delay where the direct
    /// link is clean. What the operator charges for the direct link counts as its delay: that is
    /// no misjudgement of ours. So does what it costs as it fills up: a full one loses what it has
    /// no room for, and none of that shows in its loss.
    fn harms(&self, trail: &Trail, to: Node) -> bool {
        let Terrain { graph, own, suspects, config } = *self.terrain;
        let direct = self.arrays.cost(own, to).filter(|_| !trail.is_direct());
        let Some((direct, link)) = direct.zip(graph.link(own, to)) else { return false };
        if suspects.contains(&to) {
            return false;
        }
        let delay: Cost = self.links(trail).map(Link::delay).sum();
        let allowed = link.delay() + link.excused() + config.harm;
        let slower = link.loss < config.clean_loss && delay > allowed;
        slower || self.arrays.cost_of(trail).is_some_and(|cost| cost > direct)
    }

    /// What each neighbour's loss would call for, and the backups of the primaries. Backups of
    /// paths over one relay are what there is without that relay, so the two go together.
    fn repairs(&self, primaries: &[Option<Trail>]) -> (BTreeMap<Node, Around>, Vec<Option<Trail>>) {
        let mut around = BTreeMap::new();
        let mut backups = vec![None; primaries.len()];
        let (mut without, mut scratch) = (self.labels.clone(), self.labels.clone());
        let mut by_first: BTreeMap<Node, Vec<&Trail>> = BTreeMap::new();
        for primary in primaries.iter().flatten() {
            if let Some(&first) = primary.nodes().get(1) {
                by_first.entry(first).or_default().push(primary);
            }
        }
        for spoke in self.arrays.outward(self.terrain.own) {
            let without = if self.labels.pass(spoke.peer) {
                without.avoid(&self.labels, &self.arrays, &[spoke.peer]);
                &without
            } else {
                &self.labels // nothing would change
            };
            around.insert(spoke.peer, self.around(without, spoke.peer));
            for primary in by_first.get(&spoke.peer).into_iter().flatten() {
                if let Some(&to) = primary.nodes().last() {
                    backups[usize::from(to)] = self.backup(without, &mut scratch, primary);
                }
            }
        }
        (around, backups)
    }

    /// The backup of `primary`, given the labels without its first relay.
    fn backup(&self, without: &Labels, scratch: &mut Labels, primary: &Trail) -> Option<Trail> {
        let found = beside(&self.arrays, &self.labels, without, primary).map(|(_, path)| path);
        let further = primary.between().get(1..).unwrap_or_default();
        // What is best without the first relay alone often meets none of the others.
        if !found?.between().iter().any(|relay| further.contains(relay)) {
            return found;
        }
        scratch.avoid(without, &self.arrays, further);
        beside(&self.arrays, &self.labels, scratch, primary).map(|(_, path)| path)
    }

    fn around(&self, without: &Labels, relay: Node) -> Around {
        let link = without.trail_around(&self.arrays, relay, AROUND_LINK);
        let link = link.unwrap_or_else(|_| {
            let paths = Ascending::new(&self.arrays, &self.labels, relay).without_direct();
            paths.map(|(_, path)| path).next().filter(|path| path.nodes().len() <= AROUND_LINK + 1)
        });
        let over_it = |(best, to): (&Option<Trail>, Node)| {
            let best = (*best)?;
            best.between().contains(&relay).then_some((best, to))
        };
        let others = self.best.iter().zip(0..).filter_map(over_it);
        let others = others.map(|(best, to)| {
            let other = without.trail(to).unwrap_or_else(|_| {
                cheapest_avoiding(&self.arrays, &self.labels, &[relay], *best.nodes().last()?)
            });
            (to, other)
        });
        Around { link, others: others.collect() }
    }

    /// Pairs that are wanted, by destination, where there are any; held as loyally as single
    /// routes. Destinations that left are forgotten.
    fn pairs(&self, wanted: &mut BTreeMap<PopKey, Option<HeldPair>>) -> Pairs {
        let graph = self.terrain.graph;
        wanted.retain(|key, _| graph.node(*key).is_some());
        let pair = |(key, held): (&PopKey, &mut Option<HeldPair>)| {
            let to = graph.node(*key)?;
            let reached = Some(to).filter(|to| self.best(*to).is_some());
            let best = reached.and_then(|to| cheapest_pair(&self.arrays, &self.labels, to));
            if best.is_none() {
                *held = None;
            }
            Some((to, best.map(|best| self.choose_pair(held, best))))
        };
        wanted.iter_mut().filter_map(pair).collect()
    }

    fn choose_pair(&self, held: &mut Option<HeldPair>, best: Pair) -> [Trail; 2] {
        let graph = self.terrain.graph;
        let take = |watch: Watch| {
            let [a, b] = best.paths.map(|path| self.path(&path));
            Some(HeldPair { paths: [a?, b?], watch })
        };
        let Some(present) = held else {
            *held = take(Watch::new(self.now));
            return best.paths;
        };
        let [a, b] = present.paths.map(|path| super::trail(graph, &path));
        let current = a.zip(b).map(|(a, b)| [a, b]);
        if current == Some(best.paths) {
            present.watch.settle(Cost::from_micros(i64::from(best.cost)));
            return best.paths;
        }
        let cost = |[a, b]: [Trail; 2]| Some(self.cost(&a)? + self.cost(&b)?);
        let suspect = |pair: [Trail; 2]| pair.iter().any(|path| self.is_suspect(path));
        let situation = Situation {
            current: current.and_then(cost),
            best: Cost::from_micros(i64::from(best.cost)),
            suspect: current.is_some_and(suspect) && !suspect(best.paths),
            harmful: false,
            fresh_link: best.paths.iter().any(|path| self.has_fresh_link(path)),
        };
        let verdict = present.watch.judge(situation, &self.terrain.config.loyalty, self.now);
        match (verdict, current) {
            (None, Some(current)) => current,
            _ => {
                *held = take(present.watch);
                best.paths
            }
        }
    }

    fn entries(
        &self,
        primaries: &[Option<Trail>],
        backups: &[Option<Trail>],
        pairs: &Pairs,
    ) -> Vec<Option<RouteEntry>> {
        let entry = |((primary, backup), to): ((&Option<Trail>, &Option<Trail>), Node)| {
            let pair = pairs.get(&to).map(|pair| self.pairing(pair.as_ref())).unwrap_or_default();
            let primary = self.way(primary.as_ref()?)?;
            let backup = backup.as_ref().and_then(|path| self.way(path));
            Some(RouteEntry { primary, backup, pair })
        };
        primaries.iter().zip(backups).zip(0..).map(entry).collect()
    }

    fn pairing(&self, pair: Option<&[Trail; 2]>) -> Pairing {
        let ways = pair.and_then(|[a, b]| self.way(a).zip(self.way(b)));
        ways.map_or(Pairing::Impossible, |(a, b)| Pairing::Pair(a, b))
    }

    fn way(&self, trail: &Trail) -> Option<Way> {
        let delay: Cost = self.links(trail).map(Link::propagation).sum();
        let largest = self.links(trail).map(|link| usize::from(link.max_packet));
        let max_packet = largest.min().unwrap_or(usize::MAX);
        Some(Way { path: self.path(trail)?, delay: delay.span(), max_packet })
    }

    fn path(&self, trail: &Trail) -> Option<Path> {
        let mut keys = [PopKey::default(); tradewind_proto::packet::MAX_PATH];
        for (key, &node) in keys.iter_mut().zip(trail.nodes()) {
            *key = self.terrain.graph.key(node);
        }
        Path::new(&keys[..trail.nodes().len()]).ok()
    }

    /// Who advertises what and can be reached, the soonest first.
    fn services(&self, primaries: &[Option<Trail>]) -> BTreeMap<ServiceName, Vec<Instance>> {
        let mut services: BTreeMap<ServiceName, Vec<Instance>> = BTreeMap::new();
        for ((_, relay), primary) in self.terrain.graph.relays().zip(primaries) {
            let Some(cost) = primary.as_ref().and_then(|path| self.cost(path)) else { continue };
            for service in relay.services() {
                let instance = Instance {
                    cost,
                    pop: relay.key,
                    ports: service.ports,
                    draining: relay.is_draining(),
                };
                services.entry(service.name.clone()).or_default().push(instance);
            }
        }
        services.values_mut().for_each(|instances| instances.sort_unstable());
        services
    }
}

/// The links that packets may use: both ends allowed, and nothing that drains in between.
fn arrays(terrain: &Terrain<'_>, allowed: &[bool]) -> Arrays {
    let Terrain { graph, own, suspects, .. } = *terrain;
    let transit: Vec<bool> = graph
        .relays()
        .map(|(node, relay)| allowed[usize::from(node)] && (node == own || !relay.is_draining()))
        .collect();
    let usable = |edge: &Edge| transit[usize::from(edge.from)] && allowed[usize::from(edge.to)];
    let penalty = |edge: &Edge| {
        let suspect = edge.from == own && suspects.contains(&edge.to);
        if suspect { SUSPECT_PENALTY } else { 0 }
    };
    let edges = graph.edges().map(|(edge, _)| edge).filter(usable);
    let edges = edges.map(|edge| Edge { cost: edge.cost + penalty(&edge), ..edge });
    Arrays::new(graph.len(), own, edges)
}

/// The cheapest path; where noise makes a cycle look cheaper than nothing, the cheapest that
/// repeats no relay.
fn cheapest(arrays: &Arrays, labels: &Labels, to: Node) -> Option<Trail> {
    labels.trail(to).unwrap_or_else(|_| cheapest_avoiding(arrays, labels, &[], to))
}

fn cheapest_avoiding(
    arrays: &Arrays,
    labels: &Labels,
    avoided: &[Node],
    to: Node,
) -> Option<Trail> {
    let mut paths = Ascending::new(arrays, labels, to).avoiding(avoided);
    paths.next().map(|(_, path)| path)
}
