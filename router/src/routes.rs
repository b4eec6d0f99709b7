//! The choice of routes: what the searches find, tempered by loyalty to the paths in use.
//!
//! [`Router`] follows the link-state database. After each change that matters (and when
//! [`Router::poll_timeout`] is due) call [`Router::update`]; the packet path gets the new
//! [`Router::tables`]. Tables exist for the policies that were asked for.

mod compute;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tradewind_proto::packet::{MAX_PATH, Path};
use tradewind_proto::statement::LinkStatement;
use tradewind_proto::units::{PolicyId, PopId, PopKey, Timestamp};

pub use crate::hysteresis::{Loyalty, Reason};

use crate::graph::Graph;
use crate::hysteresis::Watch;
use crate::lsdb::{Lsdb, Member};
use crate::metric::{Cost, Metric, MetricTerms};
use crate::paths::{Node, Trail};
use crate::policy::Judge;
use crate::tables::{Map, RouteEntry, Tables};

/// The most policies that tables are kept for at a time.
pub const MAX_POLICIES_IN_USE: usize = 256;
/// The most destinations per policy that disjoint pairs are kept for.
pub const MAX_PAIRS_IN_USE: usize = 1_024;
/// What a suspect first link costs on top: more than any path, so it is the last resort.
pub(crate) const SUSPECT_PENALTY: i32 = 20_000_000;

/// How routes are chosen.
#[derive(Clone, Copy, Debug)]
pub struct RouterConfig {
    /// The most links of a path: 1 to 5.
    pub max_links: usize,
    /// When to leave a path for a better one.
    pub loyalty: Loyalty,
    /// By how much more delay than the direct link a path may have, where the direct link loses
    /// less than [`Self::clean_loss`].
    pub harm: Cost,
    /// Share of packets.
    pub clean_loss: f32,
    /// What links are weighed by.
    pub metric: Metric,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            max_links: 4,
            loyalty: Loyalty::default(),
            harm: Cost::from_micros(2_000),
            clean_loss: 0.001,
            metric: Metric::default(),
        }
    }
}

/// Chooses this relay's routes.
#[derive(Debug)]
pub struct Router {
    own: PopId,
    config: RouterConfig,
    graph: Graph,
    /// At most [`MAX_POLICIES_IN_USE`].
    policies: BTreeMap<PolicyId, PolicyRoutes>,
    policy_names: BTreeMap<PolicyId, String>,
    suspects: BTreeSet<PopKey>,
    /// The links of routes and pairs in use, in order.
    used: Vec<(PopKey, PopKey)>,
    tables: Arc<Tables>,
}

/// One policy in use.
#[derive(Debug, Default)]
struct PolicyRoutes {
    /// `None`: no member defines it.
    judge: Option<Judge>,
    held: BTreeMap<PopKey, Held>,
    /// Other relays that there was no route to at the last update, in order.
    unreached: Vec<PopKey>,
    /// Destinations whose pair is wanted, and the pair in use. At most [`MAX_PAIRS_IN_USE`].
    pairs: BTreeMap<PopKey, Option<HeldPair>>,
}

/// The route in use to one destination.
#[derive(Clone, Copy, Debug)]
struct Held {
    path: Path,
    watch: Watch,
    since: Timestamp,
    reason: Reason,
}

/// The disjoint pair in use to one destination.
#[derive(Clone, Copy, Debug)]
struct HeldPair {
    paths: [Path; 2],
    watch: Watch,
}

impl Router {
    /// A router that knows nobody yet.
    pub fn new(own: PopId, config: RouterConfig) -> Self {
        let max_links = config.max_links.clamp(1, MAX_PATH - 1);
        let policies = BTreeMap::from([(PolicyId::NONE, PolicyRoutes::default())]);
        Self {
            own,
            config: RouterConfig { max_links, ..config },
            graph: Graph::weighed_by(config.metric),
            policies,
            policy_names: BTreeMap::new(),
            suspects: BTreeSet::new(),
            used: Vec::new(),
            tables: Arc::default(),
        }
    }

    /// Follows the database and recomputes the tables of the policies in use.
    pub fn update(&mut self, lsdb: &Lsdb, now: Timestamp) {
        self.graph.refresh(lsdb);
        self.policy_names = crate::policy::names(lsdb);
        for (id, policy) in &mut self.policies {
            policy.judge = Judge::find(lsdb, *id);
        }
        self.recompute(now);
    }

    fn recompute(&mut self, now: Timestamp) {
        let map = Arc::new(Map {
            own: self.own.key(),
            keys: Arc::clone(self.graph.keys()),
            rows: self.graph.rows().to_vec(),
        });
        let mut tables = Tables { map, policies: BTreeMap::new() };
        let Some(own) = self.graph.node(self.own.key()) else {
            self.tables = Arc::new(tables); // we have made no statement yet
            return;
        };
        let suspects: Vec<Node> =
            self.suspects.iter().filter_map(|&key| self.graph.node(key)).collect();
        let terrain =
            compute::Terrain { graph: &self.graph, own, suspects: &suspects, config: &self.config };
        for (id, policy) in &mut self.policies {
            if let Some(judge) = &policy.judge {
                let judge = judge.clone();
                let table = compute::table(&terrain, &judge, policy, now);
                tables.policies.insert(*id, Arc::new(table));
            }
        }
        self.tables = Arc::new(tables);
        self.used = self.links_in_use();
    }

    /// Says that `policy` is in use, from the next update on. Returns whether that is news and an
    /// update is called for. One that no member defines stays without tables until somebody does.
    pub fn want_policy(&mut self, policy: PolicyId) -> bool {
        let room = self.policies.len() < MAX_POLICIES_IN_USE;
        let news = room && !self.policies.contains_key(&policy);
        if news {
            self.policies.insert(policy, PolicyRoutes::default());
        }
        news
    }

    /// Says that `policy` is no longer in use. [`PolicyId::NONE`] always is.
    pub fn drop_policy(&mut self, policy: PolicyId) {
        if policy != PolicyId::NONE {
            self.policies.remove(&policy);
        }
    }

    /// The policies in use that no member defines.
    pub fn unknown_policies(&self) -> impl Iterator<Item = PolicyId> {
        self.policies.iter().filter(|(_, policy)| policy.judge.is_none()).map(|(id, _)| *id)
    }

    /// Says that the disjoint pair to `to` is in use under `policy`, from the next update on, until
    /// [`Self::keep_pairs`] says otherwise or `to` leaves the overlay. Returns whether that is news and an update is called for.
    pub fn want_pair(&mut self, policy: PolicyId, to: PopKey) -> bool {
        let news = self.want_policy(policy);
        let Some(routes) = self.policies.get_mut(&policy) else { return news };
        let room = routes.pairs.len() < MAX_PAIRS_IN_USE;
        if routes.pairs.contains_key(&to) || !room {
            return news;
        }
        routes.pairs.insert(to, None);
        true
    }

    /// Whether any disjoint pair is in use.
    pub fn has_pairs(&self) -> bool {
        self.policies.values().any(|routes| !routes.pairs.is_empty())
    }

    /// Says that no other disjoint pairs than these are in use any more.
    pub fn keep_pairs(&mut self, used: &BTreeSet<(PolicyId, PopKey)>) {
        for (&policy, routes) in &mut self.policies {
            routes.pairs.retain(|&to, _| used.contains(&(policy, to)));
        }
    }

    /// Says whether our own link to `neighbour` is suspect: if so, it is the last resort from the
    /// next update on. Returns whether that is news and an update is called for.
    pub fn set_suspect(&mut self, neighbour: PopKey, suspect: bool) -> bool {
        if suspect { self.suspects.insert(neighbour) } else { self.suspects.remove(&neighbour) }
    }

    /// When a path will have been better than one in use for long enough: call
    /// [`Self::update`] then, should nothing else call for it before.
    pub fn poll_timeout(&self) -> Timestamp {
        let loyalty = &self.config.loyalty;
        let routes = self.policies.values().flat_map(|policy| {
            let pairs = policy.pairs.values().flatten().map(|pair| &pair.watch);
            policy.held.values().map(|held| &held.watch).chain(pairs)
        });
        routes.filter_map(|watch| watch.due(loyalty)).min().unwrap_or(Timestamp::NEVER)
    }

    /// Whether `member` says by now what the tables should not be without for long: a new link to where
    /// a policy has no route, or that a link of a route in use is gone or worse by what routes are left
    /// at once for.
    pub fn presses(&self, member: &Member) -> bool {
        let Some(from) = self.graph.node(member.key()) else { return true };
        let defined = || self.policies.values().filter(|routes| routes.judge.is_some());
        let unreached = || defined().map(|routes| &routes.unreached);
        let opens_up = |said: &LinkStatement| {
            let lacks = |keys: &Vec<PopKey>| keys.binary_search(&said.to).is_ok();
            let new = |to| self.graph.link(from, to).is_none();
            said.up && unreached().any(lacks) && self.graph.node(said.to).is_some_and(new)
        };
        let clearly_worse = |to: PopKey| {
            let now = member.link(to).filter(|said| said.up);
            let old = self.graph.node(to).and_then(|to| self.graph.link(from, to));
            let cost = |said| self.config.metric.cost(said, &MetricTerms::of(said));
            let worse = now.zip(old).map(|(now, old)| cost(now) - old.cost());
            worse.is_none_or(|worse| worse >= self.config.loyalty.bad)
        };
        let used = self.used.partition_point(|link| *link < (member.key(), PopKey(0)));
        let mut used = self.used[used..].iter().take_while(|(from, _)| *from == member.key());
        let incomplete = unreached().any(|keys| !keys.is_empty());
        (incomplete && member.stated().links().any(opens_up))
            || used.any(|&(_, to)| clearly_worse(to))
    }

    /// The links of routes and pairs in use.
    fn links_in_use(&self) -> Vec<(PopKey, PopKey)> {
        let paths = self.policies.values().flat_map(|policy| {
            let pairs = policy.pairs.values().flatten().flat_map(|pair| &pair.paths);
            policy.held.values().map(|held| &held.path).chain(pairs)
        });
        let links = paths.flat_map(|path| path.pops().windows(2).map(|ends| (ends[0], ends[1])));
        let mut links: Vec<_> = links.collect();
        links.sort_unstable();
        links.dedup();
        links
    }

    /// The snapshot of the last update.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }

    /// How to get to `to`; `None`: no allowed way, or nobody defines the policy.
    pub fn route(&self, policy: PolicyId, to: PopKey) -> Option<&RouteEntry> {
        self.tables.route(policy, to)
    }

    /// The graph of the last update.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn own(&self) -> &PopId {
        &self.own
    }

    pub(crate) fn config(&self) -> &RouterConfig {
        &self.config
    }

    pub(crate) fn policy_name(&self, policy: PolicyId) -> Option<&str> {
        self.policy_names.get(&policy).map(String::as_str)
    }

    pub(crate) fn judge(&self, policy: PolicyId) -> Option<&Judge> {
        self.policies.get(&policy)?.judge.as_ref()
    }

    /// Since when and why the route to `to` is as it is, and when a better one is due.
    pub(crate) fn choice(
        &self,
        policy: PolicyId,
        to: PopKey,
    ) -> Option<(Timestamp, Reason, Option<Timestamp>)> {
        let held = self.policies.get(&policy)?.held.get(&to)?;
        Some((held.since, held.reason, held.watch.due(&self.config.loyalty)))
    }

    pub(crate) fn is_suspect(&self, neighbour: PopKey) -> bool {
        self.suspects.contains(&neighbour)
    }
}

/// The path of keys as numbers, if all are members.
pub(crate) fn trail(graph: &Graph, path: &Path) -> Option<Trail> {
    let mut nodes = [0; MAX_PATH];
    let pops = path.pops();
    for (node, &key) in nodes.get_mut(..pops.len())?.iter_mut().zip(pops) {
        *node = graph.node(key)?;
    }
    Trail::new(&nodes[..pops.len()])
}

#[cfg(test)]
mod tests;
