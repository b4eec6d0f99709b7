//! What came out of a run: the figures, the tables for people and the JSON document.

mod row;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};
use tradewind_proto::link::Liveness;
use tradewind_proto::units::PopId;
use tradewind_router::explain::Explanation;

use crate::baseline::Way;
use crate::emulator::{EmulatorHealth, LinkReport};
use crate::traffic::FlowReport;
use crate::world::{LinkId, Traffic};
pub use row::Row;

/// The table of links has so many rows at most: nobody reads thousands.
const MOST_LINKS: usize = 40;

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The world's name.
    pub name: String,
    /// Its seed.
    pub seed: u64,
    /// How long traffic should flow.
    pub duration: Duration,
    /// How long it did: less if somebody interrupted the run.
    pub lasted: Duration,
    /// Every flow, in the order of the world.
    pub flows: Vec<FlowOutcome>,
    /// What happened when.
    pub happened: Vec<(Duration, String)>,
    /// What the overlay sent.
    pub wire: WireUse,
    /// The most that [`WireUse::per_crossing`] may be.
    pub wire_limit: Option<f64>,
    /// What every direction of every link did with the overlay's packets.
    pub links: Vec<LinkReport>,
    /// When relays found that a link to a neighbour changed its state.
    pub liveness: Vec<LivenessAt>,
    /// What each baseline sent.
    pub baseline_wire: BTreeMap<Way, WireUse>,
    /// How well the emulator did, if links were emulated in real time.
    pub emulator: Option<EmulatorHealth>,
}

/// One flow over both ways.
#[derive(Clone, Debug)]
pub struct FlowOutcome {
    /// What was sent.
    pub traffic: Traffic,
    /// What arrived over the overlay.
    pub overlay: FlowReport,
    /// What arrived over the direct path, if there is one.
    pub direct: Option<FlowReport>,
    /// What arrived when the world was run again with something left out.
    pub baselines: BTreeMap<Way, FlowReport>,
    /// Its route at the start and after every change.
    pub routes: Vec<RouteAt>,
    /// The ingress router's account of the route at the end, if it was asked.
    pub why: Option<Explanation>,
}

/// What a relay found of its link to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivenessAt {
    /// Since traffic began.
    pub at: Duration,
    /// From the relay to the neighbour.
    pub link: LinkId,
    /// The new state.
    pub state: Liveness,
}

/// A route from some time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteAt {
    /// Since traffic began.
    pub at: Duration,
    /// Both ends included; `None`: no route.
    pub path: Option<Vec<PopId>>,
}

/// What all relays together put on the wire while traffic flowed: every crossing of every link,
/// media, repair, probes, acknowledgements and control alike.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WireUse {
    /// Bytes with IP and UDP headers, over all links and directions.
    pub bytes: u64,
    /// Payload bytes sent into the tunnels.
    pub payload: u64,
    /// Payload bytes times the links that their route had when they were sent.
    pub payload_crossings: f64,
}

impl WireUse {
    /// What was used from `before` to `after` for `flows`.
    pub fn between(before: &[LinkReport], after: &[LinkReport], flows: &[FlowOutcome]) -> Self {
        let bytes = |links: &[LinkReport]| -> u64 {
            links.iter().map(|link| link.counters.offered_bytes).sum()
        };
        let payload = |flow: &FlowOutcome| flow.overlay.sent_bytes;
        Self {
            bytes: bytes(after).saturating_sub(bytes(before)),
            payload: flows.iter().map(payload).sum(),
            payload_crossings: flows.iter().map(|f| payload(f) as f64 * f.mean_links()).sum(),
        }
    }

    /// Bytes on all links for each payload byte sent.
    pub fn per_payload_byte(&self) -> f64 {
        self.bytes as f64 / (self.payload.max(1)) as f64
    }

    /// Bytes on one link for each payload byte that crossed it, on average.
    pub fn per_crossing(&self) -> f64 {
        self.bytes as f64 / self.payload_crossings.max(1.0)
    }
}

impl FlowOutcome {
    /// The first route of the run.
    pub fn route_before(&self) -> String {
        self.routes.first().map_or_else(|| "none".into(), RouteAt::path_text)
    }

    /// The last route of the run.
    pub fn route_after(&self) -> String {
        self.routes.last().map_or_else(|| "none".into(), RouteAt::path_text)
    }

    /// Links on the route, averaged over the flow's time.
    fn mean_links(&self) -> f64 {
        let Traffic { start, stop, .. } = self.traffic;
        let ends = self.routes.iter().skip(1).map(|route| route.at).chain([stop]);
        let weighed = self.routes.iter().zip(ends).map(|(route, until)| {
            let links = route.path.as_ref().map_or(0, |path| path.len().saturating_sub(1));
            let lasts = until.min(stop).saturating_sub(route.at.max(start));
            links as f64 * lasts.as_secs_f64()
        });
        weighed.sum::<f64>() / (stop - start).as_secs_f64().max(1e-9)
    }
}

impl RouteAt {
    /// `a > b > c`, or `none`.
    pub fn path_text(&self) -> String {
        match &self.path {
            Some(path) => path.iter().map(PopId::as_str).collect::<Vec<_>>().join(" > "),
            None => "none".into(),
        }
    }
}

impl Outcome {
    /// The flows as people read them: those of a group as one, the others each by itself.
    pub fn rows(&self) -> Vec<Row<'_>> {
        let rows = crate::world::rows(self.flows.iter().map(|flow| &flow.traffic));
        let members = |at: Vec<usize>| at.into_iter().map(|at| &self.flows[at]).collect();
        rows.into_iter().map(|(name, at)| Row::new(name, members(at))).collect()
    }

    /// Whether every row that has a direct path did better over the overlay, and there is one.
    pub fn overlay_is_better(&self) -> bool {
        let verdicts: Vec<bool> = self.rows().iter().filter_map(Row::overlay_is_better).collect();
        !verdicts.is_empty() && verdicts.into_iter().all(|better| better)
    }

    /// The figures asked for that do not hold, a sentence each.
    pub fn broken(&self) -> Vec<String> {
        let flows: Vec<String> = self.rows().iter().flat_map(Row::broken).collect();
        let (got, limit) = (self.wire.per_crossing(), self.wire_limit);
        let wire = limit.filter(|limit| got > *limit).map(|limit| {
            format!("all flows: {got:.3} bytes on a link per payload byte, at most {limit} wanted")
        });
        flows.into_iter().chain(wire).collect()
    }

    /// Whether the run was ended before its time.
    pub fn interrupted(&self) -> bool {
        self.lasted < self.duration
    }

    /// The flows, the ways beside each other.
    pub fn flow_table(&self) -> Table {
        let mut table = plain_table(&[
            "flow",
            "way",
            "in time %",
            "median ms",
            "p99 ms",
            "longest gap ms",
            "lost",
            "wire bytes/payload byte",
        ]);
        for row in self.rows() {
            row.cells().into_iter().for_each(|cells| {
                table.add_row(cells);
            });
        }
        let wires = self.baseline_wire.iter().map(|(&way, wire)| (way, wire));
        for (way, wire) in wires.chain([(Way::Overlay, &self.wire)]) {
            let used =
                format!("{:.2} ({:.2} a link)", wire.per_payload_byte(), wire.per_crossing());
            let mut all = vec![Cell::new("all"), Cell::new(way.name())];
            all.extend((0..5).map(|_| Cell::new("")));
            all.push(number(used));
            table.add_row(all);
        }
        table
    }

    /// The directions of links that saw a packet, in their order; of more than 40 those that carried
    /// most, and how many others there are.
    pub fn link_table(&self) -> Table {
        let mut table = plain_table(&[
            "link",
            "packets",
            "bytes",
            "lost",
            "queue full",
            "too big",
            "down",
            "dropped %",
        ]);
        let mut busiest: Vec<usize> = (0..self.links.len()).collect();
        busiest.retain(|&at| self.links[at].counters.offered > 0);
        busiest.sort_by_key(|&at| Reverse(self.links[at].counters.offered_bytes));
        let others = busiest.split_off(busiest.len().min(MOST_LINKS));
        busiest.sort_unstable();
        for link in busiest.into_iter().map(|at| &self.links[at]) {
            let counters = &link.counters;
            let share = 100.0 * counters.dropped() as f64 / counters.offered as f64;
            let mut row = vec![Cell::new(format!("{} > {}", link.link.0, link.link.1))];
            let numbers = [counters.offered, counters.offered_bytes, counters.lost];
            row.extend(numbers.map(number));
            row.extend([counters.queue_full, counters.too_big, counters.down].map(number));
            row.push(number(format!("{share:.2}")));
            table.add_row(row);
        }
        if !others.is_empty() {
            table.add_row([format!("{} others: --json has them", others.len())]);
        }
        table
    }

    /// Routes, events and how far to trust the emulator, a line each.
    pub fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.interrupted() {
            lines.push(format!("interrupted after {:.1} s", self.lasted.as_secs_f64()));
        }
        lines.extend(self.rows().iter().map(Row::route_remark));
        for (at, line) in &self.happened {
            lines.push(format!("after {:.2} s: {line}", at.as_secs_f64()));
        }
        lines.extend(self.emulator.iter().flat_map(health_remarks));
        lines
    }

    /// The overlay's figures, and those of each baseline under its name.
    fn wire_json(&self) -> Value {
        let mut all = wire_figures(&self.wire);
        for (way, wire) in &self.baseline_wire {
            all[way.name()] = wire_figures(wire);
        }
        all
    }

    /// The whole result as one document. Times in milliseconds, shares from 0 to 1.
    pub fn to_json(&self) -> Value {
        json!({
            "world": self.name,
            "seed": self.seed,
            "duration_s": self.duration.as_secs_f64(),
            "lasted_s": self.lasted.as_secs_f64(),
            "overlay_better": self.overlay_is_better(),
            "broken": self.broken(),
            "flows": self.rows().iter().map(Row::to_json).collect::<Vec<_>>(),
            "events": self.happened.iter().map(|(at, what)| json!({
                "at_ms": millis(*at), "what": what,
            })).collect::<Vec<_>>(),
            "wire": self.wire_json(),
            "links": self.links.iter().map(link_json).collect::<Vec<_>>(),
            "emulator": self.emulator.as_ref().map(|health| json!({
                "no_link": health.no_link,
                "strays": health.strays,
                "to_the_dead": health.to_the_dead,
                "overflow": health.overflow,
                "late_median_ms": millis(health.lateness[0]),
                "late_p99_ms": millis(health.lateness[1]),
                "late_max_ms": millis(health.lateness[2]),
            })),
        })
    }
}

fn wire_figures(wire: &WireUse) -> Value {
    json!({
        "overlay_bytes": wire.bytes,
        "payload_bytes": wire.payload,
        "bytes_per_payload_byte": wire.per_payload_byte(),
        "bytes_per_payload_byte_and_link": wire.per_crossing(),
    })
}

/// What the reader should know about the machine.
fn health_remarks(health: &EmulatorHealth) -> Vec<String> {
    let [median, p99, most] = health.lateness.map(millis);
    let mut lines = vec![format!(
        "the emulator was late by {median:.2} ms (median), {p99:.2} ms (99 %), {most:.1} ms (most)"
    )];
    if health.overflow > 0 {
        let dropped = health.overflow;
        lines.push(format!(
            "this machine is too slow: the emulator itself dropped {dropped} packets"
        ));
    }
    lines
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn link_json(link: &crate::emulator::LinkReport) -> Value {
    let counters = &link.counters;
    json!({
        "from": link.link.0,
        "to": link.link.1,
        "packets": counters.offered,
        "bytes": counters.offered_bytes,
        "delivered": counters.delivered,
        "delivered_bytes": counters.delivered_bytes,
        "dropped": {
            "loss": counters.lost,
            "queue_full": counters.queue_full,
            "too_big": counters.too_big,
            "down": counters.down,
        },
        "duplicated": counters.duplicated,
        "corrupted": counters.corrupted,
        "reordered": counters.reordered,
    })
}

pub(crate) fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.iter().copied());
    table
}

pub(crate) fn number(value: impl ToString) -> Cell {
    Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkCounters;
    use crate::traffic::Delays;
    use crate::world::{Limits, World};

    /// Packets in time, and the 99th percentile of their delay.
    type Arrived = (u64, f64);

    /// A flow with a route of two links for the first second, of three for the second.
    fn flow(overlay: Arrived, direct: Option<Arrived>) -> FlowOutcome {
        let text = "[run]\nduration='2s'\n[[pop]]\nid='a'\n[[pop]]\nid='b'\n\
                    [[traffic]]\nfrom='a'\nto='b'\npps=50\nsize=1000";
        let traffic = World::parse("test", text).unwrap().traffic.remove(0);
        let delays = |p99: f64, packets| {
            let mut delays = Delays::default();
            delays.record_many(Duration::from_secs_f64(p99 / 1e3), packets as u32);
            delays
        };
        let report = |(in_time, p99)| FlowReport {
            sent: 100,
            sent_bytes: 100_000,
            delivered: in_time,
            in_time,
            delays: delays(p99, in_time),
            ..FlowReport::default()
        };
        let route = |at, path: &[&str]| RouteAt {
            at: Duration::from_secs(at),
            path: Some(path.iter().map(|id| id.parse().unwrap()).collect()),
        };
        let routes = vec![route(0, &["a", "x", "b"]), route(1, &["a", "x", "y", "b"])];
        FlowOutcome {
            traffic,
            overlay: report(overlay),
            direct: direct.map(report),
            baselines: BTreeMap::new(),
            routes,
            why: None,
        }
    }

    fn outcome(flows: Vec<FlowOutcome>) -> Outcome {
        let duration = Duration::from_secs(2);
        let link = |offered_bytes| LinkReport {
            link: ("a".parse().unwrap(), "b".parse().unwrap()),
            counters: LinkCounters { offered_bytes, ..Default::default() },
        };
        let wire = WireUse::between(&[link(1_000)], &[link(301_000)], &flows);
        Outcome {
            name: "test".into(),
            seed: 1,
            duration,
            lasted: duration,
            flows,
            happened: Vec::new(),
            wire,
            wire_limit: Some(1.15),
            links: Vec::new(),
            liveness: Vec::new(),
            baseline_wire: BTreeMap::new(),
            emulator: None,
        }
    }

    #[test]
    fn better_is_more_in_time_or_as_much_and_sooner_for_every_flow() {
        let better = |pairs: &[(Arrived, Option<Arrived>)]| {
            outcome(pairs.iter().map(|(o, d)| flow(*o, *d)).collect()).overlay_is_better()
        };
        assert!(better(&[((99, 80.0), Some((98, 20.0)))]));
        assert!(better(&[((99, 19.0), Some((99, 20.0)))]));
        assert!(!better(&[((99, 20.0), Some((99, 20.0)))]));
        assert!(!better(&[((97, 10.0), Some((98, 20.0)))]));
        assert!(!better(&[((99, 9.0), Some((98, 20.0))), ((97, 9.0), Some((98, 20.0)))]));
        assert!(better(&[((99, 9.0), Some((98, 20.0))), ((10, 9.0), None)]));
        assert!(!better(&[((100, 1.0), None)]));
    }

    #[test]
    fn bytes_are_told_per_payload_byte_and_per_link_crossed() {
        let outcome = outcome(vec![flow((100, 1.0), None)]);
        assert_eq!((outcome.wire.bytes, outcome.wire.payload), (300_000, 100_000));
        assert!((outcome.wire.per_payload_byte() - 3.0).abs() < 1e-9);
        assert!((outcome.wire.per_crossing() - 300.0 / 250.0).abs() < 1e-9);
    }

    #[test]
    fn of_many_links_the_busiest_are_shown() {
        let mut outcome = outcome(vec![flow((100, 1.0), None)]);
        let link = |number: u64| LinkReport {
            link: ("a".parse().unwrap(), format!("b{number}").parse().unwrap()),
            counters: LinkCounters {
                offered: u64::from(number != 7),
                offered_bytes: number * 100,
                ..Default::default()
            },
        };
        outcome.links = (0..50).map(link).collect();
        let table = outcome.link_table();
        assert_eq!(table.row_count(), MOST_LINKS + 1);
        let lines = table.to_string();
        assert!(lines.contains("a > b49 ") && lines.contains("a > b10 "), "{lines}");
        assert!(!lines.contains("a > b9 "), "{lines}");
        assert!(lines.find("a > b10 ") < lines.find("a > b49 "), "{lines}");
        assert!(lines.contains("| 9 others: --json has them "), "{lines}");
        outcome.links.truncate(20);
        assert_eq!(outcome.link_table().row_count(), 19);
    }

    #[test]
    fn figures_that_were_asked_for_and_do_not_hold_are_told() {
        let asked_of = |arrived, limits| {
            let flow = flow(arrived, None);
            let traffic = Traffic { limits, ..flow.traffic };
            outcome(vec![FlowOutcome { traffic, ..flow }]).broken()
        };
        let asked = |limits| asked_of((99, 20.0), limits);
        let wire = "all flows: 1.200 bytes on a link per payload byte, at most 1.15 wanted";
        assert_eq!(asked(Limits::default()), [wire]);
        let ms = |ms| Some(Duration::from_millis(ms));
        let held = Limits {
            in_time: Some(0.99),
            delay_p99: ms(20),
            longest_gap: ms(0),
            ..Limits::default()
        };
        assert_eq!(asked(held), [wire]);
        let broken = Limits { in_time: Some(0.995), delay_p99: ms(19), ..Limits::default() };
        let median = Limits { delay_median: ms(10), ..Limits::default() };
        let nothing = "traffic-1: no median delay, as nothing arrived; at most 10 ms wanted";
        assert_eq!(asked_of((0, 0.0), median), [nothing, wire]);
        assert_eq!(
            asked(broken),
            [
                "traffic-1: 99.000 % in time, at least 99.5 % wanted",
                "traffic-1: 99th percentile of delay 20.0 ms, at most 19 ms wanted",
                wire,
            ]
        );
    }

    #[test]
    fn flows_of_a_group_are_one_row() {
        let member = |name: &str, overlay, direct| {
            let flow = flow(overlay, direct);
            let limits = Limits { in_time: Some(0.9), ..Limits::default() };
            let (name, group) = (name.to_owned(), Some("web".to_owned()));
            FlowOutcome { traffic: Traffic { name, group, limits, ..flow.traffic }, ..flow }
        };
        let outcome = outcome(vec![
            member("web/1", (90, 20.0), Some((80, 20.0))),
            flow((100, 5.0), None),
            member("web/2", (60, 30.0), None),
        ]);
        let rows = outcome.rows();
        assert_eq!(rows.iter().map(|row| row.name).collect::<Vec<_>>(), ["web", "traffic-1"]);
        assert_eq!((rows[0].overlay.sent, rows[0].overlay.in_time), (200, 150));
        assert_eq!(rows[0].overlay.delay_p99_ms().map(f64::round), Some(30.0));
        assert_eq!(rows[0].direct.as_ref().map(|direct| direct.in_time), Some(80));
        // Only web/1 is compared, as only web/1 has a direct path.
        assert_eq!(rows[0].overlay_is_better(), Some(true));
        assert_eq!(outcome.broken()[0], "web: 75.000 % in time, at least 90 % wanted");
        let json = outcome.to_json();
        assert_eq!(
            (json["flows"][0]["flows"].as_u64(), &json["flows"][0]["from"]),
            (Some(2), &Value::Null)
        );
        assert_eq!(json["flows"][1]["from"], "a");
        assert!(outcome.flow_table().to_string().contains("web (2 flows)"));
        assert!(outcome.remarks()[0].starts_with("routes of web: 2 flows between 1 pairs, 2 of"));
    }
}
