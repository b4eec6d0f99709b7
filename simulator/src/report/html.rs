//! The page: one file that needs nothing else.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use tradewind_proto::link::Recovery;

use super::plots::{self, Line, Mark};
use super::routes::Routes;
use super::series::Recorder;
use super::{map, worst};
use crate::baseline::Way;
use crate::outcome::{Outcome, Row, WireUse};
use crate::traffic::FlowReport;
use crate::world::{Fidelity, World};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Rows of the table that have plots of their own.
const MOST_PLOTTED: usize = 12;
/// Rows of the table.
const MOST_ROWS: usize = 200;
/// Events listed.
const MOST_EVENTS: usize = 200;

/// `text` as HTML shows it.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// A number with commas between the thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let comma = |at: usize| at > 0 && (digits.len() - at).is_multiple_of(3);
    let each =
        digits.char_indices().map(|(at, c)| if comma(at) { format!(",{c}") } else { c.into() });
    each.collect()
}

/// `1 route`, `2 routes`.
pub(super) fn counted(number: usize, what: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {what}{end}", grouped(number as u64))
}

/// The whole page.
pub(super) fn page(world: &World, outcome: &Outcome, recorder: &Recorder<'_>) -> String {
    let rows = outcome.rows();
    let routes = Routes::new(outcome);
    let name = escaped(&world.name);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{name} - Tradewind simulation</title><style>{STYLE}</style></head><body><main>"
    );
    page += &head(world, outcome);
    page += &verdict(&rows);
    page += &tiles(&rows, outcome);
    page += &table(&rows, outcome, &routes);
    page += &map_section(world, outcome);
    page += &plots_section(world, &rows, outcome, recorder);
    page += &events_section(outcome);
    page += &worst::section(outcome, &routes);
    page += &routes.section();
    let _ = writeln!(
        page,
        "<footer>Written by tradewind-sim {}. Coast: Natural Earth, public domain, by way of \
         world-atlas (ISC License, Copyright 2013-2019 Michael Bostock).</footer></main>\
         <script>{SCRIPT}</script></body></html>",
        env!("CARGO_PKG_VERSION"),
    );
    page
}

fn head(world: &World, outcome: &Outcome) -> String {
    let cut = match outcome.interrupted() {
        true => format!(", ended early after {:.1} s", outcome.lasted.as_secs_f64()),
        false => String::new(),
    };
    let fidelity = match world.fidelity {
        Fidelity::Packet => "every packet simulated",
        Fidelity::Flow => "flows simulated as rates",
    };
    let recovery = match world.recovery {
        Recovery::Plan => String::new(),
        Recovery::ArqOnly => ", repair by repeats alone".into(),
        Recovery::FixedFec { parity } => format!(", repair by {:.0} % parity", parity * 100.0),
        Recovery::None => ", nothing repaired".into(),
    };
    format!(
        "<header><div><h1>{}</h1><div class=\"soft\">{}, {}, {}, {}; \
         {} s of traffic after {} s of warm-up{cut}; {fidelity}{recovery}; seed {}</div></div>\
         <button id=\"theme\" type=\"button\">Light / dark</button></header>",
        escaped(&world.name),
        counted(world.pops.len(), "PoP"),
        counted(world.links.len(), "one-way link"),
        counted(world.traffic.len(), "flow"),
        counted(outcome.happened.len(), "event"),
        world.duration.as_secs_f64(),
        world.warmup.as_secs_f64(),
        world.seed,
    )
}

/// The run in a sentence.
fn verdict(rows: &[Row<'_>]) -> String {
    let totals = totals(rows);
    let missed = |way: Way| {
        let (_, report) = totals.iter().find(|(other, _)| *other == way)?;
        Some((report.sent - report.in_time, report.sent))
    };
    let of = |(missed, sent)| format!("{} of {}", grouped(missed), grouped(sent));
    let Some(overlay) = missed(Way::Overlay) else { return String::new() };
    let others =
        [(Way::Direct, "the direct links"), (Way::Routed, "the same overlay without repair")];
    let others = others.iter().filter_map(|(way, name)| Some((missed(*way)?, name)));
    let others = others.map(|(count, name)| format!("; over {name} {}", of(count)));
    format!(
        "<p class=\"verdict\">Over the overlay <b>{} packets</b> were lost or late{}.</p>",
        of(overlay),
        others.collect::<String>(),
    )
}

/// Cut, not rounded: 100 means all.
pub(super) fn percent(share: f64, digits: i32) -> String {
    let scale = 10f64.powi(digits);
    let cut = (share * 100.0 * scale + 1e-9).floor() / scale;
    format!("{cut:.*}", digits.unsigned_abs() as usize)
}

pub(super) fn ms(delay: Option<f64>) -> String {
    delay.map_or("-".into(), |ms| format!("{ms:.1}"))
}

pub(super) fn lost_share(report: &FlowReport) -> f64 {
    report.lost() as f64 / report.sent.max(1) as f64
}

/// All rows as one, for each way.
fn totals(rows: &[Row<'_>]) -> Vec<(Way, FlowReport)> {
    let ways: BTreeSet<Way> = rows.iter().flat_map(|row| row.ways().map(|(way, _)| way)).collect();
    let of = |way| {
        let all = rows.iter().flat_map(Row::ways).filter(|(other, _)| *other == way);
        FlowReport::merged(all.map(|(_, report)| report))
    };
    ways.into_iter().map(|way| (way, of(way))).collect()
}

/// Bytes on a link per payload byte that crossed it.
fn wire(way: Way, report: &FlowReport, outcome: &Outcome) -> Option<f64> {
    match way {
        Way::Direct => {
            let headers = report.sent * crate::emulator::IP_UDP_HEADERS as u64;
            Some(1.0 + headers as f64 / report.sent_bytes.max(1) as f64)
        }
        Way::Overlay => Some(outcome.wire.per_crossing()),
        way => outcome.baseline_wire.get(&way).map(WireUse::per_crossing),
    }
}

fn tiles(rows: &[Row<'_>], outcome: &Outcome) -> String {
    let totals = totals(rows);
    let find = |way| totals.iter().find(|(other, _)| *other == way).map(|(_, report)| report);
    let mut out = String::from("<div class=\"tiles\">");
    for way in [Way::Direct, Way::Routed, Way::Overlay] {
        let Some(report) = find(way) else { continue };
        let (share, p99) = (percent(report.in_time_share(), 3), ms(report.delay_p99_ms()));
        let name = way.name();
        let _ = write!(
            out,
            "<div class=\"tile {name}\"><span>in time, {name}</span><b>{share} %</b>\
             <span>99th percentile {p99} ms</span></div>",
        );
    }
    if let Some(report) = find(Way::Overlay) {
        let before = find(Way::Routed).or(find(Way::Direct)).map(lost_share);
        let after = lost_share(report) * 100.0;
        let before = before.map_or(String::new(), |b| format!("{:.2} % before repair", b * 100.0));
        let _ = write!(
            out,
            "<div class=\"tile\"><span>lost after repair</span><b>{after:.3} %</b>\
             <span>{before}</span></div>\
             <div class=\"tile\"><span>bytes on a link per payload byte</span><b>{:.2}</b>\
             <span>repair, probes, headers and control included</span></div>",
            outcome.wire.per_crossing(),
        );
    }
    out + "</div>"
}

fn table(rows: &[Row<'_>], outcome: &Outcome, routes: &Routes<'_>) -> String {
    let mut out = String::from(
        "<section><h2>Against the baselines</h2><div class=\"wide\"><table><thead><tr>\
         <th class=\"l\">flow</th><th class=\"l\">way</th><th>in time %</th><th>median ms</th>\
         <th>90th ms</th><th>99th ms</th><th>99.9th ms</th><th>longest gap ms</th><th>lost %</th>\
         <th>packets sent</th></tr></thead><tbody>",
    );
    for row in rows.iter().take(MOST_ROWS) {
        let name = match row.single() {
            Some(flow) => routes.link(flow, row.name),
            None => {
                let flows = counted(row.flows.len(), "flow");
                format!("{} <span class=\"soft\">{flows}</span>", escaped(row.name))
            }
        };
        table_rows(&mut out, &name, row.ways());
    }
    let all = totals(rows);
    if rows.len() > 1 {
        table_rows(&mut out, "all", all.iter().map(|(way, report)| (*way, report)));
    }
    out += "</tbody></table></div>";
    if rows.len() > MOST_ROWS {
        let more = rows.len() - MOST_ROWS;
        let more = counted(more, "more row");
        let _ = write!(out, "<p class=\"soft\">{more} in summary.json</p>");
    }
    out += "<div class=\"legend ways\">";
    for (way, report) in &all {
        let wire = wire(*way, report, outcome)
            .map_or(String::new(), |wire| format!(", {wire:.2} bytes on a link per payload byte"));
        let name = way.name();
        let _ = write!(
            out,
            "<span><i class=\"way {name}\"></i><b>{name}</b>: {}{wire}</span>",
            way.meaning()
        );
    }
    out += "</div>";
    for broken in outcome.broken() {
        let _ = write!(out, "<p><b>Not as asserted:</b> {}</p>", escaped(&broken));
    }
    out + "</section>"
}

fn table_rows<'r>(out: &mut String, name: &str, ways: impl Iterator<Item = (Way, &'r FlowReport)>) {
    for (nth, (way, report)) in ways.enumerate() {
        let shown = if nth == 0 { name } else { "" };
        let quantile = |q| ms(report.delays.quantile(q).map(|delay| delay.as_secs_f64() * 1e3));
        let way = way.name();
        let last = if way == "overlay" { "overlay last" } else { "" };
        let _ = write!(
            out,
            "<tr class=\"{last}\"><td class=\"l\">{shown}</td><td class=\"l\">\
             <i class=\"way {way}\"></i>{way}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{:.0}</td><td>{:.3}</td><td>{}</td></tr>",
            percent(report.in_time_share(), 3),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            report.longest_gap_ms(),
            lost_share(report) * 100.0,
            grouped(report.sent),
        );
    }
}

fn map_section(world: &World, outcome: &Outcome) -> String {
    let key =
        |(nth, loss): (usize, &str)| format!("<span><i class=\"key q{nth}\"></i>{loss}</span>");
    let losses = ["under 1 % lost", "1 to 5 %", "5 to 15 %", "15 % and more"];
    format!(
        "<section><h2>Paths in use</h2><div class=\"wide\">{}</div><div class=\"legend\">{}\
         <span>the wider, the more payload</span><span><i class=\"dot end\"></i>has flows of its own\
         </span><span><i class=\"dot\"></i>has none</span></div></section>",
        map::svg(world, outcome),
        losses.into_iter().enumerate().map(key).collect::<String>(),
    )
}

fn legend(ways: impl Iterator<Item = Way>) -> String {
    let entry = |way: Way| format!("<span><i class=\"way {0}\"></i>{0}</span>", way.name());
    format!("<div class=\"legend\">{}</div>", ways.map(entry).collect::<String>())
}

/// The events, by their numbers in [`events_section`]; those of an instant are one.
fn marks(outcome: &Outcome) -> Vec<Mark> {
    let events = outcome.happened.iter().zip(1..);
    let mut marks: Vec<Mark> = events
        .map(|((at, _), nth)| Mark { at: at.as_secs_f64(), label: nth.to_string() })
        .collect();
    marks.dedup_by(|next, before| next.at == before.at);
    marks
}

fn plots_section(
    world: &World,
    rows: &[Row<'_>],
    outcome: &Outcome,
    recorder: &Recorder<'_>,
) -> String {
    let mut out = String::from("<section><h2>Delay and delivery</h2>");
    let marks = marks(outcome);
    let events = if marks.is_empty() { "" } else { "; dashed: the events below" };
    out += &legend(totals(rows).into_iter().map(|(way, _)| way));
    for (nth, row) in rows.iter().enumerate().take(MOST_PLOTTED) {
        let deadlines: BTreeSet<Duration> =
            row.flows.iter().map(|flow| flow.traffic.deadline).collect();
        let deadline = deadlines.first().copied().filter(|_| deadlines.len() == 1);
        let missing: Vec<Line> =
            row.ways().map(|(way, report)| plots::missing(way, report)).collect();
        let mut shares = Vec::new();
        let mut delays = Vec::new();
        for (way, report) in row.ways() {
            let Some(track) = recorder.track(way) else { continue };
            let usual = match world.fidelity {
                Fidelity::Packet => report.delays.quantile(0.5).unwrap_or_default(),
                Fidelity::Flow => Duration::ZERO, // what comes of packets is counted when they leave
            };
            shares.push(plots::share_over_time(way, track, nth, usual));
            delays.extend(plots::delay_over_time(way, track, nth));
        }
        let _ = write!(out, "<h3>{}</h3><div class=\"plots\">", escaped(row.name));
        let late = deadline.map_or(String::new(), |deadline| {
            format!("; dashed: the deadline, {} ms", deadline.as_secs_f64() * 1e3)
        });
        figure(
            &mut out,
            &plots::distribution(&missing, deadline),
            &format!("Packets sent that had not come within a delay{late}"),
        );
        if let Some(longest) = longest(&delays) {
            let least = shares.iter().flat_map(|line| &line.points).map(|(_, share)| *share);
            let least = (least.fold(100.0, f64::min) - 2.0).clamp(0.0, 98.0);
            let plot =
                |lines: &[Line], y, unit| plots::over_time(lines, outcome.lasted, y, unit, &marks);
            figure(
                &mut out,
                &plot(&shares, least..100.0, "%"),
                &format!("Packets in time, of those sent within a second{events}"),
            );
            figure(
                &mut out,
                &plot(&delays, 0.0..longest * 1.1, "ms"),
                &format!("99th percentile of delay{events}"),
            );
        }
        out += "</div>";
    }
    if rows.len() > MOST_PLOTTED {
        let more = rows.len() - MOST_PLOTTED;
        let more = counted(more, "more row");
        let _ = write!(out, "<p class=\"soft\">{more} in series.csv</p>");
    }
    out + "</section>"
}

fn longest(delays: &[Line]) -> Option<f64> {
    let all = delays.iter().flat_map(|line| &line.points).map(|(_, ms)| *ms);
    all.fold(None, |most: Option<f64>, ms| Some(most.map_or(ms, |most| most.max(ms))))
}

fn figure(out: &mut String, svg: &str, caption: &str) {
    let _ = write!(out, "<figure>{svg}<figcaption>{caption}</figcaption></figure>");
}

fn events_section(outcome: &Outcome) -> String {
    if outcome.happened.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section><h2>What happened</h2><div class=\"wide\"><table class=\"events\"><thead><tr>\
         <th>event</th><th>after s</th><th class=\"l\">what</th></tr></thead><tbody>",
    );
    for ((at, what), nth) in outcome.happened.iter().zip(1..).take(MOST_EVENTS) {
        let at = at.as_secs_f64();
        let what = escaped(what);
        let _ = write!(out, "<tr><td>{nth}</td><td>{at:.2}</td><td class=\"l w\">{what}</td></tr>");
    }
    out += "</tbody></table></div>";
    let more = outcome.happened.len().saturating_sub(MOST_EVENTS);
    if more > 0 {
        let more = counted(more, "more event");
        let _ = write!(out, "<p class=\"soft\">{more} in events.ndjson</p>");
    }
    out + "</section>"
}
