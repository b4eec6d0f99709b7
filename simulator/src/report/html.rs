//! The page: one file that needs nothing else.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use tradewind_router::explain::{Explanation, PathView};

use super::map;
use super::plots::{self, Line};
use super::series::Recorder;
use crate::baseline::Way;
use crate::outcome::{FlowOutcome, Outcome, RouteAt, Row, WireUse};
use crate::traffic::FlowReport;
use crate::world::World;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Rows of the table that have plots of their own.
const MOST_PLOTTED: usize = 12;
/// Rows of the table.
const MOST_ROWS: usize = 200;
/// Routes that are explained.
const MOST_EXPLAINED: usize = 40;
/// Pairs that did worst.
const WORST: usize = 10;
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

/// The whole page.
pub(super) fn page(world: &World, outcome: &Outcome, recorder: &Recorder<'_>) -> String {
    let rows = outcome.rows();
    let name = escaped(&world.name);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\
         <title>{name} - Tradewind simulation</title><style>{STYLE}</style></head><body><main>"
    );
    page += &head(world, outcome);
    page += &tiles(&rows, outcome);
    page += &table(&rows, outcome);
    page += &map_section(world, outcome);
    page += &plots_section(&rows, outcome, recorder);
    page += &worst_section(outcome);
    page += &routes_section(outcome);
    page += &events_section(outcome);
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
    format!(
        "<header><div><h1>{}</h1><div class=\"soft\">{} PoPs, {} directed links, flows: {}, events: {}; \
         {} s of traffic after {} s of warm-up{cut}; seed {}; tradewind-sim {}</div></div>\
         <button id=\"theme\" type=\"button\">Light / dark</button></header>",
        escaped(&world.name),
        world.pops.len(),
        world.links.len(),
        world.traffic.len(),
        world.events.len(),
        world.duration.as_secs_f64(),
        world.warmup.as_secs_f64(),
        world.seed,
        env!("CARGO_PKG_VERSION"),
    )
}

/// Cut, not rounded: 100 means all.
fn percent(share: f64, digits: i32) -> String {
    let scale = 10f64.powi(digits);
    let cut = (share * 100.0 * scale + 1e-9).floor() / scale;
    format!("{cut:.*}", digits.unsigned_abs() as usize)
}

fn ms(delay: Option<f64>) -> String {
    delay.map_or("-".into(), |ms| format!("{ms:.1}"))
}

fn lost_share(report: &FlowReport) -> f64 {
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

fn table(rows: &[Row<'_>], outcome: &Outcome) -> String {
    let mut out = String::from(
        "<section><h2>Against the baselines</h2><div class=\"wide\"><table><thead><tr>\
         <th class=\"l\">flow</th><th class=\"l\">way</th><th>in time %</th><th>median ms</th>\
         <th>90 % ms</th><th>99 % ms</th><th>99.9 % ms</th><th>longest gap ms</th><th>lost %</th>\
         <th>sent</th></tr></thead><tbody>",
    );
    for (nth, row) in rows.iter().take(MOST_ROWS).enumerate() {
        let name = match row.single() {
            Some(_) => escaped(row.name),
            None => format!(
                "{} <span class=\"soft\">{} flows</span>",
                escaped(row.name),
                row.flows.len()
            ),
        };
        table_rows(&mut out, &name, row.ways(), (row.single().is_some()).then_some(nth));
    }
    let all = totals(rows);
    if rows.len() > 1 {
        table_rows(&mut out, "all", all.iter().map(|(way, report)| (*way, report)), None);
    }
    out += "</tbody></table></div>";
    if rows.len() > MOST_ROWS {
        let more = rows.len() - MOST_ROWS;
        let _ = write!(out, "<p class=\"soft\">and {more} more, in summary.json</p>");
    }
    out += "<div class=\"legend\" style=\"margin-top:12px\">";
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

fn table_rows<'r>(
    out: &mut String,
    name: &str,
    ways: impl Iterator<Item = (Way, &'r FlowReport)>,
    route: Option<usize>,
) {
    for (nth, (way, report)) in ways.enumerate() {
        let shown = if nth == 0 { name } else { "" };
        let quantile = |q| ms(report.delays.quantile(q).map(|delay| delay.as_secs_f64() * 1e3));
        let way = way.name();
        let last = if way == "overlay" { "overlay last" } else { "" };
        let link = route.map_or(String::new(), |nth| format!(" data-route=\"route-{nth}\""));
        let _ = write!(
            out,
            "<tr class=\"{last}\"{link}><td class=\"l\">{shown}</td><td class=\"l\">\
             <i class=\"way {way}\"></i>{way}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{:.0}</td><td>{:.3}</td><td>{}</td></tr>",
            percent(report.in_time_share(), 3),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            report.longest_gap_ms(),
            lost_share(report) * 100.0,
            report.sent,
        );
    }
}

fn map_section(world: &World, outcome: &Outcome) -> String {
    format!(
        "<section><h2>Paths in use</h2><figure>{}</figure><div class=\"legend\">\
         <span><i class=\"key\" style=\"background:var(--good)\"></i>link lost under 1 %</span>\
         <span><i class=\"key\" style=\"background:var(--fair)\"></i>1 to 5 %</span>\
         <span><i class=\"key\" style=\"background:var(--poor)\"></i>5 to 15 %</span>\
         <span><i class=\"key\" style=\"background:var(--bad)\"></i>15 % and more</span>\
         <span>the wider, the more payload; filled PoPs have flows of their own; open a route \
         below to see it alone</span></div></section>",
        map::svg(world, outcome)
    )
}

fn legend(ways: impl Iterator<Item = Way>) -> String {
    let entry = |way: Way| format!("<span><i class=\"way {0}\"></i>{0}</span>", way.name());
    format!("<div class=\"legend\">{}</div>", ways.map(entry).collect::<String>())
}

fn plots_section(rows: &[Row<'_>], outcome: &Outcome, recorder: &Recorder<'_>) -> String {
    let mut out = String::from("<section><h2>Delay and delivery</h2>");
    let mut events: Vec<Duration> = outcome.happened.iter().map(|(at, _)| *at).collect();
    events.dedup();
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
            let usual = report.delays.quantile(0.5).unwrap_or_default();
            shares.push(plots::share_over_time(way, track, nth, usual));
            delays.push(plots::delay_over_time(way, track, nth));
        }
        let _ = write!(out, "<h3>{}</h3><div class=\"plots\">", escaped(row.name));
        let late = deadline.map_or(String::new(), |deadline| {
            format!("; dashed: the deadline, {} ms", deadline.as_secs_f64() * 1e3)
        });
        figure(
            &mut out,
            &plots::distribution(&missing, deadline),
            &format!("Share of packets sent that had not come within a delay{late}"),
        );
        if let Some(longest) = longest(&delays) {
            let least = shares.iter().flat_map(|line| &line.points).map(|(_, share)| *share);
            let least = (least.fold(100.0, f64::min) - 2.0).clamp(0.0, 98.0);
            let plot =
                |lines: &[Line], y, unit| plots::over_time(lines, outcome.lasted, y, unit, &events);
            figure(
                &mut out,
                &plot(&shares, least..100.0, "%"),
                "In time, of a second each; dashed: events",
            );
            let caption = "99th percentile of delay; dashed: events";
            figure(&mut out, &plot(&delays, 0.0..longest * 1.1, "ms"), caption);
        }
        out += "</div>";
    }
    if rows.len() > MOST_PLOTTED {
        let more = rows.len() - MOST_PLOTTED;
        let _ = write!(out, "<p class=\"soft\">{more} more are in series.csv</p>");
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

/// The flows that did worst, one of each pair of ends.
fn worst_section(outcome: &Outcome) -> String {
    let mut flows: Vec<&FlowOutcome> = outcome.flows.iter().collect();
    let p99 = |flow: &FlowOutcome| flow.overlay.delay_p99_ms().unwrap_or(f64::INFINITY);
    flows.sort_by(|a, b| {
        let share = a.overlay.in_time_share().total_cmp(&b.overlay.in_time_share());
        share.then(p99(b).total_cmp(&p99(a)))
    });
    let mut seen = BTreeSet::new();
    flows.retain(|flow| seen.insert((&flow.traffic.from, &flow.traffic.to)));
    let mut out = format!(
        "<section><h2>The worst {} pairs, and why</h2><div class=\"wide\"><table><thead><tr>\
         <th class=\"l\">from &gt; to</th><th>in time %</th><th>99 % ms</th><th>lost %</th>\
         <th class=\"l\">why</th></tr></thead><tbody>",
        flows.len().min(WORST)
    );
    for flow in flows.into_iter().take(WORST) {
        let _ = write!(
            out,
            "<tr><td class=\"l\">{} &gt; {}</td><td>{}</td><td>{}</td><td>{:.3}</td>\
             <td class=\"l w\">{}</td></tr>",
            flow.traffic.from,
            flow.traffic.to,
            percent(flow.overlay.in_time_share(), 3),
            ms(flow.overlay.delay_p99_ms()),
            lost_share(&flow.overlay) * 100.0,
            escaped(&reasons(flow, outcome)),
        );
    }
    out + "</tbody></table></div></section>"
}

/// What stood in the way of a flow, as far as the run shows it.
fn reasons(flow: &FlowOutcome, outcome: &Outcome) -> String {
    let mut reasons = Vec::new();
    let ends = flow.routes.iter().skip(1).map(|route| route.at).chain([outcome.lasted]);
    let without = flow.routes.iter().zip(ends).filter(|(route, _)| route.path.is_none());
    let without: Duration = without.map(|(route, until)| until.saturating_sub(route.at)).sum();
    if !without.is_zero() {
        reasons.push(format!("no route for {:.1} s", without.as_secs_f64()));
    }
    let gap = flow.overlay.longest_gap;
    if gap > flow.traffic.interval * 4 + Duration::from_millis(20) {
        let ms = gap.as_secs_f64() * 1e3;
        reasons.push(format!("the longest gap lasted {ms:.0} ms"));
    }
    if flow.overlay.delay_p99_ms() > Some(flow.traffic.deadline.as_secs_f64() * 1e3) {
        reasons.push("more than one packet in a hundred came after the deadline".into());
    }
    let used: BTreeSet<(&str, &str)> = flow
        .routes
        .iter()
        .filter_map(|route| route.path.as_ref())
        .flat_map(|path| path.windows(2).map(|hop| (hop[0].as_str(), hop[1].as_str())))
        .collect();
    let mut links: Vec<(f64, String)> = Vec::new();
    for link in &outcome.links {
        let (from, to) = (link.link.0.as_str(), link.link.1.as_str());
        let counters = &link.counters;
        let share = |part: u64| part as f64 / counters.offered.max(1) as f64;
        if used.contains(&(from, to)) && share(counters.dropped()) >= 0.005 {
            let full = if share(counters.queue_full) > 0.002 { ", its queue was full" } else { "" };
            let loss = share(counters.dropped());
            links.push((loss, format!("{from} > {to} dropped {:.1} %{full}", loss * 100.0)));
        }
    }
    links.sort_by(|a, b| b.0.total_cmp(&a.0));
    reasons.extend(links.into_iter().take(3).map(|(_, reason)| reason));
    let changes = flow.routes.len().saturating_sub(1);
    if changes > 0 {
        reasons.push(format!("{changes} changes of route"));
    }
    if reasons.is_empty() { "nothing went wrong".into() } else { reasons.join("; ") }
}

fn path_text(route: &RouteAt) -> String {
    escaped(&route.path_text())
}

fn routes_section(outcome: &Outcome) -> String {
    let mut out = String::from(
        "<section><h2>Routes</h2><p class=\"soft\">As the ingress relay's own router explains them at \
         the end of the run.</p>",
    );
    let rows = outcome.rows();
    let mut shown = 0;
    for (nth, row) in rows.iter().enumerate() {
        for flow in row.flows.iter().filter(|flow| flow.why.is_some()) {
            if shown == MOST_EXPLAINED {
                break;
            }
            shown += 1;
            let last = flow.routes.last();
            let path = last.and_then(|route| route.path.as_ref());
            let path = path.map_or(String::new(), |path| {
                path.iter().map(|pop| pop.as_str()).collect::<Vec<_>>().join(" ")
            });
            let id =
                if row.single().is_some() { format!(" id=\"route-{nth}\"") } else { String::new() };
            let _ = write!(
                out,
                "<details{id} data-path=\"{path}\"><summary><b>{}</b><span class=\"soft\">{}</span>\
                 </summary>",
                escaped(&flow.traffic.name),
                last.map_or("none".into(), path_text),
            );
            if let Some(why) = &flow.why {
                explanation(&mut out, why);
            }
            for route in flow.routes.iter().skip(1).take(20) {
                let at = route.at.as_secs_f64();
                let _ =
                    write!(out, "<div class=\"soft\">from {at:.2} s: {}</div>", path_text(route));
            }
            out += "</details>";
        }
    }
    out + "</section>"
}

fn explanation(out: &mut String, why: &Explanation) {
    let _ = write!(
        out,
        "<p>{}</p><div class=\"wide\"><table><thead><tr><th class=\"l\">path</th><th>metric ms</th>\
         <th>delay</th><th>jitter</th><th>recovery</th><th>residual loss</th><th>capacity</th>\
         <th>relays</th><th>loss %</th><th class=\"l\">why</th></tr></thead><tbody>",
        escaped(&why.summary)
    );
    if let Some(chosen) = &why.chosen {
        path_row(out, &chosen.path, "in use");
    }
    if let Some(backup) = &why.backup {
        path_row(out, backup, "backup");
    }
    for other in &why.alternates {
        path_row(out, &other.path, &other.why);
    }
    if let Some(direct) = &why.direct {
        match &direct.path {
            Some(path) => path_row(out, path, &format!("the direct link: {}", direct.why)),
            None => {
                let why = escaped(&direct.why);
                let _ = write!(
                    out,
                    "<tr><td class=\"l\">the direct link</td><td colspan=\"8\"></td>\
                     <td class=\"l w\">{why}</td></tr>"
                );
            }
        }
    }
    *out += "</tbody></table></div>";
}

fn path_row(out: &mut String, path: &PathView, why: &str) {
    let pops = path.pops.iter().map(|pop| pop.as_str()).collect::<Vec<_>>().join(" &gt; ");
    let terms = &path.terms;
    let _ = write!(out, "<tr><td class=\"l\">{pops}</td><td>{:.1}</td>", path.total_ms);
    let terms = [
        terms.delay,
        terms.jitter,
        terms.recovery,
        terms.residual_loss,
        terms.capacity,
        terms.relay,
    ];
    for term in terms {
        let _ = write!(out, "<td>{:.1}</td>", term.ms());
    }
    let _ = write!(
        out,
        "<td>{:.2}</td><td class=\"l w\">{}</td></tr>",
        path.loss * 100.0,
        escaped(why)
    );
}

fn events_section(outcome: &Outcome) -> String {
    if outcome.happened.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<section><h2>What happened</h2><div class=\"wide\"><table><thead><tr>\
         <th>after s</th><th class=\"l\">event</th></tr></thead><tbody>",
    );
    for (at, what) in outcome.happened.iter().take(MOST_EVENTS) {
        let _ = write!(
            out,
            "<tr><td style=\"width:90px\">{:.2}</td><td class=\"l w\">{}</td></tr>",
            at.as_secs_f64(),
            escaped(what)
        );
    }
    out += "</tbody></table></div>";
    let more = outcome.happened.len().saturating_sub(MOST_EVENTS);
    if more > 0 {
        let _ = write!(out, "<p class=\"soft\">{more} more are in events.ndjson</p>");
    }
    out + "</section>"
}
