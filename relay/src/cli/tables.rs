//! Answers as tables for people: aligned, units in the header, colour only on a terminal.

use comfy_table::{Cell, CellAlignment, Color, Table};

use crate::api::types::{
    Flow, Flows, Hop, Link, Links, Ping, Route, Routes, Services, Status, Trace, Way,
};

/// What stands where nothing is known.
const NOTHING: &str = "-";

/// A table whose columns are named; those that end in a unit or `#` hold numbers and stand right.
pub(super) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        table.force_no_tty();
    }
    table.set_header(columns.iter().map(|name| name.trim_end_matches('#')));
    for (column, name) in table.column_iter_mut().zip(columns) {
        column.set_padding((0, 2));
        if name.ends_with([')', '#']) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

pub(super) fn text(table: &Table) -> String {
    let lines = table.to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.into(), number)
}

fn percent(share: f64) -> String {
    format!("{:.2}", share * 100.0)
}

/// `fra > bah > sgp`
pub(super) fn path<S: AsRef<str>>(pops: &[S]) -> String {
    if pops.is_empty() {
        return NOTHING.into();
    }
    pops.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" > ")
}

fn or_nothing(text: Option<&String>) -> String {
    text.map_or_else(|| NOTHING.into(), Clone::clone)
}

pub(super) fn status(status: &Status) -> String {
    let labels = &status.labels;
    let labels = [&labels.region, &labels.country, &labels.provider];
    let labels: Vec<&str> = labels.into_iter().flatten().map(String::as_str).collect();
    let state = match &status.not_ready {
        Some(why) => format!("{}, not ready: {why}", status.state),
        None => status.state.clone(),
    };
    let uptime = std::time::Duration::try_from_secs_f64(status.uptime_s.floor());
    let uptime =
        uptime.map_or_else(|_| NOTHING.into(), |it| humantime::format_duration(it).to_string());
    let mut out = String::new();
    for (name, value) in [
        ("relay", status.node.clone()),
        ("state", state),
        ("up for", uptime),
        ("version", status.version.clone()),
        ("addresses", status.addresses.join(", ")),
        ("labels", if labels.is_empty() { NOTHING.into() } else { labels.join(", ") }),
        ("certificate until", status.certificate_until.clone()),
        ("members", status.members.to_string()),
        ("links", format!("{} of {} up", status.links_up, status.links)),
        (
            "flows",
            format!("{} enter here, {} leave here", status.flows_ingress, status.flows_egress),
        ),
        ("tunnels", status.tunnels.to_string()),
        ("services", status.services.to_string()),
    ] {
        out += &format!("{name:<19}{value}\n");
    }
    for warning in &status.warnings {
        out += &format!("warning: {warning}\n");
    }
    out
}

fn state_cell(state: &str) -> Cell {
    let cell = Cell::new(state);
    match state {
        "up" | "open" => cell.fg(Color::Green),
        "down" | "refused" => cell.fg(Color::Red),
        "suspect" => cell.fg(Color::Yellow),
        _ => cell,
    }
}

pub(super) fn links(links: &Links) -> String {
    if links.links.is_empty() {
        return format!("{} has no links; name a relay to dial in overlay.peers\n", links.node);
    }
    let mut table = table(&[
        "neighbour",
        "state",
        "use",
        "rtt (ms)",
        "delay tx (ms)",
        "delay rx (ms)",
        "jitter tx (ms)",
        "loss tx (%)",
        "loss rx (%)",
        "load (Mbit/s)",
        "rate (Mbit/s)",
        "recovered rx#",
        "lost rx#",
        "mtu (B)",
        "address",
    ]);
    for link in &links.links {
        table.add_row(link_row(link));
    }
    text(&table)
}

fn link_row(link: &Link) -> Vec<Cell> {
    let recovered = link.counters.repeated_rx.saturating_add(link.counters.decoded_rx);
    vec![
        Cell::new(&link.neighbour),
        state_cell(&link.state),
        Cell::new(if link.hot { "hot" } else { "cold" }),
        Cell::new(maybe(link.rtt_ms)),
        Cell::new(maybe(link.delay_tx_ms)),
        Cell::new(maybe(link.delay_rx_ms)),
        Cell::new(number(link.jitter_tx_ms)),
        Cell::new(percent(link.loss_tx)),
        Cell::new(percent(link.loss_rx)),
        Cell::new(number(link.load_mbps)),
        Cell::new(number(link.rate_mbps)),
        Cell::new(recovered),
        Cell::new(link.counters.lost_rx),
        Cell::new(link.mtu_bytes),
        Cell::new(&link.address),
    ]
}

fn way(way: Option<&Way>) -> String {
    way.map_or_else(|| NOTHING.into(), |way| path(&way.path))
}

pub(super) fn routes(routes: &Routes) -> String {
    if routes.routes.is_empty() {
        return format!("{} knows no other relay yet; see `tradewind links`\n", routes.node);
    }
    let mut table = table(&["to", "policy", "path", "delay (ms)", "backup", "backup delay (ms)"]);
    for route in &routes.routes {
        table.add_row([
            route.to.clone(),
            or_nothing(route.policy.as_ref()),
            path(&route.path),
            maybe(route.delay_ms),
            way(route.backup.as_ref()),
            maybe(route.backup.as_ref().map(|backup| backup.delay_ms)),
        ]);
    }
    text(&table)
}

pub(super) fn route(route: &Route) -> String {
    let mut ways = vec![("in use", route.primary.as_ref()), ("backup", route.backup.as_ref())];
    for one in route.pair.iter().flatten() {
        ways.push(("disjoint pair", Some(one)));
    }
    let mut table = table(&["", "path", "delay (ms)"]);
    for (name, way) in ways {
        let Some(Way { path: pops, delay_ms }) = way else { continue };
        table.add_row([name.to_owned(), path(pops), number(*delay_ms)]);
    }
    let to = or_nothing(route.service.as_ref().or(route.to.as_ref()));
    let at = match (&route.service, &route.to) {
        (Some(_), Some(pop)) => format!(" at {pop}"),
        _ => String::new(),
    };
    let policy = route.policy.as_ref().map_or(String::new(), |it| format!(" under policy {it}"));
    let head = format!("from {} to {to}{at}{policy}\n", route.node);
    if table.row_count() == 0 { head } else { head + &text(&table) }
}

pub(super) fn flows(flows: &Flows) -> String {
    if flows.flows.is_empty() {
        return format!("no flow enters or leaves the overlay at {}\n", flows.node);
    }
    let mut table = table(&[
        "flow",
        "end",
        "source",
        "service",
        "peer",
        "state",
        "class",
        "path tx",
        "sent#",
        "received#",
        "dropped#",
        "idle (s)",
    ]);
    for flow in &flows.flows {
        table.add_row(flow_row(flow));
    }
    let mut out = text(&table);
    for flow in &flows.flows {
        if let Some(why) = &flow.blocked {
            out += &format!("{}: blocked: {why}\n", flow.id);
        }
        for warning in &flow.warnings {
            out += &format!("{}: warning: {warning}\n", flow.id);
        }
    }
    if flows.total > flows.flows.len() {
        out += &format!("{} of {} shown; more with --limit\n", flows.flows.len(), flows.total);
    }
    out
}

fn flow_row(flow: &Flow) -> Vec<Cell> {
    let port = if flow.port_offset == 0 { String::new() } else { format!("+{}", flow.port_offset) };
    let dropped = flow.drops.values().fold(0u64, |sum, &n| sum.saturating_add(n));
    vec![
        Cell::new(&flow.id),
        Cell::new(&flow.end),
        Cell::new(or_nothing(flow.source.as_ref())),
        Cell::new(format!("{}{port}", flow.service)),
        Cell::new(or_nothing(flow.peer.as_ref())),
        state_cell(&flow.state),
        Cell::new(&flow.class),
        Cell::new(path(&flow.path_tx)),
        Cell::new(flow.packets_tx),
        Cell::new(flow.packets_rx),
        Cell::new(dropped),
        Cell::new(number(flow.idle_s)),
    ]
}

pub(super) fn services(services: &Services) -> String {
    if services.services.is_empty() {
        return "no relay advertises a service; declare one as [[service]] in a configuration\n"
            .into();
    }
    let mut table = table(&["service", "pop", "ports#", "delay (ms)", ""]);
    for service in &services.services {
        for instance in &service.instances {
            let note = match (instance.delay_ms, instance.draining) {
                (None, _) => "cannot be reached",
                (_, true) => "leaving",
                _ => "",
            };
            table.add_row([
                service.name.clone(),
                instance.pop.clone(),
                instance.ports.to_string(),
                maybe(instance.delay_ms),
                note.into(),
            ]);
        }
    }
    text(&table)
}

pub(super) fn trace(trace: &Trace) -> String {
    let mut table = table(&[
        "hop#",
        "pop",
        "sent#",
        "answered#",
        "loss (%)",
        "rtt min (ms)",
        "mean (ms)",
        "max (ms)",
    ]);
    for (number, hop) in (1..).zip(&trace.hops) {
        table.add_row(hop_row(number, hop));
    }
    format!("from {} to {}\n{}", trace.node, trace.to, text(&table))
}

fn hop_row(number: u32, hop: &Hop) -> Vec<String> {
    let lost = f64::from(hop.sent.saturating_sub(hop.received)) / f64::from(hop.sent.max(1));
    vec![
        number.to_string(),
        hop.pop.clone(),
        hop.sent.to_string(),
        hop.received.to_string(),
        percent(lost),
        maybe(hop.rtt_min_ms),
        maybe(hop.rtt_mean_ms),
        maybe(hop.rtt_max_ms),
    ]
}

/// One line for one round trip.
pub(super) fn ping(ping: &Ping) -> String {
    match ping.rtt_ms {
        Some(rtt) => format!("{}: {rtt:.2} ms over {}\n", ping.to, path(&ping.path)),
        None => format!("{}: no answer over {}\n", ping.to, path(&ping.path)),
    }
}

/// The sum of several.
pub(super) fn pings(pings: &[Ping]) -> String {
    let rtts: Vec<f64> = pings.iter().filter_map(|ping| ping.rtt_ms).collect();
    let head = format!("{} sent, {} answered", pings.len(), rtts.len());
    if rtts.is_empty() {
        return format!("{head}\n");
    }
    let least = rtts.iter().copied().fold(f64::INFINITY, f64::min);
    let most = rtts.iter().copied().fold(0.0, f64::max);
    let mean = rtts.iter().sum::<f64>() / rtts.len() as f64;
    format!("{head}; round trip {least:.2} / {mean:.2} / {most:.2} ms (min / mean / max)\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let link = |neighbour: &str, rtt_ms| Link {
            neighbour: neighbour.into(),
            state: "up".into(),
            rtt_ms,
            mtu_bytes: 1452,
            address: "192.0.2.1:7400".into(),
            ..Link::default()
        };
        let links = Links {
            node: "fra".into(),
            links: vec![link("sgp", Some(183.25)), link("a-long-name", None)],
        };
        let text = super::links(&links);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("neighbour    state  use   rtt (ms)"), "{text}");
        assert!(lines[1].starts_with("sgp          up     cold     183.2"), "{text}");
        assert!(lines[2].starts_with("a-long-name  up     cold         -"), "{text}");
    }

    #[test]
    fn round_trips_are_summed_up() {
        let one = |rtt_ms| Ping {
            to: "sgp".into(),
            path: vec!["fra".into(), "sgp".into()],
            rtt_ms,
            ..Ping::default()
        };
        assert_eq!(ping(&one(Some(1.0))), "sgp: 1.00 ms over fra > sgp\n");
        assert_eq!(
            pings(&[one(Some(1.0)), one(None), one(Some(3.0))]),
            "3 sent, 2 answered; round trip 1.00 / 2.00 / 3.00 ms (min / mean / max)\n"
        );
        assert_eq!(pings(&[one(None)]), "1 sent, 0 answered\n");
    }
}
