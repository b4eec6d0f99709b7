//! Topologies: GraphML (Internet Topology Zoo), GML (the same, and Shadow's), JSON.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::place::{Names, place};
use super::{Attributes, Source, gml};
use crate::world::Pop;
use crate::world::error::WorldError;

/// The most nodes of one topology.
const MAX_NODES: usize = 10_000;
/// The most edges of one topology.
const MAX_EDGES: usize = 1_000_000;

/// Places and what joins them.
pub(in crate::world) struct Graph {
    pub(in crate::world) nodes: Vec<Pop>,
    pub(in crate::world) edges: Vec<Edge>,
}

/// Joins two nodes, given by their positions.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::world) struct Edge {
    pub(in crate::world) from: usize,
    pub(in crate::world) to: usize,
    /// Only that way.
    pub(in crate::world) directed: bool,
    /// One way.
    pub(in crate::world) delay: Option<Duration>,
    pub(in crate::world) jitter: Option<Duration>,
    /// Share of packets, 0 to 1.
    pub(in crate::world) loss: Option<f64>,
    /// The length of the way.
    pub(in crate::world) km: Option<f64>,
}

impl Graph {
    pub(in crate::world) fn read(source: &Source) -> Result<Self, WorldError> {
        match source.kind().as_str() {
            "graphml" | "xml" => graphml(source),
            "gml" => shadow(source),
            "json" => json(source),
            _ => Err(source.wrong(None, "a topology is a .graphml, .gml or .json file")),
        }
    }
}

/// Puts a graph together from what a file says of its nodes and edges.
struct Builder<'a> {
    source: &'a Source,
    graph: Graph,
    names: Names,
    numbers: HashMap<String, usize>,
}

impl<'a> Builder<'a> {
    fn new(source: &'a Source) -> Self {
        let graph = Graph { nodes: Vec::new(), edges: Vec::new() };
        Self { source, graph, names: Names::default(), numbers: HashMap::new() }
    }

    fn node(&mut self, mut node: Attributes<'_>) -> Result<(), WorldError> {
        if self.graph.nodes.len() == MAX_NODES {
            return Err(node.wrong(format!("more than {MAX_NODES} nodes")));
        }
        let id = node.pairs.remove("id").ok_or_else(|| node.wrong("this node has no id"))?;
        if node.text(&["label", "name", "city"]).is_none() {
            node.set("label", id.clone());
        }
        if self.numbers.insert(id.clone(), self.graph.nodes.len()).is_some() {
            return Err(node.wrong(format!("a second node with id \"{id}\"")));
        }
        self.graph.nodes.push(place(&node, &mut self.names)?);
        Ok(())
    }

    /// Call it when all nodes are known. An edge from a node to itself says nothing here.
    fn edge(&mut self, edge: &Attributes<'_>, directed: bool) -> Result<(), WorldError> {
        if self.graph.edges.len() == MAX_EDGES {
            return Err(edge.wrong(format!("more than {MAX_EDGES} edges")));
        }
        let end = |names: &[&str]| {
            let id = edge
                .text(names)
                .ok_or_else(|| edge.wrong(format!("this edge names no {}", names[0])))?;
            let number = self.numbers.get(id).copied();
            number.ok_or_else(|| edge.wrong(format!("there is no node with id \"{id}\"")))
        };
        let (from, to) = (end(&["source", "a"])?, end(&["target", "b"])?);
        let span = |name| edge.text(&[name]).map(|text| span(text, edge)).transpose();
        let loss = edge.number(&["packet_loss"])?;
        if let Some(loss) = loss.filter(|loss| !(0.0..=1.0).contains(loss)) {
            return Err(edge.wrong(format!("a loss of {loss} is no share from 0 to 1")));
        }
        let km = edge.number(&["linklengthkm", "km"])?;
        if km.is_some_and(|km| !(0.0..=100_000.0).contains(&km)) {
            return Err(edge.wrong("no way on earth is that long"));
        }
        let (delay, jitter) = (span("latency")?, span("jitter")?);
        if from != to {
            self.graph.edges.push(Edge { from, to, directed, delay, jitter, loss, km });
        }
        Ok(())
    }

    fn done(self) -> Result<Graph, WorldError> {
        match self.graph.nodes.is_empty() {
            true => Err(self.source.wrong(None, "the topology has no nodes")),
            false => Ok(self.graph),
        }
    }
}

/// A time as Shadow writes it, `10 ms`; without a unit in seconds.
fn span(text: &str, of: &Attributes<'_>) -> Result<Duration, WorldError> {
    let wrong = || of.wrong(format!("\"{text}\" is no time, such as \"10 ms\""));
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic() || c == 'µ');
    let scale = match &text[digits.len()..] {
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "us" | "µs" | "μs" | "microsecond" | "microseconds" => 1e-6,
        "ns" | "nanosecond" | "nanoseconds" => 1e-9,
        _ => return Err(wrong()),
    };
    let number = digits.trim().parse::<f64>().map_err(|_| wrong())?;
    let seconds = Some(number * scale).filter(|seconds| (0.0..=60.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(wrong)
}

fn json(source: &Source) -> Result<Graph, WorldError> {
    #[derive(Deserialize)]
    struct File {
        nodes: Vec<serde_json::Map<String, Value>>,
        #[serde(alias = "edges")]
        links: Vec<serde_json::Map<String, Value>>,
    }
    let file: File = serde_json::from_str(&source.text)
        .map_err(|error| source.wrong(Some(error.line()).filter(|line| *line > 0), error))?;
    let attributes = |object: serde_json::Map<String, Value>| {
        let mut attributes = Attributes::new(source, None);
        for (name, value) in object {
            match value {
                Value::String(text) => attributes.set(&name, text),
                Value::Number(number) => attributes.set(&name, number.to_string()),
                _ => {}
            }
        }
        attributes
    };
    let mut builder = Builder::new(source);
    for node in file.nodes {
        builder.node(attributes(node))?;
    }
    for link in file.links {
        builder.edge(&attributes(link), false)?;
    }
    builder.done()
}

fn shadow(source: &Source) -> Result<Graph, WorldError> {
    let document = gml::parse(source)?;
    let graph = document.iter().find_map(|entry| entry.list_named("graph"));
    let graph = graph.ok_or_else(|| source.wrong(None, "there is no graph [ … ] in it"))?;
    let directed = graph.iter().any(|entry| entry.text_named("directed") == Some("1"));
    let attributes = |list: &[gml::Entry], line| {
        let mut attributes = Attributes::new(source, line);
        for (name, text) in list.iter().filter_map(gml::Entry::as_text) {
            attributes.set(name, text);
        }
        attributes
    };
    let mut builder = Builder::new(source);
    for entry in graph {
        if let Some(node) = entry.list_named("node") {
            builder.node(attributes(node, entry.line))?;
        }
    }
    for entry in graph {
        if let Some(edge) = entry.list_named("edge") {
            builder.edge(&attributes(edge, entry.line), directed)?;
        }
    }
    builder.done()
}

fn graphml(source: &Source) -> Result<Graph, WorldError> {
    let options = roxmltree::ParsingOptions { nodes_limit: 2_000_000, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&source.text, options)
        .map_err(|error| source.wrong(error.pos().row as usize, format!("no XML: {error}")))?;
    let root = document.root_element();
    if root.tag_name().name() != "graphml" {
        let message = format!("it is no GraphML: it begins with <{}>", root.tag_name().name());
        return Err(source.wrong(1, message));
    }
    let tag = |node: &roxmltree::Node<'_, '_>, name| node.tag_name().name() == name;
    let keys: HashMap<&str, &str> = root
        .children()
        .filter(|node| tag(node, "key"))
        .filter_map(|key| Some((key.attribute("id")?, key.attribute("attr.name")?)))
        .collect();
    let graph = root.children().find(|node| tag(node, "graph"));
    let graph = graph.ok_or_else(|| source.wrong(None, "there is no <graph> in it"))?;
    let attributes = |element: roxmltree::Node<'_, '_>| {
        let line = document.text_pos_at(element.range().start).row as usize;
        let mut attributes = Attributes::new(source, line);
        for data in element.children().filter(|node| tag(node, "data")) {
            let key = data.attribute("key").unwrap_or_default();
            let text = data.text().unwrap_or_default();
            attributes.set(keys.get(key).unwrap_or(&key), text);
        }
        for name in ["id", "source", "target", "directed"] {
            if let Some(value) = element.attribute(name) {
                attributes.set(name, value);
            }
        }
        attributes
    };
    let mut builder = Builder::new(source);
    for node in graph.children().filter(|node| tag(node, "node")) {
        builder.node(attributes(node))?;
    }
    let default = graph.attribute("edgedefault") == Some("directed");
    for edge in graph.children().filter(|node| tag(node, "edge")) {
        let directed = edge.attribute("directed").map_or(default, |text| text == "true");
        let mut edge = attributes(edge);
        edge.pairs.remove("id");
        builder.edge(&edge, directed)?;
    }
    builder.done()
}
