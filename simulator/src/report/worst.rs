//! The pairs of PoPs that did worst, and why.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::html::{counted, escaped, lost_share, ms, percent};
use super::routes::Routes;
use crate::outcome::{FlowOutcome, Outcome};

/// Pairs that are listed.
const MOST: usize = 10;
/// Links that are named as a reason.
const MOST_LINKS: usize = 3;

/// The section of the page.
pub(super) fn section(outcome: &Outcome, routes: &Routes<'_>) -> String {
    let worst = worst(outcome);
    let title = match worst.len() {
        0 => {
            return "<section><h2>The worst pairs</h2><p>Every packet of every pair of PoPs came in \
                    time.</p></section>"
                .into();
        }
        1 => "The worst pair, and why".into(),
        pairs => format!("The worst {pairs} pairs, and why"),
    };
    let mut out = format!(
        "<section><h2>{title}</h2><div class=\"wide\"><table class=\"worst\"><thead><tr>\
         <th class=\"l\">from &gt; to</th><th>in time %</th><th>99th ms</th><th>deadline ms</th>\
         <th>lost %</th><th class=\"l\">why</th></tr></thead><tbody>",
    );
    for flow in worst {
        let pair = format!("{} > {}", flow.traffic.from, flow.traffic.to);
        let _ = write!(
            out,
            "<tr><td class=\"l\">{}</td><td>{}</td><td>{}</td><td>{:.0}</td><td>{:.3}</td>\
             <td class=\"l w\">{}</td></tr>",
            routes.link(flow, &pair),
            percent(flow.overlay.in_time_share(), 3),
            ms(flow.overlay.delay_p99_ms()),
            flow.traffic.deadline.as_secs_f64() * 1e3,
            lost_share(&flow.overlay) * 100.0,
            escaped(&reasons(flow, outcome).join("; ")),
        );
    }
    out + "</tbody></table></div></section>"
}

/// The flows of which most was lost or late, one of each pair of ends; none that came in time.
fn worst(outcome: &Outcome) -> Vec<&FlowOutcome> {
    let missed = |flow: &&FlowOutcome| flow.overlay.in_time < flow.overlay.sent;
    let mut flows: Vec<&FlowOutcome> = outcome.flows.iter().filter(missed).collect();
    flows.sort_by(|a, b| a.overlay.in_time_share().total_cmp(&b.overlay.in_time_share()));
    let mut seen = BTreeSet::new();
    flows.retain(|flow| seen.insert((&flow.traffic.from, &flow.traffic.to)));
    flows.truncate(MOST);
    flows
}

/// What stood in the way of a flow, as far as the run shows it.
fn reasons(flow: &FlowOutcome, outcome: &Outcome) -> Vec<String> {
    let mut reasons = Vec::new();
    let (report, traffic) = (&flow.overlay, &flow.traffic);
    let ends = flow.routes.iter().skip(1).map(|route| route.at).chain([outcome.lasted]);
    let without = flow.routes.iter().zip(ends).filter(|(route, _)| route.path.is_none());
    let without: Duration = without.map(|(route, until)| until.saturating_sub(route.at)).sum();
    if !without.is_zero() {
        reasons.push(format!("no route for {:.1} s", without.as_secs_f64()));
    }
    if let Some(fastest) = report.delays.quantile(0.0).filter(|it| *it > traffic.deadline) {
        let fastest = fastest.as_secs_f64() * 1e3;
        reasons.push(format!("too far for the deadline: the fastest packet took {fastest:.0} ms"));
    } else if report.delivered > report.in_time {
        let share = (report.delivered - report.in_time) as f64 / report.sent.max(1) as f64;
        reasons.push(format!("{:.2} % came, but late", share * 100.0));
    }
    if report.longest_gap > traffic.interval * 4 + Duration::from_millis(20) {
        let gap = report.longest_gap.as_secs_f64() * 1e3;
        reasons.push(format!("nothing in time for {gap:.0} ms at a stretch"));
    }
    reasons.extend(lossy_links(flow, outcome));
    let changes = flow.routes.len().saturating_sub(1);
    if changes > 0 {
        reasons.push(counted(changes, "change") + " of route");
    }
    if reasons.is_empty() {
        reasons.push("losses here and there".into());
    }
    reasons
}

/// The links of the flow's routes that dropped most, in words.
fn lossy_links(flow: &FlowOutcome, outcome: &Outcome) -> Vec<String> {
    let paths = flow.routes.iter().filter_map(|route| route.path.as_ref());
    let used: BTreeSet<(&str, &str)> = paths
        .flat_map(|path| path.windows(2).map(|hop| (hop[0].as_str(), hop[1].as_str())))
        .collect();
    let mut links: Vec<(f64, String)> = Vec::new();
    for link in &outcome.links {
        let (from, to) = (link.link.0.as_str(), link.link.1.as_str());
        let counters = &link.counters;
        let share = |part: u64| part as f64 / counters.offered.max(1) as f64;
        if used.contains(&(from, to)) && share(counters.dropped()) >= 0.005 {
            let (full, down) = (share(counters.queue_full), share(counters.down));
            let why = match (full > 0.002, down > 0.002) {
                (true, true) => ", its queue was full, or it was down",
                (true, false) => ", its queue was full",
                (false, true) => ", it was down for a while",
                (false, false) => "",
            };
            let loss = share(counters.dropped());
            links.push((loss, format!("{from} > {to} dropped {:.1} %{why}", loss * 100.0)));
        }
    }
    links.sort_by(|a, b| b.0.total_cmp(&a.0));
    links.into_iter().take(MOST_LINKS).map(|(_, reason)| reason).collect()
}
