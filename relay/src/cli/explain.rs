//! The router's account of a route, for people.
//!
//! Reads the explanation as the API sends it, so that it works against a relay of another
//! version: what is missing there is left out here.

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use super::tables::path;

#[derive(Debug, Deserialize)]
struct Explanation {
    from: String,
    to: String,
    pop: Option<String>,
    policy: Option<Policy>,
    summary: String,
    chosen: Option<Chosen>,
    backup: Option<PathView>,
    #[serde(default)]
    alternates: Vec<Rejected>,
    direct: Option<Direct>,
    #[serde(default)]
    excluded: Vec<Excluded>,
    #[serde(default)]
    instances: Vec<Instance>,
}

#[derive(Debug, Deserialize)]
struct Policy {
    id: String,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Chosen {
    #[serde(flatten)]
    path: PathView,
    age_ms: u64,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct PathView {
    pops: Vec<String>,
    total_ms: f64,
    #[serde(default)]
    terms: Terms,
    #[serde(default)]
    loss: f64,
    residual_loss: Option<f64>,
    #[serde(default)]
    links: Vec<LinkView>,
}

#[derive(Debug, Deserialize)]
struct LinkView {
    from: String,
    to: String,
    total_ms: f64,
    #[serde(default)]
    terms: Terms,
    rtt_ms: f64,
    loss: f64,
    burst: f64,
    residual_loss: Option<f64>,
    redundancy: Option<f64>,
    #[serde(default)]
    suspect: bool,
}

/// What contributes to the metric.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Terms {
    delay_ms: f64,
    jitter_ms: f64,
    recovery_ms: f64,
    residual_loss_ms: f64,
    redundancy_ms: f64,
    capacity_ms: f64,
    relay_ms: f64,
    operator_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    #[serde(flatten)]
    path: PathView,
    behind_ms: f64,
    why: String,
}

#[derive(Debug, Deserialize)]
struct Direct {
    path: Option<PathView>,
    behind_ms: Option<f64>,
    why: String,
}

#[derive(Debug, Deserialize)]
struct Excluded {
    pop: String,
    why: String,
}

#[derive(Debug, Deserialize)]
struct Instance {
    pop: String,
    ports: u16,
    total_ms: Option<f64>,
    chosen: bool,
    why: String,
}

pub(super) fn text(explanation: &Value) -> anyhow::Result<String> {
    let explanation = Explanation::deserialize(explanation)
        .context("the relay's explanation is of another version; see it with --json")?;
    let mut out = head(&explanation);
    let mut table = super::tables::table(&[
        "metric",
        "total (ms)",
        "delay",
        "jitter",
        "repair",
        "residual loss",
        "redundancy",
        "capacity",
        "relays",
        "operator",
        "rtt (ms)",
        "loss (%)",
        "burst#",
        "lost for good (%)",
        "sent/data",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    for (name, path) in paths(&explanation) {
        path_rows(&mut table, &name, path);
    }
    if table.row_count() > 0 {
        out += &format!("\n{}", super::tables::text(&table));
    }
    out += &others(&explanation);
    Ok(out)
}

fn head(explanation: &Explanation) -> String {
    let Explanation { from, to, pop, policy, summary, chosen, .. } = explanation;
    let at =
        pop.as_ref().filter(|pop| *pop != to).map_or(String::new(), |pop| format!(" at {pop}"));
    let under = policy.as_ref().map_or(String::new(), |Policy { id, name }| {
        format!(" under policy {}", name.as_ref().unwrap_or(id))
    });
    let mut out = format!("from {from} to {to}{at}{under}\n{summary}\n");
    if let Some(Chosen { age_ms, reason, .. }) = chosen {
        let age = std::time::Duration::from_secs(age_ms / 1000);
        out += &format!("in use for {}, {}\n", humantime::format_duration(age), because(reason));
    }
    out
}

fn because(reason: &str) -> &str {
    match reason {
        "first" => "the first path known",
        "gone" => "taken because the one before was gone",
        "suspect" => "taken because the first link of the one before fell silent",
        "harm" => "taken because the one before was worse than the direct link",
        "fresh" => "taken as the best while the destination or a link was new",
        "bad" => "taken because the one before had turned bad",
        "better" => "taken because it had been better for a while",
        other => other,
    }
}

/// Every path with figures, the one in use first.
fn paths(explanation: &Explanation) -> Vec<(String, &PathView)> {
    let Explanation { chosen, backup, alternates, direct, .. } = explanation;
    let mut all: Vec<(String, &PathView)> = Vec::new();
    let mut add = |name: &str, view| all.push((name.into(), view));
    if let Some(chosen) = chosen {
        add("in use", &chosen.path);
    }
    if let Some(backup) = backup {
        add("backup", backup);
    }
    for alternate in alternates {
        add("not in use", &alternate.path);
    }
    if let Some(view) = direct.as_ref().and_then(|direct| direct.path.as_ref()) {
        // The direct link is often among the alternates.
        if !alternates.iter().any(|alternate| alternate.path.pops == view.pops) {
            add("not in use", view);
        }
    }
    all
}

fn path_rows(table: &mut comfy_table::Table, name: &str, view: &PathView) {
    let mut sum = vec![format!("{name}: {}", path(&view.pops)), number(view.total_ms)];
    sum.extend(terms(&view.terms));
    let blank = String::new;
    sum.extend([blank(), percent(view.loss), blank(), for_good(view.residual_loss), blank()]);
    table.add_row(sum);
    for link in &view.links {
        let suspect = if link.suspect { " (suspect)" } else { "" };
        let mut row = vec![format!("  {} > {}{suspect}", link.from, link.to)];
        row.push(number(link.total_ms));
        row.extend(terms(&link.terms));
        row.extend([number(link.rtt_ms), percent(link.loss), number(link.burst)]);
        let sent = link.redundancy.map(|redundancy| format!("{:.2}", 1.0 + redundancy));
        row.extend([for_good(link.residual_loss), sent.unwrap_or("-".into())]);
        table.add_row(row);
    }
}

fn terms(terms: &Terms) -> [String; 8] {
    let Terms {
        delay_ms,
        jitter_ms,
        recovery_ms,
        residual_loss_ms,
        redundancy_ms,
        capacity_ms,
        relay_ms,
        operator_ms,
    } = *terms;
    [
        delay_ms,
        jitter_ms,
        recovery_ms,
        residual_loss_ms,
        redundancy_ms,
        capacity_ms,
        relay_ms,
        operator_ms,
    ]
    .map(number)
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

fn percent(share: f64) -> String {
    format!("{:.2}", share * 100.0)
}

/// What is expected to stay lost: shares of a millionth count, and older relays say nothing of it.
fn for_good(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.4}", share * 100.0))
}

/// Why the others are not in use.
fn others(explanation: &Explanation) -> String {
    let Explanation { alternates, direct, excluded, instances, .. } = explanation;
    let mut out = String::new();
    let rejected = alternates.iter().map(|Rejected { path: view, behind_ms, why }| {
        format!("{} ({behind_ms:+.1} ms): {why}", path(&view.pops))
    });
    section(&mut out, "not in use", rejected);
    let direct = direct.iter().map(|Direct { behind_ms, why, .. }| {
        let behind = behind_ms.map_or(String::new(), |behind| format!(" ({behind:+.1} ms)"));
        format!("direct link{behind}: {why}")
    });
    section(&mut out, "the direct link", direct);
    let excluded = excluded.iter().map(|Excluded { pop, why }| format!("{pop}: {why}"));
    section(&mut out, "excluded", excluded);
    let instances = instances.iter().map(|Instance { pop, ports, total_ms, chosen, why }| {
        let mark = if *chosen { ">" } else { " " };
        let total = total_ms.map_or("-".into(), |total| format!("{total:.1} ms"));
        let ports = if *ports == 1 { String::new() } else { format!(", {ports} ports") };
        format!("{mark} {pop} ({total}{ports}): {why}")
    });
    section(&mut out, "instances", instances);
    out
}

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.map(|line| format!("  {line}\n")).collect();
    if !lines.is_empty() {
        *out += &format!("\n{title}\n{}", lines.concat());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(pops: &[&str], total: f64) -> Value {
        let link = json!({
            "from": pops[0], "to": pops[1], "total_ms": total, "rtt_ms": 60.0, "loss": 0.03,
            "burst": 2.0, "residual_loss": 0.000021, "redundancy": 0.13, "capacity_kbps": null, "load_kbps": 0, "suspect": false,
            "terms": { "delay_ms": 30.0, "jitter_ms": 1.0, "recovery_ms": 2.2 },
        });
        json!({ "pops": pops, "total_ms": total, "loss": 0.03, "terms": {}, "links": [link] })
    }

    #[test]
    fn an_explanation_is_told() {
        let mut chosen = view(&["fra", "bah", "sgp"], 66.5);
        chosen["age_ms"] = json!(12_345);
        chosen["reason"] = json!("bad");
        let mut alternate = view(&["fra", "sgp"], 156.0);
        alternate["behind_ms"] = json!(89.5);
        alternate["why"] = json!("it costs more");
        let explanation = json!({
            "from": "fra", "to": "sfu", "pop": "sgp",
            "policy": { "id": "12345678", "name": "eu-only" },
            "summary": "fra > bah > sgp, 66.5 ms",
            "chosen": chosen, "backup": null, "alternates": [alternate],
            "direct": { "path": null, "behind_ms": 89.5, "why": "it costs more" },
            "excluded": [{ "pop": "nyc", "why": "its region US is not allowed" }],
            "instances": [{ "pop": "sgp", "ports": 1, "total_ms": 66.5, "chosen": true, "why": "nearest" }],
        });
        let text = text(&explanation).unwrap();
        for line in [
            "from fra to sfu at sgp under policy eu-only",
            "in use for 12s, taken because the one before had turned bad",
            "  fra > sgp (+89.5 ms): it costs more",
            "  nyc: its region US is not allowed",
            "  > sgp (66.5 ms): nearest",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("in use: fra > bah > sgp"), "{text}");
        let link = text.lines().find(|line| line.contains("fra > bah  ")).unwrap();
        let figures: Vec<&str> = link.split_whitespace().rev().take(5).collect();
        assert_eq!(figures, ["1.13", "0.0021", "2.0", "3.00", "60.0"], "{text}");
    }

    #[test]
    fn one_without_a_route_is_told_too() {
        let explanation = json!({
            "from": "fra", "to": "sgp", "pop": "sgp", "policy": null,
            "summary": "no way is allowed", "chosen": null, "backup": null, "direct": null,
        });
        assert_eq!(text(&explanation).unwrap(), "from fra to sgp\nno way is allowed\n");
        assert!(text(&json!({ "from": 1 })).is_err());
    }
}
