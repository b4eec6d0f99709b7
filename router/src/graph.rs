//! The overlay as a graph: relays by number, and for each the row of links that it sends into.
//!
//! A link is in the graph while its sending end says that it is up and both ends are members. Rows
//! are shared with the tables made from them, and a changed statement makes one row anew. petgraph
//! gets a copy, for its algorithms and for export.

use std::sync::Arc;

use petgraph::dot::{Config, Dot};
use petgraph::graph::{DiGraph, NodeIndex};
use tradewind_proto::statement::{LinkStatement, ServiceStatement};
use tradewind_proto::units::{PopId, PopKey, Timestamp};

use crate::lsdb::{HeldLink, Labels, Lsdb, Member, Stated, same};
use crate::metric::{Cost, Metric, MetricTerms};
use crate::paths::{Edge, Node};

/// A relay in the graph.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Its name in packets.
    pub key: PopKey,
    labels: Arc<Labels>,
    stated: Stated,
    changed: u64,
}

impl Relay {
    fn new(member: &Member) -> Self {
        Self {
            key: member.key(),
            labels: Arc::clone(member.shared_labels()),
            stated: member.stated().clone(),
            changed: member.changed(),
        }
    }

    /// Its name.
    pub fn id(&self) -> &PopId {
        self.stated.origin()
    }

    /// What its certificate says.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What can be reached there.
    pub fn services(&self) -> &[ServiceStatement] {
        &self.stated.state().services
    }

    /// It is leaving: an end of paths, but nothing in between.
    pub fn is_draining(&self) -> bool {
        self.stated.state().draining
    }
}

/// A directed link in the graph; it is up. No more than what choosing routes takes, as all of it is
/// looked at each time; what else was said of it: [`Graph::statement`].
#[derive(Clone, Copy, Debug)]
pub struct Link {
    to: Node,
    /// The largest packet that it carries, in bytes.
    pub max_packet: u16,
    peer: PopKey,
    /// Since when it has been up.
    pub since: Timestamp,
    /// Share of packets lost.
    pub loss: f32,
    cost: i32,
    delay: i32,
    propagation: i32,
    excused: i32,
}

impl Link {
    fn new(statement: &LinkStatement, to: Node, since: Timestamp, metric: Metric) -> Self {
        let terms = MetricTerms::of(statement);
        Self {
            to,
            max_packet: statement.max_packet,
            peer: statement.to,
            since,
            loss: statement.loss,
            cost: micros(metric.cost(statement, &terms)),
            delay: micros(terms.delay),
            propagation: micros(terms.propagation()),
            excused: micros(terms.operator + terms.capacity),
        }
    }

    /// Its metric.
    pub fn cost(&self) -> Cost {
        Cost::from_micros(self.cost.into())
    }

    /// The delay in it.
    pub fn delay(&self) -> Cost {
        Cost::from_micros(self.delay.into())
    }

    /// Propagation with its margin: what a hop must reserve for the link.
    pub fn propagation(&self) -> Cost {
        Cost::from_micros(self.propagation.into())
    }

    /// What the operator charges, and what it costs as it fills up.
    pub(crate) fn excused(&self) -> Cost {
        Cost::from_micros(self.excused.into())
    }
}

/// Terms have a bound that is far from the ends of 32 bits.
fn micros(cost: Cost) -> i32 {
    i32::try_from(cost.micros()).unwrap_or(i32::MAX / 16)
}

/// The links of one relay, by number of the relay at their other end.
pub(crate) type Row = Arc<[Link]>;

/// The link to `to`.
pub(crate) fn link_to(row: &[Link], to: Node) -> Option<&Link> {
    let at = row.binary_search_by_key(&to, |link| link.to).ok()?;
    row.get(at)
}

/// All members and the links that are up between them. Relays are numbered in the order of keys.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    metric: Metric,
    keys: Arc<[PopKey]>,
    relays: Vec<Relay>,
    /// Of each relay.
    rows: Vec<Row>,
    /// [`Lsdb::version`] that it shows.
    version: u64,
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
        let renumbered = lsdb.membership() > since;
        if renumbered {
            self.renumber(lsdb);
        }
        for member in lsdb.changed_since(since).filter(|_| !renumbered) {
            let Some(at) = self.node(member.key()).map(usize::from) else { continue };
            if self.relays[at].changed != member.changed() {
                let former = Some((&self.relays[at], &self.rows[at]));
                self.rows[at] = row(member, former, &self.keys, false, self.metric);
            }
            self.relays[at] = Relay::new(member);
        }
        renumbered
    }

    /// Numbers all members anew.
    fn renumber(&mut self, lsdb: &Lsdb) {
        let keys: Arc<[PopKey]> = lsdb.members().map(Member::key).collect();
        let row = |member: &Member| {
            let former = self.node(member.key()).map(usize::from);
            let former = former.map(|at| (&self.relays[at], &self.rows[at]));
            row(member, former, &keys, true, self.metric)
        };
        self.rows = lsdb.members().map(row).collect();
        self.relays = lsdb.members().map(Relay::new).collect();
        self.keys = keys;
    }

    /// Relays and links as petgraph has them: for its algorithms, for export.
    pub fn petgraph(&self) -> DiGraph<&Relay, &Link> {
        let mut graph = DiGraph::with_capacity(self.len(), 0);
        for relay in &self.relays {
            graph.add_node(relay);
        }
        for (Edge { from, to, .. }, link) in self.edges() {
            let [from, to] = [from, to].map(|node| NodeIndex::new(usize::from(node)));
            graph.add_edge(from, to, link);
        }
        graph
    }

    /// The graph in Graphviz' DOT language; links are labelled with their metric.
    pub fn dot(&self) -> String {
        let config = [Config::NodeNoLabel, Config::EdgeNoLabel];
        let link = |_, edge: petgraph::graph::EdgeReference<'_, &Link>| {
            format!("label=\"{:.1} ms\"", edge.weight().cost().ms())
        };
        let relay = |_, (_, relay): (NodeIndex, &&Relay)| format!("label=\"{}\"", relay.id());
        let graph = self.petgraph();
        let dot = Dot::with_attr_getters(&graph, &config, &link, &relay);
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
        node(&self.keys, key)
    }

    /// The key of relay number `node`.
    pub fn key(&self, node: Node) -> PopKey {
        self.keys[usize::from(node)]
    }

    /// All keys, in the order of numbers.
    pub fn keys(&self) -> &Arc<[PopKey]> {
        &self.keys
    }

    /// The links of each relay, in the order of numbers.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Relay number `node`.
    pub fn relay(&self, node: Node) -> &Relay {
        &self.relays[usize::from(node)]
    }

    /// All relays, in the order of numbers.
    pub fn relays(&self) -> impl Iterator<Item = (Node, &Relay)> {
        (0..).zip(&self.relays)
    }

    /// The link between two relays.
    pub fn link(&self, from: Node, to: Node) -> Option<&Link> {
        link_to(self.rows.get(usize::from(from))?, to)
    }

    /// All that was said of that link.
    pub fn statement(&self, from: Node, to: Node) -> Option<&LinkStatement> {
        let link = self.link(from, to)?;
        self.relay(from).stated.link(link.peer)
    }

    /// Every link with its two ends and its metric.
    pub fn edges(&self) -> impl Iterator<Item = (Edge, &Link)> + Clone {
        (0..).zip(&self.rows).flat_map(|(from, row)| {
            row.iter().map(move |link| (Edge { from, to: link.to, cost: link.cost }, link))
        })
    }
}

/// The number of `key` among `keys`.
pub(crate) fn node(keys: &[PopKey], key: PopKey) -> Option<Node> {
    Node::try_from(keys.binary_search(&key).ok()?).ok()
}

/// The links of `member` that can carry packets to a member; of those of which it says what it said
/// in its `former` row, what they cost is known, and where they lead, unless all were `renumbered`.
fn row(
    member: &Member,
    former: Option<(&Relay, &Row)>,
    keys: &[PopKey],
    renumbered: bool,
    metric: Metric,
) -> Row {
    let mut said = former.iter().flat_map(|(relay, _)| relay.stated.links()).peekable();
    let mut weighed = former.iter().flat_map(|(_, row)| row.iter()).peekable();
    let link = |HeldLink { statement, since }: HeldLink<'_>| {
        let peer = statement.to;
        while said.next_if(|before| before.to < peer).is_some() {}
        while weighed.next_if(|before| before.peer < peer).is_some() {}
        let known = said.next_if(|before| before.to == peer).is_some_and(|it| same(it, statement));
        let before = weighed.next_if(|before| before.peer == peer);
        if !statement.up || peer == member.key() {
            return None;
        }
        let to = match before {
            Some(before) if !renumbered => before.to,
            _ => node(keys, peer)?,
        };
        Some(match before.filter(|_| known) {
            Some(before) => Link { to, since, ..*before },
            None => Link::new(statement, to, since, metric),
        })
    };
    member.links().filter_map(link).collect()
}
