//! Routes as the routers of their ingress relays explain them.

use std::collections::BTreeMap;
use std::fmt::Write;

use tradewind_router::explain::{Explanation, PathView};

use super::html::{counted, escaped};
use crate::outcome::{FlowOutcome, Outcome};

/// Routes that are explained.
const MOST_EXPLAINED: usize = 40;
/// Changes of a route that are listed.
const MOST_CHANGES: usize = 20;
/// Relays that are named of those that a route may not visit.
const MOST_EXCLUDED: usize = 12;

/// The flows whose routes the page explains.
pub(super) struct Routes<'a> {
    flows: Vec<&'a FlowOutcome>,
    /// Their places in `flows`, by name.
    places: BTreeMap<&'a str, usize>,
}

impl<'a> Routes<'a> {
    pub(super) fn new(outcome: &'a Outcome) -> Self {
        let explained = outcome.flows.iter().filter(|flow| flow.why.is_some());
        let flows: Vec<&FlowOutcome> = explained.take(MOST_EXPLAINED).collect();
        let names = flows.iter().enumerate().map(|(at, flow)| (flow.traffic.name.as_str(), at));
        Self { places: names.collect(), flows }
    }

    /// `text`, which leads to the flow's explanation if there is one.
    pub(super) fn link(&self, flow: &FlowOutcome, text: &str) -> String {
        let text = escaped(text);
        match self.places.get(flow.traffic.name.as_str()) {
            Some(at) => format!("<a href=\"#route-{at}\">{text}</a>"),
            None => text,
        }
    }

    /// The section of the page.
    pub(super) fn section(&self) -> String {
        let mut out = String::from(
            "<section><h2>Routes, explained</h2><p class=\"soft\">Open one to see it alone on the map, \
             with the account that the ingress relay's own router gave of it at the end of the run.</p>",
        );
        for (at, flow) in self.flows.iter().enumerate() {
            let path = flow.routes.last().and_then(|route| route.path.as_ref());
            let pops = path.iter().flat_map(|path| path.iter().map(|pop| pop.as_str()));
            let _ = write!(
                out,
                "<details id=\"route-{at}\" data-path=\"{}\"><summary><b>{}</b> \
                 <span class=\"soft\">{}</span></summary>",
                pops.collect::<Vec<_>>().join(" "),
                escaped(&flow.traffic.name),
                escaped(&flow.route_after()),
            );
            flow.why.iter().for_each(|why| explanation(&mut out, why));
            history(&mut out, flow);
            out += "</details>";
        }
        out + "</section>"
    }
}

fn history(out: &mut String, flow: &FlowOutcome) {
    if flow.routes.len() < 2 {
        *out += "<p class=\"soft\">The same route throughout.</p>";
        return;
    }
    *out += "<div class=\"wide\"><table class=\"history\"><thead><tr><th>from s</th>\
             <th class=\"l\">route</th></tr></thead><tbody>";
    for route in flow.routes.iter().take(MOST_CHANGES) {
        let at = route.at.as_secs_f64();
        let path = escaped(&route.path_text());
        let _ = write!(out, "<tr><td>{at:.2}</td><td class=\"l w\">{path}</td></tr>");
    }
    *out += "</tbody></table></div>";
    let more = flow.routes.len().saturating_sub(MOST_CHANGES);
    if more > 0 {
        let more = counted(more, "more change");
        let _ = write!(out, "<p class=\"soft\">{more} in events.ndjson</p>");
    }
}

fn explanation(out: &mut String, why: &Explanation) {
    let policy = why.policy.as_ref().map_or(String::new(), |policy| {
        format!(" Bound by the policy {}.", policy.name.as_ref().unwrap_or(&policy.id))
    });
    let _ = write!(
        out,
        "<p>{}{}</p><div class=\"wide\"><table class=\"paths\"><thead>\
         <tr><th class=\"l\" rowspan=\"2\">path</th><th rowspan=\"2\">metric ms</th>\
         <th colspan=\"6\">of which, in ms</th><th rowspan=\"2\">loss %</th>\
         <th class=\"l\" rowspan=\"2\">why</th></tr>\
         <tr><th>delay</th><th>jitter</th><th>recovery</th><th>residual loss</th><th>capacity</th>\
         <th>relays</th></tr></thead><tbody>",
        escaped(&why.summary),
        escaped(&policy),
    );
    if let Some(chosen) = &why.chosen {
        path_row(out, &chosen.path, "in use");
    }
    // The backup and the direct link may be among the alternates: each path has one row.
    let backup = why.backup.as_ref();
    let direct = why.direct.as_ref().and_then(|direct| direct.path.as_ref());
    let is =
        |path: Option<&PathView>, other: &PathView| path.is_some_and(|it| it.pops == other.pops);
    if let Some(path) = backup.filter(|path| !is(direct, path)) {
        let rejected = why.alternates.iter().find(|other| other.path.pops == path.pops);
        let why = rejected.map_or(String::new(), |other| format!(": {}", other.why));
        path_row(out, path, &format!("the backup{why}"));
    }
    for other in &why.alternates {
        if !is(backup, &other.path) && !is(direct, &other.path) {
            path_row(out, &other.path, &other.why);
        }
    }
    if let Some(direct) = &why.direct {
        match &direct.path {
            Some(path) => {
                let role = if is(backup, path) { ", the backup" } else { "" };
                path_row(out, path, &format!("the direct link{role}: {}", direct.why));
            }
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
    if !why.excluded.is_empty() {
        let shown = why.excluded.iter().take(MOST_EXCLUDED);
        let shown = shown.map(|relay| format!("{} ({})", relay.pop, relay.why));
        let more = why.excluded.len().saturating_sub(MOST_EXCLUDED);
        let more = (more > 0).then(|| format!("{more} more"));
        let all = shown.chain(more).collect::<Vec<_>>().join(", ");
        let _ = write!(out, "<p class=\"soft\">Not visited: {}.</p>", escaped(&all));
    }
}

fn path_row(out: &mut String, path: &PathView, why: &str) {
    let pops = path.pops.iter().map(|pop| pop.as_str()).collect::<Vec<_>>().join(" &gt; ");
    let terms = &path.terms;
    let _ = write!(out, "<tr><td class=\"l w\">{pops}</td><td>{:.1}</td>", path.total_ms);
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
