//! A world file as it is written: keys and their types, nothing checked against each other yet.

use std::fmt;

use serde::de::{self, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use tradewind_proto::units::{Class, PopId, Redundancy};
use tradewind_relay::node::Mesh;

use super::quantity::{BitRate, Burst, Bytes, Share, Span};
use super::{Fidelity, Label, PolicyRule};

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorldFile {
    #[serde(default)]
    pub(super) run: RunTable,
    #[serde(default)]
    pub(super) pop: Vec<PopTable>,
    pub(super) pops: Option<Spanned<PopsTable>>,
    pub(super) links: Option<Spanned<LinksTable>>,
    #[serde(default)]
    pub(super) link: Vec<Spanned<LinkTable>>,
    #[serde(default)]
    pub(super) traffic: Vec<Spanned<TrafficTable>>,
    #[serde(default)]
    pub(super) demand: Vec<Spanned<DemandTable>>,
    #[serde(default)]
    pub(super) calls: Vec<Spanned<CallsTable>>,
    pub(super) recovery: Option<Spanned<RecoveryTable>>,
    #[serde(default)]
    pub(super) policy: Vec<Spanned<PolicyRule>>,
    #[serde(default)]
    pub(super) event: Vec<Spanned<EventTable>>,
    #[serde(default)]
    pub(super) assert: AssertTable,
}

/// `[run]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunTable {
    pub(super) name: Option<String>,
    pub(super) seed: Option<u64>,
    pub(super) duration: Option<Spanned<Span>>,
    pub(super) warmup: Option<Span>,
    #[serde(default)]
    pub(super) mesh: MeshKey,
    #[serde(default)]
    pub(super) fidelity: Fidelity,
}

/// `mesh`; by default the links of the world are those that relays use.
#[derive(Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(super) struct MeshKey(#[serde(with = "MeshName")] pub(super) Mesh);

impl Default for MeshKey {
    fn default() -> Self {
        Self(Mesh::Peers)
    }
}

/// The words for it, in world files and in the configuration of relays.
#[derive(Deserialize, Serialize)]
#[serde(remote = "Mesh", rename_all = "lowercase")]
pub(crate) enum MeshName {
    Auto,
    Full,
    Peers,
}

/// `[recovery]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecoveryTable {
    pub(super) mode: RecoveryMode,
    pub(super) parity: Option<Share>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RecoveryMode {
    Plan,
    Arq,
    Fec,
    None,
}

/// `[[pop]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PopTable {
    pub(super) id: Spanned<PopId>,
    pub(super) region: Option<Label>,
    pub(super) country: Option<Label>,
    pub(super) provider: Option<Label>,
    pub(super) location: Option<[f64; 2]>,
    pub(super) population: Option<u64>,
}

/// `[pops]`: PoPs from a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PopsTable {
    pub(super) from: String,
    pub(super) pick: Option<Pick>,
}

/// Which places of a file become PoPs.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "pick is a number of places, their names as in [\"fra\", \"sgp\"], or \
                 { regions = […], countries = […], providers = […] }"
)]
pub(super) enum Pick {
    Spread(usize),
    Named(Vec<String>),
    Labelled(PickTable),
}

/// `pick = {}`: those that have one of each list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PickTable {
    #[serde(default)]
    pub(super) regions: Vec<String>,
    #[serde(default)]
    pub(super) countries: Vec<String>,
    #[serde(default)]
    pub(super) providers: Vec<String>,
}

/// `["a", "b"]`: both directions; `"a>b"`: one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkName {
    Both([String; 2]),
    OneWay([String; 2]),
}

impl<'de> Deserialize<'de> for LinkName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a link is written [\"a\", \"b\"] (both directions) or \"a>b\""
        )]
        enum Written {
            Pair([String; 2]),
            Arrow(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Pair(pair) => Ok(Self::Both(pair)),
            Written::Arrow(text) => match text.split_once('>') {
                Some((from, to)) => Ok(Self::OneWay([from.trim().into(), to.trim().into()])),
                None => Err(serde::de::Error::custom(format!(
                    "\"{text}\" names no link; write [\"a\", \"b\"] (both directions) or \"a>b\""
                ))),
            },
        }
    }
}

/// A table that has the keys of a link model beside its own.
macro_rules! with_link_keys {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
            delay: Option<Span>,
            jitter: Option<Span>,
            loss: Option<Share>,
            burst: Option<Burst>,
            p: Option<Share>,
            r: Option<Share>,
            loss_bad: Option<Share>,
            loss_good: Option<Share>,
            rate: Option<BitRate>,
            rate_trace: Option<String>,
            delay_trace: Option<String>,
            queue: Option<Bytes>,
            reorder: Option<Share>,
            reorder_by: Option<Span>,
            duplicate: Option<Share>,
            corrupt: Option<Share>,
            mtu: Option<Bytes>,
        }

        impl $name {
            /// The keys of the link model that were written.
            pub(super) fn link_keys(&self) -> LinkKeys {
                LinkKeys {
                    delay: self.delay,
                    jitter: self.jitter,
                    loss: self.loss,
                    burst: self.burst,
                    p: self.p,
                    r: self.r,
                    loss_bad: self.loss_bad,
                    loss_good: self.loss_good,
                    rate: self.rate,
                    rate_trace: self.rate_trace.clone(),
                    delay_trace: self.delay_trace.clone(),
                    queue: self.queue,
                    reorder: self.reorder,
                    reorder_by: self.reorder_by,
                    duplicate: self.duplicate,
                    corrupt: self.corrupt,
                    mtu: self.mtu,
                }
            }
        }
    };
}

/// The keys of a link model, those that were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LinkKeys {
    pub(super) delay: Option<Span>,
    pub(super) jitter: Option<Span>,
    pub(super) loss: Option<Share>,
    pub(super) burst: Option<Burst>,
    pub(super) p: Option<Share>,
    pub(super) r: Option<Share>,
    pub(super) loss_bad: Option<Share>,
    pub(super) loss_good: Option<Share>,
    pub(super) rate: Option<BitRate>,
    pub(super) rate_trace: Option<String>,
    pub(super) delay_trace: Option<String>,
    pub(super) queue: Option<Bytes>,
    pub(super) reorder: Option<Share>,
    pub(super) reorder_by: Option<Span>,
    pub(super) duplicate: Option<Share>,
    pub(super) corrupt: Option<Share>,
    pub(super) mtu: Option<Bytes>,
}

with_link_keys! {
    /// `[[link]]`
    LinkTable {
        between: Option<[String; 2]>,
        from: Option<String>,
        to: Option<String>,
    }
}

with_link_keys! {
    /// `[links]`: links from files or from distances.
    LinksTable {
        matrix: Option<String>,
        topology: Option<String>,
        distance: Option<DistanceTable>,
        nearest: Option<usize>,
    }
}

/// `distance = {}`: how long light takes.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DistanceTable {
    /// How much longer the way is than the shortest one over the globe.
    #[serde(default = "usual_factor")]
    pub(super) factor: f64,
}

impl Default for DistanceTable {
    fn default() -> Self {
        Self { factor: usual_factor() }
    }
}

/// The median of the measured round trips between cities is near it.
fn usual_factor() -> f64 {
    1.6
}

with_link_keys! {
    /// `[[event]]`
    EventTable {
        at: Span,
        kill: Option<String>,
        kill_relay_of: Option<String>,
        restart: Option<String>,
        drain: Option<String>,
        join: Option<String>,
        cut: Option<LinkName>,
        restore: Option<Place>,
        degrade: Option<LinkName>,
        isolate: Option<AreaTable>,
        congest: Option<CongestTable>,
        crowd: Option<CrowdTable>,
    }
}

impl EventTable {
    /// What can happen.
    pub(super) const DEEDS: [&str; 11] = [
        "kill",
        "kill_relay_of",
        "restart",
        "drain",
        "join",
        "cut",
        "restore",
        "degrade",
        "isolate",
        "congest",
        "crowd",
    ];

    /// How many of [`Self::DEEDS`] were written.
    pub(super) fn count(&self) -> usize {
        let pops = [&self.kill, &self.kill_relay_of, &self.restart, &self.drain, &self.join];
        let links = [&self.cut, &self.degrade];
        let others = [
            self.restore.is_some(),
            self.isolate.is_some(),
            self.congest.is_some(),
            self.crowd.is_some(),
        ];
        pops.iter().filter(|deed| deed.is_some()).count()
            + links.iter().filter(|deed| deed.is_some()).count()
            + others.into_iter().filter(|deed| *deed).count()
    }
}

/// `{ region = "EU" }`: some of the PoPs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AreaTable {
    pub(super) region: Option<Label>,
    pub(super) country: Option<Label>,
    pub(super) provider: Option<Label>,
    pub(super) pops: Option<Vec<String>>,
}

/// `congest = {}`: an area, how long, and what is added or left at the peak.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CongestTable {
    region: Option<Label>,
    country: Option<Label>,
    provider: Option<Label>,
    pops: Option<Vec<String>>,
    pub(super) over: Span,
    pub(super) delay: Option<Span>,
    pub(super) jitter: Option<Span>,
    pub(super) loss: Option<Share>,
    pub(super) rate: Option<Share>,
}

impl CongestTable {
    pub(super) fn area(&self) -> AreaTable {
        AreaTable {
            region: self.region.clone(),
            country: self.country.clone(),
            provider: self.provider.clone(),
            pops: self.pops.clone(),
        }
    }
}

/// `crowd = {}`: more of a table's flows for a while.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CrowdTable {
    pub(super) of: String,
    pub(super) times: u32,
    #[serde(rename = "for")]
    pub(super) lasting: Span,
}

/// A link or an area.
pub(super) enum Place {
    Link(LinkName),
    Area(AreaTable),
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl<'de> Visitor<'de> for Written {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[\"a\", \"b\"], \"a>b\" or an area such as { region = \"EU\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Place, E> {
                LinkName::deserialize(text.into_deserializer()).map(Place::Link)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, pair: A) -> Result<Place, A::Error> {
                let pair = LinkName::deserialize(de::value::SeqAccessDeserializer::new(pair));
                pair.map(Place::Link)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, area: A) -> Result<Place, A::Error> {
                let area = AreaTable::deserialize(de::value::MapAccessDeserializer::new(area));
                area.map(Place::Area)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// A table that has the keys of a flow beside its own.
macro_rules! with_flow_keys {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
            #[serde(default)]
            class: Class,
            size: Option<Bytes>,
            rate: Option<BitRate>,
            pps: Option<f64>,
            shape: Option<ShapeName>,
            video: Option<VideoTable>,
            trace: Option<String>,
            deadline: Option<Span>,
            policy: Option<String>,
            #[serde(default)]
            redundancy: Redundancy,
            start: Option<Span>,
            stop: Option<Span>,
            #[serde(default)]
            assert: LimitsTable,
        }

        impl $name {
            /// What is written of each flow.
            pub(super) fn flow_keys(&self) -> FlowKeys<'_> {
                FlowKeys {
                    class: self.class,
                    size: self.size,
                    rate: self.rate,
                    pps: self.pps,
                    shape: self.shape,
                    video: self.video,
                    trace: self.trace.as_deref(),
                    deadline: self.deadline,
                    policy: self.policy.as_deref(),
                    redundancy: self.redundancy,
                    start: self.start,
                    stop: self.stop,
                    assert: self.assert,
                }
            }
        }
    };
}

/// The keys of a flow, as far as they were written.
pub(super) struct FlowKeys<'a> {
    pub(super) class: Class,
    pub(super) size: Option<Bytes>,
    pub(super) rate: Option<BitRate>,
    pub(super) pps: Option<f64>,
    pub(super) shape: Option<ShapeName>,
    pub(super) video: Option<VideoTable>,
    pub(super) trace: Option<&'a str>,
    pub(super) deadline: Option<Span>,
    pub(super) policy: Option<&'a str>,
    pub(super) redundancy: Redundancy,
    pub(super) start: Option<Span>,
    pub(super) stop: Option<Span>,
    pub(super) assert: LimitsTable,
}

/// `shape = ""` of a flow.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum ShapeName {
    Constant,
    Poisson,
    Video,
}

/// `video = {}` of a flow.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VideoTable {
    pub(super) fps: Option<f64>,
    pub(super) key_every: Option<u32>,
    pub(super) key_size: Option<f64>,
    pub(super) spread: Option<f64>,
    pub(super) pace: Option<f64>,
}

with_flow_keys! {
    /// `[[traffic]]`
    TrafficTable {
        name: Option<String>,
        from: String,
        to: String,
    }
}

with_flow_keys! {
    /// `[[demand]]`
    DemandTable {
        name: Option<String>,
        matrix: String,
        distance: Option<f64>,
        flows: Option<usize>,
        total: Option<BitRate>,
    }
}

/// `[[calls]]`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallsTable {
    pub(super) name: Option<String>,
    pub(super) matrix: String,
    pub(super) distance: Option<f64>,
    pub(super) arrivals: f64,
    pub(super) median: Span,
    pub(super) sigma: Option<f64>,
    #[serde(default)]
    pub(super) one_way: bool,
    pub(super) video: Option<Share>,
    pub(super) video_rate: Option<BitRate>,
    policy: Option<String>,
    #[serde(default)]
    redundancy: Redundancy,
    start: Option<Span>,
    stop: Option<Span>,
    #[serde(default)]
    assert: LimitsTable,
}

impl CallsTable {
    /// What all flows of calls have in common.
    pub(super) fn flow_keys(&self) -> FlowKeys<'_> {
        FlowKeys {
            class: Class::default(),
            size: None,
            rate: None,
            pps: None,
            shape: None,
            video: None,
            trace: None,
            deadline: None,
            policy: self.policy.as_deref(),
            redundancy: self.redundancy,
            start: self.start,
            stop: self.stop,
            assert: self.assert,
        }
    }
}

/// `[assert]`: for every flow, and for all together.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AssertTable {
    pub(super) in_time: Option<Share>,
    pub(super) delay_median: Option<Span>,
    pub(super) delay_p99: Option<Span>,
    pub(super) longest_gap: Option<Span>,
    pub(super) wire: Option<Spanned<f64>>,
}

/// `assert = {}` of a `[[traffic]]`.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    pub(super) in_time: Option<Share>,
    pub(super) delay_median: Option<Span>,
    pub(super) delay_p99: Option<Span>,
    pub(super) longest_gap: Option<Span>,
}
