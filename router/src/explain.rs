//! Why a route is as it is: data for `route --explain` and the API.
//!
//! Field names are stable; figures carry their unit in the name. Everything is taken from the
//! snapshot in use, so an explanation is of what packets do, not of what they would do next.

mod build;

use serde::Serialize;
use tradewind_proto::units::{PolicyId, PopId, ServiceName, Timestamp};

use crate::metric::MetricTerms;
use crate::routes::{Reason, Router};

/// What a route leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A relay.
    Pop(PopId),
    /// The nearest relay that advertises a service.
    Service(ServiceName),
    /// A service at one relay.
    ServiceAt(ServiceName, PopId),
}

/// A route and why it is the one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The relay that was asked.
    pub from: PopId,
    /// What was asked for: a relay, a service, or `service@relay`.
    pub to: String,
    /// The relay that the route leads to.
    pub pop: Option<PopId>,
    /// The policy that binds it; `null`: none.
    pub policy: Option<PolicyView>,
    /// One sentence: the route and the chief reason for it, or why there is none.
    pub summary: String,
    /// The path in use.
    pub chosen: Option<Chosen>,
    /// The path that takes over, sharing no relay between.
    pub backup: Option<PathView>,
    /// The best other paths, at most 3, and why they are not in use.
    pub alternates: Vec<Rejected>,
    /// The direct link, if it is not the path in use, and why not.
    pub direct: Option<Direct>,
    /// Relays that may not be visited, or not in between, and why.
    pub excluded: Vec<Excluded>,
    /// Where the service asked for can be reached, the soonest first.
    pub instances: Vec<InstanceView>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyView {
    /// Its id as packets carry it, in hexadecimal.
    pub id: String,
    /// What configurations call it; `null` if no member defines it.
    pub name: Option<String>,
}

/// The path in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chosen {
    /// The path.
    #[serde(flatten)]
    pub path: PathView,
    /// How long it has been in use, milliseconds.
    pub age_ms: u64,
    /// Why it was taken in place of the one before.
    pub reason: Reason,
}

/// A path and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathView {
    /// The relays, this one first.
    pub pops: Vec<PopId>,
    /// The metric.
    pub total_ms: f64,
    /// What contributes to it.
    pub terms: MetricTerms,
    /// Share of datagrams lost on the way before repair, 0 to 1.
    pub loss: f64,
    /// Share of packets that recovery is expected not to save in time, 0 to 1.
    pub residual_loss: f64,
    /// Each link.
    pub links: Vec<LinkView>,
}

/// A link and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkView {
    /// Its sending end.
    pub from: PopId,
    /// Its receiving end.
    pub to: PopId,
    /// The metric.
    pub total_ms: f64,
    /// What contributes to it.
    pub terms: MetricTerms,
    /// Smoothed round-trip time.
    pub rtt_ms: f64,
    /// Share of datagrams lost, 0 to 1.
    pub loss: f64,
    /// Mean length of a burst of losses, datagrams.
    pub burst: f64,
    /// Share of packets that its recovery plan is expected not to save in time, 0 to 1.
    pub residual_loss: f64,
    /// Repeats and parity that its recovery plan is expected to send per packet.
    pub redundancy: f64,
    /// What it is known to carry; `null` if unknown.
    pub capacity_kbps: Option<u32>,
    /// What it carries.
    pub load_kbps: u32,
    /// It is our own link, and nothing has been heard on it for some heartbeats.
    pub suspect: bool,
}

/// A path that is not in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rejected {
    /// The path.
    #[serde(flatten)]
    pub path: PathView,
    /// How much more it costs than the path in use; negative: less.
    pub behind_ms: f64,
    /// Why it is not in use.
    pub why: String,
}

/// The direct link as a path that is not in use.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Direct {
    /// The path, if the link is up.
    pub path: Option<PathView>,
    /// How much more it costs than the path in use.
    pub behind_ms: Option<f64>,
    /// Why it is not in use.
    pub why: String,
}

/// A relay that routes don't use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excluded {
    /// The relay.
    pub pop: PopId,
    /// Why.
    pub why: String,
}

/// A relay that advertises the service asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceView {
    /// The relay.
    pub pop: PopId,
    /// How many ports the service has there.
    pub ports: u16,
    /// The metric of the route to it; `null` if there is none.
    pub total_ms: Option<f64>,
    /// New flows go there.
    pub chosen: bool,
    /// Why, or why not.
    pub why: String,
}

impl Router {
    /// Explains the route to `target` under `policy`, as of the last update. The policy should be
    /// in use ([`Router::want_policy`]), else there are no tables to explain.
    pub fn explain(&self, policy: PolicyId, target: &Target, now: Timestamp) -> Explanation {
        build::explanation(self, policy, target, now)
    }
}

#[cfg(test)]
mod tests;
