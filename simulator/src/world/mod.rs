//! Worlds: which PoPs there are, how the network between them behaves, who sends what over it, and
//! what goes wrong when. Read from a TOML file; what exists as a [`World`] is consistent.
//!
//! The file format is described in the crate's README.md and only ever extended.

pub mod builtin;
mod check;
mod error;
mod file;
mod quantity;
mod source;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tradewind_proto::link::Recovery;
use tradewind_proto::statement::{Policy, Rule};
use tradewind_proto::units::{Class, PopId, Redundancy};
use tradewind_proto::wire::WireError;
use tradewind_relay::node::Mesh;
use tradewind_router::metric::Metric;
use tradewind_router::routes::RouterConfig;

use error::Fault;
pub use error::WorldError;
pub(crate) use error::{hint, nearest};
pub(crate) use file::MeshName;
pub(crate) use quantity::{BitRate, Share, Span, read};

use crate::link::{LinkSpec, stream_seed};
use crate::traffic::{Schedule, Shape};

/// A directed link: from, to.
pub type LinkId = (PopId, PopId);

/// All that a run needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// For titles.
    pub name: String,
    /// Decides every random choice.
    pub seed: u64,
    /// How long traffic flows.
    pub duration: Duration,
    /// How long the overlay runs before that.
    pub warmup: Duration,
    /// Which of the PoPs that a relay has links to become its neighbours.
    pub mesh: Mesh,
    /// How closely packets are looked at, in virtual time.
    pub fidelity: Fidelity,
    /// The PoPs, in the order of the file.
    pub pops: Vec<Pop>,
    /// Every direction of every link. PoPs without a link can't reach each other directly.
    pub links: BTreeMap<LinkId, LinkSpec>,
    /// The flows, in the order of the file.
    pub traffic: Vec<Traffic>,
    /// How the relays' links make up for losses.
    pub recovery: Recovery,
    /// What the relays choose routes by: the daemon's metric, but in a baseline.
    pub metric: Metric,
    /// The rules that traffic may name.
    pub policies: Vec<PolicyRule>,
    /// What happens, the earliest first.
    pub events: Vec<Event>,
    /// The most bytes that all links may carry for each payload byte that crosses one.
    pub wire_limit: Option<f64>,
}

/// How closely a run in virtual time looks at packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// Each is sent, repaired and counted by the daemon's own protocol.
    #[default]
    Packet,
    /// Flows are rates; for large worlds.
    Flow,
}

/// A place with a relay.
#[derive(Clone, Debug, PartialEq)]
pub struct Pop {
    /// Its name.
    pub id: PopId,
    /// Such as `EU`; for policies.
    pub region: Option<Label>,
    /// Such as `DE`; for policies.
    pub country: Option<Label>,
    /// Who runs the machine; for policies.
    pub provider: Option<Label>,
    /// Degrees north and east, for maps.
    pub location: Option<[f64; 2]>,
    /// How many people live there, for what traffic is made of it.
    pub population: Option<u64>,
}

/// What a certificate says of a PoP: 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Label(String);

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match (1..=64).contains(&text.len()) && text.chars().all(allowed) {
            true => Ok(Self(text)),
            false => Err("a label is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'".into()),
        }
    }
}

/// A flow of packets.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// For tables and events; unique.
    pub name: String,
    /// The name under which tables, asserts and reports show it together with others, as one.
    pub group: Option<String>,
    /// Where it enters.
    pub from: PopId,
    /// Where it leaves.
    pub to: PopId,
    /// What it is to the overlay.
    pub class: Class,
    /// Bytes of a UDP payload, 24 to 65,507: of all packets where they are equal, of a video's
    /// largest, of a recording's on average.
    pub size: usize,
    /// Such that `size` every `interval` is the mean rate: from one packet to the next where they
    /// are equal.
    pub interval: Duration,
    /// The pattern in which they leave.
    pub shape: Shape,
    /// How long after entering a packet is of use.
    pub deadline: Duration,
    /// The name of the rule that binds it.
    pub policy: Option<String>,
    /// How many copies travel.
    pub redundancy: Redundancy,
    /// When it begins, counted from the end of the warm-up.
    pub start: Duration,
    /// When it ends.
    pub stop: Duration,
    /// What the overlay must make of it.
    pub limits: Limits,
}

/// Figures that must hold of a flow over the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// The least share of packets that arrive in time, 0 to 1.
    pub in_time: Option<f64>,
    /// The most of the median delay.
    pub delay_median: Option<Duration>,
    /// The most of the 99th percentile of delay.
    pub delay_p99: Option<Duration>,
    /// The most time without a delivery in time.
    pub longest_gap: Option<Duration>,
}

impl Traffic {
    /// The least that a packet must hold: the meter's own header.
    pub const MIN_SIZE: usize = 24;
    /// The most that a UDP packet holds over IPv4.
    pub const MAX_SIZE: usize = 65_507;
    /// The deadlines that a tunnel may have.
    pub const DEADLINES: RangeInclusive<Duration> =
        Duration::from_millis(1)..=Duration::from_secs(16);
    /// The most packets per second of one flow.
    pub const MAX_PPS: f64 = 200_000.0;

    /// Its packets, as they follow from the world's `seed`.
    pub fn schedule(&self, seed: u64) -> Schedule {
        Schedule::new(self.size, self.interval, self.shape.clone(), self.seed(seed))
    }

    /// What decides its packets in a world of `seed`.
    pub fn seed(&self, seed: u64) -> u64 {
        stream_seed(seed, &format!("traffic {}", self.name))
    }

    /// How many packets it consists of, if all are of its size.
    pub fn packets(&self) -> u64 {
        let interval = self.interval.as_nanos().max(1);
        let span = self.stop.saturating_sub(self.start).as_nanos();
        u64::try_from(span.div_ceil(interval)).unwrap_or(u64::MAX)
    }
}

/// A rule about paths, as a relay's configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// By which traffic names it.
    pub name: String,
    /// Only PoPs of these regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_regions: Vec<Label>,
    /// No PoP of these regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_regions: Vec<Label>,
    /// Only PoPs of these countries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_countries: Vec<Label>,
    /// No PoP of these countries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_countries: Vec<Label>,
    /// Not these PoPs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_pops: Vec<PopId>,
    /// No PoP of these providers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_providers: Vec<Label>,
}

impl PolicyRule {
    /// The rule as relays state it.
    ///
    /// # Errors
    ///
    /// A name or lists longer than statements have room for.
    pub fn policy(&self) -> Result<Policy, WireError> {
        let texts = |labels: &[Label]| labels.iter().map(|label| label.0.clone()).collect();
        let rule = Rule {
            allow_regions: texts(&self.allow_regions),
            deny_regions: texts(&self.deny_regions),
            allow_countries: texts(&self.allow_countries),
            deny_countries: texts(&self.deny_countries),
            deny_pops: self.deny_pops.clone(),
            deny_providers: texts(&self.deny_providers),
        };
        Policy::new(self.name.clone(), rule)
    }
}

/// Something that happens to the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Counted from the end of the warm-up.
    pub at: Duration,
    /// What.
    pub what: Happening,
    /// How it is told, if not in the words that follow from what happens; empty: not at all, as
    /// a step between others is.
    pub title: Option<String>,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A relay dies without a word.
    Kill(PopId),
    /// The first relay between the ends of this traffic's present route dies; nothing happens
    /// when the route has none.
    KillRelayOf(String),
    /// A relay leaves in good order.
    Drain(PopId),
    /// A relay starts for the first time: it does not run before.
    Join(PopId),
    /// A relay that was killed or has left starts again.
    Restart(PopId),
    /// Links go dark.
    Cut(Vec<LinkId>),
    /// Links are as the file has them, up.
    Restore(Vec<LinkId>),
    /// Links behave differently from now on.
    Degrade(Vec<(LinkId, LinkSpec)>),
    /// More flows begin; they are part of the world's traffic.
    Crowd,
}

impl World {
    /// The most PoPs.
    pub const MAX_POPS: usize = 1_000;
    /// The PoPs that a relay dials first where others are learned.
    const FIRST_PEERS: usize = 3;
    /// The most flows.
    pub const MAX_FLOWS: usize = 100_000;
    /// The most packets of one flow.
    pub const MAX_PACKETS: u64 = 50_000_000;

    /// Reads and checks a world file, or the built-in world of that name if there is no such file.
    ///
    /// # Errors
    ///
    /// A file that can't be read, is not TOML, has unknown keys, or contradicts itself; one
    /// sentence with file and line.
    pub fn load(path: &Path) -> Result<Self, WorldError> {
        let file = path.display().to_string();
        Self::parse(&file, &Self::read(path)?)
    }

    /// The text of a world file or of a built-in world, unchecked.
    ///
    /// # Errors
    ///
    /// A file that can't be read.
    pub fn read(path: &Path) -> Result<String, WorldError> {
        let file = path.display().to_string();
        // What looks like a path or has an ending is no name of a built-in world.
        let named = path.components().count() == 1 && path.extension().is_none();
        let text = match std::fs::read_to_string(path) {
            Err(_) if named && !path.exists() => builtin::text(&file).map(str::to_owned),
            read => read.map_err(|error| format!("can't read the world file: {error}")),
        };
        text.map_err(|message| WorldError { file, line: None, message })
    }

    /// Checks the text of a world file; `file` is its name in errors, and files that it names are
    /// relative to the directory of `file`.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn parse(file: &str, text: &str) -> Result<Self, WorldError> {
        let read = toml::from_str(text).map_err(|error| Fault::from_toml(&error));
        let sources = source::Sources::beside(file);
        read.and_then(|read| check::world(read, sources)).map_err(|fault| fault.locate(file, text))
    }

    /// The PoPs that `pop` has a link to or from.
    pub fn neighbours<'a>(&'a self, pop: &'a PopId) -> impl Iterator<Item = &'a PopId> {
        let linked = |other: &&PopId| {
            let other: PopId = (*other).clone();
            self.links.contains_key(&(pop.clone(), other.clone()))
                || self.links.contains_key(&(other, pop.clone()))
        };
        self.pops.iter().map(|other| &other.id).filter(linked)
    }

    /// Whom each relay dials first. In a mesh of peers all that it has a link to or from. Where
    /// relays learn of each other, the first few of those and the next on a shortest way to the
    /// first PoP: whatever links join, they find together.
    pub fn peers(&self) -> BTreeMap<&PopId, Vec<&PopId>> {
        let mut peers: BTreeMap<_, Vec<_>> =
            self.pops.iter().map(|pop| (&pop.id, self.neighbours(&pop.id).collect())).collect();
        if self.mesh == Mesh::Peers {
            return peers;
        }
        let first = self.pops.first().map(|pop| &pop.id);
        let towards_first = first.map(|first| breadth_first(first, &peers)).unwrap_or_default();
        peers.values_mut().for_each(|dialled| dialled.truncate(Self::FIRST_PEERS));
        for step in towards_first {
            let dialled = peers.entry(step.pop).or_default();
            if !dialled.contains(&step.next) {
                dialled.push(step.next);
            }
        }
        peers
    }

    /// One of the PoPs that are the most links away from `pop` and that a route reaches; `None` if it
    /// has no link.
    fn farthest(&self, pop: &PopId) -> Option<&PopId> {
        let linked =
            self.pops.iter().map(|pop| (&pop.id, self.neighbours(&pop.id).collect())).collect();
        let most = RouterConfig::default().max_links;
        let found = breadth_first(pop, &linked).into_iter();
        found.take_while(|step| step.links <= most).last().map(|step| step.pop)
    }

    /// The PoPs whose relays start only when they join.
    pub fn joining(&self) -> BTreeSet<&PopId> {
        let joins = self.events.iter().filter_map(|event| match &event.what {
            Happening::Join(pop) => Some(pop),
            _ => None,
        });
        joins.collect()
    }

    /// The flows as tables show them, in the order of their first: a name, and the places in
    /// [`Self::traffic`] of all flows of that group, or of the one flow without a group.
    pub fn rows(&self) -> Vec<(&str, Vec<usize>)> {
        rows(&self.traffic)
    }

    /// The traffic of that name.
    pub fn traffic_named(&self, name: &str) -> Option<&Traffic> {
        self.traffic.iter().find(|traffic| traffic.name == name)
    }
}

/// [`World::rows`] of any flows.
pub(crate) fn rows<'a>(flows: impl IntoIterator<Item = &'a Traffic>) -> Vec<(&'a str, Vec<usize>)> {
    let mut rows: Vec<(&str, Vec<usize>)> = Vec::new();
    let mut groups: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, flow) in flows.into_iter().enumerate() {
        let row = match &flow.group {
            Some(group) => *groups.entry(group).or_insert(rows.len()),
            None => rows.len(),
        };
        if row == rows.len() {
            rows.push((flow.group.as_ref().unwrap_or(&flow.name), Vec::new()));
        }
        rows[row].1.push(at);
    }
    rows
}

/// A PoP, the next on a shortest way to the goal, and how many links that way has.
struct Step<'a> {
    pop: &'a PopId,
    next: &'a PopId,
    links: usize,
}

/// The PoPs that links join to `goal`, the nearest by number of links first.
fn breadth_first<'a>(goal: &PopId, linked: &BTreeMap<&'a PopId, Vec<&'a PopId>>) -> Vec<Step<'a>> {
    let mut found = Vec::new();
    let Some((&goal, _)) = linked.get_key_value(goal) else { return found };
    let (mut reached, mut seen) = (VecDeque::from([(goal, 0)]), BTreeSet::from([goal]));
    while let Some((next, links)) = reached.pop_front() {
        for &pop in linked[next].iter().filter(|pop| seen.insert(**pop)) {
            found.push(Step { pop, next, links: links + 1 });
            reached.push_back((pop, links + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests;
