//! Puts explanations together.

use std::sync::Arc;

use tradewind_proto::statement::LinkStatement;
use tradewind_proto::units::{PolicyId, PopId, PopKey, ServiceName, Timestamp};

use super::{
    Chosen, Direct, Excluded, Explanation, InstanceView, LinkView, PathView, PolicyView, Rejected,
    Target,
};
use crate::graph::{Graph, Link};
use crate::metric::{Cost, MetricTerms, expected};
use crate::paths::{Ascending, Node, Trail};
use crate::routes::{Reason, Router, trail};
use crate::tables::{PolicyTable, RouteEntry, Tables};

/// How many paths not in use are shown.
const ALTERNATES: usize = 3;

pub(super) fn explanation(
    router: &Router,
    policy: PolicyId,
    target: &Target,
    now: Timestamp,
) -> Explanation {
    let tables = router.tables();
    let view = View { router, graph: router.graph(), tables: &tables, policy, now };
    let mut explanation = view.blank(target);
    match view.table() {
        Some(table) => view.fill(&mut explanation, table, target),
        None => explanation.summary = view.no_tables(),
    }
    explanation
}

struct View<'a> {
    router: &'a Router,
    graph: &'a Graph,
    tables: &'a Tables,
    policy: PolicyId,
    now: Timestamp,
}

impl View<'_> {
    fn table(&self) -> Option<&PolicyTable> {
        self.tables.policies.get(&self.policy).map(Arc::as_ref)
    }

    fn blank(&self, target: &Target) -> Explanation {
        Explanation {
            from: self.router.own().clone(),
            to: match target {
                Target::Pop(pop) => pop.to_string(),
                Target::Service(service) => service.to_string(),
                Target::ServiceAt(service, pop) => format!("{service}@{pop}"),
            },
            pop: None,
            policy: (self.policy != PolicyId::NONE).then(|| PolicyView {
                id: format!("{:08x}", self.policy.0),
                name: self.router.policy_name(self.policy).map(str::to_owned),
            }),
            summary: String::new(),
            chosen: None,
            backup: None,
            alternates: Vec::new(),
            direct: None,
            excluded: self.excluded(),
            instances: Vec::new(),
        }
    }

    fn no_tables(&self) -> String {
        if self.graph.node(self.router.own().key()).is_none() {
            return format!("{} is not a member yet", self.router.own());
        }
        match self.router.policy_name(self.policy) {
            Some(_) => format!("policy {} is not in use at this relay yet", self.policy_label()),
            None => format!("no relay defines policy {}", self.policy_label()),
        }
    }

    fn policy_label(&self) -> String {
        let name = self.router.policy_name(self.policy).map(str::to_owned);
        name.unwrap_or_else(|| format!("{:08x}", self.policy.0))
    }

    fn fill(&self, to: &mut Explanation, table: &PolicyTable, target: &Target) {
        let pop = match target {
            Target::Pop(pop) => Ok(pop.clone()),
            Target::Service(service) => {
                to.instances = self.instances(service, None);
                let chosen = to.instances.iter().find(|instance| instance.chosen);
                chosen
                    .map(|instance| instance.pop.clone())
                    .ok_or_else(|| no_instance(service, &to.instances))
            }
            Target::ServiceAt(service, pop) => {
                to.instances = self.instances(service, Some(pop));
                let advertised = to.instances.iter().any(|instance| instance.pop == *pop);
                advertised
                    .then(|| pop.clone())
                    .ok_or_else(|| format!("{pop} does not advertise {service}"))
            }
        };
        match pop {
            Ok(pop) => self.fill_route(to, table, pop),
            Err(why) => to.summary = why,
        }
    }

    fn fill_route(&self, to: &mut Explanation, table: &PolicyTable, pop: PopId) {
        let entry = self.tables.route(self.policy, pop.key());
        let route = entry.and_then(|entry| Some((entry, trail(self.graph, &entry.primary.path)?)));
        to.summary = match route {
            Some((entry, primary)) => self.fill_paths(to, table, entry, &primary, &pop),
            None => self.no_route(&pop),
        };
        to.pop = Some(pop);
    }

    /// Fills in the paths and returns the summary.
    fn fill_paths(
        &self,
        to: &mut Explanation,
        table: &PolicyTable,
        entry: &RouteEntry,
        primary: &Trail,
        pop: &PopId,
    ) -> String {
        let chosen = self.path(primary);
        let backup = entry.backup.as_ref().and_then(|way| trail(self.graph, &way.path));
        to.backup = backup.map(|backup| self.path(&backup));
        to.alternates = self.alternates(table, primary, &chosen, pop);
        to.alternates.extend(self.forbidden(table, &chosen, pop));
        if primary.nodes().len() > 2 {
            to.direct = Some(self.direct(&chosen, pop));
        }
        let summary = summary(&chosen, to.direct.as_ref());
        let (since, reason, _) =
            self.router.choice(self.policy, pop.key()).unwrap_or((self.now, Reason::First, None));
        let age_ms = u64::try_from(self.now.since(since).as_millis()).unwrap_or(u64::MAX);
        to.chosen = Some(Chosen { path: chosen, age_ms, reason });
        summary
    }

    /// The best paths besides the one in use.
    fn alternates(
        &self,
        table: &PolicyTable,
        primary: &Trail,
        chosen: &PathView,
        pop: &PopId,
    ) -> Vec<Rejected> {
        let Some(node) = self.graph.node(pop.key()) else { return Vec::new() };
        let paths = Ascending::new(&table.ways.arrays, &table.ways.labels, node);
        let others = paths.map(|(_, path)| path).filter(|path| path != primary);
        others.take(ALTERNATES).map(|path| self.rejected(&path, chosen, pop)).collect()
    }

    fn rejected(&self, path: &Trail, chosen: &PathView, pop: &PopId) -> Rejected {
        let path = self.path(path);
        let behind_ms = rounded(path.total_ms - chosen.total_ms);
        let why = if path.links.first().is_some_and(|link| link.suspect) {
            "its first link is suspect".to_owned()
        } else if behind_ms > 0.0 {
            slower(&path, chosen)
        } else {
            self.not_yet(-behind_ms, pop)
        };
        Rejected { path, behind_ms, why }
    }

    /// Why a path that costs less is not in use.
    fn not_yet(&self, gain_ms: f64, pop: &PopId) -> String {
        let due = self.router.choice(self.policy, pop.key()).and_then(|(_, _, due)| due);
        let loyalty = &self.router.config().loyalty;
        match due {
            Some(due) => format!(
                "better by {gain_ms:.1} ms; taken in {:.1} s if that lasts",
                due.since(self.now).as_secs_f64()
            ),
            None => format!(
                "better by only {gain_ms:.1} ms: moving takes {:.1} ms and {} %, for {:.0} s; \
                 nor may a path be over {:.1} ms slower than a clean direct link",
                loyalty.better.ms(),
                loyalty.better_percent,
                loyalty.hold.as_secs_f64(),
                self.router.config().harm.ms(),
            ),
        }
    }

    /// The best path that the policy forbids, if it is better than the one in use.
    fn forbidden(&self, table: &PolicyTable, chosen: &PathView, pop: &PopId) -> Option<Rejected> {
        let free = self.tables.policies.get(&PolicyId::NONE)?;
        let node = self.graph.node(pop.key())?;
        let best = (*free.ways.best.get(usize::from(node))?)?;
        let denied = best.nodes().iter().find(|&&node| !table.allowed[usize::from(node)])?;
        let path = self.path(&best);
        let behind_ms = rounded(path.total_ms - chosen.total_ms);
        let why = format!(
            "excluded by policy {} at {}: {}",
            self.policy_label(),
            self.name(*denied),
            self.denial(*denied)?
        );
        (behind_ms < 0.0).then_some(Rejected { path, behind_ms, why })
    }

    fn denial(&self, node: Node) -> Option<String> {
        let relay = self.graph.relay(node);
        let denied = self.router.judge(self.policy)?.admit(relay.id(), relay.labels()).err()?;
        Some(denied.to_string())
    }

    fn direct(&self, chosen: &PathView, pop: &PopId) -> Direct {
        let own = self.graph.node(self.router.own().key());
        let ends = own.zip(self.graph.node(pop.key()));
        let direct = ends.filter(|(own, to)| self.graph.link(*own, *to).is_some());
        let Some(path) = direct.and_then(|(own, to)| Trail::new(&[own, to])) else {
            let why = "there is no link to it that is up".to_owned();
            return Direct { path: None, behind_ms: None, why };
        };
        let Rejected { path, behind_ms, why } = self.rejected(&path, chosen, pop);
        Direct { path: Some(path), behind_ms: Some(behind_ms), why }
    }

    fn no_route(&self, pop: &PopId) -> String {
        let Some(node) = self.graph.node(pop.key()) else {
            return format!("{pop} is not a member");
        };
        let own = self.graph.node(self.router.own().key());
        for end in own.into_iter().chain([node]) {
            if let Some(why) = self.denial(end) {
                let (policy, end) = (self.policy_label(), self.name(end));
                return format!("policy {policy} does not allow {end}: {why}");
            }
        }
        let links = self.router.config().max_links;
        match self.tables.route(PolicyId::NONE, pop.key()) {
            Some(_) if self.policy != PolicyId::NONE => format!(
                "every way to {pop} passes a relay that policy {} excludes",
                self.policy_label()
            ),
            _ => format!("no way of at most {links} links that are up leads to {pop}"),
        }
    }

    fn excluded(&self) -> Vec<Excluded> {
        let why = |(node, relay): (Node, &crate::graph::Relay)| {
            let denied = self.denial(node).map(|why| format!("policy: {why}"));
            let draining = relay.is_draining().then(|| "draining: not used in between".to_owned());
            Some(Excluded { pop: relay.id().clone(), why: denied.or(draining)? })
        };
        let mut excluded: Vec<Excluded> = self.graph.relays().filter_map(why).collect();
        excluded.sort_by(|a, b| a.pop.cmp(&b.pop));
        excluded
    }

    /// Who advertises `service`, with the one that new flows go to: the nearest, or `pinned`.
    fn instances(&self, service: &ServiceName, pinned: Option<&PopId>) -> Vec<InstanceView> {
        let nearest = self.tables.nearest(self.policy, service).map(|(pop, _)| pop);
        let taken = pinned.map(PopId::key).or(nearest);
        let view = |relay: &crate::graph::Relay| {
            let offered = relay.services().iter().find(|offered| offered.name == *service)?;
            let total_ms = self.total_ms(relay.key);
            let chosen = Some(relay.key) == taken && total_ms.is_some();
            let why = match (total_ms, pinned) {
                (None, _) => self.no_route(relay.id()),
                (Some(_), Some(pop)) if pop == relay.id() => "the one asked for".to_owned(),
                (Some(_), Some(_)) => "not the one asked for".to_owned(),
                _ if chosen => "the nearest".to_owned(),
                _ if relay.is_draining() => "draining: takes no new flows".to_owned(),
                _ => "farther".to_owned(),
            };
            let (pop, ports) = (relay.id().clone(), offered.ports);
            Some(InstanceView { pop, ports, total_ms, chosen, why })
        };
        let mut found: Vec<InstanceView> =
            self.graph.relays().filter_map(|(_, relay)| view(relay)).collect();
        let order = |instance: &InstanceView| instance.total_ms.unwrap_or(f64::INFINITY);
        found.sort_by(|a, b| order(a).total_cmp(&order(b)).then_with(|| a.pop.cmp(&b.pop)));
        found
    }

    fn total_ms(&self, pop: PopKey) -> Option<f64> {
        let entry = self.tables.route(self.policy, pop)?;
        Some(self.path(&trail(self.graph, &entry.primary.path)?).total_ms)
    }

    fn name(&self, node: Node) -> PopId {
        self.graph.relay(node).id().clone()
    }

    fn path(&self, trail: &Trail) -> PathView {
        let found = trail.links().filter_map(|(from, to)| {
            Some((from, to, self.graph.link(from, to)?, self.graph.statement(from, to)?))
        });
        let links: Vec<(Node, Node, &Link, &LinkStatement)> = found.collect();
        let terms: MetricTerms = links.iter().map(|(.., said)| MetricTerms::of(said)).sum();
        let arrives = |said: &LinkStatement| 1.0 - f64::from(said.loss);
        let saved = |said: &LinkStatement| 1.0 - expected(said).residual;
        PathView {
            pops: trail.nodes().iter().map(|&node| self.name(node)).collect(),
            total_ms: terms.total().ms(),
            terms,
            loss: rounded(1.0 - links.iter().map(|(.., said)| arrives(said)).product::<f64>()),
            residual_loss: fine(1.0 - links.iter().map(|(.., said)| saved(said)).product::<f64>()),
            links: links
                .into_iter()
                .map(|(from, to, link, said)| self.link(from, to, link, said))
                .collect(),
        }
    }

    fn link(&self, from: Node, to: Node, link: &Link, statement: &LinkStatement) -> LinkView {
        let own = self.graph.key(from) == self.router.own().key();
        let expected = expected(statement);
        LinkView {
            from: self.name(from),
            to: self.name(to),
            total_ms: link.cost().ms(),
            terms: MetricTerms::of(statement),
            rtt_ms: Cost::from_span(statement.rtt).ms(),
            loss: rounded(f64::from(statement.loss)),
            burst: rounded(f64::from(statement.burst)),
            residual_loss: fine(expected.residual),
            redundancy: rounded(expected.shards - 1.0),
            capacity_kbps: (statement.capacity_kbps > 0).then_some(statement.capacity_kbps),
            load_kbps: statement.load_kbps,
            suspect: own && self.router.is_suspect(self.graph.key(to)),
        }
    }
}

/// To five places: statements have no more, and nobody wants to read 0.0299999993.
fn rounded(figure: f64) -> f64 {
    (figure * 1e5).round() / 1e5
}

/// To more places: recovery plans aim at some millionths.
fn fine(share: f64) -> f64 {
    (share * 1e8).round() / 1e8
}

fn no_instance(service: &ServiceName, instances: &[InstanceView]) -> String {
    match instances {
        [] => format!("no relay advertises {service}"),
        [first, ..] => {
            let all = instances.len();
            format!(
                "none of the {all} relays that advertise {service} takes new flows from here; {}: {}",
                first.pop, first.why
            )
        }
    }
}

/// Why `path` costs more than `chosen`: by how much, and what that is made of.
fn slower(path: &PathView, chosen: &PathView) -> String {
    let differ = |of: fn(&MetricTerms) -> Cost| (of(&path.terms) - of(&chosen.terms)).ms();
    let parts: [(&str, f64); 8] = [
        ("delay", differ(|terms| terms.delay)),
        ("jitter", differ(|terms| terms.jitter)),
        ("recovery of losses", differ(|terms| terms.recovery)),
        ("residual loss", differ(|terms| terms.residual_loss)),
        ("redundancy", differ(|terms| terms.redundancy)),
        ("a filling link", differ(|terms| terms.capacity)),
        ("relays", differ(|terms| terms.relay)),
        ("operator cost", differ(|terms| terms.operator)),
    ];
    let mut parts: Vec<(&str, f64)> =
        parts.into_iter().filter(|(_, ms)| ms.abs() >= 0.05).collect();
    parts.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    let parts: Vec<String> =
        parts.iter().take(3).map(|(name, ms)| format!("{name} {ms:+.1} ms")).collect();
    let behind = path.total_ms - chosen.total_ms;
    match parts.as_slice() {
        [] => format!("slower by {behind:.1} ms"),
        parts => format!("slower by {behind:.1} ms: {}", parts.join(", ")),
    }
}

fn summary(chosen: &PathView, direct: Option<&Direct>) -> String {
    let pops: Vec<&str> = chosen.pops.iter().map(PopId::as_str).collect();
    let route = format!("{} at {:.1} ms", pops.join(" > "), chosen.total_ms);
    match direct {
        None if chosen.pops.len() == 1 => "this relay itself".to_owned(),
        None => format!("{route}: the direct link"),
        Some(Direct { why, .. }) => format!("{route}; the direct link is not used: {why}"),
    }
}
