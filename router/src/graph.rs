//! The overlay as a petgraph graph, and the dense arrays that the searches run on.
//!
//! A link is in the graph while its sending end says that it is up and both ends are members.
//! Links stay where they are from one refresh to the next: a changed statement touches one row.

use petgraph::dot::{Config, Dot};
use petgraph::graph::{DiGraph, EdgeIndex, NodeIndex};
use tradewind_proto::statement::{LinkStatement, ServiceStatement};
use tradewind_proto::units::{PopId, PopKey, Timestamp};

use crate::lsdb::{HeldLink, Labels, Lsdb, Member};
use crate::metric::{Cost, Metric, MetricTerms};
use crate::paths::{Edge, Node, Rows};

/// A relay in the graph.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Its name.
    pub id: PopId,
    /// Its name in packets.
    pub key: PopKey,
    /// What its certificate says.
    pub labels: Labels,
    /// What can be reached there.
    pub services: Vec<ServiceStatement>,
    /// It is leaving: an end of paths, but nothing in between.
    pub draining: bool,
    changed: u64,
}

/// A directed link in the graph; it is up.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// What its sending end says of it.
    pub statement: LinkStatement,
    /// Since when it has been up.
    pub since: Timestamp,
    /// What its metric is made of.
    pub terms: MetricTerms,
    cost: Cost,
}

impl Link {
    pub(crate) fn new(held: &HeldLink, metric: Metric) -> Self {
        let HeldLink { statement, since } = *held;
        let terms = MetricTerms::of(&statement);
        Self { statement, since, terms, cost: metric.cost(&statement, &terms) }
    }

    /// Its metric.
    pub fn cost(&self) -> Cost {
        self.cost
    }
}

/// All members and the links that are up between them. Relays are numbered in the order of keys.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    metric: Metric,
    graph: DiGraph<Relay, Link>,
    keys: Vec<PopKey>,
    /// [`Lsdb::version`] that it shows.
    version: u64,
    /// Where the link between two relays is among petgraph's, whose own look-up walks lists.
    index: Rows,
}

impl Graph {
    /// A graph of what `lsdb` holds.
    pub fn new(lsdb: &Lsdb) -> Self {
        let mut graph = Self::weighed_by(Metric::default());
        graph.refresh(lsdb);
        graph
    }

    /// An empty graph.
    pub fn weighed_by(metric: Metric) -> Self {
        Self { metric, ..Self::default() }
    }

    /// Takes over what changed. Returns whether relays joined or left, and so have new numbers.
    pub fn refresh(&mut self, lsdb: &Lsdb) -> bool {
        let since = std::mem::replace(&mut self.version, lsdb.version());
        if lsdb.membership() > since {
            self.rebuild(lsdb);
            return true;
        }
        let mut moved = false;
        for member in lsdb.changed_since(since) {
            let node = self.node(member.key()).map(|node| NodeIndex::new(usize::from(node)));
            moved |= node.is_none_or(|node| !self.refresh_member(node, member));
        }
        if moved {
            self.rebuild(lsdb);
        }
        false
    }

    fn rebuild(&mut self, lsdb: &Lsdb) {
        let links = lsdb.members().map(|member| member.links().len()).sum();
        self.graph = DiGraph::with_capacity(lsdb.members().len(), links);
        self.keys = lsdb.members().map(Member::key).collect();
        for member in lsdb.members() {
            self.graph.add_node(relay(member));
        }
        for (node, member) in lsdb.members().enumerate() {
            for held in member.links() {
                if let Some(to) = self.target(member, held) {
                    self.graph.add_edge(NodeIndex::new(node), to, Link::new(held, self.metric));
                }
            }
        }
        self.reindex();
    }

    /// Takes over one member. Returns whether its links lead where they led before: links that
    /// appear or leave call for a new graph, in which they stand in the order of their ends.
    fn refresh_member(&mut self, node: NodeIndex, member: &Member) -> bool {
        if self.graph[node].changed == member.changed() {
            return true;
        }
        self.graph[node] = relay(member);
        let mut links = 0;
        for held in member.links() {
            let Some(to) = self.target(member, held) else { continue };
            let Some(edge) = self.edge(node.index() as Node, to.index() as Node) else {
                return false;
            };
            let link = &mut self.graph[edge];
            if (link.statement, link.since) != (held.statement, held.since) {
                *link = Link::new(held, self.metric);
            }
            links += 1;
        }
        links == self.graph.edges(node).count()
    }

    fn reindex(&mut self) {
        let numbered = (0..).zip(self.ends());
        let edges = numbered.map(|(cost, (from, to))| Edge { from, to, cost });
        self.index = Rows::new(self.len(), edges);
    }

    fn ends(&self) -> impl Iterator<Item = (Node, Node)> + Clone {
        let number = |node: NodeIndex| node.index() as Node;
        self.graph
            .raw_edges()
            .iter()
            .map(move |edge| (number(edge.source()), number(edge.target())))
    }

    /// Where a link leads, if it can carry packets to a member.
    fn target(&self, from: &Member, held: &HeldLink) -> Option<NodeIndex> {
        let to = held.statement.to;
        let usable = held.statement.up && to != from.key();
        usable.then(|| self.node(to)).flatten().map(|node| NodeIndex::new(usize::from(node)))
    }

    /// Relays and links as petgraph has them: for its algorithms, for export.
    pub fn petgraph(&self) -> &DiGraph<Relay, Link> {
        &self.graph
    }

    /// The graph in Graphviz' DOT language; links are labelled with their metric.
    pub fn dot(&self) -> String {
        let config = [Config::NodeNoLabel, Config::EdgeNoLabel];
        let link = |_, edge: petgraph::graph::EdgeReference<'_, Link>| {
            format!("label=\"{:.1} ms\"", edge.weight().cost().ms())
        };
        let relay = |_, (_, relay): (NodeIndex, &Relay)| format!("label=\"{}\"", relay.id);
        let dot = Dot::with_attr_getters(&self.graph, &config, &link, &relay);
        format!("{dot:?}")
    }

    /// How many relays there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of the relay that packets call `key`.
    pub fn node(&self, key: PopKey) -> Option<Node> {
        let at = self.keys.binary_search(&key).ok()?;
        Node::try_from(at).ok()
    }

    /// The key of relay number `node`.
    pub fn key(&self, node: Node) -> PopKey {
        self.keys[usize::from(node)]
    }

    /// All keys, in the order of numbers.
    pub fn keys(&self) -> &[PopKey] {
        &self.keys
    }

    /// Relay number `node`.
    pub fn relay(&self, node: Node) -> &Relay {
        &self.graph[NodeIndex::new(usize::from(node))]
    }

    /// All relays, in the order of numbers.
    pub fn relays(&self) -> impl Iterator<Item = (Node, &Relay)> {
        (0..).zip(self.graph.node_weights())
    }

    /// The link between two relays.
    pub fn link(&self, from: Node, to: Node) -> Option<&Link> {
        self.graph.edge_weight(self.edge(from, to)?)
    }

    fn edge(&self, from: Node, to: Node) -> Option<EdgeIndex> {
        usize::try_from(self.index.cost(from, to)?).ok().map(EdgeIndex::new)
    }

    /// Every link with its two ends and its metric.
    pub fn edges(&self) -> impl Iterator<Item = (Edge, &Link)> + Clone {
        self.ends().zip(self.graph.raw_edges()).map(|((from, to), edge)| {
            let cost = i32::try_from(edge.weight.cost().micros()).unwrap_or(i32::MAX / 16);
            (Edge { from, to, cost }, &edge.weight)
        })
    }
}

fn relay(member: &Member) -> Relay {
    Relay {
        id: member.id().clone(),
        key: member.key(),
        labels: member.labels().clone(),
        services: member.state().services.clone(),
        draining: member.state().draining,
        changed: member.changed(),
    }
}
