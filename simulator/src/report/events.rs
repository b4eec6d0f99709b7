//! What happened, as lines of JSON.

use std::fmt::Write;

use serde_json::{Value, json};
use tradewind_proto::link::Liveness;

use crate::outcome::Outcome;

/// `events.ndjson`: events of the world, changes of routes, and links that relays found silent or
/// back; the earliest first.
pub(super) fn ndjson(outcome: &Outcome) -> String {
    let millis = |at: std::time::Duration| at.as_secs_f64() * 1e3;
    let mut lines: Vec<(std::time::Duration, Value)> = Vec::new();
    for (at, what) in &outcome.happened {
        lines.push((*at, json!({ "at_ms": millis(*at), "kind": "event", "what": what })));
    }
    for flow in &outcome.flows {
        for route in flow.routes.iter().skip(1) {
            let line = json!({
                "at_ms": millis(route.at),
                "kind": "route",
                "flow": flow.traffic.name,
                "path": route.path,
            });
            lines.push((route.at, line));
        }
    }
    for change in &outcome.liveness {
        let line = json!({
            "at_ms": millis(change.at),
            "kind": "link",
            "from": change.link.0,
            "to": change.link.1,
            "state": state_name(change.state),
        });
        lines.push((change.at, line));
    }
    lines.sort_by_key(|(at, _)| *at);
    lines.iter().fold(String::new(), |mut text, (_, line)| {
        let _ = writeln!(text, "{line}");
        text
    })
}

fn state_name(state: Liveness) -> &'static str {
    match state {
        Liveness::Starting => "starting",
        Liveness::Up => "up",
        Liveness::Suspect => "suspect",
        Liveness::Down => "down",
    }
}
