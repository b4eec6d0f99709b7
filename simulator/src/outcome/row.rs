//! A flow, or all flows of a group together, as a line of the tables.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::Cell;
use serde_json::{Value, json};

use super::{FlowOutcome, millis, number};
use crate::baseline::Way;
use crate::emulator::IP_UDP_HEADERS;
use crate::traffic::FlowReport;
use crate::world::{Limits, Traffic};

/// What tables, asserts and JSON show as one: a flow without a group, or a group.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The flow's name, or the group's.
    pub name: &'a str,
    /// At least one.
    pub flows: Vec<&'a FlowOutcome>,
    /// What arrived over the overlay.
    pub overlay: FlowReport,
    /// What arrived over the direct paths of those flows that have one.
    pub direct: Option<FlowReport>,
    /// What arrived in each baseline.
    pub baselines: BTreeMap<Way, FlowReport>,
}

impl<'a> Row<'a> {
    pub(super) fn new(name: &'a str, flows: Vec<&'a FlowOutcome>) -> Self {
        let overlay = FlowReport::merged(flows.iter().map(|flow| &flow.overlay));
        let direct: Vec<_> = flows.iter().filter_map(|flow| flow.direct.as_ref()).collect();
        let direct = (!direct.is_empty()).then(|| FlowReport::merged(direct));
        let ways = flows.iter().flat_map(|flow| flow.baselines.keys()).collect::<BTreeSet<_>>();
        let baselines = ways.into_iter().map(|&way| {
            let reports = flows.iter().filter_map(|flow| flow.baselines.get(&way));
            (way, FlowReport::merged(reports))
        });
        Self { name, overlay, direct, baselines: baselines.collect(), flows }
    }

    /// Every way that was run, in the order of tables.
    pub fn ways(&self) -> impl Iterator<Item = (Way, &FlowReport)> {
        let direct = self.direct.iter().map(|report| (Way::Direct, report));
        let baselines = self.baselines.iter().map(|(&way, report)| (way, report));
        direct.chain(baselines).chain([(Way::Overlay, &self.overlay)])
    }

    /// The flow, unless this is a group.
    pub fn single(&self) -> Option<&'a FlowOutcome> {
        match self.flows[..] {
            [flow] if flow.traffic.group.is_none() => Some(flow),
            _ => None,
        }
    }

    /// Whether the overlay did better than the direct path for those flows that have one: more in
    /// time, or as much and sooner. `None` without a direct path.
    pub fn overlay_is_better(&self) -> Option<bool> {
        let direct = self.direct.as_ref()?;
        let rivals = self.flows.iter().filter(|flow| flow.direct.is_some());
        let overlay = FlowReport::merged(rivals.map(|flow| &flow.overlay));
        let p99 = |report: &FlowReport| report.delay_p99_ms().unwrap_or(f64::INFINITY);
        Some(match overlay.in_time.cmp(&direct.in_time) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => p99(&overlay) < p99(direct),
            std::cmp::Ordering::Less => false,
        })
    }

    /// The figures asked for that do not hold. Flows of a group are asked for the same.
    pub(super) fn broken(&self) -> Vec<String> {
        let limits = self.flows.first().map(|flow| flow.traffic.limits).unwrap_or_default();
        let (Limits { in_time, delay_median, delay_p99, longest_gap }, got) =
            (limits, &self.overlay);
        let share = in_time.filter(|least| got.in_time_share() < *least).map(|least| {
            let (got, least) = (in_time_percent(got), least * 100.0);
            format!("{got} % in time, at least {least} % wanted")
        });
        let spans = [
            ("median delay", got.delay_median_ms(), delay_median),
            ("99th percentile of delay", got.delay_p99_ms(), delay_p99),
            ("longest gap", Some(got.longest_gap_ms()), longest_gap),
        ];
        let spans = spans.into_iter().filter_map(|(what, got, most)| {
            let most = millis(most?);
            match got {
                Some(got) if got <= most => None,
                Some(got) => Some(format!("{what} {got:.1} ms, at most {most} ms wanted")),
                None => Some(format!("no {what}, as nothing arrived; at most {most} ms wanted")),
            }
        });
        let figures = share.into_iter().chain(spans);
        figures.map(|figure| format!("{}: {figure}", self.name)).collect()
    }

    /// A line for each way.
    pub(super) fn cells(&self) -> Vec<Vec<Cell>> {
        let name = match self.single() {
            Some(_) => self.name.to_owned(),
            None => format!("{} ({} flows)", self.name, self.flows.len()),
        };
        let wire = |way, report: &FlowReport| match way {
            Way::Direct => format!("{:.2}", direct_wire(report)),
            _ => "see all".into(),
        };
        self.ways()
            .map(|(way, report)| cells(&name, way.name(), report, wire(way, report)))
            .collect()
    }

    /// How routes changed, in a line.
    pub(super) fn route_remark(&self) -> String {
        if let Some(flow) = self.single() {
            let (before, after) = (flow.route_before(), flow.route_after());
            return format!("route of {}: {before} at first, {after} at the end", self.name);
        }
        let pairs = self.flows.iter().map(|flow| (&flow.traffic.from, &flow.traffic.to));
        let pairs = pairs.collect::<BTreeSet<_>>().len();
        let moved = self.flows.iter().filter(|flow| flow.route_before() != flow.route_after());
        format!(
            "routes of {}: {} flows between {pairs} pairs, {} of them on another route at the end",
            self.name,
            self.flows.len(),
            moved.count(),
        )
    }

    /// As [`super::Outcome::to_json`] has it.
    pub(super) fn to_json(&self) -> Value {
        let mut row = json!({
            "name": self.name,
            "overlay_better": self.overlay_is_better(),
            "overlay": self.overlay,
            "direct": self.direct,
            "direct_bytes_per_payload_byte": self.direct.as_ref().map(direct_wire),
        });
        let more = match self.single() {
            None => json!({ "flows": self.flows.len() }),
            Some(FlowOutcome { traffic, routes, .. }) => {
                let Traffic { from, to, class, size, deadline, .. } = traffic;
                json!({
                    "from": from,
                    "to": to,
                    "class": class,
                    "size_bytes": size,
                    "deadline_ms": millis(*deadline),
                    "routes": routes.iter().map(|route| json!({
                        "at_ms": millis(route.at), "path": route.path,
                    })).collect::<Vec<_>>(),
                })
            }
        };
        for (way, report) in &self.baselines {
            row[way.name()] = json!(report);
        }
        if let (Value::Object(row), Value::Object(more)) = (&mut row, more) {
            row.extend(more);
        }
        row
    }
}

/// Bytes on the wire for each payload byte without an overlay.
pub(crate) fn direct_wire(direct: &FlowReport) -> f64 {
    1.0 + (direct.sent * IP_UDP_HEADERS as u64) as f64 / direct.sent_bytes.max(1) as f64
}

fn cells(name: &str, way: &str, report: &FlowReport, wire: String) -> Vec<Cell> {
    let delay = |delay: Option<f64>| number(delay.map_or("-".into(), |ms| format!("{ms:.1}")));
    vec![
        Cell::new(name),
        Cell::new(way),
        number(in_time_percent(report)),
        delay(report.delay_median_ms()),
        delay(report.delay_p99_ms()),
        number(format!("{:.0}", report.longest_gap_ms())),
        number(report.lost()),
        number(wire),
    ]
}

/// Cut, not rounded: 100 means all.
pub(crate) fn in_time_percent(report: &FlowReport) -> String {
    format!("{:.3}", (report.in_time_share() * 1e5).floor() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_cut_so_that_100_means_all() {
        let report = FlowReport { sent: 1_000_000, in_time: 999_999, ..FlowReport::default() };
        assert_eq!(in_time_percent(&report), "99.999");
    }
}
